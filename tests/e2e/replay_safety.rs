//! What replay refuses to do with messages that anyone may have written, what it leaves behind, and what it says.

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::support::bridge::{
    Bridge, Files, Finished, hookbridge, kafka_broker, nats_broker, route, route_with, synq_source,
    write,
};
use crate::support::consumer::only;
use crate::support::events;
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::sender::Request;
use crate::support::wait::PATIENCE;

fn replay(files: &Files, arguments: &[&str]) -> Finished {
    let config = files.file.to_str().unwrap();
    let command = ["replay", "--config", config];
    hookbridge(command.iter().chain(arguments).copied())
}

/// Writes a message as anyone with access to the topic could.
fn put(kafka: &Kafka, topic: &str, key: &[u8], headers: &[(&str, &[u8])]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.address)
        .create()
        .unwrap();
    let mut all = OwnedHeaders::new();
    for (key, value) in headers {
        all = all.insert(Header {
            key,
            value: Some(*value),
        });
    }
    let record = BaseRecord::to(topic).key(key).payload("{}").headers(all);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// The headers of a dead letter that is meant to go to a topic.
fn letter<'h>(id: &'h str, intended: &'h str, reason: &'h str) -> Vec<(&'h str, &'h [u8])> {
    [
        ("event_id", id),
        ("ce_id", id),
        ("hookbridge_reason", reason),
        ("hookbridge_source", "synq"),
        ("hookbridge_intended_broker", "main"),
        ("hookbridge_intended_topic", intended),
    ]
    .map(|(name, value)| (name, value.as_bytes()))
    .to_vec()
}

#[test]
fn a_forged_dead_letter_is_not_published_where_no_route_publishes() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
    let commands = kafka.topic("payments-commands");
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic);
    let files = write("", &rest);
    put(
        kafka,
        &dead,
        b"k",
        &letter("forged", &commands, "invalid_event"),
    );
    put(
        kafka,
        &dead,
        b"k",
        &letter("genuine", &topic, "invalid_event"),
    );

    let stopped = replay(&files, &["--from", &dead]).expect_code(1);
    for told in [
        commands.as_str(),
        "--to",
        "--any-destination",
        "--skip-unplaced",
    ] {
        assert!(stopped.stderr.contains(told), "{told}: {stopped:?}");
    }
    assert_eq!(kafka.read(&commands), []);

    let looked = replay(&files, &["--from", &dead, "--dry-run"]).expect_code(1);
    let lines: Vec<_> = looked.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{looked:?}");
    assert!(lines[0].contains("forged") && lines[0].contains(&commands));
    assert!(
        lines[1].contains("genuine")
            && lines[1].contains("invalid_event")
            && lines[1].ends_with(&format!("-> main:{topic}")),
        "{looked:?}"
    );

    let skipped = replay(&files, &["--from", &dead, "--skip-unplaced"]).expect_code(0);
    assert!(
        skipped.stderr.contains("1 of 2 replayed, 1 passed over"),
        "{skipped:?}"
    );
    assert_eq!(only(kafka.read(&topic)).event_id(), "genuine");
    assert_eq!(kafka.read(&commands), []);
}

#[test]
fn any_destination_is_taken_only_when_the_operator_says_so_and_the_message_tells() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
    let retired = kafka.topic("safety-retired");
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic);
    let files = write("", &rest);
    put(
        kafka,
        &dead,
        b"k",
        &letter("e-1", &retired, "invalid_event"),
    );
    let done = replay(&files, &["--from", &dead, "--any-destination"]).expect_code(0);
    assert!(done.stderr.contains("1 of 1 replayed"), "{done:?}");
    let message = only(kafka.read(&retired));
    assert_eq!(
        message.header("hookbridge_replayed_from"),
        Some(format!("main/{dead}/0/0").as_str())
    );
    let others = message.header_names();
    assert_eq!(others, ["ce_id", "event_id", "hookbridge_replayed_from"]);
}

