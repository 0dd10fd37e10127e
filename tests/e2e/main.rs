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

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

// ---- Requests and connections

// The answer to each request.
mod answers;

// Time, bytes and places that a request may take.
mod limits;

// How long a connection lives, and what it carries.
mod connections;

// Where a request ends.
mod framing;

// HTTP as its RFCs have it.
mod protocol;

// Where HTTP/2 is spoken, and hostile peers that speak it.
mod http2;

// TLS on the public listener.
mod tls;

// Genuine events get through whatever unverified senders do.
mod admission;

// The rest of the security catalogue.
mod security;

// ---- Events

// Presets and declared sources.
mod providers;

// Every preset as its page configures it, and the commands for them.
mod presets;
// Signatures inside of bodies, over forms, and tokens.
mod signed_bodies;

// CloudEvents, and what Azure and Microsoft Graph send: several events in one request.
mod cloud_events;

// Amazon SNS: signatures in the body, certificates, subscriptions.
mod aws_sns;

// Rate limits, addresses, certificates, fixed answers, gzip, schemas by type.
mod transport;

// SYNQ's samples, accepted and refused.
mod synq;

// The cost of an authentic event, and what its text can do.
mod validation;

// Which route an event takes, and what its topic and key become.
mod routing;

// When two deliveries are the same.
mod dedup_by;

// Events that cannot go where they should.
mod dead_letters;

// Events and values that no broker takes, and bytes that arrive as they were sent.
mod poison;

// Dead letters and fallbacks go where they belong.
mod replay;

// Messages that replay refuses, and its traces.
mod replay_safety;

// ---- Brokers

// The message behind a 200.
mod stored;

// Logins, options and refusals of Kafka.
mod kafka;

// Rights, missing topics, many topics, and how often a cluster is asked.
mod kafka_faults;

// Mistakes that `check` finds in a Kafka broker's options.
mod kafka_options;

// Access tokens of an identity provider.
mod kafka_oidc;

// Logins, acknowledgements and refusals of NATS.
mod nats;

// Missing permissions on NATS, and the step of a connection that fails.
mod nats_permissions;

// Whether destinations are durable, and what follows from not knowing.
mod durability;

// Brokers that are away, killed, frozen.
mod faults;

// Random faults, for as long as someone wants.
mod soak;

// ---- Operation

// Signals.
mod shutdown;

// Another configuration replaces the one at work.
mod reload;

// The log, whatever becomes of standard error.
mod logging;

// The admin listener.
mod admin;

// Every metric.
mod metrics;

// Usage, exit status, and the commands without a file of their own.
mod cli;

// `check`, and where the configuration comes from.
mod check;

// `explain`.
mod explain;

// `send`.
mod send;

// `tail`.
mod tail;

// The documentation: its configurations, commands and links.
mod docs;
mod schema;

// The habits of those who use commands daily.
mod habits;

// What is deployed beside the program: dashboard, rules, manifests.
mod dashboards;
