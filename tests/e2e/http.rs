//! The public listener and the admin listener, over plain sockets: each row of the contract's answer table, each limit, and
//! what a connection may and may not do. Nearly all of it in front of NATS, which is the quicker to publish to.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::bridge::{Bridge, nats_broker, route, synq_source};
use crate::support::consumer::only;
use crate::support::events::{self, Event, SECRET};
use crate::support::nats::Nats;
use crate::support::sender::{self, Connection, Request};
use crate::support::wait::{self, PATIENCE};

// ---- 200

#[test]
fn a_published_event_is_answered_200_with_its_id() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

#[test]
fn success_status_of_a_source_replaces_200() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "success_status = 202");
    let event = events::ping();
    let answer = bridge.deliver(&event);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(
        answer.json().get("event_id").and_then(Value::as_str),
        Some(event.id.as_str())
    );
    assert_eq!(answer.outcome(), "published");
}

#[test]
fn every_answer_carries_a_request_id_of_its_own() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "max_body = \"2KiB\"", "");
    let requests = [
        Request::event(&events::ping()),
        Request::event(&events::ping()),
        Request::signed_body("{"),
        Request::signed_body("{}"),
        Request::post("/hooks/synq", "{}"),
        Request::post("/", "{}"),
        Request::new("GET", "/hooks/synq"),
        Request::new("HEAD", "/hooks/synq"),
        Request::signed_body(vec![b' '; 4096]),
        Request::signed_body(vec![b' '; 4096]).chunked(512),
        Request::event(&events::ping())
            .without("content-type")
            .header("Content-Type", "text/plain"),
    ];
    let mut ids = HashSet::new();
    for request in &requests {
        let answer = bridge.send(request);
        let id = answer
            .header("x-request-id")
            .unwrap_or_else(|| panic!("{request:?}\n{answer:?}"))
            .to_owned();
        assert!(ids.insert(id), "the same id twice: {answer:?}");
    }
}

// ---- 400

#[test]
fn a_body_that_is_not_json_is_400_invalid_json() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let deep = format!(
        r#"{{"event_id":"1","ping":{{}},"x":{}{}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let bodies = [
        "",
        " ",
        "x",
        "{",
        "{}x",
        "{}{}",
        "{}\n{}",
        r#"{"event_id":"1","ping":{"message":NaN}}"#,
        r#"{"event_id":"1","ping":{}} // why"#,
        r#"{"event_id":"1","ping":{},}"#,
        r#"{"event_id":"1","ping":{},"x":01}"#,
        "{\"event_id\":\"1\",\"ping\":{\"message\":\"a\nb\"}}",
        r#"{"event_id":"1","event_id":"2","ping":{}}"#,
        r#"{"event_id":"1","event\u005fid":"2","ping":{}}"#,
        r#"{"event_id":"1","event_type":"EVENT_TYPE_PING","event_type":10,"ping":{}}"#,
        &deep,
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        println!("body: {shown}");
        bridge
            .send(&Request::signed_body(body))
            .expect_problem(400, "invalid_json");
    }
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn json_that_is_no_object_is_refused() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    for body in ["null", "[]", "\"x\"", "1", "true"] {
        let answer = bridge.send(&Request::signed_body(body));
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
        assert!(
            matches!(answer.outcome().as_str(), "invalid_json" | "invalid_event"),
            "{body}: {answer:?}"
        );
    }
}

#[test]
fn a_body_that_is_not_utf8_is_400_invalid_encoding() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let around = |middle: &[u8]| {
        [
            br#"{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{"message":""#,
            middle,
            br#""}}"#,
        ]
        .concat()
    };
    let not_utf8: [(&str, &[u8]); 5] = [
        ("a lone continuation byte", b"\x80"),
        ("cut off", b"\xe2\x82"),
        ("overlong", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("Latin-1", b"Gr\xfc\xdfe"),
    ];
    for (name, bytes) in not_utf8 {
        println!("{name}");
        bridge
            .send(&Request::signed_body(around(bytes)))
            .expect_problem(400, "invalid_encoding");
    }
    let utf16: Vec<u8> = "{\"event_id\":\"1\",\"ping\":{}}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let with_mark = [b"\xef\xbb\xbf".as_slice(), &events::ping().body].concat();
    for body in [utf16, with_mark] {
        let answer = bridge.send(&Request::signed_body(body));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(
            matches!(
                answer.outcome().as_str(),
                "invalid_json" | "invalid_encoding"
            ),
            "{answer:?}"
        );
    }
}

// ---- 401

