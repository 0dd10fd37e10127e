//! Whether the cluster can be published to: from acknowledgements and, when there are none, from metadata. Never from
//! librdkafka's error callback or statistics, which say little (librdkafka#2543, #5546).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use super::{Producer, Settings};
use crate::brokers::{Health, StartError};
use crate::metrics::BrokerMetrics;

/// An acknowledgement says for this long that the cluster is up.
const FRESH: Duration = Duration::from_secs(10);
/// How often an idle cluster that is up is asked.
const INTERVAL_UP: Duration = Duration::from_secs(5);
/// How often one that is down is asked.
const INTERVAL_DOWN: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Watches one cluster.
#[derive(Debug)]
pub(super) struct Watch {
    name: String,
    topics: Vec<String>,
    started: Instant,
    /// Milliseconds after `started` of the last acknowledgement; 0 before the first.
    last_success_ms: AtomicU64,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug)]
struct State {
    health: Health,
    /// What librdkafka complained about last, for when the cluster is down.
    complaint: Option<String>,
    is_stopped: bool,
}

impl Watch {
    pub(super) fn new(name: &str, topics: Vec<String>) -> Self {
        let state = State {
            health: Health::Down("not reached yet".to_owned()),
            complaint: None,
            is_stopped: false,
        };
        Self {
            name: name.to_owned(),
            topics,
            started: Instant::now(),
            last_success_ms: AtomicU64::new(0),
            state: Mutex::new(state),
            stopped: Condvar::new(),
        }
    }

    /// Starts the thread that watches; it ends with the producer. Metadata calls block, so it is none of Tokio's.
    pub(super) fn start(
        self: &Arc<Self>,
        producer: &Arc<Producer>,
        metrics: &Arc<BrokerMetrics>,
    ) -> Result<(), StartError> {
        let (watch, producer, metrics) = (
            Arc::clone(self),
            Arc::downgrade(producer),
            Arc::clone(metrics),
        );
        let thread = std::thread::Builder::new().name(format!("watch-{}", self.name));
        let started = thread.spawn(move || watch.run(&producer, &metrics));
        started.map(drop).map_err(|error| {
            StartError(format!(
                "broker {}: no thread could be started: {error}",
                self.name
            ))
        })
    }

    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.stopped.notify_all();
    }

    pub(super) fn note_success(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_success_ms
            .store(elapsed.max(1), Ordering::Relaxed);
    }

    pub(super) fn note_error(&self, error: &KafkaError, reason: &str) {
        let mut state = self.state();
        let is_authentication = matches!(error.rdkafka_error_code(), Some(Code::Authentication));
        let complaint = if is_authentication {
            format!("authentication failed: {reason}")
        } else {
            reason.to_owned()
        };
        if state.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(broker = self.name, "{complaint}");
            state.complaint = Some(complaint);
        }
    }

    pub(super) fn health(&self) -> Health {
        self.state().health.clone()
    }

    fn run(&self, producer: &Weak<Producer>, metrics: &BrokerMetrics) {
        loop {
            let Some(producer) = producer.upgrade() else {
                return;
            };
            let health = self.look(&producer);
            drop(producer);
            let interval = if matches!(health, Health::Up { .. }) {
                INTERVAL_UP
            } else {
                INTERVAL_DOWN
            };
            metrics
                .up
                .set(i64::from(matches!(health, Health::Up { .. })));
            self.change_to(health);
            let state = self.state();
            let waited = self
                .stopped
                .wait_timeout_while(state, interval, |state| !state.is_stopped);
            if waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped {
                return;
            }
        }
    }

    fn look(&self, producer: &Producer) -> Health {
        match (self.seconds_of_success(), self.health()) {
            (true, up @ Health::Up { .. }) => up,
            (true, Health::Down(_)) => Health::Up {
                missing: Vec::new(),
            },
            (false, _) => probe(producer.client(), &self.topics, PROBE_TIMEOUT),
        }
    }

    /// Whether the last acknowledgement is fresh.
    fn seconds_of_success(&self) -> bool {
        let last = self.last_success_ms.load(Ordering::Relaxed);
        last != 0
            && self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(last))
                < FRESH
    }

    fn change_to(&self, health: Health) {
        let mut state = self.state();
        let health = match (health, &state.complaint) {
            (Health::Down(why), Some(complaint)) => Health::Down(format!("{why} ({complaint})")),
            (health, _) => health,
        };
        if state.health == health {
            return;
        }
        match &health {
            Health::Up { missing } if missing.is_empty() => {
                tracing::info!(broker = self.name, "broker is up")
            }
            Health::Up { missing } => tracing::warn!(
                broker = self.name,
                missing = missing.join(", "),
                "broker is up, but lacks topics"
            ),
            Health::Down(why) => tracing::warn!(broker = self.name, why, "broker is down"),
        }
        if matches!(health, Health::Up { .. }) {
            state.complaint = None;
        }
        state.health = health;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the cluster for the topics: it is up when it answers and has a leader for at least one of them.
fn probe<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Health {
    let deadline = Instant::now() + timeout;
    let mut missing = Vec::new();
    for topic in topics {
        match has_leaders(
            client,
            topic,
            deadline.saturating_duration_since(Instant::now()),
        ) {
            Ok(true) => {}
            Ok(false) => missing.push(topic.clone()),
            Err(error) => return Health::Down(format!("no answer: {}", code(&error))),
        }
    }
    if topics.is_empty() {
        return match client.fetch_metadata(None, timeout) {
            Ok(_) => Health::Up { missing },
            Err(error) => Health::Down(format!("no answer: {}", code(&error))),
        };
    }
    if missing.len() == topics.len() {
        return Health::Down(format!("no leader for {}", missing.join(", ")));
    }
    Health::Up { missing }
}

fn has_leaders<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<bool, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.is_some_and(|found| {
        let mut partitions = found.partitions().iter();
        found
            .error()
            .is_none_or(|error| error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
            && !found.partitions().is_empty()
            && partitions.all(|partition| partition.leader() >= 0)
    }))
}

fn code(error: &KafkaError) -> String {
    error
        .rdkafka_error_code()
        .map_or_else(|| error.to_string(), |code| code.to_string())
}

/// Reaches the cluster once and looks for the topics.
pub(in crate::brokers) async fn inspect(
    settings: &Settings,
    topics: &[String],
    timeout: Duration,
) -> Result<(), Vec<String>> {
    let (settings, topics) = (settings.clone(), topics.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        let config = settings.consumer_config(false);
        let client: BaseProducer = config
            .create()
            .map_err(|error| vec![super::describe(&error)])?;
        match probe(client.client(), &topics, timeout) {
            Health::Up { missing } if missing.is_empty() => Ok(()),
            Health::Up { missing } => Err(missing
                .iter()
                .map(|topic| format!("topic {topic} does not exist or has no leader"))
                .collect()),
            Health::Down(why) => Err(vec![why]),
        }
    });
    looking
        .await
        .unwrap_or_else(|error| Err(vec![error.to_string()]))
}
