//! The identity of an event: its id, type, time, subject and key.

use std::time::SystemTime;

use super::refusal::Refusal;

/// The criterion by which two deliveries of a source are duplicates, for the duplicates window and `Nats-Msg-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupBy {
    Id,
    /// The id and the body's bytes.
    IdAndBody,
    /// Each delivery is a separate event.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOrigin {
    Provider,
    /// By the bridge: a digest of the event, or a random id.
    Generated,
}

/// The attributes of an event that routing and headers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The same on every delivery of the event, if the provider gives one.
    pub event_id: EventId,
    pub id_origin: IdOrigin,
    /// As the provider names it.
    pub event_type: String,
    /// RFC 3339, as it was sent.
    pub time: Option<String>,
    pub subject: Option<String>,
    /// The default key, if it is neither the subject nor the id.
    pub key: Option<String>,
    /// The other attributes of an event that is a CloudEvent already.
    pub cloud_event: Option<Box<CloudEvent>>,
}

/// The attributes of a CloudEvent besides id, type, time and subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// An id is unique only together with its source.
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
    /// The limits of attributes that become headers, in bytes. The id has its own ([`EventId::MAX_BYTES`]).
    pub const MAX_TYPE_BYTES: usize = 256;
    pub const MAX_TIME_BYTES: usize = 64;
    pub const MAX_SUBJECT_BYTES: usize = 1024;
    pub const MAX_KEY_BYTES: usize = 1024;
    /// Of a CloudEvent's source.
    pub const MAX_SOURCE_BYTES: usize = 1024;
}

/// An event that lacks a required attribute, with those that it has, for its dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unidentified {
    pub refusal: Refusal,
    pub event_id: Option<EventId>,
    pub event_type: Option<String>,
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
    pub const MAX_BYTES: usize = 256;

    /// None if the text is not a valid id.
    #[must_use]
    pub fn new(id: String) -> Option<Self> {
        let fits =
            !id.is_empty() && id.len() <= Self::MAX_BYTES && !id.chars().any(char::is_control);
        fits.then_some(Self(id))
    }

    /// A new id for a request whose own id is unknown: a `UUIDv7` of the time of receipt.
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
