//! The other commands: what they print, and how they exit.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::bridge::{
    self, Bridge, Files, hookbridge, hookbridge_reading, kafka_broker, nats_broker, route,
    route_with, synq_source,
};
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::wait::PATIENCE;

fn path(files: &Files) -> &str {
    files.file.to_str().unwrap()
}

/// Brokers that nobody has started: `check` and `explain` must not need them.
fn nowhere() -> Files {
    bridge::write(
        "",
        &(kafka_broker("main", "127.0.0.1:1")
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
            )),
    )
}

// ---- check

#[test]
fn check_prints_the_routing_table_and_exits_0() {
    let files = nowhere();
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(0);
    for text in [
        "synq",
        "/hooks/synq",
        "issue_*",
        "incident_*",
        "main",
        "edge",
        "synq.{type}",
        "{/workspace}",
        "ignore",
    ] {
        assert!(done.stdout.contains(text), "{text:?} is missing: {done:?}");
    }
    assert!(
        !done.stdout.contains('\u{1b}') && !done.stderr.contains('\u{1b}'),
        "no colour when piped: {done:?}"
    );
    assert!(!format!("{done:?}").contains(SECRET), "{done:?}");
}

#[test]
fn the_least_configuration_is_a_broker_a_source_and_a_route() {
    let text = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\
                [sources.synq]\nsecrets = [\"s3cr3t-s3cr3t\"]\n[[routes]]\ntopic = \"events\"\n";
    let files = bridge::write_text(text);
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(0);
    for text in ["/hooks/synq", "events", "main"] {
        assert!(
            done.stdout.contains(text),
            "check prints what it became: {done:?}"
        );
    }
    assert!(!format!("{done:?}").contains("s3cr3t-s3cr3t"), "{done:?}");
}

#[test]
fn check_reports_every_problem_with_its_place_and_what_to_write_instead() {
    let text = r#"[http]
listen = "127.0.0.1:0"
max_bdy = "1MiB"
body_timeout = "soon"

[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
optoins = {}

[sources.synq]
secrets = [{ env = "HOOKBRIDGE_TEST_NOT_SET" }]

[[routes]]
source = "snyq"
broker = "mian"
topic = "synq.{type}"

[[routes]]
topic = "{/workspace}"

[[routes]]
types = ["[issue"]
topic = "a b"

[roots]
"#;
    let files = bridge::write_text(text);
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
    let problems = [
        (3, Some(1), vec!["max_bdy", "max_body"]),
        (4, Some(16), vec![]),
        (9, Some(1), vec!["optoins", "options"]),
        (12, None, vec!["HOOKBRIDGE_TEST_NOT_SET"]),
        (15, Some(10), vec!["snyq", "synq"]),
        (16, Some(10), vec!["mian", "main"]),
        (20, Some(9), vec![]),
        (23, None, vec![]),
        (24, Some(9), vec![]),
        (26, None, vec!["roots", "routes"]),
    ];
    for (line, column, words) in problems {
        let place = column.map_or_else(
            || format!("{}:{line}:", path(&files)),
            |column| format!("{}:{line}:{column}", path(&files)),
        );
        let found = done
            .stderr
            .split("\n\n")
            .find(|problem| problem.contains(&place))
            .unwrap_or_else(|| panic!("{place}: {done:?}"));
        for word in words {
            assert!(found.contains(word), "{word:?} is missing in {found:?}");
        }
    }
}

#[test]
fn check_shows_where_toml_itself_is_broken() {
    let files = bridge::write_text("[http]\nlisten = \"127.0.0.1:0\nmax_body = 1\n");
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
    assert!(
        done.stderr.contains(&format!("{}:2:", path(&files))),
        "{done:?}"
    );
    let done = hookbridge(["check", "--config", "/nowhere/at/all.toml"]).expect_code(1);
    assert!(done.stderr.contains("/nowhere/at/all.toml"), "{done:?}");
}

#[test]
fn keys_that_wait_for_later_releases_are_unknown_until_then() {
    let keys = [
        ("source", "verify = { header = \"x\" }"),
        ("source", "success_body = \"ok\""),
        ("source", "rate_limit = { per_second = 1 }"),
        ("source", "expect_every = \"1h\""),
    ];
    for (place, key) in keys {
        println!("{key}");
        let at = |wanted: &str| if place == wanted { key } else { "" };
        let rest = kafka_broker("main", "127.0.0.1:1")
            + &synq_source(at("source"))
            + &route_with("x", at("route"));
        let files = bridge::write(at("http"), &rest);
        let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
        let name = key.split(' ').next().unwrap();
        assert!(done.stderr.contains(name), "{done:?}");
    }
}

#[test]
fn what_would_break_the_promise_or_choose_any_topic_is_a_problem() {
    let rests = [
        (
            "acks",
            kafka_broker("main", "127.0.0.1:1")
                + "options = { \"acks\" = \"1\" }\n"
                + &synq_source("")
                + &route("x"),
        ),
        (
            "prefix",
            kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("x{/workspace}"),
        ),
        (
            "secret",
            kafka_broker("main", "127.0.0.1:1")
                + "[sources.synq]\nsecrets = [\"\"]\n"
                + &route("x"),
        ),
        (
            "secrets",
            kafka_broker("main", "127.0.0.1:1") + "[sources.synq]\n" + &route("x"),
        ),
        (
            "forward",
            kafka_broker("main", "127.0.0.1:1")
                + &synq_source("forward_headers = [\"Nats-Msg-Id\"]")
                + &route("x"),
        ),
        (
            "forward",
            kafka_broker("main", "127.0.0.1:1")
                + &synq_source("forward_headers = [\"authorization\"]")
                + &route("x"),
        ),
        (
            "subject",
            nats_broker("main", "nats://127.0.0.1:1") + &synq_source("") + &route("$JS.API.{type}"),
        ),
        (
            "wildcard",
            nats_broker("main", "nats://127.0.0.1:1") + &synq_source("") + &route("a.>"),
        ),
        (
            "topic",
            kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("__consumer_offsets"),
        ),
        (
            "schema",
            kafka_broker("main", "127.0.0.1:1")
                + &synq_source("schema = \"nowhere.json\"")
                + &route("x"),
        ),
        (
            "two",
            kafka_broker("a", "127.0.0.1:1")
                + &kafka_broker("b", "127.0.0.1:1")
                + &synq_source("")
                + &route("x"),
        ),
    ];
    for (what, rest) in rests {
        println!("{what}");
        let files = bridge::write("", &rest);
        let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
        assert!(
            done.stderr.contains(&format!("{}:", path(&files))),
            "{done:?}"
        );
    }
}

#[test]
fn later_files_and_the_environment_override_and_are_substituted() {
    let first = bridge::write(
        "max_body = \"1KiB\"",
        &(kafka_broker("main", "${HOOKBRIDGE_TEST_HOST:-localhost}:9092")
            + &synq_source("")
            + &route("first.{type}")),
    );
    let second = bridge::write_text(
        "[brokers.main]\nbootstrap_servers = \"${HOOKBRIDGE_TEST_SECOND}:9092\"\n",
    );
    let arguments = ["check", "--config", path(&first), "--config", path(&second)];
    let environment = [
        ("HOOKBRIDGE_TEST_SECOND", "second.example"),
        ("HOOKBRIDGE__SOURCES__SYNQ__PATH", "/from/environment"),
    ];
    let done = hookbridge_reading(arguments, b"", &environment).expect_code(0);
    assert!(done.stdout.contains("second.example:9092"), "{done:?}");
    assert!(done.stdout.contains("/from/environment"), "{done:?}");
    let done = hookbridge(arguments).expect_code(1);
    assert!(
        done.stderr.contains("HOOKBRIDGE_TEST_SECOND") && done.stderr.contains(path(&second)),
        "{done:?}"
    );
}

#[test]
fn check_connect_reaches_brokers_and_destinations() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (topic, stream) = (kafka.topic("check"), nats.stream("check"));
    let rest = |topic: &str, subject: &str, address: &str| {
        kafka_broker("main", address)
            + &nats_broker("edge", &nats.url)
            + &synq_source("")
            + &route_with(topic, "broker = \"main\"\ntypes = [\"issue_*\"]")
            + &route_with(subject, "broker = \"edge\"")
    };
    let good = bridge::write("", &rest(&topic, &format!("{stream}.x"), &kafka.address));
    hookbridge(["check", "--connect", "--config", path(&good)]).expect_code(0);
    let missing = unique("missing");
    let bad = bridge::write("", &rest(&missing, &format!("{missing}.x"), &kafka.address));
    let done = hookbridge(["check", "--connect", "--config", path(&bad)]).expect_code(1);
    let all = format!("{}{}", done.stdout, done.stderr);
    assert!(
        all.contains(&missing) && all.contains(&format!("{missing}.x")),
        "each destination: {done:?}"
    );
    let nobody = format!("127.0.0.1:{}", process::port());
    let away = bridge::write("", &rest(&topic, &format!("{stream}.x"), &nobody));
    let done = hookbridge(["check", "--connect", "--config", path(&away)]).expect_code(1);
    assert!(
        format!("{}{}", done.stdout, done.stderr).contains("main"),
        "{done:?}"
    );
}

// ---- explain

fn explain(files: &Files, body: &[u8]) -> Value {
    let done = hookbridge_reading(
        [
            "explain",
            "--config",
            path(files),
            "--source",
            "synq",
            "--json",
        ],
        body,
        &[],
    );
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn explain_says_what_would_happen() {
    let files = nowhere();
    let event = events::issue("created", "0b51f1f2");
    let said = explain(&files, &event.body);
    let expected = [
        ("verdict", "publish"),
        ("event_id", &event.id),
        ("type", "issue_created"),
        ("broker", "main"),
        ("topic", "synq.issue_created"),
        ("key", "acme"),
    ];
    for (key, value) in expected {
        assert_eq!(
            said.get(key).and_then(Value::as_str),
            Some(value),
            "{key}: {said:#}"
        );
    }
    assert_eq!(
        said.get("route").and_then(Value::as_u64),
        Some(1),
        "{said:#}"
    );
    assert_eq!(
        said.pointer("/headers/ce_type").and_then(Value::as_str),
        Some("issue_created"),
        "{said:#}"
    );

    let ping = events::ping();
    let said = explain(&files, &ping.body);
    assert_eq!(
        said.get("route").and_then(Value::as_u64),
        Some(3),
        "{said:#}"
    );
    let message_id = said.pointer("/headers/Nats-Msg-Id").and_then(Value::as_str);
    assert!(
        message_id.is_some_and(|id| id.starts_with(&format!("synq/{}/", ping.id))),
        "{said:#}"
    );

    let said = explain(&files, &events::incident("closed", "n1").body);
    assert_eq!(
        said.get("verdict").and_then(Value::as_str),
        Some("ignore"),
        "{said:#}"
    );

    let said = explain(&files, &events::of_type("EVENT_TYPE_NEW").body);
    assert_eq!(
        said.get("verdict").and_then(Value::as_str),
        Some("refuse"),
        "{said:#}"
    );
    assert_eq!(
        said.get("code").and_then(Value::as_str),
        Some("no_route"),
        "{said:#}"
    );

    let said = explain(
        &files,
        br#"{"event_id":7,"event_type":"EVENT_TYPE_PING","ping":{}}"#,
    );
    assert_eq!(
        said.get("code").and_then(Value::as_str),
        Some("invalid_event"),
        "{said:#}"
    );
    assert_eq!(
        said.pointer("/errors/0/pointer").and_then(Value::as_str),
        Some("/event_id"),
        "{said:#}"
    );
}

#[test]
fn explain_reads_a_file_too_and_prints_for_people() {
    let files = nowhere();
    let event = events::issue("created", "0b51f1f2");
    let file = files.dir.join("event.json");
    std::fs::write(&file, &event.body).unwrap();
    let arguments = [
        "explain",
        "--config",
        path(&files),
        "--source",
        "synq",
        file.to_str().unwrap(),
    ];
    let done = hookbridge(arguments).expect_code(0);
    for text in [
        event.id.as_str(),
        "issue_created",
        "synq.issue_created",
        "main",
        "acme",
    ] {
        assert!(done.stdout.contains(text), "{text:?} is missing: {done:?}");
    }
    let done = hookbridge([
        "explain",
        "--config",
        path(&files),
        "--source",
        "snyq",
        file.to_str().unwrap(),
    ]);
    assert!(
        matches!(done.code, Some(1 | 2)) && done.stderr.contains("synq"),
        "{done:?}"
    );
}

#[test]
fn explain_says_what_run_does() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("explain");
    let files = bridge::write(
        "",
        &(kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic)),
    );
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let event = events::issue("created", "0b51f1f2");
    bridge.deliver(&event).expect_published(&event);
    let stored = only(kafka.read(&topic));
    let said = explain(&files, &event.body);
    assert_eq!(
        said.get("topic").and_then(Value::as_str),
        Some(topic.as_str()),
        "{said:#}"
    );
    assert_eq!(
        said.get("key").and_then(Value::as_str),
        stored.key.as_deref(),
        "{said:#}"
    );
    let headers = |pairs: Vec<(String, String)>| {
        pairs
            .into_iter()
            .filter(|(name, _)| name != "ce_recordedtime")
            .collect()
    };
    let told: BTreeMap<String, String> = headers(
        said.get("headers")
            .and_then(Value::as_object)
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    );
    let found: BTreeMap<String, String> = headers(stored.headers);
    assert_eq!(told, found);
}

