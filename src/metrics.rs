//! Every metric, with its labels. Handles are made once per configuration. Label values come from the configuration or a
//! preset's list of types, so that no sender can add series. A reload removes the series that are no longer needed.

mod open;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use crate::brokers::{Meter, Reason, Restart};
use crate::config::{Action, BrokerId, Config, FailurePolicy, Source};
use crate::event::{Code, Status};
use crate::providers::outbound;
use crate::telemetry;
use crate::trace::{self, TraceId};
use strum::VariantArray as _;

/// In seconds, from a fast local acknowledgement to beyond the default `publish_timeout`.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0, 10.0, 30.0,
];

const REQUEST_DURATION: &str = "hookbridge_request_duration_seconds";

/// The label value for anything that is not known in advance.
const OTHER: &str = "other";

/// An observation, and the trace that it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exemplar {
    trace_id: TraceId,
    /// In seconds.
    value: f64,
    /// Unix time in seconds.
    at: f64,
}

/// The last exemplar of each bucket of a histogram.
#[derive(Debug, Default)]
pub(crate) struct Exemplars(Mutex<[Option<Exemplar>; BUCKETS.len() + 1]>);

impl Exemplars {
    pub(crate) fn note(&self, duration: Duration, trace_id: TraceId) {
        let value = duration.as_secs_f64();
        let index = BUCKETS.partition_point(|bound| *bound < value);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(index) {
            *bucket = Some(Exemplar {
                trace_id,
                value,
                at: unix_seconds(),
            });
        }
    }

    fn of_bucket(&self, index: usize) -> Option<Exemplar> {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(index).copied().flatten()
    }
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => open::CONTENT_TYPE,
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// Requests whose path no source has.
    pub unmatched: Requests,
    /// `hookbridge_ready`, as of the last scrape.
    pub ready: IntGauge,
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
    panics: Tally,
    /// `hookbridge_log_lines_dropped_total`.
    log_lines_dropped: Tally,
    /// `hookbridge_outbound_requests_total`, by outcome.
    outbound: [Tally; outbound::COUNTS.len()],
    /// `hookbridge_trace_spans_exported_total`.
    spans_exported: Tally,
    /// `hookbridge_trace_spans_dropped_total`, by reason.
    spans_dropped: [Tally; trace::DROPPED.len()],
    /// `hookbridge_config_last_reload_successful`.
    reload_successful: IntGauge,
    /// `hookbridge_config_last_reload_success_timestamp_seconds`.
    reloaded_at: Gauge,
    /// `hookbridge_destination_durable`.
    durable: IntGaugeVec,
}

#[derive(Debug)]
pub struct Handles {
    /// By source, in the order of the configuration.
    pub sources: Vec<SourceMetrics>,
    /// By broker, in the order of the configuration.
    pub brokers: Vec<Arc<Meter>>,
    /// The series of this configuration.
    series: Series,
}

#[derive(Debug)]
pub struct SourceMetrics {
    /// `hookbridge_requests_total`.
    pub requests: Requests,
    /// `hookbridge_request_duration_seconds`.
    pub duration: Histogram,
    /// Its exemplars.
    pub(crate) exemplars: Exemplars,
    /// `hookbridge_source_last_event_timestamp_seconds` with outcome `published`.
    pub last_published: Gauge,
    /// The same with outcome `refused`.
    pub last_refused: Gauge,
    /// `hookbridge_secret_last_used_timestamp_seconds`, by the secret's index.
    pub secrets: Vec<Gauge>,
    /// None without an `expect_every`.
    pub silence: Option<SilenceMetrics>,
    /// `hookbridge_events_total` of each of its routes.
    pub routes: Vec<Events>,
    /// The same of its dead letters.
    pub dead_letters: Events,
}

#[derive(Debug)]
pub struct SilenceMetrics {
    /// `hookbridge_source_silent`, as of the last scrape.
    pub is_silent: IntGauge,
    /// `hookbridge_source_expect_every_seconds`, as of the last scrape.
    pub expect_every: Gauge,
}

