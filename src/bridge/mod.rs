//! One configuration in operation: its brokers' clients and its metric handles. A request holds one [`Bridge`] from its
//! first step to its last, so a reload changes nothing under it.

mod entries;
pub(crate) mod feed;
mod inspection;
pub mod live;
pub(crate) mod observe;
mod overview;
pub(crate) mod process;
mod readiness;
mod silence;
mod spans;
mod throttles;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bridge::inspection::Inspection;
use crate::bridge::process::Process;
use crate::bridge::throttles::{SourceThrottles, Throttles};
use crate::brokers::{Broker, Health, Meter, Reason, StartError};
use crate::config::{BrokerId, Config, NamedBroker, RateLimit, Source};
use crate::event::DedupBy;
use crate::flow::duplicates::Window;
use crate::flow::nonces::Nonces;
use crate::flow::rate_limit::Limiter;
use crate::flow::silence::Silence;
use crate::flow::{Permits, Share};
use crate::metrics::{Format, Handles};
use crate::trace::Tracer;
use strum::VariantArray as _;

/// One configuration in operation.
#[derive(Debug)]
pub struct Bridge {
    process: Arc<Process>,
    config: Config,
    handles: Handles,
    /// By broker.
    clients: Vec<Client>,
    permits: Arc<Permits>,
    /// By source; none where duplicates are not recognized.
    windows: Vec<Option<Arc<Window>>>,
    /// By source; none without a `rate_limit`.
    limiters: Vec<Option<Arc<Limiter>>>,
    /// By source; none where signatures have no nonce.
    nonces: Vec<Option<Arc<Nonces>>>,
    /// By source; none without an `expect_every`.
    silences: Vec<Option<Arc<Silence>>>,
    /// By source.
    throttles: Vec<Arc<SourceThrottles>>,
    paths: HashMap<String, Arc<Source>>,
    needed_brokers: Vec<BrokerId>,
    /// Cancels its token when the last request drops the bridge.
    in_use: DropGuard,
}

/// A broker's client, with its share of what may be in flight.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) broker: Arc<Broker>,
    share: Arc<Share>,
    inspection: Arc<Inspection>,
    /// Limits the log lines about publishes without an acknowledgement.
    failures: Arc<Throttles<Reason>>,
}

