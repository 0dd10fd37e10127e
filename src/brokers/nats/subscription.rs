//! Reads subjects back: `hookbridge tail`.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};

use super::Settings;
use super::session::Session;
use crate::brokers::delivered::{Delivered, StartAt};
use crate::brokers::error::{RequestError, SubscribeError};

pub struct Subscription {
    messages: SelectAll<BoxStream<'static, Result<Delivered, SubscribeError>>>,
    /// Dropped with the subscription.
    session: Session,
}

impl Subscription {
    pub(in crate::brokers) async fn start(
        settings: &Settings,
        subjects: &[String],
        from: StartAt,
    ) -> Result<Self, SubscribeError> {
        // A plain subscription needs no answers, and therefore no inbox.
        let connected = match from {
            StartAt::Earliest => Session::open(settings).await,
            StartAt::Latest => Session::connect(settings).await,
        };
        let mut session = connected?;
        let client = session.client.clone();
        let context = jetstream::new(client.clone());
        let mut messages = SelectAll::new();
        for subject in subjects {
            messages.push(match from {
                StartAt::Earliest => stored(&mut session, &context, subject).await?,
                StartAt::Latest => {
                    let subscriber = client
                        .subscribe(subject.clone())
                        .await
                        .map_err(|error| SubscribeError(error.to_string()))?;
                    live(subscriber)
                }
            });
        }
        let flushed = client.flush().await;
        flushed.map_err(|error| SubscribeError(error.to_string()))?;
        Ok(Self { messages, session })
    }

    pub(in crate::brokers) async fn next(&mut self) -> Result<Delivered, SubscribeError> {
        tokio::select! {
            biased;
            next = self.messages.next() => {
                next.unwrap_or_else(|| Err(SubscribeError("the connection ended".to_owned())))
            }
            refused = self.session.next_refusal() => Err(SubscribeError(refused.to_string())),
        }
    }
}

fn live(subscriber: Subscriber) -> BoxStream<'static, Result<Delivered, SubscribeError>> {
    subscriber.map(|message| Ok(delivered(message))).boxed()
}

pub(super) async fn stream_of(
    session: &mut Session,
    context: &Context,
    subject: &str,
) -> Result<Stream, RequestError> {
    let fail = |error: RequestError| RequestError(format!("{subject}: {error}"));
    let name = session.ask(context.stream_by_subject(subject)).await;
    let stream = context.get_stream(name.map_err(fail)?);
    session.ask(stream).await.map_err(fail)
}

/// The subject's stored messages, then new ones.
async fn stored(
    session: &mut Session,
    context: &Context,
    subject: &str,
) -> Result<BoxStream<'static, Result<Delivered, SubscribeError>>, SubscribeError> {
    let fail = |error: RequestError| SubscribeError(format!("{subject}: {error}"));
    let stream = stream_of(session, context, subject).await?;
    let config = pull::OrderedConfig {
        filter_subject: subject.to_owned(),
        deliver_policy: DeliverPolicy::All,
        ..Default::default()
    };
    let consumer = session.ask(stream.create_consumer(config)).await;
    let consumer = consumer.map_err(fail)?;
    let messages = session.ask(consumer.messages()).await.map_err(fail)?;
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

/// Sorted by name: the client does not keep the order.
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
