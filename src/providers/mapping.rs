//! Finds the events of an authentic request, and their ids, types, times, subjects and keys.

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::cloudevents::{self, Mode};
use super::request::{Ambiguous, Form, Scope};
use super::text::{Choice, Text};
use crate::event::{EventId, IdOrigin, Identity, Refusal, Unidentified};
use crate::json::{Document, Node, NodeKind, Pointer, is_date_time};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// One JSON value.
    Json,
    /// A form or JSON, depending on the content type.
    Form,
    /// One JSON value per line.
    Lines,
    /// Arbitrary bytes.
    Raw,
    /// A CloudEvent in any mode.
    CloudEvent,
}

/// The unit of an event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// RFC 3339, or the same without an offset, which then is UTC.
    Text,
    /// Unix seconds, possibly with a fraction.
    Seconds,
    /// Unix milliseconds.
    Milliseconds,
}

/// Reads an event that data cannot describe.
pub type Hook = fn(Node<'_>) -> Result<Identity, Unidentified>;

/// The event mapping of a source.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub body: BodyKind,
    /// Whether structured and batched CloudEvents are recognized in addition.
    pub takes_cloud_events: bool,
    /// The form field that holds JSON.
    pub form_field: Option<String>,
    /// The array whose elements are events.
    pub split: Option<Split>,
    /// The event's id.
    pub id: Choice,
    /// The event's type.
    pub event_type: Choice,
    /// The event's time.
    pub time: Choice,
    pub time_unit: TimeUnit,
    /// The event's subject.
    pub subject: Choice,
    /// The key, unless the route has one.
    pub key: Choice,
    /// The types that bound the metrics' label.
    pub types: Vec<String>,
    /// Whether the list of types is complete, so that a route for any other is probably a mistake.
    pub types_are_all: bool,
    /// Replaces the templates.
    pub hook: Option<Hook>,
}

/// The location of a batch's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// The body is the array.
    Root,
    /// The array at this pointer.
    At(Pointer),
}

/// A body, decoded according to its content type.
#[derive(Debug)]
pub enum Content<'b> {
    /// One JSON text.
    Json(&'b [u8]),
    /// One JSON text per line.
    Lines(&'b [u8]),
    /// A form, and the field that may hold JSON.
    Form(Form<'b>, Option<&'b str>),
    /// A CloudEvent, and the JSON in the body.
    CloudEvent(Mode, Option<&'b [u8]>),
    /// Arbitrary bytes.
    Raw,
}

impl<'b> Content<'b> {
    /// The body as a form, if it is one.
    #[must_use]
    pub fn form(&self) -> Option<&Form<'b>> {
        match self {
            Self::Form(form, _) => Some(form),
            _ => None,
        }
    }

    /// The JSON text: the body, or the form field that holds one.
    ///
    /// # Errors
    /// [`Ambiguous`] where that field occurs twice.
    pub fn json(&self) -> Result<Option<&[u8]>, Ambiguous> {
        Ok(match self {
            Self::Json(text) | Self::CloudEvent(_, Some(text)) => Some(text),
            Self::Form(form, Some(field)) => form.get(field)?.map(str::as_bytes),
            Self::Form(_, None) | Self::CloudEvent(_, None) | Self::Lines(_) | Self::Raw => None,
        })
    }

    /// The mode of a CloudEvent.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        match self {
            Self::CloudEvent(mode, _) => Some(*mode),
            _ => None,
        }
    }
}

fn is_json(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase();
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

/// The JSON texts of a body with one per line.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty())
}

impl Mapping {
    /// Decodes a body according to its content type. No JSON is parsed yet.
    ///
    /// # Errors
    /// A form that is JSON or has too many fields, or a CloudEvent in a format other than JSON.
    pub fn content<'b>(&'b self, media_type: &str, body: &'b [u8]) -> Result<Content<'b>, Refusal> {
        if let Some(mode) = self.mode(media_type)? {
            let has_json = mode != Mode::Binary || is_json(media_type) && !body.is_empty();
            return Ok(Content::CloudEvent(mode, has_json.then_some(body)));
        }
        let is_form = media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        if is_form && self.takes_forms() {
            // Nobody signs the content type, so it must not turn signed JSON into a form with fields from its texts. Encoders
            // escape these bytes.
            if let Some(b'{' | b'[' | b'"') = body.trim_ascii_start().first() {
                return Err(Refusal::InvalidJson(
                    "the body is JSON, but its content type is that of a form".to_owned(),
                ));
            }
            let form = Form::parse(body)
                .ok_or_else(|| Refusal::invalid_event("", "has more than 1000 form fields"))?;
            return Ok(Content::Form(form, self.form_field.as_deref()));
        }
        Ok(match self.body {
            BodyKind::Json | BodyKind::Form => Content::Json(body),
            BodyKind::Lines => Content::Lines(body),
            BodyKind::Raw | BodyKind::CloudEvent => Content::Raw,
        })
    }

