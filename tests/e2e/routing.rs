//! Which route an event takes, and what its topic and key become. On NATS where the broker makes no difference: a stream
//! takes every subject under its prefix.

use crate::support::bridge::{Bridge, kafka_broker, nats_broker, route_with, synq_source};
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event, SECRET};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::sender::Request;

/// A bridge in front of the shared NATS with these sources and routes.
fn in_front_of_nats(nats: &Nats, rest: &str) -> Bridge {
    let bridge = Bridge::run(&(nats_broker("main", &nats.url) + rest));
    bridge.wait_ready();
    bridge
}

/// Where in the stream an event has arrived: its subject without the stream's prefix.
fn place(nats: &Nats, stream: &str, event: &Event) -> String {
    let of_event = |message: &Stored| message.event_id() == event.id;
    let message = only(nats.read(stream).into_iter().filter(of_event).collect());
    assert_eq!(message.value, event.body);
    message
        .topic
        .strip_prefix(stream)
        .and_then(|rest| rest.strip_prefix('.'))
        .expect("the prefix")
        .to_owned()
}

#[test]
fn the_first_route_that_matches_wins() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let routes = [
        route_with(
            &format!("{stream}.closed"),
            "types = [\"issue_closed\", \"incident_closed\"]",
        ),
        route_with(&format!("{stream}.issues"), "types = [\"issue_*\"]"),
        route_with(&format!("{stream}.never"), "types = [\"issue_created\"]"),
        route_with(&format!("{stream}.rest"), ""),
        route_with(&format!("{stream}.unreachable"), "types = [\"ping\"]"),
    ];
    let bridge = in_front_of_nats(nats, &(synq_source("") + &routes.concat()));
    let expected = [
        (events::issue("created", "i1"), "issues"),
        (events::issue("status_updated", "i1"), "issues"),
        (events::issue("closed", "i1"), "closed"),
        (events::incident("open", "n1"), "rest"),
        (events::incident("closed", "n1"), "closed"),
        (events::ping(), "rest"),
        (events::of_type("EVENT_TYPE_MONITOR_TRIGGERED"), "rest"),
    ];
    for (event, topic) in expected {
        bridge.deliver(&event).expect_published(&event);
        assert_eq!(place(nats, &stream, &event), topic);
    }
}

#[test]
fn types_are_globs_over_the_whole_type() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let routes = [
        route_with(&format!("{stream}.question"), "types = [\"pin?\"]"),
        route_with(
            &format!("{stream}.alternatives"),
            "types = [\"incident_{open,closed}\"]",
        ),
        route_with(&format!("{stream}.middle"), "types = [\"*_status_*\"]"),
        route_with(
            &format!("{stream}.partial"),
            "types = [\"issue\", \"incident\", \"created\"]",
        ),
        route_with(&format!("{stream}.star"), "types = [\"*\"]"),
    ];
    let bridge = in_front_of_nats(nats, &(synq_source("") + &routes.concat()));
    let expected = [
        (events::ping(), "question"),
        (events::incident("open", "n1"), "alternatives"),
        (events::incident("closed", "n1"), "alternatives"),
        (events::incident("cancelled", "n1"), "star"),
        (events::issue("status_updated", "i1"), "middle"),
        (events::issue("created", "i1"), "star"),
    ];
    for (event, topic) in expected {
        bridge.deliver(&event).expect_published(&event);
        assert_eq!(place(nats, &stream, &event), topic);
    }
}

#[test]
fn a_route_may_be_for_one_source_or_for_all() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let sources = format!(
        "[sources.first]\nprovider = \"synq\"\nsecrets = [\"{SECRET}\"]\n\
         [sources.second]\nprovider = \"synq\"\npath = \"/elsewhere\"\nsecrets = [\"{SECRET}\"]\n"
    );
    let routes = [
        route_with(
            &format!("{stream}.{{source}}.only"),
            "source = \"second\"\ntypes = [\"ping\"]",
        ),
        route_with(&format!("{stream}.{{source}}.all"), ""),
    ];
    let bridge = in_front_of_nats(nats, &(sources + &routes.concat()));
    let expected = [
        ("/hooks/first", events::ping(), "first.all"),
        ("/elsewhere", events::ping(), "second.only"),
        ("/elsewhere", events::issue("created", "i1"), "second.all"),
    ];
    for (path, event, topic) in expected {
        bridge
            .send(&Request::event(&event).to(path))
            .expect_published(&event);
        assert_eq!(place(nats, &stream, &event), topic);
    }
    bridge
        .send(&Request::event(&events::ping()).to("/hooks/second"))
        .expect_problem(404, "unknown_path");
    let sources: Vec<_> = nats
        .read(&stream)
        .iter()
        .map(|message| message.header("ce-source").map(str::to_owned))
        .collect();
    assert_eq!(
        sources.iter().flatten().collect::<Vec<_>>(),
        [
            "/hookbridge/first",
            "/hookbridge/second",
            "/hookbridge/second"
        ]
    );
}

