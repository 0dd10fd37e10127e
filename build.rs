//! Tells the program which commit it was built from.

use std::process::Command;

fn main() {
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
