//! NATS alone: JetStream's duplicates, messages without a stream, logins and TLS.

use std::time::Duration;

use super::stored::odd_bodies;
use crate::support::bridge::{Bridge, nats_broker, route, synq_source};
use crate::support::consumer::{only, values};
use crate::support::events::{self, Event};
use crate::support::fixture::nats;
use crate::support::kafka::unique;
use crate::support::nats::{self, Access, Nats};
use crate::support::tls;

#[test]
fn header_values_are_percent_encoded_as_the_cloudevents_binding_says() {
    let bridge = or_skip!(nats().source("dedup_window = \"0s\"").run());
    let unique = events::new_id();
    let id = format!("Grüße \"100%\" {unique}");
    let body = serde_json::json!({ "event_id": id, "ping": {} })
        .to_string()
        .into_bytes();
    let event = Event { id, body };
    bridge.deliver(&event).expect_published(&event);
    let message = only(bridge.read());
    assert_eq!(
        message.header("ce-id"),
        Some(format!("Gr%C3%BC%C3%9Fe%20%22100%25%22%20{unique}").as_str())
    );
    assert_eq!(message.value, event.body);
    // To JetStream, a repetition is the same message.
    assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
}

#[test]
fn an_event_that_jetstream_has_seen_is_answered_200_duplicate() {
    let bridge = or_skip!(nats().source("dedup_window = \"0s\"").run());
    let event = bridge.publish_ping();
    assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
    only(bridge.read());
}

