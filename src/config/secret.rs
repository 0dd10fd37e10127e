//! Text that must not be shown.

use zeroize::Zeroizing;

/// A secret's text: it has no `Display`, its `Debug` says nothing, and it is wiped from memory when it is dropped.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over. Empty text, or text of white space alone, is no secret.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (!text.trim().is_empty()).then_some(Self(text))
    }

    /// The secret's text, for a key or a client; never for a log, a metric or an error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_nothing_and_is_never_empty() {
        let secret = Secret::new("hunter2".to_owned()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
        assert!(Secret::new(String::new()).is_none());
        assert!(Secret::new(" \n".to_owned()).is_none());
    }
}
