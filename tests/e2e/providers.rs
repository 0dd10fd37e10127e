//! Presets in front of real NATS: signed events are stored, and nothing else is. The tests sign by themselves, as the
//! providers' documentation describes.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::bridge::{Bridge, hookbridge, nats_broker, route};
use crate::support::consumer::{Stored, only, values};
use crate::support::events;
use crate::support::kafka::unique;
use crate::support::nats::Nats;
use crate::support::sender::{Answer, Request};

const SECRET: &str = "whs_e2e_4d1f0c9b7a";
const PUBLIC_URL: &str = "https://hooks.example.com/hooks/hubspot";

fn hmac(content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

fn hex(content: &[u8]) -> String {
    HEXLOWER.encode(&hmac(content))
}

fn milliseconds() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
}

fn seconds() -> String {
    (milliseconds() / 1000).to_string()
}

fn source(name: &str, secret: &str, keys: &str) -> String {
    format!("[sources.{name}]\nsecrets = [\"{secret}\"]\n{keys}\n")
}

fn run(nats: &Nats, stream: &str, source: &str) -> Bridge {
    let topic = format!("{stream}.x");
    let bridge = Bridge::run(&(nats_broker("main", &nats.url) + source + &route(&topic)));
    bridge.wait_ready();
    bridge
}

fn without_body_byte(request: &Request) -> Request {
    let mut changed = request.clone();
    let last = changed.body.len() - 2;
    changed.body[last] ^= 1;
    changed
}

/// Another value of a header, with a different last letter or digit.
fn with_other(request: &Request, name: &str) -> Request {
    let mut changed = request.clone();
    let (_, value) = changed
        .headers
        .iter_mut()
        .find(|(header, _)| header.eq_ignore_ascii_case(name))
        .expect("the header");
    let at = value.rfind(|letter: char| letter.is_ascii_alphanumeric());
    let at = at.unwrap();
    let other = match &value[at..=at] {
        "0" => "1",
        _ => "0",
    };
    value.replace_range(at..=at, other);
    changed
}

/// Changes or omits each signed part, and each part of the signature, in turn.
fn expect_refused_when_changed(bridge: &Bridge, request: &Request, signed: &[&str]) {
    bridge
        .send(&without_body_byte(request))
        .expect_problem(401, "invalid_signature");
    for name in signed {
        let answer = bridge.send(&with_other(request, name));
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        let answer = bridge.send(&request.clone().without(name));
        answer.expect_problem(401, "missing_signature");
    }
}

fn expect_message(message: &Stored, id: &str, event_type: &str, others: &[(&str, &str)]) {
    assert_eq!(message.event_id(), id);
    assert_eq!(message.header("ce-type"), Some(event_type));
    for (name, value) in others {
        assert_eq!(message.header(name), Some(*value), "{name}");
    }
}

