//! The documentation: each configuration is valid, each command exists, each link resolves.
//!
//! A block marked `toml` is a complete configuration. One marked `toml fragment` is completed with the missing tables,
//! and one marked `toml cases` has routing tests of the example configuration. `deploy/check` has Helm, and reads the blocks
//! marked `yaml`, or `yaml values` for the chart's, and the commands that install the chart.
//!
//! Of a command of this repository, the program and every option must exist; of others, only that they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::bridge::{
    Finished, hookbridge, hookbridge_reading, kafka_broker, route, synq_source,
};
use crate::support::process;
use crate::support::secrets::{TEXT as SECRET, variables};

#[path = "../bench/options.rs"]
#[expect(dead_code, reason = "only read here")]
mod bench;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Folders named in documented configurations, replaced by one that has the files.
const FOLDERS: [&str; 3] = [
    "/etc/hookbridge/",
    "/run/secrets/hookbridge/",
    "/run/secrets/",
];

/// The folders of the documentation.
const FOLDERS_OF_PAGES: [&str; 5] = [
    "",
    "docs",
    "docs/providers",
    "deploy",
    "deploy/helm/hookbridge",
];

/// The kinds of blocks.
const KINDS: [&str; 10] = [
    "toml",
    "toml fragment",
    "toml cases",
    "sh",
    "yaml",
    "yaml values",
    "json",
    "http",
    "text",
    "mermaid",
];

/// Programs of others that commands name: nothing here knows their options.
const FOREIGN: [&str; 11] = [
    "curl",
    "docker",
    "helm",
    "install",
    "kafka-topics.sh",
    "kubectl",
    "nats",
    "nats-server",
    "openssl",
    "rm",
    "sed",
];

/// Words of the shell that begin a command.
const SHELL: [&str; 4] = ["done", "export", "for", "umask"];

/// Cargo's subcommands that are packages of their own.
const FOREIGN_OF_CARGO: [&str; 2] = ["deb", "deny"];

/// A Markdown file, and its path below the root.
struct Page {
    path: PathBuf,
    text: String,
}

/// The Markdown files of these folders, without those in folders below.
fn pages(folders: &[&str]) -> Vec<Page> {
    let mut pages = Vec::new();
    for folder in folders {
        for file in files(&Path::new(ROOT).join(folder)) {
            if file.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&file).unwrap();
                let path = file.strip_prefix(ROOT).unwrap().to_owned();
                pages.push(Page { path, text });
            }
        }
    }
    assert!(!pages.is_empty());
    pages
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// A fenced block, and where it begins.
pub(crate) struct Block {
    pub(crate) info: String,
    pub(crate) text: String,
    pub(crate) place: String,
}

pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for page in pages(&FOLDERS_OF_PAGES) {
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(page.text.lines()) {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(info), None) => {
                    open = Some(Block {
                        info: info.trim().to_owned(),
                        text: String::new(),
                        place: format!("{}:{number}", page.path.display()),
                    });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(
            open.is_none(),
            "{}: a block has no end",
            page.path.display()
        );
    }
    blocks
}

/// The lines that are not in a block.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    lines.collect()
}

// ---- Configurations

#[test]
fn every_configuration_in_the_documentation_is_valid() {
    let mut count = 0;
    for block in blocks() {
        let text = match block.info.as_str() {
            "toml" => block.text,
            "toml fragment" => completed(&block.text),
            "toml cases" => {
                run_cases(&block);
                continue;
            }
            info => {
                assert!(!info.starts_with("toml"), "{}: {info:?}", block.place);
                continue;
            }
        };
        let done = check(&text);
        assert_eq!(done.code, Some(0), "{}: {done:?}", block.place);
        // Configurations for copying should not cause warnings.
        let is_of_provider = block.place.starts_with("docs/providers/");
        let has_warning = done.stderr.contains("warning");
        assert!(!is_of_provider || !has_warning, "{}: {done:?}", block.place);
        count += 1;
    }
    assert!(count > 1);
}

/// Routing tests of the example configuration.
fn run_cases(block: &Block) {
    let file = process::directory("docs").join("cases.toml");
    std::fs::write(&file, &block.text).unwrap();
    let config = Path::new(ROOT).join("config/hookbridge.toml");
    let (config, file) = (config.to_str().unwrap(), file.to_str().unwrap());
    let done = hookbridge(["test", "--config", config, file]);
    assert_eq!(done.code, Some(0), "{}: {done:?}", block.place);
}

