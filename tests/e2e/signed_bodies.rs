//! Providers whose signature is in the body, covers the fields of a form, or is a token. The tests sign by themselves,
//! as the providers' libraries do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use form_urlencoded::Serializer;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::bridge::{Bridge, hookbridge, nats_broker};
use crate::support::consumer::only;
use crate::support::nats::Nats;
use crate::support::pages;
use crate::support::process;
use crate::support::sender::{Connection, Request};

const SECRET: &str = "whs_e2e_4d1f0c9b7a";
const HOST: &str = "https://hooks.example.com";

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since_epoch.as_secs()
}

fn hmac_sha256(secret: &str, content: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

fn hmac_sha1(secret: &str, content: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    ring::hmac::sign(&key, content).as_ref().to_vec()
}

fn run(nats: &Nats, stream: &str, sources: &str) -> Bridge {
    let bridge = Bridge::run(&rest(nats, stream, sources));
    bridge.wait_ready();
    bridge
}

fn rest(nats: &Nats, stream: &str, sources: &str) -> String {
    let brokers = nats_broker("main", &nats.url) + &nats_broker("spare", &nats.url);
    brokers + &sources.replace(STREAM, stream)
}

/// Stands for the stream in routes.
const STREAM: &str = "STREAM";

/// The source and the routes on a provider's page, with further keys of the source.
fn documented(name: &str, secrets: &[&str], keys: &str) -> String {
    pages::source(name, secrets, keys) + &pages::routes(name, STREAM)
}

/// A source of a test's own, with a route.
fn with_route(source: &str) -> String {
    format!("{source}[[routes]]\nbroker = \"main\"\ntopic = \"{STREAM}.x\"\n")
}

fn form(target: &str, fields: &[(&str, &str)]) -> Request {
    let body = Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = Request::post(target, body).without("content-type");
    request.header(
        "Content-Type",
        "application/x-www-form-urlencoded; charset=UTF-8",
    )
}

fn with_body(request: &Request, body: Vec<u8>) -> Request {
    let mut changed = request.clone();
    changed.body = body;
    changed
}

/// A request that must be stored, its expected message, and the same request with each signed part changed in turn.
struct Case {
    name: &'static str,
    source: String,
    genuine: Request,
    message: [(&'static str, &'static str); 4],
    changed: Vec<(Request, &'static str)>,
}

/// `twilio-python`'s `RequestValidator.compute_signature`.
fn twilio_signature(
    url: &str,
    fields: &[(&str, &str)],
    hmac: fn(&str, &[u8]) -> Vec<u8>,
) -> String {
    let mut sorted = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (name, value) in fields {
        sorted.entry(name).or_default().insert(value);
    }
    let mut content = url.to_owned();
    for (name, values) in sorted {
        for value in values {
            content.push_str(name);
            content.push_str(value);
        }
    }
    BASE64.encode(&hmac(SECRET, content.as_bytes()))
}

const STATUS: [(&str, &str); 6] = [
    ("SmsStatus", "delivered"),
    ("MessageStatus", "delivered"),
    ("To", "+14155550100"),
    ("MessageSid", "SM1"),
    ("Body", "héllo + wörld & 100% = ☎"),
    ("Empty", ""),
];

fn twilio(scheme: &'static str, hmac: fn(&str, &[u8]) -> Vec<u8>) -> Case {
    let target = "/hooks/twilio?src=sms";
    let signed = |target: &str, fields: &[(&str, &str)]| {
        let signature = twilio_signature(&format!("{HOST}{target}"), fields, hmac);
        form(target, fields)
            .header("I-Twilio-Idempotency-Token", "token-1")
            .header("X-Twilio-Signature", &signature)
    };
    let genuine = signed(target, &STATUS);
    let with_body = |fields: &[(&str, &str)]| with_body(&genuine, form(target, fields).body);
    let mut undelivered = STATUS;
    undelivered[1].1 = "undelivered";
    let added = [&STATUS[..], &[("x", "1")]].concat();
    let other = if scheme == "auth-token" {
        hmac_sha256
    } else {
        hmac_sha1
    };
    let by_other = twilio_signature(&format!("{HOST}{target}"), &STATUS, other);
    let unsigned = genuine.clone().without("x-twilio-signature");
    let wrong = "invalid_signature";
    Case {
        name: scheme,
        source: documented("twilio", &[SECRET], &format!("scheme = \"{scheme}\"")),
        message: [
            ("event_id", "token-1"),
            ("ce-type", "message.delivered"),
            ("ce-subject", "SM1"),
            ("ce-partitionkey", "SM1"),
        ],
        changed: vec![
            (with_body(&undelivered), wrong),
            (with_body(&STATUS[1..]), wrong),
            (with_body(&added), wrong),
            (genuine.clone().to("/hooks/twilio?src=voice"), wrong),
            (genuine.clone().to("/hooks/twilio"), wrong),
            (
                unsigned.clone().header("X-Twilio-Signature", &by_other),
                wrong,
            ),
            (unsigned, "missing_signature"),
            // A body that is not a form is signed only through its digest.
            (
                Request::post("/hooks/twilio", "[]").header(
                    "X-Twilio-Signature",
                    &twilio_signature(&format!("{HOST}/hooks/twilio"), &[], hmac),
                ),
                wrong,
            ),
        ],
        genuine,
    }
}

fn twilio_events() -> Case {
    let body = r#"[{"specversion":"1.0","type":"com.twilio.messaging.message.sent","source":"/x","id":"EZ1","subject":"SM1","data":{"messageSid":"SM2"}}]"#;
    let digest = |body: &str| HEXLOWER.encode(&Sha256::digest(body));
    let post = |body: &str, digest: &str| {
        let target = format!("/hooks/twilio?bodySHA256={digest}");
        // Twilio sometimes signs the port that the URL does not have.
        let url = format!("https://hooks.example.com:443{target}");
        let signature = twilio_signature(&url, &[], hmac_sha1);
        Request::post(&target, body).header("X-Twilio-Signature", &signature)
    };
    let genuine = post(body, &digest(body));
    let other = body.replace("SM2", "SM3");
    let with_other = with_body(&genuine, other.clone().into_bytes());
    let twice = format!("{}&bodySHA256={}", genuine.target, digest(&other));
    let wrong = "invalid_signature";
    Case {
        name: "twilio event streams",
        source: documented("twilio", &[SECRET], ""),
        message: [
            ("event_id", "EZ1"),
            ("ce-type", "com.twilio.messaging.message.sent"),
            ("ce-subject", "SM1"),
            ("ce-partitionkey", "SM2"),
        ],
        changed: vec![
            (with_other.clone(), wrong),
            (post(&other, &digest(body)), wrong),
            (with_other.to(&twice), wrong),
            (genuine.clone().to("/hooks/twilio"), wrong),
            (
                genuine.clone().without("x-twilio-signature"),
                "missing_signature",
            ),
        ],
        genuine,
    }
}

const TOKEN: &str = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0";

/// `mailgun`'s `SecurityGuard.verify_webhook`: the HMAC of timestamp and token.
fn mailgun_signature(secret: &str, time: &str, token: &str) -> String {
    HEXLOWER.encode(&hmac_sha256(secret, format!("{time}{token}").as_bytes()))
}

fn mailgun_event(signature: &Value) -> Request {
    let event = json!({
        "event": "delivered", "id": "mg-1", "timestamp": 1_795_132_798.5, "recipient": "ann@example.com",
        "message": { "headers": { "message-id": "20261120.1@mg.example.com" } },
    });
    let body = json!({ "event-data": event, "signature": signature });
    Request::post("/hooks/mailgun", body.to_string())
}

fn mailgun(has_parent: bool) -> Case {
    let time = now().to_string();
    let good = mailgun_signature(SECRET, &time, TOKEN);
    let place = if has_parent {
        "parent-signature"
    } else {
        "signature"
    };
    let with = |key: &str, value: Value| {
        let mut signature =
            json!({ "timestamp": time, "token": TOKEN, "signature": "00".repeat(32) });
        signature[place] = good.clone().into();
        signature[key] = value;
        mailgun_event(&signature)
    };
    let genuine = with(place, good.clone().into());
    let text = String::from_utf8(genuine.body.clone()).unwrap();
    let twice = text.replace("\"token\":", "\"token\":\"x\",\"token\":");
    let old = (now() - 10 * 3600).to_string();
    let of_old = json!({ "timestamp": old, "token": TOKEN, "signature": mailgun_signature(SECRET, &old, TOKEN) });
    let wrong = "invalid_signature";
    Case {
        name: place,
        source: documented(
            "mailgun",
            &[SECRET],
            &format!("parent_signature = {has_parent}"),
        ),
        message: [
            ("event_id", "mg-1"),
            ("ce-type", "delivered"),
            ("ce-subject", "ann@example.com"),
            ("ce-partitionkey", "20261120.1@mg.example.com"),
        ],
        changed: vec![
            (with("token", TOKEN.replace('a', "b").into()), wrong),
            (with("timestamp", (now() - 7).to_string().into()), wrong),
            (
                with(place, mailgun_signature("another", &time, TOKEN).into()),
                wrong,
            ),
            (with("token", Value::Null), "missing_signature"),
            (with("timestamp", "".into()), "missing_signature"),
            (mailgun_event(&Value::Null), "missing_signature"),
            (Request::post("/hooks/mailgun", twice), wrong),
            (mailgun_event(&of_old), "stale_timestamp"),
        ],
        genuine,
    }
}

fn mailgun_form() -> Case {
    let time = now().to_string();
    let good = mailgun_signature(SECRET, &time, TOKEN);
    let post = |time: &str, token: &str, signature: &str, more: &[(&str, &str)]| {
        let fields = [
            ("event", "opened"),
            ("recipient", "ann@example.com"),
            ("timestamp", time),
            ("token", token),
            ("signature", signature),
        ];
        form("/hooks/mailgun", &[&fields[..], more].concat())
    };
    let later = (now() + 3).to_string();
    let wrong = "invalid_signature";
    Case {
        name: "mailgun form",
        source: documented("mailgun", &["another", SECRET], ""),
        message: [
            ("event_id_origin", "generated"),
            ("ce-type", "opened"),
            ("ce-subject", "ann@example.com"),
            ("ce-partitionkey", "ann@example.com"),
        ],
        changed: vec![
            (post(&later, TOKEN, &good, &[]), wrong),
            (post(&time, &TOKEN.replace('a', "b"), &good, &[]), wrong),
            (
                post(&time, TOKEN, &good.replace(['0', '1'], "2"), &[]),
                wrong,
            ),
            (post(&time, TOKEN, "", &[]), "missing_signature"),
            (post(&time, TOKEN, &good, &[("token", "x")]), wrong),
            (post(&time, TOKEN, &good, &[("timestamp", &time)]), wrong),
            (post(&time, TOKEN, &good, &[("signature", &good)]), wrong),
        ],
        genuine: post(&time, TOKEN, &good, &[]),
    }
}

/// RFC 7515, appendix A.1.
fn hs256(header: &Value, claims: &Value, secret: &str) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac_sha256(secret, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// The token with a part from another one.
fn with_part_of(token: &str, index: usize, other: &str) -> String {
    let mut parts: Vec<_> = token.split('.').collect();
    parts[index] = other.split('.').nth(index).unwrap();
    parts.join(".")
}

fn monday_event() -> Request {
    let body = json!({ "event": {
        "boardId": 5, "pulseId": 7, "type": "create_pulse", "triggerTime": "2026-11-20T06:15:04.210Z",
        "triggerUuid": "trigger-1",
    } });
    Request::post("/hooks/monday", body.to_string())
}

/// The tokens that must be refused: one for each signed part, and for each checked claim.
fn changed_tokens(
    request: &Request,
    claims: &Value,
    secret: &str,
) -> (Request, Vec<(Request, &'static str)>) {
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let token = hs256(&header, claims, secret);
    let bearing = |token: &str| request.clone().header("Authorization", token);
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        hs256(&header, &claims, secret)
    };
    let other = hs256(
        &json!({ "alg": "none" }),
        &json!({ "exp": now() + 9 }),
        secret,
    );
    let unsigned = format!(
        "{}.{}.",
        other.split('.').next().unwrap(),
        token.split('.').nth(1).unwrap()
    );
    let wrong = "invalid_signature";
    let changed = vec![
        (bearing(&with_part_of(&token, 0, &other)), wrong),
        (bearing(&with_part_of(&token, 1, &other)), wrong),
        (bearing(&with_part_of(&token, 2, &other)), wrong),
        (bearing(&unsigned), wrong),
        (bearing(&hs256(&header, claims, "another")), wrong),
        (bearing(&token).header("Authorization", &token), wrong),
        (bearing(&with("exp", (now() - 1).into())), "stale_timestamp"),
        (
            bearing(&with("nbf", (now() + 600).into())),
            "stale_timestamp",
        ),
        (bearing(&with("exp", Value::Null)), "unauthorized"),
        (request.clone(), "missing_signature"),
    ];
    (bearing(&format!("Bearer {token}")), changed)
}

fn monday() -> Case {
    let url = format!("{HOST}/hooks/monday");
    let claims = json!({ "aud": url, "exp": now() + 300, "iat": now(), "shortLivedToken": "SLT" });
    let (genuine, mut changed) = changed_tokens(&monday_event(), &claims, SECRET);
    let mut elsewhere = claims;
    elsewhere["aud"] = "https://other.example.com/".into();
    let elsewhere = hs256(&json!({ "alg": "HS256" }), &elsewhere, SECRET);
    changed.push((
        monday_event().header("Authorization", &elsewhere),
        "unauthorized",
    ));
    Case {
        name: "monday",
        source: documented("monday", &[SECRET], ""),
        message: [
            ("event_id", "trigger-1"),
            ("ce-type", "create_pulse"),
            ("ce-subject", "7"),
            ("ce-partitionkey", "7"),
        ],
        genuine,
        changed,
    }
}

fn jira() -> Case {
    let body = r#"{"timestamp":1795132798120,"webhookEvent":"jira:issue_created","issue":{"id":"10042","key":"OPS-7"}}"#;
    let request = Request::post("/hooks/jira", body);
    let request = request.header("X-Atlassian-Webhook-Identifier", "w-1");
    let claims = json!({ "iss": "app", "exp": now() + 180, "iat": now() });
    let (genuine, changed) = changed_tokens(&request, &claims, SECRET);
    Case {
        name: "jira jwt",
        source: documented("jira", &[SECRET], "scheme = \"jwt\""),
        message: [
            ("event_id", "w-1"),
            ("ce-type", "jira:issue_created"),
            ("ce-subject", "OPS-7"),
            ("ce-partitionkey", "10042"),
        ],
        genuine,
        changed,
    }
}

/// A user-defined source, with a signature at a pointer of JSON in a form.
fn declared() -> Case {
    let source = format!(
        r#"[sources.acme]
secrets = ["{SECRET}"]
media_types = ["application/x-www-form-urlencoded"]
[sources.acme.verify]
algorithm = "hmac-sha256"
signature = {{ pointer = "/auth/sig", encoding = "base64url" }}
content = "{{form:nonce}}.{{/order/id}}.{{timestamp}}"
timestamp = {{ form = "at", unit = "ms" }}
tolerance = "5m"
[sources.acme.event]
form_field = "payload"
id = "{{/order/id}}"
type = "{{form:kind}}"
subject = "{{/order/customer}}"
"#
    );
    let time = (now() * 1000).to_string();
    let post = |order: &str, nonce: &str, time: &str, signature: &str| {
        let payload =
            json!({ "order": { "id": order, "customer": "c-1" }, "auth": { "sig": signature } });
        let fields = [
            ("nonce", nonce),
            ("at", time),
            ("kind", "order.paid"),
            ("payload", &payload.to_string()),
        ];
        form("/hooks/acme", &fields)
    };
    let good = BASE64URL_NOPAD.encode(&hmac_sha256(SECRET, format!("n-1.o-1.{time}").as_bytes()));
    let old = ((now() - 400) * 1000).to_string();
    let of_old = BASE64URL_NOPAD.encode(&hmac_sha256(SECRET, format!("n-1.o-1.{old}").as_bytes()));
    let wrong = "invalid_signature";
    Case {
        name: "declared",
        source: with_route(&source),
        message: [
            ("event_id", "o-1"),
            ("ce-type", "order.paid"),
            ("ce-subject", "c-1"),
            ("ce-partitionkey", "c-1"),
        ],
        changed: vec![
            (post("o-2", "n-1", &time, &good), wrong),
            (post("o-1", "n-2", &time, &good), wrong),
            (post("o-1", "n-1", &old, &good), wrong),
            (post("o-1", "n-1", &time, &of_old), wrong),
            (post("o-1", "n-1", &old, &of_old), "stale_timestamp"),
            (post("o-1", "n-1", "", &good), "missing_signature"),
            (post("o-1", "n-1", &time, ""), "missing_signature"),
        ],
        genuine: post("o-1", "n-1", &time, &good),
    }
}

#[test]
fn events_signed_in_bodies_or_by_tokens_are_stored_and_nothing_else_is() {
    let Some(nats) = Nats::shared() else { return };
    let cases = [
        twilio("auth-token", hmac_sha1),
        twilio("sharedkey-sha256", hmac_sha256),
        twilio_events(),
        mailgun(false),
        mailgun(true),
        mailgun_form(),
        monday(),
        jira(),
        declared(),
    ];
    for case in cases {
        let stream = nats.stream("signed");
        let bridge = run(nats, &stream, &case.source);
        for (index, (request, code)) in case.changed.iter().enumerate() {
            let answer = bridge.send(request);
            assert_eq!(answer.outcome(), *code, "{} {index}: {answer:?}", case.name);
            answer.expect_problem(401, code);
        }
        assert_eq!(nats.read(&stream).len(), 0, "{}", case.name);
        let answer = bridge.send(&case.genuine);
        assert_eq!(answer.status, 200, "{}: {answer:?}", case.name);
        if case.source.contains("twilio") {
            let empty = r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#;
            assert_eq!(answer.body, empty.as_bytes(), "{}", case.name);
            assert_eq!(answer.header("content-type"), Some("text/xml"));
        }
        let again = bridge.send(&case.genuine);
        assert_eq!(again.status, 200, "{}: {again:?}", case.name);
        let message = only(nats.read(&stream));
        for (name, value) in case.message {
            assert_eq!(message.header(name), Some(value), "{}: {name}", case.name);
        }
        assert!(
            message
                .header_names()
                .iter()
                .all(|name| !name.eq_ignore_ascii_case("authorization")),
            "{}",
            case.name
        );
    }
}

#[test]
fn a_challenge_is_answered_without_a_token_and_nothing_else_is() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("monday");
    let bridge = run(nats, &stream, &monday().source);
    let challenge = r#"{"challenge":"<b>c-1</b>"}"#;
    let post = |body: &str| Request::post("/hooks/monday", body);
    let event = String::from_utf8(monday_event().body).unwrap();
    let both = event.replacen('{', "{\"challenge\":\"x\",", 1);
    let twice = r#"{"challenge":"x","challenge":"y"}"#;
    let long = format!(r#"{{"challenge":"{}"}}"#, "x".repeat(9000));
    for body in [
        event.as_str(),
        &both,
        twice,
        &long,
        "{}",
        "[",
        r#"{"challenge":7"#,
    ] {
        let answer = bridge.send(&post(body));
        answer.expect_problem(401, "missing_signature");
    }
    let forged = post(challenge).header("Authorization", "x.y.z");
    for request in [post(challenge), forged] {
        let answer = bridge.send(&request);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({ "challenge": "<b>c-1</b>" }));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    // Also if the body arrives later than its head, which has no token.
    let mut connection = Connection::open(bridge.public).unwrap();
    let request = post(challenge).header("Expect", "100-continue");
    connection.write(&request.head()).unwrap();
    connection.write(&request.body).unwrap();
    assert_eq!(connection.read_answer().unwrap().status, 200);
    let mut connection = Connection::open(bridge.public).unwrap();
    let request = post(&long).header("Expect", "100-continue");
    connection.write(&request.head()).unwrap();
    let answer = connection.read_answer().unwrap();
    answer.expect_problem(401, "missing_signature");
    assert!(answer.interim.is_empty(), "{answer:?}");

    assert_eq!(nats.read(&stream).len(), 0);
    let handshakes = [("source", "monday"), ("outcome", "handshake")];
    let counted = bridge
        .metrics()
        .sum("hookbridge_requests_total", &handshakes);
    assert!((counted - 3.0).abs() < f64::EPSILON, "{counted}");
}

/// A key pair, and the public key as a JWKS.
fn es256() -> (EcdsaKeyPair, String) {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y });
    (pair, json!({ "keys": [jwk] }).to_string())
}

fn signed_by(pair: &EcdsaKeyPair, claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!(
        "{}.{}",
        encode(&json!({ "alg": "ES256", "kid": "k" })),
        encode(claims)
    );
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

#[test]
fn tokens_are_verified_by_a_file_of_keys_that_a_reload_reads_again() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("tokens");
    let file = process::directory("jwks").join("keys.json");
    let ((pair, keys), (other_pair, other_keys)) = (es256(), es256());
    std::fs::write(&file, &keys).unwrap();
    let source = format!(
        "[sources.acme]\nauth = \"jwt\"\njwt = {{ keys = \"{}\", issuer = \"i\", audience = \"a\", appid = \"p\" }}\n[sources.acme.event]\nid = \"{{/id}}\"\ntype = \"{{/type}}\"\n",
        file.display()
    );
    let source = with_route(&source);
    let mut bridge = run(nats, &stream, &source);
    let claims = json!({ "iss": "i", "aud": ["b", "a"], "azp": "p", "exp": now() + 300 });
    let post = |id: &str, token: &str| {
        let body = json!({ "id": id, "type": "x" }).to_string();
        Request::post("/hooks/acme", body).header("Authorization", &format!("Bearer {token}"))
    };
    let confused = hs256(&json!({ "alg": "HS256", "kid": "k" }), &claims, &keys);
    let mut refused = vec![signed_by(&other_pair, &claims), confused];
    for (claim, value) in [
        ("iss", json!("j")),
        ("aud", json!("b")),
        ("azp", json!("q")),
        ("exp", json!(now() - 1)),
    ] {
        let mut claims = claims.clone();
        claims[claim] = value;
        refused.push(signed_by(&pair, &claims));
    }
    for token in &refused {
        bridge
            .send(&post("1", token))
            .expect_problem(401, "unauthorized");
    }
    bridge
        .send(&post("1", &signed_by(&pair, &claims)))
        .expect_success("published");
    std::fs::write(&file, &other_keys).unwrap();
    assert!(bridge.reload(&rest(nats, &stream, &source)));
    let old = bridge.send(&post("2", &signed_by(&pair, &claims)));
    old.expect_problem(401, "unauthorized");
    bridge
        .send(&post("2", &refused[0]))
        .expect_success("published");
    assert_eq!(nats.read(&stream).len(), 2);
}

#[test]
fn send_signs_in_bodies_and_by_tokens_and_providers_explains_them() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let samples = [
        ("twilio", "", "message.delivered"),
        (
            "twilio",
            "sharedkey-sha256",
            "com.twilio.messaging.message.sent",
        ),
        ("mailgun", "", "delivered"),
        ("mailgun", "", "opened"),
        ("monday", "", "create_pulse"),
        ("jira", "jwt", "jira:issue_created"),
    ];
    // The URL is signed, and known once the bridge listens.
    let sources = |address: &str| -> String {
        let of = |(index, (name, scheme, _)): (usize, &(&str, &str, &str))| {
            let scheme = match *scheme {
                "" => String::new(),
                scheme => format!("scheme = \"{scheme}\"\n"),
            };
            format!(
                "[sources.x{index}]\nprovider = \"{name}\"\nsecrets = [\"{SECRET}-{index}\"]\n{scheme}public_url = \"http://{address}/hooks/x{index}\"\n"
            )
        };
        with_route(&samples.iter().enumerate().map(of).collect::<String>())
    };
    let mut bridge = run(nats, &stream, &sources("localhost"));
    let address = bridge.public.to_string();
    assert!(bridge.reload(&rest(nats, &stream, &sources(&address))));
    for (index, (name, scheme, sample)) in samples.iter().enumerate() {
        let url = format!("http://{address}/hooks/x{index}");
        let secret = format!("{SECRET}-{index}");
        let mut arguments = vec!["send", "--provider", name, "--secret", &secret];
        arguments.extend(["--url", &url, "--sample", sample]);
        if !scheme.is_empty() {
            arguments.extend(["--scheme", scheme]);
        }
        hookbridge(&arguments).expect_code(0);
    }
    assert_eq!(nats.read(&stream).len(), samples.len());
    for (name, parts) in [
        (
            "twilio",
            ["x-twilio-signature", "sharedkey-sha256", "public_url"].as_slice(),
        ),
        (
            "mailgun",
            &[
                "hmac-sha256 at /signature/signature",
                "parent_signature",
                "not signed",
            ],
        ),
        (
            "monday",
            &["JSON Web Token", "HS256", "public_url", "not signed"],
        ),
    ] {
        let told = hookbridge(["providers", name]).expect_code(0).stdout;
        for part in parts {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
