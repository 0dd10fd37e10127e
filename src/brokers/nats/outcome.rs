//! Maps JetStream's answers to the three outcomes.

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::brokers::outcome::{Outcome, Position, Reason};

/// A publish acknowledgement (`PubAckResponse` in nats-server's `stream.go`).
#[derive(Debug, Deserialize)]
struct PubAck<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
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

/// The name of the stream that acknowledged last: most answers name the same one, and share it.
#[derive(Debug, Default)]
pub(super) struct LastStream(Option<Arc<str>>);

impl LastStream {
    fn shared(&mut self, name: &str) -> Arc<str> {
        match &self.0 {
            Some(last) if **last == *name => Arc::clone(last),
            _ => Arc::clone(self.0.insert(Arc::from(name))),
        }
    }
}

/// The outcome of an answer in the acknowledgement inbox.
pub(super) fn of_answer(answer: &Message, last: &mut LastStream) -> Outcome {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Outcome::not_stored(
            Reason::NoResponders,
            "no stream takes the subject, or it has no leader",
        );
    }
    of_acknowledgement(&answer.payload, last)
}

fn of_acknowledgement(payload: &[u8], last: &mut LastStream) -> Outcome {
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        Ok(PubAck {
            error: Some(error), ..
        }) => of_error(&error),
        // Without a sequence number, nothing proves that the message is stored (nats-server#6415).
        Ok(acknowledgement) if acknowledgement.seq == 0 => Outcome::unknown(
            Reason::Other,
            "an acknowledgement without a sequence number",
        ),
        Ok(PubAck {
            stream,
            seq,
            duplicate,
            ..
        }) => {
            let position = (!stream.is_empty()).then(|| Position::JetStream {
                stream: last.shared(&stream),
                sequence: seq,
            });
            Outcome::stored(duplicate, position)
        }
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
        match of_acknowledgement(payload.as_bytes(), &mut LastStream::default()) {
            Outcome::NotStored(not) => (true, not.reason),
            Outcome::Unknown(unknown) => (false, unknown.reason),
            Outcome::Stored(_) => panic!("{payload} is not a word of storage"),
        }
    }

    #[test]
    fn only_a_sequence_number_is_a_receipt() {
        let mut last = LastStream::default();
        let mut stored = |payload: &[u8]| match of_acknowledgement(payload, &mut last) {
            Outcome::Stored(stored) => stored,
            other => panic!("{other:?}"),
        };
        let first = stored(br#"{"stream":"S","seq":7}"#);
        let again = stored(br#"{"stream":"S","seq":7,"duplicate":true,"domain":"x"}"#);
        assert!(!first.is_duplicate() && again.is_duplicate());
        let (
            Some(Position::JetStream { stream, sequence }),
            Some(Position::JetStream { stream: same, .. }),
        ) = (first.position(), again.position())
        else {
            panic!("{first:?} {again:?}");
        };
        assert_eq!((&**stream, *sequence), ("S", 7));
        assert!(Arc::ptr_eq(stream, same));
        let other = stored(br#"{"stream":"T\u0031","seq":1}"#);
        assert!(
            matches!(other.position(), Some(Position::JetStream { stream, .. }) if **stream == *"T1")
        );
        assert_eq!(stored(br#"{"seq":1}"#).position(), None);
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
