//! `hookbridge init`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::Method;

use super::providers::source_keys;
use super::send::find_preset;
use super::{CommandResult, Completion, Error, explain, samples, style};
use crate::config::{ConfigFile, Origin, json_schema};
use crate::ingress::{Decided, Rehearsal};
use crate::providers::Preset;

/// The name of the configuration in a folder.
const CONFIG: &str = "hookbridge.toml";
/// For editors; `#:schema` is read by taplo and what is built on it.
const SCHEMA: &str = "hookbridge.schema.json";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The provider that sends; `hookbridge providers` lists them
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// The broker that stores the events
    #[arg(long, value_enum)]
    broker: Broker,
    /// Write to this file, or to hookbridge.toml in this folder, with a first test and the JSON Schema next to it; by
    /// default to standard output
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Broker {
    Kafka,
    Nats,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let preset = find_preset(&options.provider)?;
    let config = configuration(preset, options.broker);
    let Some(output) = &options.output else {
        style::print(config)?;
        return Ok(Completion::Success);
    };
    let file = match output.extension() {
        Some(extension) if extension == "toml" && !output.is_dir() => output.clone(),
        _ => output.join(CONFIG),
    };
    let config = format!("#:schema {SCHEMA}\n\n{config}");
    let test = file.with_extension("test.toml");
    let files = [(&file, &config), (&test, &cases(preset, &config, &file)?)];
    let exists = |(path, _): &&(&PathBuf, &String)| path.symlink_metadata().is_ok();
    if let Some((path, _)) = files.iter().find(exists).filter(|_| !options.force) {
        return Err(format!(
            "{} exists, and nothing was written; name another --output, or overwrite it with --force",
            path.display()
        )
        .into());
    }
    for (path, text) in files {
        write(path, text, options.force)
            .map_err(|error| format!("{} can't be written: {error}", path.display()))?;
        style::println(format_args!("wrote {}", path.display()))?;
    }
    // The same for every configuration: another one's is as good.
    let schema = file.with_file_name(SCHEMA);
    if options.force || schema.symlink_metadata().is_err() {
        let text = serde_json::to_string_pretty(&json_schema())? + "\n";
        write(&schema, &text, options.force)
            .map_err(|error| format!("{} can't be written: {error}", schema.display()))?;
        style::println(format_args!("wrote {}", schema.display()))?;
    }
    let (file, test) = (file.display(), test.display());
    style::println(format_args!(
        "\nNext:\n  hookbridge test --config {file} {test}\n  hookbridge provision --config {file}\n  hookbridge run --config {file}"
    ))?;
    Ok(Completion::Success)
}

fn write(path: &Path, text: &str, force: bool) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    // A file that appeared in the meantime is kept, too.
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    options.open(path)?.write_all(text.as_bytes())
}

/// A configuration to start from, with its reasons.
fn configuration(preset: &Preset, broker: Broker) -> String {
    let file = preset.read();
    let (name, title) = (preset.name, &file.about.title);
    let (kind, table) = match broker {
        Broker::Kafka => (
            "Kafka",
            "kind = \"kafka\"\n\
             bootstrap_servers = \"localhost:9092\"     # several are separated by commas\n\
             # options = { \"security.protocol\" = \"sasl_ssl\" }   # any librdkafka property\n\n\
             # What `hookbridge provision` creates missing topics with; by default it follows the cluster.\n\
             # provision = { partitions = 12, replication_factor = 3, min_insync_replicas = 2 }\n",
        ),
        Broker::Nats => (
            "NATS",
            "kind = \"nats\"\n\
             servers = [\"nats://localhost:4222\"]      # servers of one cluster\n\
             # credentials = \"/run/secrets/bridge.creds\"\n\n\
             # The stream that `hookbridge provision` creates; by default it follows the cluster.\n\
             # provision = { stream = \"HOOKS\", replicas = 3, max_bytes = \"10GiB\", duplicate_window = \"1h\" }\n",
        ),
    };
    let secret = match (&file.about.secret, &file.about.example) {
        (Some(secret), _) => format!("# The secret is {secret}.\n"),
        (None, None) => {
            "# The signing secret, from the environment; a list takes two while it is being rotated.\n"
                .to_owned()
        }
        (None, Some(_)) => String::new(),
    };
    let fallback = match file.about.needs_fallback {
        true => format!(
            "# {title} hardly sends an event again: one that comes while the broker is away is lost. A second broker takes it\n\
             # then; name it here, and this one with `broker = \"main\"`:\n\
             # fallback = \"spare\"\n"
        ),
        false => String::new(),
    };
    format!(
        "# Hookbridge: events of {title} go to {kind}, and are answered 2xx once they are stored.\n\
         # Every key is in docs/configuration.md; `hookbridge check` finds mistakes.\n\n\
         [http]\n\
         # listen = \"0.0.0.0:8080\"      # plain HTTP: terminate TLS in front, or set `tls`\n\n\
         [admin]\n\
         # listen = \"127.0.0.1:9090\"    # /metrics, /healthz, /readyz\n\n\
         [brokers.main]\n{table}\n\
         # {title} posts to /hooks/{name}. How to set it up: docs/providers/{name}.md and `hookbridge providers {name}`\n\
         [sources.{name}]\n{secret}{}\
         # on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{name}.invalid\" }} }}   # instead of a refusal\n\n\
         # The first route that matches an event's type takes it; without `types` that is every type.\n\
         [[routes]]\n\
         source = \"{name}\"\n\
         topic = \"{name}.events\"       # or \"{name}.{{type}}\", one for each event type\n{fallback}",
        source_keys(preset, &file)
    )
}

/// A first routing test: what the configuration does with the provider's first sample.
fn cases(preset: &Preset, config: &str, file: &Path) -> Result<String, Error> {
    let name = preset.name;
    let config_name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut text = format!(
        "# Where events go, and which are refused; without a broker, and without a secret:\n\
         #   hookbridge test --config {config_name} {}\n",
        file.with_extension("test.toml")
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    );
    if let Some(sample) = preset.samples().first() {
        let fresh = samples::fresh(sample);
        let origin = Origin {
            files: vec![ConfigFile::Text {
                name: config_name.into_owned(),
                text: config.to_owned(),
            }],
            environment: Vec::new(),
        };
        let loaded = origin.load_without_signing_secrets()?;
        let source = explain::find_source(&loaded, name)?;
        let body = Bytes::from(fresh.body);
        let rehearsal = Rehearsal::new(&source, Method::POST, None, fresh.headers, body)?;
        let events = match rehearsal.decide().0 {
            Decided::Batch(decisions) => decisions,
            Decided::Event(decision) => vec![decision],
            Decided::Handshake(_) => Vec::new(),
        };
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        text.push_str(&format!(
            "\n[[cases]]\nname = {}\nsource = \"{name}\"\nsample = {}\n",
            quoted(&format!("{} goes to {name}.events", sample.event_type)),
            quoted(&sample.event_type)
        ));
        for event in &events {
            let event_type = event.event_type.as_deref().unwrap_or_default();
            text.push_str(&format!(
                "\n[[cases.expect]]\noutcome = \"published\"\ntype = {}\ntopic = \"{name}.events\"\n",
                quoted(event_type)
            ));
        }
    }
    text.push_str(&format!(
        "\n[[cases]]\nname = \"a request that is not an event is refused\"\nsource = \"{name}\"\n\
         headers = {{ content-type = \"text/html\" }}\nevent = \"<html>\"\nexpect = {{ outcome = \"refused\" }}\n"
    ));
    Ok(text)
}
