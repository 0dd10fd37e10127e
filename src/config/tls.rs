//! `[http] tls`: from PEM files to the settings of TLS handshakes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    ClientHello, NoClientAuth, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use super::origin::read_file;
use crate::table::Section;

/// The names of the protocols in ALPN (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";

/// TLS of the public listener.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    is_mutual: bool,
}

impl Tls {
    /// The settings for handshakes.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// Whether senders must show a certificate.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.is_mutual
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("is_mutual", &self.is_mutual)
            .finish_non_exhaustive()
    }
}

/// Reads `tls`: a table, or a list of tables from which the certificate is chosen by the requested server name.
pub(super) fn read_tls(tables: Vec<Section<'_>>, http2: bool) -> Option<Tls> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12]);
    if let (Err(error), Some(table)) = (&builder, tables.first()) {
        table.problem(error.to_string());
    }
    let mut certificates: Vec<Option<NamedCertificate>> = Vec::with_capacity(tables.len());
    let mut verifier = None;
    for (index, mut table) in tables.into_iter().enumerate() {
        let certificate = read_certificate(&mut table, &provider);
        if index == 0 {
            verifier = Some(read_verifier(&mut table, &provider));
        } else {
            if table.has("client_ca") {
                table.text("client_ca");
                table.problem_at("client_ca", "is for the whole listener, whichever certificate a sender gets; write it in the first table of `tls`");
            }
            let earlier = certificates.iter().flatten();
            if let Some(certificate) = &certificate {
                check_names(&table, certificate, earlier);
            }
        }
        table.finish();
        certificates.push(certificate);
    }
    let is_mutual = matches!(verifier, Some(Some((_, true))));
    let (verifier, _) = verifier??;
    let certificates: Option<Vec<_>> = certificates.into_iter().collect();
    let server = builder.ok()?.with_client_cert_verifier(verifier);
    let mut server = server.with_cert_resolver(Arc::new(ByName::new(certificates?)));
    let protocols: &[&[u8]] = if http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
    server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Some(Tls {
        server: Arc::new(server),
        is_mutual,
    })
}

/// A certificate with its key and its names.
#[derive(Debug)]
struct NamedCertificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

/// Chooses a certificate by the requested server name (SNI, RFC 6066).
#[derive(Debug)]
struct ByName {
    /// The first one is for senders that request no name, or one that no certificate has.
    all: Vec<Arc<CertifiedKey>>,
    names: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    fn new(certificates: Vec<NamedCertificate>) -> Self {
        let mut names: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for NamedCertificate { key, names: own } in &certificates {
            for name in own {
                names.entry(name.clone()).or_default().push(Arc::clone(key));
            }
        }
        let all = certificates.into_iter().map(|certificate| certificate.key);
        Self {
            all: all.collect(),
            names,
        }
    }

    /// The certificates for a name, in order: exact matches, or else wildcards for its first label.
    fn of(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let name = name.to_ascii_lowercase();
        let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
        let named = self.names.get(&name);
        let named = named.or_else(|| self.names.get(&wildcard()?));
        named.map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.of(name));
        let candidates = named.unwrap_or(&self.all);
        // One name may have certificates of several algorithms, of which old senders know only one.
        let suits = |key: &&Arc<CertifiedKey>| {
            let scheme = key.key.choose_scheme(hello.signature_schemes());
            scheme.is_some()
        };
        let chosen = candidates.iter().find(suits).or(candidates.first());
        chosen.map(Arc::clone)
    }
}

