//! How often the same kind of line is logged: once a second for each source or broker, so that one never hides another.

use strum::VariantArray as _;

use crate::event::Code;
use crate::telemetry::LogThrottle;

/// A throttle for each of a fixed list of kinds.
#[derive(Debug)]
pub(crate) struct Throttles<K>(Vec<(K, LogThrottle)>);

impl<K: PartialEq + Copy> Throttles<K> {
    pub(crate) fn new(kinds: impl IntoIterator<Item = K>) -> Self {
        let kinds = kinds.into_iter();
        Self(kinds.map(|kind| (kind, LogThrottle::default())).collect())
    }

    /// If a line of this kind may be logged: the number suppressed since the last one.
    pub(crate) fn allow(&self, kind: K) -> Option<u64> {
        let (_, throttle) = self.0.iter().find(|(known, _)| *known == kind)?;
        throttle.allow()
    }
}

/// By problem code.
pub(crate) fn by_code() -> Throttles<&'static str> {
    Throttles::new(Code::VARIANTS.iter().map(|code| code.into_str()))
}

/// The throttles of one source. A reload keeps them.
#[derive(Debug)]
pub(crate) struct SourceThrottles {
    pub(crate) refusals: Throttles<&'static str>,
    pub(crate) dead_letters: Throttles<&'static str>,
}

impl SourceThrottles {
    pub(crate) fn new() -> Self {
        Self {
            refusals: by_code(),
            dead_letters: by_code(),
        }
    }
}
