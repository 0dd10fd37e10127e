//! What is known of the destinations: inspected when their broker comes up, when an event meets one that has changed, soon
//! after an inspection that failed, and every minute. What is unknown never counts as good.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::brokers::{
    Attention, Broker, Finding, Health, NotInspected, Verdict, durability, together,
};
use crate::config::{BrokerId, NamedBroker};
use crate::metrics::Metrics;

/// How long an inspection may take while the service runs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between inspections while all is well.
const INTERVAL: Duration = Duration::from_secs(60);

/// After an inspection that failed: at first, doubled with each; and at most, where a destination is missing and where
/// something is unknown.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY_MISSING: Duration = Duration::from_secs(4);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The least time from one inspection's start to the next, however often a broker comes and goes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// How long a result holds while later inspections get no answer and the broker stays up. A refusal ends it immediately.
const VALIDITY: Duration = Duration::from_secs(150);

/// The destination of events whose topic only their payload says.
const OTHER: &str = "other";

/// What is known of the destinations of one broker's client.
#[derive(Debug, Default)]
pub(crate) struct Inspection(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often the broker had come up when it was asked last; none where it was not asked yet.
    arrivals: Option<u64>,
    /// When the broker answered last.
    answered: Option<Instant>,
    findings: Vec<Finding>,
}

