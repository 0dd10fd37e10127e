//! Step 2: only what a provider's verifier takes for genuine goes on. Nothing of the body is parsed or logged before.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;

use super::receive::Received;
use super::refusal::Refusal;
use crate::config::Source;
use crate::providers::Unverified;

/// A request whose signature was verified. [`verify`] makes it, and [`Verified::assumed`] for `explain`; nobody else can:
///
/// ```compile_fail,E0451
/// fn forge(received: hookbridge::ingress::Received) -> hookbridge::ingress::Verified {
///     hookbridge::ingress::Verified { received, secret_index: 0 }
/// }
/// ```
#[derive(Debug)]
pub struct Verified {
    received: Received,
    secret_index: usize,
}

impl Verified {
    /// Takes a request for genuine, for `hookbridge explain`, which publishes nothing.
    pub(crate) fn assumed(received: Received) -> Self {
        Self {
            received,
            secret_index: 0,
        }
    }

    /// Which of the source's secrets signed it.
    #[must_use]
    pub fn secret_index(&self) -> usize {
        self.secret_index
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> &Received {
        &self.received
    }

    /// The source it was sent to.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        self.received.source()
    }
}

/// Verifies a request.
///
/// # Errors
/// Why it can't be taken for the provider's.
pub fn verify(received: Received, now: SystemTime) -> Result<Verified, Refusal> {
    let verdict = received
        .source()
        .verifier
        .verify(received.headers(), received.body(), now);
    match verdict {
        Ok(secret_index) => Ok(Verified {
            received,
            secret_index,
        }),
        Err(unverified) => Err(refuse(unverified)),
    }
}

/// Refuses what its head alone gives away, before its body is waited for.
pub(super) fn verify_head(
    source: &Source,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(), Refusal> {
    source.verifier.check_head(headers, now).map_err(refuse)
}

fn refuse(unverified: Unverified) -> Refusal {
    match unverified {
        Unverified::MissingSignature => Refusal::MissingSignature,
        Unverified::InvalidSignature => Refusal::InvalidSignature,
        Unverified::StaleTimestamp => Refusal::StaleTimestamp,
    }
}
