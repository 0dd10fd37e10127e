//! Every vector of the provider reference, through all steps between the socket and the broker. The reference is not a
//! part of the repository.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::{Map, Value, json};

use crate::brokers::Kind;
use crate::config::{Config, Source};
use crate::event::Refusal;
use crate::ingress::{
    Decided, Decision, Received, Verdict, check_head, decide, head_handshake, open_handshake,
    verify,
};
use crate::providers::Authentication;
use crate::providers::SnsTester;
use crate::providers::handshake::Reply;
use crate::providers::preset::PRESETS;
use crate::providers::request::{Request, Scope};
use crate::providers::sign::{Unsigned, sign};
use crate::secret::Secret;

const NOT_A_TIME: &str = "a signed time that is not a time is too far away, as for SYNQ, Zendesk and Zoom: one rule for all";

/// Vectors that are judged otherwise than the reference says, and why. docs/providers.md names them too.
const DEVIATIONS: [(&str, &str, &str); 5] = [
    (
        "linear",
        "upper-case-hex",
        "hexadecimal digits of either case are the same signature",
    ),
    (
        "paddle",
        "classic",
        "the media type is refused before the signature is looked for",
    ),
    ("slack", "timestamp-not-a-number", NOT_A_TIME),
    ("standard-webhooks", "timestamp-not-a-number", NOT_A_TIME),
    ("svix", "timestamp-not-a-number", NOT_A_TIME),
];

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HOOKBRIDGE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"),
        PathBuf::from,
    );
    folder.is_dir().then(|| folder.join("providers"))
}

fn source(provider: &str, mut keys: Map<String, Value>) -> Result<Arc<Source>, String> {
    keys.insert("provider".to_owned(), provider.into());
    let values = json!({
        "brokers": { "main": { "kind": "nats", "servers": "nats://localhost:4222" } },
        "sources": { "x": keys },
        "routes": [{ "topic": "t" }],
    });
    let values = values.as_object().cloned().unwrap();
    let config = Config::from_values(values).map_err(|problems| problems.to_string())?;
    Ok(Arc::clone(&config.sources[0]))
}

fn text<'v>(vector: &'v Value, key: &str) -> Option<&'v str> {
    vector.get(key).and_then(Value::as_str)
}

fn secrets(vector: &Value) -> Value {
    match vector.get("secrets") {
        Some(list) => list.clone(),
        None => text(vector, "secret").into_iter().collect(),
    }
}

fn headers(vector: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in vector
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let values = match value {
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
            value => value.as_str().into_iter().collect::<Vec<_>>(),
        };
        for value in values {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
    }
    headers
}

