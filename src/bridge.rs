//! One configuration at work: its brokers' clients, and the handles of its metrics. A request holds one [`Bridge`] from its
//! first step to its last, so it sees no other configuration's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::brokers::{Broker, Health, Message, NotStored, Outcome, StartError, Unknown};
use crate::config::{BrokerId, Config, NamedBroker, Position, ReadyWhen, Source};
use crate::ingress::duplicates::Window;
use crate::ingress::rate_limit::Limiter;
use crate::ingress::{Permits, Refusal, RequestId, Share, Status};
use crate::inspection::Inspection;
use crate::metrics::{BrokerMetrics, Handles, SourceMetrics, unix_seconds};
use crate::process::Process;
use crate::providers::{DedupBy, EventId};
use crate::telemetry::shorten;

/// One configuration at work.
#[derive(Debug)]
pub struct Bridge {
    process: Arc<Process>,
    config: Config,
    handles: Handles,
    /// By broker.
    clients: Vec<Client>,
    permits: Arc<Permits>,
    /// By source, where it remembers what was stored.
    windows: Vec<Option<Arc<Window>>>,
    /// By source, where its requests are limited.
    limiters: Vec<Option<Arc<Limiter>>>,
    paths: HashMap<String, Arc<Source>>,
    needed_brokers: Vec<BrokerId>,
    /// Tells that the last request has let go of it.
    in_use: DropGuard,
}

