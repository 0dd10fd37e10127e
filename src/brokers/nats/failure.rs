//! Describes the failed step of a connection for the operator: name resolution, TCP, greeting, TLS, authentication.

use std::time::Duration;

use async_nats::ServerAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Limit of each step of a diagnosis.
const STEP: Duration = Duration::from_secs(1);

/// In the client's error when nothing arrived.
const TIMED_OUT: &str = "timed out";

/// In rustls's error about a peer that does not speak TLS.
const NOT_TLS: &str = "received corrupt message of type InvalidContentType";

/// The failed step, derived from the client's error text, which starts with the error's kind.
pub(super) fn describe(error: &str, server: &ServerAddr) -> String {
    describe_at(error, server.host(), server.port())
}

/// [`describe`] for a server whose URL is not kept because it may contain credentials.
pub(super) fn describe_at(error: &str, host: &str, port: u16) -> String {
    let address = format!("{host}:{port}");
    let lower = error.to_ascii_lowercase();
    let source = error.split_once(": ").map_or(error, |(_, source)| source);
    if lower.starts_with("dns error") {
        let why = if source == error { "" } else { source };
        let colon = if why.is_empty() { "" } else { ": " };
        return format!("name resolution failed for {host}{colon}{why}");
    }
    if lower.contains("authorization violation") {
        return format!(
            "authentication failed at {address}: the server refused the credentials (authorization violation)"
        );
    }
    if lower.starts_with("failed signing nonce") {
        return format!("authentication failed at {address}: {source}");
    }
    if lower.contains("authentication")
        || lower.contains("nats: user ")
        || lower.contains("nats: account ")
    {
        return format!("authentication failed at {address}: {source}");
    }
    if error.contains(NOT_TLS) {
        return format!(
            "TLS failed at {address}: the server answered in plain text; drop `tls` where it has none, or `first` where it greets before TLS"
        );
    }
    let tls = [
        "invalid peer certificate",
        "received fatal alert",
        "tls handshake",
        "peer is incompatible",
        "peer misbehaved",
        "corrupt message",
        "unexpected message",
    ];
    if lower.starts_with("tls error") || tls.iter().any(|words| lower.contains(words)) {
        let advice = if lower.contains("unknownissuer") {
            "; name its authority with `tls = { ca = \"…\" }`"
        } else if lower.contains("certificaterequired") || lower.contains("certificate required") {
            "; present a certificate with `tls = { cert = \"…\", key = \"…\" }`"
        } else {
            ""
        };
        return format!("TLS failed at {address}: {source}{advice}");
    }
    if lower.contains("expected info") {
        return format!("NATS greeting failed at {address}: {source}; is it a NATS server?");
    }
    if lower.contains("nats: ") {
        return format!("the server at {address} refused the connection: {source}");
    }
    if lower.contains(TIMED_OUT) {
        return format!("no answer from {address} in time");
    }
    format!("TCP connection failed at {address}: {source}")
}

/// Finds the step at which a silent server stops answering, which the client's error does not tell. Opens one connection, and
/// takes a few seconds at most.
pub(super) async fn diagnose(server: &ServerAddr, is_tls_first: bool) -> String {
    let address = format!("{}:{}", server.host(), server.port());
    let found = tokio::time::timeout(
        STEP,
        tokio::net::lookup_host((server.host(), server.port())),
    );
    let addresses: Vec<_> = match found.await {
        Err(_) => {
            return format!(
                "name resolution failed for {}: no answer in time",
                server.host()
            );
        }
        Ok(Err(error)) => return format!("name resolution failed for {}: {error}", server.host()),
        Ok(Ok(addresses)) => addresses.collect(),
    };
    let mut stream = match tokio::time::timeout(STEP, TcpStream::connect(&*addresses)).await {
        Err(_) => return format!("TCP connection failed at {address}: no answer in time"),
        Ok(Err(error)) => return format!("TCP connection failed at {address}: {error}"),
        Ok(Ok(stream)) => stream,
    };
    if is_tls_first {
        return format!("TLS failed at {address}: the server does not answer the handshake");
    }
    let mut start = [0; 8];
    match tokio::time::timeout(STEP, stream.read(&mut start)).await {
        Ok(Ok(read)) => return greeted(&address, start.get(..read).unwrap_or_default()),
        Ok(Err(error)) => return format!("NATS greeting failed at {address}: {error}"),
        Err(_) => {}
    }
    // A NATS server greets first. One that waits for the client is something else, and may identify itself when it gets
    // nonsense.
    let poked = async {
        stream.write_all(b"PING\r\n\r\n").await?;
        stream.read(&mut start).await
    };
    match tokio::time::timeout(STEP, poked).await {
        Ok(Ok(read)) if read > 0 && !start.starts_with(&[0x15, 3]) => {
            greeted(&address, start.get(..read).unwrap_or_default())
        }
        Ok(_) => format!(
            "NATS greeting failed at {address}: the server waits for the client and does not accept plain text, as one with `handshake_first` does; write `tls = {{ first = true }}`"
        ),
        Err(_) => format!(
            "NATS greeting failed at {address}: the server accepts connections but sends nothing; it may hang, expect TLS first (`tls = {{ first = true }}`), or not be a NATS server"
        ),
    }
}

fn greeted(address: &str, start: &[u8]) -> String {
    if start.is_empty() {
        format!("NATS greeting failed at {address}: the server closes the connection")
    } else if start.starts_with(b"HTTP/") {
        format!(
            "NATS greeting failed at {address}: it is an HTTP server; NATS listens for clients on port 4222 by default"
        )
    } else if start.starts_with(b"INFO ") {
        format!("no answer from {address} in time, after its greeting")
    } else {
        format!("NATS greeting failed at {address}: it is not a NATS server")
    }
}

/// Whether the client's error leaves the step open. A server that expects TLS first closes a connection that stays silent.
pub(super) fn is_open(error: &str) -> bool {
    let lower = error.to_ascii_lowercase();
    lower.contains(TIMED_OUT) || lower.contains("expected info, got nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_recognized_by_the_clients_message() {
        let server = "nats://n:4222".parse().unwrap();
        for (error, step) in [
            ("DNS error", "name resolution failed for n"),
            (
                "DNS error: no such host",
                "name resolution failed for n: no such host",
            ),
            (
                "IO error: Connection refused (os error 111)",
                "TCP connection failed at n:4222: Connection refused",
            ),
            (
                "IO error: invalid peer certificate: UnknownIssuer",
                "TLS failed at n:4222: invalid peer certificate: UnknownIssuer; name its authority",
            ),
            (
                "IO error: received corrupt message of type InvalidContentType",
                "TLS failed at n:4222: the server answered in plain text",
            ),
            (
                "TLS error: could not load platform certs",
                "TLS failed at n:4222: could not load",
            ),
            (
                "authorization violation: nats: authorization violation",
                "authentication failed at n:4222",
            ),
            (
                "failed signing nonce: the file is gone",
                "authentication failed at n:4222: the file is gone",
            ),
            (
                "IO error: expected INFO, got nothing",
                "NATS greeting failed at n:4222",
            ),
            (
                "IO error: nats: maximum connections exceeded",
                "the server at n:4222 refused the connection",
            ),
            ("timed out", "no answer from n:4222"),
        ] {
            let said = describe(error, &server);
            assert!(said.starts_with(step), "{error}: {said}");
        }
    }
}
