//! A request that was never sent: runs the real code without a signature and without a broker.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::decide::decide;
use super::decision::{Decided, Decision, Verdict};
use super::gzip::decompress;
use super::receive::{check_framing, check_head, is_compressed};
use super::received::Received;
use super::verify::{Verified, open_handshake};
use crate::config::Source;
use crate::event::Refusal;
use crate::providers::Scope;
use crate::providers::authentication::Summary;
use crate::providers::handshake::Reply;

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a valid query")]
pub struct InvalidQuery(String);

/// A request as a provider could send it.
#[derive(Debug)]
pub struct Rehearsal {
    received: Received,
    method: Method,
    headers: HeaderMap,
}

impl Rehearsal {
    /// The query is without `?`.
    ///
    /// # Errors
    /// The query is not valid.
    pub fn new(
        source: &Arc<Source>,
        method: Method,
        query: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self, InvalidQuery> {
        let target = match query {
            None => source.path.clone(),
            Some(query) => format!("{}?{query}", source.path),
        };
        let wrong = |_| InvalidQuery(query.unwrap_or_default().to_owned());
        let target: Uri = target.parse().map_err(wrong)?;
        let now = SystemTime::now();
        let received = Received::from_parts(Arc::clone(source), headers.clone(), body, now);
        Ok(Self {
            received: received.with_target(method.clone(), target),
            method,
            headers,
        })
    }

    /// The outcome of the request if it were authentic, and the parts that its signature would cover.
    #[must_use]
    pub fn decide(mut self) -> (Decided, Summary) {
        let source = Arc::clone(self.received.source());
        let request = self.received.as_request();
        let summary = source.authentication.summarize(&request, &source.mapping);
        if let Err(refusal) = check_framing(&self.headers) {
            return (refused(refusal), summary);
        }
        if let Some(decided) = handshake_by_head(&source, &self.received) {
            return (decided, summary);
        }
        let length = u64::try_from(self.received.body().len()).unwrap_or(u64::MAX);
        if let Err(refusal) = check_head(&source, &self.method, &self.headers, Some(length)) {
            return (refused(refusal), summary);
        }
        if is_compressed(&source, &self.headers) {
            match decompress(self.received.body(), source.max_body) {
                Ok(body) => self.received = self.received.with_body(body),
                Err(refusal) => return (refused(refusal), summary),
            }
        }
        if let Some(reply) = open_handshake(&self.received) {
            return (Decided::Handshake(reply), summary);
        }
        // The signature cannot be verified here: this is the only place that assumes a request to be authentic.
        (decide(&Verified::assumed(self.received)), summary)
    }
}

/// A handshake that can be recognized by its head.
fn handshake_by_head(source: &Source, received: &Received) -> Option<Decided> {
    let request = received.as_request();
    let scope = Scope::raw(&request);
    let is_post = *request.method == Method::POST;
    let mut handshakes = source.handshakes.iter();
    let handshake = handshakes.find(|handshake| {
        (!handshake.verified || !is_post)
            && !handshake.needs_content()
            && handshake.matches(&scope).unwrap_or(false)
    })?;
    let reply: Option<Reply> = handshake.reply(&scope, None).ok().flatten();
    Some(match reply {
        Some(reply) => Decided::Handshake(Box::new(reply)),
        // Without a secret the reply cannot be signed.
        None if handshake.verified => Decided::Handshake(Box::new(handshake.unsigned_reply())),
        None => refused(Refusal::BadRequest(
            "the handshake lacks the value that is to be answered",
        )),
    })
}

fn refused(refusal: Refusal) -> Decided {
    Decided::Event(Decision {
        event_id: None,
        event_type: None,
        verdict: Verdict::Refuse(refusal),
    })
}
