//! `hookbridge providers`

use clap::Args;
use serde_json::Value;

use super::send::find_preset;
use super::{CommandResult, Completion, style};
use crate::providers::Preset;
use crate::providers::preset::{PRESETS, PresetFile};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Provider to describe
    name: Option<String>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    match &options.name {
        None => list()?,
        Some(name) => explain(find_preset(name)?)?,
    }
    Ok(Completion::Success)
}

fn list() -> std::io::Result<()> {
    let headings = ["PRESET", "PROVIDER", "VERIFIED BY", "SAME EVENT BY"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for preset in PRESETS {
        let file = preset.read();
        rows.push(vec![
            preset.name.to_owned(),
            file.about.title.clone(),
            verified_by(&file),
            word(&file, "dedup_by").unwrap_or_default(),
        ]);
    }
    style::print(style::table(&rows))
}

fn explain(preset: &Preset) -> std::io::Result<()> {
    let file = preset.read();
    let about = &file.about;
    style::println(style::bold(&format!("{}: {}", preset.name, about.title)))?;
    let mut lines = vec![
        ("documentation", about.page.clone()),
        ("page", format!("docs/providers/{}.md", preset.name)),
        ("verified by", verified_by(&file)),
        ("signed", signed(&file)),
        (
            "secret",
            about
                .secret
                .clone()
                .unwrap_or_else(|| "a secret that both sides know".to_owned()),
        ),
        ("retries", about.retries.clone()),
    ];
    let covers_body = preset
        .authentication(None)
        .is_ok_and(|authentication| authentication.covers_body());
    if !covers_body {
        let what = "not signed: anyone who has seen a request can send another body while its signature or secret is valid";
        lines.insert(2, ("body", what.to_owned()));
    }
    lines.extend(about.timeout.clone().map(|timeout| ("waits", timeout)));
    let largest = about.largest_body.clone();
    lines.extend(largest.map(|largest| ("largest body", largest)));
    if about.needs_fallback {
        let advice = "a `fallback` on its routes: an outage of the broker loses events";
        lines.push(("recommended", advice.to_owned()));
    }
    let keys = [
        ("media types", "media_types"),
        ("tolerance", "tolerance"),
        ("publish_timeout", "publish_timeout"),
        ("max_body", "max_body"),
        ("success_status", "success_status"),
        ("split", "split"),
        ("dedup_by", "dedup_by"),
        ("dedup_window", "dedup_window"),
    ];
    for (title, key) in keys {
        let own = word(&file, key);
        let of_scheme = || first_scheme(&file)?.get(key).map(show);
        lines.extend(own.or_else(of_scheme).map(|value| (title, value)));
    }
    if let Some(event) = file.key("event") {
        for (title, key) in [("event id", "id"), ("event type", "type"), ("key", "key")] {
            lines.extend(event.get(key).map(|value| (title, show(value))));
        }
        lines.extend(event.get("types").map(|types| ("types", show(types))));
    }
    if let Some(handshakes) = file.key("handshakes").and_then(Value::as_array) {
        let methods = handshakes.iter().map(|handshake| {
            let method = handshake.get("method").and_then(Value::as_str);
            method.unwrap_or("POST")
        });
        lines.push(("handshakes", methods.collect::<Vec<_>>().join(", ")));
    }
    let names = |names: Vec<&String>| {
        let names: Vec<_> = names.into_iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    lines.extend(names(file.schemes.keys().collect()).map(|names| ("schemes", names)));
    lines.extend(names(file.parameters.keys().collect()).map(|names| ("own keys", names)));
    let samples = preset.samples();
    let samples = samples.iter().map(|sample| sample.event_type.as_str());
    lines.push(("samples", samples.collect::<Vec<_>>().join(", ")));
    let width = style::width(&std::io::stdout()).unwrap_or(usize::MAX);
    for (title, value) in lines {
        // A link stays whole, so that it can be followed.
        let lines = match value.contains("://") {
            true => style::wrap(&value, width.saturating_sub(17), 0),
            false => style::cell_lines(&value, width.saturating_sub(17)).join("\n"),
        };
        let value = lines.replace('\n', &format!("\n{:17}", ""));
        style::println(format_args!(
            "{}  {value}",
            style::dim(&format!("{title:15}"))
        ))?;
    }
    style::print(format_args!("\n{}", start(preset, &file)))
}

/// A configuration to start from.
fn start(preset: &Preset, file: &PresetFile) -> String {
    let name = preset.name;
    let (spare, broker, fallback) = match file.about.needs_fallback {
        true => (
            "[brokers.spare]\nkind = \"nats\"\nservers = [\"nats://localhost:4222\"]\n\n",
            "broker = \"main\"\n",
            "fallback = \"spare\"\n",
        ),
        false => ("", "", ""),
    };
    format!(
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\n{spare}\
         [sources.{name}]\n{}\n\
         [[routes]]\nsource = \"{name}\"\n{broker}topic = \"{name}.events\"\n{fallback}",
        source_keys(preset, file)
    )
}

/// The keys that a source of the preset cannot do without.
pub(super) fn source_keys(preset: &Preset, file: &PresetFile) -> String {
    let name = preset.name;
    let kind = match preset.authentication(None) {
        Ok(authentication) if authentication.is_asymmetric() => "PUBLIC_KEY",
        _ => "SECRET",
    };
    let variable = name.to_uppercase().replace('-', "_");
    let url = match needs_url(file) {
        true => format!("public_url = \"https://hooks.example.com/hooks/{name}\"\n"),
        false => String::new(),
    };
    let secrets = format!("secrets = [{{ env = \"{variable}_{kind}\" }}]\n");
    let keys = file.about.example.as_deref().unwrap_or(&secrets);
    format!("{keys}{url}")
}

/// The first of the schemes that verify requests.
fn first_scheme(file: &PresetFile) -> Option<&Value> {
    let verify = file.key("verify")?;
    verify.get(0).or(Some(verify))
}

fn needs_url(file: &PresetFile) -> bool {
    let content = first_scheme(file).and_then(|scheme| scheme.get("content"));
    let audience = file.key("jwt").and_then(|jwt| jwt.get("audience"));
    let mut signed = content.into_iter().chain(audience);
    signed.any(|text| show(text).contains("{url"))
}

/// The signed content as a template.
fn signed(file: &PresetFile) -> String {
    let scheme = first_scheme(file);
    let content = scheme.map(|scheme| scheme.get("content").map_or("{body}".to_owned(), show));
    content.unwrap_or_else(|| "nothing".to_owned())
}

fn verified_by(file: &PresetFile) -> String {
    if let Some(words) = &file.about.verified_by {
        return words.clone();
    }
    match word(file, "auth").as_deref() {
        Some("jwt") => return "a JSON Web Token in authorization (HS256)".to_owned(),
        Some(auth) => return format!("a secret sent with each request ({auth})"),
        None => {}
    }
    let scheme = first_scheme(file);
    let algorithm = scheme.and_then(|scheme| scheme.get("algorithm")).map(show);
    let places = [
        ("header", "in"),
        ("numbered_headers", "in"),
        ("query", "in the query's"),
        ("form", "in the form's"),
        ("pointer", "at"),
    ];
    let signature = scheme.and_then(|scheme| scheme.get("signature"));
    let place = signature.and_then(|signature| {
        let mut places = places.iter();
        places.find_map(|(key, at)| Some(format!("{at} {}", show(signature.get(*key)?))))
    });
    format!(
        "{} {}",
        algorithm.unwrap_or_default(),
        place.unwrap_or_default()
    )
}

fn word(file: &PresetFile, key: &str) -> Option<String> {
    file.key(key).map(show)
}

/// A value in readable form.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let texts: Vec<_> = values.iter().map(show).collect();
            texts.join(", ")
        }
        Value::Object(values) => values.values().map(show).collect::<Vec<_>>().join(" when "),
        other => other.to_string(),
    }
}
