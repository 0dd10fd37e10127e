//! The client address of a request: the peer's, or the one that a trusted proxy reports.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the last address, read from the right, that does not belong to a trusted proxy. Everything further left may
/// be forged.
///
/// If `X-Forwarded-For` and `Forwarded` (RFC 7239) disagree, or an entry is not an address, the last trusted proxy
/// counts as the client: a sender gains nothing by adding the header that its proxy does not write.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let has = |name: &HeaderName| headers.contains_key(name);
    let x_forwarded_for = || {
        walk(
            peer,
            trusted,
            entries(headers, &X_FORWARDED_FOR),
            parse_node,
        )
    };
    let forwarded = || walk(peer, trusted, entries(headers, &FORWARDED), parse_forwarded);
    match (has(&X_FORWARDED_FOR), has(&FORWARDED)) {
        (false, false) => peer,
        (true, false) => x_forwarded_for(),
        (false, true) => forwarded(),
        (true, true) => Some(x_forwarded_for())
            .filter(|address| *address == forwarded())
            .unwrap_or(peer),
    }
}

/// Like [`client_address`], but `None` where the result would be a trusted proxy's own address.
///
/// A proxy that reports nothing, or contradicts itself because of its sender, must not lend that sender its own
/// address.
pub(super) fn known_client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let address = client_address(peer, headers, trusted);
    (!is_trusted(address, trusted)).then_some(address)
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The entries of all lines, from the last to the first.
fn entries<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().rev();
    // A line that is not text counts as an entry that is not an address.
    lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
}

fn walk<'h>(
    peer: IpAddr,
    trusted: &[IpNet],
    entries: impl Iterator<Item = &'h str>,
    parse: fn(&str) -> Option<IpAddr>,
) -> IpAddr {
    let mut believed = peer;
    for entry in entries {
        match parse(entry.trim()) {
            Some(address) => believed = address.to_canonical(),
            None => return believed,
        }
        if !is_trusted(believed, trusted) {
            break;
        }
    }
    believed
}

/// `for=192.0.2.1;proto=https`.
fn parse_forwarded(entry: &str) -> Option<IpAddr> {
    let mut nodes = entry.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let node = nodes.next().filter(|_| nodes.next().is_none())?;
    parse_node(node.trim().trim_matches('"'))
}

/// An address with or without a port; IPv6 with or without brackets.
fn parse_node(node: &str) -> Option<IpAddr> {
    let bracketed = |node: &str| node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    node.parse()
        .ok()
        .or_else(|| bracketed(node))
        .or_else(|| node.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(peer: &str, lines: &[(HeaderName, &str)]) -> IpAddr {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        client_address(address(peer), &headers, &trusted)
    }

    #[test]
    fn only_a_trusted_peer_is_believed_and_only_as_far_as_trusted_proxies_go() {
        let x = |peer, value| client(peer, &[(X_FORWARDED_FOR, value)]);
        assert_eq!(x("192.0.2.9", "198.51.100.1"), address("192.0.2.9"));
        assert_eq!(x("10.0.0.1", "198.51.100.1"), address("198.51.100.1"));
        assert_eq!(
            x("::ffff:10.0.0.1", "198.51.100.1"),
            address("198.51.100.1")
        );
        let invented = "203.0.113.7, 198.51.100.1, 10.9.9.9";
        assert_eq!(x("10.0.0.1", invented), address("198.51.100.1"));
        assert_eq!(x("10.0.0.1", "10.0.0.3 ,10.0.0.2"), address("10.0.0.3"));
        assert_eq!(x("10.0.0.1", "unknown, 10.0.0.2"), address("10.0.0.2"));
        assert_eq!(x("10.0.0.1", ""), address("10.0.0.1"));
        assert_eq!(x("10.0.0.1", "198.51.100.1:4711"), address("198.51.100.1"));
        assert_eq!(
            x("2001:db8:1::1", "[2001:db8:2::1]:80"),
            address("2001:db8:2::1")
        );
        let two_lines = [
            (X_FORWARDED_FOR, "203.0.113.7"),
            (X_FORWARDED_FOR, "198.51.100.1"),
        ];
        assert_eq!(client("10.0.0.1", &two_lines), address("198.51.100.1"));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let forwarded = |value| client("10.0.0.1", &[(FORWARDED, value)]);
        assert_eq!(
            forwarded("for=203.0.113.7, For=\"[2001:db8:cafe::17]:4711\";proto=http;by=10.0.0.1"),
            address("2001:db8:cafe::17")
        );
        assert_eq!(
            forwarded("proto=https; for=198.51.100.1"),
            address("198.51.100.1")
        );
        for not_an_address in [
            "for=_hidden",
            "for=unknown",
            "proto=https",
            "for=1.2.3.4;for=5.6.7.8",
        ] {
            assert_eq!(
                forwarded(not_an_address),
                address("10.0.0.1"),
                "{not_an_address}"
            );
        }
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        let both =
            |x, forwarded| client("10.0.0.1", &[(X_FORWARDED_FOR, x), (FORWARDED, forwarded)]);
        assert_eq!(
            both("198.51.100.1", "for=198.51.100.1"),
            address("198.51.100.1")
        );
        assert_eq!(both("198.51.100.1", "for=203.0.113.7"), address("10.0.0.1"));
    }

    #[test]
    fn a_proxy_that_reports_no_client_lends_nobody_its_address() {
        let known = |peer: &str, lines: &[(HeaderName, &str)]| {
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            known_client_address(address(peer), &headers, &trusted)
        };
        assert_eq!(known("192.0.2.9", &[]), Some(address("192.0.2.9")));
        assert_eq!(
            known("10.0.0.1", &[(X_FORWARDED_FOR, "192.0.2.9, 10.0.0.2")]),
            Some(address("192.0.2.9"))
        );
        for nobody in [
            vec![],
            vec![(X_FORWARDED_FOR, "unknown")],
            vec![(X_FORWARDED_FOR, "10.0.0.3, 10.0.0.2")],
            vec![
                (X_FORWARDED_FOR, "192.0.2.9"),
                (FORWARDED, "for=192.0.2.10"),
            ],
        ] {
            assert_eq!(known("10.0.0.1", &nobody), None, "{nobody:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_an_untrusted_peer_someone_else(x in "[ -~]{0,60}", forwarded in "[ -~]{0,60}") {
            let lines = [(X_FORWARDED_FOR, &*x), (FORWARDED, &*forwarded)];
            prop_assert_eq!(client("192.0.2.9", &lines), address("192.0.2.9"));
            prop_assert_eq!(client("::ffff:192.0.2.9", &lines), address("192.0.2.9"));
        }

        #[test]
        fn what_is_written_left_of_an_untrusted_address_changes_nothing(invented in "[ -~]{0,80}") {
            let value = format!("{invented}, 198.51.100.1");
            prop_assert_eq!(client("10.0.0.1", &[(X_FORWARDED_FOR, &value)]), address("198.51.100.1"));
        }
    }
}
