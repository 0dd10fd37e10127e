//! Inspections of destinations: unknown never counts as good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::bridge::{
    self, Bridge, check_connect, hookbridge, kafka_broker, nats_broker, route, route_with,
    synq_source,
};
use crate::support::events;
use crate::support::fixture::{Broker, Setup, nats};
use crate::support::kafka::acl::{Operation, PASSWORD, Resource};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::configured::ADMIN;
use crate::support::nats::{Nats, fake};
use crate::support::wait::{self, PATIENCE};

/// Longer than any test takes: an earlier answer did not wait for it.
const LONG: &str = "publish_timeout = \"50s\"";

/// Much shorter than [`LONG`], even on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn durable(bridge: &Bridge, destination: &str, check: &str) -> Option<f64> {
    let labels = [("destination", destination), ("check", check)];
    bridge
        .metrics()
        .find("hookbridge_destination_durable", &labels)
}

/// Expects `check --connect` to exit with this status and to print this.
#[track_caller]
fn expect_check(rest: &str, code: i32, words: &[&str]) {
    let done = check_connect(rest).expect_code(code);
    for word in words {
        assert!(done.all().contains(word), "{word:?} is missing: {done:?}");
    }
}

// ---- NATS: permissions

/// Each user's permissions to publish and to subscribe.
const USERS: [(&str, &str, &str); 7] = [
    (
        "all",
        r#""synq.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*""#,
        r#""_INBOX.>""#,
    ),
    ("least", r#""synq.>""#, r#""_INBOX.>""#),
    (
        "uninformed",
        r#""synq.>", "$JS.API.STREAM.NAMES""#,
        r#""_INBOX.>""#,
    ),
    (
        "mute",
        r#""$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*""#,
        r#""_INBOX.>""#,
    ),
    (
        "deaf",
        r#""synq.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*""#,
        r#""nothing""#,
    ),
    ("listener", r#""nothing""#, r#""synq.>""#),
    (
        "replayer",
        r#""synq.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>""#,
        r#""_INBOX.>""#,
    ),
];

/// A server with these users, and a stream on `synq.>`.
fn with_users() -> Option<Nats> {
    let (admin, password) = ADMIN;
    let mut users = format!("{{ user: \"{admin}\", password: \"{password}\" }}\n");
    for (user, publish, subscribe) in USERS {
        users += &format!(
            "{{ user: \"{user}\", password: \"pw\", permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }} }}\n"
        );
    }
    let nats = Nats::private_configured(&format!("authorization {{ users: [ {users} ] }}"), true)?;
    nats.stream_with("users", |settings| {
        settings.name = "SYNQ".to_owned();
        settings.subjects = vec!["synq.>".to_owned()];
    });
    Some(nats)
}

fn as_user(nats: &Nats, user: &str, keys: &str) -> String {
    nats_broker("main", &nats.url)
        + &format!("user = \"{user}\"\npassword = \"pw\"\n{keys}\n")
        + &synq_source("")
        + &route("synq.x")
}

#[test]
fn a_nats_user_needs_the_permissions_of_the_readme_and_each_missing_one_is_named() {
    let Some(nats) = with_users() else { return };
    let event = events::ping();
    let all = as_user(&nats, "all", "");
    expect_check(&all, 0, &["1 destination"]);
    let bridge = Bridge::run(&all);
    bridge.wait_ready();
    bridge.deliver(&event).expect_published(&event);

    // The existence of a stream is unknown.
    let started = Instant::now();
    expect_check(
        &as_user(&nats, "least", ""),
        1,
        &["no permission to publish to \"$JS.API.STREAM.NAMES\""],
    );
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    // The stream is known but not its settings, which is a failure if it must be durable.
    let what = &[
        "synq.x",
        "no permission to publish to \"$JS.API.STREAM.INFO.SYNQ\"",
    ];
    expect_check(&as_user(&nats, "uninformed", ""), 0, what);
    expect_check(
        &as_user(&nats, "uninformed", "require_durable = true"),
        1,
        what,
    );
    expect_check(
        &as_user(&nats, "deaf", ""),
        1,
        &["no permission to subscribe to \"_INBOX."],
    );
    // The right to publish cannot be queried.
    expect_check(&as_user(&nats, "mute", ""), 0, &[]);
    let bridge = Bridge::run_with("publish_timeout = \"2s\"", &as_user(&nats, "mute", ""));
    wait::until("the event is refused", PATIENCE, || {
        assert_eq!(bridge.deliver(&events::ping()).status, 503);
        bridge
            .log()
            .iter()
            .any(|line| line.contains("no permission to publish to"))
    });
}

#[test]
fn replay_and_tail_of_nats_need_the_permissions_of_the_readme_and_name_the_missing_one() {
    let Some(nats) = with_users() else { return };
    let bridge = Bridge::run(&as_user(&nats, "all", ""));
    bridge.wait_ready();
    bridge.publish_ping();
    let run = |user: &str, arguments: &[&str]| {
        let files = bridge::write("", &as_user(&nats, user, ""));
        let file = files.file.to_str().expect("a path in UTF-8").to_owned();
        hookbridge([arguments, &["--config", &file]].concat())
    };
    let tail = ["tail", "--topic", "synq.x", "--from-start", "--count", "1"];
    let replay = ["replay", "--from", "synq.x", "--to", "synq.y"];
    let done = run("all", &tail).expect_code(1);
    assert!(done.stderr.contains("$JS.API.CONSUMER.CREATE"), "{done:?}");
    run("replayer", &tail).expect_code(0);
    let done = run("all", &replay).expect_code(1);
    assert!(done.stderr.contains("$JS.API.CONSUMER."), "{done:?}");
    run("replayer", &replay).expect_code(0);
    let files = bridge::write("", &as_user(&nats, "listener", ""));
    let file = files.file.to_str().expect("a path in UTF-8");
    let tail = bridge::start(&[
        "tail", "--topic", "synq.x", "--count", "1", "--config", file,
    ]);
    wait::until("a message is printed", PATIENCE, || {
        bridge.publish_ping();
        !tail.stdout.lines().is_empty()
    });
    tail.expect_code(0);
    // A plain subscription that is refused is not an empty one.
    let done = run("all", &["tail", "--topic", "synq.x", "--count", "1"]).expect_code(1);
    assert!(
        done.stderr.contains("no permission to subscribe"),
        "{done:?}"
    );
}

#[test]
fn nats_that_may_not_be_inspected_is_not_durable_and_says_which_permission_is_missing() {
    let Some(nats) = with_users() else { return };
    let words = ["synq.x", "$JS.API.STREAM.NAMES"];
    let bridge = Bridge::run(&as_user(&nats, "least", "require_durable = true"));
    bridge.wait_unready(&["main", words[0], words[1]]);
    bridge.wait_for_line(&words);
    assert_eq!(durable(&bridge, "synq.x", "inspected"), Some(0.0));
    // Without require_durable it accepts events, but still reports that nothing is known.
    let bridge = Bridge::run(&as_user(&nats, "least", ""));
    bridge.wait_ready();
    bridge.wait_for_line(&words);
    assert_eq!(durable(&bridge, "synq.x", "inspected"), Some(0.0));
    bridge.publish_ping();
}

#[test]
fn a_destination_that_only_the_payload_says_is_not_durable() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("durable", |_| {});
    let rest = nats_broker("main", &nats.url)
        + "require_durable = true\n"
        + &synq_source("")
        + &route(&format!("{stream}.{{/workspace}}"));
    expect_check(&rest, 1, &["topics = [...]"]);
    let bridge = Bridge::run(&rest);
    bridge.wait_unready(&["main", "topics = [...]"]);
}

#[test]
fn replay_moves_no_event_to_a_broker_that_must_be_durable_and_is_not() {
    let Some(nats) = Nats::shared() else { return };
    let (from, to) = (nats.stream("from"), nats.stream("to"));
    let bridge = Bridge::to_nats(nats, &from, "", "");
    bridge.publish_ping();
    let run = |keys: &str| {
        let rest =
            nats_broker("main", &nats.url) + keys + "\n" + &synq_source("") + &route("other");
        let files = bridge::write("", &rest);
        let file = files.file.to_str().expect("a path in UTF-8").to_owned();
        let (from, to) = (format!("{from}.ping"), format!("{to}.ping"));
        hookbridge(["replay", "--from", &from, "--to", &to, "--config", &file])
    };
    let done = run("require_durable = true").expect_code(1);
    assert!(done.stderr.contains("replica"), "{done:?}");
    assert_eq!(nats.read(&to), []);
    // It is still there.
    run("").expect_code(0);
    assert_eq!(nats.read(&to).len(), 1);
}

#[test]
fn a_subject_without_a_stream_takes_its_fallback_without_waiting_and_holds_copies_back() {
    let Some(nats) = Nats::shared() else { return };
    let (spare, missing) = (nats.stream("spare"), unique("missing"));
    // The fallback takes the route's topic, so it is the same subject on another server.
    let second = or_skip!(Nats::private());
    second.stream_with("second", |settings| {
        settings.name = "SECOND".to_owned();
        settings.subjects = vec![format!("{missing}.>")];
    });
    let rest = nats_broker("main", &nats.url)
        + &nats_broker("spare", &second.url)
        + &synq_source("")
        + &route_with(
            &format!("{missing}.x"),
            "types = [\"ping\"]\nbroker = \"main\"\nfallback = \"spare\"",
        )
        + &route_with(
            &format!("{spare}.x"),
            &format!(
                "broker = \"main\"\ncopy_to = [{{ broker = \"main\", topic = \"{missing}.y\" }}]"
            ),
        );
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    wait::until("the subjects are inspected", PATIENCE, || {
        durable(&bridge, &format!("{missing}.y"), "exists") == Some(0.0)
    });
    let started = Instant::now();
    bridge.publish_ping();
    assert_eq!(second.read("SECOND").len(), 1);
    // One finds out whether the other copy is acknowledged; later ones leave no copy behind.
    let of_issue = || bridge.deliver(&events::issue("created", "i1"));
    of_issue().expect_problem(503, "publish_timeout");
    for _ in 0..3 {
        of_issue().expect_problem(503, "broker_unavailable");
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(nats.read(&spare).len(), 1);
}

// ---- NATS: before the first inspection

fn a_broker_that_must_be_durable_is_never_ready_before_its_destinations_are_known<B: Broker>() {
    let broker = or_skip!(B::private());
    let topic = broker.new_topic("late");
    broker.stop();
    let setup = Setup::<B>::new().broker("require_durable = true");
    let bridge = Bridge::run(&setup.tables(&broker.address(), &topic));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One replica is not durable, so it must never become ready.
        let asking = scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                let (status, body) = bridge.readyz();
                assert_eq!(status, 503, "{body}");
            }
        });
        broker.start();
        bridge.wait_unready(&[&topic, "replica"]);
        is_done.store(true, Ordering::Release);
        asking.join().unwrap();
    });
    if B::NAME == "NATS" {
        // After the first inspection, a broker that comes back is inspected again.
        broker.stop();
        bridge.wait_unready(&["not connected"]);
        broker.start();
        bridge.wait_unready(&[&topic, "replica"]);
    }
}

