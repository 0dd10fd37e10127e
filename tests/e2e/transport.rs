//! What a source asks of its requests besides their signature, and how it answers them.

use std::time::Instant;

use tokio_rustls::rustls::version::TLS13;

use crate::support::bridge::{self, Bridge};
use crate::support::events::{self, SECRET};
use crate::support::nats::Nats;
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
    // Whoever can't sign uses up nothing.
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
    // It is said before the body is asked for.
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
    // Whoever is let in must sign all the same.
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
        // A name that it could stand for is not the name that it has.
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
    // What is listed counts for connections that are open already.
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
        // Again: `duplicate` looks the same.
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
    // A refusal says what is wrong, whatever a success looks like.
    send("xml", "[]").expect_problem(422, "invalid_event");
}
