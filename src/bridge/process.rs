//! State that outlives a configuration: a reload replaces the [`Bridge`](crate::bridge::Bridge) and keeps this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::feed::Feed;
use super::throttles::{Throttles, by_code};
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// Shared by every request and every configuration.
#[derive(Debug)]
pub struct Process {
    metrics: Metrics,
    /// Requests whose senders have hung up.
    tasks: TaskTracker,
    /// Limits the log lines about requests without a source.
    unmatched: Throttles<&'static str>,
    feed: Arc<Feed>,
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

impl Process {
    pub(crate) fn new(tracer: Option<Tracer>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: Metrics::new()?,
            tasks: TaskTracker::new(),
            unmatched: by_code(),
            feed: Arc::default(),
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

    /// The events and figures for the live page.
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(super) fn unmatched(&self) -> &Throttles<&'static str> {
        &self.unmatched
    }
}
