//! Step 7: publishes messages and turns the brokers' answers into a receipt or a refusal.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::answer::Accepted;
use super::dead_letter;
use super::decision::{Addressed, Decision, Delivery, Verdict};
use crate::bridge::Bridge;
use crate::bridge::observe::{Attempt, Observed, Sent};
use crate::brokers::{Health, NotStored, Outcome, Reason, Receipt, Unknown};
use crate::config::{BrokerId, RouteId, Source};
use crate::event::Refusal;
use crate::flow::duplicates::{self, Claim};

/// Publishes the messages of an event. A 2xx needs the receipt that this returns.
pub(super) fn publish<'d>(
    bridge: &Bridge,
    source: &Source,
    decision: &'d Decision,
    now: Instant,
    deadline: Instant,
) -> impl Future<Output = (Result<Accepted, Refusal>, Observed<'d>)> {
    async move {
        let mut observed = Observed {
            event_id: decision.event_id.as_ref(),
            event_type: decision.event_type.as_deref().unwrap_or_default(),
            outcome: "",
            attempts: Vec::new(),
            dead_lettered: Vec::new(),
        };
        let result = 'result: {
            match &decision.verdict {
                Verdict::Ignore => Ok(Accepted::Ignored),
                Verdict::Refuse(refusal) => Err(refusal.clone()),
                // Not remembered: after a fix, the same delivery must be able to go to its real destination.
                Verdict::DeadLetter { letter, refusal } => {
                    observed.dead_lettered.push(Cow::Borrowed(refusal));
                    let attempt = attempt(bridge, letter, None, deadline).await;
                    let stored = stored_or_refused(&attempt.outcome);
                    observed.attempts.push(attempt);
                    stored.map(Accepted::DeadLettered)
                }
                Verdict::Publish { route, delivery } => {
                    let claim = match (bridge.window(source), delivery.fingerprint) {
                        (Some(window), Some(fingerprint)) => {
                            match duplicates::claim(window, fingerprint, now, deadline).await {
                                Ok(Claim::Stored(receipt)) => {
                                    break 'result Ok(Accepted::Duplicate(receipt));
                                }
                                Ok(Claim::Acquired(guard)) => Some(guard),
                                Err(refusal) => break 'result Err(refusal),
                            }
                        }
                        _ => None,
                    };
                    let result =
                        deliver(bridge, source, *route, delivery, &mut observed, deadline).await;
                    if let Some(guard) = claim {
                        let now = observed.ended().map_or(now, Instant::from_std);
                        match &result {
                            Ok(Accepted::Published(receipt)) => guard.settle(&Ok(*receipt), now),
                            Err(refusal) => guard.settle(&Err(refusal.clone()), now),
                            // Dead letters are not remembered.
                            Ok(_) => drop(guard),
                        }
                    }
                    result
                }
            }
        };
        observed.outcome = match &result {
            Ok(accepted) => accepted.status().as_str(),
            Err(refusal) => refusal.code(),
        };
        (result, observed)
    }
}

/// Publishes an event and its copies. It is stored only when all of them are.
///
/// A message beyond its broker's size limit is refused permanently: neither a fallback nor time would help. It becomes
/// a dead letter if the source has them. Otherwise the answer is 503, since an operator can raise the limit, and since
/// Kafka refuses whole batches: a 4xx must not depend on the other messages of a batch.
fn deliver<'d>(
    bridge: &Bridge,
    source: &Source,
    route: RouteId,
    delivery: &'d Delivery,
    observed: &mut Observed<'d>,
    deadline: Instant,
) -> impl Future<Output = Result<Accepted, Refusal>> {
    async move {
        // The usual case. All others are boxed, since they are rare and large, and would enlarge the future of every
        // request in flight.
        let first = if delivery.copies.is_empty() && !skips_first(bridge, delivery) {
            let attempt = attempt(bridge, &delivery.to, Some(route), deadline).await;
            if let Outcome::Stored(stored) = &attempt.outcome {
                let receipt = stored.receipt();
                observed.attempts = vec![attempt];
                return Ok(Accepted::Published(receipt));
            }
            Some(attempt)
        } else {
            None
        };
        if delivery.copies.is_empty() {
            let otherwise =
                deliver_otherwise(bridge, source, route, delivery, first, observed, deadline);
            Box::pin(otherwise).await
        } else {
            let with_copies =
                deliver_with_copies(bridge, source, route, delivery, observed, deadline);
            Box::pin(with_copies).await
        }
    }
}

