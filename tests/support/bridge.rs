//! The built binary: running with a configuration, or as a command that ends.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::events::{self, Event, SECRET};
use super::hosts::Hosts;
use super::kafka::Kafka;
use super::nats::Nats;
use super::process::{self, Log, Process};
use super::sender::{self, Answer, Connection, Request};
use super::usage::Usage;
use super::{failure, wait};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hookbridge");

/// A broker table for Kafka.
pub(crate) fn kafka_broker(name: &str, address: &str) -> String {
    format!("[brokers.{name}]\nkind = \"kafka\"\nbootstrap_servers = \"{address}\"\n")
}

/// A broker table for NATS.
pub(crate) fn nats_broker(name: &str, url: &str) -> String {
    format!("[brokers.{name}]\nkind = \"nats\"\nservers = [\"{url}\"]\n")
}

/// The source `synq` at `/hooks/synq` with the tests' secret, and more keys.
pub(crate) fn synq_source(keys: &str) -> String {
    format!("[sources.synq]\nsecrets = [\"{SECRET}\"]\n{keys}\n")
}

/// A catch-all route.
pub(crate) fn route(topic: &str) -> String {
    route_with(topic, "")
}

/// A route with more keys.
pub(crate) fn route_with(topic: &str, keys: &str) -> String {
    format!("[[routes]]\ntopic = \"{topic}\"\n{keys}\n")
}

/// A configuration in its own directory.
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    pub(crate) file: PathBuf,
}

impl Files {
    pub(crate) fn path(&self) -> &str {
        self.file.to_str().expect("a path in UTF-8")
    }

    /// Runs a command with this configuration until it exits.
    pub(crate) fn command(&self, arguments: &[&str]) -> Finished {
        self.command_reading(arguments, b"")
    }

    /// [`Files::command`] with standard input.
    pub(crate) fn command_reading(&self, arguments: &[&str], input: &[u8]) -> Finished {
        hookbridge_reading([arguments, &["--config", self.path()]].concat(), input, &[])
    }

    /// Runs `hookbridge check` and expects this exit status.
    #[track_caller]
    pub(crate) fn check(&self, code: i32) -> Finished {
        self.command(&["check"]).expect_code(code)
    }
}

/// Writes a configuration that listens on free ports; `http` is more keys for `[http]`.
pub(crate) fn write(http: &str, rest: &str) -> Files {
    write_text(&whole(http, rest))
}

/// The text of such a configuration.
pub(crate) fn whole(http: &str, rest: &str) -> String {
    format!("[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[admin]\nlisten = \"127.0.0.1:0\"\n\n{rest}")
}

/// Writes a configuration verbatim.
pub(crate) fn write_text(text: &str) -> Files {
    let dir = process::directory("bridge");
    let file = dir.join("hookbridge.toml");
    std::fs::write(&file, text).expect("a file");
    Files { dir, file }
}

/// A running bridge. Dropping it kills it, and prints its configuration and log if the test has failed.
pub(crate) struct Bridge {
    process: Process,
    log: Log,
    /// The public listener.
    pub(crate) public: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
    /// Its configuration file.
    pub(crate) file: PathBuf,
}

