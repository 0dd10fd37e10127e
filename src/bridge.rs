//! The running whole: a configuration, its brokers' clients, and the handles of its metrics. A request holds one
//! [`Bridge`] from its first step to its last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::brokers::{
    Broker, Finding, Health, Message, NotStored, Outcome, Reason, StartError, Unknown, Verdict,
    durability, together,
};
use crate::config::{BrokerId, Config, Position, ReadyWhen, Source};
use crate::ingress::duplicates::Window;
use crate::ingress::{Permits, Refusal, RequestId, Share, Status};
use crate::metrics::{Metrics, SourceMetrics};
use crate::providers::EventId;
use crate::telemetry::{Gate, shorten};

/// The running whole.
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    brokers: Vec<Broker>,
    metrics: Metrics,
    permits: Arc<Permits>,
    /// By broker.
    shares: Vec<Share>,
    /// By source, where it remembers what was stored.
    windows: Vec<Option<Arc<Window>>>,
    paths: HashMap<String, Arc<Source>>,
    needed_brokers: Vec<BrokerId>,
    /// Requests whose senders have hung up.
    tasks: TaskTracker,
    gates: Gates,
    /// What is wrong with the destinations of brokers that must be durable.
    undurable: Mutex<Vec<String>>,
    is_draining: AtomicBool,
    is_closing: AtomicBool,
    request_prefix: u32,
    request_count: AtomicU64,
}

/// How often the log says the same thing.
#[derive(Debug)]
struct Gates {
    refusals: Vec<(&'static str, Gate)>,
    dead_letters: Vec<(&'static str, Gate)>,
    failures: Vec<(Reason, Gate)>,
}

/// Whether the service can take events, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can.
    pub is_ready: bool,
    /// What is missing, in words.
    pub missing: Vec<String>,
}

impl Bridge {
    /// Starts the clients of all brokers that the routes need. They connect in the background.
    ///
    /// # Errors
    /// What a client does not take of its settings.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let metrics =
            Metrics::new(&config).map_err(|error| StartError(format!("metrics: {error}")))?;
        let limits = config.broker_limits();
        let mut brokers = Vec::with_capacity(config.brokers.len());
        for (id, broker_metrics) in config.broker_ids().zip(&metrics.brokers) {
            let broker = config.broker(id);
            let destinations = config.known_destinations(id);
            brokers.push(
                Broker::start(
                    &broker.name,
                    &broker.settings,
                    limits,
                    destinations,
                    Arc::clone(broker_metrics),
                )
                .await?,
            );
        }
        let by_source = config.sources.iter().map(|source| source.max_in_flight);
        let permits = Permits::new(
            config.http.max_in_flight,
            config.http.max_in_flight_bytes,
            by_source,
        );
        let paths = config
            .sources
            .iter()
            .map(|source| (source.path.clone(), Arc::clone(source)))
            .collect();
        let needed_brokers = config.needed_brokers();
        let (share_events, share_bytes) = config.broker_share();
        let shares = config
            .broker_ids()
            .map(|_| Share::new(share_events, share_bytes))
            .collect();
        let windows = config
            .sources
            .iter()
            .map(|source| source.dedup_window.map(Window::new))
            .collect();
        let gates = Gates {
            refusals: Refusal::CODES.map(|code| (code, Gate::default())).into(),
            dead_letters: Refusal::CODES.map(|code| (code, Gate::default())).into(),
            failures: Reason::ALL.map(|reason| (reason, Gate::default())).into(),
        };
        Ok(Arc::new(Self {
            config,
            brokers,
            metrics,
            permits,
            shares,
            windows,
            paths,
            needed_brokers,
            tasks: TaskTracker::new(),
            gates,
            undurable: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            request_prefix: uuid::Uuid::new_v4().as_fields().0,
            request_count: AtomicU64::new(0),
        }))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics as text, the gauges that are read and not kept among them.
    ///
    /// # Errors
    /// A metric that can't be written.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics
            .in_flight
            .set(gauge(self.permits.events_taken()));
        self.metrics
            .in_flight_bytes
            .set(gauge(self.permits.bytes_taken()));
        for (broker, metrics) in self.brokers.iter().zip(&self.metrics.brokers) {
            metrics.queue_messages.set(gauge(broker.queue_len()));
        }
        self.metrics.encode()
    }

