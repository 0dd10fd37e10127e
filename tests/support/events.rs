//! Events as SYNQ sends them, its signature, and the reference samples.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::process;

/// SYNQ's event types.
pub(crate) const TYPES: [&str; 8] = [
    "ping",
    "issue_created",
    "issue_updated",
    "issue_status_updated",
    "issue_closed",
    "incident_open",
    "incident_closed",
    "incident_cancelled",
];

/// The signing secret that tests configure.
pub(crate) const SECRET: &str = "whs_e2e_4d1f0c9b7a";

/// An event and its attributes.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
}

impl Event {
    fn new(id: &str, event: &Value) -> Self {
        Self {
            id: id.to_owned(),
            body: event.to_string().into_bytes(),
        }
    }
}

/// A unique id.
pub(crate) fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{}-{}",
        uuid::Uuid::now_v7(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A ping: it has no subject.
pub(crate) fn ping() -> Event {
    let id = new_id();
    Event::new(
        &id,
        &json!({
            "workspace": "acme", "event_id": id, "event_time": "2026-11-20T06:15:04.5Z",
            "event_type": "EVENT_TYPE_PING", "ping": { "message": "Hello" },
        }),
    )
}

/// An event about an issue in the nested shape: `kind` is `created`, `updated`, `status_updated` or `closed`.
pub(crate) fn issue(kind: &str, issue: &str) -> Event {
    issue_in("acme", kind, issue)
}

/// [`issue`] of a given workspace.
pub(crate) fn issue_in(workspace: &str, kind: &str, issue: &str) -> Event {
    let id = new_id();
    Event::new(
        &id,
        &json!({
            "workspace": workspace, "event_id": id, "event_time": "2026-11-20T06:15:04.5Z",
            "event_type": format!("EVENT_TYPE_ISSUE_{}", kind.to_uppercase()),
            format!("issue_{kind}"): { "issue": { "issue_id": issue, "title": "unique_order_id failed" } },
        }),
    )
}

/// An event about an incident in the nested shape: `kind` is `open`, `closed` or `cancelled`.
pub(crate) fn incident(kind: &str, incident: &str) -> Event {
    let id = new_id();
    Event::new(
        &id,
        &json!({
            "workspace": "acme", "event_id": id, "event_time": "2026-11-20T06:15:04.5Z",
            "event_type": format!("EVENT_TYPE_INCIDENT_{}", kind.to_uppercase()),
            format!("incident_{kind}"): { "incident": { "incident_id": incident, "title": "Orders are late" } },
        }),
    )
}

/// An event of an unknown type.
pub(crate) fn of_type(name: &str) -> Event {
    let id = new_id();
    Event::new(
        &id,
        &json!({
            "workspace": "acme", "event_id": id, "event_time": "2026-11-20T06:15:04.5Z",
            "event_type": name, "something_new": {},
        }),
    )
}

/// A ping whose body is exactly `bytes` long.
pub(crate) fn ping_of_size(bytes: usize) -> Event {
    let id = new_id();
    let around =
        format!(r#"{{"event_id":"{id}","event_type":"EVENT_TYPE_PING","ping":{{"message":""}}}}"#);
    let filling = "x".repeat(
        bytes
            .checked_sub(around.len())
            .expect("a size above the least event's"),
    );
    let body = around
        .replace(r#""""#, &format!(r#""{filling}""#))
        .into_bytes();
    assert_eq!(body.len(), bytes, "the body's size");
    Event { id, body }
}

/// An event with this text as its body, in which `ID` is replaced by its id.
pub(crate) fn raw(body: &str) -> Event {
    let id = new_id();
    Event {
        body: body.replace("ID", &id).into_bytes(),
        id,
    }
}

/// SYNQ's signature headers for a body, at present.
pub(crate) fn signature(secret: &str, body: &[u8]) -> Vec<(String, String)> {
    signature_at(secret, body, SystemTime::now())
}

/// SYNQ's signature headers for a body at `time`.
pub(crate) fn signature_at(secret: &str, body: &[u8], time: SystemTime) -> Vec<(String, String)> {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
        .to_string();
    vec![
        ("X-Coalesce-Timestamp".to_owned(), seconds.clone()),
        (
            "X-Coalesce-Signature".to_owned(),
            signature_value(secret, &seconds, body),
        ),
    ]
}

/// `v1=` and the hex HMAC-SHA256 of timestamp, dot and body.
pub(crate) fn signature_value(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest
        .iter()
        .fold("v1=".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A file of the reference folder (HOOKBRIDGE_REFERENCE, or next to the repository); `None` if there is none.
pub(crate) fn reference(file: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("HOOKBRIDGE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"),
        PathBuf::from,
    );
    let path = folder.join(file);
    if !folder.is_dir() {
        process::skip(
            file,
            "is not here: set HOOKBRIDGE_REFERENCE to the reference folder",
        );
        return None;
    }
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
