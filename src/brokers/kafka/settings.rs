//! `[brokers.NAME]` with `kind = "kafka"`, and the client properties that follow from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, StreamConsumer};
use rdkafka::producer::BaseProducer;
use zeroize::Zeroizing;

use super::health::Advice;
use super::oidc::{self, Oidc};
use super::tokens::{Login, Tokens};
use super::{describe, options};
use crate::brokers::error::{RejectedSettings, RequestError};
use crate::brokers::health::Limits;
use crate::brokers::kind::Kind;
use crate::brokers::provision;
use crate::secret::hide_user_info;
use crate::table::Section;
use crate::table::key::{Key, Syntax, Table, Type};

/// librdkafka's time-out is this much shorter than the bridge's, so that the delivery report, which tells "certainly not
/// stored" from "unknown", arrives first. librdkafka checks for expired messages once a second, and not at all while it waits
/// to reconnect ([`RECONNECT_MAX_MS`]).
const MARGIN: Duration = Duration::from_millis(1200);

/// Maximum pause between two attempts to connect, in milliseconds: less than [`MARGIN`].
const RECONNECT_MAX_MS: &str = "1000";

/// Pause before the first attempt to reconnect, in milliseconds.
const RECONNECT_MS: &str = "1000";

/// `linger.ms` of the batching producer. librdkafka's resolution is 1 ms.
const BATCHING_LINGER_MS: &str = "1";

/// The property's names.
const LINGER: [&str; 2] = ["linger.ms", "queue.buffering.max.ms"];

/// Minimum of librdkafka's message time-out.
const LEAST_TIMEOUT: Duration = Duration::from_millis(300);

/// librdkafka's maximum of `message.max.bytes` (`CONFIGURATION.md`).
const MAX_MESSAGE_BYTES: usize = 1_000_000_000;

pub(in crate::brokers) static TABLE: Table = Table::new(&[&[
    Key::new("bootstrap_servers", Type::Text(&SERVERS))
        .required("\"localhost:9092\"")
        .instead_of(&[
            "brokers", "broker_list", "metadata_broker_list", "bootstrap", "servers", "server", "hosts", "host", "url",
            "urls", "address", "addresses", "seed_brokers", "endpoints",
        ])
        .about("`host:port`, separated by commas"),
    Key::new("options", Type::Map(&OPTION))
        .about("any librdkafka property except those below; a value may be a secret"),
    Key::new("provision", Type::Table(&provision::OF_KAFKA))
        .about("the topics that `hookbridge provision` creates, see [Provisioning](#provisioning)"),
]])
.notes(&[
    (
        &["user", "username", "password", "credentials", "sasl"],
        "a login is in `options`; write \"sasl.mechanism\", \"sasl.username\" and \"sasl.password\" there",
    ),
    (
        &["tls", "ssl", "ca", "cert"],
        "TLS is in `options`; write `options = { \"security.protocol\" = \"ssl\", \"ssl.ca.location\" = \"…\" }`",
    ),
    (
        &["compression"],
        "it is an option; write `options = { \"compression.type\" = \"lz4\" }`",
    ),
]);

static SERVERS: Syntax = Syntax {
    noun: "text",
    pattern: Some("^[^@]*[^@, ][^@]*$"),
};

const OPTION: Type = Type::Any(&[Type::Secret, Type::Number, Type::Flag]);

