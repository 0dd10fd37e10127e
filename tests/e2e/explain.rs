//! `explain` describes what `run` would do with an event, without a broker.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::bridge::{
    self, Files, kafka_broker, nats_broker, route, route_with, synq_source,
};
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::fixture::kafka;

/// Routes to two brokers that are not running.
pub(crate) fn nowhere() -> Files {
    let rest = kafka_broker("main", "127.0.0.1:1")
        + &nats_broker("edge", "nats://127.0.0.1:1")
        + &synq_source("")
        + &route_with(
            "synq.{type}",
            "types = [\"issue_*\"]\nbroker = \"main\"\nkey = \"{/workspace}\"",
        )
        + "[[routes]]\ntypes = [\"incident_closed\"]\naction = \"ignore\"\n"
        + &route_with(
            "synq.{type}",
            "types = [\"incident_*\", \"ping\"]\nbroker = \"edge\"",
        );
    bridge::write("", &rest)
}

fn explain(files: &Files, body: &[u8]) -> Value {
    files
        .command_reading(&["explain", "--source", "synq", "--json"], body)
        .json()
}

#[test]
fn it_describes_what_would_happen() {
    let files = nowhere();
    let issue = events::issue("created", "0b51f1f2");
    let ping = events::ping();
    let invalid = br#"{"event_id":7,"event_type":"EVENT_TYPE_PING","ping":{}}"#;
    let rows = [
        (
            &issue.body[..],
            json!({
                "/verdict": "publish", "/event_id": issue.id, "/type": "issue_created", "/route": 1,
                "/broker": "main", "/topic": "synq.issue_created", "/key": "acme",
                "/headers/ce_type": "issue_created",
            }),
        ),
        (&ping.body, json!({ "/verdict": "publish", "/route": 3 })),
        (
            &events::incident("closed", "n1").body,
            json!({ "/verdict": "ignore" }),
        ),
        (
            &events::of_type("EVENT_TYPE_NEW").body,
            json!({ "/verdict": "refuse", "/code": "no_route" }),
        ),
        (
            invalid,
            json!({ "/code": "invalid_event", "/errors/0/pointer": "/event_id" }),
        ),
    ];
    for (body, expected) in rows {
        let said = explain(&files, body);
        for (pointer, value) in expected.as_object().unwrap() {
            assert_eq!(said.pointer(pointer), Some(value), "{pointer}: {said:#}");
        }
    }
    let said = explain(&files, &ping.body);
    let message_id = said["headers"]["Nats-Msg-Id"].as_str();
    let start = format!("synq/{}/", ping.id);
    assert!(
        message_id.is_some_and(|id| id.starts_with(&start)),
        "{said:#}"
    );
}

#[test]
fn a_hyphen_is_standard_input() {
    let files = nowhere();
    let event = events::ping();
    let arguments = ["explain", "--source", "synq", "--json", "-"];
    let explained = files.command_reading(&arguments, &event.body).json();
    assert_eq!(explained["event_id"], *event.id);
}

