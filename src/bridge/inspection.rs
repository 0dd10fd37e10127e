//! The state of the destinations: inspected when their broker comes up, when an event finds that one has changed, soon after
//! a failed inspection, and every minute. An unknown state never counts as good.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::brokers::{
    Assessment, Attention, Broker, Finding, Health, NotInspected, durability, merge_equal,
};
use crate::config::{BrokerId, NamedBroker};
use crate::metrics::Metrics;

/// Limit of one inspection while the service runs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between inspections while every destination is good.
const INTERVAL: Duration = Duration::from_secs(60);

/// The pause after a failed inspection. It doubles with each failure, up to one limit while a destination is missing and to
/// another while something is unknown.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY_MISSING: Duration = Duration::from_secs(4);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Minimum time between the starts of two inspections, however often a broker comes and goes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Time for which a result stays valid while later inspections get no answer and the broker stays up. A refusal invalidates it
/// immediately.
const VALIDITY: Duration = Duration::from_secs(150);

/// Stands for the topics that follow from an event's payload.
const OTHER: &str = "other";

/// Findings about the destinations of one broker's client.
#[derive(Debug, Default)]
pub(crate) struct Inspection(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The broker's [`Attention::arrivals`] at the last inspection; none before the first one.
    arrivals: Option<u64>,
    answered: Option<Instant>,
    findings: Vec<Finding>,
}

impl State {
    /// Whether the last findings are still valid after a failed inspection.
    fn holds(&self, arrivals: u64, why: &NotInspected) -> bool {
        let is_recent = |answered: Instant| answered.elapsed() < VALIDITY;
        !why.is_refused() && self.arrivals == Some(arrivals) && self.answered.is_some_and(is_recent)
    }
}

impl Inspection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One inspection of a broker's destinations.
#[derive(Debug)]
pub(crate) struct InspectionAttempt {
    broker: BrokerId,
    attention: Attention,
    result: Result<Vec<Finding>, NotInspected>,
}

/// How soon the next inspection should follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    AllIsWell,
    Missing,
    Unknown,
}

impl Urgency {
    fn of(findings: &[Finding]) -> Self {
        let has = |wanted: fn(&Assessment) -> bool| {
            findings.iter().any(|finding| wanted(&finding.assessment))
        };
        if has(|assessment| matches!(assessment, Assessment::Unusable(_))) {
            Self::Missing
        } else if has(|assessment| matches!(assessment, Assessment::Unknown(_))) {
            Self::Unknown
        } else {
            Self::AllIsWell
        }
    }

    fn pause(self, retry: Duration) -> Duration {
        match self {
            Self::AllIsWell => INTERVAL,
            Self::Missing => retry.min(LONGEST_RETRY_MISSING),
            Self::Unknown => retry.min(LONGEST_RETRY),
        }
    }
}

/// Obstacles to a broker's readiness, besides its health.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// Its destinations have not been inspected since it came up.
    pub(crate) is_pending: bool,
    /// Unusable destinations, with equal findings merged.
    pub(crate) unusable: Vec<Finding>,
    /// Findings against destinations that must be durable.
    pub(crate) undurable: Vec<Finding>,
}

impl Bridge {
    /// Inspects the destinations of all needed brokers, for as long as it is polled.
    pub(crate) async fn keep_inspecting(&self) {
        join_all(
            self.needed_brokers()
                .iter()
                .map(|id| self.keep_inspecting_one(*id)),
        )
        .await;
        // Without a broker there is nothing to inspect.
        std::future::pending().await
    }

    async fn keep_inspecting_one(&self, id: BrokerId) {
        let mut attention = self.broker(id).attention();
        if !is_up(self.broker(id)) {
            // Most brokers come up sooner than this, and then notify.
            let arriving = attention.wait_for(|attention| attention.arrivals > 0);
            let _late = tokio::time::timeout(FIRST_RETRY, arriving).await;
        }
        let mut retry = FIRST_RETRY;
        loop {
            let started = Instant::now();
            let seen = *attention.borrow_and_update();
            let attempt = self.inspect(id, TIMEOUT).await;
            if self.process().is_draining() {
                // Answers during a shutdown say nothing about the destinations.
                return;
            }
            let urgency = self.note_attempt(attempt);
            let next = Instant::now() + urgency.pause(retry);
            retry = match urgency {
                Urgency::AllIsWell => FIRST_RETRY,
                Urgency::Missing | Urgency::Unknown => (retry * 2).min(LONGEST_RETRY),
            };
            if wait(&mut attention, seen, started, next).await == Woken::ByArrival {
                retry = FIRST_RETRY;
            }
        }
    }

