//! SIGINT as people and terminals send it: once, twice for one keystroke, and again because it takes too long.

use std::time::{Duration, Instant};

use crate::support::bridge::Bridge;
use crate::support::events;
use crate::support::fixture::{Fixture, nats};
use crate::support::nats::Nats;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

/// Up to how long after the first SIGINT another one is the same keystroke.
const KEYSTROKE: Duration = Duration::from_secs(1);

/// Attempts to send two signals within [`KEYSTROKE`] on a busy machine.
const ATTEMPTS: usize = 20;

/// A bridge whose shutdown waits for a request, which waits for an acknowledgement that never comes.
fn draining(publish_timeout: &str) -> Option<(Fixture<Nats>, Connection, Instant)> {
    let http = format!("publish_timeout = \"{publish_timeout}\"\nshutdown_timeout = \"500s\"");
    let mut bridge = nats().http(&http).run()?;
    bridge.silence();
    let waiting = bridge.put_in_flight(&events::ping());
    let interrupted = Instant::now();
    bridge.signal("INT");
    bridge.wait_for_log("draining");
    Some((bridge, waiting, interrupted))
}

/// Whether the bridge got a signal before the time was up: it answers a request that came after it.
fn is_received_in_time(bridge: &Bridge, interrupted: Instant) -> bool {
    let request = Request::new("GET", "/healthz");
    let answer = Connection::open(bridge.admin).and_then(|mut admin| admin.send(&request));
    answer.is_ok() && interrupted.elapsed() < KEYSTROKE
}

#[test]
fn sigint_twice_within_a_second_is_one_keystroke_and_every_request_is_answered() {
    for _ in 0..ATTEMPTS {
        let (mut bridge, mut waiting, interrupted) = or_skip!(draining("5s"));
        bridge.signal("INT");
        // Too late, it has ended.
        if interrupted.elapsed() >= KEYSTROKE || !is_received_in_time(&bridge, interrupted) {
            continue;
        }
        let answer = waiting.read_answer().expect("an answer before the end");
        answer.expect_problem(503, "publish_timeout");
        assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
        return;
    }
    panic!("the machine is too busy for two signals within {KEYSTROKE:?}");
}

#[test]
fn sigint_again_after_a_second_ends_it_immediately_and_not_with_0() {
    let (mut bridge, _waiting, _) = or_skip!(draining("300s"));
    // The first one came before the log line.
    wait::play_silence(KEYSTROKE + Duration::from_millis(200));
    bridge.signal("INT");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(1));
    bridge.wait_for_line(&["a second SIGINT ended the service immediately"]);
}
