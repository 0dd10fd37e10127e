//! A sender's socket with timers: one between requests, one from the first byte of a head to its last, and one for
//! senders that do not read their answers.
//!
//! hyper has one timer for the first two (`header_read_timeout` starts when it begins to wait), which would close the
//! idle connections of load balancers as soon as slow heads.

use std::future::Future as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::unverified_connections::UnverifiedConnection;

/// Time limit for a sender to read an answer.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// After this time between requests, a connection is idle and keeps no buffers.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// After an answer that left a body unread, the rest is read and dropped within the time allowed for a body, so that
/// the sender sees the answer instead of a reset (RFC 9112 section 9.6): buffering proxies write the whole body before
/// they read. It ends earlier when the sender pauses for `LINGER_PAUSE` or has sent the largest possible `max_body`.
const LINGER_PAUSE: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// State shared between a connection's socket and its requests.
#[derive(Debug)]
pub(super) struct Activity {
    peer: IpAddr,
    /// The names in the client certificate.
    names: Box<[String]>,
    aged_at: Instant,
    registration: UnverifiedConnection,
    is_verified: AtomicBool,
    /// The body of the request in flight is still being read. Unused for HTTP/2, which has concurrent requests.
    is_reading_body: AtomicBool,
    has_fragment: AtomicBool,
    in_flight: AtomicUsize,
    ended: AtomicUsize,
    left_body: AtomicBool,
    is_idle: AtomicBool,
}

impl Activity {
    pub(super) fn new(
        peer: IpAddr,
        names: Box<[String]>,
        aged_at: Instant,
        registration: UnverifiedConnection,
    ) -> Self {
        Self {
            peer,
            names,
            aged_at,
            registration,
            is_verified: AtomicBool::new(false),
            is_reading_body: AtomicBool::new(false),
            has_fragment: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            left_body: AtomicBool::new(false),
            is_idle: AtomicBool::new(false),
        }
    }

    /// The remote address of the connection.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whether the client certificate has one of these names.
    pub(super) fn has_name_of(&self, wanted: &[String]) -> bool {
        wanted.iter().any(|name| self.names.contains(name))
    }

    /// Marks a request as being handled until the guard is dropped.
    pub(super) fn begin(&self, has_body: bool) -> Busy<'_> {
        self.is_reading_body.store(has_body, Ordering::Release);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(self)
    }

    /// The request's body has been read to its end.
    pub(super) fn note_body_read(&self) {
        self.is_reading_body.store(false, Ordering::Release);
    }

    /// The connection, unless it has already delivered a verified event.
    pub(super) fn if_unverified(self: &Arc<Self>) -> Option<Arc<Self>> {
        let is_verified = self.is_verified.load(Ordering::Relaxed);
        (!is_verified).then(|| Arc::clone(self))
    }

    /// Records that the connection has delivered a verified event.
    pub(super) fn mark_verified(&self) {
        if !self.is_verified.swap(true, Ordering::Relaxed) {
            self.registration.mark_verified();
        }
    }

    /// Whether the last request line had a fragment, which hyper drops silently. Pipelined requests in the same packet
    /// are not checked.
    pub(super) fn take_fragment(&self) -> bool {
        self.has_fragment.load(Ordering::Relaxed)
            && self.has_fragment.swap(false, Ordering::Relaxed)
    }

    /// Whether the connection is so old that its next answer should be the last.
    pub(super) fn is_aged(&self, now: Instant) -> bool {
        now >= self.aged_at
    }

    /// Whether the connection has had nothing in flight, to read or to write for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Acquire)
    }

    /// Records that an answer was given before the request's body was read.
    pub(super) fn note_unread_body(&self) {
        self.left_body.store(true, Ordering::Release);
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Activity);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    /// Time limit for draining an unread body.
    pub(super) linger: Duration,
}

/// The bytes that a connection waits for, and the start of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The connection's first byte.
    Opening(Instant),
    /// The first byte of another head.
    Idle(Instant),
    /// The rest of a head, since its first byte.
    Head(Instant),
}

