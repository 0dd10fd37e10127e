//! `hookbridge demo`: the whole path in one process, with nothing to install.

use std::collections::HashSet;
use std::net::TcpListener;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use super::http_client::post;
use super::{CommandResult, Completion, Error, runtime, samples, send, style, tail};
use crate::brokers::{MockCluster, StartAt, Subscription};
use crate::config::{Config, ConfigFile, Origin};
use crate::printable::printable;
use crate::providers::Preset;
use crate::providers::sign::{Unsigned, example_secret, sign};
use crate::secret::Secret;
use crate::service::{BindError, Service, termination};

/// The file that `hookbridge check --config config/demo.toml` reads.
const CONFIG: &str = include_str!("../../config/demo.toml");
const SYNQ: &str = "synq";

/// The preferred port; a free one if it is in use.
const USUAL_PORT: u16 = 8080;

/// Pause between two sample events of an endless demo.
const PAUSE: Duration = Duration::from_secs(2);

/// How often another port is tried: some providers sign it, so it is chosen before the service starts, and can be taken meanwhile.
const PORT_ATTEMPTS: usize = 5;

/// Pause before an event that is not known to be stored is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Time limit of `--events N` for the last event.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Provider whose events are sent
    #[arg(long, value_name = "NAME", default_value = SYNQ)]
    provider: String,
    /// Send N samples, and exit when all of them were consumed
    #[arg(long, value_name = "N")]
    events: Option<usize>,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let runtime = runtime()?;
    let done = runtime.block_on(demo(options));
    runtime.shutdown_background();
    done
}

async fn demo(options: &Options) -> CommandResult {
    let provider = send::find_preset(&options.provider)?;
    let secret = example_secret(&provider.authentication(None)?);
    let secret = secret.map_err(|error| {
        let name = provider.name;
        format!("no demo for {name}: {error}; `hookbridge send --provider {name}` signs with a key of yours, see docs/providers/{name}.md")
    })?;
    if provider.samples().is_empty() {
        return Err(format!("no demo for {}: it has no samples", provider.name).into());
    }
    let topics = {
        let config = load(provider, &secret.configured, "127.0.0.1:1", USUAL_PORT)?;
        let broker = config.broker_ids().next();
        let broker = broker.ok_or("the demo's configuration has no broker")?;
        config.known_destinations(broker)
    };
    let cluster = MockCluster::start(&topics)?;
    let load = |port| {
        load(
            provider,
            &secret.configured,
            &cluster.bootstrap_servers(),
            port,
        )
    };
    let config = load(USUAL_PORT)?;
    let settings = config
        .brokers
        .first()
        .ok_or("the demo's configuration has no broker")?
        .settings
        .clone();
    let mut started = Service::start(config).await;
    for _ in 0..PORT_ATTEMPTS {
        if !started.as_ref().is_err_and(|error| error.is::<BindError>()) {
            break;
        }
        started = Service::start(load(free_port()?)?).await;
    }
    let service = started?;
    let url: Uri = format!("http://{}/hooks/{}", service.address(), provider.name).parse()?;
    introduce(
        provider,
        &secret.signing,
        &url,
        &service.admin_address().to_string(),
        &cluster.bootstrap_servers(),
    )?;
    let mut terminated = pin!(termination()?);
    let mut sending = tokio::spawn(send(provider, secret.signing, url, options.events));
    // The first events are published meanwhile.
    let mut subscription = Subscription::start(&settings, &topics, StartAt::Earliest).await?;
    let mut consumed = HashSet::new();
    let mut timeout = pin!(tokio::time::sleep_until(Instant::now() + WAIT_TIMEOUT));
    let mut are_sent = false;
    let done = loop {
        let are_consumed = options
            .events
            .is_some_and(|events| consumed.len() >= events);
        if are_consumed && are_sent {
            style::println(format_args!("all {} events were consumed", consumed.len()))?;
            break Completion::Success;
        }
        tokio::select! {
            delivered = subscription.next() => {
                let delivered = delivered?;
                style::print(tail::to_text("demo", &delivered))?;
                consumed.extend(delivered.headers.into_iter().find(|(name, _)| name == "event_id").map(|(_, id)| id));
            }
            sent = &mut sending, if !are_sent => {
                if let Err(error) = sent? {
                    service.shut_down().await;
                    return Err(error);
                }
                are_sent = true;
            }
            () = timeout.as_mut(), if options.events.is_some() => break Completion::Failure,
            _ = terminated.as_mut() => break Completion::Success,
        }
    };
    service.shut_down().await;
    if done == Completion::Failure {
        return Err(format!(
            "only {} events were consumed within {} s",
            consumed.len(),
            WAIT_TIMEOUT.as_secs()
        )
        .into());
    }
    Ok(done)
}

