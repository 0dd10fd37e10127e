//! Request boundaries: no byte of one request ever becomes part of another event.

use crate::support::events::{self, SECRET};
use crate::support::fixture::nats;
use crate::support::sender::{Connection, Request};

#[test]
fn chunks_of_any_size_are_one_body() {
    let bridge = or_skip!(nats().run());
    let mut sent = Vec::new();
    for size in [1, 2, 13, 4096] {
        let event = events::ping_of_size(5000);
        let answer = bridge.send(&Request::event(&event).chunked(size));
        answer.expect_published(&event);
        sent.push(event.body);
    }
    assert_eq!(bridge.bodies(), sent);
}

#[test]
fn a_sender_that_expects_100_continue_gets_it() {
    let bridge = or_skip!(nats().run());
    let event = events::ping();
    let answer = bridge.send(&Request::event(&event).header("Expect", "100-continue"));
    answer.expect_published(&event);
    assert_eq!(answer.interim, [100]);
}

#[test]
fn the_unread_rest_of_a_refused_body_never_becomes_a_request() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
    let hidden = Request::event(&events::ping()).bytes();
    let request = Request::signed_body([vec![b' '; 4096], hidden.clone(), hidden].concat());
    for request in [request.clone(), request.chunked(600)] {
        let mut connection = Connection::open(bridge.public).unwrap();
        drop(connection.write(&request.bytes())); // it may be cut off
        let all = connection.expect_close();
        assert!(all.starts_with("HTTP/1.1 413 "), "{all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "one answer: {all}");
    }
    assert_eq!(bridge.read(), []);
}

/// Its name, its header lines, and the bytes after them.
type Trick<'t> = (&'t str, &'t [(&'t str, &'t str)], &'t [u8]);

#[test]
fn framing_tricks_never_make_two_events_of_one() {
    let bridge = or_skip!(nats().run());
    let body = events::ping().body;
    let signed = Request::post("/hooks/synq", body.clone()).signed(SECRET);
    let chunks = |body: &[u8]| {
        let size = format!("{:x}\r\n", body.len());
        [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    let (plain, chunked) = (body.len().to_string(), chunks(&body));
    let (length, coding) = ("Content-Length", "Transfer-Encoding");
    let tricks: [Trick<'_>; 9] = [
        ("two lengths", &[(length, &plain), (length, "5")], &body),
        ("not a length", &[(length, "+5")], &body),
        ("two lengths in one line", &[(length, "5, 6")], &body),
        ("an unknown coding", &[(coding, "xchunked")], &chunked),
        ("not last", &[(coding, "chunked, identity")], &chunked),
        ("HTTP/1.0", &[(coding, "chunked")], &chunked),
        ("a space", &[("Content-Length ", &plain)], &body),
        (
            "a folded line",
            &[(length, &plain), ("X-Folded", "a\r\n b")],
            &body,
        ),
        (
            "not a size",
            &[(coding, "chunked")],
            b"zz\r\n{}\r\n0\r\n\r\n",
        ),
    ];
    for (name, lines, body) in tricks {
        println!("{name}");
        let mut request = signed.clone();
        for (name, value) in lines {
            request = request.header(name, value);
        }
        let version = if name == "HTTP/1.0" { name } else { "HTTP/1.1" };
        let head = String::from_utf8(request.head()).unwrap();
        let head = head.replacen("HTTP/1.1", version, 1);
        let mut connection = Connection::open(bridge.public).unwrap();
        let bytes = [head.as_bytes(), body].concat();
        connection.write(&bytes).unwrap();
        connection.finish_writing();
        let all = connection.expect_close();
        assert!(!all.contains(" 200 ") && !all.contains(" 500 "), "{all}");
    }
    assert_eq!(bridge.read(), []);

    // With both framings: refused, or read as chunks; the request after it is answered on its own or not at all.
    let (event, second) = (events::ping(), events::ping());
    let both = Request::event(&event)
        .header(length, "5")
        .header(coding, "chunked");
    let behind = Request::event(&second).bytes();
    let bytes = [both.head(), chunks(&event.body), behind].concat();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    connection.finish_writing();
    let all = connection.expect_close();
    assert!(!all.contains(" 500 "), "{all}");
    for body in bridge.bodies() {
        assert!(body == event.body || body == second.body, "{body:?}");
    }
}

#[test]
fn a_body_shorter_than_declared_is_not_an_event() {
    let bridge = or_skip!(nats().run());
    for missing in [1, 7] {
        let event = events::ping();
        let length = (event.body.len() + missing).to_string();
        let request = Request::event(&event).header("Content-Length", &length);
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(&request.bytes()).unwrap();
        connection.finish_writing();
        let all = connection.expect_close();
        assert!(!all.contains(" 200 "), "{all}");
    }
    for name in ["hookbridge_in_flight", "hookbridge_in_flight_bytes"] {
        bridge.wait_metric(name, &[], 0.0);
    }
    assert_eq!(bridge.metric("hookbridge_events_total", &[]), 0.0);
    assert_eq!(bridge.read(), []);
}

#[test]
fn a_body_longer_than_declared_is_cut_and_its_rest_is_not_part_of_the_event() {
    let bridge = or_skip!(nats().run());
    let event = events::ping();
    let length = (event.body.len() - 7).to_string();
    let request = Request::event(&event).header("Content-Length", &length);
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&request.bytes()).unwrap();
    let answer = connection.read_answer().unwrap();
    answer.expect_problem(401, "invalid_signature");
    connection.finish_writing();
    let rest = connection.expect_close();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 400 "),
        "{rest}"
    );
    assert_eq!(bridge.read(), []);
}

#[test]
fn no_garbage_brings_a_500_or_the_end() {
    let http = "header_timeout = \"1s\"\nbody_timeout = \"1s\"";
    let bridge = or_skip!(nats().http(http).run());
    let garbage: [&[u8]; 10] = [
        b"\0\0\0\0",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /hooks/synq HTTP/9.9\r\n\r\n",
        b"POST /hooks/synq\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST http://[::1/hooks HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /hooks/synq HTTP/1.1\r\nHost: x\r\nX-Coalesce-Signature: \xff\xfe\r\nX-Coalesce-Timestamp: 1\r\nContent-Length: 0\r\n\r\n",
        b"POST /hooks/synq HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\r\nContent-Length: 0\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPOST / HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        let mut connection = Connection::open(bridge.public).unwrap();
        drop(connection.write(bytes));
        connection.finish_writing();
        let all = connection.expect_close();
        let status = all.get(9..12).and_then(|status| status.parse().ok());
        assert!(
            all.is_empty() || status.is_some_and(|status| (400..500).contains(&status)),
            "{bytes:?}: {all}"
        );
    }
    bridge.publish_ping();
}
