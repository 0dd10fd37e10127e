//! Limits of a request: time, bytes, and a share of what is in flight.

use std::time::{Duration, Instant};

use crate::support::events;
use crate::support::fixture::nats;
use crate::support::sender::{Connection, Request};
use crate::support::wait;

// ---- Time

#[test]
fn a_body_that_is_too_slow_is_408_request_timeout() {
    let bridge = or_skip!(nats().http("body_timeout = \"1s\"").run());
    let event = events::ping();
    let request = Request::event(&event);

    let mut stalled = Connection::open(bridge.public).unwrap();
    let bytes = request.bytes();
    let sent = Instant::now();
    stalled.write(&bytes[..bytes.len() - 10]).unwrap();
    let answer = stalled.read_answer().unwrap();
    answer.expect_problem(408, "request_timeout");
    let took = sent.elapsed();
    assert!(
        took >= Duration::from_millis(900),
        "it had a second: {took:?}"
    );
    // A request whose end is unknown ends its connection.
    stalled.expect_close();

    // The limit is for the whole body: bytes that keep coming do not extend it.
    let mut dripping = Connection::open(bridge.public).unwrap();
    dripping.write(&request.head()).unwrap();
    dripping.drip(&event.body[..15]);
    let answer = dripping.read_answer().unwrap();
    answer.expect_problem(408, "request_timeout");
    assert_eq!(bridge.read(), []);
}

#[test]
fn a_head_that_is_too_slow_closes_the_connection() {
    for http in [
        "header_timeout = \"1s\"",
        "header_timeout = \"1s\"\nhttp2 = true",
    ] {
        let bridge = or_skip!(nats().http(http).run());
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.drip(b"POST /hooks/synq HTTP/1.1\r\nHost: x\r\n");
        let rest = connection.expect_close();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 408 "),
            "{rest}"
        );
    }
}

#[test]
fn an_idle_connection_is_closed_after_idle_timeout_and_not_after_header_timeout() {
    let http = "header_timeout = \"500ms\"\nidle_timeout = \"3s\"";
    let bridge = or_skip!(nats().http(http).run());
    let mut connection = Connection::open(bridge.public).unwrap();
    for _ in 0..2 {
        connection.publish_ping();
        wait::play_silence(Duration::from_millis(1200)); // above header_timeout, below idle_timeout
    }
    connection.publish_ping();
    assert_eq!(connection.expect_close(), "", "without a word");
}

#[test]
fn a_connection_that_sends_nothing_is_closed() {
    for http in [
        "idle_timeout = \"1s\"",
        "idle_timeout = \"1s\"\nheader_timeout = \"1s\"\nhttp2 = true",
    ] {
        let bridge = or_skip!(nats().http(http).run());
        let mut silent = Connection::open(bridge.public).unwrap();
        bridge.publish_ping();
        silent.expect_close();
    }
}

// ---- Bytes

#[test]
fn a_body_of_exactly_max_body_passes_and_one_byte_more_is_413() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
    let exact = [2048, 2048].map(events::ping_of_size);
    let more = Request::event(&events::ping_of_size(2049));
    bridge.deliver(&exact[0]).expect_published(&exact[0]);
    let chunked = Request::event(&exact[1]).chunked(100);
    bridge.send(&chunked).expect_published(&exact[1]);
    for request in [more.clone(), more.chunked(100)] {
        let answer = bridge.send(&request);
        answer.expect_problem(413, "body_too_large");
    }
    assert_eq!(bridge.bodies(), exact.map(|event| event.body));
}

/// Otherwise whoever chooses a body could send a request through a proxy as if it were the proxy's own.
#[test]
fn nothing_of_a_refused_body_is_read_as_a_request() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
    let chunked = Request::event(&events::ping_of_size(4096)).chunked(4096);
    let unfinished = chunked.bytes();
    let unfinished = unfinished.strip_suffix(b"0\r\n\r\n").unwrap();
    let declared = Request::event(&events::ping()).header("Content-Length", "100000000");
    let (too_large, nowhere) = ((413, "body_too_large"), (404, "unknown_path"));
    for (bytes, (status, code)) in [
        (unfinished, too_large),
        (&declared.head(), too_large),
        (&declared.to("/nowhere").head(), nowhere),
    ] {
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(bytes).unwrap();
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(status, code);
        // Above the second after which a connection counts as idle.
        for _ in 0..16 {
            wait::play_silence(Duration::from_millis(100));
            drop(connection.write(b"\r\n")); // skipped in front of a request line
        }
        drop(connection.write(&Request::event(&events::ping()).bytes()));
        connection.expect_close();
        // Time to read what is there.
        drop(connection.write(&Request::event(&events::ping()).bytes()));
        connection.finish_writing();
    }
    let last = bridge.publish_ping();
    assert_eq!(bridge.bodies(), [last.body]);
}

#[test]
fn max_body_of_a_source_goes_before_the_general_one() {
    let setup = nats().http("max_body = \"1KiB\"");
    let bridge = or_skip!(setup.source("max_body = \"2KiB\"").run());
    let event = events::ping_of_size(2048);
    bridge.deliver(&event).expect_published(&event);
    let answer = bridge.deliver(&events::ping_of_size(2049));
    answer.expect_problem(413, "body_too_large");
}

