//! Logs: readable lines on a terminal, JSON otherwise; always to standard error, and never blocking the caller.

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

/// Time that a panicking thread allows for writing its line: it may be the last one of the process.
const PANIC_FLUSH: Duration = Duration::from_millis(100);

static PANICS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts logging, and installs the panic hook.
///
/// # Errors
/// The system cannot start a thread.
pub fn start(format: Option<LogFormat>, levels: Levels) -> std::io::Result<()> {
    writer::start()?;
    std::panic::set_hook(Box::new(note_panic));
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| &writer::QUEUE)
        // Internal errors would go to standard error without the buffer, and panic if that fails.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(levels.into_filter());
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Human
    } else {
        LogFormat::Json
    });
    // Tests start it several times in one process; the first one wins.
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

/// Fields as tracing-subscriber writes them, with unprintable characters escaped: a sender's or broker's text cannot start
/// a new line.
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

/// Queues a line for standard error after the earlier log lines, without waiting.
pub(crate) fn say(line: &str) {
    writer::QUEUE.push(format!("{line}\n").as_bytes());
}

/// Waits until every line is written, or until the limit; lines that are not written by then are lost.
pub(crate) fn flush(limit: Duration) {
    writer::QUEUE.flush(limit);
}

/// Log lines dropped since the start.
pub(crate) fn dropped_lines() -> u64 {
    writer::QUEUE.dropped()
}

/// Panics since the start, on any thread.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Replaces the standard library's hook, which blocks on standard error.
fn note_panic(info: &PanicHookInfo<'_>) {
    static LINES: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);
    PANICS.fetch_add(1, Ordering::Relaxed);
    let Some(suppressed) = LINES.allow() else {
        return;
    };
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        thread = thread.name(),
        suppressed,
        backtrace = backtrace.map(tracing::field::display),
        "panicked at {}: {}",
        location.unwrap_or_default(),
        shorten(message)
    );
    flush(PANIC_FLUSH);
}

/// Limits repeated log lines to one a second.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Throttled>);

#[derive(Debug, Default)]
struct Throttled {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// If this line may be logged: the number suppressed since the last one.
    pub(crate) fn allow(&self) -> Option<u64> {
        let mut throttled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if throttled
            .last
            .is_some_and(|last| last.elapsed() < Self::INTERVAL)
        {
            throttled.suppressed += 1;
            return None;
        }
        throttled.last = Some(Instant::now());
        Some(std::mem::take(&mut throttled.suppressed))
    }
}

/// A sender's text for a log line: escaped, and cut to 128 characters.
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
        let throttle = LogThrottle::default();
        assert_eq!(throttle.allow(), Some(0));
        assert_eq!(throttle.allow(), None);
        assert_eq!(throttle.0.lock().unwrap().suppressed, 1);
    }

    #[test]
    fn a_senders_text_can_not_forge_lines() {
        assert_eq!(shorten("a\r\n\u{1b}[31m"), "a\\r\\n\\u{1b}[31m");
        assert_eq!(shorten(&"x".repeat(200)).chars().count(), 129);
    }

    /// The panic hook is global, so the test runs itself in a separate process.
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
