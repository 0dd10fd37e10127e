//! The published message: the same for every broker except for its headers' names.

use std::borrow::Cow;

use bytes::Bytes;

use crate::brokers::kind::Kind;
use crate::event::{EventId, Identity, is_attribute_name};

/// Limits, in bytes, of everything in a message besides its body. An event that would exceed one is invalid, so that a key
/// or header never hits a broker's limit. Values from the provider have theirs in [`Identity`].
pub const MAX_KEY_BYTES: usize = 1024;
/// Of all forwarded headers of the sender and of a CloudEvent's extensions, names and values.
pub const MAX_FORWARDED_BYTES: usize = 4096;
/// Of the CloudEvents `source` of a source.
pub const MAX_CE_SOURCE_BYTES: usize = Identity::MAX_SOURCE_BYTES;
/// Of the media type, without its parameters (RFC 6838 section 4.2).
pub const MAX_MEDIA_TYPE_BYTES: usize = 255;
/// Of a dead letter's reason. A longer one is cut.
pub const MAX_DETAIL_BYTES: usize = 1024;
/// Of a dead letter's pointer. A longer one is omitted.
pub const MAX_POINTER_BYTES: usize = 1024;

/// Of the names of sources and brokers, and of topics and subjects.
const MAX_NAME_BYTES: usize = 64;
const MAX_DESTINATION_BYTES: usize = 255;
/// Of a deduplication id: a percent-encoded event id with a source, and a destination or a word.
const MAX_DEDUPLICATION_BYTES: usize =
    3 * EventId::MAX_BYTES + MAX_NAME_BYTES + MAX_DESTINATION_BYTES + 64;

/// The maximum of the key and all header values.
const MAX_VALUE_BYTES: usize = MAX_KEY_BYTES
    + 2 * EventId::MAX_BYTES
    + MAX_DEDUPLICATION_BYTES
    + MAX_CE_SOURCE_BYTES
    + Identity::MAX_TYPE_BYTES
    // The event's and the receipt's.
    + 2 * Identity::MAX_TIME_BYTES
    + Identity::MAX_SUBJECT_BYTES
    // `partitionkey`.
    + MAX_KEY_BYTES
    + MAX_MEDIA_TYPE_BYTES
    + MAX_FORWARDED_BYTES
    + MAX_DETAIL_BYTES
    + MAX_POINTER_BYTES
    // The source, the intended broker and topic, and the origin of a replayed message.
    + 3 * MAX_NAME_BYTES
    + 2 * MAX_DESTINATION_BYTES
    // `specversion`, `event_id_origin`, `hookbridge_reason`, `; charset=utf-8` and a position.
    + 128;

/// `traceparent` and `tracestate`, which are never encoded.
const MAX_TRACE_BYTES: usize = 55 + 512;

/// Header names, and the protocols' framing of a message and each header.
const FRAMING_BYTES: usize = 3 * 1024;

impl Kind {
    /// The most that key, headers and framing add to a body, in bytes: the broker must accept `max_body` plus this.
    #[must_use]
    pub const fn overhead_bytes(self) -> usize {
        let encoded = match self {
            Self::Kafka => 1,
            // Each byte may become a percent sign and two digits.
            Self::Nats => 3,
        };
        FRAMING_BYTES + MAX_TRACE_BYTES + encoded * MAX_VALUE_BYTES
    }

    /// Whether a header may have this name. All of the bridge's own and of HTTP's may.
    #[must_use]
    pub fn can_name_header(self, name: &str) -> bool {
        let is_legal = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b':';
        match self {
            Self::Kafka => true,
            Self::Nats => !name.is_empty() && name.bytes().all(is_legal),
        }
    }
}

/// A message on its way to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub destination: String,
    /// Kafka keeps the order of messages with equal keys.
    pub key: String,
    pub headers: Headers,
    /// The request's body, byte for byte.
    pub body: Bytes,
    /// Equal for every delivery of an event: JetStream drops duplicates within its window (`Nats-Msg-Id`). None with
    /// `dedup_by = "never"`: then a message whose outcome is unknown is never sent again. Kafka has no use for it.
    pub deduplication_id: Option<String>,
}

/// A part of a deduplication id. Slashes separate parts, so a slash inside one is encoded: otherwise the id
/// `e1/dead_letter` and the dead letter of `e1` would collide in a stream, and the second would be dropped.
#[must_use]
pub fn id_part(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| matches!(byte, b'/' | b'%')) {
        Cow::Owned(text.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(text)
    }
}

