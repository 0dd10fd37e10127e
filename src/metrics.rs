//! Every metric, with its labels. Handles are made once, at start: a label takes only values that the configuration or a
//! provider's own list knows, so that no sender can grow the series.

use std::sync::Arc;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::brokers::{Reason, Restart};
use crate::config::{Action, BrokerId, Config, Otherwise, Source};
use crate::ingress::{Refusal, Status};

/// Seconds: from a fast acknowledgement on the same machine to past the default `publish_timeout`.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0, 10.0, 30.0,
];

/// What a label says of a value that is not known in advance.
const OTHER: &str = "other";

/// All metrics of one bridge.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By source, in the order of the configuration.
    pub sources: Vec<SourceMetrics>,
    /// By broker, in the order of the configuration.
    pub brokers: Vec<Arc<BrokerMetrics>>,
    /// Requests that no source has the path of.
    pub unmatched: Requests,
    /// `hookbridge_in_flight`.
    pub in_flight: IntGauge,
    /// `hookbridge_in_flight_bytes`.
    pub in_flight_bytes: IntGauge,
    /// `hookbridge_connections`.
    pub connections: IntGauge,
    /// `hookbridge_connections_rejected_total`.
    pub connections_rejected: IntCounter,
    /// `hookbridge_client_disconnects_total`.
    pub client_disconnects: IntCounter,
    /// `hookbridge_panics_total`.
    pub panics: IntCounter,
    /// `hookbridge_destination_durable`.
    durable: IntGaugeVec,
}

/// A source's.
#[derive(Debug)]
pub struct SourceMetrics {
    /// `hookbridge_requests_total`.
    pub requests: Requests,
    /// `hookbridge_request_duration_seconds`.
    pub duration: Histogram,
    /// `hookbridge_source_last_event_timestamp_seconds` with outcome `published`.
    pub last_published: Gauge,
    /// The same with outcome `refused`.
    pub last_refused: Gauge,
    /// `hookbridge_secret_last_used_timestamp_seconds`, by the secret's index.
    pub secrets: Vec<Gauge>,
    /// `hookbridge_events_total` of each of its routes.
    pub routes: Vec<Events>,
    /// The same of its dead letters.
    pub dead_letters: Events,
}

