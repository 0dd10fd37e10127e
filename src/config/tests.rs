//! Configurations as users write them, and the results.

use std::path::Path;
use std::time::Duration;

use super::model::TypeGlob;
use super::*;
use crate::providers::sign::{Unsigned, sign};
use crate::providers::{Request, Scope, Unverified};
use crate::secret::Secret;

const SOURCE_AND_ROUTE: &str =
    "[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"synq.{type}\"\n";
const MINIMAL: &str = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\n[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"synq.{type}\"\n";

fn load_with(texts: &[&str], environment: &[(&str, &str)]) -> Result<Config, Problems> {
    let file = |(index, text): (usize, &&str)| ConfigFile::Text {
        name: format!("{index}.toml"),
        text: (*text).to_owned(),
    };
    let files = texts.iter().enumerate().map(file).collect();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Origin { files, environment }.load()
}

fn load(text: &str) -> Result<Config, Problems> {
    load_with(&[text], &[])
}

/// Loads the minimal configuration with these lines in front, and returns every problem as it is displayed.
fn problems(lines: &str) -> Vec<String> {
    let text = format!("{lines}\n{MINIMAL}");
    load(&text)
        .err()
        .map(|problems| problems.0.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn in_source(lines: &str) -> Vec<String> {
    let text = MINIMAL.replace(
        "secrets = [\"s3cr3t-of-16-bytes\"]\n",
        &format!("secrets = [\"s3cr3t-of-16-bytes\"]\n{lines}\n"),
    );
    load(&text)
        .err()
        .map(|problems| problems.0.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

#[test]
fn the_minimal_file_becomes_a_complete_configuration() {
    let config = load(MINIMAL).unwrap();
    let source = &config.sources[0];
    assert_eq!(
        (source.path.as_str(), source.provider, source.secret_count),
        ("/hooks/synq", "synq", 1)
    );
    assert_eq!(
        (source.ce_source.as_str(), source.max_body),
        ("/hookbridge/synq", 1024 * 1024)
    );
    assert_eq!(source.routes.iter().next().unwrap().types, ["*"]);
    assert!(source.schema.is_some());
    let http = &config.http;
    assert_eq!(http.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(
        (http.header_timeout, http.idle_timeout, http.body_timeout),
        (
            Duration::from_secs(5),
            Duration::from_secs(75),
            Duration::from_secs(10)
        )
    );
    assert_eq!(
        (
            http.max_in_flight,
            http.max_in_flight_bytes,
            http.max_connections
        ),
        (10_000, 256 << 20, 20_000)
    );
    assert_eq!(
        (
            http.max_connection_age,
            http.drain_delay,
            http.shutdown_timeout
        ),
        (
            Duration::from_secs(300),
            Duration::ZERO,
            Duration::from_secs(25)
        )
    );
    assert_eq!(source.publish_timeout, Duration::from_secs(8));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    assert!(config.warnings.is_empty() && !http.http2);
    let topics = config.known_destinations(config.needed_brokers()[0]);
    assert_eq!(topics.len(), 8);
    assert!(topics.contains(&"synq.issue_created".to_owned()));
}

#[test]
fn later_files_and_then_variables_override() {
    let first = format!("[http]\nmax_body = \"1KiB\"\npublish_timeout = \"3s\"\n{MINIMAL}");
    let second = "[http]\nmax_body = \"2KiB\"\n[brokers.main]\nbootstrap_servers = \"other:1\"";
    let config = load_with(
        &[&first, second],
        &[
            ("HOOKBRIDGE__HTTP__PUBLISH_TIMEOUT", "4s"),
            ("HOOKBRIDGE__HTTP__MAX_IN_FLIGHT", "7"),
        ],
    )
    .unwrap();
    assert_eq!(
        (
            config.sources[0].max_body,
            config.sources[0].publish_timeout
        ),
        (2048, Duration::from_secs(4))
    );
    assert_eq!(
        (
            config.http.max_in_flight,
            config.brokers[0].settings.address().as_str()
        ),
        (7, "other:1")
    );
    let error = load_with(&[&first], &[("HOOKBRIDGE__HTTP__LISTEN", "x")]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("environment variable HOOKBRIDGE__HTTP__LISTEN: "),
        "{error}"
    );
}

#[test]
fn all_problems_are_reported_together_with_their_positions() {
    let text = "[http]\nlisten = \"here\"\nmax_boddy = \"1MiB\"\n[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k\"\n\
                [sources.synq]\nsecrets = [{ env = \"NOT_SET\" }]\n[[routes]]\nbroker = \"mian\"\ntopic = \"x\"\n";
    let shown = load(text).unwrap_err().to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(
        lines[0].starts_with("0.toml:2:10: http.listen: \"here\" is not an IP address"),
        "{shown}"
    );
    assert_eq!(
        lines[1],
        "0.toml:3:1: http.max_boddy: unknown key `max_boddy` in [http]; did you mean \"max_body\"?"
    );
    assert_eq!(
        lines[2],
        "0.toml:8:12: sources.synq.secrets[0]: the environment variable NOT_SET is not set; set it to the secret"
    );
    assert_eq!(
        lines[3],
        "0.toml:10:10: route 1: broker: the broker \"mian\" is not defined; did you mean \"main\"?"
    );
}

#[test]
fn missing_keys_are_reported_with_an_example() {
    let shown = load("").unwrap_err().to_string();
    for wanted in ["[brokers.main]", "[sources.synq]", "[[routes]]"] {
        assert!(shown.contains(wanted), "{shown}");
    }
    let shown = load("[brokers.a]\n[sources.synq]\n[[routes]]")
        .unwrap_err()
        .to_string();
    for wanted in ["kind = \"kafka\"", "`secrets`", "`topic`"] {
        assert!(shown.contains(wanted), "{shown}");
    }
}

#[test]
fn a_misspelt_broker_of_a_route_is_recognized_even_if_there_is_only_one() {
    let text = format!("{MINIMAL}\nbrokr = \"main\"\n");
    let shown = load(&text).unwrap_err().to_string();
    assert!(
        shown.contains("unknown key `brokr` in route 1; did you mean \"broker\"?"),
        "{shown}"
    );
}

#[test]
fn a_misspelt_kind_is_one_problem() {
    let text = MINIMAL.replace("\"kafka\"", "\"kafk\"");
    let problems = load(&text).unwrap_err().0;
    let help = problems[0].help.as_deref();
    assert_eq!((problems.len(), help), (1, Some("did you mean \"kafka\"?")));
}

#[test]
fn keys_reserved_for_later_versions_are_unknown() {
    for line in ["scheme = \"x\"", "signature_header = \"x\""] {
        let problems = in_source(line);
        assert!(
            problems.len() == 1 && problems[0].contains("unknown key"),
            "{line}: {problems:?}"
        );
    }
    assert!(problems("[tracing]\nx = 1")[0].contains("unknown key"));
}

#[test]
fn trusted_proxies_are_networks_or_addresses_but_not_everyone() {
    let text = "[http]\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::/32\"]\n";
    let config = load(&format!("{text}{MINIMAL}")).unwrap();
    let networks: Vec<_> = config
        .http
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
    for (bad, why) in [
        ("10.0.0.0/33", "is not a network"),
        ("proxy", "is not a network"),
        ("0.0.0.0/0", "is every address"),
        ("::/0", "is every address"),
    ] {
        let problems = problems(&format!("[http]\ntrusted_proxies = [\"{bad}\"]"));
        assert!(
            problems.len() == 1 && problems[0].contains(why),
            "{bad}: {problems:?}"
        );
    }
}

#[test]
fn variables_are_substituted_in_values_and_not_expanded_again() {
    let text = MINIMAL.replace(
        "secrets",
        "ce_source = \"${HOST:-fallback}:${PORT}\"\nsecrets",
    );
    let address = |environment: &[(&str, &str)]| {
        load_with(&[&text], environment).map(|config| config.sources[0].ce_source.clone())
    };
    assert_eq!(address(&[("PORT", "1")]).unwrap(), "fallback:1");
    assert_eq!(
        address(&[("PORT", "1"), ("HOST", "")]).unwrap(),
        "fallback:1"
    );
    assert_eq!(
        address(&[("PORT", "\"[http]${HOST}"), ("HOST", "h")]).unwrap(),
        "h:\"[http]${HOST}"
    );
    let lines = address(&[("PORT", "\"\n[http]\nlisten = 1"), ("HOST", "h")]).unwrap_err();
    assert_eq!(lines.0.len(), 1, "{lines}");
    assert!(lines.to_string().contains("printable ASCII"), "{lines}");
    assert!(
        address(&[])
            .unwrap_err()
            .to_string()
            .contains("PORT is not set")
    );
}

#[test]
fn secrets_come_from_text_variables_and_files_and_are_never_shown() {
    let folder = std::env::temp_dir().join(format!("hookbridge-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let text = MINIMAL.replace(
        "[\"s3cr3t-of-16-bytes\"]",
        &format!(
            "[\"plain\", {{ env = \"VAR\" }}, {{ file = \"{}\" }}]",
            file.display()
        ),
    );
    let config = load_with(&[&text], &[("VAR", "from-a-variable")]).unwrap();
    assert_eq!(config.sources[0].secret_count, 3);
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.what.contains("can be read by others")),
        "{:?}",
        config.warnings
    );
    let shown = format!("{config:?}");
    for secret in ["plain", "from-a-file", "from-a-variable"] {
        assert!(!shown.contains(secret));
    }
    std::fs::write(&file, " \n").unwrap();
    assert!(
        load_with(&[&text], &[("VAR", "x")])
            .unwrap_err()
            .to_string()
            .contains("the secret is empty")
    );
    std::fs::remove_dir_all(&folder).unwrap();
    for broken in [
        "[]",
        "[\"\"]",
        "[{ env = \"VAR\" }]",
        "[{ file = \"/nowhere\" }]",
        "[{ env = \"A\", file = \"b\" }]",
        "[{}]",
        "[[]]",
    ] {
        assert!(
            load(&MINIMAL.replace("[\"s3cr3t-of-16-bytes\"]", broken)).is_err(),
            "{broken}"
        );
    }
}

#[test]
fn librdkafkas_properties_pass_except_those_that_the_guarantees_rest_on() {
    let with = |options: &str| {
        load(&MINIMAL.replace(
            "bootstrap_servers = \"k:9092\"",
            &format!("bootstrap_servers = \"k:9092\"\noptions = {{ {options} }}"),
        ))
    };
    with("\"compression.type\" = \"lz4\", \"linger.ms\" = 5, \"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" = \"SCRAM-SHA-512\", \"sasl.password\" = { env = \"P\" }")
        .unwrap_err();
    let text = MINIMAL.replace("bootstrap_servers = \"k:9092\"", "bootstrap_servers = \"k:9092\"\noptions = { \"sasl.mechanism\" = \"SCRAM-SHA-512\", \"sasl.password\" = { env = \"P\" } }");
    let config = load_with(&[&text], &[("P", "hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for fixed in [
        "acks",
        "request.required.acks",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "bootstrap.servers",
    ] {
        let shown = with(&format!("\"{fixed}\" = \"1\""))
            .unwrap_err()
            .to_string();
        assert!(shown.contains("can't be set"), "{fixed}: {shown}");
    }
    assert!(
        with("\"compresion.type\" = \"lz4\"")
            .unwrap_err()
            .to_string()
            .contains("not a property of librdkafka")
    );
    let shown = with("\"linger.ms\" = \"s3cret\"").unwrap_err().to_string();
    assert!(
        shown.contains("linger.ms has a value") && !shown.contains("s3cret"),
        "{shown}"
    );
}

#[test]
fn nats_takes_servers_and_one_way_to_authenticate() {
    let with = |lines: &str| {
        load(&format!(
            "[brokers.edge]\nkind = \"nats\"\n{lines}\n{SOURCE_AND_ROUTE}"
        ))
    };
    let config = with(
        "servers = [\"nats://u:hunter2@a:1\", \"tls://b\"]\nuser = \"u\"\npassword = \"hunter3\"",
    )
    .unwrap();
    assert_eq!(
        config.brokers[0].settings.address(),
        "nats://a:1,tls://b:4222"
    );
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("hunter3"),
        "{shown}"
    );
    assert!(
        with("servers = \"nats://a\"\nack = \"core\"")
            .unwrap()
            .warnings[0]
            .what
            .contains("not that it is stored")
    );
    for broken in [
        "",
        "servers = []",
        "servers = [\"http://\"]",
        "servers = \"a\"\nuser = \"u\"",
        "servers = \"a\"\ntoken = \"t\"\nuser = \"u\"\npassword = \"p\"",
        "servers = \"a\"\nack = \"none\"",
        "servers = \"a\"\ncredentials = \"/nowhere\"",
        "servers = \"a\"\ntls = { cert = \"x\" }",
    ] {
        assert!(with(broken).is_err(), "{broken}");
    }
}

#[test]
fn destinations_must_be_legal_and_the_operators() {
    let with = |kind: &str, lines: &str| {
        let broker = if kind == "nats" {
            "kind = \"nats\"\nservers = \"n\""
        } else {
            "kind = \"kafka\"\nbootstrap_servers = \"k\""
        };
        load(&format!(
            "[brokers.b]\n{broker}\n[sources.synq]\nsecrets = \"s\"\n[[routes]]\n{lines}"
        ))
    };
    for (kind, lines) in [
        ("kafka", "topic = \"a-{/x}\""),
        ("kafka", "topic = \"{/x}\"\ntopics = [\"a\"]"),
        ("nats", "topic = \"a.{type}.{/x}\""),
    ] {
        with(kind, lines).unwrap();
    }
    for (kind, topic) in [
        ("kafka", "a b"),
        ("kafka", "__x"),
        ("kafka", "{/x}"),
        ("kafka", "a{/x}"),
        ("kafka", "{type}{/x}"),
        ("nats", "$JS.x"),
        ("nats", "_INBOX.{type}"),
        ("nats", "a.*"),
        ("nats", "a..b"),
        ("nats", "a.>"),
        ("kafka", "{typ}"),
        ("kafka", ""),
    ] {
        assert!(
            with(kind, &format!("topic = \"{topic}\"")).is_err(),
            "{kind} {topic}"
        );
    }
    assert!(with("kafka", "topic = \"{/x}\"\ntopics = [\"a b\"]").is_err());
    assert!(with("kafka", "action = \"ignore\"\ntopic = \"x\"").is_err());
    assert!(with("kafka", "types = [\"[\"]\ntopic = \"x\"").is_err());
    assert!(with("kafka", "types = []\ntopic = \"x\"").is_err());
}

#[test]
fn a_route_names_its_broker_where_there_are_several() {
    let two = MINIMAL.replace(
        "[sources.synq]",
        "[brokers.edge]\nkind = \"nats\"\nservers = \"n\"\n[sources.synq]",
    );
    let shown = load(&two).unwrap_err().to_string();
    assert!(
        shown.contains("route 1: must name its `broker`, because there are several")
            && shown.contains("edge, main"),
        "{shown}"
    );
    let config = load(&two.replace("topic =", "broker = \"edge\"\ntopic =")).unwrap();
    assert_eq!(config.needed_brokers().len(), 1);
}

#[test]
fn suspicious_but_legal_settings_cause_warnings() {
    let warned = |text: &str| {
        load(text)
            .unwrap()
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shadowed = format!("{MINIMAL}[[routes]]\ntopic = \"x\"");
    assert!(warned(&shadowed).contains("route 2: never sees an event, because route 1 "));
    assert!(
        warned(&format!("[admin]\nlisten = \"0.0.0.0:1\"\n{MINIMAL}"))
            .contains("can be reached from other machines")
    );
    assert!(
        warned(&MINIMAL.replace("secrets =", "tolerance = \"5m\"\nsecrets ="))
            .contains("refuses late ones")
    );
    let colliding = MINIMAL.replace(
        "topic = \"synq.{type}\"",
        "types = [\"ping\"]\ntopic = \"a.b\"\n[[routes]]\ntopic = \"a_b\"",
    );
    assert!(warned(&colliding).contains("Kafka can't have both"));
}

#[test]
fn duplicates_are_recognized_for_the_providers_retry_time_unless_the_source_says_otherwise() {
    let window = |line: &str| {
        let text = MINIMAL.replace("[[routes]]", &format!("{line}\n[[routes]]"));
        load(&text).unwrap().sources[0].dedup_window
    };
    assert_eq!(window(""), Some(Duration::from_secs(3600)));
    assert_eq!(
        window("dedup_window = \"5m\""),
        Some(Duration::from_secs(300))
    );
    assert_eq!(window("dedup_window = \"0s\""), None);
    let stripe = MINIMAL.replace("[sources.synq]", "[sources.stripe]");
    let source = &load(&stripe).unwrap().sources[0];
    assert_eq!(
        source.dedup_window,
        Some(Duration::from_secs(3 * 24 * 3600))
    );
}

#[test]
fn duplicates_are_recognized_for_as_long_as_a_signature_is_valid_unless_the_source_says_otherwise()
{
    let window = |keys: &str, verify: &str| {
        let text = MINIMAL.replace("[[routes]]", &format!("{keys}\n{verify}\n[[routes]]"));
        load(&text).unwrap().sources[0].dedup_window
    };
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!(window("tolerance = \"9h\"", ""), hours(9));
    assert_eq!(
        window("tolerance = \"9h\"\ndedup_window = \"2h\"", ""),
        hours(2)
    );
    assert_eq!(
        window("tolerance = \"9h\"\ndedup_window = \"0s\"", ""),
        None
    );
    let scheme = |tolerance: &str| {
        format!(
            "[[sources.synq.verify]]\nalgorithm = \"hmac-sha256\"\nsignature = {{ header = \"x-signature\" }}\n\
             content = \"{{timestamp}}.{{body}}\"\ntimestamp = {{ header = \"x-time\" }}\ntolerance = \"{tolerance}\"\n"
        )
    };
    let schemes = scheme("5m") + &scheme("9h");
    assert_eq!(
        window(
            "provider = \"generic\"\nevent = { id = \"{/id}\", type = \"x\" }",
            &schemes
        ),
        hours(9)
    );
}

#[test]
fn routes_can_produce_what_their_templates_can_become_and_nothing_else() {
    let text = MINIMAL.replace(
        "topic = \"synq.{type}\"\n",
        r#"types = ["ping"]
topic = "synq.{type}"
fallback = "edge"
[[routes]]
types = ["issue_*", "ping"]
topic = "x-{source}-{type}.{/a}-x.{/b}"
copy_to = [{ broker = "main", topic = "all" }]
broker = "edge"
[[routes]]
types = ["old_*"]
action = "ignore"
[[routes]]
topic = "{/a}"
topics = ["listed"]
broker = "main"
[brokers.edge]
kind = "nats"
servers = ["nats://n"]
"#,
    );
    let text = text.replace("fallback", "broker = \"main\"\nfallback");
    let config = load(&text).unwrap();
    let broker = |name: &str| {
        let mut ids = config.broker_ids();
        ids.find(|id| config.broker(*id).name == name).unwrap()
    };
    for (name, topic) in [
        ("main", "synq.ping"),
        ("edge", "synq.ping"),
        ("edge", "x-synq-issue_created.q-x.r"),
        ("edge", "x-synq-issue_created.q-x-x.r.s"),
        ("main", "all"),
        ("main", "listed"),
    ] {
        assert!(config.routes_can_produce(broker(name), topic), "{topic}");
    }
    for (name, topic) in [
        ("main", "synq.issue_created"),
        ("main", "synq."),
        ("edge", "x-synq-ping.q-x.r"), // an earlier route takes it
        ("edge", "x-synq-issue_created.q.r"),
        ("edge", "x-synq-issue_created.q.r-x.r"),
        ("edge", "x-synq-issue_created.q-x."),
        ("edge", "x-other-issue_created.q-x.r"),
        ("edge", "all"),
        ("edge", "listed"),
        ("main", "a"),
        ("main", ""),
    ] {
        assert!(!config.routes_can_produce(broker(name), topic), "{topic}");
    }
}

#[test]
fn bad_values_of_a_source_are_reported() {
    for line in [
        "path = \"hooks\"",
        "path = \"/a?b\"",
        "provider = \"sync\"",
        "max_body = \"0B\"",
        "publish_timeout = \"100ms\"",
        "success_status = 404",
        "success_status = \"x\"",
        "tolerance = \"0s\"",
        "ce_source = \"a b\"",
        "forward_headers = [\"Nats-Msg-Id\"]",
        "forward_headers = [\"authorization\"]",
        "forward_headers = [\"Proxy-Authorization\"]",
        "forward_headers = [\"X-Api-Key\"]",
        "forward_headers = [\"Set-Cookie\"]",
        "forward_headers = [\"COOKIE\"]",
        "forward_headers = [\"Event_ID\"]",
        "forward_headers = [\"CE-Id\"]",
        "forward_headers = [\"ce_id\"]",
        "forward_headers = [\"X-Coalesce-Signature\"]",
        "forward_headers = [\"x-coalesce-timestamp\"]",
        "forward_headers = [\"x-a\", \"X-A\"]",
        "dedup_window = \"8d\"",
        "forward_headers = [\"a b\"]",
        "schema = \"/nowhere.json\"",
        "on_invalid = \"drop\"",
        "on_invalid = { topic = \"x\" }",
        "on_unrouted = { dead_letter = {} }",
        "on_unrouted = { dead_letter = { topic = \"a b\" } }",
        "max_in_flight = 0",
    ] {
        let problems = in_source(line);
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].starts_with("0.toml:"), "{problems:?}");
    }
    let twice = MINIMAL.replace(
        "[[routes]]",
        "[sources.b]\nprovider = \"synq\"\npath = \"/hooks/synq\"\nsecrets = \"s\"\n[[routes]]",
    );
    assert!(
        load(&twice)
            .unwrap_err()
            .to_string()
            .contains("have the same path")
    );
    assert!(load(&MINIMAL.replace("sources.synq", "sources.other")).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "(\\[|\\]|[a-z]{1,8}|=|\"|\\{|\\}|\\.|\n| |[0-9]|\\$\\{|#){0,60}") {
        let _loaded = load(&text);
        let _loaded = load(&format!("{text}\n{MINIMAL}"));
    }
}

#[test]
fn every_file_involved_is_watched_whether_or_not_it_exists() {
    let file = std::env::temp_dir().join(format!("hookbridge-watched-{}", std::process::id()));
    let text = r#"
        [http]
        tls = { cert = "/absent/cert", key = "/absent/key", client_ca = "/absent/ca" }
        [brokers.k]
        kind = "kafka"
        bootstrap_servers = "k"
        options = { "ssl.ca.location" = "/absent/kafka-ca" }
        [brokers.n]
        kind = "nats"
        servers = "n"
        credentials = "/absent/credentials"
        tls = { ca = "/absent/nats-ca", cert = "/absent/nats-cert", key = "/absent/nats-key" }
        [sources.synq]
        secrets = { file = "/absent/secret" }
        schema = "/absent/schema"
    "#;
    std::fs::write(&file, text).unwrap();
    let origin = Origin {
        files: vec![ConfigFile::Path(file.clone())],
        environment: Vec::new(),
    };
    let (config, files) = origin.load_with_files();
    assert!(config.is_err());
    let nothing = Files::default();
    let watched: Vec<_> = files.changed_since(&nothing).map(Path::to_owned).collect();
    let absent = [
        "ca",
        "cert",
        "credentials",
        "kafka-ca",
        "key",
        "nats-ca",
        "nats-cert",
        "nats-key",
        "schema",
        "secret",
    ];
    let mut expected: Vec<_> = absent.map(|name| Path::new("/absent").join(name)).into();
    expected.push(file.clone());
    expected.sort();
    assert_eq!(watched, expected);
    std::fs::remove_file(file).unwrap();
}

fn kafka_with(options: &str) -> Result<Config, Problems> {
    load(&MINIMAL.replace(
        "bootstrap_servers = \"k:9092\"",
        &format!("bootstrap_servers = \"k:9092\"\noptions = {{ {options} }}"),
    ))
}

#[test]
fn options_that_librdkafka_refuses_together_are_problems_at_the_option() {
    for (options, place, expected) in [
        ("\"linger.ms\" = 20000", "0.toml:4:", "linger.ms"),
        ("\"max.in.flight\" = 6", "0.toml:4:", "max.in.flight"),
        (
            "\"max.in.flight.requests.per.connection\" = 6",
            "0.toml:4:",
            "max.in.flight",
        ),
        ("\"retries\" = 0", "0.toml:4:", "retries"),
        (
            "\"reconnect.backoff.ms\" = 20000",
            "0.toml:4:",
            "reconnect.backoff.max.ms",
        ),
        (
            "\"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" = \"PLAIN\"",
            "0.toml:4:",
            "sasl.username",
        ),
        (
            "\"security.protocol\" = \"sasl_ssl\", \"sasl.username\" = \"u\", \"sasl.password\" = \"p\"",
            "0.toml:4:",
            "sasl.mechanism is missing",
        ),
        (
            "\"security.protocol\" = \"ssl\", \"ssl.ca.location\" = \"/absent/ca.pem\"",
            "0.toml:4:",
            "ssl.ca.location",
        ),
        (
            "\"security.protocol\" = \"ssl\", \"ssl.key.location\" = \"/absent/key.pem\"",
            "0.toml:4:",
            "ssl.key.location",
        ),
        ("\"fetch.max.bytes\" = 1000", "0.toml:4:", "fetch.max.bytes"),
    ] {
        let problems = kafka_with(options).map(drop).unwrap_err();
        let shown = problems.to_string();
        assert!(
            shown.contains(expected) && shown.contains(place),
            "{options}: {shown}"
        );
    }
    // Without idempotence, the user may choose them.
    kafka_with("\"enable.idempotence\" = false, \"max.in.flight\" = 6, \"retries\" = 0").unwrap();
}

#[test]
fn bootstrap_servers_is_one_text_of_hosts_and_ports() {
    for bad in [
        "\"\"",
        "\"http://k:9092\"",
        "\":abc\"",
        "\";\"",
        "\"k:99999\"",
        "\"k 1:1\"",
        "[\"a:1\", \"b:2\"]",
    ] {
        let shown = load(&MINIMAL.replace("\"k:9092\"", bad))
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            shown.contains("0.toml:3:") && shown.contains("\"kafka-1:9092,kafka-2:9092\""),
            "{bad}: {shown}"
        );
    }
    let shown = load(&MINIMAL.replace("k:9092", "bridge:hunter2@k:9092"))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn kafka_options_that_weaken_protection_cause_warnings() {
    let login = "\"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = \"u\", \"sasl.password\" = \"hunter2\"";
    for (options, expected) in [
        (
            "\"security.protocol\" = \"ssl\", \"enable.ssl.certificate.verification\" = false"
                .to_owned(),
            "not verified",
        ),
        (
            "\"security.protocol\" = \"ssl\", \"ssl.endpoint.identification.algorithm\" = \"none\""
                .to_owned(),
            "not verified",
        ),
        (
            "\"security.protocol\" = \"ssl\", \"ssl.providers\" = \"default\"".to_owned(),
            "loads a library",
        ),
        (
            format!("\"security.protocol\" = \"sasl_plaintext\", {login}"),
            "clear text",
        ),
        (
            format!(
                "\"security.protocol\" = \"SASL_PLAINTEXT\", {}",
                login.replace("PLAIN", "SCRAM-SHA-256")
            ),
            "are encrypted",
        ),
        (login.to_owned(), "has no effect"),
        ("\"ssl.ca.pem\" = \"x\"".to_owned(), "has no effect"),
    ] {
        // librdkafka's result depends on files of the machine.
        let shown = match kafka_with(&options) {
            Ok(config) => config
                .warnings
                .iter()
                .map(ToString::to_string)
                .collect::<String>(),
            Err(problems) => problems.to_string(),
        };
        assert!(shown.contains(expected), "{options}: {shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let quiet = kafka_with(&format!("\"security.protocol\" = \"sasl_ssl\", {login}")).unwrap();
    assert!(quiet.warnings.is_empty(), "{:?}", quiet.warnings);
}

/// Every warning of a legal configuration.
fn warnings(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let config = load_with(&[text], environment).unwrap();
    config.warnings.iter().map(ToString::to_string).collect()
}

fn with_types(types: &[&str]) -> String {
    let routes = types
        .iter()
        .map(|types| format!("[[routes]]\ntypes = [{types}]\ntopic = \"x\"\n"));
    let (before, _) = MINIMAL.split_once("[[routes]]").unwrap();
    format!("{before}{}", routes.collect::<String>())
}

#[test]
fn a_route_that_earlier_ones_cover_causes_a_warning() {
    for covered in [
        ["\"ping\"", "\"ping\""],
        ["\"issue_*\"", "\"issue_*\""],
        ["\"issue_*\"", "\"issue_created\""],
        ["\"issue_*\"", "\"issue_c*\", \"issue_updated\""],
        ["\"*_open\"", "\"incident_open\""],
        ["\"*\"", "\"incident_open\", \"*_closed\""],
    ] {
        let shown = warnings(&with_types(&covered), &[]);
        assert_eq!(shown.len(), 1, "{covered:?}: {shown:?}");
        let expected = "0.toml:9:1: route 2: never sees an event, because route 1 ";
        assert!(shown[0].starts_with(expected), "{shown:?}");
    }
    for reached in [
        ["\"ping\"", "\"p*\""],
        ["\"issue_c*\"", "\"issue_*\""],
        ["\"issue_c*\"", "\"issue_closed\", \"ping\""],
        ["\"*_open\"", "\"*_o*\""],
        ["\"{ping,issue_created}\"", "\"issue_closed\""],
    ] {
        let shown = warnings(&with_types(&reached), &[]);
        assert!(shown.is_empty(), "{reached:?}: {shown:?}");
    }
    let shown = warnings(
        &with_types(&["\"issue_*\"", "\"ping\"", "\"ping\", \"issue_created\""]),
        &[],
    );
    assert!(
        shown[0].contains("because routes 1, 2 before it"),
        "{shown:?}"
    );
}

#[test]
fn a_route_for_all_sources_is_reached_where_one_source_is_left() {
    let second =
        "[sources.b]\nprovider = \"synq\"\nsecrets = [\"another-of-16-bytes\"]\n[[routes]]";
    let text = MINIMAL.replace("[[routes]]", second);
    let text = text.replace("topic =", "source = \"b\"\ntopic =");
    let rest = "[[routes]]\ntopic = \"rest\"\n";
    assert_eq!(warnings(&format!("{text}{rest}"), &[]).len(), 0);
    assert_eq!(warnings(&format!("{text}{rest}{rest}"), &[]).len(), 1);
}

#[test]
fn types_that_the_provider_does_not_send_cause_a_warning_with_the_nearest() {
    for (glob, help) in [
        ("pong", "did you mean \"ping\"?"),
        (
            "EVENT_TYPE_ISSUE_CREATED",
            "did you mean \"issue_created\"?",
        ),
        (
            "issue_.*",
            "types are globs, in which `*` matches any text and `{a,b}` either: write \"issue_*\"",
        ),
        ("monitor_*", "known types are ping, "),
    ] {
        let shown = warnings(&with_types(&[&format!("\"ping\", \"{glob}\"")]), &[]);
        assert_eq!(shown.len(), 1, "{shown:?}");
        let expected =
            format!("0.toml:7:18: route 1: types[1]: synq is not known to send \"{glob}\"; ");
        assert!(
            shown[0].starts_with(&expected) && shown[0].contains(help),
            "{shown:?}"
        );
    }
}

#[test]
fn both_listeners_at_one_address_are_refused() {
    let with = |public: &str, admin: &str| {
        problems(&format!(
            "[http]\nlisten = \"{public}\"\n[admin]\nlisten = \"{admin}\""
        ))
    };
    for (public, admin) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
    ] {
        let shown = with(public, admin);
        assert_eq!(shown.len(), 1, "{public} {admin}: {shown:?}");
        let expected = "0.toml:4:10: admin.listen: both listeners can't have the port 1";
        assert!(shown[0].starts_with(expected), "{shown:?}");
    }
    for (public, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("0.0.0.0:1", "[::1]:1"),
    ] {
        assert_eq!(with(public, admin), [""; 0], "{public} {admin}");
    }
}

#[test]
fn a_variable_without_a_key_is_named() {
    for name in [
        "HOOKBRIDGE__NOPE__X",
        "HOOKBRIDGE__HTTP__NOPE",
        "HOOKBRIDGE__NOPE",
    ] {
        let shown = load_with(&[MINIMAL], &[(name, "1")])
            .unwrap_err()
            .to_string();
        let expected = format!("environment variable {name}: ");
        assert!(
            shown.starts_with(&expected) && shown.contains("unknown key"),
            "{shown}"
        );
    }
}

#[test]
fn variables_that_nothing_reads_cause_a_warning_with_the_right_name() {
    for (name, help) in [
        (
            "HOOKBRIDGE_HTTP_LISTEN",
            "did you mean HOOKBRIDGE__HTTP__LISTEN?",
        ),
        (
            "HOOKBRIDGE_HTTP__MAX_BODY",
            "did you mean HOOKBRIDGE__HTTP__MAX_BODY?",
        ),
        (
            "HOOKBRIDGE_SOURCES_SYNQ_SECRETS",
            "did you mean HOOKBRIDGE__SOURCES__SYNQ__SECRETS?",
        ),
        ("HOOKBRIDGE_LOGS", "did you mean HOOKBRIDGE_LOG?"),
        ("HOOKBRIDGE_X", "settings begin with HOOKBRIDGE__"),
    ] {
        let shown = warnings(MINIMAL, &[(name, "x")]);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(
            shown[0].contains(name) && shown[0].contains(help),
            "{shown:?}"
        );
    }
    let read = MINIMAL.replace("\"s3cr3t-of-16-bytes\"", "{ env = \"HOOKBRIDGE_MINE\" }");
    let others = [
        ("HOOKBRIDGE_MINE", "s3cr3t-of-16-bytes"),
        ("HOOKBRIDGE_LOG", "debug"),
        ("HOOKBRIDGE_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKBRIDGE_SERVICE_PORT_HTTP", "8080"),
        ("HOOKBRIDGE_ADMIN_PORT_9090_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(warnings(&read, &others), [""; 0]);
}

#[test]
fn lists_in_variables_are_toml_arrays_or_texts_with_commas() {
    let headers = |value: &str| {
        let environment = [("HOOKBRIDGE__SOURCES__SYNQ__FORWARD_HEADERS", value)];
        let config =
            load_with(&[MINIMAL], &environment).map_err(|problems| problems.to_string())?;
        let headers = config.sources[0].forward_headers.iter();
        Ok::<_, String>(
            headers
                .map(|name| name.as_str().to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(headers("x-a, x-b").unwrap(), ["x-a", "x-b"]);
    assert_eq!(headers("[\"x-a\", 'x-b']").unwrap(), ["x-a", "x-b"]);
    assert_eq!(headers("[]").unwrap(), [""; 0]);
    for failed in [
        "[\"x-a\"",
        "[x-a]",
        "\"x-a\"",
        "'[\"x-a\"]'",
        "\"x-a\",\"x-b\"",
    ] {
        let shown = headers(failed).unwrap_err();
        let expected = "environment variable HOOKBRIDGE__SOURCES__SYNQ__FORWARD_HEADERS: sources.synq.forward_headers: ";
        assert!(shown.starts_with(expected), "{failed}: {shown}");
    }
}

#[test]
fn secrets_in_a_variable_are_a_toml_array_too_and_a_failed_attempt_is_refused() {
    let load = |value: &str| {
        let environment = [
            ("HOOKBRIDGE__SOURCES__SYNQ__SECRETS", value),
            ("NEW", "new-s3cr3t-of-16-bytes"),
        ];
        load_with(&[MINIMAL], &environment)
    };
    let count = |value: &str| load(value).unwrap().sources[0].secret_count;
    assert_eq!(count("old,s3cr3t-of-16-bytes"), 1);
    assert_eq!(count("[\"old-s3cr3t-of-16-bytes\", { env = \"NEW\" }]"), 2);
    assert_eq!(count("{ env = \"NEW\" }"), 1);
    for failed in [
        "[\"hunter2-hunter2",
        "[hunter2-hunter2]",
        "{ env = NEW }",
        "\"hunter2-hunter2\"",
    ] {
        let shown = load(failed).unwrap_err().to_string();
        assert!(
            shown.contains("HOOKBRIDGE__SOURCES__SYNQ__SECRETS"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_variable_cannot_change_part_of_a_list() {
    let shown = load_with(&[MINIMAL], &[("HOOKBRIDGE__ROUTES__0__TOPIC", "x")]).unwrap_err();
    let shown = shown.to_string();
    let expected = "environment variable HOOKBRIDGE__ROUTES__0__TOPIC: ";
    assert!(
        shown.starts_with(expected) && shown.contains("TOML array"),
        "{shown}"
    );
    let routes = "[{ topic = \"a\" }, { topic = \"b\", types = [\"ping\"] }]";
    let config = load_with(&[MINIMAL], &[("HOOKBRIDGE__ROUTES", routes)]).unwrap();
    assert_eq!(config.sources[0].routes.iter().count(), 2);
}

#[test]
fn secrets_that_are_references_are_refused_and_suspicious_ones_cause_warnings() {
    let with = |secret: &str, environment: &[(&str, &str)]| {
        load_with(
            &[&MINIMAL.replace("\"s3cr3t-of-16-bytes\"", secret)],
            environment,
        )
    };
    for literal in ["$NAME", "$(NAME)", "%NAME%", "{{ .Values.secret }}"] {
        let shown = with(&format!("\"{literal}\""), &[])
            .unwrap_err()
            .to_string();
        assert!(
            shown.contains("taken literally") && !shown.contains(literal),
            "{shown}"
        );
    }
    with("\"pa$$word-of-16-bytes\"", &[]).unwrap();
    let good = "s3cr3t-of-16-bytes";
    let warned = |value: &str| {
        let text = MINIMAL.replace("\"s3cr3t-of-16-bytes\"", "{ env = \"VAR\" }");
        warnings(&text, &[("VAR", value)]).join("\n")
    };
    // One line break is expected at the end of a variable.
    assert_eq!(warned(&format!("{good}\n")), "");
    assert_eq!(warned(&format!("{good}\r\n")), "");
    assert!(warned(&format!("{good}\n\n")).contains("white space"));
    assert!(warned(&format!("{good} ")).contains("white space"));
    assert!(warned(&format!("\"{good}\"")).contains("in quotes"));
    assert!(warned("hunter2").contains("fewer than 16 bytes"));
    assert!(!warned("hunter2").contains("hunter2"));
    for empty in ["", " ", "\n", "\t\r\n"] {
        assert!(
            with("{ env = \"VAR\" }", &[("VAR", empty)]).is_err(),
            "{empty:?}"
        );
    }
}

/// The source's verdict on a body signed with a secret.
fn verify_signed(
    source: &Source,
    secret: &Secret,
    at: std::time::SystemTime,
) -> Result<Option<usize>, Unverified> {
    let (method, url, body) = (&http::Method::POST, &"http://x/".parse().unwrap(), b"body");
    let unsigned = Unsigned {
        method,
        url,
        headers: &http::HeaderMap::new(),
        body,
        at,
    };
    let signed = sign(&source.authentication, secret, unsigned).unwrap();
    let request = Request {
        method,
        target: url,
        headers: &signed.headers,
        body,
        public_url: None,
        at,
    };
    source.authentication.verify(&Scope::raw(&request))
}

#[test]
fn a_line_break_at_the_end_of_a_variable_is_not_part_of_the_secret() {
    for written in ["{ env = \"VAR\" }", "\"${VAR}\""] {
        let text = MINIMAL.replace("\"s3cr3t-of-16-bytes\"", written);
        let config = load_with(&[&text], &[("VAR", "s3cr3t-of-16-bytes\n")]).unwrap();
        let secret = Secret::new("s3cr3t-of-16-bytes".to_owned()).unwrap();
        let source = &config.sources[0];
        let now = std::time::SystemTime::now();
        assert_eq!(
            verify_signed(source, &secret, now),
            Ok(Some(0)),
            "{written}"
        );
    }
}

#[test]
fn one_secret_in_two_sources_causes_a_warning_without_showing_it() {
    let second = |secret: &str| {
        let second =
            format!("[sources.b]\nprovider = \"synq\"\nsecrets = [\"{secret}\"]\n[[routes]]");
        warnings(&MINIMAL.replace("[[routes]]", &second), &[])
    };
    let shown = second("s3cr3t-of-16-bytes");
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(
        shown[0].contains("that the source b has too") && !shown[0].contains("s3cr3t"),
        "{shown:?}"
    );
    assert_eq!(second("another-of-16-bytes"), [""; 0]);
    let twice = MINIMAL.replace("[\"s3cr3t", "[\"s3cr3t-of-16-bytes\", \"s3cr3t");
    assert!(warnings(&twice, &[])[0].contains("lists the same secret twice"));
}

#[test]
fn paths_that_no_request_can_have_or_that_proxies_change_are_refused() {
    for (path, why) in [
        ("hooks", "does not begin with `/`"),
        ("/a/../b", "a segment `.` or `..`"),
        ("/..", "a segment `.` or `..`"),
        ("/./a", "a segment `.` or `..`"),
        ("//a", "an empty segment"),
        ("/a//b", "an empty segment"),
        ("/a%2fb", "a percent sign"),
        ("/a?b", "a query or fragment"),
        ("/a#b", "a query or fragment"),
        ("/a b", "characters"),
        ("/ä", "characters"),
    ] {
        let shown = in_source(&format!("path = \"{path}\""));
        assert_eq!(shown.len(), 1, "{path}: {shown:?}");
        assert!(
            shown[0].starts_with("0.toml:6:8: sources.synq.path: ") && shown[0].contains(why),
            "{shown:?}"
        );
    }
    for path in ["/", "/a/", "/a.b/..c", "/...", "/a:b@c"] {
        assert_eq!(in_source(&format!("path = \"{path}\"")), [""; 0], "{path}");
    }
}

#[test]
fn values_from_variables_are_not_shown_in_messages() {
    let in_source = |line: &str| MINIMAL.replace("[[routes]]", &format!("{line}[[routes]]"));
    for key in [
        "publish_timeout",
        "max_body",
        "max_in_flight",
        "provider",
        "path",
        "on_invalid",
        "success_status",
        "forward_headers",
        "topic",
        "broker",
        "source",
        "key",
        "action",
        "types",
    ] {
        let line = format!("{key} = \"${{VAR}}\"\n");
        let text = match key {
            "topic" => MINIMAL.replace("topic = \"synq.{type}\"\n", &line),
            "broker" | "source" | "key" | "action" | "types" => format!("{MINIMAL}{line}"),
            _ => in_source(&line),
        };
        let shown = load_with(&[&text], &[("VAR", "hunter2 {[")]).unwrap_err();
        let shown = format!("{shown} {shown:?}");
        assert!(
            !shown.contains("hunter2") && shown.contains("${VAR}"),
            "{key}: {shown}"
        );
    }
}

#[test]
fn advice_does_not_repeat_what_a_variable_has() {
    let topic = "topic = \"synq.{type}\"";
    for (line, instead, content) in [
        ("[sources", "publish_timeout = \"${VAR}\"", "4242424242"),
        ("[[routes", "tolerance = \"${VAR}\"", "4242424242"),
        (topic, "topic = \"${VAR}\"", "4242424242/x y"),
        (topic, "topic = \"x.${VAR}\"", "{4242424242}"),
        (topic, "topic = \"x\"\nkey = \"${VAR}\"", "/4242424242"),
        (topic, "topic = \"x\"\nkey = \"${VAR}\"", "$.4242424242"),
        (topic, "topic = \"x\"\nkey = \"${VAR}\"", "{4242424242}"),
        (
            topic,
            "topic = \"x\"\ntypes = [\"${VAR}\"]",
            "^4242424242.*$",
        ),
        (topic, "topic = \"x\"\ntypes = [\"${VAR}\"]", "!4242424242"),
        (
            topic,
            "topic = \"x\"\ntypes = [\"${VAR}\"]",
            "4242424242, b",
        ),
    ] {
        let text = match line == topic {
            true => MINIMAL.replace(topic, instead),
            false => MINIMAL.replace(line, &format!("{instead}\n{line}")),
        };
        let shown = match load_with(&[&text], &[("VAR", content)]) {
            Ok(config) => format!("{:?}", config.warnings),
            Err(problems) => problems.to_string(),
        };
        assert!(!shown.contains("4242424242"), "{instead}: {shown}");
    }
}

#[test]
fn readable_secret_files_cause_warnings() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = std::env::temp_dir().join(format!("hookbridge-readable-{}", std::process::id()));
    std::fs::write(&file, "s3cr3t-of-16-bytes\n").unwrap();
    let name = file.display();
    let with = |end: &str, text: &str| {
        let file = format!("{name}-{end}");
        std::fs::write(&file, text).unwrap();
        file
    };
    let key = with("key", include_str!("fixtures/key.pem"));
    let user = nkeys::KeyPair::new_user().seed().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n-----BEGIN USER NKEY SEED-----\n{user}\n------END USER NKEY SEED------\n"
    );
    let creds = with("creds", &creds);
    let nats = |keys: &str| {
        format!(
            "[brokers.edge]\nkind = \"nats\"\nservers = \"nats://a\"\n{keys}\n{SOURCE_AND_ROUTE}"
        )
    };
    let configurations = [
        MINIMAL.replace(
            "\"s3cr3t-of-16-bytes\"",
            &format!("{{ file = \"{name}\" }}"),
        ),
        nats(&format!("credentials = \"{creds}\"")),
        nats(&format!(
            "tls = {{ cert = \"src/config/fixtures/certificate.pem\", key = \"{key}\" }}"
        )),
        nats(&format!("user = \"u\"\npassword = {{ file = \"{name}\" }}")),
    ];
    // A group may read a file of root's.
    let of_group = usize::from(!rustix::process::geteuid().is_root());
    for (mode, expected) in [
        (0o600, 0),
        (0o400, 0),
        (0o640, of_group),
        (0o604, 1),
        (0o622, 1),
    ] {
        for file in [Path::new(&creds), Path::new(&key), &file] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        for text in &configurations {
            let reported = warnings(text, &[]);
            assert_eq!(reported.len(), expected, "{mode:o} {text}: {reported:?}");
            let wanted = format!("can be read by others (mode {mode:03o})");
            assert!(
                reported.iter().all(|line| line.contains(&wanted)),
                "{reported:?}"
            );
        }
    }
    for file in [Path::new(&creds), Path::new(&key), &file] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn files_that_the_nats_client_cannot_use_are_problems_at_their_keys() {
    let with = |keys: &str| {
        load(&format!(
            "[brokers.edge]\nkind = \"nats\"\nservers = \"nats://a\"\n{keys}\n{SOURCE_AND_ROUTE}"
        ))
    };
    let fixture = |name: &str| format!("\"src/config/fixtures/{name}.pem\"");
    let (cert, key) = (fixture("certificate"), fixture("key"));
    assert!(
        with(&format!(
            "tls = {{ ca = {cert}, cert = {cert}, key = {key} }}"
        ))
        .is_ok()
    );
    let other = fixture("other-key");
    for (keys, named, expected) in [
        (
            "tls = { ca = \"/absent/ca\" }".to_owned(),
            "tls.ca",
            "can't be read as PEM",
        ),
        (
            format!("tls = {{ ca = {key} }}"),
            "tls.ca",
            "holds no certificate",
        ),
        (
            format!("tls = {{ cert = {key}, key = {key} }}"),
            "tls.cert",
            "holds no certificate",
        ),
        (
            format!("tls = {{ cert = {cert}, key = {cert} }}"),
            "tls.key",
            "can't be read as a private key",
        ),
        (
            format!("tls = {{ cert = {cert}, key = {other} }}"),
            "tls.key",
            "can't be used together",
        ),
        (
            format!("credentials = {key}"),
            "credentials",
            "it has no user JWT",
        ),
    ] {
        let problems = with(&keys).unwrap_err().to_string();
        assert!(
            problems.contains(&format!("brokers.edge.{named}: ")) && problems.contains(expected),
            "{keys}: {problems}"
        );
    }
}

#[test]
fn pauses_that_make_a_storm_of_connection_attempts_cause_a_warning() {
    for name in ["reconnect.backoff.ms", "reconnect.backoff.max.ms"] {
        for (pause, expected) in [(0, 1), (20, 1), (100, 0), (1000, 0)] {
            let options = match name {
                "reconnect.backoff.max.ms" => {
                    format!("\"reconnect.backoff.ms\" = 100, \"{name}\" = {pause}")
                }
                _ => format!("\"{name}\" = {pause}"),
            };
            let Ok(config) = kafka_with(&options) else {
                assert!(pause < 100, "{options}");
                continue;
            };
            let warned = &config.warnings;
            assert_eq!(warned.len(), expected, "{options}: {warned:?}");
        }
    }
}

#[test]
fn message_max_bytes_below_the_largest_event_causes_a_warning() {
    let with = |bytes: usize| kafka_with(&format!("\"message.max.bytes\" = {bytes}"));
    let warned = with(100_000).unwrap().warnings;
    assert_eq!(warned.len(), 1, "{warned:?}");
    let warned = warned[0].to_string();
    assert!(
        warned.contains("options.message.max.bytes: ") && warned.contains("answered 503"),
        "{warned}"
    );
    assert_eq!(with(2 << 20).unwrap().warnings, Vec::new());
}

#[test]
fn commands_that_verify_nothing_need_no_secret() {
    let text = MINIMAL.replace(
        "\"s3cr3t-of-16-bytes\"",
        "{ env = \"NOT_SET\" }, { file = \"/nowhere\" }, \"${NOR}\"",
    );
    let origin = Origin {
        files: vec![ConfigFile::Text {
            name: "a.toml".to_owned(),
            text,
        }],
        environment: Vec::new(),
    };
    assert_eq!(origin.load().unwrap_err().0.len(), 3);
    let config = origin.load_without_signing_secrets().unwrap();
    let source = &config.sources[0];
    let secret = Secret::new("x".to_owned()).unwrap();
    let now = std::time::SystemTime::now();
    assert!(verify_signed(source, &secret, now).is_err());
}

/// The time of the faster of two loads.
fn faster_load(text: &str) -> Duration {
    let times = (0..2).map(|_| {
        let started = std::time::Instant::now();
        drop(load(text));
        started.elapsed()
    });
    times.min().unwrap()
}

#[test]
fn loading_time_is_proportional_to_the_number_of_routes() {
    let text = |routes: usize, topic: &str| {
        let routes = (0..routes).map(|route| {
            format!(
                "\n[[routes]]\ntypes = [\"issue_{route}\", \"incident_{route}\"]\ntopic = \"{topic}.{route}\"\nkey = \"{{/workspace}}\"\n"
            )
        });
        let (before, _) = MINIMAL.split_once("[[routes]]").unwrap();
        format!("{before}{}", routes.collect::<String>())
    };
    // Comparing each route with all others would take a hundred times as long for ten times the routes.
    for topic in ["good", "not good"] {
        let (few, many) = (
            faster_load(&text(200, topic)),
            faster_load(&text(2_000, topic)),
        );
        assert!(
            many < few * 40,
            "{topic}: {few:?} for 200, {many:?} for 2,000 routes"
        );
    }
}

#[test]
fn globs_with_and_without_regular_expressions_agree() {
    for text in [
        "ping", "issue_*", "*", "*_open", "i?sue_*", "{a,b}*", "[ab]", "a/*",
    ] {
        let glob = TypeGlob::new(text).unwrap();
        let reference = glob.glob.compile_matcher();
        for event_type in [
            "ping",
            "issue_",
            "issue_created",
            "incident_open",
            "a",
            "a/b",
            "A",
            "",
        ] {
            assert_eq!(
                glob.is_match(event_type),
                reference.is_match(event_type),
                "{text} {event_type}"
            );
        }
    }
}

/// The problems of a configuration with this source and one route.
fn problems_of(source: &str) -> Vec<String> {
    let least = "[brokers.main]\nkind = \"nats\"\nservers = \"nats://localhost:4222\"\n[[routes]]\ntopic = \"t\"\n";
    let result = load(&format!("{least}{source}"));
    let problems = result.err().map(|problems| problems.0);
    let problems = problems.unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

const ACME: &str = r#"
[sources.acme]
secrets = ["s3cr3t-of-16-bytes"]
KEYS
[sources.acme.verify]
signature = { header = "x-acme-signature" }
VERIFY
[sources.acme.event]
id = "{/id}"
type = "{/type}"
EVENT
"#;

#[test]
fn faults_of_a_declared_source_are_reported() {
    let with = |place: &str, text: &str| {
        let places = ["KEYS", "VERIFY", "EVENT"].into_iter();
        let filled = places.fold(ACME.to_owned(), |acme, known| {
            acme.replace(known, if known == place { text } else { "" })
        });
        problems_of(&filled)
    };
    assert_eq!(with("KEYS", ""), [""; 0]);
    for (place, text, words) in [
        ("KEYS", "auth = \"bearer\"", "conflicts with `verify`"),
        (
            "KEYS",
            "forward_headers = [\"X-Acme-Signature\"]",
            "never forwarded",
        ),
        ("KEYS", "public_url = \"hooks.example.com\"", "is not a URL"),
        ("KEYS", "media_types = \"json\"", "is not a media type"),
        ("KEYS", "scheme = \"v2\"", "unknown key `scheme`"),
        ("KEYS", "split = \"events\"", "split"),
        (
            "VERIFY",
            "content = \"{timestamp}.{body}\"",
            "`timestamp` does not locate it",
        ),
        ("VERIFY", "content = \"{url}{body}\"", "lacks `public_url`"),
        (
            "VERIFY",
            "content = \"{form:id}\"",
            "its events are not read as forms",
        ),
        (
            "VERIFY",
            "timestamp = { form = \"at\" }\ntolerance = \"5m\"",
            "its events are not read as forms",
        ),
        (
            "VERIFY",
            "timestamp = { numbered_headers = \"x-time-\" }\ntolerance = \"5m\"",
            "write for example `header = \"x-time\"`",
        ),
        ("VERIFY", "content = []", "is an empty list"),
        (
            "VERIFY",
            "content = [\"{body}\", \"{now}\"]",
            "is not a placeholder",
        ),
        (
            "VERIFY",
            "body_digest = { query = \"digest\" }",
            "is not signed",
        ),
        ("KEYS", "jwt = {}", "has no effect without `auth = \"jwt\"`"),
        (
            "VERIFY",
            "timestamp = { header = \"x\", pointer = \"/x\" }",
            "names several locations",
        ),
        ("VERIFY", "algorithm = \"md5\"", "is not one of"),
        ("VERIFY", "sekret = 1", "unknown key `sekret`"),
        ("EVENT", "time = \"{now}\"", "is not a placeholder"),
        ("EVENT", "typ = \"x\"", "unknown key `typ`"),
        (
            "EVENT",
            "[[sources.acme.handshakes]]\npointer = \"/type\"",
            "verified = false",
        ),
        (
            "EVENT",
            "[[sources.acme.handshakes]]\npointer = \"/a\"\nverified = false\nabsent = \"b\"",
            "absent",
        ),
        (
            "EVENT",
            "[[sources.acme.handshakes]]\nstatus = 204",
            "would match every event",
        ),
        (
            "EVENT",
            "[[sources.acme.handshakes]]\nmethod = \"PUT\"",
            "is not one of",
        ),
    ] {
        let problems = with(place, text);
        assert!(
            problems.len() == 1 && problems[0].contains(words),
            "{text}: {problems:?}"
        );
    }
}

/// The problems of a source whose bodies are read like this.
fn with_body(body: &str, verify: &str, handshake: &str) -> Vec<String> {
    problems_of(&format!(
        "[sources.acme]\nsecrets = [\"s3cr3t-of-16-bytes\"]\nevent = {{ {body}, id = \"{{uuid}}\", type = \"x\" }}\nverify = {{ signature = {{ header = \"x-s\" }}{verify} }}\n{handshake}"
    ))
}

#[test]
fn what_a_body_does_not_have_verifies_no_request_and_shows_no_handshake() {
    let (json, form) = (
        ", timestamp = { pointer = \"/ts\" }, tolerance = \"5m\"",
        ", timestamp = { form = \"ts\" }, tolerance = \"5m\"",
    );
    let recognized_by =
        |condition: &str| format!("[[sources.acme.handshakes]]\n{condition}\nverified = true\n");
    let is_one = |problems: &[String], words: &str| match problems {
        [problem] => assert!(problem.contains(words), "{problem}"),
        other => panic!("{words}: {other:?}"),
    };
    for body in [
        "body = \"lines\"",
        "body = \"raw\"",
        "body = \"raw\", form_field = \"p\"",
    ] {
        is_one(&with_body(body, json, ""), "are not read as JSON");
        is_one(&with_body(body, form, ""), "are not read as forms");
        for (condition, words) in [
            ("pointer = \"/a\"", "are not read as JSON"),
            ("header = \"x\"\nabsent = \"/a\"", "are not read as JSON"),
            ("form = \"a\"", "are not read as forms"),
        ] {
            is_one(&with_body(body, "", &recognized_by(condition)), words);
        }
        let by_head = recognized_by("header = \"x\"");
        assert_eq!(with_body(body, "", &by_head), [""; 0]);
    }
    for (body, verify, handshake) in [
        ("body = \"json\"", json, "pointer = \"/a\""),
        ("body = \"form\"", form, "form = \"a\""),
        ("body = \"form\"", json, "pointer = \"/a\""),
        ("form_field = \"p\"", form, "form = \"a\""),
    ] {
        assert_eq!(with_body(body, verify, &recognized_by(handshake)), [""; 0]);
    }
    // Only a POST has a body with a time.
    let by_get = recognized_by("method = \"GET\"\nquery = \"a\"");
    is_one(&with_body("body = \"json\"", json, &by_get), "has no body");
    let in_header = ", timestamp = { header = \"x-t\" }, tolerance = \"5m\"";
    assert_eq!(with_body("body = \"json\"", in_header, &by_get), [""; 0]);
    let unverified = by_get.replace("true", "false");
    assert_eq!(with_body("body = \"json\"", json, &unverified), [""; 0]);
}

#[test]
fn a_weaker_scheme_of_a_preset_than_its_default_causes_a_warning() {
    let of = |name: &str, keys: &str| {
        let text = format!(
            "[brokers.main]\nkind = \"nats\"\nservers = \"nats://localhost:4222\"\n[[routes]]\ntopic = \"t\"\n[sources.{name}]\n{keys}\n"
        );
        let about_scheme = |warning: &String| warning.contains("scheme");
        let mut warnings = warnings(&text, &[]);
        warnings.retain(about_scheme);
        warnings.join("; ")
    };
    let secret = "secrets = [\"s3cr3t-of-16-bytes\"]\npublic_url = \"https://h.example/x\"";
    let base64 = "secrets = [\"whsec_MDEyMzQ1Njc4OWFiY2RlZg==\"]";
    for (name, scheme, words) in [
        ("gitlab", "token", "signs nothing"),
        ("hubspot", "v1", "has no signed time"),
        ("hubspot", "v2", "has no signed time"),
        ("jira", "jwt", "signs nothing"),
    ] {
        let found = of(name, &format!("{secret}\nscheme = \"{scheme}\""));
        assert!(found.contains(words), "{name} {scheme}: {found:?}");
        assert!(found.contains("remove `scheme`"), "{found}");
    }
    let key = "secrets = [\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"]";
    for (name, secrets, scheme) in [
        ("gitlab", base64, "signing"),
        ("hubspot", secret, "v3"),
        ("jira", secret, "hmac"),
        ("twilio", secret, "auth-token"),
        ("twilio", secret, "sharedkey-sha256"),
        ("discord", key, "events"),
        ("discord", key, "interactions"),
    ] {
        let found = of(name, &format!("{secrets}\nscheme = \"{scheme}\""));
        assert_eq!(found, "", "{name} {scheme}");
    }
}

#[test]
fn tokens_in_the_body_are_never_left_unchecked() {
    let of = |auth: &str| {
        problems_of(&format!(
            "[sources.microsoft-graph]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n{auth}\nvalidation_tokens = {{ keys = \"/nowhere.pem\", audience = \"a\", appid = \"b\" }}\n"
        ))
    };
    for (auth, words) in [
        (
            "auth = [\"query:key\", \"event:/clientState\"]",
            "would not be checked",
        ),
        (
            "auth = [\"event:/clientState\", \"bearer\"]",
            "would not be checked",
        ),
        ("auth = \"query:key\"", "unknown key `validation_tokens`"),
        (
            "verify = { signature = { header = \"x-s\" } }",
            "unknown key `validation_tokens`",
        ),
    ] {
        let problems = of(auth);
        assert!(
            problems.iter().any(|problem| problem.contains(words)),
            "{auth}: {problems:?}"
        );
    }
    for auth in [
        "",
        "auth = \"event:/clientState\"",
        "auth = [\"event:/a\", \"event:/b\"]",
    ] {
        let problems = of(auth);
        assert!(
            problems.len() == 1 && problems[0].contains("can't be read"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_presets_keys_are_defaults_and_its_parameters_apply_to_it_alone() {
    let text = |name: &str, keys: &str| {
        format!(
            "[brokers.main]\nkind = \"nats\"\nservers = \"nats://localhost:4222\"\n[[routes]]\ntopic = \"t\"\n[sources.{name}]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n{keys}"
        )
    };
    let of = |name: &str, keys: &str| load(&text(name, keys)).unwrap();
    let github = of("github", "");
    let source = &github.sources[0];
    assert_eq!(
        (source.max_body, source.publish_timeout),
        (25 * 1024 * 1024, Duration::from_secs(8))
    );
    let own = "publish_timeout = \"3s\"\nevent = { key = \"{/ref}\" }";
    let own = of("github", own);
    let source = &own.sources[0];
    assert_eq!(source.publish_timeout, Duration::from_secs(3));
    assert_eq!(source.mapping.id.texts().count(), 1);
    let grafana = of("grafana", "timestamp_header = \"x-time\"");
    let authentication = &grafana.sources[0].authentication;
    assert_eq!(authentication.tolerance(), Some(Duration::from_secs(300)));
    assert!(authentication.is_secret_header("x-time"));
    // Another kind of secret replaces the signature.
    let token = of("grafana", "auth = \"bearer\"");
    assert!(
        token.sources[0]
            .authentication
            .is_secret_header("authorization")
    );
    let numbered = of("docusign", "");
    let authentication = &numbered.sources[0].authentication;
    assert!(authentication.is_secret_header("x-docusign-signature-2"));
    for (name, keys, words) in [
        (
            "github",
            "timestamp_header = \"x\"",
            "unknown key `timestamp_header`",
        ),
        (
            "grafana",
            "id_header = \"x\"",
            "keys of this preset: signature_header, timestamp_header",
        ),
        ("gitlab", "scheme = \"v9\"", "is not one of signing, token"),
        ("auth0", "format = \"XML\"", "is not one of JSONARRAY"),
        ("hubspot", "", "lacks `public_url`"),
        ("okta", "auth = \"bearr\"", "is not a way to authenticate"),
        (
            "cloudevents",
            "allowed_origins = [\"https://x.example.com\"]",
            "\"https://x.example.com\" is not a host name",
        ),
        (
            "cloudevents",
            "event = { id = \"{/id}\" }",
            "a CloudEvent has this attribute itself",
        ),
        (
            "cloudevents",
            "auth = \"event:/id\"",
            "are not read as JSON",
        ),
        (
            "microsoft-graph",
            "auth = \"event:clientState\"",
            "a JSON Pointer starts with `/`",
        ),
        (
            "microsoft-graph",
            "validation_tokens = { audience = \"a\", appid = \"b\" }",
            "lacks `keys`",
        ),
        ("monday", "", "lacks `public_url`"),
        (
            "okta",
            "jwt = { issuer = \"x\" }",
            "without `auth = \"jwt\"`",
        ),
        (
            "okta",
            "auth = \"jwt\"\njwt = { keys = \"/nonexistent/keys.json\" }",
            "can't be read",
        ),
        (
            "okta",
            "auth = \"jwt\"\njwt = { audience = \"{body}\" }",
            "is checked before the body",
        ),
        (
            "mailgun",
            "parent_signature = \"yes\"",
            "is not one of false, true",
        ),
    ] {
        let problems = load(&text(name, keys)).unwrap_err().to_string();
        assert!(problems.contains(words), "{name}: {problems}");
    }
    let signed = |content: &str| {
        let verify =
            format!("verify = {{ signature = {{ header = \"x-s\" }}, content = \"{content}\" }}");
        let warnings = of("cloudevents", &verify).warnings;
        let of_attributes =
            |warning: &&crate::table::Problem| warning.to_string().contains("ce-id");
        warnings.iter().filter(of_attributes).count()
    };
    assert_eq!(
        signed("{body}"),
        1,
        "the attributes in headers are not signed"
    );
    assert_eq!(
        signed("{header:ce-id}{header:ce-source}{header:ce-type}{body}"),
        0
    );
    for anyone in ["grafana", "monday"] {
        let anyone = format!("[sources.{anyone}]\nauth = \"none\"");
        assert_eq!(problems_of(&anyone), [""; 0]);
    }
    // Token settings that the user omits keep the preset's values.
    let monday = of(
        "monday",
        "auth = [\"jwt\", \"query:key\"]\npublic_url = \"https://h.example/x\"",
    );
    assert!(monday.sources[0].authentication.signs_url());
}

#[test]
fn a_source_of_sns_must_name_its_topics_and_certificates() {
    const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:orders";
    let folder = std::env::temp_dir().join(format!("hookbridge-sns-config-{}", std::process::id()));
    let load = |keys: serde_json::Value| {
        let values = serde_json::json!({
            "brokers": { "main": { "kind": "nats", "servers": "nats://localhost:4222" } },
            "sources": { "aws-sns": keys },
            "routes": [{ "topic": "t" }],
        });
        let config = Config::from_values(values.as_object().cloned().unwrap());
        match config {
            Ok(config) => config
                .warnings
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Err(problems) => problems.to_string(),
        }
    };
    assert_eq!(
        load(serde_json::json!({ "topic_arns": TOPIC, "fetch_certificates": true })),
        ""
    );
    let empty = folder.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    let broken = folder.join("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("a.pem"), "x").unwrap();
    for (keys, words) in [
        (serde_json::json!({}), "lacks `topic_arns`"),
        (
            serde_json::json!({ "topic_arns": [] }),
            "lacks `topic_arns`",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC }),
            "`fetch_certificates = true`",
        ),
        (
            serde_json::json!({ "topic_arns": "arn:aws:sns:*:*:*", "fetch_certificates": true }),
            "not the ARN of one topic",
        ),
        (
            serde_json::json!({ "topic_arns": "orders", "fetch_certificates": true }),
            "not the ARN of one topic",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "certificates": "/nowhere" }),
            "can't be read",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "certificates": empty }),
            "has no PEM file",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "certificates": broken }),
            "a.pem can't be used: it is not a PEM certificate",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "fetch_certificates": true, "tolerance": "5m" }),
            "less than 2h",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "fetch_certificates": true, "secrets": ["0123456789abcdef"] }),
            "has no effect",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "fetch_certificates": true, "scheme": "v1" }),
            "is not one of v2",
        ),
        (
            serde_json::json!({ "topic_arns": TOPIC, "fetch_certificates": true, "confirm": true }),
            "keys of this preset: certificates, confirm_subscriptions, fetch_certificates, topic_arns",
        ),
    ] {
        let found = load(keys.clone());
        assert!(found.contains(words), "{keys}: {found}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_nonce_is_signed_and_has_a_time_that_limits_its_memory() {
    let declared = |verify: &str| {
        let text = format!(
            "[brokers.main]\nkind = \"nats\"\nservers = [\"nats://localhost:4222\"]\n\
             [[routes]]\ntopic = \"t\"\n[sources.acme]\nsecrets = [\"a-secret-of-16-bytes\"]\n\
             verify = {{ signature = {{ header = \"x-s\" }}, {verify} }}\n\
             event = {{ id = \"{{/id}}\", type = \"x\" }}\n"
        );
        load(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    };
    let time = "timestamp = { header = \"x-t\" }, tolerance = \"5m\"";
    let content = "content = \"{timestamp}.{header:x-n}\", nonce = \"{header:x-n}\"";
    for (verify, words) in [
        (
            format!("{time}, nonce = \"{{header:x-n}}\""),
            "is not signed",
        ),
        (
            format!("{content}, {time}").replace("nonce = \"{header:x-n}\"", "nonce = \"n\""),
            "is not signed",
        ),
        (
            format!("{content}, timestamp = {{ header = \"x-t\" }}"),
            "needs `timestamp` and `tolerance`",
        ),
    ] {
        let found = declared(&verify);
        assert!(found.contains(words), "{verify}: {found:?}");
    }
    assert_eq!(declared(&format!("{content}, {time}")), "");
}

#[test]
fn a_secret_with_characters_that_nobody_sees_causes_a_warning() {
    let with = |secret: &str| {
        let text = MINIMAL.replace("\"s3cr3t-of-16-bytes\"", "{ env = \"SECRET\" }");
        warnings(&text, &[("SECRET", secret)])
    };
    for secret in [
        "\u{feff}s3cr3t-of-16-bytes",
        "s3cr3t-of-16-bytes\nanother-of-16-bytes\n",
        "s3cr3t-of-\u{200b}16-bytes",
        "s3cr3t-of-\u{0}16-bytes",
    ] {
        let warned = with(secret);
        assert_eq!(warned.len(), 1, "{secret:?}: {warned:?}");
        assert!(warned[0].contains("is not seen"), "{warned:?}");
        assert!(!warned[0].contains("s3cr3t"), "{warned:?}");
    }
    for secret in ["s3cr3t-of-16-bytes\n", "s3cr3t of 16 bytés\r\n"] {
        assert_eq!(with(secret), Vec::<String>::new(), "{secret:?}");
    }
}

#[test]
fn an_inbox_among_the_events_causes_a_warning() {
    let with = |prefix: &str| {
        let text = format!(
            "[brokers.edge]\nkind = \"nats\"\nservers = \"nats://a\"\ninbox_prefix = \"{prefix}\"\n\
             [sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"hooks.{{type}}\"\n"
        );
        warnings(&text, &[])
    };
    for prefix in ["hooks", "hooks.inbox"] {
        let warned = with(prefix);
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].contains("\"_INBOX_hooks\""), "{warned:?}");
    }
    assert_eq!(with("_INBOX_hooks"), Vec::<String>::new());
}
