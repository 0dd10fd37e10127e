//! A body: our parser against serde_json, then the event's identity, then the schema.
#![no_main]

use std::sync::LazyLock;

use hookbridge::json::{Document, Fault, NodeKind, Schema};
use hookbridge::providers::synq;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let schema = serde_json::from_str(synq::SCHEMA).expect("it is JSON");
    Schema::compile(&schema).expect("it is a schema")
});

fuzz_target!(|body: &[u8]| {
    let value = serde_json::from_slice::<Value>(body);
    let document = match Document::parse(body) {
        Ok(document) => document,
        Err(Fault::Depth { .. } | Fault::Values { .. }) => return,
        Err(fault) => {
            assert!(value.is_err(), "serde_json reads it, and we say {fault}");
            return;
        }
    };
    let other = serde_json::from_slice::<IgnoredAny>(body);
    assert!(other.is_ok(), "we read it, and serde_json says {other:?}");
    let root = document.root();
    // A string's own bytes are those between its quotes.
    let quotes = usize::from(root.kind() == NodeKind::String);
    let whole = body.trim_ascii();
    assert_eq!(
        Some(root.raw().as_bytes()),
        whole.get(quotes..whole.len() - quotes)
    );
    let violations = SCHEMA.validate(document.root()).is_err();
    let identity = synq::identify(document.root());
    // Last, since only a lookup detects that a name is ambiguous.
    let ambiguous = document.ambiguous_name().is_some();
    if let (Ok(identity), Ok(value), false, false) = (identity, value, ambiguous, violations) {
        let id = value
            .get("event_id")
            .or_else(|| value.get("eventId"))
            .and_then(Value::as_str);
        assert_eq!(id, Some(identity.event_id.as_str()));
    }
});
