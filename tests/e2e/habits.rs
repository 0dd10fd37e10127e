//! Command-line conventions: completion, line width, and the look of mistakes.

use crate::support::bridge::{
    self, hookbridge, hookbridge_reading, kafka_broker, route, synq_source,
};
use crate::support::process;

#[test]
fn every_page_of_help_fits_80_columns() {
    let commands = super::install::commands();
    let pages = commands
        .iter()
        .map(|command| vec![command.as_str(), "--help"]);
    for arguments in pages.chain([vec!["--help"], vec!["-h"]]) {
        let help = hookbridge(&arguments).expect_code(0).stdout;
        let wide = help.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{arguments:?}");
    }
}

#[test]
fn completions_know_providers_samples_and_the_names_of_the_configuration() {
    let rest = kafka_broker("kafka-7", "127.0.0.1:1") + &synq_source("") + &route("topic-of-mine");
    let files = bridge::write("", &rest);
    for shell in ["bash", "zsh", "fish"] {
        files
            .command(&["completions", shell])
            .expect_code(0)
            .expect_stdout(&[
                "standard-webhooks",
                "issue_created",
                "topic-of-mine",
                "kafka-7",
            ]);
    }
    // Without a configuration there are those of the program.
    let folder = process::directory("no-configuration");
    let nowhere = folder.join("none.toml");
    let done = hookbridge(["completions", "bash", "--config", nowhere.to_str().unwrap()]);
    done.expect_code(0).expect_stdout(&["standard-webhooks"]);
}

#[test]
fn a_check_can_do_without_secrets_that_are_not_there() {
    let text = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\n\
        options = { \"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = \"u\", \"sasl.password\" = { env = \"NOT_THERE_1\" } }\n\
        [sources.synq]\nsecrets = [{ env = \"NOT_THERE_2\" }, { file = \"/nowhere/secret\" }]\n\
        [sources.standard-webhooks]\nsecrets = [{ env = \"NOT_THERE_3\" }]\n\
        [[routes]]\ntopic = \"x\"\n";
    let file = process::directory("missing-secrets").join("hookbridge.toml");
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let check =
        |more: &[&str]| hookbridge_reading([&["check", "--config", name], more].concat(), b"", &[]);
    let missing = [
        "NOT_THERE_1",
        "NOT_THERE_2",
        "/nowhere/secret",
        "NOT_THERE_3",
    ];
    let refused = check(&[]).expect_code(1);
    let allowed = check(&["--allow-missing-secrets"]).expect_code(0);
    assert_eq!(
        allowed.stderr.matches("warning: ").count(),
        4,
        "{allowed:?}"
    );
    for name in missing {
        assert!(
            refused.stderr.contains(name) && allowed.stderr.contains(name),
            "{name}"
        );
    }
    assert!(
        !allowed.stdout.contains("a secret that is not there"),
        "{allowed:?}"
    );
    // A client would log in with what is not the secret.
    check(&["--allow-missing-secrets", "--connect"]).expect_code(2);
    // And with a real mistake it is one.
    std::fs::write(&file, text.replace("topic = ", "topics = ")).unwrap();
    check(&["--allow-missing-secrets"]).expect_code(1);
}

/// Mistakes whose message once blamed something else, with what the one problem says.
#[test]
fn mistakes_that_mislead_are_one_problem_that_names_the_cause() {
    const BROKER: &str = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\n";
    const REST: &str =
        "[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"x\"\n";
    let whole = |broker: &str| format!("{broker}{REST}").into_bytes();
    let options = |options: &str| whole(&format!("{BROKER}{options}\n"));
    let route = |topic: &str| {
        format!("{BROKER}{REST}")
            .replace("topic = \"x\"", topic)
            .into_bytes()
    };
    let utf16 = |text: &str| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>()
    };
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (
            options("[brokers.main.options]\ncompression.type = \"lz4\""),
            &["write the name in quotes: `\"compression.type\" = …`"],
        ),
        (
            options("[brokers.main.options]\nsasl.mechanism = \"PLAIN\""),
            &["`\"sasl.mechanism\" = …`"],
        ),
        (
            options("options = { \"compression.type\" = \"lz5\" }"),
            &["write none, gzip, snappy, lz4 or zstd"],
        ),
        (
            options("options = { \"auto.offset.reset\" = \"first\" }"),
            &["write earliest, latest or error"],
        ),
        (
            options("options = { \"sasl.jaas.config\" = \"org.apache…\" }"),
            &["Java client", "sasl.username"],
        ),
        (
            options("options = { \"ssl.truststore.location\" = \"/x.jks\" }"),
            &["Java client", "ssl.ca.location"],
        ),
        (
            options("options = { \"value.serializer\" = \"x\" }"),
            &["Java client", "leave it out"],
        ),
        (
            route("topic = \"synq.${type}\""),
            &["templates have no `$`: write `{type}`"],
        ),
        (
            route("topic = \"${TOPIC}\""),
            &["environment variable TOPIC, which it is filled from"],
        ),
        (
            whole("[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = [\"a:1\", \"b:2\"]\n"),
            &["one string with commas"],
        ),
        (
            whole("[brokers.main]\nbootstrap_servers = \"k:9092\"\n"),
            &["lacks `kind`", "write `kind = \"kafka\"`"],
        ),
        (
            whole("[brokers.main]\nservers = [\"nats://n\"]\n"),
            &["lacks `kind`", "write `kind = \"nats\"`"],
        ),
        (
            whole(&format!("{BROKER}kind = \"nats\"\n")),
            &["`kind` is there twice, first in line 2"],
        ),
        (
            whole(&format!("{BROKER}{REST}")),
            &["`synq` is there twice, first in line 4"],
        ),
        (
            format!("{BROKER}{REST}")
                .replace("[[routes]]", "[routes]")
                .into_bytes(),
            &["write `[[routes]]`"],
        ),
        (
            b"brokers:\n  main:\n    kind: kafka\n".to_vec(),
            &["looks like YAML"],
        ),
        (b"---\nbrokers: {}\n".to_vec(), &["looks like YAML"]),
        (b"{\n  \"brokers\": {}\n}\n".to_vec(), &["looks like JSON"]),
        (
            format!("{BROKER}{REST}").replace('\n', "\r").into_bytes(),
            &["carriage return alone"],
        ),
        (utf16(BROKER), &["it is UTF-16", "save it as UTF-8"]),
        (
            [BROKER.as_bytes(), b"# Caf\xe9\n"].concat(),
            &["line 4 is not UTF-8 (Latin-1"],
        ),
    ];
    let file = process::directory("mistakes").join("hookbridge.toml");
    for (bytes, words) in cases {
        std::fs::write(&file, &bytes).unwrap();
        let done = hookbridge_reading(
            ["check", "--config", file.to_str().unwrap()],
            b"",
            &[("TOPIC", "a b")],
        );
        let done = done.expect_code(1);
        assert!(
            done.stderr.contains("has 1 problem\n"),
            "{words:?}: {}",
            done.stderr
        );
        for words in words {
            assert!(done.stderr.contains(words), "{words:?}: {}", done.stderr);
        }
    }
}
