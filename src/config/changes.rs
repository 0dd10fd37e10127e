//! The differences between two configurations by key, for the log of a reload. Values are kept as digests only, since any of
//! them may be a secret.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

type Hash = [u8; 32];

/// The contents of a configuration: tables by name, each with its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(BTreeMap<String, BTreeMap<String, Hash>>);

/// Names of tables and keys, routes counted from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Digests {
    pub(super) fn of(values: &Map<String, Value>) -> Self {
        let mut tables = BTreeMap::new();
        for name in ["http", "admin"] {
            tables.insert(name.to_owned(), keys(values.get(name)));
        }
        for kind in ["brokers", "sources"] {
            let named = values.get(kind).and_then(Value::as_object);
            for (name, table) in named.into_iter().flatten() {
                tables.insert(format!("{kind}.{name}"), keys(Some(table)));
            }
        }
        let routes = values.get("routes").and_then(Value::as_array);
        for (number, route) in (1..).zip(routes.into_iter().flatten()) {
            tables.insert(format!("route {number}"), keys(Some(route)));
        }
        Self(tables)
    }

    /// Replaces the text of a source's secrets by their contents, which variables and files have.
    pub(super) fn set_secrets(&mut self, source: &str, digests: &[Hash]) {
        let Some(table) = self.0.get_mut(&format!("sources.{source}")) else {
            return;
        };
        table.remove("secrets");
        let secrets = digests.iter().enumerate();
        table.extend(secrets.map(|(index, digest)| (format!("secrets[{index}]"), *digest)));
    }

    /// The differences from an earlier configuration.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Changes {
        let mut changes = Changes::default();
        for (name, table) in &self.0 {
            let Some(before) = earlier.0.get(name) else {
                changes.added.push(name.clone());
                continue;
            };
            let all = table
                .keys()
                .chain(before.keys().filter(|key| !table.contains_key(*key)));
            let differing = all.filter(|key| table.get(*key) != before.get(*key));
            changes
                .changed
                .extend(differing.map(|key| format!("{name}.{key}")));
        }
        let removed = earlier.0.keys().filter(|name| !self.0.contains_key(*name));
        changes.removed = removed.cloned().collect();
        changes
    }
}

fn keys(table: Option<&Value>) -> BTreeMap<String, Hash> {
    let keys = table.and_then(Value::as_object).into_iter().flatten();
    keys.map(|(key, value)| (key.clone(), Sha256::digest(value.to_string()).into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digests(values: &Value, secrets: &[u8]) -> Digests {
        let mut found = Digests::of(values.as_object().unwrap());
        let secrets: Vec<_> = secrets.iter().map(|byte| [*byte; 32]).collect();
        found.set_secrets("synq", &secrets);
        found
    }

    #[test]
    fn a_change_is_named_and_never_shown() {
        let before = json!({
            "http": { "max_body": "1MiB" },
            "brokers": { "main": { "kind": "kafka" }, "old": { "kind": "nats" } },
            "sources": { "synq": { "secrets": ["hunter2"], "path": "/a" } },
            "routes": [{ "topic": "a" }, { "topic": "b" }],
        });
        let after = json!({
            "http": { "max_body": "2MiB", "http2": true },
            "brokers": { "main": { "kind": "kafka" } },
            "sources": { "synq": { "secrets": ["hunter3", { "env": "NEW" }] }, "github": {} },
            "routes": [{ "topic": "a" }, { "topic": "c" }, { "topic": "d" }],
        });
        let (before, after) = (digests(&before, &[1]), digests(&after, &[2, 3]));
        let changes = after.changes_since(&before);
        assert_eq!(changes.added, ["route 3", "sources.github"]);
        assert_eq!(changes.removed, ["brokers.old"]);
        assert_eq!(
            changes.changed,
            [
                "http.http2",
                "http.max_body",
                "route 2.topic",
                "sources.synq.secrets[0]",
                "sources.synq.secrets[1]",
                "sources.synq.path",
            ]
        );
        assert_eq!(before.changes_since(&before), Changes::default());
        assert!(!format!("{after:?}").contains("hunter"));
    }
}
