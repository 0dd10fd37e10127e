//! The trace of a request: where it comes from, and how its messages carry it on.

use std::time::Instant;

use http::{HeaderMap, Method, Request, Version};
use hyper::body::Incoming;

use super::decision::{Decided, Decision, Verdict};
use super::receive;
use super::socket::Activity;
use crate::bridge::Bridge;
use crate::brokers::{Attribute, Headers, Message};
use crate::trace::{Context, Trace, state};

/// The request's trace; none where tracing is off. Boxed, since it waits with the request.
pub(super) fn begin(
    bridge: &Bridge,
    request: &Request<Incoming>,
    connection: &Activity,
    started: Instant,
) -> Option<Box<Trace>> {
    let tracer = bridge.process().tracer()?;
    let mut trace = tracer.begin(request.headers(), started);
    if trace.context.is_sampled {
        trace.method = match *request.method() {
            Method::POST => "POST",
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::OPTIONS => "OPTIONS",
            _ => "_OTHER",
        };
        trace.protocol = match request.version() {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        trace.client = Some(receive::client(bridge, request.headers(), connection));
    }
    Some(Box::new(trace))
}

/// Gives each message of a verified request a span of its own as the parent of whatever its consumers do.
pub(super) fn carry(trace: &mut Trace, decided: &mut Decided, headers: &HeaderMap) {
    trace.state = trace.parent.and_then(|_| state(headers));
    let trace = &*trace;
    match decided {
        Decided::Event(decision) => carry_decision(trace, decision),
        Decided::Batch(decisions) => {
            for decision in decisions {
                carry_decision(trace, decision);
            }
        }
        Decided::Handshake(_) => {}
    }
}

fn carry_decision(trace: &Trace, decision: &mut Decision) {
    match &mut decision.verdict {
        Verdict::Publish { delivery, .. } => {
            let fallback = delivery.fallback.as_deref_mut();
            let others = fallback.into_iter().chain(&mut delivery.copies);
            for addressed in std::iter::once(&mut delivery.to).chain(others) {
                carry_message(trace, &mut addressed.message);
            }
        }
        Verdict::DeadLetter { letter, .. } => carry_message(trace, &mut letter.message),
        Verdict::Ignore | Verdict::Refuse(_) => {}
    }
}

fn carry_message(trace: &Trace, message: &mut Message) {
    let headers = &mut message.headers;
    headers.push(Attribute::TRACEPARENT, trace.context.child().header());
    if let Some(state) = &trace.state {
        headers.push(Attribute::TRACESTATE, state.as_bytes());
    }
}

/// Gives a message that was made of another one a span of its own.
pub(super) fn renew(headers: &mut Headers) {
    if let Some(value) = headers.get_mut(&Attribute::TRACEPARENT)
        && let Some(context) = Context::of_header(value)
        && let Ok(value) = <&mut [u8; Context::HEADER_BYTES]>::try_from(value)
    {
        *value = context.child().header();
    }
}
