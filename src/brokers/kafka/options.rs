//! librdkafka's properties as `options`: properties that would break the guarantees, that this build lacks, and legal values.
//!
//! The lists follow `CONFIGURATION.md` of librdkafka 2.12 from top to bottom. Anything else passes through.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::oidc::{self, MECHANISM, Oidc, Options};
use crate::brokers::error::RejectedSettings;
use crate::table::Section;

/// Properties that cannot be set, with the reasons.
const REFUSED: [(&[&str], &str); 14] = [
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
        &[
            "delivery.report.only.error",
            "dr_cb",
            "dr_msg_cb",
            "enabled_events",
        ],
        "without success reports no event could be acknowledged",
    ),
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "it is `bootstrap_servers`, beside `options`",
    ),
    (
        &["transactional.id"],
        "each event is acknowledged on its own; outside of a transaction such a producer refuses every one",
    ),
    (
        &["enable.gapless.guarantee"],
        "one refused event would end the producer, and every event in flight with it",
    ),
    (
        &["topic.blacklist"],
        "the client would not see the topics that events go to",
    ),
    (
        &["api.version.fallback.ms", "broker.version.fallback"],
        "protocol versions before Kafka 0.10 have neither headers nor idempotence; brokers say which versions they speak",
    ),
    (
        &["internal.termination.signal"],
        "the client would send signals to the bridge's own threads",
    ),
    (
        &["plugin.library.paths"],
        "a plugin can change what is published or acknowledged; plugins are not in this build",
    ),
    (
        &["enable.sasl.oauthbearer.unsecure.jwt"],
        "its tokens are not signed; OAUTHBEARER needs sasl.oauthbearer.method = \"oidc\"",
    ),
    (
        &["msg_order_cmp"],
        "events with one key would not keep their order",
    ),
    (
        &["group.id", "group.instance.id"],
        "`tail` and `replay` have groups of their own, so that one does not move the other's position",
    ),
];

/// Values that cannot be set although the property can.
const REFUSED_VALUES: [(&str, &[&str], &str); 2] = [
    (
        "api.version.request",
        &["false", "f", "0"],
        "the client would speak a protocol version that has neither headers nor idempotence; leave it out",
    ),
    (
        "queuing.strategy",
        &["lifo"],
        "events with one key would not keep their order; leave it out",
    ),
];

/// Prefixes of properties that cannot be set, with the reasons.
const REFUSED_FAMILIES: [(&str, &str); 2] = [
    (
        "test.mock.",
        "it replaces the cluster by one in memory, which acknowledges events and stores nothing",
    ),
    ("ut_", "it is for librdkafka's own tests"),
];

/// Prefixes of properties that need a feature that this build lacks.
const NOT_BUILT: [(&str, &str); 1] = [("sasl.kerberos.", KERBEROS)];

const KERBEROS: &str = "Kerberos (GSSAPI) is not in this build; use SCRAM-SHA-512, PLAIN over TLS, OAUTHBEARER, or a client certificate";

/// Properties of the Java client, with what librdkafka has instead.
const JAVA: [(&[&str], &str); 8] = [
    (
        &["sasl.jaas.config"],
        "write sasl.mechanism, sasl.username and sasl.password",
    ),
    (
        &[
            "ssl.truststore.location",
            "ssl.truststore.password",
            "ssl.truststore.type",
            "ssl.truststore.certificates",
        ],
        "write ssl.ca.location with the authorities' certificates as PEM",
    ),
    (
        &[
            "ssl.keystore.type",
            "ssl.keystore.certificate.chain",
            "ssl.keystore.key",
        ],
        "write ssl.certificate.location and ssl.key.location with PEM files, or ssl.keystore.location with PKCS#12",
    ),
    (
        &[
            "key.serializer",
            "value.serializer",
            "key.deserializer",
            "value.deserializer",
        ],
        "leave it out: the bridge publishes the bytes that it received",
    ),
    (
        &["buffer.memory"],
        "write `max_in_flight_bytes` under [http]",
    ),
    (&["max.block.ms"], "write `publish_timeout`"),
    (
        &["max.request.size"],
        "write message.max.bytes, if `max_body` does not set it right",
    ),
    (
        &[
            "sasl.login.callback.handler.class",
            "sasl.client.callback.handler.class",
            "interceptor.classes",
            "partitioner.class",
        ],
        "leave it out: no class can be loaded",
    ),
];

