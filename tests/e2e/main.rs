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

// Each row of the answer table, and what a connection may do.
mod http;

// Which route an event takes, and what its topic and key become.
mod routing;

// What a Kafka topic holds, and what Kafka may refuse.
mod kafka;

// Rights, missing topics, many topics, and how often a cluster is asked for.
mod kafka_faults;

// What `check` finds in a Kafka broker's options.
mod kafka_options;

// Access tokens of an identity provider.
mod kafka_oidc;

// The same for NATS, with JetStream and without.
mod nats;

// What a NATS user may not do, and which step of a connection fails.
mod nats_permissions;

// What makes two deliveries the same.
mod dedup_by;

// Where events go that can't go where they should.
mod dead_letters;

// The provider's samples, accepted and refused.
mod synq;

// Signals.
mod shutdown;

// Brokers that are away, killed, frozen.
mod faults;

// Faults at random, for as long as someone wants.
mod soak;

// Another configuration takes the place of the one that runs.
mod reload;

// Whatever becomes of standard error.
mod logging;

// The admin listener, and what it keeps for itself.
mod admin;

// The other commands.
mod cli;

// What `check` finds, and how the configuration is read.
mod check;

// What a scrape shows.
mod metrics;

// What an inspection of the destinations finds, and what follows from not knowing.
mod durability;

// Events that took another way, copies, and deliveries that come again.
mod replay;

// What replay refuses to do, and what it leaves behind.
mod replay_safety;

// Events and values that no broker would take, and bytes that must arrive as they were sent.
mod poison;

// What is left of the security catalogue.
mod security;

// HTTP/2 from peers that mean no good.
mod http2;

// TLS on the public listener.
mod tls;

// What an authentic event can cost, and what its text can do.
mod validation;

// HTTP as its RFCs have it.
mod protocol;

// Presets and declared sources.
mod providers;

// Rate limits, addresses, certificates, fixed answers, gzip, schemas by type.
mod transport;

// What unverified senders can not take from the others.
mod admission;

// The documentation: its configurations, commands and links.
mod docs;

// What is deployed beside the program: dashboard, rules, manifests.
mod dashboards;
