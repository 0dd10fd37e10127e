//! The headers of a signature: lines `t VALUE` and `s VALUE` for SYNQ's, `p VALUE` for Stripe's `NAME=value` pairs, an empty
//! line, a body. `GOOD` in the pairs is the signature of the present time and the body. Whatever SYNQ's source accepts must have
//! been signed; Stripe's must agree with an independent implementation.
#![no_main]

use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use hookbridge::config::Config;
use hookbridge::providers::{Authentication, Request, Scope};
use hookbridge_fuzz::{SECRET, assert_signed, config, first_line, hex, hmac, now, signed};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

const TOLERANCE: u64 = 300;
const MAX_SIGNATURES: usize = 10;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let stripe = format!("[[routes]]\ntopic = \"t\"\n[sources.stripe]\nsecrets = [\"{SECRET}\"]\n");
    config("tolerance = \"5m\"", &stripe)
});

fn authentication(name: &str) -> &'static Authentication {
    let mut sources = CONFIG.sources.iter();
    let found = sources.find(|source| source.name == name);
    &found.expect("it is configured").authentication
}

fn verify(name: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let request = Request {
        method: &Method::POST,
        target: &Uri::from_static("/hooks/x"),
        headers,
        body,
        public_url: None,
        at: now(),
    };
    let verdict = authentication(name).verify(&Scope::raw(&request)).is_ok();
    // The verdict on the head alone may only be the milder one.
    assert!(!verdict || authentication(name).check_head(&request).is_ok());
    verdict
}

fn seconds() -> u64 {
    let since_epoch = now().duration_since(UNIX_EPOCH);
    since_epoch.expect("it is after 1970").as_secs()
}

/// Whether Stripe's header has one time that is near, and a signature of it and the body.
fn is_signed_by_stripe(headers: &HeaderMap, body: &[u8]) -> bool {
    let (mut times, mut signatures) = (Vec::new(), Vec::new());
    for line in headers.get_all("stripe-signature") {
        for pair in line.as_bytes().split(|byte| *byte == b',') {
            let pair = pair.trim_ascii();
            if let Some(time) = pair.strip_prefix(b"t=") {
                times.push(time);
            } else if let Some(signature) = pair.strip_prefix(b"v1=") {
                signatures.push(signature.to_ascii_lowercase());
            }
        }
    }
    let [time] = times[..] else { return false };
    let is_signature = |text: &Vec<u8>| text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
    signatures.retain(is_signature);
    signatures.truncate(MAX_SIGNATURES);
    let number = time.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(time).ok().filter(|_| number);
    let number = number.and_then(|text| text.parse::<u64>().ok());
    let wanted = hex(&hmac(&[time, b".", body])).into_bytes();
    number.is_some_and(|number| number.abs_diff(seconds()) <= TOLERANCE)
        && signatures.contains(&wanted)
}

fuzz_target!(|input: &[u8]| {
    let mut lines = Vec::new();
    let mut body = input;
    while body.contains(&b'\n') {
        let (line, rest) = first_line(body);
        body = rest;
        match line.split_first() {
            None => break,
            Some(line) => lines.push(line),
        }
    }
    let good = hex(&hmac(&[seconds().to_string().as_bytes(), b".", body]));
    let mut headers = HeaderMap::new();
    for (kind, value) in lines {
        let (name, value) = match kind {
            b't' => ("x-coalesce-timestamp", value.to_vec()),
            b'p' => ("stripe-signature", with(value, &good)),
            _ => ("x-coalesce-signature", value.to_vec()),
        };
        if let Ok(value) = HeaderValue::from_bytes(value.trim_ascii()) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    if verify("synq", &headers, body) {
        assert_signed(&headers, body);
    }
    let is_signed = is_signed_by_stripe(&headers, body);
    assert_eq!(verify("stripe", &headers, body), is_signed, "{headers:?}");
    // An authentic request is accepted, and with no other body.
    let mut other = body.to_vec();
    other.push(b' ');
    for name in ["synq", "stripe"] {
        let genuine = signed(authentication(name), body);
        assert!(verify(name, &genuine, body));
        assert!(!verify(name, &genuine, &other));
    }
});

/// The value with the signature in place of each `GOOD`.
fn with(value: &[u8], good: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        match rest.strip_prefix(b"GOOD") {
            Some(behind) => {
                all.extend(good.as_bytes());
                rest = behind;
            }
            None => {
                all.push(*first);
                rest = behind;
            }
        }
    }
    all
}