fn read_certificate(
    section: &mut Section<'_>,
    provider: &Arc<CryptoProvider>,
) -> Option<NamedCertificate> {
    let cert = section.required_text("cert");
    let key = section.required_text("key");
    // Both are read before returning, so that every problem is found.
    let certificates = cert
        .as_deref()
        .and_then(|file| read_certificates(section, "cert", file));
    let private_key = key.as_deref().and_then(|file| read_key(section, file));
    let ((cert, certificates), (key, private_key)) =
        (cert.zip(certificates)?, key.zip(private_key)?);
    warn_of_dates(section, &cert, &certificates, provider);
    let names = certificates.first().map(dns_names).unwrap_or_default();
    match CertifiedKey::from_der(certificates, private_key, provider) {
        Ok(key) => Some(NamedCertificate {
            key: Arc::new(key),
            names,
        }),
        Err(Error::InconsistentKeys(_)) => {
            section.problem_at(
                "key",
                format!("{key} is not the key of the first certificate in {cert}"),
            );
            None
        }
        Err(Error::InvalidCertificate(why)) => {
            section.problem_at(
                "cert",
                format!("the first certificate in {cert} can't be used: {why}"),
            );
            None
        }
        Err(why) => {
            section.problem_at("key", format!("the key in {key} can't be used: {why}"));
            None
        }
    }
}

/// Reads the settings for client certificates, and whether one is required.
fn read_verifier(
    section: &mut Section<'_>,
    provider: &Arc<CryptoProvider>,
) -> Option<(Arc<dyn ClientCertVerifier>, bool)> {
    let is_mutual = section.has("client_ca");
    let file = section.text("client_ca");
    if !is_mutual {
        return Some((Arc::new(NoClientAuth), false));
    }
    let roots = read_authorities(section, &file?)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| section.problem_at("client_ca", error.to_string()))
        .map(|verifier| (verifier, true))
        .ok()
}

/// Every certificate after the first must be reachable by a server name.
fn check_names<'i>(
    section: &Section<'_>,
    certificate: &NamedCertificate,
    mut earlier: impl Iterator<Item = &'i NamedCertificate>,
) {
    if certificate.names.is_empty() {
        section.problem_at(
            "cert",
            "the certificate has no DNS name in its subjectAltName, so that no sender gets it; make it the first of `tls`, or give it a name",
        );
        return;
    }
    let covers = |earlier: &NamedCertificate| {
        earlier.key.key.algorithm() == certificate.key.key.algorithm()
            && certificate
                .names
                .iter()
                .all(|name| earlier.names.contains(name))
    };
    if earlier.any(covers) {
        section.warn_at(
            "cert",
            "no sender gets this certificate: one before it has all of its names; remove one of the two",
        );
    }
}

/// The DNS names in a certificate's `subjectAltName`, in lower case, wildcards included. The subject's common name does
/// not count (RFC 9525).
pub(crate) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let names = certificate.valid_dns_names();
    names.map(str::to_ascii_lowercase).collect()
}

fn read_certificates(
    section: &Section<'_>,
    key: &str,
    file: &str,
) -> Option<Vec<CertificateDer<'static>>> {
    section.note_file(Path::new(file));
    let read = read_file(Path::new(file))
        .map_err(|error| error.to_string())
        .and_then(|text| {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| error.to_string())
        });
    match read {
        Ok(certificates) if certificates.is_empty() => {
            section.problem_at(
                key,
                format!("{file} has no certificate; a PEM file is needed, with `BEGIN CERTIFICATE` in it"),
            );
            None
        }
        Ok(certificates) => Some(certificates),
        Err(why) => {
            section.problem_at(key, format!("{file} can't be read as PEM: {why}"));
            None
        }
    }
}

fn read_key(section: &Section<'_>, file: &str) -> Option<PrivateKeyDer<'static>> {
    let text = section.private_file("key", Path::new(file))?;
    let mut keys = PrivateKeyDer::pem_slice_iter(text.as_bytes());
    let what = match (keys.next(), keys.next()) {
        (Some(Ok(key)), None) => return Some(key),
        (None, _) => "has no private key; a PEM file is needed, with one key in it, not encrypted",
        (Some(Ok(_)), Some(Ok(_))) => "has several private keys; leave the one of the certificate",
        // The reason could reveal a line of the file.
        (Some(Err(_)), _) | (_, Some(Err(_))) => "is not a complete PEM file",
    };
    section.problem_at("key", format!("{file} {what}"));
    None
}

fn read_authorities(section: &Section<'_>, file: &str) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(section, "client_ca", file)? {
        if let Err(why) = roots.add(certificate) {
            section.problem_at(
                "client_ca",
                format!("{file} has a certificate that can't be used: {why}"),
            );
            return None;
        }
    }
    Some(roots)
}

