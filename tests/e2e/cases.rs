//! `hookbridge test`: routing cases beside the configuration, without a broker and without a secret.

use std::path::Path;

use crate::support::bridge::{
    self, Files, Finished, hookbridge, kafka_broker, nats_broker, route_with,
};

/// Routes to two brokers that nobody has started; the secrets are not set.
fn files() -> Files {
    let sources = "[sources.synq]\nsecrets = [{ env = \"NOT_SET\" }]\n\
                   on_invalid = { dead_letter = { broker = \"main\", topic = \"dead\" } }\n\
                   on_unrouted = \"ignore\"\n\
                   [sources.github]\nsecrets = [{ env = \"NOT_SET\" }]\nsuccess_status = 202\n\
                   [sources.dropbox]\nsecrets = [{ env = \"NOT_SET\" }]\n\
                   [sources.sendgrid]\nsecrets = [{ env = \"NOT_SET\" }]\n";
    let routes = route_with(
        "synq.{type}",
        "source = \"synq\"\ntypes = [\"issue_*\"]\nbroker = \"main\"\nfallback = \"edge\"\n\
         copy_to = [{ broker = \"main\", topic = \"all\" }]",
    ) + &route_with(
        "github.{type}",
        "source = \"github\"\nbroker = \"main\"\nkey = \"{/repository/full_name}\"",
    ) + &route_with("mail", "source = \"sendgrid\"\nbroker = \"main\"");
    bridge::write(
        "",
        &(kafka_broker("main", "127.0.0.1:1")
            + &nats_broker("edge", "nats://127.0.0.1:1")
            + sources
            + &routes),
    )
}

fn run(files: &Files, cases: &str, more: &[&str]) -> Finished {
    let file = files.dir.join("cases.toml");
    std::fs::write(&file, cases).unwrap();
    std::fs::write(
        files.dir.join("event.json"),
        r#"{"zen":"x","repository":{"full_name":"a/b"}}"#,
    )
    .unwrap();
    files.command(&[&["test", file.to_str().unwrap()], more].concat())
}

/// Holds for [`files`].
const GOOD: &str = r#"
[[cases]]
name = "an issue goes to its topic, to all, and to the edge where main is away"
source = "synq"
sample = "issue_created"
[cases.expect]
outcome = "published"
status = 200
route = 1
type = "issue_created"
broker = "main"
topic = "synq.issue_created"
fallback = "edge"
copies = ["main:all"]
headers = { ce_type = "issue_created", ce_source = "/hookbridge/synq" }

[[cases]]
name = "a table is an event, headers are the request's, and # is harmless"
source = "github"
headers = { x-github-event = "issues", x-github-delivery = "d1" }
event = { action = "opened", number = 7, repository = { full_name = "acme/${bridge}" } }
expect = { id = "d1", type = "issues.opened", topic = "github.issues.opened", key = "acme/${bridge}", status = 202 }

[[cases]]
name = "so is a file"
source = "github"
headers = { x-github-event = "ping", x-github-delivery = "d2" }
file = "event.json"
expect = { topic = "github.ping" }

[[cases]]
name = "an invalid event becomes a dead letter"
source = "synq"
event = '''{"event_id":7,"event_type":"EVENT_TYPE_PING","ping":{}}'''
expect = { outcome = "dead_lettered", code = "invalid_event", pointer = "/event_id", topic = "dead", status = 200 }

[[cases]]
name = "an event that nobody wants is ignored"
source = "synq"
sample = "ping"
expect = { outcome = "ignored", type = "ping" }

[[cases]]
name = "an event without its id is refused"
source = "github"
event = "{}"
expect = { status = 422, code = "missing_event_id" }

[[cases]]
name = "several events in one request"
source = "sendgrid"
event = '''[{"sg_event_id":"a","event":"open","timestamp":1},{"sg_event_id":"b","event":"click","timestamp":1}]'''
[[cases.expect]]
id = "a"
topic = "mail"
[[cases.expect]]
type = "click"

[[cases]]
name = "a handshake is answered"
source = "dropbox"
method = "GET"
query = "challenge=abc"
expect = { outcome = "handshake", status = 200, body = "abc" }
"#;

#[test]
fn every_way_that_an_event_can_go_can_be_expected() {
    let files = files();
    let done = run(&files, GOOD, &[]).expect_code(0);
    assert!(done.stdout.contains("8 cases, all as expected"), "{done:?}");
    let tap = run(&files, GOOD, &["--format", "tap"]).expect_code(0);
    assert!(
        tap.stdout.starts_with("TAP version 14\n1..8\nok 1 - "),
        "{tap:?}"
    );
    assert!(tap.stdout.contains("and \\# is harmless"), "{tap:?}");
}

