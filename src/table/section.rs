//! Reads one table of the configuration key by key. Keys that are asked for are known; the others are reported at the end,
//! with the nearest known key. An invalid value is reported and replaced by its default, so that one run finds every problem.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::table::files::Files;
use crate::table::key::{EMPTY, FILE, Key, Shape, TEXT, Table, Type, to_duration, to_size};
use crate::table::private;
use crate::table::problem::Problem;
use crate::table::spans::{Location, Spans, join, parse_value};

/// Maximum size of a secret file, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Shorter signing secrets cause a warning: 128 bits are the least that cannot be guessed.
const LEAST_SECRET: usize = 16;

/// The table that a secret may be.
pub(super) static SECRET: Table = Table::new(&[&[
    Key::new("env", Type::Text(&TEXT)).about("an environment variable"),
    Key::new("file", Type::Text(&FILE)).about("a file of up to 64 KiB"),
]]);

/// State shared by all sections of one configuration.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) spans: Spans,
    pub(crate) environment: HashMap<String, String>,
    pub(crate) secrets: Secrets,
    pub(crate) files: RefCell<Files>,
    pub(crate) problems: RefCell<Vec<Noted>>,
    pub(crate) warnings: RefCell<Vec<Noted>>,
    /// The paths of values that are not secrets. Only these may be shown.
    pub(crate) harmless: RefCell<HashSet<String>>,
    /// The values with a `${NAME}`, as written.
    pub(crate) written: RefCell<HashMap<String, String>>,
    /// The environment variables that values refer to.
    pub(crate) variables: RefCell<HashSet<String>>,
    /// Whether values are taken as they are, without filling in `${NAME}`.
    pub(crate) is_verbatim: bool,
    /// Collects the keys that were asked for, if set.
    pub(crate) known_keys: Option<RefCell<BTreeSet<String>>>,
}

/// The treatment of secrets while reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets {
    /// Each must be there.
    #[default]
    All,
    /// Variables and files that are not there are warned of, for a check where they are not.
    MayBeMissing,
    /// Signing secrets are not read, for commands that verify nothing.
    WithoutSigning,
}

/// Up to how many keys of a table a message lists.
const MOST_LISTED: usize = 20;

const SECRET_FORMS: &str =
    "write the text itself, `{ env = \"NAME\" }` or `{ file = \"/run/secrets/NAME\" }`";

/// Stands in for a secret that may be missing.
const PLACEHOLDER: &str = "a secret that is not there";

/// A problem, recorded before it is known which parts of its line may be shown.
#[derive(Debug)]
pub(crate) struct Noted {
    location: Option<Location>,
    key: String,
    message: String,
}

impl Reading {
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) {
        self.problem_in(self.spans.locate(path), path, message);
    }

    fn problem_in(&self, location: Option<Location>, path: &str, message: impl Into<String>) {
        let mut message = message.into();
        // The line is right, and what is wrong is elsewhere.
        if let Some(variables) = self.variables_in(path)
            && !message.contains("environment variable")
        {
            let separator = if message.contains("; ") { ", and" } else { ";" };
            message.push_str(&format!(
                "{separator} look at the environment variable {variables}, which it is filled from"
            ));
        }
        self.problems.borrow_mut().push(Noted {
            location,
            key: path.to_owned(),
            message,
        });
    }

    /// The names of the variables that a value has as `${NAME}`.
    fn variables_in(&self, path: &str) -> Option<String> {
        let written = self.written.borrow();
        let names = written.get(path)?.split("${").skip(1).filter_map(|rest| {
            let (name, _) = rest.split_once('}')?;
            Some(name.split(":-").next().unwrap_or(name))
        });
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    pub(crate) fn warn(&self, path: &str, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Noted {
            location: self.spans.locate(path),
            key: path.to_owned(),
            message: message.into(),
        });
    }

    /// Problems and warnings, each sorted and with its line.
    pub(crate) fn take_findings(&self) -> (Vec<Problem>, Vec<Problem>) {
        let harmless = self.harmless.borrow();
        let show = |noted: Noted| {
            let location = noted.location.as_ref();
            let place = location.and_then(|location| self.spans.place(location));
            let excerpt = location.and_then(|location| self.spans.excerpt(location, &harmless));
            Problem {
                excerpt,
                ..Problem::new(place, noted.key, &noted.message)
            }
        };
        let sorted = |noted: &RefCell<Vec<Noted>>| {
            let mut problems: Vec<_> = noted.take().into_iter().map(show).collect();
            problems.sort();
            problems
        };
        (sorted(&self.problems), sorted(&self.warnings))
    }

    /// Expands `${NAME}` and `${NAME:-default}`. The result is not expanded again.
    fn interpolate(&self, path: &str, text: &str) -> Result<String, ExpansionError> {
        if self.is_verbatim {
            return Ok(text.to_owned());
        }
        if text.contains("${") {
            let written = (path.to_owned(), text.to_owned());
            self.written.borrow_mut().extend([written]);
        }
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let (expression, behind) = after.split_once('}').ok_or(ExpansionError::NotClosed)?;
            let (name, default) = match expression.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (expression, None),
            };
            self.variables.borrow_mut().insert(name.to_owned());
            match (self.environment.get(name), default) {
                (Some(value), _) if !value.is_empty() || default.is_none() => {
                    filled.push_str(value)
                }
                (_, Some(default)) => filled.push_str(default),
                _ if matches!(name, "type" | "source") || name.starts_with('/') => {
                    return Err(ExpansionError::Placeholder(name.to_owned()));
                }
                _ => return Err(ExpansionError::NotSet(name.to_owned())),
            }
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// A mistake in a reference to an environment variable.
#[derive(Debug, thiserror::Error)]
enum ExpansionError {
    #[error("`${{` has no `}}`; write `${{NAME}}`")]
    NotClosed,
    #[error("the environment variable {0} is not set; set it, or write `${{{0}:-default}}`")]
    NotSet(String),
    #[error("the environment variable {0} is not set; set it")]
    HiddenNotSet(String),
    #[error(
        "`${{{0}}}` is the environment variable {0}, which is not set; templates have no `$`: write `{{{0}}}`"
    )]
    Placeholder(String),
}

