//! `hookbridge completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Completion, Outcome, style};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    shell: Shell,
}

pub(super) fn run(options: &Options) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(
        options.shell,
        &mut Arguments::command(),
        "hookbridge",
        &mut script,
    );
    style::print(String::from_utf8_lossy(&script))?;
    Ok(Completion::Success)
}
