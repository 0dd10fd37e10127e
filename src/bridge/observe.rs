//! The only place where a request's report becomes metrics and log lines.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use super::Bridge;
use super::throttles::SourceThrottles;
use crate::brokers::{Message, NotStored, Outcome, Position, Unknown};
use crate::config::{BrokerId, RouteId, Source};
use crate::event::{EventId, Refusal, RequestId, Status};
use crate::metrics::{SourceMetrics, unix_seconds};
use crate::telemetry::shorten;
use crate::trace::Trace;

/// When and from where a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) request_id: RequestId,
    pub(crate) started: Instant,
    /// None unless [`Bridge::wants_clients`].
    pub(crate) client: Option<IpAddr>,
}

/// An answered request, as its steps saw it.
pub(crate) struct Report<'a> {
    /// None if no source has the request's path.
    pub(crate) source: Option<&'a Source>,
    pub(crate) arrival: Arrival,
    /// None unless the request has exactly one event.
    pub(crate) event_id: Option<&'a EventId>,
    /// Index of the secret that verified the request.
    pub(crate) secret_index: Option<usize>,
    /// The events that got as far as a broker.
    pub(crate) events: &'a [Observed<'a>],
    pub(crate) result: Result<Status, &'a Refusal>,
    /// The body of a verified request; none unless [`Bridge::wants_bodies`].
    pub(crate) body: Option<&'a [u8]>,
    /// From the head to the answer; none if the request was not received completely.
    pub(crate) duration: Option<Duration>,
    /// None where tracing is off.
    pub(crate) trace: Option<&'a Trace>,
}

impl<'a> Report<'a> {
    /// A request to a source, without further detail.
    pub(crate) fn new(
        source: &'a Source,
        arrival: Arrival,
        result: Result<Status, &'a Refusal>,
    ) -> Self {
        Self {
            source: Some(source),
            arrival,
            event_id: None,
            secret_index: None,
            events: &[],
            result,
            body: None,
            duration: None,
            trace: None,
        }
    }

    /// A request that was refused before its source was known.
    #[cold]
    pub(crate) fn refused(arrival: Arrival, refusal: &'a Refusal) -> Self {
        Self {
            source: None,
            arrival,
            event_id: None,
            secret_index: None,
            events: &[],
            result: Err(refusal),
            body: None,
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
    /// Empty if it has none.
    pub(crate) event_type: &'a str,
    /// A status or a problem code.
    pub(crate) outcome: &'static str,
    /// In order of completion.
    pub(crate) attempts: Vec<Attempt<'a>>,
    /// The reasons why the event, or copies of it, became dead letters.
    pub(crate) dead_lettered: Vec<Cow<'a, Refusal>>,
}

/// One message to one broker.
pub(crate) struct Attempt<'a> {
    pub(crate) broker: BrokerId,
    pub(crate) message: Sent<'a>,
    /// None for a dead letter.
    pub(crate) route: Option<RouteId>,
    pub(crate) outcome: Outcome,
    /// None if the message was not handed to the broker's client.
    pub(crate) started: Option<Instant>,
    /// None if the message was not handed to the broker's client.
    pub(crate) duration: Option<Duration>,
}

/// The message of an attempt. Not a [`Cow`], which has room for a whole message: every request in flight holds several.
pub(crate) enum Sent<'a> {
    Decided(&'a Message),
    /// A dead letter, because the broker takes no message as large as the decided one.
    Replacing(Box<Message>),
}

impl Deref for Sent<'_> {
    type Target = Message;

    fn deref(&self) -> &Message {
        match self {
            Self::Decided(message) => message,
            Self::Replacing(letter) => letter,
        }
    }
}

impl Observed<'_> {
    pub(super) fn shown_type(&self) -> Option<String> {
        (!self.event_type.is_empty()).then(|| shorten(self.event_type))
    }

    /// The end of the last attempt that reached a broker's client.
    pub(crate) fn ended(&self) -> Option<Instant> {
        let attempts = self.attempts.iter();
        let ends = attempts.filter_map(|attempt| Some(attempt.started? + attempt.duration?));
        ends.max()
    }

    /// The first message that was stored, or else the last that was tried.
    pub(super) fn main_attempt(&self) -> Option<&Attempt<'_>> {
        let is_stored = |attempt: &&Attempt<'_>| matches!(attempt.outcome, Outcome::Stored(_));
        let stored = self.attempts.iter().find(is_stored);
        stored.or(self.attempts.last())
    }
}

