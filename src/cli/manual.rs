//! `hookbridge manual`: for packages, so it is left out of `--help`.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Arguments, CommandResult, Completion};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The folder for the pages, one for each command; it must exist
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let folder = &options.folder;
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| format!("no manual pages in {}: {error}", folder.display()))?;
    Ok(Completion::Success)
}
