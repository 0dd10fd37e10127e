//! Presets: TOML files with keys of `[sources.NAME]`, which serve as defaults for a user's keys in the same table.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::authentication::{Authentication, read_authentication};
use super::sample::Sample;
use super::{hooks, tables};
use crate::table::{Reading, Section};

/// A preset as compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name in the configuration, which is the file's name.
    pub name: &'static str,
    toml: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// The preset of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// A parsed preset file.
#[derive(Debug, Default, Deserialize)]
pub struct PresetFile {
    /// Facts for readers.
    #[serde(default)]
    pub about: About,
    #[serde(default)]
    samples: Vec<Sample>,
    /// Keys of a source by scheme, if the provider has several.
    #[serde(default)]
    pub schemes: BTreeMap<String, Map<String, Value>>,
    /// Keys that only this preset has: each sets keys of a source, or is [`READ_BY_HOOK`].
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    /// The keys of a source.
    #[serde(flatten)]
    keys: Map<String, Value>,
}

/// Facts about a provider for readers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// Its name in its own spelling.
    pub title: String,
    /// Its documentation.
    pub page: String,
    /// How often it repeats a delivery.
    pub retries: String,
    /// The kind of secret, unless it is a shared text.
    pub secret: Option<String>,
    /// How requests are verified, if a hook does it.
    pub verified_by: Option<String>,
    /// The keys of a source to start from, if it has no `secrets`.
    pub example: Option<String>,
    /// Its timeout for an answer, if known.
    pub timeout: Option<String>,
    /// Its maximum body size, if known.
    pub largest_body: Option<String>,
    /// The statuses that count as a success, unless any 2xx does.
    pub success: Vec<u16>,
    /// Whether it repeats a refused event only within seconds, or never: an outage of the broker loses events.
    pub needs_fallback: bool,
    /// Whether its retries keep the first delivery's time, so that a shorter tolerance refuses them.
    pub keeps_timestamp: bool,
}

/// A parameter whose value the preset's hook reads from the source's table.
const READ_BY_HOOK: &str = "hook";
/// In a parameter: what it is for, for people.
const ABOUT: &str = "about";
/// In a parameter: the meanings of its values, if they are a closed list.
const CHOICES: &str = "choices";
/// In a scheme: keys of the preset that it drops. In a parameter: marks a key to be removed.
const UNSET: &str = "unset";

impl About {
    /// [`About::timeout`].
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        humantime::parse_duration(self.timeout.as_deref()?).ok()
    }

    /// [`About::largest_body`] in bytes.
    #[must_use]
    pub fn largest_body(&self) -> Option<usize> {
        let size: ByteSize = self.largest_body.as_deref()?.parse().ok()?;
        usize::try_from(size.as_u64()).ok()
    }
}

impl Preset {
    /// Reads the file. A test ensures that each is valid.
    #[must_use]
    pub fn read(&self) -> PresetFile {
        toml::from_str(self.toml).unwrap_or_default()
    }

    /// One sample for each of its types that has one.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        [hooks::samples(self.name), self.read().samples].concat()
    }

    /// How its requests are signed, without a secret.
    ///
    /// # Errors
    /// The scheme is unknown.
    pub fn authentication(&self, scheme: Option<&str>) -> Result<Authentication, SchemeError> {
        let keys = self.read().under(scheme, Map::new());
        let keys = keys.map_err(|UnknownWord { known, .. }| match known.as_slice() {
            [] => SchemeError::OnlyOne(self.name),
            known => SchemeError::Unknown(known.join(", ")),
        })?;
        let reading = Reading::default();
        let mut section = Section::new(&reading, self.name.to_owned(), keys, &tables::PRESET);
        let read = read_authentication(&mut section, Vec::new());
        read.ok_or(SchemeError::Unreadable(self.name))
    }

    /// The JSON Schema of its events.
    #[must_use]
    pub fn schema(&self) -> Option<&'static str> {
        hooks::schema(self.name)
    }
}

