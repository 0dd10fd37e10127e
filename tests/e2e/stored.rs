//! The message behind a 200: the body byte for byte, and exactly the documented headers.

use std::time::{Duration, SystemTime};

use crate::support::consumer::only;
use crate::support::events::{self, Event};
use crate::support::fixture::{Broker, Setup};
use crate::support::kafka::unique;
use crate::support::sender::Request;
use crate::support::wait::{self, PATIENCE};

on_each_broker!(
    the_value_is_the_body_byte_for_byte,
    headers_are_exactly_the_contracts,
    only_listed_headers_of_the_sender_are_forwarded,
    events_sent_one_after_the_other_keep_their_order,
    a_topic_that_does_not_exist_is_503_and_published_to_once_it_is_there,
);

/// Bodies that would change if a bridge parsed and rewrote the JSON.
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

fn the_value_is_the_body_byte_for_byte<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().run());
    let mut sent = odd_bodies();
    if bridge.broker.takes_large_messages() {
        sent.push(events::ping_of_size(1024 * 1024)); // exactly the default max_body
    }
    for (number, event) in sent.iter().enumerate() {
        let request = Request::event(event);
        let request = match number % 2 {
            0 => request,
            _ => request.chunked((event.body.len() / 500).max(17)),
        };
        bridge.send(&request).expect_published(event);
    }
    let bodies: Vec<_> = sent.into_iter().map(|event| event.body).collect();
    assert!(bridge.bodies() == bodies, "{:?}", bridge.read());
}

fn headers_are_exactly_the_contracts<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().run());
    let before = SystemTime::now();
    let event = events::issue("created", "0b51f1f2");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = [
        ("X-Request-Source", "not listed"),
        ("event_id", "not mine"),
        ("ce_id", "not mine"),
        ("ce-id", "not mine"),
        ("Nats-Msg-Id", "not mine"),
        ("Nats-Rollup", "all"),
        ("traceparent", trace),
    ]
    .iter()
    .fold(Request::event(&event), |request, (name, value)| {
        request.header(name, value)
    });
    bridge.send(&request).expect_published(&event);
    let message = only(bridge.read());
    let attributes = [
        ("id", event.id.as_str()),
        ("partitionkey", "0b51f1f2"),
        ("source", "/hookbridge/synq"),
        ("specversion", "1.0"),
        ("subject", "0b51f1f2"),
        ("time", "2026-11-20T06:15:04.5Z"),
        ("type", "issue_created"),
    ];
    let attributes = attributes.map(|(name, value)| (B::CE.to_owned() + name, value));
    let mut expected: Vec<_> = attributes
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    expected.push(("content-type", "application/json"));
    expected.push(("event_id", &event.id));
    let time = B::CE.to_owned() + "recordedtime";
    let mut also = vec![time.as_str()];
    if B::DEDUPLICATES {
        also.push("Nats-Msg-Id");
        let id = message.header("Nats-Msg-Id").unwrap_or_default();
        let hash = id.strip_prefix(&format!("synq/{}/", event.id));
        assert!(hash.is_some_and(|hash| hash.len() == 32), "{id}");
    } else {
        assert_eq!(message.key.as_deref(), Some("0b51f1f2"));
    }
    let topic = bridge.topic.clone() + &B::ROUTE["TOPIC".len()..];
    assert_eq!(message.topic, topic.replace("{type}", "issue_created"));
    message.expect_headers(&expected, &also);
    received_since(before, message.header(&time).unwrap());
}

/// Checks that an RFC 3339 time lies between `before` and now.
fn received_since(before: SystemTime, text: &str) {
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

fn only_listed_headers_of_the_sender_are_forwarded<B: Broker>() {
    let listed = "forward_headers = [\"x-request-source\", \"X-Absent\"]";
    let bridge = or_skip!(Setup::<B>::new().source(listed).run());
    let event = events::ping();
    let request = Request::event(&event)
        .header("X-Request-Source", "eu-west")
        .header("X-Other", "unlisted")
        .header("Authorization", "Bearer unlisted")
        .header("Cookie", "unlisted=unlisted");
    bridge.send(&request).expect_published(&event);
    let message = only(bridge.read());
    let names = |text: &str| {
        let having = message
            .headers
            .iter()
            .filter(|(_, value)| value.contains(text));
        having
            .map(|(name, _)| name.to_lowercase())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("eu-west"), ["x-request-source"], "{message:?}");
    assert_eq!(names("unlisted"), [""; 0], "{message:?}");
}

fn events_sent_one_after_the_other_keep_their_order<B: Broker>() {
    let broker = or_skip!(B::shared());
    let bridge = Setup::<B>::new().run_on(broker, broker.new_topic_in_parts("order"));
    let sent: Vec<_> = (0..50)
        .map(|_| events::issue("updated", "one issue"))
        .collect();
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    let bodies: Vec<_> = sent.into_iter().map(|event| event.body).collect();
    assert!(bridge.bodies() == bodies, "order or content differs");
}

fn a_topic_that_does_not_exist_is_503_and_published_to_once_it_is_there<B: Broker>() {
    let missing = unique("missing");
    let routes = [
        (&*format!("{missing}{}", B::LEAF), "types = [\"issue_*\"]"),
        (B::ROUTE, ""),
    ];
    let setup = Setup::<B>::new().http("publish_timeout = \"8s\"");
    let bridge = or_skip!(setup.routes(&routes).run());
    let refused = events::issue("created", "i1");
    let answer = bridge.deliver_within(&refused, Duration::from_secs(9));
    answer.expect_problem(503, "broker_unavailable");
    bridge.publish_ping(); // one topic's trouble is not another's
    bridge.broker.create(&missing);
    let event = events::issue("created", "i1");
    wait::until("the topic is published to", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
    let stored = bridge.broker.read(&missing);
    assert!(
        stored.iter().all(|message| message.event_id() == event.id),
        "the refused one is not there: {stored:?}"
    );
}