    /// The mode of the CloudEvent in a request with this media type; `None` if it is not a CloudEvent.
    ///
    /// # Errors
    /// A CloudEvent in a format other than JSON.
    pub fn mode(&self, media_type: &str) -> Result<Option<Mode>, Refusal> {
        let is_any = self.body == BodyKind::CloudEvent;
        if !is_any && !self.takes_cloud_events {
            return Ok(None);
        }
        match Mode::of(media_type) {
            Some(Mode::Binary) if !is_any => Ok(None),
            Some(mode) => Ok(Some(mode)),
            None => Err(Refusal::UnsupportedMediaType(
                "of the event formats of CloudEvents only JSON is accepted".into(),
            )),
        }
    }

    /// Whether a form is read as such.
    #[must_use]
    pub fn takes_forms(&self) -> bool {
        match self.body {
            BodyKind::Form => true,
            BodyKind::Json => self.form_field.is_some(),
            BodyKind::Lines | BodyKind::Raw | BodyKind::CloudEvent => false,
        }
    }

    /// Whether JSON is read, unless it is one text per line.
    #[must_use]
    pub fn takes_json(&self) -> bool {
        !matches!(self.body, BodyKind::Lines | BodyKind::Raw)
    }

    /// Whether a request may hold several events.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.split.is_some() || self.body == BodyKind::Lines
    }

    /// The events of a CloudEvents batch, which may be empty.
    ///
    /// # Errors
    /// It is not an array.
    pub fn cloud_events<'d>(document: &'d Document<'_>) -> Result<Vec<Node<'d>>, Refusal> {
        let root = document.root();
        if root.kind() != NodeKind::Array {
            return Err(Refusal::invalid_event("", "must be an array of events"));
        }
        Ok(root.elements().collect())
    }

    /// The elements of a batch.
    ///
    /// # Errors
    /// There is no array of objects at the configured place.
    pub fn elements<'d>(&self, document: &'d Document<'_>) -> Result<Vec<Node<'d>>, Refusal> {
        let root = document.root();
        let (array, pointer) = match &self.split {
            None | Some(Split::Root) => (Some(root), ""),
            Some(Split::At(pointer)) => (root.at(pointer), pointer.as_str()),
        };
        let Some(array) = array.filter(|array| array.kind() == NodeKind::Array) else {
            return Err(Refusal::invalid_event(
                pointer,
                "must be an array of events",
            ));
        };
        if array.is_empty() {
            return Err(Refusal::invalid_event(
                pointer,
                "must hold at least one event",
            ));
        }
        let is_object = |node: &Node<'_>| node.kind() == NodeKind::Object;
        match array.elements().position(|node| !is_object(&node)) {
            Some(index) => Err(Refusal::invalid_event(
                format!("{pointer}/{index}"),
                "must be an object",
            )),
            None => Ok(array.elements().collect()),
        }
    }

    /// The pointer to an element of a batch.
    #[must_use]
    pub fn pointer_to(&self, index: usize) -> String {
        match &self.split {
            None | Some(Split::Root) => format!("/{index}"),
            Some(Split::At(pointer)) => format!("{}/{index}", pointer.as_str()),
        }
    }

    /// The identity of one event.
    ///
    /// # Errors
    /// The fault, and the attributes of the event that are known nevertheless.
    pub fn identify(&self, scope: &Scope<'_>) -> Result<Identity, Unidentified> {
        if let (Some(hook), Some(node)) = (self.hook, scope.node) {
            return hook(node);
        }
        match (scope.mode, scope.node) {
            (None, _) => {}
            (Some(Mode::Binary), _) => return cloudevents::binary(scope.request.headers),
            (Some(_), Some(node)) => return cloudevents::structured(node),
            (Some(_), None) => return Err(Refusal::invalid_event("", "must be an object").into()),
        }
        let id = self.id.fill(scope).map_err(duplicate_name)?;
        let Some((id, template)) = id else {
            return Err(Refusal::MissingEventId.into());
        };
        let id_origin = origin(template);
        let event_id = EventId::new(id).ok_or_else(|| invalid_id(template))?;
        let unidentified = |refusal, event_type| Unidentified {
            refusal,
            event_id: Some(event_id.clone()),
            event_type,
            time: self.time(scope).ok().flatten(),
        };
        let event_type = self
            .event_type
            .fill(scope)
            .map_err(duplicate_name)
            .and_then(|found| found.ok_or(Refusal::MissingEventType))
            .and_then(|(text, template)| bounded(text, template, "type", Identity::MAX_TYPE_BYTES))
            .map_err(|refusal| unidentified(refusal, None))?;
        let read = || {
            let optional = |choice: &Choice, what, max_bytes| match choice.fill(scope) {
                Err(ambiguous) => Err(duplicate_name(ambiguous)),
                Ok(None) => Ok(None),
                Ok(Some((text, template))) => bounded(text, template, what, max_bytes).map(Some),
            };
            Ok((
                self.time(scope).map_err(duplicate_name)?,
                optional(&self.subject, "subject", Identity::MAX_SUBJECT_BYTES)?,
                optional(&self.key, "key", Identity::MAX_KEY_BYTES)?,
            ))
        };
        match read() {
            Ok((time, subject, key)) => Ok(Identity {
                event_id,
                id_origin,
                event_type,
                time,
                subject,
                key,
                cloud_event: None,
            }),
            Err(refusal) => Err(unidentified(refusal, Some(event_type))),
        }
    }

    /// The event's time in RFC 3339. An invalid time is omitted: it would only be copied into a header.
    fn time(&self, scope: &Scope<'_>) -> Result<Option<String>, Ambiguous> {
        let found = self.time.fill(scope)?;
        Ok(found.and_then(|(text, _)| rfc3339(&text, self.time_unit)))
    }
}

