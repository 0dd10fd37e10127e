//! Traces: taken from the request, carried in the message, and exported to the OpenTelemetry Collector's own receiver.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::support::bridge::{self, hookbridge_reading};
use crate::support::consumer::only;
use crate::support::events;
use crate::support::fixture::{Broker, Setup, nats};
use crate::support::process::{self, Log, Process};
use crate::support::sender::Request;
use crate::support::tls::CERTIFICATES;
use crate::support::wait::{self, PATIENCE};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Spans are not kept for others.
const IMMEDIATELY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");

struct Receiver {
    _process: Process,
    log: Log,
    address: SocketAddr,
}

impl Receiver {
    fn start(arguments: &[&str]) -> Option<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], process::port()));
        let mut command = process::command(process::otlp_receiver()?);
        command
            .arg(address.to_string())
            .args(arguments)
            .stdout(Stdio::piped());
        let mut process = Process::spawn(command);
        let log = process.stdout();
        let is_up = log.wait_for(PATIENCE, |lines| (!lines.is_empty()).then_some(()));
        is_up.expect("the receiver listens");
        Some(Self {
            _process: process,
            log,
            address,
        })
    }

    fn url(&self) -> &'static str {
        format!("http://{}", self.address).leak()
    }

    fn spans(&self) -> Vec<Span> {
        spans(&self.log.lines())
    }

    /// Waits for this many spans of a trace, by name.
    #[track_caller]
    fn trace(&self, trace_id: &str, count: usize) -> BTreeMap<String, Span> {
        let found = self.log.wait_for(PATIENCE, |lines| {
            let found = spans(lines)
                .into_iter()
                .filter(|span| span.trace_id == trace_id);
            let found: Vec<_> = found.collect();
            (found.len() >= count).then_some(found)
        });
        let found = found.unwrap_or_else(|| {
            panic!(
                "of {trace_id} there are not {count} in {:#?}",
                self.log.lines()
            )
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
            .into_iter()
            .map(|span| (span.name.clone(), span))
            .collect()
    }
}

#[derive(Debug, Clone)]
struct Span {
    trace_id: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    state: String,
    start: u64,
    end: u64,
    is_error: bool,
    attributes: BTreeMap<String, String>,
    resource: BTreeMap<String, String>,
}

fn spans(lines: &[String]) -> Vec<Span> {
    let mut found = Vec::new();
    for line in lines {
        let request: Value = serde_json::from_str(line).unwrap();
        for resource in list(&request["resourceSpans"]) {
            let attributes = texts(&resource["resource"]["attributes"]);
            for scope in list(&resource["scopeSpans"]) {
                assert_eq!(scope["scope"]["name"], "hookbridge");
                let spans = list(&scope["spans"]).into_iter();
                found.extend(spans.map(|span| read_span(&span, &attributes)));
            }
        }
    }
    found
}

fn read_span(span: &Value, resource: &BTreeMap<String, String>) -> Span {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    Span {
        trace_id: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        kind: span["kind"].as_u64().unwrap(),
        state: text("traceState"),
        start: text("startTimeUnixNano").parse().unwrap(),
        end: text("endTimeUnixNano").parse().unwrap(),
        is_error: span["status"]["code"] == 2,
        attributes: texts(&span["attributes"]),
        resource: resource.clone(),
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn texts(attributes: &Value) -> BTreeMap<String, String> {
    let pairs = list(attributes).into_iter().map(|attribute| {
        let value = &attribute["value"];
        let value = value["stringValue"].as_str().or(value["intValue"].as_str());
        let key = attribute["key"].as_str().unwrap();
        (
            key.to_owned(),
            value.expect("a text or a number").to_owned(),
        )
    });
    pairs.collect()
}

fn traced<B: Broker>(url: &'static str) -> Setup<B> {
    Setup::new()
        .variable(ENDPOINT, url)
        .variable(IMMEDIATELY.0, IMMEDIATELY.1)
}

#[track_caller]
fn expect_attributes(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(
            span.attributes.get(*key).map(String::as_str),
            Some(*value),
            "{key}: {span:#?}"
        );
    }
}

on_each_broker!(a_request_its_steps_and_its_message_are_of_the_senders_trace);

fn a_request_its_steps_and_its_message_are_of_the_senders_trace<B: Broker>() {
    let receiver = or_skip!(Receiver::start(&[]));
    let bridge = traced::<B>(receiver.url()).variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        "deployment.environment.name=a%20test",
    );
    let bridge = or_skip!(bridge.run());
    let event = events::ping();
    let state = "rojo=00f067aa0ba902b7,congo=\"t61 %20\"";
    let before = unix_nanos();
    let request = Request::event(&event)
        .header("traceparent", SAMPLED)
        .header("tracestate", state);
    bridge.send(&request).expect_published(&event);
    let after = unix_nanos();

    let message = only(bridge.read());
    let spans = receiver.trace(TRACE, 4);
    let server = &spans["POST /hooks/synq"];
    assert_eq!((server.parent.as_str(), server.kind), (PARENT, 2));
    expect_attributes(
        server,
        &[
            ("http.request.method", "POST"),
            ("http.route", "/hooks/synq"),
            ("url.path", "/hooks/synq"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("network.protocol.version", "1.1"),
            ("client.address", "127.0.0.1"),
            ("hookbridge.source", "synq"),
            ("hookbridge.event_id", message.event_id()),
            ("hookbridge.outcome", "published"),
        ],
    );
    assert_eq!(server.resource["service.name"], "hookbridge");
    assert_eq!(server.resource["deployment.environment.name"], "a test");
    let publish = &spans[&format!("send {}", message.topic)];
    assert_eq!(publish.kind, 4);
    expect_attributes(
        publish,
        &[
            ("messaging.system", &B::NAME.to_lowercase()),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", &message.topic),
            ("messaging.message.id", message.event_id()),
            (
                "messaging.message.body.size",
                &message.value.len().to_string(),
            ),
        ],
    );
    let carried = format!("00-{TRACE}-{}-01", publish.id);
    assert_eq!(message.header("traceparent"), Some(carried.as_str()));
    assert_eq!(message.header("tracestate"), Some(state));
    let steps = [&spans["verify"], &spans["validate"], publish];
    let mut last = server.start;
    for step in steps {
        assert_eq!(step.parent, server.id, "{step:#?}");
        assert!(
            last <= step.start && step.start <= step.end && step.end <= server.end,
            "{spans:#?}"
        );
        last = step.end;
    }
    assert!(
        before <= server.start && server.end <= after,
        "{before} {server:#?} {after}"
    );
    assert!(
        spans
            .values()
            .all(|span| span.state == state && !span.is_error),
        "{spans:#?}"
    );
}

fn unix_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos().try_into().unwrap()
}

/// The ids and flags of the `traceparent` of the last message.
fn carried<B: Broker>(bridge: &crate::support::fixture::Fixture<B>) -> (String, String, String) {
    let message = bridge.read().pop().expect("a message");
    let header = message.header("traceparent").expect("a trace").to_owned();
    let parts: Vec<_> = header.split('-').map(str::to_owned).collect();
    let [version, trace, span, flags] = <[String; 4]>::try_from(parts).unwrap();
    assert_eq!(version, "00");
    (trace, span, flags)
}

#[test]
fn a_trace_begins_where_the_senders_is_missing_or_invalid_and_says_whether_it_is_sampled() {
    let receiver = or_skip!(Receiver::start(&[]));
    let bridge = or_skip!(traced::<crate::support::nats::Nats>(receiver.url()).run());
    let request = |parents: &[&str]| {
        let request = Request::event(&events::ping()).header("tracestate", "a=1");
        parents.iter().fold(request, |request, parent| {
            request.header("traceparent", parent)
        })
    };
    let upper = SAMPLED.to_uppercase();
    for parents in [&[][..], &["nonsense"], &[SAMPLED, SAMPLED], &[&upper]] {
        bridge.send(&request(parents)).expect_success("published");
        let (trace, span, flags) = carried(&bridge);
        assert!(
            trace != TRACE && flags == "01",
            "{parents:?}: {trace} {flags}"
        );
        let spans = receiver.trace(&trace, 4);
        assert_eq!(spans["POST /hooks/synq"].parent, "");
        assert!(spans.values().any(|known| known.id == span));
        let message = bridge.read().pop().unwrap();
        assert_eq!(
            message.header("tracestate"),
            None,
            "of a trace that is not continued"
        );
    }
    // The sender does not want this one sampled, and the next tells that.
    bridge
        .send(&request(&[NOT_SAMPLED]))
        .expect_success("published");
    let (trace, span, flags) = carried(&bridge);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    assert_ne!(span, PARENT);
    bridge.send(&request(&[])).expect_success("published");
    let (last, _, _) = carried(&bridge);
    receiver.trace(&last, 4);
    assert!(receiver.spans().iter().all(|span| span.trace_id != TRACE));
}

#[test]
fn unverified_requests_get_one_trace_a_second_and_verified_ones_each() {
    let receiver = or_skip!(Receiver::start(&[]));
    let bridge = or_skip!(traced::<crate::support::nats::Nats>(receiver.url()).run());
    let started = Instant::now();
    for number in 1..=30 {
        let parent = format!("00-{number:032x}-{PARENT}-01");
        let forged = Request::post("/hooks/synq", "{}")
            .signed("wrong")
            .header("traceparent", &parent);
        bridge
            .send(&forged)
            .expect_problem(401, "invalid_signature");
        let nowhere = Request::post("/nowhere", "{}").header("traceparent", &parent);
        bridge.send(&nowhere).expect_problem(404, "unknown_path");
    }
    let least = started.elapsed();
    for number in 101..=130 {
        let parent = format!("00-{number:032x}-{PARENT}-01");
        let invalid = Request::signed_body("{}").header("traceparent", &parent);
        bridge
            .send(&invalid)
            .expect_problem(422, "missing_event_id");
        let spans = receiver.trace(&format!("{number:032x}"), 3);
        assert!(
            spans["validate"].is_error && !spans["verify"].is_error,
            "{spans:#?}"
        );
        expect_attributes(&spans["validate"], &[("error.type", "missing_event_id")]);
        expect_attributes(
            &spans["POST /hooks/synq"],
            &[("http.response.status_code", "422")],
        );
        assert!(
            !spans["POST /hooks/synq"].is_error,
            "the sender's mistake is not the server's"
        );
    }
    let spans = receiver.spans();
    let unverified: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "verify" && span.is_error)
        .collect();
    let most = usize::try_from(least.as_secs()).unwrap() + 1;
    assert!(
        (1..=most).contains(&unverified.len()),
        "{} in {least:?}",
        unverified.len()
    );
    let logged = bridge.wait_for_log("request refused");
    assert_eq!(logged["trace_id"], format!("{:032x}", 1), "{logged}");
}