#[test]
fn github_json_and_forms_are_stored_under_their_delivery_ids() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("github");
    let bridge = run(nats, &stream, &source("github", SECRET, ""));
    let body =
        r#"{"action":"opened","issue":{"number":7},"repository":{"full_name":"acme/bridge"}}"#;
    let signed = |body: &str, id: &str| {
        let signature = format!("sha256={}", hex(body.as_bytes()));
        Request::post("/hooks/github", body)
            .header("X-GitHub-Event", "issues")
            .header("X-GitHub-Delivery", id)
            .header("X-Hub-Signature-256", &signature)
    };
    let request = signed(body, "d-1");
    expect_refused_when_changed(&bridge, &request, &["x-hub-signature-256"]);
    assert_eq!(nats.read(&stream).len(), 0);
    assert_eq!(bridge.send(&request).expect_success("published"), "d-1");
    bridge.send(&request).expect_success("duplicate");

    let form: String = ["payload=", &percent(body)].concat();
    let form = signed(&form, "d-2").without("content-type");
    let form = form.header("Content-Type", "application/x-www-form-urlencoded");
    bridge.send(&form).expect_success("published");
    let stored = nats.read(&stream);
    assert_eq!(stored.len(), 2);
    let also = [
        ("ce-subject", "acme/bridge"),
        ("ce-partitionkey", "acme/bridge"),
    ];
    for (message, id) in stored.iter().zip(["d-1", "d-2"]) {
        expect_message(message, id, "issues.opened", &also);
        assert_eq!(message.header("event_id_origin"), None);
    }
    assert_eq!(stored[0].value, body.as_bytes());
    assert_eq!(stored[1].value, form.body);
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn stripe_events_are_stored_with_their_object_as_key() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("stripe");
    let bridge = run(nats, &stream, &source("stripe", SECRET, ""));
    let body = r#"{"id":"evt_1","created":1795132798,"type":"invoice.paid","data":{"object":{"id":"in_1"}}}"#;
    let time = seconds();
    let signature = hex(format!("{time}.{body}").as_bytes());
    let other = "0".repeat(64);
    let post = |value: &str| Request::post("/hooks/stripe", body).header("Stripe-Signature", value);
    let request = post(&format!("t={time},v1={signature}"));
    expect_refused_when_changed(&bridge, &request, &["stripe-signature"]);
    let later = (time.parse::<u64>().unwrap() + 1).to_string();
    bridge
        .send(&post(&format!("t={later},v1={signature}")))
        .expect_problem(401, "invalid_signature");
    let old = (time.parse::<u64>().unwrap() - 600).to_string();
    let of_old = hex(format!("{old}.{body}").as_bytes());
    bridge
        .send(&post(&format!("t={old},v1={of_old}")))
        .expect_problem(401, "stale_timestamp");
    assert_eq!(nats.read(&stream).len(), 0);
    let rotated = post(&format!("t={time},v1={other},v1={signature},v0=x"));
    assert_eq!(bridge.send(&rotated).expect_success("published"), "evt_1");
    let message = only(nats.read(&stream));
    let also = [("ce-subject", "in_1"), ("ce-partitionkey", "in_1")];
    expect_message(&message, "evt_1", "invoice.paid", &also);
    assert!(
        message
            .header("ce-time")
            .is_some_and(|time| time.ends_with('Z'))
    );
    assert_eq!(message.value, body.as_bytes());
}

fn slack(body: &str, media_type: &str) -> Request {
    let time = seconds();
    let signature = format!("v0={}", hex(format!("v0:{time}:{body}").as_bytes()));
    let request = Request::post("/hooks/slack", body).without("content-type");
    request
        .header("Content-Type", media_type)
        .header("X-Slack-Request-Timestamp", &time)
        .header("X-Slack-Signature", &signature)
}

#[test]
fn slack_events_and_commands_are_stored_and_its_handshake_is_answered() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("slack");
    let bridge = run(nats, &stream, &source("slack", SECRET, ""));
    let challenge = r#"{"token":"x","challenge":"<b>c-1</b>","type":"url_verification"}"#;
    let handshake = slack(challenge, "application/json");
    let signed = ["x-slack-request-timestamp", "x-slack-signature"];
    expect_refused_when_changed(&bridge, &handshake, &signed);
    for _ in 0..2 {
        expect_handshake(&bridge.send(&handshake), 200, "<b>c-1</b>");
    }
    assert_eq!(nats.read(&stream).len(), 0);

    let body = r#"{"team_id":"T1","event":{"type":"app_mention","channel":"C1"},"type":"event_callback","event_id":"Ev1","event_time":1795132798}"#;
    let event = slack(body, "application/json");
    expect_refused_when_changed(&bridge, &event, &signed);
    assert_eq!(bridge.send(&event).expect_success("published"), "Ev1");
    let command = "command=%2Fdeploy&text=bridge&team_id=T1&trigger_id=tr-1";
    let command = slack(command, "application/x-www-form-urlencoded");
    assert_eq!(bridge.send(&command).expect_success("published"), "tr-1");
    let stored = nats.read(&stream);
    assert_eq!(stored.len(), 2);
    let also = [("ce-subject", "C1"), ("ce-partitionkey", "T1")];
    expect_message(&stored[0], "Ev1", "app_mention", &also);
    expect_message(&stored[1], "tr-1", "slash_command", &also[1..]);
    assert_eq!(stored[1].value, command.body);
    let handshakes = [("source", "slack"), ("outcome", "handshake")];
    let counted = bridge.metric("hookbridge_requests_total", &handshakes);
    assert!((counted - 2.0).abs() < f64::EPSILON, "{counted}");
}

