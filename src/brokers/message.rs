//! What is published: the same for every broker but for the names of its headers.

use std::borrow::Cow;

use bytes::Bytes;

use super::Kind;

/// A message on its way to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic or subject.
    pub destination: String,
    /// The key, by which Kafka keeps messages in order.
    pub key: String,
    /// The headers.
    pub headers: Headers,
    /// The request's body, byte for byte.
    pub body: Bytes,
    /// The same for every delivery of the event: JetStream drops the second within its window (`Nats-Msg-Id`). None where
    /// each delivery is an event of its own; then a message whose outcome is in doubt is never sent again.
    pub deduplication_id: Option<String>,
}

/// A part of a deduplication id. Parts are separated by slashes, so a slash inside one is encoded: without that, the id
/// `e1/dead_letter` and the dead letter of `e1` would be one message to a stream, and the second would be dropped.
#[must_use]
pub fn id_part(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| matches!(byte, b'/' | b'%')) {
        Cow::Owned(text.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(text)
    }
}

impl Message {
    /// Its headers as this kind of broker gets them, before any encoding of their values.
    pub fn headers_on(&self, kind: Kind) -> impl Iterator<Item = (Cow<'static, str>, &str)> {
        let recognition = match kind {
            Kind::Kafka => None,
            Kind::Nats => {
                let id = self.deduplication_id.as_deref();
                id.map(|id| (Cow::Borrowed("Nats-Msg-Id"), id))
            }
        };
        let headers = self.headers.iter().map(move |(attribute, value)| {
            let name = match kind {
                Kind::Kafka => attribute.on_kafka(),
                Kind::Nats => attribute.on_nats(),
            };
            (name, value)
        });
        headers.chain(recognition)
    }

    /// What the log calls it: its deduplication id, or else its event's id.
    #[must_use]
    pub fn name(&self) -> &str {
        let event_id = || {
            let mut headers = self.headers.iter();
            headers.find_map(|(attribute, value)| (*attribute == Attribute::ID).then_some(value))
        };
        let id = self.deduplication_id.as_deref();
        id.or_else(event_id).unwrap_or_default()
    }
}

/// The headers of a [`Message`], in order. Their values stand in one text, one behind the other: an event has a dozen,
/// which are made, kept until the broker answers and dropped together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Each name, and where its value ends.
    names: Vec<(Attribute, usize)>,
    values: String,
}

impl Headers {
    /// None yet; room for this many, and for so many bytes of values.
    #[must_use]
    pub fn with_capacity(headers: usize, bytes: usize) -> Self {
        Self {
            names: Vec::with_capacity(headers),
            values: String::with_capacity(bytes),
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, attribute: Attribute, value: &str) {
        self.values.push_str(value);
        self.names.push((attribute, self.values.len()));
    }

    /// Each name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&Attribute, &str)> {
        let mut start = 0;
        self.names.iter().map(move |(attribute, end)| {
            let value = self.values.get(start..*end).unwrap_or_default();
            start = *end;
            (attribute, value)
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A header's name on each kind of broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A CloudEvents attribute in the binary mode of the broker's protocol binding: `ce_NAME` (Kafka binding 1.0.2
    /// section 3.2.3.1), `ce-NAME` (NATS binding 1.0.2 section 3.1.3.1).
    CloudEvents {
        /// The name on Kafka.
        kafka: &'static str,
        /// The name on NATS.
        nats: &'static str,
    },
    /// A name that is the same everywhere.
    Plain(Cow<'static, str>),
}

macro_rules! cloud_events {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub const $constant: Self = Self::CloudEvents { kafka: concat!("ce_", $name), nats: concat!("ce-", $name) };)*

        /// Each of them.
        const CLOUD_EVENTS: &[Self] = &[$(Self::$constant),*];
    };
}

impl Attribute {
    cloud_events! {
        /// `specversion`: the version of CloudEvents.
        SPEC_VERSION = "specversion";
        /// `id`: the event's id.
        ID = "id";
        /// `source`: where it comes from.
        SOURCE = "source";
        /// `type`: its type.
        TYPE = "type";
        /// `time`: when it happened.
        TIME = "time";
        /// `subject`: what it is about.
        SUBJECT = "subject";
        /// `recordedtime`: when it was received (CloudEvents extension "Recorded Time").
        RECORDED_TIME = "recordedtime";
        /// `partitionkey`: the key (CloudEvents extension "Partitioning").
        PARTITION_KEY = "partitionkey";
    }

    /// The attribute that a header of a message that was published is, on either kind of broker.
    #[must_use]
    pub fn of_header(name: &str) -> Self {
        let known = Self::CLOUD_EVENTS.iter().find(|attribute| match attribute {
            Self::CloudEvents { kafka, nats } => *kafka == name || *nats == name,
            Self::Plain(_) => false,
        });
        known
            .cloned()
            .unwrap_or_else(|| Self::Plain(Cow::Owned(name.to_owned())))
    }

    /// A name that is the same everywhere.
    #[must_use]
    pub const fn plain(name: &'static str) -> Self {
        Self::Plain(Cow::Borrowed(name))
    }

    /// The name on Kafka.
    #[must_use]
    fn on_kafka(&self) -> Cow<'static, str> {
        match self {
            Self::CloudEvents { kafka, .. } => Cow::Borrowed(kafka),
            Self::Plain(name) => name.clone(),
        }
    }

    /// The name on NATS.
    #[must_use]
    fn on_nats(&self) -> Cow<'static, str> {
        match self {
            Self::CloudEvents { nats, .. } => Cow::Borrowed(nats),
            Self::Plain(name) => name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_of_an_id_can_be_told_apart(parts in proptest::collection::vec("[a%/2F5é]{0,6}", 1..4)) {
            let id = parts.iter().map(|part| id_part(part)).collect::<Vec<_>>().join("/");
            let read: Vec<String> = id.split('/').map(|part| {
                percent_encoding::percent_decode_str(part).decode_utf8().unwrap().into_owned()
            }).collect();
            prop_assert_eq!(read, parts);
        }
    }
}
