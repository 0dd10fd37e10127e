//! Mistakes as people make them, with the one finding that each must cause: where it is, and what to write.

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
            &["\"300\" has no unit", "write \"300s\""],
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
            &["not one of hex, base64", "did you mean \"base64\"?"],
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
            &["acme.verify.algorithm", "not one of hmac-sha256"],
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
            &["not one of rfc3339, s, ms"],
        ),
        (
            "id",
            "id = \"{/id}\"\nbody = \"xml\"",
            &["not one of json, form"],
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

/// The parts of it are replaced by mistakes.
const SYNQ: &str = r#"[http]
listen = "127.0.0.1:8080"

[admin]
listen = "127.0.0.1:9090"

[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"

[sources.synq]
secrets = ["s3cr3t-of-16-bytes"]

[[routes]]
source = "synq"
topic = "synq.{type}"
"#;

const LISTEN: &str = "listen = \"127.0.0.1:8080\"";
const ADMIN: &str = "listen = \"127.0.0.1:9090\"";
const SERVERS: &str = "bootstrap_servers = \"localhost:9092\"";
const KAFKA: &str = "kind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"";
const SECRETS: &str = "secrets = [\"s3cr3t-of-16-bytes\"]";
const TOPIC: &str = "topic = \"synq.{type}\"";

/// A mistake: a part of [`SYNQ`], what stands there instead, the finding's line and column, and what it says.
type Mistake = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

fn expect_one_finding_each(mistakes: &[Mistake], are_warnings: bool) {
    for (part, instead, place, words) in mistakes {
        assert!(SYNQ.contains(part), "{part}");
        let (is_valid, found) = findings(SYNQ.replacen(part, instead, 1));
        assert!(
            is_valid == are_warnings && found.len() == 1,
            "{instead}: {found:#?}"
        );
        let start = match place.is_empty() {
            true => "test.toml ".to_owned(),
            false => format!("test.toml:{place}: "),
        };
        let found = &found[0];
        assert!(found.starts_with(&start), "{instead}: {place}: {found}");
        for words in *words {
            assert!(found.contains(words), "{instead}: {words:?}: {found}");
        }
        assert!(
            found.contains("; ") || found.contains(": "),
            "{instead}: no remedy: {found}"
        );
    }
}

#[test]
#[rustfmt::skip]
fn mistakes_in_listeners_limits_and_files_are_one_problem_with_a_remedy() {
    assert_eq!(findings(SYNQ.to_owned()), (true, Vec::new()));
    expect_one_finding_each(&[
        // Addresses, as nginx, Node, Go and docker have them.
        (LISTEN, "listen = 8080", "2:10", &["\"8080\" is not an IP address with a port", "\"0.0.0.0:8080\" or \"[::]:8080\""]),
        (LISTEN, "listen = \":8443\"", "2:10", &["write for example \"0.0.0.0:8443\""]),
        (LISTEN, "listen = \"*:8080\"", "2:10", &["\"0.0.0.0:8080\""]),
        (LISTEN, "listen = \"localhost:8080\"", "2:10", &["write for example \"127.0.0.1:8080\""]),
        (LISTEN, "listen = \"hooks.example.com:443\"", "2:10", &["\"0.0.0.0:443\"", "names are not resolved"]),
        (LISTEN, "listen = \"http://10.0.0.1:8080/\"", "2:10", &["write for example \"10.0.0.1:8080\""]),
        (LISTEN, "listen = \"0.0.0.0\"", "2:10", &["write for example \"0.0.0.0:8080\""]),
        (LISTEN, "listen = \"::1:8080\"", "2:10", &["\"[::1]:8080\""]),
        (LISTEN, "listen = [\"0.0.0.0:8080\"]", "2:1", &["is a list, and takes one value", "`listen = \"0.0.0.0:8080\"`"]),
        (LISTEN, "port = 8080", "2:1", &["unknown key `port` in [http]", "`listen = \"0.0.0.0:8080\"`"]),
        (LISTEN, "bind = \"0.0.0.0:8080\"", "2:1", &["unknown key `bind`", "`listen = "]),
        (ADMIN, "listen = \"127.0.0.1:8080\"", "5:10", &["both listeners can't have the port 8080", "another port"]),
        (ADMIN, "port = 9091", "5:1", &["in [admin]", "`listen = \"127.0.0.1:9090\"`"]),
        // Tables and keys by other names.
        ("[http]", "[HTTP]", "1:2", &["unknown key `HTTP`", "did you mean \"http\"?"]),
        ("[http]", "[server]", "1:2", &["unknown key `server`", "write `[http]`"]),
        ("[http]\n", "", "1:1", &["unknown key `listen` in the configuration", "write `[http]`"]),
        ("[admin]", "[metrics]", "4:2", &["write `[admin]`"]),
        ("[http]", "log_level = \"debug\"\n[http]", "1:1", &["HOOKBRIDGE_LOG=debug"]),
        ("[http]", "[tracing]\nx = 1\n[http]", "1:2", &["OTEL_EXPORTER_OTLP_ENDPOINT"]),
        (LISTEN, "publish-timeout = \"8s\"", "2:1", &["did you mean \"publish_timeout\"?"]),
        (LISTEN, "publishTimeout = \"8s\"", "2:1", &["did you mean \"publish_timeout\"?"]),
        (LISTEN, "PUBLISH_TIMEOUT = \"8s\"", "2:1", &["did you mean \"publish_timeout\"?"]),
        (LISTEN, "timeout = \"8s\"", "2:1", &["its keys are listen,", "publish_timeout, "]),
        (ADMIN, "token = \"admin\"", "5:9", &["fewer than 16 bytes", "openssl rand"]),
        (ADMIN, "ready_when = \"always\"", "5:14", &["not one of any, all", "write one of them"]),
        // Durations, sizes, counts and flags.
        (LISTEN, "publish_timeout = 8", "2:19", &["\"8\" has no unit", "write \"8s\" for seconds"]),
        (LISTEN, "publish_timeout = \"PT8S\"", "2:19", &["is not a valid duration", "\"1h 30m\""]),
        (LISTEN, "publish_timeout = \"0s\"", "2:19", &["from 500ms to 5m"]),
        (LISTEN, "publish_timeout = 8s", "2:19", &["text is in quotes", "`publish_timeout = \"…\"`"]),
        (LISTEN, "idle_timeout = -1", "2:16", &["\"-1\" is not a valid duration"]),
        (LISTEN, "drain_delay = \"30s\"", "2:15", &["`shutdown_timeout`", "write less than 25s"]),
        (LISTEN, "max_body = -1", "2:12", &["\"-1\" is not a valid size", "\"1MiB\""]),
        (LISTEN, "max_body = \"unlimited\"", "2:12", &["is not a valid size"]),
        (LISTEN, "max_body = \"1GiB\"", "2:12", &["from 1B to 256MiB"]),
        (LISTEN, "max_in_flight_bytes = \"64KiB\"", "2:23", &["is less than `max_body`", "write \"1.0 MiB\" or more"]),
        (LISTEN, "max_connections = \"10,000\"", "2:19", &["not a whole number", "from 1 to 1000000"]),
        (LISTEN, "max_in_flight = 0", "2:17", &["from 1 to 1000000"]),
        (LISTEN, "http2 = \"yes\"", "2:9", &["\"yes\" is not one of true, false"]),
        (LISTEN, "http2 = True", "2:9", &["a flag is in lower case", "`http2 = true`"]),
        (LISTEN, "access_log = \"/var/log/access.log\"", "2:14", &["not one of true, false"]),
        // TLS and proxies.
        (LISTEN, "tls = true", "2:7", &["`http.tls` is a table", "`tls = { cert = \"/etc/hookbridge/cert.pem\", key = "]),
        (LISTEN, "trusted_proxies = [\"*\"]", "2:20", &["\"*\" is not a network", "\"192.0.2.0/24\""]),
        (LISTEN, "trusted_proxies = [\"proxy.local\"]", "2:20", &["is not a network"]),
        // Other formats, and slips in this one.
        (SYNQ, "bootstrap.servers=localhost:9092\nsecurity.protocol=SSL\n", "", &["looks like a file of properties", "`hookbridge init`"]),
        (SYNQ, "http {\n  listen = \"0.0.0.0:8080\"\n}\n", "", &["looks like HCL"]),
        (SYNQ, "<?xml version=\"1.0\"?>\n<http/>\n", "", &["looks like XML"]),
        ("[http]", "\0[\0h\0t\0t\0p\0]", "", &["UTF-16 without a mark", "save it as UTF-8"]),
        ("[http]", "// The listener\n[http]", "1:4", &["a comment begins with `#`"]),
        ("[http]", "; The listener\n[http]", "1:3", &["a comment begins with `#`"]),
        ("[http]", "<<<<<<< HEAD\n[http]", "1:9", &["a merge conflict was not resolved"]),
        ("[http]", "```toml\n[http]", "1:8", &["Markdown", "remove the line"]),
        ("[http]", "[http", "1:6", &["end the table's name with `]`"]),
        (LISTEN, "listen: \"127.0.0.1:8080\"", "2:9", &["not `:`", "write `listen = …`"]),
        (LISTEN, "listen == \"127.0.0.1:8080\"", "2:9", &["one `=` too many"]),
        (LISTEN, "listen =", "2:9", &["`listen` has no value"]),
        (LISTEN, "listen = 0.0.0.0:8080", "2:13", &["`listen = \"…\"`"]),
        (LISTEN, "listen = \"127.0.0.1:8080", "2:25", &["end the text with the quote"]),
        (LISTEN, "listen = \u{201c}127.0.0.1:8080\u{201d}", "2:10", &["typographic quotes"]),
        (LISTEN, "listen\u{a0}= \"127.0.0.1:8080\"", "2:7", &["invisible character (U+00A0)"]),
        (LISTEN, "tls = { cert = \"C:\\certs\\c.pem\" }", "2:20", &["a backslash begins an escape", "single quotes"]),
        (SERVERS, "bootstrap_servers = \"k:9092\"\noptions = { \"linger.ms\": 5 }", "10:24", &["write `=` between key and value"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\" \"s3cr3t-of-17-bytes\"]", "12:33", &["write a comma between the two"]),
    ], false);
}

#[test]
#[rustfmt::skip]
fn mistakes_in_brokers_are_one_problem_with_a_remedy() {
    expect_one_finding_each(&[
        ("[brokers.main]", "[broker.main]", "7:2", &["unknown key `broker`", "write `[brokers.NAME]`"]),
        ("[brokers.main]", "[brokers]", "7:2", &["which has a name", "`[brokers.main]`"]),
        ("[brokers.main]", "[[brokers]]", "7:3", &["write `[brokers.NAME]` for each"]),
        ("[brokers.main]", "[kafka]", "7:2", &["write `[brokers.NAME]`"]),
        ("[brokers.main]", "[brokers.main.eu]", "7:10", &["a name has no dots", "`[brokers.main-eu]`"]),
        ("[brokers.main]", "[brokers.\"my broker\"]", "7:10", &["may only have up to 64 of"]),
        ("[sources.synq]", "[options]\nx = 1\n[sources.synq]", "11:2", &["write `[brokers.NAME.options]`"]),
        ("kind = \"kafka\"", "type = \"kafka\"", "7:10", &["lacks `kind`", "write `kind = \"kafka\"`"]),
        ("kind = \"kafka\"", "kind = \"redpanda\"", "8:8", &["\"redpanda\" is not one of kafka, nats", "`kind = \"kafka\"`"]),
        (KAFKA, "kind = \"jetstream\"\nservers = \"nats://n\"", "8:8", &["`kind = \"nats\"`"]),
        ("kind = \"kafka\"", "kind = \"rabbitmq\"", "8:8", &["not one of kafka, nats", "write one of them"]),
        // Kafka's servers and properties, as other clients have them.
        (SERVERS, "brokers = \"a:9092,b:9092\"", "9:1", &["unknown key `brokers` in [brokers.main]", "`bootstrap_servers = \"localhost:9092\"`"]),
        (SERVERS, "bootstrap.servers = \"a:9092\"", "9:1", &["`bootstrap_servers = "]),
        (SERVERS, "\"bootstrap.servers\" = \"a:9092\"", "9:1", &["did you mean \"bootstrap_servers\"?"]),
        (SERVERS, "bootstrap_server = \"a:9092\"", "9:1", &["did you mean \"bootstrap_servers\"?"]),
        (SERVERS, "bootstrap_servers = \"kafka://a:9092\"", "9:21", &["server 1 is a URL", "\"kafka-1:9092,kafka-2:9092\""]),
        (SERVERS, "bootstrap_servers = \"a:9092 b:9092\"", "9:21", &["separated by commas"]),
        (SERVERS, "bootstrap_servers = \"\"", "9:21", &["it names no server"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nsecurity_protocol = \"SASL_SSL\"", "10:21", &["`options = { \"security.protocol\" = … }`"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nsasl = { mechanism = \"PLAIN\", username = \"u\" }", "10:1", &["\"sasl.mechanism\" = …, \"sasl.username\" = …"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nssl.ca.location = \"/ca.pem\"", "10:1", &["\"security.protocol\" = \"ssl\""]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nusername = \"u\"", "10:1", &["\"sasl.username\""]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\ntls = true", "10:1", &["\"ssl.ca.location\""]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\ncompression = \"lz4\"", "10:1", &["\"compression.type\" = \"lz4\""]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nacks = \"all\"", "10:8", &["acks can't be set", "remove it"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\ntopic = \"hooks\"", "10:1", &["write `[[routes]]`"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\npartitions = 3", "10:1", &["`provision = { … }`"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\nprovision = { replicas = 3 }", "10:15", &["`replication_factor = 3`"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = \"compression.type=lz4\"", "10:11", &["`options = { … }`"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"client_id\" = \"x\" }", "10:27", &["write \"client.id\""]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"max.request.size\" = 1 }", "10:34", &["Java client", "message.max.bytes"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"linger.ms\" = \"5ms\" }", "10:27", &["without a unit"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"security.protocol\" = \"SASL_SSL\" }", "10:35", &["sasl.mechanism is missing", "SCRAM-SHA-512"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"sasl.mechanism\" = \"scram-sha-512\" }", "10:32", &["write PLAIN, SCRAM-SHA-256", "in capitals"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"security.protocol\" = \"ssl\", \"ssl.ca.location\" = \"/nowhere/ca.pem\" }", "10:62", &["the path of a file that is there"]),
        (SERVERS, "bootstrap_servers = \"a:9092\"\noptions = { \"group.id\" = \"x\" }", "10:26", &["can't be set", "remove it"]),
        // NATS.
        (KAFKA, "kind = \"nats\"\nurl = \"nats://n:4222\"", "9:1", &["`servers = [\"nats://localhost:4222\"]`"]),
        (KAFKA, "kind = \"nats\"\nbootstrap_servers = \"n:4222\"", "9:1", &["`servers = "]),
        (KAFKA, "kind = \"nats\"\nservers = \"http://n:4222\"", "9:11", &["not the address of a NATS server", "\"tls://nats.example.com\""]),
        (KAFKA, "kind = \"nats\"\nservers = \"ws://n:8080\"", "9:11", &["not the address of a NATS server"]),
        (KAFKA, "kind = \"nats\"\nservers = \"nats://\"", "9:11", &["not the address of a NATS server"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\ncreds = \"/x.creds\"", "10:1", &["`credentials = "]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\ncredentials = \"/nowhere/x.creds\"", "10:15", &["can't be found", "the .creds file"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\nuser = \"u\"", "7:10", &["required together", "add `password`"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\nusername = \"u\"\npassword = \"p\"", "10:1", &["did you mean \"user\"?"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\njetstream = true", "10:1", &["JetStream is the default"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\nstream = \"HOOKS\"", "10:1", &["`provision = { stream = \"…\" }`"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\noptions = { x = 1 }", "10:1", &["options are for Kafka"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\nack = true", "10:7", &["not one of jetstream, core"]),
        (KAFKA, "kind = \"nats\"\nservers = \"n\"\nprovision = { duplicate_window = 3600 }", "10:34", &["write \"3600s\""]),
    ], false);
}

#[test]
#[rustfmt::skip]
fn mistakes_in_sources_are_one_problem_with_a_remedy() {
    expect_one_finding_each(&[
        ("[sources.synq]", "[source.synq]", "11:2", &["write `[sources.NAME]`"]),
        ("[sources.synq]", "[synq]", "11:2", &["write `[sources.synq]`"]),
        ("[sources.synq]", "[[sources]]\nname = \"synq\"", "11:3", &["write `[sources.NAME]` for each"]),
        ("[sources.synq]", "[sources]\nname = \"synq\"", "11:2", &["`[sources.synq]`"]),
        (SECRETS, "secret = \"s3cr3t-of-16-bytes\"", "12:1", &["did you mean \"secrets\"?"]),
        (SECRETS, "signing_secret = \"s3cr3t-of-16-bytes\"", "12:1", &["`secrets = [{ env = "]),
        (SECRETS, "", "11:10", &["lacks `secrets`", "SYNQ_SIGNING_SECRET"]),
        (SECRETS, "secrets = [{ env = \"SYNQ_SECRET\" }]", "12:12", &["SYNQ_SECRET is not set", "set it to the secret"]),
        (SECRETS, "secrets = [{ env = \"$SYNQ_SECRET\" }]", "12:12", &["has no `$`", "{ env = \"SYNQ_SECRET\" }"]),
        (SECRETS, "secrets = [\"${SYNQ_SECRET}\"]", "12:12", &["SYNQ_SECRET is not set; set it"]),
        (SECRETS, "secrets = [\"${SYNQ_SECRET\"]", "12:12", &["`${` has no `}`"]),
        (SECRETS, "secrets = [\"$SYNQ_SECRET\"]", "12:12", &["was not expanded", "{ env = \"NAME\" }"]),
        (SECRETS, "secrets = [\"{{ synq_secret }}\"]", "12:12", &["was not expanded"]),
        (SECRETS, "secrets = [\"env:SYNQ_SECRET\"]", "12:12", &["a place where the secret is", "{ env = \"NAME\" }"]),
        (SECRETS, "secrets = [\"/run/secrets/synq\"]", "12:12", &["a place where the secret is", "{ file = "]),
        (SECRETS, "secrets = [\"<your signing secret>\"]", "12:12", &["in place of a secret"]),
        (SECRETS, "secrets = [{ path = \"/run/secrets/synq\" }]", "12:12", &["is not a secret", "{ file = "]),
        (SECRETS, "secrets = [{ env = \"A\", file = \"/b\" }]", "12:12", &["keep one of the two"]),
        (SECRETS, "secrets = { env = [\"A\", \"B\"] }", "12:13", &["is a list, and takes one value"]),
        (SECRETS, "secrets = [{ file = \"/nowhere/secret\" }]", "12:12", &["/nowhere/secret can't be read", "mount it"]),
        (SECRETS, "secrets = []", "12:1", &["list at least one"]),
        // Providers by the names that they have elsewhere.
        (SECRETS, "provider = \"Stripe\"", "12:12", &["did you mean \"stripe\"?"]),
        (SECRETS, "provider = \"github.com\"", "12:12", &["did you mean \"github\"?"]),
        (SECRETS, "provider = \"standard_webhooks\"", "12:12", &["did you mean \"standard-webhooks\"?"]),
        (SECRETS, "provider = \"hub-spot\"", "12:12", &["did you mean \"hubspot\"?"]),
        (SECRETS, "provider = \"sns\"", "12:12", &["did you mean \"aws-sns\"?"]),
        (SECRETS, "provider = \"msgraph\"", "12:12", &["did you mean \"microsoft-graph\"?"]),
        (SECRETS, "provider = \"custom\"", "12:12", &["did you mean \"generic\"?"]),
        (SECRETS, "provider = \"acme\"", "12:12", &["write one of alertmanager, ", "declared by `verify` and `event`"]),
        ("[sources.synq]", "[sources.github-prod]\nsecrets = [\"x\"]\n[sources.synq]", "11:10", &["`provider = \"github\"`"]),
        ("[sources.synq]", "[sources.payments]\ntype = \"stripe\"\n[sources.synq]", "11:10", &["has no `provider`", "`provider = \"stripe\"`"]),
        // Its other keys.
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\npath = \"hooks/synq\"", "13:8", &["does not begin with `/`", "\"/hooks/synq\""]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nurl = \"/hooks/synq\"", "13:1", &["`path = \"/hooks/synq\"`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\npublic_url = \"hooks.example.com/x\"", "13:14", &["is not a URL", "\"https://"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\ntolerance = 300", "13:13", &["write \"300s\""]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\non_invalid = \"dead_letter\"", "13:14", &["is not a policy", "{ dead_letter = { topic = \"…\" } }"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\non_invalid = { dead_letter = \"dead\" }", "13:30", &["`dead_letter = { topic = \"hooks.invalid\" }`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\non_invalid = { dead_letter = { topic = \"dead.{type}\" } }", "13:40", &["it is not a template"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\ndead_letter = { topic = \"dead\" }", "13:1", &["`on_invalid = { dead_letter = "]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\ndedup = true", "13:1", &["`dedup_window = \"0s\"`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\ndedup_by = \"event_id\"", "13:12", &["not one of id, id+body, never"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nrate_limit = \"100/s\"", "13:14", &["`rate_limit = { per_second = 200 }`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nrate_limit = { rps = 100 }", "13:16", &["`per_second = 200`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nsuccess_status = \"OK\"", "13:18", &["from 200 to 299"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nschema = { type = \"object\" }", "13:1", &["`schema = \"config/schemas/mine.json\"`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nschema = \"https://example.com/x.json\"", "13:10", &["save it"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nforward_headers = [\"*\"]", "13:20", &["there are no patterns"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nforward_headers = [\"Authorization\"]", "13:20", &["never forwarded", "remove it"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nallow_from = [\"api.stripe.com\"]", "13:15", &["is not a network"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nmedia_types = [\"json\"]", "13:16", &["\"application/json\""]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nauth = \"hmac\"", "13:8", &["remove `auth` where the provider signs"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nverify = false", "13:10", &["`sources.synq.verify` is a table"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nskip_verification = true", "13:1", &["`auth = \"none\"`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\ntopic = \"synq\"", "13:1", &["write `[[routes]]`"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nenabled = false", "13:1", &["remove the line, or the source"]),
    ], false);
    expect_one_finding_each(&[
        (SECRETS, "secrets = [\"changeme\"]", "12:12", &["could be guessed"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\npath = \"/hooks/*\"", "13:8", &["byte for byte"]),
    ], true);
}

#[test]
#[rustfmt::skip]
fn mistakes_in_routes_are_one_finding_with_a_remedy() {
    expect_one_finding_each(&[
        ("[[routes]]", "[[route]]", "14:3", &["write `[[routes]]`"]),
        ("[[routes]]", "[[rules]]", "14:3", &["write `[[routes]]`"]),
        ("[[routes]]", "[routes.first]", "14:2", &["write `[[routes]]`"]),
        (TOPIC, "", "14:1", &["lacks `topic`", "`topic = \"hooks.{type}\"`"]),
        (TOPIC, "subject = \"synq\"", "16:1", &["`topic = \"hooks.{type}\"`"]),
        (TOPIC, "topics = [\"synq\"]", "16:1", &["only limits what `topic` may become"]),
        (TOPIC, "topic = [\"a\", \"b\"]", "16:1", &["a route has one `topic`", "`copy_to = "]),
        (TOPIC, "topic = \"\"", "16:9", &["it is empty", "`topic = \"hooks.{type}\"`"]),
        (TOPIC, "topic = \"synq.{event_type}\"", "16:9", &["`{event_type}` is not a placeholder", "write `{type}`"]),
        (TOPIC, "topic = \"synq.{{ .Type }}\"", "16:9", &["write `{type}`"]),
        (TOPIC, "topic = \"synq.{workspace}\"", "16:9", &["write `{/workspace}`"]),
        (TOPIC, "topic = \"synq.{$.data.id}\"", "16:9", &["write `{/data/id}`"]),
        (TOPIC, "topic = \"synq.%type%\"", "16:9", &["may only have", "\"synq.{type}\""]),
        (TOPIC, "topic = \"synq/{type}\"", "16:9", &["\"synq.{type}\""]),
        (TOPIC, "topic = \"synq events\"", "16:9", &["\"synq-events\""]),
        (TOPIC, "topic = \"${TEAM}.{type}\"", "16:9", &["TEAM is not set", "`${TEAM:-default}`"]),
        (TOPIC, "topic = \"{/workspace}\"", "16:9", &["a sender could choose any destination", "literal prefix"]),
        (TOPIC, "topic = \"x\"\ntype = \"issue_*\"", "17:1", &["did you mean \"types\"?"]),
        (TOPIC, "topic = \"x\"\nevents = [\"issue_*\"]", "17:1", &["`types = [\"*\"]`"]),
        (TOPIC, "topic = \"x\"\ntypes = [\"issue_[ab\"]", "17:10", &["is not a valid glob"]),
        (TOPIC, "topic = \"x\"\ntypes = []", "17:1", &["write `types = [\"*\"]`"]),
        (TOPIC, "topic = \"x\"\nkey = \"{id}\"", "17:7", &["write `{/id}`"]),
        (TOPIC, "topic = \"x\"\npartition_key = \"{/id}\"", "17:1", &["did you mean \"key\"?"]),
        (TOPIC, "topic = \"x\"\npartition = 0", "17:1", &["write `key = "]),
        (TOPIC, "topic = \"x\"\nbroker = \"localhost:9092\"", "17:10", &["is not defined; defined: \"main\""]),
        (TOPIC, "topic = \"x\"\nbroker = [\"main\", \"edge\"]", "17:1", &["a route has one `broker`"]),
        (TOPIC, "topic = \"x\"\nfallback = \"main\"", "17:12", &["can't be its own fallback"]),
        (TOPIC, "topic = \"x\"\ncopy_to = \"synq.all\"", "17:11", &["`copy_to = [{ topic = "]),
        (TOPIC, "topic = \"x\"\nheaders = { a = \"b\" }", "17:1", &["`forward_headers`"]),
        (TOPIC, "topic = \"x\"\npriority = 1", "17:1", &["in the order of the file"]),
        (TOPIC, "action = \"drop\"", "16:10", &["\"drop\" is not one of", "`action = \"ignore\"`"]),
        (TOPIC, "topic = \"x\"\naction = \"ignore\"", "16:9", &["`topic` has no effect", "remove it"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nmedia_types = []", "13:1", &["accepts nothing", "leave `media_types` out"]),
        (SECRETS, "secrets = [\"s3cr3t-of-16-bytes\"]\nmedia_types = [\"application/*\"]", "13:16", &["a wildcard, which matches nothing", "\"*/*\" for any"]),
        ("source = \"synq\"", "source = \"github\"", "15:10", &["is not defined; defined: \"synq\""]),
        ("source = \"synq\"", "source = [\"synq\"]", "15:1", &["is a list, and takes one value"]),
        ("source = \"synq\"", "sources = [\"synq\"]", "15:1", &["did you mean \"source\"?"]),
    ], false);
    expect_one_finding_each(&[
        (TOPIC, "topic = \"x\"\ntypes = [\"^issue_.*$\"]", "17:10", &["types are globs", "write \"issue_*\""]),
        (TOPIC, "topic = \"x\"\ntypes = [\"issue_(created|updated)\"]", "17:10", &["\"issue_{created,updated}\""]),
        (TOPIC, "topic = \"x\"\ntypes = [\"issue_*, ping\"]", "17:10", &["write [\"issue_*\", \"ping\"]"]),
        (TOPIC, "topic = \"x\"\ntypes = [\"!ping\"]", "17:10", &["a glob excludes nothing", "`action = \"ignore\"`"]),
        (TOPIC, "topic = \"x\"\ntypes = [\"ISSUE_CREATED\"]", "17:10", &["did you mean \"issue_created\"?"]),
        (TOPIC, "topic = \"x\"\ntypes = \"isue_created\"", "17:9", &["did you mean \"issue_created\"?"]),
        (TOPIC, "topic = \"x\"\nkey = \"/workspace\"", "17:7", &["one partition", "`key = \"{/workspace}\"`"]),
        (TOPIC, "topic = \"x\"\nkey = \"$.data.id\"", "17:7", &["`key = \"{/data/id}\"`"]),
        (TOPIC, "topic = \"x\"\n[[routes]]\ntypes = [\"ping\"]\ntopic = \"y\"", "17:1", &["never sees an event", "route 1 before it matches"]),
        (TOPIC, "topic = \"x\"\ncopy_to = [{ topic = \"x\" }]", "17:12", &["the same topic", "each event is there twice"]),
        (TOPIC, "topic = \"x\"\n[sources.github]\nsecrets = [\"s3cr3t-of-24-other-bytes\"]", "17:10", &["no route takes its events", "on_unrouted = "]),
    ], true);
}
