//! The keys of the configuration's tables, as data. The reader takes bounds, defaults and known names from here, and the JSON
//! Schema and the reference are generated from it, so that none of them can say something else.

use std::time::Duration;

use bytesize::ByteSize;

/// A table of the configuration.
#[derive(Debug)]
pub struct Table {
    /// In the order of the reference. In groups, because several modules may read one table.
    pub keys: &'static [&'static [Key]],
    /// Further keys, which depend on the value of one of the keys.
    pub variants: &'static [Variant],
    /// Advice about keys that people expect here and that are elsewhere or nowhere.
    pub notes: &'static [Note],
}

/// Names of keys that a table does not have, and what to write instead.
pub type Note = (&'static [&'static str], &'static str);

/// The keys that a table has besides if `key` is `word`.
#[derive(Debug)]
pub struct Variant {
    pub key: &'static str,
    pub word: &'static str,
    pub table: &'static Table,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub value: Type,
    pub default: Default,
    /// A value, as TOML, for keys that have no default.
    pub example: Option<&'static str>,
    /// For people, in Markdown.
    pub about: &'static str,
    /// The only preset whose sources have it.
    pub preset: Option<&'static str>,
    /// Names that other programs have for it.
    pub other_names: &'static [&'static str],
    /// Whether it is for the files in `presets/` alone.
    pub is_internal: bool,
}

