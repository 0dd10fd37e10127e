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
    const WORD: &str = "error: ";
    let fitted = fit(&format!("{WORD}{text}"), &std::io::stderr(), 2);
    let text = fitted.strip_prefix(WORD).unwrap_or(&fitted);
    paint(RED, WORD, is_coloured(&std::io::stderr())) + text
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

/// Like [`print()`], with a line break.
pub(super) fn println(text: impl std::fmt::Display) -> std::io::Result<()> {
    print(format_args!("{text}\n"))
}

/// Writes to standard error, ignoring a reader that has gone.
pub(super) fn eprint(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _unread = std::io::stderr().write_fmt(text);
}

/// The width of lines on a terminal; none for what other programs read.
pub(super) fn width(stream: &impl std::io::IsTerminal) -> Option<usize> {
    stream.is_terminal().then_some(80)
}

/// Breaks a text between words so that it fits, and indents its further lines. Longer words stay whole.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 {
            if column + 1 + length > width {
                wrapped.push('\n');
                wrapped.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                wrapped.push(' ');
                column += 1;
            }
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// Lines that fit a terminal. Their own indentation stays, and what is broken off is indented by `indent`.
pub(super) fn fit(text: &str, stream: &impl std::io::IsTerminal, indent: usize) -> String {
    let Some(width) = width(stream) else {
        return text.to_owned();
    };
    let lines = text.split('\n').map(|line| {
        let words = line.trim_start_matches(' ');
        let lead = line.len() - words.len();
        " ".repeat(lead) + &wrap(words, width.saturating_sub(lead), indent)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Formats rows as aligned columns, two spaces apart; the first row is the heading. On a terminal, cells are wrapped.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    match width(&std::io::stdout()) {
        Some(width) => columns(&narrowed(rows, width)),
        None => columns(rows),
    }
}

/// Rows whose longest cells are broken into rows of their own, until lines fit.
fn narrowed(rows: &[Vec<String>], width: usize) -> Vec<Vec<String>> {
    const LEAST: usize = 10;
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cell_width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let mut widths: Vec<_> = (0..count).map(cell_width).collect();
    loop {
        let all = widths.iter().sum::<usize>() + 2 * count.saturating_sub(1);
        let excess = all.saturating_sub(width);
        let Some(widest) = widths
            .iter_mut()
            .max()
            .filter(|widest| excess > 0 && **widest > LEAST)
        else {
            break;
        };
        // One by one, so that two wide columns share what is left.
        *widest -= 1;
    }
    let mut narrowed = Vec::with_capacity(rows.len());
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| cell_lines(cell, *width));
        let cells: Vec<_> = cells.collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height.max(1) {
            let part = |cell: &Vec<String>| cell.get(line).cloned().unwrap_or_default();
            narrowed.push(cells.iter().map(part).collect());
        }
    }
    narrowed
}

/// A cell's lines. Words that are longer than a line are broken too, or the columns behind them would be pushed aside.
pub(super) fn cell_lines(cell: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in cell.split(' ') {
        for (index, piece) in pieces(word, width).into_iter().enumerate() {
            match lines.last_mut() {
                Some(line)
                    if index == 0 && line.chars().count() + 1 + piece.chars().count() <= width =>
                {
                    line.push(' ');
                    line.push_str(piece);
                }
                _ => lines.push(piece.to_owned()),
            }
        }
    }
    lines
}

/// Breaks a word into parts of up to `width` characters, preferably behind punctuation.
fn pieces(word: &str, width: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((end, _)) = rest.char_indices().nth(width.max(1)) {
        let head = rest.get(..end).unwrap_or(rest);
        let punctuation = head.rfind([',', '/', '.', '-', '_', ':']).map(|at| at + 1);
        let end = punctuation.filter(|at| *at > head.len() / 2).unwrap_or(end);
        let (piece, left) = rest.split_at(end);
        pieces.push(piece);
        rest = left;
    }
    pieces.push(rest);
    pieces
}

fn columns(rows: &[Vec<String>]) -> String {
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
    fn what_is_too_wide_is_broken_between_words() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("a-long-word b", 4, 0), "a-long-word\nb");
        let cells = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let types = "issue_created issue_updated issue_status_updated issue_closed incident_created incident_closed";
        let rows = [
            cells(["ROUTE", "TYPES", "KEY"]),
            cells([
                "1",
                types,
                "(the provider's default) or something longer than that",
            ]),
        ];
        let narrow = columns(&narrowed(&rows, 80));
        assert!(
            narrow.lines().all(|line| line.chars().count() <= 80),
            "{narrow}"
        );
        let words = |text: &str| {
            let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(words(&narrow), words(&columns(&rows)));
        assert_eq!(columns(&narrowed(&rows, 500)), columns(&rows));
        assert_eq!(
            cell_lines("a one.two-three b", 9),
            ["a", "one.two-", "three b"]
        );
        assert_eq!(cell_lines("ééééé", 2), ["éé", "éé", "é"]);
        assert_eq!(cell_lines("", 9), [""]);
    }

    #[test]
    fn columns_are_aligned_without_trailing_space() {
        let rows = [
            vec!["A".to_owned(), "B".to_owned()],
            vec!["long".to_owned(), "x".to_owned()],
            vec!["é".to_owned(), String::new()],
        ];
        assert_eq!(columns(&rows), "A     B\nlong  x\né\n");
    }
}
