//! TLS on the public listener, and senders that misuse it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support;
use crate::support::bridge::{self, Bridge, nats_broker, route, synq_source};
use crate::support::events::{self, Event, SECRET};
use crate::support::fixture::{Fixture, nats};
use crate::support::nats::Nats;
use crate::support::sender::{Connection, Request};
use crate::support::tls::{self, CERTIFICATES, Tls};
use crate::support::wait::{self, PATIENCE};

/// Longer than the second after which a connection is idle.
const REST: Duration = Duration::from_millis(1500);

fn identity() -> Option<(&'static Path, &'static Path)> {
    Some((&CERTIFICATES.certificate, &CERTIFICATES.key))
}

/// `tls = { … }` with more keys, which begin with a comma.
fn tls_line(more: &str) -> String {
    let (cert, key) = (&CERTIFICATES.certificate, &CERTIFICATES.key);
    format!("tls = {{ cert = {cert:?}, key = {key:?}{more} }}\n")
}

/// A bridge with TLS that logs everything; `http` is more keys for `[http]`.
fn with_tls(more: &str, http: &str) -> Option<Fixture<Nats>> {
    let setup = nats().http(&(tls_line(more) + http));
    setup
        .variable("HOOKBRIDGE_LOG", "info,hookbridge=debug")
        .run()
}

fn open(bridge: &Bridge) -> Connection<Tls> {
    tls::open(bridge.public, &tls::client(&[&TLS13], None), "localhost").expect("a handshake")
}

fn bodies_of(sent: Vec<Event>) -> Vec<Vec<u8>> {
    sent.into_iter().map(|event| event.body).collect()
}

/// The log of a failed handshake names the peer, and nothing else.
fn expect_failure_is_logged(bridge: &Bridge, peer: SocketAddr) {
    let told = |line: &Value| line["peer"] == peer.to_string();
    let line = wait::until_some("the failure is logged", PATIENCE, || {
        bridge
            .log()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(told)
    });
    assert_eq!(line["message"], "a TLS handshake failed", "{line}");
    assert_eq!(line["level"], "DEBUG", "{line}");
    let known = ["timestamp", "level", "target", "message", "peer"];
    for name in line.as_object().unwrap().keys() {
        assert!(known.contains(&name.as_str()), "{line}");
    }
}

fn peer<W: support::sender::Wire>(connection: &Connection<W>) -> SocketAddr {
    connection.wire().socket().local_addr().unwrap()
}

#[test]
fn events_come_over_tls_1_3_and_1_2_and_without_a_server_name() {
    let bridge = or_skip!(with_tls("", ""));
    let mut sent = Vec::new();
    for (version, number) in [
        (&TLS13, ProtocolVersion::TLSv1_3),
        (&TLS12, ProtocolVersion::TLSv1_2),
    ] {
        for name in ["localhost", "127.0.0.1"] {
            let client = tls::client(&[version], None);
            let mut connection = tls::open(bridge.public, &client, name).unwrap();
            assert_eq!(connection.wire().conn.protocol_version(), Some(number));
            sent.push(connection.publish_ping());
        }
    }
    assert_eq!(bridge.bodies(), bodies_of(sent));
}

#[test]
fn requests_on_one_tls_connection_with_rests_between_come_whole() {
    let bridge = or_skip!(with_tls("", ""));
    let mut connection = open(&bridge);
    let mut sent = vec![connection.publish_ping(), connection.publish_ping()];
    wait::play_silence(REST);
    sent.push(connection.publish_ping());
    wait::play_silence(REST);
    // Two requests in one record: the second is decrypted while the first is read.
    let both = [events::ping(), events::ping()];
    let bytes: Vec<u8> = both
        .iter()
        .flat_map(|event| Request::event(event).bytes())
        .collect();
    connection.write(&bytes).unwrap();
    for event in both {
        connection.read_answer().unwrap().expect_published(&event);
        sent.push(event);
    }
    wait::play_silence(REST);
    // A head in two parts, and its body later.
    let event = events::ping();
    let request = Request::event(&event);
    let (begin, end) = (&request.head()[..1], &request.head()[1..]);
    connection.write(begin).unwrap();
    wait::play_silence(REST);
    connection.write(end).unwrap();
    wait::play_silence(REST);
    connection.write(&event.body).unwrap();
    connection.read_answer().unwrap().expect_published(&event);
    sent.push(event);
    // A body of many records.
    let large = events::ping_of_size(200_000);
    connection
        .send(&Request::event(&large))
        .unwrap()
        .expect_published(&large);
    sent.push(large);
    assert_eq!(bridge.bodies(), bodies_of(sent));
    assert_eq!(bridge.metric("hookbridge_connections", &[]), 1.0);
}

