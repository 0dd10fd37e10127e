//! Step 1, the request: what its head alone can refuse, a place for it, and its body within bounds.
//!
//! The order is that of cost: nothing of the body is read before everything that the head says has been judged.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::permits::Permit;
use super::refusal::Refusal;
use crate::bridge::Bridge;
use crate::config::Source;

/// A request that is there as a whole, and its place among those that are under way.
#[derive(Debug)]
pub struct Received {
    source: Arc<Source>,
    headers: HeaderMap,
    body: Bytes,
    at: SystemTime,
    place: Option<Permit>,
}

impl Received {
    /// A request that did not come in over the network, for `explain` and tests. It is as unverified as any other.
    #[must_use]
    pub fn from_parts(
        source: Arc<Source>,
        headers: HeaderMap,
        body: Bytes,
        at: SystemTime,
    ) -> Self {
        Self {
            source,
            headers,
            body,
            at,
            place: None,
        }
    }

    /// The source whose path it was sent to.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn into_place(self) -> Option<Permit> {
        self.place
    }

    /// When it was received.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }
}

/// The largest body, in bytes, that is read although the request is refused, and how long that may take: to close the
/// connection costs both sides more.
const SMALL_BODY: u64 = 16 * 1024;
const SMALL_BODY_TIMEOUT: Duration = Duration::from_millis(50);

/// A refusal, and the source that it concerns.
pub(super) struct Refused {
    pub(super) source: Option<Arc<Source>>,
    pub(super) refusal: Refusal,
    /// The whole body has been read, whatever the refusal says.
    pub(super) is_read: bool,
}

impl Refused {
    fn new(source: Option<&Arc<Source>>, refusal: Refusal) -> Self {
        Self {
            source: source.cloned(),
            refusal,
            is_read: false,
        }
    }
}

/// A request whose head was taken, and its place among those that are under way.
pub(super) struct Admitted {
    source: Arc<Source>,
    permit: Permit,
}

/// What the head alone can refuse.
pub(super) fn admit(bridge: &Bridge, request: &Request<Incoming>) -> Result<Admitted, Refused> {
    if bridge.process().is_closing() {
        return Err(Refused::new(None, Refusal::ShuttingDown));
    }
    let source = find_source(bridge, request)?;
    let refused = |refusal| Refused::new(Some(&source), refusal);
    let (method, declared) = (request.method(), request.body().size_hint().exact());
    let reserved = check_head(&source, method, request.headers(), declared).map_err(refused)?;
    let permit = bridge.permits().take(source.index, reserved);
    let permit = permit.ok_or_else(|| refused(Refusal::Overloaded))?;
    Ok(Admitted { source, permit })
}

/// The rest of the request.
pub(super) async fn receive(
    bridge: &Bridge,
    admitted: Result<Admitted, Refused>,
    headers: HeaderMap,
    body: Incoming,
) -> Result<Received, Refused> {
    let Admitted { source, mut permit } = match admitted {
        Ok(admitted) => admitted,
        Err(refused) if refused.refusal == Refusal::Overloaded => {
            return Err(Refused {
                is_read: read_away(body).await,
                ..refused
            });
        }
        Err(refused) => return Err(refused),
    };
    let limit = bridge.config().http.body_timeout;
    let mut reading = std::pin::pin!(read_body(body, source.max_body));
    // Most bodies come with their heads, and need no clock.
    let body = match futures_util::poll!(reading.as_mut()) {
        Poll::Ready(read) => read,
        Poll::Pending => tokio::time::timeout(limit, reading)
            .await
            .unwrap_or(Err(Refusal::RequestTimeout { limit })),
    };
    let body = body.map_err(|refusal| Refused::new(Some(&source), refusal))?;
    permit.shrink_to(body.len());
    Ok(Received {
        source,
        headers,
        body,
        at: SystemTime::now(),
        place: Some(permit),
    })
}

/// Paths are compared as they were sent: no decoding, no normalisation, no other case.
fn find_source(bridge: &Bridge, request: &Request<Incoming>) -> Result<Arc<Source>, Refused> {
    let path = request.uri().path();
    bridge.source_at(path).ok_or_else(|| {
        // `CONNECT host` and `OPTIONS *` name no path.
        let is_path = !matches!(path, "" | "*");
        let refusal = if is_path {
            Refusal::UnknownPath
        } else {
            Refusal::MethodNotAllowed { allow: "POST" }
        };
        Refused::new(None, refusal)
    })
}

/// What the head alone can refuse, for `hookbridge explain` too. Returns how many bytes the body may have.
pub(crate) fn check_head(
    source: &Source,
    method: &Method,
    headers: &HeaderMap,
    declared: Option<u64>,
) -> Result<usize, Refusal> {
    if *method != Method::POST {
        return Err(Refusal::MethodNotAllowed { allow: "POST" });
    }
    let limit_bytes = source.max_body;
    let reserved = match declared.map(usize::try_from) {
        Some(Ok(declared)) if declared <= limit_bytes => declared,
        Some(_) => return Err(Refusal::BodyTooLarge { limit_bytes }),
        None => limit_bytes,
    };
    check_content_type(source, headers)?;
    Ok(reserved)
}

fn check_content_type(source: &Source, headers: &HeaderMap) -> Result<(), Refusal> {
    let accepted = source.provider.media_types();
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let only = lines.next().filter(|_| lines.next().is_none());
    // Case and parameters don't matter (RFC 9110 section 8.3.1).
    let media_type = only
        .and_then(|line| line.to_str().ok())
        .and_then(|line| line.split(';').next())
        .unwrap_or_default();
    if !accepted
        .iter()
        .any(|accepted| media_type.trim().eq_ignore_ascii_case(accepted))
    {
        return Err(Refusal::UnsupportedMediaType(
            format!("the content type must be {}", accepted.join(" or ")).into(),
        ));
    }
    let is_encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_encoded {
        return Err(Refusal::UnsupportedMediaType(
            "encoded bodies are not taken".into(),
        ));
    }
    Ok(())
}

/// Reads a small body and keeps nothing of it. Says whether that was all of it.
async fn read_away(mut body: Incoming) -> bool {
    if body
        .size_hint()
        .exact()
        .is_none_or(|bytes| bytes > SMALL_BODY)
    {
        return false;
    }
    let reading = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    let read = tokio::time::timeout(SMALL_BODY_TIMEOUT, reading).await;
    read.unwrap_or(false)
}

/// Reads a body of at most so many bytes, in one piece where it came in one. What is held of it is never more than the
/// bytes that were reserved for it: buffers that grow as they like may be twice as large.
async fn read_body(mut body: Incoming, limit_bytes: usize) -> Result<Bytes, Refusal> {
    let declared = body.size_hint().exact();
    let declared = declared.and_then(|declared| usize::try_from(declared).ok());
    let mut first = None;
    let mut whole = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        // Trailers mean nothing here.
        let Ok(data) = frame.map_err(|_| Refusal::BrokenOff)?.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if length > limit_bytes {
            return Err(Refusal::BodyTooLarge { limit_bytes });
        }
        if first.is_none() && whole.is_empty() {
            first = Some(data);
            continue;
        }
        if whole.capacity() < length {
            let wanted = declared.unwrap_or_else(|| length.saturating_mul(2));
            whole.reserve_exact(wanted.clamp(length, limit_bytes) - whole.len());
        }
        if let Some(first) = first.take() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| Bytes::from(whole.into_boxed_slice())))
}
