//! Steps 2 to 6 together, on user-style configurations.

use std::path::PathBuf;
use std::task::Poll;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::Sha256;

use super::*;
use crate::brokers::{Kind, Message};
use crate::config::{Config, ConfigFile, Origin};
use crate::event::{Identity, Unidentified};
use crate::json::Node;
use crate::providers::mapping::Hook;
use crate::providers::synq;

const LEAST: &str = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[sources.synq]
secrets = ["s"]
"#;

fn config(routes: &str) -> Config {
    Config::from_text(&format!("{LEAST}{routes}"))
}

fn decide_with(config: &Config, headers: HeaderMap, body: &[u8]) -> Decision {
    let source = Arc::clone(&config.sources[0]);
    let body = Bytes::copy_from_slice(body);
    let decided = decide(&Verified::assumed(Received::from_parts(
        source,
        headers,
        body,
        SystemTime::UNIX_EPOCH,
    )));
    match decided {
        Decided::Event(decision) => decision,
        other => panic!("{other:?}"),
    }
}

fn decide_body(routes: &str, body: &str) -> Decision {
    let headers = HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )]);
    decide_with(&config(routes), headers, body.as_bytes())
}

fn published(decision: Decision) -> (usize, Message) {
    match decision.verdict {
        Verdict::Publish { route, delivery } => (route.ordinal, delivery.to.message),
        other => panic!("{other:?}"),
    }
}