/// Publishes an event that the first broker has not stored or is not asked to.
#[cold]
async fn deliver_otherwise<'d>(
    bridge: &Bridge,
    source: &Source,
    route: RouteId,
    delivery: &'d Delivery,
    first: Option<Attempt<'d>>,
    observed: &mut Observed<'d>,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    let (outcome, attempts) = fall_back(bridge, route, delivery, first, deadline).await;
    observed.attempts = attempts;
    if is_too_large(&outcome) {
        let ended = vec![(&delivery.to, outcome)];
        return replace_too_large(bridge, source, ended, observed, deadline).await;
    }
    stored_or_refused(&outcome).map(Accepted::Published)
}

#[cold]
async fn deliver_with_copies<'d>(
    bridge: &Bridge,
    source: &Source,
    route: RouteId,
    delivery: &'d Delivery,
    observed: &mut Observed<'d>,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    // Otherwise each of the sender's retries would add a copy where the event is already stored.
    if let Some(Addressed { broker, message }) = out_of_reach(bridge, delivery) {
        let detail = "the broker is down, so none of the event's other copies is published either";
        let outcome = Outcome::not_stored(Reason::Disconnected, detail);
        let refused = stored_or_refused(&outcome);
        observed.attempts.push(Attempt {
            broker: *broker,
            message: Sent::Decided(message),
            route: Some(route),
            outcome,
            started: None,
            duration: None,
        });
        return refused.map(Accepted::Published);
    }
    let first = publish_with_fallback(bridge, route, delivery, deadline);
    let copies = delivery.copies.iter();
    let copies = join_all(copies.map(|copy| attempt(bridge, copy, Some(route), deadline)));
    let ((outcome, attempts), copies) = tokio::join!(first, copies);
    let mut ended = vec![(&delivery.to, outcome)];
    observed.attempts = attempts;
    for (copy, attempt) in delivery.copies.iter().zip(copies) {
        ended.push((copy, attempt.outcome.clone()));
        observed.attempts.push(attempt);
    }
    replace_too_large(bridge, source, ended, observed, deadline).await
}

/// Replaces messages that are too large by dead letters if everything else is stored.
#[cold]
async fn replace_too_large(
    bridge: &Bridge,
    source: &Source,
    ended: Vec<(&Addressed, Outcome)>,
    observed: &mut Observed<'_>,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    let is_settled =
        |outcome: &Outcome| matches!(outcome, Outcome::Stored(_)) || is_too_large(outcome);
    let may_be_replaced = ended.iter().all(|(_, outcome)| is_settled(outcome))
        // Past the deadline, a certain result would become an unknown one.
        && Instant::now() < deadline;
    let mut has_letter = false;
    let mut outcomes = Vec::with_capacity(ended.len());
    for (addressed, outcome) in ended {
        let intended = &bridge.config().broker(addressed.broker).name;
        let letter = if may_be_replaced && is_too_large(&outcome) {
            observed.event_id.and_then(|event_id| {
                dead_letter::for_too_large(source, intended, event_id, &addressed.message)
            })
        } else {
            None
        };
        outcomes.push(match letter {
            None => outcome,
            Some((Addressed { broker, message }, refusal)) => {
                has_letter = true;
                observed.dead_lettered.push(Cow::Owned(refusal));
                let message = Sent::Replacing(Box::new(message));
                let attempt = attempt_message(bridge, broker, message, None, deadline).await;
                let outcome = attempt.outcome.clone();
                observed.attempts.push(attempt);
                outcome
            }
        });
    }
    let accepted = if has_letter {
        Accepted::DeadLettered
    } else {
        Accepted::Published
    };
    all_stored(&outcomes).map(accepted)
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotStored(not) if not.reason == Reason::TooLarge)
}