    /// Inspects the destinations of these brokers once, concurrently.
    pub(crate) async fn inspect_all(
        &self,
        brokers: &[BrokerId],
        timeout: Duration,
    ) -> Vec<InspectionAttempt> {
        join_all(brokers.iter().map(|id| self.inspect(*id, timeout))).await
    }

    async fn inspect(&self, id: BrokerId, timeout: Duration) -> InspectionAttempt {
        let attention = *self.broker(id).attention().borrow();
        let settings = &self.config().broker(id).settings;
        let destinations = self.config().known_destinations(id);
        let inspected = durability(settings, &destinations, self.config().needs(), timeout).await;
        let result = inspected.map(|mut findings| {
            if self.config().has_unknown_destinations(id) {
                findings.push(Finding::not_inspected(
                    OTHER,
                    "a route's topic depends on the payload; list what it may become with `topics = [...]`",
                ));
            }
            findings
        });
        InspectionAttempt {
            broker: id,
            attention,
            result,
        }
    }

    /// The reasons why brokers that must be durable cannot take events. An unknown destination is one of them only with
    /// `unknown_counts`, and only if the broker could be asked.
    pub(crate) fn undurable(
        &self,
        attempts: &[InspectionAttempt],
        unknown_counts: bool,
    ) -> Vec<String> {
        let mut all = Vec::new();
        for attempt in attempts {
            let broker = self.config().broker(attempt.broker);
            if !broker.require_durable {
                continue;
            }
            match &attempt.result {
                Ok(findings) => {
                    let bad = findings.iter().filter(|finding| {
                        let is_unknown = matches!(finding.assessment, Assessment::Unknown(_));
                        finding.is_problem(true) && (unknown_counts || !is_unknown)
                    });
                    all.extend(describe_all(broker, bad));
                }
                Err(why) if unknown_counts && is_up(self.broker(attempt.broker)) => {
                    all.push(format!(
                        "broker {}: its destinations could not be inspected: {why}",
                        broker.name
                    ));
                }
                Err(_) => {}
            }
        }
        all
    }

    /// Stores the findings, and logs those that are new.
    pub(crate) fn note_attempts(&self, attempts: Vec<InspectionAttempt>) {
        for attempt in attempts {
            self.note_attempt(attempt);
        }
    }

    fn note_attempt(&self, attempt: InspectionAttempt) -> Urgency {
        let InspectionAttempt {
            broker: id,
            attention,
            result,
        } = attempt;
        let named = self.config().broker(id);
        let broker = self.broker(id);
        let mut state = self.inspection(id).state();
        let findings = match result {
            Ok(mut findings) => {
                broker.note_findings(&mut findings);
                state.answered = Some(Instant::now());
                findings
            }
            // The broker's health already reports that it does not answer; the metrics keep the last findings.
            Err(_) if !is_up(broker) => return Urgency::Unknown,
            Err(why) => {
                if state.holds(attention.arrivals, &why) {
                    tracing::debug!(broker = named.name, %why, "no answer to an inspection");
                    return Urgency::Unknown;
                }
                broker.forget_findings();
                state.answered = None;
                self.all_unknown(id, &why.to_string())
            }
        };
        log_changes(named, &state.findings, &findings);
        let metrics = self.process().metrics();
        forget_other(metrics, &named.name, &state.findings, &findings);
        show(metrics, &named.name, &findings);
        let urgency = Urgency::of(&findings);
        state.arrivals = Some(attention.arrivals);
        state.findings = findings;
        urgency
    }

