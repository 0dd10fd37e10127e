//! Hookbridge: the small, hard door between webhook providers and Kafka or NATS.
pub mod bridge;
pub mod brokers;
pub mod cli;
pub mod config;
pub mod event;
pub mod flow;
pub mod ingress;
pub mod json;
pub mod metrics;
mod printable;
pub mod providers;
pub mod secret;
pub mod service;
pub mod table;
mod task;
pub mod telemetry;

/// The commit that was built, where it is known.
pub const COMMIT: &str = env!("HOOKBRIDGE_COMMIT");

/// The version and the commit.
pub(crate) const VERSION_AND_COMMIT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("HOOKBRIDGE_COMMIT"),
    ")"
);
