//! Events that no broker would ever accept, sender's values in headers, and replayed deliveries with changed headers.

use crate::support::bridge::Bridge;
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event, SECRET};
use crate::support::fixture::{Broker, Setup, kafka, nats};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::{Answer, Connection, Request};

const ISSUE_ID: &str = "/issue_created/issue/issue_id";

on_each_broker!(
    an_issue_id_too_long_for_a_key_is_an_invalid_event,
    an_event_that_the_broker_finds_too_large_is_dead_lettered_and_can_be_replayed_after_a_fix,
);

fn an_issue_id_too_long_for_a_key_is_an_invalid_event<B: Broker>() {
    let bridge = or_skip!(Setup::<B>::new().run());
    for bytes in [1025, 100_000, 300_000] {
        let event = events::issue("created", &"i".repeat(bytes));
        let answer = bridge.deliver(&event);
        answer.expect_problem(422, "invalid_event");
        assert_eq!(answer.pointers(), [ISSUE_ID]);
    }
    assert_eq!(bridge.read(), []);
    let event = events::issue("created", &"é".repeat(512));
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn an_event_with_too_long_a_key_becomes_a_dead_letter_that_any_broker_takes() {
    let letters = "on_invalid = { dead_letter = { topic = \"TOPIC.dead\" } }";
    let bridge = or_skip!(
        nats()
            .source(letters)
            .routes(&[("TOPIC.good.{type}", "")])
            .run()
    );
    let event = events::issue("created", &"i".repeat(100_000));
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let letter = only(bridge.read());
    assert_eq!(letter.value, event.body);
    for (name, value) in [
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_pointer", ISSUE_ID),
        ("ce-partitionkey", event.id.as_str()),
        ("ce-type", "issue_created"),
    ] {
        assert_eq!(letter.header(name), Some(value), "{letter:?}");
    }
    assert_eq!(letter.header("ce-subject"), None);
}

#[test]
fn an_event_that_the_broker_finds_too_large_takes_no_fallback() {
    let (kafka, nats) = (or_skip!(Kafka::shared()), or_skip!(Nats::shared()));
    let stream = nats.stream("poison");
    let topic = format!("{stream}.home");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    // An event above a broker's limit is not dropped as the sender's fault.
    let bridge = Setup::<Kafka>::new()
        .edge(nats)
        .source("on_invalid = \"ignore\"")
        .route("broker = \"main\"\nfallback = \"edge\"")
        .run_on(kafka, topic);
    let small = bridge.publish_ping();
    let answer = bridge.deliver(&events::ping_of_size(200_000));
    answer.expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&stream), []);
    assert_eq!(only(bridge.read()).value, small.body);
}

#[test]
fn an_event_that_is_too_large_for_the_fallback_alone_is_not_dead_lettered() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.new_topic_up_to("poison", 20_000);
    let dead = nats.stream("poison-dead");
    let tables = Setup::<Kafka>::new()
        .edge(nats)
        .source(&format!(
            "on_invalid = {{ dead_letter = {{ broker = \"edge\", topic = \"{dead}.x\" }} }}"
        ))
        .route("broker = \"main\"\nfallback = \"edge\"")
        .tables(
            &format!("127.0.0.1:{}", process::port()),
            &format!("{stream}.home"),
        );
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &tables);
    bridge.wait_ready();
    let answer = bridge.deliver(&events::ping_of_size(200_000));
    answer.expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&dead), []);
    let small = bridge.publish_ping();
    assert_eq!(only(nats.read(&stream)).value, small.body);
}

/// A dead letter of an event that was too large for its destination.
fn expect_too_large(letter: &Stored, event: &Event, intended: &str) {
    assert_eq!(letter.value, event.body, "the original bytes");
    for (name, value) in [
        ("event_id", event.id.as_str()),
        ("hookbridge_reason", "invalid_event"),
        ("hookbridge_source", "synq"),
        ("hookbridge_intended_broker", "main"),
        ("hookbridge_intended_topic", intended),
    ] {
        assert_eq!(letter.header(name), Some(value), "{letter:?}");
    }
    let detail = letter.header("hookbridge_detail").unwrap_or_default();
    assert!(detail.contains("larger"), "{letter:?}");
}

fn an_event_that_the_broker_finds_too_large_is_dead_lettered_and_can_be_replayed_after_a_fix<
    B: Broker,
