//! JSON Web Tokens (RFC 7519) in `Authorization`. They authenticate the sender of a request, not its body.
//!
//! Verified without a crate: the available ones read the system clock and bring their own cryptography. The key
//! determines the algorithm, never the token.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use http::header::AUTHORIZATION;
use ring::{hmac, signature};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::keys::ED25519_PREFIX;
use super::request::{Request, Scope, after_scheme};
use super::scheme::Unverified;
use super::text::Text;
use crate::secret::Secret;
use crate::table::{Section, private};

/// The maximum size of a token in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The maximum size of a key file in bytes, and the maximum number of keys, since each may be tried.
const MAX_KEY_FILE_BYTES: u64 = 1024 * 1024;
const MAX_KEYS: usize = 64;

/// The maximum time that an issuer's clock may be ahead of the bridge's.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The lifetime of tokens made here.
const LIFETIME: Duration = Duration::from_secs(300);

/// The conditions for a token.
#[derive(Debug)]
pub struct Jwt {
    keys: Vec<TokenKey>,
    has_key_file: bool,
    /// Of each of these lists a token must have one; an empty list takes any.
    issuers: Vec<String>,
    audiences: Vec<Text>,
    appids: Vec<String>,
}

/// A key, and the index of the secret that it was made from.
#[derive(Debug)]
struct TokenKey {
    id: Option<String>,
    key: Key,
    secret: Option<usize>,
}

enum Key {
    Hmac(hmac::Key),
    Rsa(signature::RsaPublicKeyComponents<Vec<u8>>),
    /// A public key in its algorithm's form, and its name in tokens.
    Public(&'static str, signature::UnparsedPublicKey<Vec<u8>>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.algorithm())
    }
}

impl Key {
    /// The only algorithm that its tokens may name.
    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Public(name, _) => name,
        }
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, signed, signature).is_ok(),
            Self::Rsa(key) => {
                let algorithm = &signature::RSA_PKCS1_2048_8192_SHA256;
                key.verify(algorithm, signed, signature).is_ok()
            }
            Self::Public(_, key) => key.verify(signed, signature).is_ok(),
        }
    }

    fn p256(point: &[u8]) -> Option<Self> {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED;
        let is_uncompressed = point.len() == 65 && point.first() == Some(&4);
        let key = signature::UnparsedPublicKey::new(algorithm, point.to_vec());
        is_uncompressed.then_some(Self::Public("ES256", key))
    }

    fn ed25519(bytes: &[u8]) -> Option<Self> {
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, bytes.to_vec());
        (bytes.len() == signature::ED25519_PUBLIC_KEY_LEN).then_some(Self::Public("EdDSA", key))
    }

    /// A `SubjectPublicKeyInfo` (RFC 5280 section 4.1) of an RSA, P-256 or Ed25519 key.
    fn from_spki(der: &[u8]) -> Option<Self> {
        if let Some(point) = der.strip_prefix(&P256_PREFIX) {
            return Self::p256(point);
        }
        if let Some(bytes) = der.strip_prefix(&ED25519_PREFIX) {
            return Self::ed25519(bytes);
        }
        // The length of keys from 2048 bits on takes two bytes.
        let [0x30, 0x82, _, _, rest @ ..] = der else {
            return None;
        };
        let [0x03, 0x82, _, _, 0x00, key @ ..] = rest.strip_prefix(&RSA_ALGORITHM)? else {
            return None;
        };
        let algorithm = &signature::RSA_PKCS1_2048_8192_SHA256;
        let key = signature::UnparsedPublicKey::new(algorithm, key.to_vec());
        Some(Self::Public("RS256", key))
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decoded =
            |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_deref()?.as_bytes()).ok();
        let key = match (jwk.kind.as_str(), jwk.curve.as_deref()) {
            ("RSA", _) => {
                let without_zeros = |bytes: Vec<u8>| -> Vec<u8> {
                    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
                };
                let n = without_zeros(decoded(&jwk.n)?);
                let e = without_zeros(decoded(&jwk.e)?);
                let fits = (256..=1024).contains(&n.len()) && !e.is_empty();
                fits.then_some(Self::Rsa(signature::RsaPublicKeyComponents { n, e }))?
            }
            ("EC", Some("P-256")) => {
                let point = [vec![4], decoded(&jwk.x)?, decoded(&jwk.y)?].concat();
                Self::p256(&point)?
            }
            ("OKP", Some("Ed25519")) => Self::ed25519(&decoded(&jwk.x)?)?,
            _ => return None,
        };
        let is_for = |algorithm: &String| is_algorithm(algorithm, key.algorithm());
        jwk.algorithm.as_ref().is_none_or(is_for).then_some(key)
    }
}

