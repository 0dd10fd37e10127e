//! The live page's stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderName, header};
use hyper::body::{Body, Frame};
use serde::Serialize;

use super::mask::Mask;
use crate::bridge::Bridge;
use crate::bridge::feed::{Class, Entry, Sent, Update, Watch};
use crate::bridge::live::Live;
use crate::event::Violation;

/// When a stream was last read from. None before it begins.
#[derive(Debug, Default)]
pub(in crate::service) struct LastRead(Mutex<Option<Instant>>);

impl LastRead {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(in crate::service) fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that never ends by itself.
pub(super) struct Stream {
    watch: Watch,
    live: Arc<Live>,
    last_read: Arc<LastRead>,
    first: VecDeque<Bytes>,
}

impl Stream {
    /// `public`: the address of the public listener.
    pub(super) fn new(
        watch: Watch,
        live: Arc<Live>,
        last_read: Arc<LastRead>,
        public: SocketAddr,
    ) -> Self {
        last_read.note();
        // Milliseconds until the browser connects again.
        let retry = Bytes::from_static(b"retry: 2000\n\n");
        let state = frame("state", &to_json(&live.current().overview(public)));
        Self {
            watch,
            live,
            last_read,
            first: [retry, state].into(),
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.last_read.note();
        let ready = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        if let Some(first) = self.first.pop_front() {
            return ready(first);
        }
        let lost = self.watch.take_lost();
        if lost > 0 {
            return ready(frame("lost", &to_json(&Lost { count: lost })));
        }
        match self.watch.poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Update::Other(name, json))) => ready(frame(name, &json)),
            Poll::Ready(Some(Update::Event(entry))) => {
                let shown = Shown::new(&entry, &self.live.current());
                ready(frame("event", &to_json(&shown)))
            }
        }
    }
}

#[derive(Serialize)]
struct Lost {
    count: u64,
}

/// An event as the page has it.
#[derive(Serialize)]
struct Shown<'e> {
    /// In milliseconds since 1970.
    at: u64,
    request_id: &'e str,
    client: Option<String>,
    source: Option<&'e str>,
    event_id: Option<&'e str>,
    r#type: Option<&'e str>,
    outcome: &'static str,
    class: Class,
    answer: Option<&'static str>,
    detail: Option<&'e str>,
    faults: Vec<Fault<'e>>,
    duration_ms: f64,
    route: Option<usize>,
    messages: &'e [Sent],
    body: Option<String>,
    /// The reason why the body is missing.
    body_note: Option<String>,
    headers: Vec<(&'e str, String)>,
}

#[derive(Serialize)]
struct Fault<'e> {
    pointer: &'e str,
    reason: &'e str,
}

impl<'e> Shown<'e> {
    fn new(entry: &'e Entry, bridge: &Bridge) -> Self {
        let since = entry.at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.unwrap_or_default().as_millis();
        let (body, body_note, headers) = content(entry, bridge);
        let faults = entry.faults.iter();
        Self {
            at: u64::try_from(at).unwrap_or_default(),
            request_id: &entry.request_id,
            client: entry.client.map(|client| client.to_string()),
            source: entry.source.as_deref(),
            event_id: entry.event_id.as_deref(),
            r#type: entry.event_type.as_deref(),
            outcome: entry.outcome,
            class: entry.class,
            answer: entry.answer,
            detail: entry.detail.as_deref(),
            faults: faults
                .map(|Violation { pointer, reason }| Fault { pointer, reason })
                .collect(),
            duration_ms: entry.duration.as_secs_f64() * 1000.0,
            route: entry.route,
            messages: &entry.messages,
            body,
            body_note,
            headers,
        }
    }
}

type Shows<'e> = (Option<String>, Option<String>, Vec<(&'e str, String)>);

fn content<'e>(entry: &'e Entry, bridge: &Bridge) -> Shows<'e> {
    let config = bridge.config();
    // Asked again: the configuration may have changed while the event waited here.
    let allowed = entry.content.as_ref().filter(|_| config.admin.show_bodies);
    let Some(content) = allowed else {
        let why = if config.admin.show_bodies {
            "There is none that was verified."
        } else {
            "Not shown. `show_bodies = true` under [admin] allows it."
        };
        return (None, Some(why.to_owned()), Vec::new());
    };
    let secrets = config.sources.iter().flat_map(|source| &source.masked);
    let mask = Mask::new(secrets.chain(&config.admin.token));
    let is_type = |name: &str| {
        HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| name == header::CONTENT_TYPE)
    };
    let media_type = content.headers.iter().find(|(name, _)| is_type(name));
    let media_type = media_type.map_or("", |(_, value)| value);
    let headers = content.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), mask.value(name, value)));
    let headers = headers.collect();
    let length = content.length;
    match content
        .body
        .as_ref()
        .map(|body| mask.body(body, media_type))
    {
        Some(Ok(body)) => (Some(body), None, headers),
        Some(Err(why)) => (
            None,
            Some(format!("{length} bytes, not shown: {why}.")),
            headers,
        ),
        None => (
            None,
            Some(format!("{length} bytes, too many to be shown.")),
            headers,
        ),
    }
}

/// Numbers and texts alone: there is nothing in them that JSON could not say.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// JSON has no line breaks outside of texts, where they are escaped.
fn frame(name: &str, json: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}
