//! `[brokers.NAME]` with `kind = "kafka"`, and the client's properties that follow from it.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use zeroize::Zeroizing;

use crate::brokers::{Limits, hide_user_info};
use crate::config::Section;

/// What the bridge's own time-out has over librdkafka's, so that the client's word, which tells "certainly not stored"
/// from "perhaps", comes first. librdkafka looks for messages that are too old once a second, and between two attempts to
/// connect not at all ([`RECONNECT_MAX_MS`]).
const MARGIN: Duration = Duration::from_millis(1200);

/// The longest between two attempts to connect, in milliseconds: less than [`MARGIN`].
const RECONNECT_MAX_MS: &str = "1000";

/// How long the patient producer waits for more, in milliseconds. librdkafka counts in whole ones.
const PATIENCE_MS: &str = "1";

/// The names of the property that says so.
const LINGER: [&str; 2] = ["linger.ms", "queue.buffering.max.ms"];

/// The least that a message has.
const LEAST_TIMEOUT: Duration = Duration::from_millis(300);

/// What headers and Kafka's own framing may add to a body.
const OVERHEAD_BYTES: usize = 64 * 1024;

/// The largest `message.max.bytes` that librdkafka takes (`CONFIGURATION.md`).
const MAX_MESSAGE_BYTES: usize = 1_000_000_000;

/// Properties that the promise rests on, and why they can't be set.
const FIXED: [(&[&str], &str); 5] = [
    (
        &["acks", "request.required.acks"],
        "a 2xx means that all in-sync replicas have the event, so it is `all`",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "it follows from `publish_timeout`, so that the client's answer comes before the sender's",
    ),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "it follows from `max_in_flight` and `max_in_flight_bytes`, which answer 503 before the queue is full",
    ),
    (
        &["delivery.report.only.error", "dr_cb", "dr_msg_cb"],
        "without reports of success no event could be acknowledged",
    ),
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "it is `bootstrap_servers`, beside `options`",
    ),
];

/// A Kafka cluster, and how to reach it.
#[derive(Clone, PartialEq)]
pub struct Settings {
    bootstrap_servers: String,
    options: Vec<(String, Zeroizing<String>)>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Options may be passwords.
        let names: Vec<_> = self.options.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field(
                "bootstrap_servers",
                &hide_user_info(&self.bootstrap_servers),
            )
            .field("options", &names)
            .finish()
    }
}

impl Settings {
    pub(in crate::brokers) fn read(section: &mut Section<'_>) -> Option<Self> {
        let bootstrap_servers = section.required_text("bootstrap_servers", "\"localhost:9092\"");
        let options = section.secret_map("options");
        for (name, value) in &options {
            let fixed = FIXED
                .iter()
                .find(|(names, _)| names.contains(&name.as_str()));
            if let Some((_, reason)) = fixed {
                section.problem_at(
                    &format!("options.{name}"),
                    format!("{name} can't be set: {reason}"),
                );
            } else if let Err(error) = ClientConfig::new()
                .set(name.as_str(), value.as_str())
                .create_native_config()
            {
                // The error's own words would contain the value, which may be a secret.
                let is_unknown = error.to_string().contains("No such configuration property");
                let what = if is_unknown {
                    "is no property of librdkafka"
                } else {
                    "has a value that librdkafka does not take"
                };
                section.problem_at(
                    &format!("options.{name}"),
                    format!("{name} {what} (see its CONFIGURATION.md)"),
                );
            }
        }
        Some(Self {
            bootstrap_servers: bootstrap_servers?,
            options,
        })
    }

    pub(in crate::brokers) fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Certificates, keys and the like: `ssl.ca.location` and its kin.
    pub(in crate::brokers) fn files(&self) -> Vec<PathBuf> {
        let locations = self
            .options
            .iter()
            .filter(|(name, _)| name.ends_with(".location"));
        locations
            .map(|(_, value)| PathBuf::from(value.as_str()))
            .collect()
    }

