//! `hookbridge provision`

use std::collections::BTreeSet;
use std::time::Duration;

use bytesize::ByteSize;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, ValueEnum};
use serde::Serialize;

use super::{Arguments, CommandResult, Completion, ConfigFiles, Error, counted, runtime, style};
use crate::brokers::{
    Created, Creation, Item, Kind, Plan, Provision, ProvisionError, Provisioning, State, reach,
};
use crate::config::{BrokerId, Config};
use crate::printable::printable;
use crate::table::did_you_mean;

/// Time to inspect a broker.
const PLAN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to create, and to see the results.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Print the plan and create nothing; Kafka also says whether it would accept it
    #[arg(long)]
    dry_run: bool,
    /// Only this broker
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// Output format: text for people, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    wishes: Wishes,
}

/// Each flag overrides its key in `[brokers.NAME.provision]`.
#[derive(Debug, Args)]
struct Wishes {
    /// Kafka: partitions of a new topic [default: the cluster's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: Option<u32>,
    /// Kafka: replicas of a new topic [default: 3, or the number of brokers if less]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    replication_factor: Option<u32>,
    /// Kafka: replicas that must have an event before it is acknowledged [default: 2 of 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    min_insync_replicas: Option<u32>,
    /// NATS: name of a new stream [default: HOOKBRIDGE]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// NATS: replicas of a new stream [default: 3 in a cluster, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: Option<u32>,
    /// NATS: size at which a new stream refuses events, such as 10GiB [default: no limit]
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,
    /// NATS: time in which a new stream recognizes duplicates [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duplicate_window: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

impl Wishes {
    fn of_flags(&self) -> Provision {
        let count = |count: Option<u32>| count.and_then(|count| usize::try_from(count).ok());
        let bytes = self.max_bytes.map(|size| size.as_u64());
        Provision {
            partitions: count(self.partitions),
            replication_factor: count(self.replication_factor),
            min_insync_replicas: count(self.min_insync_replicas),
            stream: self.stream.clone(),
            replicas: count(self.replicas),
            max_bytes: bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX >> 1)),
            duplicate_window: self.duplicate_window,
        }
    }

    /// A flag for a kind of broker that is not selected.
    fn stray(&self, kinds: &[Kind]) -> Option<(&'static str, &'static str)> {
        let flags = [
            ("--partitions", self.partitions.is_some(), Kind::Kafka),
            (
                "--replication-factor",
                self.replication_factor.is_some(),
                Kind::Kafka,
            ),
            (
                "--min-insync-replicas",
                self.min_insync_replicas.is_some(),
                Kind::Kafka,
            ),
            ("--stream", self.stream.is_some(), Kind::Nats),
            ("--replicas", self.replicas.is_some(), Kind::Nats),
            ("--max-bytes", self.max_bytes.is_some(), Kind::Nats),
            (
                "--duplicate-window",
                self.duplicate_window.is_some(),
                Kind::Nats,
            ),
        ];
        let stray = flags
            .into_iter()
            .find(|(_, is_given, kind)| *is_given && !kinds.contains(kind));
        stray.map(|(flag, _, kind)| (flag, name_of(kind)))
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Kafka => "Kafka",
        Kind::Nats => "NATS",
    }
}

/// One broker's part of the output.
#[derive(Debug, Serialize)]
struct Report<'c> {
    broker: &'c str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    created: Vec<Created>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = options.files.load_without_signing_secrets()?;
    let brokers = selected(&config, options.broker.as_deref())?;
    let kinds: Vec<Kind> = brokers
        .iter()
        .map(|id| config.broker(*id).settings.kind())
        .collect();
    if let Some((flag, kind)) = options.wishes.stray(&kinds) {
        return Err(usage(format!(
            "{flag} is for {kind}, and no selected broker is one"
        )));
    }
    Provision::default()
        .with(&options.wishes.of_flags())
        .map_err(|wrong| {
            let flag = wrong.key.replace('_', "-");
            usage(format!("--{flag}: {}", wrong.what))
        })?;
    let reports = runtime()?.block_on(provision(options, &config, &brokers))?;
    let is_well = reports.iter().all(Report::is_well);
    if options.format == Format::Json {
        let all = serde_json::json!({ "dry_run": options.dry_run, "brokers": reports });
        style::println(all)?;
    }
    Ok(if is_well {
        Completion::Success
    } else {
        Completion::Failure
    })
}

fn usage(what: String) -> Error {
    let error = Arguments::command().error(ErrorKind::ArgumentConflict, what);
    Box::new(error)
}

fn selected(config: &Config, name: Option<&str>) -> Result<Vec<BrokerId>, Error> {
    let needed = config.needed_brokers();
    let Some(name) = name else {
        return Ok(needed);
    };
    let mut ids = config.broker_ids();
    match ids.find(|id| config.broker(*id).name == name) {
        Some(id) => Ok(vec![id]),
        None => {
            let known = config.brokers.iter().map(|broker| broker.name.as_str());
            let suggestion = did_you_mean(name, known);
            Err(format!("the broker {name} is not defined{suggestion}").into())
        }
    }
}