on_each_broker!(a_broker_that_must_be_durable_is_never_ready_before_its_destinations_are_known);

#[test]
fn an_inspection_without_an_answer_finds_nothing_missing_and_says_so() {
    let rest = nats_broker("main", &fake::silent()) + &synq_source("") + &route("events.x");
    let mut bridge = Bridge::run(&rest);
    bridge.wait_for_line(&["could not be inspected", "no answer"]);
    bridge.wait_ready();
    bridge.signal("TERM");
    bridge.wait(PATIENCE);
    let log = bridge.log().join("\n");
    assert!(!log.contains("no stream"), "{log}");
}

#[test]
fn an_inspection_that_the_end_interrupts_finds_nothing() {
    let rest = nats_broker("main", &fake::silent()) + &synq_source("") + &route("events.x");
    let mut bridge = Bridge::run(&rest);
    bridge.wait_for_log("broker is up");
    bridge.signal("TERM");
    assert!(bridge.wait(PATIENCE).success());
    let log = bridge.log().join("\n");
    assert!(
        !log.contains("no stream") && !log.contains("disabled"),
        "{log}"
    );
}

// ---- NATS: destinations that acknowledge nothing

#[test]
fn a_subject_without_a_stream_is_named_and_refused_without_waiting_and_recovers_without_traffic() {
    let Some(nats) = Nats::shared() else { return };
    let missing = unique("missing");
    let subject = format!("{missing}.x");
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&subject);
    expect_check(
        &rest,
        1,
        &[&subject, "no stream takes the subject", "nats stream add"],
    );
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_unready(&["main", &subject, "no stream takes the subject"]);
    let metrics = bridge.metrics();
    assert_eq!(metrics.sum("hookbridge_broker_up", &[]), 0.0);
    assert_eq!(durable(&bridge, &subject, "exists"), Some(0.0));
    assert_eq!(durable(&bridge, &subject, "inspected"), Some(1.0));
    let answer = bridge.deliver_within(&events::ping(), SOON);
    answer.expect_problem(503, "broker_unavailable");
    let labels = [("reason", "no_responders")];
    let errors = bridge.metric("hookbridge_publish_errors_total", &labels);
    assert_eq!(errors, 1.0);
    nats.stream_with("missing", |settings| {
        settings.name.clone_from(&missing);
        settings.subjects = vec![format!("{missing}.>")];
    });
    bridge.wait_ready();
    wait::until("the metric says it", PATIENCE, || {
        durable(&bridge, &subject, "exists") == Some(1.0)
    });
    bridge.publish_ping();
}

