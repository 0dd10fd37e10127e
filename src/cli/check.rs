//! `hookbridge check`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::problems::{self, Entry, Severity};
use super::{CommandResult, Completion, ConfigFiles, counted, describe, runtime, style};
use crate::brokers::{self, Assessment, durability, merge_equal, reach};
use crate::config::{Action, Config, FailurePolicy, Route, Source};
use crate::printable::printable;
use crate::providers::find;
use crate::table::{Problem, Problems};
use crate::trace;

/// Timeout for a broker's answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Only warn about secrets whose variables or files are missing, for example in a CI job
    #[arg(long, conflicts_with = "connect")]
    allow_missing_secrets: bool,
    /// Also contact each broker, and check each topic or stream that is known in advance
    #[arg(long)]
    connect: bool,
    /// Exit with status 1 for warnings, too
    #[arg(long)]
    deny_warnings: bool,
    /// Output format: text for people, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = match load(options) {
        Ok(config) => config,
        Err(error) => {
            if options.format == Format::Human {
                return Err(error);
            }
            match error.downcast_ref::<Problems>() {
                Some(problems) => print_json(&problems.0, Severity::Error, None, None)?,
                // A file that is missing, or none at all.
                None => {
                    let problem = Problem::new(None, String::new(), &describe(error.as_ref()));
                    print_json(&[problem], Severity::Error, None, None)?;
                }
            }
            return Ok(Completion::Failure);
        }
    };
    let effective = Effective::new(&config);
    if options.format == Format::Human {
        style::print(effective.to_text())?;
        for warning in &config.warnings {
            eprintln!("{}", problems::show(Severity::Warning, warning));
        }
        for advice in &effective.advice {
            say(&format!("note: {advice}"));
        }
    }
    let mut report = Report {
        format: options.format,
        lines: Vec::new(),
    };
    let done = if options.connect {
        runtime()?.block_on(connect(&config, &mut report))?
    } else {
        Completion::Success
    };
    if options.format == Format::Json {
        let lines = options.connect.then_some(report.lines.as_slice());
        print_json(&config.warnings, Severity::Warning, lines, Some(&effective))?;
    }
    let warnings = config.warnings.len() + report.warnings();
    if options.deny_warnings && warnings > 0 {
        if options.format == Format::Human {
            let warnings = counted(warnings, "warning");
            eprintln!(
                "{}",
                style::error(&format!("{warnings}, and --deny-warnings was given"))
            );
        }
        return Ok(Completion::Failure);
    }
    Ok(done)
}

/// The findings of `--connect`: printed immediately, or collected for the JSON object.
struct Report {
    format: Format,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    severity: &'static str,
    message: String,
}

impl Report {
    /// Prints a line that is of interest when nothing is wrong.
    fn note(&self, text: impl std::fmt::Display) -> std::io::Result<()> {
        match self.format {
            Format::Human => style::println(text),
            Format::Json => Ok(()),
        }
    }

    fn add(&mut self, severity: &'static str, message: String) {
        if self.format == Format::Human {
            say(&format!("{severity}: {}", printable(&message)));
        }
        self.lines.push(Line { severity, message });
    }

    fn warnings(&self) -> usize {
        let is_warning = |line: &&Line| line.severity == "warning";
        self.lines.iter().filter(is_warning).count()
    }
}

/// Prints a line for people to standard error.
fn say(line: &str) {
    eprintln!("{}", style::fit(line, &std::io::stderr(), 2));
}

fn load(options: &Options) -> Result<Config, super::Error> {
    let origin = options.files.origin()?;
    let loaded = match options.allow_missing_secrets {
        true => origin.load_with_missing_secrets(),
        false => origin.load(),
    };
    // `run` refuses to start with these.
    let Err(traces) = trace::Settings::from_environment() else {
        return Ok(loaded?);
    };
    let mut problems = loaded.err().map(|problems| problems.0).unwrap_or_default();
    let of_traces = traces.problems();
    problems.extend(of_traces.map(|what| Problem::new(None, String::new(), what)));
    Err(Problems(problems).into())
}

fn print_json(
    problems: &[Problem],
    severity: Severity,
    connections: Option<&[Line]>,
    effective: Option<&Effective<'_>>,
) -> Result<(), super::Error> {
    #[derive(Serialize)]
    struct Printed<'a> {
        valid: bool,
        problems: Vec<Entry<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        connections: Option<&'a [Line]>,
        #[serde(flatten)]
        effective: Option<&'a Effective<'a>>,
    }
    let problems = problems.iter().map(|problem| Entry::new(severity, problem));
    let printed = Printed {
        valid: effective.is_some(),
        problems: problems.collect(),
        connections,
        effective,
    };
    Ok(style::println(serde_json::to_string(&printed)?)?)
}

