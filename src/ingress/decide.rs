//! Steps 3 to 6 for all events of a request: the verdict on each, unless the request is a handshake.

use super::decision::{Decided, Decision, Verdict};
use super::parse::{self, Parsed};
use super::route::{self, Routed};
use super::validate::validate;
use super::verify::{Verified, to_refusal};
use super::{dead_letter, encode};
use crate::event::{Refusal, Unidentified};
use crate::json::Document;
use crate::providers::Scope;
use crate::providers::cloudevents::Mode;
use crate::providers::handshake::Reply;
use crate::providers::mapping::{Content, Mapping, lines};
use crate::providers::request::Ambiguous;

/// The largest number of events that one request may hold.
const MAX_EVENTS: usize = 5_000;

/// Decides on an authentic request. Pure, so that `hookbridge explain` shows what `run` would do.
#[must_use]
pub fn decide(verified: &Verified) -> Decided {
    decide_or_refuse(verified).unwrap_or_else(|refusal| {
        let body = verified.request().body();
        Decided::Event(dead_letter::for_unidentified(
            verified,
            body,
            refusal.into(),
        ))
    })
}

fn decide_or_refuse(verified: &Verified) -> Result<Decided, Refusal> {
    let (received, source) = (verified.request(), verified.source());
    let mapping = &source.mapping;
    let request = received.as_request();
    let content = parse::content(mapping, request.headers, request.body)?;
    let text = content.json().map_err(duplicate_name)?;
    let document = text.map(parse::read).transpose()?;
    let document = document.as_ref();
    let mode = content.mode();
    let scope = Scope {
        form: content.form(),
        node: document.map(Document::root),
        mode,
        ..Scope::raw(&request)
    };
    if !verified.is_assumed() {
        let checked = source.authentication.check_content(&scope);
        checked.map_err(to_refusal)?;
    }
    if let Some(reply) = handshake(verified, &scope, document)? {
        return Ok(Decided::Handshake(Box::new(reply)));
    }
    if matches!(content, Content::Lines(_)) {
        return decide_lines(verified, &scope);
    }
    let elements = match (mode, document) {
        (Some(Mode::Batch), Some(document)) => Mapping::cloud_events(document),
        (None, Some(document)) if mapping.is_batch() => mapping.elements(document),
        _ => return Ok(Decided::Event(decide_event(verified, &scope, document))),
    };
    document.map_or(Ok(()), parse::refuse_if_ambiguous)?;
    let elements = elements?;
    let texts = elements.iter().map(|element| element.raw().as_bytes());
    decide_batch(verified, &scope, texts)
}

/// The answer to a handshake that can be recognized only once the request is verified.
fn handshake(
    verified: &Verified,
    scope: &Scope<'_>,
    document: Option<&Document<'_>>,
) -> Result<Option<Reply>, Refusal> {
    for handshake in &verified.source().handshakes {
        if !handshake.matches(scope).map_err(duplicate_name)? {
            continue;
        }
        document.map_or(Ok(()), parse::refuse_if_ambiguous)?;
        let reply = handshake
            .reply(scope, verified.key())
            .map_err(duplicate_name)?;
        let follow_up = verified.source().authentication.follow_up(scope)?;
        return match reply {
            Some(reply) => Ok(Some(Reply { follow_up, ..reply })),
            // Without secrets the reply cannot be signed.
            None if verified.is_assumed() => Ok(Some(handshake.unsigned_reply())),
            None => Err(Refusal::invalid_event(
                "",
                "is a handshake without the value that is to be answered",
            )),
        };
    }
    Ok(None)
}

#[cold]
fn duplicate_name(_: Ambiguous) -> Refusal {
    Refusal::invalid_event("", "has a header or form field twice that the bridge reads")
}

fn decide_lines(verified: &Verified, scope: &Scope<'_>) -> Result<Decided, Refusal> {
    if lines(scope.payload).next().is_none() {
        return Err(Refusal::invalid_event("", "must hold at least one event"));
    }
    decide_batch(verified, scope, lines(scope.payload))
}

/// Each element is a document of its own: a fault in one does not affect the others.
fn decide_batch<'a>(
    verified: &Verified,
    scope: &Scope<'_>,
    texts: impl Iterator<Item = &'a [u8]>,
) -> Result<Decided, Refusal> {
    let mut decisions = Vec::new();
    let max_in_flight = verified.source().max_in_flight;
    for (index, text) in texts.enumerate() {
        if index == MAX_EVENTS.min(max_in_flight) {
            // Each event takes a permit, and there would never be enough of them.
            let reason = match max_in_flight < MAX_EVENTS {
                true => {
                    format!("holds more than {max_in_flight} events, and no more may be in flight")
                }
                false => format!("holds more than {MAX_EVENTS} events"),
            };
            return Err(Refusal::invalid_event("", reason));
        }
        let decision = decide_element(verified, scope, text);
        if let Verdict::Refuse(refusal) = decision.verdict {
            // One refused event refuses the whole batch, before any of it is published.
            let pointer = verified.source().mapping.pointer_to(index);
            return Ok(Decided::Event(Decision {
                verdict: Verdict::Refuse(refusal.within(&pointer)),
                ..decision
            }));
        }
        decisions.push(decision);
    }
    Ok(Decided::Batch(decisions))
}

fn decide_element(verified: &Verified, scope: &Scope<'_>, text: &[u8]) -> Decision {
    match parse::read(text) {
        Ok(document) => {
            let scope = Scope {
                request: scope.request,
                form: None,
                node: Some(document.root()),
                timestamp: None,
                payload: text,
                mode: scope.mode,
            };
            decide_event(verified, &scope, Some(&document))
        }
        Err(refusal) => dead_letter::for_unidentified(verified, text, refusal.into()),
    }
}

fn decide_event<'d>(
    verified: &Verified,
    scope: &Scope<'d>,
    document: Option<&'d Document<'d>>,
) -> Decision {
    let mapping = &verified.source().mapping;
    let parsed: Result<_, Unidentified> = parse::identify(mapping, scope, document);
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(unidentified) => {
            return dead_letter::for_unidentified(verified, scope.payload, unidentified);
        }
    };
    let verdict = decide_verdict(verified, &parsed)
        .unwrap_or_else(|refusal| dead_letter::for_event(verified, &parsed, refusal));
    let event = parsed.into_event();
    Decision {
        event_id: Some(event.event_id),
        event_type: Some(event.event_type),
        verdict,
    }
}

/// Steps 4 to 6.
fn decide_verdict(verified: &Verified, parsed: &Parsed<'_>) -> Result<Verdict, Refusal> {
    let source = verified.source();
    let verdict = validate(source, parsed).and_then(|()| {
        Ok(match route::route(source, parsed.event())? {
            Routed::Ignore => Verdict::Ignore,
            Routed::To { route, forwarding } => Verdict::Publish {
                route,
                delivery: encode::encode(verified, parsed, forwarding)?,
            },
        })
    });
    // Each step must have read the same event, so ambiguity takes precedence over their results.
    parsed.refuse_if_ambiguous().and(verdict)
}
