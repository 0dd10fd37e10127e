//! Signs requests as providers do, for `hookbridge send` and for tests.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use super::authentication::Authentication;
use super::credentials::{Credential, Member};
use super::keys::{Algorithm, Encoding, Key};
use super::request::{Form, Request, Scope};
use super::scheme::{Location, Scheme};
use crate::json::{Document, NodeKind, Pointer};
use crate::secret::Secret;

pub use super::unsigned::{SignError, Signed, Unsigned};

/// Prefix of private keys in Standard Webhooks.
const PRIVATE_KEY_PREFIX: &str = "whsk_";

const NO_RSA_KEYS: SignError = SignError("RSA keys cannot be generated here");

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
        Authentication::Hook(_) => return Err(NO_RSA_KEYS),
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
    const FAILED: SignError = SignError("no key could be generated");
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
        _ => Err(NO_RSA_KEYS),
    }
}

/// `SubjectPublicKeyInfo` of a P-256 key up to its uncompressed point (RFC 5480 section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Signs a request as the provider does, with the first suitable scheme.
///
/// # Errors
/// The request lacks a signed part, or the secret is unusable.
pub fn sign(
    authentication: &Authentication,
    secret: &Secret,
    unsigned: Unsigned<'_>,
) -> Result<Signed, SignError> {
    match authentication {
        Authentication::Hook(verifier) => verifier.sign(secret, unsigned),
        Authentication::Signature(schemes) => {
            let is_private = secret.expose().starts_with(PRIVATE_KEY_PREFIX);
            let is_for =
                |scheme: &&Scheme| !is_private || scheme.key_settings.algorithm.is_asymmetric();
            let mut failure = None;
            for scheme in schemes.iter().filter(is_for) {
                match sign_by(scheme, secret, unsigned) {
                    Ok(signed) => return Ok(signed),
                    Err(reason) => failure = failure.or(Some(reason)),
                }
            }
            Err(failure.unwrap_or(SignError("no scheme of the source has such a secret")))
        }
        Authentication::Credentials { ways, .. } => {
            let way = ways
                .first()
                .ok_or(SignError("the source has no way to authenticate"))?;
            with_credential(way, secret, unsigned)
        }
    }
}

fn with_credential(
    way: &Credential,
    secret: &Secret,
    unsigned: Unsigned<'_>,
) -> Result<Signed, SignError> {
    let mut signed = Signed {
        headers: HeaderMap::new(),
        url: unsigned.url.clone(),
        body: unsigned.body.to_vec(),
    };
    let text = secret.expose();
    let (name, value) = match way {
        Credential::Bearer => (http::header::AUTHORIZATION, format!("Bearer {text}")),
        Credential::Basic => {
            let encoded = data_encoding::BASE64.encode(text.as_bytes());
            (http::header::AUTHORIZATION, format!("Basic {encoded}"))
        }
        Credential::Header(name) => (name.clone(), text.to_owned()),
        Credential::Jwt(jwt) => {
            let base = unsigned.url.to_string();
            let request = unsigned.as_request(&base, unsigned.url, unsigned.body);
            let token = jwt.sign(secret, &request).ok_or(SignError(
                "tokens for a file of public keys cannot be made here",
            ))?;
            (http::header::AUTHORIZATION, format!("Bearer {token}"))
        }
        Credential::None => return Ok(signed),
        Credential::Event(member) => {
            signed.body = write_into_events(member, secret, unsigned.body)?;
            return Ok(signed);
        }
        Credential::Query(name) => {
            signed.url = with_parameter(unsigned.url, name, text)?;
            return Ok(signed);
        }
    };
    signed.headers.insert(name, header_value(&value)?);
    Ok(signed)
}

/// Writes the secret into each event that lacks one.
fn write_into_events(member: &Member, secret: &Secret, body: &[u8]) -> Result<Vec<u8>, SignError> {
    let name = member.pointer.as_str().trim_start_matches('/');
    if name.contains(['/', '~', '"', '\\']) {
        return Err(SignError(
            "the secret is nested in the events; write it there yourself",
        ));
    }
    let no_events = SignError("the body has no events to write the secret into");
    let document = Document::parse(body).map_err(|_| no_events)?;
    let root = document.root();
    let events = match member.split.as_deref() {
        None => vec![root],
        Some("") => root.elements().collect(),
        Some(split) => {
            let array = Pointer::parse(split).ok().and_then(|split| root.at(&split));
            array.map_or(Vec::new(), |array| array.elements().collect())
        }
    };
    let value = serde_json::Value::from(secret.expose());
    let mut written = Vec::with_capacity(body.len());
    let mut rest = body;
    for event in events {
        let raw = event.raw();
        let start = raw.as_ptr().addr().checked_sub(rest.as_ptr().addr());
        let split = start.and_then(|start| rest.split_at_checked(start + 1));
        if let Some((before, after)) = split
            && event.kind() == NodeKind::Object
            && event.get(name).is_none()
        {
            let separator = if event.is_empty() { "" } else { "," };
            written.extend_from_slice(before);
            written.extend_from_slice(format!("\"{name}\":{value}{separator}").as_bytes());
            rest = after;
        }
    }
    written.extend_from_slice(rest);
    Ok(written)
}

