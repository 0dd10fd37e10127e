//! The answer to each request: every row of the documented table except those in `limits.rs`, `faults.rs` and
//! `shutdown.rs`. All in front of NATS, since none of them depends on the broker.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::support::bridge::Bridge;
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::fixture::nats;
use crate::support::sender::Request;

/// Sends each body signed; it is refused with this status and code.
#[track_caller]
fn refuses(bridge: &Bridge, status: u16, code: &str, bodies: &[&[u8]]) {
    for body in bodies {
        let shown: String = String::from_utf8_lossy(body).chars().take(80).collect();
        println!("body: {shown}");
        let answer = bridge.send(&Request::signed_body(*body));
        answer.expect_problem(status, code);
    }
}

fn typed(value: &str) -> Request {
    Request::event(&events::ping())
        .without("content-type")
        .header("Content-Type", value)
}

// ---- 200

#[test]
fn a_published_event_is_answered_200_with_its_id() {
    let bridge = or_skip!(nats().run());
    let event = bridge.publish_ping();
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn success_status_of_a_source_replaces_200() {
    let bridge = or_skip!(nats().source("success_status = 202").run());
    let event = events::ping();
    let answer = bridge.deliver(&event);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["event_id"], event.id.as_str());
    assert_eq!(answer.outcome(), "published");
}

#[test]
fn every_answer_carries_a_request_id_of_its_own() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
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
        typed("text/plain"),
    ];
    let mut ids = HashSet::new();
    for request in &requests {
        let answer = bridge.send(request);
        let id = answer.header("x-request-id");
        let id = id.unwrap_or_else(|| panic!("{request:?}\n{answer:?}"));
        assert!(ids.insert(id.to_owned()), "the same id twice: {answer:?}");
    }
}

// ---- 400