/// The legal values of properties that take words.
const WORDS: [(&[&str], &str); 14] = [
    (
        &["compression.type", "compression.codec"],
        "none, gzip, snappy, lz4 or zstd",
    ),
    (
        &["security.protocol"],
        "plaintext, ssl, sasl_plaintext or sasl_ssl",
    ),
    (
        &MECHANISM,
        "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
    ),
    (&["ssl.endpoint.identification.algorithm"], "https or none"),
    (&["broker.address.family"], "any, v4 or v6"),
    (
        &["client.dns.lookup"],
        "use_all_dns_ips or resolve_canonical_bootstrap_servers_only",
    ),
    (&["metadata.recovery.strategy"], "rebootstrap or none"),
    (
        &["partitioner"],
        "murmur2_random (the Java client's), murmur2, consistent_random, consistent, fnv1a_random, fnv1a or random",
    ),
    (&["auto.offset.reset"], "earliest, latest or error"),
    (&["offset.store.method"], "broker or file"),
    (
        &["partition.assignment.strategy"],
        "range, roundrobin or cooperative-sticky",
    ),
    (&["isolation.level"], "read_committed or read_uncommitted"),
    (&["group.protocol"], "classic or consumer"),
    (
        &["debug"],
        "generic, broker, topic, metadata, feature, queue, msg, protocol, cgrp, security, fetch, interceptor, plugin, consumer, admin, eos, assignor, conf, telemetry or all, with commas between them",
    ),
];

const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// Shorter pauses between attempts to connect make a storm of a broker's refusals.
const LEAST_PAUSE_MS: u32 = 100;

/// The problem with an option, without its value, which may be a secret.
pub(super) fn problem(name: &str, value: &str) -> Option<String> {
    if let Some(reason) = refusal(name, value) {
        let help = if reason.contains("; ") {
            ""
        } else {
            "; remove it"
        };
        return Some(format!("{name} can't be set: {reason}{help}"));
    }
    if let Some(reason) = not_built(name, value) {
        return Some(format!("{name}: {reason}"));
    }
    if let Some((_, instead)) = JAVA.iter().find(|(names, _)| names.contains(&name)) {
        return Some(format!(
            "{name} is a property of the Java client, and this one is librdkafka; {instead}"
        ));
    }
    if oidc::is_ours(name) {
        return oidc::problem(name, value);
    }
    // librdkafka would read "5s" as 5, and "16KB" as 16.
    if takes_a_number(name) && !is_plain_number(value.trim()) {
        return Some(format!(
            "{name} has a value that is not a plain number; write one without a unit, for example 1000"
        ));
    }
    // librdkafka itself would only refuse it with the first client.
    if MECHANISM.contains(&name) && !MECHANISMS.contains(&value.trim()) {
        return Some(format!(
            "{name} has a value that is not a mechanism; write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, in capitals"
        ));
    }
    let description = rejection(name, value)?;
    let words = WORDS.iter().find(|(names, _)| names.contains(&name));
    let range = description
        .split_once("outside allowed range ")
        .map(|(_, range)| range.trim());
    let what = if description.contains("No such configuration property") {
        match similar_property(name) {
            Some(known) => format!("is not a property of librdkafka; write \"{known}\""),
            None => "is not a property of librdkafka; its CONFIGURATION.md lists them".to_owned(),
        }
    } else if let Some((_, why)) = description.split_once("not supported in this build: ") {
        format!("is not in this build of librdkafka ({})", why.trim())
    } else if description.starts_with("Unsupported value") {
        "has a value that needs OpenSSL: build with the Cargo feature kafka-tls".to_owned()
    } else if description.contains("dedicated") || description.contains("not settable") {
        "is set by programs only, not as text; leave it out".to_owned()
    } else if let Some((_, words)) = words {
        format!("has a value that librdkafka rejects; write {words}")
    } else if let Some(range) = range {
        format!("has a value out of bounds; write a number in {range}")
    } else if description.contains("Expected bool") {
        "is neither true nor false; write one of them".to_owned()
    } else {
        "has a value that librdkafka rejects (see its CONFIGURATION.md)".to_owned()
    };
    Some(format!("{name} {what}"))
}