#[test]
fn an_event_without_a_signature_is_401_missing_signature() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let signed = Request::event(&events::ping());
    bridge
        .send(&signed.clone().without("x-coalesce-signature"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&signed.clone().without("x-coalesce-timestamp"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&Request::post("/hooks/synq", "not even JSON"))
        .expect_problem(401, "missing_signature");
    assert_eq!(nats.read(&stream), []);
    assert_eq!(
        bridge.send(&signed).status,
        200,
        "the refused attempts must not stand in the way of the real one"
    );
}

#[test]
fn a_wrong_signature_is_401_invalid_signature_and_the_text_never_says_what_differed() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let event = events::ping();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    let right = events::signature_value(SECRET, &now, &event.body);
    let hex = right.trim_start_matches("v1=");
    let mut changed = event.body.clone();
    changed.push(b' ');
    let values = [
        events::signature_value("another secret", &now, &event.body),
        events::signature_value(SECRET, &now, &changed),
        events::signature_value(SECRET, "1795132800", &event.body),
        String::new(),
        "v1=".to_owned(),
        hex.to_owned(),
        format!("v1={}", &hex[..62]),
        format!("v1={hex}00"),
        format!("v2={hex}"),
        format!("sha256={hex}"),
        format!("v1={}", "zz".repeat(32)),
        format!("v1={}", "0".repeat(64)),
    ];
    let mut texts = HashSet::new();
    for value in values {
        println!("signature: {value}");
        let request = Request::post("/hooks/synq", event.body.clone())
            .header("X-Coalesce-Timestamp", &now)
            .header("X-Coalesce-Signature", &value);
        let answer = bridge.send(&request);
        let code = answer.outcome();
        if value.is_empty() && code == "missing_signature" {
            answer.expect_problem(401, "missing_signature");
            continue;
        }
        let mut problem = answer.expect_problem(401, "invalid_signature");
        let id = answer.header("x-request-id").unwrap_or_default();
        problem
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.as_str().is_some_and(|text| text.contains(id)));
        texts.insert(problem.to_string());
    }
    assert_eq!(
        texts.len(),
        1,
        "one text for all wrong signatures: {texts:#?}"
    );
    assert_eq!(nats.read(&stream), []);
    let log = bridge.log().join("\n");
    assert!(
        !log.contains(SECRET) && !log.contains(hex),
        "secrets and digests stay out of the log:\n{log}"
    );
}

#[test]
fn a_signature_over_other_bytes_with_the_same_meaning_is_refused() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let signed =
        b"{\"event_id\":\"1\",\r\n\"event_type\":\"EVENT_TYPE_PING\",\"ping\":{}}".to_vec();
    let sent = String::from_utf8(signed.clone())
        .unwrap()
        .replace("\r\n", "\n");
    let mut request = Request::post("/hooks/synq", sent);
    request.headers.extend(events::signature(SECRET, &signed));
    bridge
        .send(&request)
        .expect_problem(401, "invalid_signature");
}

#[test]
fn a_timestamp_out_of_tolerance_is_401_stale_timestamp() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let signed_at = |time: SystemTime| {
        let event = events::ping();
        let mut request = Request::post("/hooks/synq", event.body.clone());
        request
            .headers
            .extend(events::signature_at(SECRET, &event.body, time));
        request
    };
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let now = SystemTime::now();
    for time in [now - minutes(36), now + minutes(36), SystemTime::UNIX_EPOCH] {
        bridge
            .send(&signed_at(time))
            .expect_problem(401, "stale_timestamp");
    }
    assert_eq!(
        bridge.send(&signed_at(now - minutes(34))).status,
        200,
        "a late retry keeps its first timestamp"
    );
    assert_eq!(bridge.send(&signed_at(now + minutes(34))).status, 200);
    let strict = Bridge::to_nats(nats, &stream, "", "tolerance = \"1m\"");
    strict
        .send(&signed_at(now - minutes(3)))
        .expect_problem(401, "stale_timestamp");
    assert_eq!(strict.send(&signed_at(SystemTime::now())).status, 200);
}

#[test]
fn during_a_rotation_either_secret_is_good() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let source = "[sources.synq]\nsecrets = [\"the old one\", \"the new one\"]\n";
    let bridge =
        Bridge::run(&(nats_broker("main", &nats.url) + source + &route(&format!("{stream}.x"))));
    bridge.wait_ready();
    let with = |secret: &str| Request::post("/hooks/synq", events::ping().body).signed(secret);
    assert_eq!(bridge.send(&with("the old one")).status, 200);
    assert_eq!(bridge.send(&with("the new one")).status, 200);
    bridge
        .send(&with("another one"))
        .expect_problem(401, "invalid_signature");
}

// ---- 404, 405

#[test]
fn only_the_exact_path_is_known() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let paths = [
        "/",
        "/hooks",
        "/hooks/",
        "/hooks/syn",
        "/hooks/synq/",
        "/hooks/synq/x",
        "/hooks/Synq",
        "/HOOKS/synq",
        "//hooks/synq",
        "/hooks//synq",
        "/hooks/./synq",
        "/hooks/x/../synq",
        "/hooks/s%79nq",
        "/hooks%2fsynq",
        "/hooks/%2e%2e/hooks/synq",
        "/hooks/synq%00",
        "/hooks/synq;x=1",
        "/%3Cscript%3E",
        "/metrics",
        "/healthz",
        "/readyz",
    ];
    for path in paths {
        println!("path: {path}");
        bridge
            .send(&Request::event(&events::ping()).to(path))
            .expect_problem(404, "unknown_path");
        bridge
            .send(&Request::new("GET", path))
            .expect_problem(404, "unknown_path");
    }
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn another_method_is_405_with_allow() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    for method in [
        "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW",
    ] {
        println!("method: {method}");
        let mut request = Request::event(&events::ping());
        request.method = method.to_owned();
        if matches!(method, "GET" | "HEAD" | "TRACE" | "OPTIONS") {
            request.body.clear();
        }
        let answer = bridge.send(&request);
        assert_eq!(answer.status, 405, "{answer:?}");
        assert_eq!(answer.header("allow"), Some("POST"), "{answer:?}");
        if method != "HEAD" {
            answer.expect_problem(405, "method_not_allowed");
        }
    }
    let connect = bridge.send(&Request::new("CONNECT", "hooks.example.com:443"));
    assert!(matches!(connect.status, 400 | 404 | 405), "{connect:?}");
    let everything = bridge.send(&Request::new("OPTIONS", "*"));
    assert!(
        matches!(everything.status, 400 | 404 | 405),
        "{everything:?}"
    );
    assert_eq!(nats.read(&stream), []);
}

