//! CloudEvents, Azure Event Grid and Microsoft Graph in front of real brokers: several events in one request, the
//! sender's own attributes, handshakes, and alternatives to a signature.

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, hookbridge, kafka_broker, nats_broker, route};
use crate::support::consumer::{Stored, only};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::pages;
use crate::support::sender::{Answer, Request};
use crate::support::usage::MIB;

const TOKEN: &str = "mF_9.B5f-4.1JqM-e2e";

/// The source on a provider's page, with further keys.
fn source(name: &str, keys: &str) -> String {
    pages::source(name, &[TOKEN], keys)
}

fn run(http: &str, rest: &str) -> Bridge {
    let bridge = Bridge::run_with(http, rest);
    bridge.wait_ready();
    bridge
}

/// A request with the bearer token and a content type other than JSON's.
fn post(path: &str, content_type: &str, body: &str) -> Request {
    Request::post(path, body)
        .without("content-type")
        .header("Content-Type", content_type)
        .header("Authorization", &format!("Bearer {TOKEN}"))
}

fn cloud_event(content_type: &str, body: &str) -> Request {
    post("/hooks/cloudevents", content_type, body)
}

fn with_token(request: &Request, token: &str) -> Request {
    let request = request.clone().without("authorization");
    request.header("Authorization", &format!("Bearer {token}"))
}

fn event(id: &str, more: &Value) -> String {
    let mut event =
        json!({ "specversion": "1.0", "id": id, "source": "/acme", "type": "order.paid" });
    let members = event.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    event.to_string()
}

fn statuses(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let events = body["events"].as_array().expect("a batch's answer");
    let status = |event: &Value| event["status"].as_str().unwrap().to_owned();
    events.iter().map(status).collect()
}

/// Headers that every message has in addition to its own.
const OURS: [&str; 2] = ["event_id", "content-type"];

fn expect_attributes(message: &Stored, prefix: &str, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        let name = format!("{prefix}{name}");
        assert_eq!(message.header(&name), Some(*value), "{name}: {message:?}");
    }
    let is_other = |name: &&str| !OURS.contains(name) && !name.starts_with("Nats-");
    let found: Vec<_> = message
        .header_names()
        .into_iter()
        .filter(is_other)
        .collect();
    assert_eq!(found.len(), attributes.len(), "{found:?}");
}