impl Attempt<'_> {
    pub(super) fn position(&self) -> Option<&Position> {
        match &self.outcome {
            Outcome::Stored(stored) => stored.position(),
            Outcome::NotStored(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// With three decimals.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
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
        let now = unix_seconds();
        if let Some(metrics) = metrics {
            if let Some(used) = report
                .secret_index
                .and_then(|index| metrics.secrets.get(index))
            {
                used.set(now);
            }
            if let Some(duration) = report.duration {
                metrics.duration.observe(duration.as_secs_f64());
            }
        }
        for event in report.events {
            for attempt in &event.attempts {
                self.observe_attempt(metrics, report, event.event_type, attempt, now);
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
            Err(refusal) => self.observe_refusal(metrics, report, refusal, now),
        }
        if self.config.http.access_log {
            self.log_access(report);
        }
        if self.process.feed().is_watched() {
            self.show(report);
        }
    }

    /// Whether requests should say which address they came from: that costs a look at their headers.
    pub(crate) fn wants_clients(&self) -> bool {
        self.config.http.access_log || self.process.feed().is_watched()
    }

    /// Whether reports should have the bodies of events that are not published.
    pub(crate) fn wants_bodies(&self) -> bool {
        self.config.admin.show_bodies && self.process.feed().is_watched()
    }

    /// A line for each event of a request, or one for a request that has none.
    #[cold]
    fn log_access(&self, report: &Report<'_>) {
        if report.events.is_empty() {
            self.log_access_of(report, None);
        }
        for event in report.events {
            self.log_access_of(report, Some(event));
        }
    }

    fn log_access_of(&self, report: &Report<'_>, event: Option<&Observed<'_>>) {
        let request_id = report.arrival.request_id;
        let trace_id = report.trace_id();
        let client = report.arrival.client.map(tracing::field::display);
        let source = report.source.map(|source| source.name.as_str());
        let event_id = event.map_or(report.event_id, |event| event.event_id);
        let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
        let event_type = event.and_then(Observed::shown_type);
        let refusal = report.result.err();
        let answer = report.result.map_or_else(Refusal::code, Status::as_str);
        let outcome = event.map_or(answer, |event| event.outcome);
        // A batch is answered as a whole.
        let answer = (answer != outcome).then_some(answer);
        let refusal = refusal.filter(|refusal| refusal.code() == outcome);
        let pointer = refusal.and_then(Refusal::pointer).map(shorten);
        let detail = refusal.map(|refusal| shorten(&refusal.detail()));
        let main = event.and_then(Observed::main_attempt);
        let broker = main.map(|main| self.config.broker(main.broker).name.as_str());
        let topic = main.map(|main| shorten(&main.message.destination));
        let (partition, offset, stream, sequence) = match main.and_then(Attempt::position) {
            Some(Position::Kafka { partition, offset }) => {
                (Some(*partition), Some(*offset), None, None)
            }
            Some(Position::JetStream { stream, sequence }) => {
                (None, None, Some(shorten(stream)), Some(*sequence))
            }
            None => (None, None, None, None),
        };
        let copies = event.and_then(|event| self.copies(event, main));
        let duration_ms = milliseconds(report.arrival.started.elapsed());
        tracing::info!(
            target: "hookbridge::access",
            %request_id, trace_id, client, source, event_id, "type" = event_type, outcome, answer, broker, topic, partition,
            offset, stream, sequence, copies, duration_ms, pointer, detail, "access"
        );
    }

    /// The other messages that were stored of an event.
    fn copies(&self, event: &Observed<'_>, main: Option<&Attempt<'_>>) -> Option<String> {
        let others = event.attempts.iter().filter(|attempt| {
            let is_main = main.is_some_and(|main| std::ptr::eq(main, *attempt));
            !is_main && matches!(attempt.outcome, Outcome::Stored(_))
        });
        let others = others.map(|attempt| {
            let broker = &self.config.broker(attempt.broker).name;
            let topic = shorten(&attempt.message.destination);
            match attempt.position() {
                Some(Position::Kafka { partition, offset }) => {
                    format!("{broker}/{topic}[{partition}]@{offset}")
                }
                Some(Position::JetStream { stream, sequence }) => {
                    format!("{broker}/{topic} {}@{sequence}", shorten(stream))
                }
                None => format!("{broker}/{topic}"),
            }
        });
        let others = others.collect::<Vec<_>>().join(", ");
        (!others.is_empty()).then_some(others)
    }

    fn observe_attempt(
        &self,
        source: Option<&SourceMetrics>,
        report: &Report<'_>,
        event_type: &str,
        attempt: &Attempt<'_>,
        now: f64,
    ) {
        let broker = self.handles.brokers.get(attempt.broker.index());
        if let (Some(broker), Some(duration)) = (broker, attempt.duration) {
            broker.publish_duration.observe(duration.as_secs_f64());
        }
        let (reason, detail) = match &attempt.outcome {
            Outcome::Stored(stored) => {
                // A duplicate was not stored again.
                if let Some(source) = source.filter(|_| !stored.is_duplicate()) {
                    source.last_published.set(now);
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
        if let Some(suppressed) = self.client(attempt.broker).failures.allow(reason) {
            let broker = &self.config.broker(attempt.broker).name;
            let topic = shorten(&attempt.message.destination);
            let event = shorten(attempt.message.name());
            let is_certain = matches!(attempt.outcome, Outcome::NotStored(_));
            let of_source = report.source.map(|source| source.name.as_str());
            let trace_id = report.trace_id();
            tracing::error!(source = of_source, broker, topic, event, trace_id, reason = reason.label(), is_certain, detail = %shorten(detail), suppressed, "event not confirmed");
        }
    }

    #[cold]
    fn observe_refusal(
        &self,
        source: Option<&SourceMetrics>,
        report: &Report<'_>,
        refusal: &Refusal,
        now: f64,
    ) {
        let code = refusal.code();
        match source {
            Some(metrics) => {
                metrics.requests.count(code);
                metrics.last_refused.set(now);
            }
            None => self.process.metrics().unmatched.count(code),
        }
        let throttles = report.source.and_then(|source| self.throttles(source));
        let throttle = throttles.map_or(self.process.unmatched(), |of| &of.refusals);
        if let Some(suppressed) = throttle.allow(code) {
            let source = report.source.map(|source| source.name.as_str());
            let event_id = report.event_id.map(|event_id| shorten(event_id.as_str()));
            let event = match report.events {
                [event] => Some(event),
                _ => None,
            };
            let event_type = event.and_then(Observed::shown_type);
            let pointer = refusal.pointer().map(shorten);
            let (request_id, trace_id) = (report.arrival.request_id, report.trace_id());
            tracing::warn!(source, code, %request_id, trace_id, event_id, "type" = event_type, suppressed, pointer, detail = %shorten(&refusal.detail()), "request refused");
        }
    }

    #[cold]
    fn log_dead_letter(&self, report: &Report<'_>, refusal: &Refusal, event_id: Option<&EventId>) {
        let throttles = report.source.and_then(|source| self.throttles(source));
        let throttle = throttles.map_or(self.process.unmatched(), |of| &of.dead_letters);
        if let Some(suppressed) = throttle.allow(refusal.code()) {
            let source = report.source.map(|source| source.name.as_str());
            let event_id = event_id.map(|event_id| shorten(event_id.as_str()));
            let trace_id = report.trace_id();
            let pointer = refusal.pointer().map(shorten);
            tracing::warn!(source, code = refusal.code(), trace_id, event_id, suppressed, pointer, detail = %shorten(&refusal.detail()), "event dead-lettered");
        }
    }

    fn throttles(&self, source: &Source) -> Option<&SourceThrottles> {
        self.throttles.get(source.index).map(AsRef::as_ref)
    }

    fn source_metrics(&self, source: &Source) -> Option<&SourceMetrics> {
        self.handles.sources.get(source.index)
    }
}
