//! Kafka users that log in with an access token: `sasl.mechanism = "OAUTHBEARER"` and an identity provider.

use std::time::Duration;

use crate::support::bridge::{
    self, Bridge, hookbridge, hookbridge_reading, kafka_broker, route, synq_source,
};
use crate::support::consumer::Stored;
use crate::support::events;
use crate::support::kafka::Kafka;
use crate::support::kafka::tokens::{CLIENT, Provider};
use crate::support::tls;
use crate::support::wait::{self, PATIENCE};

const HOUR: Duration = Duration::from_secs(3600);

/// A broker table, a source and a route, and more options.
fn configuration(address: &str, url: &str, secret: &str, more: &str, topic: &str) -> String {
    kafka_broker("main", address)
        + &format!(
            "options = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"OAUTHBEARER\", \
             \"sasl.oauthbearer.method\" = \"oidc\", \"sasl.oauthbearer.client.id\" = \"{}\", \
             \"sasl.oauthbearer.client.secret\" = {secret}, \"sasl.oauthbearer.scope\" = \"kafka write\", \
             \"sasl.oauthbearer.token.endpoint.url\" = \"{url}\"{more} }}\n",
            CLIENT.0
        )
        + &synq_source("dedup_window = \"0s\"")
        + &route(topic)
}

fn trusted() -> String {
    let authority = tls::CERTIFICATES.authority.display();
    format!(", \"https.ca.location\" = \"{authority}\"")
}

fn secret() -> String {
    format!("\"{}\"", CLIENT.1)
}

/// A topic of a Kafka that takes tokens, a provider of them, and a configuration with this secret.
fn set_up(secret: &str) -> Option<(&'static Kafka, String, Provider, String)> {
    let (kafka, address) = Kafka::with_tokens()?;
    let topic = kafka.topic("oidc");
    let provider = Provider::start(HOUR);
    let rest = configuration(address, &provider.url(), secret, &trusted(), &topic);
    Some((kafka, topic, provider, rest))
}

/// Neither a client's secret nor its encoding.
fn expect_no_secret(shown: &str) {
    let has_secret = shown.contains("hunter2") || shown.contains("YnJpZGdlOmh1");
    assert!(!has_secret, "{shown}");
}

fn values(stored: &[Stored]) -> Vec<&[u8]> {
    stored.iter().map(|message| &message.value[..]).collect()
}

#[test]
fn an_access_token_is_renewed_in_time_and_its_loss_shows_until_there_is_another_one() {
    let Some((kafka, address)) = Kafka::with_tokens() else {
        return;
    };
    let topic = kafka.topic("oidc");
    let provider = Provider::start(Duration::from_secs(16));
    let rest = configuration(address, &provider.url(), &secret(), &trusted(), &topic);
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    bridge.wait_ready();
    let first = events::issue("created", "i1");
    bridge.deliver(&first).expect_published(&first);
    // By the fourth token for all clients, the first ones have expired.
    wait::until("tokens are renewed", PATIENCE, || provider.granted() >= 4);
    assert_eq!(bridge.admin("/readyz").status, 200);
    let second = events::issue("created", "i2");
    bridge.deliver(&second).expect_published(&second);

    provider.set_broken(true);
    bridge.wait_for_log("no new access token for Kafka");
    let shown = wait::until_some("/readyz says why", PATIENCE, || {
        let answer = bridge.admin("/readyz");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let is_named = body.contains("no access token") && body.contains("answers 503");
        (answer.status == 503 && is_named).then_some(body)
    });
    bridge
        .deliver(&events::issue("created", "i3"))
        .expect_problem(503, "broker_unavailable");

    provider.set_broken(false);
    bridge.wait_ready();
    let fourth = events::issue("created", "i4");
    bridge.deliver(&fourth).expect_published(&fourth);
    assert_eq!(
        values(&kafka.read(&topic)),
        [&first, &second, &fourth].map(|event| &event.body[..])
    );
    for text in [shown, bridge.log().join("\n"), bridge.metrics().0] {
        assert!(!text.contains(CLIENT.1), "{text}");
        for token in provider.tokens() {
            assert!(!text.contains(&token), "{text}");
        }
    }
}

