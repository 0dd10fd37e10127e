//! The event that every server is sent: a signed SYNQ `issue_created` of about 2 KB, and as many different ones as needed.
//!
//! They differ in `event_id` and `issue_id` alone. Two events with one id would be two deliveries of one event: JetStream
//! and the bridge's duplicates window would drop the second, and the run would measure that.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::Outcome;

/// What the events are signed with.
pub(crate) const SECRET: &str = "whs_bench_7f3a1c";

/// The path of the source.
pub(crate) const PATH: &str = "/hooks/synq";

/// Stands in the template where an event has its own id.
const PLACE: &str = "00000000-0000-4000-8000-000000000000";

/// The body around the two places of its id.
static AROUND: LazyLock<[&str; 3]> = LazyLock::new(|| {
    let mut parts = include_str!("issue_created.json").trim_end().split(PLACE);
    [(); 3].map(|()| parts.next().unwrap_or_default())
});

static KEY: LazyLock<Option<Hmac<Sha256>>> =
    LazyLock::new(|| Hmac::new_from_slice(SECRET.as_bytes()).ok());

/// A body's length, in bytes.
pub(crate) fn body_bytes() -> usize {
    AROUND.iter().map(|part| part.len()).sum::<usize>() + 2 * PLACE.len()
}

/// The id of the event with this number.
fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// The body of the event with this number.
pub(crate) fn body(number: u64) -> Vec<u8> {
    AROUND.join(&id(number)).into_bytes()
}

/// Whether the signature, in hexadecimal digits, is that of the body.
pub(crate) fn is_signed(timestamp: &[u8], body: &[u8], signature: &[u8]) -> bool {
    let sent = data_encoding::HEXLOWER.decode(signature);
    sent.is_ok_and(|sent| {
        digest(timestamp, body).is_some_and(|hmac| hmac.verify_slice(&sent).is_ok())
    })
}

fn digest(timestamp: &[u8], body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut hmac = KEY.as_ref()?.clone();
    for part in [timestamp, b".", body] {
        hmac.update(part);
    }
    Some(hmac)
}

/// `X-Coalesce-Signature`'s digits.
pub(crate) fn signature(timestamp: &str, body: &[u8]) -> String {
    digest(timestamp.as_bytes(), body)
        .map(|hmac| data_encoding::HEXLOWER.encode(&hmac.finalize().into_bytes()))
        .unwrap_or_default()
}

/// Now, as it is signed.
pub(crate) fn timestamp() -> String {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs().to_string()
}

/// A request up to its signature.
fn head(timestamp: &str) -> String {
    let length = body_bytes();
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: hookbridge-bench\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nX-Coalesce-Timestamp: {timestamp}\r\nX-Coalesce-Signature: v1="
    )
}

/// The whole request of the event with this number.
pub(crate) fn request(number: u64, timestamp: &str) -> Vec<u8> {
    let body = body(number);
    let mut request = head(timestamp).into_bytes();
    request.extend_from_slice(signature(timestamp, &body).as_bytes());
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(&body);
    request
}

/// Writes what `wrk.lua` makes the requests of so many events of: the texts that they have in common, and each one's id
/// and signature.
pub(crate) fn write_pool(folder: &Path, first: u64, count: u64) -> Outcome<()> {
    let timestamp = timestamp();
    let [before, between, after] = *AROUND;
    let texts = [
        ("head", head(&timestamp)),
        ("before", format!("\r\n\r\n{before}")),
        ("between", between.to_owned()),
        ("after", after.to_owned()),
    ];
    for (name, text) in texts {
        std::fs::write(folder.join(name), text)?;
    }
    let mut pool = String::new();
    for number in first..first + count {
        write!(
            pool,
            "{}{}",
            id(number),
            signature(&timestamp, &body(number))
        )?;
    }
    std::fs::write(folder.join("pool"), pool)?;
    Ok(())
}