#[test]
fn one_subject_without_a_stream_takes_no_other_from_the_balancer() {
    let Some(nats) = Nats::shared() else { return };
    let (good, missing) = (nats.stream("one"), unique("missing"));
    let rest = nats_broker("main", &nats.url)
        + &synq_source("")
        + &route_with(&format!("{missing}.x"), "types = [\"issue_*\"]")
        + &route(&format!("{good}.x"));
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    let (_, body) = bridge.readyz();
    assert!(
        body.contains(&format!("{missing}.x")) && !body.contains(&good),
        "{body}"
    );
    let answer = bridge.deliver_within(&events::issue("created", "i1"), SOON);
    answer.expect_problem(503, "broker_unavailable");
    bridge.publish_ping();
}

#[test]
fn a_stream_that_is_deleted_while_the_bridge_runs_is_noticed_with_the_first_event() {
    let bridge = or_skip!(nats().http(LONG).run());
    let stream = &bridge.topic;
    crate::support::runtime().block_on(async {
        let context = async_nats::jetstream::new(bridge.broker.connect().await);
        context.delete_stream(stream).await.expect("the stream");
    });
    let answer = bridge.deliver_within(&events::ping(), SOON);
    answer.expect_problem(503, "broker_unavailable");
    bridge.wait_unready(&["no stream takes the subject"]);
}