impl PresetFile {
    /// The preset's value for a key of a source.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Value> {
        self.keys.get(name)
    }

    /// The keys that only this preset takes.
    pub fn own_keys(&self) -> impl Iterator<Item = (String, OwnKey)> {
        self.parameters.iter().map(|(name, meaning)| {
            let about = meaning
                .get(ABOUT)
                .and_then(Value::as_str)
                .map(str::to_owned);
            let choices = meaning.get(CHOICES).and_then(Value::as_object);
            let key = match choices {
                _ if meaning == READ_BY_HOOK => OwnKey::ReadByHook,
                Some(choices) => OwnKey::Words {
                    about,
                    words: choices.keys().cloned().collect(),
                },
                None => {
                    let mut keys = meaning.as_object().into_iter().flatten();
                    let whole = keys.find(|(key, template)| *key != ABOUT && *template == "$");
                    OwnKey::Value {
                        about,
                        path: whole.map(|(path, _)| path.clone()),
                    }
                }
            };
            (name.clone(), key)
        })
    }

    /// Merges the keys of a source: the user's over those of the scheme, over the preset's own.
    ///
    /// # Errors
    /// The scheme or a parameter's value does not exist.
    pub fn under(
        self,
        scheme: Option<&str>,
        mut user: Map<String, Value>,
    ) -> Result<Map<String, Value>, UnknownWord> {
        let mut table = self.keys;
        if let Some(scheme) = scheme {
            let known = || self.schemes.keys().cloned().collect();
            let unknown = || UnknownWord {
                key: "scheme".to_owned(),
                known: known(),
            };
            let mut chosen = self.schemes.get(scheme).cloned().ok_or_else(unknown)?;
            let unset = chosen.remove(UNSET);
            let unset = unset
                .as_ref()
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            for key in unset.filter_map(Value::as_str) {
                table.remove(key);
            }
            overlay(&mut table, chosen);
        }
        for (name, meaning) in self.parameters {
            if meaning != READ_BY_HOOK
                && let Some(value) = user.remove(&name)
            {
                set_parameter(&mut table, &name, &meaning, &value)?;
            }
        }
        // A user sets one of the two.
        for (given, replaced) in [("verify", "auth"), ("auth", "verify")] {
            if user.contains_key(given) {
                table.remove(replaced);
            }
        }
        let gives_jwt = user.contains_key("jwt");
        overlay(&mut table, user);
        let says_jwt = |auth: &Value| match auth {
            Value::Array(words) => words.iter().any(|word| word == "jwt"),
            word => word == "jwt",
        };
        // Otherwise the preset's value does not apply.
        if !gives_jwt && !table.get("auth").is_some_and(says_jwt) {
            table.remove("jwt");
        }
        Ok(table)
    }
}

/// The meaning of a key that only one preset has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnKey {
    /// As its entry says among the keys of every source.
    ReadByHook,
    /// One of these words.
    Words {
        /// For people.
        about: Option<String>,
        words: Vec<String>,
    },
    /// A value of its own, with the type and bounds of the source's key at this path; without a path, a text.
    Value {
        /// For people.
        about: Option<String>,
        path: Option<String>,
    },
}

/// The reason why a preset's scheme cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemeError {
    /// A scheme was named although the preset has only one.
    #[error("{0} has one scheme; leave the name out")]
    OnlyOne(&'static str),
    /// An unknown scheme; the known ones.
    #[error("unknown scheme; known: {0}")]
    Unknown(String),
    /// The preset needs keys of the user.
    #[error("the preset {0} can't be read")]
    Unreadable(&'static str),
}

/// A value that a preset does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    pub key: String,
    pub known: Vec<String>,
}

/// Sets the keys that a parameter represents. Their values may be the user's, contain it as `$`, or depend on it.
fn set_parameter(
    table: &mut Map<String, Value>,
    name: &str,
    meaning: &Value,
    value: &Value,
) -> Result<(), UnknownWord> {
    let word = match value {
        Value::String(word) => word.clone(),
        other => other.to_string(),
    };
    let choices = meaning.get(CHOICES).and_then(Value::as_object);
    let meaning = match choices {
        None => meaning,
        Some(choices) => choices.get(&word).ok_or_else(|| UnknownWord {
            key: name.to_owned(),
            known: choices.keys().cloned().collect(),
        })?,
    };
    let settings = meaning.as_object().into_iter().flatten();
    for (path, template) in settings.filter(|(path, _)| *path != ABOUT) {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut keys = parent.split('.').filter(|key| !key.is_empty());
        let parent = keys.try_fold(&mut *table, |table, key| {
            let child = table
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            match child {
                // For a list, its first table.
                Value::Array(tables) => tables.first_mut()?.as_object_mut(),
                table => table.as_object_mut(),
            }
        });
        if let Some(parent) = parent {
            match template {
                Value::String(text) if text == UNSET => parent.remove(key),
                Value::String(text) if text == "$" => parent.insert(key.to_owned(), value.clone()),
                template => parent.insert(key.to_owned(), substitute(template, &word)),
            };
        }
    }
    Ok(())
}

fn substitute(template: &Value, word: &str) -> Value {
    match template {
        Value::String(text) => text.replace('$', word).into(),
        Value::Array(values) => values.iter().map(|value| substitute(value, word)).collect(),
        Value::Object(values) => {
            let values = values
                .iter()
                .map(|(key, value)| (key.clone(), substitute(value, word)));
            Value::Object(values.collect())
        }
        other => other.clone(),
    }
}

/// Tables that are overridden key by key; any other value is replaced.
const MERGED: [&str; 2] = ["event", "jwt"];