/// `hookbridge_requests_total` by outcome.
#[derive(Debug)]
pub struct Requests(Vec<(&'static str, IntCounter)>);

impl Requests {
    /// `outcome` is a status or a problem code.
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
    event_type: String,
    topic: String,
    counter: IntCounter,
}

impl Events {
    /// Counts a stored event.
    pub fn count(&self, broker: BrokerId, event_type: &str, topic: &str) {
        let fits = |known: &str, actual: &str| known == actual || known == OTHER;
        // The most specific series comes first.
        let found = self.0.iter().find(|known| {
            known.broker == broker
                && fits(&known.event_type, event_type)
                && fits(&known.topic, topic)
        });
        if let Some(known) = found {
            known.counter.inc();
        }
    }
}

impl Metrics {
    /// Registers every metric that does not depend on the configuration.
    ///
    /// # Errors
    /// The registry rejects a metric, which would be a defect in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::new(&registry)?;
        let int_gauge = |name, help| register(&registry, IntGauge::new(name, help)?);
        let counter = |name, help| register(&registry, IntCounter::new(name, help)?);
        let build = register(
            &registry,
            IntGaugeVec::new(
                Opts::new(
                    "hookbridge_build_info",
                    "1, with the running version in its labels",
                ),
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
            unmatched: families.requests(&mut HashSet::new(), OTHER)?,
            ready: int_gauge("hookbridge_ready", "Whether /readyz answers 200")?,
            in_flight: int_gauge("hookbridge_in_flight", "Requests that hold a permit")?,
            in_flight_bytes: int_gauge(
                "hookbridge_in_flight_bytes",
                "Bytes reserved for the bodies of requests that hold a permit",
            )?,
            connections: int_gauge("hookbridge_connections", "Open connections of senders")?,
            connections_rejected: counter(
                "hookbridge_connections_rejected_total",
                "Connections closed because there were too many",
            )?,
            client_disconnects: counter(
                "hookbridge_client_disconnects_total",
                "Senders that disconnected before their answer",
            )?,
            panics: Tally::of(
                telemetry::panics,
                counter("hookbridge_panics_total", "Panics; each is a defect")?,
            ),
            log_lines_dropped: Tally::of(
                telemetry::dropped_lines,
                counter(
                    "hookbridge_log_lines_dropped_total",
                    "Log lines dropped because standard error did not accept them",
                )?,
            ),
            outbound: {
                let requests = register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new(
                            "hookbridge_outbound_requests_total",
                            "Requests of the bridge's own, for certificates and confirmations of providers, by outcome",
                        ),
                        &["outcome"],
                    )?,
                )?;
                let tally = |(outcome, total): outbound::Count| {
                    let counter = requests.get_metric_with_label_values(&[outcome])?;
                    Ok::<_, prometheus::Error>(Tally::of(total, counter))
                };
                let [ok, failed, refused] = outbound::COUNTS;
                [tally(ok)?, tally(failed)?, tally(refused)?]
            },
            spans_exported: Tally::of(
                trace::exported,
                counter(
                    "hookbridge_trace_spans_exported_total",
                    "Spans of traces that the receiver took",
                )?,
            ),
            spans_dropped: {
                let dropped = register(
                    &registry,
                    IntCounterVec::new(
                        Opts::new(
                            "hookbridge_trace_spans_dropped_total",
                            "Spans of traces that were not exported, by reason",
                        ),
                        &["reason"],
                    )?,
                )?;
                let tally = |(reason, total): (&str, fn() -> u64)| {
                    let counter = dropped.get_metric_with_label_values(&[reason])?;
                    Ok::<_, prometheus::Error>(Tally::of(total, counter))
                };
                let [queue_full, export_failed, rejected] = trace::DROPPED;
                [tally(queue_full)?, tally(export_failed)?, tally(rejected)?]
            },
            reload_successful: int_gauge(
                "hookbridge_config_last_reload_successful",
                "Whether the last reload succeeded",
            )?,
            reloaded_at: register(
                &registry,
                Gauge::new(
                    "hookbridge_config_last_reload_success_timestamp_seconds",
                    "Unix time at which the current configuration was read",
                )?,
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
            families,
            registry,
        })
    }

    /// The handles of a configuration. Series that an earlier one had as well keep counting.
    ///
    /// # Errors
    /// The registry rejects a metric.
    pub fn handles(&self, config: &Config) -> Result<Handles, prometheus::Error> {
        let mut series = HashSet::new();
        let mut brokers = Vec::with_capacity(config.brokers.len());
        for broker in &config.brokers {
            brokers.push(Arc::new(self.families.broker(&mut series, &broker.name)?));
        }
        let mut sources = Vec::with_capacity(config.sources.len());
        for source in &config.sources {
            sources.push(self.families.source(&mut series, config, source)?);
        }
        Ok(Handles {
            sources,
            brokers,
            series,
        })
    }

    /// Removes the series of a configuration that is not in use, except those that the running one shares.
    pub fn forget(&self, gone: &Handles, running: &Handles) {
        for (family, labels) in gone.series.difference(&running.series) {
            self.families.remove(family, labels);
        }
    }

    /// Removes the findings of all destinations.
    pub fn forget_durable(&self) {
        self.durable.reset();
    }

    /// Removes one check of a destination.
    pub fn forget_durable_check(&self, broker: &str, destination: &str, check: &str) {
        // An error means that it does not exist, which is fine.
        let _absent = self
            .durable
            .remove_label_values(&[broker, destination, check]);
    }

    /// Records whether the last reload succeeded.
    pub fn note_reload(&self, is_done: bool) {
        self.reload_successful.set(i64::from(is_done));
        if is_done {
            self.reloaded_at.set(unix_seconds());
        }
    }

    /// Records the result of a destination's check.
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
    /// A metric that cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        self.encode_as(Format::Prometheus, |_| None)
    }

    /// The metrics in a format. `exemplars` finds those of the source with this name.
    ///
    /// # Errors
    /// A metric that cannot be encoded.
    pub(crate) fn encode_as<'e>(
        &self,
        format: Format,
        exemplars: impl Fn(&str) -> Option<&'e Exemplars>,
    ) -> Result<Vec<u8>, prometheus::Error> {
        self.panics.update();
        self.log_lines_dropped.update();
        self.outbound.iter().for_each(Tally::update);
        self.spans_exported.update();
        self.spans_dropped.iter().for_each(Tally::update);
        let families = self.registry.gather();
        if format == Format::OpenMetrics {
            let text = open::encode(&families, |family, label| match family {
                REQUEST_DURATION => exemplars(label),
                _ => None,
            });
            return Ok(text.into_bytes());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// A counter for a total that is kept elsewhere, updated at each scrape.
#[derive(Debug)]
struct Tally {
    total: fn() -> u64,
    counter: IntCounter,
    counted: AtomicU64,
}

impl Tally {
    fn of(total: fn() -> u64, counter: IntCounter) -> Self {
        Self {
            total,
            counter,
            counted: AtomicU64::new(0),
        }
    }

    fn update(&self) {
        let total = (self.total)();
        // Concurrent scrapes each add only what the other has not.
        let counted = self.counted.fetch_max(total, Ordering::Relaxed);
        self.counter.inc_by(total.saturating_sub(counted));
    }
}

/// The families with labels.
#[derive(Debug)]
struct Families {
    requests: Family<IntCounterVec>,
    events: Family<IntCounterVec>,
    request_duration: Family<HistogramVec>,
    last_event: Family<GaugeVec>,
    secret_used: Family<GaugeVec>,
    source_silent: Family<IntGaugeVec>,
    expect_every: Family<GaugeVec>,
    publish_duration: Family<HistogramVec>,
    publish_errors: Family<IntCounterVec>,
    restarts: Family<IntCounterVec>,
    broker_up: Family<IntGaugeVec>,
    broker_queue: Family<IntGaugeVec>,
    late_acks: Family<IntCounterVec>,
}

/// A configuration's series: family names with label values.
type Series = HashSet<(&'static str, Vec<String>)>;

#[derive(Debug)]
struct Family<V> {
    name: &'static str,
    members: V,
}

impl<B: MetricVecBuilder> Family<MetricVec<B>> {
    fn member(&self, series: &mut Series, labels: &[&str]) -> Result<B::M, prometheus::Error> {
        let member = self.members.get_metric_with_label_values(labels)?;
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        series.insert((self.name, labels));
        Ok(member)
    }
}

/// A family whose members can be removed.
trait Forget {
    fn forget(&self, name: &str, labels: &[String]);
}

impl<B: MetricVecBuilder> Forget for Family<MetricVec<B>> {
    fn forget(&self, name: &str, labels: &[String]) {
        if self.name == name {
            // An error means that it does not exist, which is fine.
            let _absent = self.members.remove_label_values(labels);
        }
    }
}

impl Families {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, labels: &[&str]| {
            family(
                registry,
                name,
                IntCounterVec::new(Opts::new(name, help), labels),
            )
        };
        let int_gauges = |name, help, labels: &[&str]| {
            family(
                registry,
                name,
                IntGaugeVec::new(Opts::new(name, help), labels),
            )
        };
        let gauges = |name, help, labels: &[&str]| {
            family(registry, name, GaugeVec::new(Opts::new(name, help), labels))
        };
        let histograms = |name, help, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            family(registry, name, HistogramVec::new(options, labels))
        };
        Ok(Self {
            requests: counters(
                "hookbridge_requests_total",
                "Requests by outcome",
                &["source", "outcome"],
            )?,
            events: counters(
                "hookbridge_events_total",
                "Events that a broker stored",
                &["source", "type", "broker", "topic"],
            )?,
            request_duration: histograms(
                REQUEST_DURATION,
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
            source_silent: int_gauges(
                "hookbridge_source_silent",
                "Whether the source's last authentic event is longer ago than its expect_every",
                &["source"],
            )?,
            expect_every: gauges(
                "hookbridge_source_expect_every_seconds",
                "The source's expect_every",
                &["source"],
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
                "Messages waiting for the broker's acknowledgement",
                &["broker"],
            )?,
            late_acks: counters(
                "hookbridge_late_acks_total",
                "Acknowledgements after the request's deadline",
                &["broker"],
            )?,
        })
    }

    fn remove(&self, name: &str, labels: &[String]) {
        let all: [&dyn Forget; 13] = [
            &self.requests,
            &self.events,
            &self.request_duration,
            &self.last_event,
            &self.secret_used,
            &self.source_silent,
            &self.expect_every,
            &self.publish_duration,
            &self.publish_errors,
            &self.restarts,
            &self.broker_up,
            &self.broker_queue,
            &self.late_acks,
        ];
        for family in all {
            family.forget(name, labels);
        }
    }

    fn requests(&self, series: &mut Series, source: &str) -> Result<Requests, prometheus::Error> {
        let outcomes = Status::VARIANTS
            .iter()
            .map(|status| status.as_str())
            .chain(Code::VARIANTS.iter().map(|code| code.into_str()));
        let counters = outcomes
            .map(|outcome| Ok((outcome, self.requests.member(series, &[source, outcome])?)));
        counters.collect::<Result<_, _>>().map(Requests)
    }

    fn source(
        &self,
        series: &mut Series,
        config: &Config,
        source: &Source,
    ) -> Result<SourceMetrics, prometheus::Error> {
        let name = source.name.as_str();
        let mut secrets = Vec::with_capacity(source.secret_count);
        for index in 0..source.secret_count {
            let index = index.to_string();
            secrets.push(self.secret_used.member(series, &[name, &index])?);
        }
        let silence = match source.expect_every {
            None => None,
            Some(_) => Some(SilenceMetrics {
                is_silent: self.source_silent.member(series, &[name])?,
                expect_every: self.expect_every.member(series, &[name])?,
            }),
        };
        let mut routes = Vec::new();
        for route in &source.routes {
            let mut events = Events::default();
            if let Action::Publish(forwarding) = &route.action {
                for destination in forwarding.destinations() {
                    let types = known_types(source).filter(|event_type| route.matches(event_type));
                    let known = types.flat_map(|event_type| {
                        destination
                            .possible_topics(Some(event_type), name)
                            .map(move |topic| (event_type, topic))
                    });
                    let pairs: Vec<_> = known
                        .chain(
                            destination
                                .possible_topics(None, name)
                                .map(|topic| (OTHER, topic)),
                        )
                        .collect();
                    let broker = &config.broker(destination.broker).name;
                    let known = self.events(
                        series,
                        name,
                        (destination.broker, broker),
                        pairs.into_iter(),
                    )?;
                    events.0.extend(known.0);
                }
            }
            routes.push(events);
        }
        let mut dead_letters = Events::default();
        for policy in [&source.on_invalid, &source.on_unrouted] {
            if let FailurePolicy::DeadLetter { broker, topic } = policy {
                let types = known_types(source).chain([OTHER]);
                let pairs = types.map(|event_type| (event_type, Some(topic.clone())));
                let broker = (*broker, config.broker(*broker).name.as_str());
                let known = self.events(series, name, broker, pairs)?;
                dead_letters.0.extend(known.0);
            }
        }
        Ok(SourceMetrics {
            requests: self.requests(series, name)?,
            duration: self.request_duration.member(series, &[name])?,
            exemplars: Exemplars::default(),
            last_published: self.last_event.member(series, &[name, "published"])?,
            last_refused: self.last_event.member(series, &[name, "refused"])?,
            secrets,
            silence,
            routes,
            dead_letters,
        })
    }

    fn events<'a>(
        &self,
        series: &mut Series,
        source: &str,
        (broker, broker_name): (BrokerId, &str),
        pairs: impl Iterator<Item = (&'a str, Option<String>)>,
    ) -> Result<Events, prometheus::Error> {
        let counters = pairs.map(|(event_type, topic)| {
            let topic = topic.unwrap_or_else(|| OTHER.to_owned());
            let labels = [source, event_type, broker_name, &topic];
            let counter = self.events.member(series, &labels)?;
            Ok(EventCounter {
                broker,
                event_type: event_type.to_owned(),
                topic,
                counter,
            })
        });
        counters.collect::<Result<_, _>>().map(Events)
    }

    fn broker(&self, series: &mut Series, name: &str) -> Result<Meter, prometheus::Error> {
        let mut restarts = Vec::with_capacity(Restart::VARIANTS.len());
        for &reason in Restart::VARIANTS {
            let counter = self.restarts.member(series, &[name, reason.label()])?;
            restarts.push((reason, counter));
        }
        let mut errors = Vec::with_capacity(Reason::VARIANTS.len());
        for &reason in Reason::VARIANTS {
            let counter = self
                .publish_errors
                .member(series, &[name, reason.label()])?;
            errors.push((reason, counter));
        }
        Ok(Meter {
            up: self.broker_up.member(series, &[name])?,
            queue_messages: self.broker_queue.member(series, &[name])?,
            late_acks: self.late_acks.member(series, &[name])?,
            publish_duration: self.publish_duration.member(series, &[name])?,
            restarts,
            errors,
        })
    }
}

fn known_types(source: &Source) -> impl Iterator<Item = &str> {
    source.mapping.types.iter().map(String::as_str)
}

fn family<V: Collector + Clone + 'static>(
    registry: &Registry,
    name: &'static str,
    members: Result<V, prometheus::Error>,
) -> Result<Family<V>, prometheus::Error> {
    let members = register(registry, members?)?;
    Ok(Family { name, members })
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::Settings;

    fn config(sources: &[&str]) -> Config {
        let broker = format!("[brokers.main]\n{}", Settings::OUT_OF_REACH);
        let route = "[[routes]]\ntypes = [\"ping\", \"issue_*\"]\ntopic = \"all.{type}\"\n";
        let source = |name: &&str| {
            format!(
                "[sources.{name}]\nprovider = \"synq\"\nsecrets = [\"{name}-of-sixteen-bytes\"]\n\
                 on_invalid = {{ dead_letter = {{ topic = \"dead\" }} }}\n"
            )
        };
        let sources: String = sources.iter().map(source).collect();
        Config::from_text(&(broker + &sources + route))
    }

    /// The lines that have all of these texts, without their values, and the sum of their values.
    fn series(metrics: &Metrics, texts: &[&str]) -> (Vec<String>, f64) {
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let found = lines.filter(|line| texts.iter().all(|text| line.contains(text)));
        let pairs = found.filter_map(|line| line.rsplit_once(' '));
        let (names, values): (Vec<_>, Vec<_>) = pairs
            .map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap()))
            .unzip();
        (names, values.into_iter().sum())
    }

    fn names(metrics: &Metrics, texts: &[&str]) -> Vec<String> {
        series(metrics, texts).0
    }

    /// Checks the value of the only series with these texts.
    #[track_caller]
    fn expect(metrics: &Metrics, texts: &[&str], expected: f64) {
        let (names, value) = series(metrics, texts);
        assert_eq!(names.len(), 1, "{texts:?}: {names:?}");
        assert!(
            (value - expected).abs() < f64::EPSILON,
            "{names:?}: {value}"
        );
    }

    #[test]
    fn every_outcome_has_a_series_before_its_first_request_and_no_other_gets_one() {
        let metrics = Metrics::new().unwrap();
        let handles = metrics.handles(&config(&["a"])).unwrap();
        let outcomes = Status::VARIANTS.iter().map(|status| status.as_str());
        let codes = Code::VARIANTS.iter().map(|code| code.into_str());
        for outcome in outcomes.chain(codes) {
            let outcome = format!("outcome=\"{outcome}\"");
            let texts = ["hookbridge_requests_total", "source=\"a\"", &outcome];
            expect(&metrics, &texts, 0.0);
        }
        let before = names(&metrics, &[]);
        handles.sources[0].requests.count("invented");
        metrics.unmatched.count("invented");
        assert_eq!(names(&metrics, &[]), before);
    }

    #[test]
    fn an_event_is_counted_by_type_and_topic_where_they_are_known_and_as_other_where_not() {
        let metrics = Metrics::new().unwrap();
        let config = config(&["a"]);
        let handles = metrics.handles(&config).unwrap();
        let broker = config.broker_ids().next().unwrap();
        let source = &handles.sources[0];
        source.routes[0].count(broker, "ping", "all.ping");
        for invented in ["invented", "invented_too"] {
            let topic = format!("all.{invented}");
            source.routes[0].count(broker, invented, &topic);
        }
        source.dead_letters.count(broker, "invented", "dead");
        for (kind, topic, expected) in [
            ("ping", "all.ping", 1.0),
            ("issue_created", "all.issue_created", 0.0),
            ("other", "other", 2.0),
            ("other", "dead", 1.0),
        ] {
            let (kind, topic) = (format!("type=\"{kind}\""), format!("topic=\"{topic}\""));
            expect(&metrics, &["events_total", &kind, &topic], expected);
        }
        assert!(names(&metrics, &["invented"]).is_empty());
        let incidents = names(&metrics, &["events_total", "incident"]);
        assert_eq!(
            incidents,
            names(&metrics, &["events_total", "incident", "\"dead\""]),
            "the route takes none"
        );
    }

    #[test]
    fn series_that_a_reload_keeps_go_on_counting_and_dropped_ones_disappear() {
        let metrics = Metrics::new().unwrap();
        let first = metrics.handles(&config(&["gone", "kept"])).unwrap();
        for source in &first.sources {
            source.requests.count("published");
            source.secrets[0].set(7.0);
        }
        first.brokers[0].count_error(Reason::TimedOut);
        let second = metrics.handles(&config(&["kept", "new"])).unwrap();
        metrics.forget(&first, &second);
        assert!(names(&metrics, &["source=\"gone\""]).is_empty());
        second.sources[0].requests.count("published");
        for (texts, expected) in [
            (&["requests_total", "\"kept\"", "\"published\""][..], 2.0),
            (&["requests_total", "\"new\"", "\"published\""], 0.0),
            (&["secret_last_used", "\"kept\""], 7.0),
            (&["publish_errors_total", "\"timed_out\""], 1.0),
        ] {
            expect(&metrics, texts, expected);
        }
    }

    #[test]
    fn a_configuration_that_is_given_up_leaves_the_running_one_as_it_was() {
        let metrics = Metrics::new().unwrap();
        let running = metrics.handles(&config(&["a"])).unwrap();
        running.sources[0].requests.count("published");
        let before = series(&metrics, &["=\""]);
        let given_up = metrics.handles(&config(&["a", "b"])).unwrap();
        assert!(!names(&metrics, &["source=\"b\""]).is_empty());
        metrics.forget(&given_up, &running);
        assert_eq!(series(&metrics, &["=\""]), before);
    }

    #[test]
    fn findings_about_destinations_are_kept_until_they_are_forgotten() {
        let metrics = Metrics::new().unwrap();
        let name = "hookbridge_destination_durable";
        metrics.set_durable("main", "a", "replicas", true);
        metrics.set_durable("main", "a", "no_ack", false);
        metrics.set_durable("main", "a", "replicas", false);
        expect(&metrics, &[name, "replicas"], 0.0);
        metrics.forget_durable_check("main", "a", "replicas");
        metrics.forget_durable_check("main", "unknown", "replicas");
        assert_eq!(names(&metrics, &[name]).len(), 1);
        metrics.forget_durable();
        assert!(names(&metrics, &[name]).is_empty());
    }

    #[test]
    fn a_failed_reload_keeps_the_time_of_the_last_good_one() {
        let metrics = Metrics::new().unwrap();
        let time = ["hookbridge_config_last_reload_success_timestamp_seconds"];
        metrics.note_reload(true);
        let (_, at) = series(&metrics, &time);
        assert!(at > 1.7e9);
        metrics.note_reload(false);
        expect(&metrics, &["hookbridge_config_last_reload_successful"], 0.0);
        expect(&metrics, &time, at);
    }

    #[test]
    fn a_tally_adds_what_has_come_since_the_last_scrape() {
        static TOTAL: AtomicU64 = AtomicU64::new(3);
        let counter = IntCounter::new("tally", "For a test").unwrap();
        let tally = Tally::of(|| TOTAL.load(Ordering::Relaxed), counter.clone());
        for (more, expected) in [(0, 3), (0, 3), (4, 7), (0, 7)] {
            TOTAL.fetch_add(more, Ordering::Relaxed);
            tally.update();
            assert_eq!(counter.get(), expected);
        }
    }
}
