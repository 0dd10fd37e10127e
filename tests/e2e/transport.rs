//! A source's requirements on requests other than their signature, and its answers.

use std::io::Write as _;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio_rustls::rustls::version::TLS13;

use crate::support::bridge::{self, Bridge};
use crate::support::events::{self, SECRET};
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::{Answer, Connection, Request};
use crate::support::tls::{self, CERTIFICATES};
use crate::support::wait::{self, PATIENCE};

#[test]
fn verified_requests_beyond_the_rate_limit_are_refused_and_a_reload_does_not_forget_them() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("limit");
    let limit = "rate_limit = { per_second = 1, burst = 50 }";
    let config = |keys: &str| {
        bridge::nats_broker("main", &nats.url)
            + &bridge::synq_source(keys)
            + &bridge::route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&config(limit));
    bridge.wait_ready();
    // Unauthenticated senders use up nothing.
    for _ in 0..60 {
        let unsigned = Request::event(&events::ping()).without("x-coalesce-signature");
        bridge
            .send(&unsigned)
            .expect_problem(401, "missing_signature");
    }
    let began = Instant::now();
    let deliver = |bridge: &Bridge, count: usize| {
        let answers = (0..count).map(|_| bridge.deliver(&events::ping()));
        let (published, limited): (Vec<Answer>, Vec<Answer>) =
            answers.partition(|answer| answer.status == 200);
        for answer in &limited {
            answer.expect_problem(429, "rate_limited");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(!answer.says_close(), "{answer:?}");
        }
        (published.len(), limited.len())
    };
    let (first, mut limited) = deliver(&bridge, 80);
    assert!(first >= 50, "{first}");
    let mut published = first;
    assert!(bridge.reload(&config(&format!("{limit}\nsuccess_status = 201\n"))));
    assert!(bridge.reload(&config(limit)));
    for _ in 0..2 {
        let (more, others) = deliver(&bridge, 20);
        (published, limited) = (published + more, limited + others);
        let most = 51 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(published <= most, "{published} of at most {most}");
    }
    let counted = bridge.metrics().sum(
        "hookbridge_requests_total",
        &[("source", "synq"), ("outcome", "rate_limited")],
    );
    assert_eq!(counted, f64::from(u32::try_from(limited).unwrap()));
    assert_eq!(nats.read(&stream).len(), published);
    assert!(bridge.reload(&config("")));
    assert_eq!(deliver(&bridge, 60), (60, 0));
}

#[test]
fn only_addresses_of_allow_from_get_in_and_no_header_makes_another_one_of_them() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("from");
    let allow = "allow_from = [\"192.0.2.0/24\", \"2001:db8::/32\"]";
    let proxies = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    let bridge = Bridge::to_nats(nats, &stream, proxies, allow);
    let (x, forwarded) = ("X-Forwarded-For", "Forwarded");
    let mut published = 0;
    let cases: [(bool, &[(&str, &str)]); 15] = [
        (true, &[(x, "192.0.2.7")]),
        (true, &[(x, "::ffff:192.0.2.7")]),
        (true, &[(x, "203.0.113.9, 192.0.2.7, 10.0.0.5")]),
        (true, &[(x, "203.0.113.9"), (x, "192.0.2.7")]),
        (
            true,
            &[(forwarded, "for=\"[2001:db8::17]:4711\";proto=https")],
        ),
        (true, &[(x, "192.0.2.7"), (forwarded, "for=192.0.2.7")]),
        (false, &[]),
        (false, &[(x, "203.0.113.9")]),
        (false, &[(x, "192.0.2.7, 203.0.113.9")]),
        (false, &[(x, "192.0.2.7"), (x, "203.0.113.9")]),
        (false, &[(x, "192.0.2.7, garbage")]),
        (false, &[(x, "127.0.0.1")]),
        (false, &[(x, "192.0.2.7"), (forwarded, "for=192.0.2.8")]),
        (false, &[(forwarded, "for=192.0.2.7, for=unknown")]),
        (false, &[(forwarded, "for=_hidden;by=192.0.2.7")]),
    ];
    for (is_let_in, headers) in cases {
        let event = events::ping();
        let mut request = Request::event(&event);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = bridge.send(&request);
        if is_let_in {
            answer.expect_published(&event);
            published += 1;
        } else {
            answer.expect_problem(401, "unauthorized");
            assert!(answer.says_close(), "{headers:?}: {answer:?}");
        }
    }
    assert_eq!(nats.read(&stream).len(), published);
    // The refusal comes before the body is requested.
    let mut connection = Connection::open(bridge.public).unwrap();
    let waiting = Request::event(&events::ping()).header("Expect", "100-continue");
    connection.write(&waiting.head()).unwrap();
    let answer = connection.read_answer().unwrap();
    answer.expect_problem(401, "unauthorized");
    assert!(answer.interim.is_empty(), "{answer:?}");
}

