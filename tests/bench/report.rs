//! The results as tables and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::latency::Percentiles;
use crate::running::{Figure, Paced, Run, Server};

/// Everything that one command measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) brokers: Vec<OnBroker>,
}

/// The subject, time, machine and number of the measurements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    pub(crate) started: String,
    pub(crate) machine: Machine,
    pub(crate) hookbridge: String,
    pub(crate) wrk: String,
    pub(crate) event_bytes: usize,
    pub(crate) seconds: u64,
    pub(crate) rounds: usize,
}

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// The number of processes that wanted a core in the minute before; above 0 they disturb.
    pub(crate) load: String,
}

/// The results in front of one broker.
#[derive(Debug, Serialize)]
pub(crate) struct OnBroker {
    pub(crate) broker: String,
    pub(crate) name: &'static str,
    #[serde(skip)]
    pub(crate) servers: Vec<Server>,
    pub(crate) runs: Vec<Run>,
    pub(crate) paced: Vec<Paced>,
    /// The bare client's own round trips, one at a time, without HTTP: by round.
    pub(crate) round_trips: Vec<Percentiles>,
    /// The ratios that are printed.
    pub(crate) ratios: Vec<Ratio>,
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// One server's figure as a multiple of another's, in the same round.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) connections: usize,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

impl Spread {
    /// `None` if there are no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let upper = *figures.get(figures.len() / 2)?;
        let lower = *figures.get((figures.len() - 1) / 2)?;
        Some(Self {
            min,
            median: f64::midpoint(lower, upper),
            max,
        })
    }

    pub(crate) fn show(self, digits: usize) -> String {
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.min, self.max
        )
    }
}

/// The figures that are compared.
const FIGURES: [(&str, Figure); 2] = [
    ("events/s", |run| run.per_second),
    ("CPU per event", |run| run.cpu_us),
];

impl About {
    /// The head of every table.
    pub(crate) fn show(&self) -> String {
        let Machine {
            cpu,
            cores,
            kernel,
            load,
        } = &self.machine;
        format!(
            "\n{}, {}\n{cores} cores, {cpu}, Linux {kernel}, load average {load} before; {}\nevents of {} bytes, {} rounds, {} s each run\n",
            self.hookbridge, self.started, self.wrk, self.event_bytes, self.rounds, self.seconds
        )
    }
}

/// The warning below tables without significance.
pub(crate) fn show_faults(faults: &[String]) -> String {
    if faults.is_empty() {
        return String::new();
    }
    let mut text = "\n!!! THIS RUN DOES NOT COUNT !!!\n".to_owned();
    for fault in faults {
        text.push_str(&format!("!!! {fault}\n"));
    }
    text
}

