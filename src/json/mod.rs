//! JSON bodies, read once and left as they are.
//!
//! A body becomes a flat list of its values with their places in the bytes: no tree, no copies, numbers as they were
//! written. What is published is the body itself, so nothing here ever writes JSON.

mod analysis;
mod document;
mod equality;
mod marks;
mod number;
mod pointer;
mod run;
mod scan;
mod schema;

pub use document::{Document, Kind, Node};
pub use pointer::{Pointer, escape_token};
pub use scan::{Fault, MAX_DEPTH, max_values};
pub use schema::{Schema, SchemaError, Violation, is_date_time};

/// The longest pointer or reason that is told, in characters.
const MAX_TOLD: usize = 128;

fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_TOLD) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