#[test]
fn without_a_trusted_proxy_headers_say_nothing_of_the_senders_address() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("from");
    let mut bridge = Bridge::to_nats(nats, &stream, "", "allow_from = [\"192.0.2.0/24\"]");
    let request = Request::event(&events::ping());
    let spoofed = request.clone().header("X-Forwarded-For", "192.0.2.7");
    for request in [&request, &spoofed] {
        bridge.send(request).expect_problem(401, "unauthorized");
    }
    let config = bridge::nats_broker("main", &nats.url)
        + &bridge::synq_source("allow_from = [\"127.0.0.1\", \"::1\"]")
        + &bridge::route(&format!("{stream}.{{type}}"));
    assert!(bridge.reload(&config));
    bridge.send(&spoofed).expect_success("published");
    // Admitted senders must sign nevertheless.
    let unsigned = Request::event(&events::ping()).without("x-coalesce-signature");
    bridge
        .send(&unsigned)
        .expect_problem(401, "missing_signature");
}

/// A certificate of the tests' authority, with this `subjectAltName`.
fn certificate(names: &str) -> tls::Issued {
    tls::issue("/CN=hooks.example.com", Some(names))
}

#[test]
fn a_sender_with_a_certificate_gets_in_under_the_names_that_the_source_lists() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("names");
    let http = format!(
        "tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
        CERTIFICATES.certificate.display(),
        CERTIFICATES.key.display(),
        CERTIFICATES.authority.display()
    );
    let config = |names: &str| {
        bridge::nats_broker("main", &nats.url)
            + &bridge::synq_source(names)
            + "[sources.second]\nprovider = \"synq\"\nsecrets = [\"another-secret-of-the-tests\"]\n"
            + &bridge::route(&format!("{stream}.{{type}}"))
    };
    let listed = "client_names = [\"Hooks.example.com\", \"*.wild.example.com\"]";
    let mut bridge = Bridge::run_with(&http, &config(listed));
    bridge.wait_ready();
    let open = |issued: &tls::Issued| {
        let client = tls::client(&[&TLS13], Some((&issued.certificate, &issued.key)));
        tls::open(bridge.public, &client, "localhost").expect("a handshake")
    };
    let mut published = 0;
    for (is_let_in, names) in [
        (true, "DNS:hooks.example.com"),
        (true, "DNS:other.example.com,DNS:HOOKS.EXAMPLE.COM"),
        (true, "DNS:*.wild.example.com"),
        (false, "DNS:other.example.com"),
        // A wildcard for its name is not the name itself.
        (false, "DNS:*.example.com"),
        (false, "DNS:a.wild.example.com"),
        (false, "DNS:hooks.example.com.evil.example"),
        (
            false,
            "email:hooks@example.com,URI:https://hooks.example.com,IP:127.0.0.1",
        ),
    ] {
        let mut connection = open(&certificate(names));
        let event = events::ping();
        let answer = connection.send(&Request::event(&event)).expect("an answer");
        if is_let_in {
            answer.expect_published(&event);
            published += 1;
        } else {
            answer.expect_problem(401, "unauthorized");
            assert!(answer.says_close(), "{names}: {answer:?}");
        }
    }
    // The subject's common name is not a name of the certificate's (RFC 9525).
    let nameless = tls::issue("/CN=hooks.example.com", None);
    let mut connection = open(&nameless);
    let answer = connection
        .send(&Request::event(&events::ping()))
        .expect("an answer");
    answer.expect_problem(401, "unauthorized");
    // A source without names takes every certificate of the authority.
    let mut connection = open(&certificate("DNS:other.example.com"));
    let signed =
        Request::post("/hooks/second", events::ping().body).signed("another-secret-of-the-tests");
    connection
        .send(&signed)
        .expect("an answer")
        .expect_success("published");
    published += 1;
    assert_eq!(nats.read(&stream).len(), published);
    // The list applies to connections that are already open.
    std::fs::write(
        &bridge.file,
        bridge::whole(&http, &config("client_names = [\"other.example.com\"]")),
    )
    .unwrap();
    let before = bridge.reloads();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(before));
    let event = events::ping();
    connection
        .send(&Request::event(&event))
        .expect("an answer")
        .expect_published(&event);
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_the_sender_asks_for_and_reloaded_when_its_file_changes()
{
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("sni");
    let issued = [
        certificate("DNS:localhost,IP:127.0.0.1"),
        certificate("DNS:hooks.example.com,DNS:*.wild.example.com"),
    ];
    let tables: String = issued
        .iter()
        .map(|issued| {
            format!(
                "[[http.tls]]\ncert = \"{}\"\nkey = \"{}\"\n",
                issued.certificate.display(),
                issued.key.display()
            )
        })
        .collect();
    let rest = tables
        + &bridge::nats_broker("main", &nats.url)
        + &bridge::synq_source("")
        + &bridge::route(&format!("{stream}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let shown = |name: &'static str| {
        let client = tls::client_of_anyone();
        let mut connection = tls::open(bridge.public, &client, name).expect("a handshake");
        let event = events::ping();
        connection
            .send(&Request::event(&event))
            .expect("an answer")
            .expect_published(&event);
        connection
            .wire()
            .conn
            .peer_certificates()
            .expect("a certificate")[0]
            .to_vec()
    };
    let der = |issued: &tls::Issued| tls::der(&issued.certificate);
    for (name, index) in [
        ("localhost", 0),
        ("hooks.example.com", 1),
        ("HOOKS.example.com", 1),
        ("a.wild.example.com", 1),
        ("wild.example.com", 0),
        ("a.b.wild.example.com", 0),
        ("unknown.example.com", 0),
        ("127.0.0.1", 0),
    ] {
        assert!(shown(name) == der(&issued[index]), "{name}");
    }
    let renewed = certificate("DNS:hooks.example.com,DNS:new.example.com");
    let before = bridge.reloads();
    std::fs::copy(&renewed.key, &issued[1].key).unwrap();
    std::fs::copy(&renewed.certificate, &issued[1].certificate).unwrap();
    wait::until("both files are read", PATIENCE, || {
        bridge.reloads() > before && shown("new.example.com") == der(&renewed)
    });
    assert!(shown("hooks.example.com") == der(&renewed));
    assert!(shown("a.wild.example.com") == der(&issued[0]));
}

#[test]
fn a_success_is_answered_as_the_provider_wants_it_for_batches_too() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("answer");
    let source = |name: &str, keys: &str| {
        format!(
            "[sources.{name}]\nprovider = \"generic\"\nsecrets = [\"{SECRET}\"]\nauth = \"bearer\"\n\
             event = {{ id = \"{{/id}}\", type = \"{{/type}}\" }}\n{keys}\n"
        )
    };
    let rest = bridge::nats_broker("main", &nats.url)
        + &source(
            "xml",
            "success_body = \"<Response/>\"\nsuccess_content_type = \"text/xml\"\nsplit = \"\"",
        )
        + &source(
            "empty",
            "success_body = \"\"\nsuccess_status = 202\non_unrouted = \"ignore\"",
        )
        + &source("none", "success_status = 204")
        + &format!("[[routes]]\ntypes = [\"a\"]\ntopic = \"{stream}.x\"\n");
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let bearer = format!("Bearer {SECRET}");
    let send = |source: &str, body: &str| {
        let request = Request::post(&format!("/hooks/{source}"), body);
        bridge.send(&request.header("Authorization", &bearer))
    };
    let batch = r#"[{"id":"1","type":"a"},{"id":"2","type":"a"}]"#;
    let (one, unrouted) = (r#"{"id":"3","type":"a"}"#, r#"{"id":"4","type":"b"}"#);
    for (source, body, status, content_type, answered) in [
        ("xml", batch, 200, Some("text/xml"), "<Response/>"),
        // Repeated: `duplicate` looks the same.
        ("xml", batch, 200, Some("text/xml"), "<Response/>"),
        ("empty", one, 202, None, ""),
        ("empty", unrouted, 202, None, ""),
        ("none", one, 204, None, ""),
    ] {
        let answer = send(source, body);
        assert_eq!(answer.status, status, "{source} {body}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            content_type,
            "{source}: {answer:?}"
        );
        assert_eq!(String::from_utf8_lossy(&answer.body), answered, "{source}");
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    }
    assert_eq!(nats.read(&stream).len(), 4);
    // A refusal has its own body, whatever a success looks like.
    send("xml", "[]").expect_problem(422, "invalid_event");
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_body_is_verified_limited_and_stored_as_it_was_before() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("gzip");
    let keys = "accept_gzip = true\nmax_body = \"64KiB\"\n";
    let mut bridge = Bridge::to_nats(nats, &stream, "", keys);
    let compressed = |body: &[u8], coding: &str, folded: Vec<u8>| {
        let mut request = Request::post("/hooks/synq", body).signed(SECRET);
        request.body = folded;
        request.header("Content-Encoding", coding)
    };
    let mut sent = Vec::new();
    for (coding, size, chunk) in [
        ("gzip", 500, None),
        ("X-GZip", 500, None),
        ("identity, gzip", 500, Some(7)),
        ("gzip", 65_536, Some(100)),
        ("identity", 500, None),
    ] {
        let event = events::ping_of_size(size);
        let middle = event.body.len() / 2;
        let folded = match coding {
            "identity" => event.body.clone(),
            // Two members.
            _ => [gzip(&event.body[..middle]), gzip(&event.body[middle..])].concat(),
        };
        let mut request = compressed(&event.body, coding, folded);
        if let Some(chunk) = chunk {
            request = request.chunked(chunk);
        }
        bridge.send(&request).expect_published(&event);
        sent.push(event.body);
    }
    let event = events::ping_of_size(500);
    let folded = gzip(&event.body);
    let large = events::ping_of_size(65_537);
    let cut = folded[..folded.len() - 1].to_vec();
    let followed = [&folded[..], b"{}"].concat();
    let bomb = gzip(&vec![b' '; 20_000_000]);
    let over_folded = Request::post("/hooks/synq", folded.clone())
        .signed(SECRET)
        .header("Content-Encoding", "gzip");
    let unsigned = compressed(&event.body, "gzip", folded.clone()).without("x-coalesce-signature");
    for (request, status, code) in [
        (
            compressed(&large.body, "gzip", gzip(&large.body)),
            413,
            "body_too_large",
        ),
        (compressed(&event.body, "gzip", bomb), 413, "body_too_large"),
        (
            compressed(&event.body, "gzip", event.body.clone()),
            400,
            "invalid_encoding",
        ),
        (
            compressed(&event.body, "gzip", cut),
            400,
            "invalid_encoding",
        ),
        (
            compressed(&event.body, "gzip", followed),
            400,
            "invalid_encoding",
        ),
        (
            compressed(&event.body, "gzip", Vec::new()),
            400,
            "invalid_encoding",
        ),
        (over_folded, 401, "invalid_signature"),
        (unsigned, 401, "missing_signature"),
    ] {
        let mut connection = Connection::open(bridge.public).unwrap();
        let answer = connection.send(&request).expect("an answer");
        answer.expect_problem(status, code);
        // The whole body was read, so the connection stays open.
        let event = events::ping();
        connection
            .send(&Request::event(&event))
            .expect("an answer")
            .expect_published(&event);
        sent.push(event.body);
    }
    for coding in ["br", "gzip, gzip"] {
        let answer = bridge.send(&compressed(&event.body, coding, folded.clone()));
        answer.expect_problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept-encoding"), Some("gzip"));
    }
    let stored: Vec<_> = nats
        .read(&stream)
        .into_iter()
        .map(|message| message.value)
        .collect();
    assert_eq!(stored, sent);
    let config = bridge::nats_broker("main", &nats.url)
        + &bridge::synq_source("")
        + &bridge::route(&format!("{stream}.{{type}}"));
    assert!(bridge.reload(&config));
    let answer = bridge.send(&compressed(&event.body, "gzip", folded));
    answer.expect_problem(415, "unsupported_media_type");
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
}

#[test]
fn events_of_a_type_are_held_to_its_schema_besides_the_providers_and_a_changed_file_is_taken() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("schemas");
    let folder = process::directory("schemas");
    let (pings, all) = (folder.join("pings.json"), folder.join("all.json"));
    std::fs::write(&pings, r#"{ "required": ["team"] }"#).unwrap();
    std::fs::write(&all, "{}").unwrap();
    let schemas = format!(
        "schemas = {{ \"pi*\" = \"{}\", \"*\" = \"{}\" }}",
        pings.display(),
        all.display()
    );
    let bridge = Bridge::to_nats(nats, &stream, "", &schemas);
    let issue = events::issue("created", "i-1");
    let with_team = |value: &str| {
        let body = String::from_utf8(events::ping().body).unwrap();
        Request::signed_body(body.replacen('{', &format!("{{\"team\":{value},"), 1))
    };
    bridge.deliver(&issue).expect_published(&issue);
    let refused = bridge.deliver(&events::ping());
    refused.expect_problem(422, "invalid_event");
    assert_eq!(refused.pointers(), ["/team"]);
    bridge.send(&with_team("\"a\"")).expect_success("published");
    // The provider's own schema applies as well.
    let body = String::from_utf8(events::ping().body).unwrap();
    let body = body
        .replacen('{', r#"{"team":"a","#, 1)
        .replace("2026-11-20T06:15:04.5Z", "never");
    let answer = bridge.send(&Request::signed_body(body));
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(nats.read(&stream).len(), 2);
    let before = bridge.reloads();
    std::fs::write(
        &pings,
        r#"{ "properties": { "team": { "type": "number" } } }"#,
    )
    .unwrap();
    assert!(bridge.wait_for_reload(before));
    bridge
        .send(&with_team("\"a\""))
        .expect_problem(422, "invalid_event");
    bridge.send(&with_team("7")).expect_success("published");
    bridge.deliver(&events::ping()).expect_success("published");
    // An unusable file changes nothing.
    let before = bridge.reloads();
    std::fs::write(&all, r#"{ "$ref": "https://example.com/x.json" }"#).unwrap();
    assert!(!bridge.wait_for_reload(before));
    bridge.send(&with_team("7")).expect_success("published");
}

#[test]
fn check_recommends_a_fallback_where_a_provider_does_not_retry() {
    let source = |name: &str| format!("[sources.{name}]\nsecrets = [\"{SECRET}\"]\n");
    let brokers = bridge::nats_broker("main", "nats://127.0.0.1:1")
        + &bridge::nats_broker("edge", "nats://127.0.0.1:2");
    for (name, route, is_advised) in [
        ("github", "broker = \"main\"", true),
        ("github", "broker = \"main\"\nfallback = \"edge\"", false),
        ("stripe", "broker = \"main\"", false),
    ] {
        let rest = brokers.clone() + &source(name) + &bridge::route_with("x", route);
        let files = bridge::write("", &rest);
        let file = files.file.to_str().unwrap();
        let checked = bridge::hookbridge(["check", "--deny-warnings", "--config", file]);
        let checked = checked.expect_code(0);
        assert_eq!(
            checked.stderr.starts_with(
                "note: github: GitHub sends an event again within seconds at most, or never"
            ),
            is_advised,
            "{checked:?}"
        );
        assert_eq!(checked.stderr.is_empty(), !is_advised, "{checked:?}");
        let json = bridge::hookbridge(["check", "--format", "json", "--config", file]);
        let json: Value = serde_json::from_str(&json.expect_code(0).stdout).unwrap();
        assert_eq!(json["advice"].is_array(), is_advised, "{json}");
    }
}
