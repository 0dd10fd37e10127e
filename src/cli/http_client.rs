//! One POST over HTTP/1.1, with TLS where the URL says so.

use std::sync::Arc;
use std::time::Duration;

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

/// Longer than the longest wait for a broker that makes sense.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Posts a JSON body with these headers.
pub(super) async fn post(url: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, Error> {
    tokio::time::timeout(TIMEOUT, post_now(url, headers, body))
        .await
        .map_err(|_| "no answer within a minute")?
}

async fn post_now(url: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, Error> {
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
        let name = ServerName::try_from(host)?;
        exchange(tls()?.connect(name, stream).await?, request).await
    } else {
        exchange(stream, request).await
    }
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
) -> Result<Answer, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, whose reading says how.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    #[expect(clippy::disallowed_methods, reason = "it is limited")]
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await?
        .to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// Trusts what the system trusts.
fn tls() -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
