//! `expect_every`: the silence of a source shows, and only its authentic events end it.

use crate::support::bridge::{Bridge, nats_broker, route};
use crate::support::nats::Nats;
use crate::support::sender::Request;
use crate::support::wait::{self, PATIENCE};

const SILENT: &str = "hookbridge_source_silent";
const WORDS: &str = "source acme: no authentic event for ";

fn post(body: &str, token: &str) -> Request {
    Request::post("/hooks/acme", body).header("authorization", &format!("Bearer {token}"))
}

#[test]
fn silence_shows_in_log_metric_and_readyz_until_an_authentic_event_or_a_longer_expectation() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("silence");
    let configuration = |expect_every: &str| {
        let source = format!(
            "[sources.acme]\nauth = \"bearer\"\nsecrets = [\"a-token-of-16-bytes\"]\n{expect_every}\n\
             event = {{ id = \"{{/id}}\", type = \"ping\" }}\n\
             handshakes = [{{ pointer = \"/hello\", verified = true, answer = \"hello\" }}]\n"
        );
        nats_broker("main", &nats.url) + &source + &route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&configuration("expect_every = \"1s\""));
    bridge.wait_ready();
    let acme = [("source", "acme")];
    let wait_silent = || {
        bridge.wait_metric(SILENT, &acme, 1.0);
        wait::until("/readyz names the source", PATIENCE, || {
            let (status, body) = bridge.readyz();
            assert_eq!(status, 200, "{body}");
            body.starts_with("ready\n") && body.contains(WORDS)
        });
    };
    wait_silent();
    let began = "source silent: no authentic event for longer than expect_every";
    let line = bridge.wait_for_log(began);
    assert_eq!(line["source"], "acme", "{line}");
    assert_eq!(line["expect_every"], "1s", "{line}");
    assert_eq!(line["level"], "WARN", "{line}");

    // A forged request, and a handshake.
    bridge
        .send(&post("{\"id\":1}", "guessed"))
        .expect_problem(401, "unauthorized");
    let handshake = bridge.send(&post("{\"hello\":1}", "a-token-of-16-bytes"));
    assert_eq!(handshake.status, 200, "{handshake:?}");
    assert_eq!(bridge.metric(SILENT, &acme), 1.0);
    assert!(!bridge.log().join("\n").contains("no longer silent"));

    // Authentic, though of no use.
    bridge
        .send(&post("{}", "a-token-of-16-bytes"))
        .expect_problem(422, "missing_event_id");
    let line = bridge.wait_for_log("source no longer silent");
    assert_eq!(line["source"], "acme", "{line}");

    wait_silent();
    assert!(bridge.reload(&configuration("expect_every = \"1h\"")));
    assert_eq!(bridge.metric(SILENT, &acme), 0.0);
    let expected = bridge.metric("hookbridge_source_expect_every_seconds", &acme);
    assert_eq!(expected, 3600.0);
    let (_, body) = bridge.readyz();
    assert!(!body.contains(WORDS), "{body}");
    assert!(bridge.reload(&configuration("")));
    assert!(!bridge.metrics().0.contains(SILENT));
}
