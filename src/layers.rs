//! Keeps imports running downwards: the modules by layer, and every path in the sources held against it. Inside of a folder the
//! order is free, but there is one.

use std::collections::{BTreeMap, BTreeSet};
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
    let (code, _) = text.split_once("\nmod tests {").unwrap_or((text, ""));
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

/// The names that follow a path in a file.
fn names_behind<'c>(code: &'c str, path: &str) -> Vec<&'c str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &'c str| text.split(|c| !is_name(c)).next().unwrap();
    let mut found = Vec::new();
    for rest in code.split(path).skip(1) {
        match rest.strip_prefix('{') {
            Some(grouped) => {
                let (group, _) = grouped.split_once('}').unwrap();
                found.extend(group.split(',').map(|item| name(item.trim())));
            }
            None => found.push(name(rest)),
        }
    }
    found
}

#[test]
fn files_of_a_folder_do_not_import_each_other_in_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    // By folder: the files, and which others of the folder each imports.
    let mut folders = BTreeMap::<PathBuf, BTreeMap<String, BTreeSet<String>>>::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap();
        let (folder, stem) = (name.parent().unwrap(), name.file_stem().unwrap());
        let stem = stem.to_str().unwrap();
        if folder == Path::new("")
            || stem == "mod"
            || EXEMPT.iter().any(|exempt| name == Path::new(exempt))
        {
            continue;
        }
        let code = code(&fs::read_to_string(file).unwrap());
        let path = format!("crate::{}::", folder.to_str().unwrap().replace('/', "::"));
        let mut imports = names_behind(&code, &path);
        imports.extend(names_behind(&code, "super::"));
        let files = folders.entry(folder.to_owned()).or_default();
        files.insert(
            stem.to_owned(),
            imports.into_iter().map(str::to_owned).collect(),
        );
    }
    let mut count = 0;
    for (folder, mut files) in folders {
        let names: BTreeSet<String> = files.keys().cloned().collect();
        for (file, imports) in &mut files {
            imports.retain(|import| import != file && names.contains(import));
            count += imports.len();
        }
        // A file that imports none of the rest is below it.
        while let Some(lowest) = files.iter().find(|(_, imports)| imports.is_empty()) {
            let lowest = lowest.0.clone();
            files.remove(&lowest);
            for imports in files.values_mut() {
                imports.remove(&lowest);
            }
        }
        assert!(
            files.is_empty(),
            "a circle in {}: {files:#?}",
            folder.display()
        );
    }
    assert!(count > 100, "only {count} imports were found");
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