// ---- send and tail

#[test]
fn send_signs_as_the_provider_does_and_prints_the_answer() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let url = format!("http://{}/hooks/synq", bridge.public);
    let send = |secret: &str, more: &[&str], input: &[u8]| {
        let arguments = [
            &[
                "send",
                "--provider",
                "synq",
                "--secret",
                secret,
                "--url",
                &url,
            ],
            more,
        ]
        .concat();
        hookbridge_reading(arguments, input, &[])
    };
    let done = send(SECRET, &["--sample", "issue_created"], b"").expect_code(0);
    assert!(
        done.stdout.contains("200") && done.stdout.contains("published"),
        "{done:?}"
    );
    let stored = only(nats.read(&stream));
    assert_eq!(stored.header("ce-type"), Some("issue_created"));

    let event = events::ping();
    let file = process::directory("send").join("event.json");
    std::fs::write(&file, &event.body).unwrap();
    send(SECRET, &[file.to_str().unwrap()], b"").expect_code(0);
    assert!(
        nats.read(&stream)
            .iter()
            .any(|message| message.value == event.body)
    );

    let done = send("wrong", &[file.to_str().unwrap()], b"").expect_code(1);
    assert!(
        format!("{}{}", done.stdout, done.stderr).contains("invalid_signature"),
        "{done:?}"
    );
    let done = send(SECRET, &["--sample", "no_such_type"], b"");
    assert!(
        matches!(done.code, Some(1 | 2)) && done.stderr.contains("issue_created"),
        "it lists the samples: {done:?}"
    );
    drop(bridge);
    let done = send(SECRET, &["--sample", "ping"], b"").expect_code(1);
    assert!(
        !done.stderr.is_empty() && !format!("{}{}", done.stdout, done.stderr).contains(SECRET),
        "{done:?}"
    );
}

