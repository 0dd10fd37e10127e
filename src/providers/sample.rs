//! Sample events of presets.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;

use crate::event::EventId;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The type that the bridge gives it.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Headers other than those of the signature. `{uuid}` and `{number}` are replaced by an id, `{milliseconds}` by
    /// the Unix time.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body, with the same placeholders.
    pub body: String,
}

impl Sample {
    /// The event with fresh ids, as if sent at this time.
    #[must_use]
    pub fn fresh(&self, at: SystemTime) -> Self {
        let (id, (_, random)) = (EventId::generate(at), uuid::Uuid::new_v4().as_u64_pair());
        // A number that every JSON reader accepts.
        let number = random % (1 << 53);
        let since_epoch = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let fill = |text: &String| {
            text.replace("{uuid}", id.as_str())
                .replace("{number}", &number.to_string())
                .replace("{milliseconds}", &since_epoch.as_millis().to_string())
        };
        let headers = self.headers.iter();
        Self {
            event_type: self.event_type.clone(),
            headers: headers
                .map(|(name, value)| (name.clone(), fill(value)))
                .collect(),
            body: fill(&self.body),
        }
    }
}
