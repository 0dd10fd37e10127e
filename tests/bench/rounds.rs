//! The order of the runs in front of one broker: in each round every server once with each number of connections, one
//! after the other, so that changes on the machine affect them all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::{self, Broker};
use crate::child::{Child, Listen};
use crate::event::Shape;
use crate::latency::Percentiles;
use crate::options::{Kind, Name, Options};
use crate::report::{self, OnBroker};
use crate::running::{Program, Running, Server};
use crate::{Outcome, version};

/// Events prepared for each second of a run: more than any publishing server can take.
const EVENTS_A_SECOND: u64 = 100_000;

/// Bytes of bodies signed for each second of a run: more than any publishing server can take, within limits.
const BYTES_A_SECOND: u64 = 1 << 30;

/// Percent of what the slowest publishing server can do.
const PACES: [u64; 2] = [20, 50];

/// The topic of the bare client's round trips.
const ROUND_TRIPS: &str = "round-trips";

/// Connections of the open-loop sender.
const PACED_CONNECTIONS: usize = 64;

/// One broker's part of the run.
pub(crate) struct Rounds<'a> {
    arguments: &'a Options,
    seconds: u64,
    rounds: usize,
    events: Events<'a>,
}

/// Events that were not sent yet.
pub(crate) struct Events<'a> {
    /// The bench's own folder.
    pub(crate) folder: &'a Path,
    /// The number of the next one.
    pub(crate) first: u64,
}

impl<'a> Rounds<'a> {
    pub(crate) fn new(
        arguments: &'a Options,
        (seconds, rounds): (u64, usize),
        folder: &'a Path,
    ) -> Self {
        Self {
            arguments,
            seconds,
            rounds,
            events: Events { folder, first: 1 },
        }
    }

    /// Runs it all.
    pub(crate) fn run(mut self, kind: Kind, bridge: &Path) -> Outcome<OnBroker> {
        let servers = servers(self.arguments, kind, bridge)?;
        let mut names: Vec<&str> = servers.iter().map(|server| server.name).collect();
        names.push(ROUND_TRIPS);
        let (mut broker, name) = self.arguments.broker(kind, &names)?;
        let mut on = OnBroker {
            broker: broker.title(),
            name,
            servers,
            runs: Vec::new(),
            paced: Vec::new(),
            round_trips: Vec::new(),
            ratios: Vec::new(),
        };
        for round in 0..self.rounds {
            eprintln!("{name}: round {} of {}", round + 1, self.rounds);
            broker.begin_round(round, &names)?;
            self.round(&broker, round, &mut on)?;
            broker.end_round(&names)?;
        }
        on.compare();
        Ok(on)
    }

    /// Every server once with each number of connections, and once at each fixed rate.
    fn round(&mut self, broker: &Broker, round: usize, on: &mut OnBroker) -> Outcome<()> {
        let setup = self.arguments.setup();
        let start = |server: &Server| Running::start(server, broker, self.events.folder, &setup);
        let running = on.servers.iter().map(start).collect::<Outcome<Vec<_>>>()?;
        let shape = Shape::issue();
        let warm = self.events.pool(&shape, 1)?;
        for server in &running {
            server.run(broker, &warm, 64, 1, round)?;
        }
        for connections in &self.arguments.connections {
            if *connections == 1 && on.servers.iter().any(|server| server.name == "publish") {
                on.round_trips.push(self.round_trips(broker)?);
            }
            let pool = self.events.pool(&shape, self.seconds)?;
            for server in &running {
                let run = server.run(broker, &pool, *connections, self.seconds, round)?;
                eprintln!(
                    "  {:<7} {connections:>4} connections: {:>8.0}/s, {:>6.1} µs of CPU each, {} failed",
                    run.server, run.per_second, run.cpu_us, run.failed
                );
                on.runs.push(run);
            }
        }
        for (percent, rate) in paces(on) {
            for server in &running {
                let paced = server.pace(
                    (percent, rate),
                    PACED_CONNECTIONS,
                    self.seconds,
                    self.events.first,
                    round,
                )?;
                eprintln!(
                    "  {:<7} {rate:>6}/s: p50 {} µs, p99 {} µs",
                    paced.server, paced.loaded.latency.p50, paced.loaded.latency.p99
                );
                on.paced.push(paced);
            }
            self.events.first += rate * self.seconds;
        }
        running.into_iter().try_for_each(Running::end)
    }

