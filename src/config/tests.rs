//! What users write, and what becomes of it.

use std::path::Path;
use std::time::Duration;

use super::*;

const SOURCE_AND_ROUTE: &str =
    "[sources.synq]\nsecrets = [\"s\"]\n[[routes]]\ntopic = \"synq.{type}\"\n";
const LEAST: &str = "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k:9092\"\n[sources.synq]\nsecrets = [\"s\"]\n[[routes]]\ntopic = \"synq.{type}\"\n";

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

/// Loads the least configuration with these lines in front, and returns every problem as it is shown.
fn problems(lines: &str) -> Vec<String> {
    let text = format!("{lines}\n{LEAST}");
    load(&text)
        .err()
        .map(|problems| problems.0.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn in_source(lines: &str) -> Vec<String> {
    let text = LEAST.replace(
        "secrets = [\"s\"]\n",
        &format!("secrets = [\"s\"]\n{lines}\n"),
    );
    load(&text)
        .err()
        .map(|problems| problems.0.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

#[test]
fn the_least_file_becomes_a_whole_configuration() {
    let config = load(LEAST).unwrap();
    let source = &config.sources[0];
    assert_eq!(
        (
            source.path.as_str(),
            source.provider.name(),
            source.secret_count
        ),
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
    let first = format!("[http]\nmax_body = \"1KiB\"\npublish_timeout = \"3s\"\n{LEAST}");
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
fn every_problem_is_told_at_once_with_its_place() {
    let text = "[http]\nlisten = \"here\"\nmax_boddy = \"1MiB\"\n[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"k\"\n\
                [sources.synq]\nsecrets = [{ env = \"NOT_SET\" }]\n[[routes]]\nbroker = \"mian\"\ntopic = \"x\"\n";
    let shown = load(text).unwrap_err().to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(
        lines[0].starts_with("0.toml:2:10: \"here\" is not an address"),
        "{shown}"
    );
    assert_eq!(
        lines[1],
        "0.toml:3:1: unknown key `max_boddy` in [http]; did you mean \"max_body\"?"
    );
    assert_eq!(
        lines[2],
        "0.toml:8:12: the environment variable NOT_SET is not set"
    );
    assert_eq!(
        lines[3],
        "0.toml:10:10: route 1 names the broker \"mian\", which is not defined; did you mean \"main\"?"
    );
}

#[test]
fn what_is_not_there_is_asked_for_by_example() {
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
fn a_misspelt_broker_of_a_route_is_recognized_also_where_there_is_only_one() {
    let text = format!("{LEAST}\nbrokr = \"main\"\n");
    let shown = load(&text).unwrap_err().to_string();
    assert!(
        shown.contains("unknown key `brokr` in route 1; did you mean \"broker\"?"),
        "{shown}"
    );
}

#[test]
fn a_misspelt_kind_is_one_mistake() {
    let text = LEAST.replace("\"kafka\"", "\"kafk\"");
    let problems = load(&text).unwrap_err().0;
    assert!(
        problems.len() == 1 && problems[0].what.contains("did you mean \"kafka\"?"),
        "{problems:?}"
    );
}

#[test]
fn keys_that_wait_for_later_versions_are_unknown() {
    for line in [
        "verify = { scheme = \"x\" }",
        "public_url = \"https://x\"",
        "success_body = \"ok\"",
        "rate_limit = { per_second = 1 }",
        "expect_every = \"1h\"",
    ] {
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
    let config = load(&format!("{text}{LEAST}")).unwrap();
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
fn variables_are_filled_into_values_and_never_looked_at_again() {
    let text = LEAST.replace(
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
    let text = LEAST.replace(
        "[\"s\"]",
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
        assert!(load(&LEAST.replace("[\"s\"]", broken)).is_err(), "{broken}");
    }
}

#[test]
fn librdkafkas_properties_pass_but_for_those_that_the_promise_rests_on() {
    let with = |options: &str| {
        load(&LEAST.replace(
            "bootstrap_servers = \"k:9092\"",
            &format!("bootstrap_servers = \"k:9092\"\noptions = {{ {options} }}"),
        ))
    };
    with("\"compression.type\" = \"lz4\", \"linger.ms\" = 5, \"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" = \"SCRAM-SHA-512\", \"sasl.password\" = { env = \"P\" }")
        .unwrap_err();
    let text = LEAST.replace("bootstrap_servers = \"k:9092\"", "bootstrap_servers = \"k:9092\"\noptions = { \"sasl.mechanism\" = \"SCRAM-SHA-512\", \"sasl.password\" = { env = \"P\" } }");
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
            .contains("no property of librdkafka")
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
    let two = LEAST.replace(
        "[sources.synq]",
        "[brokers.edge]\nkind = \"nats\"\nservers = \"n\"\n[sources.synq]",
    );
    let shown = load(&two).unwrap_err().to_string();
    assert!(
        shown.contains("route 1 must name its `broker`, because there are several: edge, main"),
        "{shown}"
    );
    let config = load(&two.replace("topic =", "broker = \"edge\"\ntopic =")).unwrap();
    assert_eq!(config.needed_brokers().len(), 1);
}

#[test]
fn suspicious_but_legal_things_are_warned_of() {
    let warned = |text: &str| {
        load(text)
            .unwrap()
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let shadowed = format!("{LEAST}[[routes]]\ntopic = \"x\"");
    assert!(warned(&shadowed).contains("route 2 never sees an event of synq: route 1 takes all"));
    assert!(
        warned(&format!("[admin]\nlisten = \"0.0.0.0:1\"\n{LEAST}"))
            .contains("can be reached from other machines")
    );
    assert!(
        warned(&LEAST.replace("secrets =", "tolerance = \"5m\"\nsecrets ="))
            .contains("refuses late ones")
    );
    let colliding = LEAST.replace(
        "topic = \"synq.{type}\"",
        "types = [\"ping\"]\ntopic = \"a.b\"\n[[routes]]\ntopic = \"a_b\"",
    );
    assert!(warned(&colliding).contains("Kafka can't have both"));
}

#[test]
fn duplicates_are_recognized_for_the_providers_retry_time_unless_the_source_says_otherwise() {
    let window = |line: &str| {
        let text = LEAST.replace(
            "secrets = [\"s\"]\n",
            &format!("secrets = [\"s\"]\n{line}\n"),
        );
        load(&text).unwrap().sources[0].dedup_window
    };
    assert_eq!(window(""), Some(Duration::from_secs(3600)));
    assert_eq!(
        window("dedup_window = \"5m\""),
        Some(Duration::from_secs(300))
    );
    assert_eq!(window("dedup_window = \"0s\""), None);
}

#[test]
fn routes_can_produce_what_their_templates_can_become_and_nothing_else() {
    let text = LEAST.replace(
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
fn bad_values_of_a_source_are_told() {
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
    let twice = LEAST.replace(
        "[[routes]]",
        "[sources.b]\nprovider = \"synq\"\npath = \"/hooks/synq\"\nsecrets = \"s\"\n[[routes]]",
    );
    assert!(
        load(&twice)
            .unwrap_err()
            .to_string()
            .contains("have the same path")
    );
    assert!(load(&LEAST.replace("sources.synq", "sources.other")).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "(\\[|\\]|[a-z]{1,8}|=|\"|\\{|\\}|\\.|\n| |[0-9]|\\$\\{|#){0,60}") {
        let _loaded = load(&text);
        let _loaded = load(&format!("{text}\n{LEAST}"));
    }
}

#[test]
fn every_file_that_has_a_part_is_watched_whether_or_not_it_is_there() {
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
    load(&LEAST.replace(
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
    // Without idempotence, they are a choice.
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
        let shown = load(&LEAST.replace("\"k:9092\"", bad))
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            shown.contains("0.toml:3:") && shown.contains("\"kafka-1:9092,kafka-2:9092\""),
            "{bad}: {shown}"
        );
    }
    let shown = load(&LEAST.replace("k:9092", "bridge:hunter2@k:9092"))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn kafka_options_that_give_protection_up_are_warned_of() {
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
        // What librdkafka makes of it depends on files of the machine.
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
