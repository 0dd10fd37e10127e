//! Events that no broker would ever take, values from a sender that end up in headers, and deliveries that someone
//! repeats with changed headers.

use crate::support::bridge::{
    Bridge, hookbridge, kafka_broker, nats_broker, route, route_with, synq_source, write,
};
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event, SECRET};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::{Answer, Connection, Request};
use crate::support::wait::{self, PATIENCE};

const ISSUE_ID: &str = "/issue_created/issue/issue_id";

/// Delivers events whose issue id, the default key, is as long as the bound allows and longer.
fn bounds_the_default_key(bridge: &Bridge, read: impl Fn() -> Vec<Stored>) {
    for bytes in [1025, 100_000, 300_000] {
        let event = events::issue("created", &"i".repeat(bytes));
        let answer = bridge.deliver(&event);
        answer.expect_problem(422, "invalid_event");
        assert_eq!(answer.pointers(), [ISSUE_ID]);
    }
    assert_eq!(read(), []);
    let event = events::issue("created", &"é".repeat(512));
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(read()).value, event.body);
}

#[test]
fn an_issue_id_too_long_for_a_key_is_an_invalid_event_on_nats() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("poison");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    bounds_the_default_key(&bridge, || nats.read(&stream));
}

#[test]
fn an_issue_id_too_long_for_a_key_is_an_invalid_event_on_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("poison");
    let bridge = Bridge::to_kafka(kafka, &topic);
    bounds_the_default_key(&bridge, || kafka.read(&topic));
}

#[test]
fn an_event_with_too_long_a_key_becomes_a_dead_letter_that_any_broker_takes() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("poison");
    let letters = format!("on_invalid = {{ dead_letter = {{ topic = \"{stream}.dead\" }} }}");
    let rest = nats_broker("main", &nats.url)
        + &synq_source(&letters)
        + &route(&format!("{stream}.good.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::issue("created", &"i".repeat(100_000));
    assert_eq!(
        bridge.deliver(&event).expect_success("dead_lettered"),
        event.id
    );
    let letter = only(nats.read(&stream));
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
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("poison");
    let topic = format!("{stream}.home");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        // What a broker's limit refuses is not dropped with what the sender got wrong.
        + &synq_source("on_invalid = \"ignore\"")
        + &route_with(&topic, "broker = \"main\"\nfallback = \"edge\"");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let small = events::ping();
    bridge.deliver(&small).expect_published(&small);
    bridge
        .deliver(&events::ping_of_size(200_000))
        .expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&stream), []);
    assert_eq!(only(kafka.read(&topic)).value, small.body);
}

#[test]
fn an_event_that_is_too_large_for_the_fallback_alone_is_no_dead_letter() {
    let Some(nats) = Nats::shared() else { return };
    let Some(kafka) = Kafka::private_not_started() else {
        return;
    };
    let stream = nats.stream_with("poison", |settings| settings.max_message_size = 20_000);
    let dead = nats.stream("poison-dead");
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"edge\", topic = \"{dead}.x\" }} }}");
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source(&letters)
        + &route_with(
            &format!("{stream}.home"),
            "broker = \"main\"\nfallback = \"edge\"",
        );
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    bridge.wait_ready();
    bridge
        .deliver(&events::ping_of_size(200_000))
        .expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&dead), []);
    let small = events::ping();
    bridge.deliver(&small).expect_published(&small);
    assert_eq!(only(nats.read(&stream)).value, small.body);
}

/// A source whose dead letters go to a topic, and a dead letter that was too large for where it should have gone.
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

#[test]
fn an_event_that_kafka_finds_too_large_is_dead_lettered_and_can_be_replayed_after_a_fix() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("poison", 1, &[("max.message.bytes", "20000")]);
    let (dead, larger) = (kafka.topic("poison-dead"), kafka.topic("poison-larger"));
    let letters = format!("on_invalid = {{ dead_letter = {{ topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address) + &synq_source(&letters) + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let large = events::ping_of_size(200_000);
    assert_eq!(
        bridge.deliver(&large).expect_success("dead_lettered"),
        large.id
    );
    expect_too_large(&only(kafka.read(&dead)), &large, &topic);
    assert_eq!(kafka.read(&topic), []);
    let labels = [("source", "synq"), ("outcome", "dead_lettered")];
    let counted = bridge.metrics().sum("hookbridge_requests_total", &labels);
    assert!((counted - 1.0).abs() < f64::EPSILON);

    let small = events::ping();
    bridge.deliver(&small).expect_published(&small);

    // The limit still holds: replay says so at once, leaves the event, and passes it over on request.
    let files = write("", &rest);
    let config = files.file.to_str().unwrap();
    let replay = |more: &[&str]| {
        let command = ["replay", "--config", config, "--from", &dead];
        hookbridge(command.iter().chain(more).copied())
    };
    let stopped = replay(&[]).expect_code(1);
    assert!(stopped.stderr.contains("--skip-refused"), "{stopped:?}");
    let moved = replay(&["--to", &larger]).expect_code(0);
    assert!(moved.stderr.contains("1 of 1 replayed"), "{moved:?}");
    assert_eq!(only(kafka.read(&larger)).value, large.body);
}

