//! `check`, and how the other commands read the configuration: findings, their form, and values that must not be shown.

use serde_json::Value;

use super::explain::nowhere;
use crate::support::bridge::{
    self, Bridge, Files, hookbridge, hookbridge_reading, kafka_broker, nats_broker, route,
    route_with, synq_source,
};
use crate::support::events::{self, SECRET};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::Request;

/// A valid configuration whose broker is not running.
fn legal(source: &str) -> String {
    bridge::whole(
        "",
        &(kafka_broker("main", "127.0.0.1:1") + &synq_source(source) + &route("synq.{type}")),
    )
}

fn check_json(arguments: &[&str], code: i32) -> Value {
    let mut all = vec!["check", "--format", "json"];
    all.extend(arguments);
    let done = hookbridge(all).expect_code(code);
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    done.json()
}

#[test]
fn a_problem_names_its_key_and_shows_its_line_with_a_caret() {
    let files = bridge::write_text(&format!(
        "[http]\npublish_timeout = \"-8s\" # too short\n{}",
        legal("").replace("[http]\n", "")
    ));
    let done = files.check(1);
    let expected = format!(
        "error: http.publish_timeout: \"-8s\" is not a valid duration\n \
         --> {}:2:19\n  |\n2 | publish_timeout = \"-8s\"\n  |                   ^^^^^\n  \
         = help: write for example \"10s\" or \"1h 30m\"\n\nerror: the configuration has 1 problem\n",
        files.path()
    );
    assert_eq!(done.stderr, expected);
    let run = files.command(&["run"]).expect_code(1);
    assert!(
        run.stderr.contains("2 | publish_timeout = \"-8s\""),
        "{run:?}"
    );
}

#[test]
fn json_has_each_problem_with_its_place_key_line_and_help() {
    let files = bridge::write_text(&format!(
        "[http]\npublish_timeout = \"-8s\"\n{}",
        legal("").replace("[http]\n", "")
    ));
    let said = check_json(&["--config", files.path()], 1);
    assert_eq!(said["valid"], false, "{said:#}");
    let problem = &said["problems"][0];
    for (field, expected) in [
        ("severity", "error"),
        ("file", files.path()),
        ("key", "http.publish_timeout"),
        ("help", "write for example \"10s\" or \"1h 30m\""),
        ("source", "publish_timeout = \"-8s\""),
    ] {
        assert_eq!(problem[field], expected, "{field}: {said:#}");
    }
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&2.into(), &19.into())
    );
}

#[test]
fn json_output_of_a_valid_configuration_has_the_effective_values() {
    let files = bridge::write_text(&legal(""));
    let said = check_json(&["--config", files.path()], 0);
    assert_eq!(said["valid"], true, "{said:#}");
    assert_eq!(said["problems"], Value::Array(Vec::new()), "{said:#}");
    assert_eq!(said["brokers"][0]["address"], "127.0.0.1:1", "{said:#}");
    assert_eq!(said["sources"][0]["path"], "/hooks/synq", "{said:#}");
    assert_eq!(said["routes"][0]["topic"], "synq.{type}", "{said:#}");
}

#[test]
fn warnings_exit_with_1_where_they_are_denied() {
    let files = bridge::write_text(&legal("tolerance = \"5m\""));
    let done = files.check(0);
    assert!(
        done.stderr.contains("warning: sources.synq.tolerance: "),
        "{done:?}"
    );
    files.command(&["check", "--deny-warnings"]).expect_code(1);
    let said = check_json(&["--deny-warnings", "--config", files.path()], 1);
    assert_eq!(said["problems"][0]["severity"], "warning", "{said:#}");
    let clean = bridge::write_text(&legal(""));
    clean.command(&["check", "--deny-warnings"]).expect_code(0);
}

