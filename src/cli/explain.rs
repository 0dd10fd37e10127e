//! `hookbridge explain`

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{ConfigFiles, Done, Outcome, style};
use crate::brokers::{Kind, Message};
use crate::config::{BrokerId, Config, Source};
use crate::ingress::{Decision, Received, Refusal, Verdict, Verified, decide};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// The source that the event would come to
    #[arg(long, value_name = "NAME")]
    source: String,
    /// A header that the request would have, as `Name: value`
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// The event; standard input where there is none
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Outcome {
    let config = options.files.load()?;
    let source = find_source(&config, &options.source)?;
    let body = match &options.file {
        Some(file) => std::fs::read(file)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))?,
        None => {
            let mut body = Vec::new();
            let limit = u64::try_from(source.max_body)
                .unwrap_or(u64::MAX)
                .saturating_add(1);
            std::io::stdin().take(limit).read_to_end(&mut body)?;
            body
        }
    };
    let decision = if body.len() > source.max_body {
        Decision {
            event_id: None,
            event_type: None,
            verdict: Verdict::Refuse(Refusal::BodyTooLarge {
                limit_bytes: source.max_body,
            }),
        }
    } else {
        // The signature can't be judged here: this is the one place that takes a request for genuine.
        decide(&Verified::assumed(Received::from_parts(
            source,
            headers(&options.headers)?,
            body.into(),
            SystemTime::now(),
        )))
    };
    let explanation = Explanation {
        config: &config,
        decision: &decision,
    };
    if options.json {
        println!("{}", explanation.to_json());
    } else {
        print!("{}", explanation.to_text());
    }
    Ok(if matches!(decision.verdict, Verdict::Refuse(_)) {
        Done::Badly
    } else {
        Done::Well
    })
}

fn find_source(config: &Config, name: &str) -> Result<Arc<Source>, String> {
    config
        .sources
        .iter()
        .find(|source| source.name == name)
        .cloned()
        .ok_or_else(|| {
            let known: Vec<_> = config
                .sources
                .iter()
                .map(|source| source.name.as_str())
                .collect();
            format!(
                "there is no source {name}; configured: {}",
                known.join(", ")
            )
        })
}

fn headers(lines: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || format!("`{line}` is no header; write `Name: value`");
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(
            name,
            HeaderValue::from_str(value.trim()).map_err(|_| wrong())?,
        );
    }
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    Ok(headers)
}

struct Explanation<'a> {
    config: &'a Config,
    decision: &'a Decision,
}

impl Explanation<'_> {
    fn to_json(&self) -> Value {
        let Decision {
            event_id,
            event_type,
            verdict,
        } = self.decision;
        let mut object =
            json!({ "event_id": event_id.as_ref().map(ToString::to_string), "type": event_type });
        match verdict {
            Verdict::Publish {
                route,
                broker,
                message,
            } => {
                object["verdict"] = json!("publish");
                object["route"] = json!(route);
                self.add_message(&mut object, *broker, message);
            }
            Verdict::DeadLetter {
                broker,
                message,
                refusal,
            } => {
                object["verdict"] = json!("dead_letter");
                self.add_message(&mut object, *broker, message);
                add_refusal(&mut object, refusal);
            }
            Verdict::Ignore => object["verdict"] = json!("ignore"),
            Verdict::Refuse(refusal) => {
                object["verdict"] = json!("refuse");
                object["status"] = json!(refusal.status().as_u16());
                add_refusal(&mut object, refusal);
            }
        }
        object
    }

    fn add_message(&self, object: &mut Value, broker: BrokerId, message: &Message) {
        let broker = self.config.broker(broker);
        let names = message
            .headers
            .iter()
            .map(|header| match broker.settings.kind() {
                Kind::Kafka => header.attribute.on_kafka(),
                Kind::Nats => header.attribute.on_nats(),
            });
        let headers: Map<String, Value> = names
            .zip(&message.headers)
            .map(|(name, header)| (name.to_owned(), json!(header.value)))
            .collect();
        object["broker"] = json!(broker.name);
        object["topic"] = json!(message.destination);
        object["key"] = json!(message.key);
        object["headers"] = Value::Object(headers);
    }

    fn to_text(&self) -> String {
        let object = self.to_json();
        let mut text = String::new();
        for name in [
            "verdict", "status", "code", "detail", "event_id", "type", "route", "broker", "topic",
            "key",
        ] {
            match &object[name] {
                Value::Null => {}
                Value::String(value) => {
                    text.push_str(&format!("{}  {value}\n", style::bold(&format!("{name:8}"))))
                }
                value => {
                    text.push_str(&format!("{}  {value}\n", style::bold(&format!("{name:8}"))))
                }
            }
        }
        for (title, list) in [("headers", object["headers"].as_object())] {
            for (name, value) in list.into_iter().flatten() {
                text.push_str(&format!(
                    "{}  {name}: {}\n",
                    style::bold(&format!("{title:8}")),
                    value.as_str().unwrap_or_default()
                ));
            }
        }
        for error in object["errors"].as_array().into_iter().flatten() {
            let (pointer, reason) = (
                error["pointer"].as_str().unwrap_or_default(),
                error["reason"].as_str().unwrap_or_default(),
            );
            text.push_str(&format!(
                "{}  {pointer} {reason}\n",
                style::bold("error   ")
            ));
        }
        text
    }
}

fn add_refusal(object: &mut Value, refusal: &Refusal) {
    object["code"] = json!(refusal.code());
    object["detail"] = json!(refusal.detail());
    if let Refusal::InvalidEvent(violations) = refusal {
        let errors = violations
            .iter()
            .map(|violation| json!({ "pointer": violation.pointer, "reason": violation.reason }));
        object["errors"] = errors.collect();
    }
}
