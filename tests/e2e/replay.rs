//! Events that took another way, and how they get to where they belong.

use crate::support::bridge::{
    Bridge, Files, hookbridge, kafka_broker, nats_broker, route, route_with, synq_source, write,
};
use crate::support::consumer::only;
use crate::support::events;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::Request;

fn replay(files: &Files, arguments: &[&str]) -> crate::support::bridge::Finished {
    let config = files.file.to_str().unwrap();
    let command = ["replay", "--config", config];
    hookbridge(command.iter().chain(arguments).copied())
}

#[test]
fn dead_letters_go_where_they_were_meant_to_and_no_further_a_second_time() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic("replay"), kafka.topic("replay-dead"));
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{dead}\" }} }}");
    let rest = kafka_broker("main", &kafka.address) + &synq_source(&letters) + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let mut ids = Vec::new();
    for number in 0..5 {
        let id = events::new_id();
        let body = format!(
            "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":{number}}}}}}}"
        );
        let answer = bridge.send(&Request::signed_body(body));
        assert_eq!(answer.expect_success("dead_lettered"), id);
        ids.push(id);
    }
    let files = write("", &rest);
    let looked = replay(&files, &["--from", &dead, "--dry-run"]).expect_code(0);
    assert_eq!(looked.stdout.lines().count(), 5, "{looked:?}");
    assert_eq!(kafka.read(&topic), [], "a dry run moves nothing");
    let done = replay(&files, &["--from", &dead]).expect_code(0);
    assert!(done.stderr.contains("5 of 5 replayed"), "{done:?}");
    let replayed = kafka.read(&topic);
    let found: Vec<_> = replayed
        .iter()
        .map(|message| message.event_id().to_owned())
        .collect();
    assert_eq!(found, ids, "in order");
    for message in &replayed {
        assert_eq!(message.key.as_deref(), Some("i"));
        assert_eq!(message.header("ce_type"), Some("issue_closed"));
        let names = message.header_names();
        let ours: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with("hookbridge_"))
            .collect();
        assert_eq!(ours, [&"hookbridge_replayed_from"]);
    }
    let again = replay(&files, &["--from", &dead]).expect_code(0);
    assert!(again.stderr.contains("0 of 0 replayed"), "{again:?}");
    assert_eq!(kafka.read(&topic).len(), 5);
}

/// Dead letters in this order: of an event that has a route, of one that has none, of one that has a route.
fn placed_unplaced_placed(bridge: &Bridge) -> [String; 2] {
    let invalid = |id: &str| {
        let body = format!(
            "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":1}}}}}}"
        );
        let answer = bridge.send(&Request::signed_body(body));
        answer.expect_success("dead_lettered");
    };
    let ids = [events::new_id(), events::new_id()];
    invalid(&ids[0]);
    let nowhere = bridge.deliver(&events::ping());
    nowhere.expect_success("dead_lettered");
    invalid(&ids[1]);
    ids
}

#[test]
fn an_event_without_a_place_stops_a_replay_unless_it_may_be_passed_over() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (
        kafka.topic("replay"),
        kafka.topic_with("replay-dead", 1, &[]),
    );
    let letters = format!(
        "on_invalid = {{ dead_letter = {{ topic = \"{dead}\" }} }}\non_unrouted = {{ dead_letter = {{ topic = \"{dead}\" }} }}"
    );
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source(&letters)
        + &route_with(&topic, "types = [\"issue_*\"]");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let ids = placed_unplaced_placed(&bridge);
    let files = write("", &rest);
    let stopped = replay(&files, &["--from", &dead]).expect_code(1);
    assert!(stopped.stderr.contains("--skip-unplaced"), "{stopped:?}");
    assert_eq!(kafka.read(&topic).len(), 1);
    let skipping = ["--from", dead.as_str(), "--skip-unplaced"];
    let looked = replay(&files, &[&skipping[..], &["--dry-run"]].concat()).expect_code(0);
    let summary = "1 of 2 would be replayed, 1 passed over";
    assert!(looked.stderr.contains(summary), "{looked:?}");
    let done = replay(&files, &skipping).expect_code(0);
    let summary = "1 of 2 replayed, 1 passed over";
    assert!(done.stderr.contains(summary), "{done:?}");
    let replayed = kafka.read(&topic);
    let found: Vec<_> = replayed.iter().map(|message| message.event_id()).collect();
    assert_eq!(found, ids);
    let again = replay(&files, &skipping).expect_code(0);
    assert!(again.stderr.contains("0 of 0 replayed"), "{again:?}");
    assert_eq!(
        kafka.read(&dead).len(),
        3,
        "nothing is taken out of a topic"
    );
}

