//! Id, type, time and subject of an event, in both of its shapes and both of protobuf JSON's spellings.
//!
//! Nested (the default): the payload is in a member named after its type, `{"issue_created": {"issue": {…}}}`. Flat: it
//! is in `issue`, `incident` or `ping`, and `event_type` has the type. The schema validates everything that is not
//! needed here.

use crate::event::{EventId, IdOrigin, Identity, Refusal, Unidentified};
use crate::json::{Node, NodeKind, is_date_time};

/// A field's name in both of protobuf JSON's spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    snake: &'static str,
    camel: &'static str,
}

const fn name(snake: &'static str, camel: &'static str) -> Name {
    Name { snake, camel }
}

const EVENT_ID: Name = name("event_id", "eventId");
const EVENT_TIME: Name = name("event_time", "eventTime");
const EVENT_TYPE: Name = name("event_type", "eventType");
const PING: Name = name("ping", "ping");
const ISSUE: Name = name("issue", "issue");
const ISSUE_ID: Name = name("issue_id", "issueId");
const INCIDENT: Name = name("incident", "incident");
const INCIDENT_ID: Name = name("incident_id", "incidentId");

/// A type that the provider sends.
#[derive(Debug)]
struct EventType {
    /// Its number in `event.proto`.
    number: u32,
    /// Its name, which is also its payload's field in the nested shape.
    nested: Name,
    /// Its payload's field in the flat shape; in the nested one, the field in the payload.
    flat: Name,
    /// The field in it that has the subject.
    subject: Option<Name>,
}

const fn of_issue(number: u32, nested: Name) -> EventType {
    EventType {
        number,
        nested,
        flat: ISSUE,
        subject: Some(ISSUE_ID),
    }
}

const fn of_incident(number: u32, nested: Name) -> EventType {
    EventType {
        number,
        nested,
        flat: INCIDENT,
        subject: Some(INCIDENT_ID),
    }
}

const EVENT_TYPES: [EventType; 8] = [
    EventType {
        number: 10,
        nested: PING,
        flat: PING,
        subject: None,
    },
    of_issue(11, name("issue_created", "issueCreated")),
    of_issue(12, name("issue_updated", "issueUpdated")),
    of_issue(13, name("issue_status_updated", "issueStatusUpdated")),
    of_issue(14, name("issue_closed", "issueClosed")),
    of_incident(20, name("incident_open", "incidentOpen")),
    of_incident(21, name("incident_closed", "incidentClosed")),
    of_incident(22, name("incident_cancelled", "incidentCancelled")),
];

/// The maximum length of a type in bytes.
const MAX_TYPE_BYTES: usize = 128;

/// Reads the identity of an authentic event.
///
/// # Errors
/// The refusal of an event without a valid one.
pub fn identify(root: Node<'_>) -> Result<Identity, Unidentified> {
    if root.kind() != NodeKind::Object {
        return Err(Refusal::invalid_event("", "must be an object").into());
    }
    let event_id = event_id(root)?;
    let with_id = |refusal| Unidentified {
        refusal,
        event_id: Some(event_id.clone()),
        event_type: None,
        time: time(root).ok().flatten(),
    };
    let payloads = payloads(root).map_err(with_id)?;
    let sent = sent_type(root).map_err(with_id)?;
    let event_type = sent.or_else(|| nested_type(&payloads).map(str::to_owned));
    let event_type = event_type
        .ok_or(Refusal::MissingEventType)
        .map_err(with_id)?;
    match subject_of(root, &event_type, &payloads).and_then(|subject| Ok((subject, time(root)?))) {
        Ok((subject, time)) => Ok(Identity {
            event_id,
            id_origin: IdOrigin::Provider,
            event_type,
            time,
            subject,
            key: None,
            cloud_event: None,
        }),
        Err(refusal) => Err(Unidentified {
            refusal,
            event_id: Some(event_id),
            event_type: Some(event_type),
            time: time(root).ok().flatten(),
        }),
    }
}

