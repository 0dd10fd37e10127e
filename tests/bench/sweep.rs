//! The bridge along one axis at a time: does the cost of an event depend on connections, routes, sources or bytes; what
//! does it use when idle; how does it behave when overloaded.
//!
//! Each value has its own servers, so that memory of the previous value does not count.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Serialize, Serializer};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::broker::Broker;
use crate::event::{self, Shape};
use crate::load::{self, Load};
use crate::options::{Axis, Options};
use crate::report::{About, Spread, number, show_faults};
use crate::rounds::{self, Events};
use crate::running::{Run, Running, Server, Setup, send};
use crate::support::usage::raise_open_files;

/// The bridge, and another build of it.
const ALONE: &[&str] = &["bridge", "other"];

/// The sketch for comparison.
const BESIDE: &[&str] = &["sketch", "bridge", "other"];

/// Open files of a process besides its connections.
const OTHER_FILES: u64 = 200;

/// Connections that are idle.
const IDLE: usize = 10_000;

/// The idle time.
const SILENCE: Duration = Duration::from_secs(3);

/// Starts in a round.
const STARTS: usize = 5;

/// The settings of the sender that overloads the bridge.
const CROWD: usize = 1000;

/// Its duration.
const CROWD_SECONDS: u64 = 4;

impl Axis {
    const EACH: [Self; 8] = [
        Self::Connections,
        Self::Routes,
        Self::Sources,
        Self::Bodies,
        Self::Workers,
        Self::Idle,
        Self::Start,
        Self::Overload,
    ];

    /// The title of its table; times are in ms unless stated otherwise.
    fn title(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Connections => "connections: full load, closed loop",
            Self::Routes => "routes: the last one takes the event; 64 connections",
            Self::Sources => "sources: the last one by name is sent it; 64 connections",
            Self::Bodies => {
                "bodies: a ping, the usual issue, and more of it; 64 connections, 8 from 128 KiB on"
            }
            Self::Workers => "workers: threads of the runtime",
            Self::Idle => "idle: what 10,000 connections take, in all and of each what it adds",
            Self::Start => {
                "start: from exec on; `client` is a bare one of the same broker until it knows the topic"
            }
            Self::Overload => {
                "overload: twice the peak of 64 connections, open loop on 1,000 for 4 s"
            }
        }
    }
}

/// Everything that was swept.
#[derive(Debug, Serialize)]
pub(crate) struct Swept {
    #[serde(flatten)]
    about: About,
    brokers: Vec<OnBroker>,
    /// Measurements that are not possible here.
    skipped: Vec<String>,
    /// Everything that should not have happened.
    pub(crate) faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OnBroker {
    broker: String,
    points: Vec<Point>,
}

/// One value of one axis, measured once.
#[derive(Debug, Serialize)]
struct Point {
    #[serde(serialize_with = "debug")]
    axis: Axis,
    value: String,
    server: &'static str,
    round: usize,
    #[serde(serialize_with = "as_map")]
    figures: Figures,
}

type Figures = Vec<(&'static str, f64)>;

fn debug<S: Serializer>(axis: &Axis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{axis:?}").to_lowercase())
}

fn as_map<S: Serializer>(figures: &Figures, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().copied())
}

/// One value of an axis that is measured under full load.
struct Step {
    value: String,
    servers: &'static [&'static str],
    setup: Setup,
    shape: Shape,
    connections: usize,
}

