//! Step 1, the request: checks on its head, and reading its body within limits.
//!
//! Checks are ordered by cost. Unverified requests never take the room of verified events: until it is verified, a body
//! that must be waited for counts by the bytes that have arrived, and is dropped when room runs out ([`crate::flow`]).

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::client::{client_address, known_client_address};
use super::gzip::{Coding, decompress};
use super::received::{Head, Received};
use super::self_wake::poll_reading;
use super::socket::Activity;
use super::verify::{may_be_open_handshake, to_refusal, verify_head};
use crate::bridge::Bridge;
use crate::config::Source;
use crate::event::Refusal;
use crate::providers::Scope;
use crate::providers::handshake::Reply;
use crate::providers::request::Request as Signed;

/// The maximum size in bytes of a body that is read although the request is refused, and the timeout for it. Closing
/// the connection would cost both sides more.
const SMALL_BODY: u64 = 16 * 1024;
const SMALL_BODY_TIMEOUT: Duration = Duration::from_millis(50);

/// After the grace period, a body must arrive at the minimum rate (bytes per second) on average.
const RATE_GRACE: Duration = Duration::from_secs(5);
const MIN_RATE: u32 = 1024;

/// A refusal and its source.
pub(super) struct Refused {
    pub(super) source: Option<Arc<Source>>,
    pub(super) refusal: Refusal,
    /// The whole body was read, even if the refusal usually leaves it unread.
    pub(super) is_read: bool,
    /// The refusal concerns the head: the body was not read, even if the refusal usually follows a read body.
    pub(super) is_unread: bool,
}

impl Refused {
    #[cold]
    fn new(source: Option<&Arc<Source>>, refusal: Refusal) -> Self {
        Self {
            source: source.cloned(),
            refusal,
            is_read: false,
            is_unread: false,
        }
    }
}

/// A request whose head was accepted.
pub(super) struct Admitted {
    source: Arc<Source>,
    /// The answer, if the head shows that the request is a handshake.
    handshake: Option<Box<Reply>>,
}

/// The result of receiving an admitted request.
pub(super) enum Arrived {
    Whole(Received),
    /// Nothing is published for it.
    Handshake {
        source: Arc<Source>,
        reply: Box<Reply>,
        is_read: bool,
    },
}

/// Checks that need only the head.
pub(super) fn admit(
    bridge: &Bridge,
    request: &Request<Incoming>,
    connection: &Activity,
) -> Result<Admitted, Refused> {
    let refusal = check_message(request, connection);
    refusal.map_err(|refusal| Refused::new(None, refusal))?;
    if bridge.process().is_closing() {
        return Err(Refused::new(None, Refusal::ShuttingDown));
    }
    let source = find_source(bridge, request)?;
    let refused = |refusal| Refused::new(Some(&source), refusal);
    check_sender(bridge, &source, request.headers(), connection).map_err(|refusal| Refused {
        is_unread: true,
        ..refused(refusal)
    })?;
    if !source.handshakes.is_empty() {
        let signed = Signed {
            method: request.method(),
            target: request.uri(),
            headers: request.headers(),
            body: &[],
            public_url: source.public_url.as_deref(),
            at: bridge.process().clock().now(),
        };
        if let Some(reply) = head_handshake(&source, &signed) {
            let handshake = Some(reply.map_err(refused)?);
            return Ok(Admitted { source, handshake });
        }
    }
    let (method, length) = (request.method(), request.body().size_hint().exact());
    let declared = check_head(&source, method, request.headers(), length).map_err(refused)?;
    // A permit is taken once the event is verified. A body that could not get one then need not be read.
    if !bridge.permits().has_room_for(source.index, declared) {
        return Err(refused(Refusal::Overloaded));
    }
    Ok(Admitted {
        source,
        handshake: None,
    })
}

/// The address that a request came from, as far as proxies are trusted.
pub(super) fn client(bridge: &Bridge, headers: &HeaderMap, connection: &Activity) -> IpAddr {
    let proxies = &bridge.config().http.trusted_proxies;
    client_address(connection.peer(), headers, proxies)
}