fn expect_handshake(answer: &Answer, status: u16, body: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body, body.as_bytes(), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn discord_events_get_an_id_of_the_bridges_and_its_handshake_an_empty_answer() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("discord");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = HEXLOWER.encode(pair.public_key().as_ref());
    let bridge = run(nats, &stream, &source("discord", &public, ""));
    let signed = |body: &str| {
        let time = seconds();
        let signature = pair.sign(format!("{time}{body}").as_bytes());
        Request::post("/hooks/discord", body)
            .header("X-Signature-Timestamp", &time)
            .header("X-Signature-Ed25519", &HEXLOWER.encode(signature.as_ref()))
    };
    let headers = ["x-signature-timestamp", "x-signature-ed25519"];
    let ping = signed(r#"{"version":1,"application_id":"1","type":0}"#);
    expect_refused_when_changed(&bridge, &ping, &headers);
    expect_handshake(&bridge.send(&ping), 204, "");
    let body = r#"{"version":1,"application_id":"1","type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"2026-11-20T06:15:04","data":{"id":"e-1"}}}"#;
    let event = signed(body);
    expect_refused_when_changed(&bridge, &event, &headers);
    assert_eq!(nats.read(&stream).len(), 0);
    // The preset answers as Discord wants it: 204, without a body.
    assert_eq!(bridge.send(&event).status, 204);
    assert_eq!(bridge.send(&signed(body)).status, 204);
    let message = only(nats.read(&stream));
    let digest = HEXLOWER.encode(&<Sha256 as sha2::Digest>::digest(body));
    let also = [
        ("event_id_origin", "generated"),
        ("ce-subject", "e-1"),
        ("ce-time", "2026-11-20T06:15:04Z"),
    ];
    expect_message(&message, &digest, "ENTITLEMENT_CREATE", &also);
}

#[test]
fn dropbox_is_answered_its_challenge_while_the_broker_is_down() {
    let Some(nats) = Nats::private() else { return };
    let stream = nats.stream("dropbox");
    let bridge = run(&nats, &stream, &source("dropbox", SECRET, ""));
    let body = r#"{"list_folder":{"accounts":["dbid:1"]}}"#;
    let event =
        Request::post("/hooks/dropbox", body).header("X-Dropbox-Signature", &hex(body.as_bytes()));
    expect_refused_when_changed(&bridge, &event, &["x-dropbox-signature"]);
    assert_eq!(nats.read(&stream).len(), 0);
    let first = bridge.send(&event).expect_success("published");
    // A later change sends the same bytes.
    let second = bridge.send(&event).expect_success("published");
    assert_ne!(first, second);
    for message in nats.read(&stream) {
        assert_eq!(message.header("event_id_origin"), Some("generated"));
        assert_eq!(message.header("ce-type"), Some("list_folder"));
        assert_eq!(message.header("ce-partitionkey"), Some("dbid:1"));
    }
    nats.kill();
    let get = |target: &str| bridge.send(&Request::new("GET", target));
    let answer = get("/hooks/dropbox?challenge=a%3Cb%3E");
    expect_handshake(&answer, 200, "a<b>");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let refused = get("/hooks/dropbox");
    refused.expect_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("POST, GET"));
    let twice = get("/hooks/dropbox?challenge=a&challenge=b");
    twice.expect_problem(405, "method_not_allowed");
}

fn hubspot(body: &str, url: &str, target: &str) -> Request {
    let time = milliseconds().to_string();
    let content = format!("POST{url}{body}{time}");
    Request::post(target, body)
        .header("X-HubSpot-Request-Timestamp", &time)
        .header(
            "X-HubSpot-Signature-v3",
            &BASE64.encode(&hmac(content.as_bytes())),
        )
}

