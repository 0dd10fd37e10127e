//! The kinds of broker, and the rules of their names.

use super::names::{kafka, nats};

/// The kind of a broker. It decides which names are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Nats,
}

impl Kind {
    /// Whether events may go to this topic or subject.
    ///
    /// # Errors
    /// The violated rule.
    pub fn check_destination(self, name: &str) -> Result<(), &'static str> {
        match self {
            Self::Kafka => kafka::check_topic(name),
            Self::Nats => nats::check_subject(name),
        }
    }

    /// Whether an event's value may become a part of a topic or subject; `is_last` where nothing follows it.
    ///
    /// # Errors
    /// The violated rule.
    pub fn check_value(self, value: &str, is_last: bool) -> Result<(), &'static str> {
        match self {
            Self::Kafka => kafka::check_value(value),
            Self::Nats => nats::check_value(value, is_last),
        }
    }

    #[must_use]
    pub fn destination_noun(self) -> &'static str {
        match self {
            Self::Kafka => "topic",
            Self::Nats => "subject",
        }
    }
}
