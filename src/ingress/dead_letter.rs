//! Dead letters: events that cannot go where their type would send them but that their source keeps nevertheless.

use super::decision::{Addressed, Decision, Verdict};
use super::encode::{
    Fill, INTENDED_BROKER, INTENDED_TOPIC, Known, REASON, SOURCE_NAME, deduplication_id,
    default_key, event_headers, message, push_partition_key,
};
use super::parse::Parsed;
use super::trace;
use super::verify::Verified;
use crate::brokers::{Attribute, Headers, MAX_DETAIL_BYTES, MAX_POINTER_BYTES, Message, id_part};
use crate::config::{Action, Destination, FailurePolicy, Source};
use crate::event::{EventId, IdOrigin, Refusal, Unidentified, Violation};
use crate::flow::duplicates::{Fingerprint, Names};

const DETAIL: Attribute = Attribute::plain("hookbridge_detail");
const POINTER: Attribute = Attribute::plain("hookbridge_pointer");

/// The verdict on an event that cannot go where its type would send it.
#[cold]
pub(super) fn for_event(verified: &Verified, parsed: &Parsed<'_>, refusal: Refusal) -> Verdict {
    let event = parsed.event();
    let (intended, key) = intended(verified.source(), parsed);
    apply_policy(verified, refusal, |refusal, topic| {
        let known = Known::of(event);
        let mut headers = event_headers(verified, &known, parsed.payload());
        push_partition_key(&mut headers, &known, &key);
        push_reason_headers(&mut headers, verified.source(), refusal, intended.as_ref());
        let names = parsed.names();
        dead_letter(verified, parsed.payload(), topic, key, headers, names)
    })
}

/// The same stream may store an event and its dead letter, so neither may count as the other's duplicate.
fn dead_letter(
    verified: &Verified,
    payload: &[u8],
    topic: String,
    key: String,
    headers: Headers,
    names: Names<'_>,
) -> Message {
    let deduplication_id = letter_id(verified.source(), names, payload);
    message(verified, payload, topic, key, headers, deduplication_id)
}

fn letter_id(source: &Source, names: Names<'_>, body: &[u8]) -> Option<String> {
    let fingerprint = Fingerprint::of(source.dedup_by, names, body);
    deduplication_id(source, names, fingerprint).map(|id| id + "/dead_letter")
}

/// The dead letter for a message that exceeds its broker's size limit; `None` if the source has no dead letters.
#[cold]
pub(super) fn for_too_large(
    source: &Source,
    intended_broker: &str,
    event_id: &EventId,
    refused: &Message,
) -> Option<(Addressed, Refusal)> {
    let FailurePolicy::DeadLetter { broker, topic } = &source.on_invalid else {
        return None;
    };
    let refusal = Refusal::invalid_event("", "is larger than its broker takes");
    let mut message = refused.clone();
    let intended = Intended {
        broker: intended_broker.to_owned(),
        topic: std::mem::replace(&mut message.destination, topic.clone()),
    };
    push_reason_headers(&mut message.headers, source, &refusal, Some(&intended));
    trace::renew(&mut message.headers);
    let mut headers = refused.headers.iter();
    let ce_source = headers.find(|(attribute, _)| **attribute == Attribute::SOURCE);
    let ce_source = ce_source.and_then(|(_, value)| std::str::from_utf8(value).ok());
    let names = Names {
        id: event_id,
        ce_source: ce_source.filter(|of_event| *of_event != source.ce_source),
    };
    // An event and its copy may both be too large: each gets its own dead letter.
    message.deduplication_id =
        letter_id(source, names, &message.body).map(|id| id + "/" + &id_part(&intended.topic));
    let letter = Addressed {
        broker: *broker,
        message,
    };
    Some((letter, refusal))
}

/// The destination that an event was meant for.
struct Intended {
    broker: String,
    topic: String,
}