    fn all_unknown(&self, id: BrokerId, why: &str) -> Vec<Finding> {
        let mut destinations = self.config().known_destinations(id);
        if self.config().has_unknown_destinations(id) {
            destinations.push(OTHER.to_owned());
        }
        destinations
            .iter()
            .map(|destination| Finding::not_inspected(destination, why))
            .collect()
    }

    /// Whether a broker that routes need must wait for an inspection of its destinations before it counts as up.
    pub(crate) fn is_pending(&self, id: BrokerId) -> bool {
        let named = self.config().broker(id);
        let waits = named.require_durable || named.settings.is_inspected_first();
        let arrivals = self.broker(id).attention().borrow().arrivals;
        waits
            && self.needed_brokers().contains(&id)
            && self.inspection(id).state().arrivals != Some(arrivals)
    }

    /// Obstacles to this broker's readiness, besides its health.
    pub(crate) fn reservations(&self, id: BrokerId) -> Reservations {
        let named = self.config().broker(id);
        let is_pending = self.is_pending(id);
        let state = self.inspection(id).state();
        let is_unusable =
            |finding: &&Finding| matches!(finding.assessment, Assessment::Unusable(_));
        let unusable = || state.findings.iter().filter(is_unusable);
        let is_undurable = |finding: &&Finding| {
            named.require_durable && finding.is_problem(true) && !is_unusable(finding)
        };
        let undurable = state.findings.iter().filter(is_undurable);
        Reservations {
            is_pending,
            unusable: merge_equal(unusable()),
            undurable: merge_equal(undurable),
        }
    }

    /// The findings of the last inspection.
    pub(crate) fn findings(&self, id: BrokerId) -> Vec<Finding> {
        self.inspection(id).state().findings.clone()
    }

    /// Sets the metrics of this configuration's destinations, and removes those of the previous one.
    pub(crate) fn show_inspections(&self) {
        let metrics = self.process().metrics();
        metrics.forget_durable();
        for id in self.needed_brokers() {
            let known: HashSet<String> =
                self.config().known_destinations(*id).into_iter().collect();
            let state = self.inspection(*id).state();
            let of_this = state
                .findings
                .iter()
                .filter(|finding| known.contains(&finding.destination));
            show(metrics, &self.config().broker(*id).name, of_this);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    ByArrival,
    InTime,
}

/// Waits until the next inspection is due, or until the broker has come up or an event has found a destination changed.
async fn wait(
    attention: &mut watch::Receiver<Attention>,
    seen: Attention,
    started: Instant,
    mut next: Instant,
) -> Woken {
    loop {
        let woken = tokio::time::timeout_at(next, attention.changed()).await;
        let now = match woken {
            Err(_elapsed) => return Woken::InTime,
            Ok(Ok(())) => *attention.borrow_and_update(),
            // The client has ended and notifies of nothing more.
            Ok(Err(_closed)) => {
                tokio::time::sleep_until(next).await;
                return Woken::InTime;
            }
        };
        if now.arrivals != seen.arrivals {
            tokio::time::sleep_until(started + LEAST_PAUSE).await;
            return Woken::ByArrival;
        }
        next = next.min(started + FIRST_RETRY);
    }
}

fn is_up(broker: &Broker) -> bool {
    // Not `health`: a broker without a usable destination counts as down although it is reachable.
    matches!(broker.connection_health(), Health::Up { .. })
}

fn describe_all<'f>(
    broker: &NamedBroker,
    findings: impl Iterator<Item = &'f Finding>,
) -> impl Iterator<Item = String> {
    let name = broker.name.clone();
    merge_equal(findings).into_iter().map(move |finding| {
        let why = finding.assessment.why().unwrap_or_default();
        format!("broker {name}: {}: {why}", finding.destination)
    })
}

fn log_changes(broker: &NamedBroker, before: &[Finding], now: &[Finding]) {
    let (name, require_durable) = (&broker.name, broker.require_durable);
    let before: HashSet<_> = before.iter().map(key).collect();
    let new = now.iter().filter(|finding| !before.contains(&key(finding)));
    for finding in merge_equal(new) {
        let Finding {
            destination, check, ..
        } = &finding;
        match &finding.assessment {
            Assessment::Good => {}
            Assessment::Unusable(why) => {
                tracing::error!(broker = name, destination, check, "{why}");
            }
            Assessment::Unknown(why) if require_durable => {
                tracing::error!(
                    broker = name,
                    destination,
                    check,
                    "not ready, because of require_durable: {why}"
                );
            }
            Assessment::Bad(why) | Assessment::Advice(why) | Assessment::Unknown(why) => {
                tracing::warn!(broker = name, destination, check, "{why}");
            }
        }
    }
    let troubled: HashSet<_> = before
        .iter()
        .filter(|(.., assessment)| **assessment != Assessment::Good)
        .map(|(destination, check, _)| (*destination, *check))
        .collect();
    let recovered = now.iter().filter(|finding| {
        finding.assessment == Assessment::Good
            && troubled.contains(&(finding.destination.as_str(), finding.check))
    });
    for finding in merge_equal(recovered) {
        let Finding {
            destination, check, ..
        } = &finding;
        tracing::info!(
            broker = name,
            destination,
            check,
            "the destination is fine again"
        );
    }
}

fn key(finding: &Finding) -> (&str, &'static str, &Assessment) {
    (&finding.destination, finding.check, &finding.assessment)
}

fn show<'f>(metrics: &Metrics, broker: &str, findings: impl IntoIterator<Item = &'f Finding>) {
    for finding in findings {
        let is_good = finding.assessment == Assessment::Good;
        metrics.set_durable(broker, &finding.destination, finding.check, is_good);
    }
}

