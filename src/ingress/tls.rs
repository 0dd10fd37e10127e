//! Step 1, the handshake, where the listener speaks TLS. It is a part of its connection: it holds a place, and ends with
//! the service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::config::{HTTP2, Tls, dns_names};

/// How long it may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A sender's connection, plain or with TLS. A plain one must not be larger for the other's sake.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The connection with TLS; nothing if the sender can't, does not want to or takes too long.
pub(super) async fn shake_hands(stream: TcpStream, peer: SocketAddr, tls: &Tls) -> Option<Stream> {
    let acceptor = TlsAcceptor::from(Arc::clone(tls.server()));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Stream::Right(Box::new(stream))),
        _ => {
            // Nothing of what a stranger says goes into the log.
            tracing::debug!(%peer, "a TLS handshake failed");
            None
        }
    }
}

/// The socket below it.
pub(super) fn tcp(stream: &Stream) -> &TcpStream {
    match stream {
        Stream::Left(stream) => stream,
        Stream::Right(stream) => stream.get_ref().0,
    }
}

/// The names of the certificate that the sender has shown, in lower case.
pub(super) fn client_names(stream: &Stream) -> Box<[String]> {
    let certificates = match stream {
        Stream::Left(_) => None,
        Stream::Right(stream) => stream.get_ref().1.peer_certificates(),
    };
    let first = certificates.and_then(<[_]>::first);
    first.map(dns_names).unwrap_or_default().into_boxed_slice()
}

/// With TLS, HTTP/2 is agreed on in the handshake (RFC 9113 section 3.2); without, only what is sent tells.
pub(super) fn may_speak_http2(stream: &Stream) -> bool {
    match stream {
        Stream::Left(_) => true,
        Stream::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
    }
}
