//! Maps JetStream's answers to the three outcomes.

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::brokers::outcome::{Outcome, Reason, Receipt};

/// A publish acknowledgement (`PubAckResponse` in nats-server's `stream.go`).
#[derive(Debug, Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The outcome of an answer in the acknowledgement inbox.
pub(super) fn of_answer(answer: &Message) -> Outcome {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Outcome::not_stored(
            Reason::NoResponders,
            "no stream takes the subject, or it has no leader",
        );
    }
    of_acknowledgement(&answer.payload)
}

fn of_acknowledgement(payload: &[u8]) -> Outcome {
    match serde_json::from_slice::<PubAck>(payload) {
        Ok(PubAck {
            error: Some(error), ..
        }) => of_error(&error),
        // Without a sequence number, nothing proves that the message is stored (nats-server#6415).
        Ok(acknowledgement) if acknowledgement.seq == 0 => Outcome::unknown(
            Reason::Other,
            "an acknowledgement without a sequence number",
        ),
        Ok(acknowledgement) => Outcome::Stored(Receipt::confirmed(acknowledgement.duplicate)),
        Err(_) => Outcome::unknown(Reason::Other, "an acknowledgement that cannot be parsed"),
    }
}

/// Error codes of nats-server's `errors.json`.
fn of_error(error: &ApiError) -> Outcome {
    let detail = format!("{} ({})", error.description, error.err_code);
    let reason = match error.err_code {
        // Another publish with the same id is in progress.
        10158 => return Outcome::unknown(Reason::BeingStored, detail),
        10077 => Reason::StreamFull,
        10023 | 10047 => Reason::Resources,
        10167 => Reason::QueueFull,
        10054 | 10097 => Reason::TooLarge,
        _ => Reason::Other,
    };
    Outcome::not_stored(reason, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(payload: &str) -> (bool, Reason) {
        match of_acknowledgement(payload.as_bytes()) {
            Outcome::NotStored(not) => (true, not.reason),
            Outcome::Unknown(unknown) => (false, unknown.reason),
            Outcome::Stored(_) => panic!("{payload} is not a word of storage"),
        }
    }

    #[test]
    fn only_a_sequence_number_is_a_receipt() {
        let outcome = of_acknowledgement(br#"{"stream":"S","seq":7}"#);
        assert!(matches!(outcome, Outcome::Stored(receipt) if !receipt.is_duplicate()));
        let outcome =
            of_acknowledgement(br#"{"stream":"S","seq":7,"duplicate":true,"domain":"x"}"#);
        assert!(matches!(outcome, Outcome::Stored(receipt) if receipt.is_duplicate()));
        for unclear in [
            r#"{"stream":"S","seq":0,"duplicate":true}"#,
            r"{}",
            "",
            "+OK",
            "[]",
            "null",
        ] {
            assert_eq!(reason_of(unclear), (false, Reason::Other), "{unclear}");
        }
    }

    #[test]
    fn errors_are_certain_unless_the_server_says_otherwise() {
        let error = |code: u64| {
            format!(
                r#"{{"error":{{"code":503,"err_code":{code},"description":"x"}},"stream":"S","seq":0}}"#
            )
        };
        assert_eq!(reason_of(&error(10077)), (true, Reason::StreamFull));
        assert_eq!(reason_of(&error(10023)), (true, Reason::Resources));
        assert_eq!(reason_of(&error(10054)), (true, Reason::TooLarge));
        assert_eq!(reason_of(&error(10167)), (true, Reason::QueueFull));
        assert_eq!(reason_of(&error(10060)), (true, Reason::Other));
        assert_eq!(reason_of(&error(10158)), (false, Reason::BeingStored));
    }
}
