//! What a Kafka topic holds after a 200, and what Kafka may refuse.

use std::time::{Duration, Instant, SystemTime};

use crate::support::bridge::{Bridge, kafka_broker, route, route_with, synq_source};
use crate::support::checker::Checker;
use crate::support::consumer::{Stored, only, values};
use crate::support::events::{self, Event};
use crate::support::kafka::{Kafka, USER, java_partition, unique};
use crate::support::sender::Request;
use crate::support::tls;
use crate::support::wait::{self, PATIENCE};

/// Bodies that a bridge which parses and writes JSON anew would change.
pub(crate) fn odd_bodies() -> Vec<Event> {
    let bodies = [
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{"message":"Grüße 👋 日本語 \u00e9 \/ \ud83d\ude80 \u0000"}}"#,
        "\t{ \"event_id\" :\t\"ID\",\r\n  \"event_type\":\"EVENT_TYPE_PING\" ,\n\"ping\": { } }\n \r\n",
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{},"x":1.0,"x":1.00,"x":{"y":1,"y":2}}"#,
        r#"{"event_id":"ID","event_type":10,"ping":{},"n":[-0,1E+2,1e-7,123456789012345678901234567890,0.10]}"#,
        r#"{"ping":{},"event_type":"EVENT_TYPE_PING","event_id":"ID","z":[],"a":{},"":null}"#,
    ];
    bodies.iter().map(|body| events::raw(body)).collect()
}

/// Publishes these, every other one in chunks, and finds the same bytes in the same order.
pub(crate) fn carries_every_byte(
    bridge: &Bridge,
    sent: &[Event],
    read: impl FnOnce() -> Vec<Stored>,
) {
    for (number, event) in sent.iter().enumerate() {
        let request = Request::event(event);
        let request = match number % 2 {
            0 => request,
            _ => request.chunked(17),
        };
        bridge.send(&request).expect_published(event);
    }
    let stored = values(read());
    assert!(
        stored.iter().eq(sent.iter().map(|event| &event.body)),
        "{stored:?}\n{sent:?}"
    );
}

#[test]
fn the_value_is_the_body_byte_for_byte() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let bridge = Bridge::to_kafka(kafka, &topic);
    let mut sent = odd_bodies();
    sent.push(events::ping_of_size(1024 * 1024)); // exactly the default max_body
    carries_every_byte(&bridge, &sent, || kafka.read(&topic));
}

#[test]
fn headers_are_exactly_the_contracts() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let bridge = Bridge::to_kafka(kafka, &topic);
    let before = SystemTime::now();
    let event = events::issue("created", "0b51f1f2");
    let request = Request::event(&event)
        .header("X-Request-Source", "not listed")
        .header("ce_id", "not mine")
        .header("event_id", "not mine")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    bridge.send(&request).expect_published(&event);
    let message = only(kafka.read(&topic));
    let expected = [
        ("ce_id", event.id.as_str()),
        ("ce_partitionkey", "0b51f1f2"),
        ("ce_source", "/hookbridge/synq"),
        ("ce_specversion", "1.0"),
        ("ce_subject", "0b51f1f2"),
        ("ce_time", "2026-11-20T06:15:04.5Z"),
        ("ce_type", "issue_created"),
        ("content-type", "application/json"),
        ("event_id", event.id.as_str()),
    ];
    message.expect_headers(&expected, &["ce_recordedtime"]);
    assert_eq!(message.key.as_deref(), Some("0b51f1f2"));
    received_since(before, message.header("ce_recordedtime").unwrap());
}

/// Checks that an RFC 3339 time lies between `before` and now.
pub(crate) fn received_since(before: SystemTime, text: &str) {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let second = Duration::from_secs(1); // it may be written in whole seconds
    let (from, to) = (
        time::OffsetDateTime::from(before - second),
        time::OffsetDateTime::from(SystemTime::now() + second),
    );
    assert!(
        from <= time && time <= to,
        "{text} is not between {from} and {to}"
    );
}

#[test]
fn what_an_event_does_not_have_has_no_header() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let bridge = Bridge::to_kafka(kafka, &topic);
    let least = events::raw(r#"{"event_id":"ID","ping":{}}"#);
    bridge.deliver(&least).expect_published(&least);
    let message = only(kafka.read(&topic));
    let names = [
        "ce_id",
        "ce_partitionkey",
        "ce_recordedtime",
        "ce_source",
        "ce_specversion",
        "ce_type",
        "content-type",
        "event_id",
    ];
    assert_eq!(message.header_names(), names);
    assert_eq!(
        message.key.as_deref(),
        Some(least.id.as_str()),
        "the event id where there is no subject"
    );
    assert_eq!(message.header("ce_type"), Some("ping"));
}

