//! Step 6: topic, key and headers. A value that would result in an illegal name is refused, never rewritten.

use std::borrow::Cow;
use std::time::SystemTime;

use http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decision::{Addressed, Delivery};
use super::parse::Parsed;
use super::verify::Verified;
use crate::brokers::{
    Attribute, Headers, Kind, MAX_FORWARDED_BYTES, MAX_KEY_BYTES, MAX_MEDIA_TYPE_BYTES, Message,
    id_part,
};
use crate::config::{Destination, Forwarding, Part, Source, Template};
use crate::event::{CloudEvent, DedupBy, EventId, IdOrigin, Identity, Refusal};
use crate::flow::duplicates::{Fingerprint, Names};
use crate::json::Node;
use crate::providers::cloudevents::{BATCH, STRUCTURED};

/// The usual size of a message's headers; exceeding it only costs another allocation.
const HEADERS: usize = 12;
const HEADER_BYTES: usize = 384;

/// Overhead of an extension's header beyond its name and value.
const EXTENSION_FRAMING_BYTES: usize = 8;

const EVENT_ID: Attribute = Attribute::plain("event_id");
const EVENT_ID_ORIGIN: Attribute = Attribute::plain("event_id_origin");
const CONTENT_TYPE: Attribute = Attribute::plain("content-type");
pub(super) const REASON: Attribute = Attribute::plain("hookbridge_reason");
pub(super) const SOURCE_NAME: Attribute = Attribute::plain("hookbridge_source");
pub(super) const INTENDED_BROKER: Attribute = Attribute::plain("hookbridge_intended_broker");
pub(super) const INTENDED_TOPIC: Attribute = Attribute::plain("hookbridge_intended_topic");

/// Builds all messages of an event. An event whose values exceed the limits for headers and key is refused, since no
/// broker would ever accept it.
pub(super) fn encode(
    verified: &Verified,
    parsed: &Parsed<'_>,
    forwarding: &Forwarding,
) -> Result<Box<Delivery>, Refusal> {
    check_bounds(verified, parsed.event())?;
    // The duplicates window and the messages to NATS use the same hash of the body, so it is computed once.
    let source = verified.source();
    let is_for_nats = |destination: &Destination| destination.kind == Kind::Nats;
    let is_needed = source.dedup_window.is_some()
        || is_for_nats(&forwarding.to)
        || forwarding.fallback.as_ref().is_some_and(is_for_nats)
        || forwarding.copies.iter().any(is_for_nats);
    let fingerprint = is_needed
        .then(|| Fingerprint::of(source.dedup_by, parsed.names(), parsed.payload()))
        .flatten();
    let to = encode_for(verified, parsed, &forwarding.to, fingerprint)?;
    let fallback = forwarding.fallback.as_ref().map(|destination| {
        let mut message = encode_for(verified, parsed, destination, fingerprint)?;
        let headers = &mut message.headers;
        headers.push(REASON, "fallback");
        headers.push(SOURCE_NAME, &verified.source().name);
        headers.push(INTENDED_BROKER, &forwarding.to.broker_name);
        headers.push(INTENDED_TOPIC, &to.destination);
        Ok(Box::new(Addressed {
            broker: destination.broker,
            message,
        }))
    });
    let copies = forwarding.copies.iter().map(|destination| {
        let mut message = encode_for(verified, parsed, destination, fingerprint)?;
        // One stream may take both: the copy must not count as a duplicate of the event itself.
        if let Some(id) = &mut message.deduplication_id {
            id.push_str("/copy/");
            id.push_str(&id_part(&message.destination));
        }
        Ok(Addressed {
            broker: destination.broker,
            message,
        })
    });
    Ok(Box::new(Delivery {
        copies: copies.collect::<Result<_, Refusal>>()?,
        fallback: fallback.transpose()?,
        fingerprint,
        to: Addressed {
            broker: forwarding.to.broker,
            message: to,
        },
    }))
}

fn encode_for(
    verified: &Verified,
    parsed: &Parsed<'_>,
    destination: &Destination,
    fingerprint: Option<Fingerprint>,
) -> Result<Message, Refusal> {
    let (source, event) = (verified.source(), parsed.event());
    let fill = Fill {
        event,
        source: &source.name,
        root: parsed.root(),
    };
    let topic = fill.topic(destination)?;
    let key = match &destination.key {
        Some(template) => fill.key(template)?,
        None => default_key(event).to_owned(),
    };
    let known = Known::of(event);
    let mut headers = event_headers(verified, &known, parsed.payload());
    push_partition_key(&mut headers, &known, &key);
    let id = match destination.kind {
        Kind::Nats => deduplication_id(source, parsed.names(), fingerprint),
        Kind::Kafka => None,
    };
    Ok(message(verified, parsed.payload(), topic, key, headers, id))
}

