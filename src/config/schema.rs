//! The JSON Schema of the configuration, and the tables of its reference, from the same tables that it is read with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::sources::GENERIC;
use super::tables::{ADMIN, DEAD_LETTER, HTTP, RATE_LIMIT, ROOT, ROUTE, SOURCE, TLS};
use crate::brokers;
use crate::providers::preset::{OwnKey, PRESETS, PresetFile};
use crate::providers::tables::{EVENT, HANDSHAKE, JWT, PRESET, SIGNATURE, TIMESTAMP, VERIFY};
use crate::table::key::{Key, Table, Type};

/// The tables of the reference, by the names that the documentation has them under.
pub(crate) fn reference() -> Vec<(String, &'static Table)> {
    let mut tables: Vec<(String, &'static Table)> = vec![
        ("[http]".to_owned(), &HTTP),
        ("tls".to_owned(), &TLS),
        ("[admin]".to_owned(), &ADMIN),
        ("[brokers.NAME]".to_owned(), &brokers::TABLE),
    ];
    for variant in brokers::TABLE.variants {
        let name = format!("[brokers.NAME] with kind = \"{}\"", variant.word);
        tables.push((name.clone(), variant.table));
        for inner in ["tls", "provision"] {
            let table = variant.table.at(inner).and_then(Type::table);
            tables.extend(table.map(|table| (format!("{inner} of {name}"), table)));
        }
    }
    let others: [(&str, &'static Table); 10] = [
        ("[sources.NAME]", &SOURCE),
        ("rate_limit", &RATE_LIMIT),
        ("dead_letter", &DEAD_LETTER),
        ("jwt", &JWT),
        ("[sources.NAME.verify]", &VERIFY),
        ("signature", &SIGNATURE),
        ("timestamp", &TIMESTAMP),
        ("[sources.NAME.event]", &EVENT),
        ("[[sources.NAME.handshakes]]", &HANDSHAKE),
        ("[[routes]]", &ROUTE),
    ];
    tables.extend(others.map(|(name, table)| (name.to_owned(), table)));
    tables
}

/// The JSON Schema (2020-12) of a configuration file.
///
/// Files can be merged, so no table is required. What only the whole configuration shows, such as a name that is not
/// defined, is `check`'s.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = ROOT.to_schema();
    let presets = Presets::read();
    if let Some(sources) = schema
        .get_mut("properties")
        .and_then(|keys| keys.get_mut("sources"))
    {
        *sources = presets.sources(sources.get("description"));
    }
    let described = [
        (
            "$schema",
            "https://json-schema.org/draft/2020-12/schema".into(),
        ),
        ("title", "Hookbridge's configuration".into()),
        ("$defs", Value::Object(presets.definitions())),
    ];
    schema.extend(described.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(schema)
}

/// The keys of presets besides those of every source.
struct Presets {
    /// For each preset, its own keys with their schemas.
    own: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// All of these keys, and `scheme`.
    names: BTreeSet<String>,
}

impl Presets {
    fn read() -> Self {
        let own: BTreeMap<_, _> = PRESETS
            .iter()
            .map(|preset| (preset.name, own_keys(&preset.read())))
            .collect();
        let names = own.values().flat_map(|keys| keys.keys().cloned()).collect();
        Self { own, names }
    }

    /// The restrictions of a preset's sources.
    fn only(&self, own: &BTreeMap<String, Value>) -> Value {
        let keys = self.names.iter();
        let properties: Map<_, _> = keys
            .map(|name| {
                (
                    name.clone(),
                    own.get(name).cloned().unwrap_or(Value::Bool(false)),
                )
            })
            .collect();
        json!({ "properties": properties })
    }

    fn definitions(&self) -> Map<String, Value> {
        let mut source = SOURCE.to_schema();
        let mut presets: Vec<_> = self.own.keys().copied().collect();
        presets.push(GENERIC);
        if let Some(keys) = source.get_mut("properties").and_then(Value::as_object_mut) {
            for (preset, own) in &self.own {
                for (name, schema) in own {
                    // Its type depends on the preset: see below.
                    let words = schema
                        .get("description")
                        .and_then(Value::as_str)
                        .unwrap_or_default();
                    let about = match words {
                        "" => format!("`{preset}` only"),
                        words => format!("`{preset}` only; {words}"),
                    };
                    keys.entry(name.clone())
                        .or_insert_with(|| json!({ "description": about }));
                }
            }
            if let Some(provider) = keys.get_mut("provider").and_then(Value::as_object_mut) {
                provider.remove("type");
                provider.remove("pattern");
                let known = json!([{ "enum": presets }, { "type": "string", "pattern": "\\$\\{" }]);
                provider.insert("anyOf".to_owned(), known);
            }
        }
        let rules = self.own.iter().map(|(preset, own)| {
            json!({
                "if": { "properties": { "provider": { "const": preset } }, "required": ["provider"] },
                "then": { "$ref": self.reference(preset, own) },
            })
        });
        let generic = json!({
            "if": { "properties": { "provider": { "const": GENERIC } }, "required": ["provider"] },
            "then": { "$ref": "#/$defs/no_preset", "required": ["event"] },
        });
        source.insert("allOf".to_owned(), rules.chain([generic]).collect());
        let with_own = self.own.iter().filter(|(_, own)| !own.is_empty());
        let mut definitions: Map<_, _> = with_own
            .map(|(preset, own)| (format!("preset_{preset}"), self.only(own)))
            .collect();
        definitions.insert("no_preset".to_owned(), self.only(&BTreeMap::new()));
        definitions.insert("source".to_owned(), source.into());
        definitions
    }

    fn reference(&self, preset: &str, own: &BTreeMap<String, Value>) -> String {
        match own.is_empty() {
            true => "#/$defs/no_preset".to_owned(),
            false => format!("#/$defs/preset_{preset}"),
        }
    }

    /// The provider of a source is by default its name.
    fn sources(&self, about: Option<&Value>) -> Value {
        let named = |rule: Value| {
            json!({ "allOf": [
                { "$ref": "#/$defs/source" },
                { "if": { "not": { "required": ["provider"] } }, "then": rule },
            ] })
        };
        let properties: Map<_, _> = self
            .own
            .iter()
            .map(|(preset, own)| {
                let rule = json!({ "$ref": self.reference(preset, own) });
                ((*preset).to_owned(), named(rule))
            })
            .collect();
        json!({
            "description": about,
            "type": "object",
            "properties": properties,
            "additionalProperties": named(json!({ "$ref": "#/$defs/no_preset", "required": ["event"] })),
        })
    }
}

/// The keys that only this preset takes, with their schemas.
fn own_keys(file: &PresetFile) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    if !file.schemes.is_empty() {
        let words: Vec<_> = file.schemes.keys().collect();
        keys.insert("scheme".to_owned(), json!({ "enum": words }));
    }
    for (name, key) in file.own_keys() {
        let (about, schema) = match key {
            OwnKey::ReadByHook => (None, PRESET.find(&name).map(Key::to_schema)),
            OwnKey::Words { about, words } => {
                let flags: Vec<Value> = words
                    .iter()
                    .filter_map(|word| word.parse().ok().map(Value::Bool))
                    .collect();
                let words = words.into_iter().map(Value::String).chain(flags);
                (about, Some(json!({ "enum": words.collect::<Vec<_>>() })))
            }
            OwnKey::Value { about, path } => {
                let value = path.and_then(|path| PRESET.at(&path));
                (about, value.map(Type::to_schema))
            }
        };
        let mut schema = schema.unwrap_or_else(|| json!({ "type": "string" }));
        if let (Some(about), Some(members)) = (about, schema.as_object_mut()) {
            members.insert("description".to_owned(), about.into());
        }
        keys.insert(name, schema);
    }
    keys
}

