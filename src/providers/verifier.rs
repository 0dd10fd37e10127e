//! The seam for hooks that verify requests.

use std::pin::Pin;
use std::time::Duration;

use super::handshake::FollowUp;
use super::request::{Request, Scope};
use super::scheme::Unverified;
use super::unsigned::{SignError, Signed, Unsigned};
use crate::event::Refusal;
use crate::secret::Secret;
use crate::table::Section;

/// Work that must complete before a request is verified. Its result shows in the verification.
pub type Preparation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Verification that data cannot describe: a file in `hooks/`.
pub trait Verifier: std::fmt::Debug + Send + Sync {
    /// See `Authentication::verify`. Does no I/O.
    ///
    /// # Errors
    /// As `Authentication::verify`.
    fn verify(&self, scope: &Scope<'_>) -> Result<Option<usize>, Unverified>;

    /// See `Authentication::check_head`.
    ///
    /// # Errors
    /// As `Authentication::verify`.
    fn check_head(&self, _request: &Request<'_>) -> Result<(), Unverified> {
        Ok(())
    }

    /// See `Authentication::prepare`.
    fn prepare(&self, _request: &Request<'_>) -> Option<Preparation> {
        None
    }

    /// See `Authentication::follow_up`.
    ///
    /// # Errors
    /// As `Authentication::follow_up`.
    fn follow_up(&self, _scope: &Scope<'_>) -> Result<Option<FollowUp>, Refusal> {
        Ok(None)
    }

    /// Whether a source must have `secrets`.
    fn needs_secrets(&self) -> bool {
        true
    }

    /// See `Authentication::is_asymmetric`.
    fn is_asymmetric(&self) -> bool {
        false
    }

    /// See `Authentication::covers_body`.
    fn covers_body(&self) -> bool {
        false
    }

    /// See `Authentication::signs_url`.
    fn signs_url(&self) -> bool {
        false
    }

    /// See `Authentication::is_secret_header`.
    fn is_secret_header(&self, _name: &str) -> bool {
        false
    }

    /// See `Authentication::tolerance`.
    fn tolerance(&self) -> Option<Duration> {
        None
    }

    /// Signs a request as the provider does.
    ///
    /// # Errors
    /// The secret is unusable, or the request lacks a signed part.
    fn sign(&self, secret: &Secret, unsigned: Unsigned<'_>) -> Result<Signed, SignError>;
}

/// Creates a hook's verifier from the source's table (for keys that only its preset has), the table `verify`, the
/// secrets and `tolerance`.
pub type ReadVerifier = fn(
    &mut Section<'_>,
    &mut Section<'_>,
    Vec<Secret>,
    Option<Duration>,
) -> Option<Box<dyn Verifier>>;
