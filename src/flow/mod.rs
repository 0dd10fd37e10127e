//! State that outlives a request: permits, the duplicates window, and a source's rate limit.

pub(crate) mod duplicates;
mod permits;
pub(crate) mod rate_limit;
mod unverified;

pub use permits::{Permit, Permits, Share};