/// The effective configuration.
#[derive(Debug, Serialize)]
struct Effective<'c> {
    listen: String,
    tls: Option<&'static str>,
    admin_listen: String,
    brokers: Vec<BrokerRow<'c>>,
    sources: Vec<SourceRow<'c>>,
    /// In matching order.
    routes: Vec<RouteRow<'c>>,
    /// Advice on a valid configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct BrokerRow<'c> {
    name: &'c str,
    kind: &'static str,
    address: String,
}

#[derive(Debug, Serialize)]
struct SourceRow<'c> {
    name: &'c str,
    provider: &'static str,
    path: &'c str,
    secrets: usize,
    on_invalid: String,
    on_unrouted: String,
}

#[derive(Debug, Serialize)]
struct RouteRow<'c> {
    number: usize,
    sources: Vec<&'c str>,
    types: &'c [String],
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'c str>,
    /// `None` means the provider's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'c str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<CopyRow<'c>>,
}

#[derive(Debug, Serialize)]
struct CopyRow<'c> {
    broker: &'c str,
    topic: &'c str,
}

impl<'c> Effective<'c> {
    fn new(config: &'c Config) -> Self {
        let brokers = config.brokers.iter().map(|broker| BrokerRow {
            name: &broker.name,
            kind: match broker.settings.kind() {
                brokers::Kind::Kafka => "kafka",
                brokers::Kind::Nats => "nats",
            },
            address: broker.settings.address(),
        });
        let sources = config.sources.iter().map(|source| SourceRow {
            name: &source.name,
            provider: source.provider,
            path: &source.path,
            secrets: source.secret_count,
            on_invalid: describe_policy(config, &source.on_invalid),
            on_unrouted: describe_policy(config, &source.on_unrouted),
        });
        let mut routes: BTreeMap<usize, RouteRow<'_>> = BTreeMap::new();
        for source in &config.sources {
            for route in &source.routes {
                let number = route.id.ordinal;
                let row = routes.entry(number).or_insert_with(|| RouteRow::new(route));
                row.sources.push(&source.name);
            }
        }
        Self {
            listen: config.http.listen.to_string(),
            tls: match &config.http.tls {
                None => None,
                Some(tls) if tls.is_mutual() => Some("TLS (client certificates required)"),
                Some(_) => Some("TLS"),
            },
            admin_listen: config.admin.listen.to_string(),
            brokers: brokers.collect(),
            sources: sources.collect(),
            routes: routes.into_values().collect(),
            advice: config
                .sources
                .iter()
                .filter_map(|source| advice_on(source))
                .collect(),
        }
    }

    fn to_text(&self) -> String {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let mut brokers: Vec<Vec<String>> = vec![row(&["BROKER", "KIND", "ADDRESS"])];
        for BrokerRow {
            name,
            kind,
            address,
        } in &self.brokers
        {
            brokers.push(row(&[name, kind, address]));
        }
        let headings = [
            "SOURCE", "PROVIDER", "PATH", "SECRETS", "INVALID", "UNROUTED",
        ];
        let mut sources: Vec<Vec<String>> = vec![row(&headings)];
        for source in &self.sources {
            sources.push(row(&[
                source.name,
                source.provider,
                source.path,
                &source.secrets.to_string(),
                &source.on_invalid,
                &source.on_unrouted,
            ]));
        }
        let headings = ["ROUTE", "SOURCE", "TYPES", "BROKER", "TOPIC", "KEY"];
        let mut routes: Vec<Vec<String>> = vec![row(&headings)];
        for route in &self.routes {
            let is_for_all = route.sources.len() == self.sources.len() && self.sources.len() > 3;
            let sources = if is_for_all {
                "(all)".to_owned()
            } else {
                route.sources.join(" ")
            };
            let (broker, topic, key) = route.cells();
            routes.push(row(&[
                &route.number.to_string(),
                &sources,
                &route.types.join(" "),
                &broker,
                &topic,
                key,
            ]));
        }
        let tls = self.tls.map(|tls| format!(" with {tls}"));
        let listens = format!(
            "listens at {}{}, admin at {}\n",
            self.listen,
            tls.unwrap_or_default(),
            self.admin_listen
        );
        [
            listens,
            style::table(&brokers),
            style::table(&sources),
            style::table(&routes),
        ]
        .join("\n")
    }
}