#[test]
fn a_body_that_is_not_json_is_400_invalid_json() {
    let bridge = or_skip!(nats().run());
    let deep = format!(
        r#"{{"event_id":"1","ping":{{}},"x":{}{}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let utf16 = "{\"event_id\":\"1\",\"ping\":{}}".encode_utf16();
    let utf16: Vec<u8> = utf16.flat_map(u16::to_le_bytes).collect();
    let bodies: [&[u8]; 17] = [
        b"",
        b" ",
        b"x",
        b"{",
        b"{}x",
        b"{}{}",
        b"{}\n{}",
        br#"{"event_id":"1","ping":{"message":NaN}}"#,
        br#"{"event_id":"1","ping":{}} // why"#,
        br#"{"event_id":"1","ping":{},}"#,
        br#"{"event_id":"1","ping":{},"x":01}"#,
        b"{\"event_id\":\"1\",\"ping\":{\"message\":\"a\nb\"}}",
        br#"{"event_id":"1","event_id":"2","ping":{}}"#,
        br#"{"event_id":"1","event\u005fid":"2","ping":{}}"#,
        br#"{"event_id":"1","event_type":"EVENT_TYPE_PING","event_type":10,"ping":{}}"#,
        deep.as_bytes(),
        &utf16,
    ];
    refuses(&bridge, 400, "invalid_json", &bodies);
    assert_eq!(bridge.read(), []);
}

#[test]
fn json_that_is_not_an_object_is_422_invalid_event() {
    let bridge = or_skip!(nats().run());
    let bodies: [&[u8]; 5] = [b"null", b"[]", b"\"x\"", b"1", b"true"];
    refuses(&bridge, 422, "invalid_event", &bodies);
}

#[test]
fn a_body_that_is_not_utf8_without_a_byte_order_mark_is_400_invalid_encoding() {
    let bridge = or_skip!(nats().run());
    let around = |middle: &[u8]| {
        let start = br#"{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{"message":""#;
        [&start[..], middle, br#""}}"#].concat()
    };
    let bodies = [
        around(b"\x80"),         // a lone continuation byte
        around(b"\xe2\x82"),     // cut off
        around(b"\xc0\xaf"),     // overlong
        around(b"\xed\xa0\x80"), // a surrogate
        around(b"Gr\xfc\xdfe"),  // Latin-1
        [b"\xef\xbb\xbf".as_slice(), &events::ping().body].concat(),
    ];
    let bodies = bodies.each_ref().map(Vec::as_slice);
    refuses(&bridge, 400, "invalid_encoding", &bodies);
}

// ---- 401

#[test]
fn an_event_without_a_signature_is_401_missing_signature() {
    let bridge = or_skip!(nats().run());
    let signed = Request::event(&events::ping());
    for request in [
        signed.clone().without("x-coalesce-signature"),
        signed.clone().without("x-coalesce-timestamp"),
        Request::post("/hooks/synq", "not even JSON"),
    ] {
        let answer = bridge.send(&request);
        answer.expect_problem(401, "missing_signature");
    }
    assert_eq!(bridge.read(), []);
    // The refused attempts do not block the real one.
    assert_eq!(bridge.send(&signed).status, 200);
}

#[test]
fn a_wrong_signature_is_401_invalid_signature_and_the_text_never_says_what_differed() {
    let bridge = or_skip!(nats().run());
    let event = events::ping();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs().to_string();
    let right = events::signature_value(SECRET, &now, &event.body);
    let hex = right.trim_start_matches("v1=");
    let changed = [&event.body[..], b" "].concat();
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
        if value.is_empty() && answer.outcome() == "missing_signature" {
            answer.expect_problem(401, "missing_signature");
            continue;
        }
        let mut problem = answer.expect_problem(401, "invalid_signature");
        let id = answer.header("x-request-id").unwrap_or_default();
        let fields = problem.as_object_mut().unwrap();
        fields.retain(|_, value| !value.as_str().is_some_and(|text| text.contains(id)));
        texts.insert(problem.to_string());
    }
    assert_eq!(texts.len(), 1, "one text for all: {texts:#?}");
    assert_eq!(bridge.read(), []);
    let log = bridge.log().join("\n");
    assert!(!log.contains(SECRET) && !log.contains(hex), "{log}");
}

#[test]
fn a_signature_over_other_bytes_with_the_same_meaning_is_refused() {
    let bridge = or_skip!(nats().run());
    let sent = "{\"event_id\":\"1\",\n\"event_type\":\"EVENT_TYPE_PING\",\"ping\":{}}";
    let signed = sent.replace('\n', "\r\n");
    let mut request = Request::post("/hooks/synq", sent);
    let headers = events::signature(SECRET, signed.as_bytes());
    request.headers.extend(headers);
    let answer = bridge.send(&request);
    answer.expect_problem(401, "invalid_signature");
}

#[test]
fn a_timestamp_out_of_tolerance_is_401_stale_timestamp() {
    let bridge = or_skip!(nats().run());
    let strict = or_skip!(nats().source("tolerance = \"1m\"").run());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let now = SystemTime::now();
    // A late retry keeps its first timestamp.
    for (bridge, time, is_stale) in [
        (&bridge, now - minutes(36), true),
        (&bridge, now + minutes(36), true),
        (&bridge, SystemTime::UNIX_EPOCH, true),
        (&bridge, now - minutes(34), false),
        (&bridge, now + minutes(34), false),
        (&strict, now - minutes(3), true),
        (&strict, now, false),
    ] {
        let event = events::ping();
        let mut request = Request::post("/hooks/synq", event.body.clone());
        let headers = events::signature_at(SECRET, &event.body, time);
        request.headers.extend(headers);
        let answer = bridge.send(&request);
        if is_stale {
            answer.expect_problem(401, "stale_timestamp");
        } else {
            answer.expect_published(&event);
        }
    }
}

#[test]
fn during_a_rotation_either_secret_is_good() {
    let sources = "[sources.synq]\nsecrets = [\"the old one\", \"the new one\"]\n";
    let bridge = or_skip!(nats().sources(sources).run());
    let with = |secret: &str| Request::post("/hooks/synq", events::ping().body).signed(secret);
    assert_eq!(bridge.send(&with("the old one")).status, 200);
    assert_eq!(bridge.send(&with("the new one")).status, 200);
    let answer = bridge.send(&with("another one"));
    answer.expect_problem(401, "invalid_signature");
}

// ---- 404, 405

#[test]
fn only_the_exact_path_is_known() {
    let bridge = or_skip!(nats().run());
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
        for request in [
            Request::event(&events::ping()).to(path),
            Request::new("GET", path),
        ] {
            let answer = bridge.send(&request);
            answer.expect_problem(404, "unknown_path");
        }
    }
    assert_eq!(bridge.read(), []);
}

#[test]
fn another_method_is_405_with_allow() {
    let bridge = or_skip!(nats().run());
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
    for (method, target) in [("CONNECT", "hooks.example.com:443"), ("OPTIONS", "*")] {
        let answer = bridge.send(&Request::new(method, target));
        assert!(matches!(answer.status, 400 | 404 | 405), "{answer:?}");
    }
    assert_eq!(bridge.read(), []);
}

