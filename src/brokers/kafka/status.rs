//! The only call without a safe wrapper in rdkafka: librdkafka's assessment on whether a failed message may have been written.

use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
use rdkafka::message::BorrowedMessage;

/// Whether the broker may have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Never sent, or refused by the broker.
    NotPersisted,
    /// Sent, without an answer.
    PossiblyPersisted,
    /// Confirmed by the broker.
    Persisted,
}

#[expect(
    unsafe_code,
    reason = "only librdkafka knows whether a failed message was sent, and rdkafka does not pass it on"
)]
pub(super) fn persistence(message: &BorrowedMessage<'_>) -> Persistence {
    // SAFETY: `message.ptr()` is valid for as long as `message` is borrowed, and the call only reads from it
    // (`rdkafka.h`, `rd_kafka_message_status`).
    match unsafe { rd_kafka_message_status(message.ptr()) } {
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persistence::NotPersisted,
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => {
            Persistence::PossiblyPersisted
        }
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_PERSISTED => Persistence::Persisted,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn there_is_one_unsafe_block_in_all_of_src() {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let counts = entries.map(|path| match path.is_dir() {
                true => count(&path),
                false => std::fs::read_to_string(&path)
                    .unwrap_or_default()
                    .matches(concat!("unsafe", " {"))
                    .count(),
            });
            counts.sum()
        }
        assert_eq!(count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")), 1);
    }
}
