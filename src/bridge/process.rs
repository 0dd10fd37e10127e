//! What outlives a configuration: a reload changes the [`Bridge`](crate::bridge::Bridge), and leaves this.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brokers::Reason;
use crate::event::Code;
use crate::metrics::Metrics;
use crate::telemetry::Gate;
use strum::VariantArray as _;

/// The process as every request and every configuration sees it.
#[derive(Debug)]
pub struct Process {
    metrics: Metrics,
    /// Requests whose senders have hung up.
    tasks: TaskTracker,
    gates: Gates,
    is_draining: AtomicBool,
    is_closing: AtomicBool,
    /// Nobody waits for a broker any longer.
    given_up: CancellationToken,
    clock: Clock,
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

/// How often the log says the same thing.
#[derive(Debug)]
struct Gates {
    refusals: Vec<(&'static str, Gate)>,
    dead_letters: Vec<(&'static str, Gate)>,
    failures: Vec<(Reason, Gate)>,
}

impl Process {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let gates = Gates {
            refusals: gates(Code::VARIANTS.iter().map(|code| code.into_str())),
            dead_letters: gates(Code::VARIANTS.iter().map(|code| code.into_str())),
            failures: gates(Reason::VARIANTS.iter().copied()),
        };
        Ok(Self {
            metrics: Metrics::new()?,
            tasks: TaskTracker::new(),
            gates,
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            clock: Clock::default(),
        })
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// From now on `/readyz` says no, and answers ask senders to connect anew.
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

    /// How many refusals of this code the log was spared, if this one may be logged.
    pub(crate) fn pass_refusal(&self, code: &str) -> Option<u64> {
        pass(&self.gates.refusals, &code)
    }

    pub(crate) fn pass_dead_letter(&self, code: &str) -> Option<u64> {
        pass(&self.gates.dead_letters, &code)
    }

    pub(crate) fn pass_failure(&self, reason: Reason) -> Option<u64> {
        pass(&self.gates.failures, &reason)
    }
}

fn gates<K>(keys: impl Iterator<Item = K>) -> Vec<(K, Gate)> {
    keys.map(|key| (key, Gate::default())).collect()
}

fn pass<K: PartialEq>(gates: &[(K, Gate)], key: &K) -> Option<u64> {
    let (_, gate) = gates.iter().find(|(known, _)| known == key)?;
    gate.pass()
}