fn check_bounds(verified: &Verified, event: &Identity) -> Result<(), Refusal> {
    let values = [
        ("type", Some(&event.event_type), Identity::MAX_TYPE_BYTES),
        ("time", event.time.as_ref(), Identity::MAX_TIME_BYTES),
        (
            "subject",
            event.subject.as_ref(),
            Identity::MAX_SUBJECT_BYTES,
        ),
    ];
    for (name, value, most) in values {
        if value.is_some_and(|value| value.len() > most) {
            let reason = format!("has a {name} of more than {most} bytes");
            return Err(Refusal::invalid_event("", reason));
        }
    }
    if carried_bytes(verified, event.cloud_event.as_deref()) > MAX_FORWARDED_BYTES {
        let what = match event.cloud_event {
            Some(_) => "extensions and forwarded headers",
            None => "forwarded headers",
        };
        let reason = format!("has {what} of more than {MAX_FORWARDED_BYTES} bytes together");
        return Err(Refusal::invalid_event("", reason));
    }
    Ok(())
}

/// The total size of names and values carried over from the sender beyond the event's own attributes.
fn carried_bytes(verified: &Verified, cloud_event: Option<&CloudEvent>) -> usize {
    let extensions = cloud_event.map_or(&[][..], |event| &event.extensions);
    let extensions = extensions
        .iter()
        .map(|(name, value)| EXTENSION_FRAMING_BYTES + name.len() + value.len());
    extensions.sum::<usize>() + forwarded_bytes(verified)
}

/// The total size of names and values of the forwarded headers.
fn forwarded_bytes(verified: &Verified) -> usize {
    let headers = verified.request().headers();
    let names = verified.source().forward_headers.iter();
    names
        .flat_map(|name| {
            let values = headers.get_all(name).iter();
            values.map(move |value| name.as_str().len() + value.len())
        })
        .sum()
}

/// `source/id` or `source/id/hash`: the same for every delivery that counts as the same event, on every replica. None
/// without a fingerprint.
pub(super) fn deduplication_id(
    source: &Source,
    names: Names<'_>,
    fingerprint: Option<Fingerprint>,
) -> Option<String> {
    let fingerprint = fingerprint?;
    let id = id_part(names.id.as_str());
    // The hash covers the CloudEvent's source, which may be long.
    let is_hashed = source.dedup_by == DedupBy::IdAndBody || names.ce_source.is_some();
    Some(if is_hashed {
        [&source.name, "/", &id, "/", &fingerprint.to_hex()].concat()
    } else {
        [&source.name, "/", &id].concat()
    })
}

pub(super) fn message(
    verified: &Verified,
    payload: &[u8],
    destination: String,
    key: String,
    headers: Headers,
    deduplication_id: Option<String>,
) -> Message {
    Message {
        destination,
        key,
        headers,
        body: verified.request().body().slice_ref(payload),
        deduplication_id,
    }
}

/// The provider's default key: the subject, so that events about one thing stay in order, or else the event's id.
/// A subject that is too long for a key can only occur in a dead letter.
pub(super) fn default_key(event: &Identity) -> &str {
    let named = event.key.as_deref().or(event.subject.as_deref());
    named
        .filter(|key| key.len() <= MAX_KEY_BYTES)
        .unwrap_or(event.event_id.as_str())
}

/// The attributes of an event, as far as they are known.
pub(super) struct Known<'e> {
    pub(super) id: &'e EventId,
    pub(super) id_origin: IdOrigin,
    pub(super) event_type: Option<&'e str>,
    pub(super) time: Option<&'e str>,
    pub(super) subject: Option<&'e str>,
    pub(super) cloud_event: Option<&'e CloudEvent>,
}

impl<'e> Known<'e> {
    fn extension(&self, name: &str) -> Option<&'e str> {
        self.cloud_event?.extension(name)
    }

    pub(super) fn of(event: &'e Identity) -> Self {
        Self {
            id: &event.event_id,
            id_origin: event.id_origin,
            event_type: Some(&event.event_type),
            time: event.time.as_deref(),
            subject: event.subject.as_deref(),
            cloud_event: event.cloud_event.as_deref(),
        }
    }
}

/// `event_id` and CloudEvents 1.0 attributes in binary mode, as far as they are known, and the forwarded headers.
/// An event that already is a CloudEvent keeps its own attributes. Values beyond their limit are left out; only dead
/// letters can have them.
pub(super) fn event_headers(verified: &Verified, known: &Known<'_>, payload: &[u8]) -> Headers {
    let (source, request) = (verified.source(), verified.request());
    let mut headers = Headers::with_capacity(HEADERS, HEADER_BYTES);
    headers.push(EVENT_ID, known.id.as_str());
    headers.push(Attribute::SPEC_VERSION, "1.0");
    headers.push(Attribute::ID, known.id.as_str());
    let ce_source = known.cloud_event.map(|event| &event.source);
    headers.push(Attribute::SOURCE, ce_source.unwrap_or(&source.ce_source));
    let optional = [
        (Attribute::TYPE, known.event_type, Identity::MAX_TYPE_BYTES),
        (Attribute::TIME, known.time, Identity::MAX_TIME_BYTES),
        (
            Attribute::SUBJECT,
            known.subject,
            Identity::MAX_SUBJECT_BYTES,
        ),
    ];
    for (attribute, value, most) in optional {
        if let Some(value) = value.filter(|value| value.len() <= most) {
            headers.push(attribute, value);
        }
    }
    if known.extension("recordedtime").is_none() {
        headers.push(Attribute::RECORDED_TIME, rfc_3339(request.at()));
    }
    if let Some(content_type) = request.headers().get(CONTENT_TYPE_HEADER) {
        let is_element = payload.len() < request.body().len();
        push_content_type(&mut headers, content_type.as_bytes(), is_element);
    }
    if known.id_origin == IdOrigin::Generated {
        headers.push(EVENT_ID_ORIGIN, "generated");
    }
    if carried_bytes(verified, known.cloud_event) <= MAX_FORWARDED_BYTES {
        let extensions = known.cloud_event.map_or(&[][..], |event| &event.extensions);
        for (name, value) in extensions {
            headers.push(Attribute::named(name), value);
        }
        for name in &source.forward_headers {
            for value in request.headers().get_all(name) {
                let attribute = Attribute::Plain(name.as_str().to_owned().into());
                headers.push(attribute, value);
            }
        }
    }
    headers
}

