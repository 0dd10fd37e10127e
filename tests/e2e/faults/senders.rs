//! Bursts, stopped processes, senders that hang up or retry, a second replica: rows F35, F40, F44 to F47, F50.

use std::time::{Duration, Instant};

use super::issue;
use super::trial::{Behind, Trial, copies, finish};
use crate::support::bridge::{kafka_broker, nats_broker, route_with, synq_source};
use crate::support::consumer::Stored;
use crate::support::events;
use crate::support::fixture::{Broker, Setup};
use crate::support::kafka::Kafka;
use crate::support::load::Load;
use crate::support::nats::Nats;
use crate::support::proxy::Mode;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

fn in_flight(trial: &Trial) -> f64 {
    trial.bridge.metric("hookbridge_in_flight", &[])
}

#[test]
fn f35_of_a_burst_exactly_the_surplus_is_overloaded() {
    let behind = or_skip!(Behind::<Nats>::new("f35"));
    let trial = Trial::new(20, "max_in_flight = 30", &behind.tables());
    trial.bridge.wait_ready();
    behind.proxy.set(Mode::HoldReplies);
    std::thread::scope(|scope| {
        let inside = trial.burst(scope, 30);
        wait::until("30 events are in flight", PATIENCE, || {
            in_flight(&trial) == 30.0
        });
        let surplus = trial.burst(scope, 70);
        for delivery in surplus {
            delivery.join().unwrap().expect_problem(503, "overloaded");
        }
        assert!(inside.iter().all(|delivery| !delivery.is_finished()));
        behind.proxy.set(Mode::Pass);
        for delivery in inside {
            assert_eq!(delivery.join().unwrap().status, 200);
        }
    });
    let books = trial.finish("F35 NATS", &behind.read());
    assert_eq!((books.acknowledged, books.duplicates), (30, 0));
}

#[test]
fn f12_a_burst_over_many_milliseconds_of_latency_is_answered_in_full() {
    let behind = or_skip!(Behind::<Kafka>::new("f12"));
    let trial = Trial::ready(20, &behind.tables());
    behind.proxy.set(Mode::Delay(Duration::from_millis(150)));
    std::thread::scope(|scope| {
        let burst = trial.burst(scope, 100);
        for delivery in burst {
            assert_eq!(delivery.join().unwrap().status, 200);
        }
    });
    let books = trial.finish("F12 Kafka", &behind.read());
    assert_eq!((books.acknowledged, books.duplicates), (100, 0));
}

#[test]
fn f40_a_bridge_that_was_stopped_acknowledges_nothing_that_is_not_stored() {
    let behind = or_skip!(Behind::<Nats>::new("f40"));
    let mut trial = Trial::ready(3, &behind.tables());
    let load = Load::start(trial.bridge.public, 10, issue);
    wait::until("events are answered 200", PATIENCE, || {
        load.checker.answered(200) >= 100
    });
    behind.proxy.set(Mode::HoldReplies); // so that some are in the middle of it
    wait::until("events are in flight", PATIENCE, || in_flight(&trial) > 0.0);
    trial.bridge.signal("STOP");
    // Ten times publish_timeout; passing time is the fault.
    wait::play_silence(Duration::from_secs(30));
    behind.proxy.set(Mode::Pass);
    trial.bridge.signal("CONT");
    let so_far = load.checker.answered(200);
    wait::until("events are answered 200 again", PATIENCE, || {
        load.checker.answered(200) >= so_far + 100
    });
    let checker = load.stop();
    assert_eq!(checker.unanswered(), 0, "{}", checker.summary());
    trial.checker = checker;
    trial.finish("F40 NATS", &behind.read());
}

#[test]
fn f44_an_event_is_published_and_remembered_though_its_sender_hung_up() {
    let behind = or_skip!(Behind::<Nats>::new("f44"));
    let trial = Trial::ready(20, &behind.tables_of(&remembering()));
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    let mut sender = Connection::open(trial.bridge.public).unwrap();
    let request = Request::event(&event).header("Expect", "100-continue");
    sender.write(&request.bytes()).unwrap();
    wait::until("the event is in the broker", PATIENCE, || {
        copies(&behind.read(), &event) == 1
    });
    sender.reset_unread();
    let aborted = std::io::ErrorKind::ConnectionAborted.into();
    trial.checker.note(&event, Duration::ZERO, &Err(aborted));
    trial.wait_for_metric("hookbridge_client_disconnects_total", &[], 1.0);
    assert_eq!(in_flight(&trial), 1.0, "it goes on");
    behind.proxy.set(Mode::Pass);
    trial.at_rest();
    let published = [("outcome", "published")];
    let metrics = trial.bridge.metrics();
    assert_eq!(metrics.sum("hookbridge_requests_total", &published), 1.0);
    let answer = trial.deliver(&event);
    assert_eq!(answer.expect_success("duplicate"), event.id);
    let books = trial.finish("F44 NATS", &behind.read());
    assert_eq!(books.duplicates, 0);
}

fn remembering<B: Broker>() -> Setup<B> {
    Setup::new().source("dedup_window = \"1h\"")
}

