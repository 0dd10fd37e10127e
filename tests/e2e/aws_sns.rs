//! Amazon SNS in front of real NATS. Messages are signed by `openssl`, as Amazon's developer guide describes. Where the
//! bridge may fetch something from Amazon, a test server has Amazon's name, for the bridge's process alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::bridge::{Bridge, PROGRAM, hookbridge, nats_broker, write};
use crate::support::consumer::only;
use crate::support::hosts::Hosts;
use crate::support::nats::Nats;
use crate::support::pages;
use crate::support::process;
use crate::support::sender::Request;
use crate::support::wait;

const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:orders";
const HOST: &str = "sns.eu-central-1.amazonaws.com";
const FILE: &str = "SimpleNotificationService-0a1b2c3d4e5f60718293a4b5c6d7e8f9.pem";

/// A key with its certificate, in its own folder.
struct Signer(PathBuf);

impl Signer {
    fn new() -> Self {
        let signer = Self(process::directory("sns"));
        std::fs::create_dir_all(signer.folder()).unwrap();
        openssl(
            &signer.0,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=sns.amazonaws.com -keyout key.pem -out certificates/{FILE}"
            ),
        );
        signer
    }

    fn folder(&self) -> PathBuf {
        self.0.join("certificates")
    }

    fn certificate(&self) -> PathBuf {
        self.folder().join(FILE)
    }

    fn sign(&self, message: &mut Value, version: &str) {
        let names: &[&str] = match message["Type"].as_str().unwrap() {
            "Notification" => &[
                "Message",
                "MessageId",
                "Subject",
                "Timestamp",
                "TopicArn",
                "Type",
            ],
            _ => &[
                "Message",
                "MessageId",
                "SubscribeURL",
                "Timestamp",
                "Token",
                "TopicArn",
                "Type",
            ],
        };
        let lines = names
            .iter()
            .filter_map(|name| Some(format!("{name}\n{}\n", message[*name].as_str()?)));
        std::fs::write(self.0.join("text"), lines.collect::<String>()).unwrap();
        let digest = if version == "1" { "sha1" } else { "sha256" };
        openssl(
            &self.0,
            &format!("dgst -{digest} -sign key.pem -out signature text"),
        );
        let signature = std::fs::read(self.0.join("signature")).unwrap();
        message["SignatureVersion"] = version.into();
        message["Signature"] = BASE64.encode(&signature).into();
    }

    fn signed(&self, mut message: Value) -> Value {
        self.sign(&mut message, "2");
        message
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        done.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn notification(id: &str) -> Value {
    json!({
        "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Subject": "Order paid",
        "Message": "{\"order\":\"o-7711\"}\nwith \"quotes\", \\ and é", "Timestamp": "2026-11-20T06:15:04.131Z",
        "SigningCertURL": format!("https://{HOST}/{FILE}"),
        "UnsubscribeURL": format!("https://{HOST}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:5c0f2b1e"),
    })
}

fn confirmation(kind: &str) -> Value {
    json!({
        "Type": kind, "MessageId": "c-1", "TopicArn": TOPIC, "Token": "23af", "Message": "You have chosen to subscribe.",
        "SubscribeURL": format!("https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=23af"),
        "Timestamp": "2026-11-20T06:15:04.131Z", "SigningCertURL": format!("https://{HOST}/{FILE}"),
    })
}

fn post(message: &Value) -> Request {
    let body = serde_json::to_string_pretty(message).unwrap();
    Request::post("/hooks/aws-sns", body)
        .without("content-type")
        .header("Content-Type", "text/plain; charset=UTF-8")
        .header("x-amz-sns-message-type", "Notification")
}

/// The page's, with further keys of the source.
fn configuration(nats: &Nats, stream: &str, keys: &str) -> String {
    let source = pages::source("aws-sns", &[], keys);
    nats_broker("main", &nats.url) + &source + &pages::routes("aws-sns", stream)
}

/// A bridge that has the signer's certificate.
fn ready(nats: &Nats, stream: &str, signer: &Signer) -> Bridge {
    let keys = format!(
        "certificates = \"{}\"\nfetch_certificates = false\nconfirm_subscriptions = false",
        signer.folder().display()
    );
    let bridge = Bridge::run(&configuration(nats, stream, &keys));
    bridge.wait_ready();
    bridge
}

#[test]
fn sns_messages_are_stored_as_they_came_and_a_changed_part_is_noticed() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("sns");
    let signer = Signer::new();
    let bridge = ready(nats, &stream, &signer);
    let good = signer.signed(notification("m-1"));
    for name in [
        "Message",
        "MessageId",
        "Subject",
        "Timestamp",
        "TopicArn",
        "Type",
        "Signature",
    ] {
        let mut other = good.clone();
        let value = other[name]
            .as_str()
            .unwrap()
            .replacen(['a', 'e', 'm', '2'], "0", 1);
        assert_ne!(other[name].as_str(), Some(&*value), "{name}");
        other[name] = value.into();
        let answer = bridge.send(&post(&other));
        let code = if name == "TopicArn" {
            "unauthorized"
        } else {
            "invalid_signature"
        };
        answer.expect_problem(401, code);
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(bridge.send(&post(&without)).status, 401, "{name}");
    }
    for url in [
        format!("http://{HOST}/{FILE}"),
        format!("https://{HOST}@evil.example/{FILE}"),
        format!("https://{HOST}.evil.example/{FILE}"),
        format!("https://evil.example/{FILE}"),
    ] {
        let mut other = good.clone();
        other["SigningCertURL"] = url.into();
        bridge
            .send(&post(&other))
            .expect_problem(401, "invalid_signature");
    }
    let mut foreign = notification("m-1");
    foreign["TopicArn"] = "arn:aws:sns:eu-central-1:999988887777:attacker".into();
    let foreign = signer.signed(foreign);
    bridge
        .send(&post(&foreign))
        .expect_problem(401, "unauthorized");
    let raw = Request::post("/hooks/aws-sns", "{\"order\":\"o-7711\"}")
        .header("x-amz-sns-rawdelivery", "true");
    bridge.send(&raw).expect_problem(401, "missing_signature");
    assert_eq!(nats.read(&stream).len(), 0);

    let request = post(&good);
    assert_eq!(bridge.send(&request).expect_success("published"), "m-1");
    bridge.send(&request).expect_success("duplicate");
    let message = only(nats.read(&stream));
    assert_eq!(message.value, request.body);
    for (name, value) in [
        ("event_id", "m-1"),
        ("ce-type", "Notification"),
        ("ce-subject", "Order%20paid"),
        ("ce-partitionkey", TOPIC),
        ("ce-time", "2026-11-20T06:15:04.131Z"),
    ] {
        assert_eq!(message.header(name), Some(value), "{name}");
    }
    let mut first_version = notification("m-2");
    first_version.as_object_mut().unwrap().remove("Subject");
    signer.sign(&mut first_version, "1");
    assert_eq!(
        bridge
            .send(&post(&first_version))
            .expect_success("published"),
        "m-2"
    );
}

