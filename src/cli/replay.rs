//! `hookbridge replay`: publishes diverted events to their intended destinations, in order, waiting for each
//! acknowledgement.
//!
//! Anyone who can write to the topic being read may have forged its headers. So they can choose only destinations that
//! the routes can produce, unless the operator names one or allows any.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER;
use percent_encoding::percent_decode;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::{CommandResult, Completion, ConfigFiles, runtime, style};
use crate::bridge::Bridge;
use crate::brokers::{
    self, Attribute, Delivered, Headers, Health, Kind, Message, Reason, Replay, durability, id_part,
};
use crate::config::{BrokerId, Config};
use crate::printable::printable;
use crate::service::termination;

/// Time limit for a broker to become reachable.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of destinations remembered as durable.
const MAX_INSPECTED: usize = 10_000;

/// The origin of a replayed message: broker, topic and position. Each replay appends one.
const REPLAYED_FROM: &str = "hookbridge_replayed_from";

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Topic or subject to read: dead letters, or events that took a fallback
    #[arg(long, value_name = "TOPIC")]
    from: String,
    /// Broker of the topic; needed if several brokers have a topic of that name
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// Topic to publish to; by default each event's intended topic (header hookbridge_intended_topic), if a route can
    /// publish there
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Broker to publish to; by default each event's intended broker
    #[arg(long, value_name = "NAME")]
    to_broker: Option<String>,
    /// Publish even where no route can. Anyone who can write to the topic then chooses the destination
    #[arg(long)]
    any_destination: bool,
    /// Skip events without a destination, or with one to which no route can publish, instead of stopping. They stay in
    /// the topic, and later replays start after them
    #[arg(long)]
    skip_unplaced: bool,
    /// Skip events that the destination permanently refuses because they are too large, instead of stopping. They,
    /// too, stay in the topic
    #[arg(long)]
    skip_refused: bool,
    /// Only events with this hookbridge_reason; may be repeated
    #[arg(long = "reason", value_name = "CODE")]
    reasons: Vec<String>,
    /// Only events received at or after this time: RFC 3339, or a duration before now such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only events received before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Stop after N replayed events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// List each event with its id, reason and destination, without moving anything
    #[arg(long)]
    dry_run: bool,
}

/// A time, and how the user wrote it.
#[derive(Debug, Clone)]
struct Timestamp {
    given: String,
    at: OffsetDateTime,
}

fn parse_time(given: &str) -> Result<Timestamp, String> {
    let wrong = "write a time such as 2026-11-20T06:00:00Z, or a duration before now such as 2h";
    let at = match humantime::parse_duration(given) {
        Ok(ago) => time::Duration::try_from(ago)
            .ok()
            .and_then(|ago| OffsetDateTime::now_utc().checked_sub(ago)),
        Err(_) => OffsetDateTime::parse(given, &Rfc3339).ok(),
    };
    Ok(Timestamp {
        given: given.to_owned(),
        at: at.ok_or(wrong)?,
    })
}

impl Options {
    /// Whether all events are selected.
    fn selects_all(&self) -> bool {
        self.reasons.is_empty() && self.since.is_none() && self.until.is_none()
    }

    /// The name of the selection. Each selection has its own position, so that one does not skip what another left out.
    fn selection(&self) -> Option<String> {
        if self.selects_all() {
            return None;
        }
        let given = |moment: &Option<Timestamp>| moment.as_ref().map(|moment| moment.given.clone());
        let mut reasons = self.reasons.clone();
        reasons.sort();
        let all = format!(
            "{reasons:?} {:?} {:?}",
            given(&self.since),
            given(&self.until)
        );
        let digest = HEXLOWER.encode(&Sha256::digest(all));
        Some(digest.chars().take(12).collect())
    }

    fn selects(&self, read: &Read<'_>) -> bool {
        let has_reason = self.reasons.is_empty()
            || read
                .text("hookbridge_reason")
                .is_some_and(|reason| self.reasons.iter().any(|wanted| wanted == reason));
        if self.since.is_none() && self.until.is_none() {
            return has_reason;
        }
        let received = read
            .text("ce_recordedtime")
            .or_else(|| read.text("ce-recordedtime"))
            .and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        has_reason
            && received.is_some_and(|received| {
                self.since.as_ref().is_none_or(|since| received >= since.at)
                    && self.until.as_ref().is_none_or(|until| received < until.at)
            })
    }
}

pub(super) fn run(options: &Options) -> CommandResult {
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
    // A message's header may have named it.
    found.ok_or_else(|| format!("broker {} not found", printable(name)))
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
            .ok_or_else(|| "no broker is configured".to_owned()),
        _ => Err(format!(
            "say which broker has {} with --broker",
            options.from
        )),
    }
}

