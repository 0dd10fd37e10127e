//! An open-loop sender: requests leave at fixed times, whether or not earlier ones were answered, and latencies count
//! from those times. So a stalled server is charged for all requests that would have come meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::Outcome;
use crate::event;
use crate::latency::{Latencies, Percentiles};

/// Time allowed for the last answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// The events to send.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    /// To where
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Requests per second
    #[arg(long)]
    pub(crate) rate: u64,
    /// Duration
    #[arg(long)]
    pub(crate) seconds: u64,
    /// Connections that carry them
    #[arg(long)]
    pub(crate) connections: usize,
    /// The number of the first event
    #[arg(long)]
    pub(crate) first: u64,
    /// Omit requests that could not be sent in that time
    #[arg(long)]
    pub(crate) give_up: bool,
}

impl Load {
    /// The arguments of a child of ours that sends it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["load".to_owned(), "--to".to_owned(), self.to.to_string()];
        let numbers = [
            ("--rate", self.rate.to_string()),
            ("--seconds", self.seconds.to_string()),
            ("--connections", self.connections.to_string()),
            ("--first", self.first.to_string()),
        ];
        for (name, value) in numbers {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(self.give_up.then(|| "--give-up".to_owned()));
        arguments
    }
}

/// The results.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Answered with a status other than 2xx.
    pub(crate) refused: u64,
    /// Of these, with 503.
    pub(crate) unavailable: u64,
    /// Not answered, or the connection could not be opened again.
    pub(crate) broken: u64,
    /// Not sent: given up.
    pub(crate) unsent: u64,
    /// From the time of the first request to the last answer.
    pub(crate) microseconds: u64,
    /// Of what was answered 2xx, from the time at which a request should have left to the end of its answer.
    pub(crate) latency: Percentiles,
    /// The same from the time at which it did leave.
    pub(crate) from_sent: Percentiles,
    /// The same of what was refused.
    pub(crate) refused_from_sent: Percentiles,
    /// From the time at which a request should have left to when it did, for those that found an idle connection: the
    /// sender's own part of the latency.
    pub(crate) lag: Percentiles,
}

/// State of the sender and its connections; they share one thread.
#[derive(Default)]
struct Shared {
    due: RefCell<VecDeque<Instant>>,
    /// For each connection that may go on: something is due, or nothing will be any more.
    changed: Notify,
    is_over: Cell<bool>,
    idle: Cell<usize>,
    number: Cell<u64>,
    refused: Cell<u64>,
    unavailable: Cell<u64>,
    cut: Cell<u64>,
    latencies: RefCell<Latencies>,
    from_sent: RefCell<Latencies>,
    refused_from_sent: RefCell<Latencies>,
    lags: RefCell<Latencies>,
}

/// Sends it all. Prints [`Loaded`] as JSON.
pub(crate) fn run(load: &Load) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let loaded = LocalSet::new().block_on(&runtime, send(load))?;
    crate::say(&serde_json::to_string(&loaded)?)
}

async fn send(load: &Load) -> Outcome<Loaded> {
    let shared = Rc::new(Shared::default());
    shared.number.set(load.first);
    let timestamp = event::timestamp();
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        let stream = connect(load.to).await?;
        connections.push(tokio::task::spawn_local(connection(
            load.to,
            stream,
            timestamp.clone(),
            Rc::clone(&shared),
        )));
    }
    let mut timer = Timer::new()?;
    let total = load.rate * load.seconds;
    let began = Instant::now() + Duration::from_millis(20);
    let due_at = |index: u64| {
        began + Duration::from_nanos(index.saturating_mul(1_000_000_000) / load.rate.max(1))
    };
    let end = began + Duration::from_secs(load.seconds);
    let mut count = 0;
    while count < total && !(load.give_up && Instant::now() >= end) {
        timer.wait(due_at(count)).await?;
        // All that are due, so that a late sender does not fall behind its connections.
        let now = Instant::now();
        while count < total && due_at(count) <= now {
            let due = due_at(count);
            count += 1;
            if shared.idle.get() > shared.due.borrow().len() {
                shared.lags.borrow_mut().add(due.elapsed());
            }
            shared.due.borrow_mut().push_back(due);
            shared.changed.notify_one();
        }
    }
    let mut unsent = 0;
    if load.give_up {
        unsent = total - count + u64::try_from(shared.due.take().len())?;
    }
    shared.is_over.set(true);
    shared.changed.notify_waiters();
    let all = async {
        for connection in connections {
            // Requests that ended early are counted below, among those without an answer.
            drop(connection.await);
        }
    };
    drop(tokio::time::timeout(PATIENCE, all).await);
    let latencies = shared.latencies.take();
    let answered = u64::try_from(latencies.len())? + shared.refused.get();
    Ok(Loaded {
        answered,
        refused: shared.refused.get(),
        unavailable: shared.unavailable.get(),
        broken: total - unsent - answered + shared.cut.get(),
        unsent,
        microseconds: u64::try_from(began.elapsed().as_micros())?,
        latency: latencies.summary(),
        from_sent: shared.from_sent.take().summary(),
        refused_from_sent: shared.refused_from_sent.take().summary(),
        lag: shared.lags.take().summary(),
    })
}

