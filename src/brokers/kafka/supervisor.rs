//! Keeps one producer alive: a broken one is replaced by a new one first, and then flushed and dropped on a thread of its
//! own, because dropping a producer blocks (MaterializeInc/materialize#24673).

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::health::{INTERVAL, has_leaders_for_some};
use super::{Producer, Reports, Settings, describe};
use crate::brokers::outcome::Restart;
use crate::brokers::{Health, Limits, StartError};

/// Between replacements: at first, and at most.
const LEAST_BACKOFF: Duration = Duration::from_secs(1);
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// Attempts but no success for so long, although the cluster answers others.
const STUCK: Duration = Duration::from_secs(30);

/// Three intervals without statistics: the client's main or polling thread is gone.
const SILENT: Duration = Duration::from_secs(15);

/// How long a fresh client may take to look at the cluster.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// The longest that a replaced producer is kept for what it still has under way.
const FAREWELL: Duration = Duration::from_secs(60);

pub(super) struct Supervisor {
    producer: ArcSwapOption<Producer>,
    settings: Settings,
    limits: Limits,
    reports: Reports,
}

impl Supervisor {
    /// Creates the first producer, and the thread that looks after it.
    pub(super) fn start(
        settings: &Settings,
        limits: Limits,
        reports: Reports,
    ) -> Result<Arc<Self>, StartError> {
        let supervisor = Arc::new(Self {
            producer: ArcSwapOption::empty(),
            settings: settings.clone(),
            limits,
            reports,
        });
        let name = supervisor.reports.watch.name().to_owned();
        let producer = supervisor
            .create()
            .map_err(|error| StartError(format!("broker {name}: {}", describe(&error))))?;
        supervisor.producer.store(Some(Arc::new(producer)));
        let watched = Arc::clone(&supervisor);
        // Metadata calls block, so the thread is none of Tokio's.
        let thread = std::thread::Builder::new().name(format!("watch-{name}"));
        thread.spawn(move || watched.run()).map_err(|error| {
            StartError(format!(
                "broker {name}: no thread could be started: {error}"
            ))
        })?;
        Ok(supervisor)
    }

    pub(super) fn producer(&self) -> Guard<Option<Arc<Producer>>> {
        self.producer.load()
    }

    /// Takes the producer away; there won't be another.
    pub(super) fn close(&self) -> Option<Arc<Producer>> {
        self.producer.swap(None)
    }

    /// Takes the producer away, and sees it off.
    pub(super) fn retire(&self) {
        if let Some(producer) = self.close() {
            retire(self.reports.watch.name(), producer);
        }
    }

    fn create(&self) -> Result<Producer, rdkafka::error::KafkaError> {
        self.settings
            .producer_config(self.limits)
            .create_with_context(self.reports.clone())
    }

    fn run(&self) {
        let watch = &self.reports.watch;
        let mut backoff = LEAST_BACKOFF;
        let mut last_restart: Option<Instant> = None;
        loop {
            let Some(producer) = self.producer.load_full() else {
                return;
            };
            let broken = self.broken(&producer);
            let may_restart = last_restart.is_none_or(|last| last.elapsed() >= backoff);
            match broken {
                Some((reason, why)) if may_restart => {
                    backoff = match last_restart {
                        Some(last) if last.elapsed() < MOST_BACKOFF => {
                            (backoff * 2).min(MOST_BACKOFF)
                        }
                        _ => LEAST_BACKOFF,
                    };
                    last_restart = Some(Instant::now());
                    tracing::error!(
                        broker = watch.name(),
                        reason = reason.label(),
                        why,
                        "the producer is replaced"
                    );
                    self.replace(producer, reason);
                }
                _ => {
                    watch.look(producer.client());
                    drop(producer);
                }
            }
            if watch.wait(INTERVAL) {
                return;
            }
        }
    }

    /// Whether the producer can't be used any more, and why.
    fn broken(&self, producer: &Producer) -> Option<(Restart, String)> {
        let watch = &self.reports.watch;
        if let Some((code, what)) = producer.client().fatal_error() {
            return Some((Restart::Fatal, format!("{code}: {what}")));
        }
        if watch.statistics_silent_for() > SILENT {
            return Some((
                Restart::Unresponsive,
                "the client's threads say nothing any more".to_owned(),
            ));
        }
        if watch.unsuccessful_for() > STUCK && self.cluster_answers() {
            // A cluster that was away may only just be back, for this producer as well.
            if watch.is_silent() && matches!(watch.look(producer.client()), Health::Up { .. }) {
                return None;
            }
            let why = "nothing was acknowledged, although the cluster answers a new client";
            return Some((Restart::Stuck, why.to_owned()));
        }
        None
    }

    /// Whether a client that knows nothing of the past finds leaders.
    fn cluster_answers(&self) -> bool {
        let client: Result<BaseProducer, _> = self.settings.consumer_config(false).create();
        client.is_ok_and(|client| {
            has_leaders_for_some(client.client(), &self.reports.watch.topics(), SECOND_LOOK)
        })
    }

    fn replace(&self, old: Arc<Producer>, reason: Restart) {
        let watch = &self.reports.watch;
        match self.create() {
            Ok(new) => {
                self.reports.metrics.count_restart(reason);
                watch.begin_anew();
                // The old one may have been closed in the meantime; then the new one is dropped here.
                let expected = Some(Arc::clone(&old));
                self.producer
                    .compare_and_swap(&expected, Some(Arc::new(new)));
                drop(expected);
                retire(watch.name(), old);
            }
            Err(error) => tracing::error!(
                broker = watch.name(),
                error = describe(&error),
                "no new producer could be created"
            ),
        }
    }
}

/// Flushes and drops a producer on a plain thread, when nobody else holds it.
fn retire(name: &str, producer: Arc<Producer>) {
    let thread = std::thread::Builder::new().name(format!("retire-{name}"));
    let retired = thread.spawn(move || {
        let until = Instant::now() + FAREWELL;
        if let Err(error) = producer.flush(FAREWELL) {
            tracing::warn!(error = %error, "a replaced producer could not be flushed");
        }
        // A request may be in the middle of handing a message over.
        while Arc::strong_count(&producer) > 1 && Instant::now() < until {
            std::thread::yield_now();
        }
    });
    if let Err(error) = retired {
        tracing::error!(error = %error, "no thread could be started to drop a producer");
    }
}
