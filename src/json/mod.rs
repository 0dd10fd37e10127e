//! JSON bodies, read once and left as they are.
//!
//! A body becomes a flat list of its values with their places in the bytes: no tree, no copies, numbers as they were
//! written. What is published is the body itself, so nothing here ever writes JSON.

mod document;
mod marks;
mod pointer;
mod scan;
mod schema;

pub use document::{Document, Kind, Node};
pub use pointer::{Pointer, escape_token};
pub use scan::{Fault, MAX_DEPTH};
pub use schema::{Schema, SchemaError, Violation, is_date_time};