#[test]
fn a_subscription_of_sns_is_answered_reported_and_not_confirmed_by_default() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("sns");
    let signer = Signer::new();
    let bridge = ready(nats, &stream, &signer);
    let forged = confirmation("SubscriptionConfirmation");
    bridge
        .send(&post(&forged))
        .expect_problem(401, "missing_signature");
    for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"] {
        let mut message = signer.signed(confirmation(kind));
        assert_eq!(bridge.send(&post(&message)).status, 200, "{kind}");
        message["Token"] = "23ae".into();
        bridge
            .send(&post(&message))
            .expect_problem(401, "invalid_signature");
    }
    let url = format!("https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=23af");
    let is_told = |words: &str| bridge.log().iter().any(|line| line.contains(words));
    wait::until("the log", wait::PATIENCE, || {
        is_told(&url) && is_told("has ended")
    });
    assert_eq!(nats.read(&stream).len(), 0);
    let metrics = bridge.metrics();
    let handshakes = [("source", "aws-sns"), ("outcome", "handshake")];
    let count = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).round();
    assert!((count("hookbridge_requests_total", &handshakes) - 2.0).abs() < f64::EPSILON);
    assert!(count("hookbridge_outbound_requests_total", &[]).abs() < f64::EPSILON);
}

#[test]
fn an_unknown_sns_certificate_leaves_the_verdict_open_until_its_file_exists() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("sns");
    let signer = Signer::new();
    let elsewhere = signer.0.join("elsewhere.pem");
    std::fs::rename(signer.certificate(), &elsewhere).unwrap();
    let bridge = ready(nats, &stream, &signer);
    let request = post(&signer.signed(notification("m-1")));
    let answer = bridge.send(&request);
    answer.expect_problem(503, "provider_unavailable");
    assert!(answer.header("retry-after").is_some());
    let before = bridge.reloads();
    std::fs::rename(&elsewhere, signer.certificate()).unwrap();
    assert!(bridge.wait_for_reload(before));
    bridge.send(&request).expect_success("published");
    assert_eq!(only(nats.read(&stream)).value, request.body);
}

#[test]
fn send_signs_as_sns_does() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("sns");
    let signer = Signer::new();
    std::fs::rename(
        signer.certificate(),
        signer
            .folder()
            .join("SimpleNotificationService-example.pem"),
    )
    .unwrap();
    let bridge = ready(nats, &stream, &signer);
    let key = std::fs::read_to_string(signer.0.join("key.pem")).unwrap();
    let url = format!("http://{}/hooks/aws-sns", bridge.public);
    let done = hookbridge([
        "send",
        "--provider",
        "aws-sns",
        "--secret",
        &key,
        "--url",
        &url,
        "--sample",
        "Notification",
    ]);
    done.expect_code(0);
    assert_eq!(
        only(nats.read(&stream)).header("ce-type"),
        Some("Notification")
    );
    let told = hookbridge(["providers", "aws-sns"]).expect_code(0).stdout;
    for words in [
        "RSA signature in the body",
        "confirm_subscriptions, fetch_certificates",
        "fetch_certificates = true",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("secrets ="), "{told}");
}

