//! Brokers that come back elsewhere: row F05.

use std::net::Ipv4Addr;

use super::LONG_RECOVERY;
use super::trial::Trial;
use crate::support::bridge::{kafka_broker, nats_broker, route, synq_source};
use crate::support::consumer::Stored;
use crate::support::hosts::Hosts;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::{Mode, Proxy};

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
    trial.recover_within(LONG_RECOVERY);
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
    trial.recover_within(LONG_RECOVERY);
    trial.expect_no_client_restart();
    trial.finish("F05 NATS", &nats.read(&stream));
}

// ---- One name, which is moved

const NAME: &str = "broker.hookbridge.test";
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn f05_a_kafka_whose_name_moves_to_another_address_is_found_there() {
    let Some(hosts) = Hosts::with(NAME, FIRST) else {
        return;
    };
    let Some((kafka, port, real)) = Kafka::private_known_as(NAME) else {
        return;
    };
    let topic = kafka.topic("f05");
    let broker = kafka_broker("main", &format!("{NAME}:{port}"));
    let rest = broker + &synq_source("") + &route(&topic);
    name_moves("F05 Kafka, name", &hosts, (port, real), &rest, || {
        kafka.read(&topic)
    });
}

#[test]
fn f05_a_nats_whose_name_moves_to_another_address_is_found_there() {
    let (Some(hosts), Some(nats)) = (Hosts::with(NAME, FIRST), Nats::shared()) else {
        return;
    };
    let stream = nats.stream("f05");
    let port = process::port();
    let broker = nats_broker("main", &format!("nats://{NAME}:{port}"));
    let rest = broker + &synq_source("") + &route(&format!("{stream}.x"));
    name_moves("F05 NATS, name", &hosts, (port, nats.port()), &rest, || {
        nats.read(&stream)
    });
}

/// The broker itself stays; what carries its name is a proxy at one address, and then another at the other.
fn name_moves(
    row: &str,
    hosts: &Hosts,
    (port, real): (u16, u16),
    rest: &str,
    read: impl FnOnce() -> Vec<Stored>,
) {
    let first = Proxy::start_at(FIRST, port, real);
    let trial = Trial::ready_seeing(hosts, 4, rest);
    trial.recover();
    first.set(Mode::Refuse);
    assert_eq!(trial.deliver_new().status, 503);
    hosts.set(NAME, SECOND);
    let second = Proxy::start_at(SECOND, port, real);
    trial.recover_within(LONG_RECOVERY);
    assert!(second.accepted() > 0);
    trial.expect_no_client_restart();
    trial.finish(row, &read());
}
