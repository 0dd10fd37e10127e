//! The table of refusals: the answers to senders, and the only source of error statuses and codes.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use strum::{IntoStaticStr, VariantArray};

pub use crate::json::Violation;

/// The reason why a request gets no 2xx.
///
/// A 4xx must hold for every retry. Anything that time or an operator can fix is a 503; only a configured rate limit is 429.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The request violates HTTP in a way that the HTTP library tolerates.
    BadRequest(&'static str),
    /// The body is not JSON, or parsers could disagree about it.
    InvalidJson(String),
    /// The body is not UTF-8, or not the gzip that it claims to be.
    InvalidEncoding(String),
    /// The signature, or a header that it needs, is missing.
    MissingSignature,
    /// No configured secret matches the signature.
    InvalidSignature,
    /// The signature does not cover the body, and its nonce came with another one before.
    ReusedNonce,
    /// The signed time is too far from the present.
    StaleTimestamp,
    /// Another check of the sender failed.
    Unauthorized,
    UnknownPath,
    /// The path accepts other methods.
    MethodNotAllowed {
        /// As in the `Allow` header.
        allow: Cow<'static, str>,
    },
    RequestTimeout {
        /// The `body_timeout`.
        limit: Duration,
    },
    /// The sender disconnected in the middle of the body; nobody reads the answer.
    BrokenOff,
    BodyTooLarge {
        limit_bytes: usize,
    },
    UnsupportedMediaType(Cow<'static, str>),
    UnsupportedCoding {
        accepted: &'static str,
    },
    /// Well-formed, but not valid for this source.
    InvalidEvent(Vec<Violation>),
    MissingEventId,
    MissingEventType,
    NoRoute {
        event_type: String,
    },
    /// The source's `rate_limit` is exceeded.
    RateLimited {
        /// In whole seconds.
        retry_after: Duration,
    },
    /// Certainly not stored: the broker is unavailable or refused it.
    BrokerUnavailable {
        retry_after: Duration,
        /// Completes "because …".
        cause: &'static str,
    },
    /// Certainly not stored: the limit of events in flight is reached.
    Overloaded,
    /// Certainly not stored: something that the provider must supply first is unavailable.
    ProviderUnavailable {
        /// Completes "because …".
        cause: &'static str,
    },
    /// Certainly not stored: the service is shutting down.
    ShuttingDown,
    /// The outcome is unknown.
    PublishTimeout,
}

/// In the order of [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Code {
    BadRequest,
    InvalidJson,
    InvalidEncoding,
    MissingSignature,
    InvalidSignature,
    StaleTimestamp,
    Unauthorized,
    UnknownPath,
    MethodNotAllowed,
    RequestTimeout,
    BrokenOff,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidEvent,
    MissingEventId,
    MissingEventType,
    NoRoute,
    RateLimited,
    BrokerUnavailable,
    Overloaded,
    ProviderUnavailable,
    ShuttingDown,
    PublishTimeout,
}

/// A refusal in terms of HTTP.
struct Row {
    status: StatusCode,
    code: Code,
    body: Body,
    retry_after: Option<Duration>,
}

/// Whether the body was read to its end.
enum Body {
    Read,
    Unread,
}

const fn row(status: StatusCode, code: Code, body: Body) -> Row {
    Row {
        status,
        code,
        body,
        retry_after: None,
    }
}

impl Row {
    const fn after(self, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..self
        }
    }
}

impl Refusal {
    /// An invalid event with one violation.
    #[must_use]
    #[cold]
    pub fn invalid_event(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidEvent(vec![Violation {
            pointer: pointer.into(),
            reason: reason.into(),
        }])
    }

    /// Turns the pointers of an element's violations into pointers from the root of the body.
    #[must_use]
    pub(crate) fn within(mut self, element: &str) -> Self {
        if let Self::InvalidEvent(violations) = &mut self {
            for violation in violations {
                violation.pointer.insert_str(0, element);
            }
        }
        self
    }

