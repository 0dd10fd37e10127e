//! The ground of the end-to-end tests: real brokers and the built binary as child processes, a sender that speaks HTTP
//! over a plain socket, readers for both brokers, and a checker of the promise.

// A broker, a topic on it and a bridge in front of them.
#[macro_use]
pub(crate) mod fixture;

// Until a condition holds, with a deadline: the only place that pauses.
pub(crate) mod wait;

// Children that never outlive the tests, their logs, ports, directories.
pub(crate) mod process;

// The reason of a failure, behind the logs.
pub(crate) mod failure;

// Memory, threads and descriptors of a process.
pub(crate) mod usage;

// A disk that can be filled.
pub(crate) mod disk;

// Names that can be moved to another address.
pub(crate) mod hosts;

// A server of the tests' own, which is started, stopped, frozen and killed.
#[macro_use]
pub(crate) mod daemon;

// Certificates for TLS listeners, and a sender that speaks TLS.
pub(crate) mod tls;

// The configurations on the pages of providers.
pub(crate) mod pages;

// A headless browser for the live page.
pub(crate) mod browser;

// A real Kafka: start, kill, freeze, restart, topics, read back.
pub(crate) mod kafka;

// A real nats-server: the same, streams, subscriptions.
pub(crate) mod nats;

// The built hookbridge: run with a configuration, commands, metrics.
pub(crate) mod bridge;

// Bodies as SYNQ sends them, its signature, the reference samples.
pub(crate) mod events;

// Secrets of the kinds that providers have, for documented configurations.
pub(crate) mod secrets;

// HTTP/1.1 over a socket that repairs nothing.
pub(crate) mod sender;

// Frames of HTTP/2, written by hand.
pub(crate) mod http2;

// A TCP proxy in front of a broker: resets, silence, replies that are held back or lost.
pub(crate) mod proxy;

// A message as read back from either broker.
pub(crate) mod consumer;

// Numbered events: the answers compared with what is stored.
pub(crate) mod checker;

// Concurrent senders until stopped.
pub(crate) mod load;

// Thousands of connections without a thread for each.
pub(crate) mod crowd;

/// One runtime for the broker clients of all tests: the tests themselves are plain threads.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the broker clients")
    })
}
