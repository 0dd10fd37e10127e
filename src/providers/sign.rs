//! The scheme read backwards: signs a request as the provider does, for `hookbridge send` and for tests.

use std::borrow::Cow;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authentication::Authentication;
use super::credentials::Credential;
use super::keys::{Algorithm, Encoding, Key};
use super::request::{Request, Scope};
use super::scheme::{Location, Scheme, Unit};
use crate::secret::Secret;

/// The reason why a request cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignError(pub &'static str);

impl std::fmt::Display for SignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SignError {}

/// A request that is to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'r> {
    /// The method.
    pub method: &'r Method,
    /// The URL that it is sent to.
    pub url: &'r Uri,
    /// The header fields that are not the scheme's.
    pub headers: &'r HeaderMap,
    /// The body.
    pub body: &'r [u8],
    /// The time of signing.
    pub at: SystemTime,
}

/// Prefix of private keys in Standard Webhooks.
const PRIVATE_KEY_PREFIX: &str = "whsk_";

/// A generated secret.
#[derive(Debug)]
pub struct ExampleSecret {
    /// The private key, or the shared secret.
    pub signing: String,
    /// The public key, or the shared secret: the value for `secrets`.
    pub configured: String,
}

/// Generates a secret of the provider's kind, for `hookbridge demo` and tests.
///
/// # Errors
/// Keys of its algorithm cannot be generated here.
pub fn example_secret(authentication: &Authentication) -> Result<ExampleSecret, SignError> {
    const TEXT: &str = "demo-secret";
    const BYTES: &[u8] = b"a secret that everyone may know.";
    let shared = |text: String| ExampleSecret {
        signing: text.clone(),
        configured: text,
    };
    let scheme = match authentication {
        Authentication::Credentials { ways, .. } => {
            return Ok(shared(match ways.first() {
                Some(Credential::Basic) => format!("demo:{TEXT}"),
                _ => TEXT.to_owned(),
            }));
        }
        Authentication::Signature(schemes) => schemes.first(),
    };
    let settings = &scheme
        .ok_or(SignError("the source has no scheme"))?
        .key_settings;
    if settings.algorithm.is_asymmetric() {
        return example_keys(settings.algorithm);
    }
    Ok(shared(match settings.encoding {
        Encoding::Text => TEXT.to_owned(),
        encoding => {
            let text = encoding.encode(BYTES).unwrap_or_default();
            format!("{}{text}", settings.prefix)
        }
    }))
}

fn example_keys(algorithm: Algorithm) -> Result<ExampleSecret, SignError> {
    const FAILED: SignError = SignError("no key could be made");
    let random = SystemRandom::new();
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    match algorithm {
        Algorithm::Ed25519 => {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| FAILED)?;
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| FAILED)?;
            Ok(ExampleSecret {
                signing: base64(pkcs8.as_ref()),
                configured: data_encoding::HEXLOWER.encode(pair.public_key().as_ref()),
            })
        }
        Algorithm::EcdsaP256Sha256 => {
            let signing = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).map_err(|_| FAILED)?;
            let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random);
            let pair = pair.map_err(|_| FAILED)?;
            let point = pair.public_key().as_ref();
            Ok(ExampleSecret {
                signing: base64(pkcs8.as_ref()),
                configured: base64(&[&P256_PREFIX, point].concat()),
            })
        }
        _ => Err(SignError("this program does not make RSA keys")),
    }
}

/// `SubjectPublicKeyInfo` of a P-256 key up to its uncompressed point (RFC 5480 section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The header fields with which the provider authenticates a request.
///
/// # Errors
/// The scheme puts its signature elsewhere, or the secret cannot be used.
pub fn sign(
    authentication: &Authentication,
    secret: &Secret,
    unsigned: Unsigned<'_>,
) -> Result<HeaderMap, SignError> {
    match authentication {
        Authentication::Signature(schemes) => {
            let is_private = secret.expose().starts_with(PRIVATE_KEY_PREFIX);
            let is_for =
                |scheme: &&Scheme| !is_private || scheme.key_settings.algorithm.is_asymmetric();
            let scheme = schemes.iter().find(is_for);
            let scheme = scheme.ok_or(SignError("no scheme of the source has such a secret"))?;
            sign_by(scheme, secret, unsigned)
        }
        Authentication::Credentials { ways, .. } => {
            let way = ways
                .first()
                .ok_or(SignError("the source has no way to authenticate"))?;
            present(way, secret)
        }
    }
}

fn present(way: &Credential, secret: &Secret) -> Result<HeaderMap, SignError> {
    let secret = secret.expose();
    let (name, value) = match way {
        Credential::Bearer => (http::header::AUTHORIZATION, format!("Bearer {secret}")),
        Credential::Basic => {
            let encoded = data_encoding::BASE64.encode(secret.as_bytes());
            (http::header::AUTHORIZATION, format!("Basic {encoded}"))
        }
        Credential::Header(name) => (name.clone(), secret.to_owned()),
        Credential::None => return Ok(HeaderMap::new()),
        Credential::Query(_) => return Err(SignError("the secret belongs into the URL's query")),
    };
    Ok(HeaderMap::from_iter([(name, header_value(&value)?)]))
}

