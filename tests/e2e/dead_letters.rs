//! Where events go that can't go where they should: original bytes, and headers that say why.

use crate::support::bridge::{Bridge, kafka_broker, nats_broker, route, route_with, synq_source};
use crate::support::consumer::only;
use crate::support::events::{self, Event};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::Request;

fn issue_without_id(id: &str) -> Event {
    let body = format!(
        "{{ \"event_id\" : \"{id}\", \"event_time\":\"2026-11-20T06:15:04.5Z\",\
         \"event_type\":\"EVENT_TYPE_ISSUE_CREATED\", \"issue_created\":{{\"issue\":{{\"title\":\"Grüße\"}}}} }}\n"
    );
    Event {
        id: id.to_owned(),
        body: body.into_bytes(),
    }
}

#[test]
fn an_invalid_event_is_dead_lettered_in_kafka_with_all_that_is_known() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("dead"), kafka.topic("dead"));
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address) + &synq_source(&letters) + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = issue_without_id(&events::new_id());
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let message = only(kafka.read(&dead));
    assert_eq!(message.value, event.body, "the original bytes");
    assert_eq!(
        message.key.as_deref(),
        Some(event.id.as_str()),
        "the event id, since its key is not known"
    );
    let expected = [
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_pointer", "/issue_created/issue/issue_id"),
        ("hookbridge_source", "synq"),
        ("event_id", event.id.as_str()),
        ("ce_id", event.id.as_str()),
        ("ce_source", "/hookbridge/synq"),
        ("ce_specversion", "1.0"),
        ("ce_type", "issue_created"),
        ("ce_time", "2026-11-20T06:15:04.5Z"),
        ("content-type", "application/json"),
    ];
    for (name, value) in expected {
        assert_eq!(message.header(name), Some(value), "{name}: {message:?}");
    }
    assert!(
        message
            .header("hookbridge_detail")
            .is_some_and(|text| !text.is_empty()),
        "{message:?}"
    );
    assert!(
        message.header("ce_recordedtime").is_some(),
        "when: {message:?}"
    );
    assert_eq!(kafka.read(&topic), []);

    // What is valid still goes where it should.
    let good = events::issue("created", "i1");
    bridge.deliver(&good).expect_published(&good);
    assert_eq!(only(kafka.read(&topic)).value, good.body);
    only(kafka.read(&dead));
}

#[test]
fn an_invalid_event_is_dead_lettered_in_nats_with_all_that_is_known() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dead");
    let letters = format!(
        "on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{stream}.dead\" }} }}"
    );
    let rest = nats_broker("main", &nats.url)
        + &synq_source(&letters)
        + &route(&format!("{stream}.good.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = issue_without_id(&events::new_id());
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let message = only(nats.read(&stream));
    assert_eq!(message.topic, format!("{stream}.dead"));
    assert_eq!(message.value, event.body);
    let expected = [
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_pointer", "/issue_created/issue/issue_id"),
        ("hookbridge_source", "synq"),
        ("event_id", event.id.as_str()),
        ("ce-type", "issue_created"),
    ];
    for (name, value) in expected {
        assert_eq!(message.header(name), Some(value), "{name}: {message:?}");
    }
}

#[test]
fn an_event_without_an_id_is_dead_lettered_under_a_generated_one() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("dead"), kafka.topic("dead"));
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address) + &synq_source(&letters) + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let body = br#"{"event_type":"EVENT_TYPE_PING","ping":{}}"#;
    let id = bridge
        .send(&Request::signed_body(*body))
        .expect_success("dead_lettered");
    let message = only(kafka.read(&dead));
    assert_eq!(message.value, body);
    assert_eq!(
        message.header("hookbridge_reason"),
        Some("missing_event_id")
    );
    assert_eq!(message.header("event_id"), Some(id.as_str()));
    assert_eq!(message.header("event_id_origin"), Some("generated"));
    assert_eq!(message.key.as_deref(), Some(id.as_str()));
}

#[test]
fn an_event_without_a_route_is_dead_lettered_with_its_own_key() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (dead, stream) = (kafka.topic("dead"), nats.stream("dead"));
    let letters =
        format!("on_unrouted = {{ dead_letter = {{ broker = \"main\", topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source(&letters)
        + &route_with(
            &format!("{stream}.x"),
            "broker = \"edge\"\ntypes = [\"ping\"]",
        );
    let bridge = Bridge::run_with("", &rest);
    bridge.wait_ready();
    let event = events::issue("created", "0b51f1f2");
    let answer =
        crate::support::wait::until_some("Kafka is up", crate::support::wait::PATIENCE, || {
            let answer = bridge.deliver(&event);
            (answer.status != 503).then_some(answer)
        });
    assert_eq!(answer.expect_success("dead_lettered"), event.id);
    let message = only(kafka.read(&dead));
    assert_eq!(message.value, event.body);
    assert_eq!(
        message.key.as_deref(),
        Some("0b51f1f2"),
        "the key that it would have had"
    );
    assert_eq!(message.header("hookbridge_reason"), Some("no_route"));
    assert_eq!(message.header("hookbridge_source"), Some("synq"));
    assert_eq!(message.header("ce_subject"), Some("0b51f1f2"));
    assert_eq!(message.header("ce_type"), Some("issue_created"));
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn an_event_whose_topic_would_be_illegal_is_dead_lettered_as_invalid() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dead");
    let letters = format!(
        "on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{stream}.dead\" }} }}"
    );
    let rest = nats_broker("main", &nats.url)
        + &synq_source(&letters)
        + &route(&format!("{stream}.w-{{/workspace}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::issue_in("a > b", "created", "0b51f1f2");
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let message = only(nats.read(&stream));
    assert_eq!(message.topic, format!("{stream}.dead"));
    assert_eq!(message.header("hookbridge_reason"), Some("invalid_event"));
    assert_eq!(message.header("hookbridge_pointer"), Some("/workspace"));
    assert_eq!(message.value, event.body);
}

#[test]
fn on_invalid_ignore_answers_200_ignored() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dead");
    let bridge = Bridge::to_nats(nats, &stream, "", "on_invalid = \"ignore\"");
    let event = issue_without_id(&events::new_id());
    assert_eq!(bridge.deliver(&event).expect_success("ignored"), event.id);
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn an_unverified_request_is_never_dead_lettered() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dead");
    let letter = format!("{{ dead_letter = {{ broker = \"main\", topic = \"{stream}.dead\" }} }}");
    let bridge = Bridge::to_nats(
        nats,
        &stream,
        "",
        &format!("on_invalid = {letter}\non_unrouted = {letter}"),
    );
    let event = issue_without_id(&events::new_id());
    bridge
        .send(&Request::event(&event).without("x-coalesce-signature"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&Request::post("/hooks/synq", event.body).signed("wrong"))
        .expect_problem(401, "invalid_signature");
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_dead_letter_that_is_not_stored_is_503() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("dead");
    let missing = crate::support::kafka::unique("dead");
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{missing}\" }} }}");
    let rest = kafka_broker("main", &kafka.address) + &synq_source(&letters) + &route(&topic);
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    bridge
        .deliver(&issue_without_id(&events::new_id()))
        .expect_problem(503, "broker_unavailable");
}
