//! State that outlives a configuration: a reload replaces the [`Bridge`](crate::bridge::Bridge) and keeps this.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brokers::Reason;
use crate::event::Code;
use crate::metrics::Metrics;
use crate::telemetry::LogThrottle;
use crate::trace::Tracer;
use strum::VariantArray as _;

/// Shared by every request and every configuration.
#[derive(Debug)]
pub struct Process {
    metrics: Metrics,
    /// Requests whose senders have hung up.
    tasks: TaskTracker,
    throttles: Throttles,
    is_draining: AtomicBool,
    is_closing: AtomicBool,
    /// Cancelled when requests stop waiting for brokers.
    given_up: CancellationToken,
    clock: Clock,
    /// None where tracing is off.
    tracer: Option<Tracer>,
}

/// The machine's clock. A unit test can set another time, so that signed ones are checked against that.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    set: std::sync::Mutex<Option<SystemTime>>,
}

impl Clock {
    /// The time.
    pub(crate) fn now(&self) -> SystemTime {
        #[cfg(test)]
        if let Ok(set) = self.set.lock()
            && let Some(set) = *set
        {
            return set;
        }
        SystemTime::now()
    }

    #[cfg(test)]
    pub(crate) fn set(&self, now: SystemTime) {
        if let Ok(mut set) = self.set.lock() {
            *set = Some(now);
        }
    }
}

/// Limits how often the same thing is logged.
#[derive(Debug)]
struct Throttles {
    refusals: Vec<(&'static str, LogThrottle)>,
    dead_letters: Vec<(&'static str, LogThrottle)>,
    failures: Vec<(Reason, LogThrottle)>,
}

impl Process {
    pub(crate) fn new(tracer: Option<Tracer>) -> Result<Self, prometheus::Error> {
        let throttles = Throttles {
            refusals: throttles(Code::VARIANTS.iter().map(|code| code.into_str())),
            dead_letters: throttles(Code::VARIANTS.iter().map(|code| code.into_str())),
            failures: throttles(Reason::VARIANTS.iter().copied()),
        };
        Ok(Self {
            metrics: Metrics::new()?,
            tasks: TaskTracker::new(),
            throttles,
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            clock: Clock::default(),
            tracer,
        })
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// From now on `/readyz` answers 503, and responses ask senders to reconnect.
    pub fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// From now on new requests are refused.
    pub fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    pub(crate) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// If a refusal with this code may be logged: the number suppressed since the last one.
    pub(crate) fn allow_refusal(&self, code: &str) -> Option<u64> {
        allow(&self.throttles.refusals, &code)
    }

    pub(crate) fn allow_dead_letter(&self, code: &str) -> Option<u64> {
        allow(&self.throttles.dead_letters, &code)
    }

    pub(crate) fn allow_failure(&self, reason: Reason) -> Option<u64> {
        allow(&self.throttles.failures, &reason)
    }
}

fn throttles<K>(keys: impl Iterator<Item = K>) -> Vec<(K, LogThrottle)> {
    keys.map(|key| (key, LogThrottle::default())).collect()
}

fn allow<K: PartialEq>(throttles: &[(K, LogThrottle)], key: &K) -> Option<u64> {
    let (_, throttle) = throttles.iter().find(|(known, _)| known == key)?;
    throttle.allow()
}