#[derive(Debug)]
pub(super) struct Socket<S> {
    inner: S,
    /// Bytes read to tell HTTP/1 from HTTP/2.
    read_ahead: BytesMut,
    activity: Arc<Activity>,
    limits: TimeLimits,
    is_http2: bool,
    waiting: Waiting,
    /// Inside a request line.
    is_in_line: bool,
    ended_seen: usize,
    read_clock: Clock,
    write_since: Option<Instant>,
    write_clock: Clock,
    /// The bridge closes the connection.
    is_ending: bool,
    lingered: usize,
    linger_since: Option<Instant>,
    /// The time of the last byte of the unread body.
    linger_last: Option<Instant>,
    /// The sender closed its side while its request was in flight.
    is_half_closed: bool,
    /// hyper must be woken for bytes that were read ahead.
    is_wake_due: bool,
}

/// A timer that is reset only when polled, and moved later only after it has expired: on a busy connection the deadline
/// moves with each request and is never reached.
#[derive(Debug)]
struct Clock(Pin<Box<Sleep>>);

impl Clock {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep_until(Instant::now())))
    }

    /// Ready once the deadline has passed; until then the task is woken at the deadline or earlier.
    fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        ready!(self.0.as_mut().poll(context));
        if self.0.deadline() < deadline {
            self.0.as_mut().reset(deadline);
            return self.0.as_mut().poll(context);
        }
        Poll::Ready(())
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(inner: S, activity: Arc<Activity>, limits: TimeLimits) -> Self {
        Self {
            inner,
            read_ahead: BytesMut::new(),
            activity,
            limits,
            is_http2: false,
            waiting: Waiting::Opening(Instant::now()),
            is_in_line: false,
            ended_seen: 0,
            read_clock: Clock::new(),
            write_since: None,
            write_clock: Clock::new(),
            is_ending: false,
            lingered: 0,
            linger_since: None,
            linger_last: None,
            is_half_closed: false,
            is_wake_due: false,
        }
    }

    /// Whether the sender begins with HTTP/2's preface (RFC 9113 section 3.4). Reads no more bytes than necessary.
    ///
    /// # Errors
    /// An I/O error or a timeout.
    pub(super) async fn sniff_http2(&mut self) -> io::Result<bool> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut read = BytesMut::with_capacity(PREFACE.len());
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            let mut byte = [0; 1];
            if self.read(&mut byte).await? == 0 {
                break;
            }
            read.extend_from_slice(&byte);
        }
        self.is_http2 = read == PREFACE;
        self.read_ahead = read;
        Ok(self.is_http2)
    }

    /// Waits for the first byte, which stays readable. Returns false at the end of the stream.
    ///
    /// # Errors
    /// An I/O error or a timeout.
    pub(super) async fn wait_for_byte(&mut self) -> io::Result<bool> {
        if self.read_ahead.is_empty() {
            let mut byte = [0; 1];
            let length = self.read(&mut byte).await?;
            self.put_back(byte.get(..length).unwrap_or_default());
        }
        Ok(!self.read_ahead.is_empty())
    }

    /// Whether the sender closed its side during its request: it may be waiting for the answer, or have disconnected.
    pub(super) fn is_half_closed(&self) -> bool {
        self.is_half_closed
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Puts unused bytes back in front of the stream. They are the beginning of a head.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.read_ahead.extend_from_slice(bytes);
            self.note_read(bytes);
        }
    }

    /// Ready when the sender has been silent, or its head incomplete, for too long.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.activity.in_flight.load(Ordering::Acquire) > 0 {
            // The request's own timeouts apply.
            return Poll::Pending;
        }
        self.note_request_end();
        let (deadline, what) = match self.waiting {
            Waiting::Opening(since) => (since + self.limits.header, "the sender did not begin"),
            Waiting::Idle(since) => {
                // An idle connection's next bytes are read as a request, which the rest of a refused body must never be.
                let is_ending = self.is_ending || self.activity.left_body.load(Ordering::Acquire);
                let may_be_idle = self.write_since.is_none() && !self.is_http2 && !is_ending;
                if may_be_idle && !self.activity.is_idle() {
                    ready!(self.read_clock.poll(since + IDLE_AFTER, context));
                    self.activity.is_idle.store(true, Ordering::Release);
                }
                (since + self.limits.idle, "no request came")
            }
            Waiting::Head(since) => (since + self.limits.header, "the head did not end"),
        };
        ready!(self.read_clock.poll(deadline, context));
        Poll::Ready(timed_out(what))
    }

    /// After the end of a request, waits for the next one.
    fn note_request_end(&mut self) {
        let ended = self.activity.ended.load(Ordering::Acquire);
        if ended != self.ended_seen {
            self.ended_seen = ended;
            self.waiting = Waiting::Idle(Instant::now());
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        self.activity.is_idle.store(false, Ordering::Release);
        self.note_request_end();
        if !matches!(self.waiting, Waiting::Head(_)) && !self.is_http2 {
            self.is_in_line = true;
        }
        if self.is_in_line {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let line = bytes.get(..end.unwrap_or(bytes.len()));
            if line.is_some_and(|line| line.contains(&b'#')) {
                self.activity.has_fragment.store(true, Ordering::Relaxed);
            }
            self.is_in_line = end.is_none();
        }
        self.waiting = match self.waiting {
            // HTTP/2 sends frames between requests, and they are not requests.
            Waiting::Idle(since) if self.is_http2 => Waiting::Idle(since),
            Waiting::Opening(_) | Waiting::Idle(_) => Waiting::Head(Instant::now()),
            Waiting::Head(since) => Waiting::Head(since),
        };
    }

    fn poll_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_since = None;
            return polled;
        }
        let since = *self.write_since.get_or_insert_with(Instant::now);
        ready!(self.write_clock.poll(since + WRITE_TIMEOUT, context));
        Poll::Ready(Err(timed_out("the answer was not taken")))
    }

    /// hyper does not read while a request is in flight, since its sender may have closed its side (RFC 9112 section
    /// 9.6). A sender that disconnected with a reset is noticed here. While it reads a body, hyper notices by itself.
    fn check_for_disconnect(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.activity.in_flight.load(Ordering::Acquire) == 0 {
            if std::mem::take(&mut self.is_wake_due) {
                context.waker().wake_by_ref();
            }
            return Ok(());
        }
        let may_peek = !self.is_http2
            && !self.is_half_closed
            && self.read_ahead.is_empty()
            && !self.activity.is_reading_body.load(Ordering::Acquire);
        if !may_peek {
            return Ok(());
        }
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.is_half_closed = true,
            Poll::Ready(Ok(())) => self.read_ahead.extend_from_slice(buffer.filled()),
        }
        self.is_wake_due = true;
        Ok(())
    }

    /// Drains the body for a while after the last answer.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.linger_since.get_or_insert_with(Instant::now);
        let mut last = *self.linger_last.get_or_insert(since);
        let mut scratch = [0; 8192];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.lingered += buffer.filled().len();
                    last = Instant::now();
                    self.linger_last = Some(last);
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let deadline = (since + self.limits.linger).min(last + LINGER_PAUSE);
                    return self.read_clock.poll(deadline, context);
                }
            }
            if since + self.limits.linger <= last {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &mut *self;
        if !socket.read_ahead.is_empty() {
            let length = socket.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(socket.read_ahead.get(..length).unwrap_or_default());
            socket.read_ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut socket.inner).poll_read(context, buffer) {
            Poll::Ready(result) => {
                let read = buffer.filled().get(before..).unwrap_or_default();
                if !read.is_empty() && socket.activity.in_flight.load(Ordering::Acquire) == 0 {
                    socket.note_read(read);
                }
                Poll::Ready(result)
            }
            Poll::Pending => socket.poll_overdue(context).map(Err),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.poll_progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.poll_progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        ready!(self.poll_progress(context, flushed))?;
        self.check_for_disconnect(context)?;
        // After an answer, hyper need not read before there is something to read, so the idle timer must be polled
        // here.
        match self.poll_overdue(context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_ending = true;
        if self.linger_since.is_none() {
            // TLS writes its closing alert here.
            let shut = Pin::new(&mut self.inner).poll_shutdown(context);
            ready!(self.poll_progress(context, shut))?;
        }
        if self.activity.left_body.load(Ordering::Acquire) {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::unverified_connections::UnverifiedConnections;
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    fn pair() -> (
        Socket<tokio::io::DuplexStream>,
        tokio::io::DuplexStream,
        Arc<Activity>,
    ) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (unverified, _) = Arc::<UnverifiedConnections>::default().enter();
        let aged_at = Instant::now() + Duration::from_secs(3600);
        let peer = IpAddr::from([127, 0, 0, 1]);
        let activity = Arc::new(Activity::new(peer, Box::default(), aged_at, unverified));
        let limits = TimeLimits {
            header: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            linger: Duration::from_secs(10),
        };
        (
            Socket::new(ours, Arc::clone(&activity), limits),
            theirs,
            activity,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_noticed_after_a_slow_request_though_nobody_reads() {
        let (mut socket, mut theirs, activity) = pair();
        theirs.write_all(b"x").await.unwrap();
        assert!(socket.wait_for_byte().await.unwrap());
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 1);
        let busy = activity.begin(false);
        // Meanwhile hyper polls for the sender's end, and the head's timer expires.
        let mut byte = [0; 1];
        let meanwhile = tokio::time::timeout(Duration::from_secs(9), socket.read(&mut byte));
        assert!(meanwhile.await.is_err());
        drop(busy);
        let mut is_answered = false;
        let woken = std::future::poll_fn(|context| {
            if std::mem::replace(&mut is_answered, true) {
                let mut byte = [0; 1];
                return Pin::new(&mut socket).poll_read(context, &mut ReadBuf::new(&mut byte));
            }
            assert!(Pin::new(&mut socket).poll_flush(context).is_ready());
            Poll::Pending
        });
        let ended = tokio::time::timeout(Duration::from_secs(80), woken).await;
        assert_eq!(
            ended.expect("it is woken").unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }

    async fn read_until_error(socket: &mut Socket<tokio::io::DuplexStream>) -> (usize, Duration) {
        let started = Instant::now();
        let mut total = 0;
        loop {
            let mut buffer = [0; 16];
            match socket.read(&mut buffer).await {
                Ok(length) => total += length,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return (total, started.elapsed());
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_never_begins_gets_the_header_timeout() {
        let (mut socket, _theirs, _) = pair();
        assert_eq!(
            read_until_error(&mut socket).await,
            (0, Duration::from_secs(5))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_body_is_drained_until_it_pauses_or_its_time_is_up() {
        let (mut socket, mut theirs, activity) = pair();
        activity.note_unread_body();
        let started = Instant::now();
        socket.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), LINGER_PAUSE);
        drop(socket);

        let (mut socket, mut dripping, activity) = pair();
        activity.note_unread_body();
        let drip = tokio::spawn(async move {
            let mut written = 0;
            while dripping.write_all(&[0; 1000]).await.is_ok() {
                written += 1000;
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(900)).await;
            }
            written
        });
        let started = Instant::now();
        socket.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), socket.limits.linger);
        drop(socket);
        assert!(drip.await.unwrap() >= 11_000);
        assert!(theirs.write_all(b"x").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_closes_its_side_is_still_answered_and_hyper_is_woken_for_the_end() {
        let (mut socket, mut theirs, activity) = pair();
        theirs.write_all(b"request").await.unwrap();
        assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 7);
        let busy = activity.begin(true);
        theirs.shutdown().await.unwrap();
        socket.flush().await.unwrap();
        assert!(!socket.is_half_closed(), "its body's end would be hidden");
        activity.note_body_read();
        socket.flush().await.unwrap();
        assert!(socket.is_half_closed());
        drop(busy);
        let waker = futures_util::task::noop_waker();
        assert!(socket.is_wake_due);
        let flushed = Pin::new(&mut socket).poll_flush(&mut Context::from_waker(&waker));
        assert!(flushed.is_ready() && !socket.is_wake_due);
        socket.write_all(b"answer").await.unwrap();
        assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0);
        let mut answer = [0; 6];
        theirs.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_after_a_request_in_flight_are_not_lost() {
        let (mut socket, mut theirs, activity) = pair();
        let busy = activity.begin(false);
        theirs.write_all(b"POST").await.unwrap();
        socket.flush().await.unwrap();
        socket.flush().await.unwrap();
        drop(busy);
        let mut bytes = [0; 16];
        let first = socket.read(&mut bytes).await.unwrap();
        let rest = socket.read(&mut bytes[first..]).await.unwrap();
        assert_eq!(&bytes[..first + rest], b"POST");
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_a_request_do_not_prolong_an_idle_http_2_connection() {
        let (mut socket, mut theirs, activity) = pair();
        theirs
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        assert!(socket.sniff_http2().await.unwrap());
        drop(activity.begin(true));
        let dripping = tokio::spawn(async move {
            while theirs.write_all(b"ping").await.is_ok() {
                tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
            }
        });
        assert_eq!(
            read_until_error(&mut socket).await.1,
            Duration::from_secs(75)
        );
        drop(socket);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_times_out_however_slowly_it_drips() {
        let (mut socket, mut theirs, _) = pair();
        let dripping = tokio::spawn(async move {
            loop {
                if theirs.write_all(b"x").await.is_err() {
                    return;
                }
                tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
            }
        });
        let (bytes, elapsed) = read_until_error(&mut socket).await;
        assert!(
            bytes >= 5 && elapsed == Duration::from_secs(5),
            "{bytes} {elapsed:?}"
        );
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_timer_restarts_when_a_request_ends() {
        let (mut socket, mut theirs, activity) = pair();
        theirs.write_all(b"head").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 4);
        let busy = activity.begin(false);
        let waited =
            tokio::time::timeout(Duration::from_secs(3600), socket.read(&mut buffer)).await;
        assert!(
            waited.is_err(),
            "a request that is being handled has its own limits"
        );
        drop(busy);
        assert_eq!(
            read_until_error(&mut socket).await.1,
            Duration::from_secs(75)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_between_requests_until_a_byte_comes() {
        let (mut socket, mut theirs, activity) = pair();
        let busy = activity.begin(false);
        let mut buffer = [0; 16];
        let silent = |for_seconds| Duration::from_secs(for_seconds);
        let waited = tokio::time::timeout(silent(3600), socket.read(&mut buffer)).await;
        assert!(waited.is_err() && !activity.is_idle(), "a request");
        drop(busy);
        let waited = tokio::time::timeout(silent(60), socket.wait_for_byte()).await;
        assert!(waited.is_err() && activity.is_idle(), "silence");
        theirs.write_all(b"POST").await.unwrap();
        assert!(socket.wait_for_byte().await.unwrap());
        assert!(!activity.is_idle());
        let length = socket.read(&mut buffer).await.unwrap();
        let rest = socket.read(&mut buffer[length..]).await.unwrap();
        assert_eq!(&buffer[..length + rest], b"POST");
        assert_eq!(
            read_until_error(&mut socket).await,
            (0, Duration::from_secs(5)),
            "the head's time counts from its first byte"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_is_never_idle_however_long_the_rest_of_a_body_takes() {
        for leaves_body in [true, false] {
            let (mut socket, _theirs, activity) = pair();
            drop(activity.begin(true));
            if leaves_body {
                activity.note_unread_body();
            } else {
                socket.shutdown().await.unwrap();
            }
            let mut byte = [0; 1];
            let waited =
                tokio::time::timeout(Duration::from_secs(60), socket.read(&mut byte)).await;
            assert!(waited.is_err() && !activity.is_idle(), "{leaves_body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_idle_while_an_answer_is_unread() {
        let (mut socket, _theirs, activity) = pair();
        drop(activity.begin(false));
        let for_seconds = |seconds| Duration::from_secs(seconds);
        let written = tokio::time::timeout(for_seconds(1), socket.write_all(&[0; 4096])).await;
        assert!(written.is_err(), "it does not fit");
        let read = tokio::time::timeout(for_seconds(10), socket.wait_for_byte()).await;
        assert!(read.is_err() && !activity.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let (mut socket, _theirs, _) = pair();
        let error = socket.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_preface_is_distinguished_from_a_head_and_neither_is_lost() {
        for (sent, is_http2) in [
            (&b"POST /x HTTP/1.1\r\n\r\n"[..], false),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest", true),
            (b"PR", false),
        ] {
            let (mut socket, mut theirs, _) = pair();
            theirs.write_all(sent).await.unwrap();
            drop(theirs);
            assert_eq!(socket.sniff_http2().await.unwrap(), is_http2);
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, sent);
        }
    }
}