/// Runs it all.
pub(crate) fn run(
    arguments: &Options,
    about: About,
    folder: &Path,
    bridge: &Path,
) -> Outcome<Swept> {
    let wanted = |axis: &Axis| {
        let mut named = arguments.sweep.iter();
        named.any(|named| named == axis || *named == Axis::All)
    };
    let axes: Vec<Axis> = Axis::EACH.into_iter().filter(wanted).collect();
    let mut swept = Swept {
        about,
        brokers: Vec::new(),
        skipped: Vec::new(),
        faults: Vec::new(),
    };
    // Our children have our limit.
    let max_connections =
        usize::try_from(raise_open_files().saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    for kind in &arguments.broker.0 {
        let servers = rounds::servers(arguments, *kind, bridge)?;
        let names: Vec<&str> = servers.iter().map(|server| server.name).collect();
        let (mut broker, name) = arguments.broker(*kind, &names)?;
        let mut on = OnBroker {
            broker: broker.title(),
            points: Vec::new(),
        };
        for round in 0..swept.about.rounds {
            eprintln!("{name}: round {} of {}", round + 1, swept.about.rounds);
            broker.begin_round(round, &names)?;
            let first = 1 + u64::try_from(round)? * (1 << 32);
            let mut sweep = Sweep {
                broker: &broker,
                servers: &servers,
                setup: arguments.setup(),
                max_connections,
                round,
                swept: &mut swept,
                on: &mut on,
                axis: Axis::All,
                events: Events { folder, first },
            };
            for axis in &axes {
                sweep.axis = *axis;
                sweep.sweep()?;
            }
            broker.end_round(&names)?;
        }
        swept.brokers.push(on);
    }
    swept.skipped.dedup();
    Ok(swept)
}

/// One round in front of one broker.
struct Sweep<'a> {
    broker: &'a Broker,
    servers: &'a [Server],
    /// Their settings where these are not varied.
    setup: Setup,
    max_connections: usize,
    round: usize,
    swept: &'a mut Swept,
    on: &'a mut OnBroker,
    axis: Axis,
    events: Events<'a>,
}

