//! Lost or late replies, silence, and broken connections: rows F06, F07, F09, F10.

use std::time::Duration;

use super::trial::{Behind, Trial, copies};
use super::{SENDERS, issue};
use crate::support::fixture::Broker;
use crate::support::kafka::Kafka;
use crate::support::load::Load;
use crate::support::proxy::Mode;
use crate::support::wait::{self, PATIENCE};

on_each_broker!(
    f06_a_lost_reply_is_publish_timeout_and_the_retry_is_a_duplicate_where_the_broker_can_tell,
    f07_a_held_reply_is_waited_for_and_a_late_one_changes_nothing,
    f09_silence_is_noticed_and_over_when_it_is_over,
    f10_no_event_is_lost_or_waits_until_its_timeout_when_connections_are_reset_under_load,
);

// ---- F02, where librdkafka has a message but no connection to send it on

#[test]
fn f02_events_waiting_for_a_connection_are_broker_unavailable_and_never_publish_timeout() {
    let behind = or_skip!(Behind::<Kafka>::new("f02"));
    let trial = Trial::ready(4, &behind.tables());
    let first = issue(0);
    trial.deliver(&first).expect_published(&first);
    behind.proxy.set(Mode::Refuse);
    // Long enough for librdkafka to reach its maximum delay between connection attempts, during which it checks no
    // messages.
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
    trial.finish("F02 waiting", &behind.read());
}

// ---- F06

fn f06_a_lost_reply_is_publish_timeout_and_the_retry_is_a_duplicate_where_the_broker_can_tell<
    B: Broker,
>() {
    let behind = or_skip!(Behind::<B>::new("f06"));
    let trial = Trial::ready(3, &behind.tables());
    assert_eq!(trial.deliver_new().status, 200);
    behind.proxy.set(Mode::DropReplies);
    let event = issue(1);
    trial.deliver(&event).expect_problem(503, "publish_timeout");
    wait::until("the event is in the broker all the same", PATIENCE, || {
        copies(&behind.read(), &event) == 1
    });
    behind.proxy.set(Mode::Pass);
    // That resets the connection. A retry in flight at that moment would be sent twice by the bridge itself, and it
    // would be unclear whose duplicate it is.
    trial.recover();
    let answer = trial.retry(&event);
    let stored = behind.read();
    if B::DEDUPLICATES {
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
    trial.finish(&format!("F06 {}", B::NAME), &stored);
}

// ---- F07

fn f07_a_held_reply_is_waited_for_and_a_late_one_changes_nothing<B: Broker>() {
    let behind = or_skip!(Behind::<B>::new("f07"));
    let trial = Trial::ready(6, &behind.tables());
    assert_eq!(trial.deliver_new().status, 200);

    // Shorter than publish_timeout: 200 after the release, never before.
    behind.proxy.set(Mode::HoldReplies);
    let event = issue(1);
    std::thread::scope(|scope| {
        let delivery = scope.spawn(|| trial.deliver(&event));
        wait::until("the event is in the broker", PATIENCE, || {
            copies(&behind.read(), &event) == 1
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
    if B::DEDUPLICATES {
        // librdkafka has given up on the message and does not report late replies.
        trial.wait_for_metric("hookbridge_late_acks_total", &[], 1.0);
    }
    let answer = trial.retry(&event);
    if B::DEDUPLICATES {
        assert_eq!(answer.expect_success("duplicate"), event.id);
    }
    trial.finish(&format!("F07 {}", B::NAME), &behind.read());
}

// ---- F09

fn f09_silence_is_noticed_and_over_when_it_is_over<B: Broker>() {
    for mode in [Mode::Freeze, Mode::Blackhole] {
        silent(&or_skip!(Behind::<B>::new("f09")), mode);
    }
}

fn silent<B: Broker>(behind: &Behind<B>, mode: Mode) {
    let trial = Trial::ready(3, &behind.tables());
    assert_eq!(trial.deliver_new().status, 200);
    behind.proxy.set(mode);
    assert_eq!(trial.deliver_new().status, 503);
    let up = || {
        trial
            .bridge
            .metric("hookbridge_broker_up", &[("broker", "main")])
    };
    wait::until("hookbridge_broker_up is 0", PATIENCE, || {
        assert_eq!(trial.deliver_new().status, 503);
        up() == 0.0
    });
    assert_eq!(trial.bridge.admin("/readyz").status, 503);
    behind.proxy.set(Mode::Pass);
    trial.recover();
    wait::until("hookbridge_broker_up is 1", PATIENCE, || up() == 1.0);
    trial.finish(&format!("F09 {}", B::NAME), &behind.read());
}

// ---- F10

fn f10_no_event_is_lost_or_waits_until_its_timeout_when_connections_are_reset_under_load<
    B: Broker,
>() {
    let behind = or_skip!(Behind::<B>::new("f10"));
    // Above the 8 s of a histogram bucket, which then shows that nobody waited for all of it.
    let mut trial = Trial::ready(12, &behind.tables());
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
    let books = trial.finish(&format!("F10 {}", B::NAME), &behind.read());
    assert!(books.acknowledged >= 500, "{books:?}");
}
