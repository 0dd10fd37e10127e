//! `hookbridge schema`: every configuration of the repository is valid by it, common mistakes are not, and the documentation's
//! tables of keys are what it says.

use std::collections::BTreeMap;
use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use super::docs::{Block, blocks, files};
use crate::support::bridge::hookbridge;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn schema() -> Value {
    let printed = hookbridge(["schema"]).expect_code(0);
    serde_json::from_str(&printed.stdout).unwrap()
}

fn validator() -> Validator {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The faults of a file, each with its pointer.
fn faults(validator: &Validator, text: &str) -> Vec<String> {
    let value: toml::Value = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let value = serde_json::to_value(value).unwrap();
    let faults = validator.iter_errors(&value);
    let faults = faults.map(|fault| format!("{}: {fault}", fault.instance_path()));
    faults.collect()
}

/// Run with `BLESS=1` in the environment, this writes the file instead of comparing it.
#[test]
fn the_schema_beside_the_example_is_what_the_command_prints() {
    let file = Path::new(ROOT).join("config/hookbridge.schema.json");
    let printed = hookbridge(["schema"]).expect_code(0).stdout;
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept == printed,
        "config/hookbridge.schema.json is another one; run this test with BLESS=1"
    );
    let example = std::fs::read_to_string(Path::new(ROOT).join("config/hookbridge.toml")).unwrap();
    assert!(example.starts_with("#:schema hookbridge.schema.json\n"));
}

#[test]
fn every_configuration_of_the_repository_is_valid_by_the_schema() {
    let validator = validator();
    let mut count = 0;
    let mut check = |place: &str, text: &str| {
        let found = faults(&validator, text);
        assert!(found.is_empty(), "{place}: {found:#?}");
        count += 1;
    };
    for file in files(&Path::new(ROOT).join("config")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".toml") && !name.ends_with(".test.toml") {
            let text = std::fs::read_to_string(&file).unwrap();
            check(&file.display().to_string(), &text);
            // And with what is commented out, which is every key, those of other presets too.
            let found = faults(&validator, &uncommented(&text));
            let is_fault = |fault: &&String| !fault.contains("False schema");
            assert_eq!(found.iter().find(is_fault), None, "{}", file.display());
        }
    }
    for Block { info, text, place } in blocks() {
        if matches!(info.as_str(), "toml" | "toml fragment") {
            check(&place, &text);
        }
    }
    for file in files(&Path::new(ROOT).join("src/providers/presets")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let explained = hookbridge(["providers", name]).expect_code(0).stdout;
        let (_, example) = explained.split_once("\n\n").unwrap();
        check(name, example);
    }
    assert!(count > 60, "{count}");
}

/// A configuration whose comments of the form `# key = value` are lines. Of several such lines for a key, the first counts.
fn uncommented(text: &str) -> String {
    let mut seen = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if bare.starts_with('[') && bare.contains(']') {
            seen.clear();
        }
        let key = bare.split_once(" = ").map(|(key, _)| key);
        let is_key = key.is_some_and(|key| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        });
        let is_line = !line.starts_with('#')
            || bare.starts_with("[brokers.")
            || is_key && !seen.contains(&key);
        if is_line {
            seen.push(key);
            lines.push(bare);
        }
    }
    lines.join("\n")
}

