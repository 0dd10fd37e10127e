//! The only place where a request's report becomes metrics and log lines.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::Bridge;
use crate::brokers::{Message, NotStored, Outcome, Unknown};
use crate::config::{BrokerId, RouteId, Source};
use crate::event::{EventId, Refusal, RequestId, Status};
use crate::metrics::{SourceMetrics, unix_seconds};
use crate::telemetry::shorten;
use crate::trace::Trace;

/// An answered request, as its steps saw it.
pub(crate) struct Report<'a> {
    /// None if no source has the request's path.
    pub(crate) source: Option<&'a Source>,
    pub(crate) request_id: RequestId,
    /// None unless the request has exactly one event.
    pub(crate) event_id: Option<&'a EventId>,
    /// Index of the secret that verified the request.
    pub(crate) secret_index: Option<usize>,
    /// The events that got as far as a broker.
    pub(crate) events: &'a [Observed<'a>],
    pub(crate) result: Result<Status, &'a Refusal>,
    /// From the head to the answer; none if the request was not received completely.
    pub(crate) duration: Option<Duration>,
    /// None where tracing is off.
    pub(crate) trace: Option<&'a Trace>,
}

impl<'a> Report<'a> {
    /// A request to a source, without further detail.
    pub(crate) fn new(
        source: &'a Source,
        request_id: RequestId,
        result: Result<Status, &'a Refusal>,
    ) -> Self {
        Self {
            source: Some(source),
            request_id,
            event_id: None,
            secret_index: None,
            events: &[],
            result,
            duration: None,
            trace: None,
        }
    }

    /// A request that was refused before its source was known.
    pub(crate) fn refused(request_id: RequestId, refusal: &'a Refusal) -> Self {
        Self {
            source: None,
            request_id,
            event_id: None,
            secret_index: None,
            events: &[],
            result: Err(refusal),
            duration: None,
            trace: None,
        }
    }
}

impl Report<'_> {
    /// For log lines.
    fn trace_id(&self) -> Option<impl tracing::Value> {
        self.trace
            .map(|trace| tracing::field::display(trace.context.trace_id))
    }
}

/// An event as step 7 saw it.
pub(crate) struct Observed<'a> {
    pub(crate) event_id: Option<&'a EventId>,
    pub(crate) event_type: &'a str,
    /// In order of completion.
    pub(crate) attempts: Vec<Attempt<'a>>,
    /// The reasons why the event, or copies of it, became dead letters.
    pub(crate) dead_lettered: Vec<Cow<'a, Refusal>>,
}

/// One message to one broker.
pub(crate) struct Attempt<'a> {
    pub(crate) broker: BrokerId,
    pub(crate) message: Cow<'a, Message>,
    /// None for a dead letter.
    pub(crate) route: Option<RouteId>,
    pub(crate) outcome: Outcome,
    /// None if the message was not handed to the broker's client.
    pub(crate) started: Option<Instant>,
    /// None if the message was not handed to the broker's client.
    pub(crate) duration: Option<Duration>,
}

impl Bridge {
    /// Records the use of further secrets of a source, besides the one of a [`Report`].
    pub(crate) fn observe_secrets(&self, source: &Source, indices: &[usize]) {
        for index in indices {
            let metrics = self.source_metrics(source);
            if let Some(used) = metrics.and_then(|metrics| metrics.secrets.get(*index)) {
                used.set(unix_seconds());
            }
        }
    }

    /// Counts a request and its publishes, and logs failures: each kind at most once a second.
    pub(crate) fn observe(&self, report: &Report<'_>) {
        let metrics = report.source.and_then(|source| self.source_metrics(source));
        if let Some(metrics) = metrics {
            if let Some(used) = report
                .secret_index
                .and_then(|index| metrics.secrets.get(index))
            {
                used.set(unix_seconds());
            }
            if let Some(duration) = report.duration {
                metrics.duration.observe(duration.as_secs_f64());
            }
        }
        for event in report.events {
            for attempt in &event.attempts {
                self.observe_attempt(metrics, report, event.event_type, attempt);
            }
            for refusal in &event.dead_lettered {
                self.log_dead_letter(report, refusal, event.event_id);
            }
        }
        if let Some(trace) = report.trace
            && trace.context.is_sampled
        {
            self.observe_trace(trace, report, metrics);
        }
        match report.result {
            Ok(status) => {
                if let Some(metrics) = metrics {
                    metrics.requests.count(status.as_str());
                }
            }
            Err(refusal) => self.observe_refusal(metrics, report, refusal),
        }
    }

    fn observe_attempt(
        &self,
        source: Option<&SourceMetrics>,
        report: &Report<'_>,
        event_type: &str,
        attempt: &Attempt<'_>,
    ) {
        let broker = self.handles.brokers.get(attempt.broker.index());
        if let (Some(broker), Some(duration)) = (broker, attempt.duration) {
            broker.publish_duration.observe(duration.as_secs_f64());
        }
        let (reason, detail) = match &attempt.outcome {
            Outcome::Stored(receipt) => {
                // A duplicate was not stored again.
                if let Some(source) = source.filter(|_| !receipt.is_duplicate()) {
                    source.last_published.set(unix_seconds());
                    let events = match attempt.route {
                        Some(route) => source.routes.get(route.index),
                        None => Some(&source.dead_letters),
                    };
                    if let Some(events) = events {
                        events.count(attempt.broker, event_type, &attempt.message.destination);
                    }
                }
                return;
            }
            Outcome::NotStored(NotStored { reason, detail })
            | Outcome::Unknown(Unknown { reason, detail }) => (*reason, detail),
        };
        if let Some(broker) = broker {
            broker.count_error(reason);
        }
        if let Some(suppressed) = self.process.allow_failure(reason) {
            let broker = &self.config.broker(attempt.broker).name;
            let topic = shorten(&attempt.message.destination);
            let event = shorten(attempt.message.name());
            let is_certain = matches!(attempt.outcome, Outcome::NotStored(_));
            let trace_id = report.trace_id();
            tracing::error!(broker, topic, event, trace_id, reason = reason.label(), is_certain, detail = %shorten(detail), suppressed, "event not confirmed");
        }
    }

    fn observe_refusal(
        &self,
        source: Option<&SourceMetrics>,
        report: &Report<'_>,
        refusal: &Refusal,
    ) {
        let code = refusal.code();
        match source {
            Some(metrics) => {
                metrics.requests.count(code);
                metrics.last_refused.set(unix_seconds());
            }
            None => self.process.metrics().unmatched.count(code),
        }
        if let Some(suppressed) = self.process.allow_refusal(code) {
            let source = report.source.map(|source| source.name.as_str());
            let event_id = report.event_id.map(|event_id| shorten(event_id.as_str()));
            let (request_id, trace_id) = (report.request_id, report.trace_id());
            tracing::warn!(source, code, %request_id, trace_id, event_id, suppressed, detail = %shorten(&refusal.detail()), "request refused");
        }
    }

    fn log_dead_letter(&self, report: &Report<'_>, refusal: &Refusal, event_id: Option<&EventId>) {
        if let Some(suppressed) = self.process.allow_dead_letter(refusal.code()) {
            let source = report.source.map(|source| source.name.as_str());
            let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
            let trace_id = report.trace_id();
            tracing::warn!(source, code = refusal.code(), trace_id, event_id, suppressed, detail = %shorten(&refusal.detail()), "event dead-lettered");
        }
    }

    fn source_metrics(&self, source: &Source) -> Option<&SourceMetrics> {
        self.handles.sources.get(source.index)
    }
}
