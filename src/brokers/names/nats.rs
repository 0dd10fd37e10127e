//! The subjects that events may go to (docs.nats.io, "Subject-Based Messaging").

/// Longer subjects are legal, but no tool shows them completely.
const MAX_SUBJECT_BYTES: usize = 255;
const MAX_TOKENS: usize = 16;

pub(in crate::brokers) fn check_subject(subject: &str) -> Result<(), &'static str> {
    if subject.len() > MAX_SUBJECT_BYTES {
        return Err("must not be longer than 255 characters");
    }
    if subject.split('.').count() > MAX_TOKENS {
        return Err("must not have more than 16 tokens");
    }
    if subject.starts_with('$') || subject.split('.').next() == Some("_INBOX") {
        return Err("must not start with `$` or `_INBOX`, as NATS's own subjects do");
    }
    if subject.split('.').any(str::is_empty) {
        return Err("must not have empty tokens");
    }
    if subject
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        Ok(())
    } else {
        Err("may only have A-Z, a-z, 0-9, `_`, `-` and `.` between tokens")
    }
}

/// A value in the middle of a template is one token; the last one may be several tokens.
pub(in crate::brokers) fn check_value(value: &str, is_last: bool) -> Result<(), &'static str> {
    let is_legal = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    match (
        value.split('.').all(is_legal),
        is_last || !value.contains('.'),
    ) {
        (true, true) => Ok(()),
        (true, false) => Err("may only have dots at the end of the subject"),
        (false, _) => Err("may only have A-Z, a-z, 0-9, `_` and `-`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_internal_subjects_and_empty_tokens_are_refused() {
        for good in ["a", "synq.issue_created", "A-1.b_c"] {
            assert_eq!(check_subject(good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        let many = "a.".repeat(16) + "a";
        for bad in [
            "",
            "*",
            ">",
            "a.>",
            "a..b",
            ".a",
            "a.",
            "$JS.API.STREAM.DELETE.X",
            "_INBOX.x",
            "a b",
            "a\tb",
            "a\0",
            "é",
            &long,
            &many,
        ] {
            assert!(check_subject(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "*", ">", "a.>", "a..b", ".a", "a.", "$JS", "a b"] {
            assert!(check_value(bad, true).is_err(), "{bad:?}");
        }
        assert_eq!(check_value("a.b", true), Ok(()));
        assert!(check_value("a.b", false).is_err());
    }
}
