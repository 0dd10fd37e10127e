//! Reads `event`, `split` and `handshakes` of a source, for presets and user declarations.

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::handshake::{Answer, Body, Condition, Handshake, JsonValue, Wanted};
use super::hooks;
use super::mapping::{BodyKind, Mapping, Split, TimeUnit};
use super::text::{Alternative, Choice, Text};
use crate::json::Pointer;
use crate::table::{Section, WordOrSection};

/// Reads a template. The outer `None` means that the key is absent, the inner that a problem was reported.
pub(super) fn read_text(section: &mut Section<'_>, key: &'static str) -> Option<Option<Text>> {
    let text = section.text(key)?;
    Some(
        Text::parse(&text)
            .map_err(|mistake| section.problem_at(key, mistake.to_string()))
            .ok(),
    )
}

fn read_choice(section: &mut Section<'_>, key: &'static str) -> Choice {
    let mut alternatives = Vec::new();
    for (index, value) in section.words_or_sections(key).into_iter().enumerate() {
        let at = format!("{key}[{index}]");
        let alternative = match value {
            WordOrSection::Word(word) => match Text::parse(&word) {
                Ok(text) => Some(Alternative { text, when: None }),
                Err(mistake) => {
                    section.problem_at(&at, mistake.to_string());
                    None
                }
            },
            WordOrSection::Section(mut table) => {
                let text = read_text(&mut table, "text").flatten();
                let when = read_text(&mut table, "when").flatten();
                table.finish();
                text.map(|text| Alternative { text, when })
            }
        };
        if let Some(Alternative { text, .. }) = &alternative
            && let Some(mistake) = mistake_in(text, key)
        {
            section.problem_at(&at, mistake);
        }
        alternatives.extend(alternative);
    }
    Choice(alternatives)
}

/// A mistake in a template that is valid by itself.
fn mistake_in(text: &Text, key: &str) -> Option<String> {
    if text.has_timestamp() {
        return Some(
            "contains {timestamp}, which is known only in `content`; write where the event has it, for example \"{/created_at}\"".to_owned(),
        );
    }
    if text.has_placeholder() {
        return None;
    }
    let literal = text.to_string();
    if literal.starts_with('/') {
        return Some(format!(
            "would be this text for every event, since a JSON Pointer has braces; write \"{{{literal}}}\""
        ));
    }
    (key == "id").then(|| {
        "would be the same for every event, so that the second one counts as a duplicate; write for example \"{/id}\", or \"{sha256:body}\" where the provider gives none".to_owned()
    })
}
/// The names of body formats.
pub(super) const BODIES: [(&str, BodyKind); 5] = [
    ("json", BodyKind::Json),
    ("form", BodyKind::Form),
    ("lines", BodyKind::Lines),
    ("raw", BodyKind::Raw),
    ("cloudevents", BodyKind::CloudEvent),
];

pub(super) const TIME_UNITS: [(&str, TimeUnit); 3] = [
    ("rfc3339", TimeUnit::Text),
    ("s", TimeUnit::Seconds),
    ("ms", TimeUnit::Milliseconds),
];

/// The methods that a handshake may have.
pub(super) const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];

