//! A cluster's two producers: `immediate` sends each message immediately, `batching` waits a millisecond for more.
//!
//! A lone event must not wait. Among many, each one waits for the others' requests anyway, and fewer, larger requests save
//! the bridge and the brokers more than the wait costs. librdkafka's `linger.ms` cannot be changed at runtime, hence two
//! producers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};

use super::{Reports, Settings};
use crate::brokers::health::Limits;

/// From this number of messages in flight on, waiting pays off. Fewer senders, each waiting for its answer before sending
/// again, would send less because of it. The lower bound keeps the choice stable: the acknowledgement of a batch leaves only
/// a few of many senders' messages in flight.
const MANY: usize = 40;
const FEW: usize = 8;

pub(super) type Producer = ThreadedProducer<Reports>;

/// Dropping them blocks: librdkafka's threads are joined.
pub(super) struct Producers {
    immediate: Producer,
    /// None if the user has set `linger.ms`.
    batching: Option<Producer>,
    load: Load,
}

/// Whether a message may share a batch with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batch {
    Shared,
    /// As far as librdkafka allows.
    Isolated,
}

/// Whether many messages are in flight.
#[derive(Debug, Default)]
struct Load(AtomicBool);

impl Load {
    fn is_high(&self, in_flight: usize) -> bool {
        let was_high = self.0.load(Ordering::Relaxed);
        let is_high = in_flight >= if was_high { FEW } else { MANY };
        if is_high != was_high {
            self.0.store(is_high, Ordering::Relaxed);
        }
        is_high
    }

    /// Whether a message should wait for others when `others` are in flight. An isolated one takes the producer that the
    /// others do not use.
    fn should_wait(&self, batch: Batch, others: usize) -> bool {
        self.is_high(others) == (batch == Batch::Shared)
    }
}

impl Producers {
    pub(super) fn create(
        settings: &Settings,
        limits: Limits,
        reports: &Reports,
    ) -> Result<Self, KafkaError> {
        let immediate = settings.producer_config(limits);
        let batching = settings.batching_producer_config(limits);
        Ok(Self {
            immediate: immediate.create_with_context(reports.clone())?,
            batching: batching
                .map(|config| config.create_with_context(reports.clone()))
                .transpose()?,
            load: Load::default(),
        })
    }

    /// The producer for a message when `others` are in flight.
    pub(super) fn choose(&self, batch: Batch, others: usize) -> &Producer {
        let Some(batching) = &self.batching else {
            return &self.immediate;
        };
        if self.load.should_wait(batch, others) {
            batching
        } else {
            &self.immediate
        }
    }

    fn all(&self) -> impl Iterator<Item = &Producer> {
        std::iter::once(&self.immediate).chain(&self.batching)
    }

    /// For metadata requests.
    pub(super) fn client(&self) -> &Client<Reports> {
        self.immediate.client()
    }

    /// The error that has made one of them unusable.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.all()
            .find_map(|producer| producer.client().fatal_error())
    }

    /// Messages in librdkafka's queues, including delivery reports that are not dispatched yet.
    pub(super) fn held(&self) -> usize {
        self.all()
            .map(|producer| usize::try_from(producer.in_flight_count()).unwrap_or_default())
            .sum()
    }

    /// Waits until every message has its delivery report. Blocks.
    ///
    /// # Errors
    /// A producer's error, or that the limit has passed.
    pub(super) fn flush(&self, limit: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + limit;
        let flushed = self
            .all()
            .map(|producer| producer.flush(deadline.saturating_duration_since(Instant::now())));
        // The failure of one does not prevent the flush of the other.
        flushed.fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_high_from_many_until_few() {
        let load = Load::default();
        let seen = [0, FEW, MANY - 1, MANY, MANY - 1, FEW, FEW - 1, MANY - 1]
            .map(|in_flight| load.is_high(in_flight));
        assert_eq!(seen, [false, false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_lone_event_is_sent_immediately_and_one_of_many_waits_for_the_others() {
        let load = Load::default();
        for (batch, others, waits) in [
            (Batch::Shared, 0, false),
            (Batch::Isolated, 0, true),
            (Batch::Shared, MANY, true),
            (Batch::Isolated, MANY, false),
            (Batch::Shared, FEW, true),
            // The load has gone: the next event is a lone one again.
            (Batch::Shared, 0, false),
        ] {
            assert_eq!(load.should_wait(batch, others), waits, "{batch:?} {others}");
        }
    }
}