/// `SubjectPublicKeyInfo` of a P-256 key up to its point (RFC 5480 section 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The algorithm of an RSA key (RFC 3279 section 2.3.1).
const RSA_ALGORITHM: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Whether a name denotes a key's algorithm. RFC 9864 gives Ed25519 a second name.
fn is_algorithm(name: &str, algorithm: &str) -> bool {
    name == algorithm || (name, algorithm) == ("Ed25519", "EdDSA")
}

/// The used members of a JWKS key (RFC 7517).
#[derive(Deserialize)]
struct Jwk {
    #[serde(rename = "kty")]
    kind: String,
    #[serde(rename = "kid")]
    id: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(rename = "alg")]
    algorithm: Option<String>,
    #[serde(rename = "crv")]
    curve: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    algorithm: String,
    #[serde(rename = "kid", skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11). None are supported.
    #[serde(rename = "crit", skip_serializing_if = "Option::is_none")]
    critical: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    audience: Option<Audience>,
    #[serde(rename = "exp")]
    expires: Option<f64>,
    #[serde(rename = "nbf", skip_serializing_if = "Option::is_none")]
    not_before: Option<f64>,
    #[serde(rename = "iat")]
    issued: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    appid: Option<String>,
    /// Newer tokens of Microsoft Entra ID have this instead of `appid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    azp: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Several(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

impl Jwt {
    /// Whether its keys are public keys from a file instead of the source's secrets.
    #[must_use]
    pub fn has_key_file(&self) -> bool {
        self.has_key_file
    }

    /// Whether a token must contain the URL that the provider calls.
    #[must_use]
    pub fn signs_url(&self) -> bool {
        self.audiences.iter().any(Text::has_url)
    }

    /// Returns the index of the secret that signed a request's token; `None` for a key from a file.
    ///
    /// # Errors
    /// The reason why the token is invalid. For keys from a file it is always [`Unverified::Unauthorized`], as for any
    /// credential.
    pub fn verify(&self, request: &Request<'_>) -> Result<Option<usize>, Unverified> {
        let verified = self.check(request);
        if self.has_key_file {
            return verified.map_err(|_| Unverified::Unauthorized);
        }
        verified
    }

    fn check(&self, request: &Request<'_>) -> Result<Option<usize>, Unverified> {
        let value = request.header(&[AUTHORIZATION])?;
        let value = value.map(<[u8]>::trim_ascii).unwrap_or_default();
        if value.is_empty() {
            return Err(Unverified::MissingSignature);
        }
        let token = after_scheme(value, "bearer").unwrap_or(value);
        let (signer, _) = self.check_token(token, request)?;
        Ok(signer)
    }

    /// Whether a token must have a certain issuer.
    #[must_use]
    pub fn has_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// The issuer of a token that is in the body, if it is valid.
    #[must_use]
    pub fn issuer_of(&self, token: &[u8], request: &Request<'_>) -> Option<String> {
        let (_, claims) = self.check_token(token, request).ok()?;
        Some(claims.issuer.unwrap_or_default())
    }

