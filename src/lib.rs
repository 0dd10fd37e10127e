//! Hookbridge: the small, hard door between webhook providers and Kafka or NATS.
pub mod admin;
pub mod bridge;
pub mod brokers;
pub mod cli;
pub mod config;
pub mod ingress;
mod inspection;
pub mod json;
pub mod live;
pub mod metrics;
mod printable;
pub mod process;
pub mod providers;
pub mod reload;
pub mod service;
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