/// Refuses senders that may not use this source at all, not even for handshakes.
fn check_sender(
    bridge: &Bridge,
    source: &Source,
    headers: &HeaderMap,
    connection: &Activity,
) -> Result<(), Refusal> {
    if !source.client_names.is_empty() && !connection.has_name_of(&source.client_names) {
        tracing::debug!(source = source.name, peer = %connection.peer(), "the sender's certificate has none of client_names");
        return Err(Refusal::Unauthorized);
    }
    if source.allow_from.is_empty() {
        return Ok(());
    }
    let proxies = &bridge.config().http.trusted_proxies;
    let address = known_client_address(connection.peer(), headers, proxies);
    let is_allowed = |address| {
        source
            .allow_from
            .iter()
            .any(|network| network.contains(&address))
    };
    if address.is_some_and(is_allowed) {
        return Ok(());
    }
    tracing::debug!(source = source.name, peer = %connection.peer(), ?address, "the sender's address is not in allow_from");
    Err(Refusal::Unauthorized)
}

/// The answer to a handshake that can be recognized by its head.
fn head_handshake(source: &Source, request: &Signed<'_>) -> Option<Result<Box<Reply>, Refusal>> {
    let scope = Scope::raw(request);
    // A POST that must be verified needs its body.
    let is_for_head = |verified: bool| !verified || *request.method != Method::POST;
    let mut handshakes = source.handshakes.iter();
    let handshake = handshakes.find(|handshake| {
        is_for_head(handshake.verified)
            && !handshake.needs_content()
            && handshake.matches(&scope).unwrap_or(false)
    })?;
    let authentication = &source.authentication;
    let verify = || {
        let secret = authentication.verify(&scope)?;
        authentication.check_content(&scope).map(|()| secret)
    };
    let key = match handshake.verified.then(verify) {
        None => None,
        Some(Ok(secret)) => secret.and_then(|secret| authentication.key(secret)),
        Some(Err(unverified)) => return Some(Err(to_refusal(unverified))),
    };
    let reply = handshake.reply(&scope, key).ok().flatten();
    let missing = Refusal::BadRequest("the handshake lacks the value that is to be answered");
    Some(reply.map(Box::new).ok_or(missing))
}

/// Receives the rest of the request.
pub(super) fn receive(
    bridge: &Bridge,
    admitted: Result<Admitted, Refused>,
    head: Box<Head>,
    body: Incoming,
    connection: &Activity,
) -> impl Future<Output = Result<Arrived, Refused>> {
    async move {
        let source = match admitted {
            Ok(Admitted {
                source,
                handshake: None,
            }) => source,
            Ok(Admitted {
                source,
                handshake: Some(reply),
            }) => {
                return Ok(Arrived::Handshake {
                    source,
                    reply,
                    is_read: drain_body(body).await,
                });
            }
            Err(refused) if refused.refusal == Refusal::Overloaded => {
                return Err(Refused {
                    is_read: drain_body(body).await,
                    ..refused
                });
            }
            Err(refused) => return Err(refused),
        };
        let mut reader = Reader::new(body, source.max_body);
        // A sender that asks permission to send the body must not get it before its head is checked.
        let expects_continue = head.headers.contains_key(EXPECT);
        // Most bodies arrive with their heads, and need neither a timer nor a place among the unverified.
        let available = poll_available(&mut reader, expects_continue).await;
        let read = match available {
            Poll::Ready(read) => read.map_err(|refusal| Refused::new(Some(&source), refusal)),
            // Boxed because it is large and rare.
            Poll::Pending => {
                let waiting = wait_for_body(bridge, &source, &head, &mut reader, connection);
                Box::pin(waiting).await
            }
        };
        read?;
        connection.note_body_read();
        let body = reader.into_body();
        let at = bridge.process().clock().now();
        let body = if is_compressed(&source, &head.headers) {
            decompress_body(&source, &head, &body, at).map_err(|refusal| Refused {
                is_read: true,
                ..Refused::new(Some(&source), refusal)
            })?
        } else {
            body
        };
        Ok(Arrived::Whole(Received {
            source,
            head,
            body,
            at,
        }))
    }
}

