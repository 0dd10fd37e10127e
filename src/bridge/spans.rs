//! The spans of an answered request, after the semantic conventions for HTTP servers and messaging (OpenTelemetry 1.37).

use std::time::Instant;

use super::Bridge;
use super::observe::{Attempt, Observed, Report};
use crate::brokers::{Attribute, Kind, NotStored, Outcome, Position, Unknown};
use crate::config::Source;
use crate::event::{EventId, Refusal, Status};
use crate::metrics::SourceMetrics;
use crate::telemetry::shorten;
use crate::trace::{Context, Moment, Span, SpanKind, Trace};

/// The most publishes of one request that have spans.
const MAX_PUBLISHES: usize = 100;

impl Bridge {
    /// Exports a sampled request's spans, and leaves its trace as an exemplar. A request to no source has neither.
    #[cold]
    pub(super) fn observe_trace(
        &self,
        trace: &Trace,
        report: &Report<'_>,
        metrics: Option<&SourceMetrics>,
    ) {
        let (Some(tracer), Some(source)) = (self.process.tracer(), report.source) else {
            return;
        };
        // The sender's wish to be sampled counts once it is known who wishes.
        if trace.verified.is_none() && !tracer.allow_unverified() {
            return;
        }
        if let (Some(metrics), Some(duration)) = (metrics, report.duration) {
            metrics.exemplars.note(duration, trace.context.trace_id);
        }
        let now = Moment::now();
        let refusal = report.result.err();
        let verify = trace.received.and_then(|start| match trace.verified {
            Some(end) => Some(step(trace, "verify", (now, start, end), None)),
            // An unsigned handshake is not verified and not refused.
            None => refusal.map(|_| step(trace, "verify", (now, start, now.instant()), refusal)),
        });
        let validate = trace.verified.zip(trace.decided).map(|(start, end)| {
            // A 503 is a later step's.
            let refusal = refusal.filter(|refusal| refusal.status().is_client_error());
            step(trace, "validate", (now, start, end), refusal)
        });
        let steps = verify.into_iter().chain(validate);
        let attempts = report.events.iter().flat_map(|event| {
            let attempts = event.attempts.iter();
            attempts.filter_map(move |attempt| self.publish_span(trace, event, attempt, now))
        });
        let server = self.server_span(trace, report, source, now);
        let spans = std::iter::once(server).chain(steps);
        tracer.export(spans.chain(attempts.take(MAX_PUBLISHES)));
    }

    fn server_span(
        &self,
        trace: &Trace,
        report: &Report<'_>,
        source: &Source,
        now: Moment,
    ) -> Span {
        let (method, route) = (trace.method, source.path.as_str());
        let is_known = method != "_OTHER";
        let name = format!("{} {route}", if is_known { method } else { "HTTP" });
        let times = (now, trace.started, now.instant());
        let mut span = Span::new(trace.context, trace.parent, SpanKind::Server, name, times)
            .state(trace.state.as_deref());
        span.text("http.request.method", method);
        span.text("http.route", route);
        span.text("url.path", route);
        let is_tls = self.config.http.tls.is_some();
        span.text("url.scheme", if is_tls { "https" } else { "http" });
        span.text("network.protocol.version", trace.protocol);
        if let Some(client) = trace.client {
            span.text("client.address", client);
        }
        span.text("hookbridge.source", &source.name);
        span.text("hookbridge.request_id", report.arrival.request_id);
        if let Some(event_id) = report.event_id {
            span.text("hookbridge.event_id", shorten(event_id.as_str()));
        }
        match report.result {
            Ok(status) => {
                span.text("hookbridge.outcome", status.as_str());
                // A handshake has its own.
                if status != Status::Handshake {
                    span.number("http.response.status_code", source.success_status.as_u16());
                }
            }
            Err(refusal) => {
                span.text("hookbridge.outcome", refusal.code());
                span.number("http.response.status_code", refusal.status().as_u16());
                if refusal.status().is_server_error() {
                    span.fail(refusal.code(), refusal.detail());
                }
            }
        }
        span
    }

    fn publish_span(
        &self,
        trace: &Trace,
        event: &Observed<'_>,
        attempt: &Attempt<'_>,
        now: Moment,
    ) -> Option<Span> {
        let (message, broker) = (&attempt.message, self.config.broker(attempt.broker));
        // The consumers' parent.
        let context = message.headers.get(&Attribute::TRACEPARENT);
        let context = context.and_then(Context::of_header)?;
        let start = attempt.started?;
        let end = start + attempt.duration?;
        let name = format!("send {}", message.destination);
        let times = (now, start, end);
        let parent = Some(trace.context.span_id);
        let mut span = Span::new(context, parent, SpanKind::Producer, name, times)
            .state(trace.state.as_deref());
        let system = match broker.settings.kind() {
            Kind::Kafka => "kafka",
            Kind::Nats => "nats",
        };
        span.text("messaging.system", system);
        span.text("messaging.operation.name", "send");
        span.text("messaging.operation.type", "send");
        span.text("messaging.destination.name", &message.destination);
        if let Some(event_id) = event.event_id.map(EventId::as_str) {
            span.text("messaging.message.id", shorten(event_id));
        }
        span.number("messaging.message.body.size", message.body.len());
        span.text("hookbridge.broker", &broker.name);
        span.text("hookbridge.event_type", shorten(event.event_type));
        match attempt.position() {
            Some(Position::Kafka { partition, offset }) => {
                span.text("messaging.destination.partition.id", partition);
                span.number("messaging.kafka.offset", *offset);
            }
            Some(Position::JetStream { stream, sequence }) => {
                span.text("hookbridge.stream", stream);
                span.number("hookbridge.sequence", *sequence);
            }
            None => {}
        }
        match &attempt.outcome {
            Outcome::Stored(_) => {}
            Outcome::NotStored(NotStored { reason, detail })
            | Outcome::Unknown(Unknown { reason, detail }) => {
                span.fail(reason.label(), shorten(detail));
            }
        }
        Some(span)
    }
}

fn step(
    trace: &Trace,
    name: &str,
    times: (Moment, Instant, Instant),
    refusal: Option<&Refusal>,
) -> Span {
    let parent = Some(trace.context.span_id);
    let (context, name) = (trace.context.child(), name.to_owned());
    let mut span =
        Span::new(context, parent, SpanKind::Internal, name, times).state(trace.state.as_deref());
    if let Some(refusal) = refusal {
        span.fail(refusal.code(), refusal.detail());
    }
    span
}
