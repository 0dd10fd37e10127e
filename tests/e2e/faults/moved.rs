//! Brokers that come back elsewhere: row F05.

use std::net::Ipv4Addr;

use super::LONG_RECOVERY;
use super::trial::Trial;
use crate::support::fixture::{Broker, Setup};
use crate::support::hosts::Hosts;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::{Mode, Proxy};

fn f05_a_broker_that_comes_back_at_another_address_is_found_there<B: Broker>() {
    let mut broker = or_skip!(B::private());
    let topic = broker.new_topic("f05");
    let second = process::port();
    let both = broker.address_or(second);
    let trial = Trial::ready(4, &Setup::<B>::new().tables(&both, &topic));
    trial.recover();
    broker.stop();
    assert_eq!(trial.deliver_new().status, 503);
    broker.move_to(second);
    broker.start();
    trial.recover_within(LONG_RECOVERY);
    trial.expect_no_client_restart();
    trial.finish(&format!("F05 {}", B::NAME), &broker.read(&topic));
}

on_each_broker!(f05_a_broker_that_comes_back_at_another_address_is_found_there);

// ---- One name, which is moved

const NAME: &str = "broker.hookbridge.test";
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn f05_a_kafka_whose_name_moves_to_another_address_is_found_there() {
    let hosts = or_skip!(Hosts::with(NAME, FIRST));
    let (kafka, port, real) = or_skip!(Kafka::private_known_as(NAME));
    name_moves(&hosts, port, real, &kafka);
}

#[test]
fn f05_a_nats_whose_name_moves_to_another_address_is_found_there() {
    let hosts = or_skip!(Hosts::with(NAME, FIRST));
    let nats = or_skip!(Nats::shared());
    name_moves(&hosts, process::port(), nats.port(), nats);
}

/// The broker itself stays; a proxy with its name moves from one address to another.
fn name_moves<B: Broker>(hosts: &Hosts, port: u16, real: u16, broker: &B) {
    let topic = broker.new_topic("f05");
    let named = B::at(&format!("{NAME}:{port}"));
    let first = Proxy::start_at(FIRST, port, real);
    let trial = Trial::ready_seeing(hosts, 4, &Setup::<B>::new().tables(&named, &topic));
    trial.recover();
    first.set(Mode::Refuse);
    assert_eq!(trial.deliver_new().status, 503);
    hosts.set(NAME, SECOND);
    let second = Proxy::start_at(SECOND, port, real);
    trial.recover_within(LONG_RECOVERY);
    assert!(second.accepted() > 0);
    trial.expect_no_client_restart();
    trial.finish(&format!("F05 {}, name", B::NAME), &broker.read(&topic));
}