#[test]
fn a_stream_that_would_drop_what_is_passed_over_is_not_passed_over() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("replay");
    let dead = nats.stream_with("replay-dead", |settings| {
        settings.retention = async_nats::jetstream::stream::RetentionPolicy::WorkQueue;
    });
    let letters = format!(
        "on_invalid = {{ dead_letter = {{ topic = \"{dead}.x\" }} }}\non_unrouted = {{ dead_letter = {{ topic = \"{dead}.x\" }} }}"
    );
    let rest = nats_broker("main", &nats.url)
        + &synq_source(&letters)
        + &route_with(&format!("{stream}.x"), "types = [\"issue_*\"]");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    placed_unplaced_placed(&bridge);
    let files = write("", &rest);
    let from = format!("{dead}.x");
    let stopped = replay(&files, &["--from", &from, "--skip-unplaced"]).expect_code(1);
    assert!(stopped.stderr.contains("--to"), "{stopped:?}");
    assert_eq!(nats.read(&stream).len(), 1);
    let done = replay(&files, &["--from", &from, "--to", &format!("{stream}.y")]).expect_code(0);
    assert!(done.stderr.contains("2 of 2 replayed"), "{done:?}");
}

#[test]
fn an_event_that_took_a_fallback_comes_home() {
    let Some(nats) = Nats::shared() else { return };
    let Some(kafka) = Kafka::private_not_started() else {
        return;
    };
    let stream = nats.stream("fallback");
    let topic = format!("{stream}.home");
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&topic, "broker = \"main\"\nfallback = \"edge\"");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::issue("created", "i-7");
    bridge.deliver(&event).expect_published(&event);
    let message = only(nats.read(&stream));
    assert_eq!(message.value, event.body);
    for (name, value) in [
        ("hookbridge_reason", "fallback"),
        ("hookbridge_intended_topic", topic.as_str()),
        ("hookbridge_intended_broker", "main"),
        ("ce-subject", "i-7"),
    ] {
        assert_eq!(message.header(name), Some(value), "{message:?}");
    }
    kafka.start();
    kafka.create_topic(&topic, 1, &[]);
    let files = write("", &rest);
    let from = ["--from", topic.as_str(), "--broker", "edge"];
    let done = replay(&files, &from).expect_code(0);
    assert!(done.stderr.contains("1 of 1 replayed"), "{done:?}");
    let home = only(kafka.read(&topic));
    assert_eq!(home.value, event.body);
    assert_eq!(home.key.as_deref(), Some("i-7"));
    assert_eq!(home.header("ce_id"), Some(event.id.as_str()));
    assert_eq!(home.header("ce_subject"), Some("i-7"));
    let again = replay(&files, &from).expect_code(0);
    assert!(again.stderr.contains("0 of 0 replayed"), "{again:?}");
}

#[test]
fn every_copy_is_stored_even_where_one_stream_takes_them_all() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("copies");
    let copies =
        format!("copy_to = [{{ topic = \"{stream}.all\" }}, {{ topic = \"{stream}.audit\" }}]");
    let rest = nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&format!("{stream}.{{type}}"), &copies);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    let mut subjects: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.topic)
        .collect();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            format!("{stream}.all"),
            format!("{stream}.audit"),
            format!("{stream}.ping")
        ]
    );
    bridge.deliver(&event).expect_success("duplicate");
    assert_eq!(nats.read(&stream).len(), 3);
}

#[test]
fn a_delivery_that_is_stored_is_not_published_again_within_the_window() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("dedup");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("dedup_window = \"1h\"")
        + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::issue("created", "i-1");
    bridge.deliver(&event).expect_published(&event);
    for _ in 0..3 {
        assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
    }
    let message = only(kafka.read(&topic));
    assert_eq!(message.value, event.body);
    // Another body under the same id is another event.
    let id = &event.id;
    let other = format!("{{\"event_id\":\"{id}\",\"ping\":{{}}}}");
    bridge
        .send(&Request::signed_body(other))
        .expect_success("published");
    assert_eq!(kafka.read(&topic).len(), 2);
}
