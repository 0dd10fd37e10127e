//! Child processes that end with the test process in any case, their output, and their ports and directories.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{failure, wait};

/// A command whose process the kernel kills when the test process ends: `setpriv` requests that, then executes
/// `program`. Background jobs of a shell ignore SIGINT, and so would their children.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "env",
        "--default-signal=INT,QUIT",
    ]);
    command.arg(program);
    // Variables for the tests and Cargo would cause warnings.
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.as_encoded_bytes().starts_with(b"HOOKBRIDGE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts a [`command`]. The parent-death signal refers to the thread that started the child, and a test's thread
    /// ends with its test, so one long-lived thread starts all of them.
    pub(crate) fn spawn(command: Command) -> Self {
        type Job = (Command, Sender<std::io::Result<Child>>);
        static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
        let spawner = SPAWNER.get_or_init(|| {
            failure::remember();
            let (jobs, todo) = mpsc::channel::<Job>();
            std::thread::spawn(move || {
                for (mut command, reply) in todo {
                    drop(reply.send(command.spawn()));
                }
            });
            Mutex::new(jobs)
        });
        let what = format!("{command:?}");
        let (reply, child) = mpsc::channel();
        spawner
            .lock()
            .expect("nothing panics while it holds the spawner")
            .send((command, reply))
            .expect("the spawner lives");
        let child = child.recv().expect("the spawner answers");
        let child = child.unwrap_or_else(|error| panic!("{what} does not start: {error}"));
        Self { child, what }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `STOP`, `CONT`, `TERM`, `INT`. No effect if the process has exited.
    pub(crate) fn signal(&mut self, name: &str) {
        if self.try_wait().is_some() {
            return; // its id may be another's by now
        }
        let sent = Command::new("sh")
            .args([
                "-c",
                "kill -s \"$0\" \"$1\"",
                name,
                &self.child.id().to_string(),
            ])
            .status()
            .expect("sh runs");
        assert!(
            sent.success(),
            "SIG{name} could not be sent to {}",
            self.what
        );
        if name == "STOP" {
            // A thread that is busy on another core continues for a moment.
            let what = format!("{} stops", self.what);
            wait::until(&what, wait::PATIENCE, || self.is_stopped());
        }
    }

    /// Whether each of its threads is stopped.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        threads.into_iter().flatten().flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// SIGKILL; the process is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// SIGTERM; the process is gone when this returns.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        self.wait(wait::PATIENCE);
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits up to `limit` for the exit status.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.what);
        wait::until_some(&what, limit, || self.try_wait())
    }

    /// Writes all of standard input and closes it. The process may exit without reading.
    pub(crate) fn write_stdin(&mut self, input: &[u8]) {
        drop(
            self.child
                .stdin
                .take()
                .expect("stdin was piped")
                .write_all(input),
        );
    }

    /// Its standard input and output, which were piped, as they are.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let input = self.child.stdin.take().expect("stdin was piped");
        (input, self.child.stdout.take().expect("stdout was piped"))
    }

    pub(crate) fn stdout(&mut self) -> Log {
        Log::follow(
            self.child
                .stdout
                .take()
                .expect("stdout was piped and is taken once"),
        )
    }

    pub(crate) fn stderr(&mut self) -> Log {
        Log::follow(
            self.child
                .stderr
                .take()
                .expect("stderr was piped and is taken once"),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines printed by a child.
#[derive(Clone)]
pub(crate) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    closed: bool,
}

impl Log {
    fn follow(from: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            let (lines, changed) = &*writer.0;
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                line.clear();
                lines.lock().expect("a log").lines.push(text);
                changed.notify_all();
            }
            lines.lock().expect("a log").closed = true;
            changed.notify_all();
        });
        log
    }

    /// Calls `find` on the lines so far until it returns a result; `None` if the child closes its output first, or
    /// after `limit`.
    pub(crate) fn wait_for<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&[String]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let (lines, changed) = &*self.0;
        let mut lines = lines.lock().expect("a log");
        loop {
            if let Some(found) = find(&lines.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.closed || left.is_zero() {
                return None;
            }
            lines = changed.wait_timeout(lines, left).expect("a log").0;
        }
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("a log").lines.clone()
    }

    /// All lines: waits until the child closes its output.
    pub(crate) fn finished(&self, limit: Duration) -> Vec<String> {
        let (lines, changed) = &*self.0;
        let guard = lines.lock().expect("a log");
        let (guard, timed_out) = changed
            .wait_timeout_while(guard, limit, |lines| !lines.closed)
            .expect("a log");
        assert!(
            !timed_out.timed_out(),
            "output still open after {limit:?}: {:#?}",
            guard.lines
        );
        guard.lines.clone()
    }
}

