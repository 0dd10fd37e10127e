//! Kafka through librdkafka: idempotent producers, `acks=all`.
//!
//! A message in ([`Kafka::publish`]), an [`Outcome`] out: the delivery report's. It arrives on the producer's polling thread
//! and finds its waiter by the ticket that travelled with the message.

mod durability;
mod health;
mod metadata;
mod oidc;
mod options;
mod outcome;
mod producers;
mod provision;
mod reach;
mod replay;
mod rights;
mod settings;
mod status;
mod subscription;
mod supervisor;
mod tokens;
mod trial;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

const _: () = assert!(
    usize::BITS == 64,
    "a ticket travels through librdkafka as a pointer-sized number"
);

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::durability::Attention;
use super::outcome::{NotStored, Outcome, Reason, Unknown};
use super::waiters::{Ticket, Waiter, Waiters};
use crate::brokers::error::StartError;
use crate::brokers::health::{Health, Limits};
use crate::brokers::kind::Kind;
use crate::brokers::message::Message;
use crate::brokers::meter::Meter;
use health::Watch;
use producers::Batch;
use supervisor::Supervisor;
use tokens::Login;

pub(in crate::brokers) use durability::check_destinations;
pub(in crate::brokers) use provision::Provisioning;
pub(in crate::brokers) use reach::reach;
pub(in crate::brokers) use replay::Replay;
pub(in crate::brokers) use settings::{Settings, TABLE};
pub(in crate::brokers) use subscription::Subscription;

/// If less time than this is left before the deadline, no second attempt is made.
const MARGIN: Duration = Duration::from_millis(500);

