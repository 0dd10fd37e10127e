//! A request that has arrived completely, and is not verified yet.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use crate::config::Source;
use crate::providers::request::Request;

/// The parts of a request's head that later steps use.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
}

/// A request that has arrived completely.
#[derive(Debug)]
pub struct Received {
    pub(super) source: Arc<Source>,
    /// Boxed because it moves through every step.
    pub(super) head: Box<Head>,
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
        let head = Head {
            method: Method::POST,
            target: source.path.parse().unwrap_or_default(),
            headers,
        };
        Self {
            source,
            head: Box::new(head),
            body,
            at,
        }
    }

    /// With another method, and a target with a query.
    #[must_use]
    pub(super) fn with_target(self, method: Method, target: Uri) -> Self {
        let Head { headers, .. } = *self.head;
        let head = Box::new(Head {
            method,
            target,
            headers,
        });
        Self { head, ..self }
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
            method: &self.head.method,
            target: &self.head.target,
            headers: &self.head.headers,
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
        &self.head.headers
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
