//! SYNQ, now Coalesce Quality: data-observability events (provider's page "Webhooks"; `getsynq/api`,
//! `protos/synq/webhooks/v1`).

mod event;
mod signature;

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::{Identity, Provider, SignError, Unidentified, Verifier, VerifierSettings};
use crate::config::Secret;
use crate::json::Document;

/// The preset.
pub struct Synq;

impl Provider for Synq {
    fn name(&self) -> &'static str {
        "synq"
    }

    fn event_types(&self) -> &'static [&'static str] {
        &event::TYPES
    }

    fn media_types(&self) -> &'static [&'static str] {
        &["application/json"]
    }

    fn default_tolerance(&self) -> Option<Duration> {
        // Retries keep the first timestamp and go on for about 30 minutes (`event.proto`).
        Some(Duration::from_secs(35 * 60))
    }

    fn retry_time(&self) -> Option<Duration> {
        // About 30 minutes (`event.proto`), and some more by hand.
        Some(Duration::from_secs(3600))
    }

    fn signature_headers(&self) -> &'static [&'static str] {
        &signature::HEADERS
    }

    fn schema(&self) -> Option<&'static str> {
        Some(include_str!("schema.json"))
    }

    fn verifier(&self, settings: VerifierSettings) -> Box<dyn Verifier> {
        Box::new(signature::Signature::new(&settings))
    }

    fn identify(
        &self,
        _headers: &HeaderMap,
        document: &Document<'_>,
    ) -> Result<Identity, Unidentified> {
        event::identify(document)
    }

    fn sign(&self, body: &[u8], secret: &Secret, now: SystemTime) -> Result<HeaderMap, SignError> {
        signature::sign(body, secret, now)
    }

    fn sample(&self, event_type: &str) -> Option<&'static [u8]> {
        let sample: &[u8] = match event_type {
            "ping" => include_bytes!("samples/ping.json"),
            "issue_created" => include_bytes!("samples/issue_created.json"),
            "issue_updated" => include_bytes!("samples/issue_updated.json"),
            "issue_status_updated" => include_bytes!("samples/issue_status_updated.json"),
            "issue_closed" => include_bytes!("samples/issue_closed.json"),
            "incident_open" => include_bytes!("samples/incident_open.json"),
            "incident_closed" => include_bytes!("samples/incident_closed.json"),
            "incident_cancelled" => include_bytes!("samples/incident_cancelled.json"),
            _ => return None,
        };
        Some(sample)
    }
}