#[test]
fn every_type_has_a_sample_that_is_accepted() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let url = format!("http://{}/hooks/synq", bridge.public);
    let types = [
        "ping",
        "issue_created",
        "issue_updated",
        "issue_status_updated",
        "issue_closed",
        "incident_open",
        "incident_closed",
        "incident_cancelled",
    ];
    for kind in types {
        hookbridge([
            "send",
            "--provider",
            "synq",
            "--secret",
            SECRET,
            "--url",
            &url,
            "--sample",
            kind,
        ])
        .expect_code(0);
    }
    let mut stored: Vec<_> = nats
        .read(&stream)
        .iter()
        .map(|message| message.header("ce-type").unwrap().to_owned())
        .collect();
    stored.sort_unstable();
    let mut types = types.to_vec();
    types.sort_unstable();
    assert_eq!(stored, types);
}

/// Checks that `tail --json` printed exactly these events.
fn check_tail(lines: &[String], topic: &str, sent: &[events::Event]) {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), sent.len(), "{lines:#?}");
    for (line, event) in lines.iter().zip(sent) {
        assert_eq!(
            line.get("topic").and_then(Value::as_str),
            Some(topic),
            "{line:#}"
        );
        assert_eq!(
            line.get("value").and_then(Value::as_str).map(str::as_bytes),
            Some(event.body.as_slice()),
            "{line:#}"
        );
        assert_eq!(
            line.pointer("/headers/event_id").and_then(Value::as_str),
            Some(event.id.as_str()),
            "{line:#}"
        );
    }
}

