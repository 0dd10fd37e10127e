//! Sample events with fresh ids, so that no broker treats the second one as a duplicate of the first.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::providers::{Preset, Sample};

/// A sample ready to be sent.
pub(super) struct Fresh {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// The sample with a fresh id.
pub(super) fn fresh(sample: &Sample) -> Fresh {
    let sample = sample.fresh(SystemTime::now());
    let headers = sample.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    Fresh {
        headers: headers.collect(),
        body: sample.body.into_bytes(),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownSample {
    #[error("no samples for {0}; name a file with an event")]
    NoSamples(&'static str),
    #[error("unknown sample {event_type}; known: {known}")]
    Type { event_type: String, known: String },
}

/// The sample of this type.
pub(super) fn find(preset: &Preset, event_type: &str) -> Result<Sample, UnknownSample> {
    let samples = preset.samples();
    let known: Vec<_> = samples
        .iter()
        .map(|sample| sample.event_type.clone())
        .collect();
    let found = samples
        .into_iter()
        .find(|sample| sample.event_type == event_type);
    found.ok_or_else(|| match known.as_slice() {
        [] => UnknownSample::NoSamples(preset.name),
        known => UnknownSample::Type {
            event_type: event_type.to_owned(),
            known: known.join(", "),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;
    use crate::providers::preset::PRESETS;
    use crate::providers::{self, synq};

    #[test]
    fn every_sample_gets_a_fresh_id_each_time() {
        for preset in PRESETS {
            for sample in preset.samples() {
                let (one, other) = (fresh(&sample), fresh(&sample));
                assert_eq!(one.headers.len(), sample.headers.len());
                let has_id = |text: &String| text.contains("{uuid}") || text.contains("{number}");
                let is_filled = has_id(&sample.body) || sample.headers.values().any(has_id);
                let differs = (&one.headers, &one.body) != (&other.headers, &other.body);
                assert_eq!(differs, is_filled, "{} {}", preset.name, sample.event_type);
            }
        }
    }

    #[test]
    fn there_is_a_sample_of_every_type_of_synq() {
        let preset = providers::find("synq").unwrap();
        let types = preset.read().key("event").unwrap()["types"].clone();
        for event_type in types.as_array().unwrap() {
            let event_type = event_type.as_str().unwrap();
            let fresh = fresh(&find(preset, event_type).unwrap());
            let document = Document::parse(&fresh.body).unwrap();
            let identity = synq::identify(document.root()).unwrap();
            assert_eq!(identity.event_type, event_type);
        }
        assert_eq!(preset.samples().len(), types.as_array().unwrap().len());
    }
}
