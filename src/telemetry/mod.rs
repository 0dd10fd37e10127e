//! Logs: for people on a terminal, as JSON otherwise; always to standard error, and never in the way of whoever logs.

mod levels;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::printable::printable;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use levels::Levels;

/// How long a thread that panics waits for its line to be written: it may be the process's last.
const PANIC_FLUSH: Duration = Duration::from_millis(100);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging, and lets panics be counted and logged.
///
/// # Errors
/// The system's, where no thread can be started.
pub fn start(format: Option<LogFormat>, levels: Levels) -> std::io::Result<()> {
    writer::start()?;
    std::panic::set_hook(Box::new(note_panic));
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| &writer::QUEUE)
        // It would be told to standard error, past the buffer, with a panic if that fails.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(levels.into_filter());
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Human
    } else {
        LogFormat::Json
    });
    // A second start in one process (the tests') leaves the first one's choice.
    let _already_started = match format {
        LogFormat::Human => registry
            .with(
                lines
                    .with_target(false)
                    .with_ansi(is_terminal)
                    .fmt_fields(printable_fields()),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
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

/// Writes a line to standard error behind those that were logged before it, without waiting.
pub(crate) fn say(line: &str) {
    writer::QUEUE.push(format!("{line}\n").as_bytes());
}

/// Waits until every line is written, up to a limit: what standard error does not take until then is lost.
pub(crate) fn flush(limit: Duration) {
    writer::QUEUE.flush(limit);
}

/// How many log lines were dropped since the start.
pub(crate) fn dropped_lines() -> u64 {
    writer::QUEUE.dropped()
}

/// How many panics there were since the start, on any thread.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Instead of the standard library's hook, which writes to standard error and waits for it.
fn note_panic(info: &PanicHookInfo<'_>) {
    static LINES: LazyLock<Gate> = LazyLock::new(Gate::default);
    PANICS.fetch_add(1, Ordering::Relaxed);
    let Some(suppressed) = LINES.pass() else {
        return;
    };
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    let place = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        thread = thread.name(),
        suppressed,
        backtrace = backtrace.map(tracing::field::display),
        "panicked at {}: {}",
        place.unwrap_or_default(),
        shorten(message)
    );
    flush(PANIC_FLUSH);
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

    /// The hook is the process's, so it is tried in a process of its own: this test, started by itself.
    #[test]
    fn each_panic_is_counted_and_logged() {
        const IN_CHILD: &str = "HOOKBRIDGE_TEST_PANICS";
        if std::env::var_os(IN_CHILD).is_some() {
            start(Some(LogFormat::Json), Levels::errors()).unwrap();
            let panicked = std::thread::Builder::new()
                .name("its-thread".to_owned())
                .spawn(|| panic!("out of\nluck"))
                .unwrap()
                .join();
            assert!(panicked.is_err());
            assert!(std::panic::catch_unwind(|| panic!("again")).is_err());
            assert_eq!(panics(), 2);
            say("the last line");
            flush(Duration::from_secs(60));
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "telemetry::tests::each_panic_is_counted_and_logged",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(IN_CHILD, "1")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        let line = log.lines().find(|line| line.contains("its-thread"));
        let line: serde_json::Value = serde_json::from_str(line.expect(&log)).unwrap();
        let message = line["message"].as_str().unwrap();
        assert!(
            message.starts_with("panicked at src/telemetry/mod.rs:")
                && message.ends_with(": out of\\nluck"),
            "{message}"
        );
        assert_eq!(log.lines().last(), Some("the last line"));
    }
}