/// A message whose broker is known to be down and that has no alternative.
fn out_of_reach<'d>(bridge: &Bridge, delivery: &'d Delivery) -> Option<&'d Addressed> {
    let is_down = |addressed: &Addressed| {
        let Addressed { broker, message } = addressed;
        bridge.broker(*broker).is_down_for(&message.destination)
    };
    let has_fallback = delivery.fallback.as_deref().is_some_and(|to| !is_down(to));
    let first = Some(&delivery.to).filter(|_| !has_fallback);
    first
        .into_iter()
        .chain(&delivery.copies)
        .find(|addressed| is_down(addressed))
}

/// Publishes an event to its broker or its fallback. Returns the outcome and the attempts that led to it.
async fn publish_with_fallback<'d>(
    bridge: &Bridge,
    route: RouteId,
    delivery: &'d Delivery,
    deadline: Instant,
) -> (Outcome, Vec<Attempt<'d>>) {
    let first = match skips_first(bridge, delivery) {
        true => None,
        false => Some(attempt(bridge, &delivery.to, Some(route), deadline).await),
    };
    fall_back(bridge, route, delivery, first, deadline).await
}

/// Whether the fallback gets an event without an attempt at the first broker: one that is known to be down would use up
/// all the time. One that only lacks the destination answers immediately.
fn skips_first(bridge: &Bridge, delivery: &Delivery) -> bool {
    let health = || bridge.broker(delivery.to.broker).connection_health();
    delivery.fallback.is_some() && matches!(health(), Health::Down(_))
}

/// Publishes an event to its fallback, if it has one, unless the first attempt, if there was one, rules that out.
///
/// The fallback gets the message only when the first broker certainly does not have it, and while there is time. A
/// message that is too large for the first broker does not go to a fallback with a higher limit: the fallback is for
/// outages, and the event would have to come back.
async fn fall_back<'d>(
    bridge: &Bridge,
    route: RouteId,
    delivery: &'d Delivery,
    first: Option<Attempt<'d>>,
    deadline: Instant,
) -> (Outcome, Vec<Attempt<'d>>) {
    let mut attempts = Vec::with_capacity(2);
    if let Some(first) = first {
        let outcome = first.outcome.clone();
        attempts.push(first);
        // Past the deadline the fallback's answer would come too late: a certain result would become an unknown one.
        if delivery.fallback.is_none()
            || !matches!(outcome, Outcome::NotStored(_))
            || is_too_large(&outcome)
            || deadline <= Instant::now()
        {
            return (outcome, attempts);
        }
    }
    let Some(fallback) = &delivery.fallback else {
        return (Outcome::unknown(Reason::Other, "not published"), attempts);
    };
    let second = attempt(bridge, fallback, Some(route), deadline).await;
    let mut outcome = second.outcome.clone();
    attempts.push(second);
    if is_too_large(&outcome) {
        // The first broker may take it once it is back.
        let detail = "the broker is not available, and the fallback takes no message this large";
        outcome = Outcome::not_stored(Reason::Disconnected, detail);
    }
    (outcome, attempts)
}

fn attempt<'d>(
    bridge: &Bridge,
    addressed: &'d Addressed,
    route: Option<RouteId>,
    deadline: Instant,
) -> impl Future<Output = Attempt<'d>> {
    let message = Sent::Decided(&addressed.message);
    attempt_message(bridge, addressed.broker, message, route, deadline)
}

fn attempt_message<'d>(
    bridge: &Bridge,
    broker: BrokerId,
    message: Sent<'d>,
    route: Option<RouteId>,
    deadline: Instant,
) -> impl Future<Output = Attempt<'d>> {
    async move {
        let (outcome, started, duration) = match bridge.share(broker).take(message.body.len()) {
            Some(_share) => {
                let started = Instant::now();
                let outcome = bridge.broker(broker).publish(&message, deadline).await;
                (outcome, Some(started.into_std()), Some(started.elapsed()))
            }
            None => {
                let detail = "the broker's share of what may be in flight is used up";
                (Outcome::not_stored(Reason::QueueFull, detail), None, None)
            }
        };
        Attempt {
            broker,
            message,
            route,
            outcome,
            started,
            duration,
        }
    }
}

