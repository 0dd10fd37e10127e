//! The seam for brokers: a message in, one of three outcomes out.
//!
//! A new broker is a folder here, a variant of each enum below and nothing elsewhere. The clients and their types stay
//! inside these folders.

#![cfg_attr(
    not(all(feature = "kafka", feature = "nats")),
    allow(
        unused_variables,
        reason = "some parameters are for one kind of broker"
    )
)]

mod backoff;
mod delivered;
mod durability;
mod error;
mod health;
#[cfg(feature = "kafka")]
mod kafka;
mod kind;
mod message;
mod meter;
#[cfg(feature = "kafka")]
mod mock;
mod names;
#[cfg(feature = "nats")]
mod nats;
mod outcome;
mod waiters;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use delivered::{Delivered, From};
pub use durability::{Attention, Finding, Needs, NotInspected, Verdict, together};
pub use error::{ReplayError, StartError, SubscribeError};
pub use health::{Health, Limits};
pub use kind::Kind;
pub use message::{
    Attribute, Headers, MAX_CE_SOURCE_BYTES, MAX_DETAIL_BYTES, MAX_FORWARDED_BYTES, MAX_KEY_BYTES,
    MAX_MEDIA_TYPE_BYTES, MAX_POINTER_BYTES, Message, id_part,
};
pub use meter::Meter;
#[cfg(feature = "kafka")]
pub use mock::MockCluster;
pub use outcome::{NotStored, Outcome, Reason, Receipt, Restart, Unknown};

#[cfg(feature = "kafka")]
use crate::secret::hide_user_info;
use crate::table::Section;

#[cfg(not(any(feature = "kafka", feature = "nats")))]
compile_error!("a bridge without a broker is none: enable the feature `kafka`, `nats` or both");

#[cfg(not(all(feature = "kafka", feature = "nats")))]
const NOT_IN_BUILD: &str = if cfg!(feature = "kafka") {
    "is not in this build, which was compiled for Kafka alone; use a build with the feature `nats`"
} else {
    "is not in this build, which was compiled for NATS alone; use a build with the feature `kafka`"
};

/// A broker's part of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    /// `kind = "kafka"`.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Settings),
    /// `kind = "nats"`.
    #[cfg(feature = "nats")]
    Nats(nats::Settings),
}

impl Settings {
    /// Reads `[brokers.NAME]`. Problems are reported to the section.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        if !section.has("kind") {
            section.required_text("kind", "\"kafka\"` or `kind = \"nats\"");
            return None;
        }
        let kind = section.word("kind", &[("kafka", Kind::Kafka), ("nats", Kind::Nats)]);
        if kind.is_none() {
            section.finish_quietly();
        }
        match kind? {
            #[cfg(feature = "kafka")]
            Kind::Kafka => kafka::Settings::read(section).map(Self::Kafka),
            #[cfg(feature = "nats")]
            Kind::Nats => nats::Settings::read(section).map(Self::Nats),
            #[cfg(not(all(feature = "kafka", feature = "nats")))]
            _ => {
                section.problem_at("kind", NOT_IN_BUILD);
                section.finish_quietly();
                None
            }
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Kind::Kafka,
            #[cfg(feature = "nats")]
            Self::Nats(_) => Kind::Nats,
        }
    }

    /// Whether the broker's health says nothing of its destinations before they have been inspected.
    #[must_use]
    pub fn is_inspected_first(&self) -> bool {
        matches!(self, Self::Nats(_))
    }

    /// Why no destination's durability can be known, where that is certain.
    #[must_use]
    pub fn uninspectable(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.uninspectable(),
            #[cfg(feature = "nats")]
            Self::Nats(_) => None,
        }
    }

    /// The files that its client reads for itself.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.files(),
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.files(),
        }
    }

    /// Creates the clients with the final settings and drops them, without a connection.
    ///
    /// # Errors
    /// Why the client library does not take the settings, and the option to point at where there is one.
    pub fn try_clients(&self, limits: Limits) -> Result<(), (Option<&str>, String)> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.try_clients(limits),
            // Nothing is left for its client to find.
            #[cfg(feature = "nats")]
            Self::Nats(_) => Ok(()),
        }
    }

    /// The files that nobody but the bridge should be able to read, and the keys that name them.
    #[must_use]
    pub fn private_files(&self) -> Vec<(String, PathBuf)> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.private_files(),
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.private_files(),
        }
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => hide_user_info(settings.bootstrap_servers()),
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.servers_without_credentials(),
        }
    }
}