#[test]
fn a_topic_is_filled_in_from_type_source_and_the_body() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let routes = [
        route_with(
            &format!("{stream}.{{source}}.{{type}}.{{/workspace}}"),
            "types = [\"issue_created\"]",
        ),
        route_with(
            &format!("{stream}.by-issue-{{/issue_updated/issue/issue_id}}"),
            "types = [\"issue_updated\"]",
        ),
        route_with(&format!("{stream}.plain"), ""),
    ];
    let bridge = in_front_of_nats(nats, &(synq_source("") + &routes.concat()));
    let expected = [
        (
            events::issue_in("acme-prod", "created", "i1"),
            "synq.issue_created.acme-prod",
        ),
        (
            events::issue("updated", "0b51f1f2-6a0e"),
            "by-issue-0b51f1f2-6a0e",
        ),
        (events::issue("closed", "i1"), "plain"),
    ];
    for (event, topic) in expected {
        bridge.deliver(&event).expect_published(&event);
        assert_eq!(place(nats, &stream, &event), topic);
    }
}

#[test]
fn an_event_that_nobody_wants_is_answered_200_ignored_and_leaves_nothing() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let ignore = "[[routes]]\ntypes = [\"issue_*\"]\naction = \"ignore\"\n";
    let rest = synq_source("") + ignore + &route_with(&format!("{stream}.rest"), "");
    let bridge = in_front_of_nats(nats, &rest);
    let event = events::issue("created", "i1");
    assert_eq!(bridge.deliver(&event).expect_success("ignored"), event.id);
    bridge
        .send(&Request::event(&event).without("x-coalesce-signature"))
        .expect_problem(401, "missing_signature");
    assert_eq!(nats.read(&stream), []);
    let wanted = events::ping();
    bridge.deliver(&wanted).expect_published(&wanted);
}

#[test]
fn an_event_without_a_route_is_422_no_route() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let rest = synq_source("") + &route_with(&format!("{stream}.issues"), "types = [\"issue_*\"]");
    let bridge = in_front_of_nats(nats, &rest);
    bridge
        .deliver(&events::ping())
        .expect_problem(422, "no_route");
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn on_unrouted_ignore_answers_200_ignored() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let rest = synq_source("on_unrouted = \"ignore\"")
        + &route_with(&format!("{stream}.issues"), "types = [\"issue_*\"]");
    let bridge = in_front_of_nats(nats, &rest);
    let event = events::ping();
    assert_eq!(bridge.deliver(&event).expect_success("ignored"), event.id);
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn on_unrouted_reject_is_the_default_said_aloud() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let rest = synq_source("on_unrouted = \"reject\"")
        + &route_with(&format!("{stream}.issues"), "types = [\"issue_*\"]");
    in_front_of_nats(nats, &rest)
        .deliver(&events::ping())
        .expect_problem(422, "no_route");
}

#[test]
fn a_closed_list_of_topics_is_all_that_a_payload_may_choose_from() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    // The stream's prefix would be a literal prefix: here the whole name comes from the body.
    let list = format!("topics = [\"{stream}.a\", \"{stream}.b\"]");
    let rest = synq_source("") + &route_with("{/workspace}", &list);
    // Dots in a value are more tokens: those have to be allowed by the list.
    let bridge = in_front_of_nats(nats, &rest);
    for name in [format!("{stream}.c"), "a".to_owned(), String::new()] {
        let event = events::issue_in(&name, "created", "i1");
        bridge.deliver(&event).expect_problem(422, "invalid_event");
    }
    assert_eq!(nats.read(&stream), []);
    for name in ["a", "b"] {
        let event = events::issue_in(&format!("{stream}.{name}"), "created", "i1");
        bridge.deliver(&event).expect_published(&event);
        assert_eq!(place(nats, &stream, &event), name);
    }
}

