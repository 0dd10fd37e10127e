//! The promise as a check: what was answered to each event, against what the broker holds.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use super::consumer::Stored;
use super::events::Event;
use super::sender::Answer;

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Status and outcome.
    Answered(u16, String),
    /// Sent, or perhaps sent, and the connection ended without an answer.
    NoAnswer(String),
    /// There was no connection: nothing was sent.
    NotSent,
}

/// Every delivery of a test, by event id.
#[derive(Default)]
pub(crate) struct Checker(Mutex<HashMap<String, Deliveries>>);

struct Deliveries {
    body: Vec<u8>,
    ends: Vec<End>,
}

/// What a check found, when it found nothing wrong.
#[derive(Debug)]
pub(crate) struct Books {
    /// Events answered 200.
    pub(crate) acknowledged: usize,
    /// Messages beyond the first of their event.
    pub(crate) duplicates: usize,
}

impl Checker {
    /// Notes a delivery and what came back.
    pub(crate) fn note(&self, event: &Event, result: &io::Result<Answer>) {
        self.add(
            event,
            match result {
                Ok(answer) => End::Answered(answer.status, answer.outcome()),
                Err(error) => End::NoAnswer(error.to_string()),
            },
        );
    }

    /// Notes an event that found no connection.
    pub(crate) fn note_not_sent(&self, event: &Event) {
        self.add(event, End::NotSent);
    }

    fn add(&self, event: &Event, end: End) {
        let mut all = self
            .0
            .lock()
            .expect("nothing panics while it holds the deliveries");
        let new = || Deliveries {
            body: event.body.clone(),
            ends: Vec::new(),
        };
        all.entry(event.id.clone())
            .or_insert_with(new)
            .ends
            .push(end);
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> usize {
        self.0
            .lock()
            .expect("nothing panics while it holds the deliveries")
            .len()
    }

    /// How many deliveries were answered.
    pub(crate) fn answers(&self) -> usize {
        self.count(|end| matches!(end, End::Answered(..)))
    }

    /// How many deliveries were answered with this status.
    pub(crate) fn answered(&self, status: u16) -> usize {
        self.count(|end| matches!(end, End::Answered(found, _) if *found == status))
    }

    /// How many deliveries were answered with this outcome: a success's `status` or a problem's `code`.
    pub(crate) fn outcomes(&self, outcome: &str) -> usize {
        self.count(|end| matches!(end, End::Answered(_, found) if found == outcome))
    }

    /// How many deliveries ended without an answer though there was a connection.
    pub(crate) fn unanswered(&self) -> usize {
        self.count(|end| matches!(end, End::NoAnswer(_)))
    }

    fn count(&self, which: impl Fn(&End) -> bool) -> usize {
        let all = self
            .0
            .lock()
            .expect("nothing panics while it holds the deliveries");
        all.values()
            .flat_map(|deliveries| &deliveries.ends)
            .filter(|end| which(end))
            .count()
    }

    /// Each outcome and how often, for people.
    pub(crate) fn summary(&self) -> String {
        let all = self
            .0
            .lock()
            .expect("nothing panics while it holds the deliveries");
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for end in all.values().flat_map(|deliveries| &deliveries.ends) {
            let name = match end {
                End::Answered(status, outcome) => format!("{status} {outcome}"),
                End::NoAnswer(error) => format!("no answer: {error}"),
                End::NotSent => "not sent".to_owned(),
            };
            *counts.entry(name).or_default() += 1;
        }
        format!("{counts:#?}")
    }

    /// Checks the promise against all that the broker holds: nothing acknowledged is lost or changed, nothing is there
    /// that was not sent, nothing is there that was certainly refused, and no more copies than deliveries explain.
    #[track_caller]
    pub(crate) fn check(&self, stored: &[Stored]) -> Books {
        let all = self
            .0
            .lock()
            .expect("nothing panics while it holds the deliveries");
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
            if promised && found == 0 {
                wrong.push(format!(
                    "answered 200 and lost: {id}, {:?}",
                    deliveries.ends
                ));
            }
            if found > may_have_stored {
                wrong.push(format!("{found} copies of {id}, of which at most {may_have_stored} are explained by {:?}", deliveries.ends));
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
            self.summary()
        );
        Books {
            acknowledged,
            duplicates: stored.len() - copies.len(),
        }
    }
}

impl End {
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
