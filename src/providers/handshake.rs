//! Requests that are answered and never published: a provider's check that the address belongs to its customer.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::keys::Key;
use super::outbound::{self, Budget};
use super::request::{Ambiguous, Scope};
use super::text::{Parsing, Text};
use crate::event::Refusal;
use crate::json::Pointer;

/// The conditions of a handshake, and its answer.
#[derive(Debug)]
pub struct Handshake {
    pub method: Method,
    /// Conditions that must all hold.
    pub conditions: Vec<Condition>,
    /// Pointers that must be absent.
    pub absent: Vec<Pointer>,
    /// Whether it must be verified like an event.
    pub verified: bool,
    pub answer: Answer,
}

/// A condition on a request.
#[derive(Debug)]
pub struct Condition {
    /// The location of the value.
    pub text: Text,
    /// The allowed values.
    pub wanted: Wanted,
}

/// The values that a condition allows.
#[derive(Debug)]
pub enum Wanted {
    Any,
    /// This value.
    Equal(String),
    /// One of these host names, compared without case; `*` matches any.
    Host(Vec<String>),
}

impl Wanted {
    fn allows(&self, found: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Equal(wanted) => wanted == found,
            Self::Host(names) => names
                .iter()
                .any(|name| name == "*" || name.eq_ignore_ascii_case(found)),
        }
    }
}

/// The answer to a handshake.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: Option<HeaderValue>,
    /// Additional headers.
    pub headers: Vec<(HeaderName, Text)>,
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    Empty,
    /// A filled template.
    Text(Text),
    /// A JSON object with these members, each a string.
    Json(Vec<(String, JsonValue)>),
}

/// A member of a JSON answer.
#[derive(Debug)]
pub enum JsonValue {
    /// A filled template.
    Text(Text),
    Number(u64),
    /// The lower-case hexadecimal HMAC of the value at a pointer, with the key that verified the request. A value that
    /// could be the signed content of an event is refused; otherwise anyone could have events signed.
    Hmac(Pointer),
}

/// The maximum size of an echoed value in bytes.
const MAX_ECHO_BYTES: usize = 4096;

/// A handshake's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    /// Additional headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
    /// An action to perform before answering.
    pub follow_up: Option<FollowUp>,
}

/// An action that a provider demands before its handshake is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// The log message on success.
    pub report: String,
    /// The URL to fetch. The caller has checked its owner and that the operator allows it.
    pub get: Option<String>,
}

/// Limits the rate of follow-ups: their requests are verified, but can be replayed.
static FOLLOW_UPS: Budget = Budget::new(60, Duration::from_secs(1));

impl FollowUp {
    /// Performs the action.
    ///
    /// # Errors
    /// It failed. The provider should try again.
    pub async fn run(self) -> Result<(), Refusal> {
        let failed = Refusal::ProviderUnavailable {
            cause: "the action that the handshake asks for failed",
        };
        let is_allowed = FOLLOW_UPS.take();
        let Some(url) = self.get else {
            if is_allowed {
                tracing::warn!("{}", self.report);
            }
            return Ok(());
        };
        if !is_allowed {
            outbound::note_refused();
            return Err(failed);
        }
        if let Err(error) = outbound::get(&url).await {
            tracing::warn!(%error, "a handshake's URL can't be fetched; the provider is asked to resend the handshake");
            return Err(failed);
        }
        tracing::info!("{}", self.report);
        Ok(())
    }
}

impl Handshake {
    /// Whether a request is this handshake.
    ///
    /// # Errors
    /// [`Ambiguous`] where a field that it reads occurs twice.
    pub fn matches(&self, scope: &Scope<'_>) -> Result<bool, Ambiguous> {
        if *scope.request.method != self.method {
            return Ok(false);
        }
        for Condition { text, wanted } in &self.conditions {
            let found = text.fill(scope)?;
            if !found.is_some_and(|found| wanted.allows(&found)) {
                return Ok(false);
            }
        }
        let is_there = |pointer| scope.node.is_some_and(|node| node.at(pointer).is_some());
        Ok(!self.absent.iter().any(is_there))
    }

    /// The parts of the body that must be parsed to recognize it.
    #[must_use]
    pub fn needs(&self) -> Parsing {
        let absent = Parsing {
            form: false,
            json: !self.absent.is_empty(),
        };
        let conditions = self.conditions.iter();
        let needs = conditions.map(|condition| condition.text.needs());
        needs.fold(absent, Parsing::or)
    }

    /// Whether the body must be parsed to recognize it.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        self.needs() != Parsing::default()
    }

    /// Whether it is recognized only by its body, although the provider does not sign it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.verified && self.method == Method::POST && self.needs_content()
    }

    /// Tells senders of CloudEvents the accepted requests per minute, if the answer has that header.
    pub fn allow_rate(&mut self, per_minute: u64) {
        for (name, value) in &mut self.answer.headers {
            if name == "webhook-allowed-rate" {
                *value = Text::plain(per_minute.to_string());
            }
        }
    }

    /// The answer without its body, for use without a secret.
    #[must_use]
    pub fn unsigned_reply(&self) -> Reply {
        Reply {
            status: self.answer.status,
            content_type: self.answer.content_type.clone(),
            headers: Vec::new(),
            body: Vec::new(),
            follow_up: None,
        }
    }

    /// The answer; `None` if a required value is missing, too long or unsafe to sign.
    ///
    /// # Errors
    /// [`Ambiguous`] where a field that it reads occurs twice.
    pub fn reply(&self, scope: &Scope<'_>, key: Option<&Key>) -> Result<Option<Reply>, Ambiguous> {
        let Answer {
            status,
            content_type,
            headers,
            body,
        } = &self.answer;
        let fill = |text: &Text| {
            Ok(text
                .fill(scope)?
                .filter(|text| text.len() <= MAX_ECHO_BYTES))
        };
        let mut filled = Vec::with_capacity(headers.len());
        for (name, text) in headers {
            let value = fill(text)?.and_then(|text| HeaderValue::from_str(&text).ok());
            match value {
                Some(value) => filled.push((name.clone(), value)),
                None => return Ok(None),
            }
        }
        let body = match body {
            Body::Empty => Vec::new(),
            Body::Text(text) => match fill(text)? {
                Some(text) => text.into_bytes(),
                None => return Ok(None),
            },
            Body::Json(members) => {
                let mut object = serde_json::Map::new();
                for (name, value) in members {
                    let value = match value {
                        JsonValue::Text(text) => fill(text)?.map(serde_json::Value::from),
                        JsonValue::Number(number) => Some((*number).into()),
                        JsonValue::Hmac(pointer) => scope.at(pointer).and_then(|text| {
                            let is_plain =
                                text.len() <= MAX_ECHO_BYTES && !text.contains([':', '{', '.']);
                            let digest = key?.digest(&[text.as_bytes().into()]);
                            is_plain
                                .then(|| data_encoding::HEXLOWER.encode(digest.as_slice()).into())
                        }),
                    };
                    match value {
                        Some(value) => object.insert(name.clone(), value),
                        None => return Ok(None),
                    };
                }
                serde_json::to_vec(&object).unwrap_or_default()
            }
        };
        Ok(Some(Reply {
            status: *status,
            content_type: content_type.clone(),
            headers: filled,
            body,
            follow_up: None,
        }))
    }
}
