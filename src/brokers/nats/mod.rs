//! NATS through async-nats: one connection a broker, acknowledgements in an inbox of our own.
//!
//! The client's own request path would keep an entry for each publish that is never answered (nats.rs#1617) and leave
//! those who wait to their time-out when the connection ends (nats.rs#1348). Here one subscription takes all answers,
//! each finds the one who waits by the ticket in its subject, and a disconnect resolves everyone at once.

mod headers;
mod names;
mod outcome;
mod settings;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::{Client, Event};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::outcome::{Outcome, Reason, Receipt};
use super::waiters::{Ticket, Waiters};
use super::{Health, Limits, Message, StartError};
use crate::metrics::BrokerMetrics;
use settings::Acknowledgement;

pub(in crate::brokers) use names::{check_subject, check_value};
pub(in crate::brokers) use settings::Settings;
pub(in crate::brokers) use subscription::Subscription;
pub(in crate::brokers) use subscription::inspect;

/// How long a stream without a leader is left alone before the next try.
const NO_RESPONDERS_PAUSE: Duration = Duration::from_millis(200);

/// What is left of a request's time when no further try is made.
const MARGIN: Duration = Duration::from_millis(500);

/// A connection.
#[derive(Debug)]
pub struct Nats {
    client: Client,
    acknowledgement: Acknowledgement,
    /// The subject that answers come to, but for the ticket.
    inbox: String,
    shared: Arc<Shared>,
}

/// What the connection's events and answers have to do with.
#[derive(Debug)]
struct Shared {
    name: String,
    waiters: Arc<Waiters>,
    health: Mutex<Health>,
    metrics: Arc<BrokerMetrics>,
}

impl Nats {
    pub(super) async fn start(
        name: &str,
        settings: &Settings,
        limits: Limits,
        metrics: Arc<BrokerMetrics>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            waiters: Waiters::new(limits.max_in_flight),
            health: Mutex::new(Health::Down("not connected yet".to_owned())),
            metrics,
        });
        let fail = |error: &dyn std::error::Error| StartError(format!("broker {name}: {error}"));
        let options = settings
            .connect_options()
            .await
            .map_err(|error| fail(&error))?;
        let events = Arc::clone(&shared);
        let options = options
            .retry_on_initial_connect()
            .event_callback(move |event| {
                events.note(&event);
                std::future::ready(())
            });
        let client = options
            .connect(settings.addresses())
            .await
            .map_err(|error| fail(&error))?;
        let inbox = format!("{}.", client.new_inbox());
        let answers = client
            .subscribe(format!("{inbox}*"))
            .await
            .map_err(|error| fail(&error))?;
        tokio::spawn(hand_out(
            answers,
            inbox.len(),
            settings.acknowledgement,
            Arc::clone(&shared),
        ));
        Ok(Self {
            client,
            acknowledgement: settings.acknowledgement,
            inbox,
            shared,
        })
    }

    pub(super) async fn publish(&self, message: &Message, deadline: Instant) -> Outcome {
        loop {
            let outcome = self.publish_once(message, deadline).await;
            let next = Instant::now() + NO_RESPONDERS_PAUSE;
            let is_leaderless =
                matches!(&outcome, Outcome::NotStored(not) if not.reason == Reason::NoResponders);
            // A stream's election takes seconds; the message is certainly not stored, so it may be sent again.
            if !is_leaderless || next + MARGIN > deadline {
                return outcome;
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn publish_once(&self, message: &Message, deadline: Instant) -> Outcome {
        // What is published into a client that is not connected is sent after the next connect, when nobody waits.
        if self.client.connection_state() != State::Connected {
            return Outcome::not_stored(Reason::Disconnected, "not connected");
        }
        let Some(waiter) = self.shared.waiters.register() else {
            return Outcome::not_stored(
                Reason::QueueFull,
                "as many messages are under way as may be",
            );
        };
        let reply = format!("{}{:x}", self.inbox, waiter.ticket().number());
        match tokio::time::timeout_at(deadline, self.send(message, reply)).await {
            Ok(Ok(())) => {}
            Ok(Err(outcome)) => return outcome,
            Err(_) => {
                let detail = "the connection took no message before the deadline";
                return match self.acknowledgement {
                    Acknowledgement::JetStream => Outcome::not_stored(Reason::TimedOut, detail),
                    // The message may have been taken and its echo not.
                    Acknowledgement::Core => Outcome::unknown(Reason::TimedOut, detail),
                };
            }
        }
        match tokio::time::timeout_at(deadline, waiter).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::unknown(Reason::TimedOut, "no acknowledgement before the deadline"),
        }
    }

    /// Hands the message to the connection. Until that has happened, it is certainly not sent.
    async fn send(&self, message: &Message, reply: String) -> Result<(), Outcome> {
        let (subject, headers, body) = (
            message.destination.clone(),
            headers::headers(message),
            message.body.clone(),
        );
        let sent = match self.acknowledgement {
            Acknowledgement::JetStream => {
                self.client
                    .publish_with_reply_and_headers(subject, reply, headers, body)
                    .await
            }
            Acknowledgement::Core => {
                let sent = self
                    .client
                    .publish_with_headers(subject, headers, body)
                    .await;
                match sent {
                    // Comes back when the server has dealt with everything before it.
                    Ok(()) => {
                        let echo = self.client.publish(reply, Bytes::new()).await;
                        return echo.map_err(|error| {
                            Outcome::unknown(Reason::Disconnected, error.to_string())
                        });
                    }
                    Err(error) => Err(error),
                }
            }
        };
        sent.map_err(|error| {
            let reason = match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Reason::TooLarge,
                PublishErrorKind::InvalidSubject => Reason::Other,
                PublishErrorKind::Send => Reason::Fatal,
            };
            Outcome::not_stored(reason, error.to_string())
        })
    }

    pub(super) fn health(&self) -> Health {
        self.shared.health().clone()
    }

    pub(super) fn queue_len(&self) -> usize {
        self.shared.waiters.len()
    }

    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        if self.client.connection_state() == State::Connected {
            let drained = tokio::time::timeout_at(deadline, self.client.drain()).await;
            if !matches!(drained, Ok(Ok(()))) {
                tracing::warn!(
                    broker = self.shared.name,
                    "the connection did not end before the deadline"
                );
            }
        }
        self.queue_len()
    }
}