/// The subject of the event; the payload of a known type must be there.
fn subject_of(
    root: Node<'_>,
    event_type: &str,
    payloads: &[Field<'_>],
) -> Result<Option<String>, Refusal> {
    match EVENT_TYPES
        .iter()
        .find(|known| known.nested.snake == event_type)
    {
        Some(known) => subject(root, known, payload_of(root, known, payloads)?),
        // A later version's type, with an unknown payload.
        None => Ok(None),
    }
}

fn event_id(root: Node<'_>) -> Result<EventId, Refusal> {
    let Some(field) = Field::find(root, FieldPath::default(), EVENT_ID)? else {
        return Err(Refusal::MissingEventId);
    };
    let text = field.text()?;
    if text.is_empty() {
        return Err(Refusal::MissingEventId);
    }
    EventId::new(text)
        .ok_or_else(|| field.refuse("must be 1 to 256 bytes without control characters"))
}

fn time(root: Node<'_>) -> Result<Option<String>, Refusal> {
    let Some(field) = Field::find(root, FieldPath::default(), EVENT_TIME)? else {
        return Ok(None);
    };
    let text = field.text()?;
    if is_date_time(&text) {
        Ok(Some(text))
    } else {
        Err(field.refuse("must be an RFC 3339 time"))
    }
}

/// The type in `event_type`; `None` if it is absent or unspecified.
fn sent_type(root: Node<'_>) -> Result<Option<String>, Refusal> {
    let Some(field) = Field::find(root, FieldPath::default(), EVENT_TYPE)? else {
        return Ok(None);
    };
    match field.value.kind() {
        NodeKind::String => {
            let text = field.value.as_str().unwrap_or_default();
            let name = text.strip_prefix("EVENT_TYPE_").filter(|name| {
                let is_name = name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
                is_name && !name.is_empty() && name.len() <= MAX_TYPE_BYTES
            });
            match name {
                Some("UNSPECIFIED") => Ok(None),
                Some(name) => Ok(Some(name.to_ascii_lowercase())),
                None => Err(field.refuse("must be EVENT_TYPE_ and a name in capital letters")),
            }
        }
        NodeKind::Number => {
            let number = enum_number(field.value.raw())
                .ok_or_else(|| field.refuse("must be an enum's number"))?;
            Ok(
                match (
                    number,
                    EVENT_TYPES.iter().find(|known| known.number == number),
                ) {
                    (0, _) => None,
                    (_, Some(known)) => Some(known.nested.snake.to_owned()),
                    (_, None) => Some(format!("event_type_{number}")),
                },
            )
        }
        NodeKind::Null
        | NodeKind::False
        | NodeKind::True
        | NodeKind::Array
        | NodeKind::Object
        | NodeKind::Name => Err(field.refuse("must be an enum's name or number")),
    }
}

/// An enum's number: a 32-bit integer, which protobuf JSON may also write as `11.0` or `1.1e1`.
fn enum_number(token: &str) -> Option<u32> {
    let number = token.parse::<u32>().ok();
    number.or_else(|| {
        let double = token.parse::<f64>().ok()?;
        let is_whole = double.fract() == 0.0 && (0.0..=f64::from(i32::MAX)).contains(&double);
        is_whole
            .then(|| format!("{double:.0}"))
            .and_then(|digits| digits.parse().ok())
    })
}

/// The known payload fields that are present, nested ones first.
fn payloads<'d>(root: Node<'d>) -> Result<Vec<Field<'d>>, Refusal> {
    let names = EVENT_TYPES
        .iter()
        .map(|known| known.nested)
        .chain([ISSUE, INCIDENT]);
    names
        .filter_map(|name| Field::find(root, FieldPath::default(), name).transpose())
        .collect()
}

