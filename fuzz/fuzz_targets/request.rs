//! A whole request, through everything between the socket and the broker: lines `NAME: VALUE`, an empty line, a body. Where
//! the first line is `signed`, the request is. Whatever is to be published must be what an independent reading says.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookbridge::brokers::{Kind, Message};
use hookbridge::config::{Config, ConfigFile, Origin};
use hookbridge::ingress::{Decided, Received, Verdict, decide, verify};
use hookbridge::providers::sign::{Unsigned, sign};
use hookbridge::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::Sha256;

const SECRET: &str = "whs_fuzz";
const NOW: Duration = Duration::from_secs(1_795_000_000);

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[brokers.edge]
kind = "nats"
servers = ["nats://localhost:4222"]
[sources.synq]
secrets = ["whs_fuzz"]
forward_headers = ["x-forwarded"]
on_invalid = { dead_letter = { broker = "edge", topic = "dead" } }
on_unrouted = "ignore"
[[routes]]
types = ["issue_*", "ping"]
broker = "main"
topic = "synq.{type}"
fallback = "edge"
copy_to = [{ broker = "edge", topic = "all" }]
"#;
    let (name, text) = ("fuzz.toml".to_owned(), text.to_owned());
    let files = vec![ConfigFile::Text { name, text }];
    let environment = Vec::new();
    let config = Origin { files, environment }.load();
    config.unwrap_or_else(|problems| panic!("{problems}"))
});

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let said: Vec<String> = headers
        .get_all("x-coalesce-signature")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
        .collect();
    headers
        .get_all("x-coalesce-timestamp")
        .iter()
        .any(|timestamp| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("it takes any key");
            for part in [timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            let digest = mac.finalize().into_bytes();
            let wanted: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            said.iter().any(|signature| signature.contains(&wanted))
        })
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    let mut headers = message.headers_on(Kind::Kafka);
    headers
        .find(|(found, _)| *found == name)
        .map(|(_, value)| std::str::from_utf8(value).expect("a header of ours is text"))
}

/// Whatever the sender wrote, its broker has been asked to take as much.
fn assert_bounded(message: &Message) {
    for kind in [Kind::Kafka, Kind::Nats] {
        let headers = message.headers_on(kind);
        let bytes: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        assert!(message.key.len() + bytes < kind.overhead_bytes());
    }
}

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut must_sign = false;
    let mut body = input;
    while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
        let line = &body[..end];
        body = &body[end + 1..];
        if line.is_empty() {
            break;
        }
        must_sign |= line == b"signed";
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let now = UNIX_EPOCH + NOW;
    if must_sign {
        let secret = Secret::new(SECRET.to_owned()).expect("it is not empty");
        let unsigned = Unsigned {
            method: &Method::POST,
            url: &Uri::from_static("http://localhost/hooks/synq"),
            headers: &HeaderMap::new(),
            body,
            at: now,
        };
        let authentication = &CONFIG.sources[0].authentication;
        let signed = sign(authentication, &secret, unsigned).expect("it can be signed");
        headers.extend(signed.headers);
    }
    let source = Arc::clone(&CONFIG.sources[0]);
    let received = Received::from_parts(source, headers.clone(), Bytes::copy_from_slice(body), now);
    let Ok(verified) = verify(received) else {
        return;
    };
    assert!(
        is_signed(&headers, body),
        "accepted though nobody signed it: {headers:?}"
    );
    let Decided::Event(decision) = decide(&verified) else {
        panic!("SYNQ has neither batches nor handshakes");
    };
    match &decision.verdict {
        Verdict::Publish { delivery, .. } => {
            let id = decision.event_id.as_ref().expect("it has an id").as_str();
            let event_type = decision.event_type.as_deref().expect("it has a type");
            let all = std::iter::once(&delivery.to)
                .chain(&delivery.fallback)
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
            // Larger numbers than serde_json reads go on as they are.
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
