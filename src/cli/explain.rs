//! `hookbridge explain`

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CommandResult, Completion, ConfigFiles, Error, file_of, style};
use crate::config::{Config, Source};
use crate::event::{EventId, Refusal, Violation};
use crate::ingress::{Addressed, Decided, Decision, Delivery, Rehearsal, Verdict};
use crate::printable::{printable, printable_json};
use crate::providers::authentication::Summary;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Source to which the event would be sent
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Header of the request, as `Name: value`
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Method of the request
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: Method,
    /// Query of the request's URL, without `?`
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// File with the event; standard input if omitted, or `-`
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = options.files.load_without_signing_secrets()?;
    let source = find_source(&config, &options.source)?;
    let body = read_body(options, source.max_body)?;
    let mut headers = headers(&options.headers)?;
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    let (method, query) = (options.method.clone(), options.query.as_deref());
    let (decided, summary) = Rehearsal::new(&source, method, query, headers, body.into())?.decide();
    match &decided {
        Decided::Event(decision) => {
            show(
                options.json,
                &summary,
                &[Explanation::new(&config, decision)],
            )?;
            return Ok(if matches!(decision.verdict, Verdict::Refuse(_)) {
                Completion::Failure
            } else {
                Completion::Success
            });
        }
        Decided::Batch(decisions) => {
            let explain = |decision| Explanation::new(&config, decision);
            let all: Vec<_> = decisions.iter().map(explain).collect();
            show(options.json, &summary, &all)?;
        }
        Decided::Handshake(reply) => {
            let told = Explanation {
                verdict: "handshake",
                status: Some(reply.status.as_u16()),
                ..Explanation::default()
            };
            show(options.json, &summary, &[told])?;
        }
    }
    Ok(Completion::Success)
}

/// Prints one object, or lines for each event and for its authentication, which is not verified here.
fn show(as_json: bool, signature: &Summary, explanations: &[Explanation<'_>]) -> Result<(), Error> {
    if as_json {
        #[derive(Serialize)]
        struct SingleOutput<'a> {
            #[serde(flatten)]
            event: &'a Explanation<'a>,
            signature: &'a Summary,
        }
        #[derive(Serialize)]
        struct BatchOutput<'a> {
            events: &'a [Explanation<'a>],
            signature: &'a Summary,
        }
        let text = match explanations {
            [event] => serde_json::to_string(&SingleOutput { event, signature })?,
            events => serde_json::to_string(&BatchOutput { events, signature })?,
        };
        return Ok(style::println(printable_json(&text))?);
    }
    let texts = explanations.iter().map(Explanation::to_text);
    let texts: Vec<_> = texts.chain([summary_to_text(signature)]).collect();
    Ok(style::print(texts.join("\n"))?)
}

fn summary_to_text(summary: &Summary) -> String {
    let covers = match summary.covers.as_str() {
        "" => "no part of the request",
        covers => covers,
    };
    let unsigned = summary.unsigned_headers.join(", ");
    let lines = [
        ("verified", summary.by.as_str()),
        ("signed", covers),
        ("unsigned", unsigned.as_str()),
    ];
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    let line = |(title, value): (&str, &str)| {
        let title = style::bold(&format!("{title:8}"));
        format!("{title}  {}\n", printable(value))
    };
    shown.map(line).collect()
}

/// Reads the event, or enough of it to show that it is too large.
fn read_body(options: &Options, max_body: usize) -> Result<Vec<u8>, Error> {
    let limit = u64::try_from(max_body)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut body = Vec::new();
    match file_of(options.file.as_ref()) {
        Some(file) => {
            let opened = std::fs::File::open(file);
            opened
                .and_then(|opened| opened.take(limit).read_to_end(&mut body))
                .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        }
        None if options.files.reads_standard_input() => {
            return Err("standard input is the configuration; name the event's file".into());
        }
        None => {
            std::io::stdin().take(limit).read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

#[derive(Debug, thiserror::Error)]
#[error("source {name} not found; configured: {known}")]
pub(super) struct UnknownSource {
    name: String,
    known: String,
}

pub(super) fn find_source(config: &Config, name: &str) -> Result<Arc<Source>, UnknownSource> {
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
            UnknownSource {
                name: name.to_owned(),
                known: known.join(", "),
            }
        })
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a header; write `Name: value`")]
pub(super) struct NotAHeader(String);

/// Parses headers as written in arguments.
pub(super) fn headers(lines: &[String]) -> Result<HeaderMap, NotAHeader> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || NotAHeader(line.clone());
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(
            name,
            HeaderValue::from_str(value.trim()).map_err(|_| wrong())?,
        );
    }
    Ok(headers)
}