#[test]
fn cloud_events_of_all_three_modes_keep_their_attributes_on_kafka_and_nats() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (topic, stream) = (kafka.topic("events"), nats.stream("events"));
    let routes = format!(
        "[[routes]]\nbroker = \"main\"\ntopic = \"{topic}\"\ncopy_to = [{{ broker = \"edge\", topic = \"{stream}.x\" }}]\n"
    );
    let brokers = kafka_broker("main", &kafka.address) + &nats_broker("edge", &nats.url);
    let bridge = run("", &(brokers + &source("cloudevents", "") + &routes));

    let extensions = json!({
        "recordedtime": "2026-08-01T08:00:00Z", "partitionkey": "k-7", "grüße": null, "sequence": 7, "urgent": true,
        "subject": "Euro € 1", "time": "2026-08-01T07:59:58Z", "dataschema": "https://example.com/s", "data": { "left": 0 },
    });
    let structured = event("s-1", &extensions);
    let request = cloud_event("application/cloudevents+json; charset=utf-8", &structured);
    bridge
        .send(&with_token(&request, "another"))
        .expect_problem(401, "unauthorized");
    bridge
        .send(&request.clone().without("authorization"))
        .expect_problem(401, "unauthorized");
    assert_eq!(bridge.send(&request).expect_success("published"), "s-1");
    // Its copies in headers have no meaning.
    let repeated = request
        .header("ce-id", "other")
        .header("ce-source", "/other");
    bridge.send(&repeated).expect_success("duplicate");
    // The same id from elsewhere is another event.
    let elsewhere = event("s-1", &json!({ "source": "/elsewhere" }));
    let elsewhere = cloud_event("application/cloudevents+json", &elsewhere);
    bridge.send(&elsewhere).expect_success("published");

    let binary = cloud_event("text/plain", "frühling")
        .header("ce-specversion", "1.0")
        .header("ce-id", "b-1")
        .header("ce-source", "/acme")
        .header("ce-type", "order.paid")
        .header("ce-subject", "Euro%20%E2%82%AC%201")
        .header("ce-traceparent", "00-1-2-01");
    for broken in [
        binary.clone().without("ce-specversion"),
        binary.clone().without("ce-source"),
        binary.clone().header("ce-id", "b-2"),
        binary.clone().header("ce-x", "%C0%A0"),
    ] {
        bridge.send(&broken).expect_problem(422, "invalid_event");
    }
    assert_eq!(bridge.send(&binary).expect_success("published"), "b-1");

    let elements = [
        event("x-1", &json!({ "data": 1 })),
        event("x-2", &json!({})),
    ];
    let batch = format!("[ {} ,\n{}]", elements[0], elements[1]);
    let batch = cloud_event("application/cloudevents-batch+json", &batch);
    assert_eq!(statuses(&bridge.send(&batch)), ["published", "published"]);
    let empty = bridge.send(&cloud_event("application/cloudevents-batch+json", "[]"));
    assert_eq!(
        (empty.status, statuses(&empty)),
        (200, Vec::<String>::new())
    );
    bridge
        .send(&cloud_event("application/cloudevents+avro", "x"))
        .expect_problem(415, "unsupported_media_type");

    for (prefix, subject, mut stored) in [
        ("ce_", "Euro € 1", kafka.read(&topic)),
        ("ce-", "Euro%20%E2%82%AC%201", nats.read(&stream)),
    ] {
        stored.sort_by_key(|message| (message.event_id().to_owned(), message.value.len()));
        let ids: Vec<_> = stored.iter().map(Stored::event_id).collect();
        assert_eq!(ids, ["b-1", "s-1", "s-1", "x-1", "x-2"]);
        let [b, _, s, x1, x2] = stored.as_slice() else {
            panic!("{stored:?}")
        };
        assert_eq!(s.value, structured.as_bytes());
        let space = if prefix == "ce_" { " " } else { "%20" };
        let media_type = format!("application/cloudevents+json;{space}charset=utf-8");
        assert_eq!(s.header("content-type"), Some(media_type.as_str()));
        let core = [
            ("specversion", "1.0"),
            ("source", "/acme"),
            ("type", "order.paid"),
        ];
        let own = [
            ("id", "s-1"),
            ("subject", subject),
            ("time", "2026-08-01T07:59:58Z"),
            ("partitionkey", "k-7"),
            ("sequence", "7"),
            ("urgent", "true"),
            ("dataschema", "https://example.com/s"),
            ("recordedtime", "2026-08-01T08:00:00Z"),
        ];
        expect_attributes(s, prefix, &[&core[..], &own].concat());
        assert_eq!(
            (b.value.as_slice(), b.header("content-type")),
            ("frühling".as_bytes(), Some("text/plain"))
        );
        assert_eq!(b.header(&format!("{prefix}traceparent")), Some("00-1-2-01"));
        assert_eq!(b.header(&format!("{prefix}subject")), Some(subject));
        for (message, element) in [(x1, &elements[0]), (x2, &elements[1])] {
            assert_eq!(message.value, element.as_bytes());
            assert_eq!(
                message.header("content-type"),
                Some("application/cloudevents+json")
            );
        }
        if prefix == "ce_" {
            let keys: Vec<_> = stored
                .iter()
                .map(|message| message.key.as_deref().unwrap())
                .collect();
            assert_eq!(
                keys,
                [
                    "Euro € 1",
                    "/elsewhere/s-1",
                    "k-7",
                    "/acme/x-1",
                    "/acme/x-2"
                ]
            );
        }
    }
}

