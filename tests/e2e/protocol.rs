//! HTTP as the RFCs define it: the end of a request, its target, its framing, and the end of a connection.

use std::io::Write as _;
use std::time::Duration;

use tokio_rustls::rustls::version::TLS13;

use crate::support::bridge::Bridge;
use crate::support::consumer::only;
use crate::support::events::{self, Event};
use crate::support::fixture::nats;
use crate::support::sender::{Connection, Request};
use crate::support::tls::{self, CERTIFICATES};
use crate::support::wait::{self};

const DISCONNECTS: &str = "hookbridge_client_disconnects_total";

// ---- Where a request ends

#[test]
fn a_sender_that_ends_its_side_after_its_request_is_answered() {
    let bridge = or_skip!(nats().run());
    let mut sent = Vec::new();
    for size in [300, 300_000] {
        for chunk in [None, Some(1000)] {
            let event = events::ping_of_size(size);
            let mut request = Request::event(&event);
            if let Some(size) = chunk {
                request = request.chunked(size);
            }
            let mut connection = Connection::open(bridge.public).unwrap();
            connection.write(&request.bytes()).unwrap();
            connection.finish_writing();
            let answer = connection.read_answer().unwrap();
            answer.expect_published(&event);
            assert_eq!(connection.expect_close(), "");
            sent.push(event.body);
        }
    }
    // Two requests before the end.
    let pair = [events::ping(), events::ping()];
    let mut connection = Connection::open(bridge.public).unwrap();
    let both = pair.each_ref().map(|event| Request::event(event).bytes());
    connection.write(&both.concat()).unwrap();
    connection.finish_writing();
    for event in &pair {
        connection.read_answer().unwrap().expect_published(event);
    }
    assert_eq!(connection.expect_close(), "");
    sent.extend(pair.map(|event| event.body));
    // A refusal is an answer, too.
    let mut connection = Connection::open(bridge.public).unwrap();
    let bytes = Request::post("/hooks/synq", "{}").bytes();
    connection.write(&bytes).unwrap();
    connection.finish_writing();
    let answer = connection.read_answer().unwrap();
    answer.expect_problem(401, "missing_signature");
    assert_eq!(connection.expect_close(), "");
    assert_eq!(bridge.bodies(), sent);
    bridge.wait_metric("hookbridge_connections", &[], 0.0);
    let disconnects = bridge.metric(DISCONNECTS, &[]);
    assert_eq!(disconnects, 0.0, "each waited for its answer");
}

#[test]
fn a_sender_that_ends_its_side_of_tls_after_its_request_is_answered() {
    let (cert, key) = (&CERTIFICATES.certificate, &CERTIFICATES.key);
    let http = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let bridge = or_skip!(nats().http(&http).run());
    let client = tls::client(&[&TLS13], None);
    let mut stream_of = tls::open(bridge.public, &client, "localhost").unwrap();
    let event = events::ping();
    stream_of.write(&Request::event(&event).bytes()).unwrap();
    let wire = stream_of.wire_mut();
    wire.conn.send_close_notify();
    wire.flush().unwrap();
    stream_of.finish_writing();
    stream_of.read_answer().unwrap().expect_published(&event);
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn a_sender_that_hangs_up_with_a_reset_is_noticed_before_its_answer() {
    let bridge = or_skip!(nats().http("publish_timeout = \"60s\"").run());
    bridge.silence();
    let event = events::ping();
    let request = Request::event(&event).header("Expect", "100-continue");
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&request.bytes()).unwrap();
    bridge.wait_metric("hookbridge_in_flight", &[], 1.0);
    connection.reset_unread();
    bridge.wait_metric(DISCONNECTS, &[], 1.0);
    let in_flight = bridge.metric("hookbridge_in_flight", &[]);
    assert_eq!(in_flight, 1.0, "it goes on");
}

// ---- The target of a request

#[test]
fn a_request_names_its_host_once() {
    let bridge = or_skip!(nats().run());
    let event = events::ping();
    let request = Request::event(&event);
    let without = request.clone().without("host");
    let twice = request.clone().header("Host", "hooks.example.com");
    let mut bad = vec![without.clone(), twice];
    for value in ["a b", "a,b", "user@x", "x/y", "x:port", "[::1"] {
        bad.push(without.clone().header("Host", value));
    }
    for request in &bad {
        let answer = bridge.send(request);
        println!("{:?}", request.headers);
        answer.expect_problem(400, "bad_request");
        assert!(answer.says_close(), "{answer:?}");
    }
    assert_eq!(bridge.read(), []);
    for value in ["", "x", "hooks.example.com:8080", "[::1]:80"] {
        let event = events::ping();
        let request = Request::event(&event).without("host").header("Host", value);
        bridge.send(&request).expect_published(&event);
    }
    // HTTP/1.0 did not know the header.
    let bytes = String::from_utf8(without.bytes()).unwrap();
    let mut connection = Connection::open(bridge.public).unwrap();
    let bytes = bytes.replacen("HTTP/1.1", "HTTP/1.0", 1);
    connection.write(bytes.as_bytes()).unwrap();
    connection.read_answer().unwrap().expect_published(&event);
}

