//! Turns TOML into a checked and immutable [`Config`]: every name is resolved, every template parsed, every key
//! prepared. It is data and starts nothing. Providers and brokers define and read the keys of their own
//! tables.

mod brokers;
mod changes;
mod check;
#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod mistakes;
mod model;
mod needs;
mod origin;
mod reach;
mod routes;
mod schema;
mod sources;
mod strays;
mod tables;
mod template;
#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use crate::table::{Files, Problems, Secrets};

pub use changes::{Changes, Digests};
pub use model::{
    Action, Admin, BrokerId, Config, Destination, FailurePolicy, Forwarding, Http, NamedBroker,
    ReadyWhen, Route, RouteId, Routes, Source, TypedSchema,
};
pub(crate) use origin::MAX_FILE;
pub use origin::{ConfigFile, Origin};
pub use schema::json_schema;
pub(crate) use schema::reference;
pub use template::{Part, Template};
pub use tls::Tls;
pub(crate) use tls::{HTTP2, dns_names};
pub use transport::{FixedBody, RateLimit};

impl Origin {
    /// Reads, merges and validates the files and the environment.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load(&self) -> Result<Config, Problems> {
        self.load_with_files().0
    }

    /// Like [`Self::load`], without the sources' secrets, for commands that verify nothing: such a configuration never
    /// treats a request as authentic.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load_without_signing_secrets(&self) -> Result<Config, Problems> {
        check::load(self, Secrets::WithoutSigning).0
    }

    /// Like [`Self::load`], and only warns of secrets whose variables or files are missing, for a check where they are
    /// not. Such a configuration must not run.
    ///
    /// # Errors
    /// Every other problem found.
    pub fn load_with_missing_secrets(&self) -> Result<Config, Problems> {
        check::load(self, Secrets::MayBeMissing).0
    }

    /// Like [`Self::load`], and returns the files involved, whatever the result.
    pub fn load_with_files(&self) -> (Result<Config, Problems>, Files) {
        check::load(self, Secrets::All)
    }
}

impl Config {
    /// Loads TOML, for tests.
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        let file = ConfigFile::Text {
            name: "test.toml".to_owned(),
            text: text.to_owned(),
        };
        let origin = Origin {
            files: vec![file],
            environment: Vec::new(),
        };
        origin
            .load()
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Loads values, for tests.
    #[cfg(test)]
    pub(crate) fn from_values(
        values: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, Problems> {
        check::from_values(values)
    }
}
