//! Clusters of three brokers that are stopped and restarted: rows F19, F26 to F28 and F30.

use std::thread;
use std::time::Duration;

use super::trial::Trial;
use super::{SENDERS, issue};
use crate::support::bridge::{check_connect, kafka_broker, nats_broker, route, synq_source};
use crate::support::consumer::Stored;
use crate::support::kafka;
use crate::support::nats::{self, Nats};
use crate::support::wait::{self, PATIENCE};

/// With [`SENDERS`] about 200 events per second, if they are answered quickly.
const PAUSE: Duration = Duration::from_millis(100);

// ---- Kafka

/// All rows with one cluster, because starting it costs more than most of them.
#[test]
fn f19_f26_f27_f28_f30_a_kafka_cluster_that_loses_brokers_loses_no_acknowledged_event() {
    let cluster = or_skip!(kafka::cluster::Cluster::start());
    kafka_is_durable(&cluster);
    kafka_leader_killed(&cluster);
    kafka_follower_frozen(&cluster);
    kafka_restarted_one_by_one(&cluster);
    kafka_quorum_lost(&cluster);
}

fn to_kafka(cluster: &kafka::cluster::Cluster, topic: &str) -> String {
    let broker = kafka_broker("main", &cluster.all.address) + "require_durable = true\n";
    broker + &synq_source("") + &route(topic)
}

fn kafka_is_durable(cluster: &kafka::cluster::Cluster) {
    let topic = cluster.all.topic("durable");
    let rest = to_kafka(cluster, &topic);
    is_durable("require_durable Kafka", &rest, || cluster.all.read(&topic));
}

/// Refuses destinations where the loss of one broker could lose an acknowledged event.
fn is_durable(row: &str, rest: &str, read: impl FnOnce() -> Vec<Stored>) {
    let done = check_connect(rest).expect_code(0);
    let all = done.all();
    assert!(
        !all.contains("warning") && !all.contains("problem:"),
        "{done:?}"
    );
    let trial = Trial::ready(8, rest);
    trial.recover();
    trial.finish(row, &read());
}

fn kafka_leader_killed(cluster: &kafka::cluster::Cluster) {
    let topic = cluster.all.topic("f26");
    let trial = Trial::ready(8, &to_kafka(cluster, &topic));
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    let (leader, _) = cluster.leader_and_followers(&topic);
    leader.kill();
    // Events in flight may be answered first, then those led by another broker.
    trial.wait_for_more(SENDERS);
    trial.wait_for_more(100);
    let (next, _) = cluster.leader_and_followers(&topic);
    assert_ne!(next.address, leader.address);
    leader.start();
    trial.wait_for_more(100);
    load.stop();
    trial.expect_no_client_restart();
    trial.finish("F26 Kafka", &cluster.all.read(&topic));
    cluster.wait_in_sync(&topic, 3);
}

