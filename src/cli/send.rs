//! `hookbridge send`

use std::io::Read as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use http::{HeaderMap, Method, Uri};

use super::http_client::{Answer, post};
use super::{Completion, Outcome, explain, runtime, samples, style};
use crate::printable::{printable, printable_lines};
use crate::providers::preset::PRESETS;
use crate::providers::sign::{Unsigned, sign};
use crate::providers::{self, Preset};
use crate::secret::Secret;

#[derive(Debug, Args)]
#[command(override_usage = "hookbridge send [OPTIONS] --provider <NAME> --url <URL> [FILE]")]
pub(super) struct Options {
    /// Provider whose signature is used
    #[arg(long, value_name = "NAME")]
    provider: String,
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
    /// File with the event; standard input if neither a file nor a sample is given
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Outcome {
    let preset = find_preset(&options.provider)?;
    let secret = Secret::new(options.secret.clone()).ok_or("the secret is empty")?;
    let authentication = preset.authentication(options.scheme.as_deref())?;
    let (mut headers, body) = event(options, preset)?;
    headers.extend(explain::headers(&options.headers)?);
    let unsigned = Unsigned {
        method: &Method::POST,
        url: &options.url,
        headers: &headers,
        body: &body,
        at: SystemTime::now(),
    };
    let signed = sign(&authentication, &secret, unsigned)?;
    headers.extend(signed.headers);
    let answer = runtime()?.block_on(post(&signed.url, headers, signed.body.into()))?;
    print_answer(&answer)?;
    Ok(if answer.status.is_success() {
        Completion::Success
    } else {
        Completion::Failure
    })
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

fn event(
    options: &Options,
    preset: &Preset,
) -> Result<Event, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(event_type) = &options.sample {
        let sample = samples::fresh(&samples::find(preset, event_type)?);
        return Ok((sample.headers, sample.body));
    }
    if let Some(file) = &options.file {
        let body = std::fs::read(file)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        return Ok((HeaderMap::new(), body));
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