/// Reads the bytes that are already available.
async fn poll_available(reader: &mut Reader, expects_continue: bool) -> Poll<Result<(), Refusal>> {
    if expects_continue {
        return Poll::Pending;
    }
    let mut reading = std::pin::pin!(reader.read_to_end());
    poll_fn(|context| {
        Poll::Ready(poll_reading(context, |context| {
            reading.as_mut().poll(context)
        }))
    })
    .await
}

/// Waits for the rest of a body that is not verified yet.
#[cold]
async fn wait_for_body(
    bridge: &Bridge,
    source: &Arc<Source>,
    head: &Head,
    reader: &mut Reader,
    connection: &Activity,
) -> Result<(), Refused> {
    let refused = |refusal| Refused::new(Some(source), refusal);
    let Head {
        method,
        target,
        headers,
    } = head;
    let request = Signed {
        method,
        target,
        headers,
        body: &[],
        public_url: source.public_url.as_deref(),
        at: bridge.process().clock().now(),
    };
    // A body that is too long for a handshake is not one. An undeclared length shows as the body arrives.
    let check = |length: usize| match may_be_open_handshake(source, length) {
        true => Ok(false),
        false => verify_head(source, &request)
            .map(|()| true)
            .map_err(|refusal| Refused {
                is_unread: true,
                ..refused(refusal)
            }),
    };
    let mut is_checked = check(reader.declared.unwrap_or_default())?;
    let http = &bridge.config().http;
    let peer = client_address(connection.peer(), headers, &http.trusted_proxies);
    let unverified = bridge.permits().unverified();
    let arriving = unverified.enter(source.index, peer, source.max_body);
    let started = Instant::now();
    loop {
        if !is_checked {
            is_checked = check(reader.length)?;
        }
        arriving.holds(reader.held());
        let limit = http.body_timeout.min(time_allowed(reader.length));
        let read = tokio::select! {
            biased;
            () = arriving.ended() => Err(Refusal::Overloaded),
            read = tokio::time::timeout_at(started + limit, reader.read_frame()) => {
                read.unwrap_or(Err(Refusal::RequestTimeout { limit: http.body_timeout }))
            }
        };
        if read.map_err(refused)? {
            return Ok(());
        }
    }
}

/// Whether the body is to be decompressed.
pub(super) fn is_compressed(source: &Source, headers: &HeaderMap) -> bool {
    source.accept_gzip && Coding::of(headers) == Coding::Gzip
}

/// Decompresses a body: signature and published message concern the uncompressed bytes. A head that already shows a
/// forgery saves the work.
#[cold]
fn decompress_body(
    source: &Source,
    head: &Head,
    body: &Bytes,
    at: SystemTime,
) -> Result<Bytes, Refusal> {
    let request = Signed {
        method: &head.method,
        target: &head.target,
        headers: &head.headers,
        body: &[],
        public_url: source.public_url.as_deref(),
        at,
    };
    verify_head(source, &request)?;
    decompress(body, source.max_body)
}

/// The time allowed for a body of which `bytes` have arrived.
fn time_allowed(bytes: usize) -> Duration {
    let seconds = u32::try_from(bytes).unwrap_or(u32::MAX) / MIN_RATE;
    RATE_GRACE + Duration::from_secs(seconds.into())
}