/// An additional destination of an event.
#[derive(Debug, Serialize)]
pub(super) struct AlsoTo<'a> {
    pub(super) broker: &'a str,
    pub(super) topic: &'a str,
    key: &'a str,
}

/// The fields of the output, in this order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Explanation<'a> {
    pub(super) verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    pub(super) event_id: Option<&'a str>,
    #[serde(rename = "type")]
    pub(super) event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fallback: Option<AlsoTo<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) copies: Vec<AlsoTo<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(super) headers: Map<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) errors: &'a [Violation],
}

impl<'a> Explanation<'a> {
    pub(super) fn new(config: &'a Config, decision: &'a Decision) -> Self {
        let told = Self {
            event_id: decision.event_id.as_ref().map(EventId::as_str),
            event_type: decision.event_type.as_deref(),
            ..Self::default()
        };
        match &decision.verdict {
            Verdict::Publish { route, delivery } => Self {
                verdict: "publish",
                route: Some(route.ordinal),
                ..told
            }
            .with_delivery(config, delivery),
            Verdict::DeadLetter { letter, refusal } => Self {
                verdict: "dead_letter",
                ..told
            }
            .with_message(config, letter)
            .with_refusal(refusal),
            Verdict::Ignore => Self {
                verdict: "ignore",
                ..told
            },
            Verdict::Refuse(refusal) => Self {
                verdict: "refuse",
                status: Some(refusal.status().as_u16()),
                ..told
            }
            .with_refusal(refusal),
        }
    }

    fn with_delivery(self, config: &'a Config, delivery: &'a Delivery) -> Self {
        let also = |addressed: &'a Addressed| AlsoTo {
            broker: &config.broker(addressed.broker).name,
            topic: &addressed.message.destination,
            key: &addressed.message.key,
        };
        Self {
            fallback: delivery.fallback.as_deref().map(also),
            copies: delivery.copies.iter().map(also).collect(),
            ..self.with_message(config, &delivery.to)
        }
    }

    fn with_message(self, config: &'a Config, addressed: &'a Addressed) -> Self {
        let Addressed { broker, message } = addressed;
        let broker = config.broker(*broker);
        let headers = message
            .headers_on(broker.settings.kind())
            // The headers come from the command line, so they are text.
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value).into_owned();
                (name.into_owned(), value.into())
            });
        Self {
            broker: Some(&broker.name),
            topic: Some(&message.destination),
            key: Some(&message.key),
            headers: headers.collect(),
            ..self
        }
    }

    fn with_refusal(self, refusal: &'a Refusal) -> Self {
        let errors = match refusal {
            Refusal::InvalidEvent(violations) => violations.as_slice(),
            _ => &[],
        };
        Self {
            code: Some(refusal.code()),
            detail: Some(refusal.detail().into_owned()),
            errors,
            ..self
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |title: &str, value: &dyn std::fmt::Display| {
            text.push_str(&format!(
                "{}  {}\n",
                style::bold(&format!("{title:8}")),
                printable(&value.to_string())
            ));
        };
        line("verdict", &self.verdict);
        let numbers = [
            ("status", self.status.map(usize::from)),
            ("route", self.route),
        ];
        let texts = [
            ("code", self.code),
            ("detail", self.detail.as_deref()),
            ("event_id", self.event_id),
            ("type", self.event_type),
            ("broker", self.broker),
            ("topic", self.topic),
            ("key", self.key),
        ];
        numbers
            .iter()
            .filter_map(|(title, value)| Some((title, (*value)?)))
            .for_each(|(title, value)| line(title, &value));
        texts
            .iter()
            .filter_map(|(title, value)| Some((title, (*value)?)))
            .for_each(|(title, value)| line(title, &value));
        let also = self
            .fallback
            .iter()
            .map(|also| ("fallback", also))
            .chain(self.copies.iter().map(|also| ("copy", also)));
        for (title, AlsoTo { broker, topic, key }) in also {
            line(title, &format!("{broker} {topic} {key}"));
        }
        for (name, value) in &self.headers {
            line(
                "header",
                &format!("{name}: {}", value.as_str().unwrap_or_default()),
            );
        }
        for Violation { pointer, reason } in self.errors {
            line("error", &format!("{pointer} {reason}"));
        }
        text
    }
}
