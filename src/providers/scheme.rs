//! Signature schemes as data: where the signature and the timestamp are, what is signed, and how.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::HeaderName;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::keys::{Algorithm, Candidate, Encoding, Key};
use super::request::{Ambiguous, Found, Request, Scope};
use super::text::{Parsing, Text};
use super::unsigned::SignError;
use crate::json::Pointer;

/// The maximum number of signatures that are tried. Providers send two while a secret is rotated.
const MAX_CANDIDATES: usize = 10;

/// The reason why a request does not count as the provider's.
///
/// Ordered by the order of checks: a later one got further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unverified {
    /// A part of the scheme is missing.
    MissingSignature,
    /// Missing or wrong credentials.
    Unauthorized,
    /// No configured secret matches the signature.
    InvalidSignature,
    /// The signed time is outside the tolerance.
    StaleTimestamp,
    /// The key that the request names is unavailable now: nothing is known.
    KeyUnavailable,
}

impl From<Ambiguous> for Unverified {
    fn from(_: Ambiguous) -> Self {
        Self::InvalidSignature
    }
}

/// Texts that hold signatures. Most requests have one.
type Lines<'a> = SmallVec<[Cow<'a, [u8]>; 2]>;

/// Signatures to try.
type Candidates = SmallVec<[Candidate; 2]>;

/// A place in a request that holds one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The first of these headers that is present.
    Header(Vec<HeaderName>),
    /// Every header whose name is this prefix followed by a number.
    NumberedHeaders(String),
    /// A parameter of the query.
    Query(String),
    /// A field of a form body.
    Form(String),
    /// A JSON value of the body.
    Pointer(Pointer),
    /// A value of the signature's own `NAME=value` pairs.
    Field(String),
}

impl Location {
    fn read<'a>(&'a self, scope: &Scope<'a>) -> Found<'a> {
        Ok(match self {
            Self::Header(names) => scope.request.header(names)?.map(Cow::Borrowed),
            Self::Query(name) => scope.request.query(name)?,
            Self::Form(name) => match scope.form {
                Some(form) => form.get(name)?.map(|value| Cow::Borrowed(value.as_bytes())),
                None => None,
            },
            Self::Pointer(pointer) => scope.at(pointer).map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            // Read by `Placement`.
            Self::NumberedHeaders(_) | Self::Field(_) => None,
        })
    }

    /// The parts of the body that must be parsed to read it.
    #[must_use]
    pub fn needs(&self) -> Parsing {
        Parsing {
            form: matches!(self, Self::Form(_)),
            json: matches!(self, Self::Pointer(_)),
        }
    }

    /// Whether the body must be parsed to read it.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        self.needs() != Parsing::default()
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(names) => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "the header {}", names.join(" or "))
            }
            Self::NumberedHeaders(prefix) => write!(f, "the headers {prefix}1, {prefix}2 …"),
            Self::Query(name) => write!(f, "the parameter {name} of the query"),
            Self::Form(name) => write!(f, "the form field {name}"),
            Self::Pointer(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Field(name) => write!(f, "{name}= of the signature's header"),
        }
    }
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    let number = name.strip_prefix(prefix);
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The location and format of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The place of the text that holds them.
    pub location: Location,
    /// Splits the text into values.
    pub separator: Option<u8>,
    /// Only the values of `NAME=value` pairs with this name count.
    pub field: Option<String>,
    /// Removed from each value; values without it are ignored.
    pub prefix: String,
    /// The encoding of the rest.
    pub encoding: Encoding,
}

impl Placement {
    /// The text of every line, since a header may be repeated.
    fn lines<'a>(&'a self, scope: &Scope<'a>) -> Result<Lines<'a>, Ambiguous> {
        if let (Location::Header(names), Some(_)) = (&self.location, self.separator) {
            let present = names
                .iter()
                .find(|name| scope.request.headers.contains_key(*name));
            return Ok(present.map_or_else(Lines::new, |name| {
                let lines = scope.request.headers.get_all(name).iter();
                lines.map(|line| Cow::Borrowed(line.as_bytes())).collect()
            }));
        }
        if let Location::NumberedHeaders(prefix) = &self.location {
            let headers = scope.request.headers.iter();
            let numbered = headers.filter(|(name, _)| is_numbered(name.as_str(), prefix));
            return Ok(numbered
                .map(|(_, value)| Cow::Borrowed(value.as_bytes()))
                .collect());
        }
        Ok(self.location.read(scope)?.into_iter().collect())
    }