#[test]
fn jetstream_that_is_disabled_is_called_so() {
    let (admin, password) = ADMIN;
    let login = format!("authorization {{ user: \"{admin}\", password: \"{password}\" }}");
    let server = or_skip!(Nats::private_configured(&login, false));
    let accounts = format!(
        "accounts {{\n\
           A: {{ jetstream: enabled, users: [ {{ user: \"{admin}\", password: \"{password}\" }} ] }}\n\
           B: {{ users: [ {{ user: \"bridge\", password: \"pw\" }} ] }}\n\
         }}"
    );
    let account = or_skip!(Nats::private_configured(&accounts, true));
    let of = |nats: &Nats, user: &str, password: &str| {
        nats_broker("main", &nats.url)
            + &format!("user = \"{user}\"\npassword = \"{password}\"\n")
            + &synq_source("")
            + &route("events.x")
    };
    for (rest, words) in [
        (
            of(&server, admin, password),
            "JetStream is disabled on the server",
        ),
        (
            of(&account, "bridge", "pw"),
            "JetStream is disabled for the account",
        ),
    ] {
        let done = check_connect(&rest).expect_code(1);
        let all = done.all();
        assert!(
            all.contains(words) && !all.contains("nats stream add"),
            "{done:?}"
        );
        let bridge = Bridge::run_with(LONG, &rest);
        bridge.wait_unready(&[words]);
        let started = Instant::now();
        bridge
            .deliver(&events::ping())
            .expect_problem(503, "broker_unavailable");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    }
}

