//! The only requests that the bridge makes itself: a GET over HTTPS, if the operator allows it, to a host that a
//! preset's hook has checked. Redirects are not followed; size, time and number are bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// From DNS lookup to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of an answer in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The reason why a GET failed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetError(String);

impl std::fmt::Display for GetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GetError {}

impl GetError {
    /// Makes an error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Fetches a URL whose host was checked. Trusts the system's certificate authorities.
///
/// # Errors
/// The reason.
pub async fn get(url: &str) -> Result<Bytes, GetError> {
    static CLIENT: OnceCell<TlsConnector> = OnceCell::const_new();
    let client = CLIENT.get_or_try_init(|| async {
        let roots = tokio::task::spawn_blocking(system_roots).await;
        tls(roots.map_err(|error| GetError(error.to_string()))?)
    });
    let got = tokio::time::timeout(TIMEOUT, async { get_through(client.await?, url).await }).await;
    let got = got.unwrap_or_else(|_| Err(GetError::new("no answer within 5 s")));
    let count = if got.is_ok() { &SUCCEEDED } else { &FAILED };
    count.fetch_add(1, Ordering::Relaxed);
    got
}

static SUCCEEDED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static NOT_MADE: AtomicU64 = AtomicU64::new(0);

/// An outcome, and its count.
pub type Count = (&'static str, fn() -> u64);

/// Outcomes of the bridge's own requests, for `hookbridge_outbound_requests_total`: `ok`, `failed`, or `refused`
/// because of the rate limit.
pub const COUNTS: [Count; 3] = [
    ("ok", || SUCCEEDED.load(Ordering::Relaxed)),
    ("failed", || FAILED.load(Ordering::Relaxed)),
    ("refused", || NOT_MADE.load(Ordering::Relaxed)),
];

/// Counts a request that was not made because of the rate limit.
pub(super) fn note_refused() {
    NOT_MADE.fetch_add(1, Ordering::Relaxed);
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn tls(roots: RootCertStore) -> Result<TlsConnector, GetError> {
    if roots.is_empty() {
        return Err(GetError::new(
            "the system has no CA certificates; install ca-certificates",
        ));
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| GetError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn get_through(tls: &TlsConnector, url: &str) -> Result<Bytes, GetError> {
    let failed = |error: &dyn std::fmt::Display| GetError(error.to_string());
    let uri: Uri = url.parse().map_err(|_| GetError::new("it is not a URL"))?;
    let host = uri.host().ok_or(GetError::new("the URL has no host"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    let stream = TcpStream::connect((host, 443)).await;
    let stream = stream.map_err(|error| GetError(format!("{host} can't be reached: {error}")))?;
    let stream = tls
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(HOST, host)
        .header(USER_AGENT, "hookbridge")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?
            .into_parts();
        if head.status != StatusCode::OK {
            return Err(GetError(format!("{host} answered {}", head.status)));
        }
        #[expect(clippy::disallowed_methods, reason = "the size is limited")]
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        Ok(body.map_err(|error| failed(&error))?.to_bytes())
    };
    // The connection ends with the exchange, whichever side closes first.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        got = &mut exchange => got,
        _ = connection => exchange.await,
    }
}

/// A token bucket: a burst, and then one per interval.
#[derive(Debug)]
pub struct Budget {
    burst: u32,
    interval: Duration,
    state: Mutex<Option<(u32, Instant)>>,
}

impl Budget {
    /// A full bucket.
    #[must_use]
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            state: Mutex::new(None),
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = state.unwrap_or((self.burst, now));
        let elapsed = now.duration_since(since);
        let earned = elapsed.as_millis() / self.interval.as_millis().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        let (left, since) = match left.saturating_add(earned) {
            full if full >= self.burst => (self.burst, now),
            left => (left, since + self.interval * earned),
        };
        *state = Some((left.saturating_sub(1), since));
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_has_a_burst_and_then_one_per_interval() {
        let budget = Budget::new(3, Duration::from_secs(10));
        let taken = |budget: &Budget| (0..10).filter(|_| budget.take()).count();
        assert_eq!(taken(&budget), 3);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(taken(&budget), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&budget), 1);
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(taken(&budget), 2);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(taken(&budget), 1);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(taken(&budget), 3);
    }
}
