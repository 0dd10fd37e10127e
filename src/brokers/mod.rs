//! The seam for brokers: a message in, one of three outcomes out.
//!
//! A new broker is a folder here, a variant of each enum below and nothing elsewhere. The clients' types stay inside these
//! folders.

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
mod provision;
mod waiters;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use delivered::{Delivered, StartAt};
pub use durability::{Assessment, Attention, Finding, Needs, NotInspected, merge_equal};
pub use error::{
    ProvisionError, RejectedSettings, ReplayError, RequestError, StartError, SubscribeError,
};
pub use health::{Health, Limits};
pub use kind::Kind;
pub use message::{
    Attribute, Headers, MAX_CE_SOURCE_BYTES, MAX_DETAIL_BYTES, MAX_FORWARDED_BYTES, MAX_KEY_BYTES,
    MAX_MEDIA_TYPE_BYTES, MAX_POINTER_BYTES, Message, id_part,
};
pub use meter::Meter;
#[cfg(feature = "kafka")]
pub use mock::MockCluster;
pub use outcome::{NotStored, Outcome, Position, Reason, Receipt, Restart, Stored, Unknown};
pub use provision::{Contradiction, Created, Creation, Item, Needed, Open, Plan, Provision, State};

#[cfg(feature = "kafka")]
use crate::secret::hide_user_info;
use crate::table::Section;
use crate::table::key::{Key, Note, Table, Type, Variant, words};

#[cfg(not(any(feature = "kafka", feature = "nats")))]
compile_error!("a bridge needs a broker: enable the feature `kafka`, `nats` or both");

#[cfg(not(all(feature = "kafka", feature = "nats")))]
const NOT_IN_BUILD: &str = if cfg!(feature = "kafka") {
    "is not in this build, which was compiled for Kafka alone; use a build with the feature `nats`"
} else {
    "is not in this build, which was compiled for NATS alone; use a build with the feature `kafka`"
};

const KINDS: [(&str, Kind); 2] = [("kafka", Kind::Kafka), ("nats", Kind::Nats)];

/// Other names of kinds that speak the protocol of one of ours.
const OTHER_KINDS: [(&str, &[&str]); 2] = [
    (
        "kafka",
        &[
            "redpanda",
            "confluent",
            "msk",
            "warpstream",
            "automq",
            "aiven",
            "eventhubs",
            "event-hubs",
        ],
    ),
    ("nats", &["jetstream", "nats-jetstream", "synadia"]),
];

const NOTES: [Note; 2] = [
    (
        &["topic", "topics", "subject", "key"],
        "a route names where events go; write `[[routes]]` with `topic = \"…\"`",
    ),
    (
        &["partitions", "replication_factor", "replicas"],
        "it is for creating topics and streams; write it into `provision = { … }`",
    ),
];

/// The keys of `[brokers.NAME]`.
pub static TABLE: Table = Table {
    keys: &[&[
        Key::new("kind", Type::Words(&words(&KINDS)))
            .required("\"kafka\"")
            .about("which of the tables below applies"),
        Key::new("require_durable", Type::Flag)
            .default("false")
            .about("refuse destinations whose acknowledgement is not known to mean \"stored\"; see [Guarantees](guarantees.md#what-an-acknowledgement-survives)"),
    ]],
    notes: &NOTES,
    variants: &[
        #[cfg(feature = "kafka")]
        Variant {
            key: "kind",
            word: "kafka",
            table: &kafka::TABLE,
        },
        #[cfg(feature = "nats")]
        Variant {
            key: "kind",
            word: "nats",
            table: &nats::TABLE,
        },
    ],
};