#[test]
fn routes_are_printed_in_the_order_in_which_they_are_tried() {
    let source = |name: &str| {
        format!("[sources.{name}]\nprovider = \"synq\"\nsecrets = [\"{name}-of-sixteen-bytes\"]\n")
    };
    let files = bridge::write(
        "",
        &(kafka_broker("main", "127.0.0.1:1")
            + &source("alpha")
            + &source("beta")
            + &route_with("first", "source = \"beta\"\ntypes = [\"ping\"]")
            + &route_with("second", "source = \"alpha\"")
            + &route_with("third", "types = [\"issue_*\"]")
            + &route_with("fourth", "source = \"beta\"")),
    );
    let done = files.command(&["check", "--deny-warnings"]).expect_code(0);
    let table = done
        .stdout
        .lines()
        .skip_while(|line| !line.starts_with("ROUTE"));
    let rows: Vec<Vec<&str>> = table
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let tried: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let expected = [("1", "beta"), ("2", "alpha"), ("3", "alpha"), ("4", "beta")];
    assert_eq!(tried, expected, "{done:?}");
    assert_eq!(rows[2][2], "beta", "route 3 is for both: {done:?}");
}

#[test]
fn no_secret_of_a_configuration_is_shown_whatever_is_wrong_with_it() {
    let rest = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"user:hunter2-a@127.0.0.1:1\"\n\
                options = { \"sasl.password\" = \"hunter2-b\", \"linger.ms\" = \"hunter2-c\" }\n\
                [brokers.edge]\nkind = \"nats\"\nservers = [\"nats://u:hunter2-d@127.0.0.1:1\", \"nats://:hunter2-e@\"]\nuser = \"u\"\n\
                [sources.synq]\nsecrets = [\"hunter2-f\", { env = \"HIDDEN\", file = \"x\" }]\nsecert = \"hunter2-g\"\n\
                path = \"${HIDDEN}\"\nprovider = \"${HIDDEN}\"\ntolerance = \"${HIDDEN}\" # hunter2-h\n\
                [[routes]]\nbroker = \"main\"\ntopic = \"a b\" # hunter2-i\n";
    let files = bridge::write("", rest);
    let environment = [
        ("HIDDEN", "hunter2-j"),
        ("HOOKBRIDGE__SOURCES__B__SECRETS", "[hunter2-k"),
    ];
    for arguments in [vec![], vec!["--format", "json"]] {
        let mut all = vec!["check", "--config", files.path()];
        all.extend(arguments);
        let done = hookbridge_reading(all, b"", &environment).expect_code(1);
        assert!(!done.all().contains("hunter2"), "{done:?}");
    }
    for broken in [
        "secrets = [\"hunter2\n",
        "secrets = hunter2\n",
        "[sources.synq\nsecrets = \"hunter2\"\n",
    ] {
        let files = bridge::write_text(broken);
        let done = files.check(1);
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
}

#[test]
fn passwords_in_addresses_are_not_printed() {
    let files = bridge::write(
        "",
        &(kafka_broker("main", "u:hunter2@127.0.0.1:1")
            + &nats_broker("edge", "nats://u:hunter2@127.0.0.1:2")
            + &synq_source("")
            + &route_with("x", "broker = \"main\"")),
    );
    let done = hookbridge(["check", "--config", files.path()]);
    assert!(!done.all().contains("hunter2"), "{done:?}");
}

#[test]
fn the_configuration_may_come_from_a_pipe() {
    for name in ["/dev/stdin", "-"] {
        let done = hookbridge_reading(["check", "--config", name], legal("").as_bytes(), &[]);
        let done = done.expect_code(0);
        assert!(done.stdout.contains("/hooks/synq"), "{done:?}");
    }
    let broken = hookbridge_reading(["check", "--config", "-"], b"[http]\nx = 1\n", &[]);
    assert!(broken.expect_code(1).stderr.contains("/dev/stdin:2:1"));
    let directory = process::directory("pipe");
    let event = directory.join("event.json");
    std::fs::write(&event, &events::ping().body).unwrap();
    let arguments = [
        "explain",
        "--source",
        "synq",
        "--config",
        "-",
        event.to_str().unwrap(),
    ];
    hookbridge_reading(arguments, legal("").as_bytes(), &[]).expect_code(0);
    let both = ["explain", "--source", "synq", "--config", "-"];
    let done = hookbridge_reading(both, legal("").as_bytes(), &[]).expect_code(1);
    assert!(
        done.stderr.contains("standard input is the configuration"),
        "{done:?}"
    );
}

#[test]
fn a_named_pipe_is_read_once_by_run_and_a_reload_keeps_what_it_had() {
    let directory = process::directory("fifo");
    let file = directory.join("hookbridge.toml");
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let (pipe, text) = (file.clone(), legal(""));
    let writer = std::thread::spawn(move || std::fs::write(pipe, text));
    let files = Files {
        dir: directory,
        file,
    };
    let mut bridge = Bridge::run_files(&files, &[]);
    writer.join().unwrap().unwrap();
    bridge.wait_for_log("the configuration comes from a pipe; changes need a restart");
    let before = bridge.reloads();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(before));
}

