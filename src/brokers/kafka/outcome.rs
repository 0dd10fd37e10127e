//! Maps librdkafka's results to the three outcomes.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};

use super::status::{Persistence, persistence};
use crate::brokers::outcome::{Outcome, Position, Reason};

/// The outcome of a delivery report. A success without an offset (a retry that the broker already had) counts.
pub(super) fn of_report(result: &DeliveryResult<'_>) -> Outcome {
    match result {
        Ok(message) => Outcome::stored(false, position(message.partition(), message.offset())),
        Err((error, message)) => of_failure(error, persistence(message)),
    }
}

/// None without an offset: librdkafka's numbers for that are negative.
fn position(partition: i32, offset: i64) -> Option<Position> {
    (partition >= 0 && offset >= 0).then_some(Position::Kafka { partition, offset })
}

fn of_failure(error: &KafkaError, persistence: Persistence) -> Outcome {
    let reason = reason(error);
    match persistence {
        Persistence::Persisted => Outcome::stored(false, None),
        Persistence::NotPersisted => Outcome::not_stored(reason, error.to_string()),
        Persistence::PossiblyPersisted => Outcome::unknown(reason, error.to_string()),
    }
}

/// The outcome of a message that the client did not accept: it was never sent.
pub(super) fn of_produce_error(error: &KafkaError) -> Outcome {
    Outcome::not_stored(reason(error), error.to_string())
}

/// Whether a fatal error is about rights, which only an administrator can fix.
pub(super) fn is_denial(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Explains a fatal error about rights to the operator.
pub(super) fn denial(what: &str) -> String {
    format!(
        "the user may not write: it needs Write on the topics (before Kafka 3.0, IdempotentWrite on the cluster as well) ({what})"
    )
}

/// Adds an explanation for the operator where librdkafka's text is not enough.
pub(super) fn explain(reason: Reason, detail: String) -> String {
    match reason {
        Reason::UnknownTopic => {
            format!("the topic does not exist, and the bridge creates none ({detail})")
        }
        Reason::Authorization => {
            format!("the user may not write to the topic: it needs Write on it ({detail})")
        }
        _ => detail,
    }
}

fn reason(error: &KafkaError) -> Reason {
    match error.rdkafka_error_code() {
        Some(
            Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue,
        ) => Reason::TimedOut,
        Some(Code::QueueFull) => Reason::QueueFull,
        Some(Code::Fatal | Code::State | Code::PurgeQueue | Code::PurgeInflight) => Reason::Fatal,
        Some(
            Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic,
        ) => Reason::UnknownTopic,
        Some(
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient,
        ) => Reason::NotEnoughReplicas,
        Some(Code::Authentication | Code::SaslAuthenticationFailed) => Reason::Authentication,
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed,
        ) => Reason::Authorization,
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => Reason::TooLarge,
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NetworkException) => {
            Reason::Disconnected
        }
        _ => Reason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, persistence: Persistence) -> Outcome {
        of_failure(&KafkaError::MessageProduction(code), persistence)
    }

    #[test]
    fn the_message_status_alone_tells_certain_from_unknown() {
        for code in [
            Code::MessageTimedOut,
            Code::PurgeInflight,
            Code::NotEnoughReplicasAfterAppend,
            Code::MessageSizeTooLarge,
            Code::Fatal,
        ] {
            assert!(
                matches!(
                    failure(code, Persistence::NotPersisted),
                    Outcome::NotStored(_)
                ),
                "{code:?}"
            );
            assert!(
                matches!(
                    failure(code, Persistence::PossiblyPersisted),
                    Outcome::Unknown(_)
                ),
                "{code:?}"
            );
            assert!(
                matches!(failure(code, Persistence::Persisted), Outcome::Stored(_)),
                "{code:?}"
            );
        }
    }

    #[test]
    fn only_an_offset_is_a_position() {
        let found = |partition, offset| position(partition, offset).is_some();
        // RD_KAFKA_OFFSET_INVALID, and an acknowledgement of a retry that the broker already had.
        assert!(found(0, 0) && !found(0, -1001) && !found(0, -1) && !found(-1, 0));
    }

    #[test]
    fn a_full_queue_is_certain() {
        let outcome = of_produce_error(&KafkaError::MessageProduction(Code::QueueFull));
        assert!(matches!(outcome, Outcome::NotStored(not) if not.reason == Reason::QueueFull));
    }
}