#[test]
fn a_stream_that_never_acknowledges_gets_no_event_until_it_does() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("no-ack", |settings| settings.no_ack = true);
    let subject = format!("{stream}.x");
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&subject);
    expect_check(&rest, 1, &["error", &subject, "no_ack"]);
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_unready(&["main", &subject, "no_ack"]);
    assert_eq!(durable(&bridge, &subject, "no_ack"), Some(0.0));
    let answer = bridge.deliver_within(&events::ping(), SOON);
    answer.expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&stream), [], "certainly not stored");
    nats.silence(&stream, false);
    bridge.wait_ready();
    bridge.publish_ping();
}

#[test]
fn a_subscriber_without_a_stream_is_found_out_by_the_first_event() {
    let Some(nats) = Nats::shared() else { return };
    let subject = format!("{}.x", unique("plain"));
    let _subscription = nats.subscribe(&subject);
    let rest = nats_broker("main", &nats.url)
        + &synq_source("publish_timeout = \"1s\"")
        + &route(&subject);
    let bridge = Bridge::run(&rest);
    bridge.wait_unready(&[&subject]);
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "publish_timeout");
    bridge.wait_for_line(&[&subject, "has a subscriber"]);
    for _ in 0..3 {
        bridge
            .deliver(&events::ping())
            .expect_problem(503, "broker_unavailable");
    }
}

#[test]
fn a_stream_of_another_account_that_acknowledges_counts_as_one() {
    let (admin, password) = ADMIN;
    let accounts = format!(
        "accounts {{\n\
           A: {{ jetstream: enabled, users: [ {{ user: \"{admin}\", password: \"{password}\" }} ], exports: [ {{ service: \"events.>\" }} ] }}\n\
           B: {{ jetstream: enabled, users: [ {{ user: \"bridge\", password: \"pw\" }} ], imports: [ {{ service: {{ account: A, subject: \"events.>\" }} }} ] }}\n\
         }}"
    );
    let nats = or_skip!(Nats::private_configured(&accounts, true));
    nats.stream_with("events", |settings| {
        settings.name = "EVENTS".to_owned();
        settings.subjects = vec!["events.>".to_owned()];
    });
    let rest = nats_broker("main", &nats.url)
        + "user = \"bridge\"\npassword = \"pw\"\n"
        + &synq_source("")
        + &route("events.x");
    let bridge = Bridge::run(&rest);
    bridge.wait_unready(&["no stream takes the subject"]);
    bridge.publish_ping();
    bridge.wait_ready();
    bridge.wait_for_line(&["another account's"]);
    bridge.wait_ready();
    assert_eq!(nats.read("EVENTS").len(), 1);
}

// ---- Kafka

fn as_kafka_user(kafka: &Kafka, user: &str, keys: &str, topic: &str) -> String {
    let address = kafka.sasl_address().expect("a Kafka broker for this test");
    kafka_broker("main", &address)
        + &format!(
            "options = {{ \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \"PLAIN\", \
             \"sasl.username\" = \"{user}\", \"sasl.password\" = \"{PASSWORD}\" }}\n{keys}\n"
        )
        + &synq_source("")
        + &route(topic)
}