#[test]
fn tail_prints_what_kafka_holds_one_object_a_line() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("tail");
    let files = bridge::write(
        "",
        &(kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic)),
    );
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let sent = [
        events::issue("created", "i1"),
        events::raw("{\"event_id\" : \"ID\",\n\"ping\":{\"message\":\"Grüße\\n👋\"} }"),
        events::ping(),
    ];
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    let tail = bridge::start(&[
        "tail",
        "--config",
        path(&files),
        "--json",
        "--from-start",
        "--count",
        "3",
    ]);
    let lines = tail.expect_code(0);
    check_tail(&lines, &topic, &sent);
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        first.get("key").and_then(Value::as_str),
        Some("i1"),
        "{first:#}"
    );
    assert_eq!(
        first.get("offset").and_then(Value::as_i64),
        Some(0),
        "{first:#}"
    );
    assert_eq!(
        first.get("partition").and_then(Value::as_i64),
        Some(0),
        "{first:#}"
    );
}

#[test]
fn tail_prints_what_a_nats_stream_holds() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("tail");
    let subject = format!("{stream}.x");
    let files = bridge::write(
        "",
        &(nats_broker("main", &nats.url) + &synq_source("") + &route(&subject)),
    );
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let sent = [events::ping(), events::issue("created", "i1")];
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    let tail = bridge::start(&[
        "tail",
        "--config",
        path(&files),
        "--topic",
        &subject,
        "--json",
        "--from-start",
        "--count",
        "2",
    ]);
    check_tail(&tail.expect_code(0), &subject, &sent);
}