/// How to reach a Kafka cluster.
#[derive(Clone)]
pub struct Settings {
    bootstrap_servers: String,
    options: Vec<(String, Zeroizing<String>)>,
    /// For logins with OAUTHBEARER. Derived from the options.
    tokens: Option<Arc<Tokens>>,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.bootstrap_servers == other.bootstrap_servers && self.options == other.options
    }
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
        let bootstrap_servers = if section.is_list("bootstrap_servers") {
            section.texts("bootstrap_servers");
            section.problem_at(
                "bootstrap_servers",
                "it is one string with commas in it; write for example \"kafka-1:9092,kafka-2:9092\"",
            );
            None
        } else {
            section.required_text("bootstrap_servers")
        };
        options::refuse_misplaced(section);
        let options = section.secret_map("options");
        if let Some(servers) = &bootstrap_servers
            && let Err(what) = options::check_servers(servers, &options)
        {
            section.problem_at("bootstrap_servers", what.to_string());
        }
        let mut is_refused = false;
        for (name, value) in &options {
            if let Some(what) = options::problem(name, value) {
                is_refused = true;
                section.problem_at(&format!("options.{name}"), what);
            }
        }
        let mut oidc = None;
        if !is_refused {
            match Oidc::read(&options) {
                Ok(read) => {
                    options::warn(section, &options, read.as_ref());
                    oidc = read;
                }
                Err((name, what)) => section.problem_at(&format!("options.{name}"), what),
            }
        }
        Some(Self {
            bootstrap_servers: bootstrap_servers?,
            options,
            tokens: oidc.map(Tokens::new),
        })
    }

    /// The reason why topic configurations can never be read with these settings, if so.
    pub(in crate::brokers) fn uninspectable(&self) -> Option<&'static str> {
        self.tokens.as_ref().map(|_| {
            "rdkafka's client for topic configurations can't log in with OAUTHBEARER, so min.insync.replicas and the like are unknown"
        })
    }

    /// The context of a client that may need an access token.
    pub(super) fn login(&self) -> Login {
        Login::new(self.tokens.clone())
    }

    /// A client for metadata, with its token if it needs one. Blocks.
    pub(super) fn asking_client(&self) -> Result<BaseConsumer<Login>, RequestError> {
        self.await_token()?;
        let client: BaseConsumer<Login> = self
            .consumer_config(false)
            .create_with_context(self.login())
            .map_err(|error| describe(&error))?;
        // The token is set by the first event, which only polling delivers.
        drop(client.poll(Duration::ZERO));
        Ok(client)
    }

    /// A consumer, with its token if it needs one. Blocks.
    pub(super) fn consumer(
        &self,
        config: &ClientConfig,
    ) -> Result<StreamConsumer<Login>, RequestError> {
        self.await_token()?;
        let consumer: StreamConsumer<Login> = config
            .create_with_context(self.login())
            .map_err(|error| describe(&error))?;
        // As above. Nothing is assigned yet, so no message can be lost.
        drop(consumer.recv().now_or_never());
        Ok(consumer)
    }

    fn await_token(&self) -> Result<(), RequestError> {
        let token = self.tokens.as_ref().map(Tokens::token).transpose();
        token
            .map(drop)
            .map_err(|error| format!("authentication failed: {error}").into())
    }

    /// Creates the clients that `run` and `tail` would create, without servers to connect to, and drops them.
    ///
    /// # Errors
    /// librdkafka's reason for rejecting the options, with the option to point at.
    pub(in crate::brokers) fn try_clients(
        &self,
        limits: Limits,
    ) -> Result<(), RejectedSettings<'_>> {
        let producers = std::iter::once(self.producer_config(limits))
            .chain(self.batching_producer_config(limits));
        let offline = |mut config: ClientConfig| {
            config.remove("bootstrap.servers");
            config
        };
        let tried = producers
            .map(|config| offline(config).create::<BaseProducer>().map(drop))
            .fold(Ok(()), Result::and);
        let consumer = || offline(self.consumer_config(false)).create::<BaseConsumer>();
        tried
            .and_then(|()| consumer().map(drop))
            .map_err(|error| options::conflict(&self.options, &error))
    }

    /// The option that makes the client refuse events which sources accept, and why, if there is one.
    pub(in crate::brokers) fn too_small(&self, limits: Limits) -> Option<(&str, String)> {
        let (name, value) = self
            .options
            .iter()
            .find(|(name, _)| name == "message.max.bytes")?;
        let needed = limits
            .max_body_bytes
            .saturating_add(Kind::Kafka.overhead_bytes())
            .min(MAX_MESSAGE_BYTES);
        let is_small = value
            .trim()
            .parse::<usize>()
            .is_ok_and(|most| most < needed);
        is_small.then(|| {
            let why = format!(
                "{name} is less than an event of max_body with the longest headers needs: a larger one is answered 503 however often it is sent; leave it out, or write {needed}"
            );
            (name.as_str(), why)
        })
    }

    /// The interval of the client's statistics, if the user has enabled them.
    pub(super) fn statistics_interval(&self) -> Option<Duration> {
        let mut options = self.options.iter();
        let (_, interval) = options.find(|(name, _)| name == "statistics.interval.ms")?;
        let interval = interval.trim().parse().ok()?;
        Some(Duration::from_millis(interval)).filter(|interval| !interval.is_zero())
    }

    pub(super) fn advice(&self) -> Advice {
        let creates = self.options.iter().any(|(name, value)| {
            name == "allow.auto.create.topics"
                && ["true", "t", "1"].contains(&value.trim().to_ascii_lowercase().as_str())
        });
        Advice {
            servers: self.bootstrap_servers.clone(),
            creates,
        }
    }

    /// Whether the bridge authenticates, so that its rights may differ from others'.
    pub(super) fn has_identity(&self) -> bool {
        let identities = ["sasl.", "ssl.key.", "ssl.certificate.", "ssl.keystore."];
        let mut names = self.options.iter().map(|(name, _)| name);
        names.any(|name| identities.iter().any(|start| name.starts_with(start)))
    }

    pub(in crate::brokers) fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The files that options name, such as `ssl.ca.location`.
    pub(in crate::brokers) fn files(&self) -> Vec<PathBuf> {
        let locations = self
            .options
            .iter()
            .filter(|(name, _)| name.ends_with(".location"));
        locations
            .map(|(_, value)| PathBuf::from(value.as_str()))
            .collect()
    }

    /// Private keys, with the configuration keys that name them.
    pub(in crate::brokers) fn private_files(&self) -> Vec<(String, PathBuf)> {
        let keys = self.options.iter().filter(|(name, _)| {
            matches!(name.as_str(), "ssl.key.location" | "ssl.keystore.location")
        });
        keys.map(|(name, value)| (format!("options.{name}"), PathBuf::from(value.as_str())))
            .collect()
    }

    /// The properties that all clients share.
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
        // Half of this is the minimum time between connection attempts while there is no connection, whatever the failure:
        // after a failed TLS handshake nothing else throttles them. A client that has found its brokers closes the bootstrap
        // connection, and waits for this time once.
        config.set("reconnect.backoff.ms", RECONNECT_MS);
        config.set("reconnect.backoff.max.ms", RECONNECT_MAX_MS);
        config.set("enable.metrics.push", "false");
        config.set("log.connection.close", "false");
        config
    }

    /// The properties of the batching producer; none if the user has set `linger.ms`.
    pub(super) fn batching_producer_config(&self, limits: Limits) -> Option<ClientConfig> {
        let is_decided = |(name, _): &(String, _)| LINGER.contains(&name.as_str());
        if self.options.iter().any(is_decided) {
            return None;
        }
        let mut config = self.producer_config(limits);
        config.set("linger.ms", BATCHING_LINGER_MS);
        Some(config)
    }

    /// The properties of the immediate producer: our defaults, then the user's options, then those that the guarantees fix.
    pub(super) fn producer_config(&self, limits: Limits) -> ClientConfig {
        let timeout_ms = limits
            .publish_timeout
            .saturating_sub(MARGIN)
            .max(LEAST_TIMEOUT)
            .as_millis();
        let mut config = self.client_config();
        config.set("enable.idempotence", "true");
        config.set("request.timeout.ms", timeout_ms.to_string());
        // Reports an unknown topic as such well before the message times out.
        config.set(
            "topic.metadata.propagation.max.ms",
            (timeout_ms / 2).min(5000).to_string(),
        );
        let message_bytes = limits
            .max_body_bytes
            .saturating_add(Kind::Kafka.overhead_bytes())
            .min(MAX_MESSAGE_BYTES);
        config.set("message.max.bytes", message_bytes.to_string());
        // Every request waits for its own acknowledgement.
        config.set("linger.ms", "0");
        config.set("partitioner", "murmur2_random");
        self.set_options(&mut config);
        config.set("acks", "all");
        config.set("message.timeout.ms", timeout_ms.to_string());
        // Slightly above the bridge's own limits, which must apply first.
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

    /// The properties of a consumer that commits nothing, for `tail` and the demo.
    pub(super) fn consumer_config(&self, from_start: bool) -> ClientConfig {
        let mut config = self.client_config();
        // librdkafka only warns in its log about producer properties on a consumer.
        self.set_options(&mut config);
        config.set("group.id", "hookbridge-tail");
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "false");
        config.set(
            "auto.offset.reset",
            if from_start { "earliest" } else { "latest" },
        );
        config
    }

    fn set_options(&self, config: &mut ClientConfig) {
        // A maximum below our first pause would be rejected, so the first pause follows it.
        let mut options = self.options.iter();
        if let Some((_, most)) = options.find(|(name, _)| name == "reconnect.backoff.max.ms")
            && most.trim().parse::<u32>().is_ok_and(|most| most < 1000)
        {
            config.set("reconnect.backoff.ms", most.trim());
        }
        for (name, value) in &self.options {
            if !oidc::is_ours(name) {
                config.set(name.as_str(), value.as_str());
            }
        }
    }
}
