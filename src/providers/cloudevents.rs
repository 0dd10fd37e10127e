//! CloudEvents 1.0 over HTTP (`cloudevents/spec`, `bindings/http-protocol-binding.md` and `formats/json-format.md`):
//! the mode of a request, and the attributes of an event.

use http::HeaderMap;
use percent_encoding::percent_decode;

use crate::event::{
    CloudEvent, EventId, IdOrigin, Identity, Refusal, Unidentified, is_attribute_name,
};
use crate::json::{Node, NodeKind, is_date_time};
use crate::printable::printable;

/// The part of a request that holds the event. Only `Content-Type` determines it, regardless of `ce-` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The body is the event.
    Structured,
    /// The body is an array of events.
    Batch,
    /// The attributes are headers, the body is the data.
    Binary,
}

/// The media type of an event in JSON, and of an element of a batch.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a batch in JSON.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// The prefix of the media types of all event formats.
const FAMILY: &str = "application/cloudevents";

/// The prefix of headers with attributes.
const PREFIX: &str = "ce-";
const VERSION: &str = "1.0";
/// The extension that determines which events stay in order.
const PARTITION_KEY: &str = "partitionkey";

impl Mode {
    /// The mode of a media type without parameters; `None` if its event format is not JSON.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        if media_type.eq_ignore_ascii_case(STRUCTURED) {
            return Some(Self::Structured);
        }
        if media_type.eq_ignore_ascii_case(BATCH) {
            return Some(Self::Batch);
        }
        let start = media_type.get(..FAMILY.len());
        let is_event = start.is_some_and(|start| start.eq_ignore_ascii_case(FAMILY));
        (!is_event).then_some(Self::Binary)
    }
}

/// The identity of an event in JSON.
///
/// # Errors
/// The fault, and the attributes of the event that are known nevertheless.
pub fn structured(event: Node<'_>) -> Result<Identity, Unidentified> {
    if event.kind() != NodeKind::Object {
        return Err(Refusal::invalid_event("", "must be an object").into());
    }
    // Every member is read.
    event.note_repeated_name(|_| true);
    let mut attributes = Attributes::new(Place::Members);
    let mut has_data = false;
    for (name, value) in event.members() {
        if value.is_null() {
            continue;
        }
        match &*name {
            "data" | "data_base64" => {
                if has_data {
                    attributes.fail("data_base64", "conflicts with data");
                }
                has_data = true;
                if name == "data_base64" && value.kind() != NodeKind::String {
                    attributes.fail(&name, "must be a string");
                }
            }
            // The media type of the message is that of the event.
            "datacontenttype" => {
                if value.kind() != NodeKind::String {
                    attributes.fail(&name, "must be a string");
                }
            }
            _ => match text_of(&name, value) {
                Ok(text) => attributes.set(&name, text),
                Err(rule) => attributes.fail(&name, rule),
            },
        }
    }
    attributes.identify()
}

/// An attribute's text: core attributes are strings, extensions may be booleans and integers.
fn text_of(name: &str, value: Node<'_>) -> Result<String, &'static str> {
    let is_core = [
        "specversion",
        "id",
        "source",
        "type",
        "time",
        "subject",
        "dataschema",
    ]
    .contains(&name);
    match (value.kind(), value.scalar_text()) {
        (NodeKind::String, Some(text)) => Ok(text.into_owned()),
        _ if is_core => Err("must be a string"),
        (NodeKind::True | NodeKind::False, Some(text)) => Ok(text.into_owned()),
        (NodeKind::Number, Some(text)) if is_integer(&text) => Ok(text.into_owned()),
        _ => Err("must be a string, a boolean or an integer of 32 bits"),
    }
}

/// Whether a number is a 32-bit integer in canonical form.
fn is_integer(text: &str) -> bool {
    let number = text.parse::<i32>();
    number.is_ok_and(|number| number.to_string() == text)
}

/// The identity of an event whose attributes are headers.
///
/// # Errors
/// As [`structured`].
pub fn binary(headers: &HeaderMap) -> Result<Identity, Unidentified> {
    let mut attributes = Attributes::new(Place::Headers);
    for header in headers.keys() {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        let mut lines = headers.get_all(header).iter();
        match (lines.next(), lines.next()) {
            _ if name == "datacontenttype" => {
                attributes.fail(name, "must not be present: Content-Type replaces it");
            }
            (_, Some(_)) => attributes.fail(name, "must not be repeated"),
            (Some(value), None) => match decode(value.as_bytes()) {
                Some(text) => attributes.set(name, text),
                None => attributes.fail(name, "must be UTF-8, percent-encoded"),
            },
            (None, None) => {}
        }
    }
    attributes.identify()
}

/// Decodes a header as an attribute: without the double quotes of older senders, and percent-decoded once.
fn decode(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let unquoted = quoted.map(|inner| {
        let mut text = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            text.extend(if *byte == b'\\' {
                bytes.next()
            } else {
                Some(byte)
            });
        }
        text
    });
    let decoded = percent_decode(unquoted.as_deref().unwrap_or(value)).decode_utf8();
    decoded.ok().map(std::borrow::Cow::into_owned)
}

