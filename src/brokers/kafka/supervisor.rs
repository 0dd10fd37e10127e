//! Keeps producers alive: broken ones are replaced first, then flushed and dropped on a thread of their own, because dropping
//! a producer blocks (MaterializeInc/materialize#24673).

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use rdkafka::consumer::Consumer as _;

use super::health::INTERVAL;
use super::metadata::Cluster as _;
use super::producers::Producers;
use super::trial::{Trial, WriteAccess};
use super::{Reports, Settings, describe, outcome};
use crate::brokers::backoff::Backoff;
use crate::brokers::error::StartError;
use crate::brokers::health::{Health, Limits};
use crate::brokers::outcome::Restart;
use crate::task;

/// After this time without a success, producers count as stuck if the cluster answers other clients.
const STUCK: Duration = Duration::from_secs(30);

/// After this number of intervals without statistics, the client's main or polling thread counts as dead.
const SILENT_INTERVALS: u32 = 3;

/// Limit for determining the right to write.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of a fresh client's metadata request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of topics that a fresh client checks.
const MOST_TOPICS: usize = 4;

/// Time limit for replaced producers to finish their messages.
const RETIRED_CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Supervisor {
    producers: ArcSwapOption<Producers>,
    settings: Settings,
    limits: Limits,
    reports: Reports,
}

impl Supervisor {
    /// Creates the first producers, and starts the watch thread.
    pub(super) fn start(
        settings: &Settings,
        limits: Limits,
        reports: Reports,
    ) -> Result<Arc<Self>, StartError> {
        let supervisor = Arc::new(Self {
            producers: ArcSwapOption::empty(),
            settings: settings.clone(),
            limits,
            reports,
        });
        let name = supervisor.reports.watch.name().to_owned();
        let producers = supervisor
            .create()
            .map_err(|error| StartError(format!("broker {name}: {}", describe(&error))))?;
        supervisor.producers.store(Some(Arc::new(producers)));
        let watched = Arc::clone(&supervisor);
        // A plain thread, since metadata calls block.
        let thread = std::thread::Builder::new().name(format!("watch-{name}"));
        let spawned = thread.spawn(move || task::run_restarting("Kafka watch", || watched.run()));
        spawned.map_err(|error| {
            StartError(format!(
                "broker {name}: no thread could be started: {error}"
            ))
        })?;
        Ok(supervisor)
    }

    pub(super) fn producers(&self) -> Guard<Option<Arc<Producers>>> {
        self.producers.load()
    }

    /// Removes the producers permanently.
    pub(super) fn close(&self) -> Option<Arc<Producers>> {
        self.producers.swap(None)
    }

    /// Removes the producers permanently, and drains them in the background.
    pub(super) fn retire(&self) {
        if let Some(producers) = self.close() {
            retire(self.reports.watch.name(), producers);
        }
    }

    fn create(&self) -> Result<Producers, rdkafka::error::KafkaError> {
        Producers::create(&self.settings, self.limits, &self.reports)
    }

    fn run(&self) {
        let watch = &self.reports.watch;
        // Of replacements, and of trials whether rights were granted.
        let (mut replacements, mut trials) = (Backoff::default(), Backoff::default());
        loop {
            let Some(producers) = self.producers.load_full() else {
                return;
            };
            if let Some(denial) = denial(&producers) {
                watch.set_denial(Some(denial));
                if trials.begin(Instant::now()) && self.may_write() {
                    tracing::info!(
                        broker = watch.name(),
                        "the user may write to the cluster now"
                    );
                    self.replace(producers, Restart::Fatal);
                    watch.set_denial(None);
                }
                if watch.wait(INTERVAL) {
                    return;
                }
                continue;
            }
            trials = Backoff::default();
            match self.broken(&producers) {
                Some((reason, why)) if replacements.begin(Instant::now()) => {
                    tracing::error!(
                        broker = watch.name(),
                        reason = reason.label(),
                        why,
                        "replacing the producers"
                    );
                    self.replace(producers, reason);
                }
                _ => {
                    watch.check(producers.client());
                    drop(producers);
                }
            }
            if watch.wait(INTERVAL) {
                return;
            }
        }
    }

    /// The reason why the producers must be replaced, if there is one.
    fn broken(&self, producers: &Producers) -> Option<(Restart, String)> {
        let watch = &self.reports.watch;
        if let Some((code, what)) = producers.fatal_error() {
            return Some((Restart::Fatal, format!("{code}: {what}")));
        }
        let interval = self.settings.statistics_interval();
        if interval.is_some_and(|interval| {
            watch.statistics_silent_for() > interval.saturating_mul(SILENT_INTERVALS)
        }) {
            return Some((
                Restart::Unresponsive,
                "the client's threads no longer respond".to_owned(),
            ));
        }
        if watch.unsuccessful_for() > STUCK && self.cluster_answers() {
            // After an outage the cluster may have just returned, for this producer too.
            if watch.is_silent() && matches!(watch.check(producers.client()), Health::Up { .. }) {
                return None;
            }
            let why = "nothing was acknowledged, although the cluster answers a new client";
            return Some((Restart::Stuck, why.to_owned()));
        }
        None
    }

    /// Whether a fresh client finds leaders for a topic whose events failed.
    fn cluster_answers(&self) -> bool {
        let Ok(client) = self.settings.asking_client() else {
            return false;
        };
        let watch = &self.reports.watch;
        let topics = watch.failing();
        if topics.is_empty() {
            return client.client().fetch_metadata(None, PROBE_TIMEOUT).is_ok();
        }
        let mut topics = topics.iter().take(MOST_TOPICS);
        topics.any(|topic| matches!(client.client().topic(topic, PROBE_TIMEOUT), Ok(None)))
    }

