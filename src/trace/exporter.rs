//! A bounded queue of spans, and the task that posts them to an OTLP receiver. Spans that find the queue full, or cannot be
//! delivered, are dropped and counted: nothing waits for a receiver.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::otlp::{
    ExportRequest, ExportResponse, Resource, ResourceSpans, Scope, ScopeSpans, Span,
};
use super::settings::Settings;
use crate::http_post::{self, Terms};
use crate::task;
use crate::telemetry::{LogThrottle, shorten};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

static EXPORTED: AtomicU64 = AtomicU64::new(0);
static NO_ROOM: AtomicU64 = AtomicU64::new(0);
static UNDELIVERED: AtomicU64 = AtomicU64::new(0);
static REJECTED: AtomicU64 = AtomicU64::new(0);

/// Spans that the receiver has taken since the start.
pub(crate) fn exported() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// A reason, and the spans that were dropped for it.
type Count = (&'static str, fn() -> u64);

/// For `hookbridge_trace_spans_dropped_total`.
pub(crate) const DROPPED: [Count; 3] = [
    ("queue_full", || NO_ROOM.load(Ordering::Relaxed)),
    ("export_failed", || UNDELIVERED.load(Ordering::Relaxed)),
    ("rejected", || REJECTED.load(Ordering::Relaxed)),
];

fn count(counter: &AtomicU64, spans: usize) {
    counter.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[derive(Debug)]
pub(super) struct Exporter {
    settings: Settings,
    queue: Mutex<VecDeque<Span>>,
    /// There is a batch.
    full: Notify,
    ending: CancellationToken,
    ended: CancellationToken,
    failures: LogThrottle,
}

impl Exporter {
    pub(super) fn start(settings: Settings) -> Arc<Self> {
        let exporter = Arc::new(Self {
            settings,
            queue: Mutex::default(),
            full: Notify::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            failures: LogThrottle::default(),
        });
        let running = Arc::clone(&exporter);
        task::spawn_restarting("trace export", move || {
            let exporter = Arc::clone(&running);
            async move { exporter.run().await }
        });
        exporter
    }

    /// Queues spans, as far as there is room.
    pub(super) fn push(&self, spans: impl IntoIterator<Item = Span>) {
        let mut spans = spans.into_iter();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ending.is_cancelled() {
            let room = self.settings.max_queued.saturating_sub(queue.len());
            queue.extend(spans.by_ref().take(room));
        }
        let is_full = queue.len() >= self.settings.max_batch;
        drop(queue);
        count(&NO_ROOM, spans.count());
        if is_full {
            self.full.notify_one();
        }
    }

    /// Exports what is queued, until the deadline.
    pub(super) async fn finish(&self, deadline: Instant) {
        self.ending.cancel();
        // Spans left then are lost with the process.
        let _late = timeout_at(deadline, self.ended.cancelled()).await;
    }

    fn take_batch(&self) -> Vec<Span> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let length = queue.len().min(self.settings.max_batch);
        queue.drain(..length).collect()
    }

    async fn run(&self) {
        loop {
            let due = Instant::now() + self.settings.delay;
            tokio::select! {
                () = self.ending.cancelled() => {}
                () = self.full.notified() => {}
                () = sleep_until(due) => {}
            }
            loop {
                let batch = self.take_batch();
                // Spans that arrived meanwhile wait for more.
                let is_last = batch.len() < self.settings.max_batch && !self.ending.is_cancelled();
                if !batch.is_empty() {
                    self.export(batch).await;
                } else if self.ending.is_cancelled() {
                    self.ended.cancel();
                    return;
                }
                if is_last {
                    break;
                }
            }
        }
    }

    async fn export(&self, spans: Vec<Span>) {
        let length = spans.len();
        match self.post(spans).await {
            Ok(answer) => {
                let partial = answer.partial_success.unwrap_or_default();
                let rejected = usize::try_from(partial.rejected_spans)
                    .unwrap_or_default()
                    .min(length);
                count(&EXPORTED, length - rejected);
                count(&REJECTED, rejected);
                if rejected > 0 {
                    self.warn(&format!(
                        "the receiver rejected {rejected} spans: {}",
                        shorten(&partial.error_message)
                    ));
                }
            }
            Err(failure) => {
                count(&UNDELIVERED, length);
                self.warn(&failure.to_string());
                if self.ending.is_cancelled() {
                    // A receiver that is down must not prolong the shutdown.
                    let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                    count(&UNDELIVERED, queue.drain(..).count());
                }
            }
        }
    }

    fn warn(&self, detail: &str) {
        if let Some(suppressed) = self.failures.allow() {
            let url = &self.settings.endpoint;
            let host = url.authority().map_or("", |authority| authority.as_str());
            // Not its query, which may hold a key.
            let endpoint = format!("{host}{}", url.path());
            tracing::warn!(endpoint, detail, suppressed, "traces could not be exported");
        }
    }

    /// Posts a batch, again and again while its receiver is away.
    async fn post(&self, spans: Vec<Span>) -> Result<ExportResponse, Failure> {
        let settings = &self.settings;
        let deadline = Instant::now() + settings.batch_timeout;
        let (headers, body) = self.encode(spans).map_err(|error| Failure {
            reason: error.to_string(),
            retry_after: None,
        })?;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.post_once(&headers, body.clone(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(least) = failure.retry_after else {
                return Err(failure);
            };
            let next = Instant::now() + pause.max(least).mul_f64(rand::random_range(1.0..1.2));
            if next >= deadline {
                return Err(failure);
            }
            tokio::select! {
                () = self.ending.cancelled() => return Err(failure),
                () = sleep_until(next) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn encode(&self, spans: Vec<Span>) -> std::io::Result<(HeaderMap, Bytes)> {
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: self.settings.resource.clone(),
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(Scope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    spans,
                }],
            }],
        };
        let mut headers = self.settings.headers.clone();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("hookbridge/", env!("CARGO_PKG_VERSION"))),
        );
        let mut body = request.encode_to_vec();
        if self.settings.is_compressed {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body)?;
            body = encoder.finish()?;
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok((headers, body.into()))
    }

    async fn post_once(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<ExportResponse, Failure> {
        let settings = &self.settings;
        let terms = Terms {
            authorities: settings.authorities.clone(),
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        let limit = deadline.min(Instant::now() + settings.timeout);
        let posting = http_post::post(&settings.endpoint, headers.clone(), body, terms);
        let answer = match timeout_at(limit, posting).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failure::for_now(error.to_string(), Duration::ZERO)),
            Err(_elapsed) => return Err(Failure::for_now("no answer in time", Duration::ZERO)),
        };
        let status = answer.status;
        if status.is_success() {
            // A receiver that answers something else has taken it all the same.
            return Ok(ExportResponse::decode(answer.body).unwrap_or_default());
        }
        let reason = format!("the receiver answered {status}");
        let is_for_now = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if !is_for_now {
            return Err(Failure {
                reason,
                retry_after: None,
            });
        }
        let seconds = answer.headers.get(RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Failure::for_now(
            reason,
            Duration::from_secs(seconds.unwrap_or_default()),
        ))
    }
}

