//! JSON bodies, parsed once and left unchanged.
//!
//! A body becomes a flat list of values with their positions in the bytes: no tree, no copies, numbers as they were written.
//! The body itself is published, so nothing here writes JSON.

mod analysis;
mod document;
mod equality;
mod error;
mod marks;
mod number;
mod pointer;
mod run;
mod scan;
mod schema;

pub use document::{Document, Node, NodeKind};
pub use error::SchemaError;
pub use pointer::{Pointer, escape_token};
pub use scan::{Fault, MAX_DEPTH, max_values};
pub use schema::{Schema, Violation, is_date_time};

/// Maximum length of a reported pointer or reason, in characters.
const MAX_REPORTED: usize = 128;

fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_REPORTED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
