//! From what the user wrote to a [`Config`]. It goes on after a problem, so that every one is reported.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::{Environment, File, FileFormat};
use globset::{Glob, GlobMatcher};
use http::{HeaderName, StatusCode};
use serde_json::{Map, Value};

use super::problem::{Problem, Problems};
use super::section::{Reading, Section, WordOrSection, did_you_mean};
use super::spans::Spans;
use super::template::{Part, Template};
use super::{
    Action, Admin, BrokerId, Config, ConfigFile, Destination, Http, NamedBroker, Origin, Otherwise,
    ReadyWhen, Route, Source,
};
use crate::brokers;
use crate::json::Schema;
use crate::providers::{self, Provider, VerifierSettings};

/// What stands before the environment variables that override the files.
const PREFIX: &str = "HOOKBRIDGE";
const SEPARATOR: &str = "__";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 * MIB as u64;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Headers that are never passed on: they would be taken for the bridge's own, or mean something to the broker.
const NEVER_FORWARDED: [&str; 5] = [
    "event_id",
    "event_id_origin",
    "authorization",
    "cookie",
    "traceparent",
];
const NEVER_FORWARDED_PREFIXES: [&str; 4] = ["nats-", "ce-", "ce_", "hookbridge_"];

pub(super) fn load(origin: &Origin) -> Result<Config, Problems> {
    let (values, reading) = merge(origin)?;
    let mut root = Section::new(&reading, String::new(), values);
    let config = read(&mut root, &reading);
    root.finish();
    let mut warnings = reading.warnings.into_inner();
    let mut problems = reading.problems.into_inner();
    warnings.sort();
    problems.sort();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(Problems(problems)),
    }
}

