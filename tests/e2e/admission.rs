//! Unverified senders cannot displace others: genuine events are answered while a thousand connections misbehave.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;

use crate::support::crowd;
use crate::support::events;
use crate::support::fixture::nats;
use crate::support::http2::{
    self, AUTHORITY, CONTENT_TYPE, DATA, END_HEADERS, HEADERS, METHOD_POST, PATH, PREFACE,
    SCHEME_HTTP, SETTINGS, frame,
};
use crate::support::sender::{Answer, Connection, Request, Wire};
use crate::support::tls::{self, CERTIFICATES};
use crate::support::usage::raise_open_files;
use crate::support::wait::{self, PATIENCE};

const FLOOD: usize = 1000;

/// The behaviour of a connection of a flood.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Silence,
    /// A head without a signature; the body never comes.
    UnsignedHead,
    /// A head whose signature could be one; the body never comes.
    SignedHead,
    /// The same; the body comes byte by byte.
    SlowBody,
    /// The same, but most of the body arrives immediately.
    UnfinishedBody,
    /// The same in chunks, so that its length is not declared.
    SlowChunks,
    /// Twenty streams with heads and slow bodies on one connection.
    Streams,
    /// The beginning of a handshake, which the bridge answers.
    Handshake,
}

impl Shape {
    /// The bytes that are sent first, and those that follow again and again.
    fn bytes(self) -> (Vec<u8>, Vec<u8>) {
        let declared =
            || Request::new("POST", "/hooks/synq").header("Content-Type", "application/json");
        let long = || declared().header("Content-Length", "1048576");
        let head = |request: Request| {
            let headers = forged_headers();
            let signed = headers.iter().fold(request, |request, (name, value)| {
                request.header(name, value)
            });
            signed.head()
        };
        match self {
            Self::Silence => (Vec::new(), Vec::new()),
            Self::UnsignedHead => (long().head(), Vec::new()),
            Self::SignedHead => (head(long()), Vec::new()),
            Self::SlowBody => (head(long()), b" ".to_vec()),
            Self::UnfinishedBody => ([head(long()), vec![b' '; 50_000]].concat(), Vec::new()),
            Self::SlowChunks => (head(declared().chunked(1)), b"1\r\n \r\n".to_vec()),
            Self::Streams => streams(20),
            Self::Handshake => (client_hello(), Vec::new()),
        }
    }
}

/// As SYNQ would send them, except for the secret.
fn forged_headers() -> [(&'static str, String); 2] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    [
        ("x-coalesce-timestamp", now.as_secs().to_string()),
        ("x-coalesce-signature", format!("v1={}", "0".repeat(64))),
    ]
}

/// The heads of `count` requests over HTTP/2, and a byte more of each one's body.
fn streams(count: u32) -> (Vec<u8>, Vec<u8>) {
    let mut literals = vec![
        (PATH.to_vec(), "/hooks/synq".to_owned()),
        (AUTHORITY.to_vec(), "hooks.example.com".to_owned()),
        (CONTENT_TYPE.to_vec(), "application/json".to_owned()),
    ];
    for (name, value) in forged_headers() {
        let new_name = [&[0x00, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
        literals.push((new_name, value));
    }
    let literals: Vec<_> = literals
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    let head = http2::head(&[METHOD_POST, SCHEME_HTTP], &literals);
    let ids = || (0..count).map(|number| 2 * number + 1);
    let mut first = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    first.extend(ids().flat_map(|id| frame(HEADERS, END_HEADERS, id, &head)));
    (
        first,
        ids().flat_map(|id| frame(DATA, 0, id, b" ")).collect(),
    )
}

fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let client = Arc::new(tls::client(&[&TLS13], None));
    let mut connection = ClientConnection::new(client, name).expect("a client's settings");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("memory takes it");
    bytes
}

/// Connections that come again when they are closed, until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Flood {
    /// `count` connections, from one address or each from another one.
    fn start(address: SocketAddr, shape: Shape, count: usize, from_many: bool) -> Self {
        let (stop, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let one = |number: usize| {
            let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
            let [_, _, high, low] = u32::try_from(number).expect("few").to_be_bytes();
            let from = if from_many {
                Ipv4Addr::new(127, 7, high, low)
            } else {
                Ipv4Addr::LOCALHOST
            };
            crowd::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(stream) = connect(from, address).await {
                        begun.fetch_add(1, Ordering::Relaxed);
                        hold(stream, shape, &stop).await;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })
        };
        let flood = Self {
            tasks: (0..count).map(one).collect(),
            stop,
            begun,
        };
        wait::until("the flood has begun", PATIENCE, || {
            flood.begun.load(Ordering::Relaxed) >= count / 2
        });
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn connect(from: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    tokio::time::timeout(PATIENCE, socket.connect(address)).await?
}

/// Sends until the bridge closes the connection.
async fn hold(mut stream: TcpStream, shape: Shape, stop: &AtomicBool) {
    let (first, more) = shape.bytes();
    if stream.write_all(&first).await.is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let reading = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer));
        match reading.await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            Err(_) => {
                if stream.write_all(&more).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The answers to genuine events.
struct Served {
    statuses: Vec<String>,
    times: Vec<Duration>,
}

/// Sends 100 events a second for five seconds, from ten senders. Every tenth event has a connection of its own.
fn serve<W: Wire>(open: impl Fn() -> io::Result<Connection<W>> + Sync) -> Served {
    const SENDERS: u32 = 10;
    const EACH: u32 = 50;
    let interval = Duration::from_millis(100);
    let began = Instant::now();
    let one = |number: u32| {
        let mut connection = None;
        let mut served = Vec::new();
        for round in 0..EACH {
            let due = began + interval * round + interval * number / SENDERS;
            wait::play_silence(due.saturating_duration_since(Instant::now()));
            if round % 10 == 0 {
                connection = None;
            }
            let request = Request::event(&events::ping());
            let mut deliver = || -> io::Result<Answer> {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => open()?,
                };
                let answer = open.send(&request)?;
                if !answer.says_close() {
                    connection = Some(open);
                }
                Ok(answer)
            };
            let status = match deliver() {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error.kind().to_string(),
            };
            served.push((status, due.elapsed()));
        }
        served
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let ended = senders.into_iter();
        ended
            .flat_map(|sender| sender.join().expect("a sender"))
            .collect()
    });
    let (statuses, mut times): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    times.sort();
    Served { statuses, times }
}

