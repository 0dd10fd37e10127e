//! Keys of signature schemes, prepared once. All cryptography comes from `ring` and `webpki`.

use std::borrow::Cow;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use ring::{digest, hmac, signature};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use smallvec::SmallVec;
use subtle::ConstantTimeEq as _;
use webpki::RawPublicKeyEntity;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 2104 with SHA-1, which some providers still use.
    HmacSha1,
    /// RFC 2104 with SHA-256.
    HmacSha256,
    /// RFC 2104 with SHA-384.
    HmacSha384,
    /// RFC 2104 with SHA-512.
    HmacSha512,
    /// SHA-256 of the secret followed by the content, without HMAC: HubSpot's schemes v1 and v2.
    SecretSha256,
    /// The signature is the secret itself.
    Token,
    /// RFC 8032.
    Ed25519,
    /// FIPS 186-5, signatures in ASN.1 DER.
    EcdsaP256Sha256,
    /// PKCS #1 v1.5 with SHA-256.
    RsaSha256,
    /// PKCS #1 v1.5 with SHA-512.
    RsaSha512,
}

/// Their names in the configuration.
pub const ALGORITHMS: [(&str, Algorithm); 10] = [
    ("hmac-sha256", Algorithm::HmacSha256),
    ("hmac-sha1", Algorithm::HmacSha1),
    ("hmac-sha384", Algorithm::HmacSha384),
    ("hmac-sha512", Algorithm::HmacSha512),
    ("ed25519", Algorithm::Ed25519),
    ("ecdsa-p256-sha256", Algorithm::EcdsaP256Sha256),
    ("rsa-sha256", Algorithm::RsaSha256),
    ("rsa-sha512", Algorithm::RsaSha512),
    ("sha256-of-secret-and-content", Algorithm::SecretSha256),
    ("token", Algorithm::Token),
];

impl Algorithm {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = ALGORITHMS.iter().find(|(_, known)| *known == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether the configured key is public.
    #[must_use]
    pub const fn is_asymmetric(self) -> bool {
        self.webpki().is_some()
    }

    /// The length of its signatures in bytes, if fixed.
    #[must_use]
    pub const fn signature_bytes(self) -> Option<usize> {
        match self {
            Self::HmacSha1 => Some(20),
            Self::HmacSha256 | Self::SecretSha256 => Some(32),
            Self::HmacSha384 => Some(48),
            Self::HmacSha512 | Self::Ed25519 => Some(64),
            Self::Token | Self::EcdsaP256Sha256 | Self::RsaSha256 | Self::RsaSha512 => None,
        }
    }

    const fn webpki(self) -> Option<&'static dyn SignatureVerificationAlgorithm> {
        match self {
            Self::Ed25519 => Some(webpki::ring::ED25519),
            Self::EcdsaP256Sha256 => Some(webpki::ring::ECDSA_P256_SHA256),
            Self::RsaSha256 => Some(webpki::ring::RSA_PKCS1_2048_8192_SHA256),
            Self::RsaSha512 => Some(webpki::ring::RSA_PKCS1_2048_8192_SHA512),
            Self::HmacSha1
            | Self::HmacSha256
            | Self::HmacSha384
            | Self::HmacSha512
            | Self::SecretSha256
            | Self::Token => None,
        }
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }
}

/// A decoded signature. Most fit without heap allocation.
pub type Candidate = SmallVec<[u8; 64]>;

/// The encoding of a secret or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8 bytes, unchanged.
    Text,
    /// RFC 4648 section 4, padded.
    Base64,
    /// RFC 4648 section 5; padding may be missing.
    Base64Url,
    /// Hexadecimal digits of either case.
    Hex,
}