/// The files and the environment as one table, and where each of its values came from.
fn merge(origin: &Origin) -> Result<(Map<String, Value>, Reading), Problems> {
    let mut spans = Spans::default();
    let mut problems = Vec::new();
    let mut builder = config::Config::builder();
    for file in &origin.files {
        let (name, text) = match file {
            ConfigFile::Path(path) => (path.display().to_string(), read_file(path)),
            ConfigFile::Text { name, text } => (name.clone(), Ok(text.clone())),
        };
        match text {
            Ok(text) => match spans.add_file(&name, &text) {
                Ok(()) => builder = builder.add_source(File::from_str(&text, FileFormat::Toml)),
                Err(faults) => problems.extend(faults),
            },
            Err(error) => problems.push(Problem {
                place: None,
                what: format!("{name} can't be read: {error}"),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let prefix = format!("{PREFIX}{SEPARATOR}");
    let overrides: HashMap<String, String> = origin
        .environment
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .cloned()
        .collect();
    for name in overrides.keys() {
        let path = name
            .trim_start_matches(&prefix)
            .to_lowercase()
            .replace(SEPARATOR, ".");
        spans.add_variable(&path, name);
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(overrides));
    let merged = builder
        .add_source(environment)
        .build()
        .and_then(config::Config::try_deserialize::<Map<String, Value>>);
    let values = merged.map_err(|error| {
        Problems(vec![Problem {
            place: None,
            what: error.to_string(),
        }])
    })?;
    let environment = origin.environment.iter().cloned().collect();
    Ok((
        values,
        Reading {
            spans,
            environment,
            problems: RefCell::default(),
            warnings: RefCell::default(),
        },
    ))
}

fn read_file(file: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    std::fs::read_to_string(file)
}

fn read(root: &mut Section<'_>, reading: &Reading) -> Option<Config> {
    let (http, defaults) = read_http(
        root.section("http")
            .unwrap_or_else(|| Section::new(reading, "http".to_owned(), Map::new())),
    );
    let admin = read_admin(
        root.section("admin")
            .unwrap_or_else(|| Section::new(reading, "admin".to_owned(), Map::new())),
    );
    let brokers = Brokers::read(root);
    let mut sources = read_sources(root, &brokers, &defaults);
    read_routes(root, &brokers, &mut sources);
    check_paths(root, &sources);
    let config = Config {
        http: http?,
        admin: admin?,
        brokers: brokers.list,
        sources: sources.into_iter().map(Arc::new).collect(),
        warnings: Vec::new(),
    };
    warn_of_colliding_topics(root, &config);
    Some(config)
}

/// What `[http]` says for every source that does not say otherwise.
struct Defaults {
    max_body: usize,
    publish_timeout: Duration,
    max_in_flight: usize,
}

fn read_http(mut section: Section<'_>) -> (Option<Http>, Defaults) {
    let defaults = Defaults {
        max_body: section.size("max_body", 1, 256 * MIB).unwrap_or(MIB),
        publish_timeout: section.duration("publish_timeout", 8 * SECOND, SECOND, 300 * SECOND),
        max_in_flight: section
            .count("max_in_flight", 1, 1_000_000)
            .unwrap_or(10_000),
    };
    let http = Http {
        listen: read_address(&mut section, "0.0.0.0:8080"),
        header_timeout: section.duration("header_timeout", 5 * SECOND, SECOND / 10, HOUR),
        idle_timeout: section.duration("idle_timeout", 75 * SECOND, SECOND / 10, HOUR),
        body_timeout: section.duration("body_timeout", 10 * SECOND, SECOND / 10, HOUR),
        max_in_flight: defaults.max_in_flight,
        max_in_flight_bytes: section
            .size("max_in_flight_bytes", KIB, usize::MAX)
            .unwrap_or(256 * MIB),
        max_connections: section
            .count("max_connections", 1, 1_000_000)
            .unwrap_or(20_000),
        max_connection_age: section.duration("max_connection_age", 300 * SECOND, SECOND, 24 * HOUR),
        drain_delay: section.duration("drain_delay", Duration::ZERO, Duration::ZERO, HOUR),
        shutdown_timeout: section.duration("shutdown_timeout", 25 * SECOND, SECOND, HOUR),
        http2: section.flag("http2", false),
    };
    if http.max_in_flight_bytes < defaults.max_body {
        section.problem_at(
            "max_in_flight_bytes",
            "it is less than `max_body`: no event of that size could ever be taken",
        );
    }
    if http.drain_delay >= http.shutdown_timeout {
        section.problem_at(
            "drain_delay",
            "it leaves nothing of `shutdown_timeout` to finish requests in",
        );
    }
    section.finish();
    (Some(http), defaults)
}

fn read_admin(mut section: Section<'_>) -> Option<Admin> {
    let listen = read_address(&mut section, "127.0.0.1:9090");
    if !listen.ip().is_loopback() {
        section.warn_at("listen", format!("the admin listener at {listen} can be reached from other machines; it needs no password"));
    }
    let ready_when = section
        .word(
            "ready_when",
            &[("any", ReadyWhen::Any), ("all", ReadyWhen::All)],
        )
        .unwrap_or(ReadyWhen::Any);
    section.finish();
    Some(Admin { listen, ready_when })
}

fn read_address(section: &mut Section<'_>, default: &str) -> SocketAddr {
    let given = section.parsed(
        "listen",
        "an address; write for example \"0.0.0.0:8080\" or \"[::]:8080\"",
    );
    given
        .or_else(|| default.parse().ok())
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The brokers by name.
struct Brokers {
    list: Vec<NamedBroker>,
    /// Every name that was written, so that a broken broker is not also called an unknown one.
    names: HashMap<String, Option<BrokerId>>,
}

impl Brokers {
    fn read(root: &mut Section<'_>) -> Self {
        let mut brokers = Self {
            list: Vec::new(),
            names: HashMap::new(),
        };
        let Some(mut table) = root.section("brokers") else {
            root.problem("there is no broker; write `[brokers.main]` with `kind = \"kafka\"` or `kind = \"nats\"`");
            return brokers;
        };
        for name in table.names() {
            let Some(mut section) = table.named_section(&name) else {
                continue;
            };
            check_name(&section, &name);
            let settings = brokers::Settings::read(&mut section);
            section.finish();
            let id = settings.map(|settings| {
                brokers.list.push(NamedBroker {
                    name: name.clone(),
                    settings,
                });
                BrokerId(brokers.list.len() - 1)
            });
            brokers.names.insert(name, id);
        }
        if brokers.names.is_empty() {
            table.problem("there is no broker; write `[brokers.main]` with `kind = \"kafka\"` or `kind = \"nats\"`");
        }
        brokers
    }

    fn find(&self, section: &Section<'_>, title: &str, name: &str) -> Option<BrokerId> {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        let suggestion = did_you_mean(name, self.names.keys().map(String::as_str));
        section.problem_at(
            "broker",
            format!("{title} names the broker \"{name}\", which is not defined{suggestion}"),
        );
        None
    }

    /// The broker that `broker = "NAME"` names, or the only one there is.
    fn named_or_only(&self, section: &mut Section<'_>) -> Option<BrokerId> {
        let title = section.title();
        if section.has("broker") {
            let name = section.text("broker")?;
            return self.find(section, &title, &name);
        }
        let mut ids = self.names.values();
        match (ids.next(), ids.next()) {
            (Some(only), None) => *only,
            (Some(_), Some(_)) => {
                let mut names: Vec<_> = self.names.keys().map(String::as_str).collect();
                names.sort_unstable();
                section.problem(format!(
                    "{title} must name its `broker`, because there are several: {}",
                    names.join(", ")
                ));
                None
            }
            (None, _) => None,
        }
    }

    fn kind(&self, id: BrokerId) -> Option<brokers::Kind> {
        self.list.get(id.0).map(|broker| broker.settings.kind())
    }
}

/// Names become labels, header values and parts of ids.
fn check_name(section: &Section<'_>, name: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        section.problem(format!(
            "the name \"{}\" may only have up to 64 of A-Z, a-z, 0-9, `-` and `_`",
            name.escape_debug()
        ));
    }
    if name == "other" {
        section.problem("the name \"other\" is taken: metrics call so what has no name");
    }
}

fn read_sources(root: &mut Section<'_>, brokers: &Brokers, defaults: &Defaults) -> Vec<Source> {
    let Some(mut table) = root.section("sources") else {
        root.problem("there is no source; write `[sources.synq]` with `secrets = [{ env = \"SYNQ_SIGNING_SECRET\" }]`");
        return Vec::new();
    };
    let names = table.names();
    if names.is_empty() {
        table.problem("there is no source; write `[sources.synq]` with `secrets = [{ env = \"SYNQ_SIGNING_SECRET\" }]`");
    }
    let sections = names
        .into_iter()
        .filter_map(|name| table.named_section(&name).map(|section| (name, section)));
    let sources: Vec<_> = sections
        .filter_map(|(name, section)| read_source(name, section, brokers, defaults))
        .collect();
    (0..)
        .zip(sources)
        .map(|(index, source)| Source { index, ..source })
        .collect()
}

fn read_source(
    name: String,
    mut section: Section<'_>,
    brokers: &Brokers,
    defaults: &Defaults,
) -> Option<Source> {
    check_name(&section, &name);
    let provider = read_provider(&mut section, &name);
    let has_secrets = section.has("secrets");
    let secrets = section.secrets("secrets");
    if !has_secrets {
        section.problem(format!(
            "{} lacks `secrets`; write for example `secrets = [{{ env = \"{}_SIGNING_SECRET\" }}]`",
            section.title(),
            name.to_uppercase()
        ));
    }
    let path = read_path(&mut section, &name);
    let max_body = section
        .size("max_body", 1, 256 * MIB)
        .unwrap_or(defaults.max_body);
    let publish_timeout = section.duration(
        "publish_timeout",
        defaults.publish_timeout,
        SECOND,
        300 * SECOND,
    );
    let max_in_flight = section
        .count("max_in_flight", 1, 1_000_000)
        .unwrap_or(defaults.max_in_flight);
    let success_status = read_success_status(&mut section);
    let ce_source = section
        .text("ce_source")
        .unwrap_or_else(|| format!("/hookbridge/{name}"));
    if ce_source.is_empty() || !ce_source.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        section.problem_at(
            "ce_source",
            "it is a URI reference: printable ASCII without spaces",
        );
    }
    let forward_headers = read_forward_headers(&mut section);
    let on_invalid = read_otherwise(&mut section, "on_invalid", brokers);
    let on_unrouted = read_otherwise(&mut section, "on_unrouted", brokers);
    let schema_file = section.path("schema");
    let tolerance = section.optional_duration("tolerance", SECOND, 7 * 24 * HOUR);
    let Some(provider) = provider else {
        section.finish();
        return None;
    };
    if let (Some(tolerance), Some(usual)) = (tolerance, provider.default_tolerance())
        && tolerance < usual
    {
        let usual = humantime::format_duration(usual);
        section.warn_at(
            "tolerance",
            format!(
                "{} signs its retries with the first time: less than {usual} refuses late ones",
                provider.name()
            ),
        );
    }
    let schema = read_schema(&section, provider, schema_file.as_deref());
    section.finish();
    let secret_count = secrets.len();
    let verifier = provider.verifier(VerifierSettings {
        secrets,
        tolerance: tolerance.or(provider.default_tolerance()),
    });
    Some(Source {
        name,
        index: 0,
        path,
        provider,
        verifier,
        secret_count,
        schema,
        on_invalid,
        on_unrouted,
        routes: Vec::new(),
        max_body,
        publish_timeout,
        max_in_flight,
        success_status,
        ce_source,
        forward_headers,
    })
}

fn read_provider(section: &mut Section<'_>, name: &str) -> Option<&'static dyn Provider> {
    let given = section.text("provider");
    let wanted = given.as_deref().unwrap_or(name);
    let found = providers::find(wanted);
    if found.is_none() {
        let known: Vec<_> = providers::ALL
            .iter()
            .map(|provider| provider.name())
            .collect();
        let suggestion = did_you_mean(wanted, known.iter().copied());
        let what = format!(
            "there is no provider \"{}\"; known: {}{suggestion}",
            wanted.escape_debug(),
            known.join(", ")
        );
        if given.is_some() {
            section.problem_at("provider", what);
        } else {
            section.problem(format!(
                "{what}; write `provider = \"…\"` where the source has a name of its own"
            ));
        }
    }
    found
}

fn read_path(section: &mut Section<'_>, name: &str) -> String {
    let Some(path) = section.text("path") else {
        return format!("/hooks/{name}");
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(is_plain) {
        section.problem_at(
            "path",
            format!(
                "\"{}\" is no path; write for example \"/hooks/{name}\"",
                path.escape_debug()
            ),
        );
    }
    path
}

fn read_success_status(section: &mut Section<'_>) -> StatusCode {
    let status = section.count("success_status", 200, 299);
    status
        .and_then(|status| u16::try_from(status).ok())
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK)
}

fn read_forward_headers(section: &mut Section<'_>) -> Vec<HeaderName> {
    let names = section.texts("forward_headers").unwrap_or_default();
    let headers = names.iter().enumerate().filter_map(|(index, name)| {
        let key = format!("forward_headers[{index}]");
        let lower = name.to_ascii_lowercase();
        let is_ours = NEVER_FORWARDED.contains(&lower.as_str()) || NEVER_FORWARDED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
        match HeaderName::from_bytes(lower.as_bytes()) {
            Ok(_) if is_ours => {
                section.problem_at(&key, format!("{lower} is never passed on: it would be taken for the bridge's own, or is the sender's secret"));
                None
            }
            Ok(name) => Some(name),
            Err(_) => {
                section.problem_at(&key, format!("\"{}\" is no header's name", name.escape_debug()));
                None
            }
        }
    });
    headers.collect()
}

fn read_otherwise(section: &mut Section<'_>, key: &'static str, brokers: &Brokers) -> Otherwise {
    match section.word_or_section(key) {
        None => Otherwise::Reject,
        Some(WordOrSection::Word(word)) => match word.as_str() {
            "reject" => Otherwise::Reject,
            "ignore" => Otherwise::Ignore,
            other => {
                let what = format!(
                    "\"{}\" is none of \"reject\", \"ignore\" and {{ dead_letter = {{ topic = \"…\" }} }}",
                    other.escape_debug()
                );
                section.problem_at(key, what);
                Otherwise::Reject
            }
        },
        Some(WordOrSection::Section(mut otherwise)) => {
            if !otherwise.has("dead_letter") {
                otherwise
                    .problem("write \"reject\", \"ignore\" or { dead_letter = { topic = \"…\" } }");
            }
            let read = otherwise
                .section("dead_letter")
                .and_then(|section| read_dead_letter(section, brokers));
            otherwise.finish();
            read.unwrap_or(Otherwise::Reject)
        }
    }
}

fn read_dead_letter(mut section: Section<'_>, brokers: &Brokers) -> Option<Otherwise> {
    let broker = brokers.named_or_only(&mut section);
    let topic = section.required_text("topic", "\"hooks.invalid\"");
    let dead_letter = broker.zip(topic).and_then(|(broker, topic)| {
        let checked = brokers.kind(broker)?.check_destination(&topic);
        if let Err(rule) = checked {
            section.problem_at("topic", format!("\"{}\" {rule}", topic.escape_debug()));
        }
        Some(Otherwise::DeadLetter { broker, topic })
    });
    section.finish();
    dead_letter
}

fn read_schema(
    section: &Section<'_>,
    provider: &dyn Provider,
    file: Option<&Path>,
) -> Option<Schema> {
    let (text, place) = match file {
        Some(file) => match read_file(file) {
            Ok(text) => (text, file.display().to_string()),
            Err(error) => {
                section.problem_at(
                    "schema",
                    format!("{} can't be read: {error}", file.display()),
                );
                return None;
            }
        },
        None => (
            provider.schema()?.to_owned(),
            format!("the schema of {}", provider.name()),
        ),
    };
    let compiled = serde_json::from_str(&text)
        .map_err(|error| error.to_string())
        .and_then(|schema| Schema::compile(&schema).map_err(|error| error.to_string()));
    compiled
        .map_err(|error| section.problem_at("schema", format!("{place} can't be used: {error}")))
        .ok()
}

fn read_routes(root: &mut Section<'_>, brokers: &Brokers, sources: &mut [Source]) {
    let sections = root.sections("routes");
    if sections.is_empty() {
        root.problem("there is no route; write `[[routes]]` with `topic = \"hooks.{type}\"`");
    }
    for (index, section) in sections.into_iter().enumerate() {
        read_route(index + 1, section, brokers, sources);
    }
}

fn read_route(number: usize, mut section: Section<'_>, brokers: &Brokers, sources: &mut [Source]) {
    let wanted = section.text("source");
    let known = wanted
        .as_ref()
        .is_none_or(|wanted| sources.iter().any(|source| source.name == *wanted));
    if let (Some(wanted), false) = (&wanted, known) {
        let suggestion = did_you_mean(wanted, sources.iter().map(|source| source.name.as_str()));
        let title = section.title();
        section.problem_at(
            "source",
            format!(
                "{title} names the source \"{}\", which is not defined{suggestion}",
                wanted.escape_debug()
            ),
        );
    }
    let types = section
        .texts("types")
        .unwrap_or_else(|| vec!["*".to_owned()]);
    if types.is_empty() {
        section.problem_at("types", "an empty list takes nothing; write `types = [\"*\"]`, or leave the line out, to take all");
    }
    let matchers = compile_globs(&section, &types);
    let names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
    for name in names
        .iter()
        .filter(|name| wanted.as_ref().is_none_or(|wanted| wanted == *name))
    {
        let Some(source) = sources.iter_mut().find(|source| source.name == *name) else {
            continue;
        };
        let takes_all = |route: &&Route| route.types.iter().any(|glob| glob == "*");
        if let Some(earlier) = source.routes.iter().find(takes_all) {
            section.warn(format!(
                "route {number} never sees an event of {name}: route {} takes all of them",
                earlier.number
            ));
        }
    }
    let ignores = section
        .word("action", &[("publish", false), ("ignore", true)])
        .unwrap_or(false);
    let destination = read_destination(&mut section, brokers, ignores);
    section.finish();
    for source in sources
        .iter_mut()
        .filter(|source| wanted.as_ref().is_none_or(|wanted| source.name == *wanted))
    {
        let action = match (&destination, ignores) {
            (_, true) => Action::Ignore,
            (Some(destination), false) => Action::Publish(destination.clone()),
            (None, false) => continue,
        };
        source.routes.push(Route {
            number,
            types: types.clone(),
            matchers: matchers.clone(),
            action,
        });
    }
}

fn compile_globs(section: &Section<'_>, types: &[String]) -> Vec<GlobMatcher> {
    let globs = types
        .iter()
        .enumerate()
        .filter_map(|(index, glob)| match Glob::new(glob) {
            Ok(glob) => Some(glob.compile_matcher()),
            Err(error) => {
                section.problem_at(
                    &format!("types[{index}]"),
                    format!("\"{}\" is no glob: {}", glob.escape_debug(), error.kind()),
                );
                None
            }
        });
    globs.collect()
}

fn read_destination(
    section: &mut Section<'_>,
    brokers: &Brokers,
    ignores: bool,
) -> Option<Destination> {
    if ignores {
        for key in ["broker", "topic", "topics", "key"] {
            if section.has(key) {
                section.problem_at(
                    key,
                    format!("`{key}` means nothing on a route that ignores its events"),
                );
            }
        }
        section.finish_quietly();
        return None;
    }
    let broker = brokers.named_or_only(section);
    let topic = section
        .required_text("topic", "\"hooks.{type}\"")
        .and_then(|text| parse_template(section, "topic", &text));
    let topics = section.texts("topics");
    let key = section
        .text("key")
        .and_then(|text| parse_template(section, "key", &text));
    let (broker, topic) = broker.zip(topic)?;
    let kind = brokers.kind(broker)?;
    check_topic(section, kind, &topic, topics.as_deref());
    Some(Destination {
        broker,
        kind,
        topic,
        topics,
        key,
    })
}

fn parse_template(section: &Section<'_>, key: &str, text: &str) -> Option<Template> {
    Template::parse(text)
        .map_err(|what| section.problem_at(key, format!("\"{}\": {what}", text.escape_debug())))
        .ok()
}

/// Whatever an event fills in, the topic must be able to be a legal one, and one that the operator meant.
fn check_topic(
    section: &Section<'_>,
    kind: brokers::Kind,
    topic: &Template,
    topics: Option<&[String]>,
) {
    for (index, name) in topics.unwrap_or_default().iter().enumerate() {
        if let Err(rule) = kind.check_destination(name) {
            section.problem_at(
                &format!("topics[{index}]"),
                format!("\"{}\" {rule}", name.escape_debug()),
            );
        }
    }
    // Any value that is legal by itself stands for the others.
    let probe: String = topic
        .parts()
        .iter()
        .map(|part| {
            if let Part::Literal(text) = part {
                text
            } else {
                "x"
            }
        })
        .collect();
    if let Err(rule) = kind.check_destination(&probe) {
        section.problem_at(
            "topic",
            format!("the {} \"{topic}\" {rule}", kind.destination_noun()),
        );
    }
    let begins_safely = matches!(topic.parts().first(), Some(Part::Literal(text)) if text.ends_with(['.', '-', '_']));
    if topic.reads_payload() && topics.is_none() && !begins_safely {
        let what = "a sender could choose any destination: begin with a literal prefix that ends in `.`, `-` or `_`, or list the `topics` it may become";
        section.problem_at("topic", what);
    }
}

fn check_paths(root: &Section<'_>, sources: &[Source]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for source in sources {
        if let Some(other) = seen.insert(&source.path, &source.name) {
            let key = format!("sources.{}.path", source.name);
            root.problem_at(
                &key,
                format!(
                    "the sources {other} and {} have the same path {}",
                    source.name, source.path
                ),
            );
        }
    }
}

/// Kafka's metrics can't tell `a.b` from `a_b`, and the broker refuses to create the second of them.
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
                root.warn_at("routes", format!("Kafka can't have both {topic} and a topic that differs from it by `.` and `_` alone"));
            }
        }
    }
}
