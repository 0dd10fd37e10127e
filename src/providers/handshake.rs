//! Requests that are answered and never published: a provider's check that the address belongs to whoever configured it.

use http::{HeaderValue, Method, StatusCode};

use super::keys::Key;
use super::request::{Ambiguous, Scope};
use super::text::Text;
use crate::json::Pointer;

/// What makes a request a handshake, and how it is answered.
#[derive(Debug)]
pub struct Handshake {
    /// Its method.
    pub method: Method,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// There must not be anything at these pointers.
    pub absent: Vec<Pointer>,
    /// Whether it must be signed as an event is.
    pub verified: bool,
    /// The answer.
    pub answer: Answer,
}

/// A condition on a request.
#[derive(Debug)]
pub struct Condition {
    /// This must be there.
    pub text: Text,
    /// And have this value.
    pub equals: Option<String>,
}

/// The answer to a handshake.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type of the body.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
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
    /// A number.
    Number(u64),
    /// The lower-case hexadecimal HMAC of the value at a pointer, by the key that verified the request. A value that could
    /// be the signed content of an event is refused: otherwise the answer would sign events for whoever asks.
    Hmac(Pointer),
}

/// The longest value that is echoed, in bytes.
const MAX_ECHO_BYTES: usize = 4096;

/// A handshake's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The media type.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Vec<u8>,
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
        for Condition { text, equals } in &self.conditions {
            let found = text.fill(scope)?;
            let holds = match (&found, equals) {
                (Some(found), Some(wanted)) => found == wanted,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !holds {
                return Ok(false);
            }
        }
        let is_there = |pointer| scope.node.is_some_and(|node| node.at(pointer).is_some());
        Ok(!self.absent.iter().any(is_there))
    }

    /// Whether telling it apart needs the body to be parsed.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        let mut conditions = self.conditions.iter();
        !self.absent.is_empty() || conditions.any(|condition| condition.text.needs_content())
    }

    /// Whether only the body gives it away, although its provider does not sign it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.verified && self.method == Method::POST && self.needs_content()
    }

    /// The answer without its body, where no secret is at hand.
    #[must_use]
    pub fn unsigned_reply(&self) -> Reply {
        Reply {
            status: self.answer.status,
            content_type: self.answer.content_type.clone(),
            body: Vec::new(),
        }
    }

    /// The answer. None where a value that it needs is missing, too long or unsafe to sign.
    ///
    /// # Errors
    /// [`Ambiguous`] where a field that it reads occurs twice.
    pub fn reply(&self, scope: &Scope<'_>, key: Option<&Key>) -> Result<Option<Reply>, Ambiguous> {
        let Answer {
            status,
            content_type,
            body,
        } = &self.answer;
        let fill = |text: &Text| {
            Ok(text
                .fill(scope)?
                .filter(|text| text.len() <= MAX_ECHO_BYTES))
        };
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
            body,
        }))
    }
}