/// The value where a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    Required,
    Nothing,
    /// This value: a string without its quotes, or TOML.
    Value(&'static str),
    /// In words, in Markdown, because it depends on something else.
    Depends(&'static str),
}

/// The type of a value, with its bounds.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    Flag,
    /// A whole number.
    Count {
        least: usize,
        most: usize,
    },
    /// Any number.
    Number,
    Duration {
        least: &'static str,
        most: &'static str,
    },
    Size {
        least: &'static str,
        /// None where memory is the bound.
        most: Option<&'static str>,
    },
    Text(&'static Syntax),
    Words(&'static [&'static str]),
    /// Text, or a reference to a variable or file. Never shown.
    Secret,
    /// A list; one value stands for a list of one.
    List(&'static Self),
    Table(&'static Table),
    /// A list of tables.
    Tables(&'static Table),
    TableOrTables(&'static Table),
    /// A table with names that the user chooses.
    Map(&'static Self),
    /// Any of these.
    Any(&'static [Self]),
}

/// A syntax of text.
#[derive(Debug)]
pub struct Syntax {
    /// For the reference.
    pub noun: &'static str,
    /// A regular expression that every valid value matches. The reader is stricter.
    pub pattern: Option<&'static str>,
}

impl Syntax {
    const fn new(noun: &'static str, pattern: Option<&'static str>) -> Self {
        Self { noun, pattern }
    }
}

pub static TEXT: Syntax = Syntax::new("text", None);
pub static NAME: Syntax = Syntax::new("name", Some("^[A-Za-z0-9_-]{1,64}$"));
pub static FILE: Syntax = Syntax::new("path", Some("."));
pub static ADDRESS: Syntax = Syntax::new(
    "address",
    Some("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]{1,5}$"),
);
pub static URL: Syntax = Syntax::new("URL", Some("^https?://[^?#]+$"));
pub static NETWORK: Syntax = Syntax::new("network", Some("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"));
pub static POINTER: Syntax = Syntax::new("JSON Pointer", Some("^(/|$)"));
pub static TEMPLATE: Syntax = Syntax::new("template", None);
pub static GLOB: Syntax = Syntax::new("glob", Some("."));
pub static HEADER: Syntax = Syntax::new("header name", Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"));
pub static MEDIA_TYPE: Syntax = Syntax::new("media type", Some("^[^/ ]+/[^/]+$"));
pub static HOST: Syntax = Syntax::new("host name", Some("^[A-Za-z0-9*._:-]+$"));
pub static URL_PATH: Syntax = Syntax::new("path", Some("^/[^?#% ]*$"));

/// Stands in for a key that no table has.
static MISSING: Key = Key::new("", Type::Text(&TEXT));

/// A table without keys.
pub(super) static EMPTY: Table = Table {
    keys: &[],
    variants: &[],
    notes: &[],
};

impl Key {
    #[must_use]
    pub const fn new(name: &'static str, value: Type) -> Self {
        Self {
            name,
            value,
            default: Default::Nothing,
            example: None,
            about: "",
            preset: None,
            other_names: &[],
            is_internal: false,
        }
    }

    /// For the message about a key by one of these names.
    #[must_use]
    pub const fn instead_of(self, other_names: &'static [&'static str]) -> Self {
        Self {
            other_names,
            ..self
        }
    }

    #[must_use]
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    #[must_use]
    pub const fn default(self, value: &'static str) -> Self {
        Self {
            default: Default::Value(value),
            ..self
        }
    }

    #[must_use]
    pub const fn depends(self, words: &'static str) -> Self {
        Self {
            default: Default::Depends(words),
            ..self
        }
    }

    /// The example is for the message about its absence.
    #[must_use]
    pub const fn required(self, example: &'static str) -> Self {
        Self {
            default: Default::Required,
            example: Some(example),
            ..self
        }
    }

    #[must_use]
    pub const fn example(self, example: &'static str) -> Self {
        Self {
            example: Some(example),
            ..self
        }
    }

    #[must_use]
    pub const fn of(self, preset: &'static str) -> Self {
        Self {
            preset: Some(preset),
            ..self
        }
    }

    #[must_use]
    pub const fn internal(self) -> Self {
        Self {
            is_internal: true,
            ..self
        }
    }

    /// A line that sets it, for messages.
    pub(super) fn line(&self) -> Option<String> {
        let value = match (self.example, self.default_text(), &self.value) {
            (Some(example), ..) => example.to_owned(),
            (
                None,
                Some(text),
                Type::Text(_) | Type::Words(_) | Type::Duration { .. } | Type::Size { .. },
            ) => format!("\"{text}\""),
            (None, Some(text), _) => text.to_owned(),
            (None, None, value) => Shape::of(value)?.inline()?,
        };
        Some(format!("`{} = {value}`", self.name))
    }

    /// The default's text.
    pub(super) fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Default::Value(text) => Some(text),
            Default::Required | Default::Nothing | Default::Depends(_) => None,
        }
    }
}

impl Table {
    #[must_use]
    pub const fn new(keys: &'static [&'static [Key]]) -> Self {
        Self {
            keys,
            variants: &[],
            notes: &[],
        }
    }

    #[must_use]
    pub const fn notes(self, notes: &'static [Note]) -> Self {
        Self { notes, ..self }
    }

    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// The variant for a key's value.
    pub(super) fn variant(&self, key: &str, word: &str) -> Option<&'static Self> {
        let mut variants = self.variants.iter();
        let found = variants.find(|variant| variant.key == key && variant.word == word);
        found.map(|variant| variant.table)
    }
}

/// The keys of a table that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Table(&'static Table, Option<&'static Table>),
    /// With names that the user chooses, and values of this kind.
    Map(&'static Type),
}

impl Shape {
    /// The shape of the tables that a value of this kind may be.
    pub(super) fn of(value: &Type) -> Option<Self> {
        match value {
            Type::Table(table) | Type::Tables(table) | Type::TableOrTables(table) => {
                Some(Self::Table(table, None))
            }
            Type::Map(values) => Some(Self::Map(values)),
            Type::List(value) => Self::of(value),
            Type::Any(types) => types.iter().find_map(Self::of),
            _ => None,
        }
    }

    /// The entry of a key. A reader that asks for a key without one is a mistake that every test of it finds.
    pub(super) fn key(self, name: &str) -> &'static Key {
        let found = self.find(name);
        debug_assert!(
            found.is_some(),
            "no table has an entry for the key `{name}`"
        );
        found.unwrap_or(&MISSING)
    }

    pub(super) fn find(self, name: &str) -> Option<&'static Key> {
        let mut tables = self.tables();
        tables.find_map(|table| table.find(name))
    }

    /// The keys that a user may have meant.
    pub(super) fn keys(self) -> impl Iterator<Item = &'static Key> {
        let keys = self.tables().flat_map(Table::keys);
        keys.filter(|key| !key.is_internal && key.preset.is_none())
    }

    /// The advice for a key that people expect here.
    pub(super) fn note(self, name: &str) -> Option<&'static str> {
        let mut notes = self.tables().flat_map(|table| table.notes);
        let found = notes.find(|(names, _)| names.contains(&name));
        found.map(|(_, advice)| *advice)
    }

    /// The smallest table in one line.
    pub(super) fn inline(self) -> Option<String> {
        let is_needed = |key: &&Key| key.default == Default::Required || key.name == "topic";
        let keys = self.keys().filter(is_needed);
        let keys = keys.filter_map(|key| Some(format!("{} = {}", key.name, key.example?)));
        let keys: Vec<_> = keys.collect();
        (!keys.is_empty()).then(|| format!("{{ {} }}", keys.join(", ")))
    }

    fn tables(self) -> impl Iterator<Item = &'static Table> {
        let (table, variant) = match self {
            Self::Table(table, variant) => (Some(table), variant),
            Self::Map(_) => (None, None),
        };
        variant.into_iter().chain(table)
    }
}

/// The names of words with their meanings.
#[must_use]
pub const fn words<T, const N: usize>(pairs: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    #[expect(
        clippy::indexing_slicing,
        reason = "below N, and evaluated by the compiler"
    )]
    while index < N {
        names[index] = pairs[index].0;
        index += 1;
    }
    names
}

#[must_use]
pub fn to_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[must_use]
pub fn to_size(text: &str) -> Option<usize> {
    let size: ByteSize = text.parse().ok()?;
    usize::try_from(size.as_u64()).ok()
}
