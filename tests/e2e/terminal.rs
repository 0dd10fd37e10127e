//! What people see on a terminal fits 80 columns, and the place of the configuration that needs no option.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::bridge::{self, Finished, PROGRAM, hookbridge, nats_broker, route};
use crate::support::disk::is_root;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::wait;

const COLUMNS: usize = 80;

/// The lines that a command prints on a terminal, without colours.
fn on_terminal(directory: &Path, arguments: &[&str]) -> Vec<String> {
    let quoted = arguments.iter().map(|argument| format!(" '{argument}'"));
    let line = format!("'{PROGRAM}'{}", quoted.collect::<String>());
    let mut command = process::command("script");
    command
        .args(["--quiet", "--command", &line, "/dev/null"])
        .current_dir(directory)
        .env("TERM", "xterm");
    let shown = bridge::finish(command, b"").stdout;
    let lines = shown.lines().map(|line| {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        // A colour is `[`, numbers and `m`.
        let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
        (first + &rest.collect::<String>())
            .trim_end_matches('\r')
            .to_owned()
    });
    lines.collect()
}

fn expect_to_fit(directory: &Path, arguments: &[&str]) -> Vec<String> {
    let lines = on_terminal(directory, arguments);
    assert!(lines.len() > 1, "{arguments:?}: {lines:?}");
    // A link stays whole, so that it can be followed.
    let is_wide = |line: &&String| line.chars().count() > COLUMNS && !line.contains("https://");
    let wide = lines.iter().filter(is_wide);
    let wide: Vec<_> = wide.collect();
    assert!(wide.is_empty(), "{arguments:?}: {wide:#?}");
    lines
}

#[test]
fn the_help_of_every_command_fits_a_terminal() {
    let directory = process::directory("help");
    let commands = super::install::commands();
    assert!(commands.len() > 10, "{commands:?}");
    expect_to_fit(&directory, &["--help"]);
    for command in &commands {
        let shown = expect_to_fit(&directory, &[command, "--help"]).join("\n");
        assert!(shown.contains("Usage: "), "{shown}");
    }
}

#[test]
fn the_providers_and_everything_about_each_fit_a_terminal() {
    let directory = process::directory("providers");
    let table = expect_to_fit(&directory, &["providers"]);
    let all = hookbridge(["providers"]).expect_code(0).stdout;
    let names = all
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(
            table.iter().any(|line| line.starts_with(name)),
            "{name}: {table:#?}"
        );
        expect_to_fit(&directory, &["providers", name]);
    }
}

/// Long names, many types, several brokers.
const WIDE: &str = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "kafka-1.internal.example.com:9092,kafka-2.internal.example.com:9092,kafka-3.internal.example.com:9092"

[brokers.edge]
kind = "nats"
servers = ["nats://nats-1.internal.example.com:4222", "nats://nats-2.internal.example.com:4222"]
ack = "core"

[sources.synq]
secrets = ["short"]
on_invalid = { dead_letter = { broker = "main", topic = "hooks.that.were.not.valid.and.wait.for.somebody" } }

[sources.monitoring-of-the-second-region]
provider = "standard-webhooks"
secrets = ["d2hzZWNfMDEyMzQ1Njc4OWFiY2RlZg"]

[[routes]]
source = "synq"
types = ["issue_created", "issue_updated", "issue_status_updated", "issue_closed", "incident_*"]
broker = "main"
topic = "synq.{type}"
key = "{/workspace}"
copy_to = [{ broker = "edge", topic = "copies.of.everything.{source}.{type}" }]

[[routes]]
broker = "edge"
topic = "everything.else.{source}.{type}"
"#;