impl OnBroker {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.servers.iter().map(|server| server.name)
    }

    fn connections(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.runs.iter().map(|run| run.connections).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The figures of a server's runs, one a round.
    pub(crate) fn figures(
        &self,
        name: &str,
        connections: usize,
        figure: impl Fn(&Run) -> f64,
    ) -> Option<Spread> {
        let runs = self
            .runs
            .iter()
            .filter(|run| run.server == name && run.connections == connections);
        Spread::of(runs.map(figure))
    }

    fn paced_figures(
        &self,
        name: &str,
        percent: u64,
        figure: impl Fn(&Paced) -> f64,
    ) -> Option<Spread> {
        let runs = self
            .paced
            .iter()
            .filter(|run| run.server == name && run.percent == percent);
        Spread::of(runs.map(figure))
    }

    fn ratio(
        &self,
        of: &str,
        to: &str,
        connections: usize,
        figure: fn(&Run) -> f64,
    ) -> Option<Spread> {
        let find = |name: &str, round: usize| {
            let mut runs = self
                .runs
                .iter()
                .filter(|run| run.round == round && run.connections == connections);
            runs.find(|run| run.server == name).map(figure)
        };
        let rounds = self.runs.iter().map(|run| run.round).max()?;
        let pairs = (0..=rounds).filter_map(|round| find(of, round).zip(find(to, round)));
        Spread::of(pairs.map(|(of, to)| of / to.max(f64::MIN_POSITIVE)))
    }

    /// Computes the ratios.
    pub(crate) fn compare(&mut self) {
        let pairs = [
            ("bridge", "sketch"),
            ("bridge", "publish"),
            ("bridge", "answer"),
            ("other", "bridge"),
            ("other", "sketch"),
        ];
        let mut ratios = Vec::new();
        for (of, to) in pairs {
            for (name, figure) in FIGURES {
                for connections in self.connections() {
                    if let Some(spread) = self.ratio(of, to, connections, figure) {
                        ratios.push(Ratio {
                            what: format!("{of}/{to} {name}"),
                            connections,
                            spread,
                        });
                    }
                }
            }
        }
        type Percentile = fn(&Percentiles) -> u64;
        let latencies: [(&str, Percentile); 2] = [("p50", |all| all.p50), ("p99", |all| all.p99)];
        for server in ["sketch", "bridge", "other"] {
            for (name, percentile) in latencies {
                let of = |round: usize| {
                    let mut runs = self
                        .runs
                        .iter()
                        .filter(|run| run.round == round && run.connections == 1);
                    runs.find(|run| run.server == server)
                        .map(|run| number(percentile(&run.latency)))
                };
                let pairs = self
                    .round_trips
                    .iter()
                    .enumerate()
                    .filter_map(|(round, trips)| {
                        of(round).map(|of| of / number(percentile(trips)).max(1.0))
                    });
                if let Some(spread) = Spread::of(pairs) {
                    ratios.push(Ratio {
                        what: format!("{server}/client {name}"),
                        connections: 1,
                        spread,
                    });
                }
            }
        }
        self.ratios = ratios;
    }

    /// Everything that should not have happened.
    pub(crate) fn faults(&self) -> Vec<String> {
        let runs = self.runs.iter().flat_map(Run::faults);
        let paced = self.paced.iter().map(|run| {
            let bad = run.loaded.refused + run.loaded.broken;
            (bad > 0).then(|| {
                format!(
                    "{}, {}/s, round {}: {bad} requests were not answered 2xx",
                    run.server,
                    run.rate,
                    run.round + 1
                )
            })
        });
        runs.chain(paced.flatten())
            .map(|fault| format!("{}: {fault}", self.name))
            .collect()
    }

    /// The tables.
    pub(crate) fn show(&self) -> Outcome {
        let mut text = String::new();
        writeln!(text, "{}", self.broker)?;
        for server in &self.servers {
            writeln!(text, "  {:<7}  {}", server.name, server.title)?;
        }
        self.show_runs(&mut text)?;
        self.show_paced(&mut text)?;
        self.show_ratios(&mut text)?;
        Ok(text)
    }

    fn show_runs(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nFull load, closed loop: median (min–max) of the rounds; latencies in ms"
        )?;
        writeln!(
            text,
            "  conn  {:<7}  {:<24} {:<22} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7}",
            "",
            "events/s",
            "CPU µs/event",
            "sleeps/ev",
            "peak MiB",
            "p50",
            "p99",
            "p99.9",
            "failed"
        )?;
        for connections in self.connections() {
            for name in self.names() {
                let all = |figure: fn(&Run) -> f64| self.figures(name, connections, figure);
                let Some((per_second, cpu)) = all(|run| run.per_second).zip(all(|run| run.cpu_us))
                else {
                    continue;
                };
                let median =
                    |figure: fn(&Run) -> f64| all(figure).map_or(0.0, |spread| spread.median);
                let failed: u64 = self
                    .runs
                    .iter()
                    .filter(|run| run.server == name && run.connections == connections)
                    .map(|run| run.failed)
                    .sum();
                writeln!(
                    text,
                    "  {connections:>4}  {name:<7}  {:<24} {:<22} {:>9.2} {:>9.1} {:>8.3} {:>8.3} {:>8.3} {failed:>7}",
                    per_second.show(0),
                    cpu.show(1),
                    median(|run| run.sleeps),
                    median(|run| number(run.peak_kib) / 1024.0),
                    median(|run| number(run.latency.p50) / 1e3),
                    median(|run| number(run.latency.p99) / 1e3),
                    median(|run| number(run.latency.p999) / 1e3),
                )?;
            }
        }
        Ok(())
    }

    fn show_paced(&self, text: &mut String) -> std::fmt::Result {
        let mut rates: Vec<(u64, u64)> = self
            .paced
            .iter()
            .map(|run| (run.percent, run.rate))
            .collect();
        rates.sort_unstable();
        rates.dedup();
        if rates.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\nFixed rate, open loop: latencies in ms from the time at which a request should have left, medians of the rounds"
        )?;
        writeln!(
            text,
            "  load           {:<7}  {:<22} {:>9} {:>8} {:>8} {:>8} {:>14}",
            "", "CPU µs/event", "sleeps/ev", "p50", "p99", "p99.9", "sender's p99"
        )?;
        for (percent, rate) in rates {
            for name in self.names() {
                let all = |figure: fn(&Paced) -> f64| self.paced_figures(name, percent, figure);
                let Some(cpu) = all(|run| run.cpu_us) else {
                    continue;
                };
                let median =
                    |figure: fn(&Paced) -> f64| all(figure).map_or(0.0, |spread| spread.median);
                writeln!(
                    text,
                    "  {percent:>3}% {rate:>7}/s  {name:<7}  {:<22} {:>9.2} {:>8.3} {:>8.3} {:>8.3} {:>14.3}",
                    cpu.show(1),
                    median(|run| run.sleeps),
                    median(|run| number(run.loaded.latency.p50) / 1e3),
                    median(|run| number(run.loaded.latency.p99) / 1e3),
                    median(|run| number(run.loaded.latency.p999) / 1e3),
                    median(|run| number(run.loaded.lag.p99) / 1e3),
                )?;
            }
        }
        Ok(())
    }

    fn show_ratios(&self, text: &mut String) -> std::fmt::Result {
        if let Some((p50, p99)) =
            Spread::of(self.round_trips.iter().map(|trips| number(trips.p50) / 1e3)).zip(
                Spread::of(self.round_trips.iter().map(|trips| number(trips.p99) / 1e3)),
            )
        {
            writeln!(
                text,
                "\nThe bare client's own round trip, without HTTP: p50 {} ms, p99 {} ms",
                p50.show(3),
                p99.show(3)
            )?;
        }
        writeln!(text, "\nRatios within a round: median (min–max)")?;
        write!(text, "  {:<30}", "connections")?;
        for connections in self.connections() {
            write!(text, " {connections:<20}")?;
        }
        writeln!(text, " wanted")?;
        let mut shown: Vec<&str> = Vec::new();
        for ratio in &self.ratios {
            if shown.contains(&ratio.what.as_str()) {
                continue;
            }
            shown.push(&ratio.what);
            write!(text, "  {:<30}", ratio.what)?;
            for connections in self.connections() {
                let found = self
                    .ratios
                    .iter()
                    .find(|other| other.what == ratio.what && other.connections == connections);
                write!(
                    text,
                    " {:<20}",
                    found.map_or_else(String::new, |found| found.spread.show(2))
                )?;
            }
            writeln!(text, " {}", goal(&ratio.what))?;
        }
        Ok(())
    }
}

/// The goals that the bridge is kept to.
fn goal(what: &str) -> &'static str {
    match what {
        "bridge/sketch events/s" => "0.9 or more at 64 and 512",
        "bridge/sketch CPU per event" => "1.25 or less at 64 and 512",
        "bridge/client p50" => "1.3 or less",
        "bridge/client p99" => "2 or less",
        _ => "",
    }
}

type Outcome = Result<String, std::fmt::Error>;

/// A count as a figure.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
