//! `X-Coalesce-Signature: v1=HEX`, an HMAC-SHA256 over `X-Coalesce-Timestamp`, a dot and the body.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::super::hmac::{self, Digest, Key};
use super::super::{SignError, Unverified, Verifier, VerifierSettings};
use crate::config::Secret;

/// Both headers of the scheme.
pub(super) const HEADERS: [&str; 2] = ["x-coalesce-timestamp", "x-coalesce-signature"];
const TIMESTAMP: HeaderName = HeaderName::from_static(HEADERS[0]);
const SIGNATURE: HeaderName = HeaderName::from_static(HEADERS[1]);

/// How many values of the scheme are tried.
const MAX_CANDIDATES: usize = 10;

#[derive(Debug)]
pub(super) struct Signature {
    keys: Vec<Key>,
    tolerance: Option<Duration>,
}

impl Signature {
    pub(super) fn new(settings: &VerifierSettings) -> Self {
        Self {
            keys: settings.secrets.iter().filter_map(Key::new).collect(),
            tolerance: settings.tolerance,
        }
    }
}

/// What the headers say: the time as it was signed, and the digests that may be the signature.
struct Head<'h> {
    timestamp: &'h [u8],
    candidates: Vec<Digest>,
}

impl Signature {
    /// A request whose headers no body could make right is refused without a digest of the body.
    fn head<'h>(headers: &'h HeaderMap) -> Result<Head<'h>, Unverified> {
        if !headers.contains_key(SIGNATURE) {
            return Err(Unverified::MissingSignature);
        }
        let mut timestamps = headers.get_all(TIMESTAMP).iter();
        let timestamp = timestamps.next().ok_or(Unverified::MissingSignature)?;
        if timestamps.next().is_some() {
            // Which of them was signed is not for us to choose.
            return Err(Unverified::InvalidSignature);
        }
        let timestamp = timestamp.as_bytes();
        let candidates = candidates(headers);
        if candidates.is_empty() {
            return Err(Unverified::InvalidSignature);
        }
        Ok(Head {
            timestamp,
            candidates,
        })
    }

    fn check_time(&self, timestamp: &[u8], now: SystemTime) -> Result<(), Unverified> {
        match self.tolerance {
            Some(tolerance) if !is_near(timestamp, now, tolerance) => {
                Err(Unverified::StaleTimestamp)
            }
            _ => Ok(()),
        }
    }
}

impl Verifier for Signature {
    fn check_head(&self, headers: &HeaderMap, now: SystemTime) -> Result<(), Unverified> {
        self.check_time(Self::head(headers)?.timestamp, now)
    }

    fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<usize, Unverified> {
        let Head {
            timestamp,
            candidates,
        } = Self::head(headers)?;
        let signer = hmac::signer(&self.keys, &[timestamp, b".", body], &candidates);
        let signer = signer.ok_or(Unverified::InvalidSignature)?;
        // Last, because an unsigned timestamp means nothing.
        self.check_time(timestamp, now)?;
        Ok(signer)
    }
}

/// The well-formed values of scheme `v1`; later schemes stand beside it, separated by spaces.
fn candidates(headers: &HeaderMap) -> Vec<Digest> {
    let lines = headers.get_all(SIGNATURE).iter();
    let values = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b' '));
    let digests = values
        .filter_map(|value| value.strip_prefix(b"v1="))
        .filter_map(hmac::decode_hex);
    digests.take(MAX_CANDIDATES).collect()
}

/// Unix seconds in decimal digits, no further from `now` than the tolerance.
fn is_near(timestamp: &[u8], now: SystemTime, tolerance: Duration) -> bool {
    let is_decimal = timestamp.iter().all(u8::is_ascii_digit);
    let seconds = std::str::from_utf8(timestamp)
        .ok()
        .filter(|_| is_decimal)
        .and_then(|digits| digits.parse::<u64>().ok());
    let signed = seconds
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    signed.is_some_and(|signed| {
        let distance = now
            .duration_since(signed)
            .unwrap_or_else(|ahead| ahead.duration());
        distance <= tolerance
    })
}

