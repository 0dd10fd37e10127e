//! Code for what data cannot describe. Everything else about these providers is in their presets.

pub(crate) mod sns;
pub mod synq;

use super::mapping::Hook;
use super::sample::Sample;
use super::verifier::ReadVerifier;

/// The hook of this name, which replaces a mapping's templates.
pub(super) fn find(name: &str) -> Option<Hook> {
    (name == "synq").then_some(synq::identify as Hook)
}

/// The verifier of this name, which replaces a signature scheme and reads the keys that only its preset has.
pub(super) fn verifier(name: &str) -> Option<ReadVerifier> {
    (name == "aws-sns").then_some(sns::read as ReadVerifier)
}

/// The JSON Schema of a preset's events.
pub(super) fn schema(preset: &str) -> Option<&'static str> {
    (preset == "synq").then_some(synq::SCHEMA)
}

/// Samples in files of their own.
pub(super) fn samples(preset: &str) -> Vec<Sample> {
    if preset == "synq" {
        synq::samples()
    } else {
        Vec::new()
    }
}