/// A table that is being read.
#[derive(Debug)]
pub struct Section<'r> {
    reading: &'r Reading,
    path: String,
    values: Map<String, Value>,
    asked: Vec<Cow<'static, str>>,
    shape: Shape,
    /// The keys that a source's preset has besides those of every source.
    own_keys: Vec<String>,
}

impl<'r> Section<'r> {
    pub(crate) fn new(
        reading: &'r Reading,
        path: String,
        values: Map<String, Value>,
        table: &'static Table,
    ) -> Self {
        Self::shaped(reading, path, values, Shape::Table(table, None))
    }

    fn shaped(
        reading: &'r Reading,
        path: String,
        values: Map<String, Value>,
        shape: Shape,
    ) -> Self {
        Self {
            reading,
            path,
            values,
            asked: Vec::new(),
            shape,
            own_keys: Vec::new(),
        }
    }

    /// Sets the keys that a message about an unknown one lists.
    pub fn set_own_keys(&mut self, keys: Vec<String>) {
        self.own_keys = keys;
    }

    pub fn problem(&self, what: impl Into<String>) {
        self.reading.problem(&self.path, what);
    }

    pub fn problem_at(&self, key: &str, what: impl Into<String>) {
        self.reading.problem(&join(&self.path, key), what);
    }

    pub fn warn_at(&self, key: &str, what: impl Into<String>) {
        self.reading.warn(&join(&self.path, key), what);
    }

    /// A value in quotes for a message, as written: a variable's content may be a secret.
    #[must_use]
    pub fn quote(&self, key: &str, value: &str) -> String {
        let written = self.reading.written.borrow();
        let written = written.get(&join(&self.path, key));
        let shown = written.map_or(value, String::as_str);
        format!("\"{}\"", shown.escape_debug())
    }

    /// Whether a value, or a part of it, came from a variable and may be a secret, which advice must not repeat.
    pub(crate) fn is_filled_in(&self, key: &str) -> bool {
        let written = self.reading.written.borrow();
        written.contains_key(&join(&self.path, key))
    }

    /// Warns if others can read a file that only the bridge should read.
    pub(crate) fn warn_of_exposure(&self, key: &str, file: &Path) {
        if let Some(what) = private::exposure_of(file) {
            self.warn_at(key, what);
        }
    }

