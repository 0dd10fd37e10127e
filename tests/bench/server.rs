//! The servers for comparison, as child processes: minimal servers that do more of the work step by step.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
#[expect(clippy::disallowed_types, reason = "the plain use is what is measured")]
use rdkafka::producer::FutureProducer;
use rdkafka::producer::FutureRecord;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::event;
use crate::latency::Latencies;

/// The part of the bridge's work that a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// It reads the body and answers.
    Answer,
    /// It publishes the body before it answers.
    Publish,
    /// It also verifies the signature, extracts id and type from the body and publishes them as headers.
    Sketch,
}

/// The destination of a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Destination {
    /// `host:port` of Kafka
    #[arg(long)]
    kafka: Option<String>,
    /// URL of a nats-server
    #[arg(long)]
    nats: Option<String>,
    /// Topic or subject
    #[arg(long, default_value = "")]
    topic: String,
}

/// Serves until it is killed. Prints the address.
pub(crate) async fn serve(work: Work, destination: &Destination) -> Outcome<()> {
    let client = match work {
        Work::Answer => None,
        Work::Publish | Work::Sketch => Some(Client::connect(destination).await?),
    };
    let handler = Arc::new(Handler { work, client });
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    crate::say(&format!("listening {}", listener.local_addr()?))?;
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let handler = Arc::clone(&handler);
                async move { Ok::<_, std::convert::Infallible>(handler.handle(request).await) }
            });
            // wrk closes its connections silently.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

struct Handler {
    work: Work,
    client: Option<Client>,
}

/// The members that the sketch reads of an event.
#[derive(Deserialize)]
struct Names<'b> {
    #[serde(borrow)]
    event_id: Cow<'b, str>,
    #[serde(borrow)]
    event_type: Cow<'b, str>,
}

impl Handler {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.answer(request).await {
            Ok(text) => Response::new(Full::from(text)),
            Err((status, why)) => {
                let mut response = Response::new(Full::from(why));
                *response.status_mut() = status;
                response
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<String, (StatusCode, String)> {
        let (head, body) = request.into_parts();
        #[expect(
            clippy::disallowed_methods,
            reason = "the plain use is what is measured; the only senders are ours"
        )]
        let body = body
            .collect()
            .await
            .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?
            .to_bytes();
        let unavailable = |error| (StatusCode::SERVICE_UNAVAILABLE, error);
        match (self.work, &self.client) {
            (Work::Publish, Some(client)) => {
                // As long as an id, so that partitions and lengths are the sketch's.
                let key = body.get(38..74).unwrap_or_default();
                client
                    .publish(key, body.clone(), None)
                    .await
                    .map_err(unavailable)?;
                Ok("published".to_owned())
            }
            (Work::Sketch, Some(client)) => {
                if !is_signed(&head.headers, &body) {
                    return Err((
                        StatusCode::UNAUTHORIZED,
                        "the signature is wrong".to_owned(),
                    ));
                }
                let names: Names<'_> = serde_json::from_slice(&body)
                    .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
                client
                    .publish(names.event_id.as_bytes(), body.clone(), Some(&names))
                    .await
                    .map_err(unavailable)?;
                Ok(format!(
                    "{{\"event_id\":\"{}\",\"status\":\"published\"}}",
                    names.event_id
                ))
            }
            (Work::Answer, _) | (_, None) => Ok("read".to_owned()),
        }
    }
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let timestamp = headers.get("x-coalesce-timestamp");
    let signature = headers
        .get("x-coalesce-signature")
        .and_then(|value| value.as_bytes().strip_prefix(b"v1="));
    timestamp
        .zip(signature)
        .is_some_and(|(timestamp, signature)| {
            event::is_signed(timestamp.as_bytes(), body, signature)
        })
}

/// A broker's client, used as its documentation shows.
enum Client {
    Kafka {
        #[expect(clippy::disallowed_types, reason = "the plain use is what is measured")]
        producer: FutureProducer,
        topic: String,
    },
    Nats {
        context: Box<jetstream::Context>,
        subject: String,
    },
}

impl Client {
    async fn connect(destination: &Destination) -> Outcome<Self> {
        let topic = destination.topic.clone();
        match (&destination.kafka, &destination.nats) {
            (Some(address), None) => {
                // As the bridge sets them (brokers/kafka/settings.rs).
                let producer = ClientConfig::new()
                    .set("bootstrap.servers", address)
                    .set("acks", "all")
                    .set("enable.idempotence", "true")
                    .set("linger.ms", "0")
                    .set("message.max.bytes", "2097152")
                    .set("partitioner", "murmur2_random")
                    .create()?;
                Ok(Self::Kafka { producer, topic })
            }
            (None, Some(url)) => {
                let context = Box::new(jetstream::new(async_nats::connect(url).await?));
                Ok(Self::Nats {
                    context,
                    subject: topic,
                })
            }
            _ => Err("a server publishes to a Kafka or to a NATS".into()),
        }
    }

    /// Publishes and waits for the acknowledgement.
    async fn publish(
        &self,
        key: &[u8],
        body: Bytes,
        names: Option<&Names<'_>>,
    ) -> Result<(), String> {
        match self {
            Self::Kafka { producer, topic } => {
                let mut record = FutureRecord::to(topic).key(key).payload(&body[..]);
                if let Some(names) = names {
                    let headers = OwnedHeaders::new_with_capacity(2)
                        .insert(Header {
                            key: "event_id",
                            value: Some(names.event_id.as_bytes()),
                        })
                        .insert(Header {
                            key: "ce_type",
                            value: Some(names.event_type.as_bytes()),
                        });
                    record = record.headers(headers);
                }
                producer
                    .send(record, Duration::from_secs(5))
                    .await
                    .map(drop)
                    .map_err(|(error, _)| error.to_string())
            }
            Self::Nats { context, subject } => {
                let sent = match names {
                    Some(names) => {
                        let mut headers = async_nats::HeaderMap::new();
                        headers.insert("Nats-Msg-Id", names.event_id.as_ref());
                        headers.insert("ce-type", names.event_type.as_ref());
                        context
                            .publish_with_headers(subject.clone(), headers, body)
                            .await
                    }
                    None => context.publish(subject.clone(), body).await,
                };
                sent.map_err(|error| error.to_string())?
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

/// Publishes one event after another, each once the previous one was acknowledged. Prints the latencies as JSON.
pub(crate) async fn round_trips(
    destination: &Destination,
    first: u64,
    seconds: u64,
) -> Outcome<()> {
    let client = Client::connect(destination).await?;
    let mut latencies = Latencies::default();
    // The first ones look up topics and producer ids.
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + Duration::from_secs(seconds);
    for number in first.. {
        let body = event::body(number);
        let key = body.get(38..74).unwrap_or_default().to_vec();
        let started = Instant::now();
        if started >= end {
            break;
        }
        client.publish(&key, body.into(), None).await?;
        if started >= warm {
            latencies.add(started.elapsed());
        }
    }
    crate::say(&serde_json::to_string(&latencies.summary())?)
}

/// Runs librdkafka's mock cluster until it is killed. Prints the address.
pub(crate) fn mock(topics: &[String], partitions: i32) -> Outcome<()> {
    let cluster = rdkafka::mocking::MockCluster::new(1)?;
    for topic in topics {
        cluster.create_topic(topic, partitions, 1)?;
    }
    crate::say(&format!("listening {}", cluster.bootstrap_servers()))?;
    loop {
        std::thread::park();
    }
}
