//! The PEM files of `tls`, read as the client reads them for each connection, so that a file which it cannot use is a mistake of
//! the configuration and not a broker out of reach.

use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::sign::CertifiedKey;

/// Whether each certificate of the file can be an authority.
///
/// # Errors
/// The fault, and what to write instead.
pub(super) fn check_authorities(file: &Path) -> Result<(), String> {
    for certificate in certificates(file)? {
        webpki::anchor_from_trusted_cert(&certificate).map_err(|error| {
            let file = file.display();
            format!("{file} holds a certificate that can't be an authority ({error}); write the path of the authority's")
        })?;
    }
    Ok(())
}

/// Whether certificate and key can be read and belong together.
///
/// # Errors
/// The key of the configuration to point at, the fault, and what to write instead.
pub(super) fn check_identity(cert: &Path, key: &Path) -> Result<(), (&'static str, String)> {
    let chain = certificates(cert).map_err(|why| ("cert", why))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        let key = key.display();
        ("key", format!("{key} can't be read as a private key in PEM ({error}); write the path of the key of `cert`"))
    })?;
    let joined = CertifiedKey::from_der(chain, private, &default_provider());
    joined.map(drop).map_err(|error| {
        let (cert, key) = (cert.display(), key.display());
        ("key", format!("{key} and {cert} can't be used together ({error}); write the path of the key of `cert`"))
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| {
        format!(
            "{shown} can't be read as PEM ({error}); write the path of a file with certificates"
        )
    })?;
    if certificates.is_empty() {
        return Err(format!(
            "{shown} holds no certificate in PEM; write the path of a file with certificates"
        ));
    }
    Ok(certificates)
}