impl Bridge {
    /// The URL of the source `synq`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks/synq", self.public)
    }

    /// Runs with this configuration of brokers, sources and routes, on free ports.
    pub(crate) fn run(rest: &str) -> Self {
        Self::run_with("", rest)
    }

    /// [`Bridge::run`] with more keys for `[http]`.
    pub(crate) fn run_with(http: &str, rest: &str) -> Self {
        Self::run_files(&write(http, rest), &[])
    }

    /// Runs in front of one Kafka topic, ready to publish.
    pub(crate) fn to_kafka(kafka: &Kafka, topic: &str) -> Self {
        let bridge =
            Self::run(&(kafka_broker("main", &kafka.address) + &synq_source("") + &route(topic)));
        bridge.wait_ready();
        bridge
    }

    /// Runs in front of one NATS stream, ready to publish to `STREAM.TYPE`, with more keys for `[http]` and the source.
    /// A stream that never acknowledges keeps a bridge from being ready, so it acknowledges until this one is.
    pub(crate) fn to_nats(nats: &Nats, stream: &str, http: &str, source: &str) -> Self {
        let is_silent = nats.is_silent(stream);
        if is_silent {
            nats.silence(stream, false);
        }
        let topic = format!("{stream}.{{type}}");
        let bridge = Self::run_with(
            http,
            &(nats_broker("main", &nats.url) + &synq_source(source) + &route(&topic)),
        );
        bridge.wait_ready();
        if is_silent {
            nats.silence(stream, true);
        }
        bridge
    }

    /// Runs with an existing configuration and environment variables; it listens when this returns.
    pub(crate) fn run_files(files: &Files, environment: &[(&str, &str)]) -> Self {
        Self::run_command(process::command(PROGRAM), files, environment)
    }

    /// [`Bridge::run_with`], resolving names with these hosts.
    pub(crate) fn run_seeing(hosts: &Hosts, http: &str, rest: &str) -> Self {
        Self::run_command(hosts.command(PROGRAM), &write(http, rest), &[])
    }

    /// [`Bridge::run_files`], started through another program.
    pub(crate) fn run_command(
        mut command: Command,
        files: &Files,
        environment: &[(&str, &str)],
    ) -> Self {
        command
            .args(["run", "--log-format", "json", "--config"])
            .arg(&files.file)
            .current_dir(&files.dir);
        command
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let log = process.stderr();
        let listening = log.wait_for(wait::PATIENCE, |lines| {
            Some((address(lines, "public")?, address(lines, "admin")?))
        });
        let Some((public, admin)) = listening else {
            panic!(
                "the bridge does not listen; its configuration and log:\n{}\n{}",
                text(&files.file),
                log.lines().join("\n")
            )
        };
        Self {
            process,
            log,
            public,
            admin,
            file: files.file.clone(),
        }
    }

    /// Writes another configuration of brokers, sources and routes, sends SIGHUP, and waits for the result. Returns
    /// whether the new one is in use.
    pub(crate) fn reload(&mut self, rest: &str) -> bool {
        self.reload_with("", rest)
    }

    /// [`Bridge::reload`] with more keys for `[http]`.
    pub(crate) fn reload_with(&mut self, http: &str, rest: &str) -> bool {
        std::fs::write(&self.file, whole(http, rest)).expect("a file");
        let before = reloads(&self.log.lines()).len();
        self.signal("HUP");
        self.wait_for_reload(before)
    }

    /// The number of reloads so far.
    pub(crate) fn reloads(&self) -> usize {
        reloads(&self.log.lines()).len()
    }

    /// Waits for one more reload, and returns whether it changed anything.
    pub(crate) fn wait_for_reload(&self, before: usize) -> bool {
        let done = self
            .log
            .wait_for(wait::PATIENCE, |lines| reloads(lines).get(before).copied());
        done.unwrap_or_else(|| {
            panic!(
                "the configuration is not read again:\n{}",
                self.log.lines().join("\n")
            )
        })
    }

    /// Delivers an event as SYNQ would, on a connection of its own.
    #[track_caller]
    pub(crate) fn deliver(&self, event: &Event) -> Answer {
        self.send(&Request::event(event))
    }

    /// [`Bridge::deliver`], expecting an answer within `limit`.
    #[track_caller]
    pub(crate) fn deliver_within(&self, event: &Event, limit: Duration) -> Answer {
        let sent = Instant::now();
        let answer = self.deliver(event);
        let took = sent.elapsed();
        assert!(took < limit, "answered after {took:?}: {answer:?}");
        answer
    }

    /// Delivers a new event and expects it to be published.
    #[track_caller]
    pub(crate) fn publish_ping(&self) -> Event {
        let event = events::ping();
        self.deliver(&event).expect_published(&event);
        event
    }

    /// Delivers an event and returns the connection while the event is in flight.
    #[track_caller]
    pub(crate) fn put_in_flight(&self, event: &Event) -> Connection {
        let before = self.metric("hookbridge_in_flight", &[]);
        let mut waiting = Connection::open(self.public).expect("a connection");
        let sent = waiting.write(&Request::event(event).bytes());
        sent.expect("the bridge reads");
        self.wait_metric("hookbridge_in_flight", &[], before + 1.0);
        waiting
    }

    /// Sends a request to the public listener, on a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Answer {
        sender::send(self.public, request)
    }

    /// `GET` from the admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Answer {
        sender::send(self.admin, &Request::new("GET", path))
    }

    /// The status and the body of `/readyz`.
    #[track_caller]
    pub(crate) fn readyz(&self) -> (u16, String) {
        let answer = self.admin("/readyz");
        let body = String::from_utf8_lossy(&answer.body);
        (answer.status, body.into_owned())
    }

    /// Waits until `/readyz` fails with all of these words.
    #[track_caller]
    pub(crate) fn wait_unready(&self, words: &[&str]) -> String {
        wait::until_some(&format!("/readyz says {words:?}"), wait::PATIENCE, || {
            let (status, body) = self.readyz();
            let is_said = words.iter().all(|word| body.contains(word));
            (status == 503 && is_said).then_some(body)
        })
    }

    /// Waits until `/readyz` succeeds.
    pub(crate) fn wait_ready(&self) {
        wait::until("/readyz answers 200", wait::PATIENCE, || {
            self.admin("/readyz").status == 200
        });
    }

    /// A scrape of `/metrics`.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.admin("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(String::from_utf8(answer.body).expect("metrics in UTF-8"))
    }

    /// The sum of all samples of this name with all of these labels; 0 if there are none.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until [`Bridge::metric`] has this value.
    #[track_caller]
    pub(crate) fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        wait::until(
            &format!("{name}{labels:?} == {value}"),
            wait::PATIENCE,
            || self.metric(name, labels) == value,
        );
    }

    /// Waits until this many brokers are up; one is sufficient for readiness.
    #[track_caller]
    pub(crate) fn wait_brokers_up(&self, count: u8) {
        self.wait_metric("hookbridge_broker_up", &[], f64::from(count));
    }

    /// Waits for a log line with this message.
    pub(crate) fn wait_for_log(&self, message: &str) -> Value {
        let found = self.log.wait_for(wait::PATIENCE, |lines| {
            lines
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| said(line) == message)
        });
        found.unwrap_or_else(|| panic!("the log never says {message:?}"))
    }

    /// Waits for a line of the log that contains all of these words: lines are written after what they tell of.
    pub(crate) fn wait_for_line(&self, words: &[&str]) -> String {
        let found = self.log.wait_for(wait::PATIENCE, |lines| {
            let mut lines = lines.iter();
            let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
            line.cloned()
        });
        found.unwrap_or_else(|| panic!("no line of the log has {words:?}"))
    }

    /// Every line of the log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The resources that the process uses at present.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.process.id())
    }

    /// Waits up to `limit` for the exit status.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let log = self.log.lines().join("\n");
        if std::thread::panicking() {
            eprintln!(
                "--- {PROGRAM} run --config {}\n{}",
                self.file.display(),
                text(&self.file)
            );
            failure::report("its log", &log);
        } else {
            assert!(
                !log.contains("panicked at"),
                "the bridge has panicked:\n{log}"
            );
        }
    }
}

