//! The metrics that a broker's client updates. `metrics` registers them.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::outcome::{Reason, Restart};

/// The metrics of one broker.
#[derive(Debug)]
pub struct Meter {
    /// `hookbridge_broker_up`, as of the last scrape.
    pub up: IntGauge,
    /// `hookbridge_broker_queue_messages`.
    pub queue_messages: IntGauge,
    /// `hookbridge_late_acks_total`.
    pub late_acks: IntCounter,
    /// `hookbridge_publish_duration_seconds`.
    pub publish_duration: Histogram,
    pub(crate) errors: Vec<(Reason, IntCounter)>,
    pub(crate) restarts: Vec<(Restart, IntCounter)>,
}

impl Meter {
    /// For tests that scrape nothing.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        use prometheus::HistogramOpts;
        use strum::VariantArray as _;

        let counter = || IntCounter::new("counter", "For a test").unwrap();
        let gauge = || IntGauge::new("gauge", "For a test").unwrap();
        let histogram = HistogramOpts::new("histogram", "For a test");
        Self {
            up: gauge(),
            queue_messages: gauge(),
            late_acks: counter(),
            publish_duration: Histogram::with_opts(histogram).unwrap(),
            errors: Reason::VARIANTS
                .iter()
                .map(|reason| (*reason, counter()))
                .collect(),
            restarts: Restart::VARIANTS
                .iter()
                .map(|reason| (*reason, counter()))
                .collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn restarts_for(&self, reason: Restart) -> u64 {
        let mut restarts = self.restarts.iter();
        let found = restarts.find(|(known, _)| *known == reason);
        found.map_or(0, |(_, counter)| counter.get())
    }

    /// Counts a publish without an acknowledgement.
    pub fn count_error(&self, reason: Reason) {
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Counts a replaced client.
    pub fn count_restart(&self, reason: Restart) {
        if let Some((_, counter)) = self.restarts.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }
}
