//! Subjects whose events no stream acknowledges, according to the last inspection.
//!
//! An inspection sees the streams of the user's own account and domain. A stream elsewhere (a leaf node's hub, an imported
//! service) may take a subject that has none here. So an event for a subject without a stream is still sent, once: an
//! acknowledgement proves the stream, "no responders" is final without a retry, and silence (from a plain subscriber)
//! closes the subject for a while.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::durability::NO_ACK;
use crate::brokers::durability::{Assessment, EXISTS, Finding, INSPECTED};
use crate::brokers::health::Health;
use crate::brokers::outcome::{Outcome, Reason};

/// Time for which nothing is sent to a subject that has subscribers, but no stream to acknowledge.
const CLOSED: Duration = Duration::from_secs(60);

/// Maximum number of subjects listed in a message; the rest are counted.
const NAMED: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// Avoids the lock while every subject is usable.
    has_unusable: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unusable: HashMap<String, Unusable>,
    /// Whether all inspected subjects are unusable.
    are_all: bool,
    /// Subjects without a visible stream whose events are acknowledged nevertheless.
    proven: HashSet<String>,
}

#[derive(Debug)]
struct Unusable {
    why: String,
    /// The stream stores events without acknowledging them (`no_ack`).
    stores_silently: bool,
    closed_until: Option<Instant>,
    /// When an event that has copies elsewhere may next be tried.
    next_trial: Option<Instant>,
}

impl Subjects {
    /// Stores the findings of an inspection, and corrects those that acknowledgements have disproved.
    pub(super) fn note_findings(&self, findings: &mut [Finding]) {
        let mut state = self.state();
        let mut unusable = HashMap::new();
        let mut inspected = HashSet::new();
        for finding in findings {
            inspected.insert(finding.destination.clone());
            let Assessment::Unusable(why) = &finding.assessment else {
                continue;
            };
            if finding.check == EXISTS && state.proven.contains(&finding.destination) {
                finding.check = INSPECTED;
                finding.assessment = Assessment::Unknown(
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

    /// Discards the findings.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        self.has_unusable.store(false, Ordering::Release);
        state.unusable.clear();
        state.are_all = false;
    }

    /// The outcome of an event that must not be sent to the subject now.
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
            let detail = format!("{why}; it has a subscriber, which does not acknowledge");
            Outcome::not_stored(Reason::NoResponders, detail)
        })
    }

    /// Whether no event for the subject can be acknowledged, according to the last inspection.
    pub(super) fn is_unusable(&self, subject: &str) -> bool {
        self.has_unusable.load(Ordering::Acquire) && self.state().unusable.contains_key(subject)
    }

    /// Whether an event with copies elsewhere should not be published because of this subject: each failed attempt would
    /// leave copies there. One a minute checks whether the subject is acknowledged after all.
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

    /// Nobody listens to the subject. Returns whether that was known.
    pub(super) fn note_no_responders(&self, subject: &str) -> bool {
        let mut state = self.state();
        state.proven.remove(subject);
        state.unusable.contains_key(subject)
    }

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
                "the subject has a subscriber, but no stream: events are delivered without being stored or acknowledged; none is sent for a minute. Create a stream with `hookbridge provision` or `nats stream add`"
            );
        }
    }

    /// Combines the connection's health with the findings.
    pub(super) fn health(&self, connection: Health) -> Health {
        if !self.has_unusable.load(Ordering::Acquire) || !matches!(connection, Health::Up { .. }) {
            return connection;
        }
        let state = self.state();
        let mut missing: Vec<String> = state.unusable.keys().cloned().collect();
        missing.sort();
        if !state.are_all {
            let described = missing.iter().filter_map(|subject| {
                let unusable = state.unusable.get(subject)?;
                Some(format!("{subject}: {}", unusable.why))
            });
            return Health::Up {
                missing: described.collect(),
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
        assert!(matches!(findings[1].assessment, Assessment::Unknown(_)));
        assert_eq!(findings[1].check, INSPECTED);
        // The proof does not last indefinitely.
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
        // Another inspection with the same findings does not reopen the subject.
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
