//! Thousands of senders: like [`super::sender`] on tasks instead of threads, and only for complete and valid requests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::checker::Checker;
use super::events::Event;
use super::sender::{Answer, Request};
use super::wait;

/// Held by the test that uses most of the available file descriptors.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Crowds have their own runtime: the proxies on the other one must not wait for them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for crowds")
    })
}

/// Starts one sender of a crowd.
pub(crate) fn spawn<T: Send + 'static>(
    one: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    runtime().spawn(one)
}

/// A persistent connection.
pub(crate) struct Connection(TcpStream);

/// The result and duration of a delivery.
pub(crate) type Delivered = (io::Result<Answer>, Duration);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = tokio::time::timeout(wait::PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends a request and reads its answer, even if the answer comes before the whole body could be sent.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<Answer> {
        let written = self.0.write_all(&request.bytes()).await;
        let answer = tokio::time::timeout(wait::PATIENCE, self.read_answer()).await?;
        answer.map_err(|error| written.err().unwrap_or(error))
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 1024];
            let count = self.0.read(&mut buffer).await?;
            bytes.extend_from_slice(&buffer[..count]);
            if let Some(answer) = answer(&bytes) {
                return Ok(answer);
            }
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A complete answer with a `Content-Length`.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|found| found == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let split = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    let answer = Answer {
        status,
        headers: lines.filter_map(split).collect(),
        body: bytes[end + 4..].to_vec(),
        interim: Vec::new(),
    };
    let length = answer.header("content-length")?.parse().ok();
    (length == Some(answer.body.len())).then_some(answer)
}

/// Opens `count` connections, all of which the other side accepts.
#[track_caller]
pub(crate) fn open(address: SocketAddr, count: usize) -> Vec<Connection> {
    // The listener's queue is short.
    let at_once = Arc::new(Semaphore::new(200));
    let opening: Vec<_> = (0..count)
        .map(|_| {
            let at_once = Arc::clone(&at_once);
            spawn(async move {
                let _place = at_once.acquire_owned().await;
                Connection::open(address).await
            })
        })
        .collect();
    opening
        .into_iter()
        .map(|opening| join(opening).expect("a connection"))
        .collect()
}

/// Makes and signs `count` events, which takes longer than sending them.
#[track_caller]
pub(crate) fn prepare(count: usize, event: fn() -> Event) -> Vec<(Event, Request)> {
    let one = move || {
        let event = event();
        let request = Request::event(&event);
        (event, request)
    };
    let making: Vec<_> = (0..count).map(|_| spawn(async move { one() })).collect();
    making.into_iter().map(join).collect()
}

/// Delivers one event on each connection concurrently; the connections stay open until all are answered.
pub(crate) fn deliver(
    connections: Vec<Connection>,
    events: Vec<(Event, Request)>,
    checker: &Arc<Checker>,
) -> Vec<JoinHandle<(Connection, Delivered)>> {
    let start = |(mut connection, (event, request)): (Connection, (Event, Request))| {
        let checker = Arc::clone(checker);
        spawn(async move {
            let sent = Instant::now();
            let result = connection.send(&request).await;
            let took = sent.elapsed();
            checker.note(&event, took, &result);
            (connection, (result, took))
        })
    };
    connections.into_iter().zip(events).map(start).collect()
}

/// Delivers one event on its own connection.
pub(crate) async fn deliver_one(
    address: SocketAddr,
    checker: Arc<Checker>,
    event: Event,
) -> Option<Delivered> {
    let Ok(mut connection) = Connection::open(address).await else {
        checker.note_not_sent(&event);
        return None;
    };
    let request = Request::event(&event);
    let sent = Instant::now();
    let result = connection.send(&request).await;
    let took = sent.elapsed();
    checker.note(&event, took, &result);
    Some((result, took))
}

/// A task's result on the test's thread.
#[track_caller]
pub(crate) fn join<T>(task: JoinHandle<T>) -> T {
    runtime().block_on(task).expect("a task does not panic")
}