#[test]
fn a_declared_length_over_the_limit_is_413_before_the_body_is_sent() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
    let declared = Request::new("POST", "/hooks/synq")
        .header("Content-Type", "application/json")
        .header("Content-Length", "1099511627776");
    let expecting = declared.clone().header("Expect", "100-continue");
    for request in [declared, expecting] {
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(&request.head()).unwrap();
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(413, "body_too_large");
        assert_eq!(answer.interim, [0_u16; 0], "no invitation: {answer:?}");
        assert!(answer.says_close(), "{answer:?}");
        connection.expect_close();
    }
}

#[test]
fn a_head_that_is_too_long_for_its_uri_is_431_on_a_new_connection_and_on_one_in_use() {
    let bridge = or_skip!(nats().run());
    let with_uri = |length: usize| {
        let path = format!("/{}", "x".repeat(length));
        Request::event(&events::ping()).to(&path)
    };
    for length in [70_000, 33_000] {
        let answer = bridge.send(&with_uri(length));
        assert_eq!(answer.status, 431, "{length}: {answer:?}");
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.publish_ping();
        let answer = connection.send(&with_uri(length)).unwrap();
        assert_eq!(answer.status, 431, "{length}");
        assert!(answer.says_close() && answer.header("date").is_some());
        assert_eq!(connection.expect_close(), "");
    }
    // In pieces.
    let mut connection = Connection::open(bridge.public).unwrap();
    for piece in with_uri(40_000).head().chunks(1000) {
        if connection.write(piece).is_err() {
            break;
        }
    }
    assert_eq!(connection.read_answer().unwrap().status, 431);
    // Long, but not too long, also in pieces and on a connection that was idle.
    let mut connection = Connection::open(bridge.public).unwrap();
    for _ in 0..2 {
        for piece in with_uri(30_000).bytes().chunks(1000) {
            connection.write(piece).unwrap();
        }
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(404, "unknown_path");
        if answer.says_close() {
            connection = Connection::open(bridge.public).unwrap();
        }
        wait::play_silence(Duration::from_millis(1200));
    }
}

#[test]
fn headers_that_are_too_large_or_too_many_are_431() {
    let bridge = or_skip!(nats().run());
    let large = Request::event(&events::ping()).header("X-Large", &"x".repeat(64 * 1024));
    let many = (0..150).fold(Request::event(&events::ping()), |request, number| {
        request.header(&format!("X-Many-{number}"), "x")
    });
    for request in [large, many] {
        assert_eq!(bridge.send(&request).status, 431);
    }
    bridge.publish_ping();
}

// ---- Events in flight

#[test]
fn more_than_max_in_flight_is_503_overloaded_immediately() {
    let http = "max_in_flight = 1\npublish_timeout = \"20s\"";
    let bridge = or_skip!(nats().http(http).run());
    bridge.silence();
    let _waiting = bridge.put_in_flight(&events::ping());
    let answer = bridge.deliver(&events::ping());
    answer.expect_problem(503, "overloaded");
    let in_flight = bridge.metric("hookbridge_in_flight", &[]);
    assert_eq!(in_flight, 1.0, "the first one still waits");
}

#[test]
fn more_than_max_in_flight_bytes_is_503_overloaded_immediately() {
    let http = "max_in_flight_bytes = \"3KiB\"\nmax_body = \"2KiB\"\npublish_timeout = \"20s\"";
    let bridge = or_skip!(nats().http(http).run());
    bridge.silence();
    let _waiting = bridge.put_in_flight(&events::ping_of_size(2000));
    let answer = bridge.deliver(&events::ping_of_size(2000));
    answer.expect_problem(503, "overloaded");
}

#[test]
fn overloaded_keeps_the_connection_unless_a_body_is_left_on_it() {
    let http = "max_in_flight = 1\npublish_timeout = \"30s\"";
    let bridge = or_skip!(nats().http(http).run());
    bridge.silence();
    let _waiting = bridge.put_in_flight(&events::ping());
    // In one piece, in several, and in chunks, whose total length is not known in advance.
    let mut connection = Connection::open(bridge.public).unwrap();
    for size in [300, 3000, 15_000, 300] {
        let event = events::ping_of_size(size);
        let answer = connection.send(&Request::event(&event)).unwrap();
        answer.expect_problem(503, "overloaded");
        assert!(!answer.says_close(), "{size}: {answer:?}");
    }
    let chunked = Request::event(&events::ping()).chunked(10);
    let answer = connection.send(&chunked).unwrap();
    answer.expect_problem(503, "overloaded");
    assert!(answer.says_close());
    // Large, and small but incomplete: nobody waits for them.
    for size in [100_000, 300] {
        let mut connection = Connection::open(bridge.public).unwrap();
        let head = Request::event(&events::ping_of_size(size)).head();
        connection.write(&head).unwrap();
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(503, "overloaded");
        assert!(answer.says_close(), "{size}: {answer:?}");
    }
}
