//! End to end: the built binary between real senders and real brokers.
//!
//! Every test runs a bridge of its own, on free ports, and all run at once. `tests/run` installs what they need.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a step that fails is a test that fails, and says where; tests may look at the clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod cli; // the other commands
mod dead_letters; // where events go that can't go where they should
mod faults; // brokers that are away, killed, frozen
mod http; // each row of the answer table, and what a connection may do
mod kafka; // what a Kafka topic holds, and what Kafka may refuse
mod metrics;
mod nats; // the same for NATS, with JetStream and without
mod routing; // which route an event takes, and what its topic and key become
mod shutdown; // signals
mod synq; // the provider's samples, accepted and refused // what a scrape shows
