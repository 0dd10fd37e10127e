//! `init` writes a configuration and a first test that are valid for every provider.

use std::path::{Path, PathBuf};

use crate::support::bridge::{Finished, hookbridge, hookbridge_reading};
use crate::support::process;
use crate::support::secrets::variables;

fn presets() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers/presets");
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().path());
    let mut names: Vec<_> = names
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 38, "{names:?}");
    names
}

fn init(provider: &str, broker: &str, output: &Path, more: &[&str]) -> Finished {
    let output = output.to_str().unwrap();
    let arguments = ["init", "--provider", provider, "--broker", broker];
    hookbridge([&arguments[..], &["--output", output], more].concat())
}

#[test]
fn what_is_written_is_valid_for_every_provider_and_broker_and_its_first_test_holds() {
    for provider in presets() {
        for broker in ["kafka", "nats"] {
            let folder = process::directory("init");
            init(&provider, broker, &folder, &[]).expect_code(0);
            let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
            let (file, test) = (path("hookbridge.toml"), path("hookbridge.test.toml"));
            let text = std::fs::read_to_string(&file).unwrap();
            let printed = ["init", "--provider", &provider, "--broker", broker];
            let printed = hookbridge(printed).expect_code(0).stdout;
            assert_eq!(
                format!("#:schema hookbridge.schema.json\n\n{printed}"),
                text
            );
            let schema = std::fs::read_to_string(path("hookbridge.schema.json")).unwrap();
            let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
            assert!(schema.get("$schema").is_some(), "{schema}");
            let variables = variables(&text);
            let environment: Vec<_> = variables
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let check = ["check", "--deny-warnings", "--config", &file];
            hookbridge_reading(check, b"", &environment).expect_code(0);
            // Without its secret.
            let done = hookbridge(["test", "--config", &file, &test]).expect_code(0);
            assert!(done.stdout.contains("2 cases, all as expected"), "{done:?}");
        }
    }
}

#[test]
fn nothing_that_exists_is_overwritten_unless_it_is_forced() {
    let folder = process::directory("init");
    let below = folder.join("new/folder");
    init("github", "kafka", &below, &[])
        .expect_code(0)
        .expect_stdout(&[
            "wrote ",
            "hookbridge.test.toml",
            "hookbridge provision --config",
        ]);
    let file: PathBuf = below.join("hookbridge.toml");
    std::fs::write(&file, "mine").unwrap();
    let refused = init("github", "nats", &below, &[]).expect_code(1);
    refused.expect_stderr(&["hookbridge.toml exists, and nothing was written", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    // The test alone is reason enough.
    std::fs::remove_file(&file).unwrap();
    init("github", "nats", &below, &[]).expect_code(1);
    assert!(!file.exists());
    init("github", "nats", &below, &["--force"]).expect_code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("kind = \"nats\""), "{text}");

    let named = folder.join("bridge.toml");
    init("stripe", "kafka", &named, &[]).expect_code(0);
    assert!(named.exists() && folder.join("bridge.test.toml").exists());
    let unknown = init("githup", "kafka", &named, &["--force"]).expect_code(1);
    unknown.expect_stderr(&["unknown provider githup"]);
    hookbridge(["init", "--provider", "github"]).expect_code(2);
}
