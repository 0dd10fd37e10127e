//! Explains why a topic cannot be read: a missing right or a missing topic.

use std::time::Duration;

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::describe;
use super::metadata::{Cluster as _, Fault};
use super::tokens::Login;
use crate::brokers::error::RequestError;

/// Time limit for a consumer's pending error.
const PENDING: Duration = Duration::from_secs(2);

/// The partitions of a topic.
pub(super) fn partitions(
    consumer: &StreamConsumer<Login>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, RequestError> {
    match consumer.client().topic(topic, timeout)? {
        None | Some(Fault::Leaderless) => {}
        Some(Fault::Absent) => return Err(format!("the topic {topic} does not exist").into()),
        Some(Fault::Hidden) => return Err(needs_read(&format!("the topic {topic}")).into()),
        Some(Fault::Other(why)) => {
            return Err(format!("the topic {topic} can't be read: {why}").into());
        }
    }
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .map_err(|error| describe(&error))?;
    let mut topics = metadata.topics().iter();
    let found = topics.find(|found| found.name() == topic);
    let partitions = found.into_iter().flat_map(|found| found.partitions());
    Ok(partitions.map(|partition| partition.id()).collect())
}

/// An error that the consumer has not delivered yet. Blocks.
pub(super) fn pending_error(consumer: &StreamConsumer<Login>) -> Option<KafkaError> {
    let runtime = tokio::runtime::Handle::current();
    let received = runtime.block_on(async { tokio::time::timeout(PENDING, consumer.recv()).await });
    received.ok().and_then(Result::err)
}

/// A reader's error, with the missing right if there is one.
pub(super) fn explain(error: &KafkaError, topic: &str, group: Option<&str>) -> String {
    match (error.rdkafka_error_code(), group) {
        (Some(Code::TopicAuthorizationFailed), _) => needs_read(topic),
        (Some(Code::GroupAuthorizationFailed), Some(group)) => {
            format!("the user may not use the consumer group {group}: it needs Read on the group")
        }
        (Some(Code::GroupAuthorizationFailed), None) => {
            "the user may not use the consumer group: it needs Read on the group".to_owned()
        }
        (Some(Code::Authentication | Code::SaslAuthenticationFailed), _) => {
            format!("authentication failed: {}", describe(error))
        }
        _ => describe(error),
    }
}

fn needs_read(topic: &str) -> String {
    format!("the user may not read {topic}: it needs Read on it")
}
