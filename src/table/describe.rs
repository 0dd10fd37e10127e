//! Tables as JSON Schema (2020-12), and as Markdown for the reference.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::table::key::{Default, Key, Syntax, Table, Type};
use crate::table::section::SECRET;
use crate::table::spans::parse_value;

/// A reference to a variable, which any text may contain: only the reader knows what it becomes.
const VARIABLE: &str = r"\$\{";

/// humantime's syntax and units.
const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+$|^0$";
const SIZE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpPeE][iI]?)?[bB]?\s*$";

impl Table {
    /// The JSON Schema of the table, with the keys of all presets.
    #[must_use]
    pub fn to_schema(&self) -> Map<String, Value> {
        let mut schema = self.properties(&[]);
        if self.variants.is_empty() {
            schema.insert("additionalProperties".to_owned(), false.into());
            return schema;
        }
        let variants = self.variants.iter().map(|variant| {
            let mut then = self.properties(variant.table.keys);
            then.insert("additionalProperties".to_owned(), false.into());
            json!({
                "if": { "properties": { variant.key: { "const": variant.word } }, "required": [variant.key] },
                "then": then,
            })
        });
        schema.insert("allOf".to_owned(), variants.collect());
        schema
    }

    fn properties(&self, more: &[&[Key]]) -> Map<String, Value> {
        let keys = self.keys.iter().chain(more).copied().flatten();
        let keys: Vec<_> = keys.filter(|key| !key.is_internal).collect();
        let properties: Map<_, _> = keys
            .iter()
            .map(|key| (key.name.to_owned(), key.to_schema()))
            .collect();
        let required = keys.iter().filter(|key| key.default == Default::Required);
        let required: Vec<Value> = required.map(|key| key.name.into()).collect();
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        schema
    }

    /// The rows of the reference.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text =
            "| key | type | default | bounds and meaning |\n| --- | --- | --- | --- |\n".to_owned();
        for key in self.keys().filter(|key| !key.is_internal) {
            let bounds = key.value.bounds();
            let preset = key.preset.map(|preset| format!("`{preset}` only"));
            let about = Some(key.about.to_owned()).filter(|about| !about.is_empty());
            let meaning: Vec<_> = [preset, bounds, about].into_iter().flatten().collect();
            // Writing to a text does not fail.
            let _written = writeln!(
                text,
                "| `{}` | {} | {} | {} |",
                key.name,
                key.value.noun(),
                key.shown_default(),
                meaning.join("; ")
            );
        }
        text
    }

    /// The type at a path of keys.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&'static Type> {
        let (name, rest) = path
            .split_once('.')
            .map_or((path, None), |(name, rest)| (name, Some(rest)));
        let value = &self.find(name)?.value;
        match rest {
            None => Some(value),
            Some(rest) => value.table()?.at(rest),
        }
    }
}

impl Key {
    /// The JSON Schema of the key's value.
    #[must_use]
    pub fn to_schema(&self) -> Value {
        let mut schema = self.value.to_schema();
        if let Some(members) = schema.as_object_mut() {
            let bounds = self.value.bounds();
            let about = Some(plain(self.about)).filter(|about| !about.is_empty());
            let default = match self.default {
                Default::Depends(words) if words.starts_with("required") => Some(plain(words)),
                Default::Depends(words) => Some(format!("default: {}", plain(words))),
                _ => None,
            };
            let parts: Vec<_> = [about, bounds, default].into_iter().flatten().collect();
            if !parts.is_empty() {
                members.insert("description".to_owned(), parts.join("; ").into());
            }
            let default = self
                .default_text()
                .map(|text| self.value.default_value(text));
            members.extend(default.map(|default| ("default".to_owned(), default)));
            let example = self.example.and_then(parse_value);
            members.extend(example.map(|example| ("examples".to_owned(), json!([example]))));
        }
        schema
    }

    fn shown_default(&self) -> String {
        match self.default {
            Default::Required => "required".to_owned(),
            Default::Nothing => "none".to_owned(),
            Default::Value(text) => format!("`{}`", self.value.default_value(text)),
            Default::Depends(words) => words.to_owned(),
        }
    }
}