#[test]
fn ce_source_is_configurable_and_header_values_keep_their_bytes() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("ce_source = \"//acme.example/synq\"")
        + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let id = format!("Grüße \"%\" 👋 {}", events::new_id());
    let body = serde_json::json!({ "event_id": id, "ping": {} })
        .to_string()
        .into_bytes();
    let event = Event {
        id: id.clone(),
        body,
    };
    bridge.deliver(&event).expect_published(&event);
    let message = only(kafka.read(&topic));
    assert_eq!(message.header("ce_source"), Some("//acme.example/synq"));
    assert_eq!(message.header("ce_id"), Some(id.as_str()));
    assert_eq!(message.header("event_id"), Some(id.as_str()));
    assert_eq!(message.key.as_deref(), Some(id.as_str()));
}

#[test]
fn only_listed_headers_of_the_sender_are_forwarded() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let listed = "forward_headers = [\"x-request-source\", \"X-Absent\"]";
    let rest = kafka_broker("main", &kafka.address) + &synq_source(listed) + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    let request = Request::event(&event)
        .header("X-Request-Source", "eu-west")
        .header("X-Other", "unlisted")
        .header("Authorization", "Bearer unlisted")
        .header("Cookie", "unlisted=unlisted");
    bridge.send(&request).expect_published(&event);
    let message = only(kafka.read(&topic));
    let forwarded: Vec<_> = message
        .headers
        .iter()
        .filter(|(_, value)| value == "eu-west")
        .map(|(name, _)| name.to_lowercase())
        .collect();
    assert_eq!(forwarded, ["x-request-source"], "{message:?}");
    assert!(
        !message
            .headers
            .iter()
            .any(|(_, value)| value.contains("unlisted")),
        "{message:?}"
    );
}

#[test]
fn keys_find_the_partitions_that_the_java_client_takes() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("kafka", 7, &[]);
    let bridge = Bridge::to_kafka(kafka, &topic);
    for number in 0..30 {
        let event = events::issue(
            "created",
            &"key-αβγ-"
                .chars()
                .cycle()
                .take(number)
                .chain(['x'])
                .collect::<String>(),
        );
        bridge.deliver(&event).expect_published(&event);
    }
    let stored = kafka.read(&topic);
    assert_eq!(stored.len(), 30);
    for message in stored {
        let key = message.key.as_deref().expect("a key");
        assert_eq!(
            message.partition,
            java_partition(key.as_bytes(), 7),
            "{message:?}"
        );
    }
}

#[test]
fn events_sent_one_after_the_other_keep_their_order() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("kafka", 3, &[]);
    let bridge = Bridge::to_kafka(kafka, &topic);
    let sent: Vec<_> = (0..50)
        .map(|_| events::issue("updated", "one issue"))
        .collect();
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    let stored = values(kafka.read(&topic));
    assert!(
        stored.iter().eq(sent.iter().map(|event| &event.body)),
        "order or content differs"
    );
}

/// Messages of many senders wait for each other, those of few do not; what a sender awaits before it sends on is in order all
/// the same.
#[test]
fn a_senders_events_stay_in_order_while_the_load_comes_and_goes() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let bridge = Bridge::to_kafka(kafka, &topic);
    // Four go on when the others have ended.
    let sent: Vec<(String, Vec<Event>)> = (0..48)
        .map(|sender| {
            let issue = format!("issue-{sender}");
            let count = if sender < 4 { 20 } else { 10 };
            let events = (0..count).map(|_| events::issue("created", &issue));
            (issue.clone(), events.collect())
        })
        .collect();
    std::thread::scope(|scope| {
        let bridge = &bridge;
        for (_, events) in &sent {
            scope.spawn(move || {
                for event in events {
                    bridge.deliver(event).expect_published(event);
                }
            });
        }
    });
    let stored = kafka.read(&topic);
    for (issue, events) in &sent {
        let of_issue = stored
            .iter()
            .filter(|message| message.key.as_ref() == Some(issue));
        assert!(
            of_issue
                .map(Stored::event_id)
                .eq(events.iter().map(|event| event.id.as_str())),
            "{issue}"
        );
    }
}

#[test]
fn the_same_event_twice_is_two_copies_with_one_id() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("kafka");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("dedup_window = \"0s\"")
        + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    bridge.deliver(&event).expect_published(&event);
    let ids: Vec<_> = kafka
        .read(&topic)
        .iter()
        .map(|message| message.event_id().to_owned())
        .collect();
    assert_eq!(ids, [event.id.clone(), event.id]);
}

