//! Subjects whose events no stream acknowledges, as the last inspection found them.
//!
//! An inspection sees the streams of the user's own account and domain. A stream elsewhere (a leaf node's hub, an imported
//! service) may take a subject that has none here. So an event for a subject without a stream is still sent, once: an
//! acknowledgement proves the stream, "no responders" is final without a retry, and silence (a plain subscriber has it)
//! closes the subject for a while.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::durability::NO_ACK;
use crate::brokers::durability::{EXISTS, Finding, INSPECTED, Verdict};
use crate::brokers::health::Health;
use crate::brokers::outcome::{Outcome, Reason};

/// How long nothing is sent to a subject without a stream that somebody listens to and nobody acknowledges.
const CLOSED: Duration = Duration::from_secs(60);

/// Destinations that a message names; the rest are counted.
const NAMED: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// Spares the lock where all is well.
    has_unusable: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unusable: HashMap<String, Unusable>,
    /// Whether none of the inspected subjects can be used.
    are_all: bool,
    /// Subjects without a stream whose events are acknowledged all the same.
    proven: HashSet<String>,
}

#[derive(Debug)]
struct Unusable {
    why: String,
    /// Its stream stores every event and acknowledges none.
    stores_silently: bool,
    closed_until: Option<Instant>,
    /// When an event with copies elsewhere may be tried again.
    next_trial: Option<Instant>,
}

impl Subjects {
    /// Keeps the findings of an inspection, and corrects those that acknowledgements have disproved.
    pub(super) fn note_findings(&self, findings: &mut [Finding]) {
        let mut state = self.state();
        let mut unusable = HashMap::new();
        let mut inspected = HashSet::new();
        for finding in findings {
            inspected.insert(finding.destination.clone());
            let Verdict::Unusable(why) = &finding.verdict else {
                continue;
            };
            if finding.check == EXISTS && state.proven.contains(&finding.destination) {
                finding.check = INSPECTED;
                finding.verdict = Verdict::Unknown(
                    "events are acknowledged, but by no stream that this account can see (another account's or domain's)".to_owned(),
                );
                continue;
            }
            let known = state.unusable.remove(&finding.destination);
            let (closed_until, next_trial) = known
                .map(|known| (known.closed_until, known.next_trial))
                .unwrap_or_default();
            unusable
                .entry(finding.destination.clone())
                .or_insert(Unusable {
                    why: why.clone(),
                    stores_silently: finding.check == NO_ACK,
                    closed_until,
                    next_trial,
                });
        }
        state.are_all = !unusable.is_empty() && unusable.len() == inspected.len();
        self.has_unusable
            .store(!unusable.is_empty(), Ordering::Release);
        state.unusable = unusable;
    }

