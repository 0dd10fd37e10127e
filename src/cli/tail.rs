//! `hookbridge tail`

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{ConfigFiles, Done, Outcome, runtime, style};
use crate::brokers::{Delivered, From, SubscribeError, Subscription};
use crate::config::{BrokerId, Config};

/// Messages that wait to be printed.
const QUEUE: usize = 64;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// A topic or subject; all that the routes name where there is none
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// The broker that has the topics; needed where several are configured and no route names the topic
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Begin with what is kept instead of what comes
    #[arg(long)]
    from_start: bool,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

pub(super) fn run(options: &Options) -> Outcome {
    let config = options.files.load()?;
    let wanted = wanted(&config, options)?;
    runtime()?.block_on(follow(&config, wanted, options))
}

/// Which topics on which broker.
fn wanted(config: &Config, options: &Options) -> Result<Vec<(BrokerId, Vec<String>)>, String> {
    let is_chosen = |id: &BrokerId| {
        options
            .broker
            .as_ref()
            .is_none_or(|name| config.broker(*id).name == *name)
    };
    let brokers: Vec<BrokerId> = config.broker_ids().filter(is_chosen).collect();
    if let (Some(name), true) = (&options.broker, brokers.is_empty()) {
        return Err(format!("there is no broker {name}"));
    }
    if options.topics.is_empty() {
        let known = brokers
            .into_iter()
            .map(|id| (id, config.known_destinations(id)))
            .filter(|(_, topics)| !topics.is_empty());
        return Ok(known.collect());
    }
    let mut wanted: Vec<(BrokerId, Vec<String>)> = Vec::new();
    for topic in &options.topics {
        let named = brokers
            .iter()
            .copied()
            .filter(|id| config.known_destinations(*id).contains(topic));
        let mut having: Vec<_> = named.collect();
        if having.is_empty() && brokers.len() == 1 {
            having.clone_from(&brokers);
        }
        if having.is_empty() {
            return Err(format!(
                "no route names the topic {topic}; say which broker has it with --broker"
            ));
        }
        for id in having {
            match wanted.iter_mut().find(|(known, _)| *known == id) {
                Some((_, topics)) => topics.push(topic.clone()),
                None => wanted.push((id, vec![topic.clone()])),
            }
        }
    }
    Ok(wanted)
}

async fn follow(
    config: &Config,
    wanted: Vec<(BrokerId, Vec<String>)>,
    options: &Options,
) -> Outcome {
    if wanted.is_empty() {
        return Err(
            "the routes name no topic that is known in advance; say which with --topic".into(),
        );
    }
    let from = if options.from_start {
        From::Start
    } else {
        From::Now
    };
    let (sender, mut messages) = mpsc::channel(QUEUE);
    for (id, topics) in wanted {
        let broker = config.broker(id);
        let name = broker.name.clone();
        let subscription = Subscription::start(&broker.settings, &topics, from).await;
        let mut subscription = subscription.map_err(|error| format!("broker {name}: {error}"))?;
        eprintln!("following {} on {name}", topics.join(", "));
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                let next = subscription.next().await;
                let is_last = next.is_err();
                if sender.send((name.clone(), next)).await.is_err() || is_last {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut printed = 0;
    while options.count.is_none_or(|count| printed < count) {
        let Some((broker, next)) = messages.recv().await else {
            break;
        };
        let delivered: Delivered =
            next.map_err(|error: SubscribeError| format!("broker {broker}: {error}"))?;
        print(&broker, &delivered, options.json);
        printed += 1;
    }
    Ok(Done::Well)
}

fn print(broker: &str, delivered: &Delivered, as_json: bool) {
    if as_json {
        println!("{}", to_json(broker, delivered));
    } else {
        print!("{}", to_text(broker, delivered));
    }
}

/// One message for a program.
fn to_json(broker: &str, delivered: &Delivered) -> Value {
    let headers: Map<String, Value> = delivered
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(String::from_utf8_lossy(value))))
        .collect();
    let mut object = json!({ "broker": broker, "topic": delivered.topic, "headers": headers });
    if let Some((partition, offset)) = delivered.position {
        object["partition"] = json!(partition);
        object["offset"] = json!(offset);
    }
    if let Some(key) = &delivered.key {
        object["key"] = json!(String::from_utf8_lossy(key));
    }
    match std::str::from_utf8(&delivered.value) {
        Ok(value) => object["value"] = json!(value),
        Err(_) => object["value_base64"] = json!(BASE64_STANDARD.encode(&delivered.value)),
    }
    object
}

/// One message for a person; control characters of the sender's are escaped.
pub(super) fn to_text(broker: &str, delivered: &Delivered) -> String {
    let mut text = style::bold(&delivered.topic);
    text.push_str(&style::dim(&format!("  {broker}")));
    if let Some((partition, offset)) = delivered.position {
        text.push_str(&style::dim(&format!(
            "  partition {partition} offset {offset}"
        )));
    }
    if let Some(key) = &delivered.key {
        text.push_str(&format!("  key {}", printable(key)));
    }
    text.push('\n');
    for (name, value) in &delivered.headers {
        text.push_str(&format!(
            "  {}\n",
            style::dim(&format!("{name}: {}", printable(value)))
        ));
    }
    text.push_str(&format!("  {}\n", compact(&delivered.value)));
    text
}

/// The value without its line breaks and indentation, cut after some lines' worth.
fn compact(value: &[u8]) -> String {
    const MAX: usize = 400;
    let text = String::from_utf8_lossy(value);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let joined = printable(lines.join(" ").as_bytes());
    match joined.char_indices().nth(MAX) {
        Some((end, _)) => format!(
            "{}… ({} bytes)",
            joined.get(..end).unwrap_or_default(),
            value.len()
        ),
        None => joined,
    }
}

fn printable(bytes: &[u8]) -> String {
    let escape = |character: char| {
        if character.is_control() {
            character.escape_unicode().to_string()
        } else {
            character.to_string()
        }
    };
    String::from_utf8_lossy(bytes).chars().map(escape).collect()
}
