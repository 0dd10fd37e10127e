//! Maps a key's path to the file, line and column where it was written, and to that line, made safe to show.
//!
//! The values are read here as well, so that each file is parsed once.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::hide_user_info;
use crate::table::problem::{Excerpt, Place, Problem};
use crate::table::syntax::{self, is_direction};

/// Maximum number of bytes that an excerpt shows on each side of a problem, so that a line of a terminal has room for it.
const EXCERPT_REACH: usize = 32;

/// Maximum length of a line that is shown whole, in bytes.
const WHOLE_LINE: usize = 80;

/// Replaces a masked value.
const MASK: &str = "***";

/// Keys whose values are shown in a file that is not valid TOML, where values cannot be delimited: none of them can hold a
/// secret.
const SHOWN_IN_BROKEN_FILES: [&str; 23] = [
    "listen",
    "ready_when",
    "kind",
    "path",
    "provider",
    "types",
    "source",
    "broker",
    "topic",
    "key",
    "fallback",
    "action",
    "tolerance",
    "dedup_window",
    "max_body",
    "header_timeout",
    "body_timeout",
    "idle_timeout",
    "publish_timeout",
    "shutdown_timeout",
    "drain_delay",
    "max_in_flight",
    "max_connections",
];

/// The location of each key of the merged configuration, as written last.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    files: Vec<Text>,
    entries: HashMap<Rc<str>, Entry>,
}

#[derive(Debug)]
struct Text {
    name: String,
    text: String,
    /// The offset of each line's start.
    lines: Vec<usize>,
    /// Scalars with their paths, sorted by position when the file has been read.
    values: Vec<(Range<usize>, Rc<str>)>,
}

#[derive(Debug)]
struct Entry {
    origin: ValueOrigin,
    /// The spans that problems with the value, and with the key itself, point at.
    value: Range<usize>,
    name: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ValueOrigin {
    File(usize),
    Variable(Rc<str>),
}

/// A span in a file, or a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    origin: ValueOrigin,
    span: Range<usize>,
}

impl Spans {
    /// Reads one file. The locations of its keys replace those of earlier files.
    ///
    /// # Errors
    /// All syntax errors of the file.
    pub(crate) fn add_file(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Map<String, Value>, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty()
            && let Some(what) = syntax::other_format(text)
        {
            return Err(vec![Problem::new(
                None,
                String::new(),
                &format!("{name} {what}"),
            )]);
        }
        let file = self.files.len();
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        self.files.push(Text {
            name: name.to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(starts).collect(),
            values: Vec::new(),
        });
        if !errors.is_empty() {
            let mut repeated = None;
            let mut faults = Vec::new();
            let mut lines = HashSet::new();
            for error in &errors {
                let span = error.span().unwrap_or_default();
                let mut message = error.message().to_owned();
                if message == "duplicate key" {
                    let header = header_before(text, span.start);
                    // A repeated table repeats its contents, too: one problem is enough.
                    if repeated.is_some() && repeated == header.as_ref().map(|(at, _)| *at) {
                        continue;
                    }
                    let (at, path) = header.unzip();
                    let path = path.unwrap_or_default();
                    let is_header = at.is_some_and(|at| {
                        let before = text.get(at..span.start);
                        before.is_some_and(|before| !before.contains('\n'))
                    });
                    repeated = at.filter(|_| is_header);
                    let key = text.get(span.clone()).unwrap_or_default();
                    let first = match is_header {
                        true => headers(text)
                            .find(|(_, other)| *other == path)
                            .map(|(at, _)| at),
                        false => first_place(table.get_ref(), &path, key),
                    };
                    let first = first.filter(|first| *first < span.start && Some(*first) != at);
                    let line = first
                        .map(|at| text.get(..at).unwrap_or_default().matches('\n').count() + 1);
                    message = match line {
                        Some(line) => format!(
                            "`{key}` is there twice, first in line {line}; remove one of the two"
                        ),
                        None => format!("`{key}` is there twice; remove one of the two"),
                    };
                } else if let Some(known) = self.files.get(file) {
                    let (line, start) = known.line_of(span.start);
                    // Further faults in a line follow from the first one.
                    if !lines.insert(line) {
                        continue;
                    }
                    let rest_of_line = |at: usize| {
                        let rest = text.get(at..).unwrap_or_default();
                        rest.lines().next().unwrap_or_default()
                    };
                    let rest = rest_of_line(span.start);
                    message = syntax::fault(&message, rest_of_line(start).trim(), rest);
                }
                let location = Location {
                    origin: ValueOrigin::File(file),
                    span,
                };
                faults.push(Problem {
                    excerpt: self.broken_excerpt(&location),
                    ..Problem::new(self.place(&location), String::new(), &message)
                });
            }
            return Err(faults);
        }
        let values = self.add_table("", table.get_ref(), file);
        if let Some(text) = self.files.get_mut(file) {
            text.values.sort_unstable_by_key(|(span, _)| span.start);
        }
        Ok(values)
    }