fn origin(template: &Text) -> IdOrigin {
    if template.is_random() || template.is_digest() {
        IdOrigin::Generated
    } else {
        IdOrigin::Provider
    }
}

#[cold]
fn duplicate_name(_: Ambiguous) -> Refusal {
    Refusal::invalid_event("", "has a header or form field twice that the bridge reads")
}

#[cold]
fn invalid_id(template: &Text) -> Unidentified {
    let pointer = template.pointer().unwrap_or_default().to_owned();
    Refusal::invalid_event(
        pointer,
        "must be an id of 1 to 256 bytes without control characters",
    )
    .into()
}

fn bounded(text: String, template: &Text, what: &str, max_bytes: usize) -> Result<String, Refusal> {
    let pointer = || template.pointer().unwrap_or_default().to_owned();
    if text.len() > max_bytes {
        return Err(Refusal::invalid_event(
            pointer(),
            format!("is longer than the {max_bytes} bytes that a {what} may have"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid_event(
            pointer(),
            format!("has control characters, which a {what} may not have"),
        ));
    }
    Ok(text)
}

/// Converts a provider's time to RFC 3339.
fn rfc3339(text: &str, unit: TimeUnit) -> Option<String> {
    let from_unix = |nanoseconds: i128| {
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?;
        time.format(&Rfc3339).ok()
    };
    match unit {
        TimeUnit::Text if is_date_time(text) => Some(text.to_owned()),
        TimeUnit::Text => without_offset(text),
        TimeUnit::Seconds => from_unix(decimal(text, 9)?),
        TimeUnit::Milliseconds => from_unix(decimal(text, 6)?),
    }
}

/// `2026-08-01T07:59:58` and `2026-08-01 07:59:58 UTC`, as some providers write it.
fn without_offset(text: &str) -> Option<String> {
    let bare = text
        .strip_suffix(" UTC")
        .unwrap_or(text)
        .replacen(' ', "T", 1);
    let candidate = format!("{bare}Z");
    let parsed = PrimitiveDateTime::parse(&candidate, &Rfc3339).is_ok();
    parsed.then_some(candidate)
}

/// Parses a decimal number, possibly with a fraction, and multiplies it by a power of ten; further digits are dropped.
fn decimal(text: &str, power: usize) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 15 || !is_decimal(whole) || !is_decimal(fraction) {
        return None;
    }
    let fraction: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(power)
        .collect();
    format!("{whole}{fraction}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_rfc_3339_or_nothing() {
        for (text, unit, expected) in [
            (
                "1795132798",
                TimeUnit::Seconds,
                Some("2026-11-19T23:59:58Z"),
            ),
            (
                "1795132798.5",
                TimeUnit::Seconds,
                Some("2026-11-19T23:59:58.5Z"),
            ),
            (
                "1795132798000",
                TimeUnit::Milliseconds,
                Some("2026-11-19T23:59:58Z"),
            ),
            (
                "2026-08-01 07:59:58 UTC",
                TimeUnit::Text,
                Some("2026-08-01T07:59:58Z"),
            ),
            (
                "2026-08-01T07:59:58+02:00",
                TimeUnit::Text,
                Some("2026-08-01T07:59:58+02:00"),
            ),
            ("soon", TimeUnit::Text, None),
            ("-1", TimeUnit::Seconds, None),
            ("1e9", TimeUnit::Seconds, None),
            ("9999999999999999", TimeUnit::Seconds, None),
        ] {
            assert_eq!(rfc3339(text, unit).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_trimmed_and_empty_ones_are_skipped() {
        let found: Vec<_> = lines(b"{}\r\n\n [1] \n").collect();
        assert_eq!(found, [b"{}".as_slice(), b"[1]"]);
        assert_eq!(lines(b" \n").count(), 0);
    }
}
