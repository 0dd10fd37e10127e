//! The cases of `hookbridge test`, read from TOML: a request and the expected results.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::samples;
use crate::config::{Config, Source};
use crate::providers;
use crate::table::key::{FILE, Key, NAME, TEXT, Table, Type, words};
use crate::table::{Problem, Reading, Section, Spans, did_you_mean};

/// No source accepts a larger body.
const MAX_EVENT: u64 = 256 * 1024 * 1024 + 1;

/// A request and the expected results.
pub(super) struct Case {
    pub(super) name: String,
    /// File and line.
    pub(super) place: String,
    pub(super) source: Arc<Source>,
    pub(super) method: Method,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// One for each event of the request.
    pub(super) expected: Vec<Expected>,
}

/// The expected outcome of an event. `None` is not compared.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) outcome: Option<&'static str>,
    pub(super) status: Option<usize>,
    pub(super) code: Option<String>,
    pub(super) pointer: Option<String>,
    pub(super) id: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) route: Option<usize>,
    pub(super) broker: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) key: Option<String>,
    pub(super) fallback: Option<String>,
    pub(super) copies: Option<Vec<String>>,
    pub(super) headers: Vec<(String, String)>,
    /// Of a handshake's answer.
    pub(super) body: Option<String>,
}

/// The outcomes, as answers and metrics call them.
const OUTCOMES: [(&str, &str); 5] = [
    ("published", "published"),
    ("ignored", "ignored"),
    ("dead_lettered", "dead_lettered"),
    ("refused", "refused"),
    ("handshake", "handshake"),
];

static CASES: Table = Table::new(&[&[Key::new("cases", Type::Tables(&CASE))]]);

static CASE: Table = Table::new(&[&[
    Key::new("name", Type::Text(&TEXT)).required("\"an issue goes to its topic\""),
    Key::new("source", Type::Text(&NAME)),
    Key::new("method", Type::Text(&TEXT)),
    Key::new("query", Type::Text(&TEXT)),
    // Text, or any table.
    Key::new("event", Type::Text(&TEXT)),
    Key::new("file", Type::Text(&FILE)),
    Key::new("sample", Type::Text(&TEXT)),
    Key::new("headers", Type::Map(&Type::Text(&TEXT))),
    Key::new("expect", Type::TableOrTables(&EXPECTED)),
]]);

static EXPECTED: Table = Table::new(&[&[
    Key::new("outcome", Type::Words(&words(&OUTCOMES))),
    Key::new(
        "status",
        Type::Count {
            least: 100,
            most: 599,
        },
    ),
    Key::new("code", Type::Text(&TEXT)),
    Key::new("pointer", Type::Text(&TEXT)),
    Key::new("id", Type::Text(&TEXT)),
    Key::new("type", Type::Text(&TEXT)),
    Key::new(
        "route",
        Type::Count {
            least: 1,
            most: usize::MAX,
        },
    ),
    Key::new("broker", Type::Text(&NAME)),
    Key::new("topic", Type::Text(&TEXT)),
    Key::new("key", Type::Text(&TEXT)),
    Key::new("fallback", Type::Text(&NAME)),
    Key::new("copies", Type::List(&Type::Text(&TEXT))),
    Key::new("headers", Type::Map(&Type::Text(&TEXT))),
    Key::new("body", Type::Text(&TEXT)),
]]);

/// Reads the cases of a file for this configuration.
///
/// # Errors
/// Every problem of the file.
pub(super) fn read(config: &Config, file: &Path, text: &str) -> Result<Vec<Case>, Vec<Problem>> {
    let mut spans = Spans::default();
    let values = spans.add_file(&file.display().to_string(), text)?;
    let reading = Reading {
        spans,
        is_verbatim: true,
        ..Reading::default()
    };
    let mut root = Section::new(&reading, String::new(), values, &CASES);
    let folder = file.parent().unwrap_or(Path::new(""));
    let sections = root.sections("cases");
    if sections.is_empty() {
        let what = format!("no case in {}; write `[[cases]]`", file.display());
        root.problem(what);
    }
    let mut cases = Vec::new();
    for (index, section) in sections.into_iter().enumerate() {
        let location = reading.spans.locate(&format!("cases[{index}]"));
        let place = location.and_then(|location| reading.spans.place(&location));
        let place = place.map_or_else(|| file.display().to_string(), |place| place.to_string());
        cases.extend(read_case(config, folder, place, section));
    }
    root.finish();
    let (problems, _) = reading.take_findings();
    match problems.as_slice() {
        [] => Ok(cases),
        _ => Err(problems),
    }
}