/// Whether each reload, in order, changed the configuration.
fn reloads(lines: &[String]) -> Vec<bool> {
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|line| match said(&line) {
            "the configuration has changed" => Some(true),
            "the configuration was not changed: the one that runs stays" => Some(false),
            _ => None,
        })
        .collect()
}

fn said(line: &Value) -> &str {
    line.get("message")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn address(lines: &[String], listener: &str) -> Option<SocketAddr> {
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| {
            let matches = said(&line) == "listening"
                && line.get("listener").and_then(Value::as_str) == Some(listener);
            matches
                .then(|| line.get("address")?.as_str()?.parse().ok())
                .flatten()
        })
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The text of a scrape.
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum of all samples of this name with all of these labels; `None` if there are none.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self
            .0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, rest) = series.split_once('{').unwrap_or((series, ""));
                let all = labels.iter().all(|(key, value)| {
                    let label = format!("{key}=\"{value}\"");
                    rest.trim_end_matches('}')
                        .split(',')
                        .any(|found| found == label)
                });
                (found == name && all).then(|| value.parse::<f64>().expect("a sample's value"))
            });
        samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// [`Metrics::find`], or 0.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }
}

/// The result of a command.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    command: String,
}

impl Finished {
    /// Checks that standard error contains each of these.
    #[track_caller]
    pub(crate) fn expect_stderr(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is missing: {self:?}");
        }
        self
    }

    /// Checks that standard output contains each of these.
    #[track_caller]
    pub(crate) fn expect_stdout(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "{text:?} is missing: {self:?}");
        }
        self
    }

    /// Standard output and standard error.
    pub(crate) fn all(&self) -> String {
        self.stdout.clone() + &self.stderr
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = String::new();
        write!(shown, "{}\nexit code {:?}", self.command, self.code)?;
        write!(
            shown,
            "\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.stdout, self.stderr
        )?;
        f.write_str(&shown)
    }
}

