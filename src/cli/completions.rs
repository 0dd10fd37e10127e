//! `hookbridge completions`

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, CommandResult, Completion, ConfigFiles, style};
use crate::providers::preset::PRESETS;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    shell: Shell,
    #[command(flatten)]
    files: ConfigFiles,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let mut command = with_names(Arguments::command(), &Names::of(&options.files));
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "hookbridge", &mut script);
    style::print(String::from_utf8_lossy(&script))?;
    Ok(Completion::Success)
}

/// The names that arguments take: those of this program, and those of the configuration that is there when the script is
/// printed. A shell that runs the command at its start knows them as they are then.
#[derive(Debug, Default)]
struct Names {
    providers: Vec<String>,
    samples: Vec<String>,
    sources: Vec<String>,
    brokers: Vec<String>,
    topics: Vec<String>,
}

impl Names {
    fn of(files: &ConfigFiles) -> Self {
        let samples = PRESETS.iter().flat_map(|preset| preset.samples());
        let mut names = Self {
            providers: PRESETS
                .iter()
                .map(|preset| preset.name.to_owned())
                .collect(),
            samples: samples.map(|sample| sample.event_type).collect(),
            ..Self::default()
        };
        names.samples.sort();
        names.samples.dedup();
        // A configuration with a problem, or none, has no names to offer.
        if let Ok(config) = files.load_without_signing_secrets() {
            names.sources = config
                .sources
                .iter()
                .map(|source| source.name.clone())
                .collect();
            names.brokers = config
                .brokers
                .iter()
                .map(|broker| broker.name.clone())
                .collect();
            let topics = config
                .broker_ids()
                .flat_map(|id| config.known_destinations(id));
            names.topics = topics.collect();
            names.topics.sort();
            names.topics.dedup();
        }
        names
    }
}

/// The commands with these names, for completion only: an unknown name gets a better message than clap's.
fn with_names(mut command: Command, names: &Names) -> Command {
    for (subcommand, argument, values) in [
        ("send", "provider", &names.providers),
        ("send", "source", &names.sources),
        ("send", "sample", &names.samples),
        ("demo", "provider", &names.providers),
        ("init", "provider", &names.providers),
        ("providers", "name", &names.providers),
        ("explain", "source", &names.sources),
        ("tail", "topics", &names.topics),
        ("tail", "broker", &names.brokers),
        ("replay", "from", &names.topics),
        ("replay", "to", &names.topics),
        ("replay", "broker", &names.brokers),
        ("replay", "to_broker", &names.brokers),
        ("provision", "broker", &names.brokers),
    ] {
        let has_argument = |command: &Command| {
            command
                .get_arguments()
                .any(|known| known.get_id() == argument)
        };
        let is_there = command
            .find_subcommand(subcommand)
            .is_some_and(has_argument);
        if is_there && !values.is_empty() {
            let known = |known: Arg| known.value_parser(PossibleValuesParser::new(values.clone()));
            command =
                command.mut_subcommand(subcommand, |command| command.mut_arg(argument, known));
        }
    }
    command
}
