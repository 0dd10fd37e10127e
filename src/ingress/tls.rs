//! Step 1, the TLS handshake. It belongs to its connection: it takes one of the connection places, and ends on
//! shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::config::{HTTP2, Tls, dns_names};
use crate::event::RequestId;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of a request that came without TLS, in bytes, so that closing does not destroy the answer.
const PLAIN_REQUEST: u64 = 16 * 1024;
const PLAIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// A sender's connection, plain or with TLS. TLS is boxed so that plain connections stay small.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Completes the TLS handshake; `None` if the sender cannot, will not or takes too long.
pub(super) async fn tls_handshake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &Tls,
) -> Option<Stream> {
    let acceptor = TlsAcceptor::from(Arc::clone(tls.server()));
    let handshake = async {
        if speaks_plain_http(&stream).await {
            // Whether the answer arrives is up to the sender.
            let _ended = tokio::time::timeout(PLAIN_REQUEST_TIMEOUT, ask_for_https(stream)).await;
            return None;
        }
        acceptor.accept(stream).await.ok()
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    if let Ok(Some(stream)) = shaken {
        return Some(Stream::Right(Box::new(stream)));
    }
    // An unauthenticated sender's words do not belong in the log.
    tracing::debug!(%peer, "a TLS handshake failed");
    None
}

/// A method's name begins with a letter; a TLS record never does (RFC 8446 section 5.1).
async fn speaks_plain_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Answers an `http://` request to this `https://` port, which an alert of TLS would not explain.
async fn ask_for_https(mut stream: TcpStream) -> std::io::Result<()> {
    let body = r#"{"title":"Bad Request","status":400,"code":"bad_request","detail":"this port speaks TLS; write https:// instead of http://"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nx-content-type-options: nosniff\r\ncontent-length: {}\r\nx-request-id: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
        RequestId::random(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sent = stream.take(PLAIN_REQUEST);
    tokio::io::copy(&mut sent, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The underlying TCP socket.
pub(super) fn tcp(stream: &Stream) -> &TcpStream {
    match stream {
        Stream::Left(stream) => stream,
        Stream::Right(stream) => stream.get_ref().0,
    }
}

/// The names in the client certificate, in lower case.
pub(super) fn client_names(stream: &Stream) -> Box<[String]> {
    let certificates = match stream {
        Stream::Left(_) => None,
        Stream::Right(stream) => stream.get_ref().1.peer_certificates(),
    };
    let first = certificates.and_then(<[_]>::first);
    first.map(dns_names).unwrap_or_default().into_boxed_slice()
}

/// With TLS, HTTP/2 is negotiated in the handshake (RFC 9113 section 3.2); without TLS, only the first bytes tell.
pub(super) fn may_speak_http2(stream: &Stream) -> bool {
    match stream {
        Stream::Left(_) => true,
        Stream::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
    }
}