#[test]
fn an_event_that_nats_finds_too_large_is_dead_lettered() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("poison", |settings| settings.max_message_size = 20_000);
    let dead = nats.stream("poison-dead");
    let letters = format!("on_invalid = {{ dead_letter = {{ topic = \"{dead}.x\" }} }}");
    let rest = nats_broker("main", &nats.url)
        + &synq_source(&letters)
        + &route(&format!("{stream}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let large = events::ping_of_size(200_000);
    bridge.deliver(&large).expect_success("dead_lettered");
    expect_too_large(&only(nats.read(&dead)), &large, &format!("{stream}.ping"));
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_copy_that_the_broker_finds_too_large_is_dead_lettered_and_the_event_is_stored_once() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("poison");
    let small = kafka.topic_with("poison-copy", 1, &[("max.message.bytes", "20000")]);
    let dead = kafka.topic("poison-dead");
    let letters = format!("on_invalid = {{ dead_letter = {{ topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source(&letters)
        + &route_with(&topic, &format!("copy_to = [{{ topic = \"{small}\" }}]"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let large = events::ping_of_size(200_000);
    bridge.deliver(&large).expect_success("dead_lettered");
    assert_eq!(only(kafka.read(&topic)).value, large.body);
    expect_too_large(&only(kafka.read(&dead)), &large, &small);
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
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("poison");
    let topic = kafka.topic("poison");
    let copies =
        format!("broker = \"main\"\ncopy_to = [{{ broker = \"edge\", topic = \"{stream}.x\" }}]");
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("forward_headers = [\"x-city\"]")
        + &route_with(&topic, &copies);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    // Ready means that one of the brokers is.
    wait::until("both brokers are up", PATIENCE, || {
        bridge.metrics().sum("hookbridge_broker_up", &[]) == 2.0
    });
    let event = events::ping();
    send_raw(&bridge, &event, &[b"X-City: K\xf6ln %"]).expect_published(&event);
    assert_eq!(
        only(kafka.read(&topic)).header("x-city"),
        Some("K\\xf6ln %")
    );
    assert_eq!(
        only(nats.read(&stream)).header("x-city"),
        Some("K%F6ln%20%25")
    );
}

#[test]
fn forwarded_headers_that_are_too_long_together_make_an_invalid_event() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("poison");
    let bridge = Bridge::to_nats(nats, &stream, "", "forward_headers = [\"x-note\"]");
    let event = events::ping();
    let with = |bytes: usize| {
        let note = "n".repeat(bytes);
        bridge.send(&Request::event(&event).header("x-note", &note))
    };
    with(4096).expect_problem(422, "invalid_event");
    assert_eq!(nats.read(&stream), []);
    with(4000).expect_published(&event);
}

#[test]
fn a_content_type_keeps_no_parameter_but_utf_8() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("poison");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
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
        let stored = nats.read(&stream);
        let message = stored.iter().find(|message| message.event_id() == event.id);
        let found = message.and_then(|message| message.header("content-type"));
        assert_eq!(found, Some(published), "{sent}");
    }
}

#[test]
fn a_captured_request_that_is_sent_twenty_times_is_one_message() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("poison");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("forward_headers = [\"x-note\"]")
        + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    for number in 0..20 {
        let request = Request::post("/hooks/synq", event.body.clone())
            .without("content-type")
            .header("Content-Type", &format!("application/json; x={number}"))
            .header("X-Note", &number.to_string())
            .signed(SECRET);
        assert_eq!(bridge.send(&request).expect_success("duplicate"), event.id);
    }
    only(kafka.read(&topic));
}

#[test]
fn a_window_of_no_time_publishes_every_delivery() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("poison");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("dedup_window = \"0s\"")
        + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(kafka.read(&topic).len(), 2);
}
