//! `hookbridge replay`: events that took another way go where they belong, in order, each acknowledged before the next.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::{ConfigFiles, Done, Outcome, runtime, style};
use crate::bridge::Bridge;
use crate::brokers::{self, Attribute, Delivered, Headers, Health, Kind, Message, Replay};
use crate::config::{BrokerId, Config};
use crate::service::termination;

/// How long a broker has to become reachable.
const PATIENCE: Duration = Duration::from_secs(30);

/// The width of the progress bar, in characters.
const BAR: usize = 30;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// The topic or subject to read: dead letters, or events that took a fallback
    #[arg(long, value_name = "TOPIC")]
    from: String,
    /// The broker that has it; needed where several have a topic of that name
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// Where to publish; where each event was meant to go (its header hookbridge_intended_topic) where it is not given
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// The broker to publish to; where each event was meant to go where it is not given
    #[arg(long, value_name = "NAME")]
    to_broker: Option<String>,
    /// Pass over events that do not say where they were meant to go, instead of stopping: they stay in the topic, and later
    /// replays begin behind them
    #[arg(long)]
    skip_unplaced: bool,
    /// Say what would be published where, and move nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(options: &Options) -> Outcome {
    let config = options.files.load_without_signing_secrets()?;
    let from = source_broker(&config, options)?;
    if let Some(name) = &options.to_broker {
        find_broker(&config, name)?;
    }
    let runtime = runtime()?;
    let done = runtime.block_on(replay(config, from, options));
    runtime.shutdown_background();
    done
}

fn find_broker(config: &Config, name: &str) -> Result<BrokerId, String> {
    let found = config
        .broker_ids()
        .find(|id| config.broker(*id).name == name);
    found.ok_or_else(|| format!("there is no broker {name}"))
}

fn source_broker(config: &Config, options: &Options) -> Result<BrokerId, String> {
    if let Some(name) = &options.broker {
        return find_broker(config, name);
    }
    let having: Vec<_> = config
        .broker_ids()
        .filter(|id| config.known_destinations(*id).contains(&options.from))
        .collect();
    match (having.as_slice(), config.brokers.len()) {
        ([only], _) => Ok(*only),
        ([], 1) => config
            .broker_ids()
            .next()
            .ok_or_else(|| "there is no broker".to_owned()),
        _ => Err(format!(
            "say which broker has {} with --broker",
            options.from
        )),
    }
}

/// A message and where it goes.
struct Planned {
    broker: BrokerId,
    message: Message,
}

async fn replay(config: Config, from: BrokerId, options: &Options) -> Outcome {
    let settings = config.broker(from).settings.clone();
    let mut terminated = std::pin::pin!(termination()?);
    let bridge = Bridge::start(config).await?;
    let mut replay = Replay::start(&settings, &options.from, options.dry_run).await?;
    let mut progress = Progress::new(replay.remaining(), options.dry_run);
    let done = loop {
        let read = tokio::select! {
            read = replay.next() => read?,
            _ = terminated.as_mut() => break Done::Badly,
        };
        let Some(delivered) = read else {
            break Done::Well;
        };
        let planned = plan(&bridge, from, options, &delivered);
        let step = match planned {
            Ok(None) if options.skip_unplaced => {
                let passed = if options.dry_run {
                    style::println(format_args!("{} -> passed over", position(&delivered)))?;
                    Ok(())
                } else {
                    replay.pass(&delivered).await
                };
                match passed {
                    Ok(()) => {
                        progress.pass();
                        continue;
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Ok(None) => Err(
                "it does not say where it was meant to go; say so with --to, or pass over such events with --skip-unplaced"
                    .to_owned(),
            ),
            Ok(Some(planned)) if options.dry_run => {
                style::println(format_args!(
                    "{} -> {}:{}",
                    position(&delivered),
                    bridge.config().broker(planned.broker).name,
                    planned.message.destination
                ))?;
                Ok(())
            }
            Ok(Some(planned)) => publish(&bridge, &planned).await,
            Err(why) => Err(why),
        };
        if let Err(why) = step {
            replay.leave().await?;
            progress.end();
            return Err(format!(
                "{}: {why}; it and what follows it stay where they are",
                position(&delivered)
            )
            .into());
        }
        if !options.dry_run {
            replay.done(&delivered).await?;
        }
        progress.step();
    };
    progress.end();
    bridge.drain(Instant::now() + PATIENCE).await;
    Ok(done)
}

/// What to publish; none where nothing says where to.
fn plan(
    bridge: &Bridge,
    from: BrokerId,
    options: &Options,
    delivered: &Delivered,
) -> Result<Option<Planned>, String> {
    let config = bridge.config();
    let decode = config.broker(from).settings.kind() == Kind::Nats;
    let headers: Vec<(String, String)> = delivered
        .headers
        .iter()
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value);
            let text = if decode {
                percent_decode_str(&text).decode_utf8_lossy().into_owned()
            } else {
                text.into_owned()
            };
            (name.clone(), text)
        })
        .collect();
    let value_of = |names: &[&str]| {
        headers
            .iter()
            .find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.clone())
    };
    let topic = options
        .to
        .clone()
        .or_else(|| value_of(&["hookbridge_intended_topic"]));
    let Some(topic) = topic else {
        return Ok(None);
    };
    let broker = match options
        .to_broker
        .clone()
        .or_else(|| value_of(&["hookbridge_intended_broker"]))
    {
        Some(name) => find_broker(config, &name)?,
        None => from,
    };
    if broker == from && topic == delivered.topic {
        return Err("it would go back to where it is; say where to with --to".to_owned());
    }
    config
        .broker(broker)
        .settings
        .kind()
        .check_destination(&topic)
        .map_err(|rule| format!("the {topic:?} {rule}"))?;
    let event_id = value_of(&["event_id"]).unwrap_or_default();
    let source = value_of(&["hookbridge_source"]).unwrap_or_default();
    let key = delivered
        .key
        .as_ref()
        .map(|key| String::from_utf8_lossy(key).into_owned());
    let key = key
        .or_else(|| value_of(&["ce-partitionkey", "ce_partitionkey"]))
        .unwrap_or_else(|| event_id.clone());
    let is_ours = |name: &str| {
        name.starts_with("hookbridge_") || name.to_ascii_lowercase().starts_with("nats-")
    };
    let mut kept = Headers::default();
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        kept.push(Attribute::of_header(name), value);
    }
    let message = Message {
        destination: topic.clone(),
        key,
        headers: kept,
        body: delivered.value.clone().into(),
        // The stream may have seen the event's own id with its dead letter.
        deduplication_id: format!("replay/{source}/{event_id}/{topic}"),
    };
    Ok(Some(Planned { broker, message }))
}