impl<'r> Unsigned<'r> {
    fn as_request(&self, base: &'r str, url: &'r Uri, body: &'r [u8]) -> Request<'r> {
        Request {
            method: self.method,
            target: url,
            headers: self.headers,
            body,
            public_url: base.split('?').next(),
            at: self.at,
        }
    }

    fn is_form(&self) -> bool {
        let content_type = self.headers.get(http::header::CONTENT_TYPE);
        let media_type = content_type
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next());
        media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(FORM))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn sign_by(scheme: &Scheme, secret: &Secret, unsigned: Unsigned<'_>) -> Result<Signed, SignError> {
    let mut signed = Signed {
        headers: HeaderMap::new(),
        url: unsigned.url.clone(),
        body: unsigned.body.to_vec(),
    };
    let timestamp = match &scheme.timestamp {
        Some(timestamp) => Some(timestamp.unit.write(unsigned.at)?),
        None => None,
    };
    let of_time = scheme
        .timestamp
        .as_ref()
        .map(|timestamp| &timestamp.location);
    if let (Some(location), Some(text)) = (of_time, &timestamp) {
        signed.place_part(location, text, &unsigned)?;
    }
    if let Some(location) = &scheme.body_digest {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&signed.body));
        signed.place_part(location, &digest, &unsigned)?;
    }
    let signature = {
        let base = signed.url.to_string();
        let request = unsigned.as_request(&base, &signed.url, &signed.body);
        let needs = scheme.needs();
        let form = (needs.form && unsigned.is_form()).then(|| Form::parse(&signed.body));
        let document = needs.json.then(|| Document::parse(&signed.body).ok());
        let document = document.flatten();
        let scope = Scope {
            timestamp: timestamp.as_deref().map(str::as_bytes),
            form: form.as_ref().and_then(Option::as_ref),
            node: document.as_ref().map(Document::root),
            ..Scope::raw(&request)
        };
        let content = scheme
            .content
            .bytes(&scope)
            .ok()
            .flatten()
            .ok_or(SignError(
                "a header, field or value that is signed is missing; add headers with --header",
            ))?;
        signature(scheme, secret, &content)?
    };
    let placement = &scheme.signature;
    let encoded = placement
        .encoding
        .encode(&signature)
        .ok_or(SignError("the secret is not text"))?;
    let mut value = format!("{}{encoded}", placement.prefix);
    if let Some(field) = &placement.field {
        value = format!("{field}={value}");
    }
    if let (Some(text), Some(Location::Field(field)), Some(separator)) =
        (&timestamp, of_time, placement.separator)
    {
        value = format!("{field}={text}{}{value}", char::from(separator));
    }
    signed.place_part(&placement.location, &value, &unsigned)?;
    Ok(signed)
}

impl Signed {
    /// Puts a part of the scheme into its place.
    fn place_part(
        &mut self,
        location: &Location,
        text: &str,
        unsigned: &Unsigned<'_>,
    ) -> Result<(), SignError> {
        let not_a_form = SignError("the scheme signs forms; add the content type with --header");
        match location {
            Location::Header(names) => {
                let name =
                    one_of(names, unsigned.headers).ok_or(SignError("the scheme has no header"))?;
                self.headers.insert(name.clone(), header_value(text)?);
            }
            Location::NumberedHeaders(prefix) => {
                let name = HeaderName::try_from(format!("{prefix}1"));
                let name = name.map_err(|_| SignError("the scheme has no header"))?;
                self.headers.insert(name, header_value(text)?);
            }
            Location::Query(name) => self.url = with_parameter(&self.url, name, text)?,
            Location::Form(name) if unsigned.is_form() => {
                let others = form_urlencoded::parse(&self.body).filter(|(known, _)| known != name);
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(others).append_pair(name, text);
                self.body = form.finish().into_bytes();
            }
            Location::Form(_) => return Err(not_a_form),
            Location::Pointer(pointer) => self.body = with_value(&self.body, pointer, text)?,
            // Written together with the signature.
            Location::Field(_) => {}
        }
        Ok(())
    }
}

/// Of several names for a header, returns the one that shares its first word with another header of the request, or the
/// first. A provider with two generations of names does not mix them.
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

fn with_parameter(url: &Uri, name: &str, value: &str) -> Result<Uri, SignError> {
    let invalid = SignError("the URL cannot carry the scheme's parameter");
    let pair = form_urlencoded::Serializer::new(String::new())
        .append_pair(name, value)
        .finish();
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}{pair}")
        .parse()
        .map_err(|_| invalid)
}

/// Sets a string in a JSON body, creating the objects around it. A number that is already there stays a number.
fn with_value(body: &[u8], pointer: &Pointer, text: &str) -> Result<Vec<u8>, SignError> {
    let invalid =
        SignError("the scheme puts its signature into the body, which has no place for it");
    let mut value: serde_json::Value = serde_json::from_slice(body).map_err(|_| invalid)?;
    let mut at = &mut value;
    for token in pointer.as_str().split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        let object = at.as_object_mut().ok_or(invalid)?;
        at = object
            .entry(name)
            .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
    }
    *at = match text.parse::<u64>() {
        Ok(number) if at.is_number() => number.into(),
        _ => text.into(),
    };
    serde_json::to_vec(&value).map_err(|_| invalid)
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

/// Signs with a private key: the seed of an Ed25519 key in hexadecimal or base64, or PKCS #8 in base64.
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
            // In Standard Webhooks, the public key follows the seed.
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
        _ => Err(SignError("signing with RSA keys is not supported")),
    }
}

fn header_value(text: &str) -> Result<HeaderValue, SignError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| SignError("the secret cannot be a header's value"))?;
    value.set_sensitive(true);
    Ok(value)
}
