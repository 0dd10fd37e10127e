//! Templates over a request and its event: `v0:{timestamp}:{body}`, `{header:x-github-event}.{/action}`.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use http::HeaderName;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use super::request::{Ambiguous, Found, Scope, sorted_fields};
use crate::json::Pointer;

/// Bytes in pieces, none of them copied.
pub type Pieces<'a> = SmallVec<[Cow<'a, [u8]>; 6]>;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Method,
    Url,
    UrlDecoded,
    UrlWithPort,
    UrlWithoutPort,
    Path,
    Query,
    Body,
    Timestamp,
    /// The first of these headers that is present.
    Header(Vec<HeaderName>),
    QueryParameter(String),
    FormField(String),
    /// All fields in the form that Twilio signs.
    Form,
    Pointer(Pointer),
    BodyDigest,
    Uuid,
}

/// The placeholders, for error messages.
const PLACEHOLDERS: &str = "{timestamp} {method} {url} {url:decoded} {url:with-port} {url:without-port} {path} {query} {body} {header:NAME} {query:NAME} {form} {form:NAME} {/json/pointer} {sha256:body} {uuid}";

/// A mistake in a template, with the correction.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A closing brace alone.
    #[error("`}}` has no `{{`")]
    NotOpened,
    /// An opening brace alone, with the text after it.
    #[error("`{{{0}` has no `}}`")]
    NotClosed(String),
    #[error("`{{{0}}}` is not a placeholder; known: {PLACEHOLDERS}")]
    Unknown(String),
    /// A placeholder that needs a name.
    #[error("`{{{0}}}` has no name; write for example `{{header:x-id}}`")]
    Unnamed(String),
    /// An invalid header name.
    #[error("{0:?} is not a valid header name")]
    Header(String),
    /// An invalid JSON Pointer, and the rule that it violates.
    #[error("`{{{0}}}`: {1}")]
    Pointer(String, &'static str),
}

