//! `hookbridge check`

use std::time::Duration;

use clap::Args;

use super::{ConfigFiles, Done, Outcome, runtime, style};
use crate::brokers::{self, Verdict, durability, reach, together};
use crate::config::{Action, Config, Destination, Otherwise};
use crate::printable::printable;

/// How long a broker has to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Also reach each broker, and each topic or stream that is known in advance
    #[arg(long)]
    connect: bool,
}

pub(super) fn run(options: &Options) -> Outcome {
    let config = match options.files.load() {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            let count = counted(problems.0.len(), "problem");
            return Err(format!("the configuration has {count}").into());
        }
    };
    style::print(describe(&config))?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    if options.connect {
        runtime()?.block_on(connect(&config))
    } else {
        Ok(Done::Well)
    }
}

fn describe(config: &Config) -> String {
    let heading = |cells: &[&str]| {
        cells
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>()
    };
    let mut brokers = vec![heading(&["BROKER", "KIND", "ADDRESS"])];
    for broker in &config.brokers {
        let kind = match broker.settings.kind() {
            brokers::Kind::Kafka => "kafka",
            brokers::Kind::Nats => "nats",
        };
        brokers.push(vec![
            broker.name.clone(),
            kind.to_owned(),
            broker.settings.address(),
        ]);
    }
    let mut sources = vec![heading(&[
        "SOURCE", "PROVIDER", "PATH", "SECRETS", "INVALID", "UNROUTED",
    ])];
    for source in &config.sources {
        sources.push(vec![
            source.name.clone(),
            source.provider.name().to_owned(),
            source.path.clone(),
            source.secret_count.to_string(),
            otherwise(config, &source.on_invalid),
            otherwise(config, &source.on_unrouted),
        ]);
    }
    let mut routes = vec![heading(&[
        "ROUTE", "SOURCE", "TYPES", "BROKER", "TOPIC", "KEY",
    ])];
    for source in &config.sources {
        for route in &source.routes {
            let (broker, topic, key) = match &route.action {
                Action::Ignore => ("-".to_owned(), "(ignored)".to_owned(), String::new()),
                Action::Publish(forwarding) => {
                    let (to, name) = (&forwarding.to, |to: &Destination| {
                        config.broker(to.broker).name.clone()
                    });
                    let mut broker = name(to);
                    if let Some(fallback) = &forwarding.fallback {
                        broker.push_str(&format!(", else {}", name(fallback)));
                    }
                    let mut topic = to.topic.to_string();
                    for copy in &forwarding.copies {
                        topic.push_str(&format!(" + {}:{}", name(copy), copy.topic));
                    }
                    let key = to.key.as_ref().map_or_else(
                        || "(the provider's default)".to_owned(),
                        ToString::to_string,
                    );
                    (broker, topic, key)
                }
            };
            routes.push(vec![
                route.position.number.to_string(),
                source.name.clone(),
                route.types.join(" "),
                broker,
                topic,
                key,
            ]);
        }
    }
    let tls = match &config.http.tls {
        None => "",
        Some(tls) if tls.is_mutual() => " with TLS (client certificates required)",
        Some(_) => " with TLS",
    };
    let listens = format!(
        "listens at {}{tls}, admin at {}\n",
        config.http.listen, config.admin.listen
    );
    [
        listens,
        style::table(&brokers),
        style::table(&sources),
        style::table(&routes),
    ]
    .join("\n")
}

fn otherwise(config: &Config, otherwise: &Otherwise) -> String {
    match otherwise {
        Otherwise::Reject => "reject".to_owned(),
        Otherwise::Ignore => "ignore".to_owned(),
        Otherwise::DeadLetter { broker, topic } => {
            format!("{}:{topic}", config.broker(*broker).name)
        }
    }
}

async fn connect(config: &Config) -> Outcome {
    let mut done = Done::Well;
    style::println("")?;
    for id in config.broker_ids() {
        let broker = config.broker(id);
        let (name, destinations) = (&broker.name, config.known_destinations(id));
        let reached = match reach(&broker.settings, &destinations, config.broker_limits()).await {
            Ok(findings) => findings,
            Err(why) => {
                eprintln!(
                    "problem: broker {name} can't be reached: {}",
                    printable(&why)
                );
                done = Done::Badly;
                continue;
            }
        };
        // What the user may not see does not look different from what does not exist.
        let is_refused = |destination: &&String| {
            reached.iter().any(|found| {
                found.destination == **destination && matches!(found.verdict, Verdict::Unusable(_))
            })
        };
        let seen: Vec<String> = destinations
            .iter()
            .filter(|destination| !is_refused(destination))
            .cloned()
            .collect();
        let looked = durability(&broker.settings, &seen, config.needs(), CONNECT_TIMEOUT).await;
        let findings = match looked {
            Ok(findings) => findings,
            Err(why) => {
                let why = why.to_string();
                eprintln!(
                    "problem: broker {name} can't be inspected: {}",
                    printable(&why)
                );
                done = Done::Badly;
                continue;
            }
        };
        style::println(format_args!(
            "broker {name} answers; {} looked at",
            counted(destinations.len(), "destination")
        ))?;
        if broker.require_durable && config.has_unknown_destinations(id) {
            eprintln!(
                "problem: {name}: require_durable, but a route's topic depends on the payload and can't be inspected; list what it may become with `topics = [...]`"
            );
            done = Done::Badly;
        }
        for finding in together(reached.iter().chain(&findings)) {
            let Some(why) = finding.verdict.why() else {
                continue;
            };
            let severity = if finding.is_problem(broker.require_durable) {
                done = Done::Badly;
                "problem"
            } else {
                match finding.verdict {
                    Verdict::Good | Verdict::Advice(_) => "note",
                    Verdict::Unusable(_) | Verdict::Bad(_) | Verdict::Unknown(_) => "warning",
                }
            };
            let why = printable(why);
            eprintln!("{severity}: {name}: {}: {why}", finding.destination);
        }
    }
    Ok(done)
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
