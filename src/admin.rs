//! The admin listener: `/metrics`, `/healthz` and `/readyz`, on an address of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::bridge::Bridge;
use crate::live::Live;

/// A scraper, a balancer's probes and a few people.
const MAX_CONNECTIONS: usize = 64;

/// A connection of theirs lives no longer.
const MAX_AGE: Duration = Duration::from_secs(120);

const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until it is told to stop.
pub async fn serve(listener: TcpListener, live: Arc<Live>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _peer)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let live = Arc::clone(&live);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, std::convert::Infallible>(respond(
                    &live.current(),
                    &request,
                )))
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024);
            // How it ends is the scraper's business.
            let _ended = tokio::time::timeout(
                MAX_AGE,
                builder.serve_connection(TokioIo::new(stream), service),
            )
            .await;
            drop(place);
        });
    }
}

fn respond(bridge: &Bridge, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this listener takes GET\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match bridge.scrape() {
            Ok(metrics) => {
                let mut response = Response::new(Full::from(metrics));
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static(prometheus::TEXT_FORMAT),
                );
                response
            }
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("metrics can't be written: {error}\n"),
            ),
        },
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
            "this listener has /metrics, /healthz and /readyz\n",
        ),
    }
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
