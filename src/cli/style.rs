//! Colour, columns, and output that does not panic.

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

pub(super) const RED: Style = AnsiColor::Red.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(super) const BLUE: Style = AnsiColor::Blue.on_default();
pub(super) const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Whether to use colour: on a terminal, unless `NO_COLOR`, `CLICOLOR` or `TERM` forbid it.
pub(super) fn is_coloured(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

pub(super) fn error(text: &str) -> String {
    paint(RED, "error: ", is_coloured(&std::io::stderr())) + text
}

pub(super) fn bold(text: &str) -> String {
    paint(BOLD, text, is_coloured(&std::io::stdout()))
}

pub(super) fn dim(text: &str) -> String {
    paint(DIM, text, is_coloured(&std::io::stdout()))
}

pub(super) fn paint(style: Style, text: &str, is_coloured: bool) -> String {
    if is_coloured {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Writes to standard output. Unlike `print!`, it returns an error when the reader has gone.
pub(super) fn print(text: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    write!(output, "{text}")?;
    output.flush()
}

/// Like [`print`], with a line break.
pub(super) fn println(text: impl std::fmt::Display) -> std::io::Result<()> {
    print(format_args!("{text}\n"))
}

/// Writes to standard error, ignoring a reader that has gone.
pub(super) fn eprint(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _unread = std::io::stderr().write_fmt(text);
}

/// Formats rows as aligned columns, two spaces apart; the first row is the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ").trim_end().to_owned();
        text.push_str(&if index == 0 { bold(&line) } else { line });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_space() {
        let rows = [
            vec!["A".to_owned(), "B".to_owned()],
            vec!["long".to_owned(), "x".to_owned()],
            vec!["é".to_owned(), String::new()],
        ];
        assert_eq!(table(&rows), "A     B\nlong  x\né\n");
    }
}
