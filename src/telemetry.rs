//! Logs: for people on a terminal, as JSON otherwise; always to standard error.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use crate::printable::printable;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `levels` is a level, or a list such as `info,hookbridge=debug`.
///
/// # Errors
/// What is wrong with `levels`.
pub fn start(format: Option<LogFormat>, levels: &str) -> Result<(), ParseError> {
    let is_terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::builder().parse(levels)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Human
    } else {
        LogFormat::Json
    });
    // A second start in one process (the tests') leaves the first one's choice.
    let _already_started = match format {
        LogFormat::Human => builder
            .with_target(false)
            .with_ansi(is_terminal)
            .fmt_fields(printable_fields())
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    Ok(())
}

/// Fields as tracing-subscriber writes them, with what is unprintable in a value escaped: nothing that a sender or a broker
/// wrote begins a line of its own.
fn printable_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => writer.write_str(&printable(&value)),
            name => write!(writer, "{name}={}", printable(&value)),
        }
    })
    .delimited(" ")
}

/// Lets one line a second through.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Passed>);

#[derive(Debug, Default)]
struct Passed {
    last: Option<Instant>,
    suppressed: u64,
}

impl Gate {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// How many lines were held back since the last one, if this one may pass.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed
            .last
            .is_some_and(|last| last.elapsed() < Self::INTERVAL)
        {
            passed.suppressed += 1;
            return None;
        }
        passed.last = Some(Instant::now());
        Some(std::mem::take(&mut passed.suppressed))
    }
}

/// What a sender wrote, for a log line: escaped, and no longer than 128 characters.
pub(crate) fn shorten(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(128)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(128).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_second() {
        let gate = Gate::default();
        assert_eq!(gate.pass(), Some(0));
        assert_eq!(gate.pass(), None);
        assert_eq!(gate.0.lock().unwrap().suppressed, 1);
    }

    #[test]
    fn a_senders_text_can_not_forge_lines() {
        assert_eq!(shorten("a\r\n\u{1b}[31m"), "a\\r\\n\\u{1b}[31m");
        assert_eq!(shorten(&"x".repeat(200)).chars().count(), 129);
    }
}
