//! Step 4: the source's JSON Schema.

use super::parse::Parsed;
use crate::config::Source;
use crate::event::Refusal;

pub(super) fn validate(source: &Source, parsed: &Parsed<'_>) -> Result<(), Refusal> {
    match (&source.schema, parsed.root()) {
        (Some(schema), Some(root)) => schema.validate(root).map_err(Refusal::InvalidEvent),
        (Some(_), None) => {
            let reason = "has no JSON that could be validated by its schema";
            Err(Refusal::invalid_event("", reason))
        }
        (None, _) => Ok(()),
    }
}
