//! Whether a destination's acknowledgement means "stored": the findings of an inspection, the same for every kind of broker.

use std::collections::HashMap;

/// Requirements on a destination.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    pub max_body_bytes: usize,
}

/// The check that a destination could be inspected at all.
pub(super) const INSPECTED: &str = "inspected";

/// The check that a destination exists.
pub(super) const EXISTS: &str = "exists";

/// The result of one check of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub destination: String,
    /// The label `check` of `hookbridge_destination_durable`.
    pub check: &'static str,
    pub assessment: Assessment,
}

/// Maximum number of destinations that a merged finding lists.
const MOST_LISTED: usize = 20;

/// Merges findings that differ only in their destination into one that lists the first destinations and says how many more
/// there are: a stream takes many subjects.
#[must_use]
pub fn merge_equal<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Vec<Finding> {
    let mut merged: Vec<(Finding, usize)> = Vec::new();
    let mut indexes: HashMap<(&str, &Assessment), usize> = HashMap::new();
    for finding in findings {
        let index = *indexes
            .entry((finding.check, &finding.assessment))
            .or_insert(merged.len());
        match merged.get_mut(index) {
            Some((known, count)) => {
                *count += 1;
                if *count <= MOST_LISTED {
                    known.destination.push_str(", ");
                    known.destination.push_str(&finding.destination);
                }
            }
            None => merged.push((finding.clone(), 1)),
        }
    }
    let merged = merged.into_iter().map(|(mut finding, count)| {
        if let Some(more) = count.checked_sub(MOST_LISTED).filter(|more| *more > 0) {
            finding.destination.push_str(&format!(" and {more} more"));
        }
        finding
    });
    merged.collect()
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Assessment {
    Good,
    /// No event for the destination can be acknowledged. The text gives the reason and the remedy.
    Unusable(String),
    /// An acknowledged event may be lost. The text gives the reason and the remedy.
    Bad(String),
    /// Worth attention, but no danger to acknowledged events.
    Advice(String),
    /// Could not be determined; the text gives the reason. Never counts as good.
    Unknown(String),
}

impl Assessment {
    /// None for [`Assessment::Good`].
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
    /// Whether a destination with this finding must not be used. An unknown one is not durable, and not usable if its
    /// existence is unknown.
    #[must_use]
    pub fn is_problem(&self, require_durable: bool) -> bool {
        match self.assessment {
            Assessment::Good | Assessment::Advice(_) => false,
            Assessment::Unusable(_) => true,
            Assessment::Bad(_) => require_durable,
            Assessment::Unknown(_) => require_durable || self.check == EXISTS,
        }
    }

    /// Unusable unless `is_good`.
    pub(super) fn usable(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::checked(destination, check, is_good, || {
            Assessment::Unusable(otherwise())
        })
    }

    /// Bad unless `is_good`.
    pub(super) fn new(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::checked(destination, check, is_good, || Assessment::Bad(otherwise()))
    }

    /// Advice unless `is_good`.
    pub(super) fn advice(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        Self::checked(destination, check, is_good, || {
            Assessment::Advice(otherwise())
        })
    }

    pub(super) fn inspected(destination: &str) -> Self {
        Self::checked(destination, INSPECTED, true, || Assessment::Good)
    }

    #[must_use]
    pub fn not_inspected(destination: &str, why: &str) -> Self {
        Self::checked(destination, INSPECTED, false, || {
            Assessment::Unknown(format!("it could not be inspected: {why}"))
        })
    }

    fn checked(
        destination: &str,
        check: &'static str,
        is_good: bool,
        otherwise: impl FnOnce() -> Assessment,
    ) -> Self {
        Self {
            destination: destination.to_owned(),
            check,
            assessment: if is_good {
                Assessment::Good
            } else {
                otherwise()
            },
        }
    }
}

/// The reason why a broker's destinations could not be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotInspected {
    why: String,
    is_refused: bool,
}

impl NotInspected {
    /// The broker refused, which will not change until someone fixes it.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_refused: true,
        }
    }

    pub(crate) fn unanswered(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_refused: false,
        }
    }

    /// Whether the broker refused, so that asking again does not help.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

/// Counters whose change means that a broker's destinations should be inspected again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attention {
    /// How often the broker has come up: earlier findings may no longer hold.
    pub arrivals: u64,
    /// How often an event has contradicted the findings.
    pub doubts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_findings_of_several_destinations_are_reported_once() {
        let bad = |destination, why: &str| {
            Finding::new(destination, "replicas", false, || why.to_owned())
        };
        let findings = [
            bad("a.x", "stream A has 1"),
            bad("b.x", "stream B has 1"),
            bad("a.y", "stream A has 1"),
            Finding::advice("a.z", "discard", false, || "stream A has 1".to_owned()),
        ];
        let said: Vec<_> = merge_equal(&findings)
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
    fn of_very_many_equal_findings_the_first_destinations_are_listed_and_the_rest_counted() {
        let many =
            (0..10_000).map(|number| Finding::new(&number.to_string(), "x", false, String::new));
        let many: Vec<_> = many.collect();
        let merged = merge_equal(&many);
        assert_eq!(merged.len(), 1);
        let listed = &merged[0].destination;
        assert!(
            listed.starts_with("0, 1, ") && listed.ends_with(", 19 and 9980 more"),
            "{listed}"
        );
    }

    #[test]
    fn unknown_durability_is_not_durable() {
        let with = |check: &'static str, assessment: fn(String) -> Assessment| Finding {
            destination: "a".to_owned(),
            check,
            assessment: assessment(String::new()),
        };
        let problems =
            |finding: Finding| [false, true].map(|required| finding.is_problem(required));
        assert_eq!(problems(Finding::inspected("a")), [false, false]);
        assert_eq!(
            problems(with("discard", Assessment::Advice)),
            [false, false]
        );
        assert_eq!(problems(with("replicas", Assessment::Bad)), [false, true]);
        assert_eq!(
            problems(with("replicas", Assessment::Unknown)),
            [false, true]
        );
        assert_eq!(problems(Finding::not_inspected("a", "")), [false, true]);
        assert_eq!(problems(with(EXISTS, Assessment::Unknown)), [true, true]);
        assert_eq!(problems(with("no_ack", Assessment::Unusable)), [true, true]);
    }
}
