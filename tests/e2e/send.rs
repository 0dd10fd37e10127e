//! `send` delivers what a provider would.

use crate::support::bridge::{Finished, hookbridge};
use crate::support::consumer::only;
use crate::support::events::{self, SECRET};
use crate::support::fixture::nats;
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