// ---- 408 and other time limits

#[test]
fn a_body_that_is_too_slow_is_408_request_timeout() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "body_timeout = \"1s\"", "");
    let event = events::ping();
    let request = Request::event(&event);

    let mut stalled = Connection::open(bridge.public).unwrap();
    let bytes = request.bytes();
    let sent = Instant::now();
    stalled.write(&bytes[..bytes.len() - 10]).unwrap();
    stalled
        .read_answer()
        .unwrap()
        .expect_problem(408, "request_timeout");
    assert!(
        sent.elapsed() >= Duration::from_millis(900),
        "the body had a second, but was given {:?}",
        sent.elapsed()
    );
    assert!(
        stalled.read_to_close(PATIENCE).is_some(),
        "a request whose end is unknown ends its connection"
    );

    // The limit is for the whole body: bytes that keep coming do not extend it.
    let mut dripping = Connection::open(bridge.public).unwrap();
    dripping.write(&request.head()).unwrap();
    for byte in &event.body[..15] {
        if dripping.write(&[*byte]).is_err() {
            break;
        }
        wait::play_silence(Duration::from_millis(100));
    }
    dripping
        .read_answer()
        .unwrap()
        .expect_problem(408, "request_timeout");
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_head_that_is_too_slow_closes_the_connection() {
    let Some(nats) = Nats::shared() else { return };
    for http in [
        "header_timeout = \"1s\"",
        "header_timeout = \"1s\"\nhttp2 = true",
    ] {
        let bridge = Bridge::to_nats(nats, &nats.stream("http"), http, "");
        let mut connection = Connection::open(bridge.public).unwrap();
        for byte in b"POST /hooks/synq HTTP/1.1\r\nHost: x\r\n" {
            if connection.write(&[*byte]).is_err() {
                break;
            }
            wait::play_silence(Duration::from_millis(100));
        }
        let last_words = connection
            .read_to_close(PATIENCE)
            .expect("the connection is closed");
        let last_words = String::from_utf8_lossy(&last_words);
        assert!(
            last_words.is_empty() || last_words.starts_with("HTTP/1.1 408 "),
            "{last_words}"
        );
    }
}

#[test]
fn an_idle_connection_is_closed_after_idle_timeout_and_not_after_header_timeout() {
    let Some(nats) = Nats::shared() else { return };
    let http = "header_timeout = \"500ms\"\nidle_timeout = \"3s\"";
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), http, "");
    let mut connection = Connection::open(bridge.public).unwrap();
    for _ in 0..2 {
        let event = events::ping();
        connection
            .send(&Request::event(&event))
            .unwrap()
            .expect_published(&event);
        wait::play_silence(Duration::from_millis(1200)); // above header_timeout, below idle_timeout
    }
    let event = events::ping();
    connection
        .send(&Request::event(&event))
        .expect("still open")
        .expect_published(&event);
    assert_eq!(
        connection.read_to_close(PATIENCE).as_deref(),
        Some(&b""[..]),
        "closed when idle, without a word"
    );
}

#[test]
fn a_connection_that_sends_nothing_is_closed() {
    let Some(nats) = Nats::shared() else { return };
    for http in [
        "idle_timeout = \"1s\"",
        "idle_timeout = \"1s\"\nheader_timeout = \"1s\"\nhttp2 = true",
    ] {
        let bridge = Bridge::to_nats(nats, &nats.stream("http"), http, "");
        let mut silent = Connection::open(bridge.public).unwrap();
        let event = events::ping();
        bridge.deliver(&event).expect_published(&event);
        assert!(
            silent.read_to_close(PATIENCE).is_some(),
            "still open, with {http}"
        );
    }
}

// ---- 413, 431, 415

#[test]
fn a_body_of_exactly_max_body_passes_and_one_byte_more_is_413() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "max_body = \"2KiB\"", "");
    let exact = events::ping_of_size(2048);
    bridge.deliver(&exact).expect_published(&exact);
    let chunked = events::ping_of_size(2048);
    bridge
        .send(&Request::event(&chunked).chunked(100))
        .expect_published(&chunked);
    let more = events::ping_of_size(2049);
    bridge.deliver(&more).expect_problem(413, "body_too_large");
    bridge
        .send(&Request::event(&more).chunked(100))
        .expect_problem(413, "body_too_large");
    let stored: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.value)
        .collect();
    assert_eq!(stored, [exact.body, chunked.body]);
}