/// Reads `event` and `split`.
pub fn read_mapping(source: &mut Section<'_>) -> Option<Mapping> {
    let split = source
        .text("split")
        .and_then(|text| match Pointer::parse(&text) {
            _ if text.is_empty() => Some(Split::Root),
            Ok(pointer) => Some(Split::At(pointer)),
            Err(rule) => {
                source.problem_at(
                    "split",
                    format!(
                        "{rule}; write for example \"/events\", or \"\" where the body is the array"
                    ),
                );
                None
            }
        });
    let Some(mut event) = source.section("event") else {
        source.problem("does not locate the id and type of an event; write `[…event]` with `id = \"{/id}\"` and `type = \"{/type}\"`");
        return None;
    };
    let hook = event.text("hook").and_then(|name| {
        let hook = hooks::find(&name);
        if hook.is_none() {
            event.problem_at("hook", "unknown hook; remove it");
        }
        hook
    });
    let body = event.word("body", &BODIES).unwrap_or(BodyKind::Json);
    let is_cloud_event = body == BodyKind::CloudEvent;
    for key in ["id", "type", "time", "subject", "key"] {
        if is_cloud_event && event.has(key) {
            event.problem_at(
                key,
                "has no effect: a CloudEvent has this attribute itself; remove it",
            );
        }
    }
    for (key, example) in [("id", "\"{/id}\""), ("type", "\"{/type}\"")] {
        if hook.is_none() && !is_cloud_event && !event.has(key) && !event.is_misspelt(key) {
            event.problem(format!(
                "lacks `{key}`; write for example `{key} = {example}`"
            ));
        }
    }
    let mapping = Mapping {
        body,
        takes_cloud_events: event.flag("cloudevents"),
        form_field: event.text("form_field"),
        split,
        id: read_choice(&mut event, "id"),
        event_type: read_choice(&mut event, "type"),
        time: read_choice(&mut event, "time"),
        time_unit: event
            .word("time_unit", &TIME_UNITS)
            .unwrap_or(TimeUnit::Text),
        subject: read_choice(&mut event, "subject"),
        key: read_choice(&mut event, "key"),
        types: event.texts("types").unwrap_or_default(),
        types_are_all: event.flag("types_are_all"),
        hook,
    };
    let choices = [
        ("id", &mapping.id),
        ("type", &mapping.event_type),
        ("time", &mapping.time),
        ("subject", &mapping.subject),
        ("key", &mapping.key),
    ];
    for (key, choice) in choices {
        if !mapping.takes_forms() && choice.texts().any(Text::has_form_field) {
            event.problem_at(
                key,
                "contains {form:…}, but the body is read as JSON; add `body = \"form\"`",
            );
        }
        let is_required = matches!(key, "id" | "type") && choice.texts().next().is_some();
        if mapping.body == BodyKind::Raw && is_required && choice.texts().all(Text::has_pointer) {
            event.problem_at(
                key,
                "contains a JSON Pointer, but with `body = \"raw\"` the body is not read; use {header:…}, or leave `body` out",
            );
        }
    }
    event.finish();
    if mapping.split.is_some() && !matches!(mapping.body, BodyKind::Json | BodyKind::Form) {
        source.problem_at(
            "split",
            "splits a JSON body, which this source does not have; remove it",
        );
    }
    Some(mapping)
}

/// Reads `[[handshakes]]`.
pub fn read_handshakes(source: &mut Section<'_>) -> Vec<Handshake> {
    let tables = source.sections("handshakes");
    let read = tables.into_iter().filter_map(read_handshake);
    // A handshake that no host may begin is disabled.
    read.filter(|handshake| {
        let mut conditions = handshake.conditions.iter();
        !conditions
            .any(|condition| matches!(&condition.wanted, Wanted::Host(names) if names.is_empty()))
    })
    .collect()
}

