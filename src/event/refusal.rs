//! The table of refusals: what the sender is told, and the only source of error statuses and codes.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

pub use crate::json::Violation;

/// Why a request gets no 2xx.
///
/// A 4xx is a statement that will be just as true of every retry; whatever time or an operator could cure is 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A request that HTTP forbids, though the HTTP library takes it.
    BadRequest(&'static str),
    /// The body is not JSON, or two readers could read it differently.
    InvalidJson(String),
    /// The body is not UTF-8.
    InvalidEncoding(String),
    /// There is no signature, or a part of the scheme is missing.
    MissingSignature,
    /// The signature is not one by a configured secret.
    InvalidSignature,
    /// The signed time is too far from ours.
    StaleTimestamp,
    /// The sender could not be authorized otherwise.
    Unauthorized,
    /// No source has this path.
    UnknownPath,
    /// The path takes other methods; `allow` lists them as the header does.
    MethodNotAllowed {
        /// The methods that the path takes.
        allow: Cow<'static, str>,
    },
    /// The body came too slowly.
    RequestTimeout {
        /// The time that a body has.
        limit: Duration,
    },
    /// The sender broke off inside the body; nobody reads the answer.
    BrokenOff,
    /// The body is larger than the source takes.
    BodyTooLarge {
        /// The largest body.
        limit_bytes: usize,
    },
    /// Not a content type that the source takes.
    UnsupportedMediaType(Cow<'static, str>),
    /// Not a content coding that the source takes.
    UnsupportedCoding,
    /// Well-formed, but not an event that the source takes.
    InvalidEvent(Vec<Violation>),
    /// An event without an id.
    MissingEventId,
    /// An event without a type.
    MissingEventType,
    /// No route takes this type.
    NoRoute {
        /// The event's type.
        event_type: String,
    },
    /// Certainly not stored: the broker is away or refused it.
    BrokerUnavailable {
        /// What the sender should wait.
        retry_after: Duration,
        /// Why, after "because".
        cause: &'static str,
    },
    /// Certainly not stored: as many events are being published as may be.
    Overloaded,
    /// Certainly not stored: something of the provider's that is needed first cannot be had now.
    ProviderUnavailable {
        /// Why, after "because".
        cause: &'static str,
    },
    /// Certainly not stored: the service is ending.
    ShuttingDown,
    /// Not known to be stored.
    PublishTimeout,
}

impl Refusal {
    /// Every code there is, for metrics.
    pub const CODES: [&'static str; 22] = [
        "bad_request",
        "invalid_json",
        "invalid_encoding",
        "missing_signature",
        "invalid_signature",
        "stale_timestamp",
        "unauthorized",
        "unknown_path",
        "method_not_allowed",
        "request_timeout",
        "broken_off",
        "body_too_large",
        "unsupported_media_type",
        "invalid_event",
        "missing_event_id",
        "missing_event_type",
        "no_route",
        "broker_unavailable",
        "overloaded",
        "provider_unavailable",
        "shutting_down",
        "publish_timeout",
    ];

    /// An invalid event with one fault.
    #[must_use]
    pub fn invalid_event(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidEvent(vec![Violation {
            pointer: pointer.into(),
            reason: reason.into(),
        }])
    }

    /// The same of an element, told of the whole body.
    #[must_use]
    pub(crate) fn within(mut self, element: &str) -> Self {
        if let Self::InvalidEvent(violations) = &mut self {
            for violation in violations {
                violation.pointer.insert_str(0, element);
            }
        }
        self
    }

    /// The answer's status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_)
            | Self::InvalidJson(_)
            | Self::InvalidEncoding(_)
            | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::MissingSignature
            | Self::InvalidSignature
            | Self::StaleTimestamp
            | Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::UnsupportedCoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::InvalidEvent(_)
            | Self::MissingEventId
            | Self::MissingEventType
            | Self::NoRoute { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BrokerUnavailable { .. }
            | Self::Overloaded
            | Self::ProviderUnavailable { .. }
            | Self::ShuttingDown
            | Self::PublishTimeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The problem's `code`, the metric's `outcome` and a dead letter's reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::InvalidJson(_) => "invalid_json",
            Self::InvalidEncoding(_) => "invalid_encoding",
            Self::MissingSignature => "missing_signature",
            Self::InvalidSignature => "invalid_signature",
            Self::StaleTimestamp => "stale_timestamp",
            Self::Unauthorized => "unauthorized",
            Self::UnknownPath => "unknown_path",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::RequestTimeout { .. } => "request_timeout",
            Self::BrokenOff => "broken_off",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::UnsupportedMediaType(_) | Self::UnsupportedCoding => "unsupported_media_type",
            Self::InvalidEvent(_) => "invalid_event",
            Self::MissingEventId => "missing_event_id",
            Self::MissingEventType => "missing_event_type",
            Self::NoRoute { .. } => "no_route",
            Self::BrokerUnavailable { .. } => "broker_unavailable",
            Self::Overloaded => "overloaded",
            Self::ProviderUnavailable { .. } => "provider_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::PublishTimeout => "publish_timeout",
        }
    }

    /// What the sender should wait before it tries again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BrokerUnavailable { retry_after, .. } => Some(*retry_after),
            Self::Overloaded | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::ProviderUnavailable { .. } | Self::PublishTimeout => Some(Duration::from_secs(5)),
            Self::BadRequest(_)
            | Self::InvalidJson(_)
            | Self::InvalidEncoding(_)
            | Self::MissingSignature
            | Self::InvalidSignature
            | Self::StaleTimestamp
            | Self::Unauthorized
            | Self::UnknownPath
            | Self::MethodNotAllowed { .. }
            | Self::RequestTimeout { .. }
            | Self::BrokenOff
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType(_)
            | Self::UnsupportedCoding
            | Self::InvalidEvent(_)
            | Self::MissingEventId
            | Self::MissingEventType
            | Self::NoRoute { .. } => None,
        }
    }

    /// Whether the body may not have been read to its end, so that the connection can't be used again.
    #[must_use]
    pub const fn leaves_body_unread(&self) -> bool {
        match self {
            Self::BadRequest(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed { .. }
            | Self::RequestTimeout { .. }
            | Self::BrokenOff
            | Self::BodyTooLarge { .. }
            | Self::UnsupportedMediaType(_)
            | Self::UnsupportedCoding
            | Self::Overloaded
            | Self::ShuttingDown => true,
            Self::InvalidJson(_)
            | Self::InvalidEncoding(_)
            | Self::MissingSignature
            | Self::InvalidSignature
            | Self::StaleTimestamp
            | Self::Unauthorized
            | Self::InvalidEvent(_)
            | Self::MissingEventId
            | Self::MissingEventType
            | Self::NoRoute { .. }
            | Self::BrokerUnavailable { .. }
            | Self::ProviderUnavailable { .. }
            | Self::PublishTimeout => false,
        }
    }

    /// What is wrong, for the sender: the rule, never a secret or the broker's words.
    #[must_use]
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::BadRequest(detail) => (*detail).into(),
            Self::InvalidJson(detail) | Self::InvalidEncoding(detail) => Cow::Owned(detail.clone()),
            Self::MissingSignature => "the request lacks a header that the signature needs".into(),
            Self::InvalidSignature => "the signature does not match the request".into(),
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
            Self::UnsupportedCoding => "encoded bodies are not accepted; send the body without Content-Encoding".into(),
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
            Self::BrokerUnavailable { cause, .. } => {
                format!("the event was not stored, because {cause}; send it again").into()
            }
            Self::Overloaded => {
                "the event was not stored, because too many are under way; send it again".into()
            }
            Self::ProviderUnavailable { cause } => {
                format!("the request can't be accepted now, because {cause}; send it again").into()
            }
            Self::ShuttingDown => {
                "the event was not stored, because the service is ending; send it again".into()
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
            Refusal::UnsupportedCoding,
            Refusal::invalid_event("/a", "x"),
            Refusal::MissingEventId,
            Refusal::MissingEventType,
            Refusal::NoRoute { event_type: some() },
            Refusal::BrokerUnavailable {
                retry_after: Duration::from_secs(1),
                cause: "the broker is not available",
            },
            Refusal::Overloaded,
            Refusal::ProviderUnavailable {
                cause: "the certificate is not at hand",
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
        assert_eq!(codes, Refusal::CODES);
    }

    #[test]
    fn what_time_can_cure_is_503_with_retry_after_and_nothing_else_is() {
        for refusal in all() {
            let may_be_retried = refusal.status() == StatusCode::SERVICE_UNAVAILABLE;
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
                    && refusal.status() != StatusCode::TOO_MANY_REQUESTS,
                "{refusal:?}"
            );
            assert!(!refusal.detail().is_empty());
        }
    }
}