impl Text {
    /// Parses a template.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            if literal.contains('}') {
                return Err(TextError::NotOpened);
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| TextError::NotClosed(after.to_owned()))?;
            parts.push(Part::parse(name)?);
            rest = behind;
        }
        if rest.contains('}') {
            return Err(TextError::NotOpened);
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// A text without placeholders.
    #[must_use]
    pub fn plain(text: String) -> Self {
        Self {
            parts: vec![Part::Literal(text)],
        }
    }

    /// Fills in every placeholder; `None` if one of them is absent or empty.
    ///
    /// # Errors
    /// [`Ambiguous`] if a field that it names occurs twice.
    pub fn fill(&self, scope: &Scope<'_>) -> Result<Option<String>, Ambiguous> {
        let mut filled = String::new();
        for part in &self.parts {
            match part.value(scope)? {
                Some(value) if !value.is_empty() => match std::str::from_utf8(&value) {
                    Ok(text) => filled.push_str(text),
                    Err(_) => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        Ok(Some(filled))
    }

    /// Fills in every placeholder, piece by piece, so that a body is never copied; `None` if one is absent.
    ///
    /// # Errors
    /// [`Ambiguous`] if a field that it names occurs twice.
    pub fn bytes<'a>(&'a self, scope: &Scope<'a>) -> Result<Option<Pieces<'a>>, Ambiguous> {
        let mut bytes = Pieces::with_capacity(self.parts.len());
        for part in &self.parts {
            match part.value(scope)? {
                Some(value) => bytes.push(value),
                None => return Ok(None),
            }
        }
        Ok(Some(bytes))
    }

    /// The text in readable form: the body stays `{body}`, and so does every placeholder without a value.
    #[must_use]
    pub fn show(&self, scope: &Scope<'_>) -> String {
        let show = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Body => part.to_string(),
            part => match part.value(scope) {
                Ok(Some(value)) => String::from_utf8_lossy(&value).into_owned(),
                _ => part.to_string(),
            },
        };
        self.parts.iter().map(show).collect()
    }

    /// Whether every placeholder of another text is one of this text too.
    #[must_use]
    pub fn has_all_of(&self, other: &Self) -> bool {
        let mut parts = other.parts.iter();
        parts.all(|part| matches!(part, Part::Literal(_)) || self.parts.contains(part))
    }

    /// Whether it depends on the request.
    #[must_use]
    pub fn has_placeholder(&self) -> bool {
        self.refers_to(|part| !matches!(part, Part::Literal(_)))
    }

    /// Whether it refers to a JSON value of the body.
    #[must_use]
    pub fn has_pointer(&self) -> bool {
        self.refers_to(|part| matches!(part, Part::Pointer(_)))
    }

    /// Whether it refers to a field of a form.
    #[must_use]
    pub fn has_form_field(&self) -> bool {
        self.refers_to(|part| matches!(part, Part::FormField(_)))
    }

    fn refers_to(&self, wanted: impl Fn(&Part) -> bool) -> bool {
        self.parts.iter().any(wanted)
    }

    /// Whether it contains the body, or every field of a form.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.refers_to(|part| matches!(part, Part::Body | Part::Form))
    }

    #[must_use]
    pub fn has_timestamp(&self) -> bool {
        self.refers_to(|part| *part == Part::Timestamp)
    }

    /// Whether it contains the URL that the provider calls.
    #[must_use]
    pub fn has_url(&self) -> bool {
        self.refers_to(|part| {
            matches!(
                part,
                Part::Url | Part::UrlDecoded | Part::UrlWithPort | Part::UrlWithoutPort
            )
        })
    }

    /// Whether it contains the query.
    #[must_use]
    pub fn has_query(&self, name: &str) -> bool {
        self.has_url()
            || self.refers_to(|part| match part {
                Part::Query => true,
                Part::QueryParameter(known) => known == name,
                _ => false,
            })
    }

    /// The parts of the body that must be parsed to fill it in.
    #[must_use]
    pub fn needs(&self) -> Parsing {
        Parsing {
            form: self.refers_to(|part| matches!(part, Part::FormField(_) | Part::Form)),
            json: self.refers_to(|part| matches!(part, Part::Pointer(_))),
        }
    }

    /// Whether it needs the body to be parsed.
    #[must_use]
    pub fn needs_content(&self) -> bool {
        self.needs() != Parsing::default()
    }

    /// Whether its value differs for each request.
    #[must_use]
    pub fn is_random(&self) -> bool {
        self.refers_to(|part| *part == Part::Uuid)
    }

    /// Whether its value is derived from the body rather than given by the provider.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        self.refers_to(|part| *part == Part::BodyDigest)
    }

    /// The JSON Pointer that it refers to, for error messages.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Part::Pointer(pointer) => Some(pointer.as_str()),
            _ => None,
        })
    }

    /// The text, if nothing is to be filled in.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The headers that it refers to.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().flat_map(|part| match part {
            Part::Header(names) => names.as_slice(),
            _ => &[],
        })
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, TextError> {
        if name.starts_with('/') {
            return Pointer::parse(name)
                .map(Self::Pointer)
                .map_err(|rule| TextError::Pointer(name.to_owned(), rule));
        }
        let named = |argument: &str| {
            if argument.is_empty() {
                Err(TextError::Unnamed(name.to_owned()))
            } else {
                Ok(argument.to_owned())
            }
        };
        match name.split_once(':') {
            None => match name {
                "method" => Ok(Self::Method),
                "url" => Ok(Self::Url),
                "path" => Ok(Self::Path),
                "query" => Ok(Self::Query),
                "body" => Ok(Self::Body),
                "form" => Ok(Self::Form),
                "timestamp" => Ok(Self::Timestamp),
                "uuid" => Ok(Self::Uuid),
                _ => Err(TextError::Unknown(name.to_owned())),
            },
            Some(("header", argument)) => {
                let names = named(argument)?;
                let names = names.split('|').map(|name| {
                    HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| TextError::Header(name.to_owned()))
                });
                Ok(Self::Header(names.collect::<Result<_, _>>()?))
            }
            Some(("query", argument)) => named(argument).map(Self::QueryParameter),
            Some(("form", argument)) => named(argument).map(Self::FormField),
            Some(("sha256", "body")) => Ok(Self::BodyDigest),
            Some(("url", "decoded")) => Ok(Self::UrlDecoded),
            Some(("url", "with-port")) => Ok(Self::UrlWithPort),
            Some(("url", "without-port")) => Ok(Self::UrlWithoutPort),
            Some(_) => Err(TextError::Unknown(name.to_owned())),
        }
    }

    fn value<'a>(&'a self, scope: &Scope<'a>) -> Found<'a> {
        let request = scope.request;
        Ok(match self {
            Self::Literal(text) => Some(Cow::Borrowed(text.as_bytes())),
            Self::Method => Some(Cow::Borrowed(request.method.as_str().as_bytes())),
            Self::Url => request.url().map(into_bytes),
            Self::UrlDecoded => request
                .url()
                .map(|url| Cow::Owned(decode_delimiters(&url).into_bytes())),
            Self::UrlWithPort => request
                .url()
                .map(|url| Cow::Owned(with_port(&url).into_bytes())),
            Self::UrlWithoutPort => request
                .url()
                .map(|url| Cow::Owned(without_port(&url).into_bytes())),
            Self::Path => Some(Cow::Borrowed(request.target.path().as_bytes())),
            Self::Query => Some(Cow::Borrowed(
                request.target.query().unwrap_or_default().as_bytes(),
            )),
            Self::Body => Some(Cow::Borrowed(request.body)),
            Self::Timestamp => scope.timestamp.map(Cow::Borrowed),
            Self::Header(names) => request.header(names)?.map(Cow::Borrowed),
            Self::QueryParameter(name) => request.query(name)?,
            Self::FormField(name) => match scope.form {
                Some(form) => form.get(name)?.map(|value| Cow::Borrowed(value.as_bytes())),
                None => None,
            },
            Self::Form => scope.form.map(|_| Cow::Owned(sorted_fields(request.body))),
            Self::Pointer(pointer) => scope.at(pointer).map(into_bytes),
            Self::BodyDigest => Some(Cow::Owned(
                HEXLOWER.encode(&Sha256::digest(scope.payload)).into_bytes(),
            )),
            Self::Uuid => Some(Cow::Owned(uuid::Uuid::new_v4().to_string().into_bytes())),
        })
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(f))
    }
}

