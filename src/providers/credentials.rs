//! Alternatives to a signature for providers that do not sign bodies: a secret in a header, in the query or in each
//! event, or a token.

use data_encoding::BASE64;
use http::HeaderName;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use super::jwt::Jwt;
use super::request::{Request, after_scheme};
use super::scheme::Unverified;
use crate::json::Pointer;
use crate::secret::Secret;

/// The place of a secret in a request.
#[derive(Debug)]
pub enum Credential {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617); the secret is `user:password`.
    Basic,
    /// The value of a header field.
    Header(HeaderName),
    /// A parameter of the query.
    Query(String),
    /// A string in every event of the request.
    Event(Member),
    /// A JSON Web Token (RFC 7519) in `Authorization`.
    Jwt(Jwt),
    /// No check.
    None,
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer => f.write_str("a bearer token in the header authorization"),
            Self::Basic => f.write_str("user and password in the header authorization"),
            Self::Header(name) => write!(f, "a secret in the header {name}"),
            Self::Query(name) => write!(f, "a secret in the parameter {name} of the query"),
            Self::Event(member) => {
                write!(f, "a secret in each event, at {}", member.pointer.as_str())
            }
            Self::Jwt(_) => f.write_str("a JSON Web Token in the header authorization"),
            Self::None => f.write_str("nothing: anyone who can reach the path may send"),
        }
    }
}

/// A string in each event.
#[derive(Debug)]
pub struct Member {
    /// Its location in an event.
    pub pointer: Pointer,
    /// The location of the array of events in the body, as configured.
    pub split: Option<String>,
    /// The tokens that the body must contain as well if events have encrypted contents.
    pub tokens: Option<Jwt>,
}

/// A mistake in `auth`, with the correction.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// An invalid header name.
    #[error("\"{}\" is not a valid header name", .0.escape_debug())]
    Header(String),
    /// An invalid JSON Pointer, and the rule that it violates.
    #[error("\"{}\": {}", .0.escape_debug(), .1)]
    Pointer(String, &'static str),
    /// Neither of the ways.
    #[error(
        "\"{}\" is not a way to authenticate; write \"bearer\", \"basic\", \"header:NAME\", \"query:NAME\", \"event:/POINTER\", \"jwt\" or \"none\", or remove `auth` where the provider signs its requests",
        .0.escape_debug()
    )]
    Unknown(String),
}

impl Credential {
    /// Parses the configured value, except for `jwt`, which has its own settings.
    ///
    /// # Errors
    /// The mistake.
    pub fn parse(word: &str) -> Result<Self, CredentialError> {
        match word.split_once(':') {
            None if word == "bearer" => Ok(Self::Bearer),
            None if word == "basic" => Ok(Self::Basic),
            None if word == "none" => Ok(Self::None),
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| CredentialError::Header(name.to_owned())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("event", pointer)) if !pointer.is_empty() => Pointer::parse(pointer)
                .map(|pointer| {
                    Self::Event(Member {
                        pointer,
                        split: None,
                        tokens: None,
                    })
                })
                .map_err(|rule| CredentialError::Pointer(pointer.to_owned(), rule)),
            _ => Err(CredentialError::Unknown(word.to_owned())),
        }
    }

    /// Whether nothing is checked.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether each event must have it.
    #[must_use]
    pub const fn is_in_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// Whether it compares with a secret of the source.
    #[must_use]
    pub fn needs_secret(&self) -> bool {
        match self {
            Self::Jwt(jwt) => !jwt.has_key_file(),
            Self::None => false,
            Self::Bearer | Self::Basic | Self::Header(_) | Self::Query(_) | Self::Event(_) => true,
        }
    }

    /// The header that carries the secret.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Bearer | Self::Basic | Self::Jwt(_) => Some(&AUTHORIZATION),
            Self::Query(_) | Self::Event(_) | Self::None => None,
        }
    }

    /// How a 401 asks for it, where HTTP has a scheme for that.
    #[must_use]
    pub const fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Basic => Some("Basic realm=\"hookbridge\""),
            Self::Bearer | Self::Jwt(_) => Some("Bearer realm=\"hookbridge\""),
            Self::Header(_) | Self::Query(_) | Self::Event(_) | Self::None => None,
        }
    }

    /// Returns the index of the secret that a request carries. Secrets inside events are not covered: see
    /// [`Authentication::verify_events`](super::Authentication::verify_events).
    ///
    /// # Errors
    /// [`Unverified::Unauthorized`] if it carries none; for a token, the reason why it is invalid.
    pub fn verify(
        &self,
        request: &Request<'_>,
        secrets: &[Secret],
    ) -> Result<Option<usize>, Unverified> {
        let unauthorized = |_| Unverified::Unauthorized;
        let presented = match self {
            Self::None => return Ok(None),
            Self::Jwt(jwt) => return jwt.verify(request),
            Self::Bearer => {
                let value = request.header(&[AUTHORIZATION]).map_err(unauthorized)?;
                value
                    .and_then(|value| after_scheme(value, "bearer"))
                    .map(<[u8]>::to_vec)
            }
            Self::Basic => {
                let value = request.header(&[AUTHORIZATION]).map_err(unauthorized)?;
                let encoded = value.and_then(|value| after_scheme(value, "basic"));
                encoded.and_then(|encoded| BASE64.decode(encoded).ok())
            }
            Self::Header(name) => {
                let value = request
                    .header(std::slice::from_ref(name))
                    .map_err(unauthorized)?;
                value.map(<[u8]>::to_vec)
            }
            Self::Query(name) => request
                .query(name)
                .map_err(unauthorized)?
                .map(std::borrow::Cow::into_owned),
            Self::Event(_) => None,
        };
        let presented = presented.ok_or(Unverified::Unauthorized)?;
        let matching = matching(secrets, &presented);
        matching.map(Some).ok_or(Unverified::Unauthorized)
    }
}

/// The index of the secret that equals the presented one.
pub(super) fn matching(secrets: &[Secret], presented: &[u8]) -> Option<usize> {
    // Every secret is compared, so that timing does not reveal which one matches.
    let secrets = secrets.iter().enumerate();
    secrets.fold(None, |found, (index, secret)| {
        let is_equal = bool::from(secret.expose().as_bytes().ct_eq(presented));
        found.or(is_equal.then_some(index))
    })
}