impl<'c> RouteRow<'c> {
    fn new(route: &'c Route) -> Self {
        let row = Self {
            number: route.id.ordinal,
            sources: Vec::new(),
            types: &route.types,
            action: "ignore",
            broker: None,
            fallback: None,
            topic: None,
            key: None,
            copies: Vec::new(),
        };
        let Action::Publish(forwarding) = &route.action else {
            return row;
        };
        let copies = forwarding.copies.iter().map(|copy| CopyRow {
            broker: &copy.broker_name,
            topic: copy.topic.as_str(),
        });
        let fallback = forwarding.fallback.as_ref();
        Self {
            action: "publish",
            broker: Some(&forwarding.to.broker_name),
            fallback: fallback.map(|fallback| fallback.broker_name.as_str()),
            topic: Some(forwarding.to.topic.as_str()),
            key: forwarding.to.key.as_ref().map(|key| key.as_str()),
            copies: copies.collect(),
            ..row
        }
    }

    /// Broker, topic and key as shown in the table.
    fn cells(&self) -> (String, String, &'c str) {
        let (Some(broker), Some(topic)) = (self.broker, self.topic) else {
            return ("-".to_owned(), "(ignored)".to_owned(), "");
        };
        let fallback = self.fallback.map(|fallback| format!(", else {fallback}"));
        let copies = self.copies.iter();
        let copies = copies.map(|CopyRow { broker, topic }| format!(" + {broker}:{topic}"));
        (
            format!("{broker}{}", fallback.unwrap_or_default()),
            format!("{topic}{}", copies.collect::<String>()),
            self.key.unwrap_or("(provider's default)"),
        )
    }
}

/// A second broker accepts events that would be lost while the first is unreachable.
fn advice_on(source: &Source) -> Option<String> {
    let about = find(source.provider)?.read().about;
    let lacks_fallback = |route: &Route| match &route.action {
        Action::Publish(forwarding) => forwarding.fallback.is_none(),
        Action::Ignore => false,
    };
    (about.needs_fallback && source.routes.iter().any(lacks_fallback)).then(|| {
        format!(
            "{}: {} sends an event again within seconds at most, or never: what comes while the broker is out of reach is lost; give the source's routes a `fallback`",
            source.name, about.title
        )
    })
}

fn describe_policy(config: &Config, policy: &FailurePolicy) -> String {
    match policy {
        FailurePolicy::Reject => "reject".to_owned(),
        FailurePolicy::Ignore => "ignore".to_owned(),
        FailurePolicy::DeadLetter { broker, topic } => {
            format!("{}:{topic}", config.broker(*broker).name)
        }
    }
}

async fn connect(config: &Config, report: &mut Report) -> CommandResult {
    let mut done = Completion::Success;
    report.note("")?;
    for id in config.broker_ids() {
        let broker = config.broker(id);
        let (name, destinations) = (&broker.name, config.known_destinations(id));
        let reached = match reach(&broker.settings, &destinations, config.broker_limits()).await {
            Ok(findings) => findings,
            Err(why) => {
                report.add("error", format!("broker {name} can't be reached: {why}"));
                done = Completion::Failure;
                continue;
            }
        };
        // Kafka reports a topic that the user may not see like one that does not exist.
        let is_refused = |destination: &&String| {
            reached.iter().any(|found| {
                found.destination == **destination
                    && matches!(found.assessment, Assessment::Unusable(_))
            })
        };
        let seen: Vec<String> = destinations
            .iter()
            .filter(|destination| !is_refused(destination))
            .cloned()
            .collect();
        let looked = durability(&broker.settings, &seen, config.needs(), CONNECT_TIMEOUT).await;
        let findings = match looked {
            Ok(findings) => findings,
            Err(why) => {
                report.add("error", format!("broker {name} can't be inspected: {why}"));
                done = Completion::Failure;
                continue;
            }
        };
        report.note(format_args!(
            "broker {name} answers; {} checked",
            counted(destinations.len(), "destination")
        ))?;
        if broker.require_durable && config.has_unknown_destinations(id) {
            report.add(
                "error",
                format!(
                    "{name}: require_durable, but a route's topic depends on the payload and can't be inspected; list its possible values with `topics = [...]`"
                ),
            );
            done = Completion::Failure;
        }
        for finding in merge_equal(reached.iter().chain(&findings)) {
            let Some(why) = finding.assessment.why() else {
                continue;
            };
            let severity = if finding.is_problem(broker.require_durable) {
                done = Completion::Failure;
                "error"
            } else {
                match finding.assessment {
                    Assessment::Good | Assessment::Advice(_) => "note",
                    Assessment::Unusable(_) | Assessment::Bad(_) | Assessment::Unknown(_) => {
                        "warning"
                    }
                }
            };
            report.add(severity, format!("{name}: {}: {why}", finding.destination));
        }
    }
    Ok(done)
}
