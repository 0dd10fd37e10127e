//! State that outlives a request: permits, the duplicates window, a source's rate limit, its
//! silence, and the nonces of its signatures.

pub(crate) mod duplicates;
pub(crate) mod nonces;
mod permits;
pub(crate) mod rate_limit;
pub(crate) mod silence;
mod unverified;

pub use permits::{Permit, Permits, Share};