/// A broker's client.
#[derive(Debug)]
pub enum Broker {
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    /// NATS.
    #[cfg(feature = "nats")]
    Nats(nats::Nats),
}

impl Broker {
    /// Starts a client. It connects in the background, for as long as it takes.
    ///
    /// # Errors
    /// What in the settings the client does not take.
    pub async fn start(
        name: &str,
        settings: &Settings,
        limits: Limits,
        destinations: Vec<String>,
        metrics: Arc<Meter>,
    ) -> Result<Self, StartError> {
        match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => {
                kafka::Kafka::start(name, settings, limits, destinations, metrics).map(Self::Kafka)
            }
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => nats::Nats::start(name, settings, limits, metrics)
                .await
                .map(Self::Nats),
        }
    }

    /// Publishes a message and waits for the broker's word, no longer than to the deadline.
    ///
    /// Dropping the future takes nothing back: the message may still be stored.
    pub async fn publish(&self, message: &Message, deadline: Instant) -> Outcome {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.publish(message, deadline).await,
            // Large, and every request under way would keep room for it.
            #[cfg(feature = "nats")]
            Self::Nats(nats) => Box::pin(nats.publish(message, deadline)).await,
        }
    }

    /// Whether it can be published to, from what was seen.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.health(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.health(),
        }
    }

    /// Whether it can be reached, whatever is known of its destinations.
    #[must_use]
    pub fn connection_health(&self) -> Health {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.health(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.connection_health(),
        }
    }

    /// Whether a message to this topic or subject would certainly not be stored, from what was seen. It is found out without
    /// publishing when that ends.
    #[must_use]
    pub fn is_down_for(&self, destination: &str) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.is_down_for(destination),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.is_down_for(destination),
        }
    }

    /// When its destinations should be inspected: a value that changes.
    #[must_use]
    pub fn attention(&self) -> watch::Receiver<Attention> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.attention(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.attention(),
        }
    }

    /// Keeps what an inspection found, and corrects what it can't know.
    pub fn note_findings(&self, findings: &mut [Finding]) {
        match self {
            // It asks for its topics by itself.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {}
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.note_findings(findings),
        }
    }

    /// Its destinations could not be inspected: what was found before does not hold any more.
    pub fn forget_findings(&self) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {}
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.forget_findings(),
        }
    }

    /// From now on these are the destinations that are known in advance.
    pub fn set_destinations(&self, destinations: Vec<String>) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.set_topics(destinations),
            // Its health says nothing of subjects.
            #[cfg(feature = "nats")]
            Self::Nats(_) => {}
        }
    }

    /// How many messages the client holds.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.queue_len(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.queue_len(),
        }
    }

    /// Tells everyone who still waits that nothing is known: the process is about to end.
    pub fn give_up(&self) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.give_up(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.give_up(),
        }
    }

    /// Waits until what is under way has been answered, and ends the client. Returns how many messages were left.
    pub async fn drain(&self, deadline: Instant) -> usize {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.drain(deadline).await,
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.drain(deadline).await,
        }
    }
}

/// Asks a broker for the destinations, and what their acknowledgement survives. Takes no longer than `timeout`.
///
/// # Errors
/// Why it can't be asked, in words for the operator.
pub async fn durability(
    settings: &Settings,
    destinations: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, NotInspected> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(settings) => kafka::look(settings, destinations, needs, timeout).await,
        #[cfg(feature = "nats")]
        Settings::Nats(settings) => nats::look(settings, destinations, needs, timeout).await,
    }
}