/// Reports the client's properties beside `options` instead of in it, such as `security_protocol` or
/// `sasl = { mechanism = … }`.
pub(super) fn refuse_misplaced(section: &mut Section<'_>) {
    for (key, inner) in section.unknown_keys() {
        let plain = key.replace('_', ".");
        let names: Vec<_> = match inner.as_slice() {
            [] => vec![plain],
            inner => inner
                .iter()
                .map(|name| format!("{plain}.{}", name.replace('_', ".")))
                .collect(),
        };
        let Some(name) = names.first() else { continue };
        let is_java = JAVA.iter().any(|(names, _)| names.contains(&name.as_str()));
        let what = if refusal(name, "").is_some() {
            problem(name, "").unwrap_or_default()
        } else if is_java || oidc::is_ours(name) || is_property(name) {
            let pairs: Vec<_> = names.iter().map(|name| format!("\"{name}\" = …")).collect();
            format!(
                "is an option of the client; write `options = {{ {} }}`",
                pairs.join(", ")
            )
        } else {
            continue;
        };
        if name != "bootstrap.servers" && name != "metadata.broker.list" {
            section.problem_at(&key, what);
            section.discard(&key);
        }
    }
}

/// Whether librdkafka has a property of this name.
fn is_property(name: &str) -> bool {
    !rejection(name, "").is_some_and(|why| why.contains("No such configuration property"))
}

/// Whether a property takes a number: 1 at least in principle, and no word, as a flag does.
fn takes_a_number(name: &str) -> bool {
    rejection(name, "1").is_none_or(|why| why.contains("outside allowed range"))
        && rejection(name, "x").is_some_and(|why| !why.contains("Expected bool"))
}

fn is_plain_number(value: &str) -> bool {
    let is_allowed = |character: char| character.is_ascii_digit() || "+-.".contains(character);
    value.chars().all(is_allowed) && value.parse::<f64>().is_ok()
}

/// librdkafka's words about a property and a value that it rejects.
fn rejection(name: &str, value: &str) -> Option<String> {
    let refused = ClientConfig::new().set(name, value).create_native_config();
    match refused.err()? {
        KafkaError::ClientConfig(_, description, ..) => Some(description),
        other => Some(other.to_string()),
    }
}

/// Java's or a misspelt name of a property of librdkafka.
fn similar_property(name: &str) -> Option<String> {
    let dotted = name.replace(['_', '-'], ".").to_lowercase();
    (dotted != name && is_property(&dotted)).then_some(dotted)
}

fn refusal(name: &str, value: &str) -> Option<&'static str> {
    let property = REFUSED.iter().find(|(names, _)| names.contains(&name));
    let family = || {
        REFUSED_FAMILIES
            .iter()
            .find(|(start, _)| name.starts_with(start))
    };
    let refused_value = || {
        let is_refused = |refused: &&str| refused.eq_ignore_ascii_case(value.trim());
        let mut values = REFUSED_VALUES.iter();
        values.find(|(refused, values, _)| *refused == name && values.iter().any(is_refused))
    };
    property
        .map(|(_, reason)| *reason)
        .or_else(|| family().map(|(_, reason)| *reason))
        .or_else(|| refused_value().map(|(_, _, reason)| *reason))
}

fn not_built(name: &str, value: &str) -> Option<&'static str> {
    if MECHANISM.contains(&name) {
        return value
            .trim()
            .eq_ignore_ascii_case("GSSAPI")
            .then_some(KERBEROS);
    }
    let family = NOT_BUILT.iter().find(|(start, _)| name.starts_with(start));
    family.map(|(_, reason)| *reason)
}

