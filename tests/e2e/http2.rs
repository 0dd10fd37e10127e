//! HTTP/2: where it is available, and its resistance to hostile peers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::bridge::Bridge;
use crate::support::events;
use crate::support::fixture::nats;
use crate::support::http2::{
    self, AUTHORITY, CONTENT_TYPE, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS,
    METHOD_GET, METHOD_POST, PATH, PING, PREFACE, RST_STREAM, SCHEME_HTTP, SETTINGS, frame,
};
use crate::support::sender::{Connection, Request};
use crate::support::usage::MIB;
use crate::support::wait::{self, PATIENCE};

/// `POST /hooks/synq` of JSON.
fn head() -> Vec<u8> {
    let literals = [
        (PATH, "/hooks/synq"),
        (AUTHORITY, "hooks.example.com"),
        (CONTENT_TYPE, "application/json"),
    ];
    http2::head(&[METHOD_POST, SCHEME_HTTP], &literals)
}

/// Stream identifiers available to a client.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// The bridge's reaction.
#[derive(Debug)]
struct End {
    written: usize,
    /// The error code of its GOAWAY.
    goaway: Option<u32>,
    is_closed: bool,
}

/// Writes until the bridge accepts no more, and reads its frames meanwhile.
fn attack(bridge: &Bridge, must_end: bool, frames: impl Iterator<Item = Vec<u8>>) -> End {
    let mut stream = TcpStream::connect(bridge.public).expect("a connection");
    let limit = Some(PATIENCE / 3);
    stream.set_write_timeout(limit).expect("a limit");
    let mut reading = stream.try_clone().expect("a second handle");
    reading.set_read_timeout(limit).expect("a limit");
    let reader = std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match reading.read(&mut buffer) {
                Ok(0) => return (all, true),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let is_silent =
                        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    return (all, !is_silent);
                }
            }
        }
    });
    let mut written = 0;
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for bytes in std::iter::once(start).chain(frames) {
        if stream.write_all(&bytes).is_err() {
            break;
        }
        written += bytes.len();
    }
    if !must_end {
        // The bridge may have nothing more to send.
        drop(stream.shutdown(Shutdown::Write));
    }
    let (heard, is_closed) = reader.join().expect("the reader does not panic");
    End {
        written,
        goaway: goaway(&heard),
        is_closed,
    }
}

fn goaway(mut heard: &[u8]) -> Option<u32> {
    let mut code = None;
    while heard.len() >= 9 {
        let length = u32::from_be_bytes([0, heard[0], heard[1], heard[2]]) as usize;
        let payload = heard.get(9..9 + length)?;
        if heard[3] == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().ok()?));
        }
        heard = &heard[9 + length..];
    }
    code
}

/// The bridge survives it, and serves another sender during and after it.
fn bears(row: &str, must_end: bool, frames: impl Iterator<Item = Vec<u8>> + Send) {
    let bridge = or_skip!(nats().http("http2 = true").run());
    let mut other = Connection::open(bridge.public).expect("a connection");
    let mut serve = || other.publish_ping();
    serve();
    let before = bridge.usage();
    let ends = std::thread::scope(|scope| {
        let attacking = scope.spawn(|| {
            let (mut frames, mut ends) = (frames.peekable(), Vec::new());
            // A connection without a request is ended after some seconds; the rest goes over another one.
            while frames.peek().is_some() && !(must_end && ends.len() == 1) {
                ends.push(attack(&bridge, must_end, &mut frames));
            }
            ends
        });
        loop {
            serve();
            if attacking.is_finished() {
                break attacking.join().expect("the attacker does not panic");
            }
        }
    });
    serve();
    let usage = bridge.usage();
    println!(
        "{row}: {} bytes written, {ends:?}; {before:?}, then {usage:?}",
        ends.iter().map(|end| end.written).sum::<usize>()
    );
    assert!(usage.peak < before.peak + 24 * MIB, "{before:?}, {usage:?}");
    let has_ended = |end: &End| end.is_closed && end.goaway != Some(0);
    assert!(!must_end || ends.iter().all(has_ended), "{ends:?}");
    bridge.publish_ping();
}

#[test]
fn streams_that_are_reset_immediately_end_their_connection() {
    let both = |stream| {
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &head()), reset].concat()
    };
    bears("S11 rapid reset", true, streams().take(50_000).map(both));
}