/// A broker's client, and its part of what may be under way.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) broker: Arc<Broker>,
    share: Arc<Share>,
    inspection: Arc<Inspection>,
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
    /// Starts the clients of all brokers. They connect in the background.
    ///
    /// # Errors
    /// What a client does not take of its settings.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let process = Process::new().map_err(metrics_error)?;
        Self::assemble(config, Arc::new(process), None).await
    }

    /// What is to follow this one: clients whose settings are the same, what is under way and what is remembered are shared
    /// between the two.
    ///
    /// # Errors
    /// What a new client does not take of its settings.
    pub(crate) async fn successor(&self, config: Config) -> Result<Self, StartError> {
        Self::assemble(config, Arc::clone(&self.process), Some(self)).await
    }

    async fn assemble(
        config: Config,
        process: Arc<Process>,
        earlier: Option<&Self>,
    ) -> Result<Self, StartError> {
        let handles = process.metrics().handles(&config).map_err(metrics_error)?;
        let limits = config.broker_limits();
        let (share_events, share_bytes) = config.broker_share();
        let mut clients = Vec::with_capacity(config.brokers.len());
        for (id, metrics) in config.broker_ids().zip(&handles.brokers) {
            if let Some(same) = earlier.and_then(|earlier| earlier.client_as_for(&config, id)) {
                clients.push(same.clone());
                continue;
            }
            let named = config.broker(id);
            let destinations = config.known_destinations(id);
            let metrics = Arc::clone(metrics);
            let started =
                Broker::start(&named.name, &named.settings, limits, destinations, metrics).await;
            if let (Err(_), Some(earlier)) = (&started, earlier) {
                process.metrics().forget(&handles, &earlier.handles);
            }
            clients.push(Client {
                broker: Arc::new(started?),
                share: Arc::new(Share::new(share_events, share_bytes)),
                inspection: Arc::default(),
            });
        }
        let (max_events, max_bytes) = (config.http.max_in_flight, config.http.max_in_flight_bytes);
        let by_source = config.sources.iter().map(|source| {
            let earlier = earlier.and_then(|earlier| earlier.source_called(&source.name));
            (earlier.map(|earlier| earlier.index), source.max_in_flight)
        });
        let permits = match earlier {
            Some(earlier) => earlier
                .permits
                .with_limits(max_events, max_bytes, by_source),
            None => Permits::new(max_events, max_bytes, by_source.map(|(_, limit)| limit)),
        };
        let windows = config.sources.iter().map(|source| {
            let lifetime = source
                .dedup_window
                .filter(|_| source.dedup_by != DedupBy::Never)?;
            let earlier = earlier.and_then(|earlier| {
                earlier
                    .window(earlier.source_called(&source.name)?)
                    .cloned()
            });
            Some(earlier.unwrap_or_else(|| Window::new(lifetime)))
        });
        let limiters = config.sources.iter().map(|source| {
            let limit = source.rate_limit?;
            let earlier = earlier.and_then(|earlier| {
                let limiter = earlier.limiter(earlier.source_called(&source.name)?)?;
                (limiter.limit() == limit).then(|| Arc::clone(limiter))
            });
            Some(earlier.unwrap_or_else(|| Arc::new(Limiter::new(limit))))
        });
        let paths = config
            .sources
            .iter()
            .map(|source| (source.path.clone(), Arc::clone(source)))
            .collect();
        Ok(Self {
            windows: windows.collect(),
            limiters: limiters.collect(),
            needed_brokers: config.needed_brokers(),
            process,
            config,
            handles,
            clients,
            permits,
            paths,
            in_use: CancellationToken::new().drop_guard(),
        })
    }

    /// The client of the broker of this name, where it does all that another configuration wants of it.
    fn client_as_for(&self, config: &Config, id: BrokerId) -> Option<&Client> {
        let wanted = config.broker(id);
        let (named, client) = self
            .clients()
            .find(|(named, _)| named.name == wanted.name)?;
        let is_same = named.settings == wanted.settings
            && named.files == wanted.files
            && self.config.broker_limits() == config.broker_limits();
        is_same.then_some(client)
    }

    fn source_called(&self, name: &str) -> Option<&Source> {
        let mut sources = self.config.sources.iter();
        sources.find(|source| source.name == name).map(Arc::as_ref)
    }

    /// The brokers as they are named, and their clients.
    pub(crate) fn clients(&self) -> impl Iterator<Item = (&NamedBroker, &Client)> {
        self.config.brokers.iter().zip(&self.clients)
    }

    pub(crate) fn broker_metrics(&self) -> impl Iterator<Item = &BrokerMetrics> {
        self.handles.brokers.iter().map(Arc::as_ref)
    }

    /// From now on it is the one that requests get: what it shares with the one before follows its configuration.
    pub(crate) fn take_over(&self, from: &Self) {
        for (id, client) in self.config.broker_ids().zip(&self.clients) {
            client
                .broker
                .set_destinations(self.config.known_destinations(id));
        }
        for (source, window) in self.config.sources.iter().zip(&self.windows) {
            if let (Some(lifetime), Some(window)) = (source.dedup_window, window) {
                window.set_lifetime(lifetime);
            }
        }
        self.process.metrics().forget(&from.handles, &self.handles);
        self.show_inspections();
    }

    /// It does not follow the one that runs.
    pub(crate) fn give_way(&self, to: &Self) {
        self.process.metrics().forget(&self.handles, &to.handles);
    }

    /// Is cancelled when the last request has let go of it.
    pub(crate) fn unused(&self) -> CancellationToken {
        self.in_use.token().clone()
    }

    /// What outlives the configuration.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metrics as text, the gauges that are read and not kept among them.
    ///
    /// # Errors
    /// A metric that can't be written.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = self.process.metrics();
        metrics.ready.set(i64::from(self.readiness().is_ready));
        metrics.in_flight.set(gauge(self.permits.events_taken()));
        metrics
            .in_flight_bytes
            .set(gauge(self.permits.bytes_taken()));
        let clients = self.config.broker_ids().zip(&self.clients);
        for ((id, client), metrics) in clients.zip(&self.handles.brokers) {
            let takes_events = matches!(
                client.broker.health(),
                Health::Up { .. }
                    | Health::Refusing {
                        takes_others: true,
                        ..
                    }
            );
            let is_up = takes_events && !self.is_pending(id);
            metrics.up.set(i64::from(is_up));
            metrics.queue_messages.set(gauge(client.broker.queue_len()));
        }
        metrics.encode()
    }

    /// Whether events can be taken now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut missing = Vec::new();
        let (mut up, mut is_durable) = (0, true);
        for id in &self.needed_brokers {
            let named = self.config.broker(*id);
            let name = &named.name;
            let reservations = self.reservations(*id);
            match self.broker(*id).health() {
                Health::Up { .. } if reservations.is_pending => {
                    missing.push(format!(
                        "broker {name}: its destinations have not been inspected yet"
                    ));
                    is_durable &= !named.require_durable;
                }
                Health::Up { missing: absent } => {
                    up += 1;
                    missing.extend(absent.iter().map(|what| format!("broker {name}: {what}")));
                    let is_told = |name: &str| absent.iter().any(|what| what.contains(name));
                    let untold = reservations.unusable.iter();
                    let untold = untold.filter(|unusable| !is_told(&unusable.destination));
                    missing.extend(untold.map(|unusable| {
                        let why = unusable.verdict.why().unwrap_or_default();
                        format!("broker {name}: {}: {why}", unusable.destination)
                    }));
                }
                Health::Refusing { why, takes_others } => {
                    up += usize::from(takes_others);
                    missing.push(format!("broker {name}: {why}"));
                }
                Health::Down(why) => missing.push(format!("broker {name}: {why}")),
                Health::Starting => missing.push(format!("broker {name}: not reached yet")),
            }
            let is_usable = reservations.unusable.is_empty() || !named.require_durable;
            is_durable &= is_usable && reservations.undurable.is_empty();
            missing.extend(reservations.undurable.iter().map(|undurable| {
                let why = undurable.verdict.why().unwrap_or_default();
                format!(
                    "broker {name} (require_durable): {}: {why}",
                    undurable.destination
                )
            }));
        }
        let is_draining = self.process.is_draining();
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

    /// Flushes the brokers and ends their clients. Returns how many messages were left without an answer.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let drains = self
            .clients
            .iter()
            .map(|client| client.broker.drain(deadline));
        let left = futures_util::future::join_all(drains).await;
        left.into_iter().sum()
    }

    /// The brokers that routes and dead letters need.
    pub(crate) fn needed_brokers(&self) -> &[BrokerId] {
        &self.needed_brokers
    }

    pub(crate) fn inspection(&self, id: BrokerId) -> &Inspection {
        &self.client(id).inspection
    }

    fn client(&self, id: BrokerId) -> &Client {
        #[expect(
            clippy::indexing_slicing,
            reason = "the clients stand in the order of the configuration that made the id"
        )]
        &self.clients[id.index()]
    }

    pub(crate) fn broker(&self, id: BrokerId) -> &Broker {
        &self.client(id).broker
    }

    pub(crate) fn share(&self, id: BrokerId) -> &Share {
        &self.client(id).share
    }

    pub(crate) fn window(&self, source: &Source) -> Option<&Arc<Window>> {
        self.windows.get(source.index).and_then(Option::as_ref)
    }

    /// Tells every request that still waits for a broker that nothing is known: the time is up.
    pub fn give_up(&self) {
        self.clients
            .iter()
            .for_each(|client| client.broker.give_up());
    }

    pub(crate) fn source_at(&self, path: &str) -> Option<Arc<Source>> {
        self.paths.get(path).cloned()
    }

    pub(crate) fn limiter(&self, source: &Source) -> Option<&Arc<Limiter>> {
        self.limiters.get(source.index)?.as_ref()
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    pub(crate) fn note_verified(&self, source: &Source, secret_index: Option<usize>) {
        let secrets = self.source_metrics(source).map(|metrics| &metrics.secrets);
        let used = secrets.zip(secret_index);
        if let Some(used) = used.and_then(|(secrets, index)| secrets.get(index)) {
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
            None => self.process.metrics().unmatched.count(code),
        }
        if let Some(suppressed) = self.process.pass_refusal(code) {
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
        if let Some(suppressed) = self.process.pass_dead_letter(refusal.code()) {
            let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
            tracing::warn!(source = source.name, code = refusal.code(), event_id, suppressed, detail = %shorten(&refusal.detail()), "event dead-lettered");
        }
    }

    pub(crate) fn note_publish(&self, broker: BrokerId, duration: Duration) {
        if let Some(metrics) = self.handles.brokers.get(broker.index()) {
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
        if let Some(metrics) = self.handles.brokers.get(broker.index()) {
            metrics.count_error(reason);
        }
        if let Some(suppressed) = self.process.pass_failure(reason) {
            let broker = &self.config.broker(broker).name;
            let topic = shorten(&message.destination);
            let event = shorten(message.name());
            let is_certain = matches!(outcome, Outcome::NotStored(_));
            tracing::error!(broker, topic, event, reason = reason.label(), is_certain, detail = %shorten(detail), suppressed, "event not confirmed");
        }
        outcome
    }

    fn source_metrics(&self, source: &Source) -> Option<&SourceMetrics> {
        self.handles.sources.get(source.index)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn metrics_error(error: prometheus::Error) -> StartError {
    StartError(format!("metrics: {error}"))
}
