//! The one call that rdkafka has no safe form of: librdkafka's word on whether a failed message may have been written.

use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
use rdkafka::message::BorrowedMessage;

/// How far a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It was never sent, or the broker refused it.
    NotPersisted,
    /// It was sent, and no answer came.
    PossiblyPersisted,
    /// The broker said that it has it.
    Persisted,
}

#[expect(
    unsafe_code,
    reason = "only librdkafka knows whether a failed message was sent, and rdkafka does not pass it on"
)]
pub(super) fn status(message: &BorrowedMessage<'_>) -> Status {
    // SAFETY: `message.ptr()` is valid for as long as `message` is borrowed, and the call only reads from it
    // (`rdkafka.h`, `rd_kafka_message_status`).
    match unsafe { rd_kafka_message_status(message.ptr()) } {
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Status::NotPersisted,
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Status::PossiblyPersisted,
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_PERSISTED => Status::Persisted,
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
