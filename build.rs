//! Tells the program which commit it was built from, and which presets there are.

use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=HOOKBRIDGE_COMMIT");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    // A build outside of a checkout, such as an image's, names the commit itself.
    let named = std::env::var("HOOKBRIDGE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let commit = named
        .or_else(checked_out)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=HOOKBRIDGE_COMMIT={commit}");
    list_presets()
}

/// Lists the files in `presets/`, so that a new provider touches one file.
fn list_presets() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("src/providers/presets");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    let mut list =
        String::from("/// Every preset, sorted by name.\npub static PRESETS: &[Preset] = &[\n");
    for file in files {
        let name = file.file_stem().and_then(|stem| stem.to_str());
        let name = name.ok_or("a preset's name is not UTF-8")?;
        let path = std::path::absolute(&file)?;
        list.push_str(&format!(
            "    Preset {{ name: {name:?}, toml: include_str!({path:?}) }},\n"
        ));
    }
    list.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    Ok(std::fs::write(Path::new(&out).join("presets.rs"), list)?)
}

fn checked_out() -> Option<String> {
    let asked = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let commit = String::from_utf8(asked.stdout)
        .ok()
        .filter(|_| asked.status.success())?;
    Some(commit.trim().to_owned())
}
