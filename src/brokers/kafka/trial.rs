//! A producer that publishes nothing: whether it would reach the cluster, and whether the cluster would let it write.
//!
//! An idempotent producer asks for its id as soon as it is connected, and Kafka gives one only to users that may write
//! somewhere. Kafka tells which topics those are (KIP-430), but rdkafka has no safe call for it, so a user that may write
//! to other topics only is found out by the first event.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::{Client, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::tokens::Login;
use super::{Settings, outcome};
use crate::brokers::health::Limits;

/// How often a trial looks whether it has its answer.
const STEP: Duration = Duration::from_millis(50);

/// The most complaints that are kept.
const MOST_COMPLAINTS: usize = 32;

/// Whether a producer may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may, to one topic at least.
    Allowed,
    /// It may not write anywhere.
    Denied(String),
    /// There was no answer in time, or the producer is not idempotent and does not ask.
    Unknown,
}

/// What librdkafka says while the trial lasts.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    observed: Arc<Observed>,
    login: Login,
}

#[derive(Debug, Default)]
struct Observed {
    has_id: AtomicBool,
    complaints: Mutex<Vec<(Code, String)>>,
}

impl ClientContext for Observer {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.login.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // It is the only place that says so. Should the words change, the trial takes all of its time.
        if facility == "GETPID" && message.contains("Acquired") {
            self.observed.has_id.store(true, Ordering::Relaxed);
        }
        // A connection that is closed during the handshake is no error to librdkafka, only a line.
        if facility == "FAIL" {
            let reason = message
                .split_once("]: ")
                .map_or(message, |(_, reason)| reason);
            self.observed.note(Code::BrokerTransportFailure, reason);
        }
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.observed.note(code, reason);
        }
    }
}

impl ProducerContext for Observer {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

impl Observed {
    fn note(&self, code: Code, reason: &str) {
        let mut complaints = self.complaints();
        let is_known = complaints.iter().any(|(known, _)| *known == code);
        let complaint = (code, reason.to_owned());
        if (complaints.len() < MOST_COMPLAINTS || !is_known) && !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Vec<(Code, String)>> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer on trial. Its calls block, and so does dropping it.
pub(super) struct Trial {
    producer: BaseProducer<Observer>,
    observer: Observer,
}

impl Trial {
    pub(super) fn start(settings: &Settings, limits: Limits) -> Result<Self, KafkaError> {
        let observer = Observer {
            observed: Arc::default(),
            login: settings.login(),
        };
        let mut config = settings.producer_config(limits);
        config.set("debug", "eos");
        config.set("log.connection.close", "true");
        config.set_log_level(RDKafkaLogLevel::Debug);
        Ok(Self {
            producer: config.create_with_context(observer.clone())?,
            observer,
        })
    }

    pub(super) fn client(&self) -> &Client<Observer> {
        self.producer.client()
    }

    /// Hears what librdkafka has to say for a moment.
    pub(super) fn listen(&self) {
        self.producer.poll(STEP);
    }

    /// What librdkafka has complained about, in order.
    pub(super) fn complaints(&self) -> Vec<(Code, String)> {
        self.observer.observed.complaints().clone()
    }

    /// Whether the cluster would let a producer with these settings write anywhere.
    pub(super) fn verdict(&self, timeout: Duration) -> Verdict {
        let deadline = Instant::now() + timeout;
        loop {
            self.listen();
            if let Some((code, what)) = self.client().fatal_error() {
                return if outcome::is_denial(code) {
                    Verdict::Denied(outcome::denial(&what))
                } else {
                    Verdict::Unknown
                };
            }
            if self.observer.observed.has_id.load(Ordering::Relaxed) {
                return Verdict::Allowed;
            }
            if Instant::now() >= deadline {
                return Verdict::Unknown;
            }
        }
    }
}
