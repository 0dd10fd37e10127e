//! The bridge compared with minimal servers, in one run, as ratios.
//!
//! `cargo bench --bench ratios -- --quick`. Four servers, each a process of its own, take turns under the same load: `answer`,
//! a bare hyper handler that reads the body and answers; `publish`, the same with a bare client's publish and
//! acknowledgement; `sketch`, which also verifies the signature and extracts id and type from the body; and `bridge`.
//! Only the ratios within a round are meaningful; absolute figures depend on the machine and its other load.
//!
//! Everything is bounded in time and stays on the loopback interface, except for a named broker. No child outlives this
//! process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests/support is written for tests, which panic where they fail; no exceptions are needed here but for the clock"
)]

// The command line.
mod options;

// The event that is sent.
mod event;

// Percentiles.
mod latency;

// The servers for comparison.
mod server;

// The open-loop sender.
mod load;

// Child processes and what they use.
mod child;

// The broker behind the servers.
mod broker;

// A server, and one run against it.
mod running;

// The order of the runs in front of one broker.
mod rounds;

// The bridge along one axis at a time.
mod sweep;

// Tables and JSON.
mod report;

// SVG.
mod plot;

#[allow(dead_code, unused_macros, reason = "the tests use all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use broker::Broker;
use options::{Kind, Options};
use report::{About, Machine, OnBroker, Results};
use rounds::Rounds;
use running::Setup;

/// Every error ends the run, with a text for the one who started it.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The bridge compared with minimal servers.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench ratios --")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
    /// Set by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The roles of this program as a child of itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// A server for comparison
    Serve {
        work: server::Work,
        #[command(flatten)]
        destination: server::Destination,
    },
    /// The bare client, one event at a time
    RoundTrips {
        #[command(flatten)]
        destination: server::Destination,
        #[arg(long)]
        first: u64,
        #[arg(long)]
        seconds: u64,
    },
    /// The open-loop sender
    Load(load::Load),
    /// librdkafka's mock cluster
    Mock {
        #[arg(long)]
        partitions: i32,
        topics: Vec<String>,
    },
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let done = match arguments.role.take() {
        Some(role) => play(&role).map(|()| true),
        None => bench(&arguments.options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ratios: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: &Role) -> Outcome<()> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    match role {
        Role::Serve { work, destination } => runtime()?.block_on(server::serve(*work, destination)),
        Role::RoundTrips {
            destination,
            first,
            seconds,
        } => runtime()?.block_on(server::round_trips(destination, *first, *seconds)),
        Role::Load(load) => load::run(load),
        Role::Mock { partitions, topics } => server::mock(topics, *partitions),
    }
}

/// A line for the parent process.
pub(crate) fn say(line: &str) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Runs everything; returns whether every request was answered as expected.
fn bench(arguments: &Options) -> Outcome<bool> {
    let wrk = running::wrk_version()?;
    let (seconds, rounds) = if arguments.quick {
        (1, 3)
    } else {
        (arguments.seconds.max(1), arguments.rounds.max(1))
    };
    let bridge = PathBuf::from(env!("CARGO_BIN_EXE_hookbridge"));
    let started = time::OffsetDateTime::now_utc().replace_nanosecond(0)?;
    let about = About {
        started: started.format(&time::format_description::well_known::Rfc3339)?,
        machine: machine(),
        hookbridge: version(&bridge)?,
        wrk,
        event_bytes: event::body_bytes(),
        seconds,
        rounds,
    };
    std::fs::create_dir_all(&arguments.results)?;
    let folder = std::env::temp_dir().join(format!("hookbridge-bench-{}", std::process::id()));
    if !arguments.sweep.is_empty() {
        broker::empty_folder(&folder)?;
        let swept = sweep::run(arguments, about, &folder, &bridge);
        drop(std::fs::remove_dir_all(&folder));
        let (swept, stamp) = (swept?, started.unix_timestamp());
        write(arguments, &format!("sweep-{stamp}"), &swept.show(), &swept)?;
        return Ok(swept.faults.is_empty());
    }
    let mut results = Results {
        about,
        brokers: Vec::new(),
    };
    for kind in &arguments.broker.0 {
        broker::empty_folder(&folder)?;
        let on = Rounds::new(arguments, (seconds, rounds), &folder).run(*kind, &bridge);
        drop(std::fs::remove_dir_all(&folder));
        results.brokers.push(on?);
    }
    let name = format!("ratios-{}", started.unix_timestamp());
    for on in &results.brokers {
        let plot = arguments.results.join(format!("{name}-{}.svg", on.name));
        std::fs::write(plot, plot::svg(on)?)?;
    }
    write(arguments, &name, &show(&results)?, &results)?;
    Ok(results.brokers.iter().all(|on| on.faults().is_empty()))
}

/// Prints the tables and keeps them.
fn write(
    arguments: &Options,
    name: &str,
    text: &str,
    results: &impl serde::Serialize,
) -> Outcome<()> {
    print!("{text}");
    let file = |ending: &str| arguments.results.join(format!("{name}{ending}"));
    std::fs::write(file(".txt"), text)?;
    std::fs::write(file(".json"), serde_json::to_vec_pretty(results)?)?;
    println!("\nwritten to {}", file(".*").display());
    Ok(())
}

impl Options {
    /// Starts or finds a broker, for servers of these names; it and its short name.
    fn broker(&self, kind: Kind, names: &[&str]) -> Outcome<(Broker, &'static str)> {
        let (address, name) = match kind {
            Kind::Mock => (None, "mock"),
            Kind::Kafka => (self.kafka.as_deref(), "kafka"),
            Kind::Nats => (self.nats.as_deref(), "nats"),
        };
        let broker = Broker::start(kind, address, self.partitions, names)?;
        Ok((broker, name))
    }

    /// The settings of servers where these are not varied.
    fn setup(&self) -> Setup {
        Setup {
            http_keys: String::new(),
            source_keys: self.source_keys.clone(),
            sources: 1,
            routes: 2,
            workers: None,
        }
    }
}

fn show(results: &Results) -> Outcome<String> {
    let mut text = results.about.show();
    for on in &results.brokers {
        text.push('\n');
        text.push_str(&on.show()?);
    }
    let faults: Vec<String> = results.brokers.iter().flat_map(OnBroker::faults).collect();
    text.push_str(&report::show_faults(&faults));
    Ok(text)
}

pub(crate) fn version(bridge: &Path) -> Outcome<String> {
    let output = std::process::Command::new(bridge)
        .arg("--version")
        .output()
        .map_err(|error| format!("{}: {error}", bridge.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn machine() -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Machine {
        cpu: model.map_or_else(
            || "an unknown CPU".to_owned(),
            |(_, model)| model.to_owned(),
        ),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: kernel.trim().to_owned(),
        load: load.split(' ').next().unwrap_or_default().to_owned(),
    }
}
