//! The admin listener: `/metrics`, `/healthz`, `/readyz` and the live page, on an address of its own.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::page::{LastRead, Page, PageBody};
use crate::bridge::Bridge;
use crate::bridge::live::Live;
use crate::ingress::accept::ACCEPT_PAUSE;
use crate::metrics::Format;
use crate::telemetry::LogThrottle;

/// Enough for a scraper, a load balancer's probes and a few people.
const MAX_CONNECTIONS: usize = 64;

/// From the start of the connection to the end of the request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit of a connection's life. It serves one request.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The same of the live page's stream, which the browser then opens again.
const MAX_STREAM_AGE: Duration = Duration::from_secs(3600);

/// How often a stream is checked, and how long its reader may take nothing.
const STREAM_CHECK: Duration = Duration::from_secs(10);
const MAX_STALL: Duration = Duration::from_secs(30);

/// Serves until `stop` is cancelled. `public` is the public listener's address.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    live: Arc<Live>,
    public: SocketAddr,
    stop: CancellationToken,
) {
    let is_local = listener
        .local_addr()
        .is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let page = Arc::new(Page::new(is_local, public));
    let failures = LogThrottle::default();
    let mut open = OpenConnections::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                if let Some(suppressed) = failures.allow() {
                    tracing::warn!(listener = "admin", %error, suppressed, "a connection could not be accepted");
                }
                // One of our own connections may hold the resource that the system lacks.
                open.evict();
                tokio::time::sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.evict_if_full();
        let (live, page) = (Arc::clone(&live), Arc::clone(&page));
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&has_asked);
        let serving = tokio::spawn(async move {
            let last_read = Arc::new(LastRead::default());
            let service = service_fn(|request| {
                asked.store(true, Ordering::Relaxed);
                let (live, page, last_read) = (&live, &page, &last_read);
                async move {
                    let response = respond(live, page, request, is_local, last_read).await;
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                // `nc -N` and the like end their side after the request.
                .half_close(true)
                .max_buf_size(16 * 1024);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            let mut serving = std::pin::pin!(serving);
            // A failed scrape is the scraper's to report.
            let mut ended = tokio::time::timeout(MAX_AGE, &mut serving).await.is_ok();
            let began = Instant::now();
            while !ended && began.elapsed() < MAX_STREAM_AGE && is_read(&last_read) {
                ended = tokio::time::timeout(STREAM_CHECK, &mut serving)
                    .await
                    .is_ok();
            }
        });
        open.0.push_back(OpenConnection {
            task: serving.abort_handle(),
            has_asked,
        });
    }
}

/// Oldest first.
#[derive(Debug, Default)]
struct OpenConnections(VecDeque<OpenConnection>);

#[derive(Debug)]
struct OpenConnection {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

impl OpenConnections {
    fn evict_if_full(&mut self) {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() >= MAX_CONNECTIONS {
            self.evict();
        }
    }

    /// Closes the oldest connection without a request, or else the oldest one.
    fn evict(&mut self) {
        let is_idle = |connection: &OpenConnection| !connection.has_asked.load(Ordering::Relaxed);
        let index = self.0.iter().position(is_idle).unwrap_or_default();
        if let Some(connection) = self.0.remove(index) {
            connection.task.abort();
        }
    }
}

/// Whether this is a stream whose reader keeps up. The figures of each second show.
fn is_read(last_read: &LastRead) -> bool {
    let last = last_read.get();
    last.is_some_and(|last| last.elapsed() < MAX_STALL)
}

async fn respond(
    live: &Arc<Live>,
    page: &Page,
    request: Request<Incoming>,
    is_local: bool,
    last_read: &Arc<LastRead>,
) -> Response<PageBody> {
    if is_local && !has_local_host(&request) {
        let refusal = text(
            StatusCode::MISDIRECTED_REQUEST,
            "this listener is at a loopback address, so it answers only to `localhost` and to IP addresses as Host: a web page \
could reach it under another name. Write http://localhost:PORT; let a proxy set such a Host.\n",
        );
        return refusal.map(BodyExt::boxed_unsync);
    }
    match page.respond(live, request, last_read).await {
        Ok(response) => response,
        Err(request) => answer(&live.current(), &request).map(BodyExt::boxed_unsync),
    }
}

fn answer<B>(bridge: &Bridge, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "this listener accepts GET only\n",
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let format = wanted_format(request.headers());
            match bridge.scrape_as(format) {
                Ok(metrics) => {
                    let mut response = Response::new(Full::from(metrics));
                    let headers = response.headers_mut();
                    headers.insert(
                        CONTENT_TYPE,
                        HeaderValue::from_static(format.content_type()),
                    );
                    headers.insert(VARY, HeaderValue::from_static("accept"));
                    response
                }
                Err(error) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the metrics cannot be encoded: {error}\n"),
                ),
            }
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let readiness = bridge.readiness();
            let mut body = if readiness.is_ready {
                "ready\n".to_owned()
            } else {
                "not ready\n".to_owned()
            };
            for missing in &readiness.missing {
                body.push_str(missing);
                body.push('\n');
            }
            text(
                if readiness.is_ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                },
                body,
            )
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "this listener has /, /metrics, /healthz and /readyz\n",
        ),
    }
}

