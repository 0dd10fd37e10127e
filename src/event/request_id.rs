//! Request ids.

use http::HeaderValue;
use uuid::Uuid;

/// Identifies a request in its answer and in the log. Random, since a counter would reveal the number of requests.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(Uuid);

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl RequestId {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    #[cfg(test)]
    pub(crate) const fn from_u128(id: u128) -> Self {
        Self(Uuid::from_u128(id))
    }

    /// The same text as [`Display`](std::fmt::Display), without the cost of formatting: every answer has one.
    pub(crate) fn header(self) -> HeaderValue {
        let mut buffer = Uuid::encode_buffer();
        let text = self.0.as_hyphenated().encode_lower(&mut buffer);
        // The text is always a valid value; an answer must not fail even if it were not.
        HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_unique_and_tell_nothing_of_each_other() {
        let ids: Vec<u128> = (0..10_000)
            .map(|_| RequestId::random().0.as_u128())
            .collect();
        let unique: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let (mut higher, mut changed_bits) = (0, 0);
        for pair in ids.windows(2) {
            higher += usize::from(pair[1] > pair[0]);
            changed_bits += (pair[0] ^ pair[1]).count_ones();
        }
        // Of 122 random bits half change, and every other id is the higher one.
        assert!((4_500..5_500).contains(&higher), "{higher}");
        let mean = f64::from(changed_bits) / 9_999.0;
        assert!((60.0..62.0).contains(&mean), "{mean}");
    }
}