#[test]
fn only_listed_origins_are_told_that_events_are_wanted() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("origins");
    let of = |origins: &str| {
        let keys = format!(
            "allowed_origins = {origins}\nrate_limit = {{ per_second = 200, burst = 400 }}"
        );
        let rest = source("cloudevents", &keys)
            + &source("azure-event-grid", "")
            + &route(&format!("{stream}.x"));
        run("", &(nats_broker("main", &nats.url) + &rest))
    };
    let ask = |bridge: &Bridge, path: &str, origin: &str| {
        let request = Request::new("OPTIONS", path).header("WebHook-Request-Origin", origin);
        bridge.send(&request.header("WebHook-Request-Callback", "http://127.0.0.1:1/x"))
    };
    let bridge = of("[\"emitter.example.com\"]");
    let granted = ask(&bridge, "/hooks/cloudevents", "Emitter.example.com");
    assert_eq!(granted.status, 200, "{granted:?}");
    for (name, value) in [
        ("webhook-allowed-origin", "Emitter.example.com"),
        ("webhook-allowed-rate", "12000"),
        ("allow", "POST, OPTIONS"),
    ] {
        assert_eq!(granted.header(name), Some(value), "{granted:?}");
    }
    for refused in [
        ask(
            &bridge,
            "/hooks/cloudevents",
            "emitter.example.com.evil.net",
        ),
        bridge.send(&Request::new("OPTIONS", "/hooks/cloudevents")),
        ask(&bridge, "/hooks/azure-event-grid", "emitter.example.com"),
    ] {
        refused.expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("webhook-allowed-origin"), None);
    }
    let azure = ask(&bridge, "/hooks/azure-event-grid", "eventgrid.azure.net");
    assert_eq!(
        azure.header("webhook-allowed-origin"),
        Some("eventgrid.azure.net")
    );
    let anyone = of("[\"*\"]");
    assert_eq!(ask(&anyone, "/hooks/cloudevents", "a.b").status, 200);
    let none = of("[]");
    let refused = ask(&none, "/hooks/cloudevents", "a.b");
    refused.expect_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("POST"));
    assert_eq!(nats.read(&stream).len(), 0);
}

fn grid_event(id: &str, event_type: &str) -> String {
    json!([{
        "id": id, "topic": "/t", "subject": "/blobs/a.pdf", "data": { "api": "PutBlob", "validationCode": "7A2F-<b>" },
        "eventType": event_type, "eventTime": "2026-08-01T07:59:57.1647262Z", "dataVersion": "", "metadataVersion": "1",
    }])
    .to_string()
}

#[test]
fn azure_event_grid_is_answered_its_code_and_its_events_are_stored_one_by_one() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let by_query = nats.stream("grid");
    let topic = format!("{by_query}.azure.Microsoft.Storage.BlobCreated");
    kafka.create_topic(&topic, 1, &[]);
    let query = format!(
        "[sources.query]\nprovider = \"azure-event-grid\"\nauth = \"query:code\"\nsecrets = [\"another-token-17-\"]\n\
         [[routes]]\nsource = \"query\"\nbroker = \"edge\"\ntopic = \"{by_query}.x\"\n"
    );
    // With two brokers a dead letter names one.
    let keys = "on_invalid = { dead_letter = { broker = \"main\", topic = \"hooks.invalid\" } }";
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &source("azure-event-grid", keys)
        + &pages::routes("azure-event-grid", &by_query)
        + &query;
    let bridge = run("", &rest);
    let path = "/hooks/azure-event-grid";
    let grid = |body: &str, kind: &str| {
        post(path, "application/json; charset=utf-8", body).header("aeg-event-type", kind)
    };
    let validation = grid_event("v-1", "Microsoft.EventGrid.SubscriptionValidationEvent");
    let validation = grid(&validation, "SubscriptionValidation");
    let deletion = grid(
        &grid_event("v-2", "Microsoft.EventGrid.SubscriptionDeletedEvent"),
        "SubscriptionDeletion",
    );
    let blob = grid(
        &grid_event("g-1", "Microsoft.Storage.BlobCreated"),
        "Notification",
    );
    for request in [&validation, &deletion, &blob] {
        for token in ["other", &TOKEN[1..]] {
            bridge
                .send(&with_token(request, token))
                .expect_problem(401, "unauthorized");
        }
        let bare = request.clone().without("authorization");
        bridge.send(&bare).expect_problem(401, "unauthorized");
    }
    let answer = bridge.send(&validation);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), json!({ "validationResponse": "7A2F-<b>" }));
    assert_eq!(bridge.send(&deletion).status, 200);
    assert_eq!(kafka.read(&topic).len(), 0);

    assert_eq!(statuses(&bridge.send(&blob)), ["published"]);
    let retry = blob.clone().header("aeg-delivery-count", "1");
    assert_eq!(statuses(&bridge.send(&retry)), ["duplicate"]);
    let message = only(kafka.read(&topic));
    assert_eq!(message.key.as_deref(), Some("/blobs/a.pdf"));
    let said = [
        "event_id",
        "ce_type",
        "ce_subject",
        "ce_time",
        "ce_source",
        "content-type",
    ];
    let said = said.map(|name| message.header(name).unwrap());
    let wanted = [
        "g-1",
        "Microsoft.Storage.BlobCreated",
        "/blobs/a.pdf",
        "2026-08-01T07:59:57.1647262Z",
        "/hookbridge/azure-event-grid",
        "application/json; charset=utf-8",
    ];
    assert_eq!(said, wanted);

    // The other schema and the other authentication.
    let structured = event("c-1", &json!({ "subject": "s" }));
    let at = |code: &str| {
        let request = post(
            path,
            "application/cloudevents+json; charset=utf-8",
            &structured,
        );
        request
            .without("authorization")
            .to(&format!("/hooks/query?{code}"))
    };
    for wrong in [
        "",
        "code=other",
        "code=another-token-17-&code=another-token-17-",
    ] {
        bridge.send(&at(wrong)).expect_problem(401, "unauthorized");
    }
    bridge
        .send(&at("x=1&code=another-token-17-"))
        .expect_success("published");
    let message = only(nats.read(&by_query));
    assert_eq!(
        (message.event_id(), message.header("ce-source")),
        ("c-1", Some("/acme"))
    );
}