#[test]
fn wrong_configurations_are_refused_where_they_are_wrong() {
    let validator = validator();
    let cases = [
        ("[htttp]", ""),
        ("routes = \"x\"", "/routes"),
        ("[routes]\ntopic = \"x\"", "/routes"),
        ("[http]\nlisten = \"8080\"", "/http/listen"),
        ("[http]\nidle_timeout = 75", "/http/idle_timeout"),
        ("[http]\nidle_timeout = \"75\"", "/http/idle_timeout"),
        ("[http]\nmax_body = \"1 XB\"", "/http/max_body"),
        ("[http]\nmax_in_flight = 0", "/http/max_in_flight"),
        ("[http]\nmax_in_flight = \"many\"", "/http/max_in_flight"),
        ("[http]\nhttp2 = \"yes\"", "/http/http2"),
        ("[http]\nhttp3 = true", "/http"),
        ("[http]\ntls = { cert = \"a\" }", "/http/tls"),
        (
            "[http]\ntrusted_proxies = [\"all\"]",
            "/http/trusted_proxies",
        ),
        ("[admin]\nready_when = \"some\"", "/admin/ready_when"),
        (
            "[brokers.main]\nbootstrap_servers = \"k:9092\"",
            "/brokers/main",
        ),
        ("[brokers.main]\nkind = \"redis\"", "/brokers/main/kind"),
        ("[brokers.main]\nkind = \"kafka\"", "/brokers/main"),
        (
            "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = [\"k:9092\"]",
            "/brokers/main/bootstrap_servers",
        ),
        (
            "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\nservers = \"nats://n\"",
            "/brokers/main",
        ),
        (
            "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k\"\noptions = { compression.type = \"lz4\" }",
            "/brokers/main/options/compression",
        ),
        (
            "[brokers.main]\nkind = \"nats\"\nservers = \"nats://n\"\nack = \"all\"",
            "/brokers/main/ack",
        ),
        (
            "[brokers.main]\nkind = \"nats\"\nservers = \"nats://n\"\ntls = true",
            "/brokers/main/tls",
        ),
        ("[sources.acme]\nsecrets = [\"x\"]", "/sources/acme"),
        (
            "[sources.acme]\nprovider = \"gihub\"",
            "/sources/acme/provider",
        ),
        ("[sources.synq]\nsecret = \"x\"", "/sources/synq"),
        (
            "[sources.synq]\nsecrets = [{ environment = \"X\" }]",
            "/sources/synq/secrets",
        ),
        (
            "[sources.synq]\nsecrets = [{ env = \"X\", file = \"y\" }]",
            "/sources/synq/secrets",
        ),
        ("[sources.synq]\nsecrets = [{}]", "/sources/synq/secrets"),
        ("[sources.synq]\npath = \"hooks\"", "/sources/synq/path"),
        (
            "[sources.synq]\ndedup_by = \"body\"",
            "/sources/synq/dedup_by",
        ),
        (
            "[sources.synq]\non_invalid = \"drop\"",
            "/sources/synq/on_invalid",
        ),
        (
            "[sources.synq]\non_invalid = { dead_letter = { broker = \"b\" } }",
            "/sources/synq/on_invalid",
        ),
        (
            "[sources.synq]\nsuccess_status = 404",
            "/sources/synq/success_status",
        ),
        (
            "[sources.synq]\nsignature_header = \"x\"",
            "/sources/synq/signature_header",
        ),
        (
            "[sources.hooks]\nprovider = \"synq\"\ntopic_arns = [\"x\"]",
            "/sources/hooks/topic_arns",
        ),
        (
            "[sources.aws-sns]\ntopic_arns = [\"x\"]\nconfirm_subscriptions = \"maybe\"",
            "/sources/aws-sns/confirm_subscriptions",
        ),
        (
            "[sources.gitlab]\nscheme = \"hmac\"",
            "/sources/gitlab/scheme",
        ),
        ("[sources.synq]\nscheme = \"v1\"", "/sources/synq/scheme"),
        ("[sources.auth0]\nformat = \"XML\"", "/sources/auth0/format"),
        (
            "[sources.synq.verify]\nalgorithm = \"md5\"",
            "/sources/synq/verify",
        ),
        (
            "[sources.synq.verify]\nsignature = { header = \"x\", encoding = \"base-64\" }",
            "/sources/synq/verify",
        ),
        (
            "[sources.synq.event]\nid = \"{/id}\"\nbody = \"xml\"",
            "/sources/synq/event/body",
        ),
        (
            "[sources.synq]\nrate_limit = 200",
            "/sources/synq/rate_limit",
        ),
        ("[[routes]]\ntopics = 5", "/routes/0/topics"),
        ("[[routes]]\naction = \"drop\"", "/routes/0/action"),
        (
            "[[routes]]\ncopy_to = [{ subject = \"x\" }]",
            "/routes/0/copy_to/0",
        ),
    ];
    for (text, pointer) in cases {
        let found = faults(&validator, text);
        let is_there = found.iter().any(|fault| {
            fault.starts_with(&format!("{pointer}: ")) || fault.starts_with(&format!("{pointer}/"))
        });
        assert!(is_there, "{text}: {found:#?}");
    }
    // The schema accepts whatever the reader accepts.
    let legal = [
        "[http]\nmax_in_flight = \"${MANY}\"\nhttp2 = \"${H2:-false}\"\nidle_timeout = \"${IDLE}\"\nlisten = \"${ADDRESS}\"",
        "[http]\ntls = [{ cert = \"a\", key = \"b\" }]\ntrusted_proxies = \"10.0.0.0/8\"",
        "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"${KAFKA}\"\noptions = { \"linger.ms\" = 5, \"a\" = true, \"b\" = { env = \"B\" } }",
        "[sources.hooks]\nprovider = \"aws-sns\"\ntopic_arns = [\"x\"]\nfetch_certificates = true",
        "[sources.mailgun]\nparent_signature = true",
        "[sources.anything]\nprovider = \"${PROVIDER}\"",
        "[sources.acme.event]\nid = [\"{/id}\", { text = \"{sha256:body}\", when = \"{/etag}\" }]\ntype = \"x\"",
    ];
    for text in legal {
        assert_eq!(faults(&validator, text), [""; 0], "{text}");
    }
}

