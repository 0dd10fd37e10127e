//! Escapes foreign text for terminals and log lines, so that it cannot move the cursor, forge a line or reverse the reading
//! direction.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Control characters, line and paragraph separators, and characters that change the text direction.
pub(crate) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Replaces each unprintable character by `\u{…}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_unprintable, |escaped, character| {
        escaped.extend(character.escape_unicode());
    })
}

/// Like [`printable`], but keeps line breaks and tabs.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    let is_escaped = |character| is_unprintable(character) && !matches!(character, '\n' | '\t');
    escape(text, is_escaped, |escaped, character| {
        escaped.extend(character.escape_unicode());
    })
}

/// Replaces unprintable characters in a JSON text's strings by JSON's own escapes.
pub(crate) fn printable_json(json: &str) -> Cow<'_, str> {
    escape(json, is_unprintable, |escaped, character| {
        // All of them are in the Basic Multilingual Plane. Writing to a string does not fail.
        let _infallible = write!(escaped, "\\u{:04x}", u32::from(character));
    })
}

fn escape(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    push_escaped: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            push_escaped(&mut escaped, character);
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped_and_nothing_else() {
        assert_eq!(
            printable("a\u{1b}[31m\r\n\u{7f}\u{9b}2J\u{202e}\u{2066}\u{200f}\u{2028}z"),
            "a\\u{1b}[31m\\u{d}\\u{a}\\u{7f}\\u{9b}2J\\u{202e}\\u{2066}\\u{200f}\\u{2028}z"
        );
        for plain in ["", "issue-1", "grün \"ja\" \\ 日本語 🚀 e\u{301}", "עברית"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
        assert_eq!(
            printable_lines("{\n\t\"a\": 1\r\n}\u{1b}"),
            "{\n\t\"a\": 1\\u{d}\n}\\u{1b}"
        );
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"k\u{202e}": "a\u{1b}\u{85}\u{7f}\u{2029}\n"});
        let text = value.to_string();
        let escaped = printable_json(&text);
        assert!(!escaped.contains(is_unprintable), "{escaped}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&escaped).unwrap(),
            value
        );
    }
}