fn notification(id: Option<&str>, state: &Value, more: &Value) -> String {
    let mut notification = json!({
        "subscriptionId": "sub-1", "clientState": state, "changeType": "created", "resource": "Users/1/Messages/2",
    });
    let members = notification.as_object_mut().unwrap();
    members.extend(id.map(|id| ("id".to_owned(), id.into())));
    members.extend(more.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    notification.to_string()
}

#[test]
fn microsoft_graph_is_echoed_its_token_and_every_notification_must_carry_the_client_state() {
    let Some(kafka) = Kafka::shared() else { return };
    let prefix = unique("graph");
    let types = ["created", "updated", "deleted", "missed"];
    let topics = types.map(|name| format!("{prefix}.graph.{name}"));
    kafka.create_topics(&topics);
    let read = || {
        topics
            .iter()
            .flat_map(|topic| kafka.read(topic))
            .collect::<Vec<_>>()
    };
    let secrets = ["an-older-state-1", TOKEN];
    // The preset's is too short for a busy machine.
    let graph = pages::source("microsoft-graph", &secrets, "publish_timeout = \"8s\"")
        + &pages::routes("microsoft-graph", &prefix);
    let bridge = run("", &(kafka_broker("main", &kafka.address) + &graph));
    let path = "/hooks/microsoft-graph";
    let posted = |elements: &[String]| {
        Request::post(path, format!("{{\"value\":[{}]}}", elements.join(",")))
    };
    let echo = Request::new(
        "POST",
        &format!("{path}?a=b&validationToken=Validation%3a+%3Cb%3E"),
    )
    .header("Content-Type", "text/plain; charset=utf-8");
    let echo = bridge.send(&echo);
    assert_eq!(
        (echo.status, echo.body.as_slice()),
        (200, &b"Validation: <b>"[..])
    );
    assert_eq!(echo.header("content-type"), Some("text/plain"));
    assert_eq!(echo.header("x-content-type-options"), Some("nosniff"));

    let own = json!(TOKEN);
    let first = notification(Some("n-1"), &own, &json!({}));
    for state in [
        json!("nope"),
        json!(TOKEN.to_uppercase()),
        json!(0),
        Value::Null,
        json!([TOKEN]),
    ] {
        let second = notification(Some("n-2"), &state, &json!({}));
        let answer = bridge.send(&posted(&[first.clone(), second]));
        answer.expect_problem(401, "unauthorized");
    }
    let twice = first.replacen("{", &format!("{{\"clientState\":\"{TOKEN}\","), 1);
    assert!(bridge.send(&posted(&[twice])).status >= 400);
    bridge
        .send(&posted(&[]))
        .expect_problem(422, "invalid_event");
    assert_eq!(read().len(), 0);

    let older = notification(
        Some("n-2"),
        &json!("an-older-state-1"),
        &json!({ "changeType": "updated" }),
    );
    let lifecycle = json!({ "changeType": null, "resource": null, "lifecycleEvent": "missed" });
    let lifecycle = notification(None, &own, &lifecycle);
    let etag = json!({ "resourceData": { "@odata.etag": "W/1" }, "changeType": "deleted" });
    let etag = notification(None, &own, &etag);
    let all = posted(&[first.clone(), older, lifecycle.clone(), etag]);
    let answer = bridge.send(&all);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(statuses(&answer), ["published"; 4]);
    // Notifications with neither id nor etag may be about different changes.
    let again = bridge.send(&all);
    assert_eq!(
        statuses(&again),
        ["duplicate", "duplicate", "published", "duplicate"]
    );
    let stored = read();
    let of_type = |wanted: &str| -> Vec<&Stored> {
        stored
            .iter()
            .filter(|message| message.header("ce_type") == Some(wanted))
            .collect()
    };
    let [created] = of_type("created")[..] else {
        panic!("{stored:?}")
    };
    assert_eq!(
        (created.event_id(), created.value.as_slice()),
        ("n-1", first.as_bytes())
    );
    assert_eq!(created.key.as_deref(), Some("Users/1/Messages/2"));
    let subject = created.header("ce_subject");
    assert_eq!(subject, Some("Users/1/Messages/2"));
    let [missed, repeated] = of_type("missed")[..] else {
        panic!("{stored:?}")
    };
    assert_eq!(
        (&missed.value, &repeated.value),
        (&lifecycle.clone().into_bytes(), &lifecycle.into_bytes())
    );
    assert_ne!(missed.event_id(), repeated.event_id());
    assert_eq!(missed.key.as_deref(), Some("sub-1"));
    assert_eq!(missed.header("ce_subject"), None);
    let used = |index: &str| {
        let labels = [("source", "microsoft-graph"), ("index", index)];
        let time = bridge
            .metrics()
            .find("hookbridge_secret_last_used_timestamp_seconds", &labels);
        time.is_some_and(|time| time > 0.0)
    };
    assert!(used("0") && used("1"), "both secrets were used");
}

#[test]
fn a_retry_of_a_partly_stored_batch_publishes_what_is_missing() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let batch = |ids: [&str; 3]| {
        let [a, b, c] = ids;
        let elements = [
            event(a, &json!({})),
            event(b, &json!({ "type": "late" })),
            event(c, &json!({})),
        ];
        cloud_event(
            "application/cloudevents-batch+json",
            &format!("[{}]", elements.join(",")),
        )
    };
    let ids = |stored: &[Stored]| {
        let mut ids: Vec<_> = stored
            .iter()
            .map(|message| message.event_id().to_owned())
            .collect();
        ids.sort_unstable();
        ids
    };
    let routes = |early: &str, late: &str| {
        format!(
            "[[routes]]\ntypes = [\"late\"]\ntopic = \"{late}\"\n[[routes]]\ntopic = \"{early}\"\n"
        )
    };

    // On Kafka the duplicates window knows the stored events.
    let (early, late) = (kafka.topic("early"), unique("late"));
    let broker = kafka_broker("main", &kafka.address);
    let bridge = run(
        "",
        &(broker + &source("cloudevents", "") + &routes(&early, &late)),
    );
    let request = batch(["1", "2", "3"]);
    bridge.send(&request).expect_problem(503, "publish_timeout");
    assert_eq!(ids(&kafka.read(&early)), ["1", "3"]);
    kafka.create_topic(&late, 1, &[]);
    crate::support::wait::until("the topic is found", crate::support::wait::PATIENCE, || {
        bridge.send(&request).status == 200
    });
    assert_eq!(ids(&kafka.read(&early)), ["1", "3"]);
    assert_eq!(ids(&kafka.read(&late)), ["2"]);

    // On NATS the stream does, even for a restarted bridge.
    let early = nats.stream("early");
    let late = unique("late");
    let rest = nats_broker("main", &nats.url)
        + &source("cloudevents", "")
        + &routes(&format!("{early}.x"), &format!("{late}.x"));
    let bridge = run("", &rest);
    bridge.send(&request).expect_problem(503, "publish_timeout");
    assert_eq!(ids(&nats.read(&early)), ["1", "3"]);
    drop(bridge);
    let late = nats.stream("late");
    let rest = nats_broker("main", &nats.url)
        + &source("cloudevents", "")
        + &routes(&format!("{early}.x"), &format!("{late}.x"));
    let bridge = run("", &rest);
    assert_eq!(
        statuses(&bridge.send(&request)),
        ["duplicate", "published", "duplicate"]
    );
    assert_eq!(ids(&nats.read(&early)), ["1", "3"]);
    assert_eq!(ids(&nats.read(&late)), ["2"]);
}

