//! Log lines about requests: refusals by default, and every request on demand.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::bridge::Bridge;
use crate::support::events;
use crate::support::fixture::{Broker, Setup, kafka, nats};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::sender::Request;
use crate::support::wait::{self, PATIENCE};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ACCESS: &str = "hookbridge::access";

fn parsed(bridge: &Bridge) -> Vec<Value> {
    let lines = bridge.log();
    let lines = lines.iter().map(|line| serde_json::from_str(line));
    lines.map(|line| line.expect("JSON")).collect()
}

fn access_lines(bridge: &Bridge) -> Vec<Value> {
    let mut lines = parsed(bridge);
    lines.retain(|line| line["target"] == ACCESS);
    lines
}

/// Lines are written by another thread.
fn wait_for_access_lines(bridge: &Bridge, count: usize) -> Vec<Value> {
    wait::until_some("the access log has its lines", PATIENCE, || {
        let lines = access_lines(bridge);
        (lines.len() >= count).then_some(lines)
    })
}

/// Waits for this many lines with this message.
fn wait_for_lines(bridge: &Bridge, message: &str, count: usize) -> Vec<Value> {
    wait::until_some(&format!("{count} lines say {message}"), PATIENCE, || {
        let mut lines = parsed(bridge);
        lines.retain(|line| line["message"] == message);
        (lines.len() >= count).then_some(lines)
    })
}

on_each_broker!(the_access_log_says_what_became_of_each_request_and_where_it_is);

fn the_access_log_says_what_became_of_each_request_and_where_it_is<B: Broker>() {
    let setup = Setup::<B>::new().http("access_log = true\ntrusted_proxies = [\"127.0.0.1/32\"]");
    let bridge = or_skip!(setup.run());
    let proxied = |request: Request| request.header("X-Forwarded-For", "203.0.113.7");
    let (first, second) = (events::ping(), events::ping());
    let answer = bridge.send(&proxied(Request::event(&first)));
    answer.expect_published(&first);
    bridge.deliver(&second).expect_published(&second);
    bridge.deliver(&second).expect_success("duplicate");
    let secret = "a-value-that-no-log-may-hold";
    let invalid = events::raw(&format!(
        r#"{{"event_id":"ID","event_type":"EVENT_TYPE_PING","event_time":"{secret}","ping":{{"message":"{secret}"}}}}"#
    ));
    bridge
        .deliver(&invalid)
        .expect_problem(422, "invalid_event");
    bridge.send(&Request::post("/hooks/synq", "{}").signed("wrong"));
    bridge.send(&Request::post("/nowhere", "{}"));
    let lines = wait_for_access_lines(&bridge, 6);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str()).collect();
    let expected = [
        "published",
        "published",
        "duplicate",
        "invalid_event",
        "invalid_signature",
        "unknown_path",
    ];
    assert_eq!(outcomes, expected.map(Some));
    let published = &lines[0];
    let request_id = answer.header("x-request-id").unwrap();
    for (field, value) in [
        ("message", "access"),
        ("level", "INFO"),
        ("request_id", request_id),
        ("source", "synq"),
        ("event_id", &first.id),
        ("type", "ping"),
        ("broker", "main"),
        ("client", "203.0.113.7"),
    ] {
        assert_eq!(published[field], value, "{field}: {published}");
    }
    assert!(published["duration_ms"].as_f64().unwrap() > 0.0);
    let stored = bridge.read();
    for (index, (line, message)) in lines.iter().zip(&stored).enumerate() {
        assert_eq!(line["topic"], *message.topic);
        let index = u64::try_from(index).unwrap();
        if B::NAME == "Kafka" {
            assert_eq!(line["partition"], message.partition);
            assert_eq!(line["offset"], index);
            assert!(line.get("sequence").is_none());
        } else {
            assert_eq!(line["stream"], *bridge.topic);
            assert_eq!(line["sequence"], index + 1);
            assert!(line.get("offset").is_none());
        }
    }
    assert_eq!(lines[1]["client"], "127.0.0.1");
    let invalid_line = &lines[3];
    assert_eq!(invalid_line["pointer"], "/event_time");
    assert_eq!(invalid_line["type"], "ping");
    assert_eq!(invalid_line["event_id"], *invalid.id);
    assert!(invalid_line.get("broker").is_none());
    let whole = bridge.log().join("\n");
    assert!(!whole.contains(secret), "{whole}");
}

