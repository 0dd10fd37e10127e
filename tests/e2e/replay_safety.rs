//! Replay reads messages that may be forged: refusals, traces and report.

use crate::support::bridge::{Files, Finished, write};
use crate::support::consumer::only;
use crate::support::events;
use crate::support::fixture::{Broker as _, Setup};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::sender::Request;

/// A topic that a route publishes to and one with dead letters, for a configuration that is not running.
struct Safety {
    kafka: &'static Kafka,
    topic: String,
    dead: String,
    files: Files,
}

impl Safety {
    fn new() -> Option<Self> {
        Self::with(&Setup::new())
    }

    fn with(setup: &Setup<Kafka>) -> Option<Self> {
        let kafka = Kafka::shared()?;
        let (topic, dead) = (kafka.topic("safety"), kafka.topic("safety-dead"));
        let files = write("", &setup.tables(&kafka.address, &topic));
        Some(Self {
            kafka,
            topic,
            dead,
            files,
        })
    }

    fn put(&self, key: &[u8], headers: &[(&str, &[u8])]) {
        self.kafka.put(&self.dead, key, headers, "{}");
    }

    /// Replays the dead letters.
    fn replay(&self, more: &[&str]) -> Finished {
        let from = ["replay", "--from", &self.dead];
        self.files.command(&[&from[..], more].concat())
    }

    fn read(&self) -> Vec<crate::support::consumer::Stored> {
        self.kafka.read(&self.topic)
    }
}

/// The headers of a dead letter with this intended topic.
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
    let safety = or_skip!(Safety::new());
    let commands = safety.kafka.topic("payments-commands");
    safety.put(b"k", &letter("forged", &commands, "invalid_event"));
    safety.put(b"k", &letter("genuine", &safety.topic, "invalid_event"));

    safety.replay(&[]).expect_code(1).expect_stderr(&[
        &commands,
        "--to",
        "--any-destination",
        "--skip-unplaced",
    ]);
    assert_eq!(safety.kafka.read(&commands), []);

    let looked = safety.replay(&["--dry-run"]).expect_code(1);
    let lines: Vec<_> = looked.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{looked:?}");
    assert!(lines[0].contains("forged") && lines[0].contains(&commands));
    let there = format!("-> main:{}", safety.topic);
    assert!(lines[1].contains("genuine") && lines[1].contains("invalid_event"));
    assert!(lines[1].ends_with(&there), "{looked:?}");

    let skipped = safety.replay(&["--skip-unplaced"]).expect_code(0);
    skipped.expect_stderr(&["1 of 2 replayed, 1 skipped"]);
    assert_eq!(only(safety.read()).event_id(), "genuine");
    assert_eq!(safety.kafka.read(&commands), []);
}

#[test]
fn any_destination_is_taken_only_when_the_operator_says_so_and_the_message_tells() {
    let safety = or_skip!(Safety::new());
    let retired = safety.kafka.topic("safety-retired");
    safety.put(b"k", &letter("e-1", &retired, "invalid_event"));
    let done = safety.replay(&["--any-destination"]).expect_code(0);
    done.expect_stderr(&["1 of 1 replayed"]);
    let message = only(safety.kafka.read(&retired));
    let from = format!("main/{}/0/0", safety.dead);
    let expected = [
        ("ce_id", "e-1"),
        ("event_id", "e-1"),
        ("hookbridge_replayed_from", &from),
    ];
    message.expect_headers(&expected, &[]);
}

#[test]
fn every_destination_that_a_route_can_produce_is_one_for_replay() {
    let routes = [
        (
            "TOPIC.{type}.{/workspace}",
            "types = [\"issue_*\"]\ncopy_to = [{ topic = \"TOPIC.all\" }]",
        ),
        ("{/workspace}", "topics = [\"TOPIC.listed\"]"),
    ];
    let safety = or_skip!(Safety::with(&Setup::new().routes(&routes)));
    let good = ["issue_created.acme", "issue_x.a-b", "all", "listed"];
    let bad = [
        "ping.acme",
        "issue_created",
        "issue_created.a/b",
        "other",
        "",
    ];
    for end in good.iter().chain(&bad) {
        let topic = format!("{}.{end}", safety.topic);
        safety.put(b"k", &letter(end, &topic, "invalid_event"));
    }
    let looked = safety.replay(&["--dry-run"]).expect_code(1);
    let looked = looked.expect_stderr(&["4 of 9 would be replayed"]);
    let lines: Vec<_> = looked.stdout.lines().collect();
    assert_eq!(lines.len(), good.len() + bad.len(), "{looked:?}");
    for (line, end) in lines.iter().zip(good) {
        let there = format!("-> main:{}.{end}", safety.topic);
        assert!(line.ends_with(&there), "{line}");
    }
    for line in &lines[good.len()..] {
        assert!(!line.contains("-> main:"), "{line}");
    }
}

#[test]
fn a_header_may_not_choose_the_broker_that_a_topic_of_the_operators_is_on() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("safety");
    let setup = Setup::new().edge(nats).route("broker = \"main\"");
    let safety = or_skip!(Safety::with(&setup));
    let mut headers = letter("e-1", "x", "invalid_event");
    headers.retain(|(name, _)| *name != "hookbridge_intended_broker");
    headers.push(("hookbridge_intended_broker", b"edge"));
    safety.put(b"k", &headers);
    let to = format!("{stream}.x");
    let to = ["--broker", "main", "--to", &to];
    let stopped = safety.replay(&to).expect_code(1);
    stopped.expect_stderr(&["--to-broker"]);
    assert_eq!(nats.read(&stream), []);
    let named = [&to[..], &["--to-broker", "edge"]].concat();
    safety.replay(&named).expect_code(0);
    let from = format!("main/{}/0/0", safety.dead);
    let message = only(nats.read(&stream));
    assert_eq!(message.header("hookbridge_replayed_from"), Some(&*from));
}