pub(super) fn sign(body: &[u8], secret: &Secret, now: SystemTime) -> Result<HeaderMap, SignError> {
    let key = Key::new(secret).ok_or(SignError("the secret can't be used as a key"))?;
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| SignError("the clock is before 1970"))?
        .as_secs();
    let timestamp = seconds.to_string();
    let digest = key.sign(&[timestamp.as_bytes(), b".", body]);
    let signature = HeaderValue::from_str(&format!("v1={}", hmac::encode_hex(&digest)));
    let signature = signature.map_err(|_| SignError("the signature is no header value"))?;
    Ok(HeaderMap::from_iter([
        (TIMESTAMP, HeaderValue::from(seconds)),
        (SIGNATURE, signature),
    ]))
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "what is cut is ASCII")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &[u8] = br#"{"event_id":"1"}"#;
    /// `openssl dgst -sha256 -hmac whs_example` of `1795132800.` and [`BODY`].
    const DIGEST: &str = "07f68f6e5aeab4b2792270227dd70badb68c08460b69b0748717820c5a8f8301";

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned()).unwrap()
    }

    fn verifier(secrets: &[&str]) -> Signature {
        let secrets = secrets.iter().map(|text| secret(text)).collect();
        Signature::new(&VerifierSettings {
            secrets,
            tolerance: Some(Duration::from_secs(2100)),
        })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const NOW: u64 = 1_795_132_800;

    fn signed() -> (String, String) {
        let signed = sign(BODY, &secret("whs_example"), at(NOW)).unwrap();
        let text = |name| signed.get(name).unwrap().to_str().unwrap().to_owned();
        (text(TIMESTAMP), text(SIGNATURE))
    }

    #[test]
    fn signs_as_an_independent_implementation_does() {
        assert_eq!(signed().1, format!("v1={DIGEST}"));
    }

    #[test]
    fn takes_what_the_provider_signs() {
        let (timestamp, signature) = signed();
        let upper = format!("v1={}", signature[3..].to_uppercase());
        let several = format!("v2=abc  v1={} {signature}", "0".repeat(64));
        for value in [&signature, &upper, &several] {
            let headers = headers(&[
                ("x-coalesce-timestamp", &timestamp),
                ("x-coalesce-signature", value),
            ]);
            assert_eq!(
                verifier(&["whs_example"]).verify(&headers, BODY, at(NOW + 2100)),
                Ok(0),
                "{value}"
            );
            assert_eq!(
                verifier(&["x", "whs_example"]).verify(&headers, BODY, at(NOW - 2100)),
                Ok(1),
                "{value}"
            );
        }
        let lines = headers(&[
            ("x-coalesce-timestamp", &timestamp),
            ("x-coalesce-signature", "v2=abc"),
            ("x-coalesce-signature", &signature),
        ]);
        assert_eq!(
            verifier(&["whs_example"]).verify(&lines, BODY, at(NOW)),
            Ok(0)
        );
    }

    #[test]
    fn tells_missing_invalid_and_stale_apart() {
        let (timestamp, signature) = signed();
        let verify = |lines: &[(&'static str, &str)], now| {
            verifier(&["whs_example"]).verify(&headers(lines), BODY, at(now))
        };
        let (t, s) = ("x-coalesce-timestamp", "x-coalesce-signature");
        assert_eq!(
            verify(&[(t, &timestamp)], NOW),
            Err(Unverified::MissingSignature)
        );
        assert_eq!(
            verify(&[(s, &signature)], NOW),
            Err(Unverified::MissingSignature)
        );
        assert_eq!(
            verify(&[(t, &timestamp), (t, &timestamp), (s, &signature)], NOW),
            Err(Unverified::InvalidSignature)
        );
        assert_eq!(
            verify(&[(t, &timestamp), (s, &signature[3..])], NOW),
            Err(Unverified::InvalidSignature)
        );
        assert_eq!(
            verify(&[(t, "1795132801"), (s, &signature)], NOW),
            Err(Unverified::InvalidSignature)
        );
        assert_eq!(
            verify(&[(t, &timestamp), (s, &signature)], NOW + 2101),
            Err(Unverified::StaleTimestamp)
        );
        assert_eq!(
            verify(&[(t, &timestamp), (s, &signature)], NOW - 2101),
            Err(Unverified::StaleTimestamp)
        );
        // A wrong signature is reported before a stale time.
        assert_eq!(
            verify(&[(t, &timestamp), (s, "v1=00")], NOW + 9999),
            Err(Unverified::InvalidSignature)
        );
    }

    #[test]
    fn the_head_alone_gives_away_what_no_body_could_make_right() {
        let (timestamp, signature) = signed();
        let (t, s) = ("x-coalesce-timestamp", "x-coalesce-signature");
        let check = |lines: &[(&'static str, &str)], now| {
            verifier(&["whs_example"]).check_head(&headers(lines), at(now))
        };
        assert_eq!(check(&[], NOW), Err(Unverified::MissingSignature));
        assert_eq!(
            check(&[(s, &signature)], NOW),
            Err(Unverified::MissingSignature)
        );
        for malformed in ["", "v1=00", &signature[3..], "v2=abc"] {
            assert_eq!(
                check(&[(t, &timestamp), (s, malformed)], NOW),
                Err(Unverified::InvalidSignature),
                "{malformed}"
            );
        }
        assert_eq!(
            check(&[(t, &timestamp), (s, &signature)], NOW + 2101),
            Err(Unverified::StaleTimestamp)
        );
        let forged = format!("v1={}", "0".repeat(64));
        for well_formed in [&signature, &forged] {
            assert_eq!(check(&[(t, &timestamp), (s, well_formed)], NOW), Ok(()));
        }
    }

    #[test]
    fn strange_timestamps_are_stale_even_when_signed() {
        let key = Key::new(&secret("whs_example")).unwrap();
        for timestamp in [
            "+1795132800",
            "-1",
            "1e9",
            "soon",
            "100000000000000000000",
            "18446744073709551615",
            " 1795132800",
        ] {
            let signature = format!(
                "v1={}",
                hmac::encode_hex(&key.sign(&[timestamp.as_bytes(), b".", BODY]))
            );
            let headers = headers(&[
                ("x-coalesce-timestamp", timestamp),
                ("x-coalesce-signature", &signature),
            ]);
            assert_eq!(
                verifier(&["whs_example"]).verify(&headers, BODY, at(NOW)),
                Err(Unverified::StaleTimestamp),
                "{timestamp}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_header_passes_without_the_secret(value in "[ -~]{0,200}") {
            let headers = headers(&[("x-coalesce-timestamp", "1795132800"), ("x-coalesce-signature", &value)]);
            prop_assert_eq!(verifier(&["whs_example"]).verify(&headers, BODY, at(NOW)), Err(Unverified::InvalidSignature));
        }
    }
}
