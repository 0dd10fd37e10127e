//! `hookbridge completions`

use clap::builder::PossibleValuesParser;
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Completion, Outcome, style};
use crate::providers::preset::PRESETS;

/// The arguments that name a preset.
const OF_PRESETS: [(&str, &str); 4] = [
    ("demo", "provider"),
    ("init", "provider"),
    ("providers", "name"),
    ("send", "provider"),
];

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    shell: Shell,
}

pub(super) fn run(options: &Options) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command(), "hookbridge", &mut script);
    style::print(String::from_utf8_lossy(&script))?;
    Ok(Completion::Success)
}

/// The commands, with the presets' names for completion only: an unknown name gets a better message than clap's.
fn command() -> Command {
    OF_PRESETS
        .into_iter()
        .fold(Arguments::command(), |command, (name, argument)| {
            if command.find_subcommand(name).is_none() {
                return command;
            }
            let names = PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name));
            command.mut_subcommand(name, |command| {
                command.mut_arg(argument, |argument| argument.value_parser(names))
            })
        })
}
