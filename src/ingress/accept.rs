//! Step 1, the connection: connections are bounded in number, and each has timeouts and a maximum age.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Abortable;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::self_wake::SelfWake;
use super::socket::{Activity, Socket, TimeLimits, WRITE_TIMEOUT};
use super::tls::{Stream, client_names, may_speak_http2, tcp, tls_handshake};
use super::unverified_connections::{UnverifiedConnection, UnverifiedConnections};
use crate::bridge::live::Live;
use crate::config::Http;
use crate::telemetry::LogThrottle;

/// The maximum size of a head (request line and headers) in bytes. hyper answers 431 beyond it.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The largest buffer of a connection, in bytes.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;

/// Interval between HTTP/2 pings, and the timeout for each.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// Time allowed for the reset of a disconnected sender to arrive.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after the system had no socket or no memory for a connection.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// File descriptors kept back from senders for the admin listener, the brokers' clients and files; at most a quarter of
/// the limit.
const RESERVED_DESCRIPTORS: u64 = 128;

/// Accepts connections until `stop` is cancelled; each connection then closes after its current answer.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    live: Arc<Live>,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let (failures, shortages) = (LogThrottle::default(), LogThrottle::default());
    let mut count = 0_u64;
    let all_unverified = Arc::<UnverifiedConnections>::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = failures.allow() {
                    tracing::warn!(listener = "public", %error, suppressed, "a connection could not be accepted");
                }
                if error.kind() == ErrorKind::ConnectionAborted {
                    continue;
                }
                // The system does not notify when it has room again.
                tokio::time::sleep_until(Instant::now() + ACCEPT_PAUSE).await;
                continue;
            }
        };
        let bridge = live.current();
        let process = Arc::clone(bridge.process());
        if is_reserved(&stream) {
            process.metrics().connections_rejected.inc();
            if let Some(suppressed) = shortages.allow() {
                tracing::warn!(
                    suppressed,
                    "a connection was closed because few file descriptors are left; raise their limit (LimitNOFILE), or lower max_connections"
                );
            }
            // This makes room for the next connection.
            let _has_ended_one = all_unverified.end_oldest();
            continue;
        }
        if connections.len() >= bridge.config().http.max_connections {
            process.metrics().connections_rejected.inc();
            // A connection that has delivered a verified event stays; the oldest of the others makes room.
            if !all_unverified.end_oldest() {
                continue;
            }
        }
        let (unverified, ending) = all_unverified.enter();
        count = count.wrapping_add(1);
        // A token of its own: each connection polls it constantly, and all would contend for the lock of a shared one.
        let (live, stop) = (Arc::clone(&live), stop.child_token());
        let open = Open::new(&process.metrics().connections);
        connections.spawn(async move {
            let _until_it_ends = open;
            let connection = connection(stream, peer, unverified, &live, &stop, count);
            if let Ok(Err(error)) = Abortable::new(connection, ending).await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
}

/// Counts a connection in `hookbridge_connections` until it is dropped.
struct Open(IntGauge);

impl Open {
    fn new(connections: &IntGauge) -> Self {
        connections.inc();
        Self(connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whether the connection has one of the last descriptors. The system hands out the lowest free one, so all below are
/// taken.
fn is_reserved(stream: &TcpStream) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return false;
    };
    let free_for_all = limit - RESERVED_DESCRIPTORS.min(limit / 4);
    u64::try_from(stream.as_raw_fd()).is_ok_and(|descriptor| descriptor >= free_for_all)
}

/// Varies an age by ±10 %, so that connections that began together do not end together.
fn jittered(age: Duration, count: u64) -> Duration {
    age.mul_f64(
        f64::from(u32::try_from(count.wrapping_mul(61) % 101).unwrap_or_default())
            .mul_add(0.002, 0.9),
    )
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    unverified: UnverifiedConnection,
    live: &Arc<Live>,
    stop: &CancellationToken,
    count: u64,
) -> Ended {
    // The settings at the time when the connection began.
    let bridge = live.current();
    let Http {
        header_timeout,
        idle_timeout,
        body_timeout,
        max_connection_age,
        http2,
        ..
    } = bridge.config().http;
    let tls = bridge.config().http.tls.clone();
    drop(bridge);
    // Answers are small, and the sender waits for each of them.
    stream.set_nodelay(true)?;
    let stream = match tls {
        None => Stream::Left(stream),
        Some(tls) => tokio::select! {
            // Boxed because it is large and not needed by every connection.
            shaken = Box::pin(tls_handshake(stream, peer, &tls)) => match shaken {
                Some(stream) => stream,
                None => return Ok(()),
            },
            () = stop.cancelled() => return Ok(()),
        },
    };
    let http2 = http2 && may_speak_http2(&stream);
    let aged_at = Instant::now() + jittered(max_connection_age, count);
    let activity = Arc::new(Activity::new(
        peer.ip(),
        client_names(&stream),
        aged_at,
        unverified,
    ));
    let mut socket = Socket::new(
        stream,
        Arc::clone(&activity),
        TimeLimits {
            header: header_timeout,
            idle: idle_timeout,
            linger: body_timeout,
        },
    );
    let is_http2 = http2
        && tokio::select! {
            sniffed = socket.sniff_http2() => sniffed?,
            () = stop.cancelled() => return Ok(()),
        };
    if is_http2 {
        // Boxed because it is large and rare.
        Box::pin(serve_http2(socket, live, &activity, stop, aged_at)).await
    } else {
        serve_http1(socket, live, &activity, stop).await
    }
}

async fn serve_http1(
    mut socket: Socket<Stream>,
    live: &Arc<Live>,
    activity: &Arc<Activity>,
    stop: &CancellationToken,
) -> Ended {
    let mut builder = http1::Builder::new();
    // The socket's timers replace hyper's.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A sender may close its side after its request. The socket notices one that has disconnected.
        .half_close(true)
        // Answers are small: copying one behind its head costs less than a vectored write.
        .writev(false)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES);
    loop {
        // hyper keeps 16 KiB per connection even for a silent one, so it is started only when there is something to
        // read.
        let has_byte = tokio::select! {
            has_byte = socket.wait_for_byte() => has_byte,
            () = stop.cancelled() => Ok(false),
        };
        if !matches!(has_byte, Ok(true)) {
            // With TLS the sender is notified of the end (RFC 8446 section 6.1); a disconnected one need not be.
            drop(socket.shutdown().await);
            return Ok(has_byte.map(drop)?);
        }
        let service = service_fn(|request| respond(live, activity, request));
        let mut connection = builder.serve_connection(TokioIo::new(socket), service);
        let mut self_wake = SelfWake::default();
        let until_idle = poll_fn(|context| {
            let mut context = Context::from_waker(self_wake.waker(context.waker()));
            match Pin::new(&mut connection).poll(&mut context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if activity.is_idle() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            ended = until_idle => {
                if let Some(ended) = ended {
                    let socket = connection.into_parts().io.into_inner();
                    if socket.is_half_closed() {
                        note_if_gone(socket.get_ref(), ended.is_err(), live).await;
                    }
                    return Ok(ended?);
                }
            }
            () = stop.cancelled() => {
                Pin::new(&mut connection).graceful_shutdown();
                return finish(connection, live).await;
            }
        }
        let parts = connection.into_parts();
        socket = parts.io.into_inner();
        socket.put_back(&parts.read_buf);
    }
}

/// Waits for the last answers of a connection that accepts no further request, up to their maximum duration.
async fn finish(connection: impl Future<Output = Result<(), hyper::Error>>, live: &Live) -> Ended {
    let longest = {
        let bridge = live.current();
        let http = &bridge.config().http;
        http.header_timeout + bridge.config().longest_request() + WRITE_TIMEOUT + http.body_timeout
    };
    Ok(tokio::time::timeout(longest, connection).await??)
}

/// A sender that closed its side during its request either waited for the answer or had disconnected. In the latter
/// case its system resets the connection as soon as the answer reaches it.
async fn note_if_gone(stream: &Stream, has_failed: bool, live: &Live) {
    let stream = tcp(stream);
    let is_reset = async {
        let failed = tokio::time::timeout(RESET_TIMEOUT, stream.ready(Interest::ERROR)).await;
        failed.is_ok() && !matches!(stream.take_error(), Ok(None))
    };
    if has_failed || is_reset.await {
        live.process().metrics().client_disconnects.inc();
    }
}

async fn serve_http2(
    socket: Socket<Stream>,
    live: &Arc<Live>,
    activity: &Arc<Activity>,
    stop: &CancellationToken,
    aged_at: Instant,
) -> Ended {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES)?);
    let service = service_fn(|request| {
        let (live, activity) = (Arc::clone(live), Arc::clone(activity));
        async move { respond(&live, &activity, request).await }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = stop.cancelled() => {}
        () = tokio::time::sleep_until(aged_at) => {}
    }
    connection.as_mut().graceful_shutdown();
    finish(connection, live).await
}

fn respond(
    live: &Live,
    activity: &Arc<Activity>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> {
    let is_http2 = request.version() == Version::HTTP_2;
    let has_body = !request.body().is_end_stream();
    let busy = activity.begin(has_body);
    // Closing an idle connection could race with the sender's next request, so an aged one is closed with an answer.
    let now = Instant::now();
    let must_close = live.process().is_draining() || activity.is_aged(now);
    super::handle(live, request, activity, now.into_std()).map(move |mut response| {
        let _until_here = busy;
        // A `Connection` header at this point means that the answer leaves the body unread.
        let leaves_body = response.headers_mut().remove(CONNECTION).is_some() && has_body;
        if leaves_body {
            activity.note_unread_body();
        }
        // HTTP/2 has no such header (RFC 9113 section 8.2.2) and does not need one.
        if (leaves_body || must_close) && !is_http2 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ages_vary_by_at_most_ten_percent() {
        let ages: Vec<_> = (0..1000)
            .map(|count| jittered(Duration::from_secs(100), count).as_secs_f64())
            .collect();
        assert!(ages.iter().all(|age| (89.9..=110.1).contains(age)));
        assert!(ages.iter().any(|age| *age < 92.0) && ages.iter().any(|age| *age > 108.0));
    }
}
