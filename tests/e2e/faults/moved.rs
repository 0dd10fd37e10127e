//! Brokers that come back elsewhere: row F05.

use super::trial::Trial;
use crate::support::bridge::{kafka_broker, nats_broker, route, synq_source};
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;

#[test]
fn f05_a_kafka_that_comes_back_at_another_address_is_found_there() {
    let Some(mut kafka) = Kafka::private() else {
        return;
    };
    let topic = kafka.topic("f05");
    let second = process::port();
    let both = format!("{},127.0.0.1:{second}", kafka.address);
    let trial = Trial::ready(
        4,
        &(kafka_broker("main", &both) + &synq_source("") + &route(&topic)),
    );
    trial.recover();
    kafka.stop();
    assert_eq!(trial.deliver_new().status, 503);
    kafka.move_to(second);
    kafka.start();
    trial.recover();
    trial.expect_no_client_restart();
    trial.finish("F05 Kafka", &kafka.read(&topic));
}

#[test]
fn f05_a_nats_that_comes_back_at_another_address_is_found_there() {
    let Some(mut nats) = Nats::private() else {
        return;
    };
    let stream = nats.stream("f05");
    let second = process::port();
    let both = format!("{}\", \"nats://127.0.0.1:{second}", nats.url);
    let trial = Trial::ready(
        4,
        &(nats_broker("main", &both) + &synq_source("") + &route(&format!("{stream}.x"))),
    );
    trial.recover();
    nats.stop();
    assert_eq!(trial.deliver_new().status, 503);
    nats.move_to(second);
    nats.start();
    trial.recover();
    trial.expect_no_client_restart();
    trial.finish("F05 NATS", &nats.read(&stream));
}
