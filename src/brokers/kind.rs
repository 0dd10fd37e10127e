//! The kinds of broker, and the rules of their names.

use super::names::{kafka, nats};

/// Which kind of broker it is: what its names may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache Kafka.
    Kafka,
    /// NATS.
    Nats,
}

impl Kind {
    /// Whether a whole topic or subject is a legal one that an event may go to.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check_destination(self, name: &str) -> Result<(), &'static str> {
        match self {
            Self::Kafka => kafka::check_topic(name),
            Self::Nats => nats::check_subject(name),
        }
    }

    /// Whether an event's value may become a part of a topic or subject; `is_last` where nothing follows it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check_value(self, value: &str, is_last: bool) -> Result<(), &'static str> {
        match self {
            Self::Kafka => kafka::check_value(value),
            Self::Nats => nats::check_value(value, is_last),
        }
    }

    /// What a destination is called.
    #[must_use]
    pub fn destination_noun(self) -> &'static str {
        match self {
            Self::Kafka => "topic",
            Self::Nats => "subject",
        }
    }
}