fn sign_by(
    scheme: &Scheme,
    secret: &Secret,
    unsigned: Unsigned<'_>,
) -> Result<HeaderMap, SignError> {
    let Unsigned {
        method,
        url,
        headers,
        body,
        at,
    } = unsigned;
    let mut signed = HeaderMap::new();
    let timestamp = match &scheme.timestamp {
        Some(timestamp) => Some(write_time(timestamp.unit, at)?),
        None => None,
    };
    if let (Some(timestamp), Some(text)) = (&scheme.timestamp, &timestamp)
        && let Location::Header(names) = &timestamp.location
        && let Some(name) = one_of(names, headers)
    {
        signed.insert(name.clone(), header_value(text)?);
    }
    let base = url.to_string();
    let request = Request {
        method,
        target: url,
        headers,
        body,
        public_url: base.split('?').next(),
        at,
    };
    let scope = Scope {
        timestamp: timestamp.as_deref().map(str::as_bytes),
        ..Scope::raw(&request)
    };
    let content = scheme
        .content
        .bytes(&scope)
        .ok()
        .flatten()
        .ok_or(SignError(
            "a header that is signed is missing; add it with --header",
        ))?;
    let signature = signature(scheme, secret, &content)?;
    let placement = &scheme.signature;
    let encoded = placement
        .encoding
        .encode(&signature)
        .ok_or(SignError("the secret is not text"))?;
    let mut value = format!("{}{encoded}", placement.prefix);
    if let Some(field) = &placement.field {
        value = format!("{field}={value}");
    }
    if let (Some(text), Some(Location::Field(field)), Some(separator)) = (
        &timestamp,
        scheme
            .timestamp
            .as_ref()
            .map(|timestamp| &timestamp.location),
        placement.separator,
    ) {
        value = format!("{field}={text}{}{value}", char::from(separator));
    }
    let name = match &placement.location {
        Location::Header(names) => one_of(names, headers).cloned(),
        Location::NumberedHeaders(prefix) => format!("{prefix}1").parse().ok(),
        _ => None,
    };
    let name = name.ok_or(SignError(
        "the scheme's signature is not in a header; sign the body yourself",
    ))?;
    signed.insert(name, header_value(&value)?);
    Ok(signed)
}

/// Of several names for a header field, the one whose first word another field of the request begins with, else the first.
/// A provider with two generations of names does not mix them.
fn one_of<'n>(names: &'n [HeaderName], headers: &HeaderMap) -> Option<&'n HeaderName> {
    let is_of_request = |name: &&HeaderName| {
        let name = name.as_str();
        let bare = name.strip_prefix("x-").unwrap_or(name);
        let word = bare.split_once('-').map_or(bare, |(word, _)| word);
        let family = format!("{}{word}-", if name == bare { "" } else { "x-" });
        headers
            .keys()
            .any(|known| known.as_str().starts_with(&family))
    };
    names.iter().find(is_of_request).or(names.first())
}

fn signature(
    scheme: &Scheme,
    secret: &Secret,
    content: &[Cow<'_, [u8]>],
) -> Result<Vec<u8>, SignError> {
    let settings = &scheme.key_settings;
    if settings.algorithm.is_asymmetric() {
        return sign_asymmetric(settings.algorithm, secret, &content.concat());
    }
    let key = Key::prepare(
        settings.algorithm,
        secret,
        settings.encoding,
        &settings.prefix,
    )
    .map_err(SignError)?;
    match &key {
        Key::Token(token) => Ok(token.to_vec()),
        key => Ok(key.digest(content).as_slice().to_vec()),
    }
}

/// Signs with the private half of a key: the seed of an Ed25519 key in hexadecimal or base64, or PKCS #8 in base64.
fn sign_asymmetric(
    algorithm: Algorithm,
    secret: &Secret,
    content: &[u8],
) -> Result<Vec<u8>, SignError> {
    let unusable = SignError(
        "the private key cannot be used; give PKCS #8 in base64, or the seed of an Ed25519 key in hexadecimal",
    );
    let text = secret.expose().trim();
    let is_standard_webhooks = text.starts_with(PRIVATE_KEY_PREFIX);
    let text = text.strip_prefix(PRIVATE_KEY_PREFIX).unwrap_or(text);
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let bytes = Encoding::Hex
        .decode(text.as_bytes())
        .or_else(|| Encoding::Base64.decode(text.as_bytes()))
        .ok_or(unusable)?;
    match algorithm {
        Algorithm::Ed25519 => {
            // Standard Webhooks has the public key behind the seed.
            let seed = match is_standard_webhooks {
                true => bytes.get(..32).unwrap_or_default(),
                false => bytes.as_slice(),
            };
            let pair = Ed25519KeyPair::from_seed_unchecked(seed)
                .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes));
            Ok(pair.map_err(|_| unusable)?.sign(content).as_ref().to_vec())
        }
        Algorithm::EcdsaP256Sha256 => {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &bytes, &random)
                .map_err(|_| unusable)?;
            Ok(pair
                .sign(&random, content)
                .map_err(|_| unusable)?
                .as_ref()
                .to_vec())
        }
        _ => Err(SignError("this program does not sign with RSA keys")),
    }
}

fn write_time(unit: Unit, at: SystemTime) -> Result<String, SignError> {
    let since_epoch = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| SignError("the clock is before 1970"))?;
    match unit {
        Unit::Seconds => Ok(since_epoch.as_secs().to_string()),
        Unit::Milliseconds => Ok(since_epoch.as_millis().to_string()),
        Unit::Rfc3339 => OffsetDateTime::from(at)
            .format(&Rfc3339)
            .map_err(|_| SignError("the clock is not a time")),
    }
}

fn header_value(text: &str) -> Result<HeaderValue, SignError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| SignError("the secret cannot be a header's value"))?;
    value.set_sensitive(true);
    Ok(value)
}