#[test]
fn a_query_changes_nothing_and_a_fragment_or_a_foreign_target_is_400() {
    let bridge = or_skip!(nats().run());
    let mut connection = Connection::open(bridge.public).unwrap();
    for target in [
        "/hooks/synq?x=1",
        "/hooks/synq?",
        "http://localhost/hooks/synq",
        "http://LOCALHOST:80/hooks/synq?x",
    ] {
        println!("{target}");
        let event = events::ping();
        let request = Request::event(&event).to(target);
        let answer = connection.send(&request).unwrap();
        answer.expect_published(&event);
    }
    let before = bridge.bodies().len();
    for target in [
        "/hooks/synq#x",
        "/hooks/synq?x#y",
        "http://other.example.com/hooks/synq",
        "http://localhost:8080/hooks/synq",
        "http://user@localhost/hooks/synq",
        "ftp://localhost/hooks/synq",
    ] {
        println!("{target}");
        let event = events::ping();
        let answer = bridge.send(&Request::event(&event).to(target));
        answer.expect_problem(400, "bad_request");
        // The same on a connection that has been used.
        let mut connection = Connection::open(bridge.public).unwrap();
        let first = events::ping();
        let answer = connection.send(&Request::event(&first).to("/nowhere"));
        if answer.unwrap().says_close() {
            continue;
        }
        let answer = connection.send(&Request::event(&event).to(target));
        answer.unwrap().expect_problem(400, "bad_request");
    }
    assert_eq!(bridge.bodies().len(), before);
}

// ---- Framing and coding

#[test]
fn the_only_transfer_coding_is_chunked_once() {
    let bridge = or_skip!(nats().run());
    for lines in [
        &["gzip, chunked"][..],
        &["chunked, chunked"],
        &["gzip", "chunked"],
        &["chunked", "chunked"],
        &["identity, chunked"],
        &[", chunked"],
    ] {
        println!("{lines:?}");
        let event = events::ping();
        let mut request = Request::event(&event).chunked(10);
        for line in lines {
            request = request.header("Transfer-Encoding", line);
        }
        let answer = bridge.send(&request);
        answer.expect_problem(400, "bad_request");
        assert!(answer.says_close(), "{answer:?}");
    }
    assert_eq!(bridge.read(), []);
    let event = events::ping();
    let request = Request::event(&event).chunked(10);
    let request = request.header("Transfer-Encoding", " Chunked ");
    bridge.send(&request).expect_published(&event);
}

#[test]
fn an_empty_content_encoding_is_none_and_a_415_for_another_says_what_is_accepted() {
    let bridge = or_skip!(nats().run());
    for coding in ["", "identity", "Identity, ", ",,"] {
        let event = events::ping();
        let request = Request::event(&event).header("Content-Encoding", coding);
        bridge.send(&request).expect_published(&event);
    }
    for coding in ["gzip", "identity, gzip"] {
        let request = Request::event(&events::ping()).header("Content-Encoding", coding);
        let answer = bridge.send(&request);
        answer.expect_problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
    let request = Request::event(&events::ping()).without("content-type");
    let answer = bridge.send(&request.header("Content-Type", "text/plain"));
    answer.expect_problem(415, "unsupported_media_type");
    assert_eq!(answer.header("accept-encoding"), None);
}

// ---- How a connection ends

/// Behaves like a buffering proxy: it writes the whole request before it reads the answer.
fn send_all_before_reading(bridge: &Bridge, request: &Request) -> Connection {
    let mut connection = Connection::open(bridge.public).unwrap();
    let written = connection.write(&request.bytes());
    written.expect("all of it is taken, though most of it is dropped");
    connection
}

#[test]
fn a_sender_that_writes_all_before_it_reads_sees_an_early_refusal() {
    let bridge = or_skip!(nats().run());
    let large = events::ping_of_size(16 * 1024 * 1024);
    let request = Request::event(&large);
    let answer = send_all_before_reading(&bridge, &request).read_answer();
    answer.unwrap().expect_problem(413, "body_too_large");
    let lost = request.to("/nowhere");
    let answer = send_all_before_reading(&bridge, &lost).read_answer();
    answer.unwrap().expect_problem(404, "unknown_path");
    let unsigned = Request::post("/hooks/synq", vec![b' '; 1024 * 1024]);
    let answer = send_all_before_reading(&bridge, &unsigned).read_answer();
    answer.unwrap().expect_problem(401, "missing_signature");
}

#[test]
fn the_first_byte_of_a_connection_has_the_time_of_a_head() {
    let (cert, key) = (&CERTIFICATES.certificate, &CERTIFICATES.key);
    let with_tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    for more in ["", "http2 = true", &with_tls] {
        let http = format!("header_timeout = \"1s\"\nidle_timeout = \"10m\"\n{more}");
        let bridge = or_skip!(nats().http(&http).run());
        if more.starts_with("tls") {
            let client = tls::client(&[&TLS13], None);
            let mut silent = tls::open(bridge.public, &client, "localhost").unwrap();
            silent.expect_close();
            continue;
        }
        let mut silent = Connection::open(bridge.public).unwrap();
        assert_eq!(silent.expect_close(), "", "{more}");
        // Between requests it has longer.
        let mut used = Connection::open(bridge.public).unwrap();
        for _ in 0..2 {
            let event: Event = events::ping();
            let answer = used.send(&Request::event(&event)).unwrap();
            answer.expect_published(&event);
            wait::play_silence(Duration::from_millis(1500));
        }
    }
}
