//! Every metric, as a scrape shows it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::support::bridge::{Bridge, nats_broker, route_with};
use crate::support::events;
use crate::support::fixture::{kafka, nats};
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::{Connection, Request};
use crate::support::wait::{self, PATIENCE};

#[test]
fn requests_and_events_are_counted_by_their_outcome() {
    let bridge = or_skip!(kafka().run());
    let topic = &bridge.topic;
    for _ in 0..3 {
        bridge.publish_ping();
    }
    let issue = events::issue("created", "i1");
    bridge.deliver(&issue).expect_published(&issue);
    bridge
        .send(&Request::event(&events::ping()).without("x-coalesce-signature"))
        .expect_problem(401, "missing_signature");
    bridge
        .send(&Request::post("/hooks/synq", "{}").signed("wrong"))
        .expect_problem(401, "invalid_signature");
    bridge
        .send(&Request::signed_body("{"))
        .expect_problem(400, "invalid_json");
    bridge
        .send(&Request::signed_body("{}"))
        .expect_problem(422, "missing_event_id");
    let metrics = bridge.metrics();
    let requests = |outcome: &str| {
        metrics.sum(
            "hookbridge_requests_total",
            &[("source", "synq"), ("outcome", outcome)],
        )
    };
    let counted = [
        "published",
        "missing_signature",
        "invalid_signature",
        "invalid_json",
        "missing_event_id",
    ]
    .map(requests);
    assert_eq!(counted, [4.0, 1.0, 1.0, 1.0, 1.0], "{}", metrics.0);
    let events = |kind: &str| {
        let labels = [
            ("source", "synq"),
            ("type", kind),
            ("broker", "main"),
            ("topic", topic.as_str()),
        ];
        metrics.sum("hookbridge_events_total", &labels)
    };
    assert_eq!(
        ["ping", "issue_created", "issue_closed"].map(events),
        [3.0, 1.0, 0.0],
        "{}",
        metrics.0
    );
}

#[test]
fn the_books_balance() {
    let bridge = or_skip!(nats().run());
    let mut sent = 0.0;
    for number in 0..40 {
        let request = match number % 4 {
            0 => Request::event(&events::ping()),
            1 => Request::signed_body("{}"),
            2 => Request::event(&events::ping()).to("/nowhere"),
            _ => Request::new("GET", "/hooks/synq"),
        };
        bridge.send(&request);
        sent += 1.0;
    }
    let metrics = bridge.metrics();
    assert_eq!(
        metrics.sum("hookbridge_requests_total", &[]),
        sent,
        "{}",
        metrics.0
    );
    assert_eq!(
        metrics.sum("hookbridge_events_total", &[]),
        10.0,
        "{}",
        metrics.0
    );
    assert_eq!(bridge.read().len(), 10);
}

#[test]
fn every_series_of_the_contract_is_there() {
    let bridge = or_skip!(kafka().run());
    let topic = &bridge.topic;
    let before = SystemTime::now();
    bridge.publish_ping();
    bridge
        .send(&Request::signed_body("{}"))
        .expect_problem(422, "missing_event_id");
    let mut open = Connection::open(bridge.public).unwrap();
    open.send(&Request::event(&events::ping())).unwrap();
    let metrics = bridge.metrics();
    let always = [
        (
            "hookbridge_request_duration_seconds_count",
            vec![("source", "synq")],
        ),
        (
            "hookbridge_publish_duration_seconds_count",
            vec![("broker", "main")],
        ),
        ("hookbridge_in_flight", vec![]),
        ("hookbridge_in_flight_bytes", vec![]),
        ("hookbridge_connections", vec![]),
        ("hookbridge_broker_up", vec![("broker", "main")]),
        ("hookbridge_broker_queue_messages", vec![("broker", "main")]),
        (
            "hookbridge_source_last_event_timestamp_seconds",
            vec![("source", "synq"), ("outcome", "published")],
        ),
        (
            "hookbridge_source_last_event_timestamp_seconds",
            vec![("source", "synq"), ("outcome", "refused")],
        ),
        (
            "hookbridge_secret_last_used_timestamp_seconds",
            vec![("source", "synq"), ("index", "0")],
        ),
        ("hookbridge_late_acks_total", vec![("broker", "main")]),
        ("hookbridge_client_disconnects_total", vec![]),
        ("hookbridge_connections_rejected_total", vec![]),
        ("hookbridge_panics_total", vec![]),
        (
            "hookbridge_outbound_requests_total",
            vec![("outcome", "ok")],
        ),
        ("hookbridge_log_lines_dropped_total", vec![]),
        (
            "hookbridge_build_info",
            vec![("version", env!("CARGO_PKG_VERSION"))],
        ),
        ("process_cpu_seconds_total", vec![]),
        ("process_resident_memory_bytes", vec![]),
        ("process_open_fds", vec![]),
        ("process_start_time_seconds", vec![]),
    ];
    for (name, labels) in always {
        assert!(
            metrics.find(name, &labels).is_some(),
            "{name} {labels:?} is missing:\n{}",
            metrics.0
        );
    }
    assert_eq!(
        metrics.sum("hookbridge_broker_up", &[("broker", "main")]),
        1.0
    );
    assert_eq!(metrics.sum("hookbridge_panics_total", &[]), 0.0);
    assert!(
        metrics.sum("hookbridge_connections", &[]) >= 1.0,
        "{}",
        metrics.0
    );
    assert_eq!(
        metrics.sum(
            "hookbridge_request_duration_seconds_count",
            &[("source", "synq")]
        ),
        3.0
    );
    assert_eq!(
        metrics.sum(
            "hookbridge_publish_duration_seconds_count",
            &[("broker", "main")]
        ),
        2.0
    );
    let now = before
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let published = metrics.sum(
        "hookbridge_source_last_event_timestamp_seconds",
        &[("outcome", "published")],
    );
    assert!((published - now).abs() < 60.0, "{published} {now}");
    wait::until(
        "the durability of the destination is known",
        PATIENCE,
        || {
            let labels = [("broker", "main"), ("destination", topic.as_str())];
            bridge
                .metrics()
                .find("hookbridge_destination_durable", &labels)
                .is_some()
        },
    );
}