/// A broker's settings.
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
    /// The keys of a broker that this build knows and that cannot be reached, for tests that hold for any.
    #[cfg(test)]
    pub(crate) const OUT_OF_REACH: &str = if cfg!(feature = "nats") {
        "kind = \"nats\"\nservers = [\"nats://127.0.0.1:1\"]\n"
    } else {
        "kind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:1\"\n"
    };

    /// Reads `[brokers.NAME]`, and reports problems to the section.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        if !section.has("kind") {
            let write = match (section.has("bootstrap_servers"), section.has("servers")) {
                (true, false) => "write `kind = \"kafka\"`, since it has `bootstrap_servers`",
                (false, true) => "write `kind = \"nats\"`, since it has `servers`",
                _ => "write `kind = \"kafka\"` or `kind = \"nats\"`",
            };
            // `[brokers.main.eu]`
            let what = match section.unknown_keys().first() {
                Some((inner, keys)) if !keys.is_empty() => format!(
                    "has a table `{inner}` and no `kind`; a name has no dots: write for example `{}-{inner}]`",
                    section.title().trim_end_matches(']')
                ),
                _ => format!("lacks `kind`; {write}"),
            };
            section.problem(what);
            section.finish_quietly();
            return None;
        }
        let other = section
            .peek("kind")
            .map(str::to_lowercase)
            .and_then(|given| {
                let known = OTHER_KINDS
                    .iter()
                    .find(|(_, names)| names.contains(&given.as_str()));
                known.map(|(kind, _)| *kind)
            });
        if let Some(kind) = other {
            let given = section.text("kind").unwrap_or_default();
            section.problem_at(
                "kind",
                format!("\"{given}\" is not one of kafka, nats; it speaks the protocol of one of them: write `kind = \"{kind}\"`"),
            );
            section.finish_quietly();
            return None;
        }
        let kind = section.word("kind", &KINDS);
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

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Kind::Kafka,
            #[cfg(feature = "nats")]
            Self::Nats(_) => Kind::Nats,
        }
    }

    /// Whether an inspection must come first because the broker's health does not cover its destinations.
    #[must_use]
    pub fn is_inspected_first(&self) -> bool {
        self.kind() == Kind::Nats
    }

    /// The reason why durability can never be determined with these settings, if so.
    #[must_use]
    pub fn uninspectable(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.uninspectable(),
            #[cfg(feature = "nats")]
            Self::Nats(_) => None,
        }
    }

    /// The files that the client itself reads.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.files(),
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.files(),
        }
    }

    /// Creates the clients with the final settings, without connecting, and drops them.
    ///
    /// # Errors
    /// The client library rejects the settings.
    pub fn try_clients(&self, limits: Limits) -> Result<(), RejectedSettings<'_>> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.try_clients(limits),
            // Reading the settings has found every problem.
            #[cfg(feature = "nats")]
            Self::Nats(_) => Ok(()),
        }
    }

    /// The prefix of the subjects at which the servers' answers arrive, if the user has chosen one.
    #[must_use]
    pub fn inbox_prefix(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => None,
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.inbox_prefix(),
        }
    }

    /// The option that makes the client refuse events which sources accept, and why, if there is one.
    #[must_use]
    pub fn too_small(&self, limits: Limits) -> Option<(&str, String)> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.too_small(limits),
            #[cfg(feature = "nats")]
            Self::Nats(_) => None,
        }
    }

    /// The files that only the bridge should be able to read, with the keys that name them.
    #[must_use]
    pub fn private_files(&self) -> Vec<(String, PathBuf)> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(settings) => settings.private_files(),
            #[cfg(feature = "nats")]
            Self::Nats(settings) => settings.private_files(),
        }
    }

    /// The address, without credentials.
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
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    #[cfg(feature = "nats")]
    Nats(nats::Nats),
}

impl Broker {
    /// Starts a client, which connects in the background for as long as it takes.
    ///
    /// # Errors
    /// The client rejects the settings.
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

    /// Publishes a message and waits for the broker's answer, until the deadline.
    ///
    /// Dropping the future does not cancel the publish: the message may still be stored.
    pub fn publish(&self, message: &Message, deadline: Instant) -> impl Future<Output = Outcome> {
        async move {
            match self {
                #[cfg(feature = "kafka")]
                Self::Kafka(kafka) => kafka.publish(message, deadline).await,
                // Boxed: the future is large, and every request in flight would reserve room for it.
                #[cfg(feature = "nats")]
                Self::Nats(nats) => Box::pin(nats.publish(message, deadline)).await,
            }
        }
    }

