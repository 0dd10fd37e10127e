//! Access to the live page: with the token; without one, only where the listener is at a loopback address.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::config::Admin;
use crate::secret::Secret;

const COOKIE_NAME: &str = "hookbridge_admin";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request may see the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Allowed,
    /// Its sender must show the token first.
    SignIn,
    /// The listener can be reached from other machines, and no token is configured.
    Off,
}

/// Sessions of this process: a cookie never holds the token, and ends with the process or the token.
#[derive(Debug)]
pub(super) struct Sessions {
    nonce: [u8; 16],
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            nonce: Uuid::new_v4().into_bytes(),
        }
    }

    pub(super) fn access(&self, admin: &Admin, is_local: bool, headers: &HeaderMap) -> Access {
        let Some(token) = &admin.token else {
            return if is_local {
                Access::Allowed
            } else {
                Access::Off
            };
        };
        if self.has_bearer(token, headers) || self.has_cookie(token, headers) {
            Access::Allowed
        } else {
            Access::SignIn
        }
    }

    /// In a time that does not depend on where they differ.
    pub(super) fn is_token(&self, token: &Secret, shown: &[u8]) -> bool {
        // Tags have one length, so that not even the token's is told.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.nonce);
        let (expected, found) = (
            hmac::sign(&key, token.expose().as_bytes()),
            hmac::sign(&key, shown),
        );
        expected.as_ref().ct_eq(found.as_ref()).into()
    }

    /// The cookie for whoever has shown the token. It is sent to this listener alone, and by no other site's page.
    pub(super) fn cookie(&self, token: &Secret) -> Option<HeaderValue> {
        let session = self.session(token);
        let cookie = format!("{COOKIE_NAME}={session}; Path=/; HttpOnly; SameSite=Strict");
        HeaderValue::from_str(&cookie).ok()
    }

    fn session(&self, token: &Secret) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes());
        let mut text = b"hookbridge admin session ".to_vec();
        text.extend_from_slice(&self.nonce);
        data_encoding::HEXLOWER.encode(hmac::sign(&key, &text).as_ref())
    }

    fn has_bearer(&self, token: &Secret, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some((scheme, shown)) = value.and_then(|value| value.split_at_checked(BEARER.len()))
        else {
            return false;
        };
        scheme.eq_ignore_ascii_case(BEARER) && self.is_token(token, shown.trim_ascii())
    }

    fn has_cookie(&self, token: &Secret, headers: &HeaderMap) -> bool {
        let session = self.session(token);
        let lines = headers.get_all(COOKIE).iter();
        let mut cookies = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        cookies.any(|(name, value)| {
            name == COOKIE_NAME && bool::from(value.as_bytes().ct_eq(session.as_bytes()))
        })
    }
}

const BEARER: &[u8] = b"Bearer ";

/// Whether a browser says that another site's page has sent the request: it could not read the answer, but would take up
/// one of the streams.
pub(super) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(token: Option<&str>) -> Admin {
        Admin {
            listen: ([127, 0, 0, 1], 0).into(),
            ready_when: crate::config::ReadyWhen::Any,
            token: token.and_then(|token| Secret::new(token.to_owned())),
            show_bodies: false,
        }
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn without_a_token_only_a_loopback_address_has_the_page() {
        let sessions = Sessions::new();
        let none = HeaderMap::new();
        assert_eq!(sessions.access(&admin(None), true, &none), Access::Allowed);
        assert_eq!(sessions.access(&admin(None), false, &none), Access::Off);
    }

    #[test]
    fn with_a_token_every_request_must_show_it_or_the_cookie_it_was_exchanged_for() {
        let sessions = Sessions::new();
        let admin = admin(Some("a-token-of-16-bytes"));
        let access = |headers: &HeaderMap| sessions.access(&admin, true, headers);
        assert_eq!(access(&HeaderMap::new()), Access::SignIn);
        let bearer = |text: &str| access(&headers(AUTHORIZATION, text));
        assert_eq!(bearer("bearer a-token-of-16-bytes"), Access::Allowed);
        for wrong in [
            "Bearer ",
            "Bearer a-token-of-16-byte",
            "a-token-of-16-bytes",
            "Basic a-token-of-16-bytes",
        ] {
            assert_eq!(bearer(wrong), Access::SignIn, "{wrong}");
        }
        let set = sessions.cookie(admin.token.as_ref().unwrap()).unwrap();
        let set = set.to_str().unwrap();
        assert!(
            set.contains("; HttpOnly") && set.contains("; SameSite=Strict"),
            "{set}"
        );
        assert!(!set.contains("a-token"));
        let (pair, _) = set.split_once(';').unwrap();
        let cookie = |text: &str| access(&headers(COOKIE, text));
        assert_eq!(cookie(&format!("other=1; {pair}")), Access::Allowed);
        assert_eq!(cookie(&format!("{pair}0")), Access::SignIn);
        assert_eq!(
            cookie("hookbridge_admin=a-token-of-16-bytes"),
            Access::SignIn
        );
        // Another process, or another token, has other sessions.
        let others = Sessions::new();
        assert_eq!(
            others.access(&admin, true, &headers(COOKIE, pair)),
            Access::SignIn
        );
    }

    #[test]
    fn requests_of_other_sites_are_told_by_what_browsers_say() {
        for (site, is_elsewhere) in [
            ("same-origin", false),
            ("none", false),
            ("cross-site", true),
            ("same-site", true),
        ] {
            assert_eq!(
                is_from_elsewhere(&headers(SEC_FETCH_SITE, site)),
                is_elsewhere,
                "{site}"
            );
        }
        assert!(!is_from_elsewhere(&HeaderMap::new()));
    }
}
