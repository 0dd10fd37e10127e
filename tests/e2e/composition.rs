//! docker-compose.yml, as far as it goes without Docker: its one-shot service creates what the bridge beside it needs.

use crate::support::bridge::{self, Bridge, hookbridge_reading};
use crate::support::events;
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;

const COMPOSITION: &str = include_str!("../../docker-compose.yml");
const CONFIGURATION: &str = include_str!("../../config/compose.toml");

/// The lines of a service.
fn service(name: &str) -> &'static str {
    let (_, rest) = COMPOSITION
        .split_once(&format!("\n  {name}:\n"))
        .unwrap_or_else(|| panic!("no service {name}"));
    let is_next = |(at, _): &(usize, &str)| {
        let line = &rest[at + 1..];
        line.starts_with("  ") && !line[2..].starts_with([' ', '#'])
            || line.starts_with(|first: char| first.is_alphabetic())
    };
    let end = rest.match_indices('\n').find(is_next);
    end.map_or(rest, |(at, _)| &rest[..=at])
}

/// The arguments of the service's command.
fn arguments(service: &str) -> Vec<&str> {
    let command = service.split_once("command: [").expect("a command").1;
    let list = command.split_once(']').expect("a list").0;
    list.split(", ")
        .map(|word| word.trim_matches('"'))
        .collect()
}

#[test]
fn the_composition_provisions_what_its_bridge_publishes_to() {
    let (provision, run) = (service("provision"), service("bridge"));
    assert!(
        !COMPOSITION.contains("--create"),
        "there is one way to create topics"
    );
    assert!(
        run.contains("provision:\n        condition: service_completed_successfully"),
        "{run}"
    );
    for broker in ["kafka", "nats"] {
        let waits = format!("{broker}:\n        condition: service_healthy");
        assert!(provision.contains(&waits), "{provision}");
    }
    let (image, mount) = (
        "image: hookbridge:local",
        "./config/compose.toml:/etc/hookbridge/hookbridge.toml:ro",
    );
    assert!(
        provision.contains(image) && provision.contains(mount),
        "{provision}"
    );
    assert!(run.contains(image) && run.contains(mount), "{run}");

    let (kafka, nats) = (or_skip!(Kafka::shared()), or_skip!(Nats::shared()));
    let topic = unique("composition");
    let text = CONFIGURATION
        .replace("kafka:19092", &kafka.address)
        .replace("nats://nats:4222", &nats.url)
        .replace("0.0.0.0:9090", "127.0.0.1:0")
        .replace("\"SYNQ\"", &format!("\"{}\"", topic.replace('.', "-")))
        .replace("\"synq.{type}\"", &format!("\"{topic}.{{type}}\""))
        .replace("hooks.dead", &format!("{topic}.dead"))
        + "\n[http]\nlisten = \"127.0.0.1:0\"\n";
    let files = bridge::write_text(&text);
    let command = |arguments: &[&str], environment: &[(&str, &str)]| {
        let place = "/etc/hookbridge/hookbridge.toml";
        let arguments = arguments.iter().map(|word| match *word {
            word if word == place => files.path().to_owned(),
            word => word.to_owned(),
        });
        hookbridge_reading(arguments.collect::<Vec<_>>(), b"", environment)
    };
    let secret = [("SYNQ_SIGNING_SECRET", events::SECRET)];
    let connect = ["check", "--connect", "--config", files.path()];
    command(&connect, &secret).expect_code(1);
    // It has no signing secret. Nothing is left to do the second time.
    let arguments_of_it = arguments(provision);
    assert_eq!(arguments_of_it[0], "provision");
    let created = command(&arguments_of_it, &[]).expect_code(0);
    for name in ["issue_created", "issue_closed", "dead"] {
        assert!(
            created.all().contains(&format!("{topic}.{name}")),
            "{created:?}"
        );
    }
    command(&arguments_of_it, &[]).expect_code(0);
    command(&connect, &secret).expect_code(0);
    let bridge = Bridge::run_files(&files, &secret);
    bridge.wait_ready();
    for event in [
        events::issue("created", "i1"),
        events::incident("open", "i2"),
        events::ping(),
    ] {
        bridge.deliver(&event).expect_published(&event);
    }
}