/// Completes a fragment with a broker, a source and a route.
fn completed(fragment: &str) -> String {
    let lacks = |table: &str| !fragment.lines().any(|line| line.starts_with(table));
    let mut text = fragment.to_owned();
    if lacks("[brokers.") {
        text.push_str(&kafka_broker("main", "localhost:9092"));
    }
    if lacks("[sources.") {
        text.push_str(&synq_source(""));
    }
    if lacks("[[routes]]") {
        text.push_str(&route("synq.{type}"));
    }
    text
}

/// Checks a configuration after providing its files and variables.
fn check(text: &str) -> Finished {
    let folder = process::directory("docs");
    let mut text = text.to_owned();
    for named in FOLDERS {
        for rest in text.split(named).skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !name.is_empty() && name.bytes().all(is_plain) {
                std::fs::write(folder.join(name), content_of(name)).unwrap();
            }
        }
        text = text.replace(named, &format!("{}/", folder.display()));
    }
    let file = folder.join("hookbridge.toml");
    std::fs::write(&file, &text).unwrap();
    let variables = variables(&text);
    let environment = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let environment: Vec<_> = environment.collect();
    hookbridge_reading(
        ["check", "--config", file.to_str().unwrap()],
        b"",
        &environment,
    )
}

fn content_of(name: &str) -> &'static str {
    if name == "jwks.json" {
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
    } else if name.ends_with(".json") {
        "{}"
    } else if name.contains("key") {
        include_str!("../../src/config/fixtures/key.pem")
    } else if name.ends_with(".pem") {
        include_str!("../../src/config/fixtures/certificate.pem")
    } else {
        SECRET
    }
}

#[test]
fn every_preset_has_a_page_that_the_table_of_providers_names() {
    let index = read("docs/providers.md");
    for file in files(&Path::new(ROOT).join("src/providers/presets")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let page = read(&format!("docs/providers/{name}.md"));
        let link = format!("[`{name}`](providers/{name}.md)");
        assert!(
            index.contains(&link),
            "{link} is missing in docs/providers.md"
        );
        let headings: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        let expected = [
            "Set up the provider",
            "Configure the bridge",
            "Retries",
            "Types and topics",
            "Traps",
        ];
        assert_eq!(headings, expected, "{name}");
        let provider = hookbridge(["providers", name]).expect_code(0);
        let source = provider
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("documentation"));
        let source = source.unwrap().trim();
        assert!(
            page.contains(source),
            "{name}: {source} is not named as the source"
        );
    }
}

#[test]
fn every_key_of_the_example_configuration_is_on_the_page_about_configuration() {
    let page = read("docs/configuration.md");
    let example = read("config/hookbridge.toml");
    let keys = example.lines().filter_map(|line| {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        let is_key = key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        is_key.then_some(key)
    });
    for key in keys.collect::<BTreeSet<_>>() {
        assert!(page.contains(&format!("`{key}`")), "{key} is missing");
    }
}

#[test]
fn every_metric_is_on_the_page_about_operations() {
    let page = read("docs/operations.md");
    let source = read("src/metrics.rs");
    let names = source
        .split("\"hookbridge_")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    for name in names.collect::<BTreeSet<_>>() {
        assert!(
            page.contains(&format!("`hookbridge_{name}`")),
            "hookbridge_{name} is missing"
        );
    }
}

// ---- Commands

