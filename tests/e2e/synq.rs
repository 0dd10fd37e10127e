//! SYNQ's samples from the reference folder, each delivered for real. (Its signature vectors carry their own clock: they
//! are unit tests.)

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::bridge::Bridge;
use crate::support::events;
use crate::support::fixture::{kafka, nats};
use crate::support::nats::Nats;
use crate::support::sender::Request;

#[test]
fn every_sample_is_published_as_the_reference_says() {
    let expected = or_skip!(events::reference("synq-samples/expected.json"));
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&expected).unwrap();
    assert!(!expected.is_empty());
    let bridge = or_skip!(kafka().run());
    let mut bodies = BTreeMap::new();
    for (file, expected) in &expected {
        println!("{file}");
        let body = events::reference(&format!("synq-samples/{file}")).unwrap();
        let id = bridge
            .send(&Request::signed_body(body.clone()))
            .expect_success("published");
        assert_eq!(
            Some(id.as_str()),
            expected.get("event_id").and_then(Value::as_str)
        );
        bodies.insert(id, body);
    }
    let stored = bridge.read();
    assert_eq!(stored.len(), expected.len());
    for (file, expected) in &expected {
        println!("{file}");
        let text = |key: &str| expected.get(key).and_then(Value::as_str);
        let message = stored
            .iter()
            .find(|message| Some(message.event_id()) == text("event_id"))
            .expect("stored");
        assert_eq!(
            Some(&message.value),
            bodies.get(message.event_id()),
            "byte for byte"
        );
        assert_eq!(message.key.as_deref(), text("key"));
        assert_eq!(message.header("ce_type"), text("type"));
        assert_eq!(message.header("ce_subject"), text("subject"));
        assert_eq!(message.header("ce_time"), text("time"));
    }
}

#[test]
fn every_refused_line_is_refused_with_its_code_and_pointer() {
    let lines = or_skip!(events::reference("synq-samples/refused.jsonl"));
    let bridge = or_skip!(nats().run());
    let lines = String::from_utf8(lines).unwrap();
    let mut count = 0;
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line.get(key).and_then(Value::as_str);
        let name = text("name").unwrap();
        println!("{name}");
        let answer = bridge.send(&Request::signed_body(text("body").unwrap()));
        let status = line.get("status").and_then(Value::as_u64).unwrap();
        answer.expect_problem(u16::try_from(status).unwrap(), text("code").unwrap());
        if let Some(pointer) = text("pointer") {
            assert!(
                answer.pointers().iter().any(|found| found == pointer),
                "{name} should point at {pointer}: {answer:?}"
            );
        }
        count += 1;
    }
    assert!(count > 0);
    assert_eq!(bridge.read(), []);
}

#[test]
fn an_event_of_the_future_passes_through_untouched() {
    let bridge = or_skip!(nats().run());
    let stream = &bridge.topic;
    let event = events::raw(
        r#"{"event_id":"ID","event_type":"EVENT_TYPE_MONITOR_V2","monitor_v2":{"x":[1,2.50]},"new_field":{"deep":[{}]}}"#,
    );
    bridge.deliver(&event).expect_published(&event);
    let stored = bridge.read();
    let message = stored.first().expect("stored");
    assert_eq!(
        (message.topic.as_str(), &message.value),
        (format!("{stream}.monitor_v2").as_str(), &event.body)
    );
}

#[test]
fn several_signature_values_and_lines_are_all_looked_at() {
    let bridge = or_skip!(nats().run());
    let wrong = format!("v1={}", "0".repeat(64));
    let parts = |event: &events::Event| {
        let signed = events::signature(events::SECRET, &event.body);
        let request = Request::post("/hooks/synq", event.body.clone())
            .header("X-Coalesce-Timestamp", &signed[0].1);
        (request, signed[1].1.clone())
    };
    let values = |right: &str| {
        vec![
            vec![format!("{wrong} {right}")],
            vec![format!("v2=abc {right}")],
            vec![wrong.clone(), right.to_owned()],
            vec![right.to_uppercase().replacen("V1=", "v1=", 1)],
        ]
    };
    for number in 0..4 {
        let event = events::ping();
        let (request, right) = parts(&event);
        let lines = &values(&right)[number];
        println!("{lines:?}");
        let request = lines.iter().fold(request, |request, line| {
            request.header("X-Coalesce-Signature", line)
        });
        bridge.send(&request).expect_published(&event);
    }
    // The bridge must not choose which of two timestamps was signed.
    let event = events::ping();
    let (request, right) = parts(&event);
    let request = request
        .header("X-Coalesce-Timestamp", "1")
        .header("X-Coalesce-Signature", &right);
    bridge
        .send(&request)
        .expect_problem(401, "invalid_signature");
}

#[test]
fn a_schema_of_the_operators_replaces_the_presets() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("synq");
    let schema = r#"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object", "required": ["workspace"], "properties": { "workspace": { "enum": ["acme"] } }
    }"#;
    let files = crate::support::bridge::write(
        "",
        &(crate::support::bridge::nats_broker("main", &nats.url)
            + &crate::support::bridge::synq_source("schema = \"mine.json\"")
            + &crate::support::bridge::route(&format!("{stream}.{{type}}"))),
    );
    std::fs::write(files.dir.join("mine.json"), schema).unwrap();
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let event = events::issue_in("acme", "created", "i1");
    bridge.deliver(&event).expect_published(&event);
    let answer = bridge.deliver(&events::issue_in("emca", "created", "i1"));
    answer.expect_problem(422, "invalid_event");
    assert_eq!(answer.pointers(), ["/workspace"]);
}
