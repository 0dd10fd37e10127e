//! The event sent to every server: a signed SYNQ `issue_created` of about 2 KB, and as many different ones as needed.
//! `--sweep bodies` also sends shorter and longer ones.
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

/// The secret of all events.
pub(crate) const SECRET: &str = "whs_bench_7f3a1c";

/// The source.
pub(crate) const SOURCE: &str = "synq";

/// The path of the source.
pub(crate) const PATH: &str = "/hooks/synq";

/// The placeholder for an event's id in the template.
const PLACE: &str = "00000000-0000-4000-8000-000000000000";

/// The shape of the events of a run: a body with two places for an id.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The body around the places.
    around: [String; 3],
}

static ISSUE: LazyLock<Shape> = LazyLock::new(Shape::issue);

static KEY: LazyLock<Option<Hmac<Sha256>>> =
    LazyLock::new(|| Hmac::new_from_slice(SECRET.as_bytes()).ok());

/// A body's length, in bytes.
pub(crate) fn body_bytes() -> usize {
    ISSUE.bytes()
}

/// The id of the event with this number.
fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// The body of the event with this number.
pub(crate) fn body(number: u64) -> Vec<u8> {
    ISSUE.body(number)
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

/// The whole request of the event with this number.
pub(crate) fn request(number: u64, timestamp: &str) -> Vec<u8> {
    let body = body(number);
    let mut request = ISSUE.head(timestamp).into_bytes();
    request.extend_from_slice(signature(timestamp, &body).as_bytes());
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(&body);
    request
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut parts = text.split(PLACE);
        Self {
            around: [(); 3].map(|()| parts.next().unwrap_or_default().to_owned()),
        }
    }

    /// The event of every other run.
    pub(crate) fn issue() -> Self {
        Self::of(include_str!("issue_created.json").trim_end())
    }

    /// The smallest event that SYNQ sends.
    pub(crate) fn ping() -> Self {
        Self::of(&format!(
            "{{\"workspace\":\"northwind\",\"event_id\":\"{PLACE}\",\"event_time\":\"2026-09-14T03:42:21.307Z\",\
             \"event_type\":\"EVENT_TYPE_PING\",\"ping\":{{\"message\":\"{PLACE}\"}}}}"
        ))
    }

    /// An issue of this many bytes, padded with affected entities, which the schema covers.
    pub(crate) fn issue_of(bytes: usize) -> Self {
        const LIST: &str = "\"directly_affected_entities\":[";
        let issue = include_str!("issue_created.json").trim_end();
        let mut missing = bytes.saturating_sub(issue.len());
        let mut entities = String::new();
        for number in 0_u32.. {
            let entity = |folder: &str| {
                format!(
                    "{{\"name\":\"FCT_SHIPMENTS_{number:04}\",\"type_name\":\"Snowflake table\",\"identifier\":\
                     {{\"snowflake_table\":{{\"account\":\"nw-eu1\",\"database\":\"ANALYTICS\",\
                     \"table\":\"FCT_SHIPMENTS_{number:04}\"}}}},\"folder\":\"{folder}\"}},"
                )
            };
            let shortest = entity("").len();
            if missing < 2 * shortest {
                entities.push_str(&entity(&"x".repeat(missing.saturating_sub(shortest))));
                break;
            }
            entities.push_str(&entity(""));
            missing -= shortest;
        }
        Self::of(&issue.replacen(LIST, &format!("{LIST}{entities}"), 1))
    }

    /// A body's length, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.around.iter().map(String::len).sum::<usize>() + 2 * PLACE.len()
    }

    fn body(&self, number: u64) -> Vec<u8> {
        self.around.join(&id(number)).into_bytes()
    }

    /// A request up to its signature.
    fn head(&self, timestamp: &str) -> String {
        let length = self.bytes();
        format!(
            "POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: hookbridge-bench\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nX-Coalesce-Timestamp: {timestamp}\r\nX-Coalesce-Signature: v1="
        )
    }

    /// Writes the input of `wrk.lua` for the requests of this many events: their common parts, and each one's id and
    /// signature.
    pub(crate) fn write_pool(&self, folder: &Path, first: u64, count: u64) -> Outcome<()> {
        let timestamp = timestamp();
        let [before, between, after] = &self.around;
        let texts = [
            ("head", self.head(&timestamp)),
            ("before", format!("\r\n\r\n{before}")),
            ("between", between.clone()),
            ("after", after.clone()),
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
                signature(&timestamp, &self.body(number))
            )?;
        }
        std::fs::write(folder.join("pool"), pool)?;
        Ok(())
    }
}