#[test]
fn an_event_with_copies_has_the_place_of_each() {
    let (Some(nats), Some(_)) = (Nats::shared(), Kafka::shared()) else {
        return;
    };
    let stream = nats.stream("access");
    let copies = format!("copy_to = [{{ broker = \"edge\", topic = \"{stream}.all\" }}]");
    let setup = kafka().edge(nats).http("access_log = true");
    let setup = setup.routes(&[("TOPIC", &format!("broker = \"main\"\n{copies}"))]);
    let bridge = or_skip!(setup.run());
    wait::until("both brokers take events", PATIENCE, || {
        bridge.deliver(&events::ping()).status == 200
    });
    let lines = wait_for_access_lines(&bridge, 1);
    let line = lines.iter().find(|line| line["outcome"] == "published");
    let line = line.unwrap();
    assert_eq!(
        (&line["broker"], &line["offset"]),
        (&"main".into(), &0.into())
    );
    let copies = format!("edge/{stream}.all {stream}@1");
    assert_eq!(line["copies"], *copies);
}

#[test]
fn an_accepted_event_has_no_line_unless_it_is_asked_for_and_a_reload_asks() {
    let mut bridge = or_skip!(nats().run());
    let tables = bridge.tables.clone();
    bridge.publish_ping();
    assert!(bridge.reload_with("access_log = true", &tables));
    let event = bridge.publish_ping();
    let lines = wait_for_access_lines(&bridge, 1);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["event_id"], *event.id);
    assert!(bridge.reload_with("", &tables));
    bridge.publish_ping();
    bridge.signal("TERM");
    bridge.wait(PATIENCE);
    bridge.wait_for_log("ended: every request was answered");
    assert_eq!(access_lines(&bridge).len(), 1);
}

#[test]
fn refusals_are_limited_for_each_source_and_reason_and_say_how_many_were_left_out() {
    let sources = ["one", "two"].map(|name| {
        let secret = events::SECRET;
        format!("[sources.{name}]\nprovider = \"synq\"\nsecrets = [\"{secret}\"]\n")
    });
    let bridge = or_skip!(nats().sources(&sources.concat()).run());
    let refuse = |source: &str| {
        let path = format!("/hooks/{source}");
        let wrong = Request::post(&path, "{}").signed("wrong");
        bridge.send(&wrong).expect_problem(401, "invalid_signature");
    };
    // The loud source does not hide the quiet one.
    for _ in 0..5 {
        refuse("one");
    }
    refuse("two");
    let lines = wait_for_lines(&bridge, "request refused", 2);
    let of = |source: &str| lines.iter().filter(|line| line["source"] == source).count();
    assert!(of("one") >= 1 && of("two") == 1, "{lines:#?}");
    // Once a second has passed, a line counts those before it.
    let counted = wait::until_some("every refusal is in a line", PATIENCE, || {
        refuse("one");
        let mut lines = wait_for_lines(&bridge, "request refused", 2);
        lines.retain(|line| line["source"] == "one");
        let suppressed = lines
            .iter()
            .map(|line| line["suppressed"].as_u64().unwrap());
        let suppressed: u64 = suppressed.sum();
        (suppressed >= 4).then_some(lines)
    });
    assert!(
        counted
            .iter()
            .all(|line| line["code"] == "invalid_signature")
    );
}

/// The fields of a macro call that logs, from its first argument: `name = …`, `%name`, `?name` and `name`.
fn fields_of(call: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for c in call.chars() {
        match c {
            '"' if !escaped => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            // The end of the call.
            ')' if !in_text && depth == 0 => break,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        parts.last_mut().unwrap().push(c);
    }
    let mut fields = Vec::new();
    for part in parts.iter().map(|part| part.trim()) {
        let is_name = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_\"%?".contains(&b))
        };
        let (name, value) = match part.split_once(" = ").filter(|(name, _)| is_name(name)) {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        if part.is_empty() || part.starts_with("target:") {
            continue;
        }
        // The message, whose arguments follow it.
        if part.starts_with('"') && value.is_none() {
            break;
        }
        fields.push(name.trim_matches(['"', '%', '?']).to_owned());
    }
    fields
}

/// The field names of every log line in the sources.
fn logged_fields() -> BTreeSet<String> {
    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for level in ["error", "warn", "info", "debug", "trace"] {
                for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                    found.extend(fields_of(call));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&Path::new(ROOT).join("src"), &mut found);
    found
}

#[test]
fn the_table_of_log_fields_has_every_field_and_no_other() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/operations.md")).unwrap();
    let (_, table) = page.split_once("| field | meaning |").expect("the table");
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut documented = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let (names, _) = row[2..].split_once(" |").unwrap();
        documented.extend(
            names
                .split(", ")
                .map(|name| name.trim_matches('`').to_owned()),
        );
    }
    let mut logged = logged_fields();
    assert!(logged.len() > 30, "{logged:?}");
    // The fields of the log format.
    logged.extend(["timestamp", "level", "target", "message"].map(str::to_owned));
    let missing: Vec<_> = logged.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&logged).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/operations.md lacks {missing:?}, and no line has {gone:?}"
    );
}
