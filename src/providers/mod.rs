//! The seam for providers: how their requests are verified, and where their events have id, type, time and subject.
//!
//! A provider is data: a file in `presets/`, in the form in which users declare their own sources. Only what data
//! cannot describe is code, in `hooks/`.

pub mod authentication;
pub mod cloudevents;
pub mod credentials;
pub mod handshake;
mod hooks;
mod jwt;
pub mod keys;
pub mod mapping;
pub mod outbound;
pub mod preset;
pub mod reading;
pub mod request;
mod sample;
pub mod scheme;
pub mod sign;
pub(crate) mod tables;
pub mod text;
mod unsigned;
pub mod verifier;

pub use authentication::Authentication;
#[cfg(all(test, feature = "kafka", feature = "nats"))]
pub(crate) use hooks::sns::tests::Tester as SnsTester;
pub use hooks::synq;
pub use preset::{Preset, find};
pub use request::{Request, Scope};
pub use sample::Sample;
pub use scheme::Unverified;
