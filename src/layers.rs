//! Keeps imports running downwards: the modules by layer, and every path in the sources held against it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Modules of one layer do not import each other.
const LAYERS: [&[&str]; 10] = [
    &["http_post", "printable", "secret", "task"],
    &["json", "table", "telemetry"],
    &["event", "trace"],
    &["brokers", "providers"],
    &["config", "flow"],
    &["metrics"],
    &["bridge"],
    &["ingress"],
    &["service"],
    &["cli"],
];

/// Roots, and tests that hold several layers together.
const EXEMPT: [&str; 5] = [
    "lib.rs",
    "main.rs",
    "layers.rs",
    "ingress/vectors.rs",
    "config/tests.rs",
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, without comments and without its unit tests, which are at its end.
fn code(text: &str) -> String {
    let (code, _) = text
        .split_once("#[cfg(test)]\nmod tests {")
        .unwrap_or((text, ""));
    let lines = code.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The crate's modules that the paths of a file name, and what follows each.
fn paths(code: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for path in code.split("crate::").skip(1) {
        if let Some(grouped) = path.strip_prefix('{') {
            let (group, _) = grouped.split_once('}').unwrap();
            let modules = group.split(',').map(str::trim);
            found.extend(modules.map(|item| (item.split("::").next().unwrap(), "")));
            continue;
        }
        let (module, inner) = path.split_once(|c| !is_name(c)).unwrap_or((path, ""));
        found.push((module, inner.strip_prefix(':').unwrap_or_default()));
    }
    found
}

#[test]
fn imports_run_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for file in files {
        let name = file.strip_prefix(&root).unwrap();
        if EXEMPT.iter().any(|exempt| name == Path::new(exempt)) {
            continue;
        }
        let mut parts = name
            .components()
            .map(|part| part.as_os_str().to_str().unwrap());
        let own = parts.next().unwrap().trim_end_matches(".rs");
        let own_layer = layer(own).unwrap_or_else(|| panic!("{own} is in no layer"));
        let is_deep = parts.count() > 1;
        for (module, inner) in paths(&code(&fs::read_to_string(&file).unwrap())) {
            let Some(imported) = layer(module) else {
                continue;
            };
            checked += 1;
            if module != own && imported >= own_layer {
                wrong.push(format!("{}: crate::{module}", name.display()));
            }
            // A folder's own files are named: its mod.rs imports the folders below it.
            if module == own && is_deep && inner.starts_with(|c: char| c.is_uppercase() || c == '{')
            {
                let named = inner.lines().next().unwrap_or_default();
                wrong.push(format!("{}: crate::{module}::{named}", name.display()));
            }
        }
    }
    assert!(checked > 200, "only {checked} imports were found");
    assert!(
        wrong.is_empty(),
        "imports run upwards:\n{}",
        wrong.join("\n")
    );
}