async fn provision<'c>(
    options: &Options,
    config: &'c Config,
    brokers: &[BrokerId],
) -> Result<Vec<Report<'c>>, Error> {
    let output = Output {
        is_human: options.format == Format::Human,
    };
    let mut planned = Vec::new();
    for id in brokers {
        let broker = config.broker(*id);
        let wishes = broker.provision.with(&options.wishes.of_flags());
        let wishes = wishes.map_err(|wrong| format!("broker {}: {wrong}", broker.name))?;
        let settings = &broker.settings;
        output.heading(&broker.name, settings.kind(), &settings.address())?;
        // Reports the failed step of a connection better than a plan can.
        let reached = reach(settings, &[], config.broker_limits()).await;
        let provisioning = match reached {
            Ok(_) => {
                let needed = config.needed(*id);
                Provisioning::plan(settings, &wishes, &needed, config.needs(), PLAN_TIMEOUT).await
            }
            Err(why) => Err(ProvisionError::Unreachable(why)),
        };
        match &provisioning {
            Ok(provisioning) => output.plan(provisioning.as_plan())?,
            Err(why) => output.failure(&broker.name, &why.to_string()),
        }
        planned.push((broker, provisioning));
    }
    let mut reports = Vec::new();
    for (broker, provisioning) in planned {
        let mut report = Report {
            broker: &broker.name,
            kind: name_of(broker.settings.kind()),
            error: None,
            plan: None,
            created: Vec::new(),
        };
        match provisioning {
            Ok(provisioning) => {
                report.plan = Some(provisioning.as_plan().clone());
                match provisioning.apply(options.dry_run, CREATE_TIMEOUT).await {
                    Ok(created) => report.created = created,
                    Err(why) => {
                        output.failure(&broker.name, &why.to_string());
                        report.error = Some(why.to_string());
                    }
                }
            }
            Err(why) => report.error = Some(why.to_string()),
        }
        output.created(&report, options.dry_run)?;
        reports.push(report);
    }
    Ok(reports)
}

impl Report<'_> {
    /// Whether everything that is needed exists, or in a dry run could.
    fn is_well(&self) -> bool {
        let items = self.plan.iter().flat_map(|plan| &plan.items);
        let mut blocked = items.filter(|item| matches!(item.state, State::Blocked { .. }));
        let is_good = |created: &Created| match created.result {
            Creation::Done | Creation::Existed | Creation::Possible => true,
            Creation::Pending | Creation::Failed { .. } => false,
        };
        self.error.is_none() && blocked.next().is_none() && self.created.iter().all(is_good)
    }
}

/// Output for people.
struct Output {
    is_human: bool,
}

impl Output {
    fn line(&self, text: impl std::fmt::Display) -> std::io::Result<()> {
        match self.is_human {
            true => style::println(style::fit(&text.to_string(), &std::io::stdout(), 11)),
            false => Ok(()),
        }
    }

    fn heading(&self, name: &str, kind: Kind, address: &str) -> std::io::Result<()> {
        let title = format!("broker {name} ({} at {address})", name_of(kind));
        self.line(style::bold(&title))
    }

    fn failure(&self, broker: &str, why: &str) {
        if self.is_human {
            let what = format!("broker {broker}: {}", printable(why));
            eprintln!("{}", style::error(&what));
        }
    }

    fn plan(&self, plan: &Plan) -> std::io::Result<()> {
        let mut settings = BTreeSet::new();
        for item in &plan.items {
            let (kind, name) = (item.kind, printable(&item.name));
            match &item.state {
                State::Create { settings: with } => {
                    settings.insert(with);
                    self.line(format_args!("  create {kind} {name}"))?;
                }
                State::Exists { differences } if differences.is_empty() => {
                    self.line(format_args!("  keep   {kind} {name}"))?;
                }
                State::Exists { differences } => {
                    self.line(format_args!("  keep   {kind} {name}, although it differs:"))?;
                    for difference in differences {
                        self.line(format_args!("           {}", printable(difference)))?;
                    }
                }
                State::Blocked { why } => {
                    self.line(format_args!("  can't  {kind} {name}: {}", printable(why)))?;
                }
            }
        }
        for settings in settings {
            self.line("  new ones have:")?;
            for setting in settings {
                self.line(format_args!("           {}", printable(setting)))?;
            }
        }
        for note in &plan.notes {
            self.line(format_args!("  note   {}", printable(note)))?;
        }
        if plan.items.is_empty() && plan.notes.is_empty() {
            self.line("  nothing is needed")?;
        }
        Ok(())
    }

    fn created(&self, report: &Report<'_>, dry_run: bool) -> std::io::Result<()> {
        let mut count = 0;
        for created in &report.created {
            let name = printable(&created.name);
            match &created.result {
                Creation::Done => {
                    count += 1;
                    self.line(format_args!("created {name}"))?;
                }
                Creation::Existed => {
                    self.line(format_args!("{name} was created by someone else meanwhile"))?;
                }
                Creation::Pending => {
                    count += 1;
                    self.line(format_args!(
                        "created {name}, but the cluster's metadata does not show it yet; run the command again to see whether it does"
                    ))?;
                }
                Creation::Possible => {}
                Creation::Failed { why } => {
                    let verb = if dry_run { "would fail" } else { "failed" };
                    self.failure(report.broker, &format!("{name} {verb}: {why}"));
                }
            }
        }
        let Some(plan) = &report.plan else {
            return Ok(());
        };
        let broker = report.broker;
        if dry_run {
            let would = counted(plan.creates(), "creation");
            return self.line(format_args!(
                "{broker}: {would} planned; nothing was created"
            ));
        }
        let is_kept = |item: &&Item| matches!(item.state, State::Exists { .. });
        let kept = plan.items.iter().filter(is_kept).count();
        self.line(format_args!(
            "{broker}: {count} created, {kept} left as they were"
        ))
    }
}
