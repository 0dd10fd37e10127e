//! The messages of OTLP 1.x that traces need (opentelemetry-proto's `trace/v1` and `collector/trace/v1`). Fields that the
//! bridge never fills are left out, as protobuf allows.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime};

use super::context::{Context, SpanId};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(enumeration = "SpanKind", tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum SpanKind {
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

const STATUS_ERROR: i32 = 2;

/// The flag that says whether the parent is elsewhere is filled in, and the parent is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(int64, tag = "3")]
    Int(i64),
}

impl KeyValue {
    pub(super) fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(key.into(), Value::String(value.into()))
    }

    fn new(key: String, value: Value) -> Self {
        let value = AnyValue { value: Some(value) };
        Self {
            key,
            value: Some(value),
        }
    }
}

/// Turns instants into times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    instant: Instant,
    unix: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }

    pub(crate) fn instant(self) -> Instant {
        self.instant
    }

    fn unix_nanos(self, instant: Instant) -> u64 {
        let before = self.instant.saturating_duration_since(instant);
        let unix = self.unix.saturating_sub(before);
        u64::try_from(unix.as_nanos()).unwrap_or_default()
    }
}

impl Span {
    /// A span that lasted from one instant to another.
    pub(crate) fn new(
        context: Context,
        parent: Option<SpanId>,
        kind: SpanKind,
        name: String,
        (now, start, end): (Moment, Instant, Instant),
    ) -> Self {
        // Only the request's own span can have a parent elsewhere.
        let is_remote = parent.is_some() && kind == SpanKind::Server;
        Self {
            trace_id: context.trace_id.bytes().to_vec(),
            span_id: context.span_id.bytes().to_vec(),
            trace_state: String::new(),
            parent_span_id: parent
                .map(|parent| parent.bytes().to_vec())
                .unwrap_or_default(),
            name,
            kind: kind.into(),
            start_time_unix_nano: now.unix_nanos(start),
            end_time_unix_nano: now.unix_nanos(end),
            attributes: Vec::new(),
            status: None,
            flags: u32::from(context.is_sampled)
                | HAS_IS_REMOTE
                | if is_remote { IS_REMOTE } else { 0 },
        }
    }

    pub(crate) fn state(mut self, state: Option<&str>) -> Self {
        self.trace_state = state.unwrap_or_default().to_owned();
        self
    }

    pub(crate) fn text(&mut self, key: &str, value: impl Display) {
        self.attributes.push(KeyValue::text(key, value.to_string()));
    }

    pub(crate) fn number(&mut self, key: &str, value: impl TryInto<i64>) {
        let value = Value::Int(value.try_into().unwrap_or(i64::MAX));
        self.attributes.push(KeyValue::new(key.to_owned(), value));
    }

    /// It failed, for a reason of few words, and perhaps in more words.
    pub(crate) fn fail(&mut self, error_type: &str, message: impl Into<String>) {
        self.text("error.type", error_type);
        self.status = Some(Status {
            message: message.into(),
            code: STATUS_ERROR,
        });
    }
}
