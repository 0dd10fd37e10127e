//! Child processes that end with this one in any case, and their resource usage as the kernel reports it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;

/// Lines that may wait to be read; more are dropped.
const MAX_LINES: usize = 10_000;

/// A running child. Dropping it kills it.
pub(crate) struct Child {
    process: Process,
    what: String,
    lines: Receiver<String>,
}

/// Resources that a process has used since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Time of all its threads, in user mode and in the kernel.
    pub(crate) cpu: Duration,
    /// The number of times that its threads went to sleep.
    pub(crate) sleeps: u64,
}

/// The stream of a child that is read. The other one is inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    Stdout,
    Stderr,
}

impl Child {
    /// Starts a program. The kernel kills it when the calling thread ends: `setpriv` requests that.
    pub(crate) fn start<'a>(
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        listen: Listen,
    ) -> Outcome<Self> {
        Self::start_with(program, arguments, listen, None)
    }

    /// The same with another variable in its environment.
    pub(crate) fn start_with<'a>(
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        listen: Listen,
        variable: Option<(&str, String)>,
    ) -> Outcome<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(variable)
            .stdin(Stdio::null());
        match listen {
            Listen::Stdout => command.stdout(Stdio::piped()),
            Listen::Stderr => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let what = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut process = command.spawn().map_err(|error| {
            format!("{what} can't be started through setpriv (Debian package util-linux): {error}")
        })?;
        let stream: Option<Box<dyn Read + Send>> = match listen {
            Listen::Stdout => process.stdout.take().map(|stream| Box::new(stream) as _),
            Listen::Stderr => process.stderr.take().map(|stream| Box::new(stream) as _),
        };
        let (sender, lines) = sync_channel(MAX_LINES);
        std::thread::spawn(move || {
            for line in stream
                .map(BufReader::new)
                .into_iter()
                .flat_map(BufRead::lines)
                .map_while(Result::ok)
            {
                // A child must never wait for us, so surplus lines are dropped.
                drop(sender.try_send(line));
            }
        });
        Ok(Self {
            process,
            what,
            lines,
        })
    }

    /// The result of `find` for the first line that has one.
    pub(crate) fn wait_for<T>(
        &self,
        limit: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Outcome<T> {
        let deadline = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => match find(&line) {
                    Some(found) => return Ok(found),
                    None => seen.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "{} took longer than {limit:?}:\n{}",
                        self.what,
                        seen.join("\n")
                    )
                    .into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{} has ended:\n{}", self.what, seen.join("\n")).into());
                }
            }
        }
    }

    /// Asks it to exit, and waits until it has exited successfully.
    pub(crate) fn end(mut self, limit: Duration) -> Outcome<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let deadline = Instant::now() + limit;
        // Its stream ends with it.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{} did not end within {limit:?}", self.what).into());
                }
            }
        }
        let status = self.process.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended with {status}", self.what).into()),
        }
    }

    /// The resources that it has used so far.
    pub(crate) fn used(&self) -> Outcome<Used> {
        let folder = Path::new("/proc").join(self.process.id().to_string());
        let stat = std::fs::read_to_string(folder.join("stat"))?;
        // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let mut sleeps = 0;
        for thread in std::fs::read_dir(folder.join("task"))? {
            // A thread may have ended since.
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            sleeps += number_after(&status, "voluntary_ctxt_switches:");
        }
        let cpu = Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / ticks_per_second);
        Ok(Used { cpu, sleeps })
    }

    /// Resets its peak memory.
    pub(crate) fn reset_peak(&self) -> Outcome<()> {
        // "5" resets only the peak (proc_pid_clear_refs(5)).
        Ok(std::fs::write(
            format!("/proc/{}/clear_refs", self.process.id()),
            "5",
        )?)
    }

    /// The peak memory since then, in KiB.
    pub(crate) fn peak_kib(&self) -> Outcome<u64> {
        self.status("VmHWM:")
    }

    /// Its present memory in KiB.
    pub(crate) fn resident_kib(&self) -> Outcome<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        Ok(number_after(&status, name))
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