/// A message of the topic being read.
struct Read<'m> {
    delivered: &'m Delivered,
    /// Broker, topic and position.
    location: String,
    /// The headers before the broker's encoding.
    headers: Vec<(&'m str, Cow<'m, [u8]>)>,
}

impl<'m> Read<'m> {
    fn new(config: &Config, from: BrokerId, replay: &Replay, delivered: &'m Delivered) -> Self {
        let broker = config.broker(from);
        let is_encoded = broker.settings.kind() == Kind::Nats;
        let headers = delivered.headers.iter().map(|(name, value)| {
            let value = if is_encoded {
                Cow::from(percent_decode(value))
            } else {
                Cow::from(value)
            };
            (name.as_str(), value)
        });
        Self {
            delivered,
            location: format!("{}/{}", broker.name, replay.location(delivered)),
            headers: headers.collect(),
        }
    }

    /// The first header of this name, if it is text.
    fn text(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(found, _)| *found == name);
        header.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    fn event_id(&self) -> &str {
        self.text("event_id").unwrap_or_default()
    }
}

/// The position, the event and the reason, for display. The values may be forged.
impl std::fmt::Display for Read<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: Option<&str>| match text {
            None | Some("") => "-".to_owned(),
            Some(text) => printable(text).into_owned(),
        };
        let id = shown(self.text("event_id"));
        let reason = shown(self.text("hookbridge_reason"));
        write!(f, "{} {id} {reason}", printable(&self.location))
    }
}

/// A message with its destination.
struct Planned {
    broker: BrokerId,
    message: Message,
}

/// The reason why a message was not published.
enum Failure {
    /// Permanent, as long as the destination does not change.
    Refused(String),
    /// Temporary.
    NotNow(String),
}

/// The result for one message.
enum Step {
    Replayed,
    Skipped,
    NotSelected,
    /// It would stop a replay without `--dry-run`.
    WouldStop,
}

async fn replay(config: Config, from: BrokerId, options: &Options) -> CommandResult {
    let settings = config.broker(from).settings.clone();
    let mut terminated = std::pin::pin!(termination()?);
    let bridge = Bridge::start(config).await?;
    let selection = options.selection();
    let start = Replay::start(
        &settings,
        &options.from,
        selection.as_deref(),
        options.dry_run,
    );
    let mut replay = start.await?;
    let mut inspected = Inspected::default();
    let mut progress = Progress::new(replay.remaining(), options.dry_run);
    let done = loop {
        if options.limit.is_some_and(|limit| progress.done >= limit) {
            break Completion::Success;
        }
        let next = tokio::select! {
            next = replay.next() => next,
            signal = terminated.as_mut() => {
                progress.end();
                eprintln!("stopped by {signal}; {CONTINUE_HINT}");
                return Ok(Completion::Failure);
            }
        };
        let delivered = match next {
            Ok(Some(delivered)) => delivered,
            Ok(None) => break Completion::Success,
            Err(error) => {
                progress.end();
                return Err(format!("{}: {error}; {CONTINUE_HINT}", options.from).into());
            }
        };
        let read = Read::new(bridge.config(), from, &replay, &delivered);
        let shown = read.to_string();
        let stepped = if options.dry_run {
            Ok(preview(&bridge, from, options, &read)?)
        } else {
            let planned = plan(bridge.config(), from, options, &read);
            let step = step(
                &bridge,
                options,
                &mut replay,
                &mut inspected,
                &read,
                planned,
            );
            tokio::select! {
                stepped = step => stepped,
                signal = terminated.as_mut() => Err(format!("stopped by {signal}")),
            }
        };
        match stepped {
            Ok(step) => progress.note(&step),
            Err(why) => {
                // The reason matters more than a position that the broker moves back by itself.
                let left = replay.leave().await;
                progress.end();
                let left = left.map_or_else(|error| format!(" ({error})"), |()| String::new());
                let why = printable(&why);
                return Err(format!(
                    "{shown}: {why}. It and the following events are not moved{left}; {CONTINUE_HINT}"
                )
                .into());
            }
        }
    };
    progress.end();
    bridge.drain(Instant::now() + WAIT_TIMEOUT).await;
    Ok(if progress.would_stop > 0 {
        Completion::Failure
    } else {
        done
    })
}

const CONTINUE_HINT: &str = "run the same command again to continue from there";