#[test]
fn each_secret_says_when_it_was_last_used() {
    let Some(nats) = Nats::shared() else { return };
    let source = "[sources.synq]\nsecrets = [\"the old one\", \"the new one\"]\n";
    let route = route_with(&format!("{}.x", nats.stream("metrics")), "");
    let bridge = Bridge::run(&(nats_broker("main", &nats.url) + source + &route));
    bridge.wait_ready();
    let used = |index: &str| {
        let labels = [("source", "synq"), ("index", index)];
        bridge.metric("hookbridge_secret_last_used_timestamp_seconds", &labels)
    };
    let event = events::ping();
    let request = Request::post("/hooks/synq", event.body.clone()).signed("the new one");
    bridge.send(&request).expect_published(&event);
    assert_eq!(used("0"), 0.0);
    assert!(used("1") > 1.7e9);
}

#[test]
fn no_sender_can_grow_the_series() {
    let bridge = or_skip!(
        nats()
            .routes(&[
                ("TOPIC.w.{/workspace}", "types = [\"issue_*\"]"),
                ("TOPIC.t.{type}", "")
            ])
            .run()
    );
    // After one answer of each kind, further ones must not add a line.
    let round = |number: usize| {
        let event = events::issue_in(&format!("workspace-{number}"), "created", "i1");
        bridge.deliver(&event).expect_published(&event);
        let event = events::of_type(&format!("EVENT_TYPE_INVENTED_{number}"));
        bridge.deliver(&event).expect_published(&event);
        bridge
            .send(&Request::post(&format!("/invented/{number}"), "{}"))
            .expect_problem(404, "unknown_path");
        let mut request = Request::new("GET", "/hooks/synq");
        request.method = format!("INVENTED{number}");
        bridge
            .send(&request)
            .expect_problem(405, "method_not_allowed");
        let invented = format!("invented-{number}");
        bridge
            .send(&Request::event(&events::ping()).header(&format!("X-{invented}"), &invented))
            .expect_success("published");
    };
    let series = || {
        bridge
            .metrics()
            .0
            .lines()
            .filter(|line| line.starts_with("hookbridge_"))
            // Appear one by one as the configuration's destinations are inspected.
            .filter(|line| !line.starts_with("hookbridge_destination_durable"))
            .count()
    };
    round(0);
    let before = series();
    for number in 1..100 {
        round(number);
    }
    let metrics = bridge.metrics();
    assert_eq!(series(), before, "{}", metrics.0);
    assert_eq!(
        metrics.sum("hookbridge_events_total", &[("type", "other")]),
        100.0,
        "{}",
        metrics.0
    );
    assert!(
        !metrics.0.to_lowercase().contains("invented") && !metrics.0.contains("workspace-"),
        "{}",
        metrics.0
    );
}

#[test]
fn failed_publishes_are_counted_by_reason_and_timed_in_seconds() {
    let bridge = or_skip!(nats().http("publish_timeout = \"2s\"").run());
    bridge.silence();
    let answer = bridge.deliver(&events::ping());
    answer.expect_problem(503, "publish_timeout");
    let metrics = bridge.metrics();
    let timeouts = [("outcome", "publish_timeout")];
    for (name, labels, expected) in [
        ("hookbridge_publish_errors_total", [("broker", "main")], 1.0),
        ("hookbridge_requests_total", timeouts, 1.0),
        ("hookbridge_in_flight", [("", ""); 1], 0.0),
    ] {
        let labels = labels.iter().filter(|(name, _)| !name.is_empty());
        let labels: Vec<_> = labels.copied().collect();
        assert_eq!(metrics.sum(name, &labels), expected, "{}", metrics.0);
    }
    let name = "hookbridge_request_duration_seconds_sum";
    let seconds = metrics.sum(name, &[("source", "synq")]);
    assert!((1.0..30.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_sender_that_hangs_up_is_counted() {
    let bridge = or_skip!(nats().http("publish_timeout = \"10s\"").run());
    bridge.silence();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection
        .write(&Request::event(&events::ping()).bytes())
        .unwrap();
    bridge.wait_metric("hookbridge_in_flight", &[], 1.0);
    drop(connection);
    bridge.wait_metric("hookbridge_client_disconnects_total", &[], 1.0);
    bridge.wait_metric("hookbridge_in_flight", &[], 0.0);
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let promtool = or_skip!(process::promtool());
    let bridge = or_skip!(nats().run());
    bridge.publish_ping();
    let mut promtool = Command::new(promtool);
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(bridge.metrics().0.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
