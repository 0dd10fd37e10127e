//! One POST over HTTP/1.1, with TLS where the URL says so: for `send`, access tokens, and the export of traces.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The trust and limits of an exchange.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The authorities that are trusted; the system's where there are none.
    pub(crate) authorities: Option<RootCertStore>,
    /// The largest answer that is read.
    pub(crate) max_answer_bytes: usize,
}

/// Posts a body with these headers, as JSON unless they say otherwise. Follows no redirect and sets no deadline.
///
/// # Errors
/// A description of the step that failed.
pub(crate) async fn post(
    url: &Uri,
    headers: HeaderMap,
    body: Bytes,
    terms: Terms,
) -> Result<Answer, Error> {
    let host = url
        .host()
        .ok_or("the URL has no host")?
        .trim_matches(['[', ']'])
        .to_owned();
    let is_tls = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("the URL must begin with http:// or https://".into()),
    };
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| format!("{host}:{port} can't be reached: {error}"))?;
    let request = request(url, headers, body)?;
    if is_tls {
        let connector = tls(terms.authorities)?;
        let name = ServerName::try_from(host.clone())?;
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| match is_not_tls(&error) {
            true => format!("{host}:{port} does not speak TLS; write http:// if it should not"),
            false => format!("TLS with {host}:{port} failed: {error}"),
        })?;
        exchange(stream, request, terms.max_answer_bytes).await
    } else {
        let answer = exchange(stream, request, terms.max_answer_bytes).await;
        answer.map_err(|error| match error.downcast_ref::<hyper::Error>() {
            Some(cause) if cause.is_parse() => {
                format!("{host}:{port} does not answer in HTTP; write https:// if it speaks TLS")
                    .into()
            }
            _ => error,
        })
    }
}

/// Whether the other end answered in another protocol.
fn is_not_tls(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(tokio_rustls::rustls::Error::InvalidMessage(_)))
}

fn request(url: &Uri, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path).body(Full::new(body))?;
    *request.headers_mut() = headers;
    let authority = url
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_str(host)?);
    request
        .headers_mut()
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    Ok(request)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    max_answer_bytes: usize,
) -> Result<Answer, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, whose reading says how.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    #[expect(clippy::disallowed_methods, reason = "it is limited")]
    let body = Limited::new(body, max_answer_bytes)
        .collect()
        .await?
        .to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// The authorities that the system trusts. Reads files.
pub(crate) fn system_authorities() -> RootCertStore {
    let mut system = RootCertStore::empty();
    let (_, _) = system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    system
}

fn tls(authorities: Option<RootCertStore>) -> Result<TlsConnector, Error> {
    let authorities = authorities.unwrap_or_else(system_authorities);
    if authorities.is_empty() {
        return Err("no certificate authorities are installed on this machine".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(authorities)
    .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
