//! Problems of a configuration, for the person who has to fix them.

use std::fmt;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line and column count from 1, the column in characters.
    File {
        /// As it was given.
        file: String,
        line: usize,
        column: usize,
    },
    /// A variable's name.
    Environment(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A line of a configuration file that is safe to show: values not known to be harmless are masked, comments are omitted, and
/// a long line is cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excerpt {
    pub line: String,
    /// The first character of [`Self::line`] that the problem concerns, counted from 0.
    pub start: usize,
    /// In characters, at least 1.
    pub width: usize,
}

/// One problem, with its location and remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// None for a problem of a whole file, such as not being readable.
    pub place: Option<Place>,
    /// The key's path, such as `http.listen` or `routes[0].topic`; empty if the problem does not concern one key.
    pub key: String,
    /// The fault.
    pub what: String,
    /// The remedy.
    pub help: Option<String>,
    pub excerpt: Option<Excerpt>,
}

impl Problem {
    /// A message is `FAULT; REMEDY`: split at the first semicolon outside quotes.
    pub(crate) fn new(place: Option<Place>, key: String, message: &str) -> Self {
        let (what, help) = match split_advice(message) {
            Some((what, help)) => (what, Some(help.to_owned())),
            None => (message, None),
        };
        Self {
            place,
            key,
            what: what.to_owned(),
            help,
            excerpt: None,
        }
    }

    /// The key for people: routes are counted from 1.
    #[must_use]
    pub fn subject(&self) -> String {
        let route = self.key.strip_prefix("routes[").and_then(|rest| {
            let (index, key) = rest.split_once(']')?;
            let number = index.parse::<usize>().ok()?.checked_add(1)?;
            Some((number, key.trim_start_matches('.')))
        });
        match route {
            Some((number, "")) => format!("route {number}"),
            Some((number, key)) => format!("route {number}: {key}"),
            None => self.key.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.subject())?;
        }
        f.write_str(&self.what)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// All problems of a configuration, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

fn split_advice(message: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, character) in message.char_indices() {
        match (quote, character) {
            _ if is_escaped => is_escaped = false,
            (Some('"'), '\\') => is_escaped = true,
            (None, '"' | '`') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ';') => {
                let help = message.get(at + 1..)?.strip_prefix(' ')?;
                return Some((message.get(..at)?, help));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_begins_at_the_first_semicolon_outside_quotes() {
        let split = |message| {
            let problem = Problem::new(None, String::new(), message);
            (problem.what, problem.help.unwrap_or_default())
        };
        let pair = |what: &str, help: &str| (what.to_owned(), help.to_owned());
        assert_eq!(split("wrong"), pair("wrong", ""));
        assert_eq!(split("wrong; write x; y"), pair("wrong", "write x; y"));
        assert_eq!(
            split("\"a; \\\"b; c\" and `d; e` are wrong; write f"),
            pair("\"a; \\\"b; c\" and `d; e` are wrong", "write f")
        );
    }

    #[test]
    fn people_count_routes_from_1() {
        let subject = |key: &str| Problem::new(None, key.to_owned(), "x").subject();
        assert_eq!(subject("http.listen"), "http.listen");
        assert_eq!(subject("routes[0]"), "route 1");
        assert_eq!(
            subject("routes[9].copy_to[0].topic"),
            "route 10: copy_to[0].topic"
        );
    }
}
