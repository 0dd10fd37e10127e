//! Whether a destination's acknowledgement means "stored": what was found, the same for every kind of broker.

/// What a broker must be able to keep.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The largest body.
    pub max_body_bytes: usize,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic or subject.
    pub destination: String,
    /// What was looked at: the label `check` of `hookbridge_destination_durable`.
    pub check: &'static str,
    /// What was found.
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

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// An acknowledged event may be lost or never have been kept: why, and what to do.
    Bad(String),
    /// Worth a look, but no danger to what is acknowledged.
    Advice(String),
    /// The broker does not tell.
    Unknown(String),
}

impl Finding {
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
}
