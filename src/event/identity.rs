//! The identity of an event: its id, type, time, subject and key.

use std::time::SystemTime;

use super::refusal::Refusal;

/// What makes two deliveries of a source the same. The duplicates window and `Nats-Msg-Id` both follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupBy {
    /// The event's id alone.
    Id,
    /// The id and the body's bytes.
    IdAndBody,
    /// Nothing: each delivery is an event of its own.
    Never,
}

/// Who gave an event its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The provider.
    Provider,
    /// The bridge: a digest of the event, or a random id.
    Generated,
}

/// What an event says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id: the same on every delivery of the event where the provider gives one.
    pub event_id: EventId,
    /// Who gave the id.
    pub id_origin: Origin,
    /// The type, in the provider's name for it.
    pub event_type: String,
    /// When it happened, in RFC 3339 as it was sent.
    pub time: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// The default key, where it is neither the subject nor the id.
    pub key: Option<String>,
    /// The other attributes of an event that is a CloudEvent already.
    pub cloud_event: Option<Box<CloudEvent>>,
}

/// What a CloudEvent says besides id, type, time and subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// Where it comes from. Only together with it an id is unique.
    pub source: String,
    /// `dataschema` and the extensions.
    pub extensions: Vec<(Box<str>, String)>,
}

impl CloudEvent {
    /// The value of an extension.
    #[must_use]
    pub fn extension(&self, wanted: &str) -> Option<&str> {
        let mut extensions = self.extensions.iter();
        let (_, value) = extensions.find(|(name, _)| **name == *wanted)?;
        Some(value)
    }
}

/// Whether an attribute may have this name.
#[must_use]
pub fn is_attribute_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(is_plain)
}

impl Identity {
    /// The bounds of what becomes a header, in bytes. The id has its own ([`EventId::MAX_BYTES`]).
    pub const MAX_TYPE_BYTES: usize = 256;
    /// Of the time.
    pub const MAX_TIME_BYTES: usize = 64;
    /// Of the subject, which is the default key.
    pub const MAX_SUBJECT_BYTES: usize = 1024;
    /// Of the default key.
    pub const MAX_KEY_BYTES: usize = 1024;
    /// Of a CloudEvent's source.
    pub const MAX_SOURCE_BYTES: usize = 1024;
}

/// An event that does not say all that it must, and what it says all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unidentified {
    /// What is wrong with it.
    pub refusal: Refusal,
    /// Its id, where it has one.
    pub event_id: Option<EventId>,
    /// Its type, where it has one.
    pub event_type: Option<String>,
    /// When it happened, where it says so.
    pub time: Option<String>,
}

impl From<Refusal> for Unidentified {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            event_id: None,
            event_type: None,
            time: None,
        }
    }
}

/// An event's id: 1 to 256 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId(String);

impl EventId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Takes an id over, if it is one.
    #[must_use]
    pub fn new(id: String) -> Option<Self> {
        let fits =
            !id.is_empty() && id.len() <= Self::MAX_BYTES && !id.chars().any(char::is_control);
        fits.then_some(Self(id))
    }

    /// A fresh one, for a request whose own id can't be had: a `UUIDv7` of the time of its receipt.
    #[must_use]
    pub fn generate(now: SystemTime) -> Self {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp = uuid::Timestamp::from_unix(
            uuid::NoContext,
            since_epoch.as_secs(),
            since_epoch.subsec_nanos(),
        );
        Self(uuid::Uuid::new_v7(timestamp).to_string())
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded() {
        assert!(EventId::new(String::new()).is_none());
        assert!(EventId::new("é".repeat(128)).is_some());
        assert!(EventId::new("x".repeat(257)).is_none());
        assert!(EventId::new("a\nb".to_owned()).is_none());
        assert_ne!(
            EventId::generate(SystemTime::UNIX_EPOCH),
            EventId::generate(SystemTime::UNIX_EPOCH)
        );
    }
}
