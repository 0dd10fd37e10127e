//! The limit that an operator sets on a source's verified requests. Nothing else limits what a provider sends.

use std::time::Duration;

use ratelimit::{Builder, Clock, Ratelimiter, StdClock, TryWaitError};

use crate::config::RateLimit;

/// A source's limit, and how much of it is used. A reload that leaves the limit as it is keeps it.
pub(crate) struct Limiter<C: Clock = StdClock> {
    limit: RateLimit,
    requests: Option<Ratelimiter<C>>,
}

impl<C: Clock> std::fmt::Debug for Limiter<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.requests.fmt(f)
    }
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self::with_clock(limit, StdClock::new())
    }
}

impl<C: Clock> Limiter<C> {
    fn with_clock(limit: RateLimit, clock: C) -> Self {
        let RateLimit { per_second, burst } = limit;
        let burst = u64::from(burst.get());
        let requests = Builder::with_clock(per_second.get().into(), clock)
            .max_tokens(burst)
            .initial_available(burst)
            .build();
        Self {
            limit,
            // There is no error: neither number is zero.
            requests: requests.ok(),
        }
    }

    pub(crate) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts a request, or says in how many whole seconds there is room for one.
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
    use std::num::NonZeroU32;
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

    fn limit(per_second: u32, burst: u32) -> RateLimit {
        RateLimit {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn after_a_burst_requests_are_taken_at_the_rate() {
        let clock = TestClock::default();
        let limiter = Limiter::with_clock(limit(2, 3), clock.clone());
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
            let limiter = Limiter::with_clock(limit(per_second, burst), clock.clone());
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