#[test]
fn an_event_too_large_for_the_destination_stops_a_replay_unless_it_may_be_passed_over() {
    let kafka = or_skip!(Kafka::shared());
    let topic = kafka.new_topic_up_to("safety", 20_000);
    let setup = Setup::<Kafka>::new().dead_letters("on_invalid");
    let bridge = setup.run_on(kafka, topic);
    let large = events::ping_of_size(200_000);
    bridge.deliver(&large).expect_success("dead_lettered");
    let id = events::new_id();
    let small = format!(
        "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":1}}}}}}"
    );
    let answer = bridge.send(&Request::signed_body(small));
    answer.expect_success("dead_lettered");
    let dead = bridge.topic.clone() + "-dead";
    let from = ["--from", dead.as_str()];
    let stopped = bridge.replay(&from).expect_code(1);
    stopped.expect_stderr(&[&large.id, "larger than", "--skip-refused"]);
    let skipped = bridge.replay(&[&from[..], &["--skip-refused"]].concat());
    let skipped = skipped.expect_code(0);
    skipped.expect_stderr(&["1 of 2 replayed, 1 skipped"]);
    assert_eq!(only(bridge.read()).event_id(), id);
    // Nothing is removed from it.
    assert_eq!(bridge.read_dead_letters().len(), 2);
}

#[test]
fn headers_are_replayed_with_the_bytes_that_they_have() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("safety");
    let setup = Setup::new().edge(nats).route("broker = \"main\"");
    let safety = or_skip!(Safety::with(&setup));
    let (topic, subject) = (&safety.topic, format!("{stream}.x"));
    let mut headers = letter("e-1", topic, "invalid_event");
    headers.push(("x-city", b"K\xf6ln %41"));
    safety.put("schlüssel".as_bytes(), &headers);
    let there = ["--broker", "main", "--to", &subject, "--to-broker", "edge"];
    safety.replay(&there).expect_code(0);
    let on_nats = only(nats.read(&stream));
    assert_eq!(on_nats.header("x-city"), Some("K%F6ln%20%2541"));
    let back = ["--broker", "edge", "--to", topic, "--to-broker", "main"];
    let back = [&["replay", "--from", &subject], &back[..]].concat();
    safety.files.command(&back).expect_code(0);
    let home = only(safety.read());
    assert_eq!(home.header("x-city"), Some("K\\xf6ln %41"));
    let replayed = home
        .headers
        .iter()
        .filter(|(name, _)| name == "hookbridge_replayed_from");
    let replayed: Vec<_> = replayed.map(|(_, value)| value.clone()).collect();
    let first = format!("main/{}/0/0", safety.dead);
    // Every replay is recorded, in order.
    assert_eq!(replayed, [first, format!("edge/{subject}/1")]);
}

#[test]
fn a_message_whose_key_is_not_text_is_not_replayed_under_another_key() {
    let safety = or_skip!(Safety::new());
    safety.put(b"\xff", &letter("e-1", &safety.topic, "invalid_event"));
    safety.replay(&[]).expect_code(1).expect_stderr(&["key"]);
    assert_eq!(safety.read(), []);
}

#[test]
fn a_topic_that_does_not_exist_is_not_an_empty_topic() {
    let safety = or_skip!(Safety::new());
    let missing = unique("safety-missing");
    let from = ["replay", "--from", &missing];
    let to = ["--to", safety.topic.as_str()];
    for more in [&[][..], &to] {
        let failed = safety.files.command(&[&from[..], more].concat());
        let failed = failed.expect_code(1);
        failed.expect_stderr(&[&missing, "does not exist"]);
    }
}

#[test]
fn a_selection_is_replayed_without_skipping_the_rest_for_later_replays() {
    let safety = or_skip!(Safety::new());
    let received = [
        ("e-1", "invalid_event", "2026-11-20T06:00:00Z"),
        ("e-2", "no_route", "2026-11-20T07:00:00.5Z"),
        ("e-3", "invalid_event", "2026-11-20T08:00:00Z"),
        ("e-4", "invalid_event", "2026-11-20T09:00:00Z"),
    ];
    for (id, reason, time) in received {
        let mut headers = letter(id, &safety.topic, reason);
        headers.push(("ce_recordedtime", time.as_bytes()));
        safety.put(b"k", &headers);
    }
    let replay = |arguments: &[&str], summary: &str, ids: &[&str]| {
        let done = safety.replay(arguments).expect_code(0);
        done.expect_stderr(&[summary]);
        let replayed = safety.read();
        let found: Vec<_> = replayed.iter().map(|message| message.event_id()).collect();
        assert_eq!(found, ids);
    };
    let invalid = ["--reason", "invalid_event"];
    let one = [&invalid[..], &["--limit", "1"]].concat();
    replay(&one, "1 of 4 replayed", &["e-1"]);
    let others = "2 of 3 replayed, 1 not selected";
    replay(&invalid, others, &["e-1", "e-3", "e-4"]);

    let (since, until) = ("2026-11-20T07:00:00.5Z", "2026-11-20T10:00:00+01:00");
    let between = ["--since", since, "--until", until];
    let looked = safety.replay(&[&between[..], &["--dry-run"]].concat());
    let looked = looked.expect_code(0);
    assert_eq!(looked.stdout.lines().count(), 2, "{looked:?}");
    let all = ["e-1", "e-3", "e-4", "e-2", "e-3"];
    replay(&between, "2 of", &all);

    let done = safety.replay(&[]).expect_code(0);
    done.expect_stderr(&["4 of 4 replayed"]);
    safety.replay(&["--since", "yesterday"]).expect_code(2);
}
