//! Mistakes that `check` finds in a Kafka broker's table.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::bridge::{self, Finished, hookbridge, kafka_broker, route, synq_source};
use crate::support::tls;

fn check(address: &str, options: &str) -> Finished {
    let rest = kafka_broker("main", address)
        + &format!("options = {{ {options} }}\n")
        + &synq_source("")
        + &route("synq.{type}");
    let files = bridge::write("", &rest);
    hookbridge(["check", "--config", files.path()])
}

#[test]
fn check_creates_the_real_client_and_does_not_connect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    check(&address, "\"linger.ms\" = \"5\"").expect_code(0);
    let refused = check(&address, "\"linger.ms\" = \"60000\"").expect_code(1);
    assert!(
        refused.stderr.contains("linger.ms") && refused.stderr.contains("librdkafka refuses"),
        "{refused:?}"
    );
    assert_eq!(accepted.load(Ordering::SeqCst), 0, "no connection");
    // The listener does count.
    std::net::TcpStream::connect(&address).unwrap();
    crate::support::wait::until("it counts", crate::support::wait::PATIENCE, || {
        accepted.load(Ordering::SeqCst) == 1
    });
}

#[test]
fn check_refuses_options_that_break_the_guarantees_and_those_that_this_build_lacks() {
    let refused = check(
        "k:9092",
        "\"transactional.id\" = \"t\", \"test.mock.num.brokers\" = \"3\", \"api.version.request\" = \"false\", \"sasl.mechanism\" = \"GSSAPI\", \"compression.type\" = \"brotli\"",
    )
    .expect_code(1);
    for text in [
        "transactional.id can't be set",
        "test.mock.num.brokers can't be set",
        "api.version.request can't be set",
        "Kerberos (GSSAPI) is not in this build",
        "none, gzip, snappy, lz4 or zstd",
    ] {
        assert!(refused.stderr.contains(text), "{text}: {refused:?}");
    }
}

#[test]
fn check_warns_of_a_private_key_that_others_can_read() {
    let certificates = &tls::CERTIFICATES;
    let key = certificates.key.with_extension("readable.pem");
    std::fs::copy(&certificates.key, &key).unwrap();
    let options = format!(
        "\"security.protocol\" = \"ssl\", \"ssl.ca.location\" = \"{}\", \"ssl.certificate.location\" = \"{}\", \"ssl.key.location\" = \"{}\"",
        certificates.authority.display(),
        certificates.certificate.display(),
        key.display()
    );
    for (mode, is_warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = check("k:9092", &options).expect_code(0);
        assert_eq!(
            checked.stderr.contains("can be read by others (mode 644)"),
            is_warned,
            "{checked:?}"
        );
    }
    std::fs::remove_file(&key).unwrap();
}