#[test]
fn a_receiver_that_is_down_costs_spans_which_are_counted_and_no_event() {
    let url = format!("http://127.0.0.1:{}", process::port()).leak();
    let setup = traced::<crate::support::nats::Nats>(url)
        .variable("OTEL_BSP_EXPORT_TIMEOUT", "50")
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", "3");
    let mut bridge = or_skip!(setup.run());
    bridge.publish_ping();
    let dropped = |reason| {
        bridge.metric(
            "hookbridge_trace_spans_dropped_total",
            &[("reason", reason)],
        )
    };
    // Of four spans there is room for three.
    assert!(dropped("queue_full") >= 1.0);
    wait::until("spans are given up", PATIENCE, || {
        dropped("export_failed") >= 3.0
    });
    assert_eq!(
        bridge.metric("hookbridge_trace_spans_exported_total", &[]),
        0.0
    );
    let logged = bridge.wait_for_log("traces could not be exported");
    let endpoint = logged["endpoint"].as_str().unwrap();
    assert!(endpoint.ends_with("/v1/traces"), "{logged}");
    bridge.publish_ping();
    bridge.signal("TERM");
    assert!(bridge.wait(PATIENCE).success());
}

#[test]
fn a_shutdown_exports_what_waits_through_tls_compressed_and_tells_nobody_the_secret() {
    const SECRET: &str = "a-token-of-the-receivers";
    let path = |file: &std::path::Path| file.to_str().unwrap().to_owned();
    let (certificate, key) = (path(&CERTIFICATES.certificate), path(&CERTIFICATES.key));
    let receiver = or_skip!(Receiver::start(&[&certificate, &key]));
    let url = format!("https://localhost:{}", receiver.address.port()).leak();
    let setup = nats()
        .variable(ENDPOINT, url)
        .variable(
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            path(&CERTIFICATES.authority).leak(),
        )
        .variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .variable(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20a-token-of-the-receivers",
        )
        .variable("OTEL_SERVICE_NAME", "the-door")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut bridge = or_skip!(setup.run());
    bridge.publish_ping();
    assert!(receiver.spans().is_empty());
    bridge.signal("TERM");
    assert!(bridge.wait(PATIENCE).success());
    let spans = receiver.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert_eq!(spans[0].resource["service.name"], "the-door");
    assert!(!bridge.log().join("\n").contains(SECRET));
}