/// The type of the first nested payload.
fn nested_type(payloads: &[Field<'_>]) -> Option<&'static str> {
    let mut names = payloads.iter().map(|payload| payload.name.snake);
    let is_type = |name: &&str| EVENT_TYPES.iter().any(|known| known.nested.snake == *name);
    names.find(is_type)
}

/// The one payload of a known type.
fn payload_of<'p, 'd>(
    root: Node<'_>,
    event_type: &EventType,
    payloads: &'p [Field<'d>],
) -> Result<&'p Field<'d>, Refusal> {
    let own = payloads
        .iter()
        .find(|payload| [event_type.nested, event_type.flat].contains(&payload.name));
    let Some(own) = own else {
        return Err(match payloads {
            [] => Refusal::invalid_event(
                format!("/{}", spelling(root, event_type.nested)),
                "is missing",
            ),
            [_] => match Field::find(root, FieldPath::default(), EVENT_TYPE)? {
                Some(sent) => sent.refuse("does not fit the payload"),
                None => Refusal::MissingEventType,
            },
            [superfluous, ..] => superfluous.refuse("must not be there"),
        });
    };
    match payloads.iter().find(|payload| payload.name != own.name) {
        Some(superfluous) => Err(superfluous.refuse("conflicts with the event's own payload")),
        None => Ok(own),
    }
}

/// The issue's or incident's id; a ping has no subject.
fn subject(
    root: Node<'_>,
    event_type: &EventType,
    payload: &Field<'_>,
) -> Result<Option<String>, Refusal> {
    let Some(subject) = event_type.subject else {
        return Ok(None);
    };
    let missing = |path: FieldPath, name| {
        Refusal::invalid_event(path.to(spelling(root, name)).pointer(), "is missing")
    };
    let about = if payload.name == event_type.flat {
        payload.clone()
    } else {
        let about = Field::find(payload.object()?, payload.path, event_type.flat)?;
        about.ok_or_else(|| missing(payload.path, event_type.flat))?
    };
    let id = Field::find(about.object()?, about.path, subject)?
        .ok_or_else(|| missing(about.path, subject))?;
    let text = id.text()?;
    match text.len() {
        0 => Err(id.refuse("must not be empty")),
        1..=Identity::MAX_SUBJECT_BYTES => Ok(Some(text)),
        _ => Err(id.refuse("must not be longer than 1024 bytes")),
    }
}

/// The spelling to report for an absent field: that of the event's id.
fn spelling(root: Node<'_>, name: Name) -> &'static str {
    if root.get(EVENT_ID.camel).is_some() {
        name.camel
    } else {
        name.snake
    }
}

/// The names that lead to a field, in the spelling sent; unused places are empty.
#[derive(Debug, Clone, Copy, Default)]
struct FieldPath([&'static str; 3]);

impl FieldPath {
    fn to(mut self, name: &'static str) -> Self {
        if let Some(next) = self.0.iter_mut().find(|name| name.is_empty()) {
            *next = name;
        }
        self
    }

    /// The path as a JSON Pointer.
    fn pointer(self) -> String {
        let names = self.0.into_iter().take_while(|name| !name.is_empty());
        names.flat_map(|name| ["/", name]).collect()
    }
}

/// A field that is present and not `null`.
#[derive(Clone)]
struct Field<'d> {
    name: Name,
    path: FieldPath,
    value: Node<'d>,
}

impl<'d> Field<'d> {
    fn find(object: Node<'d>, path: FieldPath, name: Name) -> Result<Option<Self>, Refusal> {
        let in_camel = if name.camel == name.snake {
            None
        } else {
            object.get(name.camel)
        };
        let (value, spelling) = match (object.get(name.snake), in_camel) {
            (None, None) => return Ok(None),
            (Some(value), None) => (value, name.snake),
            (None, Some(value)) => (value, name.camel),
            (Some(_), Some(_)) => {
                return Err(Refusal::invalid_event(
                    path.to(name.camel).pointer(),
                    format!("conflicts with {}", name.snake),
                ));
            }
        };
        Ok((!value.is_null()).then(|| Self {
            name,
            path: path.to(spelling),
            value,
        }))
    }

    fn text(&self) -> Result<String, Refusal> {
        self.value
            .as_str()
            .map(std::borrow::Cow::into_owned)
            .ok_or_else(|| self.refuse("must be a string"))
    }

    fn object(&self) -> Result<Node<'d>, Refusal> {
        if self.value.kind() == NodeKind::Object {
            Ok(self.value)
        } else {
            Err(self.refuse("must be an object"))
        }
    }

    #[cold]
    fn refuse(&self, reason: &str) -> Refusal {
        Refusal::invalid_event(self.path.pointer(), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn identity(body: &str) -> Result<Identity, Refusal> {
        identify(Document::parse(body.as_bytes()).unwrap().root())
            .map_err(|unidentified| unidentified.refusal)
    }

    #[test]
    fn attributes_are_known_even_when_another_one_is_invalid() {
        let of =
            |body: &str| identify(Document::parse(body.as_bytes()).unwrap().root()).unwrap_err();
        let broken = of(r#"{"event_id":"e","issue_closed":{}}"#);
        assert_eq!(
            (broken.event_id, broken.event_type.as_deref()),
            (EventId::new("e".to_owned()), Some("issue_closed"))
        );
        let typeless = of(r#"{"event_id":"e"}"#);
        assert_eq!(
            (typeless.event_id.is_some(), typeless.event_type),
            (true, None)
        );
        assert_eq!(of("{}").event_id, None);
    }

    fn type_of(body: &str) -> String {
        identity(body).unwrap().event_type
    }

    fn pointer_of(body: &str) -> String {
        match identity(body) {
            Err(Refusal::InvalidEvent(violations)) => violations[0].pointer.clone(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn both_shapes_and_spellings_have_the_same_identity() {
        for body in [
            r#"{"event_id":"e","event_type":"EVENT_TYPE_ISSUE_CREATED","issue_created":{"issue":{"issue_id":"i"}}}"#,
            r#"{"eventId":"e","eventType":11,"issueCreated":{"issue":{"issueId":"i"}}}"#,
            r#"{"event_id":"e","event_type":1.1e1,"issue":{"issue_id":"i"}}"#,
            r#"{"event_id":"e","event_type":"EVENT_TYPE_UNSPECIFIED","issueCreated":{"issue":{"issue_id":"i"}},"ping":null}"#,
            r#"{"event_id":"e","event_type":0,"issue_created":{"issue":{"issue_id":"i"}}}"#,
            r#"{"event_id":"e","event_type":null,"issue_created":{"issue":{"issue_id":"i"}}}"#,
        ] {
            let identity = identity(body).unwrap();
            assert_eq!(
                (identity.event_type.as_str(), identity.subject.as_deref()),
                ("issue_created", Some("i")),
                "{body}"
            );
        }
    }

    #[test]
    fn later_types_are_carried_through() {
        assert_eq!(
            type_of(r#"{"event_id":"e","event_type":"EVENT_TYPE_MONITOR_V2"}"#),
            "monitor_v2"
        );
        assert_eq!(
            type_of(r#"{"event_id":"e","event_type":31,"ping":{}}"#),
            "event_type_31"
        );
    }

    #[test]
    fn an_event_needs_an_id_and_a_type() {
        for body in [r"{}", r#"{"event_id":null}"#, r#"{"event_id":""}"#] {
            assert_eq!(identity(body), Err(Refusal::MissingEventId), "{body}");
        }
        for body in [
            r#"{"event_id":"e"}"#,
            r#"{"event_id":"e","issue":{"issue_id":"i"}}"#,
            r#"{"event_id":"e","ping":null}"#,
        ] {
            assert_eq!(identity(body), Err(Refusal::MissingEventType), "{body}");
        }
    }

    #[test]
    fn pointers_name_the_fault_in_the_spelling_that_was_sent() {
        for (body, pointer) in [
            (r"[]", ""),
            (r#"{"event_id":7}"#, "/event_id"),
            (r#"{"eventId":"a\nb"}"#, "/eventId"),
            (r#"{"event_id":"e","eventId":"e"}"#, "/eventId"),
            (
                r#"{"event_id":"e","event_type":"ISSUE_CREATED"}"#,
                "/event_type",
            ),
            (r#"{"event_id":"e","event_type":true}"#, "/event_type"),
            (r#"{"event_id":"e","event_type":1.5}"#, "/event_type"),
            (r#"{"event_id":"e","event_type":-1}"#, "/event_type"),
            (
                r#"{"event_id":"e","eventType":"EVENT_TYPE_PING","issue_closed":{"issue":{"issue_id":"i"}}}"#,
                "/eventType",
            ),
            (
                r#"{"event_id":"e","event_type":"EVENT_TYPE_PING"}"#,
                "/ping",
            ),
            (r#"{"eventId":"e","event_type":14}"#, "/issueClosed"),
            (
                r#"{"event_id":"e","event_type":10,"ping":{},"issueClosed":{}}"#,
                "/issueClosed",
            ),
            (
                r#"{"event_id":"e","event_type":14,"issue_closed":{"issue":{"issue_id":"i"}},"issue":{"issue_id":"i"}}"#,
                "/issue",
            ),
            (
                r#"{"event_id":"e","event_type":10,"issue":{},"incident":{}}"#,
                "/issue",
            ),
            (r#"{"event_id":"e","issue_closed":"x"}"#, "/issue_closed"),
            (
                r#"{"event_id":"e","issue_closed":{}}"#,
                "/issue_closed/issue",
            ),
            (
                r#"{"event_id":"e","issue_closed":{"issue":[]}}"#,
                "/issue_closed/issue",
            ),
            (
                r#"{"event_id":"e","issue_closed":{"issue":{}}}"#,
                "/issue_closed/issue/issue_id",
            ),
            (
                r#"{"eventId":"e","incidentOpen":{"incident":{"incidentId":""}}}"#,
                "/incidentOpen/incident/incidentId",
            ),
            (
                r#"{"event_id":"e","event_type":20,"incident":{"incident_id":5}}"#,
                "/incident/incident_id",
            ),
            (
                r#"{"event_id":"e","ping":{},"event_time":"2026-02-30T00:00:00Z"}"#,
                "/event_time",
            ),
        ] {
            assert_eq!(pointer_of(body), pointer, "{body}");
        }
    }
}
