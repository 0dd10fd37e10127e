//! Whether a destination's acknowledgement means "stored": what an inspection found, the same for every kind of broker.

/// What a broker must be able to keep.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The largest body.
    pub max_body_bytes: usize,
}

/// The check that says whether a destination could be inspected at all.
pub(super) const INSPECTED: &str = "inspected";

/// The check that says whether a destination is there.
pub(super) const EXISTS: &str = "exists";

/// The result of one check of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic or subject.
    pub destination: String,
    /// What was checked: the label `check` of `hookbridge_destination_durable`.
    pub check: &'static str,
    /// The result.
    pub verdict: Verdict,
}

/// Findings that say the same, as one with all of their destinations: a stream takes many subjects.
#[must_use]
pub fn together<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = merged
            .iter_mut()
            .find(|known| (known.check, &known.verdict) == (finding.check, &finding.verdict));
        match same {
            Some(known) => {
                known.destination.push_str(", ");
                known.destination.push_str(&finding.destination);
            }
            None => merged.push(finding.clone()),
        }
    }
    merged
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// No event for the destination can be acknowledged: why, and what to do.
    Unusable(String),
    /// An acknowledged event may be lost or never have been kept: why, and what to do.
    Bad(String),
    /// Worth a look, but no danger to what is acknowledged.
    Advice(String),
    /// It could not be found out: why. Never counts as good.
    Unknown(String),
}

impl Verdict {
    /// Its words; none where it is good.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Good => None,
            Self::Unusable(why) | Self::Bad(why) | Self::Advice(why) | Self::Unknown(why) => {
                Some(why)
            }
        }
    }
}

impl Finding {
    /// Whether a destination with this finding must not be used. What is unknown is not durable, and a destination that
    /// is not known to exist is not usable.
    #[must_use]
    pub fn is_problem(&self, require_durable: bool) -> bool {
        match self.verdict {
            Verdict::Good | Verdict::Advice(_) => false,
            Verdict::Unusable(_) => true,
            Verdict::Bad(_) => require_durable,
            Verdict::Unknown(_) => require_durable || self.check == EXISTS,
        }
    }

    /// Unusable where it is not good.
    pub(super) fn usable(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::judged(destination, check, is_good, || {
            Verdict::Unusable(otherwise())
        })
    }

    /// Bad where it is not good.
    pub(super) fn new(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::judged(destination, check, is_good, || Verdict::Bad(otherwise()))
    }

    /// Worth an advice where it is not good.
    pub(super) fn advice(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::judged(destination, check, is_good, || Verdict::Advice(otherwise()))
    }

    /// The destination was inspected.
    pub(super) fn inspected(destination: &str) -> Self {
        Self::judged(destination, INSPECTED, true, || Verdict::Good)
    }

    /// The destination could not be inspected.
    #[must_use]
    pub fn not_inspected(destination: &str, why: &str) -> Self {
        Self::judged(destination, INSPECTED, false, || {
            Verdict::Unknown(format!("it could not be inspected: {why}"))
        })
    }

    fn judged(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> Verdict,
    ) -> Self {
        Self {
            destination: destination.to_owned(),
            check,
            verdict: if is_good { Verdict::Good } else { otherwise() },
        }
    }
}

/// Why a broker's destinations could not be inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInspected {
    why: String,
    is_refused: bool,
}

impl NotInspected {
    /// The broker said no, which stays so until somebody changes something.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_refused: true,
        }
    }

    /// There was no answer.
    pub(crate) fn unanswered(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_refused: false,
        }
    }

    /// Whether the broker said no, and asking again does not help.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

impl std::fmt::Display for NotInspected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for NotInspected {}

/// When a broker's destinations should be inspected again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attention {
    /// How often the broker has come up: what was found before that may not hold any more.
    pub arrivals: u64,
    /// How often an event met a destination that is not what it was.
    pub doubts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_several_destinations_is_said_once() {
        let bad = |destination, why: &str| {
            Finding::new(destination, "replicas", false, || why.to_owned())
        };
        let findings = [
            bad("a.x", "stream A has 1"),
            bad("b.x", "stream B has 1"),
            bad("a.y", "stream A has 1"),
            Finding::advice("a.z", "discard", false, || "stream A has 1".to_owned()),
        ];
        let said: Vec<_> = together(&findings)
            .into_iter()
            .map(|finding| (finding.destination, finding.check))
            .collect();
        let expected = [
            ("a.x, a.y", "replicas"),
            ("b.x", "replicas"),
            ("a.z", "discard"),
        ];
        assert_eq!(said, expected.map(|(to, check)| (to.to_owned(), check)));
    }

    #[test]
    fn what_is_unknown_is_not_durable() {
        let with = |check: &'static str, verdict: fn(String) -> Verdict| Finding {
            destination: "a".to_owned(),
            check,
            verdict: verdict(String::new()),
        };
        let problems =
            |finding: Finding| [false, true].map(|required| finding.is_problem(required));
        assert_eq!(problems(Finding::inspected("a")), [false, false]);
        assert_eq!(problems(with("discard", Verdict::Advice)), [false, false]);
        assert_eq!(problems(with("replicas", Verdict::Bad)), [false, true]);
        assert_eq!(problems(with("replicas", Verdict::Unknown)), [false, true]);
        assert_eq!(problems(Finding::not_inspected("a", "")), [false, true]);
        assert_eq!(problems(with(EXISTS, Verdict::Unknown)), [true, true]);
        assert_eq!(problems(with("no_ack", Verdict::Unusable)), [true, true]);
    }
}
