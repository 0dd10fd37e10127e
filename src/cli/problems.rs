//! Renders problems of a configuration in the style of rustc: the fault, its position, the line with the relevant part
//! underlined, and a suggestion.
//!
//! No existing crate fits, because the displayed line differs from the one in the file: values that may be secrets are
//! masked, while line and column refer to the file.

use std::fmt::Write as _;

use serde::Serialize;

use super::style;
use crate::table::{Place, Problem};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// A problem with its fields for programs.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'p> {
    severity: Severity,
    file: Option<&'p str>,
    line: Option<usize>,
    column: Option<usize>,
    /// The environment variable with the problem, instead of a file.
    variable: Option<&'p str>,
    key: Option<&'p str>,
    message: &'p str,
    help: Option<&'p str>,
    source: Option<&'p str>,
}

impl<'p> Entry<'p> {
    pub(super) fn new(severity: Severity, problem: &'p Problem) -> Self {
        let (file, line, column, variable) = match &problem.place {
            Some(Place::File { file, line, column }) => {
                (Some(file.as_str()), Some(*line), Some(*column), None)
            }
            Some(Place::Environment(name)) => (None, None, None, Some(name.as_str())),
            None => (None, None, None, None),
        };
        let source = problem.excerpt.as_ref();
        Self {
            severity,
            file,
            line,
            column,
            variable,
            key: (!problem.key.is_empty()).then_some(&problem.key),
            message: &problem.what,
            help: problem.help.as_deref(),
            source: source.map(|excerpt| excerpt.line.as_str()),
        }
    }
}

/// Renders a problem for standard error.
pub(super) fn show(severity: Severity, problem: &Problem) -> String {
    let stderr = std::io::stderr();
    let width = style::width(&stderr).unwrap_or(usize::MAX);
    render(severity, problem, style::is_coloured(&stderr), width)
}

/// As rustc shows an error. Own code, since crates for snippets take a whole source text and quote from it, and this one may
/// hold secrets: only an [`Excerpt`](crate::table::Excerpt) that was made safe is shown. What is left are these lines.
fn render(severity: Severity, problem: &Problem, is_coloured: bool, width: usize) -> String {
    let paint = |colour: anstyle::Style, text: &str| style::paint(colour, text, is_coloured);
    let (title, colour) = match severity {
        Severity::Error => ("error", style::RED),
        Severity::Warning => ("warning", style::YELLOW),
    };
    let line = match &problem.place {
        Some(Place::File { line, .. }) => line.to_string(),
        Some(Place::Environment(_)) | None => String::new(),
    };
    let margin = " ".repeat(line.len());
    let mut text = paint(colour, title);
    let subject = problem.subject();
    let separator = if subject.is_empty() { "" } else { ": " };
    text.push_str(&paint(
        style::BOLD,
        &style::wrap(
            &format!(": {subject}{separator}{}", problem.what),
            width.saturating_sub(title.len()),
            2,
        ),
    ));
    text.push('\n');
    // Writing to a string cannot fail.
    let mut add = |line: std::fmt::Arguments<'_>| {
        let _written = text.write_fmt(line);
    };
    let bar = paint(style::BLUE, "|");
    if let Some(place) = &problem.place {
        add(format_args!(
            "{margin}{} {place}\n",
            paint(style::BLUE, "-->")
        ));
    }
    if let Some(excerpt) = &problem.excerpt {
        let (before, marks) = (" ".repeat(excerpt.start), "^".repeat(excerpt.width));
        let (line, marks) = (paint(style::BLUE, &line), paint(colour, &marks));
        add(format_args!("{margin} {bar}\n"));
        add(format_args!("{line} {bar} {}\n", excerpt.line));
        add(format_args!("{margin} {bar} {before}{marks}\n"));
    }
    if let Some(help) = &problem.help {
        let sign = paint(style::BLUE, "=");
        add(format_args!(
            "{margin} {sign} {}: {}\n",
            paint(style::BOLD, "help"),
            style::wrap(
                help,
                width.saturating_sub(margin.len() + 9),
                margin.len() + 9
            )
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Excerpt;

    fn problem() -> Problem {
        Problem {
            place: Some(Place::File {
                file: "a.toml".to_owned(),
                line: 12,
                column: 19,
            }),
            key: "routes[0].topic".to_owned(),
            what: "it is wrong".to_owned(),
            help: Some("write \"x\"".to_owned()),
            excerpt: Some(Excerpt {
                line: "topic = \"y\"".to_owned(),
                start: 8,
                width: 3,
            }),
        }
    }

    #[test]
    fn a_problem_is_rendered_like_rustcs() {
        let expected = "error: route 1: topic: it is wrong\n  --> a.toml:12:19\n   |\n12 | topic = \"y\"\n   |         ^^^\n   = help: write \"x\"\n";
        assert_eq!(render(Severity::Error, &problem(), false, 80), expected);
        let coloured = render(Severity::Error, &problem(), true, 80);
        if std::env::var_os("NO_COLOR").is_none() {
            assert!(coloured.contains("\u{1b}[31m^^^\u{1b}[0m"), "{coloured}");
        }
    }

    #[test]
    fn the_json_has_the_same_fields() {
        let shown = serde_json::to_value(Entry::new(Severity::Warning, &problem())).unwrap();
        let expected = serde_json::json!({
            "severity": "warning", "file": "a.toml", "line": 12, "column": 19, "variable": null, "key": "routes[0].topic",
            "message": "it is wrong", "help": "write \"x\"", "source": "topic = \"y\"",
        });
        assert_eq!(shown, expected);
    }
}