#[derive(Debug)]
struct Failure {
    reason: String,
    /// None if another attempt is of no use.
    retry_after: Option<Duration>,
}

impl Failure {
    fn for_now(reason: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            reason: reason.into(),
            retry_after: Some(retry_after),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::context::{Context, SpanId, TraceId};
    use crate::trace::otlp::{Moment, PartialSuccess, SpanKind};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn span() -> Span {
        let context = Context {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            is_sampled: true,
        };
        let now = Moment::now();
        let times = (now, now.instant(), now.instant());
        Span::new(context, None, SpanKind::Internal, "a".to_owned(), times)
    }

    /// Posts a span to a receiver that gives these answers: the outcome, and the answers that were not asked for.
    async fn post(answers: Vec<(&str, Vec<u8>)>) -> (Result<ExportResponse, Failure>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut answers: VecDeque<_> = answers
            .into_iter()
            .map(|(head, body)| {
                let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            })
            .collect();
        let exporter = Exporter {
            settings: Settings::to(&format!("http://{address}/v1/traces")),
            queue: Mutex::default(),
            full: Notify::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            failures: LogThrottle::default(),
        };
        let serving = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                // A request of one span is one segment or two: its length is in its head.
                loop {
                    stream.read_buf(&mut request).await.unwrap();
                    let text = String::from_utf8_lossy(&request);
                    let head = text.find("\r\n\r\n");
                    let length = text.split("content-length: ").nth(1);
                    let length = length.and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
                    if let (Some(head), Some(length)) = (head, length)
                        && request.len() >= head + 4 + length
                    {
                        break;
                    }
                }
                stream
                    .write_all(&answers.pop_front().unwrap())
                    .await
                    .unwrap();
            }
        };
        let posted = tokio::select! {
            posted = exporter.post(vec![span()]) => posted,
            () = serving => unreachable!(),
        };
        (posted, answers.len())
    }

    #[tokio::test]
    async fn a_receiver_that_is_busy_is_asked_again_and_one_that_says_no_is_not() {
        let taken = || ("200 OK", Vec::new());
        let (posted, left) = post(vec![("503 Busy", Vec::new()), taken()]).await;
        assert!(posted.is_ok() && left == 0);
        for no in [
            "400 Bad Request",
            "401 Unauthorized",
            "404 Not Found",
            "302 Found",
        ] {
            let (posted, left) = post(vec![(no, Vec::new()), taken()]).await;
            assert!(posted.unwrap_err().reason.contains(no));
            assert_eq!(left, 1);
        }
    }

    #[tokio::test]
    async fn spans_that_the_receiver_rejects_are_known() {
        let partial = ExportResponse {
            partial_success: Some(PartialSuccess {
                rejected_spans: 1,
                error_message: "too old".to_owned(),
            }),
        };
        let (posted, _) = post(vec![("200 OK", partial.encode_to_vec())]).await;
        assert_eq!(posted.unwrap(), partial);
        let (posted, _) = post(vec![("200 OK", b"fine".to_vec())]).await;
        assert!(posted.unwrap().partial_success.is_none());
    }
}
