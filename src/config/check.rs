//! From the user's TOML to a [`Config`]. Reading continues after a problem, so that every problem is reported.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytesize::ByteSize;
use serde_json::{Map, Value};

use super::brokers::Brokers;
use super::changes::Digests;
use super::model::{Admin, Config, Http, NamedBroker, ReadyWhen, Source};
use super::origin::{ConfigFile, Origin, PREFIX, SEPARATOR, read_file};
use super::routes::read_routes;
use super::sources::{Defaults, read_sources};
use super::strays::warn_of_strays;
use super::tables::{self, READY_WHEN};
use super::tls::read_tls;
use super::transport::read_networks;
use crate::table::{Files, Place, Problem, Problems, Reading, Secrets, Section, Spans};
use crate::{brokers, providers};

/// The least length of `admin.token`, in bytes.
const LEAST_TOKEN: usize = 16;

pub(super) fn load(origin: &Origin, secrets: Secrets) -> (Result<Config, Problems>, Files) {
    let mut files = Files::default();
    let config = match merge(origin, &mut files) {
        Ok((values, reading)) => {
            let reading = Reading { secrets, ..reading };
            check(values, reading, &mut files)
        }
        Err(problems) => Err(problems),
    };
    (config, files)
}

/// Loads values, for tests.
#[cfg(test)]
pub(super) fn from_values(values: Map<String, Value>) -> Result<Config, Problems> {
    check(values, Reading::default(), &mut Files::default())
}

fn check(
    values: Map<String, Value>,
    reading: Reading,
    files: &mut Files,
) -> Result<Config, Problems> {
    let mut digests = Digests::of(&values);
    let mut root = Section::new(&reading, String::new(), values, &tables::ROOT);
    let config = read(&mut root);
    root.finish();
    if let Some(config) = &config
        && reading.problems.borrow().is_empty()
    {
        try_clients(config, &reading);
        warn_of_stored_answers(config, &reading);
    }
    warn_of_strays(&reading);
    let (problems, warnings) = reading.take_findings();
    files.merge(reading.files.into_inner());
    match config {
        Some(config) if problems.is_empty() => {
            for source in &config.sources {
                digests.set_secrets(&source.name, &source.secret_digests);
            }
            Ok(Config {
                warnings,
                digests,
                ..config
            })
        }
        _ => Err(Problems(problems)),
    }
}

/// Options that are each valid may be refused in combination, which only the client library knows.
fn try_clients(config: &Config, reading: &Reading) {
    let limits = config.broker_limits();
    for broker in &config.brokers {
        if let Err(rejected) = broker.settings.try_clients(limits) {
            let table = format!("brokers.{}.options", broker.name);
            let path = match rejected.option {
                Some(option) => format!("{table}.{option}"),
                None => table,
            };
            reading.problem(&path, rejected.why);
        }
        if let Some((option, why)) = broker.settings.too_small(limits) {
            reading.warn(&format!("brokers.{}.options.{option}", broker.name), why);
        }
    }
}

/// A stream that takes everything below an event's first token would store the server's answers among the events.
fn warn_of_stored_answers(config: &Config, reading: &Reading) {
    for id in config.broker_ids() {
        let NamedBroker { name, settings, .. } = config.broker(id);
        let first = |subject: &str| subject.split('.').next().map(str::to_owned);
        let Some(inbox) = settings.inbox_prefix().and_then(first) else {
            continue;
        };
        let destinations = config.known_destinations(id);
        if destinations
            .iter()
            .any(|subject| first(subject).as_ref() == Some(&inbox))
        {
            reading.warn(
                &format!("brokers.{name}.inbox_prefix"),
                format!("events go below {inbox} too, so that a stream on {inbox}.> stores the server's answers among them; write a prefix of its own, for example \"_INBOX_{inbox}\""),
            );
        }
    }
}