impl Type {
    /// The JSON Schema of a value.
    #[must_use]
    pub fn to_schema(&self) -> Value {
        match self {
            Self::Flag => {
                json!({ "type": ["boolean", "string"], "pattern": or_variable("^(true|false)$") })
            }
            Self::Count { least, most } => {
                let mut schema = json!({ "type": ["integer", "string"], "minimum": least, "pattern": or_variable("^[0-9]+$") });
                if *most < usize::MAX
                    && let Some(members) = schema.as_object_mut()
                {
                    members.insert("maximum".to_owned(), (*most).into());
                }
                schema
            }
            Self::Number => json!({ "type": "number" }),
            Self::Duration { .. } => json!({ "type": "string", "pattern": or_variable(DURATION) }),
            Self::Size { .. } => {
                json!({ "type": ["string", "integer"], "minimum": 0, "pattern": or_variable(SIZE) })
            }
            Self::Text(Syntax { pattern: None, .. }) => json!({ "type": "string" }),
            Self::Text(Syntax {
                pattern: Some(pattern),
                ..
            }) => {
                json!({ "type": "string", "pattern": or_variable(pattern) })
            }
            Self::Words(words) => {
                json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
            }
            Self::Secret => {
                let mut table = SECRET.to_schema();
                table.insert("minProperties".to_owned(), 1.into());
                table.insert("maxProperties".to_owned(), 1.into());
                json!({ "anyOf": [{ "type": "string", "minLength": 1 }, table], "writeOnly": true })
            }
            Self::List(value) => {
                let value = value.to_schema();
                json!({ "anyOf": [value, { "type": "array", "items": value }] })
            }
            Self::Table(table) => Value::Object(table.to_schema()),
            Self::Tables(table) => json!({ "type": "array", "items": table.to_schema() }),
            Self::TableOrTables(table) => {
                let table = table.to_schema();
                json!({ "anyOf": [table, { "type": "array", "items": table, "minItems": 1 }] })
            }
            Self::Map(value) => {
                json!({ "type": "object", "additionalProperties": value.to_schema() })
            }
            Self::Any(types) => {
                let schemas: Vec<_> = types.iter().map(Self::to_schema).collect();
                json!({ "anyOf": schemas })
            }
        }
    }

    /// A default's text as JSON.
    fn default_value(&self, text: &str) -> Value {
        match self {
            Self::Flag | Self::Count { .. } | Self::List(_) => {
                parse_value(text).unwrap_or_default()
            }
            _ => text.into(),
        }
    }

    /// The table that a value is, or has.
    #[must_use]
    pub fn table(&self) -> Option<&'static Table> {
        match self {
            Self::Table(table) | Self::Tables(table) | Self::TableOrTables(table) => Some(table),
            _ => None,
        }
    }

    fn bounds(&self) -> Option<String> {
        match self {
            Self::Count {
                most: usize::MAX, ..
            } => None,
            Self::Count { least, most } => {
                Some(format!("{} to {}", grouped(*least), grouped(*most)))
            }
            Self::Duration { least, most } => Some(format!("{least} to {most}")),
            Self::Size {
                least,
                most: Some(most),
            } => Some(format!("{least} to {most}")),
            Self::Size { least, most: None } => Some(format!("at least {least}")),
            _ => None,
        }
    }

    fn noun(&self) -> String {
        match self {
            Self::Flag => "boolean".to_owned(),
            Self::Count { .. } | Self::Number => "number".to_owned(),
            Self::Duration { .. } => "duration".to_owned(),
            Self::Size { .. } => "size".to_owned(),
            Self::Text(syntax) => syntax.noun.to_owned(),
            Self::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
                words.join(", ")
            }
            Self::Secret => "secret".to_owned(),
            Self::List(Self::Any([first, ..])) => format!("{0}, or list of {0}s", first.noun()),
            Self::List(value) => format!("list of {}s", value.noun()),
            Self::Table(_) | Self::Map(Self::Any(_)) => "table".to_owned(),
            Self::Tables(_) => "list of tables".to_owned(),
            Self::TableOrTables(_) => "table, or list of tables".to_owned(),
            Self::Map(value) => format!("table of {}s", value.noun()),
            Self::Any(types) => {
                let nouns: Vec<_> = types.iter().map(Self::noun).collect();
                nouns.join(", ")
            }
        }
    }
}

fn or_variable(pattern: &str) -> String {
    format!("{pattern}|{VARIABLE}")
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Markdown without its links.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (start, name) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(start);
        plain.push_str(name);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::key::{to_duration, to_size};

    #[test]
    fn links_leave_their_text_and_numbers_have_commas() {
        assert_eq!(plain("see [A](b.md#c) and [D](e)."), "see A and D.");
        assert_eq!(plain("`[http]`"), "`[http]`");
        assert_eq!(
            ["1", "999", "1,000", "1,000,000"],
            [1, 999, 1000, 1_000_000]
                .map(grouped)
                .each_ref()
                .map(String::as_str)
        );
    }

    #[test]
    fn the_patterns_are_the_readers() {
        let takes = |pattern: &str, text: &str| {
            let schema = json!({ "pattern": pattern });
            jsonschema::validator_for(&schema)
                .unwrap()
                .is_valid(&text.into())
        };
        for text in [
            "10s",
            "1h 30m",
            "1h30m",
            "100ms",
            "75 s",
            "2days",
            "1week",
            "5min",
            "0",
            "0s",
            "3 hours",
            "1y",
            "1M",
            "2 months",
            "10",
            "s",
            "soon",
            "5 minutess",
            "-1s",
            "",
            "1.5h",
            "10S",
        ] {
            assert_eq!(takes(DURATION, text), to_duration(text).is_some(), "{text}");
        }
        for text in [
            "1MiB", "64KiB", "10", "1 GB", "1.5MiB", "256mb", "1B", "1k", "MiB", "1 XB", "", "-1",
            "one",
        ] {
            assert_eq!(takes(SIZE, text), to_size(text).is_some(), "{text}");
        }
    }
}
