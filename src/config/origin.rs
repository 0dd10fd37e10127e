//! The files and the environment that a configuration is read from.

use std::path::{Path, PathBuf};

use crate::table::private;

/// The prefix of environment variables that override the files.
pub(super) const PREFIX: &str = "HOOKBRIDGE__";
pub(super) const SEPARATOR: &str = "__";

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;

pub(super) fn read_file(file: &Path) -> std::io::Result<String> {
    let opened = private::read(file, MAX_FILE)?;
    Ok(opened.text.to_string())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// A file to be read.
    Path(PathBuf),
    /// Given contents.
    Text {
        /// The name shown in problems.
        name: String,
        /// The TOML text.
        text: String,
    },
}

/// A configuration's files and environment.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The files; later ones override earlier ones.
    pub files: Vec<ConfigFile>,
    /// The environment: `HOOKBRIDGE__SECTION__KEY`, and the variables that `${NAME}` and `{ env = "NAME" }` refer to.
    pub environment: Vec<(String, String)>,
}
