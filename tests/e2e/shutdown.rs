//! Signals: requests in flight are finished, everything answered 200 is in the broker, and the process exits with 0.

use std::time::{Duration, Instant};

use crate::support::bridge::{Bridge, kafka_broker, nats_broker, route, synq_source};
use crate::support::events;
use crate::support::fixture::{Broker, Fixture, Setup, nats};
use crate::support::load::Load;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

const SENDERS: usize = 20;

/// Signals a bridge under load; it must exit with 0 in time, and the guarantees must hold for every answer.
fn drains_under_load<B: Broker>(signal: &str) {
    let broker = or_skip!(B::shared());
    let topic = broker.new_topic_in_parts("shutdown");
    let mut bridge = Setup::<B>::new().run_on(broker, topic);
    let load = Load::start(bridge.public, SENDERS, |sender| {
        events::issue("updated", &format!("issue-{sender}"))
    });
    wait::until("300 events are answered 200", PATIENCE, || {
        load.checker.answered(200) >= 300
    });
    bridge.signal(signal);
    // With anything left at `shutdown_timeout` it would be 1.
    let status = bridge.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "after SIG{signal}");
    let checker = load.stop();
    let books = checker.check(&bridge.read());
    println!("{books:?}\n{}", checker.summary());
    assert!(books.acknowledged >= 300);
    assert_eq!(books.duplicates, 0);
    // A request that crosses the closing of its connection gets no answer: at most one per connection.
    assert!(checker.unanswered() <= SENDERS, "{}", checker.summary());
}

fn sigterm_under_load_loses_nothing<B: Broker>() {
    drains_under_load::<B>("TERM");
}

fn sigint_under_load_loses_nothing<B: Broker>() {
    drains_under_load::<B>("INT");
}

on_each_broker!(
    sigterm_under_load_loses_nothing,
    sigint_under_load_loses_nothing
);

#[test]
fn during_drain_delay_readyz_says_no_and_events_are_still_taken() {
    let http = "drain_delay = \"500s\"\nshutdown_timeout = \"600s\"";
    let mut bridge = or_skip!(nats().http(http).run());
    bridge.signal("TERM");
    bridge.wait_for_log("draining");
    assert_eq!(bridge.admin("/readyz").status, 503);
    assert_eq!(bridge.admin("/healthz").status, 200);
    bridge.publish_ping();
}

#[test]
fn after_drain_delay_the_listener_closes_and_the_process_ends() {
    let mut bridge = or_skip!(nats().http("drain_delay = \"1s\"").run());
    let signalled = Instant::now();
    bridge.signal("TERM");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
    assert!(signalled.elapsed() >= Duration::from_secs(1));
    assert!(
        Connection::open(bridge.public).is_err(),
        "the listener is closed"
    );
}

/// A bridge with a request that waits for an acknowledgement that never comes.
fn with_a_waiting_request(http: &str) -> Option<(Fixture<Nats>, Connection)> {
    let bridge = nats().http(http).run()?;
    bridge.silence();
    let waiting = bridge.put_in_flight(&events::ping());
    Some((bridge, waiting))
}

#[test]
fn events_in_flight_are_answered_before_the_end() {
    let (mut bridge, mut waiting) = or_skip!(with_a_waiting_request("publish_timeout = \"10s\""));
    bridge.signal("TERM");
    let answer = waiting.read_answer().expect("an answer before the end");
    answer.expect_problem(503, "publish_timeout");
    assert!(answer.says_close(), "{answer:?}");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
}

#[test]
fn at_shutdown_timeout_what_still_waits_is_answered_503_and_the_process_ends_with_0() {
    let http = "publish_timeout = \"300s\"\nshutdown_timeout = \"2s\"";
    let (mut bridge, mut waiting) = or_skip!(with_a_waiting_request(http));
    let signalled = Instant::now();
    bridge.signal("TERM");
    let answer = waiting.read_answer().expect("an answer before the end");
    // It may be stored, so `shutting_down` would claim too much.
    answer.expect_problem(503, "publish_timeout");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
    // Much earlier than `publish_timeout`.
    assert!(signalled.elapsed() < PATIENCE, "{:?}", signalled.elapsed());
}

#[test]
fn a_second_signal_ends_it_immediately_and_not_with_0() {
    let http = "publish_timeout = \"300s\"\nshutdown_timeout = \"500s\"";
    let (mut bridge, _waiting) = or_skip!(with_a_waiting_request(http));
    bridge.signal("TERM");
    bridge.wait_for_log("draining");
    bridge.signal("TERM");
    let status = bridge.wait(PATIENCE);
    assert!(!status.success(), "{status:?}");
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let mut bridge = or_skip!(nats().http("shutdown_timeout = \"500s\"").run());
    let mut idle = Connection::open(bridge.public).unwrap();
    let event = events::ping();
    idle.send(&Request::event(&event))
        .unwrap()
        .expect_published(&event);
    let _silent = Connection::open(bridge.public).unwrap();
    bridge.signal("TERM");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_broker_that_is_away_does_not_hold_up_the_end() {
    let nobody = process::port();
    let brokers = [
        kafka_broker("main", &format!("127.0.0.1:{nobody}")),
        nats_broker("main", &format!("nats://127.0.0.1:{nobody}")),
    ];
    for broker in brokers {
        let rest = broker + &synq_source("") + &route("away.x");
        let mut bridge =
            Bridge::run_with("publish_timeout = \"3s\"\nshutdown_timeout = \"6s\"", &rest);
        let mut waiting = Connection::open(bridge.public).unwrap();
        waiting
            .write(&Request::event(&events::ping()).bytes())
            .unwrap();
        let answer = std::thread::scope(|scope| {
            let answer = scope.spawn(|| waiting.read_answer());
            bridge.signal("TERM");
            answer.join().unwrap()
        });
        // A request that arrives just as the listener closes may find nobody.
        if let Ok(answer) = answer {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(
                matches!(
                    answer.outcome().as_str(),
                    "broker_unavailable" | "shutting_down"
                ),
                "{answer:?}"
            );
        }
        assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
    }
}
