//! The result of steps 3 to 6: the messages to publish for a request, if any.

use crate::brokers::Message;
use crate::config::{BrokerId, RouteId};
use crate::event::{EventId, Refusal};
use crate::flow::duplicates::Fingerprint;
use crate::providers::handshake::Reply;

/// The decision on an authentic request.
#[derive(Debug)]
pub enum Decided {
    /// One event, or a refusal of the whole request.
    Event(Decision),
    /// Several events, none of them refused.
    Batch(Vec<Decision>),
    /// A handshake: no event, only this reply.
    Handshake(Box<Reply>),
}

/// The decision on an authentic event: steps 3 to 6, without any I/O.
#[derive(Debug)]
pub struct Decision {
    pub event_id: Option<EventId>,
    pub event_type: Option<String>,
    pub verdict: Verdict,
}

/// The verdict on an event. Its rare parts are boxed, since it is moved several times.
#[derive(Debug)]
pub enum Verdict {
    /// Publish it.
    Publish {
        /// The route that matched.
        route: RouteId,
        delivery: Box<Delivery>,
    },
    /// Publish it as a dead letter.
    DeadLetter {
        letter: Box<Addressed>,
        /// The reason.
        refusal: Refusal,
    },
    /// Answer 200 and drop it, as configured.
    Ignore,
    /// Refuse it.
    Refuse(Refusal),
}

/// All messages of one event. It is stored once `to` or `fallback` and each copy's broker have stored theirs.
#[derive(Debug)]
pub struct Delivery {
    /// The event's destination.
    pub to: Addressed,
    /// Used if `to` certainly did not store the event.
    pub fallback: Option<Box<Addressed>>,
    /// Additional destinations.
    pub copies: Vec<Addressed>,
    /// Its key in the duplicates window.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// A message and its broker.
#[derive(Debug)]
pub struct Addressed {
    pub broker: BrokerId,
    pub message: Message,
}
