//! SYNQ's headers: lines `t VALUE` and `s VALUE`, an empty line, a body. Whatever is accepted must have been signed.
#![no_main]

use std::sync::LazyLock;

use hookbridge::config::Config;
use hookbridge::providers::{Authentication, Request, Scope};
use hookbridge_fuzz::{assert_signed, config, first_line, now, signed};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| config("tolerance = \"5m\"", "[[routes]]\ntopic = \"t\"\n"));

fn authentication() -> &'static Authentication {
    &CONFIG.sources[0].authentication
}

fn verify(headers: &HeaderMap, body: &[u8]) -> bool {
    let request = Request {
        method: &Method::POST,
        target: &Uri::from_static("/hooks/synq"),
        headers,
        body,
        public_url: None,
        at: now(),
    };
    authentication().verify(&Scope::raw(&request)).is_ok()
}

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut body = input;
    while body.contains(&b'\n') {
        let (line, rest) = first_line(body);
        body = rest;
        let name = match line.split_first() {
            None => break,
            Some((b't', _)) => HeaderName::from_static("x-coalesce-timestamp"),
            Some(_) => HeaderName::from_static("x-coalesce-signature"),
        };
        if let Ok(value) = HeaderValue::from_bytes(line[1..].trim_ascii()) {
            headers.append(name, value);
        }
    }
    if verify(&headers, body) {
        assert_signed(&headers, body);
    }
    // An authentic request is accepted, and with no other body.
    let genuine = signed(authentication(), body);
    assert!(verify(&genuine, body));
    let mut other = body.to_vec();
    other.push(b' ');
    assert!(!verify(&genuine, &other));
});
