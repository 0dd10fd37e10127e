//! Values for the environment variables in documented configurations: secrets of each provider's kind.

use std::sync::OnceLock;

use data_encoding::{BASE64, HEXLOWER};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

/// A shared text, long enough for a signing secret.
pub(crate) const TEXT: &str = "a-secret-of-the-documentation";

/// The bytes of a secret that is written in base64.
pub(crate) const BYTES: &[u8] = b"32 bytes that everyone may know.";

/// The value of a variable that a configuration names.
pub(crate) fn value_of(variable: &str) -> String {
    match variable {
        "DISCORD_PUBLIC_KEY" => HEXLOWER.encode(discord().public_key().as_ref()),
        "SENDGRID_PUBLIC_KEY" => {
            // `SubjectPublicKeyInfo` of a P-256 key up to its point.
            let prefix = HEXLOWER
                .decode(b"3059301306072a8648ce3d020106082a8648ce3d030107034200")
                .expect("hexadecimal digits");
            BASE64.encode(&[&prefix, sendgrid().public_key().as_ref()].concat())
        }
        "ACME_WEBHOOK_SECRET"
        | "GITLAB_SIGNING_TOKEN"
        | "SVIX_SIGNING_SECRET"
        | "STANDARD_WEBHOOKS_SECRET"
        | "GITLAB_SECRET"
        | "SVIX_SECRET" => {
            format!("whsec_{}", BASE64.encode(BYTES))
        }
        "POSTMARK_USER_AND_PASSWORD" => format!("user:{TEXT}"),
        _ => TEXT.to_owned(),
    }
}

/// The signing counterpart of such a variable: the private key for a public key, or the secret itself.
pub(crate) fn signing_value_of(variable: &str) -> String {
    match variable {
        "DISCORD_PUBLIC_KEY" => HEXLOWER.encode(&[7; 32]),
        "SENDGRID_PUBLIC_KEY" => BASE64.encode(sendgrid_pkcs8()),
        shared => value_of(shared),
    }
}

/// The environment variables that a configuration needs.
pub(crate) fn variables(text: &str) -> Vec<(String, String)> {
    let secrets = text
        .split("env = \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let filled_in = text
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .filter(|name| !name.contains(":-"));
    let names = secrets.chain(filled_in);
    names
        .map(|name| (name.to_owned(), value_of(name)))
        .collect()
}

/// The key with which Discord signs.
pub(crate) fn discord() -> &'static Ed25519KeyPair {
    static PAIR: OnceLock<Ed25519KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"))
}

/// The key with which SendGrid signs.
pub(crate) fn sendgrid() -> &'static EcdsaKeyPair {
    static PAIR: OnceLock<EcdsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, sendgrid_pkcs8(), &SystemRandom::new());
        pair.expect("a key")
    })
}

fn sendgrid_pkcs8() -> &'static [u8] {
    static DOCUMENT: OnceLock<Vec<u8>> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        document.expect("a key").as_ref().to_vec()
    })
}
