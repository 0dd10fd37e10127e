//! The route of an event, and its topic and key. On NATS where the broker makes no difference: a stream accepts every
//! subject under its prefix.

use crate::support::bridge::{Bridge, synq_source};
use crate::support::consumer::only;
use crate::support::events::{self, Event, SECRET};
use crate::support::fixture::{Fixture, Setup, kafka, nats};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::sender::Request;

/// The event's subject in the stream, without the stream's prefix.
fn place(bridge: &Fixture<Nats>, event: &Event) -> String {
    let mut stored = bridge.read();
    stored.retain(|message| message.event_id() == event.id);
    let message = only(stored);
    assert_eq!(message.value, event.body);
    let rest = message.topic.strip_prefix(&bridge.topic);
    let rest = rest.and_then(|rest| rest.strip_prefix('.'));
    rest.expect("the prefix").to_owned()
}

/// Expects each of these events at this subject.
#[track_caller]
fn arrive(bridge: &Fixture<Nats>, expected: &[(Event, &str)]) {
    for (event, topic) in expected {
        bridge.deliver(event).expect_published(event);
        assert_eq!(place(bridge, event), *topic);
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes = [
        (
            "TOPIC.closed",
            "types = [\"issue_closed\", \"incident_closed\"]",
        ),
        ("TOPIC.issues", "types = [\"issue_*\"]"),
        ("TOPIC.never", "types = [\"issue_created\"]"),
        ("TOPIC.rest", ""),
        ("TOPIC.unreachable", "types = [\"ping\"]"),
    ];
    let bridge = or_skip!(nats().routes(&routes).run());
    let expected = [
        (events::issue("created", "i1"), "issues"),
        (events::issue("status_updated", "i1"), "issues"),
        (events::issue("closed", "i1"), "closed"),
        (events::incident("open", "n1"), "rest"),
        (events::incident("closed", "n1"), "closed"),
        (events::ping(), "rest"),
        (events::of_type("EVENT_TYPE_MONITOR_TRIGGERED"), "rest"),
    ];
    arrive(&bridge, &expected);
}

#[test]
fn types_are_globs_over_the_whole_type() {
    let routes = [
        ("TOPIC.question", "types = [\"pin?\"]"),
        ("TOPIC.alternatives", "types = [\"incident_{open,closed}\"]"),
        ("TOPIC.middle", "types = [\"*_status_*\"]"),
        (
            "TOPIC.partial",
            "types = [\"issue\", \"incident\", \"created\"]",
        ),
        ("TOPIC.star", "types = [\"*\"]"),
    ];
    let bridge = or_skip!(nats().routes(&routes).run());
    let expected = [
        (events::ping(), "question"),
        (events::incident("open", "n1"), "alternatives"),
        (events::incident("closed", "n1"), "alternatives"),
        (events::incident("cancelled", "n1"), "star"),
        (events::issue("status_updated", "i1"), "middle"),
        (events::issue("created", "i1"), "star"),
    ];
    arrive(&bridge, &expected);
}

#[test]
fn a_route_may_be_for_one_source_or_for_all() {
    let sources = format!(
        "[sources.first]\nprovider = \"synq\"\nsecrets = [\"{SECRET}\"]\n\
         [sources.second]\nprovider = \"synq\"\npath = \"/elsewhere\"\nsecrets = [\"{SECRET}\"]\n"
    );
    let routes = [
        (
            "TOPIC.{source}.only",
            "source = \"second\"\ntypes = [\"ping\"]",
        ),
        ("TOPIC.{source}.all", ""),
    ];
    let bridge = or_skip!(nats().sources(&sources).routes(&routes).run());
    let expected = [
        ("/hooks/first", events::ping(), "first.all"),
        ("/elsewhere", events::ping(), "second.only"),
        ("/elsewhere", events::issue("created", "i1"), "second.all"),
    ];
    for (path, event, topic) in expected {
        let answer = bridge.send(&Request::event(&event).to(path));
        answer.expect_published(&event);
        assert_eq!(place(&bridge, &event), topic);
    }
    let answer = bridge.send(&Request::event(&events::ping()).to("/hooks/second"));
    answer.expect_problem(404, "unknown_path");
    let stored = bridge.read();
    let sources = stored.iter().map(|message| message.header("ce-source"));
    let expected = ["first", "second", "second"].map(|name| format!("/hookbridge/{name}"));
    assert!(sources.eq(expected.iter().map(|source| Some(source.as_str()))));
}

#[test]
fn a_topic_is_filled_in_from_type_source_and_the_body() {
    let routes = [
        (
            "TOPIC.{source}.{type}.{/workspace}",
            "types = [\"issue_created\"]",
        ),
        (
            "TOPIC.by-issue-{/issue_updated/issue/issue_id}",
            "types = [\"issue_updated\"]",
        ),
        ("TOPIC.plain", ""),
    ];
    let bridge = or_skip!(nats().routes(&routes).run());
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
    arrive(&bridge, &expected);
}

#[test]
fn an_event_that_is_to_be_ignored_is_answered_200_ignored_and_leaves_nothing() {
    let ignore = "[[routes]]\ntypes = [\"issue_*\"]\naction = \"ignore\"\n";
    let sources = synq_source("") + ignore;
    let bridge = or_skip!(nats().sources(&sources).run());
    let event = events::issue("created", "i1");
    assert_eq!(bridge.deliver(&event).expect_success("ignored"), event.id);
    let answer = bridge.send(&Request::event(&event).without("x-coalesce-signature"));
    answer.expect_problem(401, "missing_signature");
    assert_eq!(bridge.read(), []);
    bridge.publish_ping();
}

#[test]
fn an_event_without_a_route_is_422_no_route_unless_the_source_ignores_it() {
    for (keys, is_ignored) in [
        ("", false),
        ("on_unrouted = \"reject\"", false),
        ("on_unrouted = \"ignore\"", true),
    ] {
        let setup = nats().source(keys).route("types = [\"issue_*\"]");
        let bridge = or_skip!(setup.run());
        let event = events::ping();
        let answer = bridge.deliver(&event);
        if is_ignored {
            assert_eq!(answer.expect_success("ignored"), event.id);
        } else {
            answer.expect_problem(422, "no_route");
        }
        assert_eq!(bridge.read(), []);
    }
}

#[test]
fn a_closed_list_of_topics_is_all_that_a_payload_may_choose_from() {
    // The stream's prefix would be a literal prefix: here the whole name comes from the body.
    let list = "topics = [\"TOPIC.a\", \"TOPIC.b\"]";
    // Dots in a value are more tokens: those have to be allowed by the list.
    let bridge = or_skip!(nats().routes(&[("{/workspace}", list)]).run());
    let stream = &bridge.topic;
    for name in [format!("{stream}.c"), "a".to_owned(), String::new()] {
        let event = events::issue_in(&name, "created", "i1");
        bridge.deliver(&event).expect_problem(422, "invalid_event");
    }
    assert_eq!(bridge.read(), []);
    let of = |name: &str| events::issue_in(&format!("{stream}.{name}"), "created", "i1");
    arrive(&bridge, &[(of("a"), "a"), (of("b"), "b")]);
}

/// Each of these values of `workspace` results in a name that the broker does not allow.
fn makes_illegal_names(bridge: &Bridge, values: &[&str]) {
    for value in values {
        println!("value: {value:?}");
        let answer = bridge.deliver(&events::issue_in(value, "created", "i1"));
        answer.expect_problem(422, "invalid_event");
        assert_eq!(answer.pointers(), ["/workspace"], "{answer:?}");
    }
    let long = events::issue_in(&"x".repeat(300), "created", "i1");
    bridge.deliver(&long).expect_problem(422, "invalid_event");
}

#[test]
fn a_value_that_would_make_an_illegal_subject_is_422_invalid_event() {
    let bridge = or_skip!(nats().routes(&[("TOPIC.w.{/workspace}", "")]).run());
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
    makes_illegal_names(&bridge, &values);
    for rest in ["", r#","workspace":{"a":1}"#] {
        let body =
            format!(r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{}}{rest}}}"#);
        let answer = bridge.deliver(&events::raw(&body));
        answer.expect_problem(422, "invalid_event");
    }
    assert_eq!(bridge.read(), []);
}

