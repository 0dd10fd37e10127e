//! SYNQ's headers: lines `t VALUE` and `s VALUE`, an empty line, a body. Whatever is accepted must have been signed.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hookbridge::config::{Config, ConfigFile, Origin};
use hookbridge::providers::sign::{Unsigned, sign};
use hookbridge::providers::{Authentication, Request, Scope};
use hookbridge::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const SECRET: &str = "whs_fuzz";
const NOW: Duration = Duration::from_secs(1_795_000_000);

fn secret() -> Secret {
    Secret::new(SECRET.to_owned()).expect("it is not empty")
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[sources.synq]
secrets = ["whs_fuzz"]
tolerance = "5m"
[[routes]]
topic = "t"
"#;
    let (name, text) = ("fuzz.toml".to_owned(), text.to_owned());
    let files = vec![ConfigFile::Text { name, text }];
    let environment = Vec::new();
    let config = Origin { files, environment }.load();
    config.unwrap_or_else(|problems| panic!("{problems}"))
});

fn authentication() -> &'static Authentication {
    &CONFIG.sources[0].authentication
}

fn digest(timestamp: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
    for part in [timestamp, b".", body] {
        mac.update(part);
    }
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify(headers: &HeaderMap, body: &[u8]) -> bool {
    let request = Request {
        method: &Method::POST,
        target: &Uri::from_static("/hooks/synq"),
        headers,
        body,
        public_url: None,
        at: UNIX_EPOCH + NOW,
    };
    authentication().verify(&Scope::raw(&request)).is_ok()
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
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &Uri::from_static("http://localhost/hooks/synq"),
        headers: &HeaderMap::new(),
        body,
        at: UNIX_EPOCH + NOW,
    };
    let signed = sign(authentication(), &secret(), unsigned).expect("it can be signed");
    let genuine = signed.headers;
    assert!(verify(&genuine, body));
    let mut other = body.to_vec();
    other.push(b' ');
    assert!(!verify(&genuine, &other));
});