fn stored_or_refused(outcome: &Outcome) -> Result<Receipt, Refusal> {
    match outcome {
        Outcome::Stored(stored) => Ok(stored.receipt()),
        Outcome::NotStored(NotStored {
            reason: Reason::QueueFull,
            ..
        }) => Err(Refusal::Overloaded),
        Outcome::NotStored(NotStored { reason, .. }) => Err(Refusal::BrokerUnavailable {
            retry_after: retry_after(*reason),
            cause: cause(*reason),
        }),
        Outcome::Unknown(Unknown { .. }) => Err(Refusal::PublishTimeout),
    }
}

/// "Certainly not stored" holds only if no broker has any message of the event.
fn all_stored(outcomes: &[Outcome]) -> Result<Receipt, Refusal> {
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut refusals = Vec::new();
    for outcome in outcomes {
        match stored_or_refused(outcome) {
            Ok(receipt) => receipts.push(receipt),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let is_open = !receipts.is_empty() || refusals.contains(&Refusal::PublishTimeout);
    match refusals.into_iter().next() {
        None => {
            let new = receipts.iter().find(|receipt| !receipt.is_duplicate());
            new.or(receipts.first())
                .copied()
                .ok_or(Refusal::PublishTimeout)
        }
        Some(_) if is_open => Err(Refusal::PublishTimeout),
        Some(refusal) => Err(refusal),
    }
}

/// Causes that only a person can remove take longer.
fn retry_after(reason: Reason) -> Duration {
    Duration::from_secs(match reason {
        Reason::Disconnected
        | Reason::TimedOut
        | Reason::Overtaken
        | Reason::QueueFull
        | Reason::Fatal
        | Reason::NoResponders
        | Reason::BeingStored
        | Reason::NotEnoughReplicas => 2,
        Reason::UnknownTopic | Reason::StreamFull | Reason::Resources | Reason::Other => 10,
        Reason::Authentication | Reason::Authorization | Reason::TooLarge => 30,
    })
}

/// Text that the sender may pass on to the bridge's operator. It names no topic and no broker.
fn cause(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownTopic => {
            "its topic does not exist at the broker, and the bridge creates none (its operator finds the command in /readyz)"
        }
        Reason::Authorization => "the broker does not let the bridge write to its topic",
        Reason::Authentication => "the broker refuses the bridge's credentials",
        _ => "the broker is not available",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(duplicate: bool) -> Outcome {
        crate::brokers::test_stored(duplicate, None)
    }

    fn not_stored() -> Outcome {
        Outcome::not_stored(Reason::Disconnected, "")
    }

    fn unknown() -> Outcome {
        Outcome::unknown(Reason::TimedOut, "")
    }

    fn of_all(outcomes: Vec<Outcome>) -> Result<bool, &'static str> {
        all_stored(&outcomes)
            .map(Receipt::is_duplicate)
            .map_err(|refusal| refusal.code())
    }

    #[test]
    fn an_event_with_copies_is_stored_when_each_is_and_certainly_not_when_none_is() {
        assert_eq!(of_all(vec![stored(false), stored(true)]), Ok(false));
        assert_eq!(of_all(vec![stored(true), stored(true)]), Ok(true));
        assert_eq!(
            of_all(vec![not_stored(), not_stored()]),
            Err("broker_unavailable")
        );
        for open in [
            vec![stored(false), not_stored()],
            vec![not_stored(), stored(true)],
            vec![unknown(), not_stored()],
            vec![not_stored(), unknown()],
            vec![stored(false), unknown()],
        ] {
            assert_eq!(of_all(open), Err("publish_timeout"));
        }
    }
}
