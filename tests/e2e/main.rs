//! End to end: the built binary between real senders and real brokers.
//!
//! Every test runs its own bridge on free ports, and all run concurrently. `tests/run` installs what they need.

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

// Time, bytes and permits of a request.
mod limits;

// The lifetime of connections.
mod connections;

// The boundaries of a request.
mod framing;

// HTTP as the RFCs define it.
mod protocol;

// HTTP/2, and hostile peers that speak it.
mod http2;

// TLS on the public listener.
mod tls;

// Genuine events get through in spite of unverified senders.
mod admission;

// The rest of the security catalogue.
mod security;

// ---- Events

// Presets and declared sources.
mod providers;

// Every preset as its page configures it, and the commands for them.
mod presets;
// Challenges, signatures that are used twice, handshakes of anyone.
mod unauthorized;

// Signatures inside bodies, over forms, and tokens.
mod signed_bodies;

// CloudEvents, and what Azure and Microsoft Graph send: several events in one request.
mod cloud_events;

// Amazon SNS: signatures in the body, certificates, subscriptions.
mod aws_sns;

// Rate limits, addresses, certificates, fixed answers, gzip, schemas by type.
mod transport;

// SYNQ's samples, accepted and refused.
mod synq;

// The cost of an authentic event, and its text on a terminal.
mod validation;

// Routes, topics and keys.
mod routing;

// When two deliveries are the same.
mod dedup_by;

// Dead letters.
mod dead_letters;

// Events that no broker accepts, and bytes that arrive unchanged.
mod poison;

// Replay of dead letters and fallbacks.
mod replay;

// Messages that replay refuses, and its traces.
mod replay_safety;

// ---- Brokers

// The message behind a 200.
mod stored;

// Logins, options and refusals of Kafka.
mod kafka;

// Rights, missing topics, many topics, and the frequency of queries.
mod kafka_faults;

// Mistakes that `check` finds in a Kafka broker's options.
mod kafka_options;

// Access tokens of an identity provider.
mod kafka_oidc;

// Logins, acknowledgements and refusals of NATS.
mod nats;

// Missing permissions on NATS, and the failing step of a connection.
mod nats_permissions;

// Whether destinations are durable, and what follows from not knowing.
mod durability;

// Brokers that are away, killed, frozen.
mod faults;

// Random faults, for any length of time.
mod soak;

// ---- Operation

// Signals.
mod shutdown;

// SIGINT, once and twice.
mod keystrokes;

// Reloads.
mod reload;

// What a reload says that it has changed.
mod reload_changes;

// The log, with any kind of standard error.
mod logging;

// Sources that send nothing for longer than expected.
mod silence;

// The log of each request, and the fields of every line.
mod access_log;

// The admin listener.
mod admin;

// The live page on it, in a real browser.
mod live_page;

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

// The width of what is printed on a terminal.
mod terminal;

// Traces: carried on, and exported to a real receiver.
mod tracing;

// The files that `deploy/install` installs.
mod install;

// Deployed files: dashboard, rules, manifests.
mod dashboards;

// docker-compose.yml without Docker.
mod composition;

// Topics and streams that are missing.
mod provision;

// A first configuration for each provider.
mod init;

// Routing cases of `hookbridge test`.
mod cases;

// docs/getting-started.md, executed.
mod getting_started;