    fn values<'l>(&self, line: &'l [u8]) -> impl Iterator<Item = &'l [u8]> + use<'l> {
        let separator = self.separator;
        line.split(move |byte| Some(*byte) == separator)
            .map(<[u8]>::trim_ascii)
            .filter(|value| !value.is_empty())
    }

    /// The values of the pairs with this name.
    fn fields<'l>(
        &self,
        line: &'l [u8],
        name: &'l str,
    ) -> impl Iterator<Item = &'l [u8]> + use<'l> {
        self.values(line).filter_map(move |value| {
            let equals = value.iter().position(|byte| *byte == b'=')?;
            let (key, rest) = value.split_at_checked(equals)?;
            (key == name.as_bytes()).then(|| rest.get(1..).unwrap_or_default())
        })
    }
}

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Decimal digits: Unix seconds.
    Seconds,
    /// Decimal digits: Unix milliseconds.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
}

impl Unit {
    /// Parses a timestamp.
    #[must_use]
    pub fn parse(self, text: &[u8]) -> Option<SystemTime> {
        let since_epoch = match self {
            Self::Rfc3339 => {
                let text = std::str::from_utf8(text).ok()?;
                return OffsetDateTime::parse(text, &Rfc3339)
                    .ok()
                    .map(SystemTime::from);
            }
            Self::Seconds => Duration::from_secs(decimal(text)?),
            Self::Milliseconds => Duration::from_millis(decimal(text)?),
        };
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }

    /// Writes a timestamp.
    pub(super) fn write(self, at: SystemTime) -> Result<String, SignError> {
        let since_epoch = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| SignError("the clock is before 1970"))?;
        match self {
            Self::Seconds => Ok(since_epoch.as_secs().to_string()),
            Self::Milliseconds => Ok(since_epoch.as_millis().to_string()),
            Self::Rfc3339 => OffsetDateTime::from(at)
                .format(&Rfc3339)
                .map_err(|_| SignError("the clock is not a time")),
        }
    }
}

/// Decimal digits alone, without the sign that [`str::parse`] takes.
fn decimal(digits: &[u8]) -> Option<u64> {
    let number = |number: u64, digit: &u8| {
        let value = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(value.into())
    };
    match digits {
        [] => None,
        _ => digits.iter().try_fold(0, number),
    }
}

/// The maximum distance of a signed time from the bridge's clock, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Into the past: at least the time over which a provider repeats a delivery with its first timestamp.
    pub past: Duration,
    /// Into the future: allows for clock differences.
    pub future: Duration,
}

impl Tolerance {
    /// Checks a signed time.
    ///
    /// # Errors
    /// It is not, or is not a time.
    pub fn check(&self, unit: Unit, text: &[u8], now: SystemTime) -> Result<(), Unverified> {
        let signed = unit.parse(text).ok_or(Unverified::StaleTimestamp)?;
        let is_near = match now.duration_since(signed) {
            Ok(age) => age <= self.past,
            Err(ahead) => ahead.duration() <= self.future,
        };
        if is_near {
            Ok(())
        } else {
            Err(Unverified::StaleTimestamp)
        }
    }
}

/// The location and format of the signed time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    pub location: Location,
    pub unit: Unit,
    /// The tolerance; `None` if the time is only a part of the signed content.
    pub tolerance: Option<Tolerance>,
}

impl Timestamp {
    fn check(&self, text: &[u8], now: SystemTime) -> Result<(), Unverified> {
        self.tolerance
            .map_or(Ok(()), |tolerance| tolerance.check(self.unit, text, now))
    }
}

/// How the secrets of a scheme become keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The encoding of a secret.
    pub encoding: Encoding,
    /// Removed from a secret; also determines which of several schemes it is for.
    pub prefix: String,
}

/// A signature scheme with its keys.
#[derive(Debug)]
pub struct Scheme {
    pub signature: Placement,
    /// The signed bytes.
    pub content: Text,
    pub timestamp: Option<Timestamp>,
    /// Text that occurs in one delivery only: with another body it is refused.
    pub nonce: Option<Text>,
    /// The body's hexadecimal SHA-256 in the signed content, if that does not contain the body itself.
    pub body_digest: Option<Location>,
    /// How a secret becomes a key.
    pub key_settings: KeySettings,
    /// The keys, each with the index of its secret. Any of them may have signed.
    pub keys: Vec<(usize, Key)>,
}