/// Tries to reach a broker as its client would: every step from its name to the right to write. Takes no longer than 10 s.
///
/// # Errors
/// The step that failed, in words for the operator.
pub async fn reach(
    settings: &Settings,
    destinations: &[String],
    limits: Limits,
) -> Result<Vec<Finding>, String> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(settings) => kafka::reach(settings, destinations, limits).await,
        // Its steps are told apart where its streams are looked at.
        #[cfg(feature = "nats")]
        Settings::Nats(_) => Ok(Vec::new()),
    }
}

/// Messages of some topics or subjects as they come.
pub enum Subscription {
    /// Of Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Subscription),
    /// Of NATS.
    #[cfg(feature = "nats")]
    Nats(nats::Subscription),
}

impl Subscription {
    /// Subscribes.
    ///
    /// # Errors
    /// Why the broker did not take the subscription.
    pub async fn start(
        settings: &Settings,
        topics: &[String],
        from: From,
    ) -> Result<Self, SubscribeError> {
        match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => kafka::Subscription::start(settings, topics, from)
                .await
                .map(Self::Kafka),
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => nats::Subscription::start(settings, topics, from)
                .await
                .map(Self::Nats),
        }
    }

    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// Why there won't be one.
    pub async fn next(&mut self) -> Result<Delivered, SubscribeError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(subscription) => subscription.next().await,
            #[cfg(feature = "nats")]
            Self::Nats(subscription) => subscription.next().await,
        }
    }
}

/// A topic or subject that is read once, to its present end, from where the last replay of it stopped.
pub enum Replay {
    /// Of Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Replay),
    /// Of NATS.
    #[cfg(feature = "nats")]
    Nats(Box<nats::Replay>),
}

impl Replay {
    /// Begins where the last one of this selection stopped. A look leaves that as it is.
    ///
    /// # Errors
    /// Why the topic can't be read.
    pub async fn start(
        settings: &Settings,
        topic: &str,
        selection: Option<&str>,
        is_look: bool,
    ) -> Result<Self, ReplayError> {
        match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => kafka::Replay::start(settings, topic, selection)
                .await
                .map(Self::Kafka),
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => {
                let replay = nats::Replay::start(settings, topic, selection, is_look).await?;
                Ok(Self::Nats(Box::new(replay)))
            }
        }
    }

    /// How many messages there were to read, or are.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.remaining(),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.remaining(),
        }
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// Why there won't be one.
    pub async fn next(&mut self) -> Result<Option<Delivered>, ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.next().await,
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.next().await,
        }
    }

    /// Moves the position behind the message that was read last.
    ///
    /// # Errors
    /// Why it could not be moved: the next replay will read the message again.
    pub async fn done(&mut self, message: &Delivered) -> Result<(), ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.done(message),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.done().await,
        }
    }

    /// Moves the position behind the message that was read last, though it was published nowhere.
    ///
    /// # Errors
    /// Why it could not be moved, or that the message would not be kept then.
    pub async fn pass(&mut self, message: &Delivered) -> Result<(), ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.done(message),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.pass().await,
        }
    }

    /// Names the message that was read last: topic, partition and offset, or subject and stream sequence.
    #[must_use]
    pub fn location(&self, message: &Delivered) -> String {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {
                let (partition, offset) = message.position.unwrap_or_default();
                format!("{}/{partition}/{offset}", message.topic)
            }
            #[cfg(feature = "nats")]
            Self::Nats(replay) => format!("{}/{}", message.topic, replay.sequence()),
        }
    }

    /// Leaves the position before the message that was read last.
    ///
    /// # Errors
    /// Why the broker could not be told.
    pub async fn leave(&mut self) -> Result<(), ReplayError> {
        match self {
            // What is not committed was not read.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Ok(()),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.leave().await,
        }
    }
}

/// A receipt for tests of what becomes of receipts.
#[cfg(test)]
pub(crate) fn test_receipt(duplicate: bool) -> Receipt {
    Receipt::confirmed(duplicate)
}