#[test]
fn max_body_of_a_source_goes_before_the_general_one() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(
        nats,
        &nats.stream("http"),
        "max_body = \"1KiB\"",
        "max_body = \"2KiB\"",
    );
    let event = events::ping_of_size(2048);
    bridge.deliver(&event).expect_published(&event);
    bridge
        .deliver(&events::ping_of_size(2049))
        .expect_problem(413, "body_too_large");
}

#[test]
fn a_declared_length_over_the_limit_is_413_before_the_body_is_sent() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "max_body = \"2KiB\"", "");
    for expect in [false, true] {
        let mut request = Request::new("POST", "/hooks/synq")
            .header("Content-Type", "application/json")
            .header("Content-Length", "1099511627776");
        if expect {
            request = request.header("Expect", "100-continue");
        }
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(&request.head()).unwrap();
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(413, "body_too_large");
        assert_eq!(
            answer.interim,
            [] as [u16; 0],
            "no invitation to send it: {answer:?}"
        );
        assert!(answer.says_close(), "{answer:?}");
        assert!(
            connection.read_to_close(PATIENCE).is_some(),
            "closed, since the body was not read"
        );
    }
}

#[test]
fn a_sender_that_asks_first_is_told_to_continue() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let event = events::ping();
    let request = Request::event(&event).header("Expect", "100-continue");
    let answer = bridge.send(&request);
    answer.expect_published(&event);
    assert_eq!(answer.interim, [100]);
}

#[test]
fn the_unread_rest_of_a_refused_body_is_never_taken_for_a_request() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "max_body = \"2KiB\"", "");
    let hidden = Request::event(&events::ping()).bytes();
    for chunk in [None, Some(600)] {
        let mut request =
            Request::signed_body([vec![b' '; 4096], hidden.clone(), hidden.clone()].concat());
        if let Some(size) = chunk {
            request = request.chunked(size);
        }
        let mut connection = Connection::open(bridge.public).unwrap();
        drop(connection.write(&request.bytes())); // it may be cut off
        let all = connection
            .read_to_close(PATIENCE)
            .expect("closed after the refusal");
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 413 "), "{all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "one answer: {all}");
    }
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn s09_a_head_that_is_too_long_for_its_uri_is_431_on_a_new_connection_and_on_one_in_use() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let with_uri = |length: usize| {
        let path = format!("/{}", "x".repeat(length));
        Request::event(&events::ping()).to(&path)
    };
    for length in [70_000, 33_000] {
        let answer = bridge.send(&with_uri(length));
        assert_eq!(answer.status, 431, "{length}: {answer:?}");
        let mut connection = Connection::open(bridge.public).unwrap();
        let event = events::ping();
        let answer = connection.send(&Request::event(&event)).unwrap();
        answer.expect_published(&event);
        let answer = connection.send(&with_uri(length)).unwrap();
        assert_eq!(answer.status, 431, "{length}");
        assert!(answer.says_close() && answer.header("date").is_some());
        assert_eq!(connection.read_to_close(PATIENCE).as_deref(), Some(&[][..]));
    }
    // In pieces.
    let mut connection = Connection::open(bridge.public).unwrap();
    for piece in with_uri(40_000).head().chunks(1000) {
        if connection.write(piece).is_err() {
            break;
        }
    }
    assert_eq!(connection.read_answer().unwrap().status, 431);
    // Long, but not too long, also where it comes in pieces and after a rest.
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
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let large = Request::event(&events::ping()).header("X-Large", &"x".repeat(64 * 1024));
    assert_eq!(bridge.send(&large).status, 431);
    let mut many = Request::event(&events::ping());
    for number in 0..150 {
        many = many.header(&format!("X-Many-{number}"), "x");
    }
    assert_eq!(bridge.send(&many).status, 431);
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
}

#[test]
fn a_body_of_another_type_is_415_unsupported_media_type() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let typed = |value: &str| {
        Request::event(&events::ping())
            .without("content-type")
            .header("Content-Type", value)
    };
    for value in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/jsonx",
        "json",
        "*/*",
    ] {
        println!("content type: {value}");
        bridge
            .send(&typed(value))
            .expect_problem(415, "unsupported_media_type");
    }
    for encoding in ["gzip", "br", "gzip, gzip"] {
        println!("content encoding: {encoding}");
        let encoded = Request::event(&events::ping()).header("Content-Encoding", encoding);
        bridge
            .send(&encoded)
            .expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(nats.read(&stream), []);
    for value in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
    ] {
        println!("content type: {value}");
        assert_eq!(bridge.send(&typed(value)).status, 200);
    }
}

// ---- 422

