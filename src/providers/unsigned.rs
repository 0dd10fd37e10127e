//! A request before and after it is signed as its provider does.

use std::time::SystemTime;

use http::{HeaderMap, Method, Uri};

/// The reason why a request cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignError(pub &'static str);

/// A request to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'r> {
    pub method: &'r Method,
    /// The URL to which it is sent.
    pub url: &'r Uri,
    /// Headers other than those of the scheme.
    pub headers: &'r HeaderMap,
    pub body: &'r [u8],
    /// The time of signing.
    pub at: SystemTime,
}

/// A signed request as its provider would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The headers that authenticate it, in addition to its own.
    pub headers: HeaderMap,
    /// The URL, possibly with an additional parameter.
    pub url: Uri,
    /// The body, which may contain parts of the scheme.
    pub body: Vec<u8>,
}