/// Verification checks the validity before it looks for an issuer, so it reports the dates even of a certificate with
/// an unknown issuer.
fn warn_of_dates(
    section: &Section<'_>,
    file: &str,
    certificates: &[CertificateDer<'_>],
    provider: &CryptoProvider,
) {
    let shown = |time: UnixTime| {
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        time.map(|time| humantime::format_rfc3339_seconds(time).to_string())
            .unwrap_or_default()
    };
    for (number, certificate) in (1..).zip(certificates) {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
            continue;
        };
        let verified = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &RootCertStore::empty(),
            &[],
            UnixTime::now(),
            provider.signature_verification_algorithms.all,
        );
        let what = match verified {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => {
                format!("expired at {}", shown(not_after))
            }
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => {
                format!("is not valid before {}", shown(not_before))
            }
            _ => continue,
        };
        section.warn_at("cert", format!("certificate {number} in {file} {what}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use crate::brokers::Settings;
    use crate::config::{Config, ConfigFile, Origin};

    /// For localhost; belongs to `KEY`.
    const CERTIFICATE: &str = include_str!("fixtures/certificate.pem");
    const KEY: &str = include_str!("fixtures/key.pem");
    /// Has the same key.
    const EXPIRED: &str = include_str!("fixtures/expired.pem");
    const OTHER_KEY: &str = include_str!("fixtures/other-key.pem");

    /// Files with these contents, named by letters from `a`, in a folder for one test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, contents: &[&[u8]]) -> Self {
            let name = format!("hookbridge-tls-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for (letter, content) in ('a'..).zip(contents) {
                let file = folder.join(letter.to_string());
                std::fs::write(&file, content).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            Self(folder)
        }

        /// Loads `tls = { … }` under `[http]`; `DIR/` is replaced by the folder.
        fn load(&self, tls: &str) -> Result<Config, String> {
            let tls = tls.replace("DIR/", &format!("{}/", self.0.display()));
            let text = format!(
                "[http]\nhttp2 = true\ntls = {tls}\n[brokers.main]\n{}\
                 [sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"synq.{{type}}\"\n",
                Settings::OUT_OF_REACH
            );
            let files = vec![ConfigFile::Text {
                name: "a.toml".to_owned(),
                text,
            }];
            let environment = Vec::new();
            Origin { files, environment }
                .load()
                .map_err(|problems| problems.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_certificate_and_its_key_are_loaded_and_not_shown() {
        let both = format!("{KEY}{CERTIFICATE}");
        let folder = Folder::new(
            "good",
            &[CERTIFICATE.as_bytes(), KEY.as_bytes(), both.as_bytes()],
        );
        for tls in [
            "{ cert = \"DIR/a\", key = \"DIR/b\" }",
            "{ cert = \"DIR/c\", key = \"DIR/c\" }",
        ] {
            let config = folder.load(tls).unwrap();
            assert_eq!(config.warnings, []);
            let shown = format!("{config:?}");
            assert!(shown.contains("Tls { is_mutual: false, .. }"), "{shown}");
            let tls = config.http.tls.unwrap();
            assert_eq!(tls.server().alpn_protocols, [&b"h2"[..], b"http/1.1"]);
        }
        let mutual = folder
            .load("{ cert = \"DIR/a\", key = \"DIR/b\", client_ca = \"DIR/a\" }")
            .unwrap();
        assert!(mutual.http.tls.unwrap().is_mutual());
    }

    #[test]
    fn every_problem_is_reported_with_its_position() {
        let cut = CERTIFICATE.replace("-----END CERTIFICATE-----\n", "");
        let no_certificate =
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned();
        let cut_key = KEY.replace("-----END PRIVATE KEY-----\n", "");
        let encrypted = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let two_keys = format!("{KEY}{OTHER_KEY}");
        let folder = Folder::new(
            "bad",
            &[
                CERTIFICATE.as_bytes(),
                KEY.as_bytes(),
                OTHER_KEY.as_bytes(),
                two_keys.as_bytes(),
                encrypted.as_bytes(),
                cut.as_bytes(),
                no_certificate.as_bytes(),
                no_key.as_bytes(),
                b"\x30\x82\xff",
                cut_key.as_bytes(),
            ],
        );
        // The setting, the expected column of the problem, and its text.
        for (tls, column, what) in [
            (
                "{ key = \"DIR/b\" }",
                "1",
                "lacks `cert`; write for example `cert = \"/etc/",
            ),
            (
                "{ cert = \"DIR/a\" }",
                "1",
                "lacks `key`; write for example `key = \"/etc/",
            ),
            ("true", "7", "`http.tls` is a table"),
            (
                "{ cert = \"DIR/a\", key = \"DIR/b\", client_cas = \"DIR/a\" }",
                "",
                "unknown key `client_cas` in [http.tls]; did you mean \"client_ca\"?",
            ),
            (
                "{ cert = \"DIR/z\", key = \"DIR/b\" }",
                "16",
                "z can't be read as PEM: No such file",
            ),
            (
                "{ cert = \"DIR/i\", key = \"DIR/b\" }",
                "16",
                "i can't be read as PEM: line 1 is not UTF-8",
            ),
            (
                "{ cert = \"DIR/b\", key = \"DIR/b\" }",
                "16",
                "b has no certificate",
            ),
            (
                "{ cert = \"DIR/f\", key = \"DIR/b\" }",
                "16",
                "f can't be read as PEM: missing section end",
            ),
            (
                "{ cert = \"DIR/g\", key = \"DIR/b\" }",
                "16",
                "g can't be used: ",
            ),
            (
                "{ key = \"DIR/z\", cert = \"DIR/a\" }",
                "15",
                "z can't be read: No such file",
            ),
            (
                "{ key = \"DIR/a\", cert = \"DIR/a\" }",
                "15",
                "a has no private key",
            ),
            (
                "{ key = \"DIR/e\", cert = \"DIR/a\" }",
                "15",
                "e has no private key",
            ),
            (
                "{ key = \"DIR/d\", cert = \"DIR/a\" }",
                "15",
                "d has several private keys",
            ),
            (
                "{ key = \"DIR/j\", cert = \"DIR/a\" }",
                "15",
                "j is not a complete PEM file",
            ),
            (
                "{ key = \"DIR/h\", cert = \"DIR/a\" }",
                "15",
                "the key in DIR/h can't be used: ",
            ),
            (
                "{ key = \"DIR/c\", cert = \"DIR/a\" }",
                "15",
                "c is not the key of the first certificate in DIR/a",
            ),
            (
                "{ client_ca = \"DIR/z\", cert = \"DIR/a\", key = \"DIR/b\" }",
                "21",
                "z can't be read as PEM: No such file",
            ),
            (
                "{ client_ca = \"DIR/b\", cert = \"DIR/a\", key = \"DIR/b\" }",
                "21",
                "b has no certificate",
            ),
            (
                "{ client_ca = \"DIR/g\", cert = \"DIR/a\", key = \"DIR/b\" }",
                "21",
                "g has a certificate that can't be used: ",
            ),
        ] {
            let shown = folder.load(tls).unwrap_err();
            let what = what.replace("DIR/", &format!("{}/", folder.0.display()));
            assert_eq!(shown.lines().count(), 1, "{tls}: {shown}");
            assert!(
                shown.starts_with(&format!("a.toml:3:{column}")),
                "{tls}: {shown}"
            );
            assert!(shown.contains(&what), "{tls}: {shown}");
        }
        let all = folder
            .load("{ cert = \"DIR/z\", key = \"DIR/z\", client_ca = \"DIR/z\", x = 1 }")
            .unwrap_err();
        assert_eq!(all.lines().count(), 4, "{all}");
    }

    #[test]
    fn every_certificate_after_the_first_has_a_name_that_a_sender_can_request() {
        let nameless = include_str!("fixtures/nameless.pem");
        let folder = Folder::new(
            "names",
            &[
                CERTIFICATE.as_bytes(),
                KEY.as_bytes(),
                nameless.as_bytes(),
                OTHER_KEY.as_bytes(),
            ],
        );
        let (named, nameless) = (
            "{ cert = \"DIR/a\", key = \"DIR/b\" }",
            "{ cert = \"DIR/c\", key = \"DIR/d\" }",
        );
        let warnings = |tls: &str| folder.load(tls).unwrap().warnings;
        assert_eq!(warnings(&format!("[{nameless}, {named}]")), []);
        let twice = warnings(&format!("[{named}, {named}]"));
        assert!(
            twice.len() == 1
                && twice[0]
                    .to_string()
                    .contains("no sender gets this certificate"),
            "{twice:?}"
        );
        let authority = "{ cert = \"DIR/a\", key = \"DIR/b\", client_ca = \"DIR/a\" }";
        assert!(
            folder
                .load(&format!("[{authority}]"))
                .unwrap()
                .http
                .tls
                .unwrap()
                .is_mutual()
        );
        for (tls, what) in [
            (
                format!("[{named}, {nameless}]"),
                "http.tls[1].cert: the certificate has no DNS name",
            ),
            (
                format!("[{nameless}, {authority}]"),
                "http.tls[1].client_ca: is for the whole listener",
            ),
            (
                format!("[{named}, {{ cert = \"DIR/a\" }}]"),
                "http.tls[1]: lacks `key`",
            ),
            (
                format!("[{named}, {{ cert = \"DIR/a\", key = \"DIR/d\" }}]"),
                "d is not the key of the first certificate",
            ),
            (
                "[]".to_owned(),
                "http.tls: an empty list has no certificate",
            ),
        ] {
            let shown = folder.load(&tls).unwrap_err();
            assert!(
                shown.lines().count() == 1 && shown.contains(what),
                "{tls}: {shown}"
            );
        }
    }

    #[test]
    fn certificates_that_senders_refuse_and_readable_keys_cause_warnings() {
        let chain = format!("{CERTIFICATE}{EXPIRED}");
        let folder = Folder::new(
            "warn",
            &[EXPIRED.as_bytes(), KEY.as_bytes(), chain.as_bytes()],
        );
        let warned = |tls: &str| {
            let warnings = folder.load(tls).unwrap().warnings;
            let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        let expired = warned("{ cert = \"DIR/a\", key = \"DIR/b\" }");
        assert!(
            expired.starts_with("a.toml:3:16: http.tls.cert: certificate 1 in "),
            "{expired}"
        );
        assert!(
            expired.ends_with(" expired at 2001-01-01T00:00:00Z"),
            "{expired}"
        );
        let second = warned("{ cert = \"DIR/c\", key = \"DIR/b\" }");
        assert!(
            second.starts_with("a.toml:3:16: http.tls.cert: certificate 2 in "),
            "{second}"
        );
        let key = folder.0.join("b");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let readable = warned("{ key = \"DIR/b\", cert = \"DIR/c\" }");
        assert!(
            readable.contains("b can be read by others (mode 644); use mode 0400"),
            "{readable}"
        );
    }
}