    fn round_trips(&mut self, broker: &Broker) -> Outcome<Percentiles> {
        let (first, seconds) = (self.events.first.to_string(), self.seconds.to_string());
        self.events.first += EVENTS_A_SECOND * self.seconds;
        let destination = broker.arguments(ROUND_TRIPS);
        let arguments = ["round-trips", "--first", &first, "--seconds", &seconds];
        let arguments = arguments
            .into_iter()
            .chain(destination.iter().map(String::as_str));
        let child = Child::start(&std::env::current_exe()?, arguments, Listen::Stdout)?;
        let limit = Duration::from_secs(self.seconds + 30);
        child.wait_for(limit, |line| serde_json::from_str(line).ok())
    }
}

impl Events<'_> {
    /// New events for a run of this many seconds.
    pub(crate) fn pool(&mut self, shape: &Shape, seconds: u64) -> Outcome<PathBuf> {
        let pool = self.folder.join("pool");
        broker::empty_folder(&pool)?;
        let fitting = BYTES_A_SECOND / u64::try_from(shape.bytes())?.max(1);
        let count = EVENTS_A_SECOND.min(fitting) * seconds;
        shape.write_pool(&pool, self.first, count)?;
        self.first += count;
        Ok(pool)
    }
}

/// The rates of the open-loop runs, derived from the slowest publishing server in the first round, and kept.
fn paces(on: &OnBroker) -> Vec<(u64, u64)> {
    let mut connections: Vec<usize> = on.runs.iter().map(|run| run.connections).collect();
    connections.sort_unstable();
    connections.dedup();
    let typical = connections
        .iter()
        .copied()
        .find(|connections| *connections >= PACED_CONNECTIONS)
        .or(connections.last().copied());
    let runs = on
        .runs
        .iter()
        .filter(|run| run.round == 0 && Some(run.connections) == typical);
    let publishing = runs.filter(|run| run.server != "answer");
    let slowest = publishing
        .map(|run| run.per_second)
        .fold(f64::INFINITY, f64::min);
    if !slowest.is_finite() {
        return Vec::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is a small positive number"
    )]
    PACES
        .map(|percent| {
            (
                percent,
                ((slowest * report::number(percent) / 1e4).round() as u64 * 100).max(100),
            )
        })
        .into()
}

/// The servers of `--servers`.
pub(crate) fn servers(arguments: &Options, kind: Kind, bridge: &Path) -> Outcome<Vec<Server>> {
    let client = if kind == Kind::Nats {
        "a JetStream publish"
    } else {
        "a FutureProducer's send"
    };
    let all = [
        (
            Name::Answer,
            "hyper: reads the body and answers".to_owned(),
            Program::Ours("answer"),
        ),
        (
            Name::Publish,
            format!("the same, and {client} with its acknowledgement"),
            Program::Ours("publish"),
        ),
        (
            Name::Sketch,
            "the same, an HMAC, id and type out of the body, two headers".to_owned(),
            Program::Ours("sketch"),
        ),
        (
            Name::Bridge,
            format!("the bridge: {}", version(bridge)?),
            Program::Bridge(bridge.to_owned()),
        ),
    ];
    let wanted = all
        .into_iter()
        .filter(|(name, ..)| arguments.servers.contains(name));
    let mut servers: Vec<Server> = wanted
        .map(|(name, title, program)| Server {
            name: name.into(),
            title,
            program,
        })
        .collect();
    if let Some(other) = &arguments.other {
        let title = format!("{}: {}", other.display(), version(other)?);
        servers.push(Server {
            name: Name::Other.into(),
            title,
            program: Program::Bridge(other.clone()),
        });
    }
    Ok(servers)
}