    /// Whether a new producer would be allowed to write.
    fn may_write(&self) -> bool {
        let trial = Trial::start(&self.settings, self.limits);
        trial.is_ok_and(|trial| matches!(trial.write_access(TRIAL_TIMEOUT), WriteAccess::Allowed))
    }

    fn replace(&self, old: Arc<Producers>, reason: Restart) {
        let watch = &self.reports.watch;
        match self.create() {
            Ok(new) => {
                self.reports.metrics.count_restart(reason);
                watch.reset();
                // If the old producers were closed meanwhile, the new ones are dropped here.
                let expected = Some(Arc::clone(&old));
                self.producers
                    .compare_and_swap(&expected, Some(Arc::new(new)));
                drop(expected);
                retire(watch.name(), old);
            }
            Err(error) => tracing::error!(
                broker = watch.name(),
                error = describe(&error),
                "no new producers could be created"
            ),
        }
    }
}

/// The reason for a permanent refusal, if it is a missing right: new producers would be refused as well.
fn denial(producers: &Producers) -> Option<String> {
    let (code, what) = producers.fatal_error()?;
    outcome::is_denial(code).then(|| outcome::denial(&what))
}

/// Flushes the producers on a plain thread, and drops them when nothing else holds them.
fn retire(name: &str, producers: Arc<Producers>) {
    let thread = std::thread::Builder::new().name(format!("retire-{name}"));
    let retired = thread.spawn(move || {
        let until = Instant::now() + RETIRED_CLIENT_TIMEOUT;
        if let Err(error) = producers.flush(RETIRED_CLIENT_TIMEOUT) {
            tracing::warn!(error = %error, "replaced producers could not be flushed");
        }
        // A request may still be handing over a message.
        while Arc::strong_count(&producers) > 1 && Instant::now() < until {
            std::thread::yield_now();
        }
    });
    if let Err(error) = retired {
        tracing::error!(error = %error, "no thread could be started to drop producers");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::health::{Advice, Watch};
    use super::super::settings::TABLE;
    use super::*;
    use crate::brokers::meter::Meter;
    use crate::brokers::waiters::Waiters;
    use crate::table::{Reading, Section};

    const NOBODY: &str = "127.0.0.1:1";

    /// One whose thread does not run, in front of a broker that nobody has started.
    fn supervisor(options: &serde_json::Value) -> Supervisor {
        let reading = Reading::default();
        let values = json!({ "bootstrap_servers": NOBODY, "options": options });
        let values = values.as_object().unwrap().clone();
        let mut section = Section::new(&reading, String::new(), values, &TABLE);
        let settings = Settings::read(&mut section).expect("legal settings");
        let limits = Limits {
            publish_timeout: Duration::from_secs(1),
            max_body_bytes: 1024,
            max_in_flight: 9,
            max_in_flight_bytes: 9 * 1024,
        };
        let reports = Reports {
            waiters: Waiters::new(9),
            watch: Arc::new(Watch::paused("main", Vec::new(), Advice::default())),
            metrics: Arc::new(Meter::unregistered()),
            login: settings.login(),
        };
        Supervisor {
            producers: ArcSwapOption::empty(),
            settings,
            limits,
            reports,
        }
    }

    #[tokio::test]
    async fn a_client_whose_statistics_stop_is_unresponsive() {
        let supervisor = supervisor(&json!({ "statistics.interval.ms": "60000" }));
        let watch = &supervisor.reports.watch;
        let producers = supervisor.create().unwrap();
        assert!(supervisor.broken(&producers).is_none(), "none came yet");
        watch.note_statistics();
        watch.pass(Duration::from_secs(180));
        assert!(supervisor.broken(&producers).is_none());
        watch.pass(Duration::from_secs(60));
        let (reason, _) = supervisor.broken(&producers).expect("four intervals");
        assert_eq!(reason, Restart::Unresponsive);
        watch.note_statistics();
        assert!(supervisor.broken(&producers).is_none());
    }

    #[tokio::test]
    async fn statistics_that_are_not_switched_on_are_not_missed() {
        let supervisor = supervisor(&json!({}));
        let producers = supervisor.create().unwrap();
        supervisor.reports.watch.note_statistics();
        supervisor.reports.watch.pass(Duration::from_secs(3600));
        assert!(supervisor.broken(&producers).is_none());
    }

    #[tokio::test]
    async fn new_producers_start_without_the_debts_of_the_old_ones_and_are_counted() {
        let supervisor = supervisor(&json!({ "statistics.interval.ms": "60000" }));
        let (watch, metrics) = (&supervisor.reports.watch, &supervisor.reports.metrics);
        let old = Arc::new(supervisor.create().unwrap());
        supervisor.producers.store(Some(Arc::clone(&old)));
        watch.note_attempt();
        watch.note_statistics();
        watch.note_failure("a");
        watch.pass(Duration::from_secs(3600));
        supervisor.replace(Arc::clone(&old), Restart::Unresponsive);
        let new = supervisor.producers.load_full().expect("new producers");
        assert!(!Arc::ptr_eq(&old, &new));
        assert_eq!(metrics.restarts_for(Restart::Unresponsive), 1);
        assert_eq!(watch.unsuccessful_for(), Duration::ZERO);
        assert!(watch.failing().is_empty());
        assert!(supervisor.broken(&new).is_none());
    }

    #[tokio::test]
    async fn producers_that_were_closed_meanwhile_are_not_replaced() {
        let supervisor = supervisor(&json!({}));
        let old = Arc::new(supervisor.create().unwrap());
        supervisor.producers.store(Some(Arc::clone(&old)));
        assert!(supervisor.close().is_some());
        supervisor.replace(old, Restart::Fatal);
        assert!(supervisor.producers().is_none());
    }
}
