//! Remedies where a file is not valid TOML. The parser's words are for people who know its grammar.

/// The format of a file that is not TOML, and the remedy.
pub(super) fn other_format(text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{feff}');
    if text.contains('\r') && !text.contains('\n') {
        let what = "has lines that end in a carriage return alone; save it with line feeds";
        return Some(what.to_owned());
    }
    if text.contains('\0') {
        let what = "has NUL characters: it is UTF-16 without a mark, or not text; save it as UTF-8";
        return Some(what.to_owned());
    }
    let is_text = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut lines = text.lines().map(str::trim_end).filter(is_text);
    let first = lines.next()?;
    let is_assignment = |line: &str| {
        let value = line.split_once('=').map(|(_, value)| value.trim());
        value.is_some_and(|value| !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']))
    };
    let format = if first.starts_with('{') {
        "JSON"
    } else if first.starts_with('<') && !first.starts_with("<<<<") {
        "XML"
    } else if first == "---" || colon_after_name(first) {
        "YAML"
    } else if first.ends_with('{') && !first.contains('=') {
        "HCL"
    } else if is_assignment(first) && lines.all(is_assignment) {
        "a file of properties or variables"
    } else {
        return None;
    };
    Some(format!(
        "looks like {format}, and the configuration is TOML; config/hookbridge.toml shows one, and `hookbridge init` writes one"
    ))
}

/// Characters that change the text direction, or are invisible.
pub(super) fn is_direction(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A fault in a line, and the remedy. `rest` is the line from the fault on. Values are not quoted: they may be secrets.
pub(super) fn fault(message: &str, line: &str, rest: &str) -> String {
    let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start));
    if begins(&["//", "/*", ";"]) {
        return "a comment begins with `#`; write `#` here".to_owned();
    }
    if begins(&["<<<<<<<", "=======", ">>>>>>>", "|||||||"]) {
        return "a merge conflict was not resolved; keep one version, and remove the marks"
            .to_owned();
    }
    if line.starts_with("```") {
        return "a mark of Markdown is not a part of the configuration; remove the line".to_owned();
    }
    if rest.starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}']) {
        return "these are typographic quotes; write straight ones: `\"`".to_owned();
    }
    let invisible = |character: &char| is_direction(*character) || *character == '\u{a0}';
    if let Some(character) = rest.chars().next().filter(invisible) {
        let code = u32::from(character);
        return format!(
            "there is an invisible character (U+{code:04X}) here; delete it, and write a space if it was one"
        );
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (line, None),
    };
    if value.is_none() && colon_after_name(line) {
        let name = line.split(':').next().unwrap_or_default();
        return format!("TOML has `=` between key and value, not `:`; write `{name} = …`");
    }
    if value.is_some_and(|value| value.starts_with('=')) {
        return format!("there is one `=` too many; write `{name} = …`");
    }
    let plain = if is_name(name) { name } else { "key" };
    let is_about = |words: &[&str]| words.iter().any(|words| message.contains(words));
    let bare = [
        "string values must be quoted",
        "invalid float",
        "invalid integer",
        "invalid boolean",
        "invalid datetime",
        "invalid date",
        "invalid time",
    ];
    if is_about(&["string values must be quoted"]) && value == Some("") {
        return format!("`{plain}` has no value; write one behind the `=`, or remove the line");
    }
    let is_flag = |word: &str| {
        ["true", "false"]
            .iter()
            .any(|flag| word.eq_ignore_ascii_case(flag))
    };
    if is_about(&bare) && value.is_some_and(is_flag) {
        return format!("a flag is in lower case; write `{plain} = true` or `{plain} = false`");
    }
    let help = if is_about(&["missing assignment"]) && line.contains(':') {
        "write `=` between key and value, not `:`".to_owned()
    } else if is_about(&bare) {
        format!("text is in quotes; write `{plain} = \"…\"`")
    } else if is_about(&["invalid basic string", "invalid literal string"]) {
        "end the text with the quote that it begins with".to_owned()
    } else if is_about(&["escape"]) {
        "a backslash begins an escape; write two, or put the text into single quotes: '…'"
            .to_owned()
    } else if is_about(&["unclosed table"]) {
        "end the table's name with `]`".to_owned()
    } else if is_about(&["unclosed array"]) {
        "end the list with `]`".to_owned()
    } else if is_about(&["unclosed inline table"]) {
        "end the table with `}`".to_owned()
    } else if is_about(&["missing comma"]) {
        "write a comma between the two".to_owned()
    } else if is_about(&["key with no value"]) {
        format!("write `{plain} = …`")
    } else {
        return message.to_owned();
    };
    format!("{message}; {help}")
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.bytes().all(is_plain)
}

/// Whether a line is `name:`, perhaps with a value, as in YAML.
fn colon_after_name(line: &str) -> bool {
    line.split_once(':')
        .is_some_and(|(name, rest)| is_name(name) && (rest.is_empty() || rest.starts_with(' ')))
}