fn hubspot_event(kind: &str, id: u32, attempt: u32) -> String {
    json!({
        "portalId": 33, "subscriptionId": 11, "objectId": id, "eventId": id, "occurredAt": 1_795_132_798_000_u64,
        "subscriptionType": kind, "attemptNumber": attempt,
    })
    .to_string()
}

fn statuses(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.json();
    let events = body["events"].as_array().expect("a batch's answer");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let pairs = events
        .iter()
        .map(|event| (text(event, "event_id"), text(event, "status")));
    pairs.collect()
}

#[test]
fn a_hubspot_batch_is_stored_whole_and_a_retry_adds_only_what_is_missing() {
    let Some(nats) = Nats::shared() else { return };
    let (contacts, deals) = (nats.stream("contacts"), nats.stream("deals"));
    let nowhere = unique("nowhere");
    let hubspot_source = source(
        "hubspot",
        SECRET,
        &format!("public_url = \"{PUBLIC_URL}\"\nmedia_types = [\"application/json\"]"),
    );
    let rest = |deals: &str| {
        let routes =
            [("contact.*", contacts.as_str()), ("deal.*", deals)].map(|(types, stream)| {
                format!("[[routes]]\ntypes = [\"{types}\"]\ntopic = \"{stream}.x\"\n")
            });
        nats_broker("main", &nats.url) + &hubspot_source + &routes.concat()
    };
    let mut bridge = Bridge::run(&rest(&nowhere));
    bridge.wait_ready();
    let batch = |attempt| {
        let (one, other) = (
            hubspot_event("contact.creation", 1, attempt),
            hubspot_event("deal.creation", 2, attempt),
        );
        format!("[{one}, {other}]")
    };
    let signed = |body: &str| hubspot(body, PUBLIC_URL, "/hooks/hubspot");
    let first = signed(&batch(0));
    let headers = ["x-hubspot-request-timestamp", "x-hubspot-signature-v3"];
    expect_refused_when_changed(&bridge, &first, &headers);
    let elsewhere = first.clone().to("/hooks/hubspot?x=1");
    bridge
        .send(&elsewhere)
        .expect_problem(401, "invalid_signature");
    assert_eq!(nats.read(&contacts).len(), 0);

    // One is stored and the other certainly is not: the outcome of the batch is unknown.
    bridge.send(&first).expect_problem(503, "publish_timeout");
    assert_eq!(nats.read(&contacts).len(), 1);
    assert!(bridge.reload(&rest(&deals)));
    let answer = bridge.send(&signed(&batch(1)));
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = statuses(&answer);
    let statuses: Vec<_> = found.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(statuses, ["duplicate", "published"]);
    assert_eq!(found[0].0, "33-11-1-1-1795132798000");
    let contact = only(nats.read(&contacts));
    assert_eq!(
        contact.value,
        hubspot_event("contact.creation", 1, 0).into_bytes()
    );
    let deal = only(nats.read(&deals));
    let also = [("ce-subject", "2"), ("ce-partitionkey", "2")];
    expect_message(&deal, &found[1].0, "deal.creation", &also);
    assert_eq!(
        deal.value,
        hubspot_event("deal.creation", 2, 1).into_bytes()
    );
}

#[test]
fn one_refused_element_refuses_its_batch_before_anything_is_published() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("batch");
    let keys = format!("public_url = \"{PUBLIC_URL}\"");
    let bridge = run(nats, &stream, &source("hubspot", SECRET, &keys));
    let good = hubspot_event("contact.creation", 1, 0);
    let signed = |body: &str| hubspot(body, PUBLIC_URL, "/hooks/hubspot");
    let long = "x".repeat(300);
    let cases = [
        (
            format!("[{good},{}]", good.replace("contact.creation", &long)),
            422,
            "/1/subscriptionType",
        ),
        (format!("[{good},7]"), 422, "/1"),
        ("[]".to_owned(), 422, ""),
        (good.clone(), 422, ""),
    ];
    for (body, status, pointer) in cases {
        let answer = bridge.send(&signed(&body));
        answer.expect_problem(status, "invalid_event");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    let missing = format!("[{good},{{\"subscriptionType\":\"x\"}}]");
    bridge
        .send(&signed(&missing))
        .expect_problem(422, "missing_event_id");
    let twice = format!(
        "[{good},{{\"subscriptionType\":\"x\",\"subscriptionType\":\"y\",\"portalId\":1,\"subscriptionId\":1,\"objectId\":1,\"eventId\":1,\"occurredAt\":1}}]"
    );
    bridge
        .send(&signed(&twice))
        .expect_problem(400, "invalid_json");
    let many = format!("[{}]", vec!["{}"; 5001].join(","));
    assert_eq!(bridge.send(&signed(&many)).status, 422);
    assert_eq!(nats.read(&stream).len(), 0);
    let answer = bridge.send(&signed(&format!("[{good}]")));
    assert_eq!(statuses(&answer)[0].1, "published");
}

