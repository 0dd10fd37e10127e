//! Exponential back-off between replacements of a client.

use std::time::{Duration, Instant};

/// Bounds of the pause between replacements.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(30);

/// The time of the last replacement, and the pause after it.
#[derive(Debug, Default)]
pub(super) struct Backoff(Option<(Instant, Duration)>);

impl Backoff {
    /// When the next replacement is due; none if it is due immediately.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.map(|(last, pause)| last + pause)
    }

    /// Records a replacement if one is due. Returns whether it was.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let pause = match self.0 {
            Some((last, pause)) if now < last + pause => return false,
            // A client that lasted long enough resets the series.
            Some((last, pause)) if now < last + pause + MOST => (pause * 2).min(MOST),
            _ => LEAST,
        };
        self.0 = Some((now, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The seconds at which a client is replaced that is checked every second and broken in these.
    fn replaced(broken: impl Fn(u32) -> bool, seconds: u32) -> Vec<u32> {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        let tried = (0..seconds).filter(|second| broken(*second));
        tried
            .filter(|second| backoff.begin(start + SECOND * *second))
            .collect()
    }

    #[test]
    fn a_permanently_broken_client_is_replaced_immediately_and_then_with_delays_up_to_30_s() {
        assert_eq!(
            replaced(|_| true, 160),
            [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]
        );
    }

    #[test]
    fn a_client_that_lasted_is_replaced_immediately() {
        let broken = |second| !(10..60).contains(&second);
        assert_eq!(replaced(broken, 65), [0, 1, 3, 7, 60, 61, 63]);
    }

    #[test]
    fn it_says_when_the_next_replacement_is_due() {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        assert_eq!(backoff.due(), None);
        for pause in [1, 2, 4] {
            let now = backoff.due().unwrap_or(start);
            assert!(backoff.begin(now));
            assert_eq!(backoff.due(), Some(now + SECOND * pause));
        }
    }
}