#[test]
fn an_invalid_event_is_422_with_at_most_ten_pointers_and_reasons() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let callbacks = vec![r#"{"url":7}"#; 25].join(",");
    let body = format!(
        r#"{{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{{}},"callbacks":[{callbacks}]}}"#
    );
    let answer = bridge.send(&Request::signed_body(body));
    let problem = answer.expect_problem(422, "invalid_event");
    let pointers = answer.pointers();
    assert!((1..=10).contains(&pointers.len()), "{answer:?}");
    assert!(
        pointers.contains(&"/callbacks/0/url".to_owned()),
        "{answer:?}"
    );
    for error in problem.get("errors").and_then(Value::as_array).unwrap() {
        assert!(
            error
                .get("reason")
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty()),
            "{answer:?}"
        );
    }
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn s48_nothing_of_the_sender_is_echoed_but_short_pointers() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let long = "<script>".repeat(100);
    for body in [
        format!(r#"{{"event_id":"{long}","event_type":"{long}","ping":{{}}}}"#),
        format!(
            r#"{{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{{"message":["{long}"]}}}}"#
        ),
    ] {
        let answer = bridge.send(&Request::signed_body(body));
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(&long),
            "{answer:?}"
        );
    }
    // The same where it is the path, the type's quotes, or a pointer.
    for path in ["/%3Cscript%3E", "/hooks/synq'<b>", "/\"quotes\""] {
        let answer = bridge.send(&Request::post(path, "{}"));
        assert!(matches!(answer.status, 400 | 404), "{answer:?}");
        if answer.status == 404 {
            answer.expect_problem(404, "unknown_path");
        }
    }
    let quoted = format!(r#"{{"event_id":"1","event_type":"a\"<script>\"","\"{long}":1}}"#);
    let answer = bridge.send(&Request::signed_body(quoted));
    assert_eq!(answer.status, 422, "{answer:?}");
    answer.expect_problem(422, &answer.outcome());
    assert!(
        !String::from_utf8_lossy(&answer.body).contains(&long),
        "{answer:?}"
    );
    let answer = bridge.send(&Request::post("/<script>alert(1)</script>", "{}"));
    assert!(matches!(answer.status, 400 | 404), "{answer:?}"); // it is no path at all by RFC 3986
    assert!(
        !String::from_utf8_lossy(&answer.body).contains("<script>"),
        "{answer:?}"
    );
}

#[test]
fn an_event_without_id_or_type_is_422_with_a_code_of_its_own() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let without_id = r#"{"event_type":"EVENT_TYPE_PING","ping":{}}"#;
    bridge
        .send(&Request::signed_body(without_id))
        .expect_problem(422, "missing_event_id");
    let without_type = r#"{"event_id":"1","workspace":"acme"}"#;
    bridge
        .send(&Request::signed_body(without_type))
        .expect_problem(422, "missing_event_type");
}

// ---- 503: the other codes are in faults.rs and shutdown.rs

/// A stream that never acknowledges plays a broker that is slow.
fn unacknowledged(nats: &Nats) -> String {
    nats.stream_with("silent", |settings| settings.no_ack = true)
}

/// Sends an event, which waits for its acknowledgement as long as the connection is kept.
fn put_in_flight(bridge: &Bridge, event: &Event) -> Connection {
    let mut waiting = Connection::open(bridge.public).unwrap();
    waiting.write(&Request::event(event).bytes()).unwrap();
    wait::until("the event is in flight", PATIENCE, || {
        bridge.metrics().sum("hookbridge_in_flight", &[]) == 1.0
    });
    waiting
}

#[test]
fn more_than_max_in_flight_is_503_overloaded_at_once() {
    let Some(nats) = Nats::shared() else { return };
    let http = "max_in_flight = 1\npublish_timeout = \"20s\"";
    let bridge = Bridge::to_nats(nats, &unacknowledged(nats), http, "");
    let _waiting = put_in_flight(&bridge, &events::ping());
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "overloaded");
    assert_eq!(
        bridge.metrics().sum("hookbridge_in_flight", &[]),
        1.0,
        "the first one still waits"
    );
}

#[test]
fn who_is_told_overloaded_keeps_the_connection_unless_a_body_is_left_on_it() {
    let Some(nats) = Nats::shared() else { return };
    let http = "max_in_flight = 1\npublish_timeout = \"30s\"";
    let bridge = Bridge::to_nats(nats, &unacknowledged(nats), http, "");
    let _waiting = put_in_flight(&bridge, &events::ping());
    // In one piece, in several, and in chunks, whose end is not known in advance.
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
    // Large, and small but not sent: nobody waits for them.
    for size in [100_000, 300] {
        let mut connection = Connection::open(bridge.public).unwrap();
        let head = Request::event(&events::ping_of_size(size)).head();
        connection.write(&head).unwrap();
        let answer = connection.read_answer().unwrap();
        answer.expect_problem(503, "overloaded");
        assert!(answer.says_close(), "{size}: {answer:?}");
    }
}

#[test]
fn more_than_max_in_flight_bytes_is_503_overloaded_at_once() {
    let Some(nats) = Nats::shared() else { return };
    let http = "max_in_flight_bytes = \"3KiB\"\nmax_body = \"2KiB\"\npublish_timeout = \"20s\"";
    let bridge = Bridge::to_nats(nats, &unacknowledged(nats), http, "");
    let _waiting = put_in_flight(&bridge, &events::ping_of_size(2000));
    bridge
        .deliver(&events::ping_of_size(2000))
        .expect_problem(503, "overloaded");
}