/// The demo's configuration, with SYNQ replaced by another provider if one was named.
fn config_for(provider: &Preset, port: u16) -> String {
    let name = provider.name;
    if name == SYNQ {
        return CONFIG.to_owned();
    }
    let text = CONFIG.replace(
        "[sources.synq]",
        &format!("[sources.{name}]\npublic_url = \"http://127.0.0.1:{port}/hooks/{name}\""),
    );
    let text = text.replace("types = [\"issue_*\", \"incident_*\", \"ping\"]\n", "");
    text.replace("synq.{type}", &format!("{name}.events"))
}

fn load(
    provider: &Preset,
    secret: &str,
    bootstrap_servers: &str,
    port: u16,
) -> Result<Config, crate::table::Problems> {
    let variables = [
        ("DEMO_KAFKA", bootstrap_servers.to_owned()),
        ("DEMO_PORT", port.to_string()),
        ("DEMO_SECRET", secret.to_owned()),
    ];
    let environment = variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let files = vec![ConfigFile::Text {
        name: "config/demo.toml".to_owned(),
        text: config_for(provider, port),
    }];
    Origin { files, environment }.load()
}

fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

fn introduce(
    provider: &Preset,
    secret: &str,
    url: &Uri,
    admin: &str,
    bootstrap_servers: &str,
) -> std::io::Result<()> {
    style::println(style::bold(
        "Hookbridge demo: signed webhooks in, Kafka messages out.",
    ))?;
    style::println(format_args!("  Kafka    {bootstrap_servers}, embedded"))?;
    style::println(format_args!("  bridge   {url}"))?;
    style::println(format_args!("  metrics  http://{admin}/metrics\n"))?;
    let name = provider.name;
    if name != SYNQ {
        let known = provider.samples();
        let sample = known.first().map_or("", |sample| &sample.event_type);
        style::println(format_args!("Send your own event, and read the topic:\n"))?;
        style::println(format_args!(
            "  hookbridge send --provider {name} --secret {secret} --url {url} --sample {sample}"
        ))?;
        return style::println(format_args!(
            "  kcat -b {bootstrap_servers} -C -e -t {name}.events -f '%t %k %h\\n%s\\n'\n"
        ));
    }
    style::println(format_args!("Post your own event, and read a topic:\n"))?;
    style::println(format_args!(
        "  body='{{\"event_id\":\"mine-1\",\"ping\":{{\"message\":\"hello\"}}}}'; time=$(date +%s)"
    ))?;
    style::println(format_args!(
        "  curl -i -w '\\n' {url} -H 'Content-Type: application/json' -H \"X-Coalesce-Timestamp: $time\" \\"
    ))?;
    style::println(format_args!(
        "    -H \"X-Coalesce-Signature: v1=$(printf %s \"$time.$body\" | openssl dgst -sha256 -hmac {secret} | sed 's/.* //')\" -d \"$body\""
    ))?;
    style::println(format_args!(
        "  kcat -b {bootstrap_servers} -C -e -t synq.ping -f '%t %k %h\\n%s\\n'\n"
    ))
}

/// Posts samples of all types in turn; stops at the first that is refused. As senders do, it sends an event again that is not
/// known to be stored: the embedded Kafka may take longer for the first than the shortest `publish_timeout` of a provider.
async fn send(
    provider: &'static Preset,
    secret: String,
    url: Uri,
    events: Option<usize>,
) -> Result<(), Error> {
    let secret = Secret::new(secret).ok_or("the demo's secret is empty")?;
    let authentication = provider.authentication(None)?;
    let samples = provider.samples();
    for sample in samples.iter().cycle().take(events.unwrap_or(usize::MAX)) {
        let samples::Fresh { mut headers, body } = samples::fresh(sample);
        let unsigned = Unsigned {
            method: &Method::POST,
            url: &url,
            headers: &headers,
            body: &body,
            at: SystemTime::now(),
        };
        let signed = sign(&authentication, &secret, unsigned)?;
        headers.extend(signed.headers);
        let body = Bytes::from(signed.body);
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let mut answer = post(&signed.url, headers.clone(), body.clone()).await?;
        while answer.status == StatusCode::SERVICE_UNAVAILABLE && Instant::now() < deadline {
            tokio::time::sleep_until(Instant::now() + RETRY_PAUSE).await;
            answer = post(&signed.url, headers.clone(), body.clone()).await?;
        }
        if !answer.status.is_success() {
            return Err(format!(
                "a sample {} was answered {}: {}",
                sample.event_type,
                answer.status,
                printable(&String::from_utf8_lossy(&answer.body))
            )
            .into());
        }
        if events.is_none() {
            tokio::time::sleep_until(Instant::now() + PAUSE).await;
        }
    }
    Ok(())
}
