//! Step 2: only what its provider can have sent goes on. Nothing of the body is parsed or logged before.

use std::sync::Arc;

use super::parse;
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
    /// Of further secrets, where each event carries one.
    other_secrets: Vec<usize>,
    is_assumed: bool,
}

impl Verified {
    /// Takes a request for genuine, for `hookbridge explain`, which publishes nothing.
    pub(crate) fn assumed(received: Received) -> Self {
        Self {
            received,
            secret_index: None,
            other_secrets: Vec::new(),
            is_assumed: true,
        }
    }

    /// Which of the source's secrets vouches for it; none where the source takes requests from anyone.
    #[must_use]
    pub fn secret_index(&self) -> Option<usize> {
        self.secret_index
    }

    /// The secrets that vouch for it besides.
    #[must_use]
    pub fn other_secrets(&self) -> &[usize] {
        &self.other_secrets
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
    let (secret_index, other_secrets) = match verdict {
        Ok(secret_index) => (secret_index, Vec::new()),
        Err(_) if received.source().authentication.is_in_events() => {
            let mut indices = verify_events(&received)?;
            (indices.pop(), indices)
        }
        Err(unverified) => return Err(refuse(unverified)),
    };
    Ok(Verified {
        received,
        secret_index,
        other_secrets,
        is_assumed: false,
    })
}

/// Verifies a request whose events carry the secret. Its body has to be parsed for that, and is parsed again afterwards:
/// what reads events takes a [`Verified`].
fn verify_events(received: &Received) -> Result<Vec<usize>, Refusal> {
    let source = received.source();
    let mapping = &source.mapping;
    let content = parse::content(mapping, received.headers(), received.body())?;
    let text = content.json().ok().flatten().ok_or(Refusal::Unauthorized)?;
    let document = parse::read(text)?;
    let events = match mapping.is_batch() {
        true => mapping.elements(&document)?,
        false => vec![document.root()],
    };
    let verdict = source.authentication.verify_events(&events);
    parse::refuse_if_ambiguous(&document)?;
    verdict.map_err(refuse)
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
    }
}
