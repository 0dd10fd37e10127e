//! Traces: the W3C context of a request, and the spans that are exported by OTLP. Off unless the `OTEL_*` variables say
//! otherwise.
//!
//! The steps of an event's path only note instants in their request's [`Trace`]. `bridge/spans.rs` makes the spans.

mod context;
mod exporter;
mod otlp;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use crate::telemetry::LogThrottle;

pub(crate) use context::{Context, SpanId, TraceId, state};
pub(crate) use exporter::{DROPPED, exported};
pub(crate) use otlp::{Moment, Span, SpanKind};
pub use settings::{Settings, SettingsError};

use context::Parent;
use exporter::Exporter;
use settings::Sampler;

/// Begins traces and exports their spans.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    exporter: Arc<Exporter>,
    unverified: LogThrottle,
}

impl Tracer {
    /// Starts the task that exports.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        Self {
            sampler: settings.sampler,
            exporter: Exporter::start(settings),
            unverified: LogThrottle::default(),
        }
    }

    /// Continues the sender's trace, or begins one.
    pub(crate) fn begin(&self, headers: &HeaderMap, started: Instant) -> Trace {
        let parent = context::parent(headers);
        let trace_id = parent.map_or_else(TraceId::random, |parent| parent.trace_id);
        Trace {
            context: Context {
                trace_id,
                span_id: SpanId::random(),
                is_sampled: self.sampler.samples(trace_id, parent),
            },
            parent: parent.map(|Parent { span_id, .. }| span_id),
            state: None,
            method: "_OTHER",
            protocol: "",
            client: None,
            started,
            received: None,
            verified: None,
            decided: None,
        }
    }

    /// Whether the trace of a request that was not verified may be exported: at most one a second, so that unverified senders
    /// cannot fill the queue.
    pub(crate) fn allow_unverified(&self) -> bool {
        self.unverified.allow().is_some()
    }

    /// Queues spans. Those that have no room are dropped.
    pub(crate) fn export(&self, spans: impl IntoIterator<Item = Span>) {
        self.exporter.push(spans);
    }

    /// Exports what is queued, within the deadline. What comes later is dropped.
    pub(crate) async fn flush(&self, deadline: tokio::time::Instant) {
        self.exporter.finish(deadline).await;
    }
}

/// A request's place in its trace, and the instants that its steps noted. Only a sampled one notes any.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Its span is the request's.
    pub(crate) context: Context,
    /// The sender's span.
    pub(crate) parent: Option<SpanId>,
    /// `tracestate`, once the request is verified.
    pub(crate) state: Option<Box<str>>,
    pub(crate) method: &'static str,
    /// The version of HTTP.
    pub(crate) protocol: &'static str,
    pub(crate) client: Option<IpAddr>,
    pub(crate) started: Instant,
    pub(crate) received: Option<Instant>,
    pub(crate) verified: Option<Instant>,
    pub(crate) decided: Option<Instant>,
}

impl Trace {
    pub(crate) fn note_received(&mut self) {
        self.received = self.now();
    }

    pub(crate) fn note_verified(&mut self) {
        self.verified = self.now();
    }

    pub(crate) fn note_decided(&mut self) {
        self.decided = self.now();
    }

    fn now(&self) -> Option<Instant> {
        self.context.is_sampled.then(Instant::now)
    }
}