/// Publishes until the broker says that it has the message. What is not known to be stored is published again: every copy
/// has the same id.
async fn publish(bridge: &Bridge, planned: &Planned) -> Result<(), String> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let broker = bridge.broker(planned.broker);
        let deadline = Instant::now() + bridge.config().broker_limits().publish_timeout;
        let why = match broker.publish(&planned.message, deadline).await {
            brokers::Outcome::Stored(_) => return Ok(()),
            brokers::Outcome::NotStored(not) => not.detail,
            brokers::Outcome::Unknown(unknown) => unknown.detail,
        };
        let next = Instant::now() + Duration::from_millis(500);
        if next > patience {
            let state = match broker.health() {
                Health::Down(down) => format!(" (the broker is down: {down})"),
                Health::Up { .. } | Health::Starting => String::new(),
            };
            return Err(format!(
                "{} did not take it: {why}{state}",
                planned.message.destination
            ));
        }
        tokio::time::sleep_until(next).await;
    }
}

fn position(delivered: &Delivered) -> String {
    match delivered.position {
        Some((partition, offset)) => {
            format!("{} partition {partition} offset {offset}", delivered.topic)
        }
        None => delivered.topic.clone(),
    }
}

/// A line on a terminal that shows how far it has come; elsewhere, one at the end.
struct Progress {
    total: u64,
    done: u64,
    passed_over: u64,
    is_shown: bool,
    is_dry: bool,
}

impl Progress {
    fn new(total: u64, is_dry: bool) -> Self {
        Self {
            total,
            done: 0,
            passed_over: 0,
            is_shown: std::io::stderr().is_terminal() && !is_dry,
            is_dry,
        }
    }

    fn step(&mut self) {
        self.done += 1;
        self.show();
    }

    fn pass(&mut self) {
        self.passed_over += 1;
        self.show();
    }

    fn show(&self) {
        if self.is_shown {
            let read = self.done.saturating_add(self.passed_over);
            let filled = usize::try_from(read.saturating_mul(BAR as u64) / self.total.max(1))
                .unwrap_or(BAR)
                .min(BAR);
            eprint!(
                "\r[{}{}] {} of {}",
                "#".repeat(filled),
                " ".repeat(BAR - filled),
                read,
                self.total
            );
            // A terminal that is gone need not be told.
            let _unseen = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        let verb = if self.is_dry {
            "would be replayed"
        } else {
            "replayed"
        };
        let line = if self.is_shown && self.done + self.passed_over > 0 {
            "\n"
        } else {
            ""
        };
        let passed_over = match self.passed_over {
            0 => String::new(),
            count => format!(", {count} passed over"),
        };
        eprintln!("{line}{} of {} {verb}{passed_over}", self.done, self.total);
    }
}
