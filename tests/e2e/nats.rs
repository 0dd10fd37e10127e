//! What NATS holds after a 200, with JetStream and without, and what it may refuse.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::stream::DiscardPolicy;

use super::kafka::{carries_every_byte, odd_bodies, received_since};
use crate::support::bridge::{Bridge, nats_broker, route, route_with, synq_source};
use crate::support::consumer::{only, values};
use crate::support::events::{self, Event};
use crate::support::kafka::unique;
use crate::support::nats::{self, Access, Nats};
use crate::support::sender::Request;
use crate::support::wait::{self, PATIENCE};
use crate::support::{runtime, tls};

#[test]
fn the_value_is_the_body_byte_for_byte() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("nats");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let mut sent = odd_bodies();
    if nats.takes_large_messages() {
        sent.push(events::ping_of_size(1024 * 1024)); // exactly the default max_body
    }
    carries_every_byte(&bridge, &sent, || nats.read(&stream));
}

#[test]
fn headers_are_exactly_the_contracts() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("nats");
    let bridge = Bridge::to_nats(nats, &stream, "", "");
    let before = SystemTime::now();
    let event = events::issue("created", "0b51f1f2");
    let request = Request::event(&event)
        .header("X-Request-Source", "not listed")
        .header("Nats-Msg-Id", "not mine")
        .header("Nats-Rollup", "all")
        .header("ce-id", "not mine");
    bridge.send(&request).expect_published(&event);
    let message = only(nats.read(&stream));
    assert_eq!(message.topic, format!("{stream}.issue_created"));
    let id = message.header("Nats-Msg-Id").unwrap_or_default();
    assert!(
        id.strip_prefix(&format!("synq/{}/", event.id))
            .is_some_and(|hash| hash.len() == 32),
        "{id}"
    );
    let expected = [
        ("Nats-Msg-Id", id),
        ("ce-id", event.id.as_str()),
        ("ce-partitionkey", "0b51f1f2"),
        ("ce-source", "/hookbridge/synq"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "0b51f1f2"),
        ("ce-time", "2026-11-20T06:15:04.5Z"),
        ("ce-type", "issue_created"),
        ("content-type", "application/json"),
        ("event_id", event.id.as_str()),
    ];
    message.expect_headers(&expected, &["ce-recordedtime"]);
    received_since(before, message.header("ce-recordedtime").unwrap());
}

#[test]
fn header_values_are_percent_encoded_as_the_cloudevents_binding_says() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("nats");
    let bridge = Bridge::to_nats(nats, &stream, "", "dedup_window = \"0s\"");
    let unique = events::new_id();
    let id = format!("Grüße \"100%\" {unique}");
    let body = serde_json::json!({ "event_id": id, "ping": {} })
        .to_string()
        .into_bytes();
    let event = Event { id, body };
    bridge.deliver(&event).expect_published(&event);
    let message = only(nats.read(&stream));
    assert_eq!(
        message.header("ce-id"),
        Some(format!("Gr%C3%BC%C3%9Fe%20%22100%25%22%20{unique}").as_str())
    );
    assert_eq!(message.value, event.body);
    // The same once more is still the same message for JetStream.
    assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
}

