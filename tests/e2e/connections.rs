//! Connections: their lifetime, and the requests that one may carry in sequence.

use std::time::{Duration, Instant};

use crate::support::events;
use crate::support::fixture::nats;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

#[test]
fn a_connection_is_kept_through_answers_of_all_kinds() {
    let bridge = or_skip!(nats().run());
    let mut connection = Connection::open(bridge.public).unwrap();
    for round in 0..3 {
        let event = Request::event(&events::ping());
        let requests = [
            (event.clone(), 200),
            (event.clone().without("x-coalesce-signature"), 401),
            (Request::signed_body("{"), 400),
            (Request::signed_body("{}"), 422),
            (event.to("/nowhere"), 404),
            (Request::new("GET", "/hooks/synq"), 405),
            (Request::event(&events::ping()).chunked(7), 200),
        ];
        for (request, status) in requests {
            let answer = connection.send(&request);
            let answer = answer.unwrap_or_else(|error| panic!("{round}, {status}: {error}"));
            assert_eq!(answer.status, status, "{answer:?}");
            if answer.says_close() {
                assert!(status >= 400, "no reason to close: {answer:?}");
                connection = Connection::open(bridge.public).unwrap();
            }
        }
    }
    assert_eq!(bridge.read().len(), 6);
}

#[test]
fn connection_close_is_honoured_and_http_1_0_is_answered() {
    let bridge = or_skip!(nats().run());
    let event = events::ping();
    let mut connection = Connection::open(bridge.public).unwrap();
    let request = Request::event(&event).header("Connection", "close");
    let answer = connection.send(&request).unwrap();
    answer.expect_published(&event);
    connection.expect_close();

    let old = String::from_utf8(Request::event(&events::ping()).bytes()).unwrap();
    let old = old.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(old.as_bytes()).unwrap();
    let all = connection.expect_close();
    assert!(
        all.starts_with("HTTP/1.0 200 ") || all.starts_with("HTTP/1.1 200 "),
        "{all}"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let bridge = or_skip!(nats().run());
    let sent: Vec<_> = (0..20).map(|_| events::ping()).collect();
    let bytes = sent.iter().enumerate().flat_map(|(number, event)| {
        let request = Request::event(event);
        match number % 3 {
            0 => request.chunked(11).bytes(),
            _ => request.bytes(),
        }
    });
    let bytes: Vec<u8> = bytes.collect();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    for event in &sent {
        connection.read_answer().unwrap().expect_published(event);
    }
    let bodies = sent.into_iter().map(|event| event.body);
    assert_eq!(bridge.bodies(), bodies.collect::<Vec<_>>());
}

#[test]
fn connections_beyond_max_connections_wait_or_are_closed_and_the_others_are_served() {
    let bridge = or_skip!(nats().http("max_connections = 3").run());
    let open = || Connection::open(bridge.public);
    let mut served: Vec<_> = (0..3).map(|_| open().unwrap()).collect();
    for connection in &mut served {
        connection.publish_ping();
    }
    let mut surplus: Vec<_> = (0..5).filter_map(|_| open().ok()).collect();
    for connection in &mut served {
        connection.publish_ping();
    }
    // The admin listener has a limit of its own.
    assert_eq!(bridge.admin("/healthz").status, 200);
    for connection in &mut surplus {
        drop(connection.write(&Request::event(&events::ping()).bytes()));
        let all = connection
            .read_to_close(Duration::from_millis(200))
            .unwrap_or_default();
        let all = String::from_utf8_lossy(&all);
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 503 "), "{all}");
    }
    drop((served, surplus));
    wait::until("there is room again", PATIENCE, || {
        let sent = open().and_then(|mut open| open.send(&Request::event(&events::ping())));
        sent.is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_connection_that_has_grown_old_is_closed_after_an_answer() {
    let bridge = or_skip!(nats().http("max_connection_age = \"2s\"").run());
    let mut connection = Connection::open(bridge.public).unwrap();
    let opened = Instant::now();
    wait::until("an answer says Connection: close", PATIENCE, || {
        let event = events::ping();
        let answer = connection.send(&Request::event(&event));
        let answer = answer.expect("never closed without saying so");
        answer.expect_published(&event);
        answer.says_close()
    });
    let age = opened.elapsed();
    assert!(age >= Duration::from_millis(1700), "too early: {age:?}");
    connection.expect_close();
}

#[test]
fn a_connection_that_was_idle_is_served_again() {
    let bridge = or_skip!(nats().run());
    let mut connection = Connection::open(bridge.public).unwrap();
    for _ in 0..3 {
        // Longer than a connection keeps its buffers.
        wait::play_silence(Duration::from_millis(1500));
        connection.publish_ping();
    }
    // A head that begins before the pause and ends after it.
    let event = events::ping();
    let request = Request::event(&event).bytes();
    let (before, after) = request.split_at(30);
    connection.write(before).unwrap();
    wait::play_silence(Duration::from_millis(1500));
    connection.write(after).unwrap();
    connection.read_answer().unwrap().expect_published(&event);
}
