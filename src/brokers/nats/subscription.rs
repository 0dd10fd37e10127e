//! Reads subjects back: `hookbridge tail`.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};

use super::Settings;
use super::refusals::Refusals;
use crate::brokers::{Delivered, From, SubscribeError};

/// Messages of some subjects.
pub struct Subscription {
    messages: SelectAll<BoxStream<'static, Result<Delivered, SubscribeError>>>,
    refusals: Refusals,
    /// The connection, which ends with the subscription.
    _client: Client,
}

impl Subscription {
    pub(in crate::brokers) async fn start(
        settings: &Settings,
        subjects: &[String],
        from: From,
    ) -> Result<Self, SubscribeError> {
        let (client, refusals) = connect(settings).await.map_err(SubscribeError)?;
        let context = jetstream::new(client.clone());
        let mut messages = SelectAll::new();
        for subject in subjects {
            messages.push(match from {
                From::Start => stored(&context, subject)
                    .await
                    .map_err(|SubscribeError(why)| SubscribeError(refusals.explain(&why)))?,
                From::Now => {
                    let subscriber = client
                        .subscribe(subject.clone())
                        .await
                        .map_err(|error| SubscribeError(error.to_string()))?;
                    live(subscriber)
                }
            });
        }
        client
            .flush()
            .await
            .map_err(|error| SubscribeError(error.to_string()))?;
        Ok(Self {
            messages,
            refusals,
            _client: client,
        })
    }

    pub(in crate::brokers) async fn next(&mut self) -> Result<Delivered, SubscribeError> {
        tokio::select! {
            message = self.messages.next() => message
                .unwrap_or_else(|| Err(SubscribeError("the connection ended".to_owned()))),
            refusal = self.refusals.of_subscription() => Err(SubscribeError(refusal)),
        }
    }
}

pub(super) async fn connect(settings: &Settings) -> Result<(Client, Refusals), String> {
    let (options, refusals) = Refusals::hear(settings.connect_options());
    let client = options.connect(settings.addresses()).await;
    client
        .map(|client| (client, refusals))
        .map_err(|error| error.to_string())
}

fn live(subscriber: Subscriber) -> BoxStream<'static, Result<Delivered, SubscribeError>> {
    subscriber.map(|message| Ok(delivered(message))).boxed()
}

/// The stream that takes the subject.
pub(super) async fn stream_of(context: &Context, subject: &str) -> Result<Stream, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{subject}: {error}");
    let name = context.stream_by_subject(subject).await;
    let stream = context.get_stream(name.map_err(|error| fail(&error))?);
    stream.await.map_err(|error| fail(&error))
}

/// What a stream keeps of the subject, and what comes.
async fn stored(
    context: &Context,
    subject: &str,
) -> Result<BoxStream<'static, Result<Delivered, SubscribeError>>, SubscribeError> {
    let fail = |error: &dyn std::fmt::Display| SubscribeError(format!("{subject}: {error}"));
    let stream = stream_of(context, subject).await.map_err(SubscribeError)?;
    let config = pull::OrderedConfig {
        filter_subject: subject.to_owned(),
        deliver_policy: DeliverPolicy::All,
        ..Default::default()
    };
    let consumer = stream
        .create_consumer(config)
        .await
        .map_err(|error| fail(&error))?;
    let messages = consumer.messages().await.map_err(|error| fail(&error))?;
    let read = |message: Result<jetstream::Message, _>| match message {
        Ok(message) => Ok(delivered(message.message)),
        Err(error) => Err(SubscribeError(format!("{error}"))),
    };
    Ok(messages.map(read).boxed())
}

pub(super) fn delivered(message: Message) -> Delivered {
    Delivered {
        topic: message.subject.to_string(),
        position: None,
        key: None,
        headers: message.headers.map(flatten).unwrap_or_default(),
        value: message.payload.to_vec(),
    }
}

/// In the order of the names: the client keeps none of the sender's.
fn flatten(headers: HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = headers
        .iter()
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.to_string(), value.as_str().as_bytes().to_vec()))
        })
        .collect();
    all.sort();
    all
}