    fn check_token(
        &self,
        token: &[u8],
        request: &Request<'_>,
    ) -> Result<(Option<usize>, Claims), Unverified> {
        let (signer, claims) = self.open(token).ok_or(Unverified::InvalidSignature)?;
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| Unverified::Unauthorized)?;
        self.check_claims(&claims, request)?;
        Ok((signer, claims))
    }

    /// Verifies a token's signature. Returns the secret and the claims.
    fn open(&self, token: &[u8]) -> Option<(Option<usize>, Vec<u8>)> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let signed = token.get(..header.len() + 1 + claims.len())?;
        let header: Header = serde_json::from_slice(&BASE64URL_NOPAD.decode(header).ok()?).ok()?;
        if header.critical.is_some() {
            return None;
        }
        let signature = BASE64URL_NOPAD.decode(signature).ok()?;
        let could_be = |key: &&TokenKey| {
            let is_named = match (&header.key_id, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            };
            is_named && is_algorithm(&header.algorithm, key.key.algorithm())
        };
        // Every key is tried, so that timing does not reveal which one matches.
        let keys = self.keys.iter().filter(could_be);
        let signer = keys.fold(None, |found, key| {
            let verifies = key.key.verifies(signed, &signature);
            found.or(verifies.then_some(key.secret))
        })?;
        Some((signer, BASE64URL_NOPAD.decode(claims).ok()?))
    }

    fn check_claims(&self, claims: &Claims, request: &Request<'_>) -> Result<(), Unverified> {
        let now = request.at.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        let ahead = now + CLOCK_SKEW.as_secs_f64();
        let expires = claims.expires.ok_or(Unverified::Unauthorized)?;
        let is_early = |time: Option<f64>| time.is_some_and(|time| time > ahead);
        if expires <= now || is_early(claims.not_before) || is_early(claims.issued) {
            return Err(Unverified::StaleTimestamp);
        }
        let is_one_of = |wanted: &[String], found: Option<&String>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.contains(found))
        };
        let mut has_audience = self.audiences.is_empty();
        for wanted in &self.audiences {
            // A URL that cannot be filled in matches no token.
            let wanted = wanted.fill(&Scope::raw(request))?.unwrap_or_default();
            let found = claims.audience.as_ref();
            has_audience |= !wanted.is_empty() && found.is_some_and(|found| found.has(&wanted));
        }
        let appid = claims.appid.as_ref().or(claims.azp.as_ref());
        let is_valid = has_audience
            && is_one_of(&self.issuers, claims.issuer.as_ref())
            && is_one_of(&self.appids, appid);
        is_valid.then_some(()).ok_or(Unverified::Unauthorized)
    }

    /// Makes a token for a request as the provider does, if its key is a secret.
    pub(super) fn sign(&self, secret: &Secret, request: &Request<'_>) -> Option<String> {
        if self.has_key_file {
            return None;
        }
        let now = request.at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let seconds = |time: Duration| Some(time.as_secs_f64().floor());
        let audience = self.audiences.first();
        let audience = audience.map(|text| text.fill(&Scope::raw(request)).ok().flatten());
        let header = Header {
            algorithm: "HS256".to_owned(),
            key_id: None,
            critical: None,
        };
        let claims = Claims {
            issuer: self.issuers.first().cloned(),
            audience: audience.flatten().map(Audience::One),
            expires: seconds(now + LIFETIME),
            not_before: None,
            issued: seconds(now),
            appid: self.appids.first().cloned(),
            azp: None,
        };
        let header = BASE64URL_NOPAD.encode(&serde_json::to_vec(&header).ok()?);
        let claims = BASE64URL_NOPAD.encode(&serde_json::to_vec(&claims).ok()?);
        let signed = format!("{header}.{claims}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let signature = BASE64URL_NOPAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
        Some(format!("{signed}.{signature}"))
    }
}

/// Reads `jwt`. Without a key file, the source's secrets are keys for HS256.
pub(super) fn read_jwt(section: Option<Section<'_>>, secrets: &[Secret]) -> Option<Jwt> {
    let of_secrets = || {
        let keys = secrets.iter().enumerate().map(|(index, secret)| TokenKey {
            id: None,
            key: Key::Hmac(hmac::Key::new(
                hmac::HMAC_SHA256,
                secret.expose().as_bytes(),
            )),
            secret: Some(index),
        });
        keys.collect()
    };
    let Some(mut section) = section else {
        return Some(Jwt {
            keys: of_secrets(),
            has_key_file: false,
            issuers: Vec::new(),
            audiences: Vec::new(),
            appids: Vec::new(),
        });
    };
    let file = section.path("keys");
    let read = file.as_ref().map(|file| {
        let opened = private::read(file, MAX_KEY_FILE_BYTES);
        let text = opened.map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        read_keys(&text.text).map_err(|reason| format!("{} {reason}", file.display()))
    });
    let keys = match read {
        None => Some(of_secrets()),
        Some(Ok(keys)) => Some(keys),
        Some(Err(problem)) => {
            section.problem_at("keys", problem);
            None
        }
    };
    let audiences = read_audiences(&mut section);
    if file.is_some() && audiences.is_empty() {
        section.warn_at(
            "keys",
            "without `audience` a token issued for another receiver passes; write the one that yours are issued for",
        );
    }
    let jwt = Jwt {
        keys: keys.unwrap_or_default(),
        has_key_file: file.is_some(),
        issuers: section.texts("issuer").unwrap_or_default(),
        audiences,
        appids: section.texts("appid").unwrap_or_default(),
    };
    section.finish();
    Some(jwt)
}

