//! A credentials file: a user's JWT and the seed of its key, each between dashed lines (docs.nats.io, "Credentials
//! file"). It is read for each connection, so that rotated credentials need no restart.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;
use zeroize::Zeroizing;

/// Larger files are refused.
const MAX_BYTES: u64 = 64 * 1024;

/// The reason why a credentials file cannot be used, without its contents.
#[derive(Debug, thiserror::Error)]
#[error("the credentials file {file} can't be used: {what}", file = .file.display())]
pub(super) struct Unusable {
    file: PathBuf,
    what: String,
}

/// Whether the file can be used.
///
/// # Errors
/// It cannot.
pub(super) fn check(file: &Path) -> Result<(), Unusable> {
    authenticate(file, &[]).map(drop)
}

/// The answer to a server's `nonce`, with the user's JWT and signature.
///
/// # Errors
/// The file cannot be used.
pub(super) fn authenticate(file: &Path, nonce: &[u8]) -> Result<Auth, Unusable> {
    let unusable = |what: &dyn std::fmt::Display| Unusable {
        file: file.to_owned(),
        what: what.to_string(),
    };
    // Opened once, so that the checked file is the one that is read.
    let opened = File::open(file).map_err(|error| unusable(&error))?;
    let mut text = Zeroizing::new(String::new());
    let mut bounded = opened.take(MAX_BYTES + 1);
    bounded
        .read_to_string(&mut text)
        .map_err(|error| unusable(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unusable(&"it is larger than 64 KiB"));
    }
    let jwt = section(&text, "NATS USER JWT").ok_or_else(|| unusable(&"it has no user JWT"))?;
    let seed = section(&text, "USER NKEY SEED").ok_or_else(|| unusable(&"it has no user seed"))?;
    let pair = KeyPair::from_seed(seed).map_err(|_| unusable(&"its user seed is not valid"))?;
    let mut auth = Auth::new();
    auth.jwt = Some(jwt.to_owned());
    auth.signature = Some(
        pair.sign(nonce)
            .map_err(|_| unusable(&"its seed can't sign"))?,
    );
    Ok(auth)
}

/// The line between `-----BEGIN title-----` and `------END title------`.
fn section<'t>(text: &'t str, title: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("BEGIN {title}"))?;
    let (within, _) = after.split_once(&format!("END {title}"))?;
    within
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_signs_the_servers_nonce_and_errors_do_not_show_it() {
        let pair = KeyPair::new_user();
        let seed = pair.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ.x.y\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = std::env::temp_dir().join(format!("hookbridge-creds-{}", std::process::id()));
        std::fs::write(&file, &text).unwrap();
        let auth = authenticate(&file, b"nonce").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ.x.y"));
        pair.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        std::fs::write(&file, text.replace(&seed, "SUSECRET")).unwrap();
        let error = authenticate(&file, b"nonce").err().unwrap().to_string();
        assert!(
            error.contains("its user seed is not valid") && !error.contains("SUSECRET"),
            "{error}"
        );
        std::fs::write(&file, "x".repeat(64 * 1024 + 1)).unwrap();
        let error = authenticate(&file, b"nonce").err().unwrap().to_string();
        assert!(error.contains("larger than 64 KiB"), "{error}");
        std::fs::write(&file, "").unwrap();
        assert!(
            authenticate(&file, b"nonce")
                .err()
                .unwrap()
                .to_string()
                .contains("no user JWT")
        );
        std::fs::remove_file(&file).unwrap();
        assert!(authenticate(&file, b"nonce").is_err());
    }
}