/// The files and the environment as one table, with the origin of each value.
fn merge(origin: &Origin, files: &mut Files) -> Result<(Map<String, Value>, Reading), Problems> {
    let mut spans = Spans::default();
    let mut problems = Vec::new();
    let mut layers = config::Config::builder();
    for file in &origin.files {
        let (name, text) = match file {
            ConfigFile::Path(path) => {
                files.note(path);
                (path.display().to_string(), read_file(path))
            }
            ConfigFile::Text { name, text } => (name.clone(), Ok(text.clone())),
        };
        match text {
            Ok(text) => match spans.add_file(&name, &text) {
                Ok(values) => layers = layers.add_source(Layer(values)),
                Err(faults) => problems.extend(faults),
            },
            Err(error) => {
                let what = format!("{name} can't be read: {error}");
                problems.push(Problem::new(None, String::new(), &what));
            }
        }
    }
    let merged = layers
        .build()
        .and_then(config::Config::try_deserialize::<Map<String, Value>>);
    let mut merged = merged.map_err(|error| {
        let what = format!("the files can't be merged: {error}");
        Problems(vec![Problem::new(None, String::new(), &what)])
    })?;
    // Sorted, so that a variable for a whole table comes before those for its keys.
    let overrides: BTreeMap<&str, &str> = origin
        .environment
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    for (key, value) in overrides {
        let name = format!("{PREFIX}{key}");
        let path = key.to_lowercase().replace(SEPARATOR, ".");
        match set(&mut merged, &path, value) {
            Ok(()) => spans.add_variable(&path, &name),
            Err(what) => {
                problems.push(Problem::new(
                    Some(Place::Environment(name)),
                    path,
                    &what.to_string(),
                ));
            }
        }
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let environment: HashMap<_, _> = origin.environment.iter().cloned().collect();
    let is_stray = |name: &String| name.starts_with("HOOKBRIDGE_") && !name.starts_with(PREFIX);
    let known_keys = environment.keys().any(is_stray).then(RefCell::default);
    Ok((
        merged,
        Reading {
            spans,
            environment,
            known_keys,
            ..Reading::default()
        },
    ))
}

/// A file's values as a source for the `config` crate, which merges tables and replaces any other value.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        serde_json::from_value(Value::Object(self.0.clone()))
            .map_err(|error| config::ConfigError::Foreign(Box::new(error)))
    }
}

/// A variable for a key of something that is not a table.
#[derive(Debug, thiserror::Error)]
enum NotATable {
    #[error(
        "`{0}` is a list, which a variable sets as a whole; write a TOML array, for example {PREFIX}ROUTES='[{{ topic = \"hooks\" }}]'"
    )]
    List(String),
    #[error("`{0}` is not a table")]
    Value(String),
}

/// Sets the value of one key, creating the tables around it.
fn set(values: &mut Map<String, Value>, path: &str, value: &str) -> Result<(), NotATable> {
    let Some((table, rest)) = path.split_once('.') else {
        values.insert(path.to_owned(), Value::from(value));
        return Ok(());
    };
    let inner = values
        .entry(table)
        .or_insert_with(|| Value::Object(Map::new()));
    match inner {
        Value::Object(inner) => set(inner, rest, value),
        Value::Array(_) => Err(NotATable::List(table.to_owned())),
        _ => Err(NotATable::Value(table.to_owned())),
    }
}

fn read(root: &mut Section<'_>) -> Option<Config> {
    let (http, defaults) = read_http(root.section_or_empty("http"));
    let admin = read_admin(root.section_or_empty("admin"));
    let brokers = Brokers::read(root);
    let (mut sources, declared) = read_sources(root, &brokers, &defaults);
    read_routes(root, &brokers, &mut sources, &declared);
    refuse_bare_presets(root);
    check_paths(root, &sources);
    check_addresses(root, &http, &admin);
    let config = Config {
        http,
        admin,
        brokers: brokers.list,
        sources: sources.into_iter().map(Arc::new).collect(),
        warnings: Vec::new(),
        digests: Digests::default(),
    };
    warn_of_colliding_topics(root, &config);
    Some(config)
}

/// `[github]` instead of `[sources.github]`.
fn refuse_bare_presets(root: &mut Section<'_>) {
    for (name, _) in root.unknown_keys() {
        if providers::find(&name).is_some() {
            root.problem_at(
                &name,
                format!("a source is a table in `sources`; write `[sources.{name}]`"),
            );
            root.discard(&name);
        }
    }
}

fn read_http(mut section: Section<'_>) -> (Http, Defaults) {
    let http2 = section.flag("http2");
    if section.is_empty_list("tls") {
        section.problem_at("tls", "an empty list has no certificate; write `tls = { cert = \"…\", key = \"…\" }`, or leave `tls` out for plain HTTP");
    }
    let tls = section.tables("tls");
    let has_client_ca = tls.first().is_some_and(|tls| tls.has("client_ca"));
    let trusted_proxies = read_networks(
        &mut section,
        "trusted_proxies",
        "so that any sender could claim any address; list your proxies",
    );
    let defaults = Defaults {
        max_body: section.size("max_body"),
        publish_timeout: section.duration("publish_timeout"),
        max_in_flight: section.count("max_in_flight"),
        trusted_proxies: trusted_proxies.clone(),
        has_client_ca,
    };
    let http = Http {
        listen: read_address(&mut section, 8080),
        header_timeout: section.duration("header_timeout"),
        idle_timeout: section.duration("idle_timeout"),
        body_timeout: section.duration("body_timeout"),
        max_in_flight: defaults.max_in_flight,
        max_in_flight_bytes: section.size("max_in_flight_bytes"),
        max_connections: section.count("max_connections"),
        max_connection_age: section.duration("max_connection_age"),
        drain_delay: section.duration("drain_delay"),
        shutdown_timeout: section.duration("shutdown_timeout"),
        trusted_proxies,
        access_log: section.flag("access_log"),
        http2,
        tls: read_tls(tls, http2),
    };
    if http.max_in_flight_bytes < defaults.max_body {
        section.problem_at(
            "max_in_flight_bytes",
            format!("is less than `max_body`: no event of that size could ever be accepted; write \"{}\" or more", ByteSize(defaults.max_body as u64)),
        );
    }
    if http.drain_delay >= http.shutdown_timeout {
        section.problem_at(
            "drain_delay",
            format!(
                "leaves no part of `shutdown_timeout` to finish requests; write less than {}",
                humantime::format_duration(http.shutdown_timeout)
            ),
        );
    }
    section.finish();
    (http, defaults)
}

