//! Answers that real Kafka gives too rarely, from librdkafka's mock cluster: rows F19, F20, F22, F29, F31. The cluster
//! runs in the test, speaks the real protocol and keeps what it acknowledges.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey as Api;
use rdkafka::types::RDKafkaRespErr as Error;

use super::trial::{Trial, copies};
use super::{LONG_RECOVERY, issue};
use crate::support::bridge::{kafka_broker, route, synq_source};
use crate::support::consumer::Stored;
use crate::support::kafka::Kafka;

const TOPIC: &str = "events";

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Kafka,
}

impl Mock {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let reader = Kafka::at(&cluster.bootstrap_servers());
        Self { cluster, reader }
    }

    fn trial(&self, publish_timeout: u64) -> Trial {
        let broker = kafka_broker("main", &self.reader.address);
        let trial = Trial::ready(
            publish_timeout,
            &(broker + &synq_source("") + &route(TOPIC)),
        );
        assert_eq!(trial.deliver_new().status, 200);
        trial
    }

    fn read(&self) -> Vec<Stored> {
        self.reader.read(TOPIC)
    }
}

#[test]
fn f19_too_few_replicas_is_never_200_and_over_when_they_are_back() {
    let mock = Mock::start();
    let trial = mock.trial(3);
    let refusals = [Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 10_000];
    mock.cluster.request_errors(Api::Produce, &refusals);
    for _ in 0..3 {
        let answer = trial.deliver_new();
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    mock.cluster.clear_request_errors(Api::Produce);
    trial.recover();
    trial.finish("F19 mock", &mock.read());
}

#[test]
fn f20_an_event_that_was_appended_but_not_replicated_in_time_is_200_and_one_copy() {
    let mock = Mock::start();
    let trial = mock.trial(8);
    mock.cluster.request_errors(
        Api::Produce,
        &[Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND],
    );
    let event = issue(1);
    trial.deliver(&event).expect_published(&event);
    let stored = mock.read();
    assert_eq!(copies(&stored, &event), 1);
    trial.finish("F20 mock", &stored);
}

#[test]
fn f22_a_topic_that_may_not_be_written_to_is_503_until_it_may() {
    let mock = Mock::start();
    let trial = mock.trial(3);
    let refusals = [Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 10_000];
    mock.cluster.request_errors(Api::Produce, &refusals);
    let refused = issue(1);
    trial
        .deliver(&refused)
        .expect_problem(503, "broker_unavailable");
    let labels = [("reason", "authorization")];
    trial.wait_for_metric("hookbridge_publish_errors_total", &labels, 1.0);
    mock.cluster.clear_request_errors(Api::Produce);
    trial.recover_within(LONG_RECOVERY);
    let stored = mock.read();
    assert_eq!(copies(&stored, &refused), 0);
    trial.finish("F22 mock", &stored);
}

#[test]
fn f29_a_partition_without_a_leader_is_waited_for_and_published_to_again() {
    let mock = Mock::start();
    let trial = mock.trial(4);
    // partition_leader(.., None) would be the natural way, but the mock cluster of librdkafka 2.12 crashes on a publish
    // to a partition without a leader.
    let no_leader = Error::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    let elsewhere = [Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 10_000];
    let set = |error| {
        let set = mock.cluster.topic_error(TOPIC, error);
        set.expect("the mock cluster does it");
    };
    set(no_leader);
    mock.cluster.request_errors(Api::Produce, &elsewhere);
    for _ in 0..2 {
        assert_eq!(trial.deliver_new().status, 503);
    }
    set(Error::RD_KAFKA_RESP_ERR_NO_ERROR);
    mock.cluster.clear_request_errors(Api::Produce);
    trial.recover();
    trial.finish("F29 mock", &mock.read());
}

#[test]
fn f31_a_producer_that_can_not_go_on_is_replaced() {
    let mock = Mock::start();
    let trial = mock.trial(4);
    mock.cluster.request_errors(
        Api::Produce,
        &[Error::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    let first = trial.deliver_new();
    assert!([200, 503].contains(&first.status), "{first:?}");
    trial.recover();
    let labels = [("reason", "fatal")];
    trial.wait_for_metric("hookbridge_broker_client_restarts_total", &labels, 1.0);
    trial.finish("F31 mock", &mock.read());
}
