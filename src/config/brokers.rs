//! `[brokers.NAME]`: each broker reads its own table; only the names are handled here.

use std::collections::HashMap;

use super::model::{BrokerId, NamedBroker};
use crate::brokers;
use crate::table::{Files, Section, did_you_mean};

/// The brokers by name.
pub(super) struct Brokers {
    pub(super) list: Vec<NamedBroker>,
    /// Every name written, so that a broken broker is not also reported as unknown.
    names: HashMap<String, Option<BrokerId>>,
}

impl Brokers {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        let mut brokers = Self {
            list: Vec::new(),
            names: HashMap::new(),
        };
        let is_there = root.has("brokers") || root.is_misspelt("brokers");
        let Some(mut table) = root.section("brokers") else {
            if !is_there {
                root.problem("no broker is configured; write `[brokers.main]` with `kind = \"kafka\"` or `kind = \"nats\"`");
            }
            return brokers;
        };
        if table.refuse_nameless(&brokers::TABLE, "main") {
            return brokers;
        }
        for name in table.names() {
            let Some(mut section) = table.named_section(&name) else {
                continue;
            };
            check_name(&section, &name);
            let settings = brokers::Settings::read(&mut section);
            let require_durable = section.flag("require_durable");
            if require_durable
                && let Some(why) = settings.as_ref().and_then(brokers::Settings::uninspectable)
            {
                section.problem_at(
                    "require_durable",
                    format!("it can't be satisfied: {why}; leave it out, and check the topics with Kafka's own tools"),
                );
            }
            let provision = match &settings {
                Some(settings) => brokers::Provision::read(&mut section, settings.kind()),
                None => {
                    section.discard("provision");
                    brokers::Provision::default()
                }
            };
            let id = settings.map(|settings| {
                let mut files = Files::default();
                for (key, file) in settings.private_files() {
                    section.warn_of_exposure(&key, &file);
                }
                for file in settings.files() {
                    files.note(&file);
                    section.note_file(&file);
                }
                brokers.list.push(NamedBroker {
                    name: name.clone(),
                    settings,
                    require_durable,
                    provision,
                    files,
                });
                BrokerId(brokers.list.len() - 1)
            });
            section.finish();
            brokers.names.insert(name, id);
        }
        if brokers.names.is_empty() {
            table.problem("no broker is configured; write `[brokers.main]` with `kind = \"kafka\"` or `kind = \"nats\"`");
        }
        brokers
    }

    /// The broker that `broker = "NAME"` names, or the only one defined.
    pub(super) fn named_or_only(&self, section: &mut Section<'_>) -> Option<BrokerId> {
        let is_named = section.has("broker");
        // Queried even where `broker` is missing: an unknown key may be a misspelling of it.
        let name = section.text("broker");
        if is_named {
            return self.named(section, "broker", &name?);
        }
        let mut ids = self.names.values();
        match (ids.next(), ids.next()) {
            (Some(only), None) => *only,
            (Some(_), Some(_)) => {
                let mut names: Vec<_> = self.names.keys().map(String::as_str).collect();
                names.sort_unstable();
                section.problem(format!(
                    "must name its `broker`, because there are several; write `broker = \"NAME\"` with one of {}",
                    names.join(", ")
                ));
                None
            }
            (None, _) => None,
        }
    }

    /// The broker named by a key.
    pub(super) fn named(&self, section: &Section<'_>, key: &str, name: &str) -> Option<BrokerId> {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        if self.names.is_empty() {
            // That there is none has been said.
            return None;
        }
        let suggestion = one_of(name, self.names.keys().map(String::as_str));
        let shown = section.quote(key, name);
        section.problem_at(
            key,
            format!("the broker {shown} is not defined{suggestion}"),
        );
        None
    }

    /// The name of a broker that was read.
    pub(super) fn name(&self, id: BrokerId) -> Option<String> {
        self.list.get(id.0).map(|broker| broker.name.clone())
    }

    pub(super) fn kind(&self, id: BrokerId) -> Option<brokers::Kind> {
        self.list.get(id.0).map(|broker| broker.settings.kind())
    }
}

/// `; did you mean …?` or all names that are defined.
pub(super) fn one_of<'n>(name: &str, defined: impl Iterator<Item = &'n str> + Clone) -> String {
    const MOST: usize = 20;
    let suggestion = did_you_mean(name, defined.clone());
    if !suggestion.is_empty() {
        return suggestion;
    }
    let mut names: Vec<_> = defined.take(MOST).collect();
    names.sort_unstable();
    format!("; defined: \"{}\"", names.join("\", \""))
}

/// Names become metric labels, header values and parts of ids.
pub(super) fn check_name(section: &Section<'_>, name: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        section.problem(format!(
            "the name \"{}\" may only have up to 64 of A-Z, a-z, 0-9, `-` and `_`; write another one",
            name.escape_debug()
        ));
    }
    if name == "other" {
        section.problem(
            "the name \"other\" is reserved: metrics use it for unnamed values; write another one",
        );
    }
}