/// Refuses requests that HTTP forbids (RFC 9112 section 3.2, RFC 9113 section 8.3.1) but hyper accepts.
fn check_message(request: &Request<Incoming>, connection: &Activity) -> Result<(), Refusal> {
    let bad = |detail| Err(Refusal::BadRequest(detail));
    let headers = request.headers();
    let host = host_of(headers)?;
    let version = request.version();
    let uri = request.uri();
    match (host, uri.authority()) {
        (Some(_), None) => {}
        (None, None) if version == Version::HTTP_10 => {}
        (None, None) => return bad("the Host header is missing"),
        (None, Some(_)) if version != Version::HTTP_11 => {}
        (None, Some(_)) => return bad("the Host header is missing"),
        (Some(host), Some(authority)) => {
            if !is_same_host(host, authority.as_str().as_bytes(), uri.scheme_str()) {
                return bad("the request target names another host than the Host header");
            }
        }
    }
    if connection.take_fragment() {
        return bad("the request target has a fragment");
    }
    // A known length means that there is no transfer coding.
    if version != Version::HTTP_2 && request.body().size_hint().exact().is_none() {
        check_transfer_coding(headers)?;
    }
    Ok(())
}

/// The same, for `explain`, which knows neither a connection nor a version.
pub(super) fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    host_of(headers)?;
    check_transfer_coding(headers)
}

/// The value of the one Host header, if there is one.
fn host_of(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("there is more than one Host header"));
    }
    match host {
        Some(host) if !is_host(host) => Err(Refusal::BadRequest(
            "the Host header is not a host with an optional port",
        )),
        host => Ok(host),
    }
}

fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let is_chunked = coding.is_none_or(|coding| {
        coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    });
    if is_chunked && codings.next().is_none() {
        Ok(())
    } else {
        Err(Refusal::BadRequest(
            "the only transfer coding is `chunked`, once",
        ))
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2); may be empty.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = split_port(value);
    let is_literal = |inner: &[u8]| {
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'v');
        !inner.is_empty() && inner.iter().all(is_part)
    };
    // Unreserved characters, percent-encoded ones and sub-delimiters except the comma, which joins repeated headers.
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let bracketed = host.strip_prefix(b"[");
    port.iter().all(u8::is_ascii_digit)
        && port.len() <= 5
        && match bracketed {
            Some(inner) => inner.strip_suffix(b"]").is_some_and(is_literal),
            None => host.iter().all(is_name),
        }
}

/// A host, and its port without the colon.
fn split_port(value: &[u8]) -> (&[u8], &[u8]) {
    let colon = value.iter().rposition(|byte| *byte == b':');
    let bracket = value.iter().rposition(|byte| *byte == b']');
    match colon.and_then(|colon| value.split_at_checked(colon)) {
        Some((host, port)) if colon > bracket => (host, port.strip_prefix(b":").unwrap_or(port)),
        _ => (value, b""),
    }
}

fn is_same_host(host: &[u8], authority: &[u8], scheme: Option<&str>) -> bool {
    let default_port: &[u8] = match scheme {
        Some("http") => b"80",
        Some("https") => b"443",
        // Not an HTTP scheme.
        Some(_) => return false,
        None => b"",
    };
    let (host, port) = split_port(host);
    let (other_host, other_port) = split_port(authority);
    let or_default = |port| if port == b"" { default_port } else { port };
    host.eq_ignore_ascii_case(other_host) && or_default(port) == or_default(other_port)
}

/// Paths are compared as sent: no decoding, normalization or case folding.
fn find_source(bridge: &Bridge, request: &Request<Incoming>) -> Result<Arc<Source>, Refused> {
    let path = request.uri().path();
    bridge.source_at(path).ok_or_else(|| {
        // `CONNECT host` and `OPTIONS *` have no path.
        let is_path = !matches!(path, "" | "*");
        let refusal = if is_path {
            Refusal::UnknownPath
        } else {
            Refusal::MethodNotAllowed {
                allow: "POST".into(),
            }
        };
        Refused::new(None, refusal)
    })
}