#[test]
fn a_body_that_is_refused_unread_over_tls_is_answered() {
    let bridge = or_skip!(with_tls("", "max_body = \"1KiB\""));
    let mut connection = open(&bridge);
    let request = Request::event(&events::ping_of_size(300_000));
    let answer = connection.send(&request).expect("an answer");
    answer.expect_problem(413, "body_too_large");
    assert!(answer.says_close(), "{answer:?}");
}

#[test]
fn http2_is_agreed_on_in_the_handshake() {
    let offering = |protocols: &[&[u8]]| {
        let mut client = tls::client(&[&TLS13], None);
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        client
    };
    let agreed = |bridge: &Bridge, protocols: &[&[u8]]| {
        let mut connection =
            tls::open(bridge.public, &offering(protocols), "localhost").expect("a handshake");
        let agreed = connection.wire().conn.alpn_protocol().map(<[u8]>::to_vec);
        if agreed.as_deref() != Some(b"h2") {
            connection.publish_ping();
        }
        agreed
    };
    let bridge = or_skip!(with_tls("", "http2 = true"));
    assert_eq!(
        agreed(&bridge, &[b"http/1.1", b"h2"]).as_deref(),
        Some(&b"h2"[..])
    );
    assert_eq!(
        agreed(&bridge, &[b"http/1.1"]).as_deref(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(agreed(&bridge, &[]), None);
    // HTTP/2 without ALPN is not recognized as HTTP.
    let mut unasked = open(&bridge);
    unasked
        .write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let said = unasked.read_to_close(PATIENCE).expect("closed");
    assert!(
        said.is_empty() || said.starts_with(b"HTTP/1.1 400 "),
        "{said:?}"
    );

    let sent: Vec<_> = (0..20).map(|_| events::ping()).collect();
    support::runtime().block_on(async {
        let (sender, connection) = open_http2(bridge.public).await;
        deliver_over_http2(&sender, &sent).await;
        drop(sender);
        connection.await.unwrap().unwrap();
    });
    let stored = bridge.bodies();
    for event in &sent {
        assert!(stored.contains(&event.body));
    }

    let without = or_skip!(with_tls("", ""));
    assert_eq!(
        agreed(&without, &[b"h2", b"http/1.1"]).as_deref(),
        Some(&b"http/1.1"[..])
    );
    let alone = tls::open(without.public, &offering(&[b"h2"]), "localhost");
    assert!(alone.is_err(), "nothing can be agreed on");
}

type Http2 = http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection, and its end.
async fn open_http2(address: SocketAddr) -> (Http2, JoinHandle<hyper::Result<()>>) {
    let mut client = tls::client(&[&TLS13], None);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// Sends all of them together.
async fn deliver_over_http2(sender: &Http2, events: &[Event]) {
    let answered = events.iter().map(|event| {
        let mut sender = sender.clone();
        let request = Request::event(event);
        let mut builder = http::Request::post(format!("https://localhost{}", request.target));
        for (name, value) in &request.headers {
            if name != "Host" {
                builder = builder.header(name, value);
            }
        }
        let request = builder.body(Full::new(Bytes::from(request.body))).unwrap();
        async move {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["event_id"], event.id);
        }
    });
    futures_util::future::join_all(answered).await;
}

/// A ClientHello (RFC 5246 section 7.4.1.2) of an old version, without extensions.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let suites = [0xc0, 0x09, 0xc0, 0x13, 0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x2f];
    let mut hello = version.to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 10]);
    hello.extend(suites);
    hello.extend([1, 0]); // no compression
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[test]
fn older_versions_are_refused() {
    let bridge = or_skip!(with_tls("", ""));
    for version in [[3, 0], [3, 1], [3, 2]] {
        let mut old = Connection::open(bridge.public).unwrap();
        old.write(&client_hello(version)).unwrap();
        let said = old.read_to_close(PATIENCE).expect("closed");
        // A fatal alert, and nothing else: handshake_failure or protocol_version.
        let alert = (said.len(), said.first(), said.get(5), said.get(6));
        assert!(
            matches!(alert, (7, Some(21), Some(2), Some(40 | 70))),
            "{version:?}: {said:?}"
        );
        expect_failure_is_logged(&bridge, peer(&old));
    }
    open(&bridge).publish_ping();
}