    /// Nothing is known of the subjects any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        self.has_unusable.store(false, Ordering::Release);
        state.unusable.clear();
        state.are_all = false;
    }

    /// Whether an event for the subject must not be sent, and why.
    pub(super) fn refusal(&self, subject: &str) -> Option<Outcome> {
        if !self.has_unusable.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state();
        let unusable = state.unusable.get(subject)?;
        let is_closed = unusable
            .closed_until
            .is_some_and(|until| Instant::now() < until);
        if unusable.stores_silently {
            return Some(Outcome::not_stored(Reason::Other, unusable.why.clone()));
        }
        is_closed.then(|| {
            let why = &unusable.why;
            let detail = format!("{why}; somebody subscribes to it, but does not acknowledge");
            Outcome::not_stored(Reason::NoResponders, detail)
        })
    }

    /// Whether the last inspection found that no event for the subject can be acknowledged.
    pub(super) fn is_unusable(&self, subject: &str) -> bool {
        self.has_unusable.load(Ordering::Acquire) && self.state().unusable.contains_key(subject)
    }

    /// Whether an event that has copies elsewhere should not be published because of this subject: each try that fails here
    /// leaves a copy there. One a minute finds out whether the subject is acknowledged all the same.
    pub(super) fn is_closed_to_copies(&self, subject: &str) -> bool {
        if !self.has_unusable.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        let Some(unusable) = state.unusable.get_mut(subject) else {
            return false;
        };
        let now = Instant::now();
        if unusable.stores_silently || unusable.next_trial.is_some_and(|next| now < next) {
            return true;
        }
        unusable.next_trial = Some(now + CLOSED);
        false
    }

    /// An event for the subject was acknowledged.
    pub(super) fn note_stored(&self, subject: &str) {
        if !self.has_unusable.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if state.unusable.remove(subject).is_some() {
            state.are_all = false;
            self.has_unusable
                .store(!state.unusable.is_empty(), Ordering::Release);
            state.proven.insert(subject.to_owned());
        }
    }

    /// Nobody listens to the subject. Says whether that was known.
    pub(super) fn note_no_responders(&self, subject: &str) -> bool {
        let mut state = self.state();
        state.proven.remove(subject);
        state.unusable.contains_key(subject)
    }

    /// An event for the subject was not acknowledged in time.
    pub(super) fn note_silence(&self, broker: &str, subject: &str) {
        if !self.has_unusable.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        let Some(unusable) = state.unusable.get_mut(subject) else {
            return;
        };
        let now = Instant::now();
        if unusable.closed_until.is_none_or(|until| until <= now) {
            unusable.closed_until = Some(now + CLOSED);
            tracing::error!(
                broker,
                subject,
                "somebody subscribes to the subject, but no stream takes it: its events are delivered without being stored, and not acknowledged; none is sent for a minute. Create a stream (nats stream add)"
            );
        }
    }

    /// The connection's health with what is known of the subjects.
    pub(super) fn health(&self, connection: Health) -> Health {
        if !self.has_unusable.load(Ordering::Acquire) || !matches!(connection, Health::Up { .. }) {
            return connection;
        }
        let state = self.state();
        let mut missing: Vec<String> = state.unusable.keys().cloned().collect();
        missing.sort();
        if !state.are_all {
            let said = missing.iter().filter_map(|subject| {
                let unusable = state.unusable.get(subject)?;
                Some(format!("{subject}: {}", unusable.why))
            });
            return Health::Up {
                missing: said.collect(),
            };
        }
        let mut reasons: Vec<&str> = state
            .unusable
            .values()
            .map(|unusable| unusable.why.as_str())
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        let more = missing.len().saturating_sub(NAMED);
        missing.truncate(NAMED);
        let mut names = missing.join(", ");
        if more > 0 {
            names.push_str(&format!(" and {more} more"));
        }
        reasons.truncate(NAMED);
        Health::Down(format!("{names}: {}", reasons.join("; ")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Health {
        Health::Up {
            missing: Vec::new(),
        }
    }

    fn missing(subject: &str) -> [Finding; 2] {
        [
            Finding::inspected(subject),
            Finding::usable(subject, EXISTS, false, || "no stream".to_owned()),
        ]
    }

    #[test]
    fn a_broker_is_down_when_none_of_its_subjects_can_be_used() {
        let subjects = Subjects::default();
        assert_eq!(subjects.health(up()), up());
        let mut findings = [missing("a"), missing("b")].concat();
        subjects.note_findings(&mut findings);
        assert_eq!(
            subjects.health(up()),
            Health::Down("a, b: no stream".to_owned())
        );
        assert_eq!(subjects.health(Health::Starting), Health::Starting);
        findings.extend([Finding::inspected("c")]);
        subjects.note_findings(&mut findings);
        let missing = vec!["a: no stream".to_owned(), "b: no stream".to_owned()];
        assert_eq!(subjects.health(up()), Health::Up { missing });
        subjects.forget();
        assert_eq!(subjects.health(up()), up());
    }

    #[test]
    fn an_acknowledgement_proves_a_stream_that_no_inspection_sees() {
        let subjects = Subjects::default();
        let mut findings = missing("a");
        subjects.note_findings(&mut findings);
        assert!(subjects.refusal("a").is_none() && subjects.is_unusable("a"));
        subjects.note_stored("a");
        assert!(!subjects.is_unusable("a"));
        subjects.note_findings(&mut findings);
        assert!(!subjects.is_unusable("a"));
        assert!(matches!(findings[1].verdict, Verdict::Unknown(_)));
        assert_eq!(findings[1].check, INSPECTED);
        // The proof does not hold for ever.
        assert!(!subjects.note_no_responders("a"));
        let mut findings = missing("a");
        subjects.note_findings(&mut findings);
        assert!(subjects.note_no_responders("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_subject_that_is_silent_without_a_stream_is_closed_for_a_while() {
        let subjects = Subjects::default();
        subjects.note_silence("main", "a");
        assert!(subjects.refusal("a").is_none());
        subjects.note_findings(&mut missing("a"));
        subjects.note_silence("main", "a");
        // The next inspection finds the same, and opens nothing.
        subjects.note_findings(&mut missing("a"));
        assert!(subjects.refusal("a").is_some());
        tokio::time::advance(CLOSED).await;
        assert!(subjects.refusal("a").is_none());
        subjects.note_silence("main", "a");
        subjects.note_findings(&mut [Finding::inspected("a")]);
        assert!(subjects.refusal("a").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_with_copies_tries_a_subject_without_a_stream_once_a_minute() {
        let subjects = Subjects::default();
        assert!(!subjects.is_closed_to_copies("a"));
        subjects.note_findings(&mut missing("a"));
        assert!(!subjects.is_closed_to_copies("a"));
        subjects.note_findings(&mut missing("a"));
        assert!(subjects.is_closed_to_copies("a"));
        assert!(!subjects.is_closed_to_copies("b"));
        tokio::time::advance(CLOSED).await;
        assert!(!subjects.is_closed_to_copies("a"));
    }

    #[test]
    fn nothing_is_sent_to_a_stream_that_never_acknowledges() {
        let subjects = Subjects::default();
        subjects.note_findings(&mut [Finding::usable("a", NO_ACK, false, String::new)]);
        assert!(matches!(subjects.refusal("a"), Some(Outcome::NotStored(_))));
        assert!(subjects.refusal("b").is_none());
    }
}
