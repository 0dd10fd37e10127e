//! A measured server: its kind, its start, and one run of load against it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::broker::Broker;
use crate::child::{Child, Listen};
use crate::event;
use crate::latency::Percentiles;
use crate::load::{Load, Loaded};

/// Time allowed for a server to start, and for a load generator to exit after its duration.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// In tables, topics and ratios.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: String,
    /// How to start it.
    pub(crate) program: Program,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// This program, with this part of the work.
    Ours(&'static str),
    /// A bridge.
    Bridge(PathBuf),
}

/// The settings of a server. All but the threads apply to the bridge alone.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Lines for `[http]`.
    pub(crate) http_keys: String,
    /// Lines for each source.
    pub(crate) source_keys: String,
    /// The number of sources; the last one by name is sent everything.
    pub(crate) sources: usize,
    /// The number of routes; the last one matches the issues.
    pub(crate) routes: usize,
    /// Threads of its runtime; by default one per core.
    pub(crate) workers: Option<usize>,
}

/// One that runs.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
    is_bridge: bool,
    publishes: bool,
    /// The time until it listened, and until it could publish.
    pub(crate) started: (Duration, Duration),
}

/// One run of full load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) server: &'static str,
    pub(crate) connections: usize,
    pub(crate) round: usize,
    /// Answered.
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// Answered with a status other than 2xx, or not at all.
    pub(crate) failed: u64,
    /// Answered 2xx but not counted by the broker.
    pub(crate) not_stored: u64,
    /// CPU time of the server for each request, in microseconds.
    pub(crate) cpu_us: f64,
    /// The number of times that its threads went to sleep, per request.
    pub(crate) sleeps: f64,
    pub(crate) peak_kib: u64,
    pub(crate) latency: Percentiles,
}

impl Run {
    /// Everything that invalidates the run.
    pub(crate) fn faults(&self) -> Vec<String> {
        let place = format!(
            "{}, {} connections, round {}",
            self.server,
            self.connections,
            self.round + 1
        );
        let failed = (self.failed > 0).then(|| {
            format!(
                "{place}: {} of {} requests were not answered 2xx",
                self.failed, self.requests
            )
        });
        let lost = (self.not_stored > 0).then(|| {
            format!(
                "{place}: {} events were answered 2xx but not stored",
                self.not_stored
            )
        });
        failed.into_iter().chain(lost).collect()
    }
}

/// A figure of a run, to be compared.
pub(crate) type Figure = fn(&Run) -> f64;

/// One open-loop run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Paced {
    pub(crate) server: &'static str,
    pub(crate) round: usize,
    /// Of what the slowest publishing server can do.
    pub(crate) percent: u64,
    pub(crate) rate: u64,
    pub(crate) cpu_us: f64,
    pub(crate) sleeps: f64,
    #[serde(flatten)]
    pub(crate) loaded: Loaded,
}

/// The output of `wrk.lua`.
#[derive(Deserialize)]
struct Counted {
    requests: u64,
    microseconds: u64,
    refused: u64,
    broken: u64,
    #[serde(flatten)]
    latency: Percentiles,
}

impl Running {
    /// Starts a server and waits until it can publish.
    pub(crate) fn start(
        server: &Server,
        broker: &Broker,
        folder: &Path,
        setup: &Setup,
    ) -> Outcome<Self> {
        let name = server.name;
        let workers = setup
            .workers
            .map(|count| ("TOKIO_WORKER_THREADS", count.to_string()));
        let began = Instant::now();
        match &server.program {
            Program::Ours(work) => {
                let destination = broker.arguments(name);
                let arguments = ["serve", work]
                    .into_iter()
                    .chain(destination.iter().map(String::as_str));
                let ours = std::env::current_exe()?;
                let child = Child::start_with(&ours, arguments, Listen::Stdout, workers)?;
                let address = child.wait_for(PATIENCE, |line| {
                    line.strip_prefix("listening ")?.parse().ok()
                })?;
                Ok(Self {
                    name,
                    address,
                    child,
                    is_bridge: false,
                    publishes: *work != "answer",
                    started: (began.elapsed(), began.elapsed()),
                })
            }
            Program::Bridge(program) => {
                let file = folder.join(format!("{name}.toml"));
                std::fs::write(&file, configuration(broker, name, setup))?;
                let file = file.to_str().ok_or("the folder's name is not UTF-8")?;
                let arguments = ["run", "--log-format", "json", "--config", file];
                let child = Child::start_with(program, arguments, Listen::Stderr, workers)?;
                let mut addresses = [None, None];
                for address in &mut addresses {
                    *address = Some(child.wait_for(PATIENCE, listening)?);
                }
                let listening = began.elapsed();
                let find = |name: &str| {
                    addresses
                        .iter()
                        .flatten()
                        .find(|(listener, _)| listener == name)
                        .map(|(_, address)| *address)
                };
                let (public, admin) = find("public")
                    .zip(find("admin"))
                    .ok_or("a listener is missing")?;
                wait_ready(admin)?;
                Ok(Self {
                    name,
                    address: public,
                    child,
                    is_bridge: true,
                    publishes: true,
                    started: (listening, began.elapsed()),
                })
            }
        }
    }

