//! The topics that events may go to.

/// Kafka's own limit (`org.apache.kafka.common.internals.Topic`).
const MAX_TOPIC_BYTES: usize = 249;

const LEGAL: &str = "may only have A-Z, a-z, 0-9, `.`, `_` and `-`";

pub(in crate::brokers) fn check_topic(topic: &str) -> Result<(), &'static str> {
    match topic {
        "" => Err("must not be empty"),
        "." | ".." => Err("must not be `.` or `..`"),
        internal if internal.starts_with("__") => {
            Err("must not start with `__`, as Kafka's own topics do")
        }
        long if long.len() > MAX_TOPIC_BYTES => Err("must not be longer than 249 characters"),
        topic => check_value(topic),
    }
}

pub(in crate::brokers) fn check_value(value: &str) -> Result<(), &'static str> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match value {
        "" => Err("must not be empty"),
        value if value.bytes().all(is_legal) => Ok(()),
        _ => Err(LEGAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_legal_names_that_are_not_internal_pass() {
        for good in ["a", "synq.issue_created", "A-1.b_c", &"x".repeat(249)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "é",
            "a\0",
            "a\r\nb",
            "*",
            "__consumer_offsets",
            &"x".repeat(250),
        ] {
            assert!(check_topic(bad).is_err(), "{bad:?}");
        }
    }
}