#[test]
fn a_value_that_would_make_an_illegal_subject_is_422_invalid_event() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("routing");
    let rest = synq_source("") + &route_with(&format!("{stream}.w.{{/workspace}}"), "");
    let bridge = in_front_of_nats(nats, &rest);
    let values = [
        "",
        "*",
        ">",
        "a.>",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a\tb",
        "a\r\nb",
        "a\u{0}b",
        "é",
        "👋",
        "a\u{202e}b",
        "a\u{2028}b",
        "../x",
        "a/b",
    ];
    for value in values {
        println!("value: {value:?}");
        let answer = bridge.deliver(&events::issue_in(value, "created", "i1"));
        answer.expect_problem(422, "invalid_event");
        assert_eq!(answer.pointers(), ["/workspace"], "{answer:?}");
    }
    bridge
        .deliver(&events::issue_in(&"x".repeat(300), "created", "i1"))
        .expect_problem(422, "invalid_event");
    let without = r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{}}"#;
    bridge
        .deliver(&events::raw(without))
        .expect_problem(422, "invalid_event");
    let number =
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{},"workspace":{"a":1}}"#;
    bridge
        .deliver(&events::raw(number))
        .expect_problem(422, "invalid_event");
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_value_that_would_make_an_illegal_topic_is_422_invalid_event() {
    let Some(kafka) = Kafka::shared() else { return };
    let prefix = unique("routing");
    kafka.create_topic(&format!("{prefix}.good_1-x"), 1, &[]);
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(&format!("{prefix}.{{/workspace}}"), "types = [\"issue_*\"]")
        + &route_with(&format!("{prefix}.good_1-x"), "");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let values = [
        "", "a b", "a/b", "é", "👋", "a\u{0}b", "a\r\nb", "*", "$x", "a:b",
    ];
    for value in values {
        println!("value: {value:?}");
        let answer = bridge.deliver(&events::issue_in(value, "created", "i1"));
        answer.expect_problem(422, "invalid_event");
        assert_eq!(answer.pointers(), ["/workspace"], "{answer:?}");
    }
    bridge
        .deliver(&events::issue_in(&"x".repeat(300), "created", "i1"))
        .expect_problem(422, "invalid_event");
    let event = events::issue_in("good_1-x", "created", "i1");
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(
        only(kafka.read(&format!("{prefix}.good_1-x"))).value,
        event.body
    );
}

#[test]
fn a_key_is_filled_in_from_its_template() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("routing");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(
            &topic,
            "types = [\"issue_created\"]\nkey = \"{/workspace}\"",
        )
        + &route_with(
            &topic,
            "types = [\"issue_updated\"]\nkey = \"{source}/{type}/{/issue_updated/issue/issue_id}\"",
        )
        + &route_with(&topic, "");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let ping = events::ping();
    let sent = [
        (
            events::issue_in("Grüße & co", "created", "i1"),
            "Grüße & co",
        ),
        (events::issue("updated", "i2"), "synq/issue_updated/i2"),
        (events::issue("closed", "i3"), "i3"),
        (events::incident("open", "n4"), "n4"),
        (ping.clone(), ping.id.as_str()),
    ];
    for (event, _) in &sent {
        bridge.deliver(event).expect_published(event);
    }
    let stored = kafka.read(&topic);
    for (event, key) in sent {
        let message = stored
            .iter()
            .find(|message| message.event_id() == event.id)
            .expect("stored");
        assert_eq!(message.key.as_deref(), Some(key));
        assert_eq!(message.header("ce_partitionkey"), Some(key), "{message:?}");
    }
    // A key has a limit: 1 KiB.
    let answer = bridge.deliver(&events::issue_in(&"x".repeat(100_000), "created", "i1"));
    answer.expect_problem(422, "invalid_event");
}

#[test]
fn one_process_serves_brokers_of_both_kinds() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (topic, stream) = (kafka.topic("routing"), nats.stream("routing"));
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&topic, "types = [\"issue_*\"]\nbroker = \"main\"")
        + &route_with(
            &format!("{stream}.{{type}}"),
            "types = [\"incident_*\", \"ping\"]\nbroker = \"edge\"",
        );
    let bridge = Bridge::run_with(
        "",
        &rest.replace("[sources.synq]", "[sources.synq]\npath = \"/hooks/synq\""),
    );
    let (issue, incident) = (
        events::issue("created", "i1"),
        events::incident("open", "n1"),
    );
    crate::support::wait::until(
        "both brokers are up",
        crate::support::wait::PATIENCE,
        || {
            let up = |broker| {
                bridge
                    .metrics()
                    .sum("hookbridge_broker_up", &[("broker", broker)])
                    == 1.0
            };
            up("main") && up("edge")
        },
    );
    bridge.deliver(&issue).expect_published(&issue);
    bridge.deliver(&incident).expect_published(&incident);
    assert_eq!(only(kafka.read(&topic)).value, issue.body);
    let message = only(nats.read(&stream));
    assert_eq!(
        (message.value, message.topic),
        (incident.body, format!("{stream}.incident_open"))
    );
}
