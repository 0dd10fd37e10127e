//! Whether the cluster can be published to: from acknowledgements and, when there are none, from metadata. Never from
//! librdkafka's error callback or statistics, which say little (librdkafka#2543, #5546).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::watch;

use crate::brokers::durability::Attention;
use crate::brokers::{Health, Reason};
use crate::telemetry::Gate;

/// How a complaint about credentials begins.
const AUTHENTICATION_FAILED: &str = "authentication failed: ";

/// An acknowledgement says for this long that the cluster is up.
const FRESH: Duration = Duration::from_secs(10);
/// How often the producer is looked at, and a cluster that is down is asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// How often an idle cluster that is up is asked.
const INTERVAL_UP: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is seen of one cluster.
#[derive(Debug)]
pub(super) struct Watch {
    name: String,
    started: Instant,
    /// Of the last acknowledgement, of the first attempt since then, and of the last statistics.
    last_success: Moment,
    first_attempt: Moment,
    last_statistics: Moment,
    last_probe: Moment,
    must_look: AtomicBool,
    /// The cluster must be asked, whatever acknowledgements say.
    must_ask: AtomicBool,
    /// Nothing of the cluster has answered since it was asked last.
    is_silent: AtomicBool,
    complaints: Gate,
    state: Mutex<State>,
    woken: Condvar,
    /// Tells when topics should be inspected.
    pub(super) attention: watch::Sender<Attention>,
}

/// A time after a start, which threads can share; none at first.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    /// Never 0, which means "none".
    fn set(&self, start: Instant) {
        self.0.store(millis(start), Ordering::Relaxed);
    }

    fn set_if_none(&self, start: Instant) {
        if self.0.load(Ordering::Relaxed) == 0 {
            // Who comes second has about the same time.
            let _first =
                self.0
                    .compare_exchange(0, millis(start), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn elapsed(&self, start: Instant) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(millis(start).saturating_sub(at))),
        }
    }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

#[derive(Debug)]
struct State {
    /// Those that are known in advance.
    topics: Arc<[String]>,
    health: Health,
    /// What librdkafka complained about last, for when the cluster is down.
    complaint: Option<String>,
    is_stopped: bool,
}

impl Watch {
    pub(super) fn new(name: &str, topics: Vec<String>) -> Self {
        let state = State {
            topics: topics.into(),
            health: Health::Starting,
            complaint: None,
            is_stopped: false,
        };
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            last_success: Moment::default(),
            first_attempt: Moment::default(),
            last_statistics: Moment::default(),
            last_probe: Moment::default(),
            must_look: AtomicBool::new(false),
            must_ask: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            complaints: Gate::default(),
            state: Mutex::new(state),
            woken: Condvar::new(),
            attention: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn topics(&self) -> Arc<[String]> {
        Arc::clone(&self.state().topics)
    }

    /// From now on these are the topics that are known in advance.
    pub(super) fn set_topics(&self, topics: Vec<String>) {
        let topics = Arc::from(topics);
        if std::mem::replace(&mut self.state().topics, Arc::clone(&topics)) != topics {
            self.must_ask.store(true, Ordering::Release);
            self.look_now();
        }
    }

    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.woken.notify_all();
    }

    /// Something is wrong enough to look at once.
    pub(super) fn look_now(&self) {
        self.must_look.store(true, Ordering::Release);
        self.woken.notify_all();
    }