// ---- Connections

#[test]
fn a_connection_is_kept_through_answers_of_all_kinds() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let mut connection = Connection::open(bridge.public).unwrap();
    for round in 0..3 {
        let event = events::ping();
        let requests = [
            (Request::event(&event), 200),
            (Request::event(&event).without("x-coalesce-signature"), 401),
            (Request::signed_body("{"), 400),
            (Request::signed_body("{}"), 422),
            (Request::event(&event).to("/nowhere"), 404),
            (Request::new("GET", "/hooks/synq"), 405),
            (Request::event(&events::ping()).chunked(7), 200),
        ];
        for (request, status) in requests {
            let answer = connection
                .send(&request)
                .unwrap_or_else(|error| panic!("round {round}, {status}: {error}"));
            assert_eq!(answer.status, status, "{answer:?}");
            if answer.says_close() {
                assert!(status >= 400, "no reason to close: {answer:?}");
                connection = Connection::open(bridge.public).unwrap();
            }
        }
    }
    assert_eq!(nats.read(&stream).len(), 6);
}

#[test]
fn connection_close_is_honoured_and_http_1_0_is_answered() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let event = events::ping();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection
        .send(&Request::event(&event).header("Connection", "close"))
        .unwrap()
        .expect_published(&event);
    assert!(connection.read_to_close(PATIENCE).is_some());

    let old = Request::event(&events::ping()).bytes();
    let old = String::from_utf8(old)
        .unwrap()
        .replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(old.as_bytes()).unwrap();
    let all = connection.read_to_close(PATIENCE).expect("HTTP/1.0 closes");
    let all = String::from_utf8_lossy(&all);
    assert!(
        all.starts_with("HTTP/1.0 200 ") || all.starts_with("HTTP/1.1 200 "),
        "{all}"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let sent: Vec<_> = (0..20).map(|_| events::ping()).collect();
    let mut bytes = Vec::new();
    for (number, event) in sent.iter().enumerate() {
        let request = Request::event(event);
        bytes.extend(if number % 3 == 0 {
            request.chunked(11).bytes()
        } else {
            request.bytes()
        });
    }
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    for event in &sent {
        connection.read_answer().unwrap().expect_published(event);
    }
    let stored: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.value)
        .collect();
    assert_eq!(
        stored,
        sent.into_iter().map(|event| event.body).collect::<Vec<_>>()
    );
}

#[test]
fn chunks_of_any_size_are_one_body() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let mut sent = Vec::new();
    for size in [1, 2, 13, 4096] {
        let event = events::ping_of_size(5000);
        bridge
            .send(&Request::event(&event).chunked(size))
            .expect_published(&event);
        sent.push(event.body);
    }
    let stored: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.value)
        .collect();
    assert_eq!(stored, sent);
}

#[test]
fn framing_tricks_never_make_two_events_of_one() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let body = events::ping().body;
    let signed = Request::post("/hooks/synq", body.clone()).signed(SECRET);
    let length = body.len();
    let chunks = |body: &[u8]| {
        [
            format!("{:x}\r\n", body.len()).as_bytes(),
            body,
            b"\r\n0\r\n\r\n",
        ]
        .concat()
    };
    let with = |lines: &[(&str, &str)], version: &str, body: &[u8]| {
        let request = lines.iter().fold(signed.clone(), |request, (name, value)| {
            request.header(name, value)
        });
        let head = String::from_utf8(request.head())
            .unwrap()
            .replacen("HTTP/1.1", version, 1);
        [head.as_bytes(), body].concat()
    };
    let plain = length.to_string();
    let tricks = [
        (
            "two lengths",
            with(
                &[("Content-Length", &plain), ("Content-Length", "5")],
                "HTTP/1.1",
                &body,
            ),
        ),
        (
            "a length that is none",
            with(&[("Content-Length", "+5")], "HTTP/1.1", &body),
        ),
        (
            "two lengths in one line",
            with(&[("Content-Length", "5, 6")], "HTTP/1.1", &body),
        ),
        (
            "an unknown coding",
            with(
                &[("Transfer-Encoding", "xchunked")],
                "HTTP/1.1",
                &chunks(&body),
            ),
        ),
        (
            "chunked is not last",
            with(
                &[("Transfer-Encoding", "chunked, identity")],
                "HTTP/1.1",
                &chunks(&body),
            ),
        ),
        (
            "chunked in HTTP/1.0",
            with(
                &[("Transfer-Encoding", "chunked")],
                "HTTP/1.0",
                &chunks(&body),
            ),
        ),
        (
            "a space before the colon",
            with(&[("Content-Length ", &plain)], "HTTP/1.1", &body),
        ),
        (
            "a folded line",
            with(
                &[("Content-Length", &plain), ("X-Folded", "a\r\n b")],
                "HTTP/1.1",
                &body,
            ),
        ),
        (
            "a chunk's size that is none",
            with(
                &[("Transfer-Encoding", "chunked")],
                "HTTP/1.1",
                b"zz\r\n{}\r\n0\r\n\r\n",
            ),
        ),
    ];
    for (name, bytes) in tricks {
        println!("{name}");
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(&bytes).unwrap();
        connection.finish_writing();
        let all = connection
            .read_to_close(PATIENCE)
            .expect("answered and closed");
        let all = String::from_utf8_lossy(&all);
        assert!(!all.contains(" 200 "), "{name}: {all}");
        assert!(!all.contains(" 500 "), "{name}: {all}");
    }
    assert_eq!(nats.read(&stream), []);

    // Both framings at once: refused, or read as chunks; the request behind it is answered as itself or not at all.
    let event = events::ping();
    let second = events::ping();
    let both = Request::event(&event)
        .header("Content-Length", "5")
        .header("Transfer-Encoding", "chunked");
    let bytes = [
        both.head(),
        chunks(&event.body),
        Request::event(&second).bytes(),
    ]
    .concat();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    connection.finish_writing();
    let all = connection
        .read_to_close(PATIENCE)
        .expect("answered and closed");
    let all = String::from_utf8_lossy(&all);
    assert!(!all.contains(" 500 "), "{all}");
    for message in nats.read(&stream) {
        assert!(
            message.value == event.body || message.value == second.body,
            "{message:?}"
        );
    }
}

