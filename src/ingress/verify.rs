//! Step 2: only what its provider can have sent goes on. Nothing of the body is parsed or logged before.

use std::sync::Arc;

use super::receive::Received;
use crate::config::Source;
use crate::event::Refusal;
use crate::providers::keys::Key;
use crate::providers::{Request, Scope, Unverified};

/// A request whose signature was verified. [`verify`] makes it, and [`Verified::assumed`] for `explain`; nobody else can:
///
/// ```compile_fail,E0451
/// fn forge(received: hookbridge::ingress::Received) -> hookbridge::ingress::Verified {
///     hookbridge::ingress::Verified { received, secret_index: None }
/// }
/// ```
#[derive(Debug)]
pub struct Verified {
    received: Received,
    secret_index: Option<usize>,
    is_assumed: bool,
}

impl Verified {
    /// Takes a request for genuine, for `hookbridge explain`, which publishes nothing.
    pub(crate) fn assumed(received: Received) -> Self {
        Self {
            received,
            secret_index: None,
            is_assumed: true,
        }
    }

    /// Which of the source's secrets vouches for it; none where the source takes requests from anyone.
    #[must_use]
    pub fn secret_index(&self) -> Option<usize> {
        self.secret_index
    }

    /// Whether nobody has vouched for it.
    pub(super) fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// The key that signed it.
    pub(super) fn key(&self) -> Option<&Key> {
        self.source().authentication.key(self.secret_index?)
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
pub fn verify(received: Received) -> Result<Verified, Refusal> {
    let request = received.as_request();
    let verdict = received
        .source()
        .authentication
        .verify(&Scope::raw(&request));
    match verdict {
        Ok(secret_index) => Ok(Verified {
            received,
            secret_index,
            is_assumed: false,
        }),
        Err(unverified) => Err(refuse(unverified)),
    }
}

/// Refuses what its head alone gives away, before its body is waited for.
pub(super) fn verify_head(source: &Source, request: &Request<'_>) -> Result<(), Refusal> {
    source.authentication.check_head(request).map_err(refuse)
}

pub(super) fn refuse(unverified: Unverified) -> Refusal {
    match unverified {
        Unverified::MissingSignature => Refusal::MissingSignature,
        Unverified::InvalidSignature => Refusal::InvalidSignature,
        Unverified::StaleTimestamp => Refusal::StaleTimestamp,
        Unverified::Unauthorized => Refusal::Unauthorized,
        Unverified::KeyUnavailable => Refusal::ProviderUnavailable {
            cause: "the certificate that it names is not at hand",
        },
    }
}
