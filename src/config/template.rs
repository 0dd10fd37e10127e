//! Templates for topics, subjects and keys: `{type}`, `{source}` and `{/json/pointer}`, parsed once at startup.

use crate::json::Pointer;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    /// `{type}`: the event type.
    Type,
    /// `{source}`: the source's name.
    Source,
    /// `{/pointer}`: a string, number or boolean of the body.
    Pointer(Pointer),
}

/// A mistake in a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// An opening brace alone.
    #[error("`{{` has no `}}`")]
    NotClosed,
    /// A closing brace alone.
    #[error("`}}` has no `{{`")]
    NotOpened,
    /// No text at all.
    #[error("it is empty; write for example `topic = \"hooks.{{type}}\"`")]
    Empty,
    /// An invalid JSON Pointer, and the rule that it violates.
    #[error("`{{{0}}}`: {1}")]
    Pointer(String, &'static str),
    /// An unknown placeholder, and the one that was probably meant.
    #[error(
        "`{{{0}}}` is not a placeholder; write `{1}`: there are `{{type}}`, `{{source}}` and `{{/json/pointer}}`"
    )]
    Unknown(String, String),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Err(TemplateError::NotClosed);
            };
            push_literal(&mut parts, literal)?;
            parts.push(match name {
                "type" => Part::Type,
                "source" => Part::Source,
                pointer if pointer.starts_with('/') => Part::Pointer(
                    Pointer::parse(pointer)
                        .map_err(|rule| TemplateError::Pointer(pointer.to_owned(), rule))?,
                ),
                other => return Err(TemplateError::Unknown(other.to_owned(), meant(other))),
            });
            rest = behind;
        }
        push_literal(&mut parts, rest)?;
        if parts.is_empty() {
            return Err(TemplateError::Empty);
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// The template as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the result depends on the payload.
    #[must_use]
    pub fn reads_payload(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Pointer(_)))
    }

    /// The result for a type and a source, unless it depends on the payload.
    #[must_use]
    pub fn without_payload(&self, event_type: &str, source: &str) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => Some(text.as_str()),
                Part::Type => Some(event_type),
                Part::Source => Some(source),
                Part::Pointer(_) => None,
            })
            .collect()
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The placeholder that was probably meant by another one.
fn meant(name: &str) -> String {
    let plain = name.trim_matches(['{', '}', ' ', '.', '$']);
    let lower = plain.to_lowercase().replace(['_', '-', ' '], "");
    match lower.as_str() {
        "type" | "eventtype" | "event" | "typ" | "typee" | "tpye" => "{type}".to_owned(),
        "source" | "sourcename" | "provider" | "src" => "{source}".to_owned(),
        "" => "{type}".to_owned(),
        _ => format!("{{/{}}}", plain.replace('.', "/")),
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) -> Result<(), TemplateError> {
    if text.contains('}') {
        return Err(TemplateError::NotOpened);
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn knows_type_source_and_pointers() {
        let template = Template::parse("{source}.x.{type}-{/a/0}").unwrap();
        assert_eq!(template.parts().len(), 5);
        assert!(template.reads_payload());
        assert_eq!(template.without_payload("t", "s"), None);
        let plain = Template::parse("{source}.{type}").unwrap();
        assert_eq!(plain.without_payload("t", "s").as_deref(), Some("s.t"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in ["", "{", "a}", "{typ}", "{/a~2}", "{{type}}", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_its_text(text in "[a-z{}/~.]{0,24}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.as_str(), text);
            }
        }
    }
}
