//! Certificates for TLS listeners, made once per run by `openssl`, and a TLS client.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

use super::process;
use super::sender::{Connection, Wire};

/// PEM files: an authority, and a certificate signed by it for 127.0.0.1 and localhost.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Key and certificate in one file, as Kafka requires.
    pub(crate) keystore: PathBuf,
    /// A self-signed certificate for localhost, made as docs/configuration.md describes.
    pub(crate) lone_certificate: PathBuf,
    pub(crate) lone_key: PathBuf,
}

pub(crate) static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let dir = process::directory("certificates");
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    openssl(
        &dir,
        &[
            &["req", "-x509"],
            &key[..],
            &["-days", "2", "-subj", "/CN=hookbridge tests"],
        ]
        .concat(),
        "ca.key",
        "ca.pem",
    );
    openssl(
        &dir,
        &[&["req"], &key[..], &["-subj", "/CN=localhost"]].concat(),
        "key.pem",
        "request.pem",
    );
    std::fs::write(
        dir.join("names"),
        "subjectAltName = IP:127.0.0.1, DNS:localhost\n",
    )
    .expect("a file");
    run(
        &dir,
        &[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
        ],
        &["-extfile", "names", "-out", "certificate.pem"],
    );
    openssl(
        &dir,
        &[
            &["req", "-x509"],
            &key[..],
            &["-days", "30", "-subj", "/CN=localhost"],
            &["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            &["-addext", "basicConstraints=critical,CA:FALSE"],
        ]
        .concat(),
        "lone-key.pem",
        "lone.pem",
    );
    let certificates = Certificates {
        authority: dir.join("ca.pem"),
        certificate: dir.join("certificate.pem"),
        key: dir.join("key.pem"),
        keystore: dir.join("keystore.pem"),
        lone_certificate: dir.join("lone.pem"),
        lone_key: dir.join("lone-key.pem"),
    };
    let text = |file: &PathBuf| std::fs::read_to_string(file).expect("openssl wrote it");
    std::fs::write(
        &certificates.keystore,
        text(&certificates.key) + &text(&certificates.certificate),
    )
    .expect("a file");
    certificates
});

/// A certificate signed by the authority, and its key.
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Signs a certificate with these names, in openssl's `subjectAltName` syntax.
pub(crate) fn issue(subject: &str, names: Option<&str>) -> Issued {
    let authority = CERTIFICATES.authority.display().to_string();
    let authority_key = CERTIFICATES.authority.with_file_name("ca.key");
    let dir = process::directory("certificate");
    openssl(
        &dir,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            subject,
        ],
        "key.pem",
        "request.pem",
    );
    let names = names.map(|names| format!("subjectAltName = {names}\n"));
    // An extension makes it version 3, the only one that TLS libraries accept.
    let extensions = format!("basicConstraints = CA:FALSE\n{}", names.unwrap_or_default());
    std::fs::write(dir.join("names"), extensions).expect("a file");
    run(
        &dir,
        &[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            &authority,
            "-CAkey",
            authority_key.to_str().expect("a path in UTF-8"),
            "-CAcreateserial",
            "-CAserial",
            "serial",
            "-days",
            "2",
        ],
        &["-extfile", "names", "-out", "certificate.pem"],
    );
    Issued {
        certificate: dir.join("certificate.pem"),
        key: dir.join("key.pem"),
    }
}

fn openssl(dir: &Path, arguments: &[&str], key: &str, out: &str) {
    run(dir, arguments, &["-keyout", key, "-out", out]);
}

fn run(dir: &Path, arguments: &[&str], more: &[&str]) {
    let made = Command::new("openssl")
        .args(arguments)
        .args(more)
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(
        made.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// A TLS client.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Wire for Tls {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A client that trusts the authority, and shows this certificate (with its key) on request.
pub(crate) fn client(
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<(&Path, &Path)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(&CERTIFICATES.authority) {
        roots.add(certificate).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions that ring knows")
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                certificates_in(certificate),
                PrivateKeyDer::from_pem_file(key).expect("a key"),
            )
            .expect("a certificate and its key"),
    }
}

/// The certificate in a file.
pub(crate) fn der(file: &Path) -> Vec<u8> {
    certificates_in(file)[0].to_vec()
}

/// A client that accepts any certificate, to see which one it gets.
pub(crate) fn client_of_anyone() -> ClientConfig {
    let mut config = client(&[&TLS13], None);
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Anyone));
    config
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

pub(crate) fn certificates_in(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file)
        .expect("a file")
        .map(|certificate| certificate.expect("a certificate"))
        .collect()
}

/// Connects and completes the handshake as far as the client can tell. An IP address is not sent as a server name.
pub(crate) fn open(
    address: SocketAddr,
    client: &ClientConfig,
    name: &'static str,
) -> io::Result<Connection<Tls>> {
    let name = ServerName::try_from(name).expect("a name");
    let connection =
        ClientConnection::new(Arc::new(client.clone()), name).expect("a client's settings");
    let mut stream = StreamOwned::new(connection, Connection::open(address)?.into_socket());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Connection::over(stream))
}