#[test]
fn every_destination_that_a_route_can_produce_is_one_for_replay() {
    let Some(kafka) = Kafka::shared() else { return };
    let dead = kafka.topic("safety-dead");
    let name = unique("safety");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(
            &format!("{name}.{{type}}.{{/workspace}}"),
            &format!("types = [\"issue_*\"]\ncopy_to = [{{ topic = \"{name}.all\" }}]"),
        )
        + &route_with("{/workspace}", &format!("topics = [\"{name}.listed\"]"));
    let files = write("", &rest);
    let good = ["issue_created.acme", "issue_x.a-b", "all", "listed"];
    let bad = [
        "ping.acme",
        "issue_created",
        "issue_created.a/b",
        "other",
        "",
    ];
    for end in good.iter().chain(&bad) {
        let topic = format!("{name}.{end}");
        put(kafka, &dead, b"k", &letter(end, &topic, "invalid_event"));
    }
    let looked = replay(&files, &["--from", &dead, "--dry-run"]).expect_code(1);
    let lines: Vec<_> = looked.stdout.lines().collect();
    assert_eq!(lines.len(), good.len() + bad.len(), "{looked:?}");
    for (line, end) in lines.iter().zip(good) {
        assert!(line.ends_with(&format!("-> main:{name}.{end}")), "{line}");
    }
    for line in &lines[good.len()..] {
        assert!(!line.contains("-> main:"), "{line}");
    }
    assert!(
        looked.stderr.contains("4 of 9 would be replayed"),
        "{looked:?}"
    );
}

#[test]
fn a_header_may_not_choose_the_broker_that_a_topic_of_the_operators_is_on() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (dead, stream) = (kafka.topic("safety-dead"), nats.stream("safety"));
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&kafka.topic("safety"), "broker = \"main\"");
    let files = write("", &rest);
    let mut headers = letter("e-1", "x", "invalid_event");
    headers.retain(|(name, _)| *name != "hookbridge_intended_broker");
    headers.push(("hookbridge_intended_broker", b"edge"));
    put(kafka, &dead, b"k", &headers);
    let to = format!("{stream}.x");
    let from = ["--from", dead.as_str(), "--broker", "main", "--to", &to];
    let stopped = replay(&files, &from).expect_code(1);
    assert!(stopped.stderr.contains("--to-broker"), "{stopped:?}");
    assert_eq!(nats.read(&stream), []);
    let named = [&from[..], &["--to-broker", "edge"]].concat();
    replay(&files, &named).expect_code(0);
    assert_eq!(
        only(nats.read(&stream)).header("hookbridge_replayed_from"),
        Some(format!("main/{dead}/0/0").as_str())
    );
}

#[test]
fn what_the_destination_finds_too_large_stops_a_replay_at_once_unless_it_may_be_passed_over() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("safety", 1, &[("max.message.bytes", "20000")]);
    let dead = kafka.topic("safety-dead");
    let rest = |letters: &str, topic: &str| {
        kafka_broker("main", &kafka.address) + &synq_source(letters) + &route(topic)
    };
    let letters = format!("on_invalid = {{ dead_letter = {{ topic = \"{dead}\" }} }}");
    let bridge = Bridge::run(&rest(&letters, &topic));
    bridge.wait_ready();
    let large = events::ping_of_size(200_000);
    bridge.deliver(&large).expect_success("dead_lettered");
    let id = events::new_id();
    let small = format!(
        "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":1}}}}}}"
    );
    bridge
        .send(&Request::signed_body(small))
        .expect_success("dead_lettered");
    let files = write("", &rest(&letters, &topic));
    let stopped = replay(&files, &["--from", &dead]).expect_code(1);
    for told in [large.id.as_str(), "larger than", "--skip-refused"] {
        assert!(stopped.stderr.contains(told), "{told}: {stopped:?}");
    }
    let skipped = replay(&files, &["--from", &dead, "--skip-refused"]).expect_code(0);
    assert!(
        skipped.stderr.contains("1 of 2 replayed, 1 passed over"),
        "{skipped:?}"
    );
    assert_eq!(only(kafka.read(&topic)).event_id(), id);
    assert_eq!(kafka.read(&dead).len(), 2, "nothing is taken out of it");
}