#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::table::key::{Default, to_duration, to_size};

    /// A value of a type, as far as its syntax goes.
    fn sample(key: &Key) -> Value {
        let text = match (key.value, key.default) {
            (_, Default::Value(text)) => return text.into(),
            (Type::Flag, _) => "true",
            (Type::Count { least, .. }, _) => return least.to_string().into(),
            (Type::Duration { least, .. } | Type::Size { least, .. }, _) => least,
            (Type::Words(words), _) => words[0],
            (Type::Table(_) | Type::Map(_), _) => return json!({}),
            (Type::Tables(_), _) => return json!([{}]),
            (Type::TableOrTables(_) | Type::Any(_), _) => return json!({}),
            _ if key.name == "provider" => GENERIC,
            _ => "x",
        };
        text.into()
    }

    /// A minimal table that the reader accepts.
    fn base(key: &str) -> Value {
        match key {
            "verify" => json!({ "signature": { "header": "x" } }),
            "signature" | "timestamp" | "body_digest" => json!({ "query": "x" }),
            "handshakes" => json!({ "query": "x" }),
            _ => json!({}),
        }
    }

    fn merged(below: Value, above: Value) -> Value {
        match (below, above) {
            (Value::Object(mut below), Value::Object(above)) => {
                for (key, above) in above {
                    let value = match below.remove(&key) {
                        Some(below) => merged(below, above),
                        None => above,
                    };
                    below.insert(key, value);
                }
                Value::Object(below)
            }
            (_, above) => above,
        }
    }

    /// Calls `check` for each key with a whole configuration that has it, and a key beside it that no table has.
    fn each_key(
        tables: &[&'static Table],
        wrap: &dyn Fn(Value) -> Value,
        check: &mut dyn FnMut(&'static Key, Value),
    ) {
        for key in tables.iter().flat_map(|table| table.keys()) {
            // Only presets with schemes have `scheme`.
            if key.preset.is_none() && !key.is_internal && key.name != "scheme" {
                check(key, wrap(json!({ key.name: sample(key), "zzz": "x" })));
            }
            let inner = match key.value {
                Type::Map(_) => None,
                // Read beside other keys alone.
                _ if key.name == "jwt" || key.preset.is_some() => None,
                Type::List(Type::Any([_, other])) | Type::Any([_, other]) => other.table(),
                value => value.table(),
            };
            if let Some(inner) = inner {
                let is_list = matches!(key.value, Type::Tables(_) | Type::List(_));
                let wrap = |value: Value| {
                    let value = merged(base(key.name), value);
                    wrap(json!({ key.name: if is_list { json!([value]) } else { value } }))
                };
                each_key(&[inner], &wrap, check);
            }
        }
    }

    #[test]
    fn every_key_of_the_tables_is_read_and_its_default_and_bounds_are_values() {
        let kafka = json!({ "kind": "kafka", "bootstrap_servers": "k:9092" });
        let nats = json!({ "kind": "nats", "servers": "nats://n" });
        let own = json!({ "secrets": "s3cr3t-of-16-bytes", "verify": base("verify"), "event": { "id": "{/id}", "type": "{/type}" } });
        let whole = json!({ "brokers": { "main": kafka }, "sources": { "own": own }, "routes": [{ "topic": "x" }] });
        let mut count = 0;
        let mut check = |key: &'static Key, values: Value| {
            let values = merged(whole.clone(), values);
            let problems = Config::from_values(values.as_object().unwrap().clone());
            let problems = problems.expect_err("zzz").to_string();
            assert!(
                problems.contains("unknown key `zzz`"),
                "{}: {values}: {problems}",
                key.name
            );
            assert!(
                !problems.contains("means nothing here"),
                "{values}: {problems}"
            );
            match (key.value, key.default) {
                (Type::Duration { least, most }, default) => {
                    assert!(to_duration(least).unwrap() < to_duration(most).unwrap());
                    assert!(
                        !matches!(default, Default::Value(text) if to_duration(text).is_none())
                    );
                }
                (Type::Size { least, most }, default) => {
                    assert!(
                        to_size(least).is_some() && most.is_none_or(|most| to_size(most).is_some())
                    );
                    assert!(!matches!(default, Default::Value(text) if to_size(text).is_none()));
                }
                (Type::Words(words), Default::Value(text)) => {
                    assert!(words.contains(&text), "{text}")
                }
                _ => {}
            }
            count += 1;
        };
        for (name, table) in [("http", &HTTP), ("admin", &ADMIN)] {
            each_key(&[table], &|value| json!({ name: value }), &mut check);
        }
        for (base, variant) in [(&kafka, 0), (&nats, 1)] {
            let wrap = |value| json!({ "brokers": { "main": merged(base.clone(), value) } });
            each_key(&[brokers::TABLE.variants[variant].table], &wrap, &mut check);
        }
        each_key(
            &[&SOURCE],
            &|value| json!({ "sources": { "own": value } }),
            &mut check,
        );
        let with_tokens = |value| {
            let source = json!({ "auth": "jwt", "jwt": value, "event": own["event"] });
            json!({ "sources": { "other": source } })
        };
        each_key(&[&JWT], &with_tokens, &mut check);
        each_key(&[&ROUTE], &|value| json!({ "routes": [value] }), &mut check);
        assert!(count > 100, "{count}");
    }
}
