//! A request in the form that verification and the event mapping read.

use std::borrow::Cow;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, Method, Uri};

use super::cloudevents::Mode;
use crate::json::{Node, Pointer};

/// A request that was received completely.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    pub method: &'r Method,
    /// The target as received.
    pub target: &'r Uri,
    pub headers: &'r HeaderMap,
    /// The body, byte for byte.
    pub body: &'r [u8],
    /// The URL that the provider calls, without the query.
    pub public_url: Option<&'r str>,
    /// The time of receipt.
    pub at: SystemTime,
}

/// A field that occurs twice where one value is expected: the bridge must not choose which one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// A value that may be absent.
pub type Found<'r> = Result<Option<Cow<'r, [u8]>>, Ambiguous>;

impl<'r> Request<'r> {
    /// The value of the first of these headers that is present.
    ///
    /// # Errors
    /// [`Ambiguous`] where that field occurs twice.
    pub fn header(&self, names: &[HeaderName]) -> Result<Option<&'r [u8]>, Ambiguous> {
        for name in names {
            let mut lines = self.headers.get_all(name).iter();
            match (lines.next(), lines.next()) {
                (None, _) => {}
                (Some(value), None) => return Ok(Some(value.as_bytes())),
                (Some(_), Some(_)) => return Err(Ambiguous),
            }
        }
        Ok(None)
    }

    /// A parameter of the query, decoded.
    ///
    /// # Errors
    /// [`Ambiguous`] where it occurs twice.
    pub fn query(&self, name: &str) -> Found<'r> {
        let query = self.target.query().unwrap_or_default();
        single_value(form_urlencoded::parse(query.as_bytes()), name)
    }

    /// The URL as the provider called it: `public_url` with this request's query.
    #[must_use]
    pub fn url(&self) -> Option<Cow<'r, str>> {
        let base = self.public_url?;
        Some(match self.target.query() {
            None => Cow::Borrowed(base),
            Some(query) => Cow::Owned(format!("{base}?{query}")),
        })
    }
}

/// The fields of an `application/x-www-form-urlencoded` body, decoded (WHATWG URL Standard, section 5.1).
#[derive(Debug, Default)]
pub struct Form<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

/// The maximum number of form fields.
const MAX_FORM_FIELDS: usize = 1000;

impl<'r> Form<'r> {
    /// Decodes a body; `None` if it has too many fields.
    #[must_use]
    pub fn parse(body: &'r [u8]) -> Option<Self> {
        let fields: Vec<_> = form_urlencoded::parse(body)
            .take(MAX_FORM_FIELDS + 1)
            .collect();
        (fields.len() <= MAX_FORM_FIELDS).then_some(Self(fields))
    }

    /// A field's value.
    ///
    /// # Errors
    /// [`Ambiguous`] where it occurs twice.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Ambiguous> {
        let mut named = self.0.iter().filter(|(known, _)| known == name);
        match (named.next(), named.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value)),
            (Some(_), Some(_)) => Err(Ambiguous),
        }
    }

    /// All fields in the order sent.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Every field of a form body, decoded: sorted by name, with the sorted and deduplicated values of each, concatenated
/// without separators. Bytes are kept, so that two different bodies never result in the same text.
#[must_use]
pub fn sorted_fields(body: &[u8]) -> Vec<u8> {
    let pairs = body
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty());
    let mut fields: Vec<_> = pairs
        .map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = pair.split_at(equals.unwrap_or(pair.len()));
            (
                decode(name),
                decode(value.strip_prefix(b"=").unwrap_or(value)),
            )
        })
        .collect();
    fields.sort_unstable();
    fields.dedup();
    let parts = fields.iter().flat_map(|(name, value)| [name, value]);
    parts.flatten().copied().collect()
}

fn decode(text: &[u8]) -> Vec<u8> {
    let plus_is_blank: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_encoding::percent_decode(&plus_is_blank).collect()
}

fn single_value<'r>(pairs: form_urlencoded::Parse<'r>, wanted: &str) -> Found<'r> {
    let mut named = pairs.filter(|(name, _)| name == wanted);
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some((_, value)), None) => Ok(Some(match value {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })),
        (Some(_), Some(_)) => Err(Ambiguous),
    }
}

/// The credentials after a scheme's name, whose case does not matter (RFC 9110 section 11.1).
pub(super) fn after_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    name.eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| rest.trim_ascii())
}

/// Everything that a template may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub request: &'a Request<'a>,
    /// Its body as a form, if it is one.
    pub form: Option<&'a Form<'a>>,
    /// The JSON value at which pointers start: the body, a form field's content, or one element of a batch.
    pub node: Option<Node<'a>>,
    /// The signed timestamp as sent.
    pub timestamp: Option<&'a [u8]>,
    /// The bytes of the event: the body or the element.
    pub payload: &'a [u8],
    /// How the request contains its event, if that is a CloudEvent.
    pub mode: Option<Mode>,
}

impl<'a> Scope<'a> {
    /// The scope of a request of which nothing has been parsed.
    #[must_use]
    pub const fn raw(request: &'a Request<'a>) -> Self {
        Self {
            request,
            form: None,
            node: None,
            timestamp: None,
            payload: request.body,
            mode: None,
        }
    }

    /// A string, number or boolean; `null` counts as absent.
    #[must_use]
    pub fn at(&self, pointer: &Pointer) -> Option<Cow<'a, str>> {
        self.node?.at(pointer)?.scalar_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Twilio's libraries use a map of sets.
    fn as_libraries_do(body: &[u8]) -> String {
        let mut fields = BTreeMap::<String, BTreeSet<String>>::new();
        for (name, value) in form_urlencoded::parse(body) {
            let values = fields.entry(name.into_owned()).or_default();
            values.insert(value.into_owned());
        }
        let pairs = fields.iter().flat_map(|(name, values)| {
            let pairs = values.iter().map(move |value| format!("{name}{value}"));
            pairs.collect::<Vec<_>>()
        });
        pairs.collect()
    }

    #[test]
    fn fields_are_sorted_decoded_and_counted_once() {
        for (body, expected) in [
            ("b=1&B=2&a=3&A=4&_=5", "A4B2_5a3b1"),
            (
                "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
                "Digits1234Digits5678SidCA123SidAccountAC123",
            ),
            ("Body=h%C3%A9+%2B&Empty=&&bare", "Bodyhé +Emptybare"),
            ("", ""),
        ] {
            assert_eq!(sorted_fields(body.as_bytes()), expected.as_bytes());
        }
        // Invalid UTF-8: with replacement characters they would be the same.
        assert_ne!(sorted_fields(b"a=%FF"), sorted_fields(b"a=%FE"));
    }

    proptest! {
        #[test]
        fn fields_agree_with_an_independent_implementation(body in "[a-cA-C=&+%0-9é ]{0,60}") {
            let decoded: Vec<u8> = percent_encoding::percent_decode(body.as_bytes()).collect();
            prop_assume!(std::str::from_utf8(&decoded).is_ok());
            let expected = as_libraries_do(body.as_bytes());
            prop_assert_eq!(sorted_fields(body.as_bytes()), expected.into_bytes());
        }
    }
}
