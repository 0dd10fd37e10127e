//! Missing, full and misconfigured destinations: rows F13 to F18, F23 to F25.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy};

use super::trial::{Trial, copies};
use super::{LONG_RECOVERY, issue};
use crate::support::bridge::{
    Bridge, check_connect, kafka_broker, nats_broker, route, synq_source,
};
use crate::support::events;
use crate::support::fixture::{Broker, Setup};
use crate::support::kafka::{Kafka, unique};
use crate::support::nats::Nats;
use crate::support::proxy::Mode;
use crate::support::runtime;
use crate::support::wait::{self, PATIENCE};

async fn jetstream(nats: &Nats) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(nats.connect().await)
}

fn create_stream(nats: &Nats, name: &str) {
    nats.stream_with("f15", |settings| {
        name.clone_into(&mut settings.name);
        settings.subjects = vec![format!("{name}.>")];
    });
}

fn delete_stream(nats: &Nats, name: &str) {
    runtime().block_on(async {
        let deleted = jetstream(nats).await.delete_stream(name).await;
        assert!(deleted.expect("the stream was there").success);
    });
}

#[test]
fn f13_a_missing_kafka_topic_is_503_well_before_publish_timeout_until_it_is_created() {
    let Some(kafka) = Kafka::shared() else { return };
    let missing = unique("f13");
    let trial = Trial::new(
        20,
        "",
        &Setup::<Kafka>::new().tables(&kafka.address, &missing),
    );
    for _ in 0..2 {
        let sent = Instant::now();
        trial
            .deliver_new()
            .expect_problem(503, "broker_unavailable");
        // 5 s are documented; the rest is for a client that has just started.
        assert!(
            sent.elapsed() < Duration::from_secs(10),
            "{:?}",
            sent.elapsed()
        );
    }
    let labels = [("reason", "unknown_topic")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 2.0);
    let readyz = trial.bridge.admin("/readyz");
    assert!(
        String::from_utf8_lossy(&readyz.body).contains(&missing),
        "it names the topic: {readyz:?}"
    );
    kafka.create_topic(&missing, 1, &[]);
    trial.recover();
    trial.finish("F13 Kafka", &kafka.read(&missing));
}

#[test]
fn f14_a_kafka_topic_that_is_deleted_and_created_again_is_published_to_again() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic("f14");
    let mut trial = Trial::ready(4, &Setup::<Kafka>::new().tables(&kafka.address, &topic));
    assert_eq!(trial.deliver_new().status, 200);
    trial.finish("F14 before", &kafka.read(&topic));
    kafka.delete_topic(&topic);
    // A partition may still accept messages while the broker deletes it; they are lost with the old topic.
    wait::until("the bridge is told", PATIENCE, || {
        trial.deliver_new().outcome() == "broker_unavailable"
    });
    let before = trial.checker.answers();
    trial.checker = std::sync::Arc::default();
    for _ in 0..2 {
        assert_eq!(trial.deliver_new().status, 503);
    }
    kafka.create_topic(&topic, 1, &[]);
    trial.recover_within(LONG_RECOVERY);
    trial.at_rest();
    let requests = trial.bridge.metric("hookbridge_requests_total", &[]);
    assert_eq!(requests, (before + trial.checker.answers()) as f64);
    super::trial::finish("F14 Kafka", &trial.checker, &kafka.read(&topic));
}

#[test]
fn f15_a_stream_that_is_deleted_and_created_again_is_published_to_again() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("f15");
    let subject = format!("{stream}.x");
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&subject);
    let trial = Trial::ready(4, &rest);
    delete_stream(nats, &stream);
    // Retried within the request until half a second before its deadline.
    let refused = issue(0);
    trial
        .deliver(&refused)
        .expect_problem(503, "broker_unavailable");
    let labels = [("reason", "no_responders")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);

    // An event that waits inside its request is stored as soon as there is a stream.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| trial.deliver_new());
        wait::until("the event is in flight", PATIENCE, || {
            waits.is_finished() || trial.bridge.metric("hookbridge_in_flight", &[]) == 1.0
        });
        create_stream(nats, &stream);
        // Unless the creation took the whole time.
        let status = waits.join().unwrap().status;
        assert!([200, 503].contains(&status));
    });
    trial.recover();
    let stored = nats.read(&stream);
    assert_eq!(copies(&stored, &refused), 0);
    trial.finish("F15 NATS", &stored);
}