#[test]
fn an_element_that_is_dead_lettered_leaves_the_others_their_way() {
    let Some(nats) = Nats::shared() else { return };
    let (good, dead) = (nats.stream("batch"), nats.stream("dead"));
    let keys = format!(
        "public_url = \"{PUBLIC_URL}\"\non_invalid = {{ dead_letter = {{ topic = \"{dead}.x\" }} }}"
    );
    let bridge = run(nats, &good, &source("hubspot", SECRET, &keys));
    let one = hubspot_event("contact.creation", 1, 0);
    let without_id = r#"{"subscriptionType":"contact.creation"}"#;
    let body = format!("[{without_id},{one}]");
    let answer = bridge.send(&hubspot(&body, PUBLIC_URL, "/hooks/hubspot"));
    let found = statuses(&answer);
    let told: Vec<_> = found.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(told, ["dead_lettered", "published"]);
    assert_eq!(values(nats.read(&good)), [one.into_bytes()]);
    let letter = only(nats.read(&dead));
    assert_eq!(letter.value, without_id.as_bytes());
    assert_eq!(letter.header("hookbridge_reason"), Some("missing_event_id"));
    assert_eq!(letter.header("event_id_origin"), Some("generated"));
}

#[test]
fn a_large_batch_is_stored_element_by_element() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("batch");
    let keys = format!("public_url = \"{PUBLIC_URL}\"");
    let bridge = run(nats, &stream, &source("hubspot", SECRET, &keys));
    let events: Vec<_> = (1..=500)
        .map(|id| hubspot_event("contact.creation", id, 0))
        .collect();
    let body = format!("[{}]", events.join(","));
    let answer = bridge.send(&hubspot(&body, PUBLIC_URL, "/hooks/hubspot"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        statuses(&answer)
            .iter()
            .all(|(_, status)| status == "published")
    );
    let mut stored = values(nats.read(&stream));
    stored.sort();
    let mut sent: Vec<_> = events.into_iter().map(String::into_bytes).collect();
    sent.sort();
    assert_eq!(stored, sent);
}

#[test]
fn a_declared_source_is_verified_and_mapped_as_it_is_written() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("acme");
    let acme = r#"
forward_headers = ["x-acme-region"]
[sources.acme.verify]
algorithm = "hmac-sha256"
signature = { header = "x-acme-signature", prefix = "sha256=", encoding = "hex" }
content = "{timestamp}.{body}"
timestamp = { header = "x-acme-time", unit = "s" }
tolerance = "5m"
[sources.acme.event]
id = "{/id}"
type = ["{header:x-acme-event}.{/action}", "{header:x-acme-event}"]
subject = "{/order}"
key = "{/customer}"
"#;
    let bridge = run(nats, &stream, &source("acme", SECRET, acme));
    let body = r#"{"id":"a-1","action":"created","order":"o-1","customer":"c-1"}"#;
    let time = seconds();
    let signature = format!("sha256={}", hex(format!("{time}.{body}").as_bytes()));
    let request = Request::post("/hooks/acme", body)
        .header("x-acme-event", "order")
        .header("x-acme-region", "eu")
        .header("x-acme-time", &time)
        .header("x-acme-signature", &signature);
    expect_refused_when_changed(&bridge, &request, &["x-acme-time", "x-acme-signature"]);
    assert_eq!(nats.read(&stream).len(), 0);
    assert_eq!(bridge.send(&request).expect_success("published"), "a-1");
    bridge.send(&request).expect_success("duplicate");
    let message = only(nats.read(&stream));
    let also = [
        ("ce-subject", "o-1"),
        ("ce-partitionkey", "c-1"),
        ("x-acme-region", "eu"),
        ("ce-source", "/hookbridge/acme"),
    ];
    expect_message(&message, "a-1", "order.created", &also);
}

