//! Dead letters: original bytes, and headers with the reason.

use crate::support::consumer::only;
use crate::support::events::{self, Event};
use crate::support::fixture::{Broker, Setup, kafka, nats};
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

on_each_broker!(
    an_invalid_event_is_dead_lettered_with_all_that_is_known,
    an_event_without_an_id_is_dead_lettered_under_a_generated_one,
);

fn an_invalid_event_is_dead_lettered_with_all_that_is_known<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().dead_letters("on_invalid").run());
    let event = issue_without_id(&events::new_id());
    let answer = bridge.deliver(&event);
    assert_eq!(answer.expect_success("dead_lettered"), event.id);
    let message = only(bridge.read_dead_letters());
    assert_eq!(message.value, event.body, "the original bytes");
    for (name, value) in [
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_pointer", "/issue_created/issue/issue_id"),
        ("hookbridge_source", "synq"),
        ("event_id", &event.id),
        ("content-type", "application/json"),
    ] {
        assert_eq!(message.header(name), Some(value), "{name}: {message:?}");
    }
    for (name, value) in [
        ("id", event.id.as_str()),
        ("source", "/hookbridge/synq"),
        ("specversion", "1.0"),
        ("type", "issue_created"),
        ("time", "2026-11-20T06:15:04.5Z"),
    ] {
        let found = message.header(&(B::CE.to_owned() + name));
        assert_eq!(found, Some(value), "{name}: {message:?}");
    }
    for name in ["hookbridge_detail", &(B::CE.to_owned() + "recordedtime")] {
        let text = message.header(name);
        assert!(text.is_some_and(|text| !text.is_empty()), "{message:?}");
    }
    if !B::DEDUPLICATES {
        // The event id, since its key is not known.
        assert_eq!(message.key.as_ref(), Some(&event.id));
    }
    assert_eq!(bridge.read(), []);

    // Valid events still go to their destination.
    let good = bridge.publish_ping();
    assert_eq!(only(bridge.read()).value, good.body);
    only(bridge.read_dead_letters());
}

fn an_event_without_an_id_is_dead_lettered_under_a_generated_one<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().dead_letters("on_invalid").run());
    let body = br#"{"event_type":"EVENT_TYPE_PING","ping":{}}"#;
    let answer = bridge.send(&Request::signed_body(*body));
    let id = answer.expect_success("dead_lettered");
    let message = only(bridge.read_dead_letters());
    assert_eq!(message.value, body);
    for (name, value) in [
        ("hookbridge_reason", "missing_event_id"),
        ("event_id", &id),
        ("event_id_origin", "generated"),
    ] {
        assert_eq!(message.header(name), Some(value), "{name}: {message:?}");
    }
    if !B::DEDUPLICATES {
        assert_eq!(message.key.as_ref(), Some(&id));
    }
}

#[test]
fn an_event_without_a_route_is_dead_lettered_with_its_own_key() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("dead");
    let bridge = or_skip!(
        kafka()
            .edge(nats)
            .source("on_unrouted = { dead_letter = { broker = \"main\", topic = \"TOPIC\" } }")
            .routes(&[(
                &*format!("{stream}.x"),
                "broker = \"edge\"\ntypes = [\"ping\"]"
            )])
            .run()
    );
    bridge.wait_brokers_up(2);
    let event = events::issue("created", "0b51f1f2");
    let answer = bridge.deliver(&event);
    assert_eq!(answer.expect_success("dead_lettered"), event.id);
    let message = only(bridge.read());
    assert_eq!(message.value, event.body);
    // The key that it would have had.
    assert_eq!(message.key.as_deref(), Some("0b51f1f2"));
    for (name, value) in [
        ("hookbridge_reason", "no_route"),
        ("hookbridge_source", "synq"),
        ("ce_subject", "0b51f1f2"),
        ("ce_type", "issue_created"),
    ] {
        assert_eq!(message.header(name), Some(value), "{name}: {message:?}");
    }
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn an_event_whose_topic_would_be_illegal_is_dead_lettered_as_invalid() {
    let letters = "on_invalid = { dead_letter = { broker = \"main\", topic = \"TOPIC.dead\" } }";
    let bridge = or_skip!(
        nats()
            .source(letters)
            .routes(&[("TOPIC.w-{/workspace}", "")])
            .run()
    );
    let stream = &bridge.topic;
    let event = events::issue_in("a > b", "created", "0b51f1f2");
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let message = only(bridge.read());
    assert_eq!(message.topic, format!("{stream}.dead"));
    assert_eq!(message.header("hookbridge_reason"), Some("invalid_event"));
    assert_eq!(message.header("hookbridge_pointer"), Some("/workspace"));
    assert_eq!(message.value, event.body);
}

#[test]
fn on_invalid_ignore_answers_200_ignored() {
    let bridge = or_skip!(nats().source("on_invalid = \"ignore\"").run());
    let event = issue_without_id(&events::new_id());
    assert_eq!(bridge.deliver(&event).expect_success("ignored"), event.id);
    assert_eq!(bridge.read(), []);
}

#[test]
fn an_unverified_request_is_never_dead_lettered() {
    let letter = "{ dead_letter = { broker = \"main\", topic = \"TOPIC.dead\" } }";
    let bridge = or_skip!(
        nats()
            .source(&format!("on_invalid = {letter}\non_unrouted = {letter}"))
            .run()
    );
    let event = issue_without_id(&events::new_id());
    bridge
        .send(&Request::event(&event).without("x-coalesce-signature"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&Request::post("/hooks/synq", event.body).signed("wrong"))
        .expect_problem(401, "invalid_signature");
    assert_eq!(bridge.read(), []);
}

#[test]
fn a_dead_letter_that_is_not_stored_is_503() {
    let letters = "on_invalid = { dead_letter = { topic = \"TOPIC-missing\" } }";
    let setup = kafka().http("publish_timeout = \"3s\"");
    let bridge = or_skip!(setup.source(letters).run());
    let answer = bridge.deliver(&issue_without_id(&events::new_id()));
    answer.expect_problem(503, "broker_unavailable");
}