#[test]
fn f16_a_full_stream_is_503_with_a_longer_retry_after_until_there_is_room() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("f16", |settings| {
        settings.max_messages = 5;
        settings.discard = DiscardPolicy::New;
    });
    let trial = Trial::ready(20, &Setup::<Nats>::new().tables(&nats.url, &stream));
    for _ in 0..5 {
        assert_eq!(trial.deliver_new().status, 200);
    }
    let refused = issue(0);
    let answer = trial.deliver(&refused);
    answer.expect_problem(503, "broker_unavailable");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 5, "{answer:?}");
    let labels = [("reason", "stream_full")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);
    assert_eq!(
        trial.bridge.metric("hookbridge_publish_errors_total", &[]),
        1.0,
        "it is not tried again inside the request"
    );
    assert_eq!(copies(&nats.read(&stream), &refused), 0);
    runtime().block_on(async {
        let mut handle = jetstream(nats).await.get_stream(&stream).await.unwrap();
        let full = handle.info().await.unwrap().config.clone();
        let larger = async_nats::jetstream::stream::Config {
            max_messages: 100,
            ..full
        };
        jetstream(nats).await.update_stream(larger).await.unwrap();
    });
    trial.deliver(&refused).expect_published(&refused);
    trial.finish("F16 NATS", &nats.read(&stream));
}

#[test]
fn f17_a_server_without_storage_is_503_for_every_stream_on_it() {
    let nats = or_skip!(Nats::private_with("max_file_store: 8MiB"));
    let (filler, stream) = (nats.stream("f17-filler"), nats.stream("f17"));
    let trial = Trial::ready(20, &Setup::<Nats>::new().tables(&nats.url, &stream));
    assert_eq!(trial.deliver_new().status, 200);
    runtime().block_on(async {
        let context = jetstream(&nats).await;
        let mut refused = 0;
        while refused < 3 {
            let sent = context
                .publish(format!("{filler}.x"), vec![b'x'; 256 * 1024].into())
                .await
                .expect("nats-server answers");
            refused += usize::from(sent.await.is_err());
        }
        // Smaller ones as well, until not even one event fits.
        refused = 0;
        while refused < 3 {
            let sent = context
                .publish(format!("{filler}.x"), vec![b'x'; 200].into())
                .await
                .expect("nats-server answers");
            refused += usize::from(sent.await.is_err());
        }
    });
    let refused = issue(0);
    let answer = trial.deliver(&refused);
    answer.expect_problem(503, "broker_unavailable");
    let labels = [("reason", "resources")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);
    delete_stream(&nats, &filler);
    trial.recover();
    let stored = nats.read(&stream);
    assert_eq!(copies(&stored, &refused), 0);
    trial.finish("F17 NATS", &stored);
}

#[test]
fn f18_a_nats_whose_disk_is_full_acknowledges_nothing_until_there_is_room() {
    let nats = or_skip!(Nats::private_on_small_disk(16));
    let stream = nats.stream("f18");
    let trial = Trial::ready(3, &Setup::<Nats>::new().tables(&nats.url, &stream));
    trial.recover();
    nats.disk().fill();
    refuses(&trial);
    nats.disk().make_room();
    // The stream keeps its first error until the server is restarted.
    nats.stop();
    nats.start();
    trial.recover();
    trial.finish("F18 NATS", &nats.read(&stream));
}

#[test]
fn f18_a_kafka_whose_disk_is_full_acknowledges_nothing_until_there_is_room() {
    let kafka = or_skip!(Kafka::private_on_small_disk(64));
    let topic = kafka.topic("f18");
    let trial = Trial::ready(3, &Setup::<Kafka>::new().tables(&kafka.address, &topic));
    trial.recover();
    kafka.disk().fill();
    refuses(&trial);
    // It gives up its only data directory, and exits.
    wait::until("Kafka ends", PATIENCE, || kafka.has_ended());
    kafka.disk().make_room();
    kafka.start();
    trial.recover();
    trial.finish("F18 Kafka", &kafka.read(&topic));
}

