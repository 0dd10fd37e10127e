//! Replies that are lost or late, silence, and connections that end in the middle: rows F06, F07, F09, F10.

use std::time::Duration;

use super::trial::{Trial, copies};
use super::{SENDERS, issue};
use crate::support::bridge::{kafka_broker, nats_broker, route, synq_source};
use crate::support::consumer::Stored;
use crate::support::kafka::Kafka;
use crate::support::load::Load;
use crate::support::nats::Nats;
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{self, PATIENCE};

/// A broker behind a proxy, and a destination on it.
pub(super) struct Behind {
    pub(super) proxy: Proxy,
    pub(super) rest: String,
    pub(super) read: Box<dyn Fn() -> Vec<Stored> + Sync>,
    /// Whether the broker itself knows an event again.
    deduplicates: bool,
}

pub(super) fn behind_kafka(name: &str) -> Option<Behind> {
    let (kafka, proxy) = Kafka::behind_proxy()?;
    let topic = kafka.topic(name);
    Some(Behind {
        rest: kafka_broker("main", &proxy.address) + &synq_source("") + &route(&topic),
        proxy,
        read: Box::new(move || kafka.read(&topic)),
        deduplicates: false,
    })
}

pub(super) fn behind_nats(name: &str) -> Option<Behind> {
    let (nats, proxy) = Nats::behind_proxy()?;
    let stream = nats.stream(name);
    Some(Behind {
        rest: nats_broker("main", &format!("nats://{}", proxy.address))
            + &synq_source("")
            + &route(&format!("{stream}.{{type}}")),
        proxy,
        read: Box::new(move || nats.read(&stream)),
        deduplicates: true,
    })
}

// ---- F02, where librdkafka has a message but no connection to send it on

#[test]
fn f02_what_waits_for_a_connection_is_broker_unavailable_and_never_publish_timeout() {
    let Some(behind) = behind_kafka("f02-waiting") else {
        return;
    };
    let trial = Trial::ready(4, &behind.rest);
    let first = issue(0);
    trial.deliver(&first).expect_published(&first);
    behind.proxy.set(Mode::Refuse);
    // So long that librdkafka waits as long as it ever does between two attempts to connect, in which it looks at no message.
    std::thread::scope(|scope| {
        for sender in 0..40 {
            let trial = &trial;
            scope.spawn(move || {
                wait::play_silence(Duration::from_millis(200 * sender));
                trial
                    .deliver(&issue(1))
                    .expect_problem(503, "broker_unavailable");
            });
        }
    });
    behind.proxy.set(Mode::Pass);
    trial.recover();
    trial.finish("F02 waiting", &(behind.read)());
}

// ---- F06

#[test]
fn f06_a_lost_reply_of_nats_is_publish_timeout_and_the_retry_is_a_duplicate() {
    if let Some(behind) = behind_nats("f06") {
        f06("F06 NATS", &behind);
    }
}

#[test]
fn f06_a_lost_reply_of_kafka_is_publish_timeout_and_the_retry_is_a_second_copy() {
    if let Some(behind) = behind_kafka("f06") {
        f06("F06 Kafka", &behind);
    }
}

fn f06(row: &str, behind: &Behind) {
    let trial = Trial::ready(3, &behind.rest);
    assert_eq!(trial.deliver_new().status, 200);
    behind.proxy.set(Mode::DropReplies);
    let event = issue(1);
    trial.deliver(&event).expect_problem(503, "publish_timeout");
    wait::until("the event is in the broker all the same", PATIENCE, || {
        copies(&(behind.read)(), &event) == 1
    });
    behind.proxy.set(Mode::Pass);
    // That resets the connection. A retry that was under way then would be sent twice by the bridge itself, and nobody
    // could say whose duplicate it is.
    trial.recover();
    let answer = trial.retry(&event);
    let stored = (behind.read)();
    if behind.deduplicates {
        assert_eq!(answer.expect_success("duplicate"), event.id);
        assert_eq!(copies(&stored, &event), 1);
    } else {
        answer.expect_published(&event);
        assert!(copies(&stored, &event) >= 2, "{stored:?}");
        let keys: Vec<_> = stored
            .iter()
            .filter(|message| message.event_id() == event.id)
            .map(|message| &message.key)
            .collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    }
    let timeouts = [("outcome", "publish_timeout")];
    trial.wait_for_metric("hookbridge_requests_total", &timeouts, 1.0);
    trial.finish(row, &stored);
}

// ---- F07

#[test]
fn f07_a_held_reply_of_nats_is_waited_for_and_a_late_one_changes_nothing() {
    if let Some(behind) = behind_nats("f07") {
        f07("F07 NATS", &behind);
    }
}

#[test]
fn f07_a_held_reply_of_kafka_is_waited_for_and_a_late_one_changes_nothing() {
    if let Some(behind) = behind_kafka("f07") {
        f07("F07 Kafka", &behind);
    }
}