/// OpenMetrics for whoever asks for it by name and prefers no plain text.
fn wanted_format(headers: &HeaderMap) -> Format {
    let (mut open, mut plain) = (0.0_f64, 0.0_f64);
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut is_known = true;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                if name.eq_ignore_ascii_case("q") {
                    quality = value.parse().unwrap_or(0.0);
                } else if name.eq_ignore_ascii_case("version") {
                    is_known = matches!(value.trim_matches('"'), "1.0.0" | "0.0.1");
                }
            }
            if media_type.eq_ignore_ascii_case("application/openmetrics-text") && is_known {
                open = open.max(quality);
            } else if media_type.eq_ignore_ascii_case("text/plain") {
                plain = plain.max(quality);
            }
        }
    }
    if open > 0.0 && open >= plain {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

/// Guards against DNS rebinding: a browser would send the attacker's host name. The request must name this machine, an IP
/// address, or nothing, as some load balancers' probes do and no browser does.
fn has_local_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(HOST).iter();
    let mut hosts = hosts.map(|host| host.to_str().unwrap_or("?"));
    let authority = request.uri().authority();
    hosts.all(is_local_host) && authority.is_none_or(|authority| is_local_host(authority.as_str()))
}

/// `HOST` or `HOST:PORT` (RFC 3986 section 3.2.2).
fn is_local_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address, port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_localhost = name == "localhost" || name.ends_with(".localhost");
    is_port && (is_localhost || name.parse::<IpAddr>().is_ok())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anyone_can_register_is_not_this_machine() {
        for local in [
            "localhost",
            "LocalHost:9090",
            "localhost.",
            "bridge.localhost:1",
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "[fd00::1]",
        ] {
            assert!(is_local_host(local), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "localhost:9090@evil.example",
            "[::1",
            "[evil.example]",
            "[::1]evil.example",
            "127.0.0.1 evil.example",
        ] {
            assert!(!is_local_host(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_host_of_a_request_counts_and_none_is_none_of_a_browsers() {
        let request = |uri: &str, hosts: &[&str]| {
            let request = hosts.iter().fold(Request::get(uri), |request, host| {
                request.header(HOST, *host)
            });
            request.body(()).unwrap()
        };
        assert!(has_local_host(&request("/metrics", &[])));
        assert!(has_local_host(&request("/metrics", &["localhost"])));
        assert!(!has_local_host(&request(
            "/metrics",
            &["localhost", "evil.example"]
        )));
        assert!(!has_local_host(&request(
            "http://evil.example/metrics",
            &["localhost"]
        )));
    }

    #[test]
    fn openmetrics_is_for_whoever_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.5, text/plain;q=0.5",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.5, text/plain",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "application/openmetrics-text;version=2.0.0",
                Format::Prometheus,
            ),
            ("text/plain", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wanted_format(&headers), expected, "{accept}");
        }
        assert_eq!(wanted_format(&HeaderMap::new()), Format::Prometheus);
    }

    #[tokio::test]
    async fn the_oldest_connection_that_asks_for_nothing_makes_room() {
        let mut open = OpenConnections::default();
        let mut tasks = Vec::new();
        for number in 0..MAX_CONNECTIONS {
            let task = tokio::spawn(std::future::pending::<()>());
            let has_asked = Arc::new(AtomicBool::new(number == 0));
            open.0.push_back(OpenConnection {
                task: task.abort_handle(),
                has_asked,
            });
            tasks.push(task);
        }
        open.evict_if_full();
        assert!(tasks.remove(1).await.unwrap_err().is_cancelled());
        assert_eq!(open.0.len(), MAX_CONNECTIONS - 1);
        assert!(tasks.iter().all(|task| !task.is_finished()));
    }
}
