//! `hookbridge tail`

use std::collections::BTreeMap;

use clap::Args;
use data_encoding::BASE64;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{CommandResult, Completion, ConfigFiles, runtime, style};
use crate::brokers::{Delivered, StartAt, SubscribeError, Subscription};
use crate::config::{BrokerId, Config};
use crate::printable::{printable, printable_json};

/// Messages waiting to be printed.
const QUEUE: usize = 64;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Topic or subject; by default all that the routes name
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Broker of the topics; needed if several are configured and no route names the topic
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Start from the oldest retained message
    #[arg(long)]
    from_start: bool,
    /// Exit after N messages
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = options.files.load_without_signing_secrets()?;
    let wanted = wanted(&config, options)?;
    runtime()?.block_on(follow(&config, wanted, options))
}

/// The topics to follow, by broker.
fn wanted(config: &Config, options: &Options) -> Result<Vec<(BrokerId, Vec<String>)>, String> {
    let is_chosen = |id: &BrokerId| {
        options
            .broker
            .as_ref()
            .is_none_or(|name| config.broker(*id).name == *name)
    };
    let brokers: Vec<BrokerId> = config.broker_ids().filter(is_chosen).collect();
    if let (Some(name), true) = (&options.broker, brokers.is_empty()) {
        return Err(format!("broker {name} not found"));
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
) -> CommandResult {
    if wanted.is_empty() {
        return Err(
            "the routes name no topic that is known in advance; say which with --topic".into(),
        );
    }
    let from = if options.from_start {
        StartAt::Earliest
    } else {
        StartAt::Latest
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
        if options.json {
            style::println(printable_json(&to_json(&broker, &delivered)?))?;
        } else {
            style::print(to_text(&broker, &delivered))?;
        }
        printed += 1;
    }
    Ok(Completion::Success)
}

/// One message as JSON.
#[derive(Serialize)]
struct Line<'a> {
    broker: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    headers: BTreeMap<&'a str, OneOrMany<&'a str>>,
    /// Headers whose value is not UTF-8.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers_base64: BTreeMap<&'a str, OneOrMany<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// All values of one header name: a string, or a list if there are several.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn add<'a>(to: &mut BTreeMap<&'a str, Self>, name: &'a str, value: T) {
        let all = match to.remove(name) {
            None => Self::One(value),
            Some(Self::One(first)) => Self::Many(vec![first, value]),
            Some(Self::Many(mut all)) => {
                all.push(value);
                Self::Many(all)
            }
        };
        to.insert(name, all);
    }
}

fn to_json(broker: &str, delivered: &Delivered) -> Result<String, serde_json::Error> {
    let (partition, offset) = delivered.position.unzip();
    let value = std::str::from_utf8(&delivered.value).ok();
    let key = delivered.key.as_deref();
    let (mut headers, mut headers_base64) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in &delivered.headers {
        match std::str::from_utf8(value) {
            Ok(text) => OneOrMany::add(&mut headers, name, text),
            Err(_) => OneOrMany::add(&mut headers_base64, name, BASE64.encode(value)),
        }
    }
    serde_json::to_string(&Line {
        broker,
        topic: &delivered.topic,
        partition,
        offset,
        key: key.and_then(|key| std::str::from_utf8(key).ok()),
        key_base64: key
            .filter(|key| std::str::from_utf8(key).is_err())
            .map(|key| BASE64.encode(key)),
        headers,
        headers_base64,
        value,
        value_base64: value.is_none().then(|| BASE64.encode(&delivered.value)),
    })
}

/// One message as readable text.
pub(super) fn to_text(broker: &str, delivered: &Delivered) -> String {
    let mut text = style::bold(&printable(&delivered.topic));
    text.push_str(&style::dim(&format!("  {broker}")));
    if let Some((partition, offset)) = delivered.position {
        text.push_str(&style::dim(&format!(
            "  partition {partition} offset {offset}"
        )));
    }
    if let Some(key) = &delivered.key {
        text.push_str(&format!(
            "  key {}",
            printable(&String::from_utf8_lossy(key))
        ));
    }
    text.push('\n');
    for (name, value) in &delivered.headers {
        text.push_str(&format!(
            "  {}\n",
            style::dim(&printable(&format!(
                "{name}: {}",
                String::from_utf8_lossy(value)
            )))
        ));
    }
    text.push_str(&format!("  {}\n", compact(&delivered.value)));
    text
}

/// The value without line breaks and indentation, cut to some lines' worth.
fn compact(value: &[u8]) -> String {
    const MAX: usize = 400;
    let text = String::from_utf8_lossy(value);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let joined = lines.join(" ");
    let joined = printable(&joined);
    match joined.char_indices().nth(MAX) {
        Some((end, _)) => format!(
            "{}… ({} bytes)",
            joined.get(..end).unwrap_or_default(),
            value.len()
        ),
        None => joined.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_output_loses_no_byte_and_no_header() {
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let delivered = Delivered {
            topic: "t".to_owned(),
            position: None,
            key: Some(b"k\xff".to_vec()),
            headers: vec![
                header("a", b"1"),
                header("a", b"2"),
                header("b", b"3"),
                header("c", b"\xf6"),
            ],
            value: b"{}".to_vec(),
        };
        let line: serde_json::Value =
            serde_json::from_str(&to_json("main", &delivered).unwrap()).unwrap();
        assert_eq!(line["key_base64"], "a/8=");
        assert!(line.get("key").is_none());
        assert_eq!(
            line["headers"],
            serde_json::json!({ "a": ["1", "2"], "b": "3" })
        );
        assert_eq!(line["headers_base64"], serde_json::json!({ "c": "9g==" }));
    }
}
