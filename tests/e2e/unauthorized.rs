//! A request that fails verification learns little and achieves nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::support::bridge::{Bridge, nats_broker, route};
use crate::support::nats::Nats;
use crate::support::sender::{Answer, Connection, Request};

const SECRET: &str = "user:a-password-of-ours";

fn run(nats: &Nats, stream: &str, sources: &str) -> Bridge {
    let route = route(&format!("{stream}.x"));
    let bridge = Bridge::run(&(nats_broker("main", &nats.url) + sources + &route));
    bridge.wait_ready();
    bridge
}

fn challenges(answer: &Answer) -> Vec<&str> {
    let headers = answer.headers.iter();
    let named = headers.filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    named.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn every_401_says_how_to_authenticate_and_no_other_answer_does() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("challenges");
    let (basic, bearer, other) = (
        "Basic realm=\"hookbridge\"",
        "Bearer realm=\"hookbridge\"",
        "Webhook realm=\"hookbridge\"",
    );
    let cases = [
        ("auth = \"basic\"", vec![basic]),
        ("auth = [\"bearer\", \"basic\"]", vec![bearer, basic]),
        ("auth = [\"jwt\", \"bearer\"]", vec![bearer]),
        ("auth = [\"header:x-key\", \"query:key\"]", vec![other]),
        (
            "verify = { signature = { header = \"x-signature\" } }",
            vec![other],
        ),
        // Whoever may not send at all, and a head that gives its sender away.
        (
            "auth = \"basic\"\nallow_from = [\"192.0.2.1\"]",
            vec![basic],
        ),
        (
            "verify = { signature = { header = \"x-signature\" }, timestamp = { header = \"x-time\" }, tolerance = \"5m\", content = \"{timestamp}\" }",
            vec![other],
        ),
    ];
    let source = |(index, (keys, _)): (usize, &(&str, Vec<&str>))| {
        format!(
            "[sources.x{index}]\nprovider = \"generic\"\nsecrets = [\"{SECRET}\"]\n{keys}\n\
             event = {{ id = \"{{/id}}\", type = \"x\" }}\n"
        )
    };
    let sources: String = cases.iter().enumerate().map(source).collect();
    let bridge = run(nats, &stream, &sources);
    for (index, (keys, expected)) in cases.iter().enumerate() {
        let refused = bridge.send(&Request::post(&format!("/hooks/x{index}"), "{}"));
        assert_eq!(refused.status, 401, "{keys}: {refused:?}");
        assert_eq!(challenges(&refused), *expected, "{keys}");
    }
    // As Amazon SNS and other clients do: the same request again, with what was asked for.
    let mut connection = Connection::open(bridge.public).unwrap();
    let request = Request::post("/hooks/x0", r#"{"id":"1"}"#);
    let asked = connection.send(&request).unwrap();
    asked.expect_problem(401, "unauthorized");
    let credentials = format!("Basic {}", BASE64.encode(SECRET.as_bytes()));
    let request = request.header("Authorization", &credentials);
    let accepted = connection.send(&request).unwrap();
    accepted.expect_success("published");
    let unknown = bridge.send(&Request::post("/nowhere", "{}"));
    let invalid = Request::post("/hooks/x0", "{").header("Authorization", &credentials);
    let invalid = bridge.send(&invalid);
    for answer in [accepted, unknown, invalid] {
        assert!(challenges(&answer).is_empty(), "{answer:?}");
    }
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn a_mailgun_token_is_good_for_one_body_and_its_repetitions_also_after_a_reload() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("tokens");
    let source = format!("[sources.mailgun]\nsecrets = [\"{SECRET}\"]\n");
    let configuration = |keys: &str| {
        nats_broker("main", &nats.url) + &source + keys + &route(&format!("{stream}.x"))
    };
    let mut bridge = run(nats, &stream, &source);
    let (time, token) = (seconds().to_string(), "t".repeat(50));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}{token}").as_bytes());
    let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
    let event = |id: &str| {
        let signature = json!({ "timestamp": time, "token": token, "signature": signature });
        let event = json!({ "event": "opened", "id": id });
        let body = json!({ "signature": signature, "event-data": event });
        Request::post("/hooks/mailgun", body.to_string())
    };
    let fields = format!("timestamp={time}&token={token}&signature={signature}&event=opened");
    let form = Request::post("/hooks/mailgun", fields)
        .without("content-type")
        .header("Content-Type", "application/x-www-form-urlencoded");
    bridge.send(&event("1")).expect_success("published");
    for attempt in ["before a reload", "after it"] {
        bridge.send(&event("1")).expect_success("duplicate");
        for forged in [&event("2"), &form] {
            let problem = bridge.send(forged).expect_problem(401, "invalid_signature");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("for another body"), "{attempt}: {detail}");
        }
        assert!(bridge.reload(&configuration("tolerance = \"8h\"\n")));
    }
    assert_eq!(nats.read(&stream).len(), 1);
}

#[test]
fn an_undeclared_length_gets_no_more_than_a_handshake_read_without_a_token() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("undeclared");
    let source = format!(
        "[sources.monday]\nsecrets = [\"{SECRET}\"]\npublic_url = \"https://hooks.example.com/hooks/monday\"\n"
    );
    let bridge = run(nats, &stream, &source);
    let chunk = |bytes: &[u8]| {
        let size = format!("{:x}\r\n", bytes.len());
        [size.as_bytes(), bytes, b"\r\n"].concat()
    };
    let head = Request::post("/hooks/monday", "").chunked(1).head();
    // Small enough for a handshake: its end is waited for.
    let mut patient = Connection::open(bridge.public).unwrap();
    patient.write(&head).unwrap();
    patient.write(&chunk(b"{\"challenge\":")).unwrap();
    // Too large for one, and its end never comes.
    let mut endless = Connection::open(bridge.public).unwrap();
    endless.write(&head).unwrap();
    endless.write(&chunk(&[b' '; 9000])).unwrap();
    let answer = endless.read_answer().unwrap();
    answer.expect_problem(401, "missing_signature");
    assert!(answer.says_close(), "{answer:?}");
    patient.write(&chunk(b"\"c\"}")).unwrap();
    patient.write(b"0\r\n\r\n").unwrap();
    let answer = patient.read_answer().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({ "challenge": "c" }));
}
