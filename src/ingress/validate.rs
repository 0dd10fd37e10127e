//! Step 4: the source's JSON Schema.

use super::parse::Parsed;
use super::refusal::Refusal;
use crate::config::Source;

pub(super) fn validate(source: &Source, parsed: &Parsed<'_>) -> Result<(), Refusal> {
    match &source.schema {
        Some(schema) => schema
            .validate(parsed.root())
            .map_err(Refusal::InvalidEvent),
        None => Ok(()),
    }
}