// ---- 415

#[test]
fn a_body_of_another_type_is_415_unsupported_media_type() {
    let bridge = or_skip!(nats().run());
    let types = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/jsonx",
        "json",
        "*/*",
    ];
    let codings = ["gzip", "br", "gzip, gzip"];
    let encoded = |coding| Request::event(&events::ping()).header("Content-Encoding", coding);
    for request in types.map(typed).iter().chain(&codings.map(encoded)) {
        let answer = bridge.send(request);
        answer.expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(bridge.read(), []);
    for value in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"UTF-8\"",
    ] {
        assert_eq!(bridge.send(&typed(value)).status, 200, "{value}");
    }
}

// ---- 422

#[test]
fn an_invalid_event_is_422_with_at_most_ten_pointers_and_reasons() {
    let bridge = or_skip!(nats().run());
    let callbacks = vec![r#"{"url":7}"#; 25].join(",");
    let body = format!(
        r#"{{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{{}},"callbacks":[{callbacks}]}}"#
    );
    let answer = bridge.send(&Request::signed_body(body));
    let problem = answer.expect_problem(422, "invalid_event");
    let pointers = answer.pointers();
    assert!((1..=10).contains(&pointers.len()), "{answer:?}");
    assert!(pointers.iter().any(|found| found == "/callbacks/0/url"));
    for error in problem["errors"].as_array().unwrap() {
        let reason = error["reason"].as_str();
        assert!(reason.is_some_and(|text| !text.is_empty()), "{answer:?}");
    }
    assert_eq!(bridge.read(), []);
}

#[test]
fn an_event_without_id_or_type_is_422_with_a_code_of_its_own() {
    let bridge = or_skip!(nats().run());
    let without_id: &[u8] = br#"{"event_type":"EVENT_TYPE_PING","ping":{}}"#;
    refuses(&bridge, 422, "missing_event_id", &[b"{}", without_id]);
    let without_type: &[u8] = br#"{"event_id":"1","workspace":"acme"}"#;
    refuses(&bridge, 422, "missing_event_type", &[without_type]);
}

// ---- Several reasons at a time, and echoed values

#[test]
fn the_cheapest_reason_to_refuse_is_the_one_given() {
    let bridge = or_skip!(nats().http("max_body = \"2KiB\"").run());
    let mut get = Request::new("GET", "/hooks/synq").header("Content-Type", "text/plain");
    get.body = vec![b'x'; 4096];
    let text = |body: Vec<u8>| {
        Request::post("/hooks/synq", body)
            .without("content-type")
            .header("Content-Type", "text/plain")
    };
    let unsigned = Request::post("/hooks/synq", "x");
    // Each lacks one more reason.
    for (request, status, code) in [
        (get.clone().to("/nowhere"), 404, "unknown_path"),
        (get.clone(), 405, "method_not_allowed"),
        (text(get.body), 413, "body_too_large"),
        (text(b"x".to_vec()), 415, "unsupported_media_type"),
        (unsigned.clone(), 401, "missing_signature"),
        (unsigned.signed("wrong"), 401, "invalid_signature"),
        (Request::signed_body("x"), 400, "invalid_json"),
        (Request::signed_body("{}"), 422, "missing_event_id"),
    ] {
        bridge.send(&request).expect_problem(status, code);
    }
}

#[test]
fn nothing_of_the_sender_is_echoed_but_short_pointers() {
    let bridge = or_skip!(nats().run());
    let long = "<script>".repeat(100);
    for body in [
        format!(r#"{{"event_id":"{long}","event_type":"{long}","ping":{{}}}}"#),
        format!(
            r#"{{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{{"message":["{long}"]}}}}"#
        ),
        format!(r#"{{"event_id":"1","event_type":"a\"<script>\"","\"{long}":1}}"#),
    ] {
        let answer = bridge.send(&Request::signed_body(body));
        answer.expect_problem(422, &answer.outcome());
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains(&long), "{answer:?}");
    }
    // Some are not a path by RFC 3986.
    for path in [
        "/%3Cscript%3E",
        "/hooks/synq'<b>",
        "/\"quotes\"",
        "/<script>alert(1)</script>",
    ] {
        let answer = bridge.send(&Request::post(path, "{}"));
        match answer.status {
            400 => {}
            _ => drop(answer.expect_problem(404, "unknown_path")),
        }
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains("<script>"), "{answer:?}");
    }
}