fn read_admin(mut section: Section<'_>) -> Admin {
    let listen = read_address(&mut section, 9090);
    if !listen.ip().is_loopback() {
        section.warn_at("listen", format!("the admin listener at {listen} can be reached from other machines, and needs no password for /metrics, /healthz and /readyz; write \"127.0.0.1:9090\", or keep it in a private network"));
    }
    let ready_when = section
        .word("ready_when", &READY_WHEN)
        .unwrap_or(ReadyWhen::Any);
    let token = section.own_secret("token");
    if token
        .as_ref()
        .is_some_and(|token| token.expose().len() < LEAST_TOKEN)
    {
        section.problem_at("token", format!("has fewer than {LEAST_TOKEN} bytes and could be guessed; make one with `openssl rand -hex 32`"));
    }
    let show_bodies = section.flag("show_bodies");
    section.finish();
    Admin {
        listen,
        ready_when,
        token,
        show_bodies,
    }
}

/// The second of two listeners at one address could not start.
fn check_addresses(root: &Section<'_>, http: &Http, admin: &Admin) {
    let (public, private) = (http.listen, admin.listen);
    if public.port() != private.port() || public.port() == 0 {
        return;
    }
    // `[::]` accepts IPv4 too.
    let covers = |wide: IpAddr, ip: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || ip.to_canonical().is_ipv4())
    };
    let (one, other) = (public.ip(), private.ip());
    if one.to_canonical() == other.to_canonical() || covers(one, other) || covers(other, one) {
        root.problem_at(
            "admin.listen",
            format!(
                "both listeners can't have the port {}: `http.listen` is \"{public}\" and `admin.listen` is \"{private}\"; give one of them another port",
                public.port()
            ),
        );
    }
}

fn read_address(section: &mut Section<'_>, usual_port: u16) -> SocketAddr {
    let given = section.peek("listen").map(str::to_owned);
    let write = given.as_deref().map_or_else(String::new, |text| {
        format!("write for example {}", address_meant(text, usual_port))
    });
    let write = match given {
        None => format!("write for example \"0.0.0.0:{usual_port}\" or \"[::]:{usual_port}\""),
        Some(_) => write,
    };
    let expected = format!("an IP address with a port; {write}");
    let read = section.parsed("listen", &expected);
    read.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The addresses that were probably meant by a text that is none.
fn address_meant(text: &str, usual_port: u16) -> String {
    let text = text.rsplit_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split('/').next().unwrap_or(text);
    let quoted = |ip: IpAddr, port: u16| format!("\"{}\"", SocketAddr::new(ip, port));
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().unwrap_or(usual_port);
    match (host, host.parse::<IpAddr>().or_else(|_| text.parse())) {
        (_, Ok(ip)) => quoted(ip, port),
        ("localhost", _) => quoted(IpAddr::from([127, 0, 0, 1]), port),
        ("" | "*", _) => format!("\"0.0.0.0:{port}\" or \"[::]:{port}\""),
        _ => format!(
            "\"0.0.0.0:{port}\" for every address of this machine, since names are not resolved"
        ),
    }
}

fn check_paths(root: &Section<'_>, sources: &[Source]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for source in sources {
        if let Some(other) = seen.insert(&source.path, &source.name) {
            let key = format!("sources.{}.path", source.name);
            let path = root.quote(&key, &source.path);
            root.problem_at(
                &key,
                format!(
                    "the sources {other} and {} have the same path {path}; give one of them another `path`",
                    source.name
                ),
            );
        }
    }
}

/// Kafka's metrics cannot distinguish `a.b` from `a_b`, and the broker refuses to create the second of them.
fn warn_of_colliding_topics(root: &Section<'_>, config: &Config) {
    for id in config.broker_ids() {
        let broker = config.broker(id);
        if broker.settings.kind() != brokers::Kind::Kafka {
            continue;
        }
        let topics = config.known_destinations(id);
        let mut seen = HashSet::new();
        for topic in &topics {
            if !seen.insert(topic.replace('.', "_")) {
                root.warn_at("routes", format!("Kafka can't have both {topic} and a topic that differs from it by `.` and `_` alone; use one of the two characters"));
            }
        }
    }
}