impl Served {
    /// The share is asserted, the times are only printed: the machine may be busy.
    #[track_caller]
    fn expect(&self, what: &str) {
        let count = self.statuses.len();
        let good = self
            .statuses
            .iter()
            .filter(|status| *status == "200")
            .count();
        let at = |percent: usize| self.times[(count - 1) * percent / 100];
        println!(
            "{what}: {good} of {count} answered 200; p50 {:?}, p99 {:?}, the last {:?}",
            at(50),
            at(99),
            at(100)
        );
        let other = self.statuses.iter().find(|status| *status != "200");
        assert!(
            good * 100 >= count * 99,
            "{what}: {good} of {count}, others are {other:?}"
        );
    }
}

/// Genuine events are answered while a flood of this shape goes on.
fn holds(shape: Shape, http: &str) {
    let _alone = crowd::alone();
    raise_open_files();
    let bridge = or_skip!(nats().http(http).run());
    serve(|| Connection::open(bridge.public)).expect("no flood");
    let count = match shape {
        Shape::Streams => FLOOD / 10,
        _ => FLOOD,
    };
    for from_many in [false, true] {
        let flood = Flood::start(bridge.public, shape, count, from_many);
        let from = if from_many {
            "many addresses"
        } else {
            "one address"
        };
        serve(|| Connection::open(bridge.public)).expect(&format!("{shape:?} from {from}"));
        drop(flood);
    }
    println!("{:?}", bridge.usage());
    let metrics = bridge.metrics();
    assert_eq!(metrics.sum("hookbridge_in_flight_bytes", &[]), 0.0);
}

#[test]
fn genuine_events_are_answered_while_connections_are_silent() {
    holds(Shape::Silence, "");
}

#[test]
fn genuine_events_are_answered_while_unsigned_heads_wait_for_their_bodies() {
    holds(Shape::UnsignedHead, "");
}

#[test]
fn genuine_events_are_answered_while_forged_heads_wait_for_their_bodies() {
    holds(Shape::SignedHead, "");
}

#[test]
fn genuine_events_are_answered_while_bodies_drip() {
    holds(Shape::SlowBody, "");
}

#[test]
fn genuine_events_are_answered_while_large_bodies_do_not_end() {
    // They want more than is available.
    holds(Shape::UnfinishedBody, "max_in_flight_bytes = \"16MiB\"");
}

#[test]
fn genuine_events_are_answered_while_chunks_drip() {
    holds(Shape::SlowChunks, "");
}

#[test]
fn genuine_events_are_answered_while_http_2_streams_drip() {
    holds(Shape::Streams, "http2 = true");
}