/// The location of the attributes, for error messages.
#[derive(Debug, Clone, Copy)]
enum Place {
    Members,
    Headers,
}

impl Place {
    fn refuse(self, name: &str, rule: &str) -> Refusal {
        match self {
            _ if !is_attribute_name(name) && name != "data_base64" => {
                let name: String = name.chars().take(64).collect();
                Refusal::invalid_event(
                    "",
                    format!("has an attribute \"{}\", which {rule}", printable(&name)),
                )
            }
            Self::Members => Refusal::invalid_event(format!("/{name}"), rule),
            Self::Headers => {
                Refusal::invalid_event("", format!("has a header {PREFIX}{name}, which {rule}"))
            }
        }
    }
}

/// The attributes read so far, and the first fault.
#[derive(Debug)]
struct Attributes {
    place: Place,
    fault: Option<Refusal>,
    version: Option<String>,
    id: Option<String>,
    event_type: Option<String>,
    source: Option<String>,
    time: Option<String>,
    subject: Option<String>,
    extensions: Vec<(Box<str>, String)>,
}

impl Attributes {
    fn new(place: Place) -> Self {
        Self {
            place,
            fault: None,
            version: None,
            id: None,
            event_type: None,
            source: None,
            time: None,
            subject: None,
            extensions: Vec::new(),
        }
    }

    fn fail(&mut self, name: &str, rule: &str) {
        let place = self.place;
        self.fault.get_or_insert_with(|| place.refuse(name, rule));
    }

    fn set(&mut self, name: &str, text: String) {
        let (attribute, most) = match name {
            "specversion" => (&mut self.version, usize::MAX),
            "id" => (&mut self.id, usize::MAX),
            "type" => (&mut self.event_type, Identity::MAX_TYPE_BYTES),
            "source" => (&mut self.source, Identity::MAX_SOURCE_BYTES),
            "time" => (&mut self.time, Identity::MAX_TIME_BYTES),
            "subject" => (&mut self.subject, Identity::MAX_SUBJECT_BYTES),
            _ => return self.set_extension(name, text),
        };
        let rule = match name {
            // Their own checks report a fault.
            "specversion" | "id" => None,
            "type" if text.is_empty() => None,
            "time" if !is_date_time(&text) => Some("must be an RFC 3339 time".to_owned()),
            "source" if text.chars().any(char::is_whitespace) => {
                Some("must be a URI reference".to_owned())
            }
            _ if text.is_empty() => Some("must not be empty".to_owned()),
            _ if text.chars().any(char::is_control) => {
                Some("must not have control characters".to_owned())
            }
            _ if text.len() > most => Some(format!("must not be longer than {most} bytes")),
            _ => None,
        };
        match rule {
            None => *attribute = Some(text),
            Some(rule) => self.fail(name, &rule),
        }
    }