#[test]
fn headers_are_replayed_with_the_bytes_that_they_have() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("safety");
    let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&topic, "broker = \"main\"");
    let files = write("", &rest);
    let mut headers = letter("e-1", &topic, "invalid_event");
    headers.push(("x-city", b"K\xf6ln %41"));
    put(kafka, &dead, "schlüssel".as_bytes(), &headers);
    let subject = format!("{stream}.x");
    let there = ["--broker", "main", "--to", &subject, "--to-broker", "edge"];
    replay(&files, &[&["--from", dead.as_str()], &there[..]].concat()).expect_code(0);
    let on_nats = only(nats.read(&stream));
    assert_eq!(on_nats.header("x-city"), Some("K%F6ln%20%2541"));
    let back = ["--broker", "edge", "--to", &topic, "--to-broker", "main"];
    replay(&files, &[&["--from", subject.as_str()], &back[..]].concat()).expect_code(0);
    let home = only(kafka.read(&topic));
    assert_eq!(home.header("x-city"), Some("K\\xf6ln %41"));
    let replayed: Vec<_> = home
        .headers
        .iter()
        .filter(|(name, _)| name == "hookbridge_replayed_from")
        .map(|(_, value)| value.clone())
        .collect();
    assert_eq!(
        replayed,
        [format!("main/{dead}/0/0"), format!("edge/{subject}/1")],
        "every replay is there, in order"
    );
}

#[test]
fn a_message_whose_key_is_no_text_is_not_replayed_under_another_key() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic);
    let files = write("", &rest);
    put(
        kafka,
        &dead,
        b"\xff",
        &letter("e-1", &topic, "invalid_event"),
    );
    let stopped = replay(&files, &["--from", &dead]).expect_code(1);
    assert!(stopped.stderr.contains("key"), "{stopped:?}");
    assert_eq!(kafka.read(&topic), []);
}

#[test]
fn a_topic_that_does_not_exist_is_no_empty_topic() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("safety");
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic);
    let files = write("", &rest);
    let missing = unique("safety-missing");
    let failed = replay(&files, &["--from", &missing]).expect_code(1);
    assert!(
        failed.stderr.contains(&missing) && failed.stderr.contains("does not exist"),
        "{failed:?}"
    );
}

#[test]
fn a_selection_is_replayed_without_losing_sight_of_what_it_leaves_out() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic);
    let files = write("", &rest);
    let received = [
        ("e-1", "invalid_event", "2026-11-20T06:00:00Z"),
        ("e-2", "no_route", "2026-11-20T07:00:00.5Z"),
        ("e-3", "invalid_event", "2026-11-20T08:00:00Z"),
        ("e-4", "invalid_event", "2026-11-20T09:00:00Z"),
    ];
    for (id, reason, time) in received {
        let mut headers = letter(id, &topic, reason);
        headers.push(("ce_recordedtime", time.as_bytes()));
        put(kafka, &dead, b"k", &headers);
    }
    let ids = || -> Vec<String> {
        let replayed = kafka.read(&topic);
        replayed
            .iter()
            .map(|message| message.event_id().to_owned())
            .collect()
    };
    let invalid = ["--from", &dead, "--reason", "invalid_event"];
    let one = replay(&files, &[&invalid[..], &["--limit", "1"]].concat()).expect_code(0);
    assert!(one.stderr.contains("1 of 4 replayed"), "{one:?}");
    assert_eq!(ids(), ["e-1"]);
    let others = replay(&files, &invalid).expect_code(0);
    assert!(
        others.stderr.contains("2 of 3 replayed, 1 not selected"),
        "{others:?}"
    );
    assert_eq!(ids(), ["e-1", "e-3", "e-4"]);

    let (since, until) = ("2026-11-20T07:00:00.5Z", "2026-11-20T10:00:00+01:00");
    let between = ["--from", &dead, "--since", since, "--until", until];
    let looked = replay(&files, &[&between[..], &["--dry-run"]].concat()).expect_code(0);
    assert_eq!(looked.stdout.lines().count(), 2, "{looked:?}");
    replay(&files, &between).expect_code(0);
    assert_eq!(ids(), ["e-1", "e-3", "e-4", "e-2", "e-3"]);

    let all = replay(&files, &["--from", &dead]).expect_code(0);
    assert!(all.stderr.contains("4 of 4 replayed"), "{all:?}");
    replay(&files, &["--from", &dead, "--since", "yesterday"]).expect_code(2);
}
