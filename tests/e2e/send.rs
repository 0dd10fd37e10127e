//! `send` delivers what a provider would.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::support::bridge::{self, Bridge, Finished, hookbridge, nats_broker, route};
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::fixture::nats;
use crate::support::nats::Nats;
use crate::support::process;

fn send(url: &str, secret: &str, more: &[&str]) -> Finished {
    let arguments = [
        "send",
        "--provider",
        "synq",
        "--secret",
        secret,
        "--url",
        url,
    ];
    hookbridge(arguments.iter().chain(more).copied())
}

#[test]
fn it_signs_as_the_provider_does_and_prints_the_answer() {
    let bridge = or_skip!(nats().run());
    let url = bridge.url();
    send(&url, SECRET, &["--sample", "issue_created"])
        .expect_code(0)
        .expect_stdout(&["200", "published"]);
    let stored = only(bridge.read());
    assert_eq!(stored.header("ce-type"), Some("issue_created"));

    let event = events::ping();
    let file = process::directory("send").join("event.json");
    std::fs::write(&file, &event.body).unwrap();
    let file = file.to_str().unwrap();
    send(&url, SECRET, &[file]).expect_code(0);
    assert!(bridge.bodies().contains(&event.body));

    let done = send(&url, "wrong", &[file]).expect_code(1);
    assert!(done.all().contains("invalid_signature"), "{done:?}");
    let done = send(&url, SECRET, &["--sample", "no_such_type"]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
    // It lists the samples.
    done.expect_stderr(&["issue_created"]);
    drop(bridge);
    let done = send(&url, SECRET, &["--sample", "ping"]).expect_code(1);
    assert!(!done.stderr.is_empty() && !done.all().contains(SECRET));
}

#[test]
fn a_url_of_the_other_scheme_is_named_as_the_mistake() {
    let bridge = or_skip!(nats().run());
    let url = bridge.url().replace("http://", "https://");
    send(&url, SECRET, &["--sample", "ping"])
        .expect_code(1)
        .expect_stderr(&["does not speak TLS", "write http://"]);
    // As a server of TLS answers what is none: "unexpected message".
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let _read = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"\x15\x03\x03\x00\x02\x02\x0a").unwrap();
    });
    send(&url, SECRET, &["--sample", "ping"])
        .expect_code(1)
        .expect_stderr(&["does not answer in HTTP", "write https://"]);
    answering.join().unwrap();
}

#[test]
fn every_type_has_a_sample_that_is_accepted() {
    let bridge = or_skip!(nats().run());
    let mut types = events::TYPES;
    for kind in types {
        send(&bridge.url(), SECRET, &["--sample", kind]).expect_code(0);
    }
    let stored = bridge.read();
    let mut stored: Vec<_> = stored
        .iter()
        .filter_map(|message| message.header("ce-type"))
        .collect();
    stored.sort_unstable();
    types.sort_unstable();
    assert_eq!(stored, types);
}

#[test]
fn it_signs_as_a_configured_source_expects_it_whatever_keys_that_sets() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let zendesk = "type = \"ticket\"\nid_header = \"x-zendesk-webhook-invocation-id\"\ncontent_type = \"any\"";
    let declared = "verify = { algorithm = \"hmac-sha512\", content = \"{timestamp}:{body}\", tolerance = \"5m\", timestamp = { query = \"t\", unit = \"ms\" }, signature = { query = \"s\", encoding = \"base64url\" } }\nevent = { id = \"{/id}\", type = \"x\" }";
    let sources = [
        (
            "grafana",
            "timestamp_header = \"x-grafana-alerting-timestamp\"",
        ),
        (
            "named",
            "provider = \"grafana\"\nsignature_header = \"x-mine\"",
        ),
        ("basic", "provider = \"grafana\"\nauth = \"basic\""),
        ("mailgun", "parent_signature = true"),
        ("jira", "scheme = \"jwt\""),
        ("zendesk", zendesk),
        ("declared", declared),
    ];
    let mut rest = nats_broker("main", &nats.url) + &route(&format!("{stream}.x"));
    let secret_of = |name: &str| format!("user:a-secret-of-{name}");
    for (name, keys) in sources {
        let secret = secret_of(name);
        rest.push_str(&format!(
            "[sources.{name}]\nsecrets = [\"{secret}\"]\n{keys}\n"
        ));
    }
    let files = bridge::write("", &rest);
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let send = |name: &str, more: &[&str]| {
        let url = format!("http://{}/hooks/{name}", bridge.public);
        let secret = secret_of(name);
        let arguments = ["send", "--url", &url, "--secret", &secret];
        hookbridge(arguments.iter().chain(more).copied())
    };
    let file = process::directory("send-source").join("event.json");
    std::fs::write(&file, r#"{"id":"e-1"}"#).unwrap();
    let file = file.to_str().unwrap();
    for (index, (name, _)) in sources.into_iter().enumerate() {
        let mut arguments = vec!["--config", files.path(), "--source", name];
        arguments.extend(match name {
            "mailgun" => ["--sample", "delivered"],
            "jira" => ["--sample", "jira:issue_created"],
            "declared" => ["--header", "content-type: application/json"],
            "zendesk" => ["--header", "x-zendesk-webhook-invocation-id: i-1"],
            _ => ["--sample", "firing"],
        });
        if !arguments.contains(&"--sample") {
            arguments.push(file);
        }
        send(name, &arguments).expect_code(0);
        assert_eq!(nats.read(&stream).len(), index + 1, "{name}");
    }
    // The preset alone does not know of the time.
    let done = send("grafana", &["--provider", "grafana", "--sample", "firing"]);
    done.expect_code(1).expect_stdout(&["missing_signature"]);
    for (source, words) in [
        ("x", ["source x not found", "grafana"]),
        ("declared", ["without a preset", "file"]),
    ] {
        let arguments = ["--config", files.path(), "--source", source];
        let done = send(source, &[&arguments[..], &["--sample", "firing"]].concat());
        done.expect_code(1).expect_stderr(&words);
    }
    send("synq", &["--source", "synq", "--provider", "synq"]).expect_code(2);
    send("synq", &[]).expect_code(2);
}
