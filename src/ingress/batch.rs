//! Step 7 for a request that holds several events: a 2xx says that each of them is stored.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::Response;
use http::header::CONNECTION;
use http_body_util::Full;

use super::answer::{Accepted, answer, answer_batch};
use super::{Decision, Verdict, carry_out};
use crate::bridge::Bridge;
use crate::config::Source;
use crate::event::{EventId, Refusal, RequestId, Status};
use crate::flow::Permit;

/// How many events of one request are published at the same time.
const MAX_AT_ONCE: usize = 64;

/// Publishes all of them, and answers.
pub(super) async fn finish(
    bridge: Arc<Bridge>,
    source: Arc<Source>,
    decisions: Vec<Decision>,
    permit: Permit,
    request_id: RequestId,
    started: Instant,
) -> Response<Full<Bytes>> {
    let result = publish(&bridge, &source, &decisions, permit).await;
    let status = result.as_deref().map(status_of_all);
    bridge.note_end(&source, status, started.elapsed());
    match result {
        Ok(statuses) => {
            let ids = decisions.iter().map(|decision| decision.event_id.as_ref());
            answer_batch(ids.zip(statuses), &source, request_id)
        }
        Err(refusal) => {
            let first: Option<&EventId> = None;
            bridge.note_refusal(Some(&source), &refusal, request_id, first);
            let mut response = answer(&Err(refusal), Some(&source), first, request_id);
            // Whatever the refusal, the whole body was read.
            response.headers_mut().remove(CONNECTION);
            response
        }
    }
}

async fn publish(
    bridge: &Bridge,
    source: &Source,
    decisions: &[Decision],
    permit: Permit,
) -> Result<Vec<Status>, Refusal> {
    // The request's own permit holds its bytes and stands for one event.
    let mut permits = vec![permit];
    for _ in decisions.iter().skip(1) {
        let permit = bridge.permits().take(source.index, 0);
        permits.push(permit.ok_or(Refusal::Overloaded)?);
    }
    let deadline = tokio::time::Instant::now() + source.publish_timeout;
    let mut publishing = Vec::with_capacity(decisions.len());
    for decision in decisions {
        publishing.push(carry_out(bridge, source, decision, deadline));
    }
    let results: Vec<_> = stream::iter(publishing)
        .buffered(at_once(bridge, decisions))
        .collect()
        .await;
    drop(permits);
    all_accepted(&results)
}

/// As many events as have room in a broker's share, whichever of their messages go there: otherwise a batch could refuse
/// itself.
fn at_once(bridge: &Bridge, decisions: &[Decision]) -> usize {
    let messages = decisions.iter().map(|decision| match &decision.verdict {
        Verdict::Publish { delivery, .. } => 1 + delivery.copies.len(),
        _ => 1,
    });
    let (share, _) = bridge.config().broker_share();
    (share / messages.max().unwrap_or(1)).clamp(1, MAX_AT_ONCE)
}

/// "Certainly not stored" is true only where no broker has any of them.
fn all_accepted(results: &[Result<Accepted, Refusal>]) -> Result<Vec<Status>, Refusal> {
    let statuses = || results.iter().filter_map(|result| result.as_ref().ok());
    let Some(refusal) = results.iter().find_map(|result| result.as_ref().err()) else {
        return Ok(statuses().map(Accepted::status).collect());
    };
    let is_stored = statuses().any(|accepted| accepted.status() != Status::Ignored);
    let is_open = results
        .iter()
        .any(|result| matches!(result, Err(Refusal::PublishTimeout)));
    Err(if is_stored || is_open {
        Refusal::PublishTimeout
    } else {
        refusal.clone()
    })
}

/// What the request counts as: the most that became of any of its events.
fn status_of_all(statuses: &[Status]) -> Status {
    let order = [Status::Published, Status::DeadLettered, Status::Duplicate];
    let mut found = order.into_iter().filter(|status| statuses.contains(status));
    found.next().unwrap_or(Status::Ignored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::test_receipt;

    fn of(results: Vec<Result<Accepted, Refusal>>) -> Result<Vec<Status>, &'static str> {
        all_accepted(&results).map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_batch_is_certainly_not_stored_only_when_none_of_it_is() {
        let stored = || Ok(Accepted::Published(test_receipt(false)));
        let unavailable = || Err(Refusal::Overloaded);
        assert_eq!(
            of(vec![stored(), Ok(Accepted::Ignored)]),
            Ok(vec![Status::Published, Status::Ignored])
        );
        assert_eq!(
            of(vec![unavailable(), Ok(Accepted::Ignored)]),
            Err("overloaded")
        );
        for open in [
            vec![stored(), unavailable()],
            vec![unavailable(), Ok(Accepted::Duplicate(test_receipt(false)))],
            vec![unavailable(), Err(Refusal::PublishTimeout)],
        ] {
            assert_eq!(of(open), Err("publish_timeout"));
        }
    }

    #[test]
    fn a_batch_counts_as_the_most_that_became_of_its_events() {
        assert_eq!(status_of_all(&[]), Status::Ignored);
        assert_eq!(
            status_of_all(&[Status::Duplicate, Status::Published]),
            Status::Published
        );
    }
}
