//! `check`, and how the other commands read the configuration: what they find, how it looks, and what they never show.

use serde_json::Value;

use crate::support::bridge::{
    self, Bridge, Files, hookbridge, hookbridge_reading, kafka_broker, nats_broker, route,
    route_with, synq_source,
};
use crate::support::events;
use crate::support::process;

fn path(files: &Files) -> &str {
    files.file.to_str().unwrap()
}

/// A legal configuration of a broker that nobody has started.
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
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn a_problem_names_its_key_and_shows_its_line_with_a_caret() {
    let files = bridge::write_text(&format!(
        "[http]\npublish_timeout = \"-8s\" # too short\n{}",
        legal("").replace("[http]\n", "")
    ));
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
    let expected = format!(
        "error: http.publish_timeout: \"-8s\" is not a valid duration (expected number at 0)\n \
         --> {}:2:19\n  |\n2 | publish_timeout = \"-8s\"\n  |                   ^^^^^\n  \
         = help: write for example \"10s\" or \"1h 30m\"\n\nerror: the configuration has 1 problem\n",
        path(&files)
    );
    assert_eq!(done.stderr, expected);
    let run = hookbridge(["run", "--config", path(&files)]).expect_code(1);
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
    let said = check_json(&["--config", path(&files)], 1);
    assert_eq!(said["valid"], false, "{said:#}");
    let problem = &said["problems"][0];
    for (field, expected) in [
        ("severity", "error"),
        ("file", path(&files)),
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
fn json_of_a_legal_configuration_has_what_it_became() {
    let files = bridge::write_text(&legal(""));
    let said = check_json(&["--config", path(&files)], 0);
    assert_eq!(said["valid"], true, "{said:#}");
    assert_eq!(said["problems"], Value::Array(Vec::new()), "{said:#}");
    assert_eq!(said["brokers"][0]["address"], "127.0.0.1:1", "{said:#}");
    assert_eq!(said["sources"][0]["path"], "/hooks/synq", "{said:#}");
    assert_eq!(said["routes"][0]["topic"], "synq.{type}", "{said:#}");
}

#[test]
fn warnings_exit_with_1_where_they_are_denied() {
    let files = bridge::write_text(&legal("tolerance = \"5m\""));
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(0);
    assert!(
        done.stderr.contains("warning: sources.synq.tolerance: "),
        "{done:?}"
    );
    hookbridge(["check", "--deny-warnings", "--config", path(&files)]).expect_code(1);
    let said = check_json(&["--deny-warnings", "--config", path(&files)], 1);
    assert_eq!(said["problems"][0]["severity"], "warning", "{said:#}");
    let clean = bridge::write_text(&legal(""));
    hookbridge(["check", "--deny-warnings", "--config", path(&clean)]).expect_code(0);
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
    let done = hookbridge(["check", "--deny-warnings", "--config", path(&files)]).expect_code(0);
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
        let mut all = vec!["check", "--config", path(&files)];
        all.extend(arguments);
        let done = hookbridge_reading(all, b"", &environment).expect_code(1);
        assert!(
            !format!("{}{}", done.stdout, done.stderr).contains("hunter2"),
            "{done:?}"
        );
    }
    for broken in [
        "secrets = [\"hunter2\n",
        "secrets = hunter2\n",
        "[sources.synq\nsecrets = \"hunter2\"\n",
    ] {
        let files = bridge::write_text(broken);
        let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
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
    let done = hookbridge(["check", "--config", path(&files)]);
    assert!(
        !format!("{}{}", done.stdout, done.stderr).contains("hunter2"),
        "{done:?}"
    );
}

#[test]
fn explain_refuses_what_the_head_alone_makes_run_refuse() {
    let files = bridge::write_text(&legal("max_body = \"4KiB\""));
    let event = events::issue("created", "0b51f1f2");
    let explain = |arguments: &[&str], body: &[u8]| {
        let mut all = vec![
            "explain",
            "--source",
            "synq",
            "--json",
            "--config",
            path(&files),
        ];
        all.extend(arguments);
        let done = hookbridge_reading(all, body, &[]);
        let said: Value =
            serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        (done.code, said["status"].as_u64(), said["code"].clone())
    };
    for (arguments, status, code) in [
        (
            vec!["--header", "Content-Type: text/plain"],
            415,
            "unsupported_media_type",
        ),
        (
            vec!["--header", "Content-Encoding: gzip"],
            415,
            "unsupported_media_type",
        ),
        (
            vec![
                "--header",
                "Content-Type: application/json",
                "--header",
                "Content-Type: application/json",
            ],
            415,
            "unsupported_media_type",
        ),
        (vec!["--method", "PUT"], 405, "method_not_allowed"),
    ] {
        let said = explain(&arguments, &event.body);
        assert_eq!(said, (Some(1), Some(status), code.into()), "{arguments:?}");
    }
    let large = vec![b' '; 4097];
    assert_eq!(
        explain(&[], &large),
        (Some(1), Some(413), "body_too_large".into())
    );
    assert_eq!(
        explain(
            &["--header", "Content-Type: Application/JSON; charset=utf-8"],
            &event.body
        )
        .0,
        Some(0)
    );
}

#[test]
fn explain_needs_no_signing_secret_and_check_does() {
    let text = legal("").replace(
        &format!("\"{}\"", events::SECRET),
        "{ env = \"HOOKBRIDGE_TEST_UNSET\" }",
    );
    let files = bridge::write_text(&text);
    let event = events::ping();
    let arguments = ["explain", "--source", "synq", "--config", path(&files)];
    hookbridge_reading(arguments, &event.body, &[]).expect_code(0);
    let done = hookbridge(["check", "--config", path(&files)]).expect_code(1);
    assert!(done.stderr.contains("HOOKBRIDGE_TEST_UNSET"), "{done:?}");
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
    bridge.wait_for_log("the configuration comes from a pipe: a change of it needs a restart");
    let before = bridge.reloads();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(before));
}

#[test]
fn the_default_configuration_is_named_by_a_variable_or_has_one_of_two_places() {
    let files = bridge::write_text(&legal(""));
    let environment = [("HOOKBRIDGE_CONFIG", path(&files))];
    hookbridge_reading(["check"], b"", &environment).expect_code(0);
    let other = bridge::write_text("[http]\nnope = 1\n");
    let done = hookbridge_reading(["check", "--config", path(&other)], b"", &environment);
    assert!(done.expect_code(1).stderr.contains(path(&other)));
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
fn a_word_that_is_no_level_is_wrong_usage() {
    let files = bridge::write_text(&legal(""));
    let check = ["check", "--config", path(&files)];
    let done = hookbridge_reading(check, b"", &[("HOOKBRIDGE_LOG", "verbose")]).expect_code(2);
    assert!(done.stderr.contains("`verbose` is not a level"), "{done:?}");
    for levels in ["WARN", "info,hookbridge=debug", "off"] {
        hookbridge_reading(check, b"", &[("HOOKBRIDGE_LOG", levels)]).expect_code(0);
    }
}

#[test]
fn a_variable_with_one_underscore_and_one_without_a_key_are_named() {
    let files = bridge::write_text(&legal(""));
    let check = ["check", "--config", path(&files)];
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
