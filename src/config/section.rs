//! Reads one table of the configuration key by key. Each key that is asked for is a known one; what is left over at the
//! end is reported, with the nearest known key. A bad value is reported and its default taken, so that reading goes on
//! and every problem is found in one go.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::files::Files;
use super::problem::Problem;
use super::secret::Secret;
use super::spans::{Spans, join};

/// The longest secret file that is read, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// What all sections of one configuration share.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) spans: Spans,
    pub(super) environment: HashMap<String, String>,
    pub(super) files: RefCell<Files>,
    pub(super) problems: RefCell<Vec<Problem>>,
    pub(super) warnings: RefCell<Vec<Problem>>,
}

impl Reading {
    pub(super) fn problem(&self, path: &str, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            place: self.spans.place_of(path),
            what: what.into(),
        });
    }

    pub(super) fn warn(&self, path: &str, what: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem {
            place: self.spans.place_of(path),
            what: what.into(),
        });
    }

    /// Fills in `${NAME}` and `${NAME:-default}`. What is filled in is never looked at again.
    fn interpolate(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let (expression, behind) = after
                .split_once('}')
                .ok_or_else(|| "`${` has no `}`".to_owned())?;
            let (name, default) = match expression.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (expression, None),
            };
            match (self.environment.get(name), default) {
                (Some(value), _) if !value.is_empty() || default.is_none() => {
                    filled.push_str(value)
                }
                (_, Some(default)) => filled.push_str(default),
                _ => {
                    return Err(format!(
                        "the environment variable {name} is not set; set it, or write `${{{name}:-default}}`"
                    ));
                }
            }
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct Section<'r> {
    reading: &'r Reading,
    path: String,
    values: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    pub(super) fn new(reading: &'r Reading, path: String, values: Map<String, Value>) -> Self {
        Self {
            reading,
            path,
            values,
            asked: Vec::new(),
        }
    }

    /// Reports a problem with the table itself.
    pub fn problem(&self, what: impl Into<String>) {
        self.reading.problem(&self.path, what);
    }

    /// Reports a problem with one of its keys.
    pub fn problem_at(&self, key: &str, what: impl Into<String>) {
        self.reading.problem(&join(&self.path, key), what);
    }

    /// Warns about one of its keys.
    pub fn warn_at(&self, key: &str, what: impl Into<String>) {
        self.reading.warn(&join(&self.path, key), what);
    }

    /// Warns about the table itself.
    pub fn warn(&self, what: impl Into<String>) {
        self.reading.warn(&self.path, what);
    }

    /// Whether the key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether the key's value is a list.
    #[must_use]
    pub fn is_list(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Array(_)))
    }

    /// The names of all keys, for tables whose keys are names of the user's.
    pub(super) fn names(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// A text, with `${NAME}` filled in.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        self.to_text(&join(&self.path, key), value)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, key: &'static str, example: &str) -> Option<String> {
        if !self.has(key) {
            self.asked.push(key);
            self.problem(format!(
                "{} lacks `{key}`; write for example `{key} = {example}`",
                self.title()
            ));
            return None;
        }
        self.text(key)
    }

    /// A value that is written as text.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem_at(key, format!("{text:?} is not {expected}"));
        }
        parsed
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.problem_at(
            key,
            format!(
                "{text:?} is none of {}{}",
                known.join(", "),
                did_you_mean(&text, known.iter().copied())
            ),
        );
        None
    }

    /// `"10s"`, within bounds.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        self.optional_duration(key, least, most).unwrap_or(default)
    }

    /// `"10s"`, within bounds, or nothing.
    pub fn optional_duration(
        &mut self,
        key: &'static str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = self.text(key)?;
        match humantime::parse_duration(&text) {
            Ok(duration) if duration >= least && duration <= most => Some(duration),
            Ok(_) => {
                let (least, most) = (
                    humantime::format_duration(least),
                    humantime::format_duration(most),
                );
                self.problem_at(
                    key,
                    format!("{text:?} is out of bounds; write a duration from {least} to {most}"),
                );
                None
            }
            Err(error) => {
                self.problem_at(
                    key,
                    format!(
                        "{text:?} is no duration ({error}); write for example \"10s\" or \"1h 30m\""
                    ),
                );
                None
            }
        }
    }

    /// `"1MiB"` in bytes, within bounds, or nothing.
    pub fn size(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        let text = self.text(key)?;
        let size = text
            .parse::<ByteSize>()
            .ok()
            .and_then(|size| usize::try_from(size.as_u64()).ok());
        match size {
            Some(size) if size >= least && size <= most => Some(size),
            Some(_) => {
                let show = |bytes: usize| ByteSize(bytes as u64).display().iec().to_string();
                self.problem_at(
                    key,
                    format!(
                        "{text:?} is out of bounds; write a size from {} to {}",
                        show(least),
                        show(most)
                    ),
                );
                None
            }
            None => {
                self.problem_at(
                    key,
                    format!("{text:?} is no size; write for example \"1MiB\" or \"64KiB\""),
                );
                None
            }
        }
    }

    /// A whole number within bounds, or nothing.
    pub fn count(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        let text = self.text(key)?;
        let count = text
            .parse::<usize>()
            .ok()
            .filter(|count| (least..=most).contains(count));
        if count.is_none() {
            self.problem_at(
                key,
                format!("{text:?} is not a whole number from {least} to {most}"),
            );
        }
        count
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.word(key, &[("true", true), ("false", false)])
            .unwrap_or(default)
    }

    /// A list of texts; a single text is a list of one, and commas separate several in an environment variable.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let path = join(&self.path, key);
        match self.take(key)? {
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
                Some(text.split(',').map(|text| text.trim().to_owned()).collect())
            }
        }
    }

    /// The key and value of each entry of a table whose values may be secrets.
    pub fn secret_map(&mut self, key: &'static str) -> Vec<(String, Zeroizing<String>)> {
        let Some(table) = self.section(key) else {
            return Vec::new();
        };
        let entries = table.values.into_iter();
        entries
            .filter_map(|(name, value)| {
                let path = join(&table.path, &name);
                let text = match value {
                    value @ Value::Object(_) => {
                        Zeroizing::new(self.to_secret(&path, value)?.expose().to_owned())
                    }
                    value => Zeroizing::new(self.to_text(&path, value)?),
                };
                Some((name, text))
            })
            .collect()
    }

    /// A path; relative ones are relative to the working directory.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.text(key).map(PathBuf::from)?;
        self.note_file(&path);
        Some(path)
    }

    /// Notes a file that has a part in the configuration.
    pub(super) fn note_file(&self, path: &Path) {
        self.reading.files.borrow_mut().note(path);
    }

    /// A secret: `"text"`, `{ env = "NAME" }` or `{ file = "/run/secrets/x" }`.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let path = join(&self.path, key);
        let value = self.take(key)?;
        self.to_secret(&path, value)
    }

    /// The text of a file that nobody else should be able to read.
    pub(super) fn private_file(&self, key: &str, file: &Path) -> Option<Zeroizing<String>> {
        self.secret_file(&join(&self.path, key), file)
            .map(Zeroizing::new)
    }

    /// Several secrets.
    pub fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        let path = join(&self.path, key);
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) if values.is_empty() => {
                self.reading
                    .problem(&path, "no secret, no signature: list at least one");
                Vec::new()
            }
            Some(Value::Array(values)) => {
                let values = values.into_iter().enumerate();
                values
                    .filter_map(|(index, value)| self.to_secret(&format!("{path}[{index}]"), value))
                    .collect()
            }
            Some(value) => self.to_secret(&path, value).into_iter().collect(),
        }
    }

    /// A table.
    pub fn section(&mut self, key: &'static str) -> Option<Self> {
        let value = self.take(key)?;
        self.to_section(join(&self.path, key), value)
    }

    /// A table under a name of the user's.
    pub(super) fn named_section(&mut self, name: &str) -> Option<Self> {
        let value = self.values.remove(name)?;
        self.to_section(join(&self.path, name), value)
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let path = join(&self.path, key);
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                let values = values.into_iter().enumerate();
                values
                    .filter_map(|(index, value)| self.to_section(format!("{path}[{index}]"), value))
                    .collect()
            }
            Some(_) => {
                self.reading.problem(
                    &path,
                    format!("`{key}` is a list of tables; write `[[{key}]]`"),
                );
                Vec::new()
            }
        }
    }

    /// A word, or a table that says more.
    pub(super) fn word_or_section(&mut self, key: &'static str) -> Option<WordOrSection<'r>> {
        let path = join(&self.path, key);
        match self.take(key)? {
            value @ Value::Object(_) => self.to_section(path, value).map(WordOrSection::Section),
            value => self.to_text(&path, value).map(WordOrSection::Word),
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        for key in self.values.keys() {
            let suggestion = did_you_mean(key, self.asked.iter().copied());
            let what = format!(
                "unknown key `{}` in {}{suggestion}",
                key.escape_debug(),
                self.title()
            );
            let place = self.reading.spans.place_of_name(&join(&self.path, key));
            self.reading
                .problems
                .borrow_mut()
                .push(Problem { place, what });
        }
    }

    /// Forgets the keys that were not asked for: what they mean can't be said after a problem that was reported.
    pub fn finish_quietly(&mut self) {
        self.values.clear();
    }

    /// What the table is called in a message.
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

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.values.remove(key)
    }

    fn to_section(&self, path: String, value: Value) -> Option<Self> {
        match value {
            Value::Object(values) => Some(Self::new(self.reading, path, values)),
            _ => {
                self.reading.problem(
                    &path,
                    format!("`{path}` is a table; write `[{path}]` or `{{ … }}`"),
                );
                None
            }
        }
    }

    fn to_text(&self, path: &str, value: Value) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.reading.problem(path, "a text is needed here");
                return None;
            }
        };
        self.reading
            .interpolate(&text)
            .map_err(|what| self.reading.problem(path, what))
            .ok()
    }

    fn to_secret(&self, path: &str, value: Value) -> Option<Secret> {
        let text = match value {
            value @ Value::Object(_) => {
                let mut table = self.to_section(path.to_owned(), value)?;
                let (name, file) = (table.text("env"), table.path("file"));
                let text = match (name, file) {
                    (Some(name), None) => self.secret_variable(path, &name),
                    (None, Some(file)) => self.secret_file(path, &file),
                    _ => {
                        table.problem("a secret is a text, `{ env = \"NAME\" }` or `{ file = \"/run/secrets/x\" }`");
                        None
                    }
                };
                table.finish();
                text?
            }
            value => self.to_text(path, value)?,
        };
        let secret = Secret::new(text);
        if secret.is_none() {
            self.reading.problem(
                path,
                "the secret is empty; anyone could sign with an empty secret",
            );
        }
        secret
    }

    fn secret_variable(&self, path: &str, name: &str) -> Option<String> {
        let text = self.reading.environment.get(name).cloned();
        if text.is_none() {
            self.reading
                .problem(path, format!("the environment variable {name} is not set"));
        }
        text
    }

    fn secret_file(&self, path: &str, file: &Path) -> Option<String> {
        self.note_file(file);
        match read_secret_file(file) {
            Ok((text, mode)) => {
                if mode & 0o077 != 0 {
                    let advice = format!(
                        "{} can be read by others (mode {:03o}); use mode 0400 or 0600",
                        file.display(),
                        mode & 0o777
                    );
                    self.reading.warn(path, advice);
                }
                Some(text)
            }
            Err(error) => {
                self.reading.problem(
                    path,
                    format!("the secret file {} can't be read: {error}", file.display()),
                );
                None
            }
        }
    }
}

/// What [`Section::word_or_section`] found.
pub(super) enum WordOrSection<'r> {
    Word(String),
    Section(Section<'r>),
}

/// The file's text without its last line break, and its mode.
fn read_secret_file(file: &Path) -> std::io::Result<(String, u32)> {
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() || metadata.len() > MAX_SECRET_FILE {
        return Err(std::io::Error::other("it is no file of a secret's size"));
    }
    let mut text = std::fs::read_to_string(file)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok((text, metadata.permissions().mode()))
}

/// `; did you mean "x"?`, where something near enough is known.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min();
    match nearest {
        Some((distance, candidate)) if distance <= 2.max(candidate.len() / 3) => {
            format!("; did you mean \"{candidate}\"?")
        }
        _ => String::new(),
    }
}
