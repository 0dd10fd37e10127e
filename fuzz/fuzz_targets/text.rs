//! A template of `verify` or `event` on the first line, a target on the second, then lines `NAME: VALUE`, an empty line and a
//! body, which is read as JSON and as a form: compares what is filled in with an independent implementation.
#![no_main]

use std::time::Duration;

use hookbridge::json::Document;
use hookbridge::providers::request::Form;
use hookbridge::providers::text::Text;
use hookbridge::providers::{Request, Scope};
use hookbridge_fuzz::{fields, first_line, hex, now, request, sorted};
use http::{HeaderMap, HeaderName, Method, Uri};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const URL: &str = "https://hooks.example.com/x";
const TIMESTAMP: &[u8] = b"1795000000";
const MAX_FIELDS: usize = 1000;

/// A part of a template: text, or the name between braces.
enum Part<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn is_known(name: &str) -> bool {
    let plain = [
        "method",
        "url",
        "path",
        "query",
        "body",
        "form",
        "timestamp",
        "uuid",
        "url:decoded",
        "url:with-port",
        "url:without-port",
        "sha256:body",
    ];
    if plain.contains(&name) {
        return true;
    }
    if let Some(names) = name.strip_prefix("header:") {
        return names
            .split('|')
            .all(|name| HeaderName::try_from(name).is_ok());
    }
    let argument = name.strip_prefix("query:").or(name.strip_prefix("form:"));
    let rest = name.replace("~0", "").replace("~1", "");
    argument.is_some_and(|argument| !argument.is_empty())
        || name.starts_with('/') && !rest.contains('~')
}

fn read(template: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let (mut from, mut is_open) = (0, false);
    for (at, character) in template.char_indices() {
        match (character, is_open) {
            ('{', false) => {
                parts.push(Part::Text(&template[from..at]));
                (from, is_open) = (at + 1, true);
            }
            ('}', true) => {
                parts.push(Part::Name(&template[from..at]));
                (from, is_open) = (at + 1, false);
            }
            ('}', false) => return None,
            _ => {}
        }
    }
    parts.push(Part::Text(&template[from..]));
    let mut names = parts.iter().filter_map(|part| match part {
        Part::Text(_) => None,
        Part::Name(name) => Some(name),
    });
    (!is_open && names.all(|name| is_known(name))).then_some(parts)
}

/// The value of a part.
enum Filled {
    Bytes(Vec<u8>),
    Absent,
    /// A field that occurs twice.
    Ambiguous,
    /// serde_json has lost the spelling of a number, or the value is random.
    Unknown,
}

struct Input<'i> {
    target: &'i Uri,
    headers: &'i HeaderMap,
    body: &'i [u8],
    is_form: bool,
    json: Option<&'i Value>,
}

impl Input<'_> {
    fn query(&self) -> &str {
        self.target.query().unwrap_or_default()
    }

    fn url(&self, before: &str) -> Vec<u8> {
        let query = self.target.query().map(|query| format!("?{query}"));
        format!("{before}{}", query.unwrap_or_default()).into_bytes()
    }

    fn fill(&self, name: &str) -> Filled {
        let single = |text: &[u8], wanted: &str| {
            let mut named = fields(text)
                .into_iter()
                .filter(|(name, _)| String::from_utf8_lossy(name) == wanted);
            match (named.next(), named.next()) {
                (None, _) => Filled::Absent,
                (Some((_, value)), None) => {
                    Filled::Bytes(String::from_utf8_lossy(&value).into_owned().into_bytes())
                }
                (Some(_), Some(_)) => Filled::Ambiguous,
            }
        };
        if name.starts_with('/') {
            return match self.json.and_then(|json| json.pointer(name)) {
                Some(Value::String(text)) => Filled::Bytes(text.clone().into_bytes()),
                Some(Value::Bool(value)) => Filled::Bytes(value.to_string().into_bytes()),
                Some(Value::Number(number)) => match number.as_u64() {
                    Some(number) => Filled::Bytes(number.to_string().into_bytes()),
                    None => Filled::Unknown,
                },
                _ => Filled::Absent,
            };
        }
        if let Some(names) = name.strip_prefix("header:") {
            for name in names.split('|') {
                let mut lines = self.headers.get_all(name).iter();
                match (lines.next(), lines.next()) {
                    (None, _) => {}
                    (Some(value), None) => return Filled::Bytes(value.as_bytes().to_vec()),
                    (Some(_), Some(_)) => return Filled::Ambiguous,
                }
            }
            return Filled::Absent;
        }
        if let Some(name) = name.strip_prefix("query:") {
            return single(self.query().as_bytes(), name);
        }
        if name.starts_with("form") && !self.is_form {
            return Filled::Absent;
        }
        if let Some(name) = name.strip_prefix("form:") {
            return single(self.body, name);
        }
        Filled::Bytes(match name {
            "method" => b"POST".to_vec(),
            "url" | "url:without-port" => self.url(URL),
            "url:with-port" => self.url("https://hooks.example.com:443/x"),
            "url:decoded" => decoded(self.url(URL)),
            "path" => self.target.path().into(),
            "query" => self.query().into(),
            "body" => self.body.to_vec(),
            "form" => sorted(self.body),
            "timestamp" => TIMESTAMP.to_vec(),
            "sha256:body" => hex(&Sha256::digest(self.body)).into_bytes(),
            _ => return Filled::Unknown,
        })
    }
}

