//! The cost of an authentic event, and its text on a terminal.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bridge::{
    self, Files, Finished, hookbridge, hookbridge_reading, kafka_broker, nats_broker, route,
    synq_source,
};
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::fixture::{Setup, nats};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::{self, Request};
use crate::support::usage::MIB;
use crate::support::wait::PATIENCE;

/// A configuration with its own schema, in front of brokers that are not running.
fn with_schema(schema: &str) -> Files {
    let files = bridge::write_text("");
    let file = files.dir.join("schema.json");
    std::fs::write(&file, schema).unwrap();
    let source = synq_source(&format!("schema = {file:?}"));
    let rest = nats_broker("main", "nats://127.0.0.1:1") + &source + &route("synq.{type}");
    std::fs::write(&files.file, bridge::whole("", &rest)).unwrap();
    files
}

/// Under `tree`: nodes of three kinds, each of which may contain any.
fn recursive_schema() -> Value {
    let kind = |name: &str| {
        json!({"type": "object", "required": ["id"],
               "properties": {"child": {"$ref": "#/$defs/node"}, name: {"type": "string"}}})
    };
    json!({
        "properties": {"tree": {"$ref": "#/$defs/node"}},
        "$defs": {"node": {"anyOf": [kind("a"), kind("b"), kind("c")]}},
    })
}

fn tree(depth: usize, innermost: &str) -> String {
    format!(
        "{{\"event_id\":\"deep\",\"ping\":{{}},\"tree\":{}{innermost}{}}}",
        "{\"id\":\"0123456789abcdef\",\"child\":".repeat(depth),
        "}".repeat(depth)
    )
}

