//! Reads topics back: `hookbridge tail` and the demo. No group, nothing is committed.

use std::time::Duration;

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::tokens::Login;
use super::{Settings, describe, rights};
use crate::brokers::delivered::{Delivered, StartAt};
use crate::brokers::error::SubscribeError;

/// Limit of each request to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// librdkafka requires a group although nothing is committed.
const GROUP: &str = "hookbridge-tail";

pub struct Subscription(StreamConsumer<Login>);

impl Subscription {
    pub(in crate::brokers) async fn start(
        settings: &Settings,
        topics: &[String],
        from: StartAt,
    ) -> Result<Self, SubscribeError> {
        let (settings, topics) = (settings.clone(), topics.to_owned());
        let starting = tokio::task::spawn_blocking(move || assign(&settings, &topics, from));
        starting
            .await
            .unwrap_or_else(|error| Err(SubscribeError(error.to_string())))
    }

    pub(in crate::brokers) async fn next(&mut self) -> Result<Delivered, SubscribeError> {
        let message = self.0.recv().await;
        message
            .map(|message| delivered(&message))
            .map_err(|error| SubscribeError(rights::explain(&error, "the topics", Some(GROUP))))
    }
}

pub(super) fn delivered(message: &BorrowedMessage<'_>) -> Delivered {
    let headers = message.headers().map(|headers| {
        let all = headers.iter();
        all.map(|header| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        })
        .collect()
    });
    Delivered {
        topic: message.topic().to_owned(),
        position: Some((message.partition(), message.offset())),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

fn assign(
    settings: &Settings,
    topics: &[String],
    from: StartAt,
) -> Result<Subscription, SubscribeError> {
    let fail = |error: &KafkaError, topic: &str| {
        SubscribeError(rights::explain(
            error,
            &format!("the topic {topic}"),
            Some(GROUP),
        ))
    };
    let consumer = settings.consumer(&settings.consumer_config(from == StartAt::Earliest))?;
    let mut assignment = TopicPartitionList::new();
    for topic in topics {
        let partitions = rights::partitions(&consumer, topic, TIMEOUT)?;
        for partition in partitions {
            let offset = match from {
                StartAt::Earliest => Offset::Beginning,
                // As a number: `Offset::End` would be resolved later, after messages that should be seen.
                StartAt::Latest => {
                    let (_, end) = consumer
                        .fetch_watermarks(topic, partition, TIMEOUT)
                        .map_err(|error| fail(&error, topic))?;
                    Offset::Offset(end)
                }
            };
            assignment
                .add_partition_offset(topic, partition, offset)
                .map_err(|error| fail(&error, topic))?;
        }
    }
    consumer
        .assign(&assignment)
        .map_err(|error| SubscribeError(describe(&error)))?;
    Ok(Subscription(consumer))
}
