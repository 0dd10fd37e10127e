//! Step 3: the body is read as JSON, in place, and asked who it is. Its bytes stay as they are.

use super::refusal::Refusal;
use super::verify::Verified;
use crate::json::{Document, Fault, Node};
use crate::printable::printable;
use crate::providers::{EventId, Identity, Unidentified};

/// What an event says of itself.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: EventId,
    pub(super) event_type: String,
    pub(super) time: Option<String>,
    pub(super) subject: Option<String>,
}

/// An event, and the document that it stands in.
#[derive(Debug)]
pub(super) struct Parsed<'b> {
    document: Document<'b>,
    event: Event,
}

impl Parsed<'_> {
    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    pub(super) fn into_event(self) -> Event {
        self.event
    }

    pub(super) fn root(&self) -> Node<'_> {
        self.document.root()
    }

    /// A name that was looked up so far and stands twice is a fault: another reader would see another event.
    pub(super) fn refuse_if_ambiguous(&self) -> Result<(), Refusal> {
        refuse_if_ambiguous(&self.document)
    }
}

/// Reads the body and asks it who it is.
///
/// # Errors
/// What is wrong, and what is known of the event all the same.
pub(super) fn parse(verified: &Verified) -> Result<Parsed<'_>, Unidentified> {
    let request = verified.request();
    let document = Document::parse(request.body()).map_err(|fault| match fault {
        Fault::Encoding { .. } => Refusal::InvalidEncoding(fault.to_string()),
        Fault::Syntax { .. } | Fault::Depth { .. } | Fault::Values { .. } => {
            Refusal::InvalidJson(fault.to_string())
        }
    })?;
    let identity = verified
        .source()
        .provider
        .identify(request.headers(), &document);
    // What was read of an ambiguous event is not known.
    refuse_if_ambiguous(&document)?;
    let Identity {
        event_id,
        event_type,
        time,
        subject,
    } = identity?;
    Ok(Parsed {
        document,
        event: Event {
            id: event_id,
            event_type,
            time,
            subject,
        },
    })
}

fn refuse_if_ambiguous(document: &Document<'_>) -> Result<(), Refusal> {
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