#[test]
fn a_value_that_would_make_an_illegal_topic_is_422_invalid_event() {
    let kafka = or_skip!(Kafka::shared());
    let prefix = unique("routing");
    let topic = format!("{prefix}.good_1-x");
    kafka.create_topic(&topic, 1, &[]);
    let routes = [
        (
            &*format!("{prefix}.{{/workspace}}"),
            "types = [\"issue_*\"]",
        ),
        ("TOPIC", ""),
    ];
    let bridge = Setup::<Kafka>::new().routes(&routes).run_on(kafka, topic);
    let values = [
        "", "a b", "a/b", "é", "👋", "a\u{0}b", "a\r\nb", "*", "$x", "a:b",
    ];
    makes_illegal_names(&bridge, &values);
    let event = events::issue_in("good_1-x", "created", "i1");
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn a_key_is_filled_in_from_its_template() {
    let by_id = "{source}/{type}/{/issue_updated/issue/issue_id}";
    let routes = [
        (
            "TOPIC",
            "types = [\"issue_created\"]\nkey = \"{/workspace}\"",
        ),
        (
            "TOPIC",
            &*format!("types = [\"issue_updated\"]\nkey = \"{by_id}\""),
        ),
        ("TOPIC", ""),
    ];
    let bridge = or_skip!(kafka().routes(&routes).run());
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
    let stored = bridge.read();
    for (event, key) in sent {
        let mut stored = stored.iter();
        let message = stored.find(|message| message.event_id() == event.id);
        let message = message.expect("stored");
        assert_eq!(message.key.as_deref(), Some(key));
        assert_eq!(message.header("ce_partitionkey"), Some(key), "{message:?}");
    }
    // A key has a limit: 1 KiB.
    let answer = bridge.deliver(&events::issue_in(&"x".repeat(100_000), "created", "i1"));
    answer.expect_problem(422, "invalid_event");
}

#[test]
fn one_process_serves_brokers_of_both_kinds() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("routing");
    let routes = [
        ("TOPIC", "types = [\"issue_*\"]\nbroker = \"main\""),
        (
            &*format!("{stream}.{{type}}"),
            "types = [\"incident_*\", \"ping\"]\nbroker = \"edge\"",
        ),
    ];
    let bridge = or_skip!(kafka().edge(nats).routes(&routes).run());
    bridge.wait_brokers_up(2);
    let issue = events::issue("created", "i1");
    let incident = events::incident("open", "n1");
    bridge.deliver(&issue).expect_published(&issue);
    bridge.deliver(&incident).expect_published(&incident);
    assert_eq!(only(bridge.read()).value, issue.body);
    let message = only(nats.read(&stream));
    assert_eq!(message.value, incident.body);
    assert_eq!(message.topic, format!("{stream}.incident_open"));
}
