//! wip
pub mod json;
