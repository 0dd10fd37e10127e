//! SYNQ, now Coalesce Quality: data-observability events (provider's page "Webhooks"; `getsynq/api`,
//! `protos/synq/webhooks/v1`). The preset is `presets/synq.toml`; this folder has the particularities of its events.

mod event;
#[cfg(test)]
mod signature;

use super::super::sample::Sample;
use crate::json::Document;

pub use event::identify;

/// The JSON Schema of its events.
pub const SCHEMA: &str = include_str!("schema.json");

const SAMPLES: [&str; 8] = [
    include_str!("samples/ping.json"),
    include_str!("samples/issue_created.json"),
    include_str!("samples/issue_updated.json"),
    include_str!("samples/issue_status_updated.json"),
    include_str!("samples/issue_closed.json"),
    include_str!("samples/incident_open.json"),
    include_str!("samples/incident_closed.json"),
    include_str!("samples/incident_cancelled.json"),
];

/// A sample of each type. The id is a placeholder.
pub(in crate::providers) fn samples() -> Vec<Sample> {
    let samples = SAMPLES.iter().filter_map(|text| {
        let document = Document::parse(text.as_bytes()).ok()?;
        let identity = identify(document.root()).ok()?;
        Some(Sample {
            event_type: identity.event_type,
            headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
            body: text.replace(identity.event_id.as_str(), "{uuid}"),
        })
    });
    samples.collect()
}