/// librdkafka's reason for rejecting the combination of options.
pub(super) fn conflict<'o>(options: &'o Options, error: &KafkaError) -> RejectedSettings<'o> {
    let why = super::describe(error);
    if why.contains("No provider for SASL mechanism GSSAPI") {
        return RejectedSettings {
            option: option_named("security.protocol", options),
            why: format!(
                "sasl.mechanism is missing: librdkafka's default is GSSAPI, and {KERBEROS}"
            ),
        };
    }
    // librdkafka often names a property by the alias that the user did not choose.
    let aliases = [
        ("max.in.flight", "max.in.flight.requests.per.connection"),
        ("linger.ms", "queue.buffering.max.ms"),
        ("retries", "message.send.max.retries"),
    ];
    let is_named = |name: &str| {
        let other = aliases.iter().find(|(_, alias)| *alias == name);
        why.contains(name) || other.is_some_and(|(alias, _)| why.contains(alias))
    };
    let named = options
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| is_named(name))
        .max_by_key(|name| name.len());
    let why = why.trim();
    let help = match named {
        Some(_) if why.ends_with("must be set") => "; set both",
        Some(_) if why.contains("mandatory") => "; set it too",
        Some(name) if name.ends_with(".location") => {
            "; write the path of a file that is there and is PEM, or PKCS#12 for a keystore"
        }
        _ => "",
    };
    RejectedSettings {
        option: named,
        why: format!(
            "librdkafka refuses these options: {}{help}",
            why.replace("; ", ", ")
        ),
    }
}

fn option_named<'o>(name: &str, options: &'o Options) -> Option<&'o str> {
    let mut names = options.iter().map(|(name, _)| name.as_str());
    names.find(|known| *known == name)
}

/// An option's value in lower case.
fn option(options: &Options, name: &str) -> Option<String> {
    let found = options.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.trim().to_ascii_lowercase())
}

/// Warns of options that work but are rarely intended.
pub(super) fn warn(section: &Section<'_>, options: &Options, oidc: Option<&Oidc>) {
    let value = |name: &str| option(options, name);
    let warn = |name: &str, what: String| section.warn_at(&format!("options.{name}"), what);
    let protocol = value("security.protocol").unwrap_or_else(|| "plaintext".to_owned());
    let (has_tls, has_login) = (protocol.ends_with("ssl"), protocol.starts_with("sasl"));
    if matches!(
        value("enable.ssl.certificate.verification").as_deref(),
        Some("false" | "f" | "0")
    ) {
        warn(
            "enable.ssl.certificate.verification",
            "the broker's certificate is not verified: anyone on the network path can pose as the broker, read the events and acknowledge them; name the authority with ssl.ca.location instead".to_owned(),
        );
    }
    if value("ssl.endpoint.identification.algorithm").as_deref() == Some("none") {
        warn(
            "ssl.endpoint.identification.algorithm",
            "the name in the broker's certificate is not verified: any certificate of a trusted authority passes; leave it out".to_owned(),
        );
    }
    let milliseconds = |name: &str| value(name).and_then(|text| text.parse::<u32>().ok());
    for name in ["reconnect.backoff.ms", "reconnect.backoff.max.ms"] {
        if milliseconds(name).is_some_and(|pause| pause < LEAST_PAUSE_MS) {
            warn(
                name,
                format!(
                    "{name} allows many connection attempts a second to a broker that refuses them; leave it out, or write {LEAST_PAUSE_MS} or more"
                ),
            );
        }
    }
    for name in ["ssl.engine.location", "ssl.providers"] {
        if value(name).is_some() {
            warn(
                name,
                format!(
                    "{name} loads a library into the bridge, which then has its secrets; make sure that nobody else can write it"
                ),
            );
        }
    }
    if oidc.is_some_and(Oidc::is_exposed) {
        warn(
            "sasl.oauthbearer.token.endpoint.url",
            "the client's secret and its tokens cross the network in clear text; use https"
                .to_owned(),
        );
    }
    if protocol == "sasl_plaintext" {
        let mechanism = MECHANISM.iter().find_map(|name| value(name));
        let what = match mechanism.as_deref() {
            Some("plain") => {
                "the password crosses the network in clear text, and events are not encrypted; use sasl_ssl"
            }
            Some("oauthbearer") => {
                "the access token crosses the network in clear text, and events are not encrypted; use sasl_ssl"
            }
            _ => "neither the login nor the events are encrypted; use sasl_ssl",
        };
        warn("security.protocol", what.to_owned());
    }
    let unused = |family: &str| {
        let mut names = options.iter().map(|(name, _)| name.as_str());
        names.find(|name| name.starts_with(family))
    };
    if let Some(name) = unused("sasl.").filter(|_| !has_login) {
        let with_login = if has_tls {
            "sasl_ssl"
        } else {
            "sasl_ssl (or sasl_plaintext)"
        };
        warn(
            name,
            format!(
                "{name} has no effect: security.protocol is {protocol}; set it to {with_login}"
            ),
        );
    }
    for family in ["sasl.oauthbearer.", "https.ca."] {
        if let Some(name) = unused(family).filter(|_| oidc.is_none() && has_login) {
            warn(
                name,
                format!("{name} has no effect: sasl.mechanism is not OAUTHBEARER"),
            );
        }
    }
    if let Some(name) = unused("ssl.").filter(|_| !has_tls) {
        let with_tls = if has_login { "sasl_ssl" } else { "ssl" };
        warn(
            name,
            format!("{name} has no effect: security.protocol is {protocol}; set it to {with_tls}"),
        );
    }
}

