//! The preset's signature: `X-Coalesce-Signature: v1=HEX`, an HMAC-SHA256 over `X-Coalesce-Timestamp`, a dot and the body.

#![expect(clippy::string_slice, reason = "the sliced text is ASCII")]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Uri};
use proptest::prelude::*;
use ring::hmac;

use crate::providers::authentication::{Authentication, read_authentication};
use crate::providers::request::{Request, Scope};
use crate::providers::scheme::Unverified;
use crate::providers::sign::{Unsigned, sign};
use crate::providers::tables::PRESET;
use crate::secret::Secret;
use crate::table::{Reading, Section};

const BODY: &[u8] = br#"{"event_id":"1"}"#;
/// `openssl dgst -sha256 -hmac whs_example` of `1795132800.` and [`BODY`].
const DIGEST: &str = "07f68f6e5aeab4b2792270227dd70badb68c08460b69b0748717820c5a8f8301";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned()).unwrap()
}

struct Verifier(Authentication);

fn verifier(secrets: &[&str]) -> Verifier {
    let preset = crate::providers::find("synq").unwrap();
    let keys = preset.read().under(None, serde_json::Map::new()).unwrap();
    let reading = Reading::default();
    let mut section = Section::new(&reading, "synq".to_owned(), keys, &PRESET);
    let secrets = secrets.iter().map(|text| secret(text)).collect();
    Verifier(read_authentication(&mut section, secrets).unwrap())
}

impl Verifier {
    fn on<T>(
        headers: &HeaderMap,
        body: &[u8],
        at: SystemTime,
        check: impl FnOnce(&Request<'_>) -> T,
    ) -> T {
        check(&Request {
            method: &Method::POST,
            target: &Uri::from_static("/hooks/synq"),
            headers,
            body,
            public_url: None,
            at,
        })
    }

    fn check_head(&self, headers: &HeaderMap, at: SystemTime) -> Result<(), Unverified> {
        Self::on(headers, &[], at, |request| self.0.check_head(request))
    }

    fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        at: SystemTime,
    ) -> Result<usize, Unverified> {
        let verdict = Self::on(headers, body, at, |request| {
            self.0.verify(&Scope::raw(request))
        });
        verdict.map(Option::unwrap)
    }
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
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &Uri::from_static("http://x/hooks/synq"),
        headers: &HeaderMap::new(),
        body: BODY,
        at: at(NOW),
    };
    let signed = sign(&verifier(&[]).0, &secret("whs_example"), unsigned);
    let signed = signed.unwrap().headers;
    let text = |name| signed.get(name).unwrap().to_str().unwrap().to_owned();
    (text("x-coalesce-timestamp"), text("x-coalesce-signature"))
}

#[test]
fn signs_as_an_independent_implementation_does() {
    assert_eq!(signed().1, format!("v1={DIGEST}"));
}

#[test]
fn accepts_what_the_provider_signs() {
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
fn distinguishes_missing_invalid_and_stale() {
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
fn the_head_alone_refuses_what_no_body_could_correct() {
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
    assert_eq!(
        check(&[(t, &timestamp), (s, "")], NOW),
        Err(Unverified::MissingSignature)
    );
    for malformed in ["v1=00", &signature[3..], "v2=abc"] {
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
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"whs_example");
    for timestamp in [
        "+1795132800",
        "-1",
        "1e9",
        "soon",
        "100000000000000000000",
        "18446744073709551615",
        " 1795132800",
    ] {
        let signed = [timestamp.as_bytes(), b".", BODY].concat();
        let digest = data_encoding::HEXLOWER.encode(hmac::sign(&key, &signed).as_ref());
        let signature = format!("v1={digest}");
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
        let reason = match value.trim() {
            "" => Unverified::MissingSignature,
            _ => Unverified::InvalidSignature,
        };
        prop_assert_eq!(verifier(&["whs_example"]).verify(&headers, BODY, at(NOW)), Err(reason));
    }
}
