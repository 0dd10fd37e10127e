//! NATS through async-nats: one connection a broker, acknowledgements in an inbox of our own.
//!
//! The client's own request path would keep an entry for each publish that is never answered (nats.rs#1617) and leave
//! those who wait to their time-out when the connection ends (nats.rs#1348). Here one subscription takes all answers,
//! each finds the one who waits by the ticket in its subject, and a disconnect resolves everyone at once. Who finds
//! another server soon sends again, and the stream knows the message by its `Nats-Msg-Id`.

mod breaker;
mod connection;
mod credentials;
mod durability;
mod failure;
mod headers;
mod outbox;
mod outcome;
mod pace;
mod refusals;
mod replay;
mod session;
mod settings;
mod subjects;
mod subscription;

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
use connection::{Connection, Shared};
use outbox::Parcel;
use settings::Acknowledgement;
use subjects::Subjects;

pub(in crate::brokers) use durability::look;
pub(in crate::brokers) use replay::Replay;
pub(in crate::brokers) use settings::Settings;
pub(in crate::brokers) use subscription::Subscription;

/// How long a stream without a leader is left alone before the next try.
const NO_RESPONDERS_PAUSE: Duration = Duration::from_millis(200);

/// How long a connection that has just ended is waited for: where there is but one server, and where the client knows of
/// others, which are restarted one by one.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(1);
const CLUSTER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a stream that is storing another copy of the message is given to end that.
const BEING_STORED_PAUSE: Duration = Duration::from_millis(100);

/// An acknowledgement is lost when a message that was sent so much later has its own: a stream stores in order, but a leader
/// that goes takes with it what its followers have not agreed to. Doubled with each try.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// Between looks at whether it is back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

const NOT_TAKEN: &str = "the connection took no message before the deadline";

/// What is left of a request's time when no further try is made.
const MARGIN: Duration = Duration::from_millis(500);

/// A broker's connection, which is replaced when it breaks.
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
        // Nobody knows a message again without a stream or an id: in doubt it is not sent a second time.
        let is_recognized = self.acknowledgement == Acknowledgement::JetStream
            && message.deduplication_id.is_some();
        loop {
            let lead_now = is_recognized.then_some(lead);
            let outcome = self.publish_once(message, deadline, lead_now).await;
            self.note_destination(&message.destination, &outcome);
            let pause = match &outcome {
                // A stream's election takes seconds; the message is certainly not stored, so it may be sent again. A
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
                // The stream knows it again by its Nats-Msg-Id.
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
                // Most likely our own copy, sent before its connection ended. When it is stored, the stream knows this
                // one by it, and when it is not, this one is stored.
                Outcome::Unknown(unknown) if unknown.reason == Reason::BeingStored => {
                    BEING_STORED_PAUSE
                }
                _ => return outcome.after_doubt(in_doubt),
            };
            let next = Instant::now() + pause;
            if next + MARGIN > deadline {
                return outcome.after_doubt(in_doubt);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Keeps what an outcome says of its subject.
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

    /// Whether the connection ended only just now, and the caller has not waited for it for longer than that.
    fn may_be_back(&self, patience: &mut Option<Instant>) -> bool {
        let limit = match self.connection.load().knows_other_servers() {
            true => CLUSTER_PATIENCE,
            false => RECONNECT_PATIENCE,
        };
        let end = *patience.get_or_insert_with(|| Instant::now() + limit);
        Instant::now() < end && self.shared.lost_for() < limit
    }

    /// Sends the message and waits for its acknowledgement, to the deadline at most: less where one that was sent `lead`
    /// later has its own, and the stream would know the message again.
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
                "the server answers nothing; one event a second tries again",
            );
        }
        if self.shared.refusals.refuses(&message.destination) {
            return Outcome::not_stored(
                Reason::Authorization,
                "the user has no permission to publish to the subject; one event a second tries again",
            );
        }
        let sent = Instant::now();
        let overtaken = lead.map(|lead| sent + lead);
        let first_look = overtaken.map_or(deadline, |overtaken| overtaken.min(deadline));
        let Some(mut waiter) = self.shared.waiters.register(first_look) else {
            return Outcome::not_stored(
                Reason::QueueFull,
                "as many messages are under way as may be",
            );
        };
        let parcel = Parcel::new(waiter.ticket(), message, &connection.inbox);
        let outbox = &connection.outbox;
        if waiter.others() > 0 {
            if let Err(outcome) = outbox.send_with_others(parcel) {
                return outcome;
            }
        } else {
            // Nothing can leave with it, and the task's turn would only cost it time.
            let sending = outbox.send_alone(parcel);
            if tokio::time::timeout_at(deadline, sending).await.is_err() {
                return match self.acknowledgement {
                    Acknowledgement::JetStream => Outcome::not_stored(Reason::TimedOut, NOT_TAKEN),
                    // The message may have been taken and its echo not.
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
                None => waiter.go_on_until((Instant::now() + OVERTAKEN).min(deadline)),
            }
        }
    }

    pub(super) fn health(&self) -> Health {
        self.subjects.health(self.shared.health())
    }

    pub(super) fn connection_health(&self) -> Health {
        self.shared.health()
    }

    /// Whether a message to this subject would certainly not be stored.
    pub(super) fn is_down_for(&self, subject: &str) -> bool {
        matches!(self.shared.health(), Health::Down(_))
            || self.shared.refusals.contains(subject)
            || self.subjects.is_closed_to_copies(subject)
    }

    /// When its subjects should be inspected.
    pub(super) fn attention(&self) -> watch::Receiver<Attention> {
        self.shared.attention.subscribe()
    }

    /// Keeps what an inspection found, and corrects what it can't know.
    pub(super) fn note_findings(&self, findings: &mut [Finding]) {
        self.subjects.note_findings(findings);
    }

    /// The subjects could not be inspected.
    pub(super) fn forget_findings(&self) {
        self.subjects.forget();
    }

    pub(super) fn queue_len(&self) -> usize {
        self.shared.waiters.len()
    }

    /// Tells everyone who still waits that nothing is known.
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
