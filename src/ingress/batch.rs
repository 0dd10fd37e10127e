//! Step 7 for a request that holds several events: a 2xx says that each of them is stored.

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

/// How many events of one request are published at the same time.
const MAX_AT_ONCE: usize = 64;

/// Publishes all of them.
pub(super) async fn publish<'d>(
    bridge: &Bridge,
    source: &Source,
    decisions: &'d [Decision],
    permit: Permit,
    deadline: Instant,
) -> (Result<Vec<Status>, Refusal>, Vec<Observed<'d>>) {
    // The request's own permit holds its bytes and stands for one event.
    let mut permits = vec![permit];
    for _ in decisions.iter().skip(1) {
        let Some(permit) = bridge.permits().take(source.index, 0) else {
            return (Err(Refusal::Overloaded), Vec::new());
        };
        permits.push(permit);
    }
    let mut publishing = Vec::with_capacity(decisions.len());
    for decision in decisions {
        publishing.push(publish::publish(bridge, source, decision, deadline));
    }
    let at_once = at_once(bridge, decisions);
    let (results, observed): (Vec<_>, Vec<_>) =
        stream::iter(publishing).buffered(at_once).unzip().await;
    (all_accepted(&results), observed)
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

/// The status that the request counts as: the most that became of any of its events.
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
    fn a_batch_counts_as_the_most_that_became_of_its_events() {
        assert_eq!(status_of_all(&[]), Status::Ignored);
        assert_eq!(
            status_of_all(&[Status::Duplicate, Status::Published]),
            Status::Published
        );
    }
}