    /// Whether events can be taken now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut missing = Vec::new();
        let mut up = 0;
        for id in &self.needed_brokers {
            let name = &self.config.broker(*id).name;
            match self.broker(*id).health() {
                Health::Up { missing: absent } => {
                    up += 1;
                    missing.extend(
                        absent.iter().map(|destination| {
                            format!("broker {name}: {destination} does not exist")
                        }),
                    );
                }
                Health::Down(why) => missing.push(format!("broker {name}: {why}")),
                Health::Starting => missing.push(format!("broker {name}: not reached yet")),
            }
        }
        let undurable = self
            .undurable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let is_durable = undurable.is_empty();
        missing.extend(undurable);
        let is_draining = self.is_draining.load(Ordering::Acquire);
        if is_draining {
            missing.push("the service is ending".to_owned());
        }
        let is_reachable = match self.config.admin.ready_when {
            ReadyWhen::Any => up > 0 || self.needed_brokers.is_empty(),
            ReadyWhen::All => up == self.needed_brokers.len(),
        };
        Readiness {
            is_ready: is_reachable && is_durable && !is_draining,
            missing,
        }
    }

    /// Looks at every destination that is known in advance, and notes what its acknowledgement survives.
    ///
    /// Returns what is wrong with those that must be durable.
    pub async fn look_at_destinations(
        &self,
        timeout: Duration,
        seen: &mut Vec<Finding>,
    ) -> Vec<String> {
        let mut undurable = Vec::new();
        let mut all = Vec::new();
        for id in &self.needed_brokers {
            let broker = self.config.broker(*id);
            let destinations = self.config.known_destinations(*id);
            let looked = durability(
                &broker.settings,
                &destinations,
                self.config.needs(),
                timeout,
            )
            .await;
            // That it can't be asked is told by its health.
            let findings = looked.unwrap_or_default();
            let new = findings.iter().filter(|finding| !seen.contains(finding));
            for finding in together(new) {
                if let Verdict::Bad(why) | Verdict::Advice(why) = &finding.verdict {
                    let Finding {
                        destination, check, ..
                    } = &finding;
                    tracing::warn!(broker = broker.name, destination, check, "{why}");
                }
            }
            for finding in findings {
                let Finding {
                    destination,
                    check,
                    verdict,
                } = &finding;
                match verdict {
                    Verdict::Unknown(_) => {}
                    _ => self.metrics.set_durable(
                        &broker.name,
                        destination,
                        check,
                        *verdict == Verdict::Good,
                    ),
                }
                if let (Verdict::Bad(why), true) = (verdict, broker.require_durable) {
                    undurable.push(format!("broker {}: {destination}: {why}", broker.name));
                }
                all.push(finding);
            }
        }
        *seen = all;
        *self
            .undurable
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = undurable.clone();
        undurable
    }

    /// From now on `/readyz` says no, and answers ask senders to connect anew.
    pub fn begin_draining(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// From now on new requests are refused.
    pub fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Waits for the requests whose senders have hung up, flushes the brokers and ends their clients. Returns how many
    /// messages were left without an answer.
    pub async fn drain(&self, deadline: Instant) -> usize {
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.tasks.len(),
                "some requests whose senders hung up are not finished"
            );
        }
        let drains = self.brokers.iter().map(|broker| broker.drain(deadline));
        futures_util::future::join_all(drains)
            .await
            .into_iter()
            .sum()
    }

    pub(crate) fn broker(&self, id: BrokerId) -> &Broker {
        #[expect(
            clippy::indexing_slicing,
            reason = "the clients stand in the order of the configuration that made the id"
        )]
        &self.brokers[id.index()]
    }

    pub(crate) fn share(&self, id: BrokerId) -> &Share {
        #[expect(
            clippy::indexing_slicing,
            reason = "the shares stand in the order of the configuration that made the id"
        )]
        &self.shares[id.index()]
    }

    pub(crate) fn window(&self, source: &Source) -> Option<&Arc<Window>> {
        self.windows.get(source.index).and_then(Option::as_ref)
    }

    /// Tells every request that still waits for a broker that nothing is known: the time is up.
    pub fn give_up(&self) {
        self.brokers.iter().for_each(Broker::give_up);
    }

    pub(crate) fn source_at(&self, path: &str) -> Option<Arc<Source>> {
        self.paths.get(path).cloned()
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Unique among this process's requests, and most likely among all replicas'.
    pub(crate) fn next_request_id(&self) -> RequestId {
        RequestId {
            prefix: self.request_prefix,
            count: self.request_count.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn note_verified(&self, source: &Source, secret_index: usize) {
        let secrets = self.source_metrics(source).map(|metrics| &metrics.secrets);
        if let Some(used) = secrets.and_then(|secrets| secrets.get(secret_index)) {
            used.set(unix_seconds());
        }
    }

    /// Counts a request that was received whole.
    pub(crate) fn note_end(
        &self,
        source: &Source,
        result: Result<Status, &Refusal>,
        duration: Duration,
    ) {
        let Some(metrics) = self.source_metrics(source) else {
            return;
        };
        metrics.duration.observe(duration.as_secs_f64());
        // A refusal is counted where it is logged.
        if let Ok(status) = result {
            metrics.requests.count(status.as_str());
        }
    }

    pub(crate) fn note_stored(
        &self,
        source: &Source,
        route: Option<Position>,
        broker: BrokerId,
        event_type: &str,
        topic: &str,
    ) {
        let Some(metrics) = self.source_metrics(source) else {
            return;
        };
        metrics.last_published.set(unix_seconds());
        let events = match route {
            Some(position) => metrics.routes.get(position.index),
            None => Some(&metrics.dead_letters),
        };
        if let Some(events) = events {
            events.count(broker, event_type, topic);
        }
    }

    /// Counts and logs a refusal; the log says the same at most once a second.
    pub(crate) fn note_refusal(
        &self,
        source: Option<&Source>,
        refusal: &Refusal,
        request_id: RequestId,
        event_id: Option<&EventId>,
    ) {
        let code = refusal.code();
        match source.and_then(|source| self.source_metrics(source)) {
            Some(metrics) => {
                metrics.requests.count(code);
                metrics.last_refused.set(unix_seconds());
            }
            None => self.metrics.unmatched.count(code),
        }
        let gate = self
            .gates
            .refusals
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(_, gate)| gate);
        if let Some(suppressed) = gate.and_then(Gate::pass) {
            let source = source.map(|source| source.name.as_str());
            let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
            tracing::warn!(source, code, %request_id, event_id, suppressed, detail = %shorten(&refusal.detail()), "request refused");
        }
    }

    /// Logs an event that went another way; the log says the same at most once a second.
    pub(crate) fn note_dead_letter(
        &self,
        source: &Source,
        refusal: &Refusal,
        event_id: Option<&EventId>,
    ) {
        let gate = self
            .gates
            .dead_letters
            .iter()
            .find(|(known, _)| *known == refusal.code());
        if let Some(suppressed) = gate.and_then(|(_, gate)| gate.pass()) {
            let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
            tracing::warn!(source = source.name, code = refusal.code(), event_id, suppressed, detail = %shorten(&refusal.detail()), "event dead-lettered");
        }
    }

    pub(crate) fn note_publish(&self, broker: BrokerId, duration: Duration) {
        if let Some(metrics) = self.metrics.brokers.get(broker.index()) {
            metrics.publish_duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts and logs a publish that did not end with an acknowledgement.
    pub(crate) fn note_outcome(
        &self,
        broker: BrokerId,
        message: &Message,
        outcome: Outcome,
    ) -> Outcome {
        let (reason, detail) = match &outcome {
            Outcome::Stored(_) => return outcome,
            Outcome::NotStored(NotStored { reason, detail })
            | Outcome::Unknown(Unknown { reason, detail }) => (*reason, detail),
        };
        if let Some(metrics) = self.metrics.brokers.get(broker.index()) {
            metrics.count_error(reason);
        }
        let gate = self
            .gates
            .failures
            .iter()
            .find(|(known, _)| *known == reason)
            .map(|(_, gate)| gate);
        if let Some(suppressed) = gate.and_then(Gate::pass) {
            let broker = &self.config.broker(broker).name;
            let topic = shorten(&message.destination);
            let event = shorten(&message.deduplication_id);
            let is_certain = matches!(outcome, Outcome::NotStored(_));
            tracing::error!(broker, topic, event, reason = reason.label(), is_certain, detail = %shorten(detail), suppressed, "event not confirmed");
        }
        outcome
    }

    fn source_metrics(&self, source: &Source) -> Option<&SourceMetrics> {
        self.metrics.sources.get(source.index)
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