fn f07(row: &str, behind: &Behind) {
    let trial = Trial::ready(6, &behind.rest);
    assert_eq!(trial.deliver_new().status, 200);

    // Shorter than publish_timeout: 200 after the release, never before (I3).
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    std::thread::scope(|scope| {
        let delivery = scope.spawn(|| trial.deliver(&event));
        wait::until("the event is in the broker", PATIENCE, || {
            copies(&(behind.read)(), &event) == 1
        });
        wait::play_silence(Duration::from_secs(3));
        assert!(!delivery.is_finished(), "answered before any reply came");
        behind.proxy.set(Mode::Pass);
        delivery.join().unwrap().expect_published(&event);
    });

    // Longer than that: 503, whatever comes later.
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    trial.deliver(&event).expect_problem(503, "publish_timeout");
    behind.proxy.set(Mode::Pass);
    if behind.deduplicates {
        // librdkafka has given the message up and says nothing of a late reply.
        trial.wait_for_metric("hookbridge_late_acks_total", &[], 1.0);
    }
    let answer = trial.retry(&event);
    if behind.deduplicates {
        assert_eq!(answer.expect_success("duplicate"), event.id);
    }
    trial.finish(row, &(behind.read)());
}

// ---- F09

#[test]
fn f09_silence_of_nats_is_noticed_and_over_when_it_is_over() {
    for (mode, name) in [(Mode::Freeze, "freeze"), (Mode::Blackhole, "blackhole")] {
        if let Some(behind) = behind_nats("f09") {
            f09(&format!("F09 NATS {name}"), &behind, mode);
        }
    }
}

#[test]
fn f09_silence_of_kafka_is_noticed_and_over_when_it_is_over() {
    for (mode, name) in [(Mode::Freeze, "freeze"), (Mode::Blackhole, "blackhole")] {
        if let Some(behind) = behind_kafka("f09") {
            f09(&format!("F09 Kafka {name}"), &behind, mode);
        }
    }
}

fn f09(row: &str, behind: &Behind, mode: Mode) {
    let trial = Trial::ready(3, &behind.rest);
    assert_eq!(trial.deliver_new().status, 200);
    behind.proxy.set(mode);
    assert_eq!(trial.deliver_new().status, 503);
    let up = || {
        trial
            .bridge
            .metrics()
            .sum("hookbridge_broker_up", &[("broker", "main")])
    };
    wait::until("hookbridge_broker_up is 0", PATIENCE, || {
        assert_eq!(trial.deliver_new().status, 503);
        up() == 0.0
    });
    assert_eq!(trial.bridge.admin("/readyz").status, 503);
    behind.proxy.set(Mode::Pass);
    trial.recover();
    wait::until("hookbridge_broker_up is 1", PATIENCE, || up() == 1.0);
    trial.finish(row, &(behind.read)());
}

// ---- F10

#[test]
fn f10_no_event_is_lost_nor_waits_in_vain_when_connections_to_nats_are_reset_under_load() {
    if let Some(behind) = behind_nats("f10") {
        f10("F10 NATS", &behind);
    }
}

#[test]
fn f10_no_event_is_lost_nor_waits_in_vain_when_connections_to_kafka_are_reset_under_load() {
    if let Some(behind) = behind_kafka("f10") {
        f10("F10 Kafka", &behind);
    }
}

fn f10(row: &str, behind: &Behind) {
    // Above the 8 s of a histogram's bucket, which then shows that nobody waited for all of it.
    let mut trial = Trial::ready(12, &behind.rest);
    let load = Load::start(trial.bridge.public, SENDERS, issue);
    for _ in 0..10 {
        let so_far = load.checker.answered(200);
        wait::until("events are answered 200", PATIENCE, || {
            load.checker.answered(200) >= so_far + 50
        });
        behind.proxy.set(Mode::Reset);
        behind.proxy.set(Mode::Pass);
    }
    let so_far = load.checker.answered(200);
    wait::until("events are answered 200 again", PATIENCE, || {
        load.checker.answered(200) >= so_far + 50
    });
    let checker = load.stop();
    assert_eq!(checker.unanswered(), 0, "{}", checker.summary());
    let metrics = trial.bridge.metrics();
    let below_8 = [("le", "8")];
    assert_eq!(
        metrics.sum("hookbridge_request_duration_seconds_bucket", &below_8),
        metrics.sum("hookbridge_request_duration_seconds_count", &[]),
        "a request has waited for all of publish_timeout: {}",
        checker.summary()
    );
    assert!(behind.proxy.accepted() > 10);
    trial.checker = checker;
    let books = trial.finish(row, &(behind.read)());
    assert!(books.acknowledged >= 500, "{books:?}");
}