#[test]
fn the_default_configuration_is_named_by_a_variable_or_has_one_of_two_places() {
    let files = bridge::write_text(&legal(""));
    let environment = [("HOOKBRIDGE_CONFIG", files.path())];
    hookbridge_reading(["check"], b"", &environment).expect_code(0);
    let empty = [
        ("HOOKBRIDGE_CONFIG", ""),
        ("HOOKBRIDGE_LOG_FORMAT", ""),
        ("HOOKBRIDGE_LOG", ""),
    ];
    hookbridge_reading(["check", "--config", files.path()], b"", &empty).expect_code(0);
    let done = hookbridge_reading(["check"], b"", &empty);
    assert_ne!(done.code, Some(2), "{done:?}");
    let other = bridge::write_text("[http]\nnope = 1\n");
    let done = hookbridge_reading(["check", "--config", other.path()], b"", &environment);
    assert!(done.expect_code(1).stderr.contains(other.path()));
    // The command runs in an empty folder.
    if !std::path::Path::new("/etc/hookbridge/hookbridge.toml").exists() {
        let done = hookbridge(["check"]).expect_code(1);
        for name in [
            "config/hookbridge.toml",
            "/etc/hookbridge/hookbridge.toml",
            "HOOKBRIDGE_CONFIG",
        ] {
            assert!(done.stderr.contains(name), "{done:?}");
        }
    }
}

#[test]
fn a_word_that_is_not_a_level_is_wrong_usage() {
    let files = bridge::write_text(&legal(""));
    let check = ["check", "--config", files.path()];
    let done = hookbridge_reading(check, b"", &[("HOOKBRIDGE_LOG", "verbose")]).expect_code(2);
    assert!(done.stderr.contains("`verbose` is not a level"), "{done:?}");
    for levels in ["WARN", "info,hookbridge=debug", "off"] {
        hookbridge_reading(check, b"", &[("HOOKBRIDGE_LOG", levels)]).expect_code(0);
    }
}

#[test]
fn a_variable_with_one_underscore_and_one_without_a_key_are_named() {
    let files = bridge::write_text(&legal(""));
    let check = ["check", "--config", files.path()];
    let done = hookbridge_reading(check, b"", &[("HOOKBRIDGE_HTTP_LISTEN", "x")]).expect_code(0);
    assert!(
        done.stderr
            .contains("did you mean HOOKBRIDGE__HTTP__LISTEN?"),
        "{done:?}"
    );
    let done = hookbridge_reading(check, b"", &[("HOOKBRIDGE__NOPE__X", "x")]).expect_code(1);
    assert!(
        done.stderr
            .contains("--> environment variable HOOKBRIDGE__NOPE__X"),
        "{done:?}"
    );
}

// ---- Output

#[test]
fn the_routing_table_is_printed_without_secrets_or_colours() {
    let done = nowhere().check(0).expect_stdout(&[
        "synq",
        "/hooks/synq",
        "issue_*",
        "incident_*",
        "main",
        "edge",
        "synq.{type}",
        "{/workspace}",
        "ignore",
    ]);
    let all = done.all();
    assert!(!all.contains('\u{1b}') && !all.contains(SECRET), "{done:?}");
}