#[test]
fn a_batch_that_exceeds_max_in_flight_is_refused_permanently() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let (topic, stream) = (kafka.topic("many"), nats.stream("many"));
    // Two brokers: each may have half of what may be in flight.
    let routes = format!(
        "[[routes]]\ntypes = [\"x\"]\nbroker = \"edge\"\ntopic = \"{stream}.x\"\n[[routes]]\nbroker = \"main\"\ntopic = \"{topic}\"\n"
    );
    let rest = kafka_broker("main", &kafka.address)
        + &nats_broker("edge", &nats.url)
        + &source("cloudevents", "max_in_flight = 5000")
        + &routes;
    let bridge = run("max_in_flight = 10", &rest);
    let batch = |count: usize| {
        let events: Vec<_> = (0..count)
            .map(|id| event(&format!("m-{id}"), &json!({})))
            .collect();
        cloud_event(
            "application/cloudevents-batch+json",
            &format!("[{}]", events.join(",")),
        )
    };
    let problem = bridge.send(&batch(11)).expect_problem(422, "invalid_event");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("more than 10 events"), "{detail}");
    assert_eq!(kafka.read(&topic).len(), 0);
    let answer = bridge.send(&batch(10));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(kafka.read(&topic).len(), 10);
    assert_eq!(nats.read(&stream).len(), 0);
}

