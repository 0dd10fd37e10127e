//! State that outlives a request: what may be in flight, and which deliveries are already stored.

pub(crate) mod duplicates;
mod permits;
mod unverified;

pub use permits::{Permit, Permits, Share};