#[test]
fn f45_a_twin_waits_for_the_first_and_is_a_duplicate() {
    let behind = or_skip!(Behind::<Kafka>::new("f45"));
    let trial = Trial::ready(6, &behind.tables_of(&remembering()));
    assert_eq!(trial.deliver_new().status, 200);

    // The first succeeds: one message, and both are answered after the reply.
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    std::thread::scope(|scope| {
        let deliveries: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| trial.deliver(&event)))
            .collect();
        wait::until("both are in flight, one in the broker", PATIENCE, || {
            in_flight(&trial) == 2.0 && copies(&behind.read(), &event) == 1
        });
        assert!(deliveries.iter().all(|delivery| !delivery.is_finished()));
        behind.proxy.set(Mode::Pass);
        let mut outcomes: Vec<_> = deliveries
            .into_iter()
            .map(|delivery| delivery.join().unwrap().outcome())
            .collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["duplicate", "published"]);
    });
    assert_eq!(copies(&behind.read(), &event), 1);

    // The first has an unknown outcome, and so has the other; neither is remembered.
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    std::thread::scope(|scope| {
        let deliveries: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| trial.deliver(&event)))
            .collect();
        for delivery in deliveries {
            delivery
                .join()
                .unwrap()
                .expect_problem(503, "publish_timeout");
        }
    });
    behind.proxy.set(Mode::Pass);
    trial.retry(&event).expect_published(&event);
    trial.finish("F45 Kafka", &behind.read());
}

#[test]
fn f46_a_retry_after_an_unknown_outcome_is_published_regardless_of_the_window() {
    let behind = or_skip!(Behind::<Kafka>::new("f46"));
    let trial = Trial::ready(3, &behind.tables_of(&remembering()));
    assert_eq!(trial.deliver_new().status, 200);
    behind.proxy.set(Mode::DropReplies);
    let event = issue(1);
    trial.deliver(&event).expect_problem(503, "publish_timeout");
    behind.proxy.set(Mode::Pass);
    trial.retry(&event).expect_published(&event);
    assert!(copies(&behind.read(), &event) >= 2);
    // Now it is known.
    let again = trial.deliver(&event);
    assert_eq!(again.expect_success("duplicate"), event.id);
    trial.finish("F46 Kafka", &behind.read());
}

fn f47_a_retry_to_another_replica_has_the_same_id_and_is_a_duplicate_where_the_broker_can_tell<
    B: Broker,
>() {
    let behind = or_skip!(Behind::<B>::new("f47"));
    let first = Trial::ready(3, &behind.tables_of(&remembering()));
    let direct = remembering::<B>().tables(&behind.broker.address(), &behind.topic);
    let second = Trial::ready(3, &direct);
    assert_eq!(first.deliver_new().status, 200);
    behind.proxy.set(Mode::DropReplies);
    let event = issue(1);
    let answer = first.deliver(&event);
    answer.expect_problem(503, "publish_timeout");
    let sent = Instant::now();
    let answer = second.bridge.deliver(&event);
    let took = sent.elapsed();
    first.checker.note(&event, took, &Ok(answer.clone()));
    let stored = behind.read();
    let is_twin = |message: &&Stored| message.event_id() == event.id;
    let twins: Vec<_> = stored.iter().filter(is_twin).collect();
    if B::DEDUPLICATES {
        assert_eq!(answer.expect_success("duplicate"), event.id);
        assert_eq!(twins.len(), 1, "{twins:?}");
    } else {
        answer.expect_published(&event);
        assert_eq!(twins.len(), 2, "{twins:?}");
        assert_eq!(twins[0].key, twins[1].key);
    }
    finish(&format!("F47 {}", B::NAME), &first.checker, &stored);
}

on_each_broker!(
    f47_a_retry_to_another_replica_has_the_same_id_and_is_a_duplicate_where_the_broker_can_tell,
);

#[test]
fn f50_a_silent_broker_takes_no_place_of_another_and_none_of_its_time() {
    let behind = or_skip!(Behind::<Nats>::new("f50"));
    let kafka = or_skip!(Kafka::shared());
    let topic = kafka.topic("f50");
    let rest = nats_broker("silent", &format!("nats://{}", behind.proxy.address))
        + &kafka_broker("near", &kafka.address)
        + &synq_source("")
        + &route_with(
            &format!("{}.x", behind.topic),
            "types = [\"issue_*\"]\nbroker = \"silent\"",
        )
        + &route_with(&topic, "broker = \"near\"");
    let trial = Trial::new(12, "max_in_flight = 40", &rest);
    trial.bridge.wait_brokers_up(2);
    behind.proxy.set(Mode::Freeze);
    let mut sent_to_near = Vec::new();
    std::thread::scope(|scope| {
        // More than the silent broker's half of all permits.
        let silent = trial.burst(scope, 35);
        wait::until("the silent one's share is full", PATIENCE, || {
            in_flight(&trial) >= 20.0
                && trial
                    .bridge
                    .metric("hookbridge_requests_total", &[("outcome", "overloaded")])
                    >= 15.0
        });
        let started = Instant::now();
        for _ in 0..50 {
            let event = events::ping();
            let sent = Instant::now();
            let answer = trial.bridge.deliver(&event);
            answer.expect_published(&event);
            sent_to_near.push((event, sent.elapsed(), answer));
        }
        println!(
            "F50: 50 events past a silent broker in {:?}",
            started.elapsed()
        );
        assert!(
            silent.iter().any(|delivery| !delivery.is_finished()),
            "the others went past it"
        );
        for delivery in silent {
            assert_eq!(delivery.join().unwrap().status, 503);
        }
    });
    behind.proxy.set(Mode::Pass);
    trial.recover();
    for (event, took, answer) in sent_to_near {
        trial.checker.note(&event, took, &Ok(answer));
    }
    let mut stored = behind.read();
    stored.extend(kafka.read(&topic));
    trial.finish("F50", &stored);
}
