//! Shared by the targets: reading of configurations and requests, a clock, the sender's part of a signature, and independent
//! implementations of HMAC and of forms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookbridge::config::{Config, ConfigFile, Origin};
use hookbridge::ingress::{Received, Verified, verify};
use hookbridge::providers::Authentication;
use hookbridge::providers::sign::{Unsigned, sign};
use hookbridge::secret::Secret;
use hookbridge::table::Problems;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use sha2::Sha256;

/// The secret of the source.
pub const SECRET: &str = "whs_fuzz";

/// The time of every request.
#[must_use]
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

/// A configuration.
///
/// # Errors
/// Every problem found.
pub fn read(text: String) -> Result<Config, Problems> {
    let name = "fuzz.toml".to_owned();
    let files = vec![ConfigFile::Text { name, text }];
    let environment = Vec::new();
    Origin { files, environment }.load()
}

/// A configuration with these keys for a SYNQ source, and these routes and brokers.
///
/// # Errors
/// Every problem found.
pub fn load(source: &str, rest: &str) -> Result<Config, Problems> {
    read(format!(
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\
         [sources.synq]\nsecrets = [\"{SECRET}\"]\n{source}\n{rest}"
    ))
}

/// [`read`] for a configuration that must be valid.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn valid(text: &str) -> Config {
    read(text.to_owned()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// [`load`] for a configuration that must be valid.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn config(source: &str, rest: &str) -> Config {
    load(source, rest).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The headers that SYNQ would send with a body.
///
/// # Panics
/// If a body cannot be signed.
#[must_use]
pub fn signed(authentication: &Authentication, body: &[u8]) -> HeaderMap {
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &Uri::from_static("http://localhost/hooks/synq"),
        headers: &HeaderMap::new(),
        body,
        at: now(),
    };
    let secret = Secret::new(SECRET.to_owned()).expect("it is not empty");
    sign(authentication, &secret, unsigned)
        .expect("it can be signed")
        .headers
}

/// The request with these headers and this body, if it is authentic.
#[must_use]
pub fn verified(config: &Config, headers: HeaderMap, body: &[u8]) -> Option<Verified> {
    let source = config.sources.first()?.clone();
    let body = Bytes::copy_from_slice(body);
    verify(Received::from_parts(source, headers, body, now())).ok()
}

/// The HMAC-SHA256 of these parts with [`SECRET`].
#[must_use]
pub fn hmac(parts: &[&[u8]]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes());
    let mut mac = mac.expect("it takes any key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fields of a form, byte for byte, with a simple loop.
#[must_use]
pub fn fields(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut fields = Vec::new();
    for pair in body
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        let (mut name, mut value, mut in_value, mut at) = (Vec::new(), Vec::new(), false, 0);
        while let Some(byte) = pair.get(at) {
            let (decoded, length) = match (byte, digit(pair.get(at + 1)), digit(pair.get(at + 2))) {
                (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
                (b'+', ..) => (b' ', 1),
                _ => (*byte, 1),
            };
            at += length;
            match (byte, in_value) {
                (b'=', false) => in_value = true,
                (_, false) => name.push(decoded),
                (_, true) => value.push(decoded),
            }
        }
        fields.push((name, value));
    }
    fields
}

/// The fields of a form as Twilio signs them: sorted, each value once, without separators.
#[must_use]
pub fn sorted(body: &[u8]) -> Vec<u8> {
    let mut sorted = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, value) in fields(body) {
        sorted.entry(name).or_default().insert(value);
    }
    let mut content = Vec::new();
    for (name, values) in sorted {
        for value in values {
            content.extend(&name);
            content.extend(value);
        }
    }
    content
}

/// Fails unless one of the signatures in the headers matches one of their timestamps and the body.
///
/// # Panics
/// If the body was not signed.
pub fn assert_signed(headers: &HeaderMap, body: &[u8]) {
    let texts = headers.get_all("x-coalesce-signature").iter();
    let signatures: Vec<String> = texts
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
        .collect();
    let mut timestamps = headers.get_all("x-coalesce-timestamp").iter();
    let is_signed = timestamps.any(|timestamp| {
        let wanted = hex(&hmac(&[timestamp.as_bytes(), b".", body]));
        signatures
            .iter()
            .any(|signature| signature.contains(&wanted))
    });
    assert!(is_signed, "accepted though nobody signed it: {headers:?}");
}

/// The first line of an input, and the rest.
#[must_use]
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
    (line, rest.get(1..).unwrap_or_default())
}

/// A request from an input: lines `NAME: VALUE`, an empty line, a body. Other lines are ignored.
#[must_use]
pub fn request(input: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut body = input;
    while body.contains(&b'\n') {
        let (line, rest) = first_line(body);
        body = rest;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, body)
}