fn refused(decision: Decision) -> Refusal {
    match decision.verdict {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn headers_of(message: &Message, kind: Kind) -> Vec<(String, String)> {
    message
        .headers_on(kind)
        .map(|(name, value)| {
            let value = String::from_utf8(value.to_vec()).unwrap();
            (name.into_owned(), value)
        })
        .collect()
}

const ALL: &str = "[[routes]]\ntopic = \"synq.{type}\"";
const ISSUE: &str = r#"{"workspace":"acme","event_id":"e-1","event_time":"2026-11-20T06:15:04.5Z","issue_created":{"issue":{"issue_id":"i-1"}}}"#;

#[test]
fn a_message_has_the_bodys_bytes_and_the_contracts_headers() {
    let (route, message) = published(decide_body(ALL, ISSUE));
    assert_eq!(
        (route, message.destination.as_str(), message.key.as_str()),
        (1, "synq.issue_created", "i-1")
    );
    assert_eq!(message.body, ISSUE.as_bytes());
    assert_eq!(message.deduplication_id, None, "Kafka has no use for it");
    let expected = [
        ("event_id", "e-1"),
        ("ce_specversion", "1.0"),
        ("ce_id", "e-1"),
        ("ce_source", "/hookbridge/synq"),
        ("ce_type", "issue_created"),
        ("ce_time", "2026-11-20T06:15:04.5Z"),
        ("ce_subject", "i-1"),
        ("ce_recordedtime", "1970-01-01T00:00:00Z"),
        ("content-type", "application/json"),
        ("ce_partitionkey", "i-1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers_of(&message, Kind::Kafka), expected);
    let on_nats = headers_of(&message, Kind::Nats);
    assert!(
        on_nats.contains(&("ce-id".to_owned(), "e-1".to_owned()))
            && !on_nats.iter().any(|(name, _)| name.starts_with("ce_"))
    );
}

#[test]
fn what_an_event_moves_from_step_to_step_is_small() {
    assert!(size_of::<Verified>() <= 128);
    assert!(size_of::<Decided>() <= 128);
    assert!(size_of::<crate::bridge::observe::Attempt<'_>>() <= 128);
}

/// The deduplication ids of all messages of an event: itself, its fallback and its copies.
fn ids_of(source: &str, body: &str) -> Vec<Option<String>> {
    let routes = format!(
        "{source}\n[brokers.edge]\nkind = \"nats\"\nservers = [\"n\"]\n[brokers.spare]\nkind = \"nats\"\nservers = [\"s\"]\n[[routes]]\nbroker = \"edge\"\ntopic = \"synq.all\"\nfallback = \"spare\"\ncopy_to = [{{ broker = \"edge\", topic = \"synq.copy\" }}]"
    );
    match decide_body(&routes, body).verdict {
        Verdict::Publish { delivery, .. } => {
            let Delivery {
                to,
                fallback,
                copies,
                ..
            } = *delivery;
            let fallback = fallback.map(|fallback| *fallback);
            let all = std::iter::once(to).chain(fallback).chain(copies);
            all.map(|addressed| addressed.message.deduplication_id)
                .collect()
        }
        Verdict::DeadLetter { letter, .. } => vec![letter.message.deduplication_id],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_known_id_with_another_body_is_another_message_unless_the_source_says_otherwise() {
    let other = ISSUE.replace("i-1", "i-2");
    let hashed = ids_of("", ISSUE);
    let first = hashed[0].clone().unwrap();
    // The hash covers the body alone, so each replica computes the same.
    assert_eq!(first, "synq/e-1/cc9e6a6f034253f008202f083ed2be55");
    assert_eq!(hashed[1].as_deref(), Some(first.as_str()));
    assert_eq!(hashed[2], Some(format!("{first}/copy/synq.copy")));
    assert_eq!(hashed, ids_of("dedup_by = \"id+body\"", ISSUE));
    assert!(ids_of("", &other).iter().all(|id| !hashed.contains(id)));
    let by_id = ["synq/e-1", "synq/e-1", "synq/e-1/copy/synq.copy"].map(|id| Some(id.to_owned()));
    assert_eq!(ids_of("dedup_by = \"id\"", ISSUE), by_id);
    assert_eq!(ids_of("dedup_by = \"id\"", &other), by_id);
    assert_eq!(ids_of("dedup_by = \"never\"", ISSUE), [None, None, None]);
}

#[test]
fn ids_with_slashes_are_not_those_of_dead_letters_and_copies() {
    let letters =
        "on_invalid = { dead_letter = { broker = \"main\", topic = \"dead\" } }\ndedup_by = \"id\"";
    let ping = |id: &str| format!(r#"{{"event_id":"{id}","ping":{{}}}}"#);
    let invalid = |id: &str| format!(r#"{{"event_id":"{id}","issue_created":[]}}"#);
    let letter = ids_of(letters, &invalid("e1"));
    assert_eq!(letter, [Some("synq/e1/dead_letter".to_owned())]);
    for id in ["e1/dead_letter", "e1/copy/synq.copy", "e1%2Fdead_letter"] {
        let of_event = ids_of(letters, &ping(id));
        assert!(!of_event.contains(&letter[0]), "{id}");
        let of_other = ids_of(letters, &ping("e1"));
        assert!(of_event.iter().all(|id| !of_other.contains(id)), "{id}");
    }
    assert_ne!(
        ids_of(letters, &ping("e1/x")),
        ids_of(letters, &ping("e1%2Fx"))
    );
    let never = letters.replace("\"id\"", "\"never\"");
    assert_eq!(ids_of(&never, &invalid("e1")), [None]);
}

#[test]
fn an_event_about_nothing_has_its_id_as_key_and_no_made_up_time() {
    let (_, message) = published(decide_body(ALL, r#"{"event_id":"e-2","ping":{}}"#));
    assert_eq!(message.key, "e-2");
    let names: Vec<_> = headers_of(&message, Kind::Kafka)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(!names.contains(&"ce_time".to_owned()) && !names.contains(&"ce_subject".to_owned()));
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes = r#"
[[routes]]
types = ["ping"]
action = "ignore"
[[routes]]
types = ["issue_?*", "x"]
topic = "first"
[[routes]]
types = ["issue_created"]
topic = "second"
"#;
    assert!(matches!(
        decide_body(routes, r#"{"event_id":"e","ping":{}}"#).verdict,
        Verdict::Ignore
    ));
    assert_eq!(published(decide_body(routes, ISSUE)).1.destination, "first");
    let unrouted = decide_body(
        routes,
        r#"{"event_id":"e","incident_open":{"incident":{"incident_id":"i"}}}"#,
    );
    assert!(matches!(
        unrouted.verdict,
        Verdict::Refuse(Refusal::NoRoute { .. })
    ));
}

#[test]
fn templates_take_exact_texts_and_refuse_what_can_not_be_one() {
    let routes = r#"
[[routes]]
topic = "t-{/workspace}"
key = "{source}/{type}/{/n}"
"#;
    let body = |workspace: &str, n: &str| {
        format!(r#"{{"event_id":"e","ping":{{}},"workspace":{workspace},"n":{n}}}"#)
    };
    let (_, message) = published(decide_body(routes, &body(r#""ac\u006de""#, "1.00E+400")));
    assert_eq!(
        (message.destination.as_str(), message.key.as_str()),
        ("t-acme", "synq/ping/1.00E+400")
    );
    for (workspace, n, pointer) in [
        (r#""../x""#, "1", "/workspace"),
        (r#""a b""#, "1", "/workspace"),
        (r#""""#, "1", "/workspace"),
        (r#""é""#, "1", "/workspace"),
        (r#""a""#, "null", "/n"),
        (r#""a""#, "{}", "/n"),
        ("null", "1", "/workspace"),
    ] {
        let refusal = refused(decide_body(routes, &body(workspace, n)));
        let Refusal::InvalidEvent(violations) = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(violations[0].pointer, pointer, "{workspace} {n}");
    }
    let long = format!("\"{}\"", "k".repeat(1025));
    assert!(matches!(
        refused(decide_body(routes, &body(r#""a""#, &long))),
        Refusal::InvalidEvent(_)
    ));
    let long = format!("\"{}\"", "t".repeat(248));
    assert!(matches!(
        refused(decide_body(routes, &body(&long, "1"))),
        Refusal::InvalidEvent(_)
    ));
}

#[test]
fn a_closed_list_of_topics_is_closed() {
    let routes = "[[routes]]\ntopic = \"{/workspace}\"\ntopics = [\"acme\"]";
    assert_eq!(published(decide_body(routes, ISSUE)).1.destination, "acme");
    let other = ISSUE.replace("acme", "other");
    assert!(matches!(
        refused(decide_body(routes, &other)),
        Refusal::InvalidEvent(_)
    ));
}

#[test]
fn dead_letters_carry_known_attributes_and_the_reason() {
    let otherwise = r#"
on_invalid = { dead_letter = { topic = "hooks.invalid" } }
on_unrouted = "ignore"
[[routes]]
types = ["issue_*"]
topic = "synq.{type}"
key = "{/workspace}"
"#;
    let broken = ISSUE.replace(r#""issue_id":"i-1""#, r#""issue_id":"i-1","title":5"#);
    let decision = decide_body(otherwise, &broken);
    let Verdict::DeadLetter { letter, refusal } = decision.verdict else {
        panic!("{decision:?}")
    };
    let message = letter.message;
    assert_eq!(
        (
            refusal.code(),
            message.destination.as_str(),
            message.key.as_str()
        ),
        ("invalid_event", "hooks.invalid", "acme")
    );
    assert_eq!(message.body, broken.as_bytes());
    let headers = headers_of(&message, Kind::Kafka);
    for (name, value) in [
        ("event_id", "e-1"),
        ("ce_type", "issue_created"),
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_pointer", "/issue_created/issue/title"),
        ("hookbridge_source", "synq"),
        ("hookbridge_intended_topic", "synq.issue_created"),
    ] {
        assert!(
            headers.contains(&(name.to_owned(), value.to_owned())),
            "{name}: {headers:?}"
        );
    }
    // Of an unreadable event, only the bytes are known.
    let decision = decide_body(otherwise, "not JSON");
    let Verdict::DeadLetter { letter, .. } = decision.verdict else {
        panic!("{decision:?}")
    };
    let message = letter.message;
    let headers = headers_of(&message, Kind::Kafka);
    assert!(headers.contains(&("event_id_origin".to_owned(), "generated".to_owned())));
    assert!(headers.contains(&("event_id".to_owned(), message.key.clone())));
    assert!(matches!(
        decide_body(otherwise, r#"{"event_id":"e","ping":{}}"#).verdict,
        Verdict::Ignore
    ));
}

#[test]
fn listed_headers_of_the_senders_go_on_and_no_others() {
    let config = config("forward_headers = [\"X-Request-Source\"]\n[[routes]]\ntopic = \"t\"");
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-request-source", "a"),
        ("x-request-source", "b"),
        ("cookie", "c"),
        ("nats-rollup", "all"),
    ] {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let (_, message) = published(decide_with(&config, headers, ISSUE.as_bytes()));
    let forwarded: Vec<_> = headers_of(&message, Kind::Kafka)
        .into_iter()
        .filter(|(name, _)| !name.starts_with("ce_"))
        .collect();
    assert_eq!(
        forwarded
            .iter()
            .filter(|(name, _)| name == "x-request-source")
            .count(),
        2
    );
    assert!(
        !forwarded
            .iter()
            .any(|(name, _)| name == "cookie" || name == "nats-rollup")
    );
}

/// Every value at its maximum length, in a dead letter, which has the most headers.
#[test]
fn no_message_exceeds_the_overhead_that_brokers_are_required_to_allow() {
    let long = |bytes: usize| "\u{e9}".repeat(bytes / 2);
    let name = "n".repeat(64);
    let text = format!(
        r#"
[brokers.{name}]
kind = "nats"
servers = ["nats://n"]
[sources.{name}]
provider = "synq"
secrets = ["s"]
ce_source = "{}"
forward_headers = ["x-a"]
on_invalid = {{ dead_letter = {{ topic = "{}" }} }}
[[routes]]
topic = "{}"
"#,
        "%".repeat(1024),
        "d".repeat(255),
        "t".repeat(255),
    );
    let files = vec![ConfigFile::Text {
        name: "test.toml".to_owned(),
        text,
    }];
    let environment = Vec::new();
    let config = Origin { files, environment }.load();
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let body = format!(
        r#"{{"event_id":"{}","event_type":"EVENT_TYPE_ISSUE_CREATED","event_time":"2026-11-20T06:15:04.123456789+00:00","issue_created":{{"issue":{{"issue_id":"{}"}}}}}}"#,
        long(256),
        long(1024),
    );
    let mut headers = HeaderMap::new();
    let value = |bytes: Vec<u8>| HeaderValue::from_bytes(&bytes).unwrap();
    headers.insert(
        http::header::CONTENT_TYPE,
        value([&b"a/"[..], &[b'\xff'; 253], b"; charset=utf-8"].concat()),
    );
    headers.insert("x-a", value(vec![b'\xff'; 4093]));
    let decision = decide_with(&config, headers, body.as_bytes());
    let Verdict::Publish { delivery, .. } = &decision.verdict else {
        panic!("{decision:?}")
    };
    let source = &config.sources[0];
    let event_id = decision.event_id.as_ref().unwrap();
    let letter = dead_letter::for_too_large(source, &name, event_id, &delivery.to.message);
    let (letter, _) = letter.unwrap();
    let message = letter.message;
    // As librdkafka and async-nats write them, with the longest variable-length numbers.
    let on_kafka: usize = message
        .headers_on(Kind::Kafka)
        .map(|(name, value)| 5 + name.len() + 5 + value.len())
        .sum();
    let on_kafka = 61 + 30 + message.key.len() + on_kafka;
    let on_nats: usize = message
        .headers_on(Kind::Nats)
        .map(|(name, value)| {
            let encoded: usize = value
                .iter()
                .map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 })
                .sum();
            name.len() + ": \r\n".len() + encoded
        })
        .sum();
    let on_nats = "NATS/1.0\r\n\r\n".len() + on_nats;
    for (kind, bytes) in [(Kind::Kafka, on_kafka), (Kind::Nats, on_nats)] {
        let most = kind.overhead_bytes();
        assert!(bytes <= most, "{kind:?}: {bytes} of {most}");
        assert!(
            bytes > most / 2,
            "{kind:?}: {bytes} of {most} bounds nothing"
        );
    }
}

#[test]
fn unbounded_values_are_refused_and_left_out_of_the_dead_letter() {
    let dead = "on_invalid = { dead_letter = { topic = \"dead\" } }\nforward_headers = [\"x-a\"]\n[[routes]]\ntopic = \"t\"";
    let mut config = config(dead);
    let letter = |config: &Config, headers: HeaderMap| {
        let decision = decide_with(config, headers, ISSUE.as_bytes());
        let Verdict::DeadLetter { letter, refusal } = decision.verdict else {
            panic!("{decision:?}")
        };
        let headers = headers_of(&letter.message, Kind::Kafka);
        assert!(headers.iter().all(|(_, value)| value.len() <= 1024));
        (refusal.detail().into_owned(), letter.message.key, headers)
    };
    let has = |headers: &[(String, String)], name: &str| headers.iter().any(|(n, _)| n == name);

    let long = HeaderValue::from_str(&"a".repeat(4094)).unwrap();
    let forwarded = HeaderMap::from_iter([(HeaderName::from_static("x-a"), long)]);
    let (detail, key, headers) = letter(&config, forwarded);
    assert!(detail.contains("forwarded headers"), "{detail}");
    assert_eq!(key, "i-1");
    assert!(has(&headers, "ce_type") && !has(&headers, "x-a"));

    let hooks: [(Hook, _, _, _); 3] = [
        (with_long_type, "type of more", "ce_type", "i-1"),
        (with_long_time, "time of more", "ce_time", "i-1"),
        (with_long_subject, "subject of more", "ce_subject", "e-1"),
    ];
    for (hook, words, absent, expected) in hooks {
        let source = Arc::get_mut(&mut config.sources[0]).unwrap();
        source.mapping.hook = Some(hook);
        let (detail, key, headers) = letter(&config, HeaderMap::new());
        assert!(detail.contains(words), "{detail}");
        assert_eq!(key, expected);
        assert!(!has(&headers, absent), "{headers:?}");
    }
}

fn long() -> String {
    "x".repeat(100_000)
}

/// SYNQ's identity, if this value had no limit.
fn with_long_type(root: Node<'_>) -> Result<Identity, Unidentified> {
    let event_type = long();
    synq::identify(root).map(|identity| Identity {
        event_type,
        ..identity
    })
}

fn with_long_time(root: Node<'_>) -> Result<Identity, Unidentified> {
    let time = Some(long());
    synq::identify(root).map(|identity| Identity { time, ..identity })
}

fn with_long_subject(root: Node<'_>) -> Result<Identity, Unidentified> {
    let subject = Some(long());
    synq::identify(root).map(|identity| Identity {
        subject,
        ..identity
    })
}

#[test]
fn a_name_that_any_step_reads_must_not_be_repeated() {
    for body in [
        r#"{"event_id":"a","event_id":"b","ping":{}}"#,
        r#"{"event_id":"a","ping":{},"workspace":"x","workspace":"y"}"#,
        r#"{"event_id":"a","issue_created":{"issue":{"issue_id":"i","title":"x","title":5}}}"#,
        r#"{"event_id":"a","event_type":"EVENT_TYPE_PING","event\u005ftype":"EVENT_TYPE_ISSUE_CREATED","ping":{}}"#,
    ] {
        assert!(
            matches!(refused(decide_body(ALL, body)), Refusal::InvalidJson(_)),
            "{body}"
        );
    }
    published(decide_body(
        ALL,
        r#"{"event_id":"a","ping":{},"x":1,"x":2,"y":{"event_id":1,"event_id":2}}"#,
    ));
    let keyed = "[[routes]]\ntopic = \"t\"\nkey = \"{/y/z}\"";
    let body = r#"{"event_id":"a","ping":{},"y":{"z":1,"z":2}}"#;
    published(decide_body(ALL, body));
    assert!(matches!(
        refused(decide_body(keyed, body)),
        Refusal::InvalidJson(_)
    ));
}

/// Declared sources, whose requests are signed with this secret.
const SECRET: &str = "a secret of ours";
const NOW: u64 = 1_795_132_800;

fn declared(source: &str) -> Config {
    Config::from_text(&format!(
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n[[routes]]\ntopic = \"t\"\n[sources.acme]\n{source}"
    ))
}

fn signature(content: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(content.as_bytes());
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

/// Steps 2 to 6 for a request at [`NOW`]: the code of its refusal, `handshake`, or the event's type.
fn outcome(config: &Config, headers: &[(&str, &str)], body: &str) -> String {
    let headers = headers.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    let received = Received::from_parts(
        Arc::clone(&config.sources[0]),
        headers.collect(),
        Bytes::copy_from_slice(body.as_bytes()),
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(NOW),
    );
    let shown = |decision: Decision| match decision.verdict {
        Verdict::Refuse(refusal) => refusal.code().to_owned(),
        Verdict::Publish { .. } => decision.event_type.unwrap(),
        other => panic!("{other:?}"),
    };
    match verify(received).map(|verified| decide(&verified)) {
        Err(refusal) => refusal.code().to_owned(),
        Ok(Decided::Handshake(_)) => "handshake".to_owned(),
        Ok(Decided::Event(decision)) => shown(decision),
        Ok(Decided::Batch(decisions)) => {
            let events: Vec<_> = decisions.into_iter().map(shown).collect();
            events.join(" ")
        }
    }
}

#[test]
fn verified_handshakes_of_a_source_of_lines_are_answered_and_not_published() {
    let config = declared(
        r#"
secrets = ["a secret of ours"]
verify = { signature = { header = "x-s" } }
event = { body = "lines", id = "{/id}", type = "{/type}" }
[[sources.acme.handshakes]]
header = "x-hello"
verified = true
"#,
    );
    let body = "{\"id\":\"1\",\"type\":\"a\"}\n{\"id\":\"2\",\"type\":\"b\"}\n";
    let signed = signature(body);
    let of = |headers: &[(&str, &str)]| outcome(&config, headers, body);
    assert_eq!(of(&[("x-s", &signed)]), "a b");
    assert_eq!(of(&[("x-s", &signed), ("x-hello", "1")]), "handshake");
    let forged = signature("another body");
    assert_eq!(
        of(&[("x-s", &forged), ("x-hello", "1")]),
        "invalid_signature"
    );
    // A CloudEvent is one event, as in any other source that takes them.
    let body = "{\"specversion\":\"1.0\",\"source\":\"/s\",\n\"id\":\"1\",\"type\":\"c\"}";
    let config = declared(
        r#"
secrets = ["a secret of ours"]
verify = { signature = { header = "x-s" } }
event = { body = "lines", cloudevents = true, id = "{/id}", type = "{/type}" }
"#,
    );
    let structured = ("content-type", "application/cloudevents+json");
    let found = outcome(&config, &[("x-s", &signature(body)), structured], body);
    assert_eq!(found, "c");
}

#[test]
fn handshakes_whose_signed_time_is_stale_are_refused() {
    let config = declared(
        r#"
secrets = ["a secret of ours"]
verify = { signature = { header = "x-s" }, timestamp = { pointer = "/ts" }, tolerance = "5m" }
event = { id = "{/id}", type = "{/type}" }
[[sources.acme.handshakes]]
pointer = "/hello"
verified = true
answer = "{/hello}"
"#,
    );
    for (at, expected) in [(NOW - 300, "handshake"), (NOW - 301, "stale_timestamp")] {
        let body = format!("{{\"hello\":\"x\",\"ts\":{at}}}");
        assert_eq!(
            outcome(&config, &[("x-s", &signature(&body))], &body),
            expected
        );
    }
    let body = "{\"hello\":\"x\"}";
    let untimed = outcome(&config, &[("x-s", &signature(body))], body);
    assert_eq!(untimed, "missing_signature");
}

#[test]
fn only_the_scheme_that_verifies_a_request_says_where_its_time_is() {
    let text = r#"
secrets = ["a secret of ours"]
event = { id = "{/id}", type = "{/type}" }
[[sources.acme.verify]]
signature = { header = "x-a" }
timestamp = { pointer = "/ts" }
tolerance = "5m"
[[sources.acme.verify]]
signature = { header = "x-b" }
content = "{timestamp}.{body}"
timestamp = { header = "x-time" }
tolerance = "5m"
"#;
    let config = declared(text);
    let event = |time: &str| format!("{{\"id\":\"1\",\"type\":\"a\"{time}}}");
    let (fresh, stale) = (NOW.to_string(), (NOW - 301).to_string());
    let (untimed, timed, old) = (
        event(""),
        event(&format!(",\"ts\":{fresh}")),
        event(&format!(",\"ts\":{stale}")),
    );
    for (body, alone, expected) in [
        (&timed, "a", "a"),
        (&old, "stale_timestamp", "stale_timestamp"),
        (&untimed, "missing_signature", "invalid_signature"),
    ] {
        let signed = signature(body);
        assert_eq!(outcome(&config, &[("x-a", &signed)], body), alone);
        // The time of one scheme does not count for a signature of the other.
        let both = [("x-a", &*signed), ("x-b", &*signed), ("x-time", &*fresh)];
        assert_eq!(outcome(&config, &both, body), expected);
    }
    for body in [&timed, &old, &untimed] {
        for (time, expected) in [(&fresh, "a"), (&stale, "stale_timestamp")] {
            let signed = signature(&format!("{time}.{body}"));
            let headers = [("x-b", &*signed), ("x-time", time)];
            assert_eq!(outcome(&config, &headers, body), expected, "{body}");
        }
    }
    // A scheme without a secret says nothing.
    let prefixed = text
        .replace("\"a secret", "\"b_a secret")
        .replace(
            "{ header = \"x-a\" }",
            "{ header = \"x-a\" }\nsecret_prefix = \"a_\"",
        )
        .replace(
            "{ header = \"x-b\" }",
            "{ header = \"x-b\" }\nsecret_prefix = \"b_\"",
        );
    let signed = signature(&format!("{fresh}.{untimed}"));
    let headers = [("x-b", &*signed), ("x-time", &*fresh)];
    assert_eq!(outcome(&declared(&prefixed), &headers, &untimed), "a");
}

#[test]
fn a_time_in_the_json_of_a_form_is_checked_beside_a_signature_in_a_form() {
    let config = declared(
        r#"
secrets = ["a secret of ours"]
media_types = ["application/x-www-form-urlencoded"]
event = { form_field = "payload", id = "{/id}", type = "{/type}" }
[[sources.acme.verify]]
signature = { header = "x-a" }
timestamp = { pointer = "/ts" }
tolerance = "5m"
[[sources.acme.verify]]
signature = { form = "sig" }
content = "{form:payload}"
"#,
    );
    for (at, expected) in [(NOW, "a"), (NOW - 301, "stale_timestamp")] {
        let payload = format!("{{\"id\":\"1\",\"type\":\"a\",\"ts\":{at}}}");
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload)
            .finish();
        let form = ("content-type", "application/x-www-form-urlencoded");
        let headers = [form, ("x-a", &*signature(&body))];
        assert_eq!(outcome(&config, &headers, &body), expected);
        let body = format!("{body}&sig={}", signature(&payload));
        assert_eq!(outcome(&config, &[form], &body), "a");
    }
}

#[test]
fn the_content_type_does_not_turn_a_signed_json_body_into_a_form() {
    let fields = "payload=%7B%22id%22:%22forged%22,%22type%22:%22forged%22%7D&type=forged";
    for event in [
        r#"event = { form_field = "payload", id = "{/id}", type = "{/type}" }"#,
        r#"event = { body = "form", id = ["{/id}", "{sha256:body}"], type = ["{/type}", "{form:type}"] }"#,
        r#"event = { form_field = "payload", id = "{sha256:body}", type = ["{/type}", "scalar"] }"#,
        r#"event = { body = "raw", form_field = "payload", id = "{sha256:body}", type = "scalar" }"#,
    ] {
        let config = declared(&format!(
            "secrets = [\"a secret of ours\"]\nmedia_types = [\"application/json\", \"application/x-www-form-urlencoded\"]\nverify = {{ signature = {{ header = \"x-s\" }} }}\n{event}\n"
        ));
        for body in [
            format!("{{\"id\":\"1\",\"type\":\"genuine\",\"text\":\"&{fields}&\"}}"),
            format!(" \r\n\t[\"&{fields}&\"]"),
            format!("\"&{fields}&\""),
        ] {
            let signed = signature(&body);
            let form = ("content-type", "application/x-www-form-urlencoded");
            let found = outcome(&config, &[("x-s", &signed), form], &body);
            let expected = match event.contains("raw") {
                true => "scalar",
                false => "invalid_json",
            };
            assert_eq!(found, expected, "{event} {body}");
        }
        let signed = signature(fields);
        let json = ("content-type", "application/json");
        let found = outcome(&config, &[("x-s", &signed), json], fields);
        assert!(["invalid_json", "scalar"].contains(&&*found), "{found}");
        let form = ("content-type", "application/x-www-form-urlencoded");
        let found = outcome(&config, &[("x-s", &signed), form], fields);
        assert!(["forged", "scalar"].contains(&&*found), "{event} {found}");
    }
}

/// Facts outside the repository; the tests above and the provider's cover the essentials.
#[expect(clippy::print_stdout, reason = "reports that a test is skipped")]
fn reference() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    let folder = std::env::var_os("HOOKBRIDGE_REFERENCE").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no reference at {}", folder.display());
    None
}

#[test]
fn every_reference_sample_has_its_expected_identity() {
    let Some(folder) = reference().map(|folder| folder.join("synq-samples")) else {
        return;
    };
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let body = std::fs::read(folder.join(name)).unwrap();
        let (_, message) = published(decide_with(&config(ALL), HeaderMap::new(), &body));
        assert_eq!(message.body, body);
        let headers = headers_of(&message, Kind::Kafka);
        let header = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(header("event_id"), expected["event_id"].as_str(), "{name}");
        assert_eq!(header("ce_type"), expected["type"].as_str(), "{name}");
        assert_eq!(header("ce_subject"), expected["subject"].as_str(), "{name}");
        assert_eq!(header("ce_time"), expected["time"].as_str(), "{name}");
        assert_eq!(
            Some(message.key.as_str()),
            expected["key"].as_str(),
            "{name}"
        );
    }
}

#[test]
fn every_refused_reference_event_is_refused_for_its_reason() {
    let Some(folder) = reference().map(|folder| folder.join("synq-samples")) else {
        return;
    };
    let lines = std::fs::read_to_string(folder.join("refused.jsonl")).unwrap();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let refusal = refused(decide_with(
            &config(ALL),
            HeaderMap::new(),
            line["body"].as_str().unwrap().as_bytes(),
        ));
        assert_eq!(
            refusal.code(),
            line["code"].as_str().unwrap(),
            "{}",
            line["name"]
        );
        assert_eq!(
            u64::from(refusal.status().as_u16()),
            line["status"].as_u64().unwrap(),
            "{}",
            line["name"]
        );
        if let Some(pointer) = line["pointer"].as_str() {
            let Refusal::InvalidEvent(violations) = refusal else {
                panic!("{}: {refusal:?}", line["name"])
            };
            assert!(
                violations
                    .iter()
                    .any(|violation| violation.pointer == pointer),
                "{}: {violations:?}",
                line["name"]
            );
        }
    }
}

/// Work that panics on its second poll.
fn panicking(bridge: &Arc<Bridge>, request_id: RequestId) -> Detached<'_> {
    let mut polls = 0;
    let work = std::future::poll_fn(move |context| {
        polls += 1;
        assert!(polls == 1, "a defect");
        context.waker().wake_by_ref();
        Poll::Pending
    });
    let arrival = Arrival {
        request_id,
        started: std::time::Instant::now(),
        client: None,
    };
    let (process, bridge) = (bridge.process(), Arc::clone(bridge));
    Detached::new(process, async move {
        let source = &bridge.config().sources[0];
        answer_panic(&bridge, source, &arrival, work).await
    })
}

async fn bridge() -> Arc<Bridge> {
    let bridge = Bridge::start(config(ALL)).await;
    Arc::new(bridge.unwrap_or_else(|error| panic!("{error:?}")))
}

fn counted(bridge: &Bridge, outcome: &str) -> bool {
    let text = String::from_utf8(bridge.scrape().unwrap()).unwrap();
    let line = format!("hookbridge_requests_total{{outcome=\"{outcome}\",source=\"synq\"}} 1");
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn a_panic_is_answered_under_the_requests_own_id_and_counted() {
    let bridge = bridge().await;
    let request_id = RequestId::random();
    let response = panicking(&bridge, request_id).await;
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.headers()["x-request-id"],
        request_id.to_string().as_str()
    );
    assert!(counted(&bridge, "publish_timeout"));
}

#[tokio::test]
async fn a_panic_after_the_sender_hung_up_is_counted_and_ends_the_work() {
    let bridge = bridge().await;
    let mut work = panicking(&bridge, RequestId::random());
    assert!((&mut work).now_or_never().is_none());
    drop(work);
    let tasks = bridge.process().tasks();
    tasks.close();
    tasks.wait().await;
    assert!(counted(&bridge, "publish_timeout"));
}