/// The rest of the last page has room for some events; after that none is accepted.
fn refuses(trial: &Trial) {
    wait::until("an event is refused", PATIENCE, || {
        let answer = trial.deliver_new();
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.status == 503
    });
    for _ in 0..2 {
        let answer = trial.deliver_new();
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

#[test]
fn f23_the_neighbours_of_an_event_above_kafkas_limit_are_stored_within_their_request() {
    let (kafka, proxy) = or_skip!(Kafka::behind_proxy());
    let topic = kafka.topic_with("f23", 1, &[("max.message.bytes", "100000")]);
    let rest = kafka_broker("main", &proxy.address) + &synq_source("") + &route(&topic);
    let trial = Trial::ready(20, &rest);
    assert_eq!(trial.deliver_new().status, 200);
    // Events that arrive while the broker is frozen wait in one queue and leave in few batches.
    proxy.set(Mode::Freeze);
    let large = events::ping_of_size(200_000);
    std::thread::scope(|scope| {
        let small = trial.burst(scope, 99);
        let large = scope.spawn(|| trial.deliver(&large));
        trial.bridge.wait_metric("hookbridge_in_flight", &[], 100.0);
        proxy.set(Mode::Pass);
        let answer = large.join().unwrap();
        answer.expect_problem(503, "broker_unavailable");
        for delivery in small {
            assert_eq!(delivery.join().unwrap().status, 200);
        }
    });
    let labels = [("reason", "too_large")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);
    let books = trial.finish("F23 Kafka, one batch", &kafka.read(&topic));
    assert_eq!(books.duplicates, 0);
}

fn f23_one_event_above_the_brokers_limit_costs_no_other_event_more_than_a_retry<B: Broker>() {
    let broker = or_skip!(B::shared());
    let topic = broker.new_topic_up_to("f23", 100_000);
    let tables = Setup::<B>::new().tables(&broker.address(), &topic);
    let trial = Trial::ready(8, &tables);
    let large = events::ping_of_size(200_000);
    std::thread::scope(|scope| {
        let small = trial.burst(scope, 99);
        trial
            .deliver(&large)
            .expect_problem(503, "broker_unavailable");
        for delivery in small {
            let answer = delivery.join().unwrap();
            if answer.status != 200 {
                // Kafka refuses a whole batch: a neighbour may have to retry, but never gets a permanent refusal.
                assert_eq!(B::NAME, "Kafka", "{answer:?}");
                answer.expect_problem(503, "broker_unavailable");
            }
        }
    });
    let labels = [("reason", "too_large")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);
    trial.recover();
    let books = trial.finish(&format!("F23 {}", B::NAME), &broker.read(&topic));
    assert_eq!(books.duplicates, 0);
}

on_each_broker!(f23_one_event_above_the_brokers_limit_costs_no_other_event_more_than_a_retry);

// ---- Acknowledgements without meaning

/// A stream that acknowledges messages without keeping them, or never acknowledges; the words that `check` has for it.
fn not_durable(
    row: &str,
    check: &str,
    change: impl FnOnce(&mut async_nats::jetstream::stream::Config),
) {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream_with("durable", change);
    let subject = format!("{stream}.x");
    let of = |keys: &str| {
        let broker = nats_broker("main", &nats.url) + keys + "\n";
        broker + &synq_source("") + &route(&subject)
    };
    let check_of = |keys: &str, code: i32| check_connect(&of(keys)).expect_code(code);
    let is_unusable = check.contains("no_ack");
    for done in [
        check_of("", i32::from(is_unusable)),
        check_of("require_durable = true", 1),
    ] {
        let all = done.all();
        assert!(
            all.contains(&subject) && all.contains(check),
            "{row}: it names subject and reason: {done:?}"
        );
    }
    // A running bridge reports it in its metrics.
    let bridge = Bridge::run(&of(""));
    let word = if is_unusable { "no_ack" } else { "retention" };
    let labels = [("destination", subject.as_str()), ("check", word)];
    wait::until("the metric says it", PATIENCE, || {
        bridge
            .metrics()
            .find("hookbridge_destination_durable", &labels)
            == Some(0.0)
    });
}

#[test]
fn f24_a_stream_that_keeps_only_what_consumers_want_is_named_by_check_and_metrics() {
    not_durable("F24", "interested in", |settings| {
        settings.retention = RetentionPolicy::Interest;
    });
}

#[test]
fn f25_a_stream_that_never_acknowledges_is_named_by_check_and_metrics() {
    not_durable("F25", "no_ack", |settings| settings.no_ack = true);
}

#[test]
fn f25_nothing_is_acknowledged_that_the_stream_does_not_acknowledge() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("f25");
    let trial = Trial::ready(2, &Setup::<Nats>::new().tables(&nats.url, &stream));
    nats.silence(&stream, true);
    for _ in 0..3 {
        let answer = trial.deliver(&events::ping());
        answer.expect_problem(503, "publish_timeout");
    }
    // The outcomes were unknown, but the events are stored.
    let stored = nats.read(&stream);
    assert_eq!(stored.len(), 3);
    let books = trial.finish("F25 NATS", &stored);
    assert_eq!(books.acknowledged, 0);
}
