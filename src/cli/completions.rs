//! `hookbridge completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Done, Outcome};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    shell: Shell,
}

pub(super) fn run(options: &Options) -> Outcome {
    clap_complete::generate(
        options.shell,
        &mut Arguments::command(),
        "hookbridge",
        &mut std::io::stdout(),
    );
    Ok(Done::Well)
}