impl State {
    /// Whether what was found last still holds after an inspection that failed.
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
pub(crate) struct Attempt {
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
        let has =
            |wanted: fn(&Verdict) -> bool| findings.iter().any(|finding| wanted(&finding.verdict));
        if has(|verdict| matches!(verdict, Verdict::Unusable(_))) {
            Self::Missing
        } else if has(|verdict| matches!(verdict, Verdict::Unknown(_))) {
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

/// What keeps a broker from being ready, beside its health.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// Its destinations have not been inspected since it came up.
    pub(crate) is_pending: bool,
    /// Destinations that can't be used, and why: the findings of several, merged.
    pub(crate) unusable: Vec<Finding>,
    /// What is wrong with those that must be durable.
    pub(crate) undurable: Vec<Finding>,
}

impl Bridge {
    /// Inspects the destinations of all brokers that routes need, for as long as it is polled.
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
            // Most brokers answer in less, and then say so.
            let arriving = attention.wait_for(|attention| attention.arrivals > 0);
            let _late = tokio::time::timeout(FIRST_RETRY, arriving).await;
        }
        let mut retry = FIRST_RETRY;
        loop {
            let started = Instant::now();
            let seen = *attention.borrow_and_update();
            let attempt = self.inspect(id, TIMEOUT).await;
            if self.process().is_draining() {
                // What was asked while everything ends says nothing of the destinations.
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

    /// Inspects the destinations of these brokers once, all at the same time.
    pub(crate) async fn inspect_all(
        &self,
        brokers: &[BrokerId],
        timeout: Duration,
    ) -> Vec<Attempt> {
        join_all(brokers.iter().map(|id| self.inspect(*id, timeout))).await
    }

    async fn inspect(&self, id: BrokerId, timeout: Duration) -> Attempt {
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
        Attempt {
            broker: id,
            attention,
            result,
        }
    }

    /// What keeps brokers that must be durable from taking events. What is unknown counts only where `unknown_counts`, and
    /// where the broker could have told.
    pub(crate) fn undurable(&self, attempts: &[Attempt], unknown_counts: bool) -> Vec<String> {
        let mut all = Vec::new();
        for attempt in attempts {
            let broker = self.config().broker(attempt.broker);
            if !broker.require_durable {
                continue;
            }
            match &attempt.result {
                Ok(findings) => {
                    let bad = findings.iter().filter(|finding| {
                        let is_unknown = matches!(finding.verdict, Verdict::Unknown(_));
                        finding.is_problem(true) && (unknown_counts || !is_unknown)
                    });
                    all.extend(said(broker, bad));
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

    /// Keeps what an inspection found, logs what is new, and says when to ask again.
    pub(crate) fn note_attempts(&self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            self.note_attempt(attempt);
        }
    }

    fn note_attempt(&self, attempt: Attempt) -> Urgency {
        let Attempt {
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
            // That a broker does not answer is told by its health; what it said before is told by the metrics.
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

    /// What is known of a broker's destinations.
    pub(crate) fn reservations(&self, id: BrokerId) -> Reservations {
        let named = self.config().broker(id);
        let is_pending = self.is_pending(id);
        let state = self.inspection(id).state();
        let is_unusable = |finding: &&Finding| matches!(finding.verdict, Verdict::Unusable(_));
        let unusable = || state.findings.iter().filter(is_unusable);
        let is_undurable = |finding: &&Finding| {
            named.require_durable && finding.is_problem(true) && !is_unusable(finding)
        };
        let undurable = state.findings.iter().filter(is_undurable);
        Reservations {
            is_pending,
            unusable: together(unusable()),
            undurable: together(undurable),
        }
    }

    /// Shows in the metrics what is known of this configuration's destinations, and nothing of another's.
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

/// Waits until the next inspection is due, or earlier: when the broker has come up, or an event met a doubtful destination.
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
            // The client has ended; there is nothing to wait for.
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
    // A broker without a usable destination is down, but has been reached.
    matches!(broker.connection_health(), Health::Up { .. })
}

fn said<'f>(
    broker: &NamedBroker,
    findings: impl Iterator<Item = &'f Finding>,
) -> impl Iterator<Item = String> {
    let name = broker.name.clone();
    together(findings).into_iter().map(move |finding| {
        let why = finding.verdict.why().unwrap_or_default();
        format!("broker {name}: {}: {why}", finding.destination)
    })
}

fn log_changes(broker: &NamedBroker, before: &[Finding], now: &[Finding]) {
    let (name, require_durable) = (&broker.name, broker.require_durable);
    let before: HashSet<_> = before.iter().map(key).collect();
    let new = now.iter().filter(|finding| !before.contains(&key(finding)));
    for finding in together(new) {
        let Finding {
            destination, check, ..
        } = &finding;
        match &finding.verdict {
            Verdict::Good => {}
            Verdict::Unusable(why) => {
                tracing::error!(broker = name, destination, check, "{why}");
            }
            Verdict::Unknown(why) if require_durable => {
                tracing::error!(
                    broker = name,
                    destination,
                    check,
                    "not ready, because of require_durable: {why}"
                );
            }
            Verdict::Bad(why) | Verdict::Advice(why) | Verdict::Unknown(why) => {
                tracing::warn!(broker = name, destination, check, "{why}");
            }
        }
    }
    let troubled: HashSet<_> = before
        .iter()
        .filter(|(.., verdict)| **verdict != Verdict::Good)
        .map(|(destination, check, _)| (*destination, *check))
        .collect();
    let mended = now.iter().filter(|finding| {
        finding.verdict == Verdict::Good
            && troubled.contains(&(finding.destination.as_str(), finding.check))
    });
    for finding in together(mended) {
        let Finding {
            destination, check, ..
        } = &finding;
        tracing::info!(
            broker = name,
            destination,
            check,
            "the destination is fine now"
        );
    }
}

fn key(finding: &Finding) -> (&str, &'static str, &Verdict) {
    (&finding.destination, finding.check, &finding.verdict)
}

fn show<'f>(metrics: &Metrics, broker: &str, findings: impl IntoIterator<Item = &'f Finding>) {
    for finding in findings {
        let is_good = finding.verdict == Verdict::Good;
        metrics.set_durable(broker, &finding.destination, finding.check, is_good);
    }
}

/// Forgets what was checked before and is not any more: its last value would stay for ever.
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
    fn what_is_missing_or_unknown_is_asked_for_again_soon() {
        let finding = |verdict| Finding {
            destination: "a".to_owned(),
            check: "x",
            verdict,
        };
        let pause = |verdict, retry| Urgency::of(&[finding(verdict)]).pause(retry);
        let text = String::new;
        assert_eq!(pause(Verdict::Good, FIRST_RETRY), INTERVAL);
        assert_eq!(pause(Verdict::Bad(text()), FIRST_RETRY), INTERVAL);
        assert_eq!(pause(Verdict::Unknown(text()), FIRST_RETRY), FIRST_RETRY);
        assert_eq!(pause(Verdict::Unknown(text()), INTERVAL), LONGEST_RETRY);
        assert_eq!(
            pause(Verdict::Unusable(text()), INTERVAL),
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