    /// Records that an environment variable sets the value of `path`.
    pub(crate) fn add_variable(&mut self, path: &str, name: &str) {
        let name = Rc::from(name);
        let entry = || Entry {
            origin: ValueOrigin::Variable(Rc::clone(&name)),
            value: 0..0,
            name: 0..0,
        };
        for (at, _) in path.match_indices('.') {
            if let Some(table) = path.get(..at) {
                self.entries.entry(Rc::from(table)).or_insert_with(entry);
            }
        }
        self.entries.insert(Rc::from(path), entry());
    }

    /// Whether an environment variable sets the value of this path.
    pub(crate) fn is_variable(&self, path: &str) -> bool {
        self.entry(path)
            .is_some_and(|entry| matches!(entry.origin, ValueOrigin::Variable(_)))
    }

    /// The location of a key's value, or of the nearest enclosing table that has one.
    pub(crate) fn locate(&self, path: &str) -> Option<Location> {
        let mut path = path;
        loop {
            if let Some(entry) = self.entry(path) {
                return Some(Location {
                    origin: entry.origin.clone(),
                    span: entry.value.clone(),
                });
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// The location of a key's own name.
    pub(crate) fn locate_name(&self, path: &str) -> Option<Location> {
        let named = self.entry(path).map(|entry| Location {
            origin: entry.origin.clone(),
            span: entry.name.clone(),
        });
        named.or_else(|| self.locate(path))
    }

    /// Line and column of a location.
    pub(crate) fn place(&self, location: &Location) -> Option<Place> {
        match &location.origin {
            ValueOrigin::Variable(name) => Some(Place::Environment(name.to_string())),
            ValueOrigin::File(file) => {
                let file = self.files.get(*file)?;
                let (line, start) = file.line_of(location.span.start);
                let before = file.text.get(start..location.span.start);
                Some(Place::File {
                    file: file.name.clone(),
                    line: line + 1,
                    column: before.unwrap_or_default().chars().count() + 1,
                })
            }
        }
    }

    /// The line of a location. Only the values of `harmless` paths are shown.
    pub(crate) fn excerpt(
        &self,
        location: &Location,
        harmless: &HashSet<String>,
    ) -> Option<Excerpt> {
        let file = self.file(location)?;
        let shown = file.window(&location.span);
        let mut line = Line::default();
        let mut at = shown.start;
        let first = file
            .values
            .partition_point(|(span, _)| span.end <= shown.start);
        for (span, path) in file.values.get(first..).unwrap_or_default() {
            if span.start >= shown.end {
                break;
            }
            let text = file.text.get(at..span.start.max(at)).unwrap_or_default();
            if !line.push_between_values(at, text) {
                return line.finish(&location.span);
            }
            let end = span.end.min(shown.end);
            // A multi-line value is masked.
            let value = file.text.get(span.clone()).unwrap_or_default();
            let is_harmless = harmless.contains(&**path) && !value.contains('\n');
            if is_harmless {
                line.push(span.start, &hide_user_info(value));
            } else {
                line.push_masked(span.start);
            }
            at = end;
        }
        let rest = file.text.get(at..shown.end.max(at)).unwrap_or_default();
        line.push_between_values(at, rest);
        line.finish(&location.span)
    }

    /// The line of a syntax error.
    fn broken_excerpt(&self, location: &Location) -> Option<Excerpt> {
        let file = self.file(location)?;
        let shown = file.window(&location.span);
        let (_, start) = file.line_of(location.span.start);
        let whole = file.text.get(start..shown.end)?;
        let mut line = Line::default();
        match whole.split_once('=') {
            _ if start != shown.start => return None,
            None if !whole.trim_start().starts_with('[') => return None,
            Some((key, _)) if !SHOWN_IN_BROKEN_FILES.contains(&key.trim()) => {
                line.push(start, key);
                line.push(start + key.len(), "= ");
                line.push_masked(start + key.len() + 1);
            }
            _ => {
                line.push_between_values(start, whole);
            }
        }
        line.finish(&location.span)
    }

    fn entry(&self, path: &str) -> Option<&Entry> {
        let entry = self.entries.get(path)?;
        // A list in a later file or variable replaces an earlier one completely.
        let is_current = path.match_indices('[').all(|(at, _)| {
            let list = path.get(..at).and_then(|list| self.entries.get(list));
            list.is_none_or(|list| list.origin == entry.origin)
        });
        is_current.then_some(entry)
    }

    fn file(&self, location: &Location) -> Option<&Text> {
        match &location.origin {
            ValueOrigin::File(file) => self.files.get(*file),
            ValueOrigin::Variable(_) => None,
        }
    }

    fn add_table(&mut self, path: &str, table: &DeTable<'_>, file: usize) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            let path: Rc<str> = join(path, key.get_ref()).into();
            // Problems with a scalar point at its value; those with a table at its name.
            let span = match value.get_ref() {
                DeValue::Table(_) | DeValue::Array(_) => key.span(),
                _ => value.span(),
            };
            let entry = Entry {
                origin: ValueOrigin::File(file),
                value: span,
                name: key.span(),
            };
            self.entries.insert(Rc::clone(&path), entry);
            values.insert(
                key.get_ref().to_string(),
                self.add_value(&path, value, file),
            );
        }
        values
    }

    fn add_value(&mut self, path: &Rc<str>, value: &Spanned<DeValue<'_>>, file: usize) -> Value {
        match value.get_ref() {
            DeValue::Table(table) => Value::Object(self.add_table(path, table, file)),
            DeValue::Array(values) => {
                let values = values.iter().enumerate().map(|(index, value)| {
                    let path: Rc<str> = format!("{path}[{index}]").into();
                    let entry = Entry {
                        origin: ValueOrigin::File(file),
                        value: value.span(),
                        name: value.span(),
                    };
                    self.entries.insert(Rc::clone(&path), entry);
                    self.add_value(&path, value, file)
                });
                Value::Array(values.collect())
            }
            scalar => {
                if let Some(text) = self.files.get_mut(file) {
                    text.values.push((value.span(), Rc::clone(path)));
                }
                to_json(scalar)
            }
        }
    }
}

impl Text {
    /// The index of the line at this offset, and the offset of its start.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let line = self
            .lines
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        (line, self.lines.get(line).copied().unwrap_or_default())
    }

    /// The part of the line that is shown for a span.
    fn window(&self, span: &Range<usize>) -> Range<usize> {
        let (line, start) = self.line_of(span.start);
        let next = self.lines.get(line + 1).copied();
        let end = next.map_or(self.text.len(), |next| next - 1);
        let most = if end.saturating_sub(start) <= WHOLE_LINE {
            WHOLE_LINE
        } else {
            EXCERPT_REACH
        };
        let reach = span.end.min(end).saturating_add(most);
        let from = start.max(span.start.saturating_sub(most));
        let from = (start..=from)
            .rev()
            .find(|at| self.text.is_char_boundary(*at));
        let to = (reach.min(end)..=end).find(|at| self.text.is_char_boundary(*at));
        from.unwrap_or(start)..to.unwrap_or(end)
    }
}

/// An excerpt under construction: characters with their offsets in the file.
#[derive(Debug, Default)]
struct Line(Vec<(usize, char)>);

impl Line {
    fn push(&mut self, offset: usize, text: &str) {
        let characters = text.char_indices().map(|(at, character)| {
            let is_shown = !character.is_control() && !is_direction(character);
            let shown = match character {
                '\t' => ' ',
                character if is_shown => character,
                _ => char::REPLACEMENT_CHARACTER,
            };
            (offset + at, shown)
        });
        self.0.extend(characters);
    }

