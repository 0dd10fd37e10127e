//! `--log`: what is logged.

use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The target of Hookbridge's own lines.
const OWN: &str = "hookbridge";

/// The most verbose level of other crates that are not named: their `debug` lines help only those who know their code.
const FOREIGN: LevelFilter = LevelFilter::INFO;

/// The module of the NATS client that logs each failed attempt to connect, which the bridge reports once.
const NATS_ATTEMPTS: &str = "async_nats::connector";

/// The module of the NATS client that logs the login at `trace`.
const NATS_CONNECTION: &str = "async_nats::connection";

/// A level for Hookbridge's own lines, and levels by target.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels(Targets);

impl Levels {
    #[must_use]
    pub fn errors() -> Self {
        Self(
            Targets::new()
                .with_default(LevelFilter::ERROR)
                .with_target(NATS_ATTEMPTS, LevelFilter::OFF),
        )
    }

    pub(super) fn into_filter(self) -> Targets {
        self.0
    }
}

impl Default for Levels {
    /// `info,async_nats=warn`: at `info` the NATS client repeats the bridge's lines.
    fn default() -> Self {
        Self(
            Targets::new()
                .with_default(LevelFilter::INFO)
                .with_target("async_nats", LevelFilter::WARN)
                .with_target(NATS_ATTEMPTS, LevelFilter::OFF),
        )
    }
}

/// The reason why `--log` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LevelsError {
    /// A word that is not a level.
    #[error(
        "`{0}` is not a level; write off, error, warn, info, debug or trace, or a list such as `info,hookbridge=debug`"
    )]
    Level(String),
    /// A directive without a valid target.
    #[error("`{0}` has no valid target; write for example `hookbridge=debug`")]
    Target(String),
    /// A level that would log a secret.
    #[error(
        "at `trace` the NATS client writes its password into the log; write `async_nats=debug`"
    )]
    Password,
}

impl FromStr for Levels {
    type Err = LevelsError;

    /// A level, or a list such as `info,hookbridge=debug`. Empty text is the default: Compose files turn an unset variable
    /// into it.
    fn from_str(text: &str) -> Result<Self, LevelsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut general = LevelFilter::INFO;
        let mut named = Vec::new();
        for directive in text.split(',').map(str::trim) {
            match directive.split_once('=') {
                None => general = level(directive)?,
                Some((target, text)) => {
                    let is_target =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
                    let target = target.trim();
                    if target.is_empty() || !target.bytes().all(is_target) {
                        return Err(LevelsError::Target(directive.to_owned()));
                    }
                    named.push((target.to_owned(), level(text.trim())?));
                }
            }
        }
        let wants_nats = named
            .iter()
            .any(|(target, _)| NATS_ATTEMPTS.starts_with(target.as_str()));
        let quiet = (!wants_nats).then(|| (NATS_ATTEMPTS.to_owned(), LevelFilter::OFF));
        let targets = Targets::new()
            .with_default(general.min(FOREIGN))
            .with_target(OWN, general)
            .with_targets(quiet)
            .with_targets(named);
        if targets.would_enable(NATS_CONNECTION, &Level::TRACE) {
            return Err(LevelsError::Password);
        }
        Ok(Self(targets))
    }
}

fn level(text: &str) -> Result<LevelFilter, LevelsError> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let found = levels
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    found
        .map(|(_, level)| level)
        .ok_or_else(|| LevelsError::Level(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(levels: &str, target: &str, level: Level) -> bool {
        let levels: Levels = levels.parse().unwrap();
        levels.0.would_enable(target, &level)
    }

    #[test]
    fn a_level_is_for_hookbridge_and_other_crates_log_at_most_info_unless_named() {
        assert!(enabled("trace", "hookbridge::bridge", Level::TRACE));
        for foreign in ["async_nats", NATS_CONNECTION, "librdkafka", "hyper", "h2"] {
            for levels in ["debug", "trace", "TRACE", "hookbridge=trace,debug"] {
                assert!(
                    !enabled(levels, foreign, Level::DEBUG),
                    "{levels} {foreign}"
                );
            }
            assert!(enabled("debug", foreign, Level::INFO));
            assert!(!enabled("warn", foreign, Level::INFO));
            assert!(enabled(&format!("{foreign}=debug"), foreign, Level::DEBUG));
        }
        assert!(enabled(
            "error,hookbridge=debug",
            "hookbridge",
            Level::DEBUG
        ));
        assert!(!enabled("error,hookbridge=debug", "hyper", Level::WARN));
        assert!(!enabled("off", "hookbridge", Level::ERROR));
    }

    #[test]
    fn each_failed_attempt_of_the_nats_client_is_logged_only_where_it_is_asked_for() {
        for levels in ["", "info", "debug", "hookbridge=debug"] {
            assert!(!enabled(levels, NATS_ATTEMPTS, Level::ERROR), "{levels}");
        }
        assert!(
            !Levels::errors()
                .0
                .would_enable(NATS_ATTEMPTS, &Level::ERROR)
        );
        assert!(enabled("async_nats=debug", NATS_ATTEMPTS, Level::DEBUG));
        assert!(enabled("info", "async_nats", Level::ERROR));
    }

    #[test]
    fn no_levels_at_all_are_the_default() {
        for nothing in ["", "  "] {
            assert_eq!(nothing.parse::<Levels>().unwrap(), Levels::default());
        }
    }

    #[test]
    fn an_unknown_level_is_refused_with_a_suggestion() {
        for wrong in [
            "verbose",
            "info,hookbridge",
            "hookbridge=loud",
            "info,",
            "5",
        ] {
            let error = wrong.parse::<Levels>().unwrap_err().to_string();
            assert!(
                error.contains("is not a level; write off, error"),
                "{error}"
            );
        }
        for wrong in ["=debug", "[span]=debug"] {
            let error = wrong.parse::<Levels>().unwrap_err().to_string();
            assert!(error.contains("has no valid target"), "{error}");
        }
    }

    #[test]
    fn the_nats_clients_password_can_not_be_asked_for() {
        for wrong in [
            "async_nats=trace",
            "info,a=trace",
            "async_nats::connection=trace",
        ] {
            let error = wrong.parse::<Levels>().unwrap_err().to_string();
            assert!(error.contains("async_nats=debug"), "{error}");
        }
        assert!("async_nats::jetstream=trace".parse::<Levels>().is_ok());
    }
}