impl Encoding {
    /// Decodes a text; `None` if it is not in this encoding.
    #[must_use]
    pub fn decode(self, text: &[u8]) -> Option<Candidate> {
        let (encoding, text) = match self {
            Self::Text => return Some(Candidate::from_slice(text)),
            Self::Hex => (&HEXLOWER_PERMISSIVE, text),
            Self::Base64 => (&BASE64, text),
            Self::Base64Url => (&BASE64URL_NOPAD, without_padding(text)),
        };
        let mut decoded = Candidate::from_elem(0, encoding.decode_len(text.len()).ok()?);
        let length = encoding.decode_mut(text, &mut decoded).ok()?;
        decoded.truncate(length);
        Some(decoded)
    }

    /// Encodes bytes as a provider does; `None` if the result cannot be text.
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Text => String::from_utf8(bytes.to_vec()).ok(),
            Self::Hex => Some(data_encoding::HEXLOWER.encode(bytes)),
            Self::Base64 => Some(BASE64.encode(bytes)),
            Self::Base64Url => Some(BASE64URL_NOPAD.encode(bytes)),
        }
    }
}

fn without_padding(text: &[u8]) -> &[u8] {
    let last = text.iter().rposition(|byte| *byte != b'=');
    text.get(..last.map_or(0, |last| last + 1))
        .unwrap_or_default()
}

/// A key that verifies signatures.
#[derive(Clone)]
pub enum Key {
    /// An HMAC key with its inner and outer state precomputed.
    Hmac(hmac::Key),
    /// A secret that is hashed together with the content.
    Prefix(Zeroizing<Vec<u8>>),
    /// A secret sent with the request.
    Token(Zeroizing<Vec<u8>>),
    /// A public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    Public(
        SubjectPublicKeyInfoDer<'static>,
        &'static dyn SignatureVerificationAlgorithm,
    ),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// `SubjectPublicKeyInfo` of an Ed25519 key up to its 32 bytes (RFC 8410 section 4).
pub(super) const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl Key {
    /// Prepares a configured secret: an HMAC key, or a public key in PEM, base64 or hex. A prefix such as `whsec_` is dropped
    /// first.
    ///
    /// # Errors
    /// The reason, without any part of the secret.
    pub fn prepare(
        algorithm: Algorithm,
        secret: &Secret,
        encoding: Encoding,
        prefix: &str,
    ) -> Result<Self, &'static str> {
        let text = secret.expose();
        let text = text.strip_prefix(prefix).unwrap_or(text);
        if let Some(verification) = algorithm.webpki() {
            let spki = public_key(text, algorithm)?;
            // An empty signature never verifies: the only possible error here is an unreadable key.
            RawPublicKeyEntity::try_from(&spki)
                .map_err(|_| "the public key is not a SubjectPublicKeyInfo")?;
            return Ok(Self::Public(spki, verification));
        }
        let decoded = encoding.decode(text.as_bytes()).map(SmallVec::into_vec);
        // Padding is often lost when a secret is copied.
        let unpadded = || BASE64_NOPAD.decode(text.as_bytes()).ok();
        let decoded = decoded.or_else(|| (encoding == Encoding::Base64).then(unpadded).flatten());
        let bytes = Zeroizing::new(decoded.ok_or(match encoding {
            Encoding::Hex => "the secret is not hexadecimal",
            _ => "the secret is not valid base64",
        })?);
        if bytes.is_empty() {
            return Err("the secret is empty");
        }
        Ok(match algorithm {
            Algorithm::SecretSha256 => Self::Prefix(bytes),
            Algorithm::Token => Self::Token(bytes),
            keyed => Self::Hmac(hmac::Key::new(keyed.hmac(), &bytes)),
        })
    }

    /// Whether one of the candidates is a signature of the content, which is given in parts. Compares in constant time.
    pub fn verifies(&self, content: &[Cow<'_, [u8]>], candidates: &[Candidate]) -> bool {
        match self {
            Self::Hmac(_) | Self::Prefix(_) => {
                any_equal(self.digest(content).as_slice(), candidates)
            }
            Self::Token(secret) => any_equal(secret, candidates),
            Self::Public(spki, algorithm) => {
                let message = content.concat();
                RawPublicKeyEntity::try_from(spki).is_ok_and(|key| {
                    candidates.iter().any(|candidate| {
                        key.verify_signature(*algorithm, &message, candidate)
                            .is_ok()
                    })
                })
            }
        }
    }

    /// The digest with which a secret key signs the content; empty for keys that do not sign.
    #[must_use]
    pub fn digest(&self, content: &[Cow<'_, [u8]>]) -> Digest {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                content.iter().for_each(|part| context.update(part));
                Digest::of(context.sign().as_ref())
            }
            Self::Prefix(secret) => {
                let mut context = digest::Context::new(&digest::SHA256);
                context.update(secret);
                content.iter().for_each(|part| context.update(part));
                Digest::of(context.finish().as_ref())
            }
            Self::Token(_) | Self::Public(..) => Digest::of(&[]),
        }
    }
}

