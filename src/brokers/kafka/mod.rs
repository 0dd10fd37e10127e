//! Kafka through librdkafka: one idempotent producer a cluster, `acks=all`.
//!
//! A message in ([`Kafka::publish`]), an [`Outcome`] out: the delivery report's, which comes on the producer's polling
//! thread and finds the one who waits by the ticket that went out with the message.

mod health;
mod names;
mod outcome;
mod settings;
mod status;
mod subscription;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const _: () = assert!(
    usize::BITS == 64,
    "a ticket travels through librdkafka as a pointer-sized number"
);

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::time::Instant;

use super::outcome::{Outcome, Reason};
use super::waiters::{Ticket, Waiters};
use super::{Health, Limits, Message, StartError};
use crate::metrics::BrokerMetrics;
use health::Watch;

pub(in crate::brokers) use health::inspect;
pub(in crate::brokers) use names::{check_topic, check_value};
pub(in crate::brokers) use settings::Settings;
pub(in crate::brokers) use subscription::Subscription;

/// A producer.
pub struct Kafka {
    producer: Mutex<Option<Arc<Producer>>>,
    waiters: Arc<Waiters>,
    watch: Arc<Watch>,
}

type Producer = ThreadedProducer<Reports>;

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("in_flight", &self.waiters.len())
            .finish_non_exhaustive()
    }
}

impl Kafka {
    pub(super) fn start(
        name: &str,
        settings: &Settings,
        limits: Limits,
        topics: Vec<String>,
        metrics: Arc<BrokerMetrics>,
    ) -> Result<Self, StartError> {
        let waiters = Waiters::new(limits.max_in_flight);
        let watch = Arc::new(Watch::new(name, topics));
        let reports = Reports {
            waiters: Arc::clone(&waiters),
            watch: Arc::clone(&watch),
            metrics: Arc::clone(&metrics),
        };
        let producer: Producer = settings
            .producer_config(limits)
            .create_with_context(reports)
            .map_err(|error| StartError(format!("broker {name}: {}", describe(&error))))?;
        let producer = Arc::new(producer);
        watch.start(&producer, &metrics)?;
        Ok(Self {
            producer: Mutex::new(Some(producer)),
            waiters,
            watch,
        })
    }

    pub(super) async fn publish(&self, message: &Message, deadline: Instant) -> Outcome {
        let Some(producer) = self.producer() else {
            return Outcome::not_stored(Reason::Fatal, "the producer has been closed");
        };
        let Some(waiter) = self.waiters.register() else {
            return Outcome::not_stored(
                Reason::QueueFull,
                "as many messages are under way as may be",
            );
        };
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for header in &message.headers {
            headers = headers.insert(Header {
                key: header.attribute.on_kafka(),
                value: Some(header.value.as_bytes()),
            });
        }
        let record = BaseRecord::with_opaque_to(&message.destination, opaque(waiter.ticket()))
            .key(message.key.as_bytes())
            .payload(&message.body[..])
            .headers(headers);
        if let Err((error, _)) = producer.send(record) {
            return outcome::of_produce_error(&error);
        }
        match tokio::time::timeout_at(deadline, waiter).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::unknown(Reason::TimedOut, "no delivery report before the deadline"),
        }
    }

    pub(super) fn health(&self) -> Health {
        self.watch.health()
    }

    /// How many messages the client holds.
    pub(super) fn queue_len(&self) -> usize {
        self.producer()
            .and_then(|producer| usize::try_from(producer.in_flight_count()).ok())
            .unwrap_or_default()
    }

    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        let producer = self
            .producer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(producer) = producer else { return 0 };
        self.watch.stop();
        // Flushing and dropping a producer block: librdkafka's threads are joined.
        let flushing = tokio::task::spawn_blocking(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            let flushed = producer.flush(left);
            let remaining = producer.in_flight_count();
            if let Err(error) = flushed {
                tracing::warn!(error = %error, remaining, "not every message was confirmed before the deadline");
            }
            usize::try_from(remaining).unwrap_or_default()
        });
        // A producer that hangs while it is dropped must not hold the process.
        let limit = deadline + Duration::from_secs(1);
        tokio::time::timeout_at(limit, flushing)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| self.waiters.len())
    }

    fn producer(&self) -> Option<Arc<Producer>> {
        self.producer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A ticket as librdkafka carries it: a pointer-sized number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "asserted above: both have 64 bits"
)]
fn opaque(ticket: Ticket) -> usize {
    ticket.number() as usize
}

/// What librdkafka says, on the producer's polling thread: hand it on and do nothing else.
struct Reports {
    waiters: Arc<Waiters>,
    watch: Arc<Watch>,
    metrics: Arc<BrokerMetrics>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.note_error(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

/// librdkafka's log lines. They name brokers and errors, never credentials.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}")
        }
    }
}

impl ProducerContext for Reports {
    /// A ticket's number: pointers and tickets are both 64 bits wide.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let ticket = Ticket::from_number(number as u64);
        // A panic would end the polling thread, and with it every report to come.
        let handled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let outcome = outcome::of_report(result);
            let is_stored = matches!(outcome, Outcome::Stored(_));
            if is_stored {
                self.watch.note_success();
            }
            if !self.waiters.resolve(ticket, outcome) && is_stored {
                self.metrics.late_acks.inc();
            }
        }));
        if handled.is_err() {
            self.waiters.resolve(
                ticket,
                Outcome::unknown(Reason::Other, "the delivery report could not be handled"),
            );
        }
    }
}

/// A client error in one line.
fn describe(error: &KafkaError) -> String {
    match error {
        // Its own words contain the value, which may be a secret.
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("librdkafka does not take the value of {name}")
        }
        KafkaError::ClientCreation(what) => what.clone(),
        other => other.to_string(),
    }
}