#[test]
fn a_difference_is_shown_and_exits_with_1() {
    let files = files();
    let rows = [
        (
            "topic = \"synq.issue_created\"",
            "topic = \"other\"",
            "topic\n      - other\n      + synq.issue_created",
        ),
        (
            "status = 200\nroute",
            "status = 201\nroute",
            "status\n      - 201\n      + 200",
        ),
        (
            "copies = [\"main:all\"]",
            "copies = []",
            "copies\n      - \n      + main:all",
        ),
        (
            "ce_type = \"issue_created\"",
            "ce_type = \"x\"",
            "headers.ce_type\n      - x\n      + issue_created",
        ),
        (
            "fallback = \"edge\"",
            "fallback = \"main\"",
            "fallback\n      - main\n      + edge",
        ),
        (
            "pointer = \"/event_id\"",
            "pointer = \"/x\"",
            "pointer\n      - /x\n      + /event_id",
        ),
        (
            "code = \"missing_event_id\"",
            "code = \"no_route\"",
            "code\n      - no_route\n      + missing_event_id",
        ),
        // A refusal that is not expected never passes.
        (
            "status = 422, code = \"missing_event_id\"",
            "outcome = \"published\"",
            "code\n      - (none)\n      + missing_event_id",
        ),
        (
            "[[cases.expect]]\ntype = \"click\"\n",
            "",
            "events\n      - 1\n      + 2",
        ),
        (
            "type = \"click\"",
            "type = \"open\"",
            "event 2: type\n      - open\n      + click",
        ),
        (
            "body = \"abc\"",
            "body = \"abd\"",
            "body\n      - abd\n      + abc",
        ),
        (
            "key = \"acme/${bridge}\"",
            "key = \"x\"",
            "key\n      - x\n      + acme/${bridge}",
        ),
    ];
    for (from, to, shown) in rows {
        assert!(GOOD.contains(from), "{from}");
        let done = run(&files, &GOOD.replace(from, to), &[]).expect_code(1);
        assert!(
            done.stdout.contains(shown),
            "{shown:?} is missing: {done:?}"
        );
        assert!(done.stdout.contains("8 cases, 1 failed"), "{done:?}");
    }
    let wrong = GOOD.replace("topic = \"github.ping\"", "topic = \"x\"");
    let done = run(&files, &wrong, &["--format", "tap"]).expect_code(1);
    let line = wrong
        .lines()
        .position(|line| line.contains("so is a file"))
        .unwrap();
    let place = format!("cases.toml:{line}:");
    let expected =
        "    - field: \"topic\"\n      expected: \"x\"\n      found: \"github.ping\"\n  ...\n";
    for text in ["not ok 3 - so is a file\n  ---\n  at: ", &place, expected] {
        assert!(done.stdout.contains(text), "{text:?} is missing: {done:?}");
    }
    let refused = GOOD.replace("x-github-delivery = \"d2\"", "x-other = \"d2\"");
    let done = run(&files, &refused, &[]).expect_code(1);
    assert!(
        done.stdout.contains("refused: missing_event_id"),
        "{done:?}"
    );
}

#[test]
fn a_mistake_in_a_case_is_shown_with_its_place() {
    let files = files();
    let case = |text: &str| format!("[[cases]]\nname = \"x\"\n{text}\n");
    let rows = [
        ("", "no case in"),
        ("[[case]]\n", "unknown key `case`"),
        (
            &case("source = \"synq\"\nsampel = \"ping\"\nexpect = { topic = \"x\" }"),
            ":4:1",
        ),
        (
            &case("source = \"snyq\"\nsample = \"ping\"\nexpect = { topic = \"x\" }"),
            "did you mean \"synq\"?",
        ),
        (
            &case("sample = \"ping\"\nexpect = { topic = \"x\" }"),
            "must name its `source`",
        ),
        (
            &case("source = \"synq\"\nsample = \"ping\"\nfile = \"y\"\nexpect = { topic = \"x\" }"),
            "exclude each other",
        ),
        (
            &case("source = \"synq\"\nsample = \"pong\"\nexpect = { topic = \"x\" }"),
            "unknown sample pong",
        ),
        (
            &case("source = \"synq\"\nfile = \"missing.json\"\nexpect = { topic = \"x\" }"),
            "missing.json can't be read",
        ),
        (
            &case("source = \"synq\"\nexpect = { topic = \"x\" }"),
            "has no event",
        ),
        (
            &case("source = \"synq\"\nsample = \"ping\""),
            "lacks `expect`",
        ),
        (
            &case("source = \"synq\"\nsample = \"ping\"\nexpect = {}"),
            "expects nothing",
        ),
        (
            &case("source = \"synq\"\nsample = \"ping\"\nexpect = { topc = \"x\" }"),
            "did you mean \"topic\"?",
        ),
        (
            &case("source = \"synq\"\nsample = \"ping\"\nexpect = { outcome = \"lost\" }"),
            "published, ignored, dead_lettered",
        ),
        (
            &case(
                "source = \"synq\"\nsample = \"ping\"\nheaders = { \"a b\" = \"x\" }\nexpect = { topic = \"x\" }",
            ),
            "not a valid header",
        ),
    ];
    for (cases, words) in rows {
        let done = run(&files, cases, &[]).expect_code(1);
        assert!(
            done.stderr.contains(words),
            "{words:?} is missing: {done:?}"
        );
        assert!(done.stderr.contains("cases.toml"), "{done:?}");
    }
    hookbridge(["test"]).expect_code(2);
}

#[test]
fn the_tests_of_the_example_configuration_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (config, cases) = (path("hookbridge.toml"), path("hookbridge.test.toml"));
    hookbridge(["test", "--config", &config, &cases]).expect_code(0);
}