/// The decision on an event of which only the bytes, and possibly id and type, are known.
#[cold]
pub(super) fn for_unidentified(
    verified: &Verified,
    payload: &[u8],
    unidentified: Unidentified,
) -> Decision {
    let Unidentified {
        refusal,
        event_id,
        event_type,
        time,
    } = unidentified;
    let generated = EventId::generate(verified.request().at());
    let id = event_id.as_ref().unwrap_or(&generated);
    let known = Known {
        id,
        id_origin: match event_id {
            Some(_) => IdOrigin::Provider,
            None => IdOrigin::Generated,
        },
        event_type: event_type.as_deref(),
        time: time.as_deref(),
        subject: None,
        cloud_event: None,
    };
    let verdict = apply_policy(verified, refusal, |refusal, topic| {
        let key = id.as_str().to_owned();
        let mut headers = event_headers(verified, &known, payload);
        let intended = event_type
            .as_deref()
            .and_then(|event_type| intended_for_type(verified.source(), event_type));
        push_partition_key(&mut headers, &known, &key);
        push_reason_headers(&mut headers, verified.source(), refusal, intended.as_ref());
        let names = Names {
            id,
            ce_source: None,
        };
        dead_letter(verified, payload, topic, key, headers, names)
    });
    // The answer has the id of a dead letter, but not an id that was generated for nothing.
    let is_dead_letter = matches!(verdict, Verdict::DeadLetter { .. });
    let event_id = event_id.or_else(|| is_dead_letter.then_some(generated));
    Decision {
        event_id,
        event_type,
        verdict,
    }
}

/// Applies `on_invalid` or `on_unrouted` of the source.
fn apply_policy(
    verified: &Verified,
    refusal: Refusal,
    letter: impl FnOnce(&Refusal, String) -> Message,
) -> Verdict {
    let source = verified.source();
    let policy = match refusal {
        Refusal::NoRoute { .. } => &source.on_unrouted,
        // A bad signature inside the body means that the event must not count as the provider's.
        Refusal::MissingSignature
        | Refusal::InvalidSignature
        | Refusal::StaleTimestamp
        | Refusal::Unauthorized => &FailurePolicy::Reject,
        _ => &source.on_invalid,
    };
    match policy {
        FailurePolicy::Reject => Verdict::Refuse(refusal),
        FailurePolicy::Ignore => Verdict::Ignore,
        FailurePolicy::DeadLetter { broker, topic } => {
            let message = letter(&refusal, topic.clone());
            let letter = Box::new(Addressed {
                broker: *broker,
                message,
            });
            Verdict::DeadLetter { letter, refusal }
        }
    }
}

fn push_reason_headers(
    headers: &mut Headers,
    source: &Source,
    refusal: &Refusal,
    intended: Option<&Intended>,
) {
    headers.push(REASON, refusal.code());
    headers.push_parts(DETAIL, &truncate(&refusal.detail(), MAX_DETAIL_BYTES));
    if let Refusal::InvalidEvent(violations) = refusal
        && let Some(Violation { pointer, .. }) = violations.first()
        && pointer.len() <= MAX_POINTER_BYTES
    {
        headers.push(POINTER, pointer);
    }
    headers.push(SOURCE_NAME, &source.name);
    if let Some(Intended { broker, topic }) = intended {
        headers.push(INTENDED_BROKER, broker);
        headers.push(INTENDED_TOPIC, topic);
    }
}

/// Limits our own text to `max_bytes`, with a mark at the truncate.
fn truncate(text: &str, max_bytes: usize) -> [&[u8]; 2] {
    const MARK: &str = "…";
    if text.len() <= max_bytes {
        return [text.as_bytes(), b""];
    }
    let mut end = max_bytes.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, _) = text.as_bytes().split_at(end);
    [kept, MARK.as_bytes()]
}

/// The event's intended destination, if it can be determined, and the key.
fn intended(source: &Source, parsed: &Parsed<'_>) -> (Option<Intended>, String) {
    let event = parsed.event();
    let fill = Fill {
        event,
        source: &source.name,
        root: parsed.root(),
    };
    let destination = destination_of(source, &event.event_type);
    let topic = destination.and_then(|destination| {
        fill.topic(destination)
            .ok()
            .map(|topic| (destination, topic))
    });
    let key = destination
        .and_then(|destination| destination.key.as_ref())
        .and_then(|template| fill.key(template).ok());
    let intended = topic.map(|(destination, topic)| Intended {
        broker: destination.broker_name.clone(),
        topic,
    });
    (
        intended,
        key.unwrap_or_else(|| default_key(event).to_owned()),
    )
}

/// Like [`intended`], for an event of which only the type is known.
fn intended_for_type(source: &Source, event_type: &str) -> Option<Intended> {
    let destination = destination_of(source, event_type)?;
    let topic = destination
        .topic
        .without_payload(event_type, &source.name)?;
    destination.kind.check_destination(&topic).ok()?;
    Some(Intended {
        broker: destination.broker_name.clone(),
        topic,
    })
}

fn destination_of<'s>(source: &'s Source, event_type: &str) -> Option<&'s Destination> {
    match source
        .routes
        .first_for(event_type)
        .map(|route| &route.action)
    {
        Some(Action::Publish(forwarding)) => Some(&forwarding.to),
        Some(Action::Ignore) | None => None,
    }
}