    /// JSON Pointer to the first fault, if there is one within the event.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::InvalidEvent(violations) => violations.first().map(|first| &*first.pointer),
            _ => None,
        }
    }

    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The problem's `code`, the metric's `outcome` and a dead letter's reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.row().code.into_str()
    }

    /// Time that the sender should wait before the next attempt.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.row().retry_after
    }

    /// Whether part of the body may be unread, so that the connection cannot be reused.
    #[must_use]
    pub const fn leaves_body_unread(&self) -> bool {
        matches!(self.row().body, Body::Unread)
    }

    /// The table of refusals.
    const fn row(&self) -> Row {
        use Body::{Read, Unread};
        match self {
            Self::BadRequest(_) => row(StatusCode::BAD_REQUEST, Code::BadRequest, Unread),
            Self::InvalidJson(_) => row(StatusCode::BAD_REQUEST, Code::InvalidJson, Read),
            Self::InvalidEncoding(_) => row(StatusCode::BAD_REQUEST, Code::InvalidEncoding, Read),
            Self::MissingSignature => row(StatusCode::UNAUTHORIZED, Code::MissingSignature, Read),
            Self::InvalidSignature | Self::ReusedNonce => {
                row(StatusCode::UNAUTHORIZED, Code::InvalidSignature, Read)
            }
            Self::StaleTimestamp => row(StatusCode::UNAUTHORIZED, Code::StaleTimestamp, Read),
            Self::Unauthorized => row(StatusCode::UNAUTHORIZED, Code::Unauthorized, Read),
            Self::UnknownPath => row(StatusCode::NOT_FOUND, Code::UnknownPath, Unread),
            Self::MethodNotAllowed { .. } => row(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::MethodNotAllowed,
                Unread,
            ),
            Self::RequestTimeout { .. } => {
                row(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, Unread)
            }
            Self::BrokenOff => row(StatusCode::BAD_REQUEST, Code::BrokenOff, Unread),
            Self::BodyTooLarge { .. } => {
                row(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, Unread)
            }
            Self::UnsupportedMediaType(_) | Self::UnsupportedCoding { .. } => row(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::UnsupportedMediaType,
                Unread,
            ),
            Self::InvalidEvent(_) => {
                row(StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidEvent, Read)
            }
            Self::MissingEventId => {
                row(StatusCode::UNPROCESSABLE_ENTITY, Code::MissingEventId, Read)
            }
            Self::MissingEventType => row(
                StatusCode::UNPROCESSABLE_ENTITY,
                Code::MissingEventType,
                Read,
            ),
            Self::NoRoute { .. } => row(StatusCode::UNPROCESSABLE_ENTITY, Code::NoRoute, Read),
            Self::RateLimited { retry_after } => {
                row(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, Read).after(*retry_after)
            }
            Self::BrokerUnavailable { retry_after, .. } => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::BrokerUnavailable,
                Read,
            )
            .after(*retry_after),
            Self::Overloaded => row(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, Unread)
                .after(Duration::from_secs(1)),
            Self::ProviderUnavailable { .. } => row(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::ProviderUnavailable,
                Read,
            )
            .after(Duration::from_secs(5)),
            Self::ShuttingDown => row(StatusCode::SERVICE_UNAVAILABLE, Code::ShuttingDown, Unread)
                .after(Duration::from_secs(1)),
            Self::PublishTimeout => {
                row(StatusCode::SERVICE_UNAVAILABLE, Code::PublishTimeout, Read)
                    .after(Duration::from_secs(5))
            }
        }
    }

    /// The explanation for the sender: the violated rule, never a secret or the broker's words.
    #[must_use]
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::BadRequest(detail) => (*detail).into(),
            Self::InvalidJson(detail) | Self::InvalidEncoding(detail) => Cow::Owned(detail.clone()),
            Self::MissingSignature => "the request lacks a header that the signature needs".into(),
            Self::InvalidSignature => "the signature does not match the request".into(),
            Self::ReusedNonce => {
                "the signature was used before, for another body; it is good for one".into()
            }
            Self::StaleTimestamp => "the timestamp is too far from the present".into(),
            Self::Unauthorized => "the sender is not authorized".into(),
            Self::UnknownPath => "no source has this path".into(),
            Self::MethodNotAllowed { allow } => format!("this path takes {allow}").into(),
            Self::RequestTimeout { limit } => format!(
                "the body is too slow: it must arrive within {}, and at no less than 1 KiB/s after the first 5 s",
                humantime::format_duration(*limit)
            )
            .into(),
            Self::BrokenOff => "the body broke off".into(),
            Self::BodyTooLarge { limit_bytes } => {
                format!("the body is larger than {limit_bytes} bytes").into()
            }
            Self::UnsupportedMediaType(detail) => detail.clone(),
            Self::UnsupportedCoding { accepted } => {
                format!("the only Content-Encoding that is accepted is {accepted}").into()
            }
            Self::InvalidEvent(violations) => match violations.first() {
                Some(first) if first.pointer.is_empty() => {
                    format!("the event {}", first.reason).into()
                }
                Some(first) => format!("{}: {}", first.pointer, first.reason).into(),
                None => "the event is not valid".into(),
            },
            Self::MissingEventId => "the event has no id".into(),
            Self::MissingEventType => "the event has no type".into(),
            Self::NoRoute { .. } => "no route takes events of this type".into(),
            Self::RateLimited { .. } => {
                "the event was not stored, because this source's rate limit is reached; send it again".into()
            }
            Self::BrokerUnavailable { cause, .. } => {
                format!("the event was not stored, because {cause}; send it again").into()
            }
            Self::Overloaded => {
                "the event was not stored, because too many are in flight; send it again".into()
            }
            Self::ProviderUnavailable { cause } => {
                format!("the request can't be accepted now, because {cause}; send it again").into()
            }
            Self::ShuttingDown => {
                "the event was not stored, because the service is shutting down; send it again".into()
            }
            Self::PublishTimeout => {
                "the broker did not confirm the event in time; send it again".into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each; a new variant makes `position` below fail to compile until it is listed.
    fn all() -> Vec<Refusal> {
        let some = || "x".to_owned();
        vec![
            Refusal::BadRequest("x"),
            Refusal::InvalidJson(some()),
            Refusal::InvalidEncoding(some()),
            Refusal::MissingSignature,
            Refusal::InvalidSignature,
            Refusal::StaleTimestamp,
            Refusal::Unauthorized,
            Refusal::UnknownPath,
            Refusal::MethodNotAllowed {
                allow: "POST".into(),
            },
            Refusal::RequestTimeout {
                limit: Duration::from_secs(1),
            },
            Refusal::BrokenOff,
            Refusal::BodyTooLarge { limit_bytes: 1 },
            Refusal::UnsupportedMediaType("x".into()),
            Refusal::UnsupportedCoding {
                accepted: "identity",
            },
            Refusal::invalid_event("/a", "x"),
            Refusal::MissingEventId,
            Refusal::MissingEventType,
            Refusal::NoRoute { event_type: some() },
            Refusal::RateLimited {
                retry_after: Duration::from_secs(1),
            },
            Refusal::BrokerUnavailable {
                retry_after: Duration::from_secs(1),
                cause: "the broker is not available",
            },
            Refusal::Overloaded,
            Refusal::ProviderUnavailable {
                cause: "the certificate is not available",
            },
            Refusal::ShuttingDown,
            Refusal::PublishTimeout,
        ]
    }

    #[test]
    fn every_code_is_listed_once_in_the_order_of_the_table() {
        let mut codes: Vec<_> = all().iter().map(Refusal::code).collect();
        // Both of the reasons for 415 have the same code.
        codes.dedup();
        let listed: Vec<&str> = Code::VARIANTS.iter().map(|code| code.into_str()).collect();
        assert_eq!(codes, listed);
    }

    #[test]
    fn temporary_conditions_are_503_or_a_rate_limits_429_with_retry_after_and_nothing_else_is() {
        for refusal in all() {
            let is_limited = matches!(refusal, Refusal::RateLimited { .. });
            let may_be_retried = refusal.status() == StatusCode::SERVICE_UNAVAILABLE || is_limited;
            assert_eq!(
                refusal.retry_after().is_some(),
                may_be_retried,
                "{refusal:?}"
            );
            assert!(
                refusal.status().is_client_error() || may_be_retried,
                "{refusal:?}"
            );
            assert!(
                refusal.status() != StatusCode::GONE
                    && is_limited == (refusal.status() == StatusCode::TOO_MANY_REQUESTS),
                "{refusal:?}"
            );
            assert!(!refusal.detail().is_empty());
        }
    }
}