#[test]
fn what_jetstream_has_seen_is_answered_200_duplicate() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("nats");
    let bridge = Bridge::to_nats(nats, &stream, "", "dedup_window = \"0s\"");
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    assert_eq!(bridge.deliver(&event).expect_success("duplicate"), event.id);
    only(nats.read(&stream));
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
fn a_subject_without_a_stream_is_503_and_published_to_once_there_is_one() {
    let Some(nats) = Nats::shared() else { return };
    let (good, missing) = (nats.stream("nats"), unique("nats"));
    let rest = nats_broker("main", &nats.url)
        + &synq_source("")
        + &route_with(&format!("{missing}.x"), "types = [\"issue_*\"]")
        + &route_with(&format!("{good}.x"), "");
    let bridge = Bridge::run_with("publish_timeout = \"3s\"", &rest);
    let other = events::ping();
    wait::until("the broker is connected", PATIENCE, || {
        bridge.deliver(&other).status == 200
    });
    let started = Instant::now();
    bridge
        .deliver(&events::issue("created", "i1"))
        .expect_problem(503, "broker_unavailable");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    nats.stream_with("nats", |settings| {
        settings.name.clone_from(&missing);
        settings.subjects = vec![format!("{missing}.>")];
    });
    let event = events::issue("created", "i1");
    wait::until("the subject is published to", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
    let stored = nats.read(&missing);
    assert!(
        stored.iter().all(|message| message.event_id() == event.id),
        "the refused one is not there: {stored:?}"
    );
}

#[test]
fn a_full_stream_is_503_until_there_is_room() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("nats", |settings| {
        settings.max_messages = 2;
        settings.discard = DiscardPolicy::New;
    });
    let bridge = Bridge::to_nats(nats, &stream, "publish_timeout = \"3s\"", "");
    for _ in 0..2 {
        let event = events::ping();
        bridge.deliver(&event).expect_published(&event);
    }
    let refused = events::ping();
    let problem = bridge.deliver(&refused);
    problem.expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&stream).len(), 2);
    runtime().block_on(async {
        let context = async_nats::jetstream::new(nats.connect().await);
        context
            .get_stream(&stream)
            .await
            .unwrap()
            .purge()
            .await
            .unwrap();
    });
    bridge.deliver(&refused).expect_published(&refused);
}

#[test]
fn a_stream_that_never_acknowledges_is_503_publish_timeout_in_time() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("nats", |settings| settings.no_ack = true);
    let bridge = Bridge::to_nats(nats, &stream, "publish_timeout = \"2s\"", "");
    let event = events::ping();
    let started = Instant::now();
    bridge
        .deliver(&event)
        .expect_problem(503, "publish_timeout");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        only(nats.read(&stream)).value,
        event.body,
        "not known to be stored, and here it is"
    );
}

#[test]
fn publish_timeout_of_a_source_goes_before_the_general_one() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("nats", |settings| settings.no_ack = true);
    let bridge = Bridge::to_nats(
        nats,
        &stream,
        "publish_timeout = \"55s\"",
        "publish_timeout = \"1s\"",
    );
    let started = Instant::now();
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "publish_timeout");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_nats_finds_too_large_is_503_and_hurts_nobody_else() {
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
fn what_the_client_refuses_while_others_are_under_way_is_503_at_once_and_hurts_nobody_else() {
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
        wait::until("one is under way", PATIENCE, || {
            bridge.metrics().sum("hookbridge_in_flight", &[]) == 1.0
        });
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

/// Publishes through a broker table to a server that not everyone may use.
fn publishes(nats: &Nats, broker: &str) {
    let stream = nats.stream("login");
    let rest = broker.to_owned() + &synq_source("") + &route(&format!("{stream}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
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
    let Some(nats) = Nats::private_for(access) else {
        return;
    };
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
    let Some(nats) = Nats::private_for(Access::Token("s3cr3t-t0ken")) else {
        return;
    };
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
    let Some(nats) = Nats::private_with_tls() else {
        return;
    };
    let authority = tls::CERTIFICATES.authority.display();
    publishes(
        &nats,
        &(nats_broker("main", &nats.url) + &format!("tls = {{ ca = \"{authority}\" }}\n")),
    );
}

#[test]
fn a_server_whose_certificate_nobody_vouches_for_is_not_published_to() {
    let Some(nats) = Nats::private_with_tls() else {
        return;
    };
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
    let Some(nats) = Nats::private_for(access) else {
        return;
    };
    publishes(&nats, &(nats_broker("main", &nats.url) + &credentials));
}

#[test]
fn a_wrong_password_is_503_and_never_shown() {
    let access = Access::Password {
        user: "bridge",
        password: "hunter2",
    };
    let Some(nats) = Nats::private_for(access) else {
        return;
    };
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
        let shown = wait::until_some("/readyz speaks of authentication", PATIENCE, || {
            let answer = bridge.admin("/readyz");
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            (answer.status == 503 && body.to_lowercase().contains("authentication")).then_some(body)
        });
        for text in [shown, bridge.log().join("\n"), bridge.metrics().0] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(nats.read(&stream), []);
}
