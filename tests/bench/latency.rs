//! Latencies and their percentiles.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Some latencies, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

/// Their percentiles, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn summary(mut self) -> Percentiles {
        self.0.sort_unstable();
        // Nearest rank.
        let at = |thousandths: usize| {
            let rank = (self.0.len() * thousandths).div_ceil(1000).max(1);
            self.0
                .get(rank - 1)
                .copied()
                .map(u64::from)
                .unwrap_or_default()
        };
        Percentiles {
            p50: at(500),
            p99: at(990),
            p999: at(999),
        }
    }
}
