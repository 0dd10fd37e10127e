//! A request that has arrived completely, and is not verified yet.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use crate::config::Source;
use crate::providers::request::Request;

/// A request that has arrived completely.
#[derive(Debug)]
pub struct Received {
    pub(super) source: Arc<Source>,
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) at: SystemTime,
}

impl Received {
    /// A request that did not come over the network, for `explain` and tests. It is unverified like any other.
    #[must_use]
    pub fn from_parts(
        source: Arc<Source>,
        headers: HeaderMap,
        body: Bytes,
        at: SystemTime,
    ) -> Self {
        Self {
            method: Method::POST,
            target: source.path.parse().unwrap_or_default(),
            source,
            headers,
            body,
            at,
        }
    }

    /// With another method, and a target with a query.
    #[must_use]
    pub(super) fn with_target(self, method: Method, target: Uri) -> Self {
        Self {
            method,
            target,
            ..self
        }
    }

    /// With another body.
    #[must_use]
    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// The request in the form that verification reads.
    #[must_use]
    pub fn as_request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            public_url: self.source.public_url.as_deref(),
            at: self.at,
        }
    }

    /// The source whose path the request was sent to.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The time of receipt.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }
}
