//! JSON Pointers (RFC 6901).

use crate::printable::is_unprintable;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<Token>,
}

/// One step of a [`Pointer`]: a member's name, or an index where the value is an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    name: String,
    index: Option<usize>,
}

impl Token {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn index(&self) -> Option<usize> {
        self.index
    }
}

impl Pointer {
    /// Parses `/a/0/b`, with `~0` for `~` and `~1` for `/`.
    ///
    /// # Errors
    /// The text is not a JSON Pointer.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("a JSON Pointer starts with `/`");
        };
        let tokens = path
            .split('/')
            .map(|token| {
                let complete = token
                    .split('~')
                    .skip(1)
                    .all(|after| after.starts_with(['0', '1']));
                if !complete {
                    return Err("in a JSON Pointer `~` is followed by 0 or 1");
                }
                let name = token.replace("~1", "/").replace("~0", "~");
                let is_index = token == "0"
                    || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
                let index = if is_index { token.parse().ok() } else { None };
                Ok(Token { name, index })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            tokens,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }
}

/// A member's name as a token of a pointer that is safe to show.
#[must_use]
pub fn escape_token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '~' => token.push_str("~0"),
            '/' => token.push_str("~1"),
            // Pointers appear in answers and logs.
            other if is_unprintable(other) => token.extend(other.escape_unicode()),
            other => token.push(other),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6901() {
        let pointer = Pointer::parse("/a~1b/m~0n/0/01/").unwrap();
        let names: Vec<_> = pointer.tokens().iter().map(Token::name).collect();
        assert_eq!(names, ["a/b", "m~n", "0", "01", ""]);
        let indexes: Vec<_> = pointer.tokens().iter().map(Token::index).collect();
        assert_eq!(indexes, [None, None, Some(0), None, None]);
        assert!(Pointer::parse("a").is_err());
        assert!(Pointer::parse("/a~2").is_err());
        assert!(Pointer::parse("/a~").is_err());
        assert_eq!(escape_token("a/b~c"), "a~1b~0c");
    }
}