/// A new directory in the build directory, for one broker or bridge. Directories of earlier test processes are removed:
/// a data directory must outlive its test, so that a failure can be investigated.
pub(crate) fn directory(name: &str) -> PathBuf {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
            let owner = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("e2e-")?.parse::<u32>().ok());
            if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        all.join(format!("e2e-{}", std::process::id()))
    });
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let directory = ROOT.join(format!("{}-{name}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&directory).expect("a directory for a test");
    directory
}

/// A free loopback port outside the ephemeral range: a broker that is killed finds it free when it restarts.
pub(crate) fn port() -> u16 {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let mut given = GIVEN
        .lock()
        .expect("nothing panics while it holds the ports");
    let ephemeral =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u64 = ephemeral
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(32768);
    let start = 10_000;
    assert!(
        end > start + 1000,
        "no ports below the ephemeral range: {ephemeral}"
    );
    for attempt in 0.. {
        assert!(attempt < 10_000, "no free port between {start} and {end}");
        // Random, since another test process may be looking for ports, too.
        let port = u16::try_from(start + RandomState::new().hash_one(attempt) % (end - start))
            .expect("below 2^16");
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    unreachable!("the loop above ends by returning or panicking")
}

/// A path in the downloads of tests/run; `None` if it has not run.
pub(crate) fn cached(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let path = cache.join("hookbridge").join(name);
    path.exists().then_some(path)
}

/// The path of promtool: from tests/run, or the PATH.
pub(crate) fn promtool() -> Option<PathBuf> {
    installed("promtool")
}

/// The path of Prometheus.
pub(crate) fn prometheus() -> Option<PathBuf> {
    installed("prometheus")
}

/// The OTLP receiver that tests/run compiles.
pub(crate) fn otlp_receiver() -> Option<PathBuf> {
    let folder = format!("otlp-receiver-{}", version("OTLP_RECEIVER_VERSION"));
    cached(&format!("{folder}/otlp")).or_else(|| missing("the OTLP receiver"))
}

/// The same for Chromium.
pub(crate) fn chromium() -> Option<PathBuf> {
    installed("chromium")
}

fn installed(name: &str) -> Option<PathBuf> {
    let program = cached(name).unwrap_or_else(|| name.into());
    match Command::new(&program).arg("--version").output() {
        Ok(_) => Some(program),
        Err(_) => missing(name),
    }
}

/// A line of tests/support/versions.
pub(crate) fn version(name: &str) -> &'static str {
    include_str!("versions")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("tests/support/versions has no {name}"))
}

/// Fails a test that lacks something, unless HOOKBRIDGE_ALLOW_SKIP=1 lets it pass with a message.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    assert!(
        std::env::var_os("HOOKBRIDGE_ALLOW_SKIP").is_some_and(|allow| allow == "1"),
        "{what} is not installed: tests/run installs it (HOOKBRIDGE_ALLOW_SKIP=1 skips such tests)"
    );
    skip(what, "is not installed");
    None
}

/// Prints past the test harness's capture, so that nobody mistakes a skipped test for one that ran.
pub(crate) fn skip(what: &str, why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    drop(writeln!(std::io::stderr(), "skipped: {test}: {what} {why}"));
}

/// The end of a child's log file.
pub(crate) fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(80)..)
        .unwrap_or_default()
        .join("\n")
}