#[test]
fn every_command_in_the_documentation_exists_with_its_options() {
    let mut count = 0;
    for block in blocks() {
        assert!(
            KINDS.contains(&block.info.as_str()),
            "{}: {:?}",
            block.place,
            block.info
        );
        if block.info == "sh" {
            for command in invocations(&block.text) {
                expect_command(&command, &block.place);
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} commands");
    // In prose a command may have brackets and alternatives, and omit parts.
    for page in pages(&FOLDERS_OF_PAGES) {
        let place = page.path.display().to_string();
        for line in prose(&page.text) {
            for span in line.split('`').skip(1).step_by(2) {
                let plain = span.replace(['[', ']', '|', '\\', '…'], " ");
                let words: Vec<&str> = plain.split_whitespace().collect();
                match words.as_slice() {
                    ["hookbridge", arguments @ ..] if !arguments.is_empty() => {
                        expect_options(arguments, &place);
                    }
                    ["cargo", arguments @ ..] => expect_cargo(arguments, &place),
                    ["--no-default-features", ..] => expect_features(&words, &place),
                    [program, arguments @ ..] if is_own(program) => {
                        expect_own(program, arguments, &place);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn scripts_and_workflows_give_each_other_options_that_exist() {
    let mut count = 0;
    let mut texts = scripts();
    texts.extend(files(&Path::new(ROOT).join(".github/workflows")));
    let programs: Vec<String> = scripts().iter().map(|script| below_root(script)).collect();
    for file in texts {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut text = text.replace("\\\n", " ").replace('`', "\n");
        // A variable of a loop has its first value.
        for header in text.clone().split("for ").skip(1) {
            if let [name, "in", value, ..] = header.splitn(4, ' ').collect::<Vec<_>>()[..] {
                text = text.replace(&format!("\"${name}\""), value);
            }
        }
        for line in text.lines() {
            for program in &programs {
                for (before, _) in line.match_indices(&format!("{program} --")) {
                    let is_whole = line[..before]
                        .chars()
                        .next_back()
                        .is_none_or(|character| " \t;(".contains(character));
                    if !is_whole {
                        continue;
                    }
                    // Two spaces begin an explanation.
                    let rest = line[before..].split("  ").next().unwrap();
                    let words = commands(rest).swap_remove(0);
                    let words = words.iter().map(|word| word.trim_end_matches(['.', ',']));
                    let words: Vec<&str> = words.collect();
                    expect_own(words[0], &words[1..], &below_root(&file));
                    count += 1;
                }
            }
        }
    }
    assert!(count > 20, "{count} commands");
}

/// The programs of this repository that are scripts.
fn scripts() -> Vec<PathBuf> {
    let folders = [
        ".ci",
        "deploy",
        "fuzz",
        "tests",
        "tests/bench",
        "tests/schema",
        "tests/sdk",
        "tests/soak",
    ];
    let files = folders.map(|folder| files(&Path::new(ROOT).join(folder)));
    let mut scripts: Vec<PathBuf> = files.into_iter().flatten().collect();
    scripts.retain(|file| is_own(&below_root(file)));
    assert!(scripts.len() > 8, "{scripts:?}");
    scripts
}

fn below_root(file: &Path) -> String {
    file.strip_prefix(ROOT).unwrap().display().to_string()
}

/// Whether this is a script of the repository.
fn is_own(program: &str) -> bool {
    let file = Path::new(ROOT).join(program);
    let has_folder = program.contains('/') && !program.starts_with('/');
    has_folder && file.is_file() && file.metadata().unwrap().permissions().mode() & 0o111 != 0
}

/// Whether a command names a program that exists, and gives it options and files that exist.
fn expect_command(command: &[String], place: &str) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    for word in &words {
        let is_of_ours = ["deploy/", "docs/", "fuzz/", "src/", "tests/"]
            .iter()
            .any(|folder| word.starts_with(folder));
        assert!(
            !is_of_ours || Path::new(ROOT).join(word).exists(),
            "{place}: {words:?}: {word} not found"
        );
    }
    match words.as_slice() {
        ["hookbridge", arguments @ ..] => {
            expect_options(arguments, place);
            expect_usage(arguments, place);
        }
        ["cargo", arguments @ ..] => expect_cargo(arguments, place),
        [program, arguments @ ..] if is_own(program) => expect_own(program, arguments, place),
        [program, ..] => assert!(
            FOREIGN.contains(program) || SHELL.contains(program),
            "{place}: {words:?}: {program} is not known"
        ),
        [] => {}
    }
}

/// Whether a script of this repository has these options.
fn expect_own(program: &str, arguments: &[&str], place: &str) {
    #[derive(clap::Parser)]
    struct Bench {
        #[command(flatten)]
        _options: bench::Options,
    }
    let (own, passed_on) = split(arguments);
    match program {
        "tests/bench/run" => {
            let words = std::iter::once(program).chain(own.iter().copied());
            let read = <Bench as clap::Parser>::try_parse_from(words);
            let error = read.map(drop).err();
            let error = error.filter(|error| error.kind() != clap::error::ErrorKind::DisplayHelp);
            let error = error.map(|error| error.to_string());
            assert_eq!(error, None, "{place}");
        }
        "deploy/build" => expect_cargo(&[&["build"], own].concat(), place),
        _ => {
            let text = read(program);
            for option in options(own) {
                assert!(
                    text.contains(&format!(" {option}) ")),
                    "{place}: {program} has no option {option}"
                );
            }
        }
    }
    if program == "tests/run" && !passed_on.is_empty() {
        expect_cargo(&[&["test"], passed_on].concat(), place);
    }
}

/// The words in front of `--`, and those behind it.
fn split<'w>(words: &'w [&'w str]) -> (&'w [&'w str], &'w [&'w str]) {
    match words.iter().position(|word| *word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[]),
    }
}

/// The names of long options.
fn options<'w>(words: &[&'w str]) -> impl Iterator<Item = &'w str> {
    let options = words.iter().filter(|word| word.starts_with("--"));
    let names = options.map(|option| option.split('=').next().unwrap());
    names.collect::<Vec<_>>().into_iter()
}

/// Whether Cargo has the command, and this repository the targets and features.
fn expect_cargo(arguments: &[&str], place: &str) {
    let [command, rest @ ..] = arguments else {
        panic!("{place}: cargo without a command");
    };
    let (own, passed_on) = split(rest);
    let settings = toml(".cargo/config.toml");
    if let Some(alias) = settings["alias"].get(*command) {
        let words: Vec<&str> = alias.as_str().unwrap().split(' ').collect();
        return expect_cargo(&[&words, rest].concat(), place);
    }
    match *command {
        "run" => expect_options(passed_on, place),
        "build" | "install" | "test" => {}
        "bench" => {
            let manifest = toml("Cargo.toml");
            for bench in values(own, "--bench") {
                let known = manifest["bench"].as_array().unwrap();
                let known = known
                    .iter()
                    .find(|known| known["name"].as_str() == Some(bench));
                let known = known.unwrap_or_else(|| panic!("{place}: no benchmark {bench}"));
                let text = read(known["path"].as_str().unwrap());
                for part in passed_on.iter().filter(|word| !word.starts_with('-')) {
                    assert!(text.contains(&format!("fn {part}")), "{place}: no {part}");
                }
            }
        }
        command => assert!(
            FOREIGN_OF_CARGO.contains(&command),
            "{place}: cargo {command} is not known"
        ),
    }
    for test in values(own, "--test") {
        let file = format!("tests/{test}/main.rs");
        assert!(
            Path::new(ROOT).join(file).exists(),
            "{place}: no test {test}"
        );
    }
    expect_features(own, place);
}

/// Whether the features exist.
fn expect_features(words: &[&str], place: &str) {
    let manifest = toml("Cargo.toml");
    for feature in values(words, "--features").flat_map(|list| list.split(',')) {
        assert!(
            manifest["features"].get(feature).is_some(),
            "{place}: no feature {feature}"
        );
    }
}

/// The values of an option.
fn values<'w>(words: &'w [&'w str], option: &'w str) -> impl Iterator<Item = &'w str> {
    let pairs = words.windows(2).filter(move |pair| pair[0] == option);
    pairs.map(|pair| pair[1])
}

fn toml(path: &str) -> toml::Table {
    read(path).parse().unwrap()
}

/// Whether `--help` of the command has all options.
fn expect_options(arguments: &[&str], place: &str) {
    let command = arguments.first().copied().unwrap_or_default();
    let help = match command.starts_with('-') {
        true => hookbridge(["--help"]),
        false => hookbridge([command, "--help"]),
    };
    assert_eq!(help.code, Some(0), "{place}: {arguments:?}: {help:?}");
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let known: BTreeSet<&str> = help.stdout.split(|other| !is_part(other)).collect();
    for option in options(arguments) {
        assert!(
            known.contains(option),
            "{place}: {arguments:?}: no option {option}"
        );
    }
}

/// Whether the command does its work, or would if its file, server or private key existed.
fn expect_usage(arguments: &[&str], place: &str) {
    if arguments.first() == Some(&"demo") {
        return; // it needs neither
    }
    let nowhere = "/nowhere/hookbridge.toml";
    let harmless = arguments.iter().map(|argument| {
        if argument.starts_with("http://") || argument.starts_with("https://") {
            "http://127.0.0.1:1/"
        } else if argument.starts_with("/etc/") {
            nowhere
        } else {
            argument
        }
    });
    let environment = [
        ("HOOKBRIDGE_CONFIG", nowhere),
        ("HOOKBRIDGE_SEND_SECRET", SECRET),
    ];
    let done = hookbridge_reading(harmless, b"", &environment);
    let absent = [
        "can't be read: No such file",
        "127.0.0.1:1 can't be reached",
        "the private key cannot be used",
    ];
    let is_absent = absent.iter().any(|reason| done.all().contains(reason));
    assert!(
        done.code == Some(0) || done.code == Some(1) && is_absent,
        "{place}: {arguments:?}: {done:?}"
    );
}

/// The commands of a script, without words that precede them, and those that a container's shell is given.
fn invocations(script: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for command in commands(script) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut rest = words.as_slice();
        loop {
            rest = match rest {
                ["docker", "compose", "exec", _service, rest @ ..] => rest,
                ["kubectl", arguments @ ..] if arguments.contains(&"exec") => split(arguments).1,
                ["do" | "then" | "sudo", rest @ ..] => rest,
                [first, rest @ ..] if is_assignment(first) => rest,
                _ => break,
            };
        }
        match rest {
            ["sh", "-c", script, ..] => found.extend(invocations(script)),
            [] => {}
            words => found.push(without_redirections(words)),
        }
    }
    found
}

fn is_assignment(word: &str) -> bool {
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && is_name(name))
}

fn without_redirections(words: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            ">" | "<" => {
                let _file = words.next();
            }
            word if word.starts_with(['>', '<']) => {}
            word => kept.push(word.to_owned()),
        }
    }
    kept
}