#[test]
fn core_nats_delivers_to_subscribers_without_a_stream() {
    let Some(nats) = Nats::shared() else { return };
    let subject = unique("core");
    let mut subscription = nats.subscribe(&format!("{subject}.>"));
    let rest = nats_broker("main", &nats.url)
        + "ack = \"core\"\n"
        + &synq_source("")
        + &route(&format!("{subject}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    for event in odd_bodies() {
        bridge.deliver(&event).expect_published(&event);
        let message = subscription.next();
        assert_eq!(
            (message.value.as_slice(), message.event_id()),
            (event.body.as_slice(), event.id.as_str())
        );
        assert_eq!(message.topic, format!("{subject}.ping"));
    }
}

#[test]
fn publish_timeout_of_a_source_goes_before_the_general_one() {
    let bridge = or_skip!(
        nats()
            .http("publish_timeout = \"55s\"")
            .source("publish_timeout = \"1s\"")
            .run()
    );
    bridge.silence();
    let answer = bridge.deliver_within(&events::ping(), Duration::from_secs(20));
    answer.expect_problem(503, "publish_timeout");
}

#[test]
fn an_event_too_large_for_nats_is_503_and_does_not_affect_others() {
    let Some(nats) = Nats::private() else { return };
    let stream = nats.stream_with("nats", |settings| settings.max_message_size = 20_000);
    let bridge = Bridge::to_nats(
        &nats,
        &stream,
        "publish_timeout = \"3s\"\nmax_body = \"16MiB\"",
        "max_body = \"16MiB\"",
    );
    let (too_large_for_stream, too_large_for_server) = (
        events::ping_of_size(200_000),
        events::ping_of_size(9_000_000),
    );
    let small: Vec<_> = (0..20).map(|_| events::ping()).collect();
    std::thread::scope(|scope| {
        let answers = [&too_large_for_stream, &too_large_for_server]
            .map(|event| scope.spawn(|| bridge.deliver(event)));
        for event in &small {
            bridge.deliver(event).expect_published(event);
        }
        for answer in answers {
            answer
                .join()
                .unwrap()
                .expect_problem(503, "broker_unavailable");
        }
    });
    let stored = values(nats.read(&stream));
    assert!(stored.iter().eq(small.iter().map(|event| &event.body)));
}

#[test]
fn an_event_that_the_client_refuses_is_503_immediately_and_does_not_affect_others() {
    let url = nats::fake::start(|number| {
        let is_first = number == 0;
        (!is_first).then(|| format!(r#"{{"stream":"S","seq":{number}}}"#))
    });
    let rest =
        nats_broker("main", &url) + &synq_source("max_body = \"16MiB\"") + &route("events.x");
    let bridge = Bridge::run_with("publish_timeout = \"20s\"\nmax_body = \"16MiB\"", &rest);
    bridge.wait_ready();
    std::thread::scope(|scope| {
        let unanswered = scope.spawn(|| bridge.deliver(&events::ping()));
        bridge.wait_metric("hookbridge_in_flight", &[], 1.0);
        let large = events::ping_of_size(2_000_000);
        bridge
            .deliver(&large)
            .expect_problem(503, "broker_unavailable");
        let small = events::ping();
        bridge.deliver(&small).expect_published(&small);
        assert!(!unanswered.is_finished());
        drop(unanswered.join());
    });
}

// ---- Logins and TLS

/// Publishes through a broker table to a server with logins.
fn publishes(nats: &Nats, broker: &str) {
    let stream = nats.stream("login");
    let rest = broker.to_owned() + &synq_source("") + &route(&format!("{stream}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = bridge.publish_ping();
    assert_eq!(only(nats.read(&stream)).value, event.body);
}

/// The address with a user or a token in it.
fn with_login(nats: &Nats, login: &str) -> String {
    nats.url.replace("nats://", &format!("nats://{login}@"))
}

#[test]
fn user_and_password_are_used() {
    let access = Access::Password {
        user: "bridge",
        password: "hunter2",
    };
    let nats = or_skip!(Nats::private_for(access));
    publishes(
        &nats,
        &(nats_broker("main", &nats.url) + "user = \"bridge\"\npassword = \"hunter2\"\n"),
    );
    publishes(
        &nats,
        &nats_broker("main", &with_login(&nats, "bridge:hunter2")),
    );
}

#[test]
fn a_token_is_used() {
    let nats = or_skip!(Nats::private_for(Access::Token("s3cr3t-t0ken")));
    publishes(
        &nats,
        &(nats_broker("main", &nats.url) + "token = \"s3cr3t-t0ken\"\n"),
    );
    publishes(
        &nats,
        &nats_broker("main", &with_login(&nats, "s3cr3t-t0ken")),
    );
}

#[test]
fn tls_is_spoken_with_an_authority_of_the_operators() {
    let nats = or_skip!(Nats::private_with_tls());
    let authority = tls::CERTIFICATES.authority.display();
    publishes(
        &nats,
        &(nats_broker("main", &nats.url) + &format!("tls = {{ ca = \"{authority}\" }}\n")),
    );
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_not_published_to() {
    let nats = or_skip!(Nats::private_with_tls());
    let stream = nats.stream("login");
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&format!("{stream}.x"));
    let bridge = Bridge::run(&rest);
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "broker_unavailable");
    let readyz = bridge.admin("/readyz");
    assert_eq!(readyz.status, 503, "{readyz:?}");
    assert!(
        String::from_utf8_lossy(&readyz.body).contains("main"),
        "{readyz:?}"
    );
    assert_eq!(nats.read(&stream), []);
}

#[test]
fn a_credentials_file_is_used() {
    let access = nats::credentials();
    let Access::Credentials { file, .. } = &access else {
        unreachable!("they are credentials")
    };
    let credentials = format!("credentials = \"{}\"\n", file.display());
    let nats = or_skip!(Nats::private_for(access));
    publishes(&nats, &(nats_broker("main", &nats.url) + &credentials));
}

#[test]
fn a_wrong_password_is_503_and_never_shown() {
    let access = Access::Password {
        user: "bridge",
        password: "hunter2",
    };
    let nats = or_skip!(Nats::private_for(access));
    let stream = nats.stream("login");
    let secret = "not-hunter2-at-all";
    let brokers = [
        nats_broker("main", &with_login(&nats, &format!("bridge:{secret}"))),
        nats_broker("main", &nats.url) + &format!("user = \"bridge\"\npassword = \"{secret}\"\n"),
    ];
    for broker in brokers {
        let bridge =
            Bridge::run(&(broker + &synq_source("") + &route(&format!("{stream}.{{type}}"))));
        bridge
            .deliver(&events::ping())
            .expect_problem(503, "broker_unavailable");
        let shown = bridge.wait_unready(&["authentication"]);
        for text in [shown, bridge.log().join("\n"), bridge.metrics().0] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(nats.read(&stream), []);
}
