//! What stands in for a signature where a provider signs nothing: a secret in a header or in the query.

use data_encoding::BASE64;
use http::HeaderName;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use super::request::Request;
use super::scheme::Unverified;
use crate::secret::Secret;

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617); the secret is `user:password`.
    Basic,
    /// The value of a header field.
    Header(HeaderName),
    /// A parameter of the query.
    Query(String),
    /// Nothing is checked.
    None,
}

impl std::fmt::Display for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer => f.write_str("a bearer token in the header authorization"),
            Self::Basic => f.write_str("user and password in the header authorization"),
            Self::Header(name) => write!(f, "a secret in the header {name}"),
            Self::Query(name) => write!(f, "a secret in the parameter {name} of the query"),
            Self::None => f.write_str("nothing: whoever reaches the path is let in"),
        }
    }
}

impl Credential {
    /// Reads the configuration's word.
    ///
    /// # Errors
    /// The mistake, and what to write instead.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            None if word == "bearer" => Ok(Self::Bearer),
            None if word == "basic" => Ok(Self::Basic),
            None if word == "none" => Ok(Self::None),
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| format!("\"{}\" is not a valid header name", name.escape_debug())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(format!(
                "\"{}\" is not a way to authenticate; write \"bearer\", \"basic\", \"header:NAME\", \"query:NAME\" or \"none\"",
                word.escape_debug()
            )),
        }
    }

    /// The header field that carries the secret.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Bearer | Self::Basic => Some(&AUTHORIZATION),
            Self::Query(_) | Self::None => None,
        }
    }

    /// Which of the secrets a request carries.
    ///
    /// # Errors
    /// [`Unverified::Unauthorized`] where it carries none of them.
    pub fn verify(
        &self,
        request: &Request<'_>,
        secrets: &[Secret],
    ) -> Result<Option<usize>, Unverified> {
        let unauthorized = |_| Unverified::Unauthorized;
        let presented = match self {
            Self::None => return Ok(None),
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
        };
        let presented = presented.ok_or(Unverified::Unauthorized)?;
        // Every secret is compared, so that the time does not tell which.
        let matching = secrets
            .iter()
            .enumerate()
            .fold(None, |found, (index, secret)| {
                let is_equal = bool::from(secret.expose().as_bytes().ct_eq(&presented));
                found.or(is_equal.then_some(index))
            });
        matching.map(Some).ok_or(Unverified::Unauthorized)
    }
}

/// The credentials after a scheme's name, whose case does not matter (RFC 9110 section 11.1).
fn after_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    name.eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| rest.trim_ascii())
}
