//! SYNQ's headers: lines `t VALUE` and `s VALUE`, an empty line, a body. Whatever is accepted must have been signed.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hookbridge::config::Secret;
use hookbridge::providers::{Provider as _, Verifier, VerifierSettings, synq::Synq};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const SECRET: &str = "whs_fuzz";
const NOW: Duration = Duration::from_secs(1_795_000_000);

fn secret() -> Secret {
    Secret::new(SECRET.to_owned()).expect("it is not empty")
}

static VERIFIER: LazyLock<Box<dyn Verifier>> = LazyLock::new(|| {
    Synq.verifier(VerifierSettings {
        secrets: vec![secret()],
        tolerance: Some(Duration::from_secs(300)),
    })
});

fn digest(timestamp: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
    for part in [timestamp, b".", body] {
        mac.update(part);
    }
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify(headers: &HeaderMap, body: &[u8]) -> bool {
    VERIFIER.verify(headers, body, UNIX_EPOCH + NOW).is_ok()
}

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let name = match line.split_first() {
            None => break,
            Some((b't', _)) => HeaderName::from_static("x-coalesce-timestamp"),
            Some(_) => HeaderName::from_static("x-coalesce-signature"),
        };
        if let Ok(value) = HeaderValue::from_bytes(line[1..].trim_ascii()) {
            headers.append(name, value);
        }
    }
    let body = rest;
    if verify(&headers, body) {
        let signed = headers
            .get_all("x-coalesce-timestamp")
            .iter()
            .any(|timestamp| {
                let wanted = digest(timestamp.as_bytes(), body);
                let mut signatures = headers.get_all("x-coalesce-signature").iter();
                signatures.any(|value| {
                    let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
                    value.contains(&wanted)
                })
            });
        assert!(signed, "accepted though nobody signed it: {headers:?}");
    }
    // A genuine one is accepted, and no other body with it.
    let genuine = Synq
        .sign(body, &secret(), UNIX_EPOCH + NOW)
        .expect("it can be signed");
    assert!(verify(&genuine, body));
    let mut other = body.to_vec();
    other.push(b' ');
    assert!(!verify(&genuine, &other));
});