/// The client of a cluster. Its producers are replaced when they break.
pub struct Kafka {
    supervisor: Arc<Supervisor>,
    waiters: Arc<Waiters>,
    watch: Arc<Watch>,
    /// Serializes second attempts.
    alone: Mutex<()>,
}

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
        metrics: Arc<Meter>,
    ) -> Result<Self, StartError> {
        let waiters = Waiters::new(limits.max_in_flight);
        let watch = Arc::new(Watch::new(name, topics, settings.advice()));
        let reports = Reports {
            waiters: Arc::clone(&waiters),
            watch: Arc::clone(&watch),
            metrics,
            login: settings.login(),
        };
        let supervisor = Supervisor::start(settings, limits, reports)?;
        Ok(Self {
            supervisor,
            waiters,
            watch,
            alone: Mutex::new(()),
        })
    }

    pub(super) fn publish(
        &self,
        message: &Message,
        deadline: Instant,
    ) -> impl Future<Output = Outcome> {
        async move {
            let reported = match self.produce(message, deadline, Batch::Shared) {
                Err(outcome) => return outcome,
                Ok(waiter) => self.reported(waiter.await, message),
            };
            if matches!(&reported, Outcome::NotStored(not) if not.reason == Reason::TooLarge) {
                // Boxed: rare, and a larger future than the usual one.
                Box::pin(self.publish_alone(message, deadline)).await
            } else {
                reported
            }
        }
    }

    /// Updates the watch from a message's delivery report; none came before the deadline if it has none.
    fn reported(&self, report: Option<Outcome>, message: &Message) -> Outcome {
        match report {
            Some(stored @ Outcome::Stored(_)) => {
                self.watch.note_stored(&message.destination);
                stored
            }
            Some(outcome) => self.note_unstored(message, outcome),
            None => {
                self.watch.note_failure(&message.destination);
                Outcome::unknown(Reason::TimedOut, "no delivery report before the deadline")
            }
        }
    }

    /// Updates the watch from an outcome, and explains it to the operator.
    #[cold]
    fn note_unstored(&self, message: &Message, outcome: Outcome) -> Outcome {
        let topic = &message.destination;
        match outcome {
            Outcome::NotStored(NotStored { reason, detail }) => {
                let (reason, detail) = self.cause(reason, detail);
                match reason {
                    Reason::Authorization => self.watch.note_denied(topic),
                    Reason::TooLarge => self.watch.note_answer(),
                    _ => self.watch.note_failure(topic),
                }
                Outcome::not_stored(reason, outcome::explain(reason, detail))
            }
            Outcome::Unknown(Unknown { reason, detail }) => {
                self.watch.note_failure(topic);
                let (reason, detail) = self.cause(reason, detail);
                Outcome::unknown(reason, detail)
            }
            stored @ Outcome::Stored(_) => stored,
        }
    }

    /// Replaces the reason "fatal" by its cause, where that is a missing right.
    fn cause(&self, reason: Reason, detail: String) -> (Reason, String) {
        if reason != Reason::Fatal {
            return (reason, detail);
        }
        let producers = self.supervisor.producers();
        match producers
            .as_ref()
            .and_then(|producers| producers.fatal_error())
        {
            Some((code, what)) if outcome::is_denial(code) => {
                self.watch.check_now();
                (Reason::Authorization, what)
            }
            _ => (reason, detail),
        }
    }

    /// Kafka refuses a whole batch for its size, including messages that merely shared it. Each may try once more, one at a
    /// time, so that no two share a batch again. A message that is then refused is itself too large.
    async fn publish_alone(&self, message: &Message, deadline: Instant) -> Outcome {
        let no_time = || {
            let detail =
                "refused with its batch for the batch's size; there was no time to send it alone";
            Outcome::not_stored(Reason::Other, detail)
        };
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.alone.lock()).await else {
            return no_time();
        };
        if Instant::now() + MARGIN > deadline {
            return no_time();
        }
        match self.produce(message, deadline, Batch::Isolated) {
            Err(outcome) => outcome,
            Ok(waiter) => self.reported(waiter.await, message),
        }
    }

    /// Hands the message to a producer, which copies it. A message refused here was never sent.
    fn produce(
        &self,
        message: &Message,
        deadline: Instant,
        batch: Batch,
    ) -> Result<Waiter<'_>, Outcome> {
        let producers = self.supervisor.producers();
        let Some(producers) = producers.as_ref() else {
            return Err(Outcome::not_stored(
                Reason::Fatal,
                "the producers have been closed",
            ));
        };
        self.watch.note_attempt();
        if let Some((reason, why)) = self.watch.silence() {
            return Err(Outcome::not_stored(reason, why));
        }
        let Some(waiter) = self.waiters.register(deadline) else {
            return Err(Outcome::not_stored(
                Reason::QueueFull,
                "the limit of messages in flight is reached",
            ));
        };
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in message.headers_on(Kind::Kafka) {
            headers = headers.insert(Header {
                key: &key,
                value: Some(value),
            });
        }
        let record = BaseRecord::with_opaque_to(&message.destination, opaque(waiter.ticket()))
            .key(message.key.as_bytes())
            .payload(&message.body[..])
            .headers(headers);
        let producer = producers.choose(batch, waiter.others());
        match producer.send(record) {
            Ok(()) => Ok(waiter),
            Err((error, _)) => {
                let outcome = self.note_unstored(message, outcome::of_produce_error(&error));
                if matches!(&outcome, Outcome::NotStored(not) if not.reason == Reason::Fatal) {
                    self.watch.check_now();
                }
                Err(outcome)
            }
        }
    }

    pub(super) fn health(&self) -> Health {
        self.watch.health()
    }

    pub(super) fn is_down_for(&self, topic: &str) -> bool {
        self.watch.is_down_for(topic)
    }

    pub(super) fn attention(&self) -> watch::Receiver<Attention> {
        self.watch.attention.subscribe()
    }

    pub(super) fn set_topics(&self, topics: Vec<String>) {
        self.watch.set_topics(topics);
    }

    pub(super) fn queue_len(&self) -> usize {
        let producers = self.supervisor.producers();
        let held = producers.as_ref().map(|producers| producers.held());
        held.unwrap_or_default()
    }

    pub(super) fn give_up(&self) {
        self.waiters.resolve_all(|_| {
            Outcome::unknown(
                Reason::TimedOut,
                "the service ended before the delivery report came",
            )
        });
    }

    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        self.watch.stop();
        let Some(producers) = self.supervisor.close() else {
            return 0;
        };
        // Flushing and dropping producers block: librdkafka's threads are joined.
        let flushing = tokio::task::spawn_blocking(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = producers.flush(left) else {
                return 0;
            };
            // The error also counts librdkafka's other events, so only the number of held messages counts.
            let remaining = producers.held();
            tracing::warn!(%error, remaining, "not every message was confirmed before the deadline");
            remaining
        });
        // Producers that hang while being dropped must not hold up the process.
        let limit = deadline + Duration::from_secs(1);
        tokio::time::timeout_at(limit, flushing)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| self.waiters.len())
    }
}

impl Drop for Kafka {
    /// Ends the watch thread, and drops the producers on a thread of their own if nobody has drained them.
    fn drop(&mut self) {
        self.watch.stop();
        self.supervisor.retire();
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

/// librdkafka's callbacks. They run on the producer's polling thread, so they only pass on what they get.
#[derive(Clone)]
struct Reports {
    waiters: Arc<Waiters>,
    watch: Arc<Watch>,
    metrics: Arc<Meter>,
    login: Login,
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.login.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // If there is no new token, that is the cause, not the broker's refusal of the expired one.
        let is_login = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
        let cause = self.login.trouble().filter(|_| is_login);
        self.watch
            .note_error(&error, cause.as_deref().unwrap_or(reason));
    }

    fn stats_raw(&self, _statistics: &[u8]) {
        // Only their arrival matters: it shows that the client's threads are alive.
        self.watch.note_statistics();
    }
}

/// librdkafka's log lines. They contain brokers and errors, never credentials. Their consequences are logged elsewhere, so
/// these are for debugging.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(target: "librdkafka", facility, "{message}");
        }
    }
}

impl ProducerContext for Reports {
    /// A ticket's number.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let ticket = Ticket::from_number(number as u64);
        // A panic would end the polling thread, and with it all further reports.
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

fn describe(error: &KafkaError) -> String {
    match error {
        // The error's own text contains the value, which may be a secret.
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("librdkafka rejects the value of {name}")
        }
        KafkaError::ClientCreation(what) => what.clone(),
        other => other.to_string(),
    }
}