>() {
    let broker = or_skip!(B::shared());
    let topic = broker.new_topic_up_to("poison", 20_000);
    let setup = Setup::<B>::new().dead_letters("on_invalid");
    let bridge = setup.and_topic("-larger").run_on(broker, topic);
    let large = events::ping_of_size(200_000);
    let answer = bridge.deliver(&large);
    assert_eq!(answer.expect_success("dead_lettered"), large.id);
    let intended = B::ROUTE.replace("TOPIC", &bridge.topic);
    let letter = only(bridge.read_dead_letters());
    expect_too_large(&letter, &large, &intended.replace("{type}", "ping"));
    assert_eq!(bridge.read(), []);
    let labels = [("source", "synq"), ("outcome", "dead_lettered")];
    let counted = bridge.metric("hookbridge_requests_total", &labels);
    assert!((counted - 1.0).abs() < f64::EPSILON);
    bridge.publish_ping();

    // The limit still applies: replay reports it immediately, leaves the event, and skips it on request.
    let [dead, larger] = ["-dead", "-larger"].map(|end| bridge.topic.clone() + end + B::LEAF);
    let from = ["--from", dead.as_str()];
    bridge
        .replay(&from)
        .expect_code(1)
        .expect_stderr(&["--skip-refused"]);
    bridge
        .replay(&[&from[..], &["--to", &larger]].concat())
        .expect_code(0)
        .expect_stderr(&["1 of 1 replayed"]);
    let larger = broker.read(&(bridge.topic.clone() + "-larger"));
    assert_eq!(only(larger).value, large.body);
}

#[test]
fn a_copy_that_the_broker_finds_too_large_is_dead_lettered_and_the_event_is_stored_once() {
    let kafka = or_skip!(Kafka::shared());
    let small = kafka.new_topic_up_to("poison-copy", 20_000);
    let copy = format!("copy_to = [{{ topic = \"{small}\" }}]");
    let setup = Setup::<Kafka>::new().dead_letters("on_invalid");
    let bridge = or_skip!(setup.route(&copy).run());
    let large = events::ping_of_size(200_000);
    bridge.deliver(&large).expect_success("dead_lettered");
    assert_eq!(only(bridge.read()).value, large.body);
    expect_too_large(&only(bridge.read_dead_letters()), &large, &small);
    assert_eq!(kafka.read(&small), []);
}

/// Sends a signed event with these further header lines, whose bytes need not be text.
fn send_raw(bridge: &Bridge, event: &Event, lines: &[&[u8]]) -> Answer {
    let request = Request::event(event).bytes();
    let end = request.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (first, rest) = request.split_at(end);
    let lines = lines.iter().flat_map(|line| [*line, b"\r\n"].concat());
    let bytes: Vec<u8> = first
        .iter()
        .copied()
        .chain(lines)
        .chain(rest.iter().copied())
        .collect();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    connection.read_answer().unwrap()
}

#[test]
fn a_forwarded_header_arrives_with_the_bytes_that_it_was_sent_with() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("poison");
    let copies =
        format!("broker = \"main\"\ncopy_to = [{{ broker = \"edge\", topic = \"{stream}.x\" }}]");
    let setup = kafka().edge(nats).route(&copies);
    let bridge = or_skip!(setup.source("forward_headers = [\"x-city\"]").run());
    bridge.wait_brokers_up(2);
    let event = events::ping();
    send_raw(&bridge, &event, &[b"X-City: K\xf6ln %"]).expect_published(&event);
    for (message, expected) in [
        (only(bridge.read()), "K\\xf6ln %"),
        (only(nats.read(&stream)), "K%F6ln%20%25"),
    ] {
        assert_eq!(message.header("x-city"), Some(expected));
    }
}

#[test]
fn forwarded_headers_that_are_too_long_together_make_an_invalid_event() {
    let bridge = or_skip!(nats().source("forward_headers = [\"x-note\"]").run());
    let event = events::ping();
    let with = |bytes: usize| {
        let note = "n".repeat(bytes);
        bridge.send(&Request::event(&event).header("x-note", &note))
    };
    with(4096).expect_problem(422, "invalid_event");
    assert_eq!(bridge.read(), []);
    with(4000).expect_published(&event);
}

#[test]
fn a_content_type_keeps_no_parameter_but_utf_8() {
    let bridge = or_skip!(nats().run());
    for (sent, published) in [
        ("application/json", "application/json"),
        (
            "application/json; charset=utf-8",
            "application/json;%20charset=utf-8",
        ),
        (
            "application/json ; x=1;CHARSET=\"UTF-8\"",
            "application/json;%20charset=utf-8",
        ),
        (
            "Application/JSON; x=\"a;charset=utf-8\"",
            "Application/JSON",
        ),
        (
            "application/json; charset=iso-8859-1; q=1",
            "application/json",
        ),
    ] {
        let event = events::ping();
        let request = Request::event(&event)
            .without("content-type")
            .header("Content-Type", sent);
        bridge.send(&request).expect_published(&event);
        let stored = bridge.read();
        let message = stored.iter().find(|message| message.event_id() == event.id);
        let found = message.and_then(|message| message.header("content-type"));
        assert_eq!(found, Some(published), "{sent}");
    }
}

#[test]
fn a_captured_request_that_is_sent_twenty_times_is_one_message() {
    let bridge = or_skip!(kafka().source("forward_headers = [\"x-note\"]").run());
    let event = bridge.publish_ping();
    for number in 0..20 {
        let request = Request::post("/hooks/synq", event.body.clone())
            .without("content-type")
            .header("Content-Type", &format!("application/json; x={number}"))
            .header("X-Note", &number.to_string())
            .signed(SECRET);
        assert_eq!(bridge.send(&request).expect_success("duplicate"), event.id);
    }
    only(bridge.read());
}
