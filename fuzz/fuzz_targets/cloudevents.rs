//! CloudEvents: lines `NAME: VALUE`, an empty line, a body. Published events in structured, batched and binary mode
//! must agree with an independent implementation.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hookbridge::brokers::{Kind, Message};
use hookbridge::config::{Config, ConfigFile, Origin};
use hookbridge::ingress::{Decided, Received, Verdict, decide, verify};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const NOW: Duration = Duration::from_secs(1_795_000_000);
const CORE: [&str; 5] = ["id", "source", "type", "time", "subject"];
const OURS: [&str; 3] = ["specversion", "recordedtime", "partitionkey"];

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
[brokers.edge]
kind = "nats"
servers = ["nats://localhost:4222"]
[sources.cloudevents]
auth = "none"
[[routes]]
topic = "t"
"#;
    let (name, text) = ("fuzz.toml".to_owned(), text.to_owned());
    let files = vec![ConfigFile::Text { name, text }];
    let environment = Vec::new();
    let config = Origin { files, environment }.load();
    config.unwrap_or_else(|problems| panic!("{problems}"))
});

/// The attributes of a message, without those that only the bridge adds.
fn attributes(message: &Message) -> Map<String, Value> {
    let headers = message.headers_on(Kind::Kafka);
    let attributes = headers.filter_map(|(name, value)| {
        let name = name.strip_prefix("ce_")?.to_owned();
        let value = std::str::from_utf8(value).expect("an attribute is text");
        Some((name, value.into()))
    });
    attributes.collect()
}

/// The attributes of an event in JSON, as strings.
fn of_json(event: &Value) -> Map<String, Value> {
    let members = event.as_object().expect("an event is an object");
    let attributes = members.iter().filter_map(|(name, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_data = ["data", "data_base64", "datacontenttype"].contains(&name.as_str());
        (!is_data).then(|| (name.clone(), text.into()))
    });
    attributes.collect()
}

/// The attributes in headers, decoded independently.
fn of_headers(headers: &HeaderMap) -> Map<String, Value> {
    let attributes = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("ce-")?;
        let mut text = value.as_bytes().trim_ascii().to_vec();
        if text.len() > 1 && text.first() == Some(&b'"') && text.last() == Some(&b'"') {
            let inner = text[1..text.len() - 1].to_vec();
            text.clear();
            let mut is_escaped = false;
            for byte in inner {
                is_escaped = byte == b'\\' && !is_escaped;
                if !is_escaped {
                    text.push(byte);
                }
            }
        }
        let mut decoded = Vec::new();
        let mut rest = text.as_slice();
        while let Some((byte, after)) = rest.split_first() {
            let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
            match (byte, digit(0), digit(1)) {
                (b'%', Some(high), Some(low)) => {
                    decoded.push(u8::try_from(high * 16 + low).expect("two digits"));
                    rest = &after[2..];
                }
                _ => {
                    decoded.push(*byte);
                    rest = after;
                }
            }
        }
        let text = String::from_utf8(decoded).expect("an attribute is UTF-8");
        Some((name.to_owned(), text.into()))
    });
    attributes.collect()
}

fn assert_same(message: &Message, said: &Map<String, Value>) {
    let found = attributes(message);
    for (name, value) in said {
        assert_eq!(found.get(name), Some(value), "{name}");
    }
    for name in found.keys() {
        assert!(
            said.contains_key(name) || OURS.contains(&name.as_str()),
            "{name}"
        );
    }
    for name in CORE.iter().take(3) {
        let value = said.get(*name).and_then(Value::as_str);
        assert!(value.is_some_and(|value| !value.is_empty()), "{name}");
    }
    let bytes: usize = message
        .headers_on(Kind::Kafka)
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(message.key.len() + bytes < Kind::Kafka.overhead_bytes());
}

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut body = input;
    while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
        let line = &body[..end];
        body = &body[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let media_type = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    let media_type = media_type.unwrap_or_default().trim().to_ascii_lowercase();
    let source = Arc::clone(&CONFIG.sources[0]);
    let bytes = Bytes::copy_from_slice(body);
    let received = Received::from_parts(source, headers.clone(), bytes, UNIX_EPOCH + NOW);
    let verified = verify(received).expect("the source takes anyone");
    let (decisions, is_batch) = match decide(&verified) {
        Decided::Event(decision) => (vec![decision], false),
        Decided::Batch(decisions) => (decisions, true),
        Decided::Handshake(_) => panic!("a POST is not a handshake here"),
    };
    assert!(!is_batch || media_type == "application/cloudevents-batch+json");
    let value = serde_json::from_slice::<Value>(body);
    if is_batch {
        // Numbers of any size are passed on unchanged.
        let count = value
            .as_ref()
            .ok()
            .map(|value| value.as_array().expect("an array").len());
        assert!(count.is_none_or(|count| count == decisions.len()));
    }
    for (index, decision) in decisions.iter().enumerate() {
        let delivery = match &decision.verdict {
            Verdict::Publish { delivery, .. } => delivery,
            Verdict::Refuse(refusal) => {
                assert!(!is_batch && refusal.status().is_client_error());
                continue;
            }
            other => panic!("{other:?}"),
        };
        let message = &delivery.to.message;
        match (media_type.as_str(), &value) {
            ("application/cloudevents+json", Ok(value)) => {
                assert_eq!(message.body, body);
                assert_same(message, &of_json(value));
            }
            ("application/cloudevents-batch+json", Ok(value)) => {
                let element: Value =
                    serde_json::from_slice(&message.body).expect("an event is JSON");
                assert_eq!(Some(&element), value.get(index));
                assert_same(message, &of_json(&element));
            }
            (structured, _) if structured.starts_with("application/cloudevents") => {}
            _ => {
                assert_eq!(message.body, body);
                assert_same(message, &of_headers(&headers));
            }
        }
    }
});
