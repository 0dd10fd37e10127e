//! A form whose every field is signed (Twilio's rule), and one with its signature among its fields (Mailgun's): a body,
//! an empty line, another body. Bodies with an independently made signature are accepted unless they begin as JSON does,
//! others only if they are equivalent.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hookbridge::config::{Config, Source};
use hookbridge::ingress::{Received, decide, verify};
use hookbridge_fuzz::{fields, hex, hmac, sorted, valid};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_795_000_000;
const URL: &str = "https://hooks.example.com/hooks/twilio";
const MAX_FIELDS: usize = 1000;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    valid(
        r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[sources.mailgun]
secrets = ["whs_fuzz"]
[sources.twilio]
secrets = ["whs_fuzz"]
scheme = "sharedkey-sha256"
public_url = "https://hooks.example.com/hooks/twilio"
[[routes]]
topic = "t"
"#,
    )
});

fn source(name: &str) -> &'static Arc<Source> {
    let mut sources = CONFIG.sources.iter();
    let found = sources.find(|source| source.name == name);
    found.expect("it is configured")
}

fn twilio_content(body: &[u8]) -> Vec<u8> {
    [URL.as_bytes(), &sorted(body)].concat()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let number = number << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// Whether a form is accepted. Accepted ones are processed without a panic.
fn is_accepted(source: &Arc<Source>, signature: Option<&str>, body: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(http::header::CONTENT_TYPE, form);
    if let Some(signature) = signature {
        let value = HeaderValue::from_str(signature).expect("it is base64");
        headers.insert("x-twilio-signature", value);
    }
    let at = UNIX_EPOCH + Duration::from_secs(NOW);
    let body = Bytes::copy_from_slice(body);
    let received = Received::from_parts(Arc::clone(source), headers, body, at);
    let verified = verify(received);
    if let Ok(verified) = &verified {
        drop(decide(verified));
    }
    verified.is_ok()
}

fuzz_target!(|input: &[u8]| {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (body, other) = match end {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &input[..0]),
    };
    let is_form = |body: &[u8]| {
        let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'));
        !is_json && fields(body).len() <= MAX_FIELDS
    };
    let signature = base64(&hmac(&[&twilio_content(body)]));
    let twilio = source("twilio");
    assert_eq!(is_accepted(twilio, Some(&signature), body), is_form(body));
    let is_same = twilio_content(body) == twilio_content(other);
    assert_eq!(
        is_accepted(twilio, Some(&signature), other),
        is_same && is_form(other)
    );
    assert!(!is_accepted(twilio, None, body));

    let token = fields(other).into_iter().next().map(|(name, _)| name);
    let token = token.unwrap_or_default();
    let digest = hex(&hmac(&[NOW.to_string().as_bytes(), &token]));
    let encoded: String = token.iter().map(|byte| format!("%{byte:02x}")).collect();
    let signed = format!("&timestamp={NOW}&token={encoded}&signature={digest}");
    let with_fields = [body, signed.as_bytes()].concat();
    let ours: [&[u8]; 3] = [b"timestamp", b"token", b"signature"];
    let is_once = |name: &&[u8]| {
        let all = fields(&with_fields);
        all.iter().filter(|(known, _)| known == name).count() == 1
    };
    // A token that is not text has no bytes that could result in the same signature.
    let is_good =
        std::str::from_utf8(&token).is_ok() && ours.iter().all(is_once) && is_form(&with_fields);
    assert_eq!(is_accepted(source("mailgun"), None, &with_fields), is_good);
});
