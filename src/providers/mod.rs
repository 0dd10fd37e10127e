//! The seam for providers: how their requests are verified, and where id, type, time and subject stand in their events.
//!
//! A new provider is a folder here and a line in [`ALL`].

mod hmac;
pub mod synq;

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::config::Secret;
use crate::ingress::Refusal;
use crate::json::Document;

/// Every provider there is a preset for.
pub static ALL: &[&dyn Provider] = &[&synq::Synq];

/// The provider of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Provider> {
    ALL.iter().copied().find(|provider| provider.name() == name)
}

/// What is particular to a provider.
pub trait Provider: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// The event types it is known to send. They bound the metrics' label `type`: any other is `other`.
    fn event_types(&self) -> &'static [&'static str];

    /// The media types of its requests, in lower case.
    fn media_types(&self) -> &'static [&'static str];

    /// How far a signed time may be from ours, both ways: at least as long as the provider's retries keep it.
    fn default_tolerance(&self) -> Option<Duration>;

    /// How long it may deliver an event again: the default `dedup_window`.
    fn retry_time(&self) -> Option<Duration>;

    /// The headers that carry the signature and its timestamp, in lower case. They are never forwarded.
    fn signature_headers(&self) -> &'static [&'static str];

    /// The JSON Schema of its events.
    fn schema(&self) -> Option<&'static str>;

    /// Prepares the keys, once.
    fn verifier(&self, settings: VerifierSettings) -> Box<dyn Verifier>;

    /// Where an authentic event says who it is.
    ///
    /// # Errors
    /// The refusal of an event that does not.
    fn identify(
        &self,
        headers: &HeaderMap,
        document: &Document<'_>,
    ) -> Result<Identity, Unidentified>;

    /// Whether the signature covers the event's id.
    fn id_is_signed(&self) -> bool {
        true
    }

    /// What makes two of its deliveries the same, unless the source says otherwise.
    fn dedup_by(&self) -> DedupBy {
        DedupBy::IdAndBody
    }

    /// The headers with which the provider signs a body at a time, for `hookbridge send` and tests.
    ///
    /// # Errors
    /// Why it can't be signed.
    fn sign(&self, body: &[u8], secret: &Secret, now: SystemTime) -> Result<HeaderMap, SignError>;

    /// An event of this type, made up.
    fn sample(&self, event_type: &str) -> Option<&'static [u8]>;
}

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

/// What a verifier is made of.
#[derive(Debug)]
pub struct VerifierSettings {
    /// The configured secrets; any of them may have signed.
    pub secrets: Vec<Secret>,
    /// How far a signed time may be from ours, both ways.
    pub tolerance: Option<Duration>,
}

/// Judges whether a request is the provider's.
pub trait Verifier: Send + Sync {
    /// Refuses what the head alone gives away: headers of the scheme that are absent or malformed, a signed time too far from
    /// ours. It must be cheap, and refuse nothing that [`Verifier::verify`] would take. A scheme whose signature is not in
    /// the headers has nothing to check here.
    ///
    /// # Errors
    /// Why no body could make it the provider's.
    fn check_head(&self, _headers: &HeaderMap, _now: SystemTime) -> Result<(), Unverified> {
        Ok(())
    }

    /// Says which of the configured secrets signed the request, counted from 0.
    ///
    /// # Errors
    /// Why the request can't be taken for the provider's.
    fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<usize, Unverified>;
}

/// Why a request can't be taken for the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// There is no signature, or a part of the scheme is missing.
    MissingSignature,
    /// No configured secret made the signature.
    InvalidSignature,
    /// The signed time is too far from ours.
    StaleTimestamp,
}

/// Why a body can't be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignError(pub &'static str);

impl std::fmt::Display for SignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SignError {}

/// What an event says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's id: the same on every delivery of the event.
    pub event_id: EventId,
    /// The type, in the provider's name for it.
    pub event_type: String,
    /// When it happened, in RFC 3339 as it was sent.
    pub time: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
}

impl Identity {
    /// The bounds of what becomes a header, in bytes. The id has its own ([`EventId::MAX_BYTES`]).
    pub const MAX_TYPE_BYTES: usize = 256;
    /// Of the time.
    pub const MAX_TIME_BYTES: usize = 64;
    /// Of the subject, which is the default key.
    pub const MAX_SUBJECT_BYTES: usize = 1024;
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
    fn names_are_unique_and_every_known_type_has_a_sample() {
        for (index, provider) in ALL.iter().enumerate() {
            assert!(
                ALL.iter()
                    .skip(index + 1)
                    .all(|other| other.name() != provider.name())
            );
            for event_type in provider.event_types() {
                let sample = provider
                    .sample(event_type)
                    .unwrap_or_else(|| panic!("{} lacks {event_type}", provider.name()));
                let identity = provider
                    .identify(&HeaderMap::new(), &Document::parse(sample).unwrap())
                    .unwrap();
                assert_eq!(identity.event_type, *event_type);
            }
        }
    }

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