#[test]
fn check_tells_a_token_endpoint_that_fails_from_a_broker_that_refuses() {
    let Some((kafka, address)) = Kafka::with_tokens() else {
        return;
    };
    let topic = kafka.topic("oidc");
    let provider = Provider::start(HOUR);
    let liar = Provider::start(HOUR);
    liar.grant_expired_tokens();
    let url = provider.url();
    let (secret, trusted) = (secret(), trusted());
    let wrong = "\"hunter2-and-wrong\"";
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("https://{}/token", listener.local_addr().unwrap())
    };
    for (url, secret, more, expected) in [
        (&*url, &*secret, &*trusted, None),
        (
            &url,
            wrong,
            &trusted,
            Some("refuses the client (401: invalid_client"),
        ),
        (&closed, &secret, &trusted, Some("can't be reached")),
        (&url, &secret, "", Some("TLS with 127.0.0.1")),
        (
            &liar.url(),
            &secret,
            &trusted,
            Some("SASL authentication error: {\"status\":\"invalid_token\"}"),
        ),
    ] {
        let files = bridge::write("", &configuration(address, url, secret, more, &topic));
        let done = hookbridge([
            "check",
            "--connect",
            "--config",
            files.file.to_str().unwrap(),
        ]);
        let shown = format!("{}{}", done.stdout, done.stderr);
        let done = done.expect_code(i32::from(expected.is_some()));
        let said = expected.unwrap_or("can't log in with OAUTHBEARER");
        assert!(shown.contains(said), "{said}: {done:?}");
        let is_tokens_fault = shown.contains("no access token");
        assert_eq!(
            is_tokens_fault,
            expected.is_some_and(|said| !said.starts_with("SASL")),
            "{shown}"
        );
        expect_no_secret(&shown);
    }
}

#[test]
fn a_bridge_whose_client_secret_is_refused_is_not_ready_and_says_why() {
    let Some((kafka, topic, _provider, rest)) = set_up("\"hunter2-and-wrong\"") else {
        return;
    };
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    wait::until("/readyz says why", PATIENCE, || {
        let answer = bridge.admin("/readyz");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!body.contains("hunter2"), "{body}");
        answer.status == 503 && body.contains("no access token") && body.contains("invalid_client")
    });
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "broker_unavailable");
    expect_no_secret(&bridge.log().join("\n"));
    assert_eq!(kafka.read(&topic), []);
}

#[test]
fn tail_and_replay_log_in_with_a_token() {
    let secret = "{ env = \"KAFKA_CLIENT_SECRET\" }";
    let Some((_, topic, _provider, rest)) = set_up(secret) else {
        return;
    };
    let files = bridge::write("", &rest);
    let environment = [("KAFKA_CLIENT_SECRET", CLIENT.1)];
    let bridge = Bridge::run_files(&files, &environment);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    let file = files.file.to_str().unwrap();
    for command in [
        &["tail", "--from-start", "--count", "1"][..],
        &["replay", "--from", &topic, "--dry-run"],
    ] {
        let arguments = [command, &["--config", file]].concat();
        let done = hookbridge_reading(arguments, b"", &environment);
        let shown = format!("{}{}", done.stdout, done.stderr);
        assert!(shown.contains(&event.id), "{command:?}: {shown}");
    }
}

#[test]
fn require_durable_is_refused_where_no_inspection_can_fulfil_it() {
    let rest = configuration("127.0.0.1:1", "https://127.0.0.1:1/", &secret(), "", "t")
        .replace("options =", "require_durable = true\noptions =");
    let files = bridge::write("", &rest);
    let done = hookbridge(["check", "--config", files.file.to_str().unwrap()]).expect_code(1);
    assert!(done.stderr.contains("it can't be satisfied"), "{done:?}");
}