    fn push_masked(&mut self, offset: usize) {
        self.0
            .extend(MASK.chars().map(|character| (offset, character)));
    }

    /// Adds keys and punctuation, up to a comment, which may contain a commented-out secret. Returns whether there was none.
    fn push_between_values(&mut self, offset: usize, text: &str) -> bool {
        let mut quote = None;
        for (at, character) in text.char_indices() {
            match (quote, character) {
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (None, '#') => {
                    self.push(offset, text.get(..at).unwrap_or_default().trim_end());
                    return false;
                }
                _ => {}
            }
        }
        self.push(offset, text.trim_end_matches(['\r', '\n']));
        true
    }

    fn finish(self, span: &Range<usize>) -> Option<Excerpt> {
        let from = |wanted: usize| self.0.partition_point(|(offset, _)| *offset < wanted);
        let (start, end) = (from(span.start), from(span.end));
        let line: String = self.0.iter().map(|(_, character)| character).collect();
        (!line.trim().is_empty()).then_some(Excerpt {
            line,
            start,
            width: end.saturating_sub(start).max(1),
        })
    }
}

/// The last table's header before an offset: its own offset, and its path.
fn header_before(text: &str, offset: usize) -> Option<(usize, Vec<&str>)> {
    headers(text).take_while(|(at, _)| *at <= offset).last()
}

/// The headers of tables, with their offsets.
fn headers(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let mut next = 0;
    text.split('\n').filter_map(move |line| {
        let at = next;
        next += line.len() + 1;
        if !line.trim_start().starts_with('[') {
            return None;
        }
        let path = line.split('#').next()?.trim().trim_matches(['[', ']']);
        let keys = path
            .split('.')
            .map(|key| key.trim().trim_matches(['"', '\'']));
        Some((at, keys.collect()))
    })
}

/// The offset of the first of two equal keys of a table.
fn first_place(table: &DeTable<'_>, path: &[&str], key: &str) -> Option<usize> {
    let mut table = table;
    for key in path {
        let (_, value) = table.iter().find(|(known, _)| known.get_ref() == key)?;
        table = match value.get_ref() {
            DeValue::Table(inner) => inner,
            DeValue::Array(values) => match values.iter().next_back()?.get_ref() {
                DeValue::Table(inner) => inner,
                _ => return None,
            },
            _ => return None,
        };
    }
    let name = key.trim_matches(['"', '\'']);
    let (first, _) = table.iter().find(|(known, _)| known.get_ref() == name)?;
    Some(first.span().start)
}

/// The path of a key in a table.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Parses a variable's text as a TOML value.
pub(crate) fn parse_value(text: &str) -> Option<Value> {
    DeValue::parse(text)
        .ok()
        .map(|value| to_json(value.get_ref()))
}

fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Value::String(integer.to_string()), Value::from),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| Value::String(float.to_string()), Value::Number),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| to_json(value.get_ref()))
                .collect(),
        ),
        DeValue::Table(table) => {
            let values = table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref())));
            Value::Object(values.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(spans: &Spans, path: &str) -> String {
        let place = spans.place(&spans.locate(path).unwrap());
        place.unwrap().to_string()
    }

    #[test]
    fn finds_values_keys_and_array_elements() {
        let mut spans = Spans::default();
        spans
            .add_file(
                "a.toml",
                "[http]\nlisten = \"x\"\n\n[[routes]]\ntypes = [\n  \"é\", \"b\"]\n[[routes]]\n",
            )
            .unwrap();
        assert_eq!(at(&spans, "http.listen"), "a.toml:2:10");
        assert_eq!(at(&spans, "http.unknown"), "a.toml:1:2");
        assert_eq!(at(&spans, "routes[0].types[1]"), "a.toml:6:8");
        assert_eq!(at(&spans, "routes[1].topic"), "a.toml:7:1");
        assert!(spans.locate("nowhere").is_none());
    }

    #[test]
    fn later_files_and_variables_replace_arrays() {
        let mut spans = Spans::default();
        spans.add_file("a.toml", "x = [1, 2]\ny = [1]").unwrap();
        spans.add_file("b.toml", "x = [1]").unwrap();
        assert_eq!(at(&spans, "x[1]"), "b.toml:1:1");
        spans.add_variable("y", "Y");
        assert_eq!(at(&spans, "y[0]"), "environment variable Y");
        spans.add_variable("a.b.c", "ABC");
        assert_eq!(at(&spans, "a"), "environment variable ABC");
    }

    #[test]
    fn tells_every_syntax_fault() {
        let problems = Spans::default()
            .add_file("a.toml", "a = \nb = 1\nc = [\n")
            .unwrap_err();
        assert!(problems.len() >= 2, "{problems:?}");
    }

    /// The excerpt for a path, with `^` below the part that it points at.
    fn excerpt(text: &str, path: &str, harmless: &[&str]) -> String {
        let mut spans = Spans::default();
        spans.add_file("a.toml", text).unwrap();
        let harmless = harmless.iter().map(|path| (*path).to_owned()).collect();
        let shown = spans.excerpt(&spans.locate(path).unwrap(), &harmless);
        let Excerpt { line, start, width } = shown.unwrap();
        format!("{line}\n{}{}", " ".repeat(start), "^".repeat(width))
    }

    #[test]
    fn an_excerpt_shows_no_value_that_is_not_known_to_be_harmless() {
        let line =
            "s = { a = \"é\", secrets = [\"hunter2\"], n = 7, u = \"nats://u:pw@h,i\" } # hunter3";
        assert_eq!(
            excerpt(line, "s.a", &["s.a", "s.u"]),
            "s = { a = \"é\", secrets = [***], n = ***, u = \"nats://***@h,i\" }\n          ^^^"
        );
        assert_eq!(
            excerpt(line, "s.secrets[0]", &[]),
            "s = { a = ***, secrets = [***], n = ***, u = *** }\n                          ^^^"
        );
        assert_eq!(
            excerpt("s = \"\"\"\none\nhunter2\"\"\"", "s", &["s"]),
            "s = ***\n    ^^^"
        );
        assert_eq!(
            excerpt("a\t= \"\u{202e}x\"", "a", &["a"]),
            "a = \"\u{fffd}x\"\n    ^^^^"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_problem() {
        let items: Vec<_> = (0..10_000).map(|item| format!("\"{item:04}\"")).collect();
        let text = format!("x = [{}]", items.join(","));
        let shown = excerpt(&text, "x[5000]", &["x[5000]"]);
        assert!(shown.len() < 1000 && shown.contains("\"5000\""), "{shown}");
    }

    #[test]
    fn a_broken_file_shows_a_line_only_where_it_can_hold_no_secret() {
        let shown = |text: &str| {
            let problems = Spans::default().add_file("a.toml", text).unwrap_err();
            let excerpts = problems.into_iter().filter_map(|problem| problem.excerpt);
            excerpts.map(|excerpt| excerpt.line).collect::<Vec<_>>()
        };
        assert_eq!(shown("listen = \"x\n"), ["listen = \"x"]);
        assert_eq!(shown("secrets = \"hunter2\n"), ["secrets = ***"]);
        assert_eq!(shown("secrets = [\n\"hunter2\n"), ["secrets = ***"; 0]);
    }
}
