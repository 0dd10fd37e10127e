//! Step 3: reads the body in place, and finds its events and their identities. The bytes are not changed.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::event::{Identity, Refusal, Unidentified};
use crate::flow::duplicates::Names;
use crate::json::{Document, Fault, Node};
use crate::printable::printable;
use crate::providers::Scope;
use crate::providers::mapping::{Content, Mapping};

/// An event with its bytes and their JSON.
#[derive(Debug)]
pub(super) struct Parsed<'d> {
    /// A part of the body, or all of it.
    payload: &'d [u8],
    document: Option<&'d Document<'d>>,
    event: Identity,
}

impl<'d> Parsed<'d> {
    pub(super) fn event(&self) -> &Identity {
        &self.event
    }

    pub(super) fn into_event(self) -> Identity {
        self.event
    }

    /// The names by which the event's duplicates are recognized.
    pub(super) fn names(&self) -> Names<'_> {
        let cloud_event = self.event.cloud_event.as_deref();
        Names {
            id: &self.event.event_id,
            ce_source: cloud_event.map(|event| event.source.as_str()),
        }
    }

    pub(super) fn payload(&self) -> &'d [u8] {
        self.payload
    }

    pub(super) fn root(&self) -> Option<Node<'d>> {
        self.document.map(Document::root)
    }

    /// Refuses an event with a duplicate among the member names that were looked up so far: another reader would see
    /// another event.
    pub(super) fn refuse_if_ambiguous(&self) -> Result<(), Refusal> {
        self.document.map_or(Ok(()), refuse_if_ambiguous)
    }
}

/// Reads a body as its content type says.
pub(super) fn content<'b>(
    mapping: &'b Mapping,
    headers: &HeaderMap,
    body: &'b [u8],
) -> Result<Content<'b>, Refusal> {
    mapping.content(media_type(headers), body)
}

/// The media type without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    // A value that is not text was refused earlier.
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = content_type.unwrap_or_default();
    let end = value.bytes().position(|byte| byte == b';');
    let media_type = end.and_then(|end| value.get(..end));
    media_type.unwrap_or(value).trim()
}

/// Parses the JSON of a body, a form field or an element.
pub(super) fn read(text: &[u8]) -> Result<Document<'_>, Refusal> {
    Document::parse(text).map_err(|fault| match fault {
        Fault::Encoding { .. } => Refusal::InvalidEncoding(fault.to_string()),
        Fault::Syntax { .. } | Fault::Depth { .. } | Fault::Values { .. } => {
            Refusal::InvalidJson(fault.to_string())
        }
    })
}

/// Determines an event's identity.
///
/// # Errors
/// The fault, and the attributes of the event that are known nevertheless.
pub(super) fn identify<'d>(
    mapping: &Mapping,
    scope: &Scope<'d>,
    document: Option<&'d Document<'d>>,
) -> Result<Parsed<'d>, Unidentified> {
    let event = mapping.identify(scope);
    // Attributes read from an ambiguous event are not known.
    document.map_or(Ok(()), refuse_if_ambiguous)?;
    Ok(Parsed {
        payload: scope.payload,
        document,
        event: event?,
    })
}

pub(super) fn refuse_if_ambiguous(document: &Document<'_>) -> Result<(), Refusal> {
    match document.ambiguous_name() {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(Refusal::InvalidJson(format!(
                "an object has the member \"{}\" twice",
                printable(&name)
            )))
        }
    }
}