#[test]
fn the_least_configuration_is_a_broker_a_source_and_a_route() {
    let text = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\
                [sources.synq]\nsecrets = [\"s3cr3t-s3cr3t\"]\n[[routes]]\ntopic = \"events\"\n";
    let done = bridge::write_text(text).check(0);
    let done = done.expect_stdout(&["/hooks/synq", "events", "main"]);
    assert!(!done.all().contains("s3cr3t-s3cr3t"), "{done:?}");
}

#[test]
fn every_problem_is_reported_with_its_position_and_a_suggestion() {
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
    let done = files.check(1);
    let problems: [(&str, &[&str]); 10] = [
        ("3:1", &["max_bdy", "max_body"]),
        ("4:16", &[]),
        ("9:1", &["optoins", "options"]),
        ("12:", &["HOOKBRIDGE_TEST_NOT_SET"]),
        ("15:10", &["snyq", "synq"]),
        ("16:10", &["mian", "main"]),
        ("20:9", &[]),
        ("23:", &[]),
        ("24:9", &[]),
        ("26:", &["roots", "routes"]),
    ];
    for (place, words) in problems {
        let place = format!("{}:{place}", files.path());
        let mut all = done.stderr.split("\n\n");
        let found = all.find(|problem| problem.contains(&place));
        let found = found.unwrap_or_else(|| panic!("{place}: {done:?}"));
        for word in words {
            assert!(found.contains(word), "{word:?} is missing in {found:?}");
        }
    }
}

#[test]
fn broken_toml_and_a_missing_file_are_shown_with_their_place() {
    let files = bridge::write_text("[http]\nlisten = \"127.0.0.1:0\nmax_body = 1\n");
    let place = format!("{}:2:", files.path());
    files.check(1).expect_stderr(&[&place]);
    let missing = "/nowhere/at/all.toml";
    let done = hookbridge(["check", "--config", missing]).expect_code(1);
    done.expect_stderr(&[missing]);
}

#[test]
fn settings_that_break_the_promise_choose_any_topic_or_are_unknown_are_problems() {
    let (kafka, nats) = ("127.0.0.1:1", "nats://127.0.0.1:1");
    let kafka = || kafka_broker("main", kafka);
    let to_kafka = |source: &str, topic: &str| kafka() + &synq_source(source) + &route(topic);
    let to_nats = |subject: &str| nats_broker("main", nats) + &synq_source("") + &route(subject);
    let rests = [
        (
            "acks",
            kafka() + "options = { \"acks\" = \"1\" }\n" + &synq_source("") + &route("x"),
        ),
        ("{/workspace}", to_kafka("", "x{/workspace}")),
        (
            "secrets",
            kafka() + "[sources.synq]\nsecrets = [\"\"]\n" + &route("x"),
        ),
        ("secrets", kafka() + "[sources.synq]\n" + &route("x")),
        (
            "Nats-Msg-Id",
            to_kafka("forward_headers = [\"Nats-Msg-Id\"]", "x"),
        ),
        (
            "authorization",
            to_kafka("forward_headers = [\"authorization\"]", "x"),
        ),
        ("$JS", to_nats("$JS.API.{type}")),
        ("a.>", to_nats("a.>")),
        ("__consumer_offsets", to_kafka("", "__consumer_offsets")),
        ("nowhere.json", to_kafka("schema = \"nowhere.json\"", "x")),
        (
            "broker",
            kafka_broker("other", "127.0.0.1:1") + &to_kafka("", "x"),
        ),
        // A preset's signature is not for a source to change, and no key is ignored.
        ("verify", to_kafka("verify = { header = \"x\" }", "x")),
        ("invented", to_kafka("invented = 1", "x")),
    ];
    for (named, rest) in rests {
        let files = bridge::write("", &rest);
        let place = format!("{}:", files.path());
        files.check(1).expect_stderr(&[&place, named]);
    }
}

// ---- Sources of the configuration

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
    let arguments = ["check", "--config", first.path(), "--config", second.path()];
    let environment = [
        ("HOOKBRIDGE_TEST_SECOND", "second.example"),
        ("HOOKBRIDGE__SOURCES__SYNQ__PATH", "/from/environment"),
    ];
    hookbridge_reading(arguments, b"", &environment)
        .expect_code(0)
        .expect_stdout(&["second.example:9092", "/from/environment"]);
    hookbridge(arguments)
        .expect_code(1)
        .expect_stderr(&["HOOKBRIDGE_TEST_SECOND", second.path()]);
}