impl Sweep<'_> {
    fn sweep(&mut self) -> Outcome<()> {
        match self.axis {
            Axis::All => Ok(()),
            Axis::Idle => self.idle(),
            Axis::Start => self.start(),
            Axis::Overload => self.overload(),
            _ => self
                .steps()
                .into_iter()
                .try_for_each(|step| self.step(&step)),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let step = |value: String| Step {
            value,
            servers: BESIDE,
            setup: self.setup.clone(),
            shape: Shape::issue(),
            connections: 64,
        };
        let alone = |value: usize, setup| Step {
            servers: ALONE,
            setup,
            ..step(value.to_string())
        };
        let setup = self.setup.clone();
        match self.axis {
            Axis::Connections => [1, 8, 64, 512, 2048, 10_000]
                .map(|connections| Step {
                    connections,
                    ..step(connections.to_string())
                })
                .into(),
            Axis::Routes => [1, 10, 100, 1000]
                .map(|routes| {
                    alone(
                        routes,
                        Setup {
                            routes,
                            ..setup.clone()
                        },
                    )
                })
                .into(),
            Axis::Sources => [1, 10, 100]
                .map(|sources| {
                    alone(
                        sources,
                        Setup {
                            sources,
                            ..setup.clone()
                        },
                    )
                })
                .into(),
            Axis::Bodies => [
                ("200 B", Shape::ping(), 64),
                ("2 KB", Shape::issue(), 64),
                ("16 KiB", Shape::issue_of(16 << 10), 64),
                ("128 KiB", Shape::issue_of(128 << 10), 8),
                ("1 MiB", Shape::issue_of(1 << 20), 8),
            ]
            .map(|(name, shape, connections)| Step {
                shape,
                connections,
                ..step(name.to_owned())
            })
            .into(),
            Axis::Workers => [(1, 64), (2, 64), (4, 64), (1, 512), (2, 512), (4, 512)]
                .map(|(workers, connections)| Step {
                    setup: Setup {
                        workers: Some(workers),
                        ..setup.clone()
                    },
                    connections,
                    ..step(format!("threads {workers}, connections {connections}"))
                })
                .into(),
            Axis::All | Axis::Idle | Axis::Start | Axis::Overload => Vec::new(),
        }
    }

    /// Full load on each of the servers.
    fn step(&mut self, step: &Step) -> Outcome<()> {
        if !self.fits(step.connections) {
            return Ok(());
        }
        // Thousands of connections take time to open.
        let seconds = self
            .swept
            .about
            .seconds
            .max(if step.connections > 1000 { 3 } else { 1 });
        let running = self.running(step.servers, &step.setup)?;
        let warm = self.events.pool(&step.shape, 1)?;
        for server in &running {
            server.run(self.broker, &warm, step.connections.min(64), 1, self.round)?;
        }
        let pool = self.events.pool(&step.shape, seconds)?;
        for server in &running {
            let run = self.full_load(server, &pool, step.connections, seconds, &step.value)?;
            let mut figures = vec![
                ("events/s", run.per_second),
                ("CPU µs/event", run.cpu_us),
                ("peak MiB", mib(run.peak_kib)),
                ("p50", number(run.latency.p50) / 1e3),
                ("p99", number(run.latency.p99) / 1e3),
            ];
            if self.axis == Axis::Bodies {
                let bytes = number(u64::try_from(step.shape.bytes())?);
                figures.insert(2, ("CPU ns/byte", run.cpu_us * 1e3 / bytes));
            }
            self.point(&step.value, run.server, figures);
        }
        Ok(())
    }

    fn full_load(
        &mut self,
        server: &Running,
        pool: &Path,
        connections: usize,
        seconds: u64,
        value: &str,
    ) -> Outcome<Run> {
        let run = server.run(self.broker, pool, connections, seconds, self.round)?;
        for fault in run.faults() {
            self.fault(value, &fault);
        }
        Ok(run)
    }

    fn idle(&mut self) -> Outcome<()> {
        if !self.fits(IDLE) {
            return Ok(());
        }
        let ways = [
            ("nothing was sent", Sending::Nothing),
            ("one event each, in turn", Sending::InTurn),
            ("one event each, together", Sending::AtOnce),
        ];
        let connections = u64::try_from(IDLE)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        for (value, sending) in ways {
            for server in self.running(BESIDE, &self.setup)? {
                // The first event looks up topics and producer ids.
                let not_taken = runtime.block_on(async {
                    let mut first = connect(&server, 1).await?;
                    self.send(&mut first, Sending::AtOnce).await
                })?;
                let before = server.child.resident_kib()?;
                let (not_taken, after, later) = runtime.block_on(async {
                    let mut crowd = connect(&server, IDLE).await?;
                    let not_taken = not_taken + self.send(&mut crowd, sending).await?;
                    let after = server.child.resident_kib()?;
                    tokio::time::sleep(SILENCE).await;
                    Outcome::Ok((not_taken, after, server.child.resident_kib()?))
                })?;
                if not_taken > 0 {
                    let fault = format!("{}: {not_taken} were not answered 2xx", server.name);
                    self.fault(value, &fault);
                }
                let each = |kib: u64| number(kib.saturating_sub(before)) / number(connections);
                let figures = vec![
                    ("MiB before", mib(before)),
                    ("MiB after", mib(after)),
                    ("MiB 3 s later", mib(later)),
                    ("KiB each, after", each(after)),
                    ("KiB each, 3 s later", each(later)),
                ];
                self.point(value, server.name, figures);
            }
        }
        Ok(())
    }

    /// Sends an event on each connection; returns how many were not accepted.
    async fn send(&mut self, crowd: &mut [TcpStream], sending: Sending) -> Outcome<usize> {
        let timestamp = event::timestamp();
        let not_taken = Cell::new(0);
        let deliveries = crowd
            .iter_mut()
            .zip(self.events.first..)
            .map(|(stream, number)| {
                let (request, not_taken) = (event::request(number, &timestamp), &not_taken);
                async move {
                    if !is_taken(stream, &request).await.unwrap_or(false) {
                        not_taken.set(not_taken.get() + 1);
                    }
                }
            });
        match sending {
            Sending::Nothing => {}
            Sending::InTurn => {
                for delivery in deliveries {
                    delivery.await;
                }
            }
            Sending::AtOnce => drop(join_all(deliveries).await),
        }
        self.events.first += u64::try_from(crowd.len())?;
        Ok(not_taken.get())
    }

    fn start(&mut self) -> Outcome<()> {
        for _ in 0..STARTS {
            for server in self
                .servers
                .iter()
                .filter(|server| ALONE.contains(&server.name))
            {
                let client = self.broker.handshake(server.name)?;
                let running = Running::start(server, self.broker, self.events.folder, &self.setup)?;
                let (listening, ready) = running.started;
                let figures = [
                    ("listening", listening),
                    ("ready", ready),
                    ("client", client),
                ]
                .map(|(name, time)| (name, time.as_secs_f64() * 1e3));
                self.point("", server.name, figures.into());
            }
        }
        Ok(())
    }

    fn overload(&mut self) -> Outcome<()> {
        for (value, http_keys) in [
            ("defaults", ""),
            ("max_in_flight = 128", "max_in_flight = 128"),
        ] {
            let setup = Setup {
                http_keys: http_keys.to_owned(),
                ..self.setup.clone()
            };
            for server in self.running(ALONE, &setup)? {
                let seconds = self.swept.about.seconds;
                let warm = self.events.pool(&Shape::issue(), 1)?;
                server.run(self.broker, &warm, 64, 1, self.round)?;
                let pool = self.events.pool(&Shape::issue(), seconds)?;
                let peak = self.full_load(&server, &pool, 64, seconds, value)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is a small positive number"
                )]
                let rate = (2.0 * peak.per_second) as u64 + 1;
                let before = server.child.used()?;
                server.child.reset_peak()?;
                let loaded = send(&Load {
                    to: server.address,
                    rate,
                    seconds: CROWD_SECONDS,
                    connections: CROWD,
                    first: self.events.first,
                    give_up: true,
                })?;
                self.events.first += rate * CROWD_SECONDS + u64::try_from(CROWD)?;
                let cpu = server.child.used()?.cpu.saturating_sub(before.cpu);
                let unexpected = loaded.refused - loaded.unavailable + loaded.broken;
                if unexpected > 0 {
                    let fault = format!(
                        "{}: {unexpected} of {} requests were answered neither 2xx nor 503",
                        server.name,
                        loaded.answered + loaded.broken
                    );
                    self.fault(value, &fault);
                }
                let accepted = loaded.answered - loaded.refused;
                let time = number(loaded.microseconds) / 1e6;
                let sent = rate * CROWD_SECONDS - loaded.unsent;
                let ms = |microseconds: u64| number(microseconds) / 1e3;
                let figures = vec![
                    ("peak/s", peak.per_second),
                    ("due/s", number(rate)),
                    ("sent/s", number(sent) / time),
                    ("taken/s", number(accepted) / time),
                    ("taken/peak", number(accepted) / time / peak.per_second),
                    (
                        "503, share",
                        number(loaded.unavailable) / number(loaded.answered.max(1)),
                    ),
                    ("503, p50", ms(loaded.refused_from_sent.p50)),
                    ("503, p99", ms(loaded.refused_from_sent.p99)),
                    ("taken, p50 from sent", ms(loaded.from_sent.p50)),
                    ("taken, p99 from sent", ms(loaded.from_sent.p99)),
                    ("taken, p99 from due", ms(loaded.latency.p99)),
                    ("sender's own p99", ms(loaded.lag.p99)),
                    (
                        "CPU µs/answer",
                        cpu.as_secs_f64() * 1e6 / number(loaded.answered.max(1)),
                    ),
                    ("peak MiB", mib(server.child.peak_kib()?)),
                ];
                self.point(value, server.name, figures);
            }
        }
        Ok(())
    }

    fn running(&self, names: &[&str], setup: &Setup) -> Outcome<Vec<Running>> {
        let wanted = self
            .servers
            .iter()
            .filter(|server| names.contains(&server.name));
        wanted
            .map(|server| Running::start(server, self.broker, self.events.folder, setup))
            .collect()
    }

    /// Whether this many connections may be open.
    fn fits(&mut self, connections: usize) -> bool {
        let fits = connections <= self.max_connections;
        if !fits {
            let skipped = format!(
                "{:?}: {connections} connections are more than the limit of open files lets us have (ulimit -Hn)",
                self.axis
            );
            eprintln!("  skipped: {skipped}");
            self.swept.skipped.push(skipped);
        }
        fits
    }

    fn fault(&mut self, value: &str, fault: &str) {
        self.swept
            .faults
            .push(format!("{:?} {value}: {fault}", self.axis));
    }

    fn point(&mut self, value: &str, server: &'static str, figures: Figures) {
        let said: Vec<String> = figures
            .iter()
            .map(|(name, figure)| format!("{name} {figure:.*}", digits(*figure)))
            .collect();
        eprintln!("  {:?} {value} {server}: {}", self.axis, said.join(", "));
        self.on.points.push(Point {
            axis: self.axis,
            value: value.to_owned(),
            server,
            round: self.round,
            figures,
        });
    }
}

