//! Step 8: the only place that makes responses. A 2xx needs a [`Receipt`], except where the operator configured
//! "ignore", and for handshakes, which publish nothing.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::brokers::Receipt;
use crate::config::Source;
use crate::event::{EventId, Refusal, RequestId, Status, Violation};
use crate::providers::handshake::Reply;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The reason for answering an event with 2xx.
#[derive(Debug, Clone, Copy)]
pub(super) enum Accepted {
    /// A broker has stored it.
    Published(Receipt),
    /// A broker stored it from an earlier delivery.
    #[expect(dead_code, reason = "holding the receipt is the proof")]
    Duplicate(Receipt),
    /// A broker has stored it as a dead letter.
    DeadLettered(Receipt),
    /// The operator configured that it be ignored.
    Ignored,
}

impl Accepted {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Published(receipt) | Self::DeadLettered(receipt) if receipt.is_duplicate() => {
                Status::Duplicate
            }
            Self::Duplicate(_) => Status::Duplicate,
            Self::Published(_) => Status::Published,
            Self::DeadLettered(_) => Status::DeadLettered,
            Self::Ignored => Status::Ignored,
        }
    }
}

/// The body of a success.
#[derive(Serialize)]
struct Success<'a> {
    event_id: Option<&'a str>,
    status: &'static str,
}

/// The body of a success for several events.
#[derive(Serialize)]
struct Successes<'a> {
    events: Vec<Success<'a>>,
}

/// The body of a refusal: RFC 9457 section 3.1, with extension members.
#[derive(Serialize)]
struct Problem<'a> {
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
}

/// Serializes a body. It holds only text and numbers, so this cannot fail.
fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

pub(super) fn answer(
    result: &Result<Accepted, Refusal>,
    source: Option<&Source>,
    event_id: Option<&EventId>,
    request_id: RequestId,
) -> Response<Full<Bytes>> {
    let mut response = match result {
        Ok(accepted) => success(
            source,
            &Success {
                event_id: event_id.map(EventId::as_str),
                status: accepted.status().as_str(),
            },
        ),
        Err(refusal) => problem(refusal, source, event_id),
    };
    response
        .headers_mut()
        .insert(REQUEST_ID, request_id.header());
    response
}

/// The answer to a batch whose events were all accepted, in the order in which they were sent.
pub(super) fn answer_batch<'e>(
    accepted: impl Iterator<Item = (Option<&'e EventId>, Status)>,
    source: &Source,
    request_id: RequestId,
) -> Response<Full<Bytes>> {
    let events = accepted.map(|(event_id, status)| Success {
        event_id: event_id.map(EventId::as_str),
        status: status.as_str(),
    });
    let body = Successes {
        events: events.collect(),
    };
    let mut response = success(Some(source), &body);
    response
        .headers_mut()
        .insert(REQUEST_ID, request_id.header());
    response
}

/// The answer to a handshake. It may echo the sender's text, so browsers must not interpret it as a page.
#[cold]
pub(super) fn answer_handshake(reply: Reply, request_id: RequestId) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if let Some(content_type) = reply.content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.extend(reply.headers);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers.insert(REQUEST_ID, request_id.header());
    response
}

/// Marks an answer that leaves the request's body unread: the connection cannot be reused.
#[cold]
pub(super) fn close_after(response: &mut Response<Full<Bytes>>) {
    response.headers_mut().insert(CONNECTION, CLOSE);
}

fn success(source: Option<&Source>, body: &impl Serialize) -> Response<Full<Bytes>> {
    let code = source.map_or(StatusCode::OK, |source| source.success_status);
    let (body, content_type) = match source.and_then(|source| source.success_body.as_ref()) {
        Some(fixed) => (fixed.bytes.clone(), fixed.content_type.clone()),
        None => match code {
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => (Bytes::new(), None),
            _ => (to_json(body).into(), Some(JSON)),
        },
    };
    // Some providers fail to read an answer that has a content type but no content.
    let has_content = !body.is_empty();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = code;
    if let Some(content_type) = content_type.filter(|_| has_content) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

#[cold]
fn problem(
    refusal: &Refusal,
    source: Option<&Source>,
    event_id: Option<&EventId>,
) -> Response<Full<Bytes>> {
    let status = refusal.status();
    let problem = Problem {
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        code: refusal.code(),
        detail: &refusal.detail(),
        event_id: event_id.map(EventId::as_str),
        errors: match refusal {
            Refusal::InvalidEvent(violations) => violations,
            _ => &[],
        },
    };
    let mut response = Response::new(Full::from(to_json(&problem)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    if let Some(wait) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if let (StatusCode::UNAUTHORIZED, Some(source)) = (status, source) {
        for challenge in source.authentication.challenges() {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
    }
    if let Refusal::MethodNotAllowed { allow } = refusal {
        let allow = HeaderValue::from_str(allow);
        headers.insert(ALLOW, allow.unwrap_or(HeaderValue::from_static("POST")));
    }
    if let Refusal::UnsupportedCoding { accepted } = refusal {
        // RFC 9110 section 12.5.3: only sent for an unsupported content coding, not for a media type.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
    }
    if refusal.leaves_body_unread() {
        headers.insert(CONNECTION, CLOSE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    const ID: RequestId = RequestId::from_u128(0x00c0_ffee_0000_4000_8000_0000_0000_002a);

    #[expect(clippy::disallowed_methods, reason = "our own answers are small")]
    async fn body(response: Response<Full<Bytes>>) -> serde_json::Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_says_code_pointers_and_what_to_do() {
        let id = EventId::new("<\"id\">".to_owned()).unwrap();
        let response = answer(
            &Err(Refusal::invalid_event("/a", "must be a string")),
            None,
            Some(&id),
            ID,
        );
        assert_eq!(response.status(), 422);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(
            response.headers()["x-request-id"],
            "00c0ffee-0000-4000-8000-00000000002a"
        );
        assert_eq!(ID.to_string(), "00c0ffee-0000-4000-8000-00000000002a");
        assert!(!response.headers().contains_key("connection"));
        let problem = body(response).await;
        assert_eq!(problem["code"], "invalid_event");
        assert_eq!(problem["event_id"], "<\"id\">");
        assert_eq!(
            problem["errors"],
            json!([{ "pointer": "/a", "reason": "must be a string" }])
        );
        let response = answer(&Err(Refusal::Overloaded), None, None, ID);
        assert_eq!(
            (
                response.headers()["retry-after"].to_str().unwrap(),
                &response.headers()["connection"]
            ),
            ("1", &CLOSE)
        );
    }

    #[tokio::test]
    async fn an_ignored_event_is_the_only_success_without_a_receipt() {
        let response = answer(&Ok(Accepted::Ignored), None, None, ID);
        assert_eq!(response.status(), 200);
        assert_eq!(
            body(response).await,
            json!({ "event_id": null, "status": "ignored" })
        );
    }
}