    pub fn warn(&self, what: impl Into<String>) {
        self.reading.warn(&self.path, what);
    }

    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The key's text as written, without marking the key as read.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    #[must_use]
    pub fn is_list(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Array(_)))
    }

    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Array(values)) if values.is_empty())
    }

    /// Whether a table of tables with names has the keys of one of them, `[sources]` for `[sources.NAME]`. Says so, too.
    pub(crate) fn refuse_nameless(&mut self, inner: &Table, name: &str) -> bool {
        let is_inner = |(key, value): (&String, &Value)| {
            !value.is_object() && (inner.find(key).is_some() || key == "name")
        };
        let is_nameless = self.values.iter().any(is_inner);
        if is_nameless {
            let path = &self.path;
            self.problem(format!(
                "has the keys of one table of `{path}`, which has a name; write for example `[{path}.{name}]`"
            ));
            self.values.clear();
        }
        is_nameless
    }

    /// Whether one of the keys is unknown and means this one: [`Self::finish`] says so, and that the key is absent is no
    /// further problem.
    #[must_use]
    pub fn is_misspelt(&self, key: &str) -> bool {
        let is_meant = |name: &String| {
            self.shape.note(name).is_none() && self.meant(name).is_some_and(|meant| meant == key)
        };
        !self.has(key) && self.unknown().any(|(name, _)| is_meant(name))
    }

    /// The keys that no entry describes, each with the keys in it if it is a table.
    #[must_use]
    pub fn unknown_keys(&self) -> Vec<(String, Vec<String>)> {
        let keys = self.unknown().map(|(name, value)| {
            let inner = value.as_object().into_iter().flatten();
            (
                name.clone(),
                inner.map(|(inner, _)| inner.clone()).collect(),
            )
        });
        keys.collect()
    }

    fn unknown(&self) -> impl Iterator<Item = (&String, &Value)> {
        let is_known =
            |name: &String| self.shape.find(name).is_some() || self.own_keys.contains(name);
        self.values.iter().filter(move |(name, _)| !is_known(name))
    }

    /// The key that was probably meant by one that the table does not have.
    fn meant(&self, name: &str) -> Option<&str> {
        let plain = plain_name(name);
        let is_meant = |key: &&Key| key.name == plain || key.other_names.contains(&plain.as_str());
        let other = self.shape.keys().find(is_meant).map(|key| key.name);
        other.or_else(|| {
            let asked = self.asked.iter().map(AsRef::as_ref);
            nearest(name, asked.chain(self.shape.keys().map(|key| key.name)))
        })
    }

    /// The advice for a key that the table does not have.
    fn advice(&self, name: &str) -> String {
        if self.shape.find(name).is_some() {
            // It depends on others.
            return ": it means nothing here; remove it".to_owned();
        }
        if let Some(note) = self.shape.note(name) {
            return format!("; {note}");
        }
        if let Some(meant) = self.meant(name) {
            let key = self.shape.find(meant);
            let is_other_name = key.is_some_and(|key| {
                key.other_names.contains(&plain_name(name).as_str()) && key.name != plain_name(name)
            });
            let header = match key.map(|key| (key.name, &key.value)) {
                Some((name, Type::Map(_))) => Some(format!("[{name}.NAME]")),
                Some((name, Type::Tables(_))) => Some(format!("[[{name}]]")),
                _ => None,
            };
            return match (header, key.and_then(Key::line)) {
                (Some(header), _) if self.path.is_empty() => format!("; write `{header}`"),
                (_, Some(line)) if is_other_name => format!("; write for example {line}"),
                _ => format!("; did you mean \"{meant}\"?"),
            };
        }
        let names: Vec<_> = self.shape.keys().map(|key| key.name).collect();
        match names.len() {
            0 => String::new(),
            1..=MOST_LISTED => format!("; its keys are {}", names.join(", ")),
            _ => "; docs/configuration.md lists its keys".to_owned(),
        }
    }

    /// All keys, for tables with user-defined keys.
    pub(crate) fn names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// A string, with `${NAME}` expanded.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        self.to_text(&join(&self.path, key), value)
    }

    /// A value of any type, as written.
    pub(crate) fn value(&mut self, key: &'static str) -> Option<Value> {
        self.take(key)
    }

    /// A string whose absence is a problem.
    pub fn required_text(&mut self, key: &'static str) -> Option<String> {
        if !self.has(key) {
            if self.is_misspelt(key) {
                return None;
            }
            let example = self.entry(key).example.unwrap_or("\"…\"");
            self.problem(format!(
                "lacks `{key}`; write for example `{key} = {example}`"
            ));
            return None;
        }
        self.text(key)
    }

    /// A string that is parsed, or the default; `expected` completes "… is not".
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        let usual = self
            .entry(key)
            .default_text()
            .and_then(|text| text.parse().ok());
        let Some(text) = self.text(key) else {
            return usual;
        };
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let shown = self.quote(key, &text);
            self.problem_at(key, format!("{shown} is not {expected}"));
        }
        parsed.or(usual)
    }

    /// One of the key's words, with its meaning; the default's where there is one.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let entry = self.entry(key);
        debug_assert!(
            matches!(entry.value, Type::Words(known) if known.iter().eq(words.iter().map(|(word, _)| word)))
                || matches!(entry.value, Type::Flag),
            "the words of `{key}` are not those of its entry"
        );
        let meaning = |text: &str| {
            let mut words = words.iter();
            words
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
        };
        let usual = || meaning(entry.default_text()?);
        let Some(text) = self.text(key) else {
            return usual();
        };
        if let Some(value) = meaning(&text) {
            if let Shape::Table(table, _) = self.shape
                && let Some(variant) = table.variant(key, &text)
            {
                self.shape = Shape::Table(table, Some(variant));
            }
            return Some(value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let suggestion = match did_you_mean(&text, known.iter().copied()) {
            none if none.is_empty() => "; write one of them".to_owned(),
            suggestion => suggestion,
        };
        self.problem_at(
            key,
            format!(
                "{} is not one of {}{}",
                self.quote(key, &text),
                known.join(", "),
                suggestion
            ),
        );
        usual()
    }

    /// A duration such as `"10s"` within the key's bounds, or its default.
    pub fn duration(&mut self, key: &'static str) -> Duration {
        let usual = self.entry(key).default_text().and_then(to_duration);
        debug_assert!(usual.is_some(), "`{key}` has no default");
        self.optional_duration(key).or(usual).unwrap_or_default()
    }

    /// The same without a default.
    pub fn optional_duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.text(key)?;
        let Type::Duration { least, most } = self.entry(key).value else {
            debug_assert!(false, "`{key}` is not a duration");
            return None;
        };
        let is_within = |duration: &Duration| {
            to_duration(least).is_some_and(|least| *duration >= least)
                && to_duration(most).is_some_and(|most| *duration <= most)
        };
        let what = match humantime::parse_duration(&text) {
            Ok(duration) if is_within(&duration) => return Some(duration),
            Ok(_) => {
                format!("is out of bounds; write a duration from {least} to {most}")
            }
            Err(_)
                if !text.is_empty()
                    && text.bytes().all(|byte| byte.is_ascii_digit())
                    && !self.is_filled_in(key) =>
            {
                format!("has no unit; write \"{text}s\" for seconds, or \"{text}ms\"")
            }
            Err(_) => "is not a valid duration; write for example \"10s\" or \"1h 30m\"".to_owned(),
        };
        self.problem_at(key, format!("{} {what}", self.quote(key, &text)));
        None
    }

    /// A size such as `"1MiB"` within the key's bounds, in bytes, or its default.
    pub fn size(&mut self, key: &'static str) -> usize {
        let usual = self.entry(key).default_text().and_then(to_size);
        debug_assert!(usual.is_some(), "`{key}` has no default");
        self.optional_size(key).or(usual).unwrap_or_default()
    }

    /// The same without a default.
    pub fn optional_size(&mut self, key: &'static str) -> Option<usize> {
        let text = self.text(key)?;
        let Type::Size { least, most } = self.entry(key).value else {
            debug_assert!(false, "`{key}` is not a size");
            return None;
        };
        let is_within = |size: usize| {
            to_size(least).is_some_and(|least| size >= least)
                && most.is_none_or(|most| to_size(most).is_some_and(|most| size <= most))
        };
        let what = match to_size(&text) {
            Some(size) if is_within(size) => return Some(size),
            Some(_) => match most {
                Some(most) => format!("is out of bounds; write a size from {least} to {most}"),
                None => format!("is out of bounds; write {least} or more"),
            },
            None => "is not a valid size; write for example \"1MiB\" or \"64KiB\"".to_owned(),
        };
        self.problem_at(key, format!("{} {what}", self.quote(key, &text)));
        None
    }

    /// A whole number within the key's bounds, or its default.
    pub fn count(&mut self, key: &'static str) -> usize {
        let usual = self
            .entry(key)
            .default_text()
            .and_then(|text| text.parse().ok());
        debug_assert!(usual.is_some(), "`{key}` has no default");
        self.optional_count(key).or(usual).unwrap_or_default()
    }

    /// The same without a default.
    pub fn optional_count(&mut self, key: &'static str) -> Option<usize> {
        let text = self.text(key)?;
        let Type::Count { least, most } = self.entry(key).value else {
            debug_assert!(false, "`{key}` is not a count");
            return None;
        };
        let count = text
            .parse::<usize>()
            .ok()
            .filter(|count| (least..=most).contains(count));
        if count.is_none() {
            self.problem_at(
                key,
                format!(
                    "{} is not a whole number within bounds; write one from {least} to {most}",
                    self.quote(key, &text)
                ),
            );
        }
        count
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> bool {
        debug_assert!(
            matches!(self.entry(key).value, Type::Flag) && self.entry(key).default_text().is_some()
        );
        self.word(key, &[("true", true), ("false", false)])
            .unwrap_or_default()
    }

    /// A list of strings, or the default. A single string is a list of one; in an environment variable, commas separate
    /// several.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let given = self.given_texts(key);
        given.or_else(|| {
            let usual = parse_value(self.entry(key).default_text()?)?;
            let texts = usual.as_array()?.iter().filter_map(Value::as_str);
            Some(texts.map(str::to_owned).collect())
        })
    }

    fn given_texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let path = join(&self.path, key);
        match self.take_list(key, &path)? {
            Value::Array(values) => {
                let texts = values.into_iter().enumerate();
                Some(
                    texts
                        .filter_map(|(index, value)| {
                            self.to_text(&format!("{path}[{index}]"), value)
                        })
                        .collect(),
                )
            }
            value => {
                let text = self.to_text(&path, value)?;
                let texts: Vec<_> = text.split(',').map(|text| text.trim().to_owned()).collect();
                let mut written = self.reading.written.borrow_mut();
                if let Some(whole) = written.get(&path).cloned() {
                    let indices = (0..texts.len()).map(|index| format!("{path}[{index}]"));
                    written.extend(indices.map(|path| (path, whole.clone())));
                }
                Some(texts)
            }
        }
    }

    /// The entries of a table whose values may be secrets.
    pub fn secret_map(&mut self, key: &'static str) -> Vec<(String, Zeroizing<String>)> {
        let Some(table) = self.section(key) else {
            return Vec::new();
        };
        let entries = table.values.into_iter();
        entries
            .filter_map(|(name, value)| {
                let path = join(&table.path, &name);
                let text = match value {
                    Value::Object(inner) if is_split_name(&inner) => {
                        let whole = split_name(&name, &inner);
                        self.reading.problem(
                            &path,
                            format!("a dot in a name makes a table of it; write the name in quotes: `\"{whole}\" = …`"),
                        );
                        return None;
                    }
                    value @ Value::Object(_) => {
                        Zeroizing::new(self.to_secret(&path, value)?.expose().to_owned())
                    }
                    value => {
                        let text = self.to_hidden_text(&path, value)?;
                        self.refuse_unfilled(&path, &text);
                        Zeroizing::new(text)
                    }
                };
                Some((name, text))
            })
            .collect()
    }

    /// Relative paths are relative to the working directory.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.text(key).map(PathBuf::from)?;
        self.note_file(&path);
        Some(path)
    }

    /// Records a file that the configuration depends on.
    pub(crate) fn note_file(&self, path: &Path) {
        self.reading.files.borrow_mut().note(path);
    }

    /// A secret: `"text"`, `{ env = "NAME" }` or `{ file = "/run/secrets/x" }`.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let path = join(&self.path, key);
        let value = self.take(key)?;
        self.to_secret(&path, value)
    }

    /// A secret that only the service needs: commands that verify nothing do not ask for it.
    pub(crate) fn own_secret(&mut self, key: &'static str) -> Option<Secret> {
        if self.reading.secrets == Secrets::WithoutSigning {
            self.take(key);
            return None;
        }
        self.secret(key)
    }

    /// The content of a file that only the bridge should be able to read.
    pub(crate) fn private_file(&self, key: &str, file: &Path) -> Option<Zeroizing<String>> {
        self.secret_file(&join(&self.path, key), file)
            .map(Zeroizing::new)
    }

    pub fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        let path = join(&self.path, key);
        if self.reading.secrets == Secrets::WithoutSigning {
            self.take(key);
            return Vec::new();
        }
        match self.take_list(key, &path) {
            None => Vec::new(),
            Some(Value::Array(values)) if values.is_empty() => {
                self.reading.problem(
                    &path,
                    "without a secret no signature can be verified; list at least one",
                );
                Vec::new()
            }
            Some(Value::Array(values)) => {
                let values = values.into_iter().enumerate();
                values
                    .filter_map(|(index, value)| {
                        self.signing_secret(&format!("{path}[{index}]"), value)
                    })
                    .collect()
            }
            Some(value) => self.signing_secret(&path, value).into_iter().collect(),
        }
    }

    fn signing_secret(&self, path: &str, value: Value) -> Option<Secret> {
        let secret = self.to_secret(path, value)?;
        // It could not be decoded.
        if self.reading.secrets == Secrets::MayBeMissing && secret.expose() == PLACEHOLDER {
            return None;
        }
        if secret.expose().len() < LEAST_SECRET {
            let what = format!(
                "the secret has fewer than {LEAST_SECRET} bytes and could be guessed; let the provider make a longer one"
            );
            self.reading.warn(path, what);
        }
        Some(secret)
    }

    pub fn section(&mut self, key: &'static str) -> Option<Self> {
        let value = self.take(key)?;
        self.to_section(join(&self.path, key), value, self.shape_of(key))
    }

    /// A section for a table that is absent, so that every key has its default.
    pub(crate) fn section_or_empty(&mut self, key: &'static str) -> Self {
        let path = join(&self.path, key);
        let empty = Self::shaped(self.reading, path, Map::new(), self.shape_of(key));
        self.section(key).unwrap_or(empty)
    }

    /// A table with a user-defined key.
    pub(crate) fn named_section(&mut self, name: &str) -> Option<Self> {
        let value = self.values.remove(name)?;
        let shape = match self.shape {
            Shape::Map(values) => Shape::of(values),
            Shape::Table(..) => None,
        };
        let shape = shape.unwrap_or(Shape::Table(&EMPTY, None));
        self.to_section(join(&self.path, name), value, shape)
    }

    /// Takes the values, to put them back after merging defaults. `names` are known keys from then on.
    pub(crate) fn take_values(
        &mut self,
        names: impl IntoIterator<Item = String>,
    ) -> Map<String, Value> {
        self.asked.extend(names.into_iter().map(Cow::Owned));
        std::mem::take(&mut self.values)
    }

    pub(crate) fn put_back(&mut self, values: Map<String, Value>) {
        self.values = values;
    }

    /// A table, or a list of tables.
    pub fn tables(&mut self, key: &'static str) -> Vec<Self> {
        // In an environment variable, a list is a string.
        let is_text = matches!(self.values.get(key), Some(Value::String(text)) if text.trim_start().starts_with('['));
        if self.is_list(key) || is_text {
            self.sections(key)
        } else {
            self.section(key).into_iter().collect()
        }
    }

    /// The tables of `[[key]]`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let path = join(&self.path, key);
        match self.take_list(key, &path) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                let values = values.into_iter().enumerate();
                let shape = self.shape_of(key);
                values
                    .filter_map(|(index, value)| {
                        self.to_section(format!("{path}[{index}]"), value, shape)
                    })
                    .collect()
            }
            Some(_) => {
                let example = self.shape_of(key).inline();
                let example = example.unwrap_or_else(|| "{ … }".to_owned());
                let write = match self.path.is_empty() {
                    true => format!("write `[[{key}]]`"),
                    false => format!("write `{key} = [{example}]`"),
                };
                let what = format!("`{key}` is a list of tables; {write}");
                self.reading.problem(&path, what);
                Vec::new()
            }
        }
    }

    /// A word, or a table in its place.
    pub(crate) fn word_or_section(&mut self, key: &'static str) -> Option<WordOrSection<'r>> {
        let path = join(&self.path, key);
        let shape = self.shape_of(key);
        match self.take(key)? {
            value @ Value::Object(_) => self
                .to_section(path, value, shape)
                .map(WordOrSection::Section),
            value => self.to_text(&path, value).map(WordOrSection::Word),
        }
    }

    /// A list of words and tables; a single one is a list of one.
    pub fn words_or_sections(&mut self, key: &'static str) -> Vec<WordOrSection<'r>> {
        let path = join(&self.path, key);
        let values = match self.take_list(key, &path) {
            None => return Vec::new(),
            Some(Value::Array(values)) => values,
            Some(value) => vec![value],
        };
        let shape = self.shape_of(key);
        let values = values.into_iter().enumerate().map(|(index, value)| {
            let path = format!("{path}[{index}]");
            match value {
                value @ Value::Object(_) => self
                    .to_section(path, value, shape)
                    .map(WordOrSection::Section),
                value => self.to_text(&path, value).map(WordOrSection::Word),
            }
        });
        values.flatten().collect()
    }

    /// All entries of a table with user-defined keys and string values.
    pub fn take_text_map(&mut self) -> Vec<(String, String)> {
        let values = std::mem::take(&mut self.values);
        let texts = values.into_iter().filter_map(|(name, value)| {
            let text = self.to_text(&join(&self.path, &name), value)?;
            Some((name, text))
        });
        texts.collect()
    }

    /// Reports the keys that were not asked for.
    pub fn finish(self) {
        let own_keys = match self.own_keys.as_slice() {
            [] => String::new(),
            keys => format!("; keys of this preset: {}", keys.join(", ")),
        };
        for key in self.values.keys() {
            let what = format!(
                "unknown key `{}` in {}{}{own_keys}",
                key.escape_debug(),
                self.title(),
                self.advice(key)
            );
            let path = join(&self.path, key);
            let location = self.reading.spans.locate_name(&path);
            self.reading.problem_in(location, &path, what);
        }
        self.note_known_keys();
    }

    fn note_known_keys(&self) {
        if let Some(known) = &self.reading.known_keys
            && !self.path.contains('[')
        {
            let keys = self.asked.iter().map(|key| join(&self.path, key));
            known.borrow_mut().extend(keys);
        }
    }

    /// Discards the remaining keys: after a reported problem, their meaning is unknown.
    pub fn finish_quietly(&mut self) {
        self.values.clear();
    }

    /// The table's name in messages.
    #[must_use]
    pub fn title(&self) -> String {
        let copy = self
            .path
            .split_once("].copy_to[")
            .map(|(route, _)| format!("{route}]"));
        let ordinal = copy
            .as_deref()
            .unwrap_or(&self.path)
            .strip_prefix("routes[")
            .and_then(|rest| rest.strip_suffix(']'));
        match ordinal.and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => format!("route {}", index + 1),
            None if self.path.is_empty() => "the configuration".to_owned(),
            None => format!("[{}]", self.path),
        }
    }

    /// A value that may be a list. In an environment variable, it is a string that must be parsed first.
    fn take_list(&mut self, key: &'static str, path: &str) -> Option<Value> {
        let value = self.take(key)?;
        let Value::String(text) = &value else {
            return Some(value);
        };
        if !self.reading.spans.is_variable(path) {
            return Some(value);
        }
        let text = text.trim();
        if text.starts_with(['[', '{']) {
            let parsed = parse_value(text);
            if parsed.is_none() {
                self.reading.problem(
                    path,
                    "starts like a list or table, but is not valid TOML; write for example [\"one\", \"two\"] or [{ env = \"NAME\" }]",
                );
            }
            return parsed;
        }
        if text.len() > 1 && text.starts_with(['"', '\'']) && text.ends_with(['"', '\'', ']', ','])
        {
            self.reading.problem(
                path,
                "is in quotes, which would be a part of the value; write the value without them, or a TOML array such as [\"one\", \"two\"]",
            );
            return None;
        }
        Some(value)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        debug_assert_eq!(self.entry(key).name, key);
        self.asked.push(key.into());
        self.values.remove(key)
    }

    fn entry(&self, key: &str) -> &'static Key {
        self.shape.key(key)
    }

    /// The shape of the tables that a key's value may be.
    fn shape_of(&self, key: &str) -> Shape {
        Shape::of(&self.entry(key).value).unwrap_or(Shape::Table(&EMPTY, None))
    }

    /// Removes a key that belongs elsewhere. Returns whether it was there.
    pub(crate) fn discard(&mut self, key: &str) -> bool {
        self.values.remove(key).is_some()
    }

    fn to_section(&self, path: String, value: Value, shape: Shape) -> Option<Self> {
        match value {
            Value::Object(values) => Some(Self::shaped(self.reading, path, values, shape)),
            value => {
                let name = path
                    .strip_prefix("routes[")
                    .and_then(|rest| rest.split_once("]."));
                let name = name.map_or(path.as_str(), |(_, name)| name);
                let key = name.rsplit_once('.').map_or(name, |(_, key)| key);
                let write = match (shape, shape.inline()) {
                    (Shape::Map(Type::Table(_)), _) if value.is_array() => {
                        format!("write `[{path}.NAME]` for each of them, with one pair of brackets")
                    }
                    (_, Some(example)) if key.ends_with(']') => format!("write `{example}`"),
                    (_, Some(example)) => format!("write `{key} = {example}`"),
                    (_, None) => format!("write `[{path}]` or `{key} = {{ … }}`"),
                };
                let what = format!("`{name}` is a table; {write}");
                self.reading.problem(&path, what);
                None
            }
        }
    }

    fn to_text(&self, path: &str, value: Value) -> Option<String> {
        self.reading.harmless.borrow_mut().insert(path.to_owned());
        self.to_hidden_text(path, value)
    }

    /// A string that must not appear in messages.
    fn to_hidden_text(&self, path: &str, value: Value) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let kind = if value.is_array() { "list" } else { "table" };
                let key = path.strip_prefix(&self.path);
                let key = key.and_then(|key| self.shape.find(key.trim_start_matches('.')));
                let write = match key.and_then(Key::line) {
                    Some(line) => format!("; write for example {line}"),
                    None => format!("; write one value instead of the {kind}"),
                };
                self.reading
                    .problem(path, format!("is a {kind}, and takes one value{write}"));
                return None;
            }
        };
        self.reading
            .interpolate(path, &text)
            .map_err(|mistake| {
                let mistake = match mistake {
                    // A default for a secret would be one that everybody can read.
                    ExpansionError::NotSet(name) if !self.is_harmless(path) => {
                        ExpansionError::HiddenNotSet(name)
                    }
                    mistake => mistake,
                };
                self.reading.problem(path, mistake.to_string());
            })
            .ok()
    }

    fn is_harmless(&self, path: &str) -> bool {
        self.reading.harmless.borrow().contains(path)
    }

    fn to_secret(&self, path: &str, value: Value) -> Option<Secret> {
        let mut text = match value {
            value @ Value::Object(_) => {
                let shape = Shape::Table(&SECRET, None);
                let mut table = self.to_section(path.to_owned(), value, shape)?;
                if table.has("env") == table.has("file") {
                    let what = match table.has("env") {
                        true => "has both `env` and `file`; keep one of the two".to_owned(),
                        false => format!("is not a secret; {SECRET_FORMS}"),
                    };
                    table.problem(what);
                    table.finish_quietly();
                    return None;
                }
                let (name, file) = (table.text("env"), table.path("file"));
                let text = match (name, file) {
                    (Some(name), None) => self.secret_variable(path, &name),
                    (None, Some(file)) => self.secret_file(path, &file),
                    _ => None,
                };
                table.finish();
                text?
            }
            value => {
                let is_text = value.is_string();
                let text = self.to_hidden_text(path, value)?;
                if self.refuse_unfilled(path, &text) {
                    return None;
                }
                if let Some(what) = not_a_secret(&text).filter(|_| is_text) {
                    self.reading
                        .problem(path, format!("{what}; {SECRET_FORMS}"));
                    return None;
                }
                text
            }
        };
        drop_line_break(&mut text);
        if text.trim() != text && !text.trim().is_empty() && !text.contains("-----BEGIN") {
            self.reading.warn(
                path,
                "the secret begins or ends with white space, which is a part of it; remove it, unless the sender has it too",
            );
        } else if has_invisible(&text) {
            self.reading.warn(
                path,
                "the secret contains a line break, a byte order mark or another character that is not seen, which is a part of it; remove it, unless the sender has it too",
            );
        }
        let is_quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
        if is_quoted('"') || is_quoted('\'') {
            self.reading.warn(
                path,
                "the secret is in quotes, which are a part of it; remove them, unless the sender has them too",
            );
        }
        let secret = Secret::new(text);
        if secret.is_none() {
            self.reading.problem(
                path,
                "the secret is empty, and anyone could sign with an empty secret; set it",
            );
        }
        secret
    }

    /// Refuses `$NAME` and similar text, which is not expanded and would become the secret itself. Returns whether it did.
    fn refuse_unfilled(&self, path: &str, text: &str) -> bool {
        let name = text
            .strip_prefix("$(")
            .and_then(|name| name.strip_suffix(')'))
            .or_else(|| text.strip_prefix('$'));
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            bytes
                .next()
                .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let is_unfilled = name.is_some_and(is_name)
            || text.starts_with("{{") && text.ends_with("}}")
            || text.starts_with('%') && text.ends_with('%') && is_name(text.trim_matches('%'));
        // The expansion of a `${NAME}` is taken literally.
        let is_written = !self.reading.written.borrow().contains_key(path);
        if is_unfilled && is_written {
            self.reading.problem(
                path,
                "looks like a variable that was not expanded, and would be taken literally; write `{ env = \"NAME\" }` or \"${NAME}\"",
            );
        }
        is_unfilled && is_written
    }

    fn secret_variable(&self, path: &str, name: &str) -> Option<String> {
        if let Some(plain) = name.strip_prefix('$') {
            let plain = plain.trim_matches(['{', '}']);
            let what =
                format!("the name of a variable has no `$`; write `{{ env = \"{plain}\" }}`");
            self.reading.problem(path, what);
            return None;
        }
        self.reading.variables.borrow_mut().insert(name.to_owned());
        let text = self.reading.environment.get(name).cloned();
        text.or_else(|| {
            let what = format!("the environment variable {name} is not set; set it to the secret");
            self.missing_secret(path, what)
        })
    }

    fn missing_secret(&self, path: &str, what: String) -> Option<String> {
        if self.reading.secrets == Secrets::MayBeMissing {
            self.reading.warn(path, what);
            return Some(PLACEHOLDER.to_owned());
        }
        self.reading.problem(path, what);
        None
    }

    fn secret_file(&self, path: &str, file: &Path) -> Option<String> {
        self.note_file(file);
        match private::read(file, MAX_SECRET_FILE) {
            Ok(opened) => {
                if let Some(what) = private::exposure(file, &opened.metadata) {
                    self.reading.warn(path, what);
                }
                Some(opened.text.to_string())
            }
            Err(error) => {
                let what = format!("the secret file {} can't be read: {error}", file.display());
                match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        let help = "; mount it, or write the path of a file that is there";
                        self.missing_secret(path, what + help)
                    }
                    _ => {
                        self.reading.problem(path, what);
                        None
                    }
                }
            }
        }
    }
}