/// The configured spelling.
impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Method => f.write_str("{method}"),
            Self::Url => f.write_str("{url}"),
            Self::UrlDecoded => f.write_str("{url:decoded}"),
            Self::UrlWithPort => f.write_str("{url:with-port}"),
            Self::UrlWithoutPort => f.write_str("{url:without-port}"),
            Self::Form => f.write_str("{form}"),
            Self::Path => f.write_str("{path}"),
            Self::Query => f.write_str("{query}"),
            Self::Body => f.write_str("{body}"),
            Self::Timestamp => f.write_str("{timestamp}"),
            Self::Header(names) => {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                write!(f, "{{header:{}}}", names.join("|"))
            }
            Self::QueryParameter(name) => write!(f, "{{query:{name}}}"),
            Self::FormField(name) => write!(f, "{{form:{name}}}"),
            Self::Pointer(pointer) => write!(f, "{{{}}}", pointer.as_str()),
            Self::BodyDigest => f.write_str("{sha256:body}"),
            Self::Uuid => f.write_str("{uuid}"),
        }
    }
}

/// The only delimiters that HubSpot decodes in a URL before signing it.
const DELIMITERS: &str = ":/?@!$'()*,;";

fn decode_delimiters(url: &str) -> String {
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let escape = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escape
            .map(char::from)
            .filter(|character| DELIMITERS.contains(*character))
        {
            Some(delimiter) => {
                decoded.push(delimiter);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

/// Splits a URL at its port: what comes before, the port with its colon, and what comes after.
fn around_port(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let (before, from_port) = url.split_at_checked(scheme.len() + "://".len() + host.len())?;
    let (port, after) = from_port.split_at_checked(authority.len() - host.len())?;
    Some((before, port, after))
}

/// The URL with an explicit port.
fn with_port(url: &str) -> String {
    match around_port(url) {
        Some((before, "", after)) => {
            let is_https = before.starts_with("https:");
            let port = if is_https { ":443" } else { ":80" };
            [before, port, after].concat()
        }
        _ => url.to_owned(),
    }
}

fn without_port(url: &str) -> String {
    around_port(url).map_or_else(
        || url.to_owned(),
        |(before, _, after)| [before, after].concat(),
    )
}

/// The parts of a body that must be parsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parsing {
    /// The fields of a form.
    pub form: bool,
    /// JSON.
    pub json: bool,
}

impl Parsing {
    /// The union of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            form: self.form || other.form,
            json: self.json || other.json,
        }
    }
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Several templates; the first whose parts are all there counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice(pub Vec<Alternative>);

/// A template, and what must be there for it to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The template.
    pub text: Text,
    /// A condition: this must be there as well.
    pub when: Option<Text>,
}

impl Choice {
    /// The first alternative that is whole.
    ///
    /// # Errors
    /// [`Ambiguous`] where a field that it names occurs twice.
    pub fn fill(&self, scope: &Scope<'_>) -> Result<Option<(String, &Text)>, Ambiguous> {
        for Alternative { text, when } in &self.0 {
            if let Some(condition) = when
                && condition.fill(scope)?.is_none()
            {
                continue;
            }
            if let Some(filled) = text.fill(scope)? {
                return Ok(Some((filled, text)));
            }
        }
        Ok(None)
    }