    fn set_extension(&mut self, name: &str, text: String) {
        let must_be_said = [PARTITION_KEY, "dataschema"].contains(&name);
        if !is_attribute_name(name) {
            self.fail(name, "must have a name of lower-case letters and digits");
        } else if name == "data" {
            self.fail(name, "must not be an attribute");
        } else if must_be_said && text.is_empty() {
            self.fail(name, "must not be empty");
        } else if text.chars().any(char::is_control) {
            self.fail(name, "must not have control characters");
        } else if name == PARTITION_KEY && text.len() > Identity::MAX_KEY_BYTES {
            self.fail(name, "must not be longer than 1024 bytes");
        } else {
            self.extensions.push((name.into(), text));
        }
    }

    fn identify(mut self) -> Result<Identity, Unidentified> {
        let place = self.place;
        let id = self.id.take().filter(|id| !id.is_empty());
        let event_type = self.event_type.take().filter(|name| !name.is_empty());
        let id = match id.map(EventId::new) {
            None => Err(Refusal::MissingEventId),
            Some(None) => {
                Err(place.refuse("id", "must be 1 to 256 bytes without control characters"))
            }
            Some(Some(id)) => Ok(id),
        };
        let refusal = self.refusal(id.as_ref().err(), event_type.is_none());
        let (id, event_type, source) = match (refusal, id, event_type, self.source) {
            (None, Ok(id), Some(event_type), Some(source)) => (id, event_type, source),
            (refusal, id, event_type, source) => {
                let missing = || match source {
                    None => place.refuse("source", "must be present"),
                    Some(_) => Refusal::MissingEventType,
                };
                return Err(Unidentified {
                    refusal: refusal.unwrap_or_else(missing),
                    event_id: id.ok(),
                    event_type,
                    time: self.time,
                });
            }
        };
        let cloud_event = CloudEvent {
            source,
            extensions: self.extensions,
        };
        let key = match cloud_event.extension(PARTITION_KEY) {
            Some(key) => Some(key.to_owned()),
            None if self.subject.is_some() => None,
            None => Some(format!("{}/{id}", cloud_event.source))
                .filter(|key| key.len() <= Identity::MAX_KEY_BYTES),
        };
        Ok(Identity {
            event_id: id,
            id_origin: IdOrigin::Provider,
            event_type,
            time: self.time,
            subject: self.subject,
            key,
            cloud_event: Some(Box::new(cloud_event)),
        })
    }

    /// The fault of the event. Another version may have other rules, so the version is checked first.
    fn refusal(&mut self, of_id: Option<&Refusal>, is_typeless: bool) -> Option<Refusal> {
        let version = match self.version.as_deref() {
            Some(VERSION) => None,
            Some(_) => Some(self.place.refuse("specversion", "must be 1.0")),
            None => Some(match self.place {
                Place::Members => self.place.refuse("specversion", "must be present"),
                Place::Headers => Refusal::invalid_event(
                    "",
                    "is not a CloudEvent: it has neither the header ce-specversion nor the content type application/cloudevents+json",
                ),
            }),
        };
        version
            .or_else(|| self.fault.take())
            .or_else(|| of_id.cloned())
            .or_else(|| is_typeless.then_some(Refusal::MissingEventType))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;
    use http::{HeaderName, HeaderValue};

    fn read(event: &str) -> Result<Identity, Unidentified> {
        structured(Document::parse(event.as_bytes()).unwrap().root())
    }

    fn code_of(read: Result<Identity, Unidentified>) -> &'static str {
        read.map_or_else(|unidentified| unidentified.refusal.code(), |_| "taken")
    }