const EXAMPLE: &str = "write for example \"kafka-1:9092,kafka-2:9092\"";

/// A mistake in `bootstrap_servers`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServersError {
    #[error(
        "a user and password do not belong here; write \"host:9092\", and set sasl.username and sasl.password under `options`"
    )]
    Password,
    #[error("it names no server; {EXAMPLE}")]
    Empty,
    /// A server by its number, since the value may come from a variable and be a secret.
    #[error("server {0} {1}; {EXAMPLE}")]
    Server(usize, &'static str),
}

/// Checks `bootstrap_servers`, for clients with these options.
pub(super) fn check_servers(servers: &str, options: &Options) -> Result<(), ServersError> {
    let protocol = option(options, "security.protocol").unwrap_or_else(|| "plaintext".to_owned());
    if servers.contains('@') {
        // The value may be a password.
        return Err(ServersError::Password);
    }
    if servers.trim_matches([',', ' ']).is_empty() {
        return Err(ServersError::Empty);
    }
    let entries = servers.split(',').map(str::trim);
    let mut named = entries.filter(|entry| !entry.is_empty()).zip(1..);
    named.try_for_each(|(entry, number)| {
        let refuse = |what| Err(ServersError::Server(number, what));
        let address = match entry.split_once("://") {
            None => entry,
            Some((named, address)) if named.eq_ignore_ascii_case(&protocol) => address,
            Some((named, _)) if PROTOCOLS.contains(&named.to_ascii_lowercase().as_str()) => {
                return refuse(
                    "names another protocol than security.protocol, with which no connection works; set security.protocol under `options`",
                );
            }
            Some(_) => return refuse("is a URL; Kafka's brokers have a host and a port only"),
        };
        if address.contains(';') {
            return refuse("contains a semicolon; servers are separated by commas");
        }
        if address.contains(char::is_whitespace) {
            return refuse("contains a space; servers are separated by commas");
        }
        if address.contains('/') {
            return refuse("contains a path; Kafka's brokers have a host and a port only");
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                None => return refuse("lacks the closing bracket of its IPv6 address"),
                Some((host, "")) => (host, None),
                Some((host, port)) => match port.strip_prefix(':') {
                    None => return refuse("has something other than a port after its address"),
                    port => (host, port),
                },
            },
            None => match address.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return refuse(
                        "is ambiguous: an IPv6 address needs brackets, as in [::1]:9092",
                    );
                }
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        if host.is_empty() {
            return refuse("lacks its host");
        }
        match port.map(str::parse::<u16>) {
            None => Ok(()),
            Some(Ok(port)) if port > 0 => Ok(()),
            Some(_) => refuse("has a port that is not a number from 1 to 65535"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_ports_and_anything_else_is_refused_with_what_to_write() {
        for good in [
            "k",
            "k:9092",
            "k-1:9092,k-2:9092",
            "k-1:9092, k-2:9092",
            "k:9092,",
            "[::1]:9092",
            "[::1]",
            "10.0.0.1:1",
            "PLAINTEXT://k:9092",
        ] {
            assert_eq!(check_servers(good, &[]), Ok(()), "{good}");
        }
        let protocol = ("security.protocol".to_owned(), "SASL_SSL".to_owned().into());
        assert_eq!(check_servers("sasl_ssl://k:9092", &[protocol]), Ok(()));
        let refused = check_servers("k:1,SASL_SSL://k:9092", &[]).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("server 2 names another protocol"),
            "{refused}"
        );
        for bad in [
            "",
            " ",
            ",",
            "http://k:9092",
            "kafka://k:9092",
            ":9092",
            ":abc",
            "k:abc",
            "k:",
            "k:0",
            "k:99999",
            "k:-1",
            ";",
            "a:1;b:2",
            "a:1 b:2",
            "k:9092/path",
            "::1",
            "::1:9092",
            "[::1",
            "[::1]x",
        ] {
            let refused = check_servers(bad, &[]).unwrap_err().to_string();
            assert!(refused.contains("kafka-1:9092"), "{bad:?}: {refused}");
        }
        let refused = check_servers("bridge:hunter2@k:9092", &[])
            .unwrap_err()
            .to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        assert!(refused.contains("sasl.password"), "{refused}");
    }

    #[test]
    fn options_that_would_break_the_guarantees_cannot_be_set() {
        for (name, value) in [
            ("transactional.id", "t"),
            ("test.mock.num.brokers", "3"),
            ("test.mock.broker.rtt", "1"),
            ("api.version.request", "false"),
            ("api.version.request", "0"),
            ("api.version.fallback.ms", "1000"),
            ("broker.version.fallback", "0.9.0"),
            ("enable.gapless.guarantee", "true"),
            ("queuing.strategy", "lifo"),
            ("topic.blacklist", ".*"),
            ("internal.termination.signal", "15"),
            ("enabled_events", "0"),
            ("plugin.library.paths", "x.so"),
        ] {
            let problem = problem(name, value).unwrap_or_default();
            assert!(problem.starts_with(name), "{name}: {problem}");
            assert!(problem.contains("can't be set"), "{name}: {problem}");
        }
        assert_eq!(problem("api.version.request", "true"), None);
        assert_eq!(problem("queuing.strategy", "fifo"), None);
    }

    #[test]
    fn features_missing_from_this_build_are_reported_as_such() {
        for (name, value) in [
            ("sasl.mechanism", "GSSAPI"),
            ("sasl.mechanisms", "gssapi"),
            ("sasl.oauthbearer.assertion.algorithm", "RS256"),
            (
                "sasl.oauthbearer.metadata.authentication.type",
                "azure_imds",
            ),
            ("sasl.kerberos.keytab", "/x"),
            ("ssl.ca.certificate.stores", "Root"),
            ("plugin.library.paths", "x"),
        ] {
            let problem = problem(name, value).unwrap_or_default();
            assert!(problem.contains("not in this build"), "{name}: {problem}");
        }
    }

    #[test]
    fn a_bad_value_is_answered_with_what_may_be_written_and_never_shown() {
        for (name, value, expected) in [
            ("compression.type", "hunter2", "lz4"),
            ("compression.codec", "hunter2", "zstd"),
            ("security.protocol", "hunter2", "sasl_ssl"),
            ("sasl.mechanism", "hunter2,hunter3", "SCRAM-SHA-512"),
            ("partitioner", "hunter2", "murmur2_random"),
            ("client.dns.lookup", "hunter2", "use_all_dns_ips"),
            ("socket.keepalive.enable", "hunter2", "true"),
            ("reconnect.backoff.ms", "hunter2", "number"),
            ("linger.ms", "5s", "without a unit"),
            ("batch.size", "16KB", "without a unit"),
            ("batch.size", "1e6", "without a unit"),
            ("compression.level", "9x", "without a unit"),
            ("max.in.flight", "5 or so", "without a unit"),
            ("topic.metadata.refresh.fast.cnt", "1k", "without a unit"),
            ("retries", "three", "number"),
            ("log_level", "99", "0..7"),
            ("socket.timeout.ms", "1", "10..300000"),
            ("error_cb", "hunter2", "leave it out"),
            ("opaque", "hunter2", "leave it out"),
        ] {
            let problem = problem(name, value).unwrap_or_default();
            assert!(problem.contains(expected), "{name}: {problem}");
            assert!(!problem.contains("hunter"), "{name}: {problem}");
        }
        for (name, value) in [
            ("compression.type", "lz4"),
            ("compression.type", "zstd"),
            ("linger.ms", "0.5"),
            ("linger.ms", "5"),
            ("batch.size", "16384"),
            ("compression.level", "-1"),
            ("client.id", "7x"),
            ("client.rack", "1a"),
            ("enable.idempotence", "1"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("ssl.ca.location", "/x"),
        ] {
            assert_eq!(problem(name, value), None);
        }
    }
}
