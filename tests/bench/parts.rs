//! Each step of an event's path by itself: `cargo bench --bench parts`.
//!
//! The steps are the crate's own, on the event that `ratios` sends. The yardsticks show what the step would cost in its
//! simplest form.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unreachable,
    reason = "what is prepared here is known to be right; signed times are checked against the clock"
)]

// The event.
#[allow(dead_code, reason = "ratios uses all of it")]
mod event;

use std::sync::Arc;
use std::time::SystemTime;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use hookbridge::config::{Config, ConfigFile, Origin, Source};
use hookbridge::ingress::{Decided, Decision, Received, Verdict, decide, verify};
use hookbridge::json::{Document, Schema};
use hookbridge::providers::sign::{Unsigned, sign};
use hookbridge::providers::{Request, Scope, synq};
use hookbridge::secret::Secret;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Uri};

/// Every error ends the run.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() {
    // A step takes a few microseconds, the clock some tens of nanoseconds.
    divan::Divan::from_args()
        .sample_size(50)
        .sample_count(200)
        .main();
}

fn secret() -> Secret {
    Secret::new(event::SECRET.to_owned()).expect("a secret")
}

fn signed(body: &[u8]) -> HeaderMap {
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &Uri::from_static("http://localhost/hooks/synq"),
        headers: &HeaderMap::new(),
        body,
        at: SystemTime::now(),
    };
    let source = source(1);
    let signed = sign(&source.authentication, &secret(), unsigned).expect("a signature");
    let mut headers = signed.headers;
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    headers
}

/// A source with this many routes, of which the last one matches the event.
fn source(routes: usize) -> Arc<Source> {
    source_with(routes, &[event::SECRET.to_owned()])
}

fn source_with(routes: usize, secrets: &[String]) -> Arc<Source> {
    let mut text = format!(
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n[sources.synq]\nsecrets = {secrets:?}\n",
    );
    for number in 1..routes {
        text.push_str(&format!(
            "[[routes]]\ntypes = [\"other_{number}_*\"]\ntopic = \"other.{{type}}\"\n"
        ));
    }
    text.push_str("[[routes]]\ntypes = [\"issue_*\"]\ntopic = \"synq.{type}\"\n");
    let file = ConfigFile::Text {
        name: "bench.toml".to_owned(),
        text,
    };
    let origin = Origin {
        files: vec![file],
        ..Origin::default()
    };
    let config: Config = origin.load().expect("a configuration");
    Arc::clone(config.sources.first().expect("a source"))
}

/// Steps 2 to 6: a request in, a message out.
#[divan::bench(args = [1, 10, 100, 1000])]
fn whole_by_routes(bencher: Bencher<'_, '_>, routes: usize) {
    let (source, body) = (source(routes), bytes::Bytes::from(event::body(1)));
    let headers = signed(&body);
    bencher
        .counter(BytesCount::new(body.len()))
        .with_inputs(|| {
            Received::from_parts(
                Arc::clone(&source),
                headers.clone(),
                body.clone(),
                SystemTime::now(),
            )
        })
        .bench_values(|received| {
            let verified = verify(received).expect("an authentic event");
            decide(&verified)
        });
}