    /// The health as last observed.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.health(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.health(),
        }
    }

    /// The health of the connection, regardless of the destinations.
    #[must_use]
    pub fn connection_health(&self) -> Health {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.health(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.connection_health(),
        }
    }

    /// Whether a message to this topic or subject would certainly not be stored, as last observed. Recovery is detected
    /// without publishing.
    #[must_use]
    pub fn is_down_for(&self, destination: &str) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.is_down_for(destination),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.is_down_for(destination),
        }
    }

    /// Changes whenever the destinations should be inspected.
    #[must_use]
    pub fn attention(&self) -> watch::Receiver<Attention> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.attention(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.attention(),
        }
    }

    /// Stores an inspection's findings, and corrects those that acknowledgements have disproved.
    pub fn note_findings(&self, findings: &mut [Finding]) {
        match self {
            // Its watch thread queries the topics itself.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {}
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.note_findings(findings),
        }
    }

    /// Discards the findings, since the destinations could not be inspected.
    pub fn forget_findings(&self) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {}
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.forget_findings(),
        }
    }

    /// Replaces the destinations that are known in advance.
    pub fn set_destinations(&self, destinations: Vec<String>) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.set_topics(destinations),
            // Its health does not depend on subjects known in advance.
            #[cfg(feature = "nats")]
            Self::Nats(_) => {}
        }
    }

    #[must_use]
    pub fn queue_len(&self) -> usize {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.queue_len(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.queue_len(),
        }
    }

    /// Resolves every waiting request as unknown: the process is about to end.
    pub fn give_up(&self) {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.give_up(),
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.give_up(),
        }
    }

    /// Waits for the messages in flight and ends the client. Returns the number of messages without an acknowledgement.
    pub async fn drain(&self, deadline: Instant) -> usize {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.drain(deadline).await,
            #[cfg(feature = "nats")]
            Self::Nats(nats) => nats.drain(deadline).await,
        }
    }
}

/// Asks a broker whether the destinations exist and what their acknowledgements survive. Takes no longer than `timeout`.
///
/// # Errors
/// The broker could not be asked, described for the operator.
pub async fn durability(
    settings: &Settings,
    destinations: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, NotInspected> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(settings) => {
            kafka::check_destinations(settings, destinations, needs, timeout).await
        }
        #[cfg(feature = "nats")]
        Settings::Nats(settings) => {
            nats::check_destinations(settings, destinations, needs, timeout).await
        }
    }
}

/// Reaches a broker as its client would, from name resolution to the right to write. Takes no longer than 10 s.
///
/// # Errors
/// The step that failed, described for the operator.
pub async fn reach(
    settings: &Settings,
    destinations: &[String],
    limits: Limits,
) -> Result<Vec<Finding>, RequestError> {
    match settings {
        #[cfg(feature = "kafka")]
        Settings::Kafka(settings) => kafka::reach(settings, destinations, limits).await,
        // The inspection of its streams already reports each step.
        #[cfg(feature = "nats")]
        Settings::Nats(_) => Ok(Vec::new()),
    }
}

/// A plan to create what a configuration needs, and the connection that can carry it out.
pub enum Provisioning {
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Provisioning>),
    #[cfg(feature = "nats")]
    Nats(Box<nats::Provisioning>),
}