#[test]
fn a_head_without_end_ends_its_connection() {
    // A literal header, 1,000 bytes of it per frame.
    let more = [&[0x00, 0x01, b'x', 0x7f, 0xe8, 0x06][..], &[b'y'; 999]].concat();
    let first = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &more), 50_000);
    bears("S11 CONTINUATION flood", true, first.chain(rest));
}

#[test]
fn empty_continuations_end_their_connection() {
    let first = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[]), 500_000);
    bears("S11 empty CONTINUATIONs", true, first.chain(rest));
}

#[test]
fn empty_data_frames_cost_nothing() {
    let first = std::iter::once(frame(HEADERS, END_HEADERS, 1, &head()));
    let rest = std::iter::repeat_n(frame(DATA, 0, 1, &[]).repeat(100), 3000);
    bears("S11 empty DATA", false, first.chain(rest));
}

#[test]
fn a_million_settings_and_pings_cost_nothing() {
    let both = [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(PING, 0, 0, &[7; 8]),
    ];
    let many = std::iter::repeat_n(both.concat().repeat(100), 5000);
    bears("S11 SETTINGS and PING", false, many);
}

#[test]
fn a_sender_that_takes_no_answer_is_ended_after_idle_timeout() {
    let bridge = or_skip!(nats().http("http2 = true\nidle_timeout = \"1s\"").run());
    // None of an answer's body, or a byte of it.
    for window in [0_u8, 1] {
        let mut connection = Connection::open(bridge.public).unwrap();
        let literals = [(PATH, "/nowhere"), (AUTHORITY, "hooks.example.com")];
        let head = http2::head(&[METHOD_GET, SCHEME_HTTP], &literals);
        let initial_window_size = [0, 4, 0, 0, 0, window];
        let start = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &initial_window_size),
            &frame(HEADERS, END_HEADERS | END_STREAM, 1, &head),
        ];
        connection.write(&start.concat()).unwrap();
        // It is available, and says so.
        let began = Instant::now();
        let ping = frame(PING, 0, 0, &[7; 8]);
        while connection.write(&ping).is_ok() {
            assert!(began.elapsed() < PATIENCE / 2, "still open");
            wait::play_silence(Duration::from_millis(100));
        }
        println!("window {window}: ended after {:?}", began.elapsed());
    }
    bridge.publish_ping();
}

/// Status, protocol version and body of a `POST` by `curl`, which can speak HTTP/2 without TLS.
fn curl(bridge: &Bridge, request: &Request) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge"]);
    curl.args([
        "--max-time",
        "30",
        "--write-out",
        "\n%{http_code} %{http_version}",
    ]);
    for (name, value) in &request.headers {
        curl.arg("--header").arg(format!("{name}: {value}"));
    }
    let body = String::from_utf8(request.body.clone()).unwrap();
    curl.arg("--data-binary").arg(body).arg(bridge.url());
    let output = curl.output().expect("curl runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text
        .rsplit_once('\n')
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (status.to_owned(), body.to_owned())
}

#[test]
fn it_is_spoken_on_the_same_port_where_it_is_switched_on() {
    let bridge = or_skip!(nats().http("http2 = true").run());
    let event = events::ping();
    let (status, body) = curl(&bridge, &Request::event(&event).without("host"));
    assert_eq!(status, "200 2", "{body}");
    assert!(body.contains(&event.id), "{body}");
    // Without a body: curl 7.88 loses an answer that comes while it is still sending.
    let unsigned = Request::post("/hooks/synq", "").without("host");
    let (status, body) = curl(&bridge, &unsigned);
    assert_eq!(status, "401 2", "{body}");
    assert!(body.contains("missing_signature"), "{body}");
    let second = bridge.publish_ping();
    assert_eq!(bridge.bodies(), [event.body, second.body]);
}

#[test]
fn it_is_not_spoken_unless_it_is_switched_on() {
    let bridge = or_skip!(nats().run());
    let mut connection = Connection::open(bridge.public).unwrap();
    let start = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    connection.write(&start).unwrap();
    let all = connection.expect_close();
    assert!(
        all.is_empty() || all.starts_with("HTTP/1.1 4") || all.starts_with("HTTP/1.1 505"),
        "{all}"
    );
}
