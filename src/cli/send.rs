//! `hookbridge send`

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use http::{HeaderMap, Method, Uri};

use super::http_client::{Answer, post};
use super::{
    CommandResult, Completion, ConfigFiles, Error, explain, file_of, runtime, samples, style,
};
use crate::config::Source;
use crate::printable::{printable, printable_lines};
use crate::providers::preset::PRESETS;
use crate::providers::sign::{Unsigned, sign};
use crate::providers::{self, Authentication, Preset};
use crate::secret::Secret;

#[derive(Debug, Args)]
#[command(
    override_usage = "hookbridge send [OPTIONS] --provider <NAME> --url <URL> [FILE]\n       hookbridge send [OPTIONS] --source <NAME> --url <URL> [FILE]"
)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Provider whose signature is used
    #[arg(long, value_name = "NAME", required_unless_present = "source")]
    provider: Option<String>,
    /// Configured source whose signature is used, with the keys that it sets
    #[arg(long, value_name = "NAME", conflicts_with_all = ["provider", "scheme"])]
    source: Option<String>,
    /// Signing secret, or private key (PKCS #8 in base64, seed of an Ed25519 key, RSA in PEM); prefer the variable:
    /// process listings do not show it
    #[arg(
        long,
        value_name = "SECRET",
        env = "HOOKBRIDGE_SEND_SECRET",
        allow_hyphen_values = true, // PEM begins with hyphens, and a complaint would show it
        hide_env_values = true
    )]
    secret: String,
    /// Signature scheme, where the provider has several
    #[arg(long, value_name = "NAME")]
    scheme: Option<String>,
    /// Header of the request, as `Name: value`
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// URL to post to, as the provider knows it
    #[arg(long)]
    url: Uri,
    /// Send a sample event of this type with a fresh id
    #[arg(long, value_name = "TYPE", conflicts_with = "file")]
    sample: Option<String>,
    /// File with the event; standard input if neither a file nor a sample is given, or for `-`
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let signing = Signing::of(options)?;
    let secret = Secret::new(options.secret.clone()).ok_or("the secret is empty")?;
    let (mut headers, body) = event(options, &signing)?;
    headers.extend(explain::headers(&options.headers)?);
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &options.url,
        headers: &headers,
        body: &body,
        at: SystemTime::now(),
    };
    let signed = sign(signing.authentication(), &secret, unsigned)?;
    headers.extend(signed.headers);
    let answer = runtime()?.block_on(post(&signed.url, headers, signed.body.into()))?;
    print_answer(&answer)?;
    Ok(if answer.status.is_success() {
        Completion::Success
    } else {
        Completion::Failure
    })
}

/// Whose signature is made.
enum Signing {
    Provider(&'static Preset, Authentication),
    Source(Arc<Source>),
}

impl Signing {
    fn of(options: &Options) -> Result<Self, Error> {
        if let Some(name) = &options.source {
            // The secret is that of the command, since a public key does not sign.
            let config = options.files.load_without_signing_secrets()?;
            return Ok(Self::Source(explain::find_source(&config, name)?));
        }
        let preset = find_preset(options.provider.as_deref().unwrap_or_default())?;
        let authentication = preset.authentication(options.scheme.as_deref())?;
        Ok(Self::Provider(preset, authentication))
    }

    fn authentication(&self) -> &Authentication {
        match self {
            Self::Provider(_, authentication) => authentication,
            Self::Source(source) => &source.authentication,
        }
    }

    /// The preset that has samples.
    fn preset(&self) -> Option<&'static Preset> {
        match self {
            Self::Provider(preset, _) => Some(preset),
            Self::Source(source) => providers::find(source.provider),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown provider {name}; known: {known}")]
pub(super) struct UnknownProvider {
    name: String,
    known: String,
}

pub(super) fn find_preset(name: &str) -> Result<&'static Preset, UnknownProvider> {
    providers::find(name).ok_or_else(|| {
        let known: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        UnknownProvider {
            name: name.to_owned(),
            known: known.join(", "),
        }
    })
}

type Event = (HeaderMap, Vec<u8>);

fn event(options: &Options, signing: &Signing) -> Result<Event, Error> {
    if let Some(event_type) = &options.sample {
        let preset = signing
            .preset()
            .ok_or("a source without a preset has no samples; name a file with an event")?;
        let sample = samples::fresh(&samples::find(preset, event_type)?);
        return Ok((sample.headers, sample.body));
    }
    if let Some(file) = file_of(options.file.as_ref()) {
        let body = std::fs::read(file)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        return Ok((HeaderMap::new(), body));
    }
    if options.source.is_some() && options.files.reads_standard_input() {
        return Err("standard input is the configuration; name the event's file".into());
    }
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    Ok((HeaderMap::new(), body))
}

fn print_answer(answer: &Answer) -> std::io::Result<()> {
    style::println(style::bold(&format!("HTTP {}", answer.status)))?;
    for (name, value) in &answer.headers {
        let line = format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        style::println(style::dim(&printable(&line)))?;
    }
    style::println(printable_lines(&String::from_utf8_lossy(&answer.body)))
}
