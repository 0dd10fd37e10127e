//! A whole request, through everything between the socket and the broker: lines `NAME: VALUE`, an empty line, a body.
//! It is signed if the first line is `signed`. Published messages must agree with an independent implementation.
#![no_main]

use std::sync::LazyLock;

use hookbridge::brokers::{Kind, Message};
use hookbridge::config::Config;
use hookbridge::ingress::{Decided, Verdict, decide};
use hookbridge_fuzz::{assert_signed, config, request, signed, verified};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let source = r#"
forward_headers = ["x-forwarded"]
on_invalid = { dead_letter = { broker = "edge", topic = "dead" } }
on_unrouted = "ignore"
"#;
    let rest = r#"
[brokers.edge]
kind = "nats"
servers = ["nats://localhost:4222"]
[[routes]]
types = ["issue_*", "ping"]
broker = "main"
topic = "synq.{type}"
fallback = "edge"
copy_to = [{ broker = "edge", topic = "all" }]
"#;
    config(source, rest)
});

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    let mut headers = message.headers_on(Kind::Kafka);
    headers
        .find(|(found, _)| *found == name)
        .map(|(_, value)| std::str::from_utf8(value).expect("a header of ours is text"))
}

/// Brokers are required to accept this much, whatever the sender wrote.
fn assert_bounded(message: &Message) {
    for kind in [Kind::Kafka, Kind::Nats] {
        let headers = message.headers_on(kind);
        let bytes: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        assert!(message.key.len() + bytes < kind.overhead_bytes());
    }
}

fuzz_target!(|input: &[u8]| {
    let (mut headers, body) = request(input);
    if input.starts_with(b"signed\n") {
        headers.extend(signed(&CONFIG.sources[0].authentication, body));
    }
    let Some(verified) = verified(&CONFIG, headers.clone(), body) else {
        return;
    };
    assert_signed(&headers, body);
    let Decided::Event(decision) = decide(&verified) else {
        panic!("SYNQ has neither batches nor handshakes");
    };
    match &decision.verdict {
        Verdict::Publish { delivery, .. } => {
            let id = decision.event_id.as_ref().expect("it has an id").as_str();
            let event_type = decision.event_type.as_deref().expect("it has a type");
            let all = std::iter::once(&delivery.to)
                .chain(delivery.fallback.as_deref())
                .chain(&delivery.copies);
            for addressed in all {
                assert_eq!(addressed.message.body, body);
                assert_bounded(&addressed.message);
                assert_eq!(header(&addressed.message, "event_id"), Some(id));
                assert_eq!(header(&addressed.message, "ce_type"), Some(event_type));
            }
            assert_eq!(
                delivery.to.message.destination,
                format!("synq.{event_type}")
            );
            // Numbers too large for serde_json are passed on unchanged.
            if let Ok(value) = serde_json::from_slice::<Value>(body) {
                let said = value.get("event_id").or_else(|| value.get("eventId"));
                assert_eq!(said.and_then(Value::as_str), Some(id));
            }
        }
        Verdict::DeadLetter { letter, refusal } => {
            assert_eq!(letter.message.body, body);
            assert_bounded(&letter.message);
            assert_eq!(
                header(&letter.message, "hookbridge_reason"),
                Some(refusal.code())
            );
        }
        Verdict::Ignore => assert!(decision.event_type.is_some()),
        Verdict::Refuse(refusal) => assert!(refusal.status().is_client_error()),
    }
});