impl Shared {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!(broker = self.name, "broker is up");
                self.change_to(Health::Up {
                    missing: Vec::new(),
                });
            }
            Event::Disconnected | Event::Closed => {
                self.change_to(Health::Down("not connected".to_owned()));
                let waiting = self
                    .waiters
                    .resolve_all(|| Outcome::unknown(Reason::Disconnected, "the connection ended"));
                tracing::warn!(
                    broker = self.name,
                    waiting,
                    "broker is down: the connection ended"
                );
            }
            Event::LameDuckMode => tracing::warn!(
                broker = self.name,
                "the server is about to end; another one will be used"
            ),
            Event::Draining => {}
            Event::SlowConsumer(_) => tracing::warn!(
                broker = self.name,
                "acknowledgements come faster than they are read"
            ),
            Event::ServerError(error) => self.complain(&error.to_string()),
            Event::ClientError(error) => self.complain(&error.to_string()),
        }
    }

    /// Keeps what went wrong for `/readyz`, and logs it once.
    fn complain(&self, what: &str) {
        let what = if what.to_ascii_lowercase().contains("authorization") {
            format!("authentication failed: {what}")
        } else {
            what.to_owned()
        };
        let mut health = self.health();
        if let Health::Down(why) = &mut *health {
            if why.contains(&what) {
                return;
            }
            *why = format!("not connected ({what})");
        }
        drop(health);
        tracing::warn!(broker = self.name, "{what}");
    }

    fn change_to(&self, health: Health) {
        self.metrics
            .up
            .set(i64::from(matches!(health, Health::Up { .. })));
        *self.health() = health;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the answers and hands each to the one who waits for it. Ends with the client.
async fn hand_out(
    mut answers: async_nats::Subscriber,
    prefix: usize,
    acknowledgement: Acknowledgement,
    shared: Arc<Shared>,
) {
    while let Some(answer) = answers.next().await {
        let number = answer
            .subject
            .get(prefix..)
            .and_then(|number| u64::from_str_radix(number, 16).ok());
        let Some(number) = number else { continue };
        let outcome = match acknowledgement {
            Acknowledgement::JetStream => outcome::of_answer(&answer),
            Acknowledgement::Core => Outcome::Stored(Receipt::confirmed(false)),
        };
        let is_stored = matches!(outcome, Outcome::Stored(_));
        if !shared.waiters.resolve(Ticket::from_number(number), outcome) && is_stored {
            shared.metrics.late_acks.inc();
        }
    }
}
