//! The rate limit of a source's verified requests, if the operator sets one. Providers are not limited otherwise.

use std::num::NonZeroU32;
use std::time::Duration;

use ratelimit::{Builder, Clock, Ratelimiter, StdClock, TryWaitError};

/// A source's token bucket. A reload that does not change the limit keeps it.
pub(crate) struct Limiter<C: Clock = StdClock> {
    /// Requests a second, and the burst.
    limit: (NonZeroU32, NonZeroU32),
    requests: Option<Ratelimiter<C>>,
}

impl<C: Clock> std::fmt::Debug for Limiter<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.requests.fmt(f)
    }
}

impl Limiter {
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self::with_clock(per_second, burst, StdClock::new())
    }
}

impl<C: Clock> Limiter<C> {
    fn with_clock(per_second: NonZeroU32, burst: NonZeroU32, clock: C) -> Self {
        let most = u64::from(burst.get());
        let requests = Builder::with_clock(per_second.get().into(), clock)
            .max_tokens(most)
            .initial_available(most)
            .build();
        Self {
            limit: (per_second, burst),
            // Infallible: neither number is zero.
            requests: requests.ok(),
        }
    }

    pub(crate) fn is(&self, per_second: NonZeroU32, burst: NonZeroU32) -> bool {
        self.limit == (per_second, burst)
    }

    /// Counts a request, or returns the wait until one is allowed, in whole seconds.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        requests.try_wait().map_err(|error| {
            let wait = match error {
                TryWaitError::Insufficient(wait) => wait,
                _ => Duration::ZERO,
            };
            let rounded = u64::from(wait.subsec_nanos() > 0);
            Duration::from_secs(wait.as_secs().saturating_add(rounded).max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Default)]
    struct TestClock(Arc<AtomicU64>);

    impl TestClock {
        fn advance(&self, milliseconds: u64) {
            self.0.fetch_add(milliseconds, Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn limiter(per_second: u32, burst: u32, clock: &TestClock) -> Limiter<TestClock> {
        let number = |number| NonZeroU32::new(number).unwrap();
        Limiter::with_clock(number(per_second), number(burst), clock.clone())
    }

    #[test]
    fn after_a_burst_requests_are_taken_at_the_rate() {
        let clock = TestClock::default();
        let limiter = limiter(2, 3, &clock);
        let taken = |count: usize| (0..count).filter(|_| limiter.take().is_ok()).count();
        assert_eq!(taken(10), 3);
        assert_eq!(limiter.take(), Err(Duration::from_secs(1)));
        clock.advance(500);
        assert_eq!(taken(10), 1);
        clock.advance(60_000);
        assert_eq!(taken(10), 3);
    }

    proptest! {
        #[test]
        fn whoever_waits_as_long_as_they_are_told_is_taken(per_second in 1_u32..50, burst in 1_u32..50, pauses in proptest::collection::vec(0_u64..700, 0..60)) {
            let clock = TestClock::default();
            let limiter = limiter(per_second, burst, &clock);
            let (mut passed, mut taken) = (0, 0_u64);
            for pause in pauses {
                clock.advance(pause);
                passed += pause;
                taken += u64::from(limiter.take().is_ok());
                prop_assert!(taken <= u64::from(burst) + passed * u64::from(per_second) / 1000 + 1);
            }
            if let Err(wait) = limiter.take() {
                prop_assert!(wait >= Duration::from_secs(1));
                clock.advance(wait.as_secs() * 1000);
                prop_assert_eq!(limiter.take(), Ok(()));
            }
        }
    }
}
