//! Step 7 for a request that holds several events: a 2xx confirms that each of them is stored.

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::answer::Accepted;
use super::decision::{Decision, Verdict};
use super::publish;
use crate::bridge::Bridge;
use crate::bridge::observe::Observed;
use crate::config::Source;
use crate::event::{Refusal, Status};
use crate::flow::Permit;

/// Maximum number of events of one request that are published concurrently.
const MAX_CONCURRENT: usize = 64;

/// Publishes all events of a batch.
pub(super) async fn publish<'d>(
    bridge: &Bridge,
    source: &Source,
    decisions: &'d [Decision],
    permit: Permit<'_>,
    now: Instant,
    deadline: Instant,
) -> (Result<Vec<Status>, Refusal>, Vec<Observed<'d>>) {
    // The request's own permit covers its bytes and one event.
    let mut permits = vec![permit];
    for _ in decisions.iter().skip(1) {
        let Some(permit) = bridge.permits().take(source.index, 0) else {
            return (Err(Refusal::Overloaded), Vec::new());
        };
        permits.push(permit);
    }
    let mut publishing = Vec::with_capacity(decisions.len());
    for decision in decisions {
        publishing.push(publish::publish(bridge, source, decision, now, deadline));
    }
    let concurrency = concurrency(bridge, decisions);
    let (results, observed): (Vec<_>, Vec<_>) =
        stream::iter(publishing).buffered(concurrency).unzip().await;
    (all_accepted(&results), observed)
}

/// The number of events that fit into a broker's share, whichever broker their messages go to: otherwise a batch could
/// exhaust the share and be refused because of itself.
fn concurrency(bridge: &Bridge, decisions: &[Decision]) -> usize {
    let messages = decisions.iter().map(|decision| match &decision.verdict {
        Verdict::Publish { delivery, .. } => 1 + delivery.copies.len(),
        _ => 1,
    });
    let (share, _) = bridge.config().broker_share();
    (share / messages.max().unwrap_or(1)).clamp(1, MAX_CONCURRENT)
}

/// "Certainly not stored" holds only if no broker has any of the events.
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

/// The status that the request is counted under: the highest that any of its events reached.
pub(super) fn status_of_all(statuses: &[Status]) -> Status {
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
    fn a_batch_is_counted_under_the_highest_status_of_its_events() {
        assert_eq!(status_of_all(&[]), Status::Ignored);
        assert_eq!(
            status_of_all(&[Status::Duplicate, Status::Published]),
            Status::Published
        );
    }
}
