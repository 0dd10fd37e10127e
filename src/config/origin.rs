//! Where a configuration comes from.

use std::path::PathBuf;

/// A file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// One to be read.
    Path(PathBuf),
    /// One that is there already.
    Text {
        /// Its name in problems.
        name: String,
        /// Its TOML.
        text: String,
    },
}

/// A configuration's files and environment.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The files; later ones override earlier ones.
    pub files: Vec<ConfigFile>,
    /// The environment: `HOOKBRIDGE__SECTION__KEY` and what `${NAME}` and `{ env = "NAME" }` refer to.
    pub environment: Vec<(String, String)>,
}
