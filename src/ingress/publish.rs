//! Step 7: the message goes to its broker; what the broker says becomes a receipt or a refusal.

use std::time::Duration;

use tokio::time::Instant;

use super::refusal::Refusal;
use crate::bridge::Bridge;
use crate::brokers::{Message, NotStored, Outcome, Reason, Receipt, Unknown};
use crate::config::{BrokerId, Source};

pub(super) async fn publish(
    bridge: &Bridge,
    source: &Source,
    broker: BrokerId,
    message: &Message,
) -> Result<Receipt, Refusal> {
    let started = Instant::now();
    let outcome = bridge
        .broker(broker)
        .publish(message, started + source.publish_timeout)
        .await;
    bridge.note_publish(broker, started.elapsed());
    match outcome {
        Outcome::Stored(receipt) => Ok(receipt),
        Outcome::NotStored(NotStored { reason, detail }) => {
            bridge.note_publish_failure(broker, message, reason, &detail);
            Err(match reason {
                Reason::QueueFull => Refusal::Overloaded,
                other => Refusal::BrokerUnavailable {
                    retry_after: retry_after(other),
                },
            })
        }
        Outcome::Unknown(Unknown { reason, detail }) => {
            bridge.note_publish_failure(broker, message, reason, &detail);
            Err(Refusal::PublishTimeout)
        }
    }
}

/// What only a person can cure takes longer.
fn retry_after(reason: Reason) -> Duration {
    Duration::from_secs(match reason {
        Reason::Disconnected
        | Reason::TimedOut
        | Reason::QueueFull
        | Reason::Fatal
        | Reason::NoResponders
        | Reason::NotEnoughReplicas => 2,
        Reason::UnknownTopic | Reason::StreamFull | Reason::Resources | Reason::Other => 10,
        Reason::Authentication | Reason::Authorization | Reason::TooLarge => 30,
    })
}