    /// Full load from this many connections for this many seconds.
    pub(crate) fn run(
        &self,
        broker: &Broker,
        pool: &Path,
        connections: usize,
        seconds: u64,
        round: usize,
    ) -> Outcome<Run> {
        let stored_before = self.stored(broker)?;
        self.child.reset_peak()?;
        let before = self.child.used()?;
        let counted = wrk(self.address, pool, connections, seconds)?;
        let after = self.child.used()?;
        let failed = counted.refused + counted.broken;
        let not_stored = match (stored_before, self.stored(broker)?) {
            (Some(before), Some(after)) => {
                (counted.requests - counted.refused).saturating_sub(after - before)
            }
            _ => 0,
        };
        Ok(Run {
            server: self.name,
            connections,
            round,
            requests: counted.requests,
            per_second: ratio(counted.requests, counted.microseconds) * 1e6,
            failed,
            not_stored,
            cpu_us: microseconds_each(after.cpu.saturating_sub(before.cpu), counted.requests),
            sleeps: ratio(after.sleeps.saturating_sub(before.sleeps), counted.requests),
            peak_kib: self.child.peak_kib()?,
            latency: counted.latency,
        })
    }

    /// A fixed number of requests per second, beginning with the event of this number.
    pub(crate) fn pace(
        &self,
        (percent, rate): (u64, u64),
        connections: usize,
        seconds: u64,
        first: u64,
        round: usize,
    ) -> Outcome<Paced> {
        let before = self.child.used()?;
        let loaded = send(&Load {
            to: self.address,
            rate,
            seconds,
            connections,
            first,
            give_up: false,
        })?;
        let after = self.child.used()?;
        Ok(Paced {
            server: self.name,
            round,
            percent,
            rate,
            cpu_us: microseconds_each(after.cpu.saturating_sub(before.cpu), loaded.answered),
            sleeps: ratio(after.sleeps.saturating_sub(before.sleeps), loaded.answered),
            loaded,
        })
    }

    /// Stops it with SIGTERM, so that an instrumented build writes its counts.
    pub(crate) fn end(self) -> Outcome<()> {
        match self.is_bridge {
            true => self.child.end(PATIENCE),
            false => Ok(()),
        }
    }

    fn stored(&self, broker: &Broker) -> Outcome<Option<u64>> {
        self.publishes.then(|| broker.stored(self.name)).transpose()
    }
}

/// Sends open-loop, from a process of its own.
pub(crate) fn send(load: &Load) -> Outcome<Loaded> {
    let arguments = load.arguments();
    let arguments = arguments.iter().map(String::as_str);
    let child = Child::start(&std::env::current_exe()?, arguments, Listen::Stdout)?;
    let limit = Duration::from_secs(load.seconds) + PATIENCE;
    child.wait_for(limit, |line| serde_json::from_str(line).ok())
}

/// The configuration of the bridge: a source, globs, a topic that is a template.
fn configuration(broker: &Broker, name: &str, setup: &Setup) -> String {
    let Setup {
        http_keys,
        source_keys,
        sources,
        routes,
        workers: _,
    } = setup;
    let mut text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n{http_keys}\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n{}\n",
        broker.table()
    );
    let others = (1..*sources).map(|number| format!("other_{number:04}"));
    for source in others.chain([event::SOURCE.to_owned()]) {
        text.push_str(&format!(
            "[sources.{source}]\nprovider = \"synq\"\nsecrets = [\"{}\"]\n{source_keys}\n\n",
            event::SECRET
        ));
    }
    let template = broker.template(name);
    let mut route = |types: &str, topic: &str| {
        text.push_str(&format!(
            "[[routes]]\ntypes = [{types}]\ntopic = \"{topic}\"\n\n"
        ));
    };
    for number in 2..*routes {
        route(&format!("\"other_{number}_*\""), &template);
    }
    if *routes > 1 {
        // Pings go to the topic of issues, so that they are counted with them.
        route("\"incident_*\", \"ping\"", &broker.topic(name));
    }
    route("\"issue_*\"", &template);
    text
}

/// The listener and address of a line of the bridge's log.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name| line.get(name).and_then(serde_json::Value::as_str);
    (field("message") == Some("listening")).then_some(())?;
    Some((
        field("listener")?.to_owned(),
        field("address")?.parse().ok()?,
    ))
}

fn wait_ready(admin: SocketAddr) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    while Instant::now() < deadline {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        said.clear();
        stream.read_to_string(&mut said)?;
        if said.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("the bridge is not ready:\n{said}").into())
}

/// Runs wrk. It counts answers; missing answers are separate errors.
fn wrk(address: SocketAddr, pool: &Path, connections: usize, seconds: u64) -> Outcome<Counted> {
    let script = pool.join("wrk.lua");
    std::fs::write(&script, include_str!("wrk.lua"))?;
    let (script, pool) = script
        .to_str()
        .zip(pool.to_str())
        .ok_or("the folder's name is not UTF-8")?;
    let (threads, connections) = (connections.min(2).to_string(), connections.to_string());
    let (seconds_text, url) = (
        format!("{seconds}s"),
        format!("http://{address}{}", event::PATH),
    );
    let arguments = [
        "-t",
        &threads,
        "-c",
        &connections,
        "-d",
        &seconds_text,
        "--timeout",
        "10s",
        "-s",
        script,
        &url,
        "--",
        pool,
    ];
    let child = Child::start(Path::new("wrk"), arguments, Listen::Stdout)?;
    child.wait_for(Duration::from_secs(seconds) + PATIENCE, |line| {
        serde_json::from_str(line).ok()
    })
}

/// The first line that wrk prints about itself; an error that says how to install it.
pub(crate) fn wrk_version() -> Outcome<String> {
    let output = std::process::Command::new("wrk").arg("-v").output().map_err(|error| {
        format!("wrk, the load generator, can't be run ({error}): apt-get install wrk (Debian, Ubuntu), dnf install wrk (Fedora), or see github.com/wg/wrk")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .split(" Copyright")
        .next()
        .unwrap_or_default()
        .to_owned())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn microseconds_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 * ratio(1, count)
}
