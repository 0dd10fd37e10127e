//! State that outlives a request: what may be in flight, which deliveries are already stored, and the rate of a source.

pub(crate) mod duplicates;
mod permits;
pub(crate) mod rate_limit;
mod unverified;

pub use permits::{Permit, Permits, Share};
