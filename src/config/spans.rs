//! Key path to file, line and column: the `config` crate merges values but forgets where they stood.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// Where each key of the merged configuration was written last.
#[derive(Debug, Default)]
pub(super) struct Spans {
    values: HashMap<String, Place>,
    names: HashMap<String, Place>,
}

impl Spans {
    /// Notes the places of one file's keys, over those of the files before it.
    ///
    /// # Errors
    /// Each fault of the file's TOML.
    pub(super) fn add_file(&mut self, file: &str, text: &str) -> Result<(), Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors
                .iter()
                .map(|error| Problem {
                    place: Some(place(file, text, error.span().map_or(0, |span| span.start))),
                    what: error.message().to_owned(),
                })
                .collect());
        }
        self.add_table("", table.get_ref(), file, text);
        Ok(())
    }

    /// Notes that an environment variable gives the value of `path`.
    pub(super) fn add_variable(&mut self, path: &str, name: &str) {
        self.values
            .insert(path.to_owned(), Place::Environment(name.to_owned()));
    }

    /// The place of a key, or of the nearest table around it that has one.
    pub(super) fn place_of(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.values.get(path) {
                return Some(place.clone());
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    /// The place of a key's own name.
    pub(super) fn place_of_name(&self, path: &str) -> Option<Place> {
        self.names
            .get(path)
            .cloned()
            .or_else(|| self.place_of(path))
    }

    fn add_table(&mut self, path: &str, table: &DeTable<'_>, file: &str, text: &str) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            // A scalar's fault is in its value; a table's place is its name.
            let start = match value.get_ref() {
                DeValue::Table(_) | DeValue::Array(_) => key.span().start,
                _ => value.span().start,
            };
            self.values.insert(path.clone(), place(file, text, start));
            self.names
                .insert(path.clone(), place(file, text, key.span().start));
            self.add_value(&path, value, file, text);
        }
    }

    fn add_value(&mut self, path: &str, value: &Spanned<DeValue<'_>>, file: &str, text: &str) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(path, table, file, text),
            DeValue::Array(values) => {
                // A later file's array replaces an earlier one's as a whole.
                let prefix = format!("{path}[");
                self.values.retain(|known, _| !known.starts_with(&prefix));
                for (index, value) in values.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.values
                        .insert(path.clone(), place(file, text, value.span().start));
                    self.add_value(&path, value, file, text);
                }
            }
            _ => {}
        }
    }
}

/// A key's path below a table's.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn place(file: &str, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::File {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values_keys_and_array_elements() {
        let mut spans = Spans::default();
        spans
            .add_file(
                "a.toml",
                "[http]\nlisten = \"x\"\n\n[[routes]]\ntypes = [\n  \"é\", \"b\"]\n[[routes]]\n",
            )
            .unwrap();
        let at = |path| spans.place_of(path).unwrap().to_string();
        assert_eq!(at("http.listen"), "a.toml:2:10");
        assert_eq!(at("http.unknown"), "a.toml:1:2");
        assert_eq!(at("routes[0].types[1]"), "a.toml:6:8");
        assert_eq!(at("routes[1].topic"), "a.toml:7:1");
        assert!(spans.place_of("nowhere").is_none());
    }

    #[test]
    fn later_files_replace_arrays() {
        let mut spans = Spans::default();
        spans.add_file("a.toml", "x = [1, 2]").unwrap();
        spans.add_file("b.toml", "x = [1]").unwrap();
        assert_eq!(spans.place_of("x[1]").unwrap().to_string(), "b.toml:1:1");
    }

    #[test]
    fn tells_every_syntax_fault() {
        let problems = Spans::default()
            .add_file("a.toml", "a = \nb = 1\nc = [\n")
            .unwrap_err();
        assert!(problems.len() >= 2, "{problems:?}");
    }
}