/// Checks on the head that `hookbridge explain` runs too. Returns the body's length as far as it is known.
pub(crate) fn check_head(
    source: &Source,
    method: &Method,
    headers: &HeaderMap,
    declared: Option<u64>,
) -> Result<usize, Refusal> {
    if *method != Method::POST {
        return Err(Refusal::MethodNotAllowed {
            allow: source.methods.clone().into(),
        });
    }
    let limit_bytes = source.max_body;
    let declared = match declared.map(usize::try_from) {
        Some(Ok(declared)) if declared <= limit_bytes => declared,
        Some(_) => return Err(Refusal::BodyTooLarge { limit_bytes }),
        None => 0,
    };
    check_content_type(source, headers)?;
    Ok(declared)
}

fn check_content_type(source: &Source, headers: &HeaderMap) -> Result<(), Refusal> {
    let accepted = &source.media_types;
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (lines.next(), lines.next());
    // Case and parameters do not matter (RFC 9110 section 8.3.1).
    let media_type = first
        .and_then(|line| line.to_str().ok())
        .and_then(|line| line.split(';').next())
        .unwrap_or_default()
        .trim();
    // With two content types, readers could disagree on which one counts.
    let is_accepted = second.is_none()
        && accepted
            .iter()
            .any(|accepted| accepted == "*/*" || media_type.eq_ignore_ascii_case(accepted));
    if !is_accepted {
        let reason = match second {
            Some(_) => "there is more than one content type".into(),
            None => format!("the content type must be {}", accepted.join(" or ")).into(),
        };
        return Err(Refusal::UnsupportedMediaType(reason));
    }
    source.mapping.mode(media_type)?;
    let accepted = match Coding::of(headers) {
        Coding::Gzip if source.accept_gzip => return Ok(()),
        Coding::Identity => return Ok(()),
        Coding::Gzip => "identity",
        Coding::Other if source.accept_gzip => "gzip",
        Coding::Other => "identity",
    };
    Err(Refusal::UnsupportedCoding { accepted })
}

/// Reads and drops a small body. Returns whether that was all of it.
#[cold]
async fn drain_body(mut body: Incoming) -> bool {
    if body
        .size_hint()
        .exact()
        .is_none_or(|bytes| bytes > SMALL_BODY)
    {
        return false;
    }
    let reading = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    // Boxed because it is large and rare.
    let read = Box::pin(tokio::time::timeout(SMALL_BODY_TIMEOUT, reading)).await;
    read.unwrap_or(false)
}

/// Reads a body of at most `limit_bytes`. A body that came in one piece is not copied.
struct Reader {
    body: Incoming,
    limit_bytes: usize,
    declared: Option<usize>,
    first: Option<Bytes>,
    whole: Vec<u8>,
    /// Bytes received so far.
    length: usize,
}

impl Reader {
    fn new(body: Incoming, limit_bytes: usize) -> Self {
        let declared = body.size_hint().exact();
        Self {
            declared: declared.and_then(|declared| usize::try_from(declared).ok()),
            body,
            limit_bytes,
            first: None,
            whole: Vec::new(),
            length: 0,
        }
    }

    async fn read_to_end(&mut self) -> Result<(), Refusal> {
        while !self.read_frame().await? {}
        Ok(())
    }

