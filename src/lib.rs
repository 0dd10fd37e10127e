//! Hookbridge: a small, hardened gateway between webhook providers and Kafka or NATS.
//!
//! An event's path, in the order in which [`ingress`](mod@ingress) shows it on a page:
//!
//! | step | where | |
//! | --- | --- | --- |
//! | 1 accept, receive | [`ingress::accept`](mod@ingress::accept), [`ingress::receive`](mod@ingress::receive) | connections with their clocks; the head, then the body within bounds |
//! | 2 verify | [`ingress::verify`](mod@ingress::verify) | the provider's signature over the raw bytes |
//! | 3 parse | [`ingress::parse`](mod@ingress::parse) | JSON without copying; id, type, time, subject |
//! | 4 validate | [`ingress::validate`](mod@ingress::validate) | the JSON Schema, within bounds |
//! | 5 route | [`ingress::route`](mod@ingress::route) | the first route that matches the type |
//! | 6 encode | [`ingress::encode`](mod@ingress::encode), [`ingress::dead_letter`](mod@ingress::dead_letter) | topic, key and headers |
//! | 7 publish | [`ingress::publish`](mod@ingress::publish), [`flow::duplicates`](mod@flow::duplicates) | the broker's acknowledgement |
//! | 8 answer | [`ingress::answer`](mod@ingress::answer) | the only maker of responses |
//!
//! The modules below are in reading order, from the top of the program to its ground floor. Imports run downwards only,
//! which `layers.rs` tests.

#![cfg_attr(
    not(all(feature = "kafka", feature = "nats")),
    allow(dead_code, reason = "some helpers are for the other kind of broker")
)]

// The program.
pub mod cli;
pub mod service;

// An event's path, and the configuration that it runs on.
pub mod ingress;

pub mod bridge;

pub mod metrics;

// Data and state that they share.
pub mod config;
pub mod flow;

// The two seams.
pub mod brokers;
pub mod providers;

// The vocabulary of an event.
pub mod event;

// The ground floor.
pub mod json;
pub mod table;
pub mod telemetry;
pub mod trace;

mod http_post;
mod printable;
pub mod secret;
mod task;

#[cfg(test)]
mod layers;

/// The commit of this build, if known.
pub const COMMIT: &str = env!("HOOKBRIDGE_COMMIT");

pub(crate) const VERSION_AND_COMMIT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("HOOKBRIDGE_COMMIT"),
    ")"
);