/// How a crowd sends its events.
#[derive(Debug, Clone, Copy)]
enum Sending {
    Nothing,
    InTurn,
    AtOnce,
}

async fn connect(server: &Running, count: usize) -> Outcome<Vec<TcpStream>> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        crowd.push(load::connect(server.address).await?);
    }
    Ok(crowd)
}

async fn is_taken(stream: &mut TcpStream, request: &[u8]) -> Outcome<bool> {
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(request).await?;
    let answer = load::read_answer(stream, &mut Vec::new()).await?;
    Ok((200..300).contains(&answer.status))
}

fn mib(kib: u64) -> f64 {
    number(kib) / 1024.0
}

impl Swept {
    /// The tables.
    pub(crate) fn show(&self) -> String {
        let mut text = self.about.show();
        text.push_str("the bridge along one axis at a time, some with the sketch beside it:\nmedian (min–max) of the rounds; p50, p99 and other times in ms\n");
        for on in &self.brokers {
            text.push_str(&format!("\n{}\n", on.broker));
            for axis in Axis::EACH {
                text.push_str(&on.table(axis));
            }
        }
        for skipped in &self.skipped {
            text.push_str(&format!("\nskipped: {skipped}\n"));
        }
        text.push_str(&show_faults(&self.faults));
        text
    }
}

