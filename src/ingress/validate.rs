//! Step 4: the source's JSON Schemas.

use super::parse::Parsed;
use crate::config::{Source, TypedSchema};
use crate::event::Refusal;
use crate::json::Schema;

pub(super) fn validate(source: &Source, parsed: &Parsed<'_>) -> Result<(), Refusal> {
    if let Some(schema) = &source.schema {
        validate_by(schema, parsed)?;
    }
    let is_for = |typed: &&TypedSchema| typed.is_for(&parsed.event().event_type);
    let mut typed = source.schemas.iter().filter(is_for);
    typed.try_for_each(|typed| validate_by(&typed.schema, parsed))
}

fn validate_by(schema: &Schema, parsed: &Parsed<'_>) -> Result<(), Refusal> {
    match parsed.root() {
        Some(root) => schema.validate(root).map_err(Refusal::InvalidEvent),
        None => {
            let reason = "is not JSON, and cannot be validated by its schema";
            Err(Refusal::invalid_event("", reason))
        }
    }
}
