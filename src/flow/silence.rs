//! The silence of sources whose operators expect events (`expect_every`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of a source's last authentic event. Reloads keep it.
#[derive(Debug)]
pub(crate) struct Silence {
    /// In milliseconds since the Unix epoch. Before the first event, the time at which counting began.
    last_event: AtomicU64,
    /// Whether the log has its beginning, but not its end.
    is_logged: AtomicBool,
}

impl Silence {
    pub(crate) fn new(now: SystemTime) -> Self {
        Self {
            last_event: AtomicU64::new(millis(now)),
            is_logged: AtomicBool::new(false),
        }
    }

    /// An event has arrived. If that ends a silence that was logged, returns its length.
    pub(crate) fn end(&self, now: SystemTime) -> Option<Duration> {
        let now = millis(now);
        let last = self.last_event.swap(now, Ordering::Relaxed);
        // A load costs less than a swap.
        let ends =
            self.is_logged.load(Ordering::Relaxed) && self.is_logged.swap(false, Ordering::Relaxed);
        ends.then(|| Duration::from_millis(now.saturating_sub(last)))
    }

    /// The time since the last event. A clock that was set back begins to count again.
    pub(crate) fn length(&self, now: SystemTime) -> Duration {
        let now = millis(now);
        let last = self.last_event.fetch_min(now, Ordering::Relaxed);
        Duration::from_millis(now.saturating_sub(last))
    }

    /// Whether the log still has to learn that the source is silent, or no longer is. Concurrent with [`Silence::end`] it
    /// can be wrong once; the next call corrects it.
    pub(crate) fn log_is_behind(&self, is_silent: bool) -> bool {
        self.is_logged.swap(is_silent, Ordering::Relaxed) != is_silent
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_is_set_back_begins_to_count_again() {
        let silence = Silence::new(at(1000));
        assert_eq!(silence.length(at(1060)), Duration::from_secs(60));
        assert_eq!(silence.length(at(10)), Duration::ZERO);
        assert_eq!(silence.length(at(15)), Duration::from_secs(5));
    }

    #[test]
    fn only_a_silence_that_was_logged_has_an_end_to_log() {
        let silence = Silence::new(at(100));
        assert_eq!(silence.end(at(110)), None);
        assert!(silence.log_is_behind(true));
        assert!(!silence.log_is_behind(true));
        assert_eq!(silence.end(at(130)), Some(Duration::from_secs(20)));
        assert_eq!(silence.end(at(140)), None);
        assert!(!silence.log_is_behind(false));
    }
}