/// `hookbridge_requests_total` by outcome.
#[derive(Debug)]
pub struct Requests(Vec<(&'static str, IntCounter)>);

impl Requests {
    /// Counts a request that ended as this status or problem code.
    pub fn count(&self, outcome: &'static str) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == outcome) {
            counter.inc();
        }
    }
}

/// `hookbridge_events_total` by type and topic.
#[derive(Debug, Default)]
pub struct Events(Vec<EventCounter>);

#[derive(Debug)]
struct EventCounter {
    broker: BrokerId,
    event_type: &'static str,
    topic: String,
    counter: IntCounter,
}

impl Events {
    /// Counts an event that was stored.
    pub fn count(&self, broker: BrokerId, event_type: &str, topic: &str) {
        let fits = |known: &str, actual: &str| known == actual || known == OTHER;
        // The most precise one comes first.
        let found = self.0.iter().find(|known| {
            known.broker == broker
                && fits(known.event_type, event_type)
                && fits(&known.topic, topic)
        });
        if let Some(known) = found {
            known.counter.inc();
        }
    }
}

/// A broker's.
#[derive(Debug)]
pub struct BrokerMetrics {
    /// `hookbridge_broker_up`.
    pub up: IntGauge,
    /// `hookbridge_broker_queue_messages`.
    pub queue_messages: IntGauge,
    /// `hookbridge_late_acks_total`.
    pub late_acks: IntCounter,
    /// `hookbridge_publish_duration_seconds`.
    pub publish_duration: Histogram,
    errors: Vec<(Reason, IntCounter)>,
    restarts: Vec<(Restart, IntCounter)>,
}

impl BrokerMetrics {
    /// Counts a publish that did not end with an acknowledgement.
    pub fn count_error(&self, reason: Reason) {
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Counts a client that was replaced.
    pub fn count_restart(&self, reason: Restart) {
        if let Some((_, counter)) = self.restarts.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }
}

impl Metrics {
    /// Registers everything for a configuration.
    ///
    /// # Errors
    /// A metric that the registry does not take, which would be a mistake of this file's.
    pub fn new(config: &Config) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(&registry)?;
        let brokers = config
            .brokers
            .iter()
            .map(|broker| families.broker(&broker.name).map(Arc::new));
        let sources = config
            .sources
            .iter()
            .map(|source| families.source(config, source));
        let int_gauge = |name, help| register(&registry, IntGauge::new(name, help)?);
        let counter = |name, help| register(&registry, IntCounter::new(name, help)?);
        let build = register(
            &registry,
            IntGaugeVec::new(
                Opts::new("hookbridge_build_info", "1, for the version that runs"),
                &["version", "commit"],
            )?,
        )?;
        build
            .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), crate::COMMIT])?
            .set(1);
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self {
            sources: sources.collect::<Result<_, _>>()?,
            brokers: brokers.collect::<Result<_, _>>()?,
            unmatched: families.requests(OTHER)?,
            in_flight: int_gauge("hookbridge_in_flight", "Requests that hold a place")?,
            in_flight_bytes: int_gauge(
                "hookbridge_in_flight_bytes",
                "Bytes reserved for the bodies of requests that hold a place",
            )?,
            connections: int_gauge("hookbridge_connections", "Open connections of senders")?,
            connections_rejected: counter(
                "hookbridge_connections_rejected_total",
                "Connections closed because there were too many",
            )?,
            client_disconnects: counter(
                "hookbridge_client_disconnects_total",
                "Senders that did not wait for their answer",
            )?,
            panics: counter(
                "hookbridge_panics_total",
                "Panics that were caught; each is a defect",
            )?,
            durable: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "hookbridge_destination_durable",
                        "Whether an acknowledgement of the destination means stored, by check",
                    ),
                    &["broker", "destination", "check"],
                )?,
            )?,
            registry,
        })
    }

    /// Notes what a check of a destination that the configuration names has found.
    pub fn set_durable(&self, broker: &str, destination: &str, check: &str, is_durable: bool) {
        if let Ok(gauge) = self
            .durable
            .get_metric_with_label_values(&[broker, destination, check])
        {
            gauge.set(i64::from(is_durable));
        }
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// A metric that can't be written.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The families whose members differ by label.
struct Families {
    requests: IntCounterVec,
    events: IntCounterVec,
    request_duration: HistogramVec,
    last_event: GaugeVec,
    secret_used: GaugeVec,
    publish_duration: HistogramVec,
    publish_errors: IntCounterVec,
    restarts: IntCounterVec,
    broker_up: IntGaugeVec,
    broker_queue: IntGaugeVec,
    late_acks: IntCounterVec,
}

impl Families {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let int_gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()),
                    labels,
                )?,
            )
        };
        Ok(Self {
            requests: counters(
                "hookbridge_requests_total",
                "Requests by how they were answered",
                &["source", "outcome"],
            )?,
            events: counters(
                "hookbridge_events_total",
                "Events that a broker stored",
                &["source", "type", "broker", "topic"],
            )?,
            request_duration: histograms(
                "hookbridge_request_duration_seconds",
                "From a request's head to its answer",
                &["source"],
            )?,
            last_event: gauges(
                "hookbridge_source_last_event_timestamp_seconds",
                "Unix time of the last event that was published, and of the last request that was refused",
                &["source", "outcome"],
            )?,
            secret_used: gauges(
                "hookbridge_secret_last_used_timestamp_seconds",
                "Unix time at which the secret last verified a request; 0 if it never did",
                &["source", "index"],
            )?,
            publish_duration: histograms(
                "hookbridge_publish_duration_seconds",
                "From a publish to its outcome",
                &["broker"],
            )?,
            restarts: counters(
                "hookbridge_broker_client_restarts_total",
                "Clients that were replaced",
                &["broker", "reason"],
            )?,
            publish_errors: counters(
                "hookbridge_publish_errors_total",
                "Publishes without an acknowledgement",
                &["broker", "reason"],
            )?,
            broker_up: int_gauges(
                "hookbridge_broker_up",
                "Whether the broker can be published to",
                &["broker"],
            )?,
            broker_queue: int_gauges(
                "hookbridge_broker_queue_messages",
                "Messages that wait for the broker's acknowledgement",
                &["broker"],
            )?,
            late_acks: counters(
                "hookbridge_late_acks_total",
                "Acknowledgements after the request's deadline",
                &["broker"],
            )?,
        })
    }

    fn requests(&self, source: &str) -> Result<Requests, prometheus::Error> {
        let outcomes = Status::ALL
            .iter()
            .map(|status| status.as_str())
            .chain(Refusal::CODES);
        let counters = outcomes.map(|outcome| {
            Ok((
                outcome,
                self.requests
                    .get_metric_with_label_values(&[source, outcome])?,
            ))
        });
        counters.collect::<Result<_, _>>().map(Requests)
    }

    fn source(&self, config: &Config, source: &Source) -> Result<SourceMetrics, prometheus::Error> {
        let name = source.name.as_str();
        let secrets = (0..source.secret_count).map(|index| {
            self.secret_used
                .get_metric_with_label_values(&[name, &index.to_string()])
        });
        let routes = source.routes.iter().map(|route| match &route.action {
            Action::Publish(forwarding) => {
                let mut events = Events::default();
                for destination in forwarding.destinations() {
                    let types = source
                        .provider
                        .event_types()
                        .iter()
                        .copied()
                        .filter(|event_type| route.matches(event_type));
                    let known = types.flat_map(|event_type| {
                        destination
                            .topics_for(Some(event_type), name)
                            .map(move |topic| (event_type, topic))
                    });
                    let pairs: Vec<_> = known
                        .chain(
                            destination
                                .topics_for(None, name)
                                .map(|topic| (OTHER, topic)),
                        )
                        .collect();
                    events.0.extend(
                        self.events(config, name, destination.broker, pairs.into_iter())?
                            .0,
                    );
                }
                Ok::<_, prometheus::Error>(events)
            }
            Action::Ignore => Ok(Events::default()),
        });
        let mut dead_letters = Events::default();
        for otherwise in [&source.on_invalid, &source.on_unrouted] {
            if let Otherwise::DeadLetter { broker, topic } = otherwise {
                let types = source.provider.event_types().iter().copied().chain([OTHER]);
                let pairs = types.map(|event_type| (event_type, Some(topic.clone())));
                dead_letters
                    .0
                    .extend(self.events(config, name, *broker, pairs)?.0);
            }
        }
        Ok(SourceMetrics {
            requests: self.requests(name)?,
            duration: self
                .request_duration
                .get_metric_with_label_values(&[name])?,
            last_published: self
                .last_event
                .get_metric_with_label_values(&[name, "published"])?,
            last_refused: self
                .last_event
                .get_metric_with_label_values(&[name, "refused"])?,
            secrets: secrets.collect::<Result<_, _>>()?,
            routes: routes.collect::<Result<_, _>>()?,
            dead_letters,
        })
    }

    fn events(
        &self,
        config: &Config,
        source: &str,
        broker: BrokerId,
        pairs: impl Iterator<Item = (&'static str, Option<String>)>,
    ) -> Result<Events, prometheus::Error> {
        let counters = pairs.map(|(event_type, topic)| {
            let topic = topic.unwrap_or_else(|| OTHER.to_owned());
            let counter = self.events.get_metric_with_label_values(&[
                source,
                event_type,
                &config.broker(broker).name,
                &topic,
            ])?;
            Ok(EventCounter {
                broker,
                event_type,
                topic,
                counter,
            })
        });
        counters.collect::<Result<_, _>>().map(Events)
    }

    fn broker(&self, name: &str) -> Result<BrokerMetrics, prometheus::Error> {
        let restarts = Restart::ALL.map(|reason| {
            let counter = self
                .restarts
                .get_metric_with_label_values(&[name, reason.label()])?;
            Ok((reason, counter))
        });
        let errors = Reason::ALL.map(|reason| {
            Ok((
                reason,
                self.publish_errors
                    .get_metric_with_label_values(&[name, reason.label()])?,
            ))
        });
        Ok(BrokerMetrics {
            up: self.broker_up.get_metric_with_label_values(&[name])?,
            queue_messages: self.broker_queue.get_metric_with_label_values(&[name])?,
            late_acks: self.late_acks.get_metric_with_label_values(&[name])?,
            publish_duration: self
                .publish_duration
                .get_metric_with_label_values(&[name])?,
            restarts: restarts
                .into_iter()
                .collect::<Result<_, prometheus::Error>>()?,
            errors: errors
                .into_iter()
                .collect::<Result<_, prometheus::Error>>()?,
        })
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
