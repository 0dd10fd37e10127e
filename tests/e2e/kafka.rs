//! Kafka alone: keys and partitions, options of librdkafka, logins.

use std::time::Duration;

use crate::support::bridge::{Bridge, kafka_broker, route, synq_source};
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event};
use crate::support::fixture::kafka;
use crate::support::kafka::{Kafka, USER, java_partition};
use crate::support::tls;

#[test]
fn an_attribute_that_an_event_lacks_has_no_header() {
    let bridge = or_skip!(kafka().run());
    let least = events::raw(r#"{"event_id":"ID","ping":{}}"#);
    bridge.deliver(&least).expect_published(&least);
    let message = only(bridge.read());
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
        "the event id without a subject"
    );
    assert_eq!(message.header("ce_type"), Some("ping"));
}

#[test]
fn ce_source_is_configurable_and_header_values_keep_their_bytes() {
    let bridge = or_skip!(kafka().source("ce_source = \"//acme.example/synq\"").run());
    let id = format!("Grüße \"%\" 👋 {}", events::new_id());
    let body = serde_json::json!({ "event_id": id, "ping": {} })
        .to_string()
        .into_bytes();
    let event = Event {
        id: id.clone(),
        body,
    };
    bridge.deliver(&event).expect_published(&event);
    let message = only(bridge.read());
    assert_eq!(message.header("ce_source"), Some("//acme.example/synq"));
    assert_eq!(message.header("ce_id"), Some(id.as_str()));
    assert_eq!(message.header("event_id"), Some(id.as_str()));
    assert_eq!(message.key.as_deref(), Some(id.as_str()));
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

/// Many senders' messages are batched, few senders' are not; awaited sequential sends stay in order in either case.
#[test]
fn a_senders_events_stay_in_order_while_the_load_comes_and_goes() {
    let bridge = or_skip!(kafka().run());
    // Four continue when the others have ended.
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
    let stored = bridge.read();
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
    let bridge = or_skip!(kafka().source("dedup_window = \"0s\"").run());
    let event = bridge.publish_ping();
    bridge.deliver(&event).expect_published(&event);
    let ids: Vec<_> = bridge
        .read()
        .iter()
        .map(|message| message.event_id().to_owned())
        .collect();
    assert_eq!(ids, [event.id.clone(), event.id]);
}

#[test]
fn librdkafka_options_pass_through() {
    for compression in ["lz4", "gzip"] {
        let options = format!(
            "options = {{ \"compression.type\" = \"{compression}\", \"linger.ms\" = \"1\" }}"
        );
        let bridge = or_skip!(kafka().broker(&options).run());
        let event = events::ping_of_size(50_000);
        bridge.deliver(&event).expect_published(&event);
        assert!(only(bridge.read()).value == event.body);
    }
}

/// A Kafka broker table for the SASL listener.
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
        return crate::support::process::skip("SASL and TLS", "need a Kafka broker for one test");
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
        let event = bridge.publish_ping();
        assert_eq!(only(kafka.read(&topic)).value, event.body);
    }
}

#[test]
fn a_wrong_password_is_503_and_never_shown() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(sasl) = kafka.sasl_address() else {
        return crate::support::process::skip("SASL", "needs a Kafka broker for one test");
    };
    let topic = kafka.topic("kafka");
    let secret = "hunter2-hunter2";
    let rest = with_login(&sasl, "PLAIN", secret) + &synq_source("") + &route(&topic);
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    let answer = bridge.deliver_within(&events::ping(), Duration::from_secs(5));
    answer.expect_problem(503, "broker_unavailable");
    let shown = bridge.wait_unready(&["authentication"]);
    assert!(shown.contains("main"), "it names the broker: {shown}");
    for text in [shown, bridge.log().join("\n"), bridge.metrics().0] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(kafka.read(&topic), []);
}