#[test]
fn a_body_shorter_than_declared_is_no_event() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let event = events::ping();
    let bytes = Request::event(&event)
        .header("Content-Length", &(event.body.len() + 7).to_string())
        .bytes();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    connection.finish_writing();
    let all = connection.read_to_close(PATIENCE).expect("closed");
    assert!(
        !String::from_utf8_lossy(&all).contains(" 200 "),
        "{}",
        String::from_utf8_lossy(&all)
    );
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_body_longer_than_declared_is_cut_and_its_rest_is_no_part_of_the_event() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let event = events::ping();
    let bytes = Request::event(&event)
        .header("Content-Length", &(event.body.len() - 7).to_string())
        .bytes();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&bytes).unwrap();
    connection
        .read_answer()
        .unwrap()
        .expect_problem(401, "invalid_signature");
    connection.finish_writing();
    let rest = connection.read_to_close(PATIENCE).expect("closed");
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 400 "),
        "{rest}"
    );
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn no_garbage_brings_a_500_or_the_end() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(
        nats,
        &nats.stream("http"),
        "header_timeout = \"1s\"\nbody_timeout = \"1s\"",
        "",
    );
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
        let all = connection.read_to_close(PATIENCE).expect("closed");
        let all = String::from_utf8_lossy(&all);
        let status: Option<u16> = all.get(9..12).and_then(|status| status.parse().ok());
        assert!(
            all.is_empty() || status.is_some_and(|status| (400..500).contains(&status)),
            "{bytes:?}: {all}"
        );
    }
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
}

#[test]
fn connections_beyond_max_connections_wait_or_are_closed_and_the_others_are_served() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "max_connections = 3", "");
    let mut served: Vec<_> = (0..3)
        .map(|_| Connection::open(bridge.public).unwrap())
        .collect();
    for connection in &mut served {
        let event = events::ping();
        connection
            .send(&Request::event(&event))
            .unwrap()
            .expect_published(&event);
    }
    let mut surplus: Vec<_> = (0..5)
        .filter_map(|_| Connection::open(bridge.public).ok())
        .collect();
    for connection in &mut served {
        let event = events::ping();
        connection
            .send(&Request::event(&event))
            .unwrap()
            .expect_published(&event);
    }
    assert_eq!(
        bridge.admin("/healthz").status,
        200,
        "the admin listener has a limit of its own"
    );
    for connection in &mut surplus {
        drop(connection.write(&Request::event(&events::ping()).bytes()));
        let all = connection
            .read_to_close(Duration::from_millis(200))
            .unwrap_or_default();
        let all = String::from_utf8_lossy(&all);
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 503 "), "{all}");
    }
    drop((served, surplus));
    wait::until("places are free again", PATIENCE, || {
        let sent = Connection::open(bridge.public)
            .and_then(|mut open| open.send(&Request::event(&events::ping())));
        sent.is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_connection_that_has_grown_old_is_closed_after_an_answer() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(
        nats,
        &nats.stream("http"),
        "max_connection_age = \"2s\"",
        "",
    );
    let mut connection = Connection::open(bridge.public).unwrap();
    let opened = Instant::now();
    let mut last = None;
    wait::until("an answer says Connection: close", PATIENCE, || {
        let event = events::ping();
        let answer = connection
            .send(&Request::event(&event))
            .expect("never closed without saying so");
        answer.expect_published(&event);
        last = Some(answer);
        last.as_ref().is_some_and(sender::Answer::says_close)
    });
    assert!(
        opened.elapsed() >= Duration::from_millis(1700),
        "too early: {:?}",
        opened.elapsed()
    );
    assert!(connection.read_to_close(PATIENCE).is_some());
}

#[test]
fn a_connection_that_was_at_rest_is_served_again() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let mut connection = Connection::open(bridge.public).unwrap();
    for _ in 0..3 {
        // Longer than a connection keeps its buffers.
        wait::play_silence(Duration::from_millis(1500));
        let event = events::ping();
        let answer = connection.send(&Request::event(&event)).unwrap();
        answer.expect_published(&event);
    }
    // A head that begins before the rest and ends after it.
    let event = events::ping();
    let request = Request::event(&event).bytes();
    let (before, after) = request.split_at(30);
    connection.write(before).unwrap();
    wait::play_silence(Duration::from_millis(1500));
    connection.write(after).unwrap();
    connection.read_answer().unwrap().expect_published(&event);
}

