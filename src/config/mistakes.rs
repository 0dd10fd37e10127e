//! Tests of the problems and warnings about `verify`, `auth` and `event`.

use super::{ConfigFile, Origin};

/// A valid source; each case replaces one of its lines.
const ACME: &str = r#"
[brokers.main]
kind = "nats"
servers = "nats://localhost:4222"

[[routes]]
topic = "t"

[sources.acme]
secrets = ["s3cr3t-of-16-bytes"]
public_url = "https://hooks.example.com/hooks/acme"

[sources.acme.verify]
signature = { header = "x-acme-signature", separator = ",", field = "v1", encoding = "hex" }
content = "{timestamp}.{body}"
timestamp = { header = "x-acme-time", unit = "s" }
tolerance = "5m"

[sources.acme.event]
id = "{/id}"
type = "{/type}"
"#;

/// The problems of a configuration, or its warnings if it has none.
fn findings(text: String) -> (bool, Vec<String>) {
    let files = vec![ConfigFile::Text {
        name: "test.toml".to_owned(),
        text,
    }];
    let environment = Vec::new();
    let (is_valid, found) = match (Origin { files, environment }).load() {
        Ok(config) => (true, config.warnings),
        Err(problems) => (false, problems.0),
    };
    let found = found.iter().map(ToString::to_string);
    (is_valid, found.collect())
}

/// Replaces the line that begins with `line`.
fn with(line: &str, instead: &str) -> String {
    let begins = |known: &&str| known.starts_with(line);
    let old = ACME.lines().find(begins).expect("the line");
    ACME.replace(old, instead)
}

#[test]
fn each_mistake_is_one_problem_that_says_what_to_write() {
    assert_eq!(findings(ACME.to_owned()), (true, Vec::new()));
    let cases: &[(&str, &str, &[&str])] = &[
        // How it is verified.
        (
            "content",
            "content = \"{tiemstamp}.{body}\"",
            &[
                "acme.verify.content",
                "`{tiemstamp}` is not a placeholder; known: {timestamp}",
            ],
        ),
        (
            "content",
            "content = \"{timestamp.{body}\"",
            &["acme.verify.content", "is not a placeholder"],
        ),
        (
            "content",
            "content = \"timestamp.body\"",
            &["refers to no part of the request", "{timestamp}.{body}"],
        ),
        (
            "content",
            "content = \"{uuid}{body}\"",
            &["differs each time"],
        ),
        (
            "content",
            "content = \"{header:}{body}\"",
            &["has no name", "{header:x-id}"],
        ),
        (
            "timestamp",
            "",
            &["acme.verify.content", "`timestamp` does not locate it"],
        ),
        (
            "timestamp",
            "timestamp = { unit = \"s\" }",
            &["names no location", "`header`"],
        ),
        (
            "timestamp",
            "timestamp = { header = \"x-t\", unit = \"seconds\" }",
            &["is not one of s, ms, rfc3339"],
        ),
        ("timestamp", "timestamp = \"x-acme-time\"", &["is a table"]),
        (
            "tolerance",
            "tolerance = 300",
            &["is not a valid duration", "\"10s\""],
        ),
        (
            "signature",
            "signature = { prefix = \"sha256=\" }",
            &["names no location; write `header`"],
        ),
        (
            "signature",
            "signature = \"x-acme-signature\"",
            &["is a table"],
        ),
        (
            "signature",
            "signature = { header = \"x-acme-signature\", encoding = \"base-64\" }",
            &["none of hex, base64", "did you mean \"base64\"?"],
        ),
        (
            "signature",
            "signature = { header = \"x-acme-signature\", seperator = \",\" }",
            &["unknown key `seperator`", "did you mean \"separator\"?"],
        ),
        (
            "signature",
            "signature = { header = \"x acme\" }",
            &["is not a valid header name"],
        ),
        (
            "signature",
            "signature = { header = \"x-acme-signature\", separator = \", \" }",
            &["is not one ASCII character"],
        ),
        (
            "signature",
            "header = \"x-acme-signature\"",
            &[
                "acme.verify.header",
                "is a key of `signature`",
                "header = \"x-signature\"",
            ],
        ),
        (
            "signature",
            "algorithm = \"sha256\"\nsignature = { header = \"x-acme-signature\" }",
            &["acme.verify.algorithm", "none of hmac-sha256"],
        ),
        (
            "signature",
            "algorithm = \"ed25519\"\nsignature = { header = \"x-acme-signature\" }",
            &["acme.secrets[0]", "public key"],
        ),
        (
            "signature",
            "secret_encoding = \"base64\"\nsignature = { header = \"x-acme-signature\" }",
            &["acme.secrets[0]", "is not valid base64"],
        ),
        ("timestamp", "timestamp = { field = \"t\" }\n#", &[]),
        (
            "secrets",
            "secrets = [\"s3cr3t-of-16-bytes\"]\nauth = \"bearer\"",
            &["conflicts with `verify`"],
        ),
        ("public_url", "", &[]),
        ("content", "content = \"{url}{timestamp}{body}\"", &[]),
        // How its events are read.
        ("id", "", &["lacks `id`", "id = \"{/id}\""]),
        ("type", "", &["lacks `type`"]),
        (
            "id",
            "id = \"/id\"",
            &[
                "acme.event.id",
                "a JSON Pointer has braces; write \"{/id}\"",
            ],
        ),
        (
            "type",
            "type = \"/type\"",
            &["acme.event.type", "write \"{/type}\""],
        ),
        ("id", "id = \"event\"", &["the same for every event"]),
        ("id", "id = \"{timestamp}\"", &["known only in `content`"]),
        (
            "id",
            "id = \"{form:id}\"",
            &["body is read as JSON", "body = \"form\""],
        ),
        (
            "type",
            "body = \"raw\"\ntype = \"{header:x-type}\"",
            &["the body is not read"],
        ),
        (
            "id",
            "id = \"{/id}\"\ntime = \"{/at}\"\ntime_unit = \"seconds\"",
            &["none of rfc3339, s, ms"],
        ),
        (
            "id",
            "id = \"{/id}\"\nbody = \"xml\"",
            &["none of json, form"],
        ),
    ];
    let field = with("timestamp", "timestamp = { field = \"t\" }");
    let (is_valid, found) = findings(field.replace("separator = \",\", ", ""));
    assert!(!is_valid && found.len() == 1, "{found:?}");
    assert!(
        found[0].contains("which `separator` must split"),
        "{found:?}"
    );
    for (line, instead, words) in cases {
        let (is_valid, found) = findings(with(line, instead));
        if words.is_empty() {
            assert!(is_valid, "{instead}: {found:?}");
            continue;
        }
        assert!(!is_valid && found.len() == 1, "{instead}: {found:?}");
        let missing = words.iter().find(|words| !found[0].contains(**words));
        assert_eq!(missing, None, "{instead}: {found:?}");
    }
}