    /// Waits until there is something to do. Says whether it is the end.
    pub(super) fn wait(&self, interval: Duration) -> bool {
        let may_sleep =
            |state: &mut State| !state.is_stopped && !self.must_look.load(Ordering::Acquire);
        let waited = self
            .woken
            .wait_timeout_while(self.state(), interval, may_sleep);
        self.must_look.store(false, Ordering::Release);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    pub(super) fn note_attempt(&self) {
        self.first_attempt.set_if_none(self.started);
    }

    pub(super) fn note_success(&self) {
        self.last_success.set(self.started);
        self.first_attempt.clear();
        self.set_silent(false);
    }

    pub(super) fn note_statistics(&self) {
        self.last_statistics.set(self.started);
    }

    /// A new producer owes nothing of the old one's.
    pub(super) fn begin_anew(&self) {
        self.first_attempt.clear();
        self.last_statistics.clear();
        self.set_silent(false);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    fn set_silent(&self, is_silent: bool) {
        if self.is_silent() != is_silent {
            self.is_silent.store(is_silent, Ordering::Relaxed);
        }
    }

    /// Why nothing should be handed to the producer now: what it holds can't be taken back, and nobody would answer.
    pub(super) fn silence(&self) -> Option<(Reason, String)> {
        if !self.is_silent() {
            return None;
        }
        let state = self.state();
        let Health::Down(why) = &state.health else {
            return None;
        };
        let is_authentication = state
            .complaint
            .as_ref()
            .is_some_and(|complaint| complaint.starts_with(AUTHENTICATION_FAILED));
        let reason = if is_authentication {
            Reason::Authentication
        } else {
            Reason::Disconnected
        };
        Some((reason, why.clone()))
    }

    /// Whether a message to this topic would certainly not be stored. A topic that is not known in advance may have
    /// leaders where the known ones have none.
    pub(super) fn is_down_for(&self, topic: &str) -> bool {
        let state = self.state();
        matches!(state.health, Health::Down(_))
            && (self.is_silent() || state.topics.iter().any(|known| known == topic))
    }

    /// How long there have been attempts without a success.
    pub(super) fn unsuccessful_for(&self) -> Duration {
        self.first_attempt.elapsed(self.started).unwrap_or_default()
    }

    /// How long statistics have been missing; they need not be switched on.
    pub(super) fn statistics_silent_for(&self) -> Duration {
        self.last_statistics
            .elapsed(self.started)
            .unwrap_or_default()
    }

    /// Keeps what librdkafka complains about, for when the cluster turns out to be down.
    pub(super) fn note_error(&self, error: &KafkaError, reason: &str) {
        let complaint = match error.rdkafka_error_code() {
            Some(Code::Authentication) => format!("{AUTHENTICATION_FAILED}{reason}"),
            // Says nothing that the probe does not, and says it for ever (librdkafka#5546).
            Some(Code::AllBrokersDown) => return,
            _ => reason.to_owned(),
        };
        let mut state = self.state();
        // Refused credentials stay the cause until they are taken.
        let is_explained = state
            .complaint
            .as_ref()
            .is_some_and(|known| known.starts_with(AUTHENTICATION_FAILED));
        if !is_explained || complaint.starts_with(AUTHENTICATION_FAILED) {
            if let Some(suppressed) = self.complaints.pass() {
                tracing::warn!(broker = self.name, suppressed, "{complaint}");
            }
            state.complaint = Some(complaint);
        }
    }

    pub(super) fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// Judges the cluster from what was seen, and asks it where nothing was.
    pub(super) fn look<C: rdkafka::ClientContext>(&self, client: &Client<C>) -> Health {
        let is_fresh = self.is_fresh();
        let is_probed = self
            .last_probe
            .elapsed(self.started)
            .is_some_and(|elapsed| elapsed < INTERVAL_UP);
        let must_ask = self.must_ask.swap(false, Ordering::AcqRel);
        let health = match (self.health(), is_fresh, is_probed) {
            (up @ Health::Up { .. }, true, _) | (up @ Health::Up { .. }, false, true)
                if !must_ask =>
            {
                up
            }
            (Health::Down(_) | Health::Starting, true, _) if !must_ask => Health::Up {
                missing: Vec::new(),
            },
            (known, ..) => {
                self.last_probe.set(self.started);
                let probed = probe(client, &self.topics(), PROBE_TIMEOUT);
                if probed.is_ok() && self.is_silent() {
                    // What was refused during the silence says nothing of the producer.
                    self.first_attempt.clear();
                }
                let is_fresh = self.is_fresh();
                self.set_silent(probed.is_err() && !is_fresh);
                match probed {
                    Ok(probed) => probed,
                    Err(_) if is_fresh => known,
                    Err(why) => Health::Down(why),
                }
            }
        };
        self.change_to(health)
    }

    fn is_fresh(&self) -> bool {
        self.last_success
            .elapsed(self.started)
            .is_some_and(|elapsed| elapsed < FRESH)
    }

    fn change_to(&self, health: Health) -> Health {
        let mut state = self.state();
        let health = match (health, &state.complaint) {
            (Health::Down(why), Some(complaint)) => Health::Down(format!("{why} ({complaint})")),
            (health, _) => health,
        };
        if state.health == health {
            return health;
        }
        match &health {
            Health::Up { missing } if missing.is_empty() => {
                tracing::info!(broker = self.name, "broker is up");
            }
            Health::Up { missing } => {
                let missing = missing.join(", ");
                tracing::warn!(
                    broker = self.name,
                    missing,
                    "broker is up, but lacks topics"
                );
            }
            Health::Starting | Health::Refusing { .. } => {}
            Health::Down(why) => {
                if !matches!(state.health, Health::Down(_)) || self.complaints.pass().is_some() {
                    tracing::warn!(broker = self.name, why, "broker is down");
                }
            }
        }
        if matches!(health, Health::Up { .. }) {
            state.complaint = None;
            if !matches!(state.health, Health::Up { .. }) {
                self.attention
                    .send_modify(|attention| attention.arrivals += 1);
            }
        }
        state.health = health.clone();
        health
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the cluster answers and has a leader for one of the topics.
pub(super) fn has_leaders_for_some<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> bool {
    matches!(probe(client, topics, timeout), Ok(Health::Up { .. }))
}

/// Asks the cluster for the topics: it is up when it answers and has a leader for at least one of them. An error is that it
/// does not answer.
fn probe<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Health, String> {
    let silent = |error: KafkaError| format!("no answer: {}", code(&error));
    let deadline = Instant::now() + timeout;
    let mut missing = Vec::new();
    for topic in topics {
        let left = deadline.saturating_duration_since(Instant::now());
        if !has_leaders(client, topic, left).map_err(silent)? {
            missing.push(topic.clone());
        }
    }
    if topics.is_empty() {
        client.fetch_metadata(None, timeout).map_err(silent)?;
    } else if missing.len() == topics.len() {
        return Ok(Health::Down(format!(
            "no leader for {}",
            missing.join(", ")
        )));
    }
    Ok(Health::Up { missing })
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