fn read_handshake(mut section: Section<'_>) -> Option<Handshake> {
    let method = section.text("method").unwrap_or_else(|| "POST".to_owned());
    let is_known = METHODS.contains(&method.as_str());
    let method = Method::from_bytes(method.as_bytes()).ok();
    let method = method.filter(|_| is_known);
    let Some(method) = method else {
        section.problem_at(
            "method",
            "is not one of \"GET\", \"HEAD\", \"OPTIONS\" and \"POST\"",
        );
        section.finish_quietly();
        return None;
    };
    let equals = section.text("equals").map(Wanted::Equal);
    let hosts = section.texts("hosts");
    for host in hosts.iter().flatten() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host != "*" && (host.is_empty() || !host.bytes().all(is_plain)) {
            let what = format!(
                "\"{}\" is not a host name; write for example \"emitter.example.com\", or \"*\" for every one",
                host.escape_debug()
            );
            section.problem_at("hosts", what);
        }
    }
    let hosts = hosts.map(Wanted::Host);
    let mut conditions = Vec::new();
    for key in ["query", "header", "form", "pointer"] {
        let Some(name) = section.text(key) else {
            continue;
        };
        let text = if key == "pointer" {
            format!("{{{name}}}")
        } else {
            format!("{{{key}:{name}}}")
        };
        match Text::parse(&text) {
            Ok(text) => conditions.push(Condition {
                text,
                wanted: Wanted::Any,
            }),
            Err(mistake) => section.problem_at(key, mistake.to_string()),
        }
    }
    if equals.is_some() && hosts.is_some() {
        section.problem_at("hosts", "conflicts with `equals`; leave one of the two");
    }
    let key = if hosts.is_some() { "hosts" } else { "equals" };
    match (equals.or(hosts), conditions.last_mut()) {
        (Some(wanted), Some(last)) => last.wanted = wanted,
        (Some(_), None) => section.problem_at(key, "needs `query`, `header`, `form` or `pointer`"),
        (None, _) => {}
    }
    let absent = section.text("absent").and_then(|text| {
        let read = Pointer::parse(&text);
        read.map_err(|rule| section.problem_at("absent", rule)).ok()
    });
    let says_verified = section.has("verified");
    let verified = section.flag("verified");
    let needs_content = |condition: &Condition| condition.text.needs_content();
    if !says_verified && (absent.is_some() || conditions.iter().any(needs_content)) {
        section.problem("would be recognized by an unverified body; write `verified = true`, or `verified = false` where the provider does not sign it");
    }
    if method == Method::POST && conditions.is_empty() {
        section.problem("would match every event; write `query`, `header`, `form` or `pointer`");
    }
    let status = u16::try_from(section.count("status")).ok();
    let content_type = section.text("content_type").and_then(|value| {
        let header = HeaderValue::from_str(&value).ok();
        if header.is_none() {
            section.problem_at(
                "content_type",
                "is not a media type; write for example \"text/plain\"",
            );
        }
        header
    });
    let headers = section.section("headers").map(read_answer_headers);
    let text = read_text(&mut section, "answer");
    let body = match (section.section("json"), text) {
        (Some(json), _) => Body::Json(read_json_answer(json)),
        (None, Some(text)) => Body::Text(text?),
        (None, None) => Body::Empty,
    };
    // Browsers could interpret an echo without a type as a page.
    let usual = match body {
        Body::Empty => None,
        Body::Text(_) => Some(HeaderValue::from_static("text/plain")),
        Body::Json(_) => Some(HeaderValue::from_static("application/json")),
    };
    let handshake = Handshake {
        method,
        conditions,
        absent: absent.into_iter().collect(),
        verified,
        answer: Answer {
            status: status
                .and_then(|status| StatusCode::from_u16(status).ok())
                .unwrap_or(StatusCode::OK),
            content_type: content_type.or(usual),
            headers: headers.unwrap_or_default(),
            body,
        },
    };
    section.finish();
    Some(handshake)
}

fn read_answer_headers(mut section: Section<'_>) -> Vec<(HeaderName, Text)> {
    let mut headers = Vec::new();
    for (name, value) in section.take_text_map() {
        match (HeaderName::from_bytes(name.as_bytes()), Text::parse(&value)) {
            (Ok(header), Ok(text)) => headers.push((header, text)),
            (Err(_), _) => section.problem_at(&name, "is not a valid header name"),
            (_, Err(mistake)) => section.problem_at(&name, mistake.to_string()),
        }
    }
    headers
}

fn read_json_answer(mut section: Section<'_>) -> Vec<(String, JsonValue)> {
    let mut members = Vec::new();
    for (name, value) in section.take_text_map() {
        let hmac = value
            .strip_prefix("{hmac:")
            .and_then(|rest| rest.strip_suffix('}'));
        let read = match (hmac, value.parse::<u64>()) {
            (Some(pointer), _) => Pointer::parse(pointer)
                .map(JsonValue::Hmac)
                .map_err(str::to_owned),
            (None, Ok(number)) => Ok(JsonValue::Number(number)),
            (None, Err(_)) => Text::parse(&value)
                .map(JsonValue::Text)
                .map_err(|mistake| mistake.to_string()),
        };
        match read {
            Ok(value) => members.push((name, value)),
            Err(mistake) => section.problem_at(&name, mistake),
        }
    }
    members
}