impl Message {
    /// The headers for this kind of broker, before their values are encoded.
    pub fn headers_on(&self, kind: Kind) -> impl Iterator<Item = (Cow<'static, str>, &[u8])> {
        let recognition = match kind {
            Kind::Kafka => None,
            Kind::Nats => {
                let id = self.deduplication_id.as_deref();
                id.map(|id| (Cow::Borrowed("Nats-Msg-Id"), id.as_bytes()))
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

    /// For the log: the deduplication id, or else the event's id.
    #[must_use]
    pub fn name(&self) -> &str {
        let event_id = || {
            let mut headers = self.headers.iter();
            let id = headers.find(|(attribute, _)| **attribute == Attribute::ID);
            id.and_then(|(_, value)| std::str::from_utf8(value).ok())
        };
        let id = self.deduplication_id.as_deref();
        id.or_else(event_id).unwrap_or_default()
    }
}

/// The headers of a [`Message`], in order. Values are bytes, as senders' headers are. They share one buffer: an event has
/// a dozen, which are created, held until the broker answers and dropped together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Each name, with the end of its value in `values`.
    names: Vec<(Attribute, usize)>,
    values: Vec<u8>,
}

impl Headers {
    /// `bytes` is the total size of the values.
    #[must_use]
    pub fn with_capacity(headers: usize, bytes: usize) -> Self {
        Self {
            names: Vec::with_capacity(headers),
            values: Vec::with_capacity(bytes),
        }
    }

    pub fn push(&mut self, attribute: Attribute, value: impl AsRef<[u8]>) {
        self.push_parts(attribute, &[value.as_ref()]);
    }

    /// The value is the concatenation of the parts.
    pub fn push_parts(&mut self, attribute: Attribute, parts: &[&[u8]]) {
        for part in parts {
            self.values.extend_from_slice(part);
        }
        self.names.push((attribute, self.values.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Attribute, &[u8])> {
        let mut start = 0;
        self.names.iter().map(move |(attribute, end)| {
            let value = self.values.get(start..*end).unwrap_or_default();
            start = *end;
            (attribute, value)
        })
    }

    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &Attribute) -> Option<&[u8]> {
        let mut headers = self.iter();
        let (_, value) = headers.find(|(attribute, _)| *attribute == name)?;
        Some(value)
    }

    /// The same, to be overwritten by one of the same length.
    pub(crate) fn get_mut(&mut self, name: &Attribute) -> Option<&mut [u8]> {
        let mut start = 0;
        for (attribute, end) in &self.names {
            if attribute == name {
                return self.values.get_mut(start..*end);
            }
            start = *end;
        }
        None
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A header's name, which may differ by kind of broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A CloudEvents attribute in the binary mode of the broker's protocol binding: `ce_NAME` (Kafka binding 1.0.2
    /// section 3.2.3.1), `ce-NAME` (NATS binding 1.0.2 section 3.1.3.1).
    CloudEvents {
        kafka: &'static str,
        nats: &'static str,
    },
    /// A CloudEvents attribute of the sender's own: lower-case letters and digits.
    Extension(Box<str>),
    /// A name that is the same everywhere.
    Plain(Cow<'static, str>),
}

macro_rules! cloud_events {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub const $constant: Self = Self::CloudEvents { kafka: concat!("ce_", $name), nats: concat!("ce-", $name) };)*

        const CLOUD_EVENTS: &[Self] = &[$(Self::$constant),*];
    };
}

impl Attribute {
    cloud_events! {
        SPEC_VERSION = "specversion";
        ID = "id";
        SOURCE = "source";
        TYPE = "type";
        TIME = "time";
        SUBJECT = "subject";
        /// The time of receipt (CloudEvents extension "Recorded Time").
        RECORDED_TIME = "recordedtime";
        /// The key (CloudEvents extension "Partitioning").
        PARTITION_KEY = "partitionkey";
    }

    /// The attribute of a published message's header, on either kind of broker.
    #[must_use]
    pub fn of_header(name: &str) -> Self {
        let known = Self::CLOUD_EVENTS.iter().find(|attribute| match attribute {
            Self::CloudEvents { kafka, nats } => *kafka == name || *nats == name,
            Self::Extension(_) | Self::Plain(_) => false,
        });
        let extension = || {
            let name = name.strip_prefix("ce_").or(name.strip_prefix("ce-"))?;
            is_attribute_name(name).then(|| Self::Extension(name.into()))
        };
        known
            .cloned()
            .or_else(extension)
            .unwrap_or_else(|| Self::Plain(Cow::Owned(name.to_owned())))
    }

    /// The CloudEvents attribute of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::Extension(name.into())
    }

    /// W3C Trace Context: the span of the publish.
    pub const TRACEPARENT: Self = Self::plain("traceparent");
    /// The data that the sender's tracing systems add to it.
    pub const TRACESTATE: Self = Self::plain("tracestate");

    #[must_use]
    pub const fn plain(name: &'static str) -> Self {
        Self::Plain(Cow::Borrowed(name))
    }

    #[must_use]
    fn on_kafka(&self) -> Cow<'static, str> {
        match self {
            Self::CloudEvents { kafka, .. } => Cow::Borrowed(kafka),
            Self::Extension(name) => Cow::Owned(["ce_", name].concat()),
            Self::Plain(name) => name.clone(),
        }
    }

    #[must_use]
    fn on_nats(&self) -> Cow<'static, str> {
        match self {
            Self::CloudEvents { nats, .. } => Cow::Borrowed(nats),
            Self::Extension(name) => Cow::Owned(["ce-", name].concat()),
            Self::Plain(name) => name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stored_header_is_the_same_attribute_on_the_other_kind_of_broker() {
        for (stored, kafka, nats) in [
            ("ce_type", "ce_type", "ce-type"),
            ("ce-traceparent", "ce_traceparent", "ce-traceparent"),
            ("ce_x1", "ce_x1", "ce-x1"),
            ("ce_", "ce_", "ce_"),
            ("ce-A", "ce-A", "ce-A"),
            ("event_id", "event_id", "event_id"),
        ] {
            let attribute = Attribute::of_header(stored);
            assert_eq!(
                (&*attribute.on_kafka(), &*attribute.on_nats()),
                (kafka, nats)
            );
        }
    }

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