#[test]
fn a_kafka_user_needs_the_rights_of_the_readme_and_each_missing_one_is_named() {
    let users = ["all", "uninformed", "outsider", "reader", "loner"];
    let kafka = or_skip!(Kafka::private_with_users(&users));
    let (topic, dead) = (kafka.topic("rights"), kafka.topic("rights"));
    let grant = |user: &str, topic: &str, operations: &[Operation]| {
        for operation in operations {
            kafka.grant(user, Resource::Topic, topic, *operation);
        }
    };
    grant(
        "all",
        &topic,
        &[Operation::Write, Operation::DescribeConfigs],
    );
    grant("uninformed", &topic, &[Operation::Write]);
    for reader in ["reader", "loner"] {
        grant(reader, &topic, &[Operation::Read]);
        grant(reader, &dead, &[Operation::Write]);
    }
    let group = format!("hookbridge-replay-{topic}");
    for group in [group.as_str(), "hookbridge-tail"] {
        kafka.grant("reader", Resource::Group, group, Operation::Read);
    }

    // Rights are known to the broker a moment after they were granted.
    let of = |user: &str, keys: &str| as_kafka_user(&kafka, user, keys, &topic);
    wait::until("the rights are known", PATIENCE, || {
        check_connect(&of("all", "")).code == Some(0)
    });
    let bridge = Bridge::run(&of("all", ""));
    bridge.wait_ready();
    bridge.publish_ping();
    wait::until("it is inspected", PATIENCE, || {
        durable(&bridge, &topic, "inspected") == Some(1.0)
    });

    let what = [topic.as_str(), "DescribeConfigs"];
    expect_check(&of("uninformed", ""), 0, &what);
    expect_check(&of("uninformed", "require_durable = true"), 1, &what);
    expect_check(&of("outsider", ""), 1, &[&topic, "it needs Write"]);
    let bridge = Bridge::run(&of("uninformed", ""));
    bridge.wait_ready();
    bridge.wait_for_line(&what);
    bridge.publish_ping();

    let run = |user: &str, arguments: &[&str]| {
        let files = bridge::write("", &of(user, ""));
        let file = files.file.to_str().expect("a path in UTF-8").to_owned();
        hookbridge([arguments, &["--config", &file]].concat())
    };
    let tail = ["tail", "--topic", &topic, "--from-start", "--count", "1"];
    run("reader", &tail).expect_code(0);
    let done = run("loner", &tail).expect_code(1);
    assert!(
        done.stderr
            .contains("hookbridge-tail: it needs Read on the group"),
        "{done:?}"
    );
    let done = run("outsider", &tail).expect_code(1);
    assert!(done.stderr.contains("it needs Read on it"), "{done:?}");
    let replay = ["replay", "--from", &topic, "--to", &dead];
    let done = run("loner", &replay).expect_code(1);
    assert!(
        done.stderr.contains(&group) && done.stderr.contains("it needs Read on the group"),
        "{done:?}"
    );
    let done = run("outsider", &replay).expect_code(1);
    assert!(done.stderr.contains("it needs Read on it"), "{done:?}");
    run("reader", &replay).expect_code(0);
    assert_eq!(kafka.read(&dead).len(), 2);

    // One replica would keep the bridge from starting, were the cluster there.
    kafka.stop();
    let bridge = Bridge::run(&of("uninformed", "require_durable = true"));
    kafka.start();
    bridge.wait_unready(&["main", what[0], what[1]]);
    bridge.wait_for_line(&what);
    assert_eq!(durable(&bridge, &topic, "inspected"), Some(0.0));
}

// ---- Alerts

#[test]
fn an_alert_that_means_no_event_gets_through_pages() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yml");
    let rules = std::fs::read_to_string(file).expect("the rules");
    for alert in [
        "HookbridgeDown",
        "HookbridgeBrokerDown",
        "HookbridgeNotReady",
        "HookbridgeNotStoring",
        "HookbridgeNoEventAccepted",
        "HookbridgeDestinationUnusable",
    ] {
        let rule = rules
            .split("- alert: ")
            .find(|rule| rule.starts_with(&format!("{alert}\n")));
        let rule = rule.unwrap_or_else(|| panic!("there is no {alert}"));
        assert!(rule.contains("severity: page"), "{rule}");
    }
    let promtool = or_skip!(crate::support::process::promtool());
    let checked = std::process::Command::new(promtool)
        .args(["check", "rules", file])
        .output()
        .expect("promtool runs");
    assert!(checked.status.success(), "{checked:?}");
}