#[test]
fn tail_prints_messages_as_they_come_until_it_is_told_to_stop() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("tail");
    let files = bridge::write(
        "",
        &(kafka_broker("main", &kafka.address) + &synq_source("") + &route(&topic)),
    );
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let mut tail = bridge::start(&["tail", "--config", path(&files), "--json"]);
    // It shows what comes after it has subscribed: deliver until it shows something.
    let shown = crate::support::wait::until_some("tail prints a message", PATIENCE, || {
        let event = events::ping();
        bridge.deliver(&event).expect_published(&event);
        tail.stdout.lines().first().cloned()
    });
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown.get("topic").and_then(Value::as_str),
        Some(topic.as_str())
    );
    tail.signal("INT");
    let status = tail.wait();
    let is_interrupted = matches!(status.code(), None | Some(0 | 130));
    assert!(
        is_interrupted,
        "{status:?}: a command that was interrupted, not one that failed"
    );
}

// ---- demo

#[test]
fn demo_needs_nothing_and_ends_when_all_events_were_consumed() {
    let done = bridge::start(&["demo", "--events", "10"])
        .expect_code(0)
        .join("\n");
    assert!(
        done.contains("curl") && done.contains("kcat"),
        "the lines to try: {done}"
    );
    for text in ["issue_created", "event_id"] {
        assert!(done.contains(text), "{text:?} is missing: {done}");
    }
    assert!(
        done.matches("event_id").count() >= 10,
        "every message with its headers: {done}"
    );
}

// ---- run