/// F30, and F19 for a topic that needs all three.
fn kafka_follower_frozen(cluster: &kafka::cluster::Cluster) {
    let topic = cluster.all.topic("f30");
    let needs_all = [("min.insync.replicas", "3")];
    let strict_topic = cluster.all.topic_with("f19", 1, &needs_all);
    let trial = Trial::ready(8, &to_kafka(cluster, &topic));
    let strict = Trial::ready(4, &to_kafka(cluster, &strict_topic));
    strict.recover();
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    let (_, followers) = cluster.leader_and_followers(&topic);
    followers[0].freeze();
    trial.wait_for_more(SENDERS);
    trial.wait_for_more(100);
    cluster.wait_in_sync(&topic, 2);
    load.stop();
    cluster.wait_in_sync(&strict_topic, 2);
    for _ in 0..2 {
        let answer = strict.deliver_new();
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    followers[0].thaw();
    strict.recover();
    trial.recover();
    trial.expect_no_client_restart();
    strict.expect_no_client_restart();
    trial.finish("F30 Kafka", &cluster.all.read(&topic));
    strict.finish(
        "F19 Kafka, 2 of 3 in sync",
        &cluster.all.read(&strict_topic),
    );
    cluster.wait_in_sync(&topic, 3);
}

fn kafka_restarted_one_by_one(cluster: &kafka::cluster::Cluster) {
    let topic = cluster.all.topic_with("f28", 3, &[]);
    let trial = Trial::ready(8, &to_kafka(cluster, &topic));
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    for (number, node) in cluster.nodes().iter().enumerate() {
        trial.checker.begin(format!("broker {number} stops"));
        node.stop();
        trial.wait_for_more(100);
        trial.checker.begin(format!("broker {number} starts"));
        node.start();
        cluster.wait_in_sync(&topic, 3);
    }
    trial.checker.begin("all run");
    load.stop();
    expect_nearly_all_200(&trial);
    trial.expect_no_client_restart();
    trial.finish("F28 Kafka", &cluster.all.read(&topic));
}

#[track_caller]
fn expect_nearly_all_200(trial: &Trial) {
    let checker = &trial.checker;
    let (good, all) = (
        checker.answered(200),
        checker.answers() + checker.unanswered(),
    );
    println!("F28: {}", checker.history());
    assert!(good * 100 >= all * 99, "{good} of {all} answered 200");
}

fn kafka_quorum_lost(cluster: &kafka::cluster::Cluster) {
    let topic = cluster.all.topic("f27");
    let trial = Trial::ready(4, &to_kafka(cluster, &topic));
    trial.recover();
    let (_, followers) = cluster.leader_and_followers(&topic);
    followers.iter().for_each(|follower| follower.kill());
    expect_503(&trial);
    followers[0].start();
    trial.recover();
    trial.expect_no_client_restart();
    trial.finish("F19, F27 Kafka", &cluster.all.read(&topic));
}

/// A burst, and more events after the client has had time to notice.
#[track_caller]
fn expect_503(trial: &Trial) {
    for _ in 0..2 {
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    let answer = trial.deliver(&issue(0));
                    assert_eq!(answer.status, 503, "{answer:?}");
                });
            }
        });
    }
}

// ---- NATS

/// A bridge that knows some of the servers; it learns of the others from them.
fn to_nats(nodes: &[&Nats], stream: &str) -> String {
    let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
    let broker = nats_broker("main", &urls.join("\", \"")) + "require_durable = true\n";
    broker + &synq_source("") + &route(&format!("{stream}.{{type}}"))
}

#[test]
fn require_durable_is_content_with_a_stream_of_three_replicas() {
    let cluster = or_skip!(nats::cluster::Cluster::start());
    let stream = cluster.stream("durable");
    let rest = to_nats(&[&cluster.nodes()[0]], &stream);
    is_durable("require_durable NATS", &rest, || cluster.all.read(&stream));
}

#[test]
fn f26_events_ride_out_the_election_when_a_streams_leader_is_killed() {
    let cluster = or_skip!(nats::cluster::Cluster::start());
    let stream = cluster.stream("f26");
    let (leader, followers) = cluster.leader_and_followers(&stream);
    let trial = Trial::ready(20, &to_nats(&followers[..1], &stream));
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    leader.kill();
    trial.wait_for_more(SENDERS);
    trial.wait_for_more(100);
    leader.start();
    trial.wait_for_more(100);
    load.stop();
    trial.expect_no_client_restart();
    let checker = &trial.checker;
    // The bridge's own server is up, so only messages just sent to the leader have unknown outcomes.
    assert_eq!(
        checker.answers(),
        checker.answered(200) + checker.outcomes("publish_timeout"),
        "{}",
        checker.summary()
    );
    assert!(
        checker.outcomes("publish_timeout") <= SENDERS,
        "{}",
        checker.summary()
    );
    trial.finish("F26 NATS", &cluster.all.read(&stream));
}

