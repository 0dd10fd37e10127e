//! Routes with a second broker: `fallback` and `copy_to`.

use std::sync::Arc;

use super::trial::{Trial, copies, finish};
use super::{RECOVERY, issue};
use crate::support::bridge::{kafka_broker, nats_broker, route_with, synq_source};
use crate::support::checker::Checker;
use crate::support::consumer::only;
use crate::support::crowd::{self, join};
use crate::support::events;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::Mode;
use crate::support::wait::{self, PATIENCE};

#[test]
fn fallback_takes_events_that_the_first_broker_certainly_does_not_have_and_marks_them() {
    let Some(nats) = Nats::shared() else { return };
    let topic = nats.stream("fallback") + ".x";
    let stream = topic.trim_end_matches(".x");
    let nobody = format!("127.0.0.1:{}", process::port());
    let rest = kafka_broker("main", &nobody)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&topic, "broker = \"main\"\nfallback = \"edge\"");
    let trial = Trial::new(4, "", &rest);
    let up = [("broker", "edge")];
    trial.bridge.wait_metric("hookbridge_broker_up", &up, 1.0);
    let event = issue(1);
    trial.deliver(&event).expect_published(&event);
    let stored = nats.read(stream);
    let message = only(stored.clone());
    assert_eq!(message.header("hookbridge_reason"), Some("fallback"));
    assert_eq!(
        message.header("hookbridge_intended_topic"),
        Some(topic.as_str())
    );
    trial.finish("fallback, Kafka away", &stored);
}

#[test]
fn fallback_is_used_neither_after_an_unknown_outcome_nor_while_the_first_broker_is_up() {
    let (Some((kafka, proxy)), Some(nats)) = (Kafka::behind_proxy(), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("fallback");
    let topic = format!("{stream}.x");
    kafka.create_topic(&topic, 1, &[]);
    let rest = kafka_broker("main", &proxy.address)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&topic, "broker = \"main\"\nfallback = \"edge\"");
    let trial = Trial::new(4, "", &rest);
    trial.bridge.wait_brokers_up(2);
    let well = issue(1);
    trial.deliver(&well).expect_published(&well);
    proxy.set(Mode::DropReplies);
    let doubtful = issue(1);
    trial
        .deliver(&doubtful)
        .expect_problem(503, "publish_timeout");
    assert_eq!(nats.read(&stream), []);

    // While the first is known to be down, the second takes the events; then the first again.
    proxy.set(Mode::Refuse);
    let away = issue(1);
    trial.retry(&away).expect_published(&away);
    wait::until("an event takes the fallback", RECOVERY, || {
        let event = issue(1);
        trial.deliver(&event).status == 200 && copies(&nats.read(&stream), &event) == 1
    });
    proxy.set(Mode::Pass);
    wait::until("an event takes the route again", RECOVERY, || {
        let event = issue(1);
        trial.deliver(&event).status == 200 && copies(&kafka.read(&topic), &event) == 1
    });
    let on_edge = nats.read(&stream);
    assert!(
        on_edge
            .iter()
            .all(|message| message.header("hookbridge_reason") == Some("fallback"))
    );
    let mut stored = kafka.read(&topic);
    stored.extend(on_edge);
    trial.finish("fallback, Kafka in doubt, away, back", &stored);
}

#[test]
fn messages_not_given_to_a_frozen_nats_in_time_are_certainly_not_stored() {
    // Half of the time that the client needs to find out that the connection is dead.
    frozen_nats_with_a_fallback(5, "broker_unavailable");
}

#[test]
fn messages_not_given_to_a_frozen_nats_before_its_connection_ended_take_the_fallback() {
    // The client pings twice without success before it closes the connection, which leaves time for the fallback.
    frozen_nats_with_a_fallback(20, "published");
}

