//! A reload's log line names what has changed, and shows no value.

use serde_json::Value;

use crate::support::bridge::{Bridge, nats_broker, route_with};
use crate::support::fixture::nats;

/// The log lines of changes, in their order.
fn changes(bridge: &Bridge) -> Vec<Value> {
    let lines = bridge.log().into_iter();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let is_change = |line: &Value| line.to_string().contains("the configuration has changed");
    lines.filter(is_change).collect()
}

#[test]
fn a_reload_names_what_was_added_removed_and_changed() {
    let mut bridge = or_skip!(nats().run());
    let broker = nats_broker("main", &bridge.broker.url);
    let source = |name: &str, secret: &str| {
        format!("[sources.{name}]\nprovider = \"standard-webhooks\"\nsecrets = [\"{secret}\"]\n")
    };
    let stream = bridge.topic.clone();
    let route = |leaf: &str| route_with(&format!("{stream}.{leaf}"), "");
    let before = "d2hzZWNfaHVudGVyMi1iZWZvcmU";
    let after = "d2hzZWNfaHVudGVyMi1hZnRlcnM";
    let first = [
        &*broker,
        &source("old", before),
        &source("kept", before),
        &route("a"),
        &route("b"),
    ];
    let second = [
        &*broker,
        &source("new", before),
        &source("kept", after),
        &route("c"),
    ];
    assert!(bridge.reload(&first.concat()));
    let reloads = changes(&bridge).len();
    assert!(bridge.reload_with("idle_timeout = \"30s\"", &second.concat()));
    let changes = changes(&bridge);
    assert_eq!(changes.len(), reloads + 1, "{changes:?}");
    let line = &changes[reloads];
    let words = |key: &str| {
        let names = line[key].as_str().unwrap_or_default().split(", ");
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("added"), ["sources.new"], "{line}");
    assert_eq!(words("removed"), ["route 2", "sources.old"], "{line}");
    let expected = [
        "http.idle_timeout",
        "route 1.topic",
        "sources.kept.secrets[0]",
    ];
    assert_eq!(words("changed"), expected, "{line}");
    for value in [before, after, "30s"] {
        assert!(!line.to_string().contains(value), "{line}");
    }
}
