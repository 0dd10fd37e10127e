//! Hands messages to the client: a lone one immediately, several in batches.
//!
//! The client writes to its socket as soon as it has anything: given one message at a time, it makes a system call for each,
//! and so does the server to read it. Messages that arrive while others are in flight are queued for a task instead, which
//! first lets every ready request add its own.

use std::sync::Arc;

use async_nats::client::{Client, PublishErrorKind};
use async_nats::connection::State;
use async_nats::{HeaderMap, PublishError};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::headers::headers;
use super::refusals::mark;
use super::settings::Acknowledgement;
use super::state::{Proof, Shared};
use crate::brokers::message::Message;
use crate::brokers::outcome::{Outcome, Reason, Restart};
use crate::brokers::waiters::Ticket;
use crate::task;

/// Sends to one client.
#[derive(Debug)]
pub(super) struct Outbox {
    publisher: Arc<Publisher>,
    /// As large as the table of waiters. Messages whose waiters have given up leave it when the client proceeds or ends; until
    /// then the breaker admits almost nothing.
    queue: mpsc::Sender<OutgoingMessage>,
    /// May wait for the client for as long as the client exists.
    _sender: AbortOnDropHandle<()>,
}

/// A message ready for the client.
#[derive(Debug)]
pub(super) struct OutgoingMessage {
    ticket: Ticket,
    subject: String,
    reply: String,
    mark: u64,
    headers: HeaderMap,
    body: Bytes,
}

impl OutgoingMessage {
    /// The ticket returns in the answer's subject.
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

/// Publishes to the client and reports failures.
#[derive(Debug)]
struct Publisher {
    client: Client,
    proof: Arc<Proof>,
    acknowledgement: Acknowledgement,
    shared: Arc<Shared>,
}

impl Outbox {
    /// Must be called within a Tokio runtime, since it spawns the task that empties the queue.
    pub(super) fn new(
        client: Client,
        proof: Arc<Proof>,
        acknowledgement: Acknowledgement,
        shared: Arc<Shared>,
    ) -> Self {
        let (queue, queued) = mpsc::channel(shared.waiters.capacity());
        let publisher = Arc::new(Publisher {
            client,
            proof,
            acknowledgement,
            shared,
        });
        let sender =
            task::spawn_essential("NATS outbox", send_batches(Arc::clone(&publisher), queued));
        Self {
            publisher,
            queue,
            _sender: AbortOnDropHandle::new(sender),
        }
    }

    /// Hands the message to the client. Until then it is certainly not sent. If the client refuses it, its waiter is
    /// resolved.
    pub(super) async fn send_now(&self, outgoing: OutgoingMessage) {
        self.publisher.send_or_fail(outgoing).await;
    }

    /// Does the same through the task.
    pub(super) fn enqueue(&self, outgoing: OutgoingMessage) -> Result<(), Outcome> {
        // The task would wait for a client without a connection until it has one again.
        self.publisher.expect_connected()?;
        self.queue.try_send(outgoing).map_err(|_| {
            Outcome::not_stored(Reason::QueueFull, "the connection accepts no more messages")
        })
    }
}

/// Sends the queued messages until the outbox is dropped.
async fn send_batches(publisher: Arc<Publisher>, mut queued: mpsc::Receiver<OutgoingMessage>) {
    while let Some(first) = queued.recv().await {
        tokio::task::yield_now().await;
        publisher.send_or_fail(first).await;
        while let Ok(next) = queued.try_recv() {
            publisher.send_or_fail(next).await;
        }
    }
}

impl Publisher {
    async fn send_or_fail(&self, outgoing: OutgoingMessage) {
        let ticket = outgoing.ticket;
        // A waiter that was resolved as "not stored" relies on the message never being sent.
        if !self.shared.waiters.hand_over_as(ticket, outgoing.mark) {
            return;
        }
        if let Err(outcome) = self.send(outgoing).await {
            self.shared.waiters.resolve(ticket, outcome);
        }
    }

    async fn send(&self, outgoing: OutgoingMessage) -> Result<(), Outcome> {
        // A disconnected client would send the message after the next connect, when nobody waits for it.
        self.expect_connected()?;
        let OutgoingMessage {
            subject,
            reply,
            headers,
            body,
            ..
        } = outgoing;
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
                // The echo returns once the server has processed everything before it.
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