#[derive(Debug)]
enum Judged {
    Handshake(Reply),
    Events(Vec<Map<String, Value>>),
    Refused(&'static str),
}

fn refused(refusal: &Refusal) -> Judged {
    Judged::Refused(refusal.code())
}

/// What the bridge does with a request; no further than to its verification where nothing more is asked.
fn judge(source: &Arc<Source>, request: &Request<'_>, verify_only: bool) -> Judged {
    match head_handshake(source, request) {
        None => {}
        Some(Ok(reply)) => return Judged::Handshake(*reply),
        Some(Err(refusal)) => return refused(&refusal),
    }
    let checked = check_head(source, request.method, request.headers, None);
    if let Err(refusal) = checked
        && !verify_only
    {
        return refused(&refusal);
    }
    let body = Bytes::copy_from_slice(request.body);
    let received = Received::from_parts(
        Arc::clone(source),
        request.headers.clone(),
        body,
        request.at,
    );
    let received = received.with_target(request.target.clone());
    if let Some(reply) = open_handshake(&received) {
        return Judged::Handshake(*reply);
    }
    if source.authentication.check_head(request).is_err() {
        let verdict = source.authentication.verify(&Scope::raw(request));
        assert!(verdict.is_err(), "the head refuses what is genuine");
    }
    let verified = match verify(received) {
        Ok(verified) => verified,
        Err(refusal) => return refused(&refusal),
    };
    if verify_only {
        return Judged::Events(Vec::new());
    }
    let decisions = match decide(&verified) {
        Decided::Handshake(reply) => return Judged::Handshake(*reply),
        Decided::Event(decision) => vec![decision],
        Decided::Batch(decisions) => decisions,
    };
    let mut events = Vec::new();
    for decision in decisions {
        match event(&decision) {
            Ok(event) => events.push(event),
            Err(refusal) => return refused(&refusal),
        }
    }
    Judged::Events(events)
}

fn event(decision: &Decision) -> Result<Map<String, Value>, Refusal> {
    let delivery = match &decision.verdict {
        Verdict::Publish { delivery, .. } => delivery,
        Verdict::Refuse(refusal) => return Err(refusal.clone()),
        other => panic!("{other:?}"),
    };
    let message = &delivery.to.message;
    let header = |wanted: &str| {
        let mut headers = message.headers_on(Kind::Kafka);
        let found = headers.find(|(name, _)| name == wanted);
        found.map(|(_, value)| Value::from(std::str::from_utf8(value).unwrap()))
    };
    let value = String::from_utf8_lossy(&message.body).into_owned();
    let said = [
        ("id", header("event_id")),
        ("type", header("ce_type")),
        ("source", header("ce_source")),
        ("value", Some(value.into())),
        ("subject", header("ce_subject")),
        ("time", header("ce_time")),
        ("key", Some(message.key.as_str().into())),
    ];
    Ok(said
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect())
}

/// Whether a handshake's answer has the headers that it must have. `nosniff` is on every one.
fn has_headers(reply: &Reply, expected: &Value) -> bool {
    let expected = expected.get("headers").and_then(Value::as_object);
    expected.into_iter().flatten().all(|(name, wanted)| {
        let mut headers = reply.headers.iter();
        let found = headers.find(|(header, _)| header.as_str().eq_ignore_ascii_case(name));
        let value = found.and_then(|(_, value)| value.to_str().ok());
        name == "X-Content-Type-Options"
            || value == wanted.as_str()
            // "* or a number"
            || value.is_some_and(|value| wanted.as_str().unwrap().starts_with(&format!("{value} or")))
    })
}

/// What the reference says of all vectors of a provider: which tokens hold, by a key in a file.
fn tokens(name: &str, file: &Value) -> Option<(String, Value)> {
    let mut settings = file.get("config")?.as_object()?.iter();
    let (kind, settings) = settings.find(|(_, settings)| settings.is_object())?;
    let path = std::env::temp_dir().join(format!("hookbridge-{name}-{}.pem", std::process::id()));
    std::fs::write(&path, file["public_key"].as_str()?).unwrap();
    let mut settings = settings.clone();
    settings["keys"] = path.to_str()?.into();
    Some((kind.clone(), settings))
}

/// The keys that every vector of a file has: certificates are files in a folder.
fn keys_of_all(name: &str, file: &Value) -> Map<String, Value> {
    let Some(certificates) = file.get("certificates").and_then(Value::as_object) else {
        return Map::new();
    };
    let folder = format!("hookbridge-vectors-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (url, pem) in certificates {
        let file = folder.join(url.rsplit('/').next().unwrap());
        std::fs::write(file, pem.as_str().unwrap()).unwrap();
    }
    let mut keys = file["config"].as_object().cloned().unwrap();
    keys.insert("certificates".to_owned(), folder.to_str().into());
    keys
}

fn fault(
    name: &str,
    vector: &Value,
    keys: &Map<String, Value>,
    tokens: Option<&(String, Value)>,
) -> Option<String> {
    let headers = headers(vector);
    let url = text(vector, "url").unwrap();
    let received: Uri = text(vector, "received_as").unwrap_or(url).parse().unwrap();
    let target: Uri = received.path_and_query().unwrap().as_str().parse().unwrap();
    let body = BASE64
        .decode(text(vector, "body_base64").unwrap_or_default().as_bytes())
        .unwrap();
    let method: Method = text(vector, "method").unwrap_or("POST").parse().unwrap();
    let now = vector.get("now").and_then(Value::as_f64).unwrap();
    let mut user = keys.clone();
    let own = vector.get("config").and_then(Value::as_object);
    user.extend(own.cloned().unwrap_or_default());
    if let Some(seconds) = vector.get("tolerance_s").and_then(Value::as_u64) {
        user.insert("tolerance".into(), format!("{seconds}s").into());
    }
    let is_entra = text(vector, "auth") == Some("entra-jwt");
    if let Some(auth) = vector.get("auth") {
        let auth = if is_entra { "jwt".into() } else { auth.clone() };
        user.insert("auth".into(), auth);
    }
    match tokens {
        Some((kind, settings)) if kind == "validation_tokens" => {
            user.insert(kind.clone(), settings.clone());
        }
        Some((_, settings)) if is_entra => {
            user.insert("jwt".into(), settings.clone());
        }
        _ => {}
    }
    user.retain(|_, value| !value.is_null());
    user.entry("public_url")
        .or_insert_with(|| url.split('?').next().unwrap_or_default().into());
    let secrets = secrets(vector);
    if !is_entra && secrets != json!([]) {
        user.insert("secrets".into(), secrets);
    }
    user.extend(
        vector
            .get("scheme")
            .map(|scheme| ("scheme".to_owned(), scheme.clone())),
    );
    let source = match source(name, user) {
        Ok(source) => source,
        Err(fault) => return Some(fault),
    };
    let request = Request {
        method: &method,
        target: &target,
        headers: &headers,
        body: &body,
        public_url: source.public_url.as_deref(),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(now),
    };
    let expects = |key| vector.get(key).is_some();
    let is_event = expects("event") || expects("events") || expects("handshake");
    let verify_only = text(vector, "verdict") == Some("accept") && !is_event;
    let judged = judge(&source, &request, verify_only);
    let also = vector.get("code_also").and_then(Value::as_array);
    let also = also.into_iter().flatten().map(Value::as_str);
    let codes = [text(vector, "code"), text(vector, "alt_code")];
    let wanted_codes: Vec<_> = codes.into_iter().chain(also).collect();
    match (&judged, text(vector, "verdict").unwrap()) {
        (Judged::Refused(code), "reject") if wanted_codes.contains(&Some(code)) => None,
        // One that no handshake takes.
        (Judged::Refused("method_not_allowed"), "reject") if expects("handshake") => None,
        // Both verdicts are right, as long as nothing is published.
        (judged, _) if expects("either") && !matches!(judged, Judged::Events(_)) => None,
        (Judged::Handshake(reply), "accept") => {
            let expected = vector.get("expect")?;
            let status = expected.get("status").and_then(Value::as_u64);
            let content_type = reply
                .content_type
                .as_ref()
                .and_then(|value| value.to_str().ok());
            let is_same = status.is_none_or(|status| status == u64::from(reply.status.as_u16()))
                && text(expected, "content_type").is_none_or(|wanted| content_type == Some(wanted))
                && text(expected, "body").is_none_or(|body| body.as_bytes() == reply.body)
                && has_headers(reply, expected)
                && expected.get("json").is_none_or(|json| {
                    serde_json::from_slice::<Value>(&reply.body).ok().as_ref() == Some(json)
                });
            (!is_same).then(|| format!("{reply:?}, expected {expected}"))
        }
        (Judged::Events(_), "accept") if verify_only => None,
        (Judged::Events(events), "accept") => {
            let one = vector.get("event").into_iter();
            let wanted: Vec<&Value> = match vector.get("events").and_then(Value::as_array) {
                Some(events) => events.iter().collect(),
                None => one.collect(),
            };
            if wanted.is_empty() {
                return None;
            }
            if wanted.len() != events.len() {
                return Some(format!("{} events: {events:?}", events.len()));
            }
            wanted.iter().zip(events).find_map(|(wanted, event)| {
                ["id", "type", "source", "subject", "key", "time", "value"]
                    .into_iter()
                    .find_map(|key| {
                        let expected = wanted.get(key)?.as_str()?;
                        let actual = event.get(key).and_then(Value::as_str);
                        (actual != Some(expected))
                            .then(|| format!("{key}: {actual:?}, expected {expected:?}"))
                    })
            })
        }
        (judged, _) => Some(format!(
            "{judged:?}, expected {} {wanted_codes:?}",
            vector["verdict"]
        )),
    }
}

#[test]
fn every_vector_of_every_preset_is_judged_as_the_reference_says() {
    let Some(folder) = folder() else {
        // Past the capture of a passing test's output: nobody should take a skipped test for one that ran.
        let skipped = "skipped: the provider reference is not beside the repository";
        drop(writeln!(std::io::stderr(), "{skipped}"));
        return;
    };
    let mut faults = Vec::new();
    let mut count = 0;
    for preset in PRESETS {
        let file = std::fs::read_to_string(folder.join(format!("{}.json", preset.name))).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        let tokens = tokens(preset.name, &file);
        let keys = keys_of_all(preset.name, &file);
        for vector in file["vectors"].as_array().unwrap() {
            count += 1;
            let name = text(vector, "name").unwrap();
            let is_deviation = DEVIATIONS
                .iter()
                .any(|(provider, vector, _)| (*provider, *vector) == (preset.name, name));
            match fault(preset.name, vector, &keys, tokens.as_ref()) {
                Some(fault) if !is_deviation => {
                    faults.push(format!("{}: {name}: {fault}", preset.name))
                }
                None if is_deviation => {
                    faults.push(format!("{}: {name} deviates no more", preset.name))
                }
                _ => {}
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn every_preset_can_be_read_and_names_its_scheme_its_media_types_and_its_types() {
    for preset in PRESETS {
        let file = preset.read();
        assert!(
            !file.about.title.is_empty() && file.about.page.starts_with("https://"),
            "{}",
            preset.name
        );
        let schemes = file
            .schemes
            .keys()
            .map(|name| Some(name.as_str()))
            .chain([None]);
        for scheme in schemes {
            let mut keys = Map::new();
            keys.insert(
                "public_url".to_owned(),
                "https://hooks.example.com/x".into(),
            );
            // Only for the schemes that no public key belongs to.
            let authentication = preset.authentication(scheme).unwrap();
            if authentication.is_asymmetric() {
                continue;
            }
            keys.insert("secrets".to_owned(), "c2VjcmV0LW9mLTE2LWJ5dGVz".into());
            keys.extend(scheme.map(|scheme| ("scheme".to_owned(), scheme.into())));
            let source = source(preset.name, keys);
            let source = source.unwrap_or_else(|problems| panic!("{}: {problems}", preset.name));
            assert!(!source.media_types.is_empty() && !source.mapping.types.is_empty());
        }
    }
}

#[test]
fn a_signed_sample_is_verified_and_its_changed_body_is_not() {
    let tester = SnsTester::new("samples");
    let at = SystemTime::now();
    for preset in PRESETS {
        for sample in preset.samples() {
            let (secret, public) = match preset.name {
                "discord" => (
                    "00".repeat(32),
                    "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29".to_owned(),
                ),
                _ => ("a secret of ours".to_owned(), "a secret of ours".to_owned()),
            };
            let mut keys =
                json!({ "secrets": [public], "public_url": "https://hooks.example.com/x" });
            let mut secret = secret;
            if preset.name == "aws-sns" {
                keys = tester.keys();
                secret = tester.key();
            }
            let source = source(preset.name, keys.as_object().cloned().unwrap()).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in &sample.headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.insert(name, value.replace("{uuid}", "7f").parse().unwrap());
            }
            let body = sample.body.replace("{uuid}", "7f");
            let url: Uri = "https://hooks.example.com/x?y=z".parse().unwrap();
            let unsigned = Unsigned {
                method: &Method::POST,
                url: &url,
                headers: &headers,
                body: body.as_bytes(),
                at,
            };
            let secret = Secret::new(secret).unwrap();
            let signed = sign(&source.authentication, &secret, unsigned).unwrap();
            headers.extend(signed.headers);
            let target = signed.url.path_and_query().unwrap().as_str();
            let target: Uri = target.parse().unwrap();
            let body = String::from_utf8(signed.body).unwrap();
            let request = Request {
                method: &Method::POST,
                target: &target,
                headers: &headers,
                body: body.as_bytes(),
                public_url: source.public_url.as_deref(),
                at,
            };
            let Judged::Events(events) = judge(&source, &request, false) else {
                panic!("{}: {:?}", preset.name, judge(&source, &request, false));
            };
            for event in events {
                assert_eq!(event["type"], sample.event_type, "{}", preset.name);
            }
            if matches!(source.authentication, Authentication::Credentials { .. }) {
                let mut keys = keys.as_object().cloned().unwrap();
                keys.insert("secrets".to_owned(), "a secret of others".into());
                let other = self::source(preset.name, keys).unwrap();
                let judged = judge(&other, &request, false);
                let is_refused = matches!(
                    judged,
                    Judged::Refused("unauthorized" | "invalid_signature")
                );
                assert!(is_refused, "{}: {judged:?}", preset.name);
            }
            if !source.authentication.covers_body() {
                continue;
            }
            // SNS signs values, not bytes.
            let tampered = match preset.name {
                "aws-sns" => body.replace("paid", "open"),
                _ => format!("{body} "),
            };
            let judged = judge(
                &source,
                &Request {
                    body: tampered.as_bytes(),
                    ..request
                },
                false,
            );
            assert!(
                matches!(judged, Judged::Refused("invalid_signature")),
                "{}: {judged:?}",
                preset.name
            );
        }
    }
}
