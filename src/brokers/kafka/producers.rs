//! A cluster's two producers: the prompt one sends what it is handed at once, the patient one waits a millisecond for more.
//!
//! An event alone must not wait. Of many at once, each waits for the others' requests anyway, and fewer and larger requests
//! cost the bridge and the brokers less than the wait takes. librdkafka's `linger.ms` can't be changed while it runs, so the
//! choice is between producers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};

use super::{Reports, Settings};
use crate::brokers::health::Limits;

/// So many messages under way are worth the wait: fewer senders, who each wait for an answer before they send again, would send
/// less for it. A batch's acknowledgement leaves but a few of many senders' messages under way, and is no reason to change.
const MANY: usize = 40;
const FEW: usize = 8;

pub(super) type Producer = ThreadedProducer<Reports>;

/// Dropping them blocks: librdkafka's threads are joined.
pub(super) struct Producers {
    prompt: Producer,
    /// None where the user has set `linger.ms`.
    patient: Option<Producer>,
    load: Load,
}

/// Whom a message may share a batch with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Anyone,
    /// Nobody, as far as can be.
    Nobody,
}

/// Whether many messages are under way.
#[derive(Debug, Default)]
struct Load(AtomicBool);

impl Load {
    fn is_high(&self, under_way: usize) -> bool {
        let was_high = self.0.load(Ordering::Relaxed);
        let is_high = under_way >= if was_high { FEW } else { MANY };
        if is_high != was_high {
            self.0.store(is_high, Ordering::Relaxed);
        }
        is_high
    }

    /// Whether a message should wait for others, when `others` are in flight. One that must not share a batch takes the
    /// producer that the others do not.
    fn should_wait(&self, company: Company, others: usize) -> bool {
        self.is_high(others) == (company == Company::Anyone)
    }
}

impl Producers {
    pub(super) fn create(
        settings: &Settings,
        limits: Limits,
        reports: &Reports,
    ) -> Result<Self, KafkaError> {
        let prompt = settings.producer_config(limits);
        let patient = settings.patient_producer_config(limits);
        Ok(Self {
            prompt: prompt.create_with_context(reports.clone())?,
            patient: patient
                .map(|config| config.create_with_context(reports.clone()))
                .transpose()?,
            load: Load::default(),
        })
    }

    /// The producer for a message, when so many others are under way.
    pub(super) fn choose(&self, company: Company, others: usize) -> &Producer {
        let Some(patient) = &self.patient else {
            return &self.prompt;
        };
        if self.load.should_wait(company, others) {
            patient
        } else {
            &self.prompt
        }
    }

    fn all(&self) -> impl Iterator<Item = &Producer> {
        std::iter::once(&self.prompt).chain(&self.patient)
    }

    /// A client that can be asked about the cluster.
    pub(super) fn client(&self) -> &Client<Reports> {
        self.prompt.client()
    }

    /// What has made one of them useless.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.all()
            .find_map(|producer| producer.client().fatal_error())
    }

    /// How many messages they hold, and events of theirs that are not handed over yet.
    pub(super) fn held(&self) -> usize {
        self.all()
            .map(|producer| usize::try_from(producer.in_flight_count()).unwrap_or_default())
            .sum()
    }

    /// Waits until every message has its delivery report. Blocks.
    ///
    /// # Errors
    /// A producer's, and that the time is up.
    pub(super) fn flush(&self, limit: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + limit;
        let flushed = self
            .all()
            .map(|producer| producer.flush(deadline.saturating_duration_since(Instant::now())));
        // One that fails does not keep the other from it.
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
            .map(|under_way| load.is_high(under_way));
        assert_eq!(seen, [false, false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_lone_event_is_sent_immediately_and_one_of_many_waits_for_the_others() {
        let load = Load::default();
        for (company, others, waits) in [
            (Company::Anyone, 0, false),
            (Company::Nobody, 0, true),
            (Company::Anyone, MANY, true),
            (Company::Nobody, MANY, false),
            (Company::Anyone, FEW, true),
            // The load has gone: the next event is a lone one again.
            (Company::Anyone, 0, false),
        ] {
            assert_eq!(
                load.should_wait(company, others),
                waits,
                "{company:?} {others}"
            );
        }
    }
}