/// The result of [`Section::word_or_section`].
pub enum WordOrSection<'r> {
    Word(String),
    Section(Section<'r>),
}

/// Whether a table is what a dot in an unquoted name made, and not a secret.
fn is_split_name(table: &Map<String, Value>) -> bool {
    !table.is_empty() && !table.keys().any(|key| key == "env" || key == "file")
}

/// The name that was written without its quotes.
fn split_name(name: &str, inner: &Map<String, Value>) -> String {
    let (mut whole, mut inner) = (name.to_owned(), Some(inner));
    while let Some((key, value)) = inner.and_then(|table| table.iter().next()) {
        whole = join(&whole, key);
        inner = value.as_object().filter(|table| is_split_name(table));
    }
    whole
}

/// Removes one line break at the end of a secret, which comes from its file or variable.
fn drop_line_break(text: &mut String) {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
}

/// Whether a secret contains what nobody sees who looks at it. Keys in PEM and JSON are written in lines.
fn has_invisible(text: &str) -> bool {
    let is_written_in_lines = text.contains("-----BEGIN") || text.trim_start().starts_with('{');
    let is_invisible =
        |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}');
    !is_written_in_lines && text.contains(is_invisible)
}

/// The reason why a text is a reference to a secret, or stands for one, and is not the secret itself.
fn not_a_secret(text: &str) -> Option<&'static str> {
    let is_name = |name: &str| {
        let is_plain =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        !name.is_empty() && name.bytes().all(is_plain)
    };
    let is_reference = text.strip_prefix("env:").is_some_and(is_name)
        || ["file:/", "vault:", "/run/secrets/", "/var/run/secrets/"]
            .iter()
            .any(|start| text.starts_with(start));
    let sample = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    // A password may have the brackets, but hardly words alone between them.
    let is_word = |byte: u8| byte.is_ascii_alphabetic() || b" _-".contains(&byte);
    let is_sample = sample.is_some_and(|sample| sample.bytes().all(is_word));
    match (is_reference, is_sample) {
        (true, _) => {
            Some("names a place where the secret is, and would be taken for the secret itself")
        }
        (_, true) => Some("is what an example has in place of a secret"),
        _ => None,
    }
}

/// A key's name as ours are written: `publishTimeout`, `publish-timeout` and `PUBLISH_TIMEOUT` are `publish_timeout`.
fn plain_name(name: &str) -> String {
    let mut plain = String::new();
    let mut before = 'A';
    for character in name.chars() {
        if character.is_ascii_uppercase() && before.is_ascii_lowercase() {
            plain.push('_');
        }
        before = character;
        plain.push(match character {
            '-' | '.' | ' ' => '_',
            character => character.to_ascii_lowercase(),
        });
    }
    plain
}

/// `; did you mean "x"?` if a known word is similar enough, else empty.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let meant = nearest(word, known);
    meant.map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?"))
}

/// The known word that is similar enough.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()?;
    (distance <= 2.max(nearest.len() / 3)).then_some(nearest)
}
