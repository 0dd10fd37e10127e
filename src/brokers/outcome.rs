//! The three outcomes of a publish.

use std::sync::Arc;

use strum::{IntoStaticStr, VariantArray};

/// The outcome of a publish: one of these three, which must not be confused.
#[derive(Debug, Clone)]
#[must_use]
pub enum Outcome {
    /// The broker confirmed it.
    Stored(Stored),
    /// Certainly not stored: never sent, or refused by the broker.
    NotStored(NotStored),
    /// Sent, or possibly sent, without the broker's answer.
    Unknown(Unknown),
}

/// A broker's confirmation that it has the message. Only the broker modules can create one, from a broker's answer:
///
/// ```compile_fail,E0624
/// let receipt = hookbridge::brokers::Receipt::confirmed(false);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    duplicate: bool,
}

impl Receipt {
    pub(super) const fn confirmed(duplicate: bool) -> Self {
        Self { duplicate }
    }

    /// Whether the broker already had the message.
    #[must_use]
    pub const fn is_duplicate(self) -> bool {
        self.duplicate
    }
}

/// A receipt, and where the message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    receipt: Receipt,
    position: Option<Position>,
}

impl Stored {
    #[must_use]
    pub const fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Whether the broker already had the message.
    #[must_use]
    pub const fn is_duplicate(&self) -> bool {
        self.receipt.is_duplicate()
    }

    /// None where the broker did not say: core NATS has none, and Kafka's may be missing after a retry.
    #[must_use]
    pub const fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }
}

/// The position of a stored message, from the broker's acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    Kafka { partition: i32, offset: i64 },
    JetStream { stream: Arc<str>, sequence: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStored {
    pub reason: Reason,
    /// In the broker's or client's words, for the log.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub reason: Reason,
    /// In the broker's or client's words, for the log.
    pub detail: String,
}

impl Outcome {
    pub(super) fn stored(duplicate: bool, position: Option<Position>) -> Self {
        Self::Stored(Stored {
            receipt: Receipt::confirmed(duplicate),
            position,
        })
    }

    #[cold]
    pub(crate) fn not_stored(reason: Reason, detail: impl Into<String>) -> Self {
        Self::NotStored(NotStored {
            reason,
            detail: detail.into(),
        })
    }

    #[cold]
    pub(crate) fn unknown(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Unknown(Unknown {
            reason,
            detail: detail.into(),
        })
    }

    /// The outcome of the last attempt, after an earlier one may have stored the message: only `Stored` is certain, and a
    /// duplicate is our own earlier copy.
    pub(super) fn after_uncertain_attempt(self, in_doubt: bool) -> Self {
        match self {
            Self::Stored(stored) if in_doubt => Self::stored(false, stored.position),
            Self::NotStored(NotStored { reason, detail }) if in_doubt => {
                Self::unknown(reason, detail)
            }
            other => other,
        }
    }
}

/// The label `reason` of `hookbridge_publish_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    /// Not connected, or the connection ended while the message was in flight.
    Disconnected,
    /// No answer before the deadline.
    TimedOut,
    /// No answer, although a message that was sent later has been acknowledged.
    Overtaken,
    /// The client's queue is full.
    QueueFull,
    /// The client is no longer usable.
    Fatal,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// No stream takes the subject, or its leader is being elected.
    NoResponders,
    /// The stream is still storing another copy of the message.
    BeingStored,
    /// The stream has reached a limit.
    StreamFull,
    /// The server is out of space or capacity.
    Resources,
    /// Too few replicas are in sync.
    NotEnoughReplicas,
    /// The credentials were refused.
    #[strum(serialize = "auth")]
    Authentication,
    /// The user lacks a permission.
    Authorization,
    /// The message exceeds the broker's size limit.
    TooLarge,
    Other,
}

impl Reason {
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.into_str()
    }
}

/// The label `reason` of `hookbridge_broker_client_restarts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Restart {
    /// The client reported a fatal error.
    Fatal,
    /// Nothing was acknowledged, although the broker answers other clients.
    Stuck,
    /// The client's threads no longer respond.
    Unresponsive,
    /// The client's task has ended.
    Dead,
    /// The settings have changed.
    Reload,
}

impl Restart {
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_uncertain_attempt_a_refusal_stays_unknown_and_a_duplicate_is_the_message_itself() {
        let refused = || Outcome::not_stored(Reason::StreamFull, "full");
        let found = || Outcome::stored(true, None);
        assert!(matches!(
            refused().after_uncertain_attempt(true),
            Outcome::Unknown(unknown) if unknown.reason == Reason::StreamFull
        ));
        assert!(matches!(
            refused().after_uncertain_attempt(false),
            Outcome::NotStored(_)
        ));
        assert!(matches!(
            found().after_uncertain_attempt(true),
            Outcome::Stored(stored) if !stored.is_duplicate()
        ));
        assert!(matches!(
            found().after_uncertain_attempt(false),
            Outcome::Stored(stored) if stored.is_duplicate()
        ));
    }
}
