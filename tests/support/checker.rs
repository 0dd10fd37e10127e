//! Checks the guarantees: compares the answer to each event with what the broker holds.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::consumer::Stored;
use super::events::Event;
use super::sender::Answer;

/// The result of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Answered, with status and outcome.
    Answered(u16, String),
    /// Sent, or possibly sent, but the connection ended without an answer.
    NoAnswer(String),
    /// Not sent: there was no connection.
    NotSent,
}

/// All deliveries of a test by event id.
pub(crate) struct Checker {
    all: Mutex<HashMap<String, Deliveries>>,
    /// The times at which parts of the test began.
    parts: Mutex<Vec<(Instant, String)>>,
    /// See [`Checker::allow_repeats`].
    may_repeat: AtomicBool,
}

struct Deliveries {
    body: Vec<u8>,
    ends: Vec<End>,
    /// The times at which they ended, and their durations.
    times: Vec<(Instant, Duration)>,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            may_repeat: AtomicBool::default(),
            parts: Mutex::new(vec![(Instant::now(), "the start".to_owned())]),
        }
    }
}

/// The result of a successful check.
#[derive(Debug)]
pub(crate) struct Books {
    /// Events answered 200.
    pub(crate) acknowledged: usize,
    /// Messages beyond the first of each event.
    pub(crate) duplicates: usize,
}

impl Checker {
    /// Records a delivery with its duration and answer.
    pub(crate) fn note(&self, event: &Event, took: Duration, result: &io::Result<Answer>) {
        self.add(
            event,
            took,
            match result {
                Ok(answer) => End::Answered(answer.status, answer.outcome()),
                Err(error) => End::NoAnswer(error.to_string()),
            },
        );
    }

    /// Records an event that found no connection.
    pub(crate) fn note_not_sent(&self, event: &Event) {
        self.add(event, Duration::ZERO, End::NotSent);
    }

