//! Step 2: only authentic requests pass. Before that, nothing of the body is logged, and it is parsed only for schemes
//! whose signature or signed values are inside it, for events that carry the secret, and for handshakes that their
//! provider does not sign; then only those values are read.

use std::sync::Arc;

use super::parse;
use super::received::Received;
use crate::config::Source;
use crate::event::Refusal;
use crate::json::Document;
use crate::providers::handshake::Reply;
use crate::providers::keys::Key;
use crate::providers::text::Parsing;
use crate::providers::{Request, Scope, Unverified};

/// A request whose signature was verified. Only [`verify`] and, for `explain`, [`Verified::assumed`] make one:
///
/// ```compile_fail,E0451
/// fn forge(received: hookbridge::ingress::Received) -> hookbridge::ingress::Verified {
///     hookbridge::ingress::Verified { received, secret_index: None }
/// }
/// ```
#[derive(Debug)]
pub struct Verified {
    received: Received,
    secret_index: Option<usize>,
    /// Further secrets, if each event carries one.
    other_secrets: Vec<usize>,
    nonce: Option<Box<str>>,
    is_assumed: bool,
}

impl Verified {
    /// Treats a request as authentic, for `hookbridge explain`, which publishes nothing.
    pub(crate) fn assumed(received: Received) -> Self {
        Self {
            received,
            secret_index: None,
            other_secrets: Vec::new(),
            nonce: None,
            is_assumed: true,
        }
    }

    /// The index of the secret that verified the request; `None` if the source accepts requests from anyone.
    #[must_use]
    pub fn secret_index(&self) -> Option<usize> {
        self.secret_index
    }

    /// Further secrets that verified it.
    #[must_use]
    pub fn other_secrets(&self) -> &[usize] {
        &self.other_secrets
    }

    /// The text that only this delivery may have, where its signature does not cover the body.
    pub(super) fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// Whether the request is only assumed to be authentic.
    pub(super) fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// The key that signed the request.
    pub(super) fn key(&self) -> Option<&Key> {
        self.source().authentication.key(self.secret_index?)
    }

    #[must_use]
    pub fn request(&self) -> &Received {
        &self.received
    }

    /// The source the request was sent to.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        self.received.source()
    }
}

/// Verifies a request.
///
/// # Errors
/// The reason why the request does not count as the provider's.
pub fn verify(received: Received) -> Result<Verified, Refusal> {
    let (secret_index, other_secrets, nonce) = {
        let request = received.as_request();
        let source = received.source();
        let authentication = &source.authentication;
        let verdict = if source.body_needs == Parsing::default() {
            let scope = Scope::raw(&request);
            let verdict = authentication.verify(&scope).map_err(to_refusal);
            verdict.map(|secret_index| (secret_index, nonce_of(source, &scope)))
        } else {
            verify_content(source, &request)
        };
        match verdict {
            Ok((secret_index, nonce)) => (secret_index, Vec::new(), nonce),
            Err(_) if authentication.is_in_events() => {
                let mut indices = verify_events(source, &request)?;
                (indices.pop(), indices, None)
            }
            Err(refusal) => return Err(refusal),
        }
    };
    Ok(Verified {
        received,
        secret_index,
        other_secrets,
        nonce,
        is_assumed: false,
    })
}

/// Verifies a request whose events carry the secret. The body is parsed here, and again afterwards, since everything
/// that reads events takes a [`Verified`].
#[cold]
fn verify_events(source: &Source, request: &Request<'_>) -> Result<Vec<usize>, Refusal> {
    let mapping = &source.mapping;
    let content = parse::content(mapping, request.headers, request.body)?;
    let text = content.json().ok().flatten().ok_or(Refusal::Unauthorized)?;
    let document = parse::read(text)?;
    let events = match mapping.is_batch() {
        true => mapping.elements(&document)?,
        false => vec![document.root()],
    };
    let authentication = &source.authentication;
    let verdict = authentication.verify_events(document.root(), &events, request);
    parse::refuse_if_ambiguous(&document)?;
    verdict.map_err(to_refusal)
}

/// The nonce of a verified request.
fn nonce_of(source: &Source, scope: &Scope<'_>) -> Option<Box<str>> {
    source.nonce_lifetime?;
    let nonce = source.authentication.nonce(scope)?;
    Some(nonce.into_boxed_str())
}