fn read_case(
    config: &Config,
    folder: &Path,
    place: String,
    mut section: Section<'_>,
) -> Option<Case> {
    let name = section.required_text("name");
    let source = read_source(config, &mut section);
    // A handshake may have no body.
    let needs_event = !section.has("method") && !section.has("query");
    let method = section.parsed("method", "an HTTP method; write for example \"GET\"");
    let query = section.text("query");
    let event = read_event(folder, source.as_deref(), needs_event, &mut section);
    let own = section.section("headers").map(read_headers);
    let expected: Vec<Expected> = section.tables("expect").into_iter().map(expect).collect();
    if expected.is_empty() {
        section.problem("lacks `expect`; write for example `expect = { topic = \"hooks\" }`");
    }
    section.finish();
    let (mut headers, body) = event?;
    for (name, value) in own.into_iter().flatten() {
        headers.insert(name, value);
    }
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    Some(Case {
        name: name?,
        place,
        source: source?,
        method: method.unwrap_or(Method::POST),
        query,
        headers,
        body,
        expected,
    })
}

/// The source that the case names, or the only one there is.
fn read_source(config: &Config, section: &mut Section<'_>) -> Option<Arc<Source>> {
    let names = || config.sources.iter().map(|source| source.name.as_str());
    let is_named = section.has("source");
    let name = section.text("source");
    if !is_named {
        return match config.sources.as_slice() {
            [only] => Some(Arc::clone(only)),
            _ => {
                let names: Vec<_> = names().collect();
                section.problem(format!(
                    "must name its `source`, because there are several; write one of {}",
                    names.join(", ")
                ));
                None
            }
        };
    }
    let name = name?;
    let found = config.sources.iter().find(|source| source.name == name);
    if found.is_none() {
        let shown = section.quote("source", &name);
        section.problem_at(
            "source",
            format!(
                "the source {shown} is not defined{}",
                did_you_mean(&name, names())
            ),
        );
    }
    found.cloned()
}

/// Headers and body of the event: text, a table, a file or a sample.
fn read_event(
    folder: &Path,
    source: Option<&Source>,
    needs_event: bool,
    section: &mut Section<'_>,
) -> Option<(HeaderMap, Vec<u8>)> {
    let keys = ["event", "file", "sample"];
    let given: Vec<_> = keys.into_iter().filter(|key| section.has(key)).collect();
    let (event, file, sample) = (
        section.value("event"),
        section.text("file"),
        section.text("sample"),
    );
    if let [_, second, ..] = given.as_slice() {
        section.problem_at(
            second,
            "`event`, `file` and `sample` exclude each other; keep one of them",
        );
        return None;
    }
    match (event, file, sample) {
        (Some(Value::String(text)), _, _) => Some((HeaderMap::new(), text.into_bytes())),
        (Some(value), _, _) => Some((HeaderMap::new(), value.to_string().into_bytes())),
        (_, Some(file), _) => {
            let path = folder.join(&file);
            let mut body = Vec::new();
            let read = std::fs::File::open(&path)
                .and_then(|opened| opened.take(MAX_EVENT).read_to_end(&mut body));
            match read {
                Ok(_) => Some((HeaderMap::new(), body)),
                Err(error) => {
                    let what = format!("{} can't be read: {error}", path.display());
                    section.problem_at("file", what);
                    None
                }
            }
        }
        (_, _, Some(sample)) => {
            let preset = providers::find(source?.provider);
            let found = preset
                .ok_or_else(|| "the source has no preset, and so no samples".to_owned())
                .and_then(|preset| {
                    samples::find(preset, &sample).map_err(|error| error.to_string())
                });
            match found {
                Ok(found) => {
                    let fresh = samples::fresh(&found);
                    Some((fresh.headers, fresh.body))
                }
                Err(what) => {
                    section.problem_at("sample", what);
                    None
                }
            }
        }
        (None, None, None) if given.is_empty() && !needs_event => {
            Some((HeaderMap::new(), Vec::new()))
        }
        (None, None, None) => {
            if given.is_empty() {
                section.problem(
                    "has no event; write `event`, `file` or `sample`, for example `sample = \"ping\"`",
                );
            }
            None
        }
    }
}

fn read_headers(mut section: Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, value) in section.take_text_map() {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_str(&value).ok());
        match parsed {
            Some(header) => headers.push(header),
            None => section.problem_at(&name, "this is not a valid header"),
        }
    }
    headers
}

fn expect(mut section: Section<'_>) -> Expected {
    if section.names().is_empty() {
        section.problem("expects nothing; write for example `topic = \"hooks\"`");
    }
    let mut headers = section.section("headers");
    let expected = Expected {
        outcome: section.word("outcome", &OUTCOMES),
        status: section.optional_count("status"),
        code: section.text("code"),
        pointer: section.text("pointer"),
        id: section.text("id"),
        event_type: section.text("type"),
        route: section.optional_count("route"),
        broker: section.text("broker"),
        topic: section.text("topic"),
        key: section.text("key"),
        fallback: section.text("fallback"),
        copies: section.texts("copies"),
        headers: headers
            .as_mut()
            .map(Section::take_text_map)
            .unwrap_or_default(),
        body: section.text("body"),
    };
    section.finish();
    expected
}
