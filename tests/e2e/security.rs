//! Rows of the security catalogue that the other files do not have: S04, S17, S20, S25, S34 to S38, S47, S49.

use crate::support::bridge::{Bridge, kafka_broker, nats_broker, route_with, synq_source};
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event, SECRET};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

fn values(stored: Vec<Stored>) -> Vec<Vec<u8>> {
    stored.into_iter().map(|message| message.value).collect()
}

#[test]
fn s04_a_body_that_ends_early_is_neither_published_nor_counted_as_an_event() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s04");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let event = events::ping();
    let length = (event.body.len() + 1).to_string();
    let mut connection = Connection::open(bridge.public).unwrap();
    let request = Request::event(&event).header("Content-Length", &length);
    connection.write(&request.bytes()).unwrap();
    connection.finish_writing();
    connection.read_to_close(PATIENCE).expect("closed");
    wait::until("its place is given back", PATIENCE, || {
        let metrics = bridge.metrics();
        metrics.sum("hookbridge_in_flight", &[]) == 0.0
            && metrics.sum("hookbridge_in_flight_bytes", &[]) == 0.0
    });
    let metrics = bridge.metrics();
    assert_eq!(metrics.sum("hookbridge_events_total", &[]), 0.0);
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn s17_a_good_signature_is_looked_for_among_ten_and_no_further() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s17");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let behind = |event: &Event, wrong_ones: usize| {
        let wrong = format!("v1={} ", "0".repeat(64)).repeat(wrong_ones);
        let mut request = Request::event(event);
        for (name, value) in &mut request.headers {
            if name == "X-Coalesce-Signature" {
                *value = format!("{wrong}{value}");
            }
        }
        request
    };
    let event = events::ping();
    bridge.send(&behind(&event, 9)).expect_published(&event);
    bridge
        .send(&behind(&events::ping(), 10))
        .expect_problem(401, "invalid_signature");
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

#[test]
fn s20_which_secret_matched_is_neither_answered_nor_logged() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s20");
    let rest = nats_broker("main", &nats.url)
        + &format!("[sources.synq]\nsecrets = [\"whs_e2e_the_new_one\", \"{SECRET}\"]\n")
        + &route_with(&format!("{stream}.x"), "");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let answer_to = |secret: &str| {
        let event = events::ping();
        let answer = bridge.send(&Request::post("/hooks/synq", event.body.clone()).signed(secret));
        answer.expect_published(&event);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let mut names: Vec<_> = answer
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_unstable();
        (body.replace(&event.id, "ID"), names)
    };
    assert_eq!(answer_to(SECRET), answer_to("whs_e2e_the_new_one"));
    let log = bridge.log().join("\n");
    assert!(
        !log.contains(SECRET) && !log.contains("the_new_one"),
        "{log}"
    );
}

#[test]
fn s25_an_unsigned_request_leaves_nothing_in_the_window() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s25");
    let bridge = Bridge::to_nats(nats, &stream, "", "dedup_window = \"1h\"");
    let event = events::ping();
    let unsigned = Request::post("/hooks/synq", event.body.clone());
    bridge
        .send(&unsigned)
        .expect_problem(401, "missing_signature");
    bridge
        .send(&unsigned.clone().signed("whs_another"))
        .expect_problem(401, "invalid_signature");
    bridge.deliver(&event).expect_published(&event);
    // Nor does it see what is there.
    bridge
        .send(&unsigned)
        .expect_problem(401, "missing_signature");
    assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

#[test]
fn s34_a_repeated_name_is_refused_where_it_is_read_and_passes_where_it_is_not() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("s34");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(&topic, "key = \"{/customer/name}\"");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let body = |rest: &str| {
        format!(
            r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{"message":"x"}},{rest}}}"#
        )
    };
    for repeated in [
        r#""customer":{"name":"a","name":"b"}"#,
        r#""customer":{"name":"a","n\u0061me":"b"}"#,
        r#""customer":{"name":"a"},"customer":{"name":"b"}"#,
    ] {
        let event = events::raw(&body(repeated));
        bridge.deliver(&event).expect_problem(400, "invalid_json");
    }
    let event = events::raw(&body(
        r#""customer":{"name":"a"},"other":{"x":1,"x":2,"\u0078":3}"#,
    ));
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(kafka.read(&topic)).value, event.body);
}

#[test]
fn s35_depth_is_limited_in_what_is_used_and_in_what_is_not() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s35");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let nested = |depth: usize, open: &str, close: &str| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = nested(100_000, open, close);
        for body in [
            format!(r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{deep}}}"#),
            format!(r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{}},"x":{deep}}}"#),
            format!(r#"{{"event_id":{deep},"event_type":"EVENT_TYPE_PING","ping":{{}}}}"#),
        ] {
            bridge
                .deliver(&events::raw(&body))
                .expect_problem(400, "invalid_json");
        }
    }
    let shallow = nested(60, "[", "]");
    let event = events::raw(&format!(
        r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{}},"x":{shallow}}}"#
    ));
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