/// The parts of a signature found in a request.
#[derive(Debug)]
struct Claims<'a> {
    candidates: Candidates,
    timestamp: Option<Cow<'a, [u8]>>,
}

impl Scheme {
    /// The parts of the body that must be parsed for verification, if the signature or signed values are inside it.
    #[must_use]
    pub fn needs(&self) -> Parsing {
        let time_is_signed = self.content.has_timestamp();
        let timestamp = self.timestamp.as_ref().filter(|_| time_is_signed);
        let of_time = timestamp.map(|timestamp| timestamp.location.needs());
        self.signature
            .location
            .needs()
            .or(self.content.needs())
            .or(of_time.unwrap_or_default())
    }

    /// [`Scheme::needs`], and the part that holds a time that is read only once the signature is verified.
    #[must_use]
    pub fn reads(&self) -> Parsing {
        let timestamp = self.timestamp.as_ref();
        let of_time = timestamp.map(|timestamp| timestamp.location.needs());
        self.needs().or(of_time.unwrap_or_default())
    }

    /// Whether the time is in the body and not in the signed content, so that [`Scheme::check_content`] checks it.
    #[must_use]
    pub fn has_late_time(&self) -> bool {
        let timestamp = self.timestamp.as_ref();
        timestamp.is_some_and(|timestamp| timestamp.location.needs_content())
            && !self.content.has_timestamp()
    }

    /// Whether the signature is the secret itself.
    #[must_use]
    pub fn is_token(&self) -> bool {
        self.key_settings.algorithm == Algorithm::Token
    }

