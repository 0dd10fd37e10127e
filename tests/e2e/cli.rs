//! Usage and exit status of all commands, and the commands that have no file of their own.

use crate::support::bridge::{self, hookbridge, kafka_broker, route, route_with, synq_source};
use crate::support::process;

#[test]
fn version_names_the_version_and_the_commit() {
    let done = hookbridge(["--version"]).expect_code(0);
    let version = format!("hookbridge {}", env!("CARGO_PKG_VERSION"));
    let commit = done.stdout.strip_prefix(&version).map(str::trim);
    assert!(commit.is_some_and(|commit| !commit.is_empty()), "{done:?}");
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
    hookbridge(["--help"])
        .expect_code(0)
        .expect_stdout(&commands);
    for command in commands {
        hookbridge([command, "--help"])
            .expect_code(0)
            .expect_stdout(&["Usage: hookbridge"]);
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
fn a_command_whose_reader_has_gone_does_not_say_that_all_is_well() {
    let files = bridge::write_text("nonsense = 1\n");
    let config = files.path();
    let invalid: &[&str] = &["check", "--config", config, "--format", "json"];
    let legal = bridge::write_text(&bridge::whole(
        "",
        &(kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("synq.{type}")),
    ));
    let connecting: &[&str] = &["check", "--connect", "--config", legal.path()];
    for arguments in [invalid, connecting] {
        assert_eq!(code_without_reader(arguments), Some(1), "{arguments:?}");
    }
    for arguments in [["schema"], ["providers"]] {
        assert_eq!(code_without_reader(&arguments), Some(0), "{arguments:?}");
    }
}

/// The exit status of a command whose standard output nobody reads.
fn code_without_reader(arguments: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = process::command(bridge::PROGRAM);
    command.args(arguments).stdin(std::process::Stdio::null());
    command.stdout(writer).stderr(std::process::Stdio::null());
    command.status().unwrap().code()
}

#[test]
fn completions_for_bash_are_valid_bash() {
    let done = hookbridge(["completions", "bash"])
        .expect_code(0)
        .expect_stdout(&["_hookbridge", "explain", "aws-sns"]);
    let file = process::directory("completions").join("hookbridge.bash");
    std::fs::write(&file, &done.stdout).unwrap();
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(&file)
        .status();
    assert!(checked.unwrap().success());
}

#[test]
fn demo_needs_nothing_and_ends_when_all_events_were_consumed() {
    let done = bridge::start(&["demo", "--events", "10"]);
    let done = done.expect_code(0).join("\n");
    for text in ["curl", "kcat", "issue_created"] {
        assert!(done.contains(text), "{text:?} is missing: {done}");
    }
    let messages = done.matches("event_id").count();
    assert!(messages >= 10, "every message with its headers: {done}");
}

#[test]
fn demos_that_start_together_get_a_port_each() {
    let demos = [(); 3].map(|()| bridge::start(&["demo", "--events", "1"]));
    for demo in demos {
        demo.expect_code(0);
    }
}

#[test]
fn run_refuses_a_configuration_with_problems_and_lists_them() {
    let rest = kafka_broker("main", "127.0.0.1:1")
        + &synq_source("")
        + &route_with("x", "broker = \"mian\"");
    let files = bridge::write("", &rest);
    files
        .command(&["run"])
        .expect_code(1)
        .expect_stderr(&["mian", files.path()]);
}

#[test]
fn run_says_which_address_it_cannot_listen_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let rest = kafka_broker("main", "127.0.0.1:1") + &synq_source("") + &route("x");
    let text = bridge::whole("", &rest).replacen("127.0.0.1:0", &address, 1);
    let files = bridge::write_text(&text);
    files
        .command(&["run"])
        .expect_code(1)
        .expect_stderr(&[&address]);
}