/// The commands of a script as words: enough shell syntax for the documented ones.
fn commands(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            // The output of a command is part of a word.
            (None, '$') if characters.peek() == Some(&'(') => {
                let word = word.get_or_insert_default();
                word.push(character);
                word.extend(characters.by_ref().take_while(|inner| *inner != ')'));
                word.push(')');
            }
            (None, ' ' | '\t' | '\n' | ';' | '|' | '&' | '(' | ')') => {
                let ended = word.take();
                commands.last_mut().unwrap().extend(ended);
                if !matches!(character, ' ' | '\t') {
                    commands.push(Vec::new());
                }
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    commands.last_mut().unwrap().extend(word);
    commands
}

// ---- Links

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    for page in pages(&FOLDERS_OF_PAGES) {
        let folder = Path::new(ROOT).join(page.path.parent().unwrap());
        for link in links(&page.text) {
            let is_elsewhere = ["http://", "https://", "mailto:"]
                .iter()
                .any(|scheme| link.starts_with(scheme));
            if is_elsewhere {
                continue;
            }
            let place = format!("{}: {link}", page.path.display());
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let text = if path.is_empty() {
                page.text.clone()
            } else {
                let target = folder.join(path);
                assert!(target.exists(), "{place}: file not found");
                std::fs::read_to_string(target).unwrap_or_default()
            };
            assert!(
                anchor.is_empty() || anchors(&text).contains(anchor),
                "{place}: heading not found"
            );
        }
    }
}