impl Bridge {
    /// Starts the clients of all brokers. They connect in the background.
    ///
    /// # Errors
    /// Settings that a client rejects.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_traced(config, None).await
    }

    /// The same, with traces where there is a tracer.
    ///
    /// # Errors
    /// Settings that a client rejects.
    pub async fn start_traced(config: Config, tracer: Option<Tracer>) -> Result<Self, StartError> {
        let process = Process::new(tracer).map_err(metrics_error)?;
        Self::assemble(config, Arc::new(process), None).await
    }

    /// The bridge of a new configuration. The two share the clients whose settings are equal, the permits and the duplicates
    /// windows.
    ///
    /// # Errors
    /// Settings that a new client rejects.
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
            if let Some(same) = earlier.and_then(|earlier| earlier.reusable_client(&config, id)) {
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
                failures: Arc::new(Throttles::new(Reason::VARIANTS.iter().copied())),
            });
        }
        let (max_events, max_bytes) = (config.http.max_in_flight, config.http.max_in_flight_bytes);
        let by_source = config.sources.iter().map(|source| {
            let earlier = earlier.and_then(|earlier| earlier.source_named(&source.name));
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
            let earlier = earlier
                .and_then(|earlier| earlier.window(earlier.source_named(&source.name)?).cloned());
            Some(earlier.unwrap_or_else(|| Window::new(lifetime)))
        });
        let limiters = config.sources.iter().map(|source| {
            let RateLimit { per_second, burst } = source.rate_limit?;
            let earlier = earlier.and_then(|earlier| {
                let limiter = earlier.limiter(earlier.source_named(&source.name)?)?;
                limiter.is(per_second, burst).then(|| Arc::clone(limiter))
            });
            Some(earlier.unwrap_or_else(|| Arc::new(Limiter::new(per_second, burst))))
        });
        let nonces = config.sources.iter().map(|source| {
            source.nonce_lifetime?;
            let earlier = earlier.and_then(|earlier| {
                let index = earlier.source_named(&source.name)?.index;
                earlier.nonces.get(index)?.clone()
            });
            Some(earlier.unwrap_or_default())
        });
        let silences = config.sources.iter().map(|source| {
            source.expect_every?;
            let earlier = earlier.and_then(|earlier| {
                let index = earlier.source_named(&source.name)?.index;
                earlier.silences.get(index)?.clone()
            });
            Some(earlier.unwrap_or_else(|| Arc::new(Silence::new(process.clock().now()))))
        });
        let silences = silences.collect();
        let throttles = config.sources.iter().map(|source| {
            let earlier = earlier.and_then(|earlier| {
                let index = earlier.source_named(&source.name)?.index;
                earlier.throttles.get(index).map(Arc::clone)
            });
            earlier.unwrap_or_else(|| Arc::new(SourceThrottles::new()))
        });
        let paths = config
            .sources
            .iter()
            .map(|source| (source.path.clone(), Arc::clone(source)))
            .collect();
        Ok(Self {
            windows: windows.collect(),
            limiters: limiters.collect(),
            nonces: nonces.collect(),
            silences,
            throttles: throttles.collect(),
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

    /// The client of the broker of the same name, if settings, files and limits are unchanged.
    fn reusable_client(&self, config: &Config, id: BrokerId) -> Option<&Client> {
        let wanted = config.broker(id);
        let (named, client) = self
            .clients()
            .find(|(named, _)| named.name == wanted.name)?;
        let is_same = named.settings == wanted.settings
            && named.files == wanted.files
            && self.config.broker_limits() == config.broker_limits();
        is_same.then_some(client)
    }

    fn source_named(&self, name: &str) -> Option<&Source> {
        let mut sources = self.config.sources.iter();
        sources.find(|source| source.name == name).map(Arc::as_ref)
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = (&NamedBroker, &Client)> {
        self.config.brokers.iter().zip(&self.clients)
    }

    pub(crate) fn broker_metrics(&self) -> impl Iterator<Item = &Meter> {
        self.handles.brokers.iter().map(Arc::as_ref)
    }

    /// This bridge has replaced `from`: applies its configuration to what the two share.
    pub(crate) fn activated(&self, from: &Self) {
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

    /// This bridge will not be used, and `to` stays in use.
    pub(crate) fn discarded(&self, to: &Self) {
        self.process.metrics().forget(&self.handles, &to.handles);
    }

    /// Cancelled when the last request has dropped this bridge.
    pub(crate) fn unused(&self) -> CancellationToken {
        self.in_use.token().clone()
    }

    /// State that outlives the configuration.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The metrics in the Prometheus text format.
    ///
    /// # Errors
    /// A metric that cannot be encoded.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        self.scrape_as(Format::Prometheus)
    }

    /// The metrics as text. Gauges that are computed on demand are set first.
    ///
    /// # Errors
    /// A metric that cannot be encoded.
    pub(crate) fn scrape_as(&self, format: Format) -> Result<Vec<u8>, prometheus::Error> {
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
        self.show_silences();
        metrics.encode_as(format, |name| {
            let source = self.source_named(name)?;
            let metrics = self.handles.sources.get(source.index)?;
            Some(&metrics.exemplars)
        })
    }

    /// Flushes and ends the brokers' clients. Returns the number of messages without an acknowledgement.
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
            reason = "clients and ids follow the order of the same configuration"
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

    /// Resolves every request that still waits for a broker as unknown: the deadline has passed.
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

    /// Whether a signature's nonce came with another body before.
    pub(crate) fn is_reused(&self, source: &Source, nonce: &str, body: &[u8]) -> bool {
        let nonces = self.nonces.get(source.index).and_then(Option::as_ref);
        nonces
            .zip(source.nonce_lifetime)
            .is_some_and(|(nonces, lifetime)| nonces.is_reused(nonce.as_bytes(), body, lifetime))
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn metrics_error(error: prometheus::Error) -> StartError {
    StartError(format!("metrics: {error}"))
}
