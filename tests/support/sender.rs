//! HTTP/1.1 over a plain socket: a test controls every byte, valid or not.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::events::{self, Event, SECRET};
use super::wait;

/// A request to be written.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    chunk: Option<usize>,
}

impl Request {
    /// A request with no headers but `Host`, and without a body.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), "localhost".to_owned())];
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: Vec::new(),
            chunk: None,
        }
    }

    /// An unsigned `POST` of JSON.
    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", target).header("Content-Type", "application/json");
        request.body = body.into();
        request
    }

    /// A signed event as SYNQ would deliver it to `/hooks/synq`.
    pub(crate) fn event(event: &Event) -> Self {
        Self::post("/hooks/synq", event.body.clone()).signed(SECRET)
    }

    /// Any signed body to `/hooks/synq`.
    pub(crate) fn signed_body(body: impl Into<Vec<u8>>) -> Self {
        Self::post("/hooks/synq", body).signed(SECRET)
    }

    /// With SYNQ's headers for its current body.
    pub(crate) fn signed(mut self, secret: &str) -> Self {
        self.headers.extend(events::signature(secret, &self.body));
        self
    }

    /// To another path.
    pub(crate) fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// With one more header line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the header lines of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        self
    }

    /// With this body in chunks of `size` instead of a `Content-Length`.
    pub(crate) fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size);
        self
    }

    /// The head, with framing for the body unless the test has set it.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = |name: &str| {
            self.headers
                .iter()
                .any(|(header, _)| header.eq_ignore_ascii_case(name))
        };
        if !framed("content-length") && !framed("transfer-encoding") {
            if self.chunk.is_some() {
                head.push_str("Transfer-Encoding: chunked\r\n");
            } else if !self.body.is_empty() || self.method == "POST" {
                head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
            }
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The whole request.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        match self.chunk {
            None => bytes.extend(&self.body),
            Some(size) => {
                for chunk in self.body.chunks(size) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

/// An answer as received.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The statuses of 1xx answers before it.
    pub(crate) interim: Vec<u16>,
}

impl Answer {
    /// A header's value; panics if it is repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "two lines of {name}: {self:?}");
        first
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// `code` of a problem, or `status` of a success: the name under which an answer is counted.
    pub(crate) fn outcome(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let name = body
            .get("code")
            .or_else(|| body.get("status"))
            .and_then(Value::as_str);
        name.unwrap_or("?").to_owned()
    }

    /// Checks that this is a success of that name, in the documented form; returns the event id in it.
    #[track_caller]
    pub(crate) fn expect_success(&self, status: &str) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.expect_request_id();
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(
            body.get("status").and_then(Value::as_str),
            Some(status),
            "{self:?}"
        );
        body.get("event_id")
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no event_id: {self:?}"))
            .to_owned()
    }

    /// Checks that the event was published with its own id.
    #[track_caller]
    pub(crate) fn expect_published(&self, event: &Event) {
        assert_eq!(self.expect_success("published"), event.id, "{self:?}");
    }

    /// Checks that this is a problem with that status and code, in the documented form; returns the problem.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.outcome().as_str()),
            (status, code),
            "{self:?}"
        );
        self.expect_request_id();
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(
            self.header("x-content-type-options"),
            Some("nosniff"),
            "{self:?}"
        );
        if matches!(status, 429 | 503) {
            let seconds = self
                .header("retry-after")
                .and_then(|value| value.parse::<u32>().ok());
            assert!(
                seconds.is_some_and(|seconds| seconds >= 1),
                "no Retry-After in seconds: {self:?}"
            );
        }
        let problem = self.json();
        assert_eq!(
            problem.get("status").and_then(Value::as_u64),
            Some(u64::from(status)),
            "RFC 9457 status: {self:?}"
        );
        assert!(
            problem.get("title").is_some_and(Value::is_string),
            "RFC 9457 title: {self:?}"
        );
        problem
    }

    #[track_caller]
    fn expect_request_id(&self) {
        assert!(
            self.header("x-request-id").is_some_and(|id| !id.is_empty()),
            "no x-request-id: {self:?}"
        );
    }

    /// The pointers of an `invalid_event`.
    #[track_caller]
    pub(crate) fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem
            .get("errors")
            .and_then(Value::as_array)
            .unwrap_or_else(|| panic!("no errors: {self:?}"));
        let pointer = |error: &Value| {
            error
                .get("pointer")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        errors
            .iter()
            .map(|error| pointer(error).unwrap_or_else(|| panic!("no pointer: {self:?}")))
            .collect()
    }

    /// Whether the server announces that it will close the connection.
    pub(crate) fn says_close(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        for (name, value) in &self.headers {
            write!(f, "\n  {name}: {value}")?;
        }
        write!(f, "\n  {}", String::from_utf8_lossy(&self.body))
    }
}