#[test]
fn s36_many_names_and_elements_are_read_in_time_or_too_large() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_with("s36", 1, &[("max.message.bytes", "8388608")]);
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("max_body = \"7MB\"")
        + &route_with(&topic, "");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let names: Vec<_> = (0..400_000)
        .map(|number| format!("\"{number:x}\":1"))
        .collect();
    let values = [
        format!("{{{}}}", names.join(",")),
        format!("[{}1]", "1,".repeat(1_000_000)),
        format!("\"{}\"", "x".repeat(1024 * 1024)),
        format!("\"{}\"", "\\n".repeat(1024 * 1024)),
    ];
    let mut sent = Vec::new();
    for value in values {
        let event = events::raw(&format!(
            r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{}},"x":{value}}}"#
        ));
        bridge.deliver(&event).expect_published(&event);
        sent.push(event.body);
    }
    bridge
        .deliver(&events::ping_of_size(7_000_001))
        .expect_problem(413, "body_too_large");
    assert!(self::values(kafka.read(&topic)) == sent, "byte for byte");
}

#[test]
fn s37_a_number_is_used_as_it_was_written_or_not_at_all() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("s37");
    let rest = kafka_broker("main", &kafka.address)
        + &synq_source("")
        + &route_with(&topic, "key = \"{/n}\"");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let mut expected = Vec::new();
    for number in [
        "1e400",
        "-0",
        "1E+2",
        "123456789012345678901234567890",
        "0.10",
    ] {
        let event = events::raw(&format!(
            r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{{}},"n":{number}}}"#
        ));
        let answer = bridge.deliver(&event);
        if answer.status == 200 {
            expected.push(Some(number.to_owned()));
        } else {
            answer.expect_problem(422, "invalid_event");
        }
    }
    let keys: Vec<_> = kafka
        .read(&topic)
        .into_iter()
        .map(|message| message.key)
        .collect();
    assert_eq!(keys, expected);
}

#[test]
fn s38_what_is_no_unicode_is_refused_and_a_nul_passes_in_data_alone() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s38");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let text = r#"{"event_id":"1","event_type":"EVENT_TYPE_PING","ping":{"message":"?"}}"#;
    let with = |bytes: &[u8]| {
        let (before, after) = text.split_once('?').unwrap();
        [before.as_bytes(), bytes, after.as_bytes()].concat()
    };
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [
        with(b"\xff"),
        with(b"\xc0\xaf"),
        with(b"\xed\xa0\x80"),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        utf16,
        with(br"\ud800"),
        with(br"\udc00\ud800"),
    ] {
        let answer = bridge.send(&Request::signed_body(body.clone()));
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        assert!(
            matches!(
                answer.outcome().as_str(),
                "invalid_json" | "invalid_encoding"
            ),
            "{body:?}: {answer:?}"
        );
    }
    for body in [
        r#"{"event_id":"a\u0000b","event_type":"EVENT_TYPE_PING","ping":{}}"#,
        r#"{"event_id":"1","event_type":"a\u0000b","ping":{}}"#,
    ] {
        let answer = bridge.send(&Request::signed_body(body));
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
    }
    assert_eq!(nats.read(&stream), []);
    let event = events::raw(
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_PING","ping":{"message":"a\u0000b"}}"#,
    );
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

#[test]
fn s47_slow_readers_of_the_admin_listener_do_not_touch_the_public_one() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s47");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let mut idle: Vec<_> = (0..200)
        .filter_map(|_| Connection::open(bridge.admin).ok())
        .collect();
    for slow in idle.iter_mut().take(100) {
        // Asks again and again, and never reads.
        let request = Request::new("GET", "/metrics").bytes().repeat(20);
        drop(slow.write(&request));
    }
    let sent: Vec<_> = (0..20).map(|_| events::ping()).collect();
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    drop(idle);
    wait::until("the admin listener answers", PATIENCE, || {
        Connection::open(bridge.admin)
            .and_then(|mut connection| connection.send(&Request::new("GET", "/readyz")))
            .is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(
        values(nats.read(&stream)),
        sent.into_iter().map(|event| event.body).collect::<Vec<_>>()
    );
}

#[test]
fn s49_what_a_peer_says_of_its_address_changes_nothing() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s49");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let claims = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1;proto=https"),
        ("X-Real-IP", "10.0.0.1"),
    ];
    for (name, value) in claims {
        bridge
            .send(&Request::post("/hooks/synq", events::ping().body).header(name, value))
            .expect_problem(401, "missing_signature");
    }
    let event = events::ping();
    let request = claims
        .iter()
        .fold(Request::event(&event), |request, (name, value)| {
            request.header(name, value)
        });
    bridge.send(&request).expect_published(&event);
    let mut connection = Connection::open(bridge.public).unwrap();
    let preface = b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n";
    let bytes = [preface.as_slice(), &Request::event(&events::ping()).bytes()].concat();
    drop(connection.write(&bytes));
    connection.finish_writing();
    let all = connection.read_to_close(PATIENCE).expect("closed");
    let all = String::from_utf8_lossy(&all);
    assert!(all.is_empty() || all.starts_with("HTTP/1.1 400 "), "{all}");
    let message = only(nats.read(&stream));
    assert_eq!(message.value, event.body);
    assert!(
        message
            .headers
            .iter()
            .all(|(name, _)| !name.to_lowercase().contains("forwarded")),
        "{message:?}"
    );
}