#[test]
fn run_refuses_a_configuration_with_problems_and_lists_them() {
    let files = bridge::write(
        "",
        &(kafka_broker("main", "127.0.0.1:1")
            + &synq_source("")
            + &route_with("x", "broker = \"mian\"")),
    );
    let done = hookbridge(["run", "--config", path(&files)]).expect_code(1);
    assert!(
        done.stderr.contains("mian") && done.stderr.contains(path(&files)),
        "{done:?}"
    );
}

#[test]
fn run_says_which_address_it_cannot_listen_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!("[http]\nlisten = \"{address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n")
        + &kafka_broker("main", "127.0.0.1:1")
        + &synq_source("")
        + &route("x");
    let files = bridge::write_text(&text);
    let done = hookbridge(["run", "--config", path(&files)]).expect_code(1);
    assert!(done.stderr.contains(&address), "{done:?}");
}

#[test]
fn a_secret_may_come_from_the_environment_or_a_file_and_is_never_printed() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("secrets");
    let file = process::directory("secrets").join("secret");
    std::fs::write(&file, "from the file\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = format!(
        "[sources.synq]\nsecrets = [{{ env = \"HOOKBRIDGE_TEST_SECRET\" }}, {{ file = \"{}\" }}]\n",
        file.display()
    );
    let files = bridge::write(
        "",
        &(nats_broker("main", &nats.url) + &source + &route(&format!("{stream}.x"))),
    );
    let environment = [("HOOKBRIDGE_TEST_SECRET", "from the environment")];
    let bridge = Bridge::run_files(&files, &environment);
    bridge.wait_ready();
    for secret in ["from the environment", "from the file"] {
        let event = events::ping();
        let request =
            crate::support::sender::Request::post("/hooks/synq", event.body.clone()).signed(secret);
        bridge.send(&request).expect_published(&event);
    }
    let done =
        hookbridge_reading(["check", "--config", path(&files)], b"", &environment).expect_code(0);
    for text in [
        done.stdout,
        done.stderr,
        bridge.log().join("\n"),
        bridge.metrics().0,
    ] {
        assert!(
            !text.contains("from the environment") && !text.contains("from the file"),
            "{text}"
        );
    }
}

// ---- The rest

#[test]
fn version_names_the_version_and_the_commit() {
    let done = hookbridge(["--version"]).expect_code(0);
    assert!(
        done.stdout
            .starts_with(&format!("hookbridge {}", env!("CARGO_PKG_VERSION"))),
        "{done:?}"
    );
    assert!(
        done.stdout.trim().len() > format!("hookbridge {}", env!("CARGO_PKG_VERSION")).len(),
        "the commit: {done:?}"
    );
}

#[test]
fn help_is_there_for_each_command_and_wrong_usage_exits_2() {
    let commands = [
        "run",
        "demo",
        "check",
        "explain",
        "send",
        "tail",
        "completions",
    ];
    let done = hookbridge(["--help"]).expect_code(0);
    for command in commands {
        assert!(done.stdout.contains(command), "{command}: {done:?}");
        let help = hookbridge([command, "--help"]).expect_code(0);
        assert!(help.stdout.contains("Usage: hookbridge"), "{help:?}");
    }
    let wrong: [&[&str]; 7] = [
        &[],
        &["fly"],
        &["run", "--confg", "x"],
        &["explain"],
        &["send", "--provider", "synq"],
        &["demo", "--events", "many"],
        &["completions", "klingon"],
    ];
    for arguments in wrong {
        let done = hookbridge(arguments).expect_code(2);
        assert!(
            done.stdout.is_empty() && !done.stderr.is_empty(),
            "{done:?}"
        );
    }
}

#[test]
fn completions_for_bash_are_valid_bash() {
    let done = hookbridge(["completions", "bash"]).expect_code(0);
    assert!(
        done.stdout.contains("_hookbridge") && done.stdout.contains("explain"),
        "{done:?}"
    );
    let file = process::directory("completions").join("hookbridge.bash");
    std::fs::write(&file, &done.stdout).unwrap();
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(&file)
        .status()
        .unwrap();
    assert!(checked.success());
}
