//! A producer that publishes nothing, to determine whether it would reach the cluster and be allowed to write.
//!
//! An idempotent producer requests its id as soon as it is connected, and Kafka grants one only to users that may write
//! somewhere. Kafka could tell to which topics (KIP-430), but rdkafka has no safe call for it, so only the first event shows
//! that a user may write to other topics only.

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

/// Poll interval of a trial.
const STEP: Duration = Duration::from_millis(50);

/// Maximum number of complaints kept.
const MOST_COMPLAINTS: usize = 32;

/// Whether a producer may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WriteAccess {
    /// To at least one topic.
    Allowed,
    /// To no topic.
    Denied(String),
    /// No answer in time, or the producer is not idempotent and does not ask.
    Unknown,
}

/// Collects librdkafka's callbacks during the trial.
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
        // Reported nowhere else. If the wording ever changes, the trial takes its whole time.
        if facility == "GETPID" && message.contains("Acquired") {
            self.observed.has_id.store(true, Ordering::Relaxed);
        }
        // A connection closed during the handshake is not an error to librdkafka, only a log line.
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

    /// Polls librdkafka's callbacks for a moment.
    pub(super) fn listen(&self) {
        self.producer.poll(STEP);
    }

    /// In order of arrival.
    pub(super) fn complaints(&self) -> Vec<(Code, String)> {
        self.observer.observed.complaints().clone()
    }

    /// Whether a producer with these settings may write to any topic.
    pub(super) fn write_access(&self, timeout: Duration) -> WriteAccess {
        let deadline = Instant::now() + timeout;
        loop {
            self.listen();
            if let Some((code, what)) = self.client().fatal_error() {
                return if outcome::is_denial(code) {
                    WriteAccess::Denied(outcome::denial(&what))
                } else {
                    WriteAccess::Unknown
                };
            }
            if self.observer.observed.has_id.load(Ordering::Relaxed) {
                return WriteAccess::Allowed;
            }
            if Instant::now() >= deadline {
                return WriteAccess::Unknown;
            }
        }
    }
}