/// One keep-alive connection: takes a due request, sends it, waits for the answer. If the answer closes the connection,
/// it opens another one.
async fn connection(
    to: SocketAddr,
    mut stream: TcpStream,
    timestamp: String,
    shared: Rc<Shared>,
) -> Outcome<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        // Signed before it is due.
        let request = event::request(shared.number.replace(shared.number.get() + 1), &timestamp);
        let Some(due) = next(&shared).await else {
            return Ok(());
        };
        let sent = Instant::now();
        stream.write_all(&request).await?;
        let answer = read_answer(&mut stream, &mut buffer).await?;
        if (200..300).contains(&answer.status) {
            shared.latencies.borrow_mut().add(due.elapsed());
            shared.from_sent.borrow_mut().add(sent.elapsed());
        } else {
            add_one(&shared.refused);
            shared.refused_from_sent.borrow_mut().add(sent.elapsed());
            if answer.status == 503 {
                add_one(&shared.unavailable);
            }
        }
        if answer.ends_connection {
            stream = connect(to).await.inspect_err(|_| add_one(&shared.cut))?;
        }
    }
}

fn add_one(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// Opens a connection.
pub(crate) async fn connect(to: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn next(shared: &Shared) -> Option<Instant> {
    shared.idle.set(shared.idle.get() + 1);
    let due = loop {
        let due = shared.due.borrow_mut().pop_front();
        if due.is_some() || shared.is_over.get() {
            break due;
        }
        shared.changed.notified().await;
    };
    shared.idle.set(shared.idle.get() - 1);
    due
}

/// The part of an answer that counts.
pub(crate) struct Answer {
    pub(crate) status: u16,
    ends_connection: bool,
}

/// Reads a whole answer.
pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Outcome<Answer> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head =
                std::str::from_utf8(buffer.get(..end).unwrap_or_default())?.to_ascii_lowercase();
            let length = head.lines().find_map(|line| {
                line.strip_prefix("content-length:")?
                    .trim()
                    .parse::<usize>()
                    .ok()
            });
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .ok_or("no status")?;
            let whole = end + 4 + length.unwrap_or_default();
            while buffer.len() < whole {
                if stream.read_buf(buffer).await? == 0 {
                    return Err("the connection was closed".into());
                }
            }
            return Ok(Answer {
                status,
                ends_connection: head.contains("\r\nconnection: close"),
            });
        }
    }
}

/// Tokio's timers keep milliseconds; this one is the kernel's, which is read as a pipe is (timerfd_create(2)).
struct Timer(pipe::Receiver);

impl Timer {
    fn new() -> Outcome<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(timer)?))
    }

    async fn wait(&mut self, until: Instant) -> Outcome<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // The connections get their turn even when the sender is late.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs())?,
            tv_nsec: left.subsec_nanos().into(),
        };
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        timerfd_settime(
            &self.0,
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval: never,
                it_value: value,
            },
        )?;
        let mut expirations = [0; 8];
        self.0.read_exact(&mut expirations).await?;
        Ok(())
    }
}
