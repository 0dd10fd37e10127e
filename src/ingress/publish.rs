//! Step 7: messages go to their brokers; what the brokers say becomes a receipt or a refusal.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::answer::Accepted;
use super::{Addressed, Delivery, encode};
use crate::bridge::Bridge;
use crate::brokers::{Health, NotStored, Outcome, Reason, Receipt, Unknown};
use crate::config::{Position, Source};
use crate::event::{EventId, Refusal};

/// What a message is published for.
pub(super) struct Use<'a> {
    pub(super) source: &'a Source,
    /// The route; none for a dead letter.
    pub(super) route: Option<Position>,
    pub(super) event_type: &'a str,
    pub(super) event_id: Option<&'a EventId>,
}

/// Publishes an event and its copies. It is stored only when all of them are.
///
/// A message that its broker finds too large is refused for what it is: neither a fallback nor time would help it. It
/// becomes a dead letter where the source has them. Without one the answer is 503, since the limit is an operator's to
/// raise, and since Kafka refuses whole batches: a 4xx must not depend on who shared one.
pub(super) async fn publish(
    bridge: &Bridge,
    use_of: &Use<'_>,
    delivery: &Delivery,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    if !delivery.copies.is_empty() {
        // Large, and every request under way would keep room for it.
        return Box::pin(publish_all(bridge, use_of, delivery, deadline)).await;
    }
    let outcome = publish_with_fallback(bridge, use_of, delivery, deadline).await;
    if is_too_large(&outcome) {
        let ended = vec![(&delivery.to, outcome)];
        return Box::pin(dead_letter_too_large(bridge, use_of, ended, deadline)).await;
    }
    refuse_unstored(outcome).map(Accepted::Published)
}

async fn publish_all(
    bridge: &Bridge,
    use_of: &Use<'_>,
    delivery: &Delivery,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    // Otherwise each of the sender's retries would add a copy where the event is stored already.
    if let Some(Addressed { broker, message }) = out_of_reach(bridge, delivery) {
        let detail = "the broker is down, so none of the event's other copies is published either";
        let outcome = Outcome::not_stored(Reason::Disconnected, detail);
        let outcome = bridge.note_outcome(*broker, message, outcome);
        return refuse_unstored(outcome).map(Accepted::Published);
    }
    let first = publish_with_fallback(bridge, use_of, delivery, deadline);
    let copies = join_all(
        delivery
            .copies
            .iter()
            .map(|copy| attempt(bridge, use_of, copy, deadline)),
    );
    let (first, copies) = tokio::join!(first, copies);
    let ended = std::iter::once((&delivery.to, first)).chain(delivery.copies.iter().zip(copies));
    dead_letter_too_large(bridge, use_of, ended.collect(), deadline).await
}

/// Puts dead letters in the place of messages that are too large, where everything else is stored.
async fn dead_letter_too_large(
    bridge: &Bridge,
    use_of: &Use<'_>,
    ended: Vec<(&Addressed, Outcome)>,
    deadline: Instant,
) -> Result<Accepted, Refusal> {
    let is_settled =
        |outcome: &Outcome| matches!(outcome, Outcome::Stored(_)) || is_too_large(outcome);
    let may_be_replaced = ended.iter().all(|(_, outcome)| is_settled(outcome))
        // Past the deadline what is certain now would be in doubt.
        && Instant::now() < deadline;
    let use_of = Use {
        source: use_of.source,
        route: None,
        event_type: use_of.event_type,
        event_id: use_of.event_id,
    };
    let mut has_letter = false;
    let mut outcomes = Vec::with_capacity(ended.len());
    for (addressed, outcome) in ended {
        let intended = &bridge.config().broker(addressed.broker).name;
        let letter = if may_be_replaced && is_too_large(&outcome) {
            use_of.event_id.and_then(|event_id| {
                encode::too_large(use_of.source, intended, event_id, &addressed.message)
            })
        } else {
            None
        };
        outcomes.push(match letter {
            None => outcome,
            Some((letter, refusal)) => {
                has_letter = true;
                bridge.note_dead_letter(use_of.source, &refusal, use_of.event_id);
                attempt(bridge, &use_of, &letter, deadline).await
            }
        });
    }
    let accepted = if has_letter {
        Accepted::DeadLettered
    } else {
        Accepted::Published
    };
    all_stored(outcomes.into_iter()).map(accepted)
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotStored(not) if not.reason == Reason::TooLarge)
}