/// Runs `hookbridge` with these arguments until it exits.
pub(crate) fn hookbridge<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Finished {
    hookbridge_reading(arguments, b"", &[])
}

/// [`hookbridge`] with standard input and environment variables.
pub(crate) fn hookbridge_reading<I: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = I>,
    input: &[u8],
    environment: &[(&str, &str)],
) -> Finished {
    let mut command = process::command(PROGRAM);
    command
        .args(arguments)
        .current_dir(process::directory("command"));
    command.envs(environment.iter().copied());
    finish(command, input)
}

/// Runs a command until it exits.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Finished {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut process = Process::spawn(command);
    let (stdout, stderr) = (process.stdout(), process.stderr());
    process.write_stdin(input);
    let code = process.wait(wait::PATIENCE).code();
    let text = |log: &Log| {
        log.finished(wait::PATIENCE)
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    };
    Finished {
        code,
        stdout: text(&stdout),
        stderr: text(&stderr),
        command: shown,
    }
}

/// Runs `hookbridge check --connect` with this configuration of brokers, sources and routes.
pub(crate) fn check_connect(rest: &str) -> Finished {
    write("", rest).command(&["check", "--connect"])
}

/// Starts `hookbridge` with these arguments, for commands that run until they have what they wait for.
pub(crate) fn start(arguments: &[&str]) -> Running {
    let mut command = process::command(PROGRAM);
    command
        .args(arguments)
        .current_dir(process::directory("command"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let (stdout, stderr) = (process.stdout(), process.stderr());
    Running {
        process,
        stdout,
        stderr,
    }
}

/// A running command.
pub(crate) struct Running {
    process: Process,
    pub(crate) stdout: Log,
    pub(crate) stderr: Log,
}

impl Running {
    /// Waits for its exit; returns its output lines.
    #[track_caller]
    pub(crate) fn expect_code(mut self, code: i32) -> Vec<String> {
        let status = wait::poll(wait::PATIENCE, || self.process.try_wait());
        if status.is_none() {
            self.process.kill();
        }
        let (out, err) = (
            self.stdout.finished(wait::PATIENCE),
            self.stderr.finished(wait::PATIENCE),
        );
        assert_eq!(
            status.map(|status| status.code()),
            Some(Some(code)),
            "stdout:\n{}\nstderr:\n{}",
            out.join("\n"),
            err.join("\n")
        );
        out
    }

    pub(crate) fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    /// The exit status.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.process.wait(wait::PATIENCE)
    }
}
