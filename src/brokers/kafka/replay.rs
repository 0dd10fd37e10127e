//! Reads a topic once to its present end, from where the last replay of it stopped. The group's committed offset is the
//! position; it moves only when it is told to.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::subscription::delivered;
use super::{Settings, describe};
use crate::brokers::{Delivered, ReplayError};

/// How long the cluster may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for an error that has been queued already.
const CAUSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A topic that is being replayed.
pub struct Replay {
    consumer: StreamConsumer,
    topic: String,
    partitions: usize,
    unfinished: HashSet<i32>,
    remaining: u64,
}

impl Replay {
    pub(in crate::brokers) async fn start(
        settings: &Settings,
        topic: &str,
        selection: Option<&str>,
    ) -> Result<Self, ReplayError> {
        let (settings, topic) = (settings.clone(), topic.to_owned());
        let mut group = format!("hookbridge-replay-{topic}");
        if let Some(selection) = selection {
            // No topic has a slash: neither of two selections is another topic.
            group.push('/');
            group.push_str(selection);
        }
        let starting = tokio::task::spawn_blocking(move || Self::assign(&settings, topic, &group));
        starting
            .await
            .unwrap_or_else(|error| Err(ReplayError(error.to_string())))
    }

    fn assign(settings: &Settings, topic: String, group: &str) -> Result<Self, ReplayError> {
        let fail = |error: KafkaError| explain(&error, &topic);
        let mut config = settings.consumer_config(true);
        config.set("group.id", group);
        config.set("enable.partition.eof", "true");
        let consumer: StreamConsumer = config.create().map_err(fail)?;
        let metadata = consumer
            .fetch_metadata(Some(&topic), TIMEOUT)
            .map_err(fail)?;
        let mut partitions = TopicPartitionList::new();
        for found in metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic)
        {
            for partition in found.partitions() {
                partitions.add_partition(&topic, partition.id());
            }
            // A topic that can't be read is not an empty one.
            if let Some(error) = found.error() {
                return Err(fail(KafkaError::MetadataFetch(error.into())));
            }
        }
        if partitions.count() == 0 {
            return Err(ReplayError(format!("the topic {topic} does not exist")));
        }
        let committed = consumer
            .committed_offsets(partitions, TIMEOUT)
            .map_err(|error| fail(cause(&consumer, error)))?;
        let mut assignment = TopicPartitionList::new();
        let mut unfinished = HashSet::new();
        let mut remaining = 0;
        for element in committed.elements() {
            // Without the position everything would be moved once more.
            element.error().map_err(fail)?;
            let (start, end) = consumer
                .fetch_watermarks(&topic, element.partition(), TIMEOUT)
                .map_err(fail)?;
            let from = match element.offset() {
                Offset::Offset(offset) => offset.max(start),
                _ => start,
            };
            if from < end {
                assignment
                    .add_partition_offset(&topic, element.partition(), Offset::Offset(from))
                    .map_err(fail)?;
                unfinished.insert(element.partition());
                remaining += u64::try_from(end - from).unwrap_or_default();
            }
        }
        consumer.assign(&assignment).map_err(fail)?;
        Ok(Self {
            consumer,
            topic,
            partitions: committed.count(),
            unfinished,
            remaining,
        })
    }

    pub(in crate::brokers) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(in crate::brokers) async fn next(&mut self) -> Result<Option<Delivered>, ReplayError> {
        while !self.unfinished.is_empty() {
            match self.consumer.recv().await {
                Ok(message) => return Ok(Some(delivered(&message))),
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.unfinished.remove(&partition);
                }
                Err(error) => return Err(explain(&error, &self.topic)),
            }
        }
        Ok(None)
    }

    /// Moves the position behind a message.
    pub(in crate::brokers) fn done(&mut self, message: &Delivered) -> Result<(), ReplayError> {
        let Some((partition, offset)) = message.position else {
            return Ok(());
        };
        let mut position = TopicPartitionList::new();
        let moved =
            position.add_partition_offset(&self.topic, partition, Offset::Offset(offset + 1));
        let committed = moved.and_then(|()| {
            tokio::task::block_in_place(|| self.consumer.commit(&position, CommitMode::Sync))
        });
        committed.map_err(|error| explain(&error, &self.topic))
    }
}

/// Why there was no answer about a group: librdkafka looks for its coordinator in the background, and tells only the queue of
/// messages that this is refused.
fn cause(consumer: &StreamConsumer, error: KafkaError) -> KafkaError {
    if error.rdkafka_error_code() != Some(Code::OperationTimedOut) {
        return error;
    }
    let queued = tokio::runtime::Handle::current()
        .block_on(async { tokio::time::timeout(CAUSE_TIMEOUT, consumer.recv()).await });
    match queued {
        Ok(Err(cause)) => cause,
        Ok(Ok(_)) | Err(_) => error,
    }
}

/// An error, with the right that is missing where that is the cause.
fn explain(error: &KafkaError, topic: &str) -> ReplayError {
    let what = describe(error);
    ReplayError(match error.rdkafka_error_code() {
        Some(Code::GroupAuthorizationFailed) => format!(
            "the user may not use the group hookbridge-replay-{topic}; grant it Read on the group ({what})"
        ),
        Some(Code::TopicAuthorizationFailed) => {
            format!("the user may not read the topic {topic}; grant it Read on the topic ({what})")
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
            format!("the topic {topic} does not exist")
        }
        _ => what,
    })
}