/// Compares each candidate in constant time.
fn any_equal(expected: &[u8], candidates: &[Candidate]) -> bool {
    candidates.iter().fold(false, |found, candidate| {
        found | bool::from(expected.ct_eq(candidate))
    })
}

/// A digest of up to 64 bytes.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; 64],
    length: usize,
}

impl Digest {
    fn of(digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let length = digest.len().min(bytes.len());
        bytes
            .iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = *from);
        Self { bytes, length }
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn public_key(
    text: &str,
    algorithm: Algorithm,
) -> Result<SubjectPublicKeyInfoDer<'static>, &'static str> {
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "the public key is not a PEM `PUBLIC KEY`");
    }
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let encoding = if is_hex {
        Encoding::Hex
    } else {
        Encoding::Base64
    };
    let bytes = encoding
        .decode(text.as_bytes())
        .ok_or("the public key is neither PEM nor base64 nor hexadecimal")?;
    if algorithm == Algorithm::Ed25519 && bytes.len() == signature::ED25519_PUBLIC_KEY_LEN {
        return Ok([&ED25519_PREFIX[..], &bytes].concat().into());
    }
    Ok(bytes.into_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(algorithm: Algorithm, secret: &str) -> Result<Key, &'static str> {
        let secret = Secret::new(secret.to_owned()).unwrap();
        Key::prepare(algorithm, &secret, Encoding::Text, "")
    }

    #[test]
    fn agrees_with_rfc_4231_test_case_2() {
        let parts: [Cow<'_, [u8]>; 2] = [b"what do ya want ".into(), b"for nothing?".into()];
        let digest = key(Algorithm::HmacSha256, "Jefe").unwrap().digest(&parts);
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(Encoding::Hex.encode(digest.as_slice()).unwrap(), expected);
    }

    #[test]
    fn a_secrets_prefix_is_dropped_and_its_padding_is_optional() {
        for text in [
            "whsec_c2VjcmV0",
            "c2VjcmV0",
            "whsec_c2VjcmU",
            "whsec_c2VjcmU=",
        ] {
            let secret = Secret::new(text.to_owned()).unwrap();
            let key = Key::prepare(Algorithm::Token, &secret, Encoding::Base64, "whsec_");
            let Key::Token(token) = key.unwrap() else {
                panic!("not a token")
            };
            assert!(token.starts_with(b"secre"), "{text}");
        }
        let secret = Secret::new("whsec_!".to_owned()).unwrap();
        let refused = Key::prepare(Algorithm::HmacSha256, &secret, Encoding::Base64, "whsec_");
        assert_eq!(refused.unwrap_err(), "the secret is not valid base64");
    }

    #[test]
    fn an_invalid_public_key_is_refused() {
        for text in [
            "no key",
            "00",
            "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----",
        ] {
            assert!(key(Algorithm::Ed25519, text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn encoded_signatures_decode_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                let text = encoding.encode(&bytes).unwrap();
                let decoded = encoding.decode(text.as_bytes());
                prop_assert_eq!(decoded.as_deref(), Some(&bytes[..]));
            }
        }

        #[test]
        fn only_digits_are_hexadecimal(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let is_hex = text.len() % 2 == 0 && text.iter().all(u8::is_ascii_hexdigit);
            prop_assert_eq!(Encoding::Hex.decode(&text).is_some(), is_hex);
        }
    }
}