/// A message whose broker is known to be down, and that has no other way.
fn out_of_reach<'d>(bridge: &Bridge, delivery: &'d Delivery) -> Option<&'d Addressed> {
    let is_down = |addressed: &Addressed| {
        let Addressed { broker, message } = addressed;
        bridge.broker(*broker).is_down_for(&message.destination)
    };
    let has_fallback = delivery.fallback.as_ref().is_some_and(|to| !is_down(to));
    let first = Some(&delivery.to).filter(|_| !has_fallback);
    first
        .into_iter()
        .chain(&delivery.copies)
        .find(|addressed| is_down(addressed))
}

/// Publishes one message to its only broker.
pub(super) async fn publish_one(
    bridge: &Bridge,
    use_of: &Use<'_>,
    addressed: &Addressed,
    deadline: Instant,
) -> Result<Receipt, Refusal> {
    refuse_unstored(attempt(bridge, use_of, addressed, deadline).await)
}

/// The second broker gets the message only when the first certainly does not have it, and while there is time. A message
/// that is too large for the first is not passed over to one that may have a higher limit: the fallback is for outages,
/// and the event would have to come back.
async fn publish_with_fallback(
    bridge: &Bridge,
    use_of: &Use<'_>,
    delivery: &Delivery,
    deadline: Instant,
) -> Outcome {
    let Some(fallback) = &delivery.fallback else {
        return attempt(bridge, use_of, &delivery.to, deadline).await;
    };
    // A broker that is known to be down would take all of the time to say so. One that lacks the destination says so immediately.
    if !matches!(
        bridge.broker(delivery.to.broker).connection_health(),
        Health::Down(_)
    ) {
        let outcome = attempt(bridge, use_of, &delivery.to, deadline).await;
        // Past the deadline nobody would learn what the second one says: what is certain now would be in doubt.
        if !matches!(outcome, Outcome::NotStored(_))
            || is_too_large(&outcome)
            || deadline <= Instant::now()
        {
            return outcome;
        }
    }
    let outcome = attempt(bridge, use_of, fallback, deadline).await;
    if is_too_large(&outcome) {
        // The first one may take it when it is back.
        let detail = "the broker is not available, and the fallback takes no message this large";
        return Outcome::not_stored(Reason::Disconnected, detail);
    }
    outcome
}

async fn attempt(
    bridge: &Bridge,
    use_of: &Use<'_>,
    addressed: &Addressed,
    deadline: Instant,
) -> Outcome {
    let Addressed { broker, message } = addressed;
    let Some(_share) = bridge.share(*broker).take(message.body.len()) else {
        return bridge.note_outcome(
            *broker,
            message,
            Outcome::not_stored(
                Reason::QueueFull,
                "the broker's share of what may be under way is used up",
            ),
        );
    };
    let started = Instant::now();
    let outcome = bridge.broker(*broker).publish(message, deadline).await;
    bridge.note_publish(*broker, started.elapsed());
    // A stream that had it already has not stored it once more.
    if matches!(outcome, Outcome::Stored(receipt) if !receipt.is_duplicate()) {
        bridge.note_stored(
            use_of.source,
            use_of.route,
            *broker,
            use_of.event_type,
            &message.destination,
        );
    }
    bridge.note_outcome(*broker, message, outcome)
}

fn refuse_unstored(outcome: Outcome) -> Result<Receipt, Refusal> {
    match outcome {
        Outcome::Stored(receipt) => Ok(receipt),
        Outcome::NotStored(NotStored {
            reason: Reason::QueueFull,
            ..
        }) => Err(Refusal::Overloaded),
        Outcome::NotStored(NotStored { reason, .. }) => Err(Refusal::BrokerUnavailable {
            retry_after: retry_after(reason),
            cause: cause(reason),
        }),
        Outcome::Unknown(Unknown { .. }) => Err(Refusal::PublishTimeout),
    }
}

/// "Certainly not stored" is true only where no broker has anything of the event.
fn all_stored(outcomes: impl Iterator<Item = Outcome>) -> Result<Receipt, Refusal> {
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut refusals = Vec::new();
    for outcome in outcomes {
        match refuse_unstored(outcome) {
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

/// What only a person can cure takes longer.
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

/// What the sender may pass on to whoever runs the bridge. It names no topic and no broker.
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
        Outcome::Stored(crate::brokers::test_receipt(duplicate))
    }

    fn not_stored() -> Outcome {
        Outcome::not_stored(Reason::Disconnected, "")
    }

    fn unknown() -> Outcome {
        Outcome::unknown(Reason::TimedOut, "")
    }

    fn of_all(outcomes: Vec<Outcome>) -> Result<bool, &'static str> {
        all_stored(outcomes.into_iter())
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
