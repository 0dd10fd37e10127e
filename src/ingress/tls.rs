//! Step 1, the TLS handshake. It belongs to its connection: it takes one of the connection places, and ends on
//! shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::config::{HTTP2, Tls, dns_names};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A sender's connection, plain or with TLS. TLS is boxed so that plain connections stay small.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Completes the TLS handshake; `None` if the sender cannot, will not or takes too long.
pub(super) async fn tls_handshake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &Tls,
) -> Option<Stream> {
    let acceptor = TlsAcceptor::from(Arc::clone(tls.server()));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Stream::Right(Box::new(stream))),
        _ => {
            // An unauthenticated sender's words do not belong in the log.
            tracing::debug!(%peer, "a TLS handshake failed");
            None
        }
    }
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
