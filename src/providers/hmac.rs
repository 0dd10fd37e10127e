//! HMAC-SHA256, as most providers sign (RFC 2104, FIPS 198-1).

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::Secret;

/// The length of a digest, in bytes.
pub(super) const DIGEST_BYTES: usize = 32;

/// A digest that was sent.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// A key with its inner and outer state worked out, so that a request costs no key schedule.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        Hmac::new_from_slice(secret.expose().as_bytes())
            .ok()
            .map(Self)
    }

    /// The digest of a message given in parts.
    fn digest(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac
    }

    pub(super) fn sign(&self, parts: &[&[u8]]) -> Digest {
        self.digest(parts).finalize().into_bytes().into()
    }

    /// Whether one of the candidates is the digest; each is compared, in constant time.
    fn signed(&self, parts: &[&[u8]], candidates: &[Digest]) -> bool {
        let digest = self.digest(parts);
        candidates.iter().fold(false, |signed, candidate| {
            signed | digest.clone().verify_slice(candidate).is_ok()
        })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Which of the keys made one of the candidates. Every key is tried, so that the time does not tell which.
pub(super) fn signer(keys: &[Key], parts: &[&[u8]], candidates: &[Digest]) -> Option<usize> {
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        if key.signed(parts, candidates) && found.is_none() {
            found = Some(index);
        }
    }
    found
}

/// 64 hexadecimal digits of either case.
pub(super) fn decode_hex(text: &[u8]) -> Option<Digest> {
    let mut digest = [0; DIGEST_BYTES];
    if text.len() != 2 * DIGEST_BYTES {
        return None;
    }
    let decoded = HEXLOWER_PERMISSIVE.decode_mut(text, &mut digest);
    decoded.is_ok().then_some(digest)
}

/// Lower-case hexadecimal digits.
pub(super) fn encode_hex(digest: &Digest) -> String {
    HEXLOWER_PERMISSIVE.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(secret: &str) -> Key {
        Key::new(&Secret::new(secret.to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn agrees_with_rfc_4231_test_case_2() {
        let digest = key("Jefe").sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            encode_hex(&digest),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn finds_the_signer_among_several_keys_and_candidates() {
        let keys = [key("old"), key("new")];
        let digest = keys[1].sign(&[b"body"]);
        assert_eq!(
            signer(&keys, &[b"bo", b"dy"], &[[0; DIGEST_BYTES], digest]),
            Some(1)
        );
        assert_eq!(signer(&keys, &[b"other"], &[digest]), None);
        assert_eq!(signer(&keys, &[b"body"], &[]), None);
    }

    proptest! {
        #[test]
        fn hex_goes_there_and_back(digest in any::<Digest>()) {
            let text = encode_hex(&digest);
            prop_assert_eq!(decode_hex(text.as_bytes()), Some(digest));
            prop_assert_eq!(decode_hex(text.to_uppercase().as_bytes()), Some(digest));
        }

        #[test]
        fn nothing_but_64_digits_is_a_digest(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let is_hex = text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
            prop_assert_eq!(decode_hex(&text).is_some(), is_hex);
        }
    }
}
