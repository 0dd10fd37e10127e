//! The files and the environment that a configuration is read from.

use std::path::PathBuf;

/// A configuration file.
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