#[test]
fn garbage_is_closed() {
    let bridge = or_skip!(with_tls("", ""));
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|at| (at * at / 7).to_le_bytes()[0])
        .collect();
    let longest = [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    let alerts = [21, 3, 1, 0, 2, 1, 0].repeat(1000);
    for bytes in [noise, longest, alerts, vec![0; 100]] {
        let mut rejected = Connection::open(bridge.public).unwrap();
        drop(rejected.write(&bytes)); // it may be closed before the last byte
        let said = rejected.read_to_close(PATIENCE).expect("closed");
        assert!(!said.starts_with(b"HTTP"), "{said:?}");
        expect_failure_is_logged(&bridge, peer(&rejected));
    }
    let event = open(&bridge).publish_ping();
    assert_eq!(bridge.bodies(), [event.body]);
}

#[test]
fn a_request_without_tls_is_told_to_use_https() {
    let bridge = or_skip!(with_tls("", ""));
    let long = Request::event(&events::ping()).header("x-padding", &"a".repeat(8000));
    for request in [Request::event(&events::ping()), long] {
        let mut plain = Connection::open(bridge.public).unwrap();
        plain.write(&request.bytes()).unwrap();
        let said = plain.read_to_close(PATIENCE).expect("closed");
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        assert!(said.contains("x-request-id: "), "{said}");
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["code"], "bad_request");
        assert!(
            problem["detail"].as_str().unwrap().contains("https://"),
            "{said}"
        );
        expect_failure_is_logged(&bridge, peer(&plain));
    }
    assert_eq!(bridge.bodies(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_stalled_handshake_ends_in_its_time_and_delays_no_other() {
    let bridge = or_skip!(with_tls("", ""));
    let hello = client_hello([3, 3]);
    let began = Instant::now();
    let mut silent = Connection::open(bridge.public).unwrap();
    let mut half = Connection::open(bridge.public).unwrap();
    half.write(&hello[..20]).unwrap();
    let mut dripping = Connection::open(bridge.public).unwrap();
    let ended = std::thread::scope(|scope| {
        let drip = scope.spawn(|| {
            for byte in &hello {
                if dripping.write(&[*byte]).is_err() {
                    break;
                }
                wait::play_silence(Duration::from_millis(200));
            }
            dripping.read_to_close(PATIENCE)
        });
        let mut served = 0;
        while !drip.is_finished() {
            open(&bridge).publish_ping();
            served += 1;
        }
        println!("{served} others were served meanwhile");
        assert!(served > 1);
        drip.join().unwrap()
    });
    assert!(ended.is_some(), "still open");
    assert_eq!(silent.read_to_close(PATIENCE).as_deref(), Some(&b""[..]));
    assert_eq!(half.read_to_close(PATIENCE).as_deref(), Some(&b""[..]));
    assert!(
        began.elapsed() >= Duration::from_millis(4900),
        "they had 5 s, but were given {:?}",
        began.elapsed()
    );
    for stalled in [&silent, &half, &dripping] {
        expect_failure_is_logged(&bridge, peer(stalled));
    }
}

#[test]
fn unfinished_handshakes_are_connections() {
    let bridge = or_skip!(with_tls("", "max_connections = 2"));
    let mut stalled: Vec<_> = (0..2)
        .map(|_| Connection::open(bridge.public).unwrap())
        .collect();
    let connections = || bridge.metric("hookbridge_connections", &[]);
    wait::until("both are counted", PATIENCE, || connections() == 2.0);
    let mut third = Connection::open(bridge.public).unwrap();
    assert!(third.read_to_close(PATIENCE).is_some());
    let rejected = bridge.metric("hookbridge_connections_rejected_total", &[]);
    assert_eq!(rejected, 1.0);
    for connection in &mut stalled {
        connection.read_to_close(PATIENCE).expect("closed");
    }
    wait::until("their places are free", PATIENCE, || connections() == 0.0);
    open(&bridge).publish_ping();
}

#[test]
fn with_client_ca_only_its_clients_come_in() {
    let client_ca = format!(", client_ca = \"{}\"", CERTIFICATES.authority.display());
    let bridge = or_skip!(with_tls(&client_ca, ""));
    let lone = (
        CERTIFICATES.lone_certificate.as_path(),
        CERTIFICATES.lone_key.as_path(),
    );
    let mut sent = Vec::new();
    for version in [&TLS13, &TLS12] {
        for rejected in [None, Some(lone)] {
            let client = tls::client(&[version], rejected);
            let refused = tls::open(bridge.public, &client, "localhost").and_then(|mut open| {
                // With TLS 1.3 a sender has completed the handshake before its certificate is checked.
                open.send(&Request::event(&events::ping()))
            });
            assert!(refused.is_err(), "{refused:?}");
        }
        let client = tls::client(&[version], identity());
        let mut connection = tls::open(bridge.public, &client, "localhost").unwrap();
        sent.push(connection.publish_ping());
    }
    assert_eq!(bridge.bodies(), bodies_of(sent));
}

#[test]
fn a_head_that_is_too_slow_closes_a_tls_connection() {
    let bridge = or_skip!(with_tls("", "header_timeout = \"1s\""));
    let mut connection = open(&bridge);
    for byte in b"POST /hooks/synq HTTP/1.1\r\nHost: x\r\n" {
        if connection.write(&[*byte]).is_err() {
            break;
        }
        wait::play_silence(Duration::from_millis(100));
    }
    let said = connection.read_to_close(PATIENCE).expect("closed");
    assert_eq!(String::from_utf8_lossy(&said), "");
}

#[test]
fn an_idle_tls_connection_is_closed_in_due_form() {
    let http = "header_timeout = \"500ms\"\nidle_timeout = \"3s\"";
    let bridge = or_skip!(with_tls("", http));
    let mut connection = open(&bridge);
    let mut silent = open(&bridge);
    connection.publish_ping();
    assert!(connection.is_at_end().expect("close_notify"));
    assert!(silent.is_at_end().expect("close_notify"));
}

#[test]
fn sigterm_ends_tls_connections_in_due_form_and_waits_for_no_handshake() {
    let http = "shutdown_timeout = \"50s\"\nhttp2 = true";
    let mut bridge = or_skip!(with_tls("", http));
    let runtime = support::runtime();
    let (sender, http2) = runtime.block_on(open_http2(bridge.public));
    runtime.block_on(deliver_over_http2(&sender, &[events::ping()]));
    let mut unused = open(&bridge);
    let mut at_rest = open(&bridge);
    at_rest.publish_ping();
    wait::play_silence(REST);
    let mut recent = open(&bridge);
    recent.publish_ping();
    let mut stalled = Connection::open(bridge.public).unwrap();
    bridge.wait_metric("hookbridge_connections", &[], 5.0);
    bridge.signal("TERM");
    for connection in [&mut unused, &mut at_rest, &mut recent] {
        assert!(connection.is_at_end().expect("close_notify"));
    }
    assert!(stalled.read_to_close(PATIENCE).is_some());
    // This sender, too, would call an end without close_notify an error.
    runtime.block_on(http2).unwrap().unwrap();
    assert_eq!(bridge.wait(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn send_trusts_the_certificate_that_ssl_cert_file_names() {
    let (cert, key) = (&CERTIFICATES.lone_certificate, &CERTIFICATES.lone_key);
    let http = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let bridge = or_skip!(nats().http(&http).run());
    let send = |file: &Path| {
        let url = format!("https://localhost:{}/hooks/synq", bridge.public.port());
        let arguments = [
            "send",
            "--provider",
            "synq",
            "--secret",
            SECRET,
            "--url",
            &url,
            "--sample",
            "ping",
        ];
        let trusted = file.to_str().unwrap();
        bridge::hookbridge_reading(arguments, b"", &[("SSL_CERT_FILE", trusted)])
    };
    let sent = send(&CERTIFICATES.lone_certificate).expect_code(0);
    assert!(sent.stdout.contains("published"), "{sent:?}");
    assert_eq!(bridge.read().len(), 1);
    let refused = send(&CERTIFICATES.authority).expect_code(1);
    assert!(refused.stderr.contains("certificate"), "{refused:?}");
}

#[test]
fn check_says_that_the_listener_speaks_tls() {
    let rest = nats_broker("main", "nats://127.0.0.1:1") + &synq_source("") + &route("x");
    let client_ca = format!(", client_ca = \"{}\"", CERTIFICATES.authority.display());
    for (more, says) in [
        ("", "listens at 127.0.0.1:0 with TLS, admin"),
        (
            client_ca.as_str(),
            "listens at 127.0.0.1:0 with TLS (client certificates required), admin",
        ),
    ] {
        let files = bridge::write(&tls_line(more), &rest);
        let checked = files.check(0).expect_stdout(&[says]);
        assert_eq!(checked.stderr, "");
    }
}