/// Removes the checks that are no longer made: their last value would stay indefinitely.
fn forget_other(metrics: &Metrics, broker: &str, before: &[Finding], now: &[Finding]) {
    let now: HashSet<_> = now
        .iter()
        .map(|finding| (finding.destination.as_str(), finding.check))
        .collect();
    for finding in before {
        if !now.contains(&(finding.destination.as_str(), finding.check)) {
            metrics.forget_durable_check(broker, &finding.destination, finding.check);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_result_outlives_silence_for_a_while_and_neither_a_refusal_nor_a_restart() {
        let silence = NotInspected::unanswered("");
        let mut state = State::default();
        assert!(!state.holds(0, &silence));
        state.arrivals = Some(1);
        state.answered = Some(Instant::now());
        assert!(state.holds(1, &silence));
        assert!(!state.holds(1, &NotInspected::refused("")));
        assert!(!state.holds(2, &silence));
        tokio::time::advance(VALIDITY).await;
        assert!(!state.holds(1, &silence));
    }

    #[test]
    fn missing_and_unknown_destinations_are_inspected_again_soon() {
        let finding = |assessment| Finding {
            destination: "a".to_owned(),
            check: "x",
            assessment,
        };
        let pause = |assessment, retry| Urgency::of(&[finding(assessment)]).pause(retry);
        let text = String::new;
        assert_eq!(pause(Assessment::Good, FIRST_RETRY), INTERVAL);
        assert_eq!(pause(Assessment::Bad(text()), FIRST_RETRY), INTERVAL);
        assert_eq!(pause(Assessment::Unknown(text()), FIRST_RETRY), FIRST_RETRY);
        assert_eq!(pause(Assessment::Unknown(text()), INTERVAL), LONGEST_RETRY);
        assert_eq!(
            pause(Assessment::Unusable(text()), INTERVAL),
            LONGEST_RETRY_MISSING
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_arrival_is_inspected_without_waiting_and_doubts_at_most_once_a_second() {
        let (sender, mut attention) = watch::channel(Attention::default());
        let seen = *attention.borrow_and_update();
        let started = Instant::now();
        let next = started + INTERVAL;
        sender.send_modify(|attention| attention.doubts += 1);
        let woken = wait(&mut attention, seen, started, next).await;
        assert_eq!((woken, started.elapsed()), (Woken::InTime, FIRST_RETRY));
        let started = Instant::now();
        sender.send_modify(|attention| attention.arrivals += 1);
        let woken = wait(&mut attention, seen, started, next).await;
        assert_eq!((woken, started.elapsed()), (Woken::ByArrival, LEAST_PAUSE));
    }
}