    fn add(&self, event: &Event, took: Duration, end: End) {
        let mut all = self.all();
        let new = || Deliveries {
            body: event.body.clone(),
            ends: Vec::new(),
            times: Vec::new(),
        };
        let deliveries = all.entry(event.id.clone()).or_insert_with(new);
        deliveries.ends.push(end);
        deliveries.times.push((Instant::now(), took));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Deliveries>> {
        let all = self.all.lock();
        all.expect("nothing panics while it holds the deliveries")
    }

    /// Begins another part of the test; [`Checker::history`] lists the answers by part.
    pub(crate) fn begin(&self, part: impl Into<String>) {
        let mut parts = self.parts.lock().expect("nothing panics while it holds it");
        parts.push((Instant::now(), part.into()));
    }

    /// The number of events.
    pub(crate) fn events(&self) -> usize {
        self.all().len()
    }

    /// The number of answered deliveries.
    pub(crate) fn answers(&self) -> usize {
        self.count(|end| matches!(end, End::Answered(..)))
    }

    /// The number of deliveries answered with this status.
    pub(crate) fn answered(&self, status: u16) -> usize {
        self.count(|end| matches!(end, End::Answered(found, _) if *found == status))
    }

    /// The number of deliveries answered with this outcome: a success's `status` or a problem's `code`.
    pub(crate) fn outcomes(&self, outcome: &str) -> usize {
        self.count(|end| matches!(end, End::Answered(_, found) if found == outcome))
    }

    /// The number of deliveries that ended without an answer although there was a connection.
    pub(crate) fn unanswered(&self) -> usize {
        self.count(|end| matches!(end, End::NoAnswer(_)))
    }

    /// Deliveries that took longer than this, with their start, end and result.
    pub(crate) fn slower_than(&self, limit: Duration) -> Vec<(Instant, Instant, String)> {
        let all = self.all();
        all.values()
            .flat_map(|deliveries| deliveries.ends.iter().zip(&deliveries.times))
            .filter(|(_, (_, took))| *took > limit)
            .map(|(end, (at, took))| (*at - *took, *at, end.name()))
            .collect()
    }

    fn count(&self, which: impl Fn(&End) -> bool) -> usize {
        let all = self.all();
        all.values()
            .flat_map(|deliveries| &deliveries.ends)
            .filter(|end| which(end))
            .count()
    }

    /// The number of deliveries by outcome, in readable form.
    pub(crate) fn summary(&self) -> String {
        let all = self.all();
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for end in all.values().flat_map(|deliveries| &deliveries.ends) {
            *counts.entry(end.name()).or_default() += 1;
        }
        format!("{counts:#?}")
    }

    /// For each part of the test: the answers, their number and the longest duration, in readable form.
    pub(crate) fn history(&self) -> String {
        let parts = self.parts.lock().expect("nothing panics while it holds it");
        let all = self.all();
        let deliveries: Vec<_> = all
            .values()
            .flat_map(|deliveries| deliveries.ends.iter().zip(&deliveries.times))
            .collect();
        let mut text = String::new();
        for (number, (start, part)) in parts.iter().enumerate() {
            let end = parts.get(number + 1).map(|(end, _)| *end);
            let of_part = deliveries
                .iter()
                .filter(|(_, (at, _))| at >= start && end.is_none_or(|end| *at < end));
            let mut counts = std::collections::BTreeMap::<String, (usize, Duration)>::new();
            for (end, (_, took)) in of_part {
                let (count, slowest) = counts.entry(end.name()).or_default();
                *count += 1;
                *slowest = (*slowest).max(*took);
            }
            let since = start.duration_since(parts[0].0);
            text += &format!("\n{since:9.2?} {part}:");
            for (name, (count, slowest)) in counts {
                text += &format!(" {count} x {name} (slowest {slowest:.2?});");
            }
        }
        text
    }

    /// Allows two copies of each delivery: when some messages of a partition time out, librdkafka gives the others new
    /// sequence numbers (`rd_kafka_idemp_drain_epoch_bump`), also those that the broker may have stored.
    pub(crate) fn allow_repeats(&self) {
        self.may_repeat.store(true, Ordering::Relaxed);
    }

    /// Checks everything that the broker holds: nothing acknowledged is lost or changed, nothing is stored that was
    /// never sent or was certainly refused, and there are no more copies than deliveries explain.
    #[track_caller]
    pub(crate) fn check(&self, stored: &[Stored]) -> Books {
        let all = self.all();
        let mut copies = HashMap::<&str, usize>::new();
        let mut wrong = Vec::new();
        for message in stored {
            match all.get(message.event_id()) {
                None => wrong.push(format!("stored but never sent: {message:?}")),
                Some(deliveries) if deliveries.body != message.value => {
                    wrong.push(format!(
                        "stored with other bytes than were sent: {message:?}"
                    ));
                }
                Some(_) => *copies.entry(message.event_id()).or_default() += 1,
            }
        }
        let mut acknowledged = 0;
        for (id, deliveries) in &*all {
            let found = copies.get(id.as_str()).copied().unwrap_or(0);
            let promised = deliveries
                .ends
                .iter()
                .any(|end| matches!(end, End::Answered(200, _)));
            let may_have_stored = deliveries
                .ends
                .iter()
                .filter(|end| end.may_have_stored())
                .count();
            acknowledged += usize::from(promised);
            let copies_each = 1 + usize::from(self.may_repeat.load(Ordering::Relaxed));
            let most = may_have_stored * copies_each;
            if promised && found == 0 {
                wrong.push(format!(
                    "answered 200 and lost: {id}, {:?}",
                    deliveries.ends
                ));
            }
            if found > most {
                wrong.push(format!(
                    "{found} copies of {id}, of which at most {most} are explained by {:?}",
                    deliveries.ends
                ));
            }
        }
        drop(all);
        let shown = wrong
            .iter()
            .take(20)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            wrong.is_empty(),
            "{} faults, the first of them:\n{shown}\nall answers: {}",
            wrong.len(),
            self.history()
        );
        Books {
            acknowledged,
            duplicates: stored.len() - copies.len(),
        }
    }
}

impl End {
    fn name(&self) -> String {
        match self {
            Self::Answered(status, outcome) => format!("{status} {outcome}"),
            Self::NoAnswer(error) => format!("no answer: {error}"),
            Self::NotSent => "not sent".to_owned(),
        }
    }

    /// Whether this delivery may have left a message in the broker.
    fn may_have_stored(&self) -> bool {
        match self {
            Self::Answered(200, outcome) => outcome == "published",
            Self::Answered(_, outcome) => outcome == "publish_timeout",
            Self::NoAnswer(_) => true,
            Self::NotSent => false,
        }
    }
}
