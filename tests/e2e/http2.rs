//! S11: HTTP/2 from peers that mean no good. Frames are written by hand (RFC 9113): a client library would not send them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::support::bridge::Bridge;
use crate::support::events;
use crate::support::nats::Nats;
use crate::support::sender::{Connection, Request};
use crate::support::usage::MIB;
use crate::support::wait::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `POST /hooks/synq` of JSON, in HPACK (RFC 7541): indexes of the static table, and literals that are not indexed.
fn head() -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    for (index, value) in [(&[0x04][..], "/hooks/synq"), (&[0x01], "hooks.example.com")] {
        block.extend(index);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend(value.as_bytes());
    }
    block.extend([0x0f, 0x10, 16]); // content-type, number 31 of the table
    block.extend(b"application/json");
    block
}

/// The numbers that a client may give its streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// What the bridge made of it.
#[derive(Debug)]
struct End {
    written: usize,
    /// The error code of its GOAWAY.
    goaway: Option<u32>,
    is_closed: bool,
}

/// Writes until the bridge takes no more, and reads what it has to say meanwhile.
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
    let start = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat();
    for bytes in std::iter::once(start).chain(frames) {
        if stream.write_all(&bytes).is_err() {
            break;
        }
        written += bytes.len();
    }
    if !must_end {
        // The bridge may have nothing more to say.
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

/// The bridge bears it, and serves another sender meanwhile and after.
fn bears(row: &str, must_end: bool, frames: impl Iterator<Item = Vec<u8>> + Send) {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("s11");
    let bridge = Bridge::to_nats(nats, &stream, "http2 = true", "");
    let mut other = Connection::open(bridge.public).expect("a connection");
    let mut serve = || {
        let event = events::ping();
        let answer = other.send(&Request::event(&event)).expect("an answer");
        answer.expect_published(&event);
    };
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
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
}

#[test]
fn s11_streams_that_are_reset_at_once_end_their_connection() {
    let both = |stream| {
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &head()), reset].concat()
    };
    bears("S11 rapid reset", true, streams().take(50_000).map(both));
}

#[test]
fn s11_a_head_that_goes_on_for_ever_ends_its_connection() {
    // A literal header, 1,000 bytes of it a frame.
    let more = [&[0x00, 0x01, b'x', 0x7f, 0xe8, 0x06][..], &[b'y'; 999]].concat();
    let first = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &more), 50_000);
    bears("S11 CONTINUATION flood", true, first.chain(rest));
}

#[test]
fn s11_empty_continuations_end_their_connection() {
    let first = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let rest = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[]), 500_000);
    bears("S11 empty CONTINUATIONs", true, first.chain(rest));
}

#[test]
fn s11_empty_data_frames_cost_nothing() {
    let first = std::iter::once(frame(HEADERS, END_HEADERS, 1, &head()));
    let rest = std::iter::repeat_n(frame(DATA, 0, 1, &[]).repeat(100), 3000);
    bears("S11 empty DATA", false, first.chain(rest));
}

#[test]
fn s11_a_million_settings_and_pings_cost_nothing() {
    let both = [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(PING, 0, 0, &[7; 8]),
    ];
    let many = std::iter::repeat_n(both.concat().repeat(100), 5000);
    bears("S11 SETTINGS and PING", false, many);
}