/// The key, unless the event already has the attribute.
pub(super) fn push_partition_key(headers: &mut Headers, known: &Known<'_>, key: &str) {
    if known.extension("partitionkey").is_none() {
        headers.push(Attribute::PARTITION_KEY, key);
    }
}

/// The media type as sent. No signature covers it, so only the parameter that is known to be true of every body here is
/// kept: an attacker who repeats a request cannot turn it into a different message.
fn push_content_type(headers: &mut Headers, sent: &[u8], is_element: bool) {
    let mut parts = sent.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let media_type = match parts.next().unwrap_or_default() {
        batch if is_element && batch.eq_ignore_ascii_case(BATCH.as_bytes()) => {
            STRUCTURED.as_bytes()
        }
        media_type => media_type,
    };
    if media_type.is_empty() || media_type.len() > MAX_MEDIA_TYPE_BYTES {
        return;
    }
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(b"charset=".len())?;
        name.eq_ignore_ascii_case(b"charset=").then_some(value)
    });
    let is_utf_8 = charset.is_some_and(|value| {
        value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"\"utf-8\"")
    });
    let parameter: &[u8] = if is_utf_8 { b"; charset=utf-8" } else { b"" };
    headers.push_parts(CONTENT_TYPE, &[media_type, parameter]);
}

fn rfc_3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Fills in templates.
pub(super) struct Fill<'e, 'd> {
    pub(super) event: &'e Identity,
    pub(super) source: &'e str,
    pub(super) root: Option<Node<'d>>,
}

impl<'e, 'd> Fill<'e, 'd>
where
    'd: 'e,
{
    pub(super) fn topic(&self, destination: &Destination) -> Result<String, Refusal> {
        let mut topic =
            String::with_capacity(destination.topic.as_str().len() + self.event.event_type.len());
        let parts = destination.topic.parts();
        for (index, part) in parts.iter().enumerate() {
            let (value, pointer) = self.value(part)?;
            if !matches!(part, Part::Literal(_)) {
                let is_last = index + 1 == parts.len();
                destination
                    .kind
                    .check_value(&value, is_last)
                    .map_err(|rule| illegal(destination.kind, pointer, rule))?;
            }
            topic.push_str(&value);
        }
        destination
            .kind
            .check_destination(&topic)
            .map_err(|rule| illegal(destination.kind, "", rule))?;
        if destination
            .topics
            .as_ref()
            .is_some_and(|topics| !topics.contains(&topic))
        {
            return Err(illegal(
                destination.kind,
                "",
                "is not one of those that the route may send to",
            ));
        }
        Ok(topic)
    }

    pub(super) fn key(&self, template: &Template) -> Result<String, Refusal> {
        let mut key = String::new();
        for part in template.parts() {
            let (value, pointer) = self.value(part)?;
            if key.len() + value.len() > MAX_KEY_BYTES {
                return Err(Refusal::invalid_event(
                    pointer,
                    format!("makes a key of more than {MAX_KEY_BYTES} bytes"),
                ));
            }
            key.push_str(&value);
        }
        Ok(key)
    }

    /// A part's text, and the pointer to its origin.
    fn value<'t>(&self, part: &'t Part) -> Result<(Cow<'e, str>, &'t str), Refusal>
    where
        't: 'e,
    {
        match part {
            Part::Literal(text) => Ok((Cow::Borrowed(text.as_str()), "")),
            Part::Type => Ok((Cow::Borrowed(self.event.event_type.as_str()), "")),
            Part::Source => Ok((Cow::Borrowed(self.source), "")),
            Part::Pointer(pointer) => {
                let node = self.root.and_then(|root| root.at(pointer));
                let value = node.and_then(|node| node.scalar_text());
                let missing = || {
                    Refusal::invalid_event(
                        pointer.as_str(),
                        "must be a string, a number or a boolean, for the route needs it",
                    )
                };
                Ok((value.ok_or_else(missing)?, pointer.as_str()))
            }
        }
    }
}

fn illegal(kind: Kind, pointer: &str, rule: &str) -> Refusal {
    Refusal::invalid_event(
        pointer,
        format!("makes an illegal {}: it {rule}", kind.destination_noun()),
    )
}