#[test]
fn a_secret_may_come_from_the_environment_or_a_file_and_is_never_printed() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("secrets");
    let file = process::directory("secrets").join("secret");
    std::fs::write(&file, "from the file\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = format!(
        "[sources.synq]\nsecrets = [{{ env = \"HOOKBRIDGE_TEST_SECRET\" }}, {{ file = {file:?} }}]\n"
    );
    let rest = nats_broker("main", &nats.url) + &source + &route(&format!("{stream}.x"));
    let files = bridge::write("", &rest);
    let environment = [("HOOKBRIDGE_TEST_SECRET", "from the environment")];
    let bridge = Bridge::run_files(&files, &environment);
    bridge.wait_ready();
    let secrets = ["from the environment", "from the file"];
    for secret in secrets {
        let event = events::ping();
        let request = Request::post("/hooks/synq", event.body.clone()).signed(secret);
        bridge.send(&request).expect_published(&event);
    }
    let done = hookbridge_reading(["check", "--config", files.path()], b"", &environment);
    let shown = [
        done.expect_code(0).all(),
        bridge.log().join("\n"),
        bridge.metrics().0,
    ];
    for text in shown {
        assert!(
            !secrets.iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }
}

#[test]
fn connect_reaches_brokers_and_destinations() {
    let (kafka, nats) = (or_skip!(Kafka::shared()), or_skip!(Nats::shared()));
    let (topic, stream) = (kafka.topic("check"), nats.stream("check"));
    let missing = unique("missing");
    let nobody = format!("127.0.0.1:{}", process::port());
    let check = |topic: &str, stream: &str, address: &str, code: i32| {
        let rest = kafka_broker("main", address)
            + &nats_broker("edge", &nats.url)
            + &synq_source("")
            + &route_with(topic, "broker = \"main\"\ntypes = [\"issue_*\"]")
            + &route_with(&format!("{stream}.x"), "broker = \"edge\"");
        let done = bridge::write("", &rest).command(&["check", "--connect"]);
        done.expect_code(code).all()
    };
    check(&topic, &stream, &kafka.address, 0);
    let said = check(&missing, &missing, &kafka.address, 1);
    let subject = format!("{missing}.x");
    assert!(said.replace(&subject, "").contains(&missing), "{said}");
    assert!(said.contains(&subject), "{said}");
    assert!(check(&topic, &stream, &nobody, 1).contains("main"));
}

#[test]
fn a_broker_that_is_not_reached_is_among_the_connections_of_the_json_object() {
    let nobody = format!("127.0.0.1:{}", process::port());
    for broker in [
        kafka_broker("main", &nobody),
        nats_broker("main", &format!("nats://{nobody}")),
    ] {
        let files = bridge::write("", &(broker + &synq_source("") + &route("x")));
        let done = files.command(&["check", "--connect", "--format", "json"]);
        let done = done.expect_code(1);
        let printed: Value = serde_json::from_str(&done.stdout).expect("a JSON object");
        let found = printed["connections"].as_array().expect("a list");
        assert!(
            found.iter().any(|finding| finding["severity"] == "error"
                && finding["message"].as_str().unwrap().contains("main")),
            "{printed}"
        );
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn a_file_that_is_not_there_is_a_problem_of_the_json_object_too() {
    let arguments = [
        "check",
        "--config",
        "/no-such-file.toml",
        "--format",
        "json",
    ];
    let done = hookbridge(arguments).expect_code(1);
    let printed: Value = serde_json::from_str(&done.stdout).expect("a JSON object");
    assert_eq!(printed["valid"], false);
    let message = printed["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("/no-such-file.toml"), "{printed}");
}