    /// Reads one frame; true at the end. Cancellation-safe.
    async fn read_frame(&mut self) -> Result<bool, Refusal> {
        let Some(frame) = self.body.frame().await else {
            return Ok(true);
        };
        // Trailers have no meaning here.
        let Ok(data) = frame.map_err(|_| Refusal::BrokenOff)?.into_data() else {
            return Ok(false);
        };
        let length = self.length.saturating_add(data.len());
        if length > self.limit_bytes {
            return Err(Refusal::BodyTooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        self.length = length;
        if self.first.is_none() && self.whole.is_empty() {
            self.first = Some(data);
            return Ok(false);
        }
        if self.whole.capacity() < length {
            let wanted = capacity_for(length, self.declared, self.limit_bytes);
            self.whole.reserve_exact(wanted - self.whole.len());
        }
        if let Some(first) = self.first.take() {
            self.whole.extend_from_slice(&first);
        }
        self.whole.extend_from_slice(&data);
        Ok(false)
    }

    /// Bytes allocated for the body at present.
    fn held(&self) -> usize {
        self.whole.capacity().max(self.length)
    }

    fn into_body(self) -> Bytes {
        self.first
            .unwrap_or_else(|| Bytes::from(self.whole.into_boxed_slice()))
    }
}

/// The capacity to reserve once `length` bytes have arrived: never more than a small multiple of them, whatever the
/// head declares. With a declared length the multiple is larger, since reallocation then ends at that length.
fn capacity_for(length: usize, declared: Option<usize>, limit_bytes: usize) -> usize {
    let wanted = match declared {
        Some(declared) => length.saturating_mul(4).min(declared),
        None => length.saturating_mul(2),
    };
    wanted.min(limit_bytes).max(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "",
            "x",
            "hooks.example.com",
            "hooks.example.com:8080",
            "127.0.0.1:1",
            "[::1]",
            "[2001:db8::1]:443",
            "a_b",
            "x:",
            "%C3%A9",
        ] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b", "a,b", "a/b", "user@x", "x:y", "x:123456", "::1", "[::1", "[]", "[g::]", "a\"b",
            "x#y", "\u{e9}", "x:1:2",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_the_same_without_case_and_with_their_default_ports() {
        let same = |host: &str, authority: &str, scheme| {
            is_same_host(host.as_bytes(), authority.as_bytes(), scheme)
        };
        assert!(same("Hooks.example.com", "hooks.EXAMPLE.com", Some("http")));
        assert!(same("x", "x:80", Some("http")) && same("x:443", "x", Some("https")));
        assert!(!same("x", "y", Some("http")) && !same("x", "x:8080", Some("http")));
        assert!(!same("x", "user@x", Some("http")) && !same("x", "x", Some("ftp")));
    }

    #[cfg(all(feature = "kafka", feature = "nats"))]
    #[test]
    fn a_verified_handshake_without_a_body_has_no_time_in_its_body() {
        use http::{HeaderName, HeaderValue};
        let text = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[[routes]]
topic = "t"
[sources.acme]
secrets = ["a secret of ours"]
event = { id = "{/id}", type = "{/type}" }
[[sources.acme.verify]]
algorithm = "token"
signature = { header = "x-a", encoding = "text" }
content = ""
timestamp = { pointer = "/ts" }
tolerance = "5m"
[[sources.acme.verify]]
algorithm = "token"
signature = { header = "x-b", encoding = "text" }
content = ""
[[sources.acme.handshakes]]
method = "GET"
query = "challenge"
verified = true
answer = "{query:challenge}"
"#;
        let config = crate::config::Config::from_text(text);
        let answered = |header: &'static str| {
            let name = HeaderName::from_static(header);
            let value = HeaderValue::from_static("a secret of ours");
            let request = Signed {
                method: &Method::GET,
                target: &http::Uri::from_static("/hooks/acme?challenge=1"),
                headers: &HeaderMap::from_iter([(name, value)]),
                body: &[],
                public_url: None,
                at: SystemTime::UNIX_EPOCH,
            };
            let reply = head_handshake(&config.sources[0], &request).unwrap();
            reply.map(|reply| reply.body)
        };
        assert_eq!(answered("x-a"), Err(Refusal::MissingSignature));
        assert_eq!(answered("x-b"), Ok(b"1".to_vec()));
    }

    #[test]
    fn a_body_must_arrive_at_a_kibibyte_per_second_after_the_grace_period() {
        assert_eq!(time_allowed(0), RATE_GRACE);
        assert_eq!(
            time_allowed(10 * 1024),
            RATE_GRACE + Duration::from_secs(10)
        );
    }

    #[test]
    fn memory_reserved_for_a_body_follows_the_bytes_received() {
        let mib = 1024 * 1024;
        assert_eq!(capacity_for(100, Some(mib), mib), 400);
        assert_eq!(capacity_for(mib / 2, Some(mib), mib), mib);
        assert_eq!(capacity_for(100, None, mib), 200);
        assert_eq!(capacity_for(mib - 1, None, mib), mib);
    }
}