/// The tables that the command prints, by their headings.
fn tables() -> BTreeMap<String, String> {
    let printed = hookbridge(["schema", "--format", "markdown"])
        .expect_code(0)
        .stdout;
    let sections = printed.split("## `").skip(1);
    let tables = sections.map(|section| {
        let (name, table) = section.split_once("`\n\n").unwrap();
        (name.to_owned(), format!("{}\n", table.trim_end()))
    });
    tables.collect()
}

#[test]
fn the_example_shows_every_key_but_those_that_declare_a_source() {
    let declaring = ["verify", "event", "handshakes"];
    let of_declared = [
        "[sources.NAME.verify]",
        "[sources.NAME.event]",
        "[[sources.NAME.handshakes]]",
        // Of `verify`.
        "signature",
        "timestamp",
    ];
    let text = std::fs::read_to_string(Path::new(ROOT).join("config/hookbridge.toml")).unwrap();
    let shown = |key: &str| {
        let key = format!("{key} = ");
        text.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let is_inner = ["{ ", ", "]
                .iter()
                .any(|before| line.contains(&format!("{before}{key}")));
            line.starts_with(&key) || is_inner
        })
    };
    let mut count = 0;
    for (name, table) in tables() {
        let keys = table
            .lines()
            .filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        for key in keys {
            let is_excepted = declaring.contains(&key) || of_declared.contains(&name.as_str());
            assert!(is_excepted || shown(key), "{name}: {key}");
            count += 1;
        }
    }
    assert!(count > 100, "{count} keys");
}

/// Run with `BLESS=1` in the environment, this writes the tables instead of comparing them.
#[test]
fn the_reference_is_what_the_configuration_is_read_with() {
    let mut tables = tables();
    for page in ["docs/configuration.md", "docs/providers.md"] {
        let file = Path::new(ROOT).join(page);
        let text = std::fs::read_to_string(&file).unwrap();
        let mut parts = text.split("<!-- keys: ");
        let mut expected = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once(" -->\n").unwrap();
            let (_, rest) = rest.split_once("<!-- end of keys -->").unwrap();
            let table = tables.remove(name);
            let table = table
                .unwrap_or_else(|| panic!("{page}: the table {name} must be there exactly once"));
            expected.push_str(&format!(
                "<!-- keys: {name} -->\n{table}<!-- end of keys -->{rest}"
            ));
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, expected).unwrap();
        } else {
            assert!(
                text == expected,
                "{page} is not what `hookbridge schema --format markdown` says; run this test with BLESS=1"
            );
        }
    }
    assert!(tables.is_empty(), "no page has {:?}", tables.keys());
}