    #[test]
    fn only_events_in_json_that_conform_to_the_specification_are_accepted() {
        let with = |more: &str| {
            read(&format!(
                r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{more}}}"#
            ))
        };
        for (more, code) in [
            ("", "taken"),
            (
                r#","subject":null,"time":null,"data":null,"x":null"#,
                "taken",
            ),
            (
                r#","time":"2026-08-01T07:59:58.12+02:00","n":-7,"b":true"#,
                "taken",
            ),
            (r#","data_base64":"AAE=""#, "taken"),
            (r#","data_base64":1"#, "invalid_event"),
            (r#","data":1,"data_base64":"AAE=""#, "invalid_event"),
            (r#","time":"yesterday""#, "invalid_event"),
            (r#","subject":"""#, "invalid_event"),
            (r#","partitionkey":"""#, "invalid_event"),
            (r#","partitionKey":"k""#, "invalid_event"),
            (r#","n":2147483648"#, "invalid_event"),
            (r#","n":1.0"#, "invalid_event"),
            (r#","n":-0"#, "invalid_event"),
            (r#","x":{}"#, "invalid_event"),
            (r#","x":"a\nb""#, "invalid_event"),
            (r#","datacontenttype":1"#, "invalid_event"),
        ] {
            assert_eq!(code_of(with(more)), code, "{more}");
        }
        for (event, code) in [
            ("[]", "invalid_event"),
            (r#"{"id":"1","source":"/s","type":"t"}"#, "invalid_event"),
            (r#"{"specversion":"0.3","source":"/s"}"#, "invalid_event"),
            (
                r#"{"specversion":"1.0","source":"/s","type":"t"}"#,
                "missing_event_id",
            ),
            (
                r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
                "missing_event_id",
            ),
            (
                r#"{"specversion":"1.0","id":7,"source":"/s","type":"t"}"#,
                "invalid_event",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s"}"#,
                "missing_event_type",
            ),
            (
                r#"{"specversion":"1.0","id":"1","type":"t"}"#,
                "invalid_event",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"a b","type":"t"}"#,
                "invalid_event",
            ),
        ] {
            assert_eq!(code_of(read(event)), code, "{event}");
        }
        // A dead letter has the known attributes.
        let known = with(r#","x":[]"#).unwrap_err();
        assert!(known.event_id.is_some() && known.event_type.is_some());
    }

    #[test]
    fn a_repeated_name_is_ambiguous() {
        let document = Document::parse(br#"{"specversion":"1.0","x":"a","x":"b"}"#).unwrap();
        drop(structured(document.root()));
        assert_eq!(document.ambiguous_name().as_deref(), Some("x"));
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn attributes_in_headers_are_unquoted_and_percent_decoded_once() {
        for (value, decoded) in [
            (
                "Euro%20%E2%82%AC%20%F0%9F%98%80",
                Some("Euro \u{20ac} \u{1f600}"),
            ),
            ("\"a \\\"b\\\" c\"", Some("a \"b\" c")),
            ("a\"b", Some("a\"b")),
            ("100%2525", Some("100%25")),
            ("100%", Some("100%")),
            ("a%C0%A0b", None),
        ] {
            assert_eq!(decode(value.as_bytes()).as_deref(), decoded, "{value}");
        }
        let core = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
        ];
        let with = |more: &[(&'static str, &str)]| binary(&headers(&[&core, more].concat()));
        for (more, code) in [
            (&[][..], "taken"),
            (&[("ce-id", "2")], "invalid_event"),
            (&[("ce-datacontenttype", "text/plain")], "invalid_event"),
            (&[("ce-trace-id", "1")], "invalid_event"),
            (&[("ce-data", "1")], "invalid_event"),
            (&[("ce-x", "%0D%0A")], "invalid_event"),
        ] {
            assert_eq!(code_of(with(more)), code, "{more:?}");
        }
        let keyed = |more: &[(&'static str, &str)]| with(more).unwrap().key;
        assert_eq!(
            keyed(&[("ce-partitionkey", "k"), ("ce-subject", "o")]).as_deref(),
            Some("k")
        );
        assert_eq!(keyed(&[("ce-subject", "o")]), None);
        assert_eq!(keyed(&[]).as_deref(), Some("/s/1"));
        assert_eq!(code_of(binary(&headers(&[]))), "invalid_event");
    }

    #[test]
    fn the_media_type_alone_determines_the_mode() {
        for (media_type, mode) in [
            ("Application/CloudEvents+JSON", Some(Mode::Structured)),
            ("application/cloudevents-batch+json", Some(Mode::Batch)),
            ("application/cloudevents+avro", None),
            ("application/cloudevents", None),
            ("application/json", Some(Mode::Binary)),
            ("", Some(Mode::Binary)),
        ] {
            assert_eq!(Mode::of(media_type), mode, "{media_type}");
        }
    }
}