#[test]
fn f27_without_a_quorum_a_stream_acknowledges_nothing_and_with_it_everything_again() {
    let cluster = or_skip!(nats::cluster::Cluster::start());
    let stream = cluster.stream("f27");
    let (leader, followers) = cluster.leader_and_followers(&stream);
    let trial = Trial::ready(4, &to_nats(&[leader, followers[0], followers[1]], &stream));
    trial.recover();
    followers.iter().for_each(|follower| follower.kill());
    expect_503(&trial);
    followers[0].start();
    trial.recover();
    trial.expect_no_client_restart();
    trial.finish("F27 NATS", &cluster.all.read(&stream));
}

#[test]
fn f28_a_nats_cluster_that_is_restarted_one_by_one_refuses_next_to_nothing() {
    let cluster = or_skip!(nats::cluster::Cluster::start());
    let stream = cluster.stream("f28");
    let nodes: Vec<&Nats> = cluster.nodes().iter().collect();
    let trial = Trial::ready(10, &to_nats(&nodes, &stream));
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    for (number, node) in nodes.into_iter().enumerate() {
        trial.checker.begin(format!("server {number} stops"));
        node.stop();
        trial.wait_for_more(100);
        trial.checker.begin(format!("server {number} starts"));
        node.start();
        cluster.wait_whole(&stream);
    }
    trial.checker.begin("all run");
    load.stop();
    expect_nearly_all_200(&trial);
    trial.expect_no_client_restart();
    trial.finish("F28 NATS", &cluster.all.read(&stream));
}

#[test]
fn f28_an_event_whose_other_copy_a_stream_is_still_storing_is_sent_again() {
    // A cluster's answer to the second try, when the first one's connection has just ended.
    let in_process =
        r#"{"error":{"code":409,"err_code":10158,"description":"in process"},"seq":0}"#;
    let url = nats::fake::start(move |number| {
        let answer = match number {
            0..3 => in_process,
            _ => r#"{"stream":"S","seq":7,"duplicate":true}"#,
        };
        Some(answer.to_owned())
    });
    let rest = nats_broker("main", &url) + &synq_source("") + &route("events.x");
    let trial = Trial::ready(8, &rest);
    let event = issue(0);
    // It was another delivery's copy.
    assert_eq!(trial.deliver(&event).expect_success("duplicate"), event.id);
}

#[test]
fn f28_an_event_that_a_leader_took_with_it_is_sent_again_when_later_ones_are_stored() {
    const LOST: usize = 3;
    let url = nats::fake::start(|number| {
        let is_lost = number < LOST;
        (!is_lost).then(|| format!(r#"{{"stream":"S","seq":{number}}}"#))
    });
    let rest = nats_broker("main", &url) + &synq_source("") + &route("events.x");
    let trial = Trial::ready(60, &rest);
    thread::scope(|scope| {
        let lost = trial.burst(scope, LOST);
        wait::until("they are in flight", PATIENCE, || {
            trial.bridge.metric("hookbridge_in_flight", &[]) == LOST as f64
        });
        // Nothing indicates a loss yet.
        wait::play_silence(Duration::from_secs(2));
        assert!(lost.iter().all(|delivery| !delivery.is_finished()));
        wait::until("they are answered", Duration::from_secs(20), || {
            assert_eq!(trial.deliver_new().status, 200);
            lost.iter().all(|delivery| delivery.is_finished())
        });
        for delivery in lost {
            assert_eq!(delivery.join().unwrap().outcome(), "published");
        }
    });
}

#[test]
fn f30_a_frozen_follower_costs_a_stream_of_three_replicas_nothing() {
    let cluster = or_skip!(nats::cluster::Cluster::start());
    let stream = cluster.stream("f30");
    let (leader, followers) = cluster.leader_and_followers(&stream);
    let trial = Trial::ready(8, &to_nats(&[leader], &stream));
    let load = trial.load(SENDERS, PAUSE);
    trial.wait_for_more(100);
    followers[0].freeze();
    trial.wait_for_more(500);
    followers[0].thaw();
    trial.wait_for_more(100);
    let checker = load.stop();
    assert_eq!(
        checker.answered(200),
        checker.answers(),
        "{}",
        checker.summary()
    );
    trial.expect_no_client_restart();
    trial.finish("F30 NATS", &cluster.all.read(&stream));
}