/// Verifies a request whose signature or signed values are in the body.
fn verify_content(
    source: &Source,
    request: &Request<'_>,
) -> Result<(Option<usize>, Option<Box<str>>), Refusal> {
    let authentication = &source.authentication;
    // Cheaper than parsing.
    authentication.check_head(request).map_err(to_refusal)?;
    let content = parse::content(&source.mapping, request.headers, request.body)?;
    let text = content
        .json()
        .map_err(|repeated| to_refusal(repeated.into()))?;
    let document = text
        .filter(|_| source.body_needs.json)
        .map(parse::read)
        .transpose()?;
    let scope = Scope {
        form: content.form(),
        node: document.as_ref().map(Document::root),
        ..Scope::raw(request)
    };
    let secret_index = authentication.verify(&scope).map_err(to_refusal)?;
    let nonce = nonce_of(source, &scope);
    // Readers could disagree on which of two values counts.
    match document.and_then(|document| document.ambiguous_name().map(|_| ())) {
        Some(()) => Err(Refusal::InvalidSignature),
        None => Ok((secret_index, nonce)),
    }
}

/// The maximum size in bytes of a body that is checked for a handshake its provider does not sign.
const MAX_OPEN_HANDSHAKE_BYTES: usize = 8 * 1024;

/// Whether a body of this length may hold a handshake that its provider does not sign.
pub(super) fn may_be_open_handshake(source: &Source, length: usize) -> bool {
    source.has_open_handshake && length <= MAX_OPEN_HANDSHAKE_BYTES
}

/// The answer to a handshake that its provider does not sign and that can be recognized only by its body.
pub(crate) fn open_handshake(received: &Received) -> Option<Box<Reply>> {
    let source = received.source();
    if !may_be_open_handshake(source, received.body().len()) {
        return None;
    }
    let request = received.as_request();
    let content = parse::content(&source.mapping, request.headers, request.body).ok()?;
    let document = content.json().ok()?.map(parse::read).transpose().ok()?;
    let scope = Scope {
        form: content.form(),
        node: document.as_ref().map(Document::root),
        ..Scope::raw(&request)
    };
    let mut handshakes = source.handshakes.iter();
    let handshake = handshakes
        .find(|handshake| !handshake.verified && handshake.matches(&scope).unwrap_or(false))?;
    let reply = handshake.reply(&scope, None).ok().flatten()?;
    let is_ambiguous = document.is_some_and(|document| document.ambiguous_name().is_some());
    (!is_ambiguous).then(|| Box::new(reply))
}

/// Refuses requests whose head already shows that they are not authentic, before waiting for the body.
pub(super) fn verify_head(source: &Source, request: &Request<'_>) -> Result<(), Refusal> {
    source
        .authentication
        .check_head(request)
        .map_err(to_refusal)
}

#[cold]
pub(super) fn to_refusal(unverified: Unverified) -> Refusal {
    match unverified {
        Unverified::MissingSignature => Refusal::MissingSignature,
        Unverified::InvalidSignature => Refusal::InvalidSignature,
        Unverified::StaleTimestamp => Refusal::StaleTimestamp,
        Unverified::Unauthorized => Refusal::Unauthorized,
        Unverified::KeyUnavailable => Refusal::ProviderUnavailable {
            cause: "the certificate that it names is not available",
        },
    }
}

