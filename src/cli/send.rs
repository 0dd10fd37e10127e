//! `hookbridge send`

use std::io::Read as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use http::Uri;

use super::http_client::{Answer, post};
use super::{Done, Outcome, runtime, samples, style};
use crate::config::Secret;
use crate::printable::{printable, printable_lines};
use crate::providers::{self, Provider};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The provider that signs
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// Its signing secret; better in the variable, where no list of processes shows it
    #[arg(
        long,
        value_name = "SECRET",
        env = "HOOKBRIDGE_SEND_SECRET",
        hide_env_values = true
    )]
    secret: String,
    /// Where to post to
    #[arg(long)]
    url: Uri,
    /// Send a sample event of this type, with a fresh id
    #[arg(long, value_name = "TYPE", conflicts_with = "file")]
    sample: Option<String>,
    /// The event; standard input where there is neither a file nor a sample
    file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Outcome {
    let provider = find_provider(&options.provider)?;
    let secret = Secret::new(options.secret.clone()).ok_or("the secret is empty")?;
    let body = body(options, provider)?;
    let headers = provider.sign(&body, &secret, SystemTime::now())?;
    let answer = runtime()?.block_on(post(&options.url, headers, body.into()))?;
    print_answer(&answer)?;
    Ok(if answer.status.is_success() {
        Done::Well
    } else {
        Done::Badly
    })
}

fn find_provider(name: &str) -> Result<&'static dyn Provider, String> {
    providers::find(name).ok_or_else(|| {
        let known: Vec<_> = providers::ALL
            .iter()
            .map(|provider| provider.name())
            .collect();
        format!("there is no provider {name}; known: {}", known.join(", "))
    })
}

fn body(
    options: &Options,
    provider: &dyn Provider,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(event_type) = &options.sample {
        let sample = samples::fresh(provider, event_type);
        let (_, body) = sample.ok_or_else(|| {
            format!(
                "there is no sample {event_type}; known: {}",
                provider.event_types().join(", ")
            )
        })?;
        return Ok(body);
    }
    if let Some(file) = &options.file {
        return Ok(std::fs::read(file)
            .map_err(|error| format!("{} can't be read: {error}", file.display()))?);
    }
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    Ok(body)
}

fn print_answer(answer: &Answer) -> std::io::Result<()> {
    style::println(style::bold(&format!("HTTP {}", answer.status)))?;
    for (name, value) in &answer.headers {
        let line = format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        style::println(style::dim(&printable(&line)))?;
    }
    style::println(printable_lines(&String::from_utf8_lossy(&answer.body)))
}
