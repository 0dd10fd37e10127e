//! NATS through async-nats: one connection per broker, acknowledgements in an inbox of our own.
//!
//! The client's own request path would leak an entry for each unanswered publish (nats.rs#1617) and leave waiters to their
//! time-outs when the connection ends (nats.rs#1348). Here one subscription receives all answers, each finds its waiter by
//! the ticket in its subject, and a disconnect resolves all waiters immediately. A publish that soon has another server sends
//! its message again, and the stream recognizes it by its `Nats-Msg-Id`.

mod breaker;
mod connection;
mod credentials;
mod durability;
mod failure;
mod headers;
mod outbox;
mod outcome;
mod pace;
mod provision;
mod refusals;
mod replay;
mod session;
mod settings;
mod state;
mod subjects;
mod subscription;
mod tls_files;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::connection::State;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::durability::{Attention, Finding};
use super::outcome::{Outcome, Reason};
use crate::brokers::error::StartError;
use crate::brokers::health::{Health, Limits};
use crate::brokers::message::Message;
use crate::brokers::meter::Meter;
use crate::task;
use connection::Connection;
use outbox::OutgoingMessage;
use settings::Acknowledgement;
use state::Shared;
use subjects::Subjects;

pub(in crate::brokers) use durability::check_destinations;
pub(in crate::brokers) use provision::Provisioning;
pub(in crate::brokers) use replay::Replay;
pub(in crate::brokers) use settings::{Settings, TABLE};
pub(in crate::brokers) use subscription::Subscription;

/// Pause before the next attempt while a stream has no leader.
const NO_RESPONDERS_PAUSE: Duration = Duration::from_millis(200);

/// Time limit for a publish to wait for the next connection: with a single server, and where the client knows of others,
/// which are restarted one by one.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(1);
const CLUSTER_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before the next attempt while the stream stores another copy of the message.
const BEING_STORED_PAUSE: Duration = Duration::from_millis(100);

/// An acknowledgement counts as lost when a message sent this much later has its own: a stream stores in order, but a leader
/// that steps down can silently lose messages its followers have not accepted. Doubled with each attempt.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// Poll interval while waiting for a reconnect. 50 ms, because the client's own attempts are at least that far apart
/// (`pace.rs`): polling more often would hardly find a connection sooner. It delays an answer by no more than that.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

const NOT_TAKEN: &str = "the connection did not accept the message before the deadline";

/// If less time than this is left before the deadline, no further attempt is made.
const MARGIN: Duration = Duration::from_millis(500);

/// The client of a broker. Its connection is replaced when it breaks.
#[derive(Debug)]
pub struct Nats {
    connection: Arc<ArcSwap<Connection>>,
    acknowledgement: Acknowledgement,
    shared: Arc<Shared>,
    subjects: Subjects,
    supervisor: AbortOnDropHandle<()>,
}