#[test]
fn it_reads_a_file_too_and_prints_for_people() {
    let files = nowhere();
    let event = events::issue("created", "0b51f1f2");
    let file = files.dir.join("event.json");
    std::fs::write(&file, &event.body).unwrap();
    let file = file.to_str().unwrap();
    let shown = [
        &event.id,
        "issue_created",
        "synq.issue_created",
        "main",
        "acme",
    ];
    files
        .command(&["explain", "--source", "synq", file])
        .expect_code(0)
        .expect_stdout(&shown);
    let done = files.command(&["explain", "--source", "snyq", file]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
    done.expect_stderr(&["synq"]);
}

#[test]
fn it_says_what_run_does() {
    let bridge = or_skip!(kafka().run());
    let event = events::issue("created", "0b51f1f2");
    bridge.deliver(&event).expect_published(&event);
    let stored = only(bridge.read());
    let files = Files {
        dir: bridge.file.parent().unwrap().to_owned(),
        file: bridge.file.clone(),
    };
    let said = explain(&files, &event.body);
    assert_eq!(said["topic"], bridge.topic.as_str(), "{said:#}");
    assert_eq!(said["key"].as_str(), stored.key.as_deref(), "{said:#}");
    let mut told: BTreeMap<String, String> =
        serde_json::from_value(said["headers"].clone()).unwrap();
    let mut found: BTreeMap<_, _> = stored.headers.into_iter().collect();
    for headers in [&mut told, &mut found] {
        headers.remove("ce_recordedtime").expect("when it came");
    }
    assert_eq!(told, found);
}

/// More arguments, a body, and the status and code of the refusal.
type Refused<'r> = (&'r [&'r str], &'r [u8], (u16, &'r str));

#[test]
fn it_refuses_what_the_head_alone_makes_run_refuse() {
    let rest = kafka_broker("main", "127.0.0.1:1")
        + &synq_source("max_body = \"4KiB\"")
        + &route("synq.{type}");
    let files = bridge::write("", &rest);
    let event = events::issue("created", "0b51f1f2").body;
    let large = vec![b' '; 4097];
    let json = ["--header", "Content-Type: application/json"];
    let wrong_type = (415, "unsupported_media_type");
    let bad = (400, "bad_request");
    let rows: [Refused<'_>; 8] = [
        (
            &["--header", "Content-Type: text/plain"],
            &event,
            wrong_type,
        ),
        (&["--header", "Content-Encoding: gzip"], &event, wrong_type),
        (&[json, json].concat(), &event, wrong_type),
        (&["--method", "PUT"], &event, (405, "method_not_allowed")),
        (&[], &large, (413, "body_too_large")),
        (&["--header", "Host: hooks example"], &event, bad),
        (&["--header", "Host: a", "--header", "Host: a"], &event, bad),
        (
            &["--header", "Transfer-Encoding: gzip, chunked"],
            &event,
            bad,
        ),
    ];
    let explain = |arguments: &[&str], body: &[u8], code: i32| {
        let all = [&["explain", "--source", "synq", "--json"], arguments].concat();
        files.command_reading(&all, body).expect_code(code).json()
    };
    for (arguments, body, (status, code)) in rows {
        let said = explain(arguments, body, 1);
        assert_eq!(said["status"], status, "{arguments:?}: {said:#}");
        assert_eq!(said["code"], code, "{arguments:?}: {said:#}");
    }
    let header = "Content-Type: Application/JSON; charset=utf-8";
    explain(&["--header", header], &event, 0);
}

#[test]
fn a_compressed_event_is_unfolded_where_the_source_accepts_it() {
    let rest = kafka_broker("main", "127.0.0.1:1")
        + &synq_source("accept_gzip = true\nmax_body = \"4KiB\"")
        + &route("synq.{type}");
    let files = bridge::write("", &rest);
    let gzip = |text: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let event = events::issue("created", "0b51f1f2").body;
    let explain = |body: &[u8], code: i32| {
        let arguments = ["explain", "--source", "synq", "--json"];
        let header = ["--header", "content-encoding: gzip"];
        let all = [&arguments[..], &header].concat();
        files.command_reading(&all, body).expect_code(code).json()
    };
    let said = explain(&gzip(&event), 0);
    assert_eq!(said["topic"], "synq.issue_created", "{said:#}");
    for (body, status, code) in [
        (event.clone(), 400, "invalid_encoding"),
        (gzip(&[b' '; 4097]), 413, "body_too_large"),
    ] {
        let said = explain(&body, 1);
        assert_eq!(
            (&said["status"], &said["code"]),
            (&status.into(), &code.into())
        );
    }
}

#[test]
fn it_needs_no_signing_secret_and_check_does() {
    let rest = kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("synq.{type}");
    let secret = format!("\"{SECRET}\"");
    let rest = rest.replace(&secret, "{ env = \"HOOKBRIDGE_TEST_UNSET\" }");
    let files = bridge::write("", &rest);
    files
        .command_reading(&["explain", "--source", "synq"], &events::ping().body)
        .expect_code(0);
    files.check(1).expect_stderr(&["HOOKBRIDGE_TEST_UNSET"]);
}
