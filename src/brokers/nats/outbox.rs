//! What is on its way to the client: a message alone at once, many together.
//!
//! The client writes what it has to its socket as soon as it has something: handed one message at a time, it makes a
//! system call for each, and the server reads each by itself. Messages that come while others are under way are queued
//! for a task instead, which first lets every request that is ready add its own.

use std::sync::Arc;

use async_nats::client::{Client, PublishErrorKind};
use async_nats::connection::State;
use async_nats::{HeaderMap, PublishError};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Proof, Shared};
use super::headers::headers;
use super::refusals::mark;
use super::settings::Acknowledgement;
use crate::brokers::message::Message;
use crate::brokers::outcome::{Outcome, Reason, Restart};
use crate::brokers::waiters::Ticket;
use crate::task;

/// The way into one client.
#[derive(Debug)]
pub(super) struct Outbox {
    handover: Arc<Handover>,
    /// Holds what one table of waiters can, and what they have given up on. That goes when the client goes on or ends; until
    /// then the breaker lets next to nothing in.
    queue: mpsc::Sender<Parcel>,
    /// May wait for the client for as long as there is one.
    _sender: AbortOnDropHandle<()>,
}

/// A message as the client takes it.
#[derive(Debug)]
pub(super) struct Parcel {
    ticket: Ticket,
    subject: String,
    reply: String,
    mark: u64,
    headers: HeaderMap,
    body: Bytes,
}

impl Parcel {
    /// The ticket comes back in the subject of the answer.
    pub(super) fn new(ticket: Ticket, message: &Message, inbox: &str) -> Self {
        Self {
            ticket,
            subject: message.destination.clone(),
            reply: format!("{inbox}{:x}", ticket.number()),
            mark: mark(&message.destination),
            headers: headers(message),
            body: message.body.clone(),
        }
    }
}

/// The client, and what it takes to tell what became of a message.
#[derive(Debug)]
struct Handover {
    client: Client,
    proof: Arc<Proof>,
    acknowledgement: Acknowledgement,
    shared: Arc<Shared>,
}

impl Outbox {
    /// Needs a Tokio runtime, for the task that empties the queue.
    pub(super) fn new(
        client: Client,
        proof: Arc<Proof>,
        acknowledgement: Acknowledgement,
        shared: Arc<Shared>,
    ) -> Self {
        let (queue, queued) = mpsc::channel(shared.waiters.capacity());
        let handover = Arc::new(Handover {
            client,
            proof,
            acknowledgement,
            shared,
        });
        let sender =
            task::spawn_essential("NATS outbox", send_together(Arc::clone(&handover), queued));
        Self {
            handover,
            queue,
            _sender: AbortOnDropHandle::new(sender),
        }
    }

    /// Hands the message to the client. Until that has happened, it is certainly not sent. Should the client refuse it, the one
    /// who waits for the ticket is told.
    pub(super) async fn send_alone(&self, parcel: Parcel) {
        self.handover.now_or_tell(parcel).await;
    }

    /// Leaves the same to the task.
    pub(super) fn send_with_others(&self, parcel: Parcel) -> Result<(), Outcome> {
        // A client that has no connection may take nothing, and the task would wait for it, until it has one again.
        self.handover.expect_connected()?;
        self.queue.try_send(parcel).map_err(|_| {
            Outcome::not_stored(Reason::QueueFull, "the connection takes no more messages")
        })
    }
}

/// Ends with the outbox.
async fn send_together(handover: Arc<Handover>, mut queued: mpsc::Receiver<Parcel>) {
    while let Some(first) = queued.recv().await {
        tokio::task::yield_now().await;
        handover.now_or_tell(first).await;
        while let Ok(next) = queued.try_recv() {
            handover.now_or_tell(next).await;
        }
    }
}

impl Handover {
    async fn now_or_tell(&self, parcel: Parcel) {
        let ticket = parcel.ticket;
        // Who is told that the connection has ended, or gave up because the client took nothing for long, counts on it.
        if !self.shared.waiters.hand_over_as(ticket, parcel.mark) {
            return;
        }
        if let Err(outcome) = self.now(parcel).await {
            self.shared.waiters.resolve(ticket, outcome);
        }
    }

    async fn now(&self, parcel: Parcel) -> Result<(), Outcome> {
        // What is published into a client that is not connected is sent after the next connect, when nobody waits.
        self.expect_connected()?;
        let Parcel {
            subject,
            reply,
            headers,
            body,
            ..
        } = parcel;
        let client = &self.client;
        match self.acknowledgement {
            Acknowledgement::JetStream => client
                .publish_with_reply_and_headers(subject, reply, headers, body)
                .await
                .map_err(|error| self.refused(&error)),
            Acknowledgement::Core => {
                client
                    .publish_with_headers(subject, headers, body)
                    .await
                    .map_err(|error| self.refused(&error))?;
                // Comes back when the server has dealt with everything before it.
                let echo = client.publish(reply, Bytes::new()).await;
                echo.map_err(|error| Outcome::unknown(Reason::Disconnected, error.to_string()))
            }
        }
    }

    fn expect_connected(&self) -> Result<(), Outcome> {
        match self.client.connection_state() {
            State::Connected if self.proof.holds() => Ok(()),
            State::Connected => Err(self.shared.without_inbox()),
            State::Pending | State::Disconnected => {
                Err(Outcome::not_stored(Reason::Disconnected, "not connected"))
            }
        }
    }

    fn refused(&self, error: &PublishError) -> Outcome {
        let reason = match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Reason::TooLarge,
            PublishErrorKind::InvalidSubject => Reason::Other,
            PublishErrorKind::Send => {
                // The client's task has ended: nothing will ever be sent through it again.
                self.shared.ask_for_replacement(Restart::Dead);
                Reason::Fatal
            }
        };
        Outcome::not_stored(reason, error.to_string())
    }
}
