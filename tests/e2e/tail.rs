//! `tail` prints the messages of a destination.

use serde_json::Value;

use crate::support::bridge;
use crate::support::events::{self, Event};
use crate::support::fixture::{Broker, Fixture, Setup, kafka};
use crate::support::wait::{self, PATIENCE};

/// Runs `tail` over the stored messages with the bridge's own configuration; returns its lines.
fn tail<B: Broker>(bridge: &Fixture<B>, count: usize, topic: Option<&str>) -> Vec<Value> {
    let (config, count) = (bridge.file.to_str().unwrap(), count.to_string());
    let mut arguments = vec!["tail", "--config", config, "--json", "--from-start"];
    arguments.extend(["--count", &count]);
    arguments.extend(topic.iter().flat_map(|topic| ["--topic", topic]));
    let lines = bridge::start(&arguments).expect_code(0);
    let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn it_prints_what_a_destination_holds_one_object_a_line<B: Broker>() {
    let topic = format!("TOPIC{}", B::LEAF);
    let bridge = or_skip!(Setup::<B>::new().routes(&[(&*topic, "")]).run());
    let topic = bridge.topic.clone() + B::LEAF;
    let sent: [Event; 3] = [
        events::issue("created", "i1"),
        events::raw("{\"event_id\" : \"ID\",\n\"ping\":{\"message\":\"Grüße\\n👋\"} }"),
        events::ping(),
    ];
    for event in &sent {
        bridge.deliver(event).expect_published(event);
    }
    // The only destination of the configuration, and a named one.
    for named in [None, Some(topic.as_str())] {
        let lines = tail(&bridge, sent.len(), named);
        assert_eq!(lines.len(), sent.len(), "{lines:#?}");
        for (line, event) in lines.iter().zip(&sent) {
            assert_eq!(line["topic"], topic.as_str(), "{line:#}");
            assert_eq!(line["headers"]["event_id"], event.id.as_str(), "{line:#}");
            let value = line["value"].as_str().map(str::as_bytes);
            assert_eq!(value, Some(&event.body[..]), "{line:#}");
        }
        if B::NAME == "Kafka" {
            for (name, value) in [
                ("key", "i1".into()),
                ("offset", 0.into()),
                ("partition", 0.into()),
            ] {
                assert_eq!(lines[0][name], Value::clone(&value), "{name}: {lines:#?}");
            }
        }
    }
}

on_each_broker!(it_prints_what_a_destination_holds_one_object_a_line);

#[test]
fn it_prints_messages_as_they_arrive_until_it_is_stopped() {
    let bridge = or_skip!(kafka().run());
    let config = bridge.file.to_str().unwrap();
    let mut tail = bridge::start(&["tail", "--config", config, "--json"]);
    // It shows messages that arrive after it has subscribed: deliver until it shows something.
    let shown = wait::until_some("tail prints a message", PATIENCE, || {
        bridge.publish_ping();
        tail.stdout.lines().first().cloned()
    });
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["topic"], bridge.topic.as_str());
    tail.signal("INT");
    let status = tail.wait();
    // Interrupted, not failed.
    assert!(matches!(status.code(), None | Some(0 | 130)), "{status:?}");
}