#[test]
fn what_check_prints_fits_a_terminal_with_mistakes_and_without() {
    let directory = process::directory("wide");
    let file = directory.join("hookbridge.toml");
    let check = ["check", "--config", "hookbridge.toml"];
    std::fs::write(&file, WIDE).unwrap();
    let shown = expect_to_fit(&directory, &check).join("\n");
    assert!(shown.contains("warning: "), "{shown}");
    let mistakes = [
        (
            "kind = \"kafka\"",
            "kind = \"kafka\"\nsecurity_protocol = \"SASL_SSL\"",
        ),
        (
            "secrets = [\"short\"]",
            "secret = \"short\"\npublish_timeout = 8",
        ),
        (
            "provider = \"standard-webhooks\"",
            "provider = \"something-that-nobody-knows\"",
        ),
        (
            "ack = \"core\"",
            "ack = \"core\"\noptions = { \"compression.type\" = \"lz4\" }",
        ),
        (
            "broker = \"edge\"\ntopic",
            "broker = \"egde\"\npriority = 10\ntopic",
        ),
    ];
    let broken = mistakes
        .iter()
        .fold(WIDE.to_owned(), |text, (part, instead)| {
            assert!(text.contains(part), "{part}");
            text.replacen(part, instead, 1)
        });
    std::fs::write(&file, broken).unwrap();
    let shown = expect_to_fit(&directory, &check).join("\n");
    assert!(
        shown.contains("the configuration has 7 problems"),
        "{shown}"
    );
}

#[test]
fn what_a_check_finds_at_a_broker_fits_a_terminal_and_so_does_an_error() {
    let nats = or_skip!(Nats::shared());
    let directory = process::directory("wide-findings");
    let file = directory.join("hookbridge.toml");
    let stream = nats.stream("wide");
    let text = nats_broker("main", &nats.url)
        + "[sources.pagerduty]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n"
        + &route(&format!("{stream}.x"));
    std::fs::write(&file, text).unwrap();
    let check = ["check", "--connect", "--config", "hookbridge.toml"];
    let shown = expect_to_fit(&directory, &check).join("\n");
    assert!(
        shown.contains("warning: main: ") && shown.contains("replica"),
        "{shown}"
    );
    let nowhere = [
        "check",
        "--config",
        "/no-such-folder/hookbridge-of-mine/config/hookbridge.toml",
    ];
    let shown = expect_to_fit(&directory, &nowhere).join("\n");
    assert!(shown.contains("error: "), "{shown}");
}

#[test]
fn how_the_demo_introduces_itself_fits_a_terminal() {
    let directory = process::directory("wide-demo");
    let shown = on_terminal(&directory, &["demo", "--events", "1"]);
    let words = shown
        .iter()
        .take_while(|line| !line.contains("Post your own event"));
    let wide = words.filter(|line| line.chars().count() > 80);
    assert_eq!(wide.collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(
        shown.iter().any(|line| line.contains("/metrics")),
        "{shown:?}"
    );
}

/// Runs a command whose `/etc` is this directory; `None` where the system forbids it.
fn with_etc(etc: &Path, arguments: &[&str]) -> Option<Finished> {
    let script = "mount --bind \"$0\" /etc && exec setpriv --pdeathsig KILL -- \"$@\"";
    let unshared = |rest: &[&str]| {
        let mut command: Command = process::command("unshare");
        command.arg("--mount");
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", script]).arg(etc).args(rest);
        command.current_dir(process::directory("elsewhere"));
        command
    };
    let mut probe = unshared(&["true"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    let is_possible = process::Process::spawn(probe)
        .wait(wait::PATIENCE)
        .success();
    if !is_possible {
        process::skip("an /etc of its own", "is not permitted");
        return None;
    }
    Some(bridge::finish(
        unshared(&[&[PROGRAM], arguments].concat()),
        b"",
    ))
}

#[test]
fn the_configuration_is_that_of_the_system_where_the_folder_has_none() {
    let etc = process::directory("etc");
    std::fs::create_dir(etc.join("hookbridge")).unwrap();
    std::fs::write(etc.join("hookbridge/hookbridge.toml"), WIDE).unwrap();
    let Some(done) = with_etc(&etc, &["check"]) else {
        return;
    };
    done.expect_code(0)
        .expect_stdout(&["/hooks/synq", "everything.else"]);
    // A mistake is located there.
    std::fs::write(etc.join("hookbridge/hookbridge.toml"), "[http]\nport = 1\n").unwrap();
    let done = with_etc(&etc, &["check"]).expect("the same system");
    done.expect_code(1)
        .expect_stderr(&["/etc/hookbridge/hookbridge.toml:2:1"]);
}
