//! The three ways in which a publish ends.

use strum::{IntoStaticStr, VariantArray};

/// How a publish ended. There is no fourth way, and no two of them may be taken for each other.
#[derive(Debug, Clone)]
#[must_use]
pub enum Outcome {
    /// The broker said that it has the message.
    Stored(Receipt),
    /// Certain: it was never sent, or the broker refused it.
    NotStored(NotStored),
    /// Sent, or perhaps sent, and no word from the broker.
    Unknown(Unknown),
}

/// The broker's word that it has the message. Only the brokers' modules can make one, from what a broker said:
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

    /// Whether the broker had the message before.
    #[must_use]
    pub const fn is_duplicate(self) -> bool {
        self.duplicate
    }
}

/// Why a message is certainly not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStored {
    /// The kind of reason.
    pub reason: Reason,
    /// The broker's or client's words, for the log.
    pub detail: String,
}

/// Why it is not known whether a message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The kind of reason.
    pub reason: Reason,
    /// The broker's or client's words, for the log.
    pub detail: String,
}

impl Outcome {
    pub(crate) fn not_stored(reason: Reason, detail: impl Into<String>) -> Self {
        Self::NotStored(NotStored {
            reason,
            detail: detail.into(),
        })
    }

    pub(crate) fn unknown(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Unknown(Unknown {
            reason,
            detail: detail.into(),
        })
    }

    /// What the last of several tries means where an earlier one may have stored the message: then nothing is certain but
    /// that it is stored, and who finds it there has found his own.
    pub(super) fn after_doubt(self, in_doubt: bool) -> Self {
        match self {
            Self::Stored(_) if in_doubt => Self::Stored(Receipt::confirmed(false)),
            Self::NotStored(NotStored { reason, detail }) if in_doubt => {
                Self::unknown(reason, detail)
            }
            other => other,
        }
    }
}

/// The kinds of reasons: the label `reason` of `hookbridge_publish_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    /// The broker is not connected, or the connection ended while the message was under way.
    Disconnected,
    /// No word from the broker in time.
    TimedOut,
    /// No word from the broker, which has acknowledged what was sent later.
    Overtaken,
    /// The client's queue is full.
    QueueFull,
    /// The client can't be used any more.
    Fatal,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// No stream takes the subject, or its leader is being elected.
    NoResponders,
    /// The stream is storing another copy of it, whose end is not known yet.
    BeingStored,
    /// The stream has reached a limit.
    StreamFull,
    /// The server has no room or no capacity left.
    Resources,
    /// Too few replicas are in sync.
    NotEnoughReplicas,
    /// The credentials were refused.
    #[strum(serialize = "auth")]
    Authentication,
    /// The credentials don't allow this.
    Authorization,
    /// The message is larger than the broker takes.
    TooLarge,
    /// Anything else.
    Other,
}

impl Reason {
    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.into_str()
    }
}

/// Why a broker's client was replaced: the label `reason` of `hookbridge_broker_client_restarts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Restart {
    /// The client said that it can't go on.
    Fatal,
    /// Nothing was acknowledged although the broker answers others.
    Stuck,
    /// The client's threads say nothing any more.
    Unresponsive,
    /// The client's task or channel has ended.
    Dead,
    /// Its settings have changed.
    Reload,
}

impl Restart {
    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_doubtful_try_a_refusal_is_no_certainty_and_a_duplicate_is_the_message_itself() {
        let refused = || Outcome::not_stored(Reason::StreamFull, "full");
        let found = || Outcome::Stored(Receipt::confirmed(true));
        assert!(matches!(
            refused().after_doubt(true),
            Outcome::Unknown(unknown) if unknown.reason == Reason::StreamFull
        ));
        assert!(matches!(
            refused().after_doubt(false),
            Outcome::NotStored(_)
        ));
        assert!(matches!(
            found().after_doubt(true),
            Outcome::Stored(receipt) if !receipt.is_duplicate()
        ));
        assert!(matches!(
            found().after_doubt(false),
            Outcome::Stored(receipt) if receipt.is_duplicate()
        ));
    }
}
