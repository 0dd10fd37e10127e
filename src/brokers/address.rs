//! Addresses as they may be shown.

/// Addresses without the user and password in front of their hosts.
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
