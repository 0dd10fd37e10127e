//! The outcome of steps 3 to 6: what is to be published of a request, if anything.

use crate::brokers::Message;
use crate::config::{BrokerId, RouteId};
use crate::event::{EventId, Refusal};
use crate::flow::duplicates::Fingerprint;
use crate::providers::handshake::Reply;

/// The decision on an authentic request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are the large one"
)]
pub enum Decided {
    /// It is one event, or is refused as a whole.
    Event(Decision),
    /// It is several events, none of which is refused.
    Batch(Vec<Decision>),
    /// It is no event, and is answered like this.
    Handshake(Box<Reply>),
}

/// The decision on an authentic event: steps 3 to 6, without any I/O.
#[derive(Debug)]
pub struct Decision {
    /// Its id, where it has one.
    pub event_id: Option<EventId>,
    /// Its type, where it has one.
    pub event_type: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdict on an event.
#[derive(Debug)]
pub enum Verdict {
    /// It is published.
    Publish {
        /// The route that took it.
        route: RouteId,
        /// Like this.
        delivery: Box<Delivery>,
    },
    /// It is published as a dead letter.
    DeadLetter {
        /// Like this.
        letter: Addressed,
        /// For this reason.
        refusal: Refusal,
    },
    /// It is answered 200 and dropped, as the configuration says.
    Ignore,
    /// It is refused.
    Refuse(Refusal),
}

/// Everything that is to be published of one event: stored means that `to` or `fallback` has it, and each copy's broker.
#[derive(Debug)]
pub struct Delivery {
    /// Where the event goes.
    pub to: Addressed,
    /// Where it goes instead, when that certainly did not store it.
    pub fallback: Option<Addressed>,
    /// Where it goes besides.
    pub copies: Vec<Addressed>,
    /// Its key in the duplicates window.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// A message and its broker.
#[derive(Debug)]
pub struct Addressed {
    /// The broker.
    pub broker: BrokerId,
    /// The message.
    pub message: Message,
}