/// The transport of a connection: a socket, with or without TLS.
pub(crate) trait Wire: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A persistent connection.
pub(crate) struct Connection<W: Wire = TcpStream> {
    reader: BufReader<W>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        stream.set_write_timeout(Some(wait::PATIENCE))?;
        Ok(Self::over(stream))
    }

    /// The socket, before anything was read.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.reader.into_inner()
    }

    /// Closes the connection while an answer, or a 100, that has arrived is unread: the system then sends a reset. Closing
    /// it before would send a mere end, which may be a half-close.
    pub(crate) fn reset_unread(self) {
        let socket = self.into_socket();
        assert_ne!(socket.peek(&mut [0]).expect("bytes to leave unread"), 0);
    }
}

impl<W: Wire> Connection<W> {
    pub(crate) fn over(wire: W) -> Self {
        Self {
            reader: BufReader::new(wire),
        }
    }

    pub(crate) fn wire(&self) -> &W {
        self.reader.get_ref()
    }

    pub(crate) fn wire_mut(&mut self) -> &mut W {
        self.reader.get_mut()
    }

    /// Sends a request and reads its answer, even if the answer comes before the whole body could be sent.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<Answer> {
        let written = self.write(&request.bytes());
        match self.read_answer_to(&request.method) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(written.err().unwrap_or(error)),
        }
    }

    /// Delivers a new event and expects it to be published.
    #[track_caller]
    pub(crate) fn publish_ping(&mut self) -> Event {
        let event = events::ping();
        let answer = self.send(&Request::event(&event)).expect("an answer");
        answer.expect_published(&event);
        event
    }

    /// Writes arbitrary bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Writes bytes one by one and slowly, until the server accepts no more.
    pub(crate) fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.write(&[*byte]).is_err() {
                break;
            }
            wait::play_silence(Duration::from_millis(100));
        }
    }

    /// Closes the writing side.
    pub(crate) fn finish_writing(&mut self) {
        drop(self.wire().socket().shutdown(Shutdown::Write));
    }

    /// The next answer to a request that is not `HEAD`.
    pub(crate) fn read_answer(&mut self) -> io::Result<Answer> {
        self.read_answer_to("POST")
    }

    fn read_answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.read_head()?;
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let mut answer = Answer {
                status,
                headers,
                body: Vec::new(),
                interim,
            };
            if method != "HEAD" && status != 204 && status != 304 {
                answer.body = self.read_body(&answer)?;
            }
            return Ok(answer);
        }
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.read_line()?;
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        let status = parts.next().and_then(|status| status.parse().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
            return Err(invalid(&format!("not a status line: {line:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(&format!("not a header: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            let length: u64 = length
                .parse()
                .map_err(|_| invalid("not a Content-Length"))?;
            (&mut self.reader).take(length).read_to_end(&mut body)?;
            if (body.len() as u64) < length {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let size = self.read_line()?;
                let size =
                    u64::from_str_radix(&size, 16).map_err(|_| invalid("not a chunk's size"))?;
                (&mut self.reader).take(size).read_to_end(&mut body)?;
                self.read_line()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => String::from_utf8(line.to_vec()).map_err(|_| invalid("not text")),
            None if line.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
            None => Err(invalid(&format!(
                "cut off: {}",
                String::from_utf8_lossy(&line)
            ))),
        }
    }

    /// Whether the server has closed the connection properly: with TLS that needs a `close_notify`.
    pub(crate) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.reader.fill_buf()?.is_empty())
    }

    /// Everything until the server closes, as text.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> String {
        let rest = self.read_to_close(wait::PATIENCE);
        String::from_utf8_lossy(&rest.expect("the connection is closed")).into_owned()
    }

    /// Everything until the server closes; `None` if it does not close within `limit`.
    pub(crate) fn read_to_close(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.wire()
                .socket()
                .set_read_timeout(Some(left))
                .expect("a socket takes a time limit");
            let read = match self.reader.fill_buf() {
                Ok([]) => return Some(all),
                Ok(bytes) => {
                    all.extend(bytes);
                    bytes.len()
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset
                            // TLS without `close_notify`, and TLS that still has something to write.
                            | ErrorKind::UnexpectedEof
                            | ErrorKind::BrokenPipe
                    ) =>
                {
                    return Some(all);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("reading until the server closes: {error}"),
            };
            self.reader.consume(read);
        }
    }
}

/// A request on a connection of its own.
#[track_caller]
pub(crate) fn send(address: SocketAddr, request: &Request) -> Answer {
    let sent = Connection::open(address).and_then(|mut connection| connection.send(request));
    sent.unwrap_or_else(|error| {
        panic!(
            "no answer to {} {}: {error}",
            request.method, request.target
        )
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