    /// Whether the signature covers the whole body.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        self.body_digest.is_some() || self.content.has_body() || self.content.is_digest()
    }

    /// Whether the signature covers the time, if there is one.
    #[must_use]
    pub fn signs_time(&self) -> bool {
        let signed = |name: &HeaderName| self.content.headers().any(|signed| signed == name);
        self.timestamp.as_ref().is_none_or(|timestamp| {
            self.content.has_timestamp()
                || match &timestamp.location {
                    Location::Header(names) => names.iter().all(signed),
                    location => location.needs_content() && self.covers_body(),
                }
        })
    }

    /// Whether this header carries the signature or its time, which would allow a replay.
    #[must_use]
    pub fn is_signature_header(&self, name: &str) -> bool {
        let timestamp = self.timestamp.as_ref().map(|timestamp| &timestamp.location);
        std::iter::once(&self.signature.location)
            .chain(timestamp)
            .any(|location| match location {
                Location::Header(names) => names.iter().any(|known| known == name),
                Location::NumberedHeaders(prefix) => is_numbered(name, prefix),
                _ => false,
            })
    }

    /// Whether the request has a signature of this scheme, valid or not.
    #[must_use]
    pub fn is_present(&self, request: &Request<'_>) -> bool {
        let lines = self.signature.lines(&Scope::raw(request));
        lines.is_ok_and(|lines| !lines.is_empty())
    }

    /// The signed text of a request in readable form: see [`Text::show`].
    #[must_use]
    pub fn show_content(&self, request: &Request<'_>) -> String {
        let scope = Scope::raw(request);
        let lines = self.signature.lines(&scope).unwrap_or_default();
        let timestamp = match self.timestamp.as_ref().map(|timestamp| &timestamp.location) {
            None => None,
            Some(Location::Field(name)) => {
                let mut found = lines
                    .iter()
                    .flat_map(|line| self.signature.fields(line, name));
                found.next().map(Cow::Borrowed)
            }
            Some(location) => location.read(&scope).ok().flatten(),
        };
        self.content.show(&Scope {
            timestamp: timestamp.as_deref(),
            ..scope
        })
    }

    /// Returns the index of the secret whose key signed the request.
    ///
    /// # Errors
    /// The first check that fails: presence of all parts, the signature, the time.
    pub fn verify(&self, scope: &Scope<'_>) -> Result<usize, Unverified> {
        let lines = self.signature.lines(scope)?;
        let claims = self.claims(scope, &lines)?;
        let scope = Scope {
            timestamp: claims.timestamp.as_deref(),
            ..*scope
        };
        let content = self
            .content
            .bytes(&scope)?
            .ok_or(Unverified::MissingSignature)?;
        // Every key is tried, so that timing does not reveal which one matches.
        let signer = self.keys.iter().fold(None, |found, (index, key)| {
            let verifies = key.verifies(&content, &claims.candidates);
            found.or(verifies.then_some(*index))
        });
        let signer = signer.ok_or(Unverified::InvalidSignature)?;
        self.check_body_digest(&scope)?;
        if let (Some(timestamp), Some(text)) = (&self.timestamp, scope.timestamp) {
            timestamp.check(text, scope.request.at)?;
        }
        Ok(signer)
    }

    /// Checks the body if the signed content has only its digest.
    fn check_body_digest(&self, scope: &Scope<'_>) -> Result<(), Unverified> {
        let Some(location) = &self.body_digest else {
            return Ok(());
        };
        let signed = location.read(scope)?;
        let signed = signed.and_then(|text| Encoding::Hex.decode(&text));
        let is_equal = signed.is_some_and(|signed| *signed == *Sha256::digest(scope.request.body));
        is_equal.then_some(()).ok_or(Unverified::InvalidSignature)
    }

    /// Checks a signed time inside the body, which may be parsed once the signature is verified.
    ///
    /// # Errors
    /// It is missing, not a time, or too far away.
    pub fn check_content(&self, scope: &Scope<'_>) -> Result<(), Unverified> {
        match &self.timestamp {
            Some(timestamp) if self.has_late_time() => {
                let text = timestamp
                    .location
                    .read(scope)?
                    .ok_or(Unverified::MissingSignature)?;
                timestamp.check(&text, scope.request.at)
            }
            _ => Ok(()),
        }
    }

    /// Checks that need only the head, before the body is read: missing parts, malformed signatures, and times outside
    /// the tolerance. Passing them proves nothing.
    ///
    /// # Errors
    /// As [`Scheme::verify`].
    pub fn check_head(&self, request: &Request<'_>) -> Result<(), Unverified> {
        let scope = Scope::raw(request);
        if self.signature.location.needs_content() {
            return Ok(());
        }
        let lines = self.signature.lines(&scope)?;
        let claims = self.claims(&scope, &lines)?;
        match (&self.timestamp, &claims.timestamp) {
            (Some(timestamp), Some(text)) => timestamp.check(text, request.at),
            _ => Ok(()),
        }
    }

    /// Decodes a signature, which must have the length of its algorithm.
    fn decode(&self, value: &[u8]) -> Option<Candidate> {
        let value = value.strip_prefix(self.signature.prefix.as_bytes())?;
        let decoded = self.signature.encoding.decode(value)?;
        let length = self.key_settings.algorithm.signature_bytes();
        let fits = !decoded.is_empty() && length.is_none_or(|length| length == decoded.len());
        fits.then_some(decoded)
    }

    /// Adds the line's signatures up to the maximum.
    fn add_candidates(&self, line: &[u8], candidates: &mut Candidates) {
        let room = MAX_CANDIDATES.saturating_sub(candidates.len());
        let decode = |value| self.decode(value);
        match &self.signature.field {
            Some(name) => {
                let values = self.signature.fields(line, name);
                candidates.extend(values.filter_map(decode).take(room));
            }
            None => {
                let values = self.signature.values(line);
                candidates.extend(values.filter_map(decode).take(room));
            }
        }
    }

    fn claims<'a>(
        &'a self,
        scope: &Scope<'a>,
        lines: &'a [Cow<'a, [u8]>],
    ) -> Result<Claims<'a>, Unverified> {
        if lines.iter().all(|line| line.trim_ascii().is_empty()) {
            return Err(Unverified::MissingSignature);
        }
        let timestamp = match self.timestamp.as_ref().map(|timestamp| &timestamp.location) {
            None => None,
            Some(Location::Field(name)) => {
                let mut found = lines
                    .iter()
                    .flat_map(|line| self.signature.fields(line, name));
                match (found.next(), found.next()) {
                    (None, _) => return Err(Unverified::InvalidSignature),
                    (Some(only), None) => Some(Cow::Borrowed(only)),
                    (Some(_), Some(_)) => return Err(Unverified::InvalidSignature),
                }
            }
            // Not parsed yet. Signed content with it can then not be filled in.
            Some(Location::Form(_)) if scope.form.is_none() => None,
            Some(Location::Pointer(_)) if scope.node.is_none() => None,
            Some(location) => match location.read(scope)? {
                Some(text) if !text.is_empty() => Some(text),
                _ => return Err(Unverified::MissingSignature),
            },
        };
        let mut candidates = Candidates::new();
        for line in lines {
            self.add_candidates(line, &mut candidates);
        }
        if candidates.is_empty() {
            return Err(Unverified::InvalidSignature);
        }
        Ok(Claims {
            candidates,
            timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method, Uri};
    use proptest::prelude::*;

    fn scheme() -> Scheme {
        let name = HeaderName::from_static("x-signature");
        let secret = crate::secret::Secret::new("a secret of ours".to_owned()).unwrap();
        let key = Key::prepare(Algorithm::HmacSha256, &secret, Encoding::Text, "").unwrap();
        Scheme {
            signature: Placement {
                location: Location::Header(vec![name]),
                separator: Some(b','),
                field: Some("v1".to_owned()),
                prefix: String::new(),
                encoding: Encoding::Hex,
            },
            content: Text::parse("{timestamp}.{body}").unwrap(),
            nonce: None,
            body_digest: None,
            timestamp: Some(Timestamp {
                location: Location::Field("t".to_owned()),
                unit: Unit::Seconds,
                tolerance: Some(Tolerance {
                    past: Duration::from_secs(300),
                    future: Duration::from_secs(60),
                }),
            }),
            key_settings: KeySettings {
                algorithm: Algorithm::HmacSha256,
                encoding: Encoding::Text,
                prefix: String::new(),
            },
            keys: vec![(3, key)],
        }
    }

    const NOW: u64 = 1_795_132_800;

    fn verify(value: &str, body: &[u8], now: u64) -> Result<usize, Unverified> {
        let name = HeaderName::from_static("x-signature");
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        let request = Request {
            method: &Method::POST,
            target: &Uri::from_static("/x"),
            headers: &headers,
            body,
            public_url: None,
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(now),
        };
        let (scheme, scope) = (scheme(), Scope::raw(&request));
        let verdict = scheme.verify(&scope);
        // The verdict on the head must agree with that on the whole request.
        assert!(verdict.is_err() || scheme.check_head(&request).is_ok());
        verdict
    }

    fn signature(time: &str, body: &[u8]) -> String {
        let parts: [Cow<'_, [u8]>; 3] = [time.as_bytes().into(), b".".into(), body.into()];
        let scheme = scheme();
        let (_, key) = scheme.keys.first().unwrap();
        Encoding::Hex.encode(key.digest(&parts).as_slice()).unwrap()
    }

    #[test]
    fn the_pairs_of_a_header_are_accepted_in_any_order() {
        let good = signature("1795132800", b"body");
        let other = "0".repeat(64);
        for value in [
            format!("t=1795132800,v1={good}"),
            format!("v0=x, v1={other} , v1={good},t=1795132800"),
        ] {
            assert_eq!(verify(&value, b"body", NOW), Ok(3), "{value}");
            assert_eq!(
                verify(&value, b"Body", NOW),
                Err(Unverified::InvalidSignature)
            );
        }
        let twice = format!("t=1795132800,t=1795132800,v1={good}");
        for value in [twice, format!("v1={good}"), "t=1795132800".to_owned()] {
            assert_eq!(
                verify(&value, b"body", NOW),
                Err(Unverified::InvalidSignature),
                "{value}"
            );
        }
        for value in ["", " "] {
            let missing = Err(Unverified::MissingSignature);
            assert_eq!(verify(value, b"body", NOW), missing);
        }
    }

    #[test]
    fn both_tolerances_are_inclusive_and_apply_to_their_own_side() {
        let value = format!("t=1795132800,v1={}", signature("1795132800", b"body"));
        assert_eq!(verify(&value, b"body", NOW + 300), Ok(3));
        assert_eq!(verify(&value, b"body", NOW - 60), Ok(3));
        for now in [NOW + 301, NOW - 61] {
            assert_eq!(
                verify(&value, b"body", now),
                Err(Unverified::StaleTimestamp)
            );
        }
    }

    #[test]
    fn numbered_headers_have_a_number() {
        assert!(is_numbered("x-signature-12", "x-signature-"));
        for other in ["x-signature-", "x-signature-a", "x-other-1"] {
            assert!(!is_numbered(other, "x-signature-"), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_header_passes_without_the_secret(value in "(t=1795132800,)?[ -~]{0,200}") {
            prop_assert!(verify(&value, b"body", NOW).is_err());
        }

        #[test]
        fn a_genuine_signature_passes_with_anything_around_it(around in "[a-z0-9= ]{0,20}", body in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assume!(!around.trim_start().starts_with("t="));
            let value = format!("{around},t=1795132800,v1={}", signature("1795132800", &body));
            prop_assert_eq!(verify(&value, &body, NOW), Ok(3));
        }
    }
}
