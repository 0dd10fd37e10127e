//! Reads a subject's stream once to its present end, from where the last replay of it stopped. The position is a durable
//! consumer's; it moves only with an acknowledgement.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::RetentionPolicy;
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt as _;

use super::Settings;
use super::session::Session;
use super::subscription::{delivered, stream_of};
use crate::brokers::delivered::Delivered;
use crate::brokers::error::{ReplayError, RequestError};

/// Limit for the server to send the next message.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A message whose replay was interrupted is delivered again after this time.
const ACK_WAIT: Duration = Duration::from_secs(30);

pub struct Replay {
    session: Session,
    consumer: PullConsumer,
    current: Option<jetstream::Message>,
    /// The stream sequence of the last message.
    sequence: u64,
    peek: bool,
    /// Whether the stream keeps acknowledged messages.
    keeps_all: bool,
    remaining: u64,
}

impl Replay {
    /// A `peek` never moves the position.
    pub(in crate::brokers) async fn start(
        settings: &Settings,
        subject: &str,
        selection: Option<&str>,
        peek: bool,
    ) -> Result<Self, ReplayError> {
        let fail = |error: RequestError| ReplayError(format!("{subject}: {error}"));
        let mut session = Session::open(settings).await?;
        let context = jetstream::new(session.client.clone());
        let stream = stream_of(&mut session, &context, subject).await?;
        // A consumer's name has no dots, and two subjects must not share one.
        let name = subject.replace('_', "_u").replace('.', "_d");
        let mut name = format!("hookbridge-replay-{name}");
        if let Some(selection) = selection {
            name.push_str("_s");
            name.push_str(selection);
        }
        let durable = pull::Config {
            durable_name: Some(name.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // One at a time, in order.
            max_ack_pending: 1,
            filter_subject: subject.to_owned(),
            ..Default::default()
        };
        let mut consumer = if peek {
            let durable = async {
                match stream.consumer_info(&name).await {
                    Ok(durable) => Ok(durable.ack_floor.stream_sequence),
                    Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(0),
                    Err(error) => Err(error),
                }
            };
            let position = session.ask(durable).await.map_err(fail)?;
            let ephemeral = pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: position + 1,
                },
                ack_policy: AckPolicy::None,
                filter_subject: subject.to_owned(),
                ..Default::default()
            };
            let created = session.ask(stream.create_consumer(ephemeral)).await;
            created.map_err(fail)?
        } else {
            let created = session.ask(stream.get_or_create_consumer(&name, durable));
            created.await.map_err(fail)?
        };
        let info = session.ask(consumer.info()).await.map_err(fail)?;
        let remaining = info
            .num_pending
            .saturating_add(u64::try_from(info.num_ack_pending).unwrap_or_default());
        Ok(Self {
            session,
            consumer,
            current: None,
            sequence: 0,
            peek,
            keeps_all: stream.cached_info().config.retention == RetentionPolicy::Limits,
            remaining,
        })
    }

    pub(in crate::brokers) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(in crate::brokers) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(in crate::brokers) async fn next(&mut self) -> Result<Option<Delivered>, ReplayError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        // A message that an interrupted replay held is redelivered after ACK_WAIT.
        let deadline = tokio::time::Instant::now() + ACK_WAIT + TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            let consumer = self.consumer.clone();
            let fetching = async {
                let fetch = consumer.fetch().max_messages(1).expires(TIMEOUT);
                let mut batch = fetch.messages().await.map_err(|error| error.to_string())?;
                let next = batch.next().await.transpose();
                next.map_err(|error| error.to_string())
            };
            let next = self.session.ask(fetching).await?;
            if let Some(message) = next {
                let read = delivered(message.message.clone());
                self.sequence = message
                    .info()
                    .map_err(|error| ReplayError(error.to_string()))?
                    .stream_sequence;
                self.current = Some(message).filter(|_| !self.peek);
                self.remaining -= 1;
                return Ok(Some(read));
            }
        }
        Err(ReplayError(format!(
            "the server did not send the {} messages that are left",
            self.remaining
        )))
    }

    /// Moves the position past the last message.
    pub(in crate::brokers) async fn done(&mut self) -> Result<(), ReplayError> {
        let Some(message) = self.current.take() else {
            return Ok(());
        };
        Ok(self.session.ask(message.double_ack()).await?)
    }

    /// Moves the position past the last message if the stream keeps it nevertheless.
    pub(in crate::brokers) async fn pass(&mut self) -> Result<(), ReplayError> {
        if self.keeps_all {
            return self.done().await;
        }
        self.leave().await?;
        Err(ReplayError(
            "the stream's retention is not limits, so it would drop a skipped message; choose a destination with --to".to_owned(),
        ))
    }

    /// Leaves the position before the last message, which the next replay gets immediately.
    pub(in crate::brokers) async fn leave(&mut self) -> Result<(), ReplayError> {
        let Some(message) = self.current.take() else {
            return Ok(());
        };
        message
            .ack_with(AckKind::Nak(None))
            .await
            .map_err(|error| ReplayError(error.to_string()))
    }
}