// ---- HTTP/2

/// Status, protocol version and body of a `POST` by `curl`, which speaks HTTP/2 without TLS when told to.
fn curl(bridge: &Bridge, request: &Request, version: &str) -> (String, String, String) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        version,
        "--max-time",
        "30",
        "--write-out",
        "\n%{http_code} %{http_version}",
    ]);
    for (name, value) in &request.headers {
        curl.arg("--header").arg(format!("{name}: {value}"));
    }
    curl.arg("--data-binary")
        .arg(String::from_utf8(request.body.clone()).unwrap());
    curl.arg(format!("http://{}{}", bridge.public, request.target));
    let output = curl.output().expect("curl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, rest) = text
        .rsplit_once('\n')
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let (status, version) = rest.split_once(' ').unwrap();
    (status.to_owned(), version.to_owned(), body.to_owned())
}

#[test]
fn http_2_is_spoken_on_the_same_port_where_it_is_switched_on() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("http");
    let bridge = Bridge::to_nats(nats, &stream, "http2 = true", "");
    let event = events::ping();
    let (status, version, body) = curl(
        &bridge,
        &Request::event(&event).without("host"),
        "--http2-prior-knowledge",
    );
    assert_eq!((status.as_str(), version.as_str()), ("200", "2"), "{body}");
    assert!(body.contains(&event.id), "{body}");
    let (status, version, body) = curl(
        &bridge,
        &Request::post("/hooks/synq", "{}").without("host"),
        "--http2-prior-knowledge",
    );
    assert_eq!((status.as_str(), version.as_str()), ("401", "2"), "{body}");
    assert!(body.contains("missing_signature"), "{body}");
    let second = events::ping();
    bridge.deliver(&second).expect_published(&second);
    let stored: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.value)
        .collect();
    assert_eq!(stored, [event.body, second.body]);
}

#[test]
fn http_2_is_not_spoken_unless_it_is_switched_on() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "", "");
    let mut connection = Connection::open(bridge.public).unwrap();
    connection
        .write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let all = connection.read_to_close(PATIENCE).expect("closed");
    let all = String::from_utf8_lossy(&all);
    assert!(
        all.is_empty() || all.starts_with("HTTP/1.1 4") || all.starts_with("HTTP/1.1 505"),
        "{all}"
    );
}

// ---- The order of refusals, the admin listener

#[test]
fn the_cheapest_reason_to_refuse_is_the_one_given() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Bridge::to_nats(nats, &nats.stream("http"), "max_body = \"2KiB\"", "");
    let large = vec![b'x'; 4096];
    let mut get = Request::new("GET", "/hooks/synq").header("Content-Type", "text/plain");
    get.body.clone_from(&large);
    bridge
        .send(&get.clone().to("/nowhere"))
        .expect_problem(404, "unknown_path");
    bridge.send(&get).expect_problem(405, "method_not_allowed");
    let text = Request::post("/hooks/synq", large)
        .without("content-type")
        .header("Content-Type", "text/plain");
    bridge.send(&text).expect_problem(413, "body_too_large");
    let text = Request::post("/hooks/synq", "x")
        .without("content-type")
        .header("Content-Type", "text/plain");
    bridge
        .send(&text)
        .expect_problem(415, "unsupported_media_type");
    bridge
        .send(&Request::post("/hooks/synq", "x"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&Request::post("/hooks/synq", "x").signed("wrong"))
        .expect_problem(401, "invalid_signature");
    bridge
        .send(&Request::signed_body("x"))
        .expect_problem(400, "invalid_json");
    bridge
        .send(&Request::signed_body("{}"))
        .expect_problem(422, "missing_event_id");
}

#[test]
fn metrics_and_health_are_on_the_admin_listener_alone() {
    let Some(nats) = Nats::shared() else { return };
    let topic = format!("{}.x", nats.stream("http"));
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&topic);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    assert_eq!(bridge.admin("/healthz").status, 200);
    let metrics = bridge.admin("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|value| value.starts_with("text/plain")),
        "{metrics:?}"
    );
    assert_eq!(bridge.admin("/").status, 404);
    assert_eq!(bridge.admin("/hooks/synq").status, 404);
    assert_eq!(
        sender::send(bridge.admin, &Request::post("/metrics", "")).status,
        405
    );
    let event = Request::event(&events::ping());
    let answer = sender::send(bridge.admin, &event);
    assert!(
        matches!(answer.status, 404 | 405),
        "events are taken by the public listener alone: {answer:?}"
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        bridge
            .send(&Request::new("GET", path))
            .expect_problem(404, "unknown_path");
    }
}
