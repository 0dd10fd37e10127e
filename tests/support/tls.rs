//! Certificates for the brokers' TLS listeners, made once a run by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::process;

/// PEM files: an authority, and a certificate of its for 127.0.0.1 and localhost.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Key and certificate in one file, as Kafka wants them.
    pub(crate) keystore: PathBuf,
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
    let certificates = Certificates {
        authority: dir.join("ca.pem"),
        certificate: dir.join("certificate.pem"),
        key: dir.join("key.pem"),
        keystore: dir.join("keystore.pem"),
    };
    let text = |file: &PathBuf| std::fs::read_to_string(file).expect("openssl wrote it");
    std::fs::write(
        &certificates.keystore,
        text(&certificates.key) + &text(&certificates.certificate),
    )
    .expect("a file");
    certificates
});

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