#[test]
fn send_makes_samples_that_are_taken_and_providers_says_how_each_is_authenticated() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let presets = ["cloudevents", "azure-event-grid", "microsoft-graph"];
    let sources: String = presets.iter().map(|name| source(name, "")).collect();
    let rest = nats_broker("main", &nats.url) + &sources + &route(&format!("{stream}.x"));
    let bridge = run("", &rest);
    for (name, sample, events, authenticated) in [
        ("cloudevents", "com.example.someevent", 1, "bearer"),
        ("cloudevents", "com.example.object.deleted.v2", 2, "OPTIONS"),
        ("cloudevents", "io.cncf.kafka.record", 4, "bearer"),
        (
            "azure-event-grid",
            "Microsoft.Storage.BlobCreated",
            5,
            "bearer",
        ),
        (
            "azure-event-grid",
            "Microsoft.Storage.BlobDeleted",
            6,
            "POST",
        ),
        ("microsoft-graph", "created", 7, "event:/clientState"),
        (
            "microsoft-graph",
            "reauthorizationRequired",
            8,
            "the clientState",
        ),
    ] {
        let url = format!("http://{}/hooks/{name}", bridge.public);
        let send = |secret: &str| {
            hookbridge([
                "send",
                "--provider",
                name,
                "--secret",
                secret,
                "--url",
                &url,
                "--sample",
                sample,
            ])
        };
        send("another-secret-17").expect_code(1);
        send(TOKEN).expect_code(0);
        assert_eq!(nats.read(&stream).len(), events, "{name} {sample}");
        let explained = hookbridge(["providers", name]).expect_code(0).stdout;
        assert!(explained.contains(authenticated), "{explained}");
    }
}

#[test]
fn batches_of_thousands_of_events_stay_within_the_documented_memory() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("thousands");
    let http = "max_in_flight_bytes = \"8MiB\"\nmax_connections = 64\npublish_timeout = \"120s\"";
    let keys = "publish_timeout = \"120s\"\ndedup_window = \"0s\"";
    let rest = source("cloudevents", keys) + &route(&format!("{stream}.x"));
    let bridge = run(http, &(nats_broker("main", &nats.url) + &rest));
    // 5,000 events in a MiB, so that each has some 200 bytes.
    let batch = |sender: usize| {
        let data = json!({ "data": "x".repeat(100) });
        let events: Vec<_> = (0..5_000)
            .map(|id| event(&format!("{sender}-{id:04}"), &data))
            .collect();
        let body = format!("[{}]", events.join(","));
        assert!(body.len() < 1024 * 1024, "{}", body.len());
        cloud_event("application/cloudevents-batch+json", &body)
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (bridge, request) = (&bridge, batch(sender));
                scope.spawn(move || bridge.send(&request).status)
            })
            .collect();
        let joined = senders.into_iter().map(|sender| sender.join().unwrap());
        joined.collect()
    });
    // Two of them may be in flight together.
    let stored = answers.iter().filter(|status| **status == 200).count();
    let refused = answers.iter().filter(|status| **status == 503).count();
    assert!(
        stored >= 1 && stored + refused == answers.len(),
        "{answers:?}"
    );
    assert_eq!(nats.read(&stream).len(), stored * 5_000);
    let threads = u64::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let bound = 64 * MIB + 2 * 8 * MIB + 64 * MIB / 16 + threads * 18_000_000;
    let usage = bridge.usage();
    assert!(usage.peak < bound, "{usage:?}, at most {} MiB", bound / MIB);
    println!("{usage:?} of {} MiB", bound / MIB);
}