/// The part of a burst given to the client has an unknown outcome; the rest ends like this.
fn frozen_nats_with_a_fallback(publish_timeout: u64, rest_is: &str) {
    /// More than the client, the sockets and the proxy can hold together.
    const COUNT: usize = 700;
    let (Some((nats, proxy)), Some(kafka)) = (Nats::behind_proxy(), Kafka::shared()) else {
        return;
    };
    let stream = nats.stream("frozen");
    let topic = format!("{stream}.x");
    kafka.create_topic(&topic, 1, &[]);
    let rest = nats_broker("main", &format!("nats://{}", proxy.address))
        + &kafka_broker("edge", &kafka.address)
        + &synq_source("")
        + &route_with(&topic, "broker = \"main\"\nfallback = \"edge\"");
    // On a busy machine the first byte of a connection may be late.
    let mut trial = Trial::new(publish_timeout, "header_timeout = \"10m\"", &rest);
    trial.bridge.wait_brokers_up(2);
    let events = crowd::prepare(COUNT, || events::ping_of_size(40_000));
    let connections = crowd::open(trial.bridge.public, COUNT);
    proxy.set(Mode::Freeze);
    let checker = Arc::<Checker>::default();
    let sending = crowd::deliver(connections, events, &checker);
    for delivery in sending {
        let (_, (answer, _)) = join(delivery);
        assert!(answer.is_ok(), "{answer:?}");
    }
    for outcome in ["publish_timeout", rest_is] {
        let count = checker.outcomes(outcome);
        assert!(count > 0, "{outcome}: {}", checker.summary());
    }
    proxy.set(Mode::Pass);
    trial.checker = checker;
    trial.recover();
    let mut stored = nats.read(&stream);
    stored.extend(kafka.read(&topic));
    trial.finish("frozen NATS, with a fallback", &stored);
}

#[test]
fn copy_to_is_200_if_every_copy_is_stored_unknown_if_only_one_is_and_publishes_nothing_if_one_broker_is_away()
 {
    let (Some(kafka), Some((nats, proxy))) = (Kafka::shared(), Nats::behind_proxy()) else {
        return;
    };
    let (topic, stream) = (kafka.topic("copies"), nats.stream("copies"));
    let copy = format!("[[routes.copy_to]]\nbroker = \"edge\"\ntopic = \"{stream}.x\"");
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &format!("nats://{}", proxy.address))
        + &synq_source("")
        + &route_with(&topic, &format!("broker = \"main\"\n{copy}"));
    let trial = Trial::new(4, "", &rest);
    trial.bridge.wait_brokers_up(2);
    let event = issue(1);
    trial.deliver(&event).expect_published(&event);
    assert_eq!(copies(&kafka.read(&topic), &event), 1);
    assert_eq!(copies(&nats.read(&stream), &event), 1);

    // One is silent, the other has the event: it must not be reported as certainly not stored.
    proxy.set(Mode::DropReplies);
    let event = issue(1);
    trial.deliver(&event).expect_problem(503, "publish_timeout");
    assert_eq!(copies(&kafka.read(&topic), &event), 1);

    // One is known to be away: nothing is published, however often the sender retries.
    proxy.set(Mode::Refuse);
    let edge = [("broker", "edge")];
    trial.bridge.wait_metric("hookbridge_broker_up", &edge, 0.0);
    let away = issue(1);
    for _ in 0..3 {
        trial
            .deliver(&away)
            .expect_problem(503, "broker_unavailable");
    }
    assert_eq!(copies(&kafka.read(&topic), &away), 0);

    // The sender's retry completes both.
    proxy.set(Mode::Pass);
    for event in [&event, &away] {
        assert_eq!(trial.retry(event).status, 200);
        assert_eq!(copies(&nats.read(&stream), event), 1);
    }
    assert_eq!(copies(&kafka.read(&topic), &away), 1);

    trial.at_rest();
    // Each broker by itself: everything answered 200 is in both.
    finish("copy_to, Kafka", &trial.checker, &kafka.read(&topic));
    finish("copy_to, NATS", &trial.checker, &nats.read(&stream));
}

#[test]
fn copy_to_is_published_if_a_fallback_replaces_the_broker_that_is_away() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("copies");
    let nobody = format!("127.0.0.1:{}", process::port());
    let copy = format!("[[routes.copy_to]]\nbroker = \"edge\"\ntopic = \"{stream}.copy\"");
    let keys = format!("broker = \"main\"\nfallback = \"edge\"\n{copy}");
    let rest = kafka_broker("main", &nobody)
        + &nats_broker("edge", &nats.url)
        + &synq_source("")
        + &route_with(&format!("{stream}.x"), &keys);
    let trial = Trial::new(8, "", &rest);
    wait::until("one is up and one is down", PATIENCE, || {
        let readyz = trial.bridge.admin("/readyz");
        let says = String::from_utf8_lossy(&readyz.body).into_owned();
        says.contains("main: no answer") && !says.contains("edge")
    });
    let event = issue(1);
    trial.deliver(&event).expect_published(&event);
    assert_eq!(copies(&nats.read(&stream), &event), 2);
    trial.at_rest();
}