fn read_audiences(section: &mut Section<'_>) -> Vec<Text> {
    let mut audiences = Vec::new();
    for text in section.texts("audience").unwrap_or_default() {
        match Text::parse(&text) {
            Ok(audience)
                if audience.needs_content() || audience.has_body() || audience.has_timestamp() =>
            {
                section.problem_at(
                    "audience",
                    "is checked before the body; write a text, or \"{url}\"",
                );
            }
            Ok(audience) => audiences.push(audience),
            Err(mistake) => section.problem_at("audience", mistake.to_string()),
        }
    }
    audiences
}

/// Reads public keys in PEM or a JWKS. Unusable keys in a JWKS are skipped.
fn read_keys(text: &str) -> Result<Vec<TokenKey>, String> {
    let keys: Vec<TokenKey> = if text.trim_start().starts_with('{') {
        let jwks: Jwks = serde_json::from_str(text)
            .map_err(|error| format!("is not a JWKS, an object with `keys`: {error}"))?;
        let usable = jwks.keys.into_iter().filter_map(|value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            let key = Key::from_jwk(&jwk)?;
            Some(TokenKey {
                id: jwk.id,
                key,
                secret: None,
            })
        });
        usable.collect()
    } else {
        let blocks = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes());
        let keys = blocks.map(|block| {
            let key = block.ok().and_then(|der| Key::from_spki(&der))?;
            Some(TokenKey {
                id: None,
                key,
                secret: None,
            })
        });
        let keys: Option<Vec<_>> = keys.collect();
        keys.ok_or("has a PEM `PUBLIC KEY` that is not RSA (from 2048 bits on), P-256 and Ed25519")?
    };
    match keys.len() {
        0 => Err("has no usable key: a PEM `PUBLIC KEY`, or a JWKS, with RSA (from 2048 bits on), P-256 or Ed25519".to_owned()),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(format!("has more than {MAX_KEYS} keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::JWT;
    use super::*;
    use crate::table::Reading;
    use ::hmac::{Hmac, KeyInit as _, Mac as _};
    use http::{HeaderMap, HeaderValue, Method, Uri};
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};
    use sha2::Sha256;

    const NOW: u64 = 1_795_132_800;

    // Made by OpenSSL 3: keys, and a token of each for the two audiences `api://other` and `api://hookbridge`.
    const RSA_PEM: &str = r#"-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwOZOC8TWwSSYtCvtHPRd
WDiB9bERpiQGdwViUHvGNiMrUC6rF1cgaWimPYbrw+pRjU8SE0U45r5wA+UamqFZ
WkSSPg+DYECOCopoYT2DcQxzSUmKdevEqHm9YMvDrjEPtozySMe+Fu+vuAFBHIch
dzggpijS+ztaQAQE2uciQH5wEqCFebq+o5uU0TFH5TnKnBj97ngHKMlTrJrVDNAo
sDBLsrwLWJnOCIR24lzMRP0rGqr2cnmsSt1JUHzwu0iK04IItcnhkfVb3q6uHWoi
SH4xVi4yCPfxflzDzXLlXBeJi2o5pqaXTjwDp7lYdGnozQ3Op7P6gzxM0y9cSyYy
1QIDAQAB
-----END PUBLIC KEY-----"#;
    const EC_PEM: &str = r#"-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+MxnPwtmygwSqTqofaJbGw/Yt/6l
/hfTr00pCDhvRGM3oiHt+pwEpSMFSZwVpmCNmCKStxhngxEBBKmooBd40w==
-----END PUBLIC KEY-----"#;
    const ED_PEM: &str = r#"-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAzLm3IE6ApBey/FvC0orLwaWzQabR1YEVs34FTq61ql8=
-----END PUBLIC KEY-----"#;
    const JWKS: &str = r#"{"keys":[{"kty":"RSA","use":"sig","kid":"rsa-1","n":"wOZOC8TWwSSYtCvtHPRdWDiB9bERpiQGdwViUHvGNiMrUC6rF1cgaWimPYbrw-pRjU8SE0U45r5wA-UamqFZWkSSPg-DYECOCopoYT2DcQxzSUmKdevEqHm9YMvDrjEPtozySMe-Fu-vuAFBHIchdzggpijS-ztaQAQE2uciQH5wEqCFebq-o5uU0TFH5TnKnBj97ngHKMlTrJrVDNAosDBLsrwLWJnOCIR24lzMRP0rGqr2cnmsSt1JUHzwu0iK04IItcnhkfVb3q6uHWoiSH4xVi4yCPfxflzDzXLlXBeJi2o5pqaXTjwDp7lYdGnozQ3Op7P6gzxM0y9cSyYy1Q","e":"AQAB"},
{"kty":"EC","crv":"P-256","kid":"ec-1","alg":"ES256","x":"-MxnPwtmygwSqTqofaJbGw_Yt_6l_hfTr00pCDhvRGM","y":"N6Ih7fqcBKUjBUmcFaZgjZgikrcYZ4MRAQSpqKAXeNM"},
{"kty":"OKP","crv":"Ed25519","kid":"ed-1","x":"zLm3IE6ApBey_FvC0orLwaWzQabR1YEVs34FTq61ql8"},
{"kty":"RSA","use":"enc","kid":"enc","n":"wOZOC8TWwSSYtCvtHPRdWDiB9bERpiQGdwViUHvGNiMrUC6rF1cgaWimPYbrw-pRjU8SE0U45r5wA-UamqFZWkSSPg-DYECOCopoYT2DcQxzSUmKdevEqHm9YMvDrjEPtozySMe-Fu-vuAFBHIchdzggpijS-ztaQAQE2uciQH5wEqCFebq-o5uU0TFH5TnKnBj97ngHKMlTrJrVDNAosDBLsrwLWJnOCIR24lzMRP0rGqr2cnmsSt1JUHzwu0iK04IItcnhkfVb3q6uHWoiSH4xVi4yCPfxflzDzXLlXBeJi2o5pqaXTjwDp7lYdGnozQ3Op7P6gzxM0y9cSyYy1Q","e":"AQAB"},
{"kty":"oct","k":"AAAA"}]}"#;
    const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYS0xIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImFwaTovL290aGVyIiwiYXBpOi8vaG9va2JyaWRnZSJdLCJpYXQiOjE3OTUxMzI3NDAsIm5iZiI6MTc5NTEzMjc0MCwiZXhwIjoxNzk1MTMzMTAwLCJhcHBpZCI6ImFwcC0xIn0.qE-Qnm8hb7K53GKy61SCu8s0AtQLxrSPu9tmTkHsbjfZtJPN6a-Z72YEF-rulesRgsXKLPSsJq-Mju8Kv_ZRRcQF0YQs-Mgdms_Y_dLVekzcZKGC8eVUCRMRp7pfPzMKaGdrcn3VlwrwwIK2iPgn1TiSWTdlM-25LcvA0XygHVf7t5RmV6GZEPeEPk2H00CS5sIIvISha-_RijsXgOVYSzt1RB-WiaCh6KV9xltHtpSu_ghKF_fjkZzgL_erGtDDD9u1BTmBmQavcadSiNqHtKz68sVESM-7Zc-iFtXDcUHeP53mg8nYKPLz3No_tPpERxpBLgK178LsVh1y9iGn0A";
    const ES256: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImVjLTEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImFwaTovL290aGVyIiwiYXBpOi8vaG9va2JyaWRnZSJdLCJpYXQiOjE3OTUxMzI3NDAsIm5iZiI6MTc5NTEzMjc0MCwiZXhwIjoxNzk1MTMzMTAwLCJhcHBpZCI6ImFwcC0xIn0.8FxofnQ3OyOmKaAb4lXRS5P9TmRl6kBt_E6hFRlEDhsDljG4siHQw-0UDEls57757FpTm0__FmV9S1sigVGe3A";
    const EDDSA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6ImVkLTEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjpbImFwaTovL290aGVyIiwiYXBpOi8vaG9va2JyaWRnZSJdLCJpYXQiOjE3OTUxMzI3NDAsIm5iZiI6MTc5NTEzMjc0MCwiZXhwIjoxNzk1MTMzMTAwLCJhcHBpZCI6ImFwcC0xIn0.BN9CPn02bDO-wsAZuoVorCnfCmDyIsI2moizyEqEhJdnmuhnD9Y0DXE6sU3VvMTliwe36V1DnM-tQLpBw43XCA";

    fn jwt(keys: Vec<TokenKey>, settings: &Value) -> Jwt {
        let reading = Reading::default();
        let settings: Map<String, Value> = settings.as_object().cloned().unwrap();
        let section = Section::new(&reading, "jwt".to_owned(), settings, &JWT);
        let read = read_jwt(Some(section), &[]).unwrap();
        let has_key_file = true;
        Jwt {
            keys,
            has_key_file,
            ..read
        }
    }

    fn of_secrets(secrets: &[&str], settings: Value) -> Jwt {
        let reading = Reading::default();
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| Secret::new((*secret).to_owned()).unwrap())
            .collect();
        let section = Section::new(
            &reading,
            "jwt".to_owned(),
            settings.as_object().cloned().unwrap(),
            &JWT,
        );
        read_jwt(Some(section), &secrets).unwrap()
    }

    fn verify_at(jwt: &Jwt, authorization: &[&str], now: u64) -> Result<Option<usize>, Unverified> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method: &Method::POST,
            target: &Uri::from_static("/hooks/x"),
            headers: &headers,
            body: b"{}",
            public_url: Some("https://hooks.example.com/hooks/x"),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(now),
        };
        jwt.verify(&request)
    }

    /// Made without any of this module's code.
    fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(signed.as_bytes());
        format!(
            "{signed}.{}",
            BASE64URL_NOPAD.encode(&mac.finalize().into_bytes())
        )
    }

    #[test]
    fn keys_in_pem_and_jwks_verify_what_openssl_signed_and_decide_on_the_algorithm() {
        let settings = json!({ "audience": "api://hookbridge", "issuer": "https://issuer.example", "appid": "app-1" });
        let all = [RSA_PEM, EC_PEM, ED_PEM].join("\n");
        for keys in [all.as_str(), JWKS] {
            let jwt = jwt(read_keys(keys).unwrap(), &settings);
            for token in [RS256, ES256, EDDSA] {
                assert_eq!(
                    verify_at(&jwt, &[&format!("Bearer {token}")], NOW),
                    Ok(None)
                );
                let (signed, _) = token.rsplit_once('.').unwrap();
                let unsigned = format!(
                    "{}.{}.",
                    BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#),
                    signed.split('.').nth(1).unwrap()
                );
                for forged in [format!("{signed}."), format!("{token}AA"), unsigned] {
                    assert_eq!(
                        verify_at(&jwt, &[&forged], NOW),
                        Err(Unverified::Unauthorized)
                    );
                }
            }
        }
        // Each key accepts only its own token, whatever the token's header says.
        for (pem, own) in [(RSA_PEM, RS256), (EC_PEM, ES256), (ED_PEM, EDDSA)] {
            let jwt = jwt(read_keys(pem).unwrap(), &settings);
            for token in [RS256, ES256, EDDSA] {
                assert_eq!(verify_at(&jwt, &[token], NOW).is_ok(), token == own);
            }
            let claims = json!({ "aud": "api://hookbridge", "iss": "https://issuer.example", "appid": "app-1", "exp": NOW + 9 });
            for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
                let confused = token(&json!({ "alg": algorithm }), &claims, pem.as_bytes());
                assert!(verify_at(&jwt, &[&confused], NOW).is_err(), "{algorithm}");
            }
        }
        for (settings, is_right) in [
            (json!({ "audience": "api://other" }), true),
            (json!({ "audience": "api://hook" }), false),
            (json!({ "audience": "{url}" }), false),
            (json!({ "issuer": "https://issuer.example/" }), false),
            (json!({ "appid": "app-2" }), false),
        ] {
            let jwt = jwt(read_keys(JWKS).unwrap(), &settings);
            assert_eq!(
                verify_at(&jwt, &[RS256], NOW).is_ok(),
                is_right,
                "{settings}"
            );
        }
        let jwt = jwt(read_keys(JWKS).unwrap(), &settings);
        for now in [NOW + 300, NOW - 121] {
            assert_eq!(
                verify_at(&jwt, &[RS256], now),
                Err(Unverified::Unauthorized)
            );
        }
        assert_eq!(verify_at(&jwt, &[RS256], NOW - 120), Ok(None));
        assert_eq!(
            verify_at(&jwt, &[RS256, RS256], NOW),
            Err(Unverified::Unauthorized)
        );
    }

    #[test]
    fn a_token_reports_its_secret_or_the_reason_for_its_refusal() {
        let (secret, header) = ("a secret of ours", json!({ "alg": "HS256", "typ": "JWT" }));
        let jwt = of_secrets(&["another", secret], json!({ "audience": "{url}" }));
        let good =
            json!({ "aud": "https://hooks.example.com/hooks/x", "exp": NOW + 300, "iat": NOW });
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            token(&header, &claims, secret.as_bytes())
        };
        let genuine = token(&header, &good, secret.as_bytes());
        for value in [
            genuine.clone(),
            format!("bearer {genuine}"),
            format!(" {genuine} "),
        ] {
            assert_eq!(verify_at(&jwt, &[&value], NOW), Ok(Some(1)));
        }
        let long = with("jti", "x".repeat(MAX_TOKEN_BYTES).into());
        let critical = token(
            &json!({ "alg": "HS256", "crit": ["b64"] }),
            &good,
            secret.as_bytes(),
        );
        let twice = {
            let claims = good.to_string().replace("\"exp\"", "\"exp\":1,\"exp\"");
            let signed = format!(
                "{}.{}",
                BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
                BASE64URL_NOPAD.encode(claims.as_bytes())
            );
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            mac.update(signed.as_bytes());
            format!(
                "{signed}.{}",
                BASE64URL_NOPAD.encode(&mac.finalize().into_bytes())
            )
        };
        use Unverified::{InvalidSignature, MissingSignature, StaleTimestamp, Unauthorized};
        for (value, reason) in [
            (String::new(), MissingSignature),
            ("Basic abc".to_owned(), InvalidSignature),
            (format!("{genuine}.x"), InvalidSignature),
            (format!("{genuine}="), InvalidSignature),
            (token(&header, &good, b"a third"), InvalidSignature),
            (
                token(&json!({ "alg": "HS512" }), &good, secret.as_bytes()),
                InvalidSignature,
            ),
            (
                token(&json!({ "alg": "none" }), &good, secret.as_bytes()),
                InvalidSignature,
            ),
            (
                token(&json!({ "typ": "JWT" }), &good, secret.as_bytes()),
                InvalidSignature,
            ),
            (critical, InvalidSignature),
            (long, InvalidSignature),
            (twice, Unauthorized),
            (with("exp", Value::Null), Unauthorized),
            (with("exp", "soon".into()), Unauthorized),
            (with("exp", NOW.into()), StaleTimestamp),
            (with("nbf", (NOW + 61).into()), StaleTimestamp),
            (with("iat", (NOW + 61).into()), StaleTimestamp),
            (
                with("aud", "https://hooks.example.com/".into()),
                Unauthorized,
            ),
            (with("aud", Value::Null), Unauthorized),
        ] {
            assert_eq!(verify_at(&jwt, &[&value], NOW), Err(reason), "{value}");
        }
        assert_eq!(verify_at(&jwt, &[], NOW), Err(MissingSignature));
        assert_eq!(
            verify_at(&jwt, &[&genuine, &genuine], NOW),
            Err(InvalidSignature)
        );
        assert_eq!(
            verify_at(&jwt, &[&with("nbf", (NOW + 60).into())], NOW),
            Ok(Some(1))
        );
    }

    #[test]
    fn files_without_a_usable_key_are_refused() {
        for (text, words) in [
            ("", "has no usable key"),
            ("{}", "is not a JWKS"),
            (
                r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
                "has no usable key",
            ),
            (
                "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----",
                "not RSA",
            ),
        ] {
            let problem = read_keys(text).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        let many = format!(r#"{{"keys":[{}]}}"#, vec![r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#; 65].join(","));
        assert_eq!(read_keys(&many).unwrap_err(), "has more than 64 keys");
    }

    proptest! {
        #[test]
        fn no_forged_text_is_a_valid_token(value in "[ -~]{0,200}", claims in "[ -~]{0,60}") {
            let jwt = of_secrets(&["a secret of ours"], json!({}));
            prop_assert!(verify_at(&jwt, &[&value], NOW).is_err());
            let other = token(&json!({ "alg": "HS256" }), &json!({ "x": claims, "exp": NOW + 1 }), b"another");
            prop_assert!(verify_at(&jwt, &[&other], NOW).is_err());
        }
    }
}