/// Only these are decoded, byte for byte.
fn decoded(url: Vec<u8>) -> Vec<u8> {
    let mut text = String::from_utf8(url).expect("a URL is text");
    let mut from = 0;
    while let Some(at) = text[from..].find('%').map(|at| from + at) {
        let mut delimiters = ":/?@!$'()*,;".chars();
        let delimiter = delimiters.find(|delimiter| {
            let escape = format!("%{:02x}", u32::from(*delimiter));
            let found = text.get(at..at + 3);
            found.is_some_and(|found| found.eq_ignore_ascii_case(&escape))
        });
        if let Some(delimiter) = delimiter {
            text.replace_range(at..at + 3, &delimiter.to_string());
        }
        from = at + 1;
    }
    text.into_bytes()
}

/// The result that [`Text::bytes`] and [`Text::fill`] must have: `Err` for an ambiguous field, `None` for an absent one.
/// An outer `None` means that the oracle does not know.
fn expected(
    parts: &[Part<'_>],
    input: &Input<'_>,
    may_be_empty: bool,
) -> Option<Result<Option<Vec<u8>>, ()>> {
    let mut all = Vec::new();
    for part in parts {
        let value = match part {
            Part::Text(text) => text.as_bytes().to_vec(),
            Part::Name(name) => match input.fill(name) {
                Filled::Bytes(value) => {
                    let fits =
                        may_be_empty || !value.is_empty() && std::str::from_utf8(&value).is_ok();
                    if !fits {
                        return Some(Ok(None));
                    }
                    value
                }
                Filled::Absent => return Some(Ok(None)),
                Filled::Ambiguous => return Some(Err(())),
                Filled::Unknown => return None,
            },
        };
        all.extend(value);
    }
    Some(Ok(Some(all)))
}

fuzz_target!(|input: &[u8]| {
    let (template, rest) = first_line(input);
    let Ok(template) = std::str::from_utf8(template) else {
        return;
    };
    let parts = read(template);
    let text = Text::parse(template);
    assert_eq!(text.is_ok(), parts.is_some(), "{template:?}");
    let (Ok(text), Some(parts)) = (text, parts) else {
        return;
    };
    assert_eq!(Text::parse(&text.to_string()).ok(), Some(text.clone()));

    let (target, rest) = first_line(rest);
    let target = Uri::try_from(target).unwrap_or_default();
    let (headers, body) = request(rest);
    let form = Form::parse(body);
    let is_form = fields(body).len() <= MAX_FIELDS;
    assert_eq!(form.is_some(), is_form);
    let document = Document::parse(body).ok();
    let json = serde_json::from_slice::<Value>(body).ok();
    let http = Request {
        method: &Method::POST,
        target: &target,
        headers: &headers,
        body,
        public_url: Some(URL),
        at: now() + Duration::from_secs(1),
    };
    let scope = Scope {
        form: form.as_ref(),
        node: document.as_ref().map(Document::root),
        timestamp: Some(TIMESTAMP),
        ..Scope::raw(&http)
    };
    let bytes = text
        .bytes(&scope)
        .map(|found| found.map(|pieces| pieces.concat()));
    let filled = text.fill(&scope).map(|found| found.map(String::into_bytes));
    // A name that is there twice is refused after filling in, and numbers may be too large for serde_json.
    let is_ambiguous = document
        .as_ref()
        .is_some_and(|document| document.ambiguous_name().is_some());
    if is_ambiguous || document.is_some() && json.is_none() {
        return;
    }
    let input = Input {
        target: &target,
        headers: &headers,
        body,
        is_form,
        json: json.as_ref().filter(|_| document.is_some()),
    };
    if let Some(expected) = expected(&parts, &input, true) {
        assert_eq!(bytes.map_err(|_| ()), expected, "{template:?}");
    }
    if let Some(expected) = expected(&parts, &input, false) {
        assert_eq!(filled.map_err(|_| ()), expected, "{template:?}");
    }
});