#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Origin};
    use bytes::Bytes;
    use form_urlencoded::Serializer;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;
    use serde_json::json;
    use sha2::Sha256;
    use std::time::{Duration, SystemTime};

    const NOW: u64 = 1_795_132_800;

    fn source(media_type: &str, event: &str, verify: &str) -> Arc<Source> {
        let text = format!(
            r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[[routes]]
topic = "t"
[sources.acme]
secrets = ["a secret of ours"]
media_types = ["{media_type}"]
[sources.acme.event]
id = "{{uuid}}"
type = "x"
{event}
[sources.acme.verify]
algorithm = "hmac-sha256"
tolerance = "5m"
{verify}
"#
        );
        let name = "test.toml".to_owned();
        let files = vec![ConfigFile::Text { name, text }];
        let environment = Vec::new();
        let config = Origin { files, environment }.load();
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        Arc::clone(&config.sources[0])
    }

    fn of_form() -> Arc<Source> {
        source(
            FORM,
            "body = \"form\"",
            "signature = { form = \"sig\" }\ncontent = \"{form:a}.{timestamp}\"\ntimestamp = { form = \"at\" }",
        )
    }

    fn of_json() -> Arc<Source> {
        source(
            JSON,
            "",
            "signature = { pointer = \"/s/sig\" }\ncontent = \"{/a}.{timestamp}\"\ntimestamp = { pointer = \"/s/at\" }",
        )
    }

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";

    fn verdict(source: &Arc<Source>, body: &[u8]) -> Result<Option<usize>, Refusal> {
        let media_type = source.media_types[0].parse::<HeaderValue>().unwrap();
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, media_type)]);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let body = Bytes::copy_from_slice(body);
        let received = Received::from_parts(Arc::clone(source), headers, body, at);
        verify(received).map(|verified| verified.secret_index())
    }

    fn signature(a: &str, at: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret of ours").unwrap();
        mac.update(format!("{a}.{at}").as_bytes());
        data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
    }

    fn form(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields).finish().into_bytes()
    }

    #[test]
    fn a_body_that_cannot_be_read_or_repeats_a_signed_value_is_refused() {
        let at = NOW.to_string();
        let good = signature("1", &at);
        let (forms, jsons) = (of_form(), of_json());
        let fields = [("a", "1"), ("at", &at), ("sig", &good)];
        assert_eq!(verdict(&forms, &form(&fields)), Ok(Some(0)));
        for field in fields {
            let twice = form(&[&fields[..], &[field]].concat());
            assert_eq!(verdict(&forms, &twice), Err(Refusal::InvalidSignature));
        }
        let many = "x&".repeat(1001);
        assert_eq!(
            verdict(&forms, many.as_bytes()).unwrap_err().code(),
            "invalid_event"
        );
        let object = format!(r#"{{"a":"1","s":{{"at":{at},"sig":"{good}"}}}}"#);
        assert_eq!(verdict(&jsons, object.as_bytes()), Ok(Some(0)));
        for (found, twice) in [
            ("\"a\":\"1\"", "\"a\":\"1\",\"a\":\"1\""),
            ("\"s\":", "\"s\":1,\"s\":"),
            ("\"at\":", "\"\\u0061t\":2,\"at\":"),
            ("\"sig\":", "\"sig\":\"\",\"sig\":"),
        ] {
            let twice = object.replacen(found, twice, 1);
            assert_ne!(twice, object);
            assert!(verdict(&jsons, twice.as_bytes()).is_err(), "{twice}");
        }
        // A value that is not signed may be repeated as far as this step is concerned.
        let unsigned = object.replacen('{', "{\"b\":1,\"b\":2,", 1);
        assert_eq!(verdict(&jsons, unsigned.as_bytes()), Ok(Some(0)));
        for (body, code) in [
            ("{", "invalid_json"),
            ("\u{FEFF}{}", "invalid_encoding"),
            ("{}", "missing_signature"),
            ("[]", "missing_signature"),
        ] {
            assert_eq!(verdict(&jsons, body.as_bytes()).unwrap_err().code(), code);
        }
        let deep = ["[".repeat(100), "]".repeat(100)].concat();
        assert_eq!(
            verdict(&jsons, deep.as_bytes()).unwrap_err().code(),
            "invalid_json"
        );
    }

    /// A pair of keys for tokens, and a file with the public one.
    fn token_keys(name: &str) -> (ring::signature::EcdsaKeyPair, std::path::PathBuf) {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let encode = |bytes| data_encoding::BASE64URL_NOPAD.encode(bytes);
        let jwk =
            json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": encode(x), "y": encode(y) });
        let file = format!("hookbridge-{name}-{}.json", std::process::id());
        let file = std::env::temp_dir().join(file);
        std::fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
        (pair, file)
    }

    #[test]
    fn each_tenant_of_a_source_needs_a_token_of_its_own() {
        let (pair, file) = token_keys("tenants");
        let text = format!(
            r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[[routes]]
topic = "t"
[sources.microsoft-graph]
secrets = ["a secret of ours"]
[sources.microsoft-graph.validation_tokens]
keys = "{}"
issuer = ["https://sts.windows.net/tenant-a/", "https://login.microsoftonline.com/tenant-b/v2.0"]
audience = ["app-1", "app-2"]
appid = ["graph", "graph-2"]
"#,
            file.display()
        );
        let name = "test.toml".to_owned();
        let files = vec![ConfigFile::Text { name, text }];
        let environment = Vec::new();
        let config = Origin { files, environment }.load();
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        std::fs::remove_file(&file).unwrap();
        let source = Arc::clone(&config.sources[0]);
        let token = |issuer: &str, audience: &str, appid: &str| {
            let claims = json!({ "iss": issuer, "aud": audience, "appid": appid, "exp": NOW + 60 });
            let encode = |value: serde_json::Value| {
                data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes())
            };
            let header = json!({ "alg": "ES256", "kid": "k" });
            let signed = format!("{}.{}", encode(header), encode(claims));
            let random = ring::rand::SystemRandom::new();
            let signature = pair.sign(&random, signed.as_bytes()).unwrap();
            let signature = data_encoding::BASE64URL_NOPAD.encode(signature.as_ref());
            format!("{signed}.{signature}")
        };
        let a = token("https://sts.windows.net/tenant-a/", "app-1", "graph");
        let b = token(
            "https://login.microsoftonline.com/tenant-b/v2.0",
            "app-2",
            "graph-2",
        );
        let c = token("https://sts.windows.net/tenant-c/", "app-1", "graph");
        let other_app = token("https://sts.windows.net/tenant-a/", "app-3", "graph");
        let other_sender = token("https://sts.windows.net/tenant-a/", "app-1", "another");
        let rich = |tenant: &str| json!({ "clientState": "a secret of ours", "tenantId": tenant, "encryptedContent": {} });
        let basic = json!({ "clientState": "a secret of ours", "tenantId": "tenant-c" });
        let without = json!({ "clientState": "a secret of ours", "encryptedContent": {} });
        for (events, tokens, holds) in [
            (vec![rich("tenant-a")], vec![&a], true),
            (vec![rich("tenant-b"), rich("tenant-a")], vec![&a, &b], true),
            (vec![rich("tenant-a"), basic], vec![&a], true),
            (vec![rich("tenant-b")], vec![&a], false),
            (vec![rich("tenant-a"), rich("tenant-b")], vec![&a], false),
            (vec![rich("tenant-a")], vec![&a, &c], false),
            (vec![rich("tenant-a")], vec![], false),
            (vec![rich("")], vec![&a], false),
            (vec![without], vec![&a], false),
            (vec![rich("tenant-a")], vec![&other_app], false),
            (vec![rich("tenant-a")], vec![&other_sender], false),
        ] {
            let body = json!({ "value": events, "validationTokens": tokens }).to_string();
            let found = verdict(&source, body.as_bytes());
            let expected = if holds {
                Ok(Some(0))
            } else {
                Err(Refusal::Unauthorized)
            };
            assert_eq!(found, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn signatures_in_bodies_are_those_of_an_independent_reading(
            a in "\\PC{1,12}",
            other in "\\PC{1,12}",
            late in 0..700_u64,
            more in proptest::collection::vec(("[b-z]{1,3}", "\\PC{0,6}"), 0..5),
        ) {
            let time = (NOW - late).to_string();
            let good = signature(&a, &time);
            let wanted = if late <= 300 { Ok(Some(0)) } else { Err(Refusal::StaleTimestamp) };
            let wrong = if a == other { wanted.clone() } else { Err(Refusal::InvalidSignature) };

            let more: Vec<_> = more.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| *name != "sig").collect();
            let with = |a: &str| form(&[&more[..], &[("sig", &good), ("a", a), ("at", &time)]].concat());
            prop_assert_eq!(verdict(&of_form(), &with(&a)), wanted.clone());
            prop_assert_eq!(verdict(&of_form(), &with(&other)), wrong.clone());

            let with = |a: &str| {
                let mut body = json!({ "a": a, "s": { "at": time, "sig": good } });
                for (name, value) in &more {
                    if *name != "s" {
                        body[*name] = (*value).into();
                    }
                }
                body.to_string().into_bytes()
            };
            prop_assert_eq!(verdict(&of_json(), &with(&a)), wanted);
            prop_assert_eq!(verdict(&of_json(), &with(&other)), wrong);
        }
    }
}