fn overlay(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above))
                if MERGED.contains(&key.as_str()) =>
            {
                below.extend(above)
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::read_mapping;
    use super::*;

    /// The documentation of these providers does not state a timeout.
    const UNKNOWN_TIMEOUTS: [&str; 10] = [
        "alertmanager",
        "auth0",
        "cloudevents",
        "grafana",
        "mailgun",
        "monday",
        "postmark",
        "sendgrid",
        "stripe",
        "synq",
    ];

    /// A replayed request can have other unsigned headers.
    #[test]
    fn presets_read_what_is_signed_rather_than_a_header_that_is_not() {
        for preset in PRESETS {
            let keys = preset.read().under(None, Map::new()).unwrap();
            let reading = Reading::default();
            let mut section = Section::new(&reading, "x".to_owned(), keys, &tables::PRESET);
            let Some(Authentication::Signature(schemes)) =
                read_authentication(&mut section, Vec::new())
            else {
                continue;
            };
            let mapping = read_mapping(&mut section).unwrap();
            let is_signed = |header| {
                let mut contents = schemes.iter().map(|scheme| &scheme.content);
                contents.all(|content| content.headers().any(|signed| signed == header))
            };
            let choices = [
                &mapping.id,
                &mapping.event_type,
                &mapping.time,
                &mapping.subject,
                &mapping.key,
            ];
            for choice in choices {
                // A digest or a random text is for events without anything better.
                let texts = choice
                    .texts()
                    .filter(|text| !text.is_digest() && !text.is_random());
                let headers: Vec<Vec<_>> = texts.map(|text| text.headers().collect()).collect();
                let is_unsigned =
                    |names: &Vec<_>| names.first().is_some_and(|first| !is_signed(*first));
                let is_sorted = |names: &Vec<_>| names.is_sorted_by_key(|name| !is_signed(*name));
                assert!(
                    headers.is_sorted_by_key(is_unsigned) && headers.iter().all(is_sorted),
                    "{}: {choice:?}",
                    preset.name
                );
            }
        }
    }

    /// Otherwise a request that someone has seen could be published again.
    #[test]
    fn every_preset_remembers_deliveries_for_as_long_as_their_signatures_are_valid() {
        for preset in PRESETS {
            let (name, file) = (preset.name, preset.read());
            let window = file.key("dedup_window").and_then(Value::as_str);
            if file.key("dedup_by").and_then(Value::as_str) == Some("never") {
                assert_eq!(window, None, "{name}");
                continue;
            }
            let window =
                window.unwrap_or_else(|| panic!("{name}: state the time of its retries, or 1h"));
            let window = humantime::parse_duration(window).unwrap();
            let schemes = file.schemes.keys().map(|scheme| Some(scheme.as_str()));
            for scheme in schemes.chain([None]) {
                let authentication = preset.authentication(scheme).unwrap();
                let valid = authentication.longest_tolerance();
                let valid = valid.max(authentication.nonce_lifetime());
                assert!(
                    valid.is_none_or(|valid| window >= valid),
                    "{name}: {valid:?}"
                );
            }
        }
    }

    #[test]
    fn every_preset_answers_within_its_providers_timeout_and_accepts_its_largest_body() {
        for preset in PRESETS {
            let (name, file) = (preset.name, preset.read());
            let about = &file.about;
            let tables = std::iter::once(&file.keys).chain(file.schemes.values());
            let of = |key: &str| {
                let values = tables.clone().filter_map(|table| table.get(key));
                values.cloned().collect::<Vec<_>>()
            };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            assert!(
                about.timeout.is_some() != UNKNOWN_TIMEOUTS.contains(&name),
                "{name}: state `timeout` in [about], or list it above"
            );
            let mut timeouts = of("publish_timeout").iter().map(text).collect::<Vec<_>>();
            if timeouts.is_empty() {
                timeouts.push("8s".to_owned());
            }
            for timeout in timeouts {
                let timeout = humantime::parse_duration(&timeout).unwrap();
                // The rest is for network latency, and for reading the body.
                let Some(waits) = about.timeout.as_ref().map(|_| about.timeout().unwrap()) else {
                    continue;
                };
                assert!(timeout.mul_f64(1.15) < waits, "{name}: {timeout:?}");
            }
            let mut sizes = of("max_body").iter().map(text).collect::<Vec<_>>();
            if sizes.is_empty() {
                sizes.push("1MiB".to_owned());
            }
            for size in sizes {
                let size: ByteSize = size.parse().unwrap();
                let largest = about
                    .largest_body
                    .as_ref()
                    .map(|_| about.largest_body().unwrap());
                let largest = u64::try_from(largest.unwrap_or_default()).unwrap();
                assert!(size.as_u64() >= largest, "{name}: {size}");
            }
            let statuses = of("success_status");
            let status = statuses.first().and_then(Value::as_u64).unwrap_or(200);
            let is_taken = |known: &u16| u64::from(*known) == status;
            assert!(
                about.success.is_empty() || about.success.iter().any(is_taken),
                "{name}: {status}"
            );
        }
    }
}