impl OnBroker {
    /// One axis: a row for each value and server, or, where figures are many and values few, a column.
    fn table(&self, axis: Axis) -> String {
        let points: Vec<&Point> = self
            .points
            .iter()
            .filter(|point| point.axis == axis)
            .collect();
        let Some(first) = points.first() else {
            return String::new();
        };
        let mut values: Vec<(&str, &str)> = Vec::new();
        for point in &points {
            let value = (point.value.as_str(), point.server);
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let mut header = vec![String::new()];
        header.extend(first.figures.iter().map(|(name, _)| (*name).to_owned()));
        let mut rows = vec![header];
        for (value, server) in values {
            let of_value = points
                .iter()
                .filter(|point| point.value == value && point.server == server);
            let mut row = vec![format!("{value} {server}").trim_start().to_owned()];
            for column in 0..first.figures.len() {
                let figures = of_value
                    .clone()
                    .filter_map(|point| point.figures.get(column));
                let spread = Spread::of(figures.map(|(_, figure)| *figure));
                row.push(
                    spread.map_or_else(String::new, |spread| spread.show(digits(spread.median))),
                );
            }
            rows.push(row);
        }
        if rows.len() * 2 < first.figures.len() {
            rows = (0..=first.figures.len())
                .map(|column| {
                    rows.iter()
                        .filter_map(|row| row.get(column).cloned())
                        .collect()
                })
                .collect();
        }
        format!("\n{}\n{}", axis.title(), aligned(&rows))
    }
}

/// The columns below each other.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths.entry(column).or_default();
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths.values());
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(&format!("  {}\n", line.join("  ").trim_end()));
    }
    text
}

/// Three significant digits.
fn digits(figure: f64) -> usize {
    match figure.abs() {
        figure if figure >= 100.0 => 0,
        figure if figure >= 10.0 => 1,
        figure if figure >= 1.0 || figure == 0.0 => 2,
        _ => 3,
    }
}
