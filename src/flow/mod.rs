//! State that outlives a request: permits, the duplicates window, a source's rate limit and its silence.

pub(crate) mod duplicates;
mod permits;
pub(crate) mod rate_limit;
pub(crate) mod silence;
mod unverified;

pub use permits::{Permit, Permits, Share};