    /// Private keys, and the keys of the configuration that name them.
    pub(in crate::brokers) fn private_files(&self) -> Vec<(String, PathBuf)> {
        let keys = self.options.iter().filter(|(name, _)| {
            matches!(name.as_str(), "ssl.key.location" | "ssl.keystore.location")
        });
        keys.map(|(name, value)| (format!("options.{name}"), PathBuf::from(value.as_str())))
            .collect()
    }

    /// The properties of every client: producer, consumer and probe.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set(
            "client.id",
            concat!("hookbridge-", env!("CARGO_PKG_VERSION")),
        );
        config.set("allow.auto.create.topics", "false");
        config.set("socket.timeout.ms", "10000");
        config.set("socket.connection.setup.timeout.ms", "5000");
        config.set("socket.keepalive.enable", "true");
        // Doubled with each attempt. Half of it is also the least time between the connections that are made for want of one,
        // which is most of what a start takes.
        config.set("reconnect.backoff.ms", "20");
        config.set("reconnect.backoff.max.ms", RECONNECT_MAX_MS);
        config.set("enable.metrics.push", "false");
        config.set("log.connection.close", "false");
        config
    }

    /// The properties of the patient producer; none where the user has decided how long to wait.
    pub(super) fn patient_producer_config(&self, limits: Limits) -> Option<ClientConfig> {
        let is_decided = |(name, _): &(String, _)| LINGER.contains(&name.as_str());
        if self.options.iter().any(is_decided) {
            return None;
        }
        let mut config = self.producer_config(limits);
        config.set("linger.ms", PATIENCE_MS);
        Some(config)
    }

    /// The properties of the prompt producer: the promise's, then the user's, then those that the user can't change.
    pub(super) fn producer_config(&self, limits: Limits) -> ClientConfig {
        let timeout_ms = limits
            .publish_timeout
            .saturating_sub(MARGIN)
            .max(LEAST_TIMEOUT)
            .as_millis();
        let mut config = self.client_config();
        config.set("enable.idempotence", "true");
        config.set("request.timeout.ms", timeout_ms.to_string());
        // An unknown topic is reported as such well before the message times out.
        config.set(
            "topic.metadata.propagation.max.ms",
            (timeout_ms / 2).min(5000).to_string(),
        );
        let message_bytes = limits
            .max_body_bytes
            .saturating_add(OVERHEAD_BYTES)
            .min(MAX_MESSAGE_BYTES);
        config.set("message.max.bytes", message_bytes.to_string());
        // Every request waits for its own acknowledgement.
        config.set("linger.ms", "0");
        config.set("partitioner", "murmur2_random");
        self.set_options(&mut config);
        config.set("acks", "all");
        config.set("message.timeout.ms", timeout_ms.to_string());
        // A little above the bridge's own limits, which must be the first to say no.
        let queued_messages = limits
            .max_in_flight
            .saturating_add(1000)
            .clamp(1000, 10_000_000);
        let queued_kbytes = (limits.max_in_flight_bytes / 1024)
            .saturating_add(message_bytes / 1024)
            .saturating_add(16 * 1024);
        config.set("queue.buffering.max.messages", queued_messages.to_string());
        config.set(
            "queue.buffering.max.kbytes",
            queued_kbytes.clamp(16 * 1024, 2_097_151).to_string(),
        );
        config
    }

    /// The properties of a consumer without a group, for `tail` and the demo.
    pub(super) fn consumer_config(&self, from_start: bool) -> ClientConfig {
        let mut config = self.client_config();
        // Producers' properties are unknown to consumers only as a warning in librdkafka's log.
        self.set_options(&mut config);
        config.set("group.id", "hookbridge-tail");
        config.set("enable.auto.commit", "false");
        config.set(
            "auto.offset.reset",
            if from_start { "earliest" } else { "latest" },
        );
        config
    }

    fn set_options(&self, config: &mut ClientConfig) {
        for (name, value) in &self.options {
            config.set(name.as_str(), value.as_str());
        }
    }
}