/// Steps 2 to 6 for other providers, with SYNQ's event in an envelope of theirs. SYNQ's alone has a schema.
#[divan::bench(args = ["synq", "github", "stripe", "declared"])]
fn whole_by_provider(bencher: Bencher<'_, '_>, provider: &str) {
    const DECLARED: &str = r#"
verify = { algorithm = "hmac-sha256", content = "{timestamp}.{body}", tolerance = "5m", signature = { header = "x-acme-signature", prefix = "sha256=", encoding = "hex" }, timestamp = { header = "x-acme-time" } }
event = { id = "{/id}", type = "{/type}", time = "{/created_at}" }
"#;
    let data = String::from_utf8(event::body(1)).expect("text");
    let (keys, body) = match provider {
        "synq" => ("", data),
        "github" => ("", format!(r#"{{"action":"opened","issue":{data}}}"#)),
        "stripe" => (
            "",
            format!(r#"{{"id":"evt_1","type":"invoice.paid","created":1795132800,"data":{data}}}"#),
        ),
        _ => (
            DECLARED,
            format!(
                r#"{{"id":"1","type":"order.created","created_at":"2026-11-20T00:00:00Z","data":{data}}}"#
            ),
        ),
    };
    let source = source_of(provider, keys);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-github-event", "issues"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &Uri::from_static("http://localhost/hooks"),
        headers: &headers,
        body: body.as_bytes(),
        at: SystemTime::now(),
    };
    let signed = sign(&source.authentication, &secret(), unsigned).expect("a signature");
    headers.extend(signed.headers);
    let body = bytes::Bytes::from(body);
    let received = || {
        Received::from_parts(
            Arc::clone(&source),
            headers.clone(),
            body.clone(),
            SystemTime::now(),
        )
    };
    let verified = verify(received()).expect("an authentic event");
    let Decided::Event(Decision {
        verdict: Verdict::Publish { .. },
        ..
    }) = decide(&verified)
    else {
        unreachable!("{provider}: it is published");
    };
    bencher
        .counter(BytesCount::new(body.len()))
        .with_inputs(received)
        .bench_values(|received| {
            let verified = verify(received).expect("an authentic event");
            decide(&verified)
        });
}

/// A source of one provider, with a route for everything.
fn source_of(provider: &str, keys: &str) -> Arc<Source> {
    let secret = event::SECRET;
    let text = format!(
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\
         [[routes]]\ntopic = \"hooks.{{type}}\"\n[sources.{provider}]\nsecrets = [\"{secret}\"]\n{keys}\n"
    );
    let name = "bench.toml".to_owned();
    let origin = Origin {
        files: vec![ConfigFile::Text { name, text }],
        ..Origin::default()
    };
    let config: Config = origin.load().expect("a configuration");
    Arc::clone(config.sources.first().expect("a source"))
}

/// Steps 3 to 6: an authentic request in, a message out.
#[divan::bench]
fn decide_alone(bencher: Bencher<'_, '_>) {
    let (source, body) = (source(1), bytes::Bytes::from(event::body(1)));
    let received = Received::from_parts(source, signed(&body), body, SystemTime::now());
    let verified = verify(received).expect("an authentic event");
    bencher.bench_local(|| decide(black_box(&verified)));
}

mod step_2_verify {
    use super::*;

    /// The bridge's.
    #[divan::bench(args = [1, 2])]
    fn verify_by_secrets(bencher: Bencher<'_, '_>, secrets: usize) {
        let body = event::body(1);
        let headers = signed(&body);
        let others = (1..secrets).map(|number| format!("whs_other_{number}"));
        let secrets: Vec<_> = others.chain([event::SECRET.to_owned()]).collect();
        let source = source_with(1, &secrets);
        let (method, target) = (Method::POST, Uri::from_static("/hooks/synq"));
        let at = SystemTime::now();
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| {
                let request = Request {
                    method: &method,
                    target: &target,
                    headers: black_box(&headers),
                    body: black_box(&body),
                    public_url: None,
                    at,
                };
                source.authentication.verify(&Scope::raw(&request))
            });
    }

    /// A yardstick: the sketch's.
    #[divan::bench]
    fn yardstick_one_hmac(bencher: Bencher<'_, '_>) {
        let (body, timestamp) = (event::body(1), event::timestamp());
        let signature = event::signature(&timestamp, &body);
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| {
                event::is_signed(
                    timestamp.as_bytes(),
                    black_box(&body),
                    black_box(signature.as_bytes()),
                )
            });
    }
}

mod step_3_parse {
    use super::*;

    /// The bridge's: the whole grammar, depth, repeated names.
    #[divan::bench]
    fn scan(bencher: Bencher<'_, '_>) {
        let body = event::body(1);
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| Document::parse(black_box(&body)).is_ok());
    }

    /// Id, type, time and subject out of what was scanned.
    #[divan::bench]
    fn identify(bencher: Bencher<'_, '_>) {
        let body = event::body(1);
        let document = Document::parse(&body).expect("JSON");
        bencher.bench_local(|| synq::identify(black_box(&document).root()));
    }

    /// A yardstick: UTF-8 alone.
    #[divan::bench]
    fn yardstick_utf_8(bencher: Bencher<'_, '_>) {
        let body = event::body(1);
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| std::str::from_utf8(black_box(&body)).is_ok());
    }

    /// A yardstick: serde skips everything.
    #[divan::bench]
    fn yardstick_serde_ignored(bencher: Bencher<'_, '_>) {
        let body = event::body(1);
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| {
                serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&body)).is_ok()
            });
    }

    /// A yardstick: serde builds a tree.
    #[divan::bench]
    fn yardstick_serde_value(bencher: Bencher<'_, '_>) {
        let body = event::body(1);
        bencher
            .counter(BytesCount::new(body.len()))
            .bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).is_ok());
    }
}

mod step_4_validate {
    use super::*;

    /// The bridge's, on what was scanned.
    #[divan::bench]
    fn validate(bencher: Bencher<'_, '_>) {
        let (schema, body) = (schema(), event::body(1));
        let schema = Schema::compile(&schema).expect("a schema");
        let document = Document::parse(&body).expect("JSON");
        bencher.bench_local(|| schema.validate(black_box(document.root())).is_ok());
    }

    /// A yardstick: the same validator on a tree that is there.
    #[divan::bench]
    fn yardstick_on_a_tree(bencher: Bencher<'_, '_>) {
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema())
            .expect("a schema");
        let tree: serde_json::Value = serde_json::from_slice(&event::body(1)).expect("JSON");
        bencher.bench_local(|| validator.is_valid(black_box(&tree)));
    }

    fn schema() -> serde_json::Value {
        serde_json::from_str(synq::SCHEMA).expect("JSON")
    }
}