#[test]
fn genuine_events_are_answered_while_tls_handshakes_stall() {
    let _alone = crowd::alone();
    raise_open_files();
    let (cert, key) = (&CERTIFICATES.certificate, &CERTIFICATES.key);
    let http = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let bridge = or_skip!(nats().http(&http).run());
    let client = tls::client(&[&TLS13], None);
    let serve = || serve(|| tls::open(bridge.public, &client, "localhost"));
    serve().expect("no flood");
    for from_many in [false, true] {
        let flood = Flood::start(bridge.public, Shape::Handshake, FLOOD, from_many);
        serve().expect(&format!(
            "handshakes from {}",
            if from_many { "many" } else { "one" }
        ));
        drop(flood);
    }
}

/// Each of a small service's connections is taken by a silent peer that keeps reconnecting.
#[test]
fn senders_of_nothing_genuine_cannot_keep_others_out() {
    let _alone = crowd::alone();
    raise_open_files();
    let http = "max_connections = 100\nheader_timeout = \"1h\"\nidle_timeout = \"1h\"";
    let bridge = or_skip!(nats().http(http).run());
    let mut known = Connection::open(bridge.public).unwrap();
    let deliver = |connection: &mut Connection| {
        let event = events::ping();
        let answer = connection
            .send(&Request::event(&event))
            .expect("it keeps its place");
        answer.expect_published(&event);
    };
    deliver(&mut known);
    let silent: Vec<_> = (0..300)
        .map(|_| Connection::open(bridge.public).unwrap())
        .collect();
    for _ in 0..20 {
        let mut fresh = Connection::open(bridge.public).unwrap();
        deliver(&mut fresh);
        deliver(&mut known);
    }
    drop(silent);
}

#[test]
fn a_head_that_gives_itself_away_is_refused_before_its_body() {
    let bridge = or_skip!(nats().run());
    let refused = |request: Request, code: &str| {
        let request = request.header("Content-Length", "1000");
        for asks in [false, true] {
            let request = if asks {
                request.clone().header("Expect", "100-continue")
            } else {
                request.clone()
            };
            let mut connection = Connection::open(bridge.public).unwrap();
            connection.write(&request.head()).unwrap();
            let answer = connection.read_answer().unwrap();
            answer.expect_problem(401, code);
            assert!(
                answer.says_close() && answer.interim.is_empty(),
                "{answer:?}"
            );
        }
    };
    let event = events::ping();
    let signed = Request::event(&event);
    refused(
        signed.clone().without("x-coalesce-signature"),
        "missing_signature",
    );
    refused(
        signed.clone().without("x-coalesce-timestamp"),
        "missing_signature",
    );
    let malformed = signed.without("x-coalesce-signature");
    refused(
        malformed.header("X-Coalesce-Signature", "v1=00"),
        "invalid_signature",
    );
    let mut stale = Request::post("/hooks/synq", event.body.clone());
    let old = SystemTime::now() - Duration::from_secs(3600);
    let signature = events::signature_at(events::SECRET, &event.body, old);
    stale.headers.extend(signature);
    refused(stale, "stale_timestamp");
}

#[test]
fn a_body_that_stalls_is_408_long_before_body_timeout() {
    let http = "body_timeout = \"1h\"";
    let bridge = or_skip!(nats().http(http).run());
    let request = Request::event(&events::ping()).bytes();
    let mut connection = Connection::open(bridge.public).unwrap();
    connection.write(&request[..request.len() - 1]).unwrap();
    let answer = connection.read_answer().unwrap();
    answer.expect_problem(408, "request_timeout");
}

/// Behind a trusted proxy, only the sender that sends much and slowly is ended.
#[test]
fn behind_a_trusted_proxy_each_sender_has_a_share_of_its_own() {
    let http = "max_in_flight = 10\nbody_timeout = \"10m\"\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let bridge = or_skip!(nats().http(http).run());
    let begin = |from: &str| {
        let request =
            Request::event(&events::ping_of_size(300_000)).header("X-Forwarded-For", from);
        let bytes = request.bytes();
        let mut connection = Connection::open(bridge.public).unwrap();
        connection.write(&bytes[..200_000]).unwrap();
        (connection, bytes[200_000..].to_vec())
    };
    let mut slow = begin("192.0.2.1");
    let others: Vec<_> = (0..30).map(|_| begin("198.51.100.7")).collect();
    // Ten bodies may be arriving, and each time that there are more, two are ended.
    let overloaded = [("outcome", "overloaded")];
    wait::until("most of them are ended", PATIENCE, || {
        let metrics = bridge.metrics();
        metrics.sum("hookbridge_requests_total", &overloaded) >= 20.0
    });
    drop(others);
    slow.0.write(&slow.1).unwrap();
    assert_eq!(slow.0.read_answer().unwrap().status, 200);
}
