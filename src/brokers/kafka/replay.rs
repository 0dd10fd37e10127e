//! Reads a topic once to its present end, from where the last replay of it stopped. The group's committed offset is the
//! position; only an explicit commit moves it.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::subscription::delivered;
use super::tokens::Login;
use super::{Settings, describe, rights};
use crate::brokers::delivered::Delivered;
use crate::brokers::error::ReplayError;

/// Limit of each request to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Replay {
    consumer: StreamConsumer<Login>,
    topic: String,
    group: String,
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
            // Topic names have no slash, so the group of a selection cannot be another topic's.
            group.push('/');
            group.push_str(selection);
        }
        let starting = tokio::task::spawn_blocking(move || Self::assign(&settings, topic, group));
        starting
            .await
            .unwrap_or_else(|error| Err(ReplayError(error.to_string())))
    }

    fn assign(settings: &Settings, topic: String, group: String) -> Result<Self, ReplayError> {
        let mut config = settings.consumer_config(true);
        config.set("group.id", &group);
        config.set("enable.partition.eof", "true");
        let consumer = settings.consumer(&config)?;
        let mut partitions = TopicPartitionList::new();
        for partition in rights::partitions(&consumer, &topic, TIMEOUT)? {
            partitions.add_partition(&topic, partition);
        }
        let explain = |error: &KafkaError| {
            let topic = format!("the topic {topic}");
            ReplayError(rights::explain(error, &topic, Some(&group)))
        };
        let committed = consumer
            .committed_offsets(partitions, TIMEOUT)
            .map_err(|error| {
                // A refused group appears as a time-out; the actual error is pending.
                let reason = rights::pending_error(&consumer);
                explain(&reason.unwrap_or(error))
            })?;
        let mut assignment = TopicPartitionList::new();
        let mut unfinished = HashSet::new();
        let mut remaining = 0;
        for element in committed.elements() {
            // Without the position, every message would be replayed again.
            element.error().map_err(|error| explain(&error))?;
            let (start, end) = consumer
                .fetch_watermarks(&topic, element.partition(), TIMEOUT)
                .map_err(|error| explain(&error))?;
            let from = match element.offset() {
                Offset::Offset(offset) => offset.max(start),
                _ => start,
            };
            if from < end {
                assignment
                    .add_partition_offset(&topic, element.partition(), Offset::Offset(from))
                    .map_err(|error| ReplayError(describe(&error)))?;
                unfinished.insert(element.partition());
                remaining += u64::try_from(end - from).unwrap_or_default();
            }
        }
        consumer
            .assign(&assignment)
            .map_err(|error| ReplayError(describe(&error)))?;
        Ok(Self {
            consumer,
            topic,
            group,
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
                Err(error) => return Err(self.explain(&error)),
            }
        }
        Ok(None)
    }

    /// Moves the position past a message.
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
        committed.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &KafkaError) -> ReplayError {
        let topic = format!("the topic {}", self.topic);
        ReplayError(rights::explain(error, &topic, Some(&self.group)))
    }
}