/// The targets of inline links.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).into_iter().flat_map(|line| {
        let behind = line.split("](").skip(1);
        behind.filter_map(|rest| rest.split_once(')'))
    });
    targets.map(|(target, _)| target).collect()
}

/// The anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for heading in prose(text)
        .into_iter()
        .filter_map(|line| line.strip_prefix('#'))
    {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|kept| kept.is_alphanumeric() || matches!(kept, ' ' | '-' | '_'));
        let slug: String = kept
            .map(|kept| if kept == ' ' { '-' } else { kept })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(match *count {
            0 => slug,
            count => format!("{slug}-{count}"),
        });
        *count += 1;
    }
    anchors
}

// ---- Faults

#[test]
fn the_catalogue_of_faults_and_the_tests_name_each_other() {
    let tests = functions();
    let page = read("docs/faults.md");
    let rows = page.lines().filter(|line| {
        let mut bytes = line.bytes().skip(2);
        line.starts_with("| ")
            && matches!(bytes.next(), Some(b'F' | b'S'))
            && bytes.next().is_some_and(|byte| byte.is_ascii_digit())
    });
    let rows: Vec<&str> = rows.collect();
    for row in &rows {
        let named = row.rsplit(" | ").next().unwrap_or_default();
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for test in named {
            assert!(tests.contains(test), "test {test} not found");
        }
    }
    for test in &tests {
        for number in test.split('_').take_while(|part| is_row(part)) {
            let row = format!("| {} |", number.to_uppercase());
            assert!(
                rows.iter().any(|known| known.starts_with(&row)),
                "no row for {test}"
            );
        }
    }
}

fn is_row(part: &str) -> bool {
    matches!(part.as_bytes(), [b'f' | b's', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// The names of the functions of the end-to-end tests.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(ROOT).join("tests/e2e")];
    while let Some(folder) = folders.pop() {
        for file in files(&folder) {
            if file.is_dir() {
                folders.push(file);
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let functions = text.lines().filter_map(|line| line.strip_prefix("fn "));
            names.extend(
                functions
                    .filter_map(|rest| rest.split_once(['(', '<']))
                    .map(|(name, _)| name.to_owned()),
            );
        }
    }
    names
}