/// Determines what would happen to a message.
fn preview(
    bridge: &Bridge,
    from: BrokerId,
    options: &Options,
    read: &Read<'_>,
) -> std::io::Result<Step> {
    if !options.selects(read) {
        return Ok(Step::NotSelected);
    }
    let (line, step) = match plan(bridge.config(), from, options, read) {
        Ok(planned) => {
            let broker = &bridge.config().broker(planned.broker).name;
            let line = format!("{read} -> {broker}:{}", planned.message.destination);
            (line, Step::Replayed)
        }
        Err(why) if options.skip_unplaced => (format!("{read} skipped: {why}"), Step::Skipped),
        Err(why) => (format!("{read} stops the replay: {why}"), Step::WouldStop),
    };
    style::println(printable(&line))?;
    Ok(step)
}

/// Publishes or skips a message, and moves the position past it.
async fn step(
    bridge: &Bridge,
    options: &Options,
    replay: &mut Replay,
    inspected: &mut Inspected,
    read: &Read<'_>,
    planned: Result<Planned, String>,
) -> Result<Step, String> {
    let text = |error: brokers::ReplayError| error.to_string();
    let passed = if !options.selects(read) {
        Step::NotSelected
    } else {
        match planned {
            Err(_) if options.skip_unplaced => Step::Skipped,
            Err(why) => return Err(why),
            Ok(planned) => {
                inspected.require(bridge.config(), &planned).await?;
                match publish(bridge, &planned).await {
                    Ok(()) => {
                        replay.done(read.delivered).await.map_err(text)?;
                        return Ok(Step::Replayed);
                    }
                    Err(Failure::Refused(_)) if options.skip_refused => Step::Skipped,
                    Err(Failure::Refused(why) | Failure::NotNow(why)) => return Err(why),
                }
            }
        }
    };
    replay.pass(read.delivered).await.map_err(text)?;
    Ok(passed)
}

/// The message to publish, or the reason why it has no destination.
fn plan(
    config: &Config,
    from: BrokerId,
    options: &Options,
    read: &Read<'_>,
) -> Result<Planned, String> {
    let topic = options
        .to
        .as_deref()
        .or_else(|| read.text("hookbridge_intended_topic"));
    let Some(topic) = topic else {
        return Err(
            "it has no intended destination; name one with --to, or skip such events with --skip-unplaced"
                .to_owned(),
        );
    };
    let intended_broker = read.text("hookbridge_intended_broker");
    let broker = match options.to_broker.as_deref().or(intended_broker) {
        Some(name) => find_broker(config, name)?,
        None => from,
    };
    if broker == from && topic == read.delivered.topic {
        return Err(
            "it would return to the topic it comes from; name another one with --to".to_owned(),
        );
    }
    let settings = &config.broker(broker).settings;
    let kind = settings.kind();
    kind.check_destination(topic).map_err(|rule| {
        let noun = kind.destination_noun();
        format!("the {noun} {topic:?} {rule}; publish it elsewhere with --to, or skip such events with --skip-unplaced")
    })?;
    let name = &config.broker(broker).name;
    let is_chosen = match (&options.to, &options.to_broker) {
        (Some(_), Some(_)) => true,
        (Some(_), None) if broker == from => true,
        (Some(_), None)
            if !config.routes_can_produce(broker, topic) && !options.any_destination =>
        {
            return Err(format!(
                "its header chooses the broker {name}, where no route publishes to {topic}; say which with --to-broker"
            ));
        }
        _ => options.any_destination,
    };
    if !is_chosen && !config.routes_can_produce(broker, topic) {
        return Err(format!(
            "no route can publish to {name}:{topic}, and anyone who may write to {} may have asked for it; \
             publish it elsewhere with --to, allow it with --any-destination, or skip such events with --skip-unplaced",
            read.delivered.topic
        ));
    }
    let key = read
        .delivered
        .key
        .as_deref()
        .map(std::str::from_utf8)
        .transpose()
        .map_err(|_| {
            "its key is not UTF-8, so the bridge did not write it; pass over such events with --skip-unplaced"
                .to_owned()
        })?
        .or_else(|| read.text("ce-partitionkey"))
        .or_else(|| read.text("ce_partitionkey"))
        .unwrap_or_else(|| read.event_id());
    let is_dropped = |name: &str| {
        (name.starts_with("hookbridge_") && name != REPLAYED_FROM)
            || name.to_ascii_lowercase().starts_with("nats-")
    };
    let mut headers = Headers::default();
    for (name, value) in read.headers.iter().filter(|(name, _)| !is_dropped(name)) {
        if !kind.can_name_header(name) {
            return Err(format!(
                "its header {name:?} has a name that NATS can't carry; pass over such events with --skip-unplaced"
            ));
        }
        headers.push(Attribute::of_header(name), value);
    }
    headers.push(Attribute::of_header(REPLAYED_FROM), &read.location);
    let message = Message {
        destination: topic.to_owned(),
        key: key.to_owned(),
        headers,
        body: read.delivered.value.clone().into(),
        // Identifies this message only: two replayed messages may have the same event id and different bodies.
        deduplication_id: Some(format!(
            "replay:{}/{}/{}",
            id_part(&read.location),
            id_part(read.event_id()),
            id_part(topic)
        )),
    };
    Ok(Planned { broker, message })
}