impl Provisioning {
    /// Compares what the broker has with what is needed. Takes no longer than `timeout`.
    ///
    /// # Errors
    /// The broker did not answer, or the plan is impossible.
    pub async fn plan(
        settings: &Settings,
        wishes: &Provision,
        needed: &[Needed],
        needs: Needs,
        timeout: Duration,
    ) -> Result<Self, ProvisionError> {
        match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => {
                let planned = kafka::Provisioning::plan(settings, wishes, needed, needs, timeout);
                planned.await.map(|planned| Self::Kafka(Box::new(planned)))
            }
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => {
                let planned = nats::Provisioning::plan(settings, wishes, needed, timeout);
                planned.await.map(|planned| Self::Nats(Box::new(planned)))
            }
        }
    }

    #[must_use]
    pub fn as_plan(&self) -> &Plan {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(provisioning) => &provisioning.plan,
            #[cfg(feature = "nats")]
            Self::Nats(provisioning) => &provisioning.plan,
        }
    }

    /// Creates what is missing, or with `dry_run` only asks whether the broker would, where it can be asked. Takes no longer
    /// than `timeout`.
    ///
    /// # Errors
    /// The broker did not answer.
    pub async fn apply(
        self,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<Vec<Created>, ProvisionError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(provisioning) => provisioning.apply(dry_run, timeout).await,
            #[cfg(feature = "nats")]
            Self::Nats(provisioning) => provisioning.apply(dry_run, timeout).await,
        }
    }
}

/// A subscription to topics or subjects.
pub enum Subscription {
    #[cfg(feature = "kafka")]
    Kafka(kafka::Subscription),
    #[cfg(feature = "nats")]
    Nats(nats::Subscription),
}

impl Subscription {
    /// # Errors
    /// The broker rejects the subscription.
    pub async fn start(
        settings: &Settings,
        topics: &[String],
        from: StartAt,
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
    /// The subscription has ended.
    pub async fn next(&mut self) -> Result<Delivered, SubscribeError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(subscription) => subscription.next().await,
            #[cfg(feature = "nats")]
            Self::Nats(subscription) => subscription.next().await,
        }
    }
}

/// Reads a topic or subject once to its present end, from the position where the last replay stopped.
pub enum Replay {
    #[cfg(feature = "kafka")]
    Kafka(kafka::Replay),
    #[cfg(feature = "nats")]
    Nats(Box<nats::Replay>),
}

impl Replay {
    /// Starts where the last replay of this selection stopped. A `peek` never moves the position.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn start(
        settings: &Settings,
        topic: &str,
        selection: Option<&str>,
        peek: bool,
    ) -> Result<Self, ReplayError> {
        match settings {
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => kafka::Replay::start(settings, topic, selection)
                .await
                .map(Self::Kafka),
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => {
                let replay = nats::Replay::start(settings, topic, selection, peek).await?;
                Ok(Self::Nats(Box::new(replay)))
            }
        }
    }

    /// The number of messages to read: on Kafka at the start, on NATS now.
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
    /// The topic cannot be read further.
    pub async fn next(&mut self) -> Result<Option<Delivered>, ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.next().await,
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.next().await,
        }
    }

    /// Moves the position past the last message.
    ///
    /// # Errors
    /// The position could not be moved: the next replay will read the message again.
    pub async fn done(&mut self, message: &Delivered) -> Result<(), ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.done(message),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.done().await,
        }
    }

    /// Moves the position past the last message although it was not published.
    ///
    /// # Errors
    /// The position could not be moved, or moving it would delete the message.
    pub async fn pass(&mut self, message: &Delivered) -> Result<(), ReplayError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(replay) => replay.done(message),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.pass().await,
        }
    }

    /// Identifies the last message: topic, partition and offset, or subject and stream sequence.
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

    /// Leaves the position before the last message.
    ///
    /// # Errors
    /// The broker could not be notified.
    pub async fn leave(&mut self) -> Result<(), ReplayError> {
        match self {
            // Only a commit moves the position.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Ok(()),
            #[cfg(feature = "nats")]
            Self::Nats(replay) => replay.leave().await,
        }
    }
}

/// A receipt for other modules' tests.
#[cfg(test)]
pub(crate) fn test_receipt(duplicate: bool) -> Receipt {
    Receipt::confirmed(duplicate)
}

/// An outcome for other modules' tests.
#[cfg(test)]
pub(crate) fn test_stored(duplicate: bool, position: Option<Position>) -> Outcome {
    Outcome::stored(duplicate, position)
}