#[test]
fn an_invalid_event_is_refused_within_bounds_however_the_schema_recurs() {
    let files = bridge::write_text("");
    let schema = files.dir.join("schema.json");
    std::fs::write(&schema, recursive_schema().to_string()).unwrap();
    let bridge = or_skip!(nats().source(&format!("schema = {schema:?}")).run());
    let before = bridge.usage();
    let started = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = bridge.send(&Request::signed_body(tree(23, "7")));
        answers.push(answer.expect_problem(422, "invalid_event")["errors"].clone());
        assert_eq!(answer.pointers(), ["/tree"], "{answer:?}");
    }
    assert!(
        answers.iter().all(|errors| *errors == answers[0]),
        "{answers:?}"
    );
    let after = bridge.usage();
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    assert!(
        after.peak < before.peak + 200 * MIB,
        "{before:?}, then {after:?}"
    );
    let event = events::raw(&tree(23, "{\"id\":1}").replace("deep", "ID"));
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn check_warns_of_a_schema_that_makes_validation_expensive() {
    let files = with_schema(&recursive_schema().to_string());
    files.check(0).expect_stderr(&[
        "schema.json",
        "recursive through `anyOf`",
        "#/$defs/node",
        "invalid_event",
    ]);
    let files = with_schema(r##"{"properties":{"list":{"items":{"$ref":"#"}}}}"##);
    let done = files.check(0);
    assert!(!done.stderr.contains("recursive"), "{done:?}");
}

#[test]
fn check_names_unsupported_schema_keywords_and_alternatives() {
    for (schema, expected) in [
        (
            r#"{"properties":{"code":{"pattern":"^(?=.*[0-9])[a-z0-9]+$"}}}"#,
            &[
                "/properties/code/pattern",
                "look-ahead",
                "not supported",
                "allOf",
            ][..],
        ),
        (
            r#"{"const":18446744073709551617}"#,
            &["18446744073709551617", "string"],
        ),
        (r#"{"type":"object","type":"array"}"#, &["\"type\" twice"]),
    ] {
        let files = with_schema(schema);
        files.check(1).expect_stderr(expected);
    }
}

#[test]
fn a_body_with_too_many_values_is_refused_as_invalid_json() {
    let bridge = or_skip!(nats().http("max_body = \"8MiB\"").run());
    let before = bridge.usage();
    let body = format!(
        "{{\"event_id\":\"many\",\"ping\":{{}},\"x\":[{}1]}}",
        "1,".repeat(2_999_999)
    );
    let answer = bridge.send(&Request::signed_body(body));
    let problem = answer.expect_problem(400, "invalid_json");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("2500000 values"), "{detail}");
    let after = bridge.usage();
    assert!(
        after.peak < before.peak + 200 * MIB,
        "{before:?}, then {after:?}"
    );
}

#[test]
fn names_that_differ_in_case_are_data_and_the_two_spellings_together_are_refused() {
    let bridge = or_skip!(nats().run());
    for spelling in ["event_id", "eventId"] {
        let others = r#""Event_ID":"x","EVENT_ID":7,"eventID":null,"EventId":{},"event-id":[]"#;
        for body in [
            format!("{{{others},\"{spelling}\":\"ID\",\"ping\":{{}}}}"),
            format!("{{\"{spelling}\":\"ID\",{others},\"ping\":{{}}}}"),
        ] {
            let event = events::raw(&body);
            bridge.deliver(&event).expect_published(&event);
            let stored = bridge.read();
            let stored = stored.last().unwrap();
            assert_eq!(stored.value, event.body, "unchanged");
            assert_eq!(stored.header("ce-id"), Some(event.id.as_str()));
        }
    }
    let both = bridge.send(&Request::signed_body(
        r#"{"event_id":"a","eventId":"a","Event_ID":"a","ping":{}}"#,
    ));
    both.expect_problem(422, "invalid_event");
    assert_eq!(both.pointers(), ["/eventId"], "{both:?}");
    bridge
        .send(&Request::signed_body(r#"{"Event_ID":"a","ping":{}}"#))
        .expect_problem(422, "missing_event_id");
}

// ---- terminals

/// Text that a terminal would interpret: a colour, a title, a cursor, a line, a direction.
const HOSTILE: &str = "\u{1b}[31m\u{1b}]0;t\u{7}\r\nforged line\u{9b}2J\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}\u{8}end";

/// No control character reached the terminal unescaped.
#[track_caller]
fn expect_plain(done: &Finished) {
    for text in [&done.stdout, &done.stderr] {
        let raw: Vec<_> = text
            .chars()
            .filter(|character| {
                (character.is_control() && *character != '\n')
                    || "\u{200e}\u{200f}\u{2028}\u{2029}\u{202e}\u{2066}".contains(*character)
            })
            .collect();
        assert!(raw.is_empty(), "{raw:?} in {done:?}");
        assert!(
            !text
                .lines()
                .any(|line| line.trim_start().starts_with("forged")),
            "{done:?}"
        );
    }
}

#[test]
fn tail_and_replay_print_nothing_that_a_terminal_obeys() {
    let kafka = or_skip!(Kafka::shared());
    let topic = kafka.topic("hostile");
    let rest = Setup::<Kafka>::new().tables(&kafka.address, &topic);
    let files = bridge::write("", &rest);
    let config = files.path();
    let body = format!("{{\"a\":\"{HOSTILE}\"}}");
    let name = format!("name{}", HOSTILE.replace(['\r', '\n'], ""));
    let hostile = HOSTILE.as_bytes();
    let headers = [(name.as_str(), hostile), ("event_id", hostile)];
    kafka.put(&topic, hostile, &headers, &body);
    let tail = [
        "tail",
        "--config",
        config,
        "--topic",
        &topic,
        "--from-start",
        "--count",
        "1",
    ];
    let told = hookbridge(tail).expect_code(0);
    expect_plain(&told);
    assert!(
        told.stdout.contains("\\u{202e}") && told.stdout.contains("forged line"),
        "{told:?}"
    );
    let told = hookbridge(tail.iter().chain(&["--json"]).copied()).expect_code(0);
    expect_plain(&told);
    let line: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(line["key"], HOSTILE, "JSON keeps the value");
    assert_eq!(line["headers"][name.as_str()], HOSTILE);
    assert_eq!(line["value"], body.as_str());

    for header in ["hookbridge_intended_topic", "hookbridge_intended_broker"] {
        let dead = kafka.topic("hostile-dead");
        let headers = [
            ("hookbridge_intended_topic", &b"a.b"[..]),
            (header, hostile),
        ];
        let headers = &headers[usize::from(header.ends_with("topic"))..];
        kafka.put(&dead, hostile, headers, "{}");
        let told = hookbridge(["replay", "--config", config, "--from", &dead, "--dry-run"]);
        expect_plain(&told);
        let shown = told.all();
        assert!(shown.contains("forged line"), "{told:?}");
    }
}

#[test]
fn explain_prints_nothing_that_a_terminal_obeys() {
    let rest = kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("synq.{type}");
    let files = bridge::write("", &rest);
    let event =
        json!({"event_id": "e\u{202e}\u{2028}", "issue_created": {"issue": {"issue_id": HOSTILE}}});
    let broken = json!({"event_id": "e", "issue_created": {"issue": {"issue_id": HOSTILE, HOSTILE: 1, "title": 1}}});
    for body in [
        event.to_string(),
        broken.to_string(),
        format!("{{\"{HOSTILE}\":1}}"),
    ] {
        for json in [false, true] {
            let arguments = ["explain", "--config", files.path(), "--source", "synq"];
            let more = if json { &["--json"][..] } else { &[] };
            let arguments = arguments.iter().chain(more).copied();
            let told = hookbridge_reading(arguments, body.as_bytes(), &[]);
            expect_plain(&told);
        }
    }
    let arguments = ["explain", "--config", files.path(), "--source", "synq"];
    let told = hookbridge_reading(arguments, event.to_string().as_bytes(), &[]).expect_code(0);
    assert!(told.stdout.contains("forged line"), "{told:?}");
}

#[test]
fn send_prints_nothing_that_a_terminal_obeys() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut bytes = [0; 4096];
            let count = socket.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the whole request comes");
            request.extend_from_slice(&bytes[..count]);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-odd: \u{202e}\u{9b}2J\r\ncontent-length: {}\r\n\r\n",
            HOSTILE.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(HOSTILE.as_bytes()).unwrap();
    });
    let url = format!("http://{address}/hooks/synq");
    let arguments = [
        "send",
        "--provider",
        "synq",
        "--secret",
        SECRET,
        "--url",
        &url,
    ];
    let told = hookbridge_reading(arguments, b"{}", &[]).expect_code(0);
    server.join().unwrap();
    let shown = told.stdout.replace("\nforged line", " ");
    assert!(
        !shown.contains(|character: char| character.is_control() && character != '\n'),
        "{told:?}"
    );
    assert!(
        !shown.contains(['\u{202e}', '\u{2028}', '\u{2066}']),
        "{told:?}"
    );
    assert!(told.stdout.contains("\\u{1b}[31m"), "{told:?}");
}

