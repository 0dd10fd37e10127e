//! Replay: diverted events reach their intended destinations.

use async_nats::jetstream::stream::RetentionPolicy;

use crate::support::bridge::Bridge;
use crate::support::consumer::only;
use crate::support::events;
use crate::support::fixture::{Setup, kafka, nats};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::Request;

const UNROUTED_AND_INVALID: &str = "on_invalid = { dead_letter = { topic = \"TOPIC-dead.x\" } }
on_unrouted = { dead_letter = { topic = \"TOPIC-dead.x\" } }";

/// Delivers an invalid event, which becomes a dead letter; returns its id.
fn deliver_invalid(bridge: &Bridge) -> String {
    let id = events::new_id();
    let issue = "{\"issue\":{\"issue_id\":\"i\",\"title\":1}}";
    let body = format!("{{\"event_id\":\"{id}\",\"issue_closed\":{issue}}}");
    let answer = bridge.send(&Request::signed_body(body));
    assert_eq!(answer.expect_success("dead_lettered"), id);
    id
}

#[test]
fn dead_letters_go_where_they_were_meant_to_and_no_further_a_second_time() {
    let bridge = or_skip!(kafka().dead_letters("on_invalid").run());
    let dead = bridge.topic.clone() + "-dead";
    let ids: Vec<_> = (0..5).map(|_| deliver_invalid(&bridge)).collect();
    let looked = bridge.replay(&["--from", &dead, "--dry-run"]);
    let looked = looked.expect_code(0);
    assert_eq!(looked.stdout.lines().count(), 5, "{looked:?}");
    assert_eq!(bridge.read(), [], "a dry run moves nothing");
    let replay = |summary: &str| {
        let done = bridge.replay(&["--from", &dead]);
        done.expect_code(0).expect_stderr(&[summary]);
    };
    replay("5 of 5 replayed");
    let replayed = bridge.read();
    let found = replayed.iter().map(|message| message.event_id());
    assert!(found.eq(&ids), "in order");
    for message in &replayed {
        assert_eq!(message.key.as_deref(), Some("i"));
        assert_eq!(message.header("ce_type"), Some("issue_closed"));
        let mut names = message.header_names();
        names.retain(|name| name.starts_with("hookbridge_"));
        assert_eq!(names, ["hookbridge_replayed_from"]);
    }
    replay("0 of 0 replayed");
    assert_eq!(bridge.read().len(), 5);
}

/// Dead letters in this order: of an event with a route, of one without, of one with a route.
fn placed_unplaced_placed(bridge: &Bridge) -> [String; 2] {
    let first = deliver_invalid(bridge);
    let nowhere = bridge.deliver(&events::ping());
    nowhere.expect_success("dead_lettered");
    [first, deliver_invalid(bridge)]
}

#[test]
fn an_event_without_a_destination_stops_a_replay_unless_it_may_be_passed_over() {
    let letters = UNROUTED_AND_INVALID.replace("-dead.x", "-dead");
    let setup = kafka().source(&letters).and_topic("-dead");
    let bridge = or_skip!(setup.route("types = [\"issue_*\"]").run());
    let ids = placed_unplaced_placed(&bridge);
    let dead = bridge.topic.clone() + "-dead";
    let replay = |more: &[&str], code: i32, summary: &str| {
        let done = bridge.replay(&[&["--from", dead.as_str()][..], more].concat());
        done.expect_code(code).expect_stderr(&[summary]);
    };
    replay(&[], 1, "--skip-unplaced");
    assert_eq!(bridge.read().len(), 1);
    let skip = "--skip-unplaced";
    let looked = "1 of 2 would be replayed, 1 skipped";
    replay(&[skip, "--dry-run"], 0, looked);
    replay(&[skip], 0, "1 of 2 replayed, 1 skipped");
    let replayed = bridge.read();
    assert!(replayed.iter().map(|message| message.event_id()).eq(&ids));
    replay(&[skip], 0, "0 of 0 replayed");
    // Nothing is removed from a topic.
    assert_eq!(bridge.read_dead_letters().len(), 3);
}

#[test]
fn a_message_is_not_skipped_if_its_stream_would_drop_it() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("replay");
    nats.stream_with("replay", |settings| {
        settings.name = format!("{stream}-dead");
        settings.subjects = vec![format!("{stream}-dead.>")];
        settings.retention = RetentionPolicy::WorkQueue;
    });
    let bridge = Setup::<Nats>::new()
        .source(UNROUTED_AND_INVALID)
        .route("types = [\"issue_*\"]")
        .run_on(nats, stream);
    placed_unplaced_placed(&bridge);
    let (from, to) = (
        format!("{}-dead.x", bridge.topic),
        format!("{}.y", bridge.topic),
    );
    bridge
        .replay(&["--from", &from, "--skip-unplaced"])
        .expect_code(1)
        .expect_stderr(&["--to"]);
    assert_eq!(bridge.read().len(), 1);
    bridge
        .replay(&["--from", &from, "--to", &to])
        .expect_code(0)
        .expect_stderr(&["2 of 2 replayed"]);
}

#[test]
fn an_event_that_took_a_fallback_comes_home() {
    let nats = or_skip!(Nats::shared());
    let kafka = or_skip!(Kafka::private_not_started());
    let stream = nats.stream("fallback");
    let topic = format!("{stream}.home");
    // Ready once the other broker is.
    let bridge = Setup::<Kafka>::new()
        .edge(nats)
        .route("broker = \"main\"\nfallback = \"edge\"")
        .run_on(kafka, topic.clone());
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
    bridge.broker.start();
    bridge.broker.create_topic(&topic, 1, &[]);
    let replay = |summary: &str| {
        let done = bridge.replay(&["--from", &topic, "--broker", "edge"]);
        done.expect_code(0).expect_stderr(&[summary]);
    };
    replay("1 of 1 replayed");
    let home = only(bridge.read());
    assert_eq!(home.value, event.body);
    assert_eq!(home.key.as_deref(), Some("i-7"));
    assert_eq!(home.header("ce_id"), Some(event.id.as_str()));
    assert_eq!(home.header("ce_subject"), Some("i-7"));
    replay("0 of 0 replayed");
}

#[test]
fn every_copy_is_stored_even_where_one_stream_takes_them_all() {
    let copies = "copy_to = [{ topic = \"TOPIC.all\" }, { topic = \"TOPIC.audit\" }]";
    let bridge = or_skip!(nats().route(copies).run());
    let event = bridge.publish_ping();
    let mut subjects: Vec<_> = bridge
        .read()
        .into_iter()
        .map(|message| message.topic)
        .collect();
    subjects.sort();
    let expected = ["all", "audit", "ping"].map(|end| format!("{}.{end}", bridge.topic));
    assert_eq!(subjects, expected);
    bridge.deliver(&event).expect_success("duplicate");
    assert_eq!(bridge.read().len(), 3);
}