#[test]
fn librdkafka_options_pass_through() {
    let Some(kafka) = Kafka::shared() else { return };
    for compression in ["lz4", "gzip"] {
        let topic = kafka.topic("kafka");
        let options = format!(
            "options = {{ \"compression.type\" = \"{compression}\", \"linger.ms\" = \"1\" }}\n"
        );
        let rest =
            kafka_broker("main", &kafka.address) + &options + &synq_source("") + &route(&topic);
        let bridge = Bridge::run(&rest);
        bridge.wait_ready();
        let event = events::ping_of_size(50_000);
        bridge.deliver(&event).expect_published(&event);
        assert!(only(kafka.read(&topic)).value == event.body);
    }
}

/// A Kafka broker table for the listener that demands a user.
fn with_login(address: &str, mechanism: &str, password: &str) -> String {
    let user = USER.0;
    kafka_broker("main", address)
        + &format!(
            "options = {{ \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \"{mechanism}\", \
             \"sasl.username\" = \"{user}\", \"sasl.password\" = \"{password}\" }}\n"
        )
}

#[test]
fn sasl_plain_and_scram_and_tls_are_spoken() {
    let Some(kafka) = Kafka::shared() else { return };
    let (Some(sasl), Some(secure)) = (kafka.sasl_address(), kafka.tls_address()) else {
        return crate::support::process::skip("SASL and TLS", "need a Kafka of the tests' own");
    };
    let authority = tls::CERTIFICATES.authority.display();
    let with_tls = kafka_broker("main", &secure)
        + &format!(
            "options = {{ \"security.protocol\" = \"SSL\", \"ssl.ca.location\" = \"{authority}\" }}\n"
        );
    let brokers = [
        with_login(&sasl, "PLAIN", USER.1),
        with_login(&sasl, "SCRAM-SHA-256", USER.1),
        with_tls,
    ];
    for broker in brokers {
        let topic = kafka.topic("kafka");
        let bridge = Bridge::run(&(broker + &synq_source("") + &route(&topic)));
        bridge.wait_ready();
        let event = events::ping();
        bridge.deliver(&event).expect_published(&event);
        assert_eq!(only(kafka.read(&topic)).value, event.body);
    }
}

#[test]
fn a_wrong_password_is_503_and_never_shown() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(sasl) = kafka.sasl_address() else {
        return crate::support::process::skip("SASL", "needs a Kafka of the tests' own");
    };
    let topic = kafka.topic("kafka");
    let secret = "hunter2-hunter2";
    let rest = with_login(&sasl, "PLAIN", secret) + &synq_source("") + &route(&topic);
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    let started = Instant::now();
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "broker_unavailable");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let shown = wait::until_some("/readyz speaks of authentication", PATIENCE, || {
        let answer = bridge.admin("/readyz");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status == 503 && body.to_lowercase().contains("authentication")).then_some(body)
    });
    assert!(shown.contains("main"), "it names the broker: {shown}");
    for text in [shown, bridge.log().join("\n"), bridge.metrics().0] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(kafka.read(&topic), []);
}

#[test]
fn a_missing_topic_is_503_and_published_to_once_it_is_there() {
    let Some(kafka) = Kafka::shared() else { return };
    let (good, missing) = (kafka.topic("kafka"), unique("kafka"));
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(&missing, "types = [\"issue_*\"]")
        + &route_with(&good, "");
    let bridge = Bridge::run_with("publish_timeout = \"8s\"", &rest);
    let refused = events::issue("created", "i1");
    let started = Instant::now();
    bridge
        .deliver(&refused)
        .expect_problem(503, "broker_unavailable");
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "{:?}",
        started.elapsed()
    );
    let other = events::ping();
    bridge.deliver(&other).expect_published(&other); // one topic's trouble is not another's
    kafka.create_topic(&missing, 1, &[]);
    let event = events::issue("created", "i1");
    wait::until("the topic is published to", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
    let stored = kafka.read(&missing);
    assert!(
        stored.iter().all(|message| message.event_id() == event.id),
        "the refused one is not there: {stored:?}"
    );
}

#[test]
fn what_kafka_finds_too_large_is_503_and_hurts_nobody_else() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("kafka", 1, &[("max.message.bytes", "20000")]);
    let bridge = Bridge::to_kafka(kafka, &topic);
    let large = events::ping_of_size(200_000);
    let checker = Checker::default();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| bridge.deliver(&large));
        for _ in 0..40 {
            let event = events::ping();
            let sent = Instant::now();
            let answer = bridge.deliver(&event);
            let took = sent.elapsed();
            // Kafka refuses a whole batch: a neighbour may have to come again, and is never told that it is at fault.
            if answer.status != 200 {
                answer.expect_problem(503, "broker_unavailable");
            }
            checker.note(&event, took, &Ok(answer));
        }
        answer
            .join()
            .unwrap()
            .expect_problem(503, "broker_unavailable");
    });
    println!("{}", checker.summary());
    checker.check(&kafka.read(&topic));
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
}