impl Nats {
    pub(super) async fn start(
        name: &str,
        settings: &Settings,
        limits: Limits,
        metrics: Arc<Meter>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(name, limits.max_in_flight, metrics));
        let first = Connection::open(settings, &shared)
            .await
            .map_err(|error| StartError(format!("broker {name}: {error}")))?;
        let connection = Arc::new(ArcSwap::from_pointee(first));
        let supervising = connection::supervise(
            settings.clone(),
            Arc::clone(&connection),
            Arc::clone(&shared),
        );
        Ok(Self {
            connection,
            acknowledgement: settings.acknowledgement,
            shared,
            subjects: Subjects::default(),
            supervisor: AbortOnDropHandle::new(task::spawn_essential(
                "NATS supervisor",
                supervising,
            )),
        })
    }

    pub(super) async fn publish(&self, message: &Message, deadline: Instant) -> Outcome {
        if let Some(refusal) = self.subjects.refusal(&message.destination) {
            return refusal;
        }
        let mut in_doubt = false;
        let mut patience = None;
        let mut lead = OVERTAKEN;
        // Without a stream or an id, a repeated message would be a duplicate: an uncertain one is not sent again.
        let is_recognized = self.acknowledgement == Acknowledgement::JetStream
            && message.deduplication_id.is_some();
        loop {
            let lead_now = is_recognized.then_some(lead);
            let outcome = self.publish_once(message, deadline, lead_now).await;
            self.note_destination(&message.destination, &outcome);
            let pause = match &outcome {
                // A stream's election takes seconds, and the message is certainly not stored, so it may be sent again. A
                // stream that an inspection did not find is not being elected.
                Outcome::NotStored(not)
                    if not.reason == Reason::NoResponders
                        && !self.subjects.is_unusable(&message.destination) =>
                {
                    NO_RESPONDERS_PAUSE
                }
                Outcome::NotStored(not)
                    if not.reason == Reason::Disconnected && self.may_be_back(&mut patience) =>
                {
                    RECONNECT_PAUSE
                }
                // The stream recognizes the message by its Nats-Msg-Id.
                Outcome::Unknown(unknown)
                    if unknown.reason == Reason::Disconnected
                        && is_recognized
                        && self.may_be_back(&mut patience) =>
                {
                    in_doubt = true;
                    RECONNECT_PAUSE
                }
                Outcome::Unknown(unknown) if unknown.reason == Reason::Overtaken => {
                    in_doubt = true;
                    lead *= 2;
                    Duration::ZERO
                }
                // Most likely our own copy from before a disconnect. Once it is stored, the stream recognizes this one as a
                // duplicate; if it fails, this one is stored.
                Outcome::Unknown(unknown) if unknown.reason == Reason::BeingStored => {
                    BEING_STORED_PAUSE
                }
                _ => return outcome.after_uncertain_attempt(in_doubt),
            };
            let next = Instant::now() + pause;
            if next + MARGIN > deadline {
                return outcome.after_uncertain_attempt(in_doubt);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Updates the state of the subject from an outcome.
    fn note_destination(&self, subject: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Stored(_) => self.subjects.note_stored(subject),
            Outcome::NotStored(not) if not.reason == Reason::NoResponders => {
                if !self.subjects.note_no_responders(subject) {
                    self.shared
                        .attention
                        .send_modify(|attention| attention.doubts += 1);
                }
            }
            Outcome::Unknown(unknown) if unknown.reason == Reason::TimedOut => {
                self.subjects.note_silence(self.shared.name(), subject);
            }
            Outcome::NotStored(_) | Outcome::Unknown(_) => {}
        }
    }

    /// Whether the connection ended only recently, and the caller's patience has not run out.
    fn may_be_back(&self, patience: &mut Option<Instant>) -> bool {
        let limit = match self.connection.load().knows_other_servers() {
            true => CLUSTER_PATIENCE,
            false => RECONNECT_PATIENCE,
        };
        let end = *patience.get_or_insert_with(|| Instant::now() + limit);
        Instant::now() < end && self.shared.lost_for() < limit
    }

    /// Sends the message and waits for its acknowledgement, until the deadline. With a `lead`, gives up as soon as a message
    /// sent this much later is acknowledged.
    async fn publish_once(
        &self,
        message: &Message,
        deadline: Instant,
        lead: Option<Duration>,
    ) -> Outcome {
        let connection = self.connection.load_full();
        if !self.shared.breaker.allows() {
            return Outcome::not_stored(
                Reason::TimedOut,
                "the server does not answer; one event per second is tried",
            );
        }
        if self.shared.refusals.refuses(&message.destination) {
            return Outcome::not_stored(
                Reason::Authorization,
                "the user has no permission to publish to the subject; one event per second is tried",
            );
        }
        let sent = Instant::now();
        let overtaken = lead.map(|lead| sent + lead);
        let first_deadline = overtaken.map_or(deadline, |overtaken| overtaken.min(deadline));
        let Some(mut waiter) = self.shared.waiters.register(first_deadline) else {
            return Outcome::not_stored(
                Reason::QueueFull,
                "the limit of messages in flight is reached",
            );
        };
        let outgoing = OutgoingMessage::new(waiter.ticket(), message, &connection.inbox);
        let outbox = &connection.outbox;
        if waiter.others() > 0 {
            if let Err(outcome) = outbox.enqueue(outgoing) {
                return outcome;
            }
        } else {
            // Alone: no other message could share the write, and going through the task would only cost time.
            let sending = outbox.send_now(outgoing);
            if tokio::time::timeout_at(deadline, sending).await.is_err() {
                return match self.acknowledgement {
                    Acknowledgement::JetStream => Outcome::not_stored(Reason::TimedOut, NOT_TAKEN),
                    // The client may have accepted the message but not the request for its echo.
                    Acknowledgement::Core => Outcome::unknown(Reason::TimedOut, NOT_TAKEN),
                };
            }
        }
        loop {
            match (&mut waiter).await {
                Some(outcome) => {
                    if matches!(outcome, Outcome::Stored(_)) {
                        self.shared.note_stored(sent, &message.destination);
                    }
                    return outcome;
                }
                None if deadline <= Instant::now() => {
                    if waiter.take_back() {
                        return Outcome::not_stored(Reason::TimedOut, NOT_TAKEN);
                    }
                    self.shared.note_silence();
                    self.shared.refusals.note_doubt();
                    let detail = "no acknowledgement before the deadline";
                    return Outcome::unknown(Reason::TimedOut, detail);
                }
                None if overtaken
                    .is_some_and(|then| self.shared.has_stored_one_sent_after(then)) =>
                {
                    self.shared.refusals.note_doubt();
                    let detail = "no acknowledgement, although a later message has its own";
                    return Outcome::unknown(Reason::Overtaken, detail);
                }
                None => waiter.extend_deadline((Instant::now() + OVERTAKEN).min(deadline)),
            }
        }
    }

    pub(super) fn health(&self) -> Health {
        self.subjects.health(self.shared.health())
    }

    pub(super) fn connection_health(&self) -> Health {
        self.shared.health()
    }

    pub(super) fn is_down_for(&self, subject: &str) -> bool {
        matches!(self.shared.health(), Health::Down(_))
            || self.shared.refusals.contains(subject)
            || self.subjects.is_closed_to_copies(subject)
    }

    pub(super) fn attention(&self) -> watch::Receiver<Attention> {
        self.shared.attention.subscribe()
    }

    pub(super) fn note_findings(&self, findings: &mut [Finding]) {
        self.subjects.note_findings(findings);
    }

    pub(super) fn forget_findings(&self) {
        self.subjects.forget();
    }

    pub(super) fn queue_len(&self) -> usize {
        self.shared.waiters.len()
    }

    pub(super) fn give_up(&self) {
        let detail = "the service ended before the acknowledgement came";
        self.shared.end_all(Reason::TimedOut, detail);
    }

    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        self.supervisor.abort();
        self.shared.stop();
        let client = &self.connection.load_full().client;
        if client.connection_state() == State::Connected {
            let drained = tokio::time::timeout_at(deadline, client.drain()).await;
            if !matches!(drained, Ok(Ok(()))) {
                tracing::warn!(
                    broker = self.shared.name(),
                    "the connection did not end before the deadline"
                );
            }
        }
        self.queue_len()
    }
}
