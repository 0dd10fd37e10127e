//! A request that nobody sent: the code of the real one, without its signature and without a broker.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::decide::decide;
use super::decision::{Decided, Decision, Verdict};
use super::receive::{Received, check_head};
use super::verify::{Verified, open_handshake};
use crate::config::Source;
use crate::event::Refusal;
use crate::providers::Scope;
use crate::providers::authentication::Summary;
use crate::providers::handshake::Reply;

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
    /// The query is not a valid one.
    pub fn new(
        source: &Arc<Source>,
        method: Method,
        query: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self, String> {
        let target = match query {
            None => source.path.clone(),
            Some(query) => format!("{}?{query}", source.path),
        };
        let wrong = || format!("`{}` is not a valid query", query.unwrap_or_default());
        let target: Uri = target.parse().map_err(|_| wrong())?;
        let now = SystemTime::now();
        let received = Received::from_parts(Arc::clone(source), headers.clone(), body, now);
        Ok(Self {
            received: received.with_target(method.clone(), target),
            method,
            headers,
        })
    }

    /// What would become of the request if it were genuine, and what its signature would cover.
    #[must_use]
    pub fn decide(self) -> (Decided, Summary) {
        let source = Arc::clone(self.received.source());
        let request = self.received.as_request();
        let summary = source.authentication.summarize(&request, &source.mapping);
        if let Some(decided) = handshake_by_head(&source, &self.received) {
            return (decided, summary);
        }
        let length = u64::try_from(self.received.body().len()).unwrap_or(u64::MAX);
        if let Err(refusal) = check_head(&source, &self.method, &self.headers, Some(length)) {
            return (refused(refusal), summary);
        }
        if let Some(reply) = open_handshake(&self.received) {
            return (Decided::Handshake(reply), summary);
        }
        // The signature can't be checked here: this is the one place that takes a request for genuine.
        (decide(&Verified::assumed(self.received)), summary)
    }
}

/// A handshake that the head alone gives away.
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
        // Without its secret nothing can be signed.
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