    /// Its templates.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.0.iter().map(|alternative| &alternative.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Request;
    use super::*;
    use crate::json::Document;
    use http::{HeaderMap, Method, Uri};
    use proptest::prelude::*;
    use std::time::SystemTime;

    fn filled(template: &str, headers: &HeaderMap, body: &str) -> Option<String> {
        let target = Uri::from_static("/x?a=1%2B1&twice=1&twice=2");
        let request = Request {
            method: &Method::POST,
            target: &target,
            headers,
            body: body.as_bytes(),
            public_url: Some("https://hooks.example.com/x"),
            at: SystemTime::UNIX_EPOCH,
        };
        let document = Document::parse(body.as_bytes()).unwrap();
        let scope = Scope {
            node: Some(document.root()),
            timestamp: Some(b"17"),
            ..Scope::raw(&request)
        };
        Text::parse(template).unwrap().fill(&scope).ok().flatten()
    }

    #[test]
    fn placeholders_are_filled_from_the_request_and_its_event() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-b"),
            http::HeaderValue::from_static("B"),
        )]);
        let body = r#"{"a":{"b":7},"empty":"","none":null}"#;
        for (template, expected) in [
            ("v0:{timestamp}.{method}", Some("v0:17.POST")),
            ("{header:x-a|x-b}-{/a/b}", Some("B-7")),
            ("{query:a}", Some("1+1")),
            (
                "{url}",
                Some("https://hooks.example.com/x?a=1%2B1&twice=1&twice=2"),
            ),
            ("{path}", Some("/x")),
            ("plain", Some("plain")),
            ("{/empty}", None),
            ("{/none}", None),
            ("{/a}", None),
            ("{header:x-a}", None),
            ("{form:a}", None),
            ("{query:twice}", None),
        ] {
            let found = filled(template, &headers, body);
            assert_eq!(found.as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn a_mistake_is_reported_with_a_suggestion() {
        for (template, words) in [
            ("{", "has no `}`"),
            ("a}", "has no `{`"),
            ("{nothing}", "known: {timestamp}"),
            ("{header:}", "has no name"),
            ("{header:a b}", "not a valid header name"),
            ("{/a~2}", "{/a~2}"),
        ] {
            let mistake = Text::parse(template).unwrap_err().to_string();
            assert!(mistake.contains(words), "{template}: {mistake}");
        }
    }

    #[test]
    fn a_url_has_its_port_or_not() {
        for (url, with, without) in [
            (
                "https://a.b/x?y=:1",
                "https://a.b:443/x?y=:1",
                "https://a.b/x?y=:1",
            ),
            ("http://a.b", "http://a.b:80", "http://a.b"),
            ("https://a.b:8443/x", "https://a.b:8443/x", "https://a.b/x"),
            (
                "https://u:1@a.b/x",
                "https://u:1@a.b:443/x",
                "https://u:1@a.b/x",
            ),
            ("https://[::1]/x", "https://[::1]:443/x", "https://[::1]/x"),
            ("https://[::1]:1?x", "https://[::1]:1?x", "https://[::1]?x"),
        ] {
            assert_eq!(
                (with_port(url).as_str(), without_port(url).as_str()),
                (with, without)
            );
        }
    }

    #[test]
    fn only_delimiters_are_decoded_in_a_url() {
        assert_eq!(decode_delimiters("a%3Ab%2Fc%20d%zz%"), "a:b/c%20d%zz%");
    }

    proptest! {
        #[test]
        fn text_without_braces_is_literal(text in "[^{}]{1,40}") {
            prop_assert_eq!(filled(&text, &HeaderMap::new(), "{}"), Some(text));
        }

        #[test]
        fn any_text_is_a_template_or_an_error(text in "[{}a-z:/|~]{0,40}") {
            if let Ok(template) = Text::parse(&text) {
                let is_literal = |part: &&Part| matches!(part, Part::Literal(_));
                let placeholders = template.parts.iter().filter(|part| !is_literal(part)).count();
                // A pointer may lead to a name with an opening brace.
                let (opened, closed) = (text.matches('{').count(), text.matches('}').count());
                prop_assert!(placeholders <= opened);
                prop_assert_eq!(&Text::parse(&template.to_string()).unwrap(), &template);
                prop_assert_eq!(placeholders, closed);
            }
        }
    }
}