/// A fake Amazon server with a configurable answer.
struct Amazon {
    requests: Arc<Mutex<Vec<String>>>,
}

impl Amazon {
    /// `None` if the system does not permit its port.
    fn start(address: Ipv4Addr, folder: &Path, pem: Vec<u8>) -> Option<Self> {
        openssl(
            folder,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -addext basicConstraints=critical,CA:FALSE -keyout amazon-key.pem -out amazon.pem"
            ),
        );
        let listener = match TcpListener::bind((address, 443)) {
            Ok(listener) => listener,
            Err(error) => {
                process::skip("a server at port 443", &error.to_string());
                return None;
            }
        };
        let certificate = CertificateDer::from_pem_file(folder.join("amazon.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("amazon-key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop(serve(stream, &config, &seen, &pem));
            }
        });
        Some(Self { requests })
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    seen: &Mutex<Vec<String>>,
    pem: &[u8],
) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut header = String::new();
    while header != "\r\n" {
        header.clear();
        stream.read_line(&mut header)?;
    }
    let line = line.trim_end().to_owned();
    let body = if line.contains("/?Action=") {
        b"<ConfirmSubscriptionResponse/>"
    } else {
        pem
    };
    let head = if line.contains("Moved") {
        "302 Found\r\nLocation: /SimpleNotificationService-redirected.pem"
    } else {
        "200 OK"
    };
    seen.lock().unwrap().push(line);
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn where_it_is_allowed_a_certificate_of_sns_is_fetched_once_and_a_subscription_confirmed() {
    let address = Ipv4Addr::new(127, 43, 17, 1);
    let (Some(hosts), Some(nats)) = (Hosts::with(HOST, address), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("sns");
    let signer = Signer::new();
    let pem = std::fs::read(signer.certificate()).unwrap();
    let Some(amazon) = Amazon::start(address, &signer.0, pem) else {
        return;
    };
    let authorities = signer.0.join("amazon.pem");
    let files = write("", &configuration(nats, &stream, ""));
    let environment = [("SSL_CERT_FILE", authorities.to_str().unwrap())];
    let bridge = Bridge::run_command(hosts.command(PROGRAM), &files, &environment);
    bridge.wait_ready();
    // The bridge follows neither a foreign URL nor a redirect from Amazon.
    let mut forged = notification("m-0");
    forged["Signature"] = "AAAA".into();
    forged["SignatureVersion"] = "2".into();
    let mut elsewhere = forged.clone();
    elsewhere["SigningCertURL"] = format!("https://{address}/{FILE}").into();
    bridge
        .send(&post(&elsewhere))
        .expect_problem(401, "invalid_signature");
    elsewhere["SigningCertURL"] = forged["SigningCertURL"].clone();
    elsewhere["TopicArn"] = "arn:aws:sns:eu-central-1:999988887777:attacker".into();
    bridge
        .send(&post(&elsewhere))
        .expect_problem(401, "unauthorized");
    assert_eq!(amazon.requests(), [""; 0]);
    let mut moved = forged.clone();
    moved["SigningCertURL"] = format!("https://{HOST}/Moved.pem").into();
    bridge
        .send(&post(&moved))
        .expect_problem(503, "provider_unavailable");
    assert_eq!(amazon.requests(), ["GET /Moved.pem HTTP/1.1"]);
    // The first message waits for its certificate; then a forged one is recognized, and nothing is fetched twice.
    let subscription = signer.signed(confirmation("SubscriptionConfirmation"));
    assert_eq!(bridge.send(&post(&subscription)).status, 200);
    bridge
        .send(&post(&forged))
        .expect_problem(401, "invalid_signature");
    let request = post(&signer.signed(notification("m-1")));
    bridge.send(&request).expect_success("published");
    let ended = signer.signed(confirmation("UnsubscribeConfirmation"));
    assert_eq!(bridge.send(&post(&ended)).status, 200);
    let expected = [
        "GET /Moved.pem HTTP/1.1".to_owned(),
        format!("GET /{FILE} HTTP/1.1"),
        format!("GET /?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=23af HTTP/1.1"),
    ];
    assert_eq!(amazon.requests(), expected);
    assert_eq!(only(nats.read(&stream)).value, request.body);
    let metrics = bridge.metrics();
    for (outcome, expected) in [("ok", 2.0), ("failed", 1.0), ("refused", 0.0)] {
        let count = metrics.sum(
            "hookbridge_outbound_requests_total",
            &[("outcome", outcome)],
        );
        assert!(
            (count - expected).abs() < f64::EPSILON,
            "{outcome}: {count}"
        );
    }
}
