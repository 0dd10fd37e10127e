//! Secrets that must never be shown.

use zeroize::Zeroizing;

/// A secret. It has no `Display`, its `Debug` reveals nothing, and its memory is zeroed on drop.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// None if the text is empty or only white space.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (!text.trim().is_empty()).then_some(Self(text))
    }

    /// For a key or a client; never for a log, a metric or an error.
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

/// Comma-separated addresses with any user and password masked.
pub(crate) fn hide_user_info(addresses: &str) -> String {
    let shown = addresses.split(',').map(|address| {
        let Some((before, host)) = address.rsplit_once('@') else {
            return address.to_owned();
        };
        let scheme = before.find("://").and_then(|at| before.get(..at + 3));
        format!("{}***@{host}", scheme.unwrap_or_default())
    });
    shown.collect::<Vec<_>>().join(",")
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

    #[test]
    fn users_and_passwords_are_hidden() {
        for (address, shown) in [
            ("a:9092,b:9092", "a:9092,b:9092"),
            ("u:p@a:9092, b", "***@a:9092, b"),
            (
                "SASL_SSL://u:p@ss@a:1,nats://t@b",
                "SASL_SSL://***@a:1,nats://***@b",
            ),
        ] {
            assert_eq!(hide_user_info(address), shown);
        }
    }
}