#[test]
fn a_secret_that_is_sent_along_lets_in_and_is_not_forwarded() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("postmark");
    let keys = "auth = [\"basic\", \"header:x-token\"]";
    let bridge = run(
        nats,
        &stream,
        &source("postmark", "user:whs_e2e_4d1f0c9b7a", keys),
    );
    let body = r#"{"RecordType":"Bounce","ID":42,"MessageID":"m-1","Email":"a@example.com"}"#;
    let post = || Request::post("/hooks/postmark", body);
    let basic = format!("Basic {}", BASE64.encode(b"user:whs_e2e_4d1f0c9b7a"));
    for wrong in [
        post(),
        post().header("Authorization", "Basic AAAA"),
        post()
            .header("Authorization", &basic)
            .header("Authorization", &basic),
        post().header("x-token", "whs_e2e_4d1f0c9b7a"),
    ] {
        bridge.send(&wrong).expect_problem(401, "unauthorized");
    }
    assert_eq!(nats.read(&stream).len(), 0);
    let answer = bridge.send(&post().header("Authorization", &basic));
    assert_eq!(answer.expect_success("published"), "42");
    let token = post().header("x-token", "user:whs_e2e_4d1f0c9b7a");
    bridge.send(&token).expect_success("duplicate");
    let message = only(nats.read(&stream));
    assert!(
        message
            .header_names()
            .iter()
            .all(|name| !name.eq_ignore_ascii_case("authorization"))
    );
}

#[test]
fn a_sample_that_does_not_exist_names_those_that_do() {
    let arguments = ["send", "--provider", "hubspot", "--secret", SECRET];
    let rest = [
        "--url",
        "http://localhost:1/x",
        "--sample",
        "contact.deletion",
    ];
    let done = hookbridge(arguments.into_iter().chain(rest)).expect_code(1);
    assert!(done.stderr.contains("known: contact.creation"), "{done:?}");
}

#[test]
fn providers_are_listed_and_explained() {
    let all = hookbridge(["providers"]).expect_code(0);
    for name in ["github", "standard-webhooks", "synq", "zoom"] {
        assert!(
            all.stdout.lines().any(|line| line.starts_with(name)),
            "{all:?}"
        );
    }
    let one = hookbridge(["providers", "hubspot"]).expect_code(0);
    for part in [
        "x-hubspot-signature-v3",
        "schemes",
        "public_url",
        "[sources.hubspot]",
    ] {
        assert!(one.stdout.contains(part), "{part}: {one:?}");
    }
    let unknown = hookbridge(["providers", "githup"]).expect_code(1);
    assert!(
        unknown.stderr.contains("known: alertmanager"),
        "{unknown:?}"
    );
}

#[test]
fn explain_shows_attributes_that_the_event_itself_lacks() {
    let stream = events::new_id();
    let files = crate::support::bridge::write(
        "",
        &(nats_broker("main", "nats://127.0.0.1:1")
            + &source("github", SECRET, "")
            + &route(&format!("{stream}.x"))),
    );
    let config = files.path();
    let arguments = [
        "explain",
        "--config",
        config,
        "--source",
        "github",
        "--json",
        "--header",
        "X-GitHub-Event: push",
        "--header",
        "X-GitHub-Delivery: d-1",
    ];
    let done = crate::support::bridge::hookbridge_reading(arguments, b"{\"ref\":\"x\"}", &[]);
    let told: Value = serde_json::from_str(&done.expect_code(0).stdout).unwrap();
    assert_eq!(
        (told["event_id"].as_str(), told["type"].as_str()),
        (Some("d-1"), Some("push"))
    );
}