/// Destinations found durable, on brokers that require it.
#[derive(Default)]
struct Inspected(HashSet<(BrokerId, String)>);

impl Inspected {
    /// On a broker that requires durability, an event moves only to a destination that is known to be durable.
    async fn require(&mut self, config: &Config, planned: &Planned) -> Result<(), String> {
        let broker = config.broker(planned.broker);
        let destination = &planned.message.destination;
        let place = (planned.broker, destination.clone());
        if !broker.require_durable || self.0.contains(&place) {
            return Ok(());
        }
        let asked = std::slice::from_ref(destination);
        let findings = durability(&broker.settings, asked, config.needs(), WAIT_TIMEOUT)
            .await
            .map_err(|why| {
                format!("require_durable, and {destination} could not be inspected: {why}")
            })?;
        let problem = findings.iter().find(|finding| finding.is_problem(true));
        if let Some(why) = problem.and_then(|problem| problem.assessment.why()) {
            return Err(format!("require_durable, and of {destination}: {why}"));
        }
        if self.0.len() >= MAX_INSPECTED {
            self.0.clear();
        }
        self.0.insert(place);
        Ok(())
    }
}

/// Publishes until the broker acknowledges the message. After an unknown outcome it is published again, each time with
/// the same deduplication id.
async fn publish(bridge: &Bridge, planned: &Planned) -> Result<(), Failure> {
    let patience = Instant::now() + WAIT_TIMEOUT;
    let destination = &planned.message.destination;
    loop {
        let broker = bridge.broker(planned.broker);
        let deadline = Instant::now() + bridge.config().broker_limits().publish_timeout;
        let why = match broker.publish(&planned.message, deadline).await {
            brokers::Outcome::Stored(_) => return Ok(()),
            brokers::Outcome::NotStored(not) if not.reason == Reason::TooLarge => {
                return Err(Failure::Refused(format!(
                    "it is larger than {destination} takes ({}); raise the limit, publish it elsewhere with --to, or skip such events with --skip-refused",
                    not.detail
                )));
            }
            brokers::Outcome::NotStored(not) => not.detail,
            brokers::Outcome::Unknown(unknown) => unknown.detail,
        };
        let next = Instant::now() + Duration::from_millis(500);
        if next > patience {
            let state = match broker.health() {
                Health::Down(down) => format!(" (the broker is down: {down})"),
                Health::Refusing { why, .. } => format!(" ({why})"),
                Health::Up { .. } | Health::Starting => String::new(),
            };
            return Err(Failure::NotNow(format!(
                "{destination} did not take it: {why}{state}"
            )));
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Counts messages for the summary.
struct Progress {
    total: u64,
    done: u64,
    skipped: u64,
    not_selected: u64,
    would_stop: u64,
    is_dry: bool,
}

impl Progress {
    fn new(total: u64, is_dry: bool) -> Self {
        Self {
            total,
            done: 0,
            skipped: 0,
            not_selected: 0,
            would_stop: 0,
            is_dry,
        }
    }

    fn note(&mut self, step: &Step) {
        let count = match step {
            Step::Replayed => &mut self.done,
            Step::Skipped => &mut self.skipped,
            Step::NotSelected => &mut self.not_selected,
            Step::WouldStop => &mut self.would_stop,
        };
        *count += 1;
    }

    fn end(&self) {
        let verb = if self.is_dry {
            "would be replayed"
        } else {
            "replayed"
        };
        let mut text = format!("{} of {} {verb}", self.done, self.total);
        for (count, what) in [
            (self.skipped, "skipped"),
            (self.not_selected, "not selected"),
            (self.would_stop, "would stop it"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        eprintln!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_instants_or_durations_before_now() {
        let at = parse_time("2026-11-20T06:00:00+01:00").unwrap().at;
        assert_eq!(at.unix_timestamp(), 1_795_150_800);
        let ago = OffsetDateTime::now_utc() - parse_time("2h").unwrap().at;
        assert!((7199..7300).contains(&ago.whole_seconds()), "{ago}");
        for wrong in ["", "yesterday", "2026-11-20", "99999999999y"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