#[test]
fn a_message_that_is_too_large_and_its_dead_letter_have_spans_of_their_own() {
    let receiver = or_skip!(Receiver::start(&[]));
    let broker = or_skip!(crate::support::nats::Nats::shared());
    let topic = broker.new_topic_up_to("small", 20_000);
    let setup = traced::<crate::support::nats::Nats>(receiver.url()).dead_letters("on_invalid");
    let bridge = setup.run_on(broker, topic);
    let request = Request::event(&events::ping_of_size(200_000)).header("traceparent", SAMPLED);
    bridge.send(&request).expect_success("dead_lettered");
    let letter = only(bridge.read_dead_letters());
    let spans = receiver.trace(TRACE, 5);
    let refused = spans.values().find(|span| {
        span.attributes
            .get("error.type")
            .is_some_and(|error| error == "too_large")
    });
    let stored = &spans[&format!("send {}", letter.topic)];
    assert!(
        refused.is_some_and(|refused| refused.is_error && refused.id != stored.id),
        "{spans:#?}"
    );
    let carried = format!("00-{TRACE}-{}-01", stored.id);
    assert_eq!(letter.header("traceparent"), Some(carried.as_str()));
}

#[test]
fn without_its_variables_tracing_is_off_and_a_message_has_no_trace() {
    let bridge = or_skip!(nats().variable("OTEL_SERVICE_NAME", "x").run());
    let event = events::ping();
    let request = Request::event(&event)
        .header("traceparent", SAMPLED)
        .header("tracestate", "a=1");
    bridge.send(&request).expect_published(&event);
    let message = only(bridge.read());
    assert_eq!(
        (message.header("traceparent"), message.header("tracestate")),
        (None, None)
    );
}

#[test]
fn a_variable_that_cannot_be_followed_stops_run_and_check_and_says_what_to_write() {
    let files = bridge::write(
        "",
        &(bridge::nats_broker("main", "nats://127.0.0.1:1")
            + &bridge::synq_source("")
            + &bridge::route("a.{type}")),
    );
    for command in ["run", "check"] {
        let done = hookbridge_reading(
            [command, "--config", files.path()],
            b"",
            &[
                (ENDPOINT, "http://localhost:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ],
        );
        assert_eq!(done.code, Some(1), "{done:?}");
        for part in [
            "OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\"",
            "OTEL_EXPORTER_OTLP_ENDPOINT has the port 4317",
        ] {
            assert!(done.stderr.contains(part), "{done:?}");
        }
    }
}