#[test]
fn legal_but_weak_schemes_that_a_user_declared_cause_warnings() {
    let untimed = with("timestamp", "")
        .replace("content = \"{timestamp}.{body}\"", "content = \"{body}\"")
        .replace("tolerance = \"5m\"", "");
    let preset = |keys: &str| {
        let (broker, _) = ACME.split_once("[sources.acme]").unwrap();
        let secrets = match keys.contains("\"none\"") {
            true => "",
            false => "secrets = [\"s3cr3t-of-16-bytes\"]\n",
        };
        format!("{broker}{keys}\n{secrets}")
    };
    let declared = "event = { id = \"{/id}\", type = \"{/type}\" }";
    let cases = [
        (untimed, "acme.verify: has no signed time"),
        (
            with("tolerance", ""),
            "acme.verify: has `timestamp` without `tolerance`",
        ),
        (
            with("content", "content = \"{timestamp}.{header:x-id}\""),
            "does not cover the body",
        ),
        (
            with("content", "content = \"{body}\""),
            "does not cover the time",
        ),
        (with("content", "algorithm = \"token\""), "signs nothing"),
        (
            preset(&format!("[sources.acme]\nauth = \"bearer\"\n{declared}")),
            "acme.auth: is a secret sent with each request",
        ),
        (
            preset(&format!("[sources.acme]\nauth = \"none\"\n{declared}")),
            "anyone who can reach the path",
        ),
        (
            preset("[sources.stripe]\nauth = \"bearer\""),
            "stripe.auth: is a secret sent with each request",
        ),
        (
            preset("[sources.postmark]\nauth = \"none\""),
            "anyone who can reach the path",
        ),
    ];
    for (text, words) in cases {
        let (is_valid, found) = findings(text);
        assert!(is_valid && found.len() == 1, "{words}: {found:?}");
        assert!(found[0].contains(words), "{words}: {found:?}");
    }
    // A preset is as strong as its provider: a warning would not help anyone.
    for name in ["shopify", "stripe", "alertmanager", "docusign"] {
        let found = findings(preset(&format!("[sources.{name}]")));
        assert_eq!(found, (true, Vec::new()), "{name}");
    }
}
