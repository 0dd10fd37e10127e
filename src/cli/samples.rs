//! Sample events with ids of their own, so that no broker takes a second one for the first.

use std::time::SystemTime;

use http::HeaderMap;

use crate::json::Document;
use crate::providers::{EventId, Provider};

/// An event of this type with a fresh id.
pub(super) fn fresh(provider: &dyn Provider, event_type: &str) -> Option<(EventId, Vec<u8>)> {
    let sample = std::str::from_utf8(provider.sample(event_type)?).ok()?;
    let document = Document::parse(sample.as_bytes()).ok()?;
    let identity = provider.identify(&HeaderMap::new(), &document).ok()?;
    let id = EventId::generate(SystemTime::now());
    let body = sample.replace(identity.event_id.as_str(), id.as_str());
    Some((id, body.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers;

    #[test]
    fn only_the_id_is_another() {
        for provider in providers::ALL {
            for event_type in provider.event_types() {
                let (id, body) = fresh(*provider, event_type).unwrap();
                let document = Document::parse(&body).unwrap();
                let identity = provider.identify(&HeaderMap::new(), &document).unwrap();
                assert_eq!(identity.event_id, id);
                assert_eq!(identity.event_type, *event_type);
                assert_ne!(fresh(*provider, event_type).unwrap().0, id);
            }
        }
    }
}