#[test]
fn the_log_for_people_has_one_line_for_each_event_whatever_a_sender_writes() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("validation");
    let rest =
        nats_broker("main", &nats.url) + &synq_source("") + &route(&format!("{stream}.{{type}}"));
    let files = bridge::write("", &rest);
    let mut running = bridge::start(&[
        "run",
        "--log-format",
        "human",
        "--log",
        "debug",
        "--config",
        files.path(),
    ]);
    let address = crate::support::wait::until_some("the bridge listens", PATIENCE, || {
        running.stderr.lines().iter().find_map(|line| {
            let (_, rest) = line.split_once("listener=\"public\" address=")?;
            rest.split_whitespace().next()?.parse().ok()
        })
    });
    let hostile_id =
        json!({"event_id": "e\u{202e}\u{2028}forged", "ping": {"message": 1, HOSTILE: 1}});
    let hostile_topic = json!({"event_id": "e", "event_type": HOSTILE, "ping": {}});
    for body in [
        hostile_id.to_string(),
        hostile_topic.to_string(),
        format!("{{\"{HOSTILE}\""),
    ] {
        sender::send(address, &Request::signed_body(body));
        sender::send(
            address,
            &Request::post("/hooks/synq", "{}").header("X-Coalesce-Signature", "\u{202e}\u{9b}2J"),
        );
    }
    running.signal("TERM");
    let log = running.stderr.finished(PATIENCE);
    assert!(
        log.iter().any(|line| line.contains("request refused")),
        "{log:#?}"
    );
    for line in &log {
        let is_odd = |character: char| {
            character.is_control() || "\u{200f}\u{2028}\u{202e}\u{2066}".contains(character)
        };
        assert!(!line.contains(is_odd), "{line:?}");
        assert!(!line.starts_with("forged"), "{line:?}");
    }
}
