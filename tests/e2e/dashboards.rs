//! Deployed files: each query of the dashboard and the rules finds data in a real Prometheus, each alert has its
//! runbook and its test, and each configuration in a manifest is valid.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::bridge::{Bridge, hookbridge_reading, nats_broker, route_with, synq_source};
use crate::support::events;
use crate::support::fixture::nats;
use crate::support::load::Load;
use crate::support::nats::Nats;
use crate::support::process::{self, Process};
use crate::support::sender::{self, Request};
use crate::support::wait::{self, PATIENCE};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const SECRET: &str = "a-secret-of-the-manifests";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

// ---- Queries

/// A Prometheus that scrapes one bridge every second, with the rules of `deploy/`.
struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    fn scraping(bridge: &Bridge) -> Option<Self> {
        let program = process::prometheus()?;
        let folder = process::directory("prometheus");
        let file = folder.join("prometheus.yml");
        let configuration = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: ['{ROOT}/deploy/recording.yml', '{ROOT}/deploy/alerts.yml']\n\
             scrape_configs:\n\
             - job_name: hookbridge\n  static_configs: [{{ targets: ['{}'] }}]\n",
            bridge.admin
        );
        std::fs::write(&file, configuration).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], process::port()));
        let mut command = process::command(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null());
        let prometheus = Self {
            _process: Process::spawn(command),
            address,
        };
        wait::until("Prometheus is ready", PATIENCE, || {
            sender::Connection::open(address)
                .and_then(|mut connection| connection.send(&Request::new("GET", "/-/ready")))
                .is_ok_and(|answer| answer.status == 200)
        });
        Some(prometheus)
    }

    /// The answer of its API. A query that it does not understand is our mistake.
    #[track_caller]
    fn get(&self, target: &str) -> Value {
        let answer = sender::send(self.address, &Request::new("GET", target));
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json().get("data").cloned().expect("data")
    }

    /// The series that a query finds now and that have a number as their value.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let mut target = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            if byte.is_ascii_alphanumeric() {
                target.push(char::from(byte));
            } else {
                write!(target, "%{byte:02X}").unwrap();
            }
        }
        let data = self.get(&target);
        let series = data["result"].as_array().expect("a vector").iter();
        series
            .filter(|series| series["value"][1] != "NaN")
            .cloned()
            .collect()
    }

    #[track_caller]
    fn expect_data(&self, what: &str, query: &str) {
        wait::until(&format!("{what} finds data: {query}"), PATIENCE, || {
            !self.query(query).is_empty()
        });
    }
}

#[test]
fn every_query_of_the_dashboard_and_of_the_rules_finds_data_in_prometheus() {
    let nats = or_skip!(Nats::shared());
    let stream = nats.stream("dashboards");
    let routes = |more: &str| {
        // No stream takes pings: a publish that fails, and a destination that is missing.
        nats_broker("main", &nats.url)
            + &synq_source("expect_every = \"1h\"")
                .replace("secrets = [", "secrets = [\"the-secret-before-it\", ")
            + &route_with(&format!("{stream}-nowhere.{{type}}"), "types = [\"ping\"]")
            + &route_with(&format!("{stream}.{{type}}"), more)
    };
    let mut bridge = Bridge::run(&routes(""));
    bridge.wait_ready();
    let prometheus = or_skip!(Prometheus::scraping(&bridge));
    let load = Load::start(bridge.public, 2, |number| {
        events::issue("created", &number.to_string())
    });
    // A rate needs two scrapes, the first before the counted event.
    prometheus.expect_data("a second scrape", "count_over_time(up[5m]) >= 2");
    let event = events::incident("open", "again");
    bridge.deliver(&event).expect_published(&event);
    bridge.deliver(&event).expect_success("duplicate");
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "broker_unavailable");
    bridge
        .send(&Request::post("/hooks/synq", "{}").signed("wrong"))
        .expect_problem(401, "invalid_signature");
    assert!(bridge.reload(&routes("key = \"{/event_id}\"")));

    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/hookbridge.json")).unwrap();
    let mut count = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = filled_in(target["expr"].as_str().unwrap());
            prometheus.expect_data(&format!("the panel {title:?}"), &query);
            count += 1;
        }
    }
    assert!(count > 30, "{count} queries");
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        prometheus.query(&filled_in(annotation["expr"].as_str().unwrap()));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(definition) = variable["definition"].as_str() else {
            continue;
        };
        let values = definition.strip_prefix("label_values(");
        let (metric, label) = values
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
            .expect("label_values(METRIC, LABEL)");
        let query = format!("count by ({label}) ({}{{{label}!=\"\"}})", name_of(metric));
        prometheus.expect_data(definition, &query);
        prometheus.expect_data(definition, &filled_in(metric));
    }

    for group in prometheus.get("/api/v1/rules")["groups"]
        .as_array()
        .unwrap()
    {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["name"].as_str().unwrap();
            if rule["type"] == "recording" {
                prometheus.expect_data("the record", name);
                continue;
            }
            // An alert finds nothing while all is well, but each series that it reads exists.
            let selectors = selectors(rule["query"].as_str().unwrap());
            assert!(!selectors.is_empty(), "{rule}");
            for selector in selectors {
                prometheus.expect_data(&format!("the alert {name}"), &selector);
            }
        }
    }
    let rules = prometheus.get("/api/v1/rules").to_string();
    assert!(!rules.contains("\"health\":\"err\""), "{rules}");
    load.stop();
}

#[test]
fn prometheus_reads_openmetrics_and_finds_the_trace_of_a_request_as_its_exemplar() {
    // Exemplars need no receiver of traces.
    let endpoint = format!("http://127.0.0.1:{}", process::port()).leak();
    let bridge = or_skip!(
        nats()
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .run()
    );
    let prometheus = or_skip!(Prometheus::scraping(&bridge));
    bridge.publish_ping();
    let message = bridge.read().pop().unwrap();
    let trace_id = message.header("traceparent").unwrap().split('-').nth(1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let target = format!(
        "/api/v1/query_exemplars?query=hookbridge_request_duration_seconds_bucket&start={}&end={}",
        now - 60,
        now + 600
    );
    wait::until("Prometheus has the exemplar", PATIENCE, || {
        let found = prometheus.get(&target);
        let mut series = found.as_array().unwrap().iter();
        series.any(|series| {
            let mut exemplars = series["exemplars"].as_array().unwrap().iter();
            series["seriesLabels"]["source"] == "synq"
                && exemplars.any(|found| found["labels"]["trace_id"].as_str() == trace_id)
        })
    });
    // Every sample that the other format has.
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.count()
    };
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = sender::send(
        bridge.admin,
        &Request::new("GET", "/metrics").header("accept", accept),
    );
    let media_type = open.header("content-type");
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(media_type, Some(expected));
    let open = String::from_utf8(open.body).unwrap();
    let plain = bridge.metrics().0;
    assert_eq!(samples(&open), samples(&plain), "{open}\n{plain}");
    assert!(open.ends_with("# EOF\n") && !plain.contains("trace_id"));
}

/// A query with Grafana's variables filled in.
fn filled_in(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "5m");
    for variable in ["$job", "$instance", "$source"] {
        query = query.replace(variable, ".*");
    }
    assert!(
        !query.contains('$'),
        "a variable that is not known: {query}"
    );
    query
}

fn is_part_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

/// The metric of a selector.
fn name_of(selector: &str) -> &str {
    selector
        .split(|character| !is_part_of_a_name(character))
        .next()
        .unwrap_or_default()
}

/// The selectors of metrics in a query, without ranges.
fn selectors(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_part_of_a_name) {
        rest = &rest[start..];
        let name = name_of(rest);
        rest = &rest[name.len()..];
        let labels = match rest.strip_prefix('{').and_then(|_| rest.find('}')) {
            Some(end) => {
                let (labels, behind) = rest.split_at(end + 1);
                rest = behind;
                labels
            }
            None => "",
        };
        let is_metric = ["hookbridge_", "process_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_metric || name == "up" {
            found.insert(format!("{name}{labels}"));
        }
    }
    found
}

// ---- Links to the repository

/// The address of a section of docs/operations.md.
fn runbook(anchor: &str) -> String {
    let repository = env!("CARGO_PKG_REPOSITORY");
    format!("{repository}/blob/main/docs/operations.md#{anchor}")
}

/// `deploy/check --render` writes it after a change of Cargo.toml.
#[test]
fn every_link_to_the_repository_has_the_address_in_cargo_toml() {
    let repository = env!("CARGO_PKG_REPOSITORY");
    assert_eq!(env!("CARGO_PKG_HOMEPAGE"), repository);
    assert!(read("Cargo.toml").contains(&format!(
        "\ndocumentation = \"{repository}/tree/main/docs\"\n"
    )));
    assert!(read("deploy/grafana/hookbridge.json").contains(&runbook("alerts")));
    let mut count = 0;
    for path in [
        "deploy/alerts.yml",
        "deploy/grafana/hookbridge.json",
        "deploy/helm/hookbridge/files/alerts.yml",
        "deploy/helm/hookbridge/files/dashboard.json",
    ] {
        let text = read(path);
        for (at, _) in text.match_indices("/blob/main/") {
            assert!(text[..at].ends_with(&format!("\"{repository}")), "{path}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} links");
}

// ---- Runbooks

#[test]
fn every_alert_leads_to_its_runbook_and_is_tested() {
    let page = read("docs/operations.md");
    let tests = read("deploy/rules-test.yml");
    let rules = read("deploy/alerts.yml");
    let mut alerts = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap().trim();
        alerts.insert(name);
        let link = rule.split("runbook_url: ").nth(1).unwrap();
        let link = link.lines().next().unwrap().trim_matches('"');
        assert_eq!(link, runbook(&name.to_lowercase()), "{name}");
        let severity = rule.split("severity: ").nth(1).unwrap();
        let severity = severity.lines().next().unwrap();
        let section = page.split(&format!("\n### {name}\n")).nth(1);
        assert!(
            section.is_some_and(|text| text.trim_start().starts_with(&format!("**{severity}.**"))),
            "docs/operations.md has no section about {name} ({severity})"
        );
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "deploy/rules-test.yml has no test in which {name} fires"
        );
    }
    let sections = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|title| title.starts_with("Hookbridge"));
    assert_eq!(sections.collect::<BTreeSet<_>>(), alerts);
}

/// Outcomes that no alert is about.
const QUIET: [&str; 7] = [
    // Not the provider's requests, or not all of them.
    "unknown_path",
    "method_not_allowed",
    "bad_request",
    "broken_off",
    "request_timeout",
    // As the operator wants it.
    "rate_limited",
    "shutting_down",
];

#[test]
fn every_refusal_that_can_last_is_in_an_alert() {
    let bridge = or_skip!(nats().run());
    let rules = read("deploy/alerts.yml");
    let metrics = bridge.metrics().0;
    let outcomes = metrics.lines().filter_map(|line| {
        let labels = line.strip_prefix("hookbridge_requests_total{outcome=\"")?;
        labels.split('"').next()
    });
    let outcomes: BTreeSet<_> = outcomes.collect();
    assert!(outcomes.len() > 20, "{outcomes:?}");
    for outcome in outcomes {
        let is_watched = rules.lines().any(|line| {
            line.split(['"', '|'])
                .any(|word| word == outcome && line.contains("outcome="))
        });
        assert_ne!(is_watched, QUIET.contains(&outcome), "{outcome}");
    }
}

// ---- Manifests

#[test]
fn every_configuration_in_a_manifest_is_valid_with_the_variables_of_the_deployment() {
    let deployment = read("deploy/kubernetes/deployment.yaml");
    let mut environment = variables(&deployment);
    assert!(environment.len() > 3, "{environment:?}");
    environment.push(("SYNQ_SIGNING_SECRET", SECRET));
    for (path, key) in [
        ("deploy/kubernetes/configmap.yaml", "hookbridge.toml: |"),
        ("deploy/helm/ci/plain.yaml", "config: |"),
        ("deploy/helm/ci/minimal.yaml", "config: |"),
        ("deploy/helm/ci/full.yaml", "config: |"),
        ("deploy/helm/ci/bare.yaml", "config: |"),
    ] {
        let manifest = read(path);
        let folder = process::directory("manifest");
        let text = with_files(&block(&manifest, key), &folder);
        let file = folder.join("hookbridge.toml");
        std::fs::write(&file, text).unwrap();
        let done = hookbridge_reading(
            ["check", "--config", file.to_str().unwrap()],
            b"",
            &environment,
        );
        assert_eq!(done.code, Some(0), "{path}: {done:?}");
    }
}

/// The variables of a container and their values.
fn variables(deployment: &str) -> Vec<(&str, &str)> {
    let lines: Vec<_> = deployment.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let name = pair[0].strip_prefix("- name: ")?;
        let value = pair[1].strip_prefix("value: ")?;
        Some((name, value.trim_matches('"')))
    });
    pairs.collect()
}

/// The text below a key of a YAML file.
fn block(manifest: &str, key: &str) -> String {
    let lines: Vec<_> = manifest.lines().collect();
    let start = lines.iter().position(|line| line.trim() == key);
    let start = start.unwrap_or_else(|| panic!("no {key:?}:\n{manifest}"));
    let depth = |line: &str| line.len() - line.trim_start().len();
    let indent = depth(lines[start]) + 2;
    let text = lines[start + 1..]
        .iter()
        .take_while(|line| line.trim().is_empty() || depth(line) >= indent)
        .map(|line| line.get(indent..).unwrap_or_default());
    text.collect::<Vec<_>>().join("\n")
}

/// The configuration with its files in this folder.
fn with_files(text: &str, folder: &Path) -> String {
    let mut text = text.to_owned();
    for mounted in ["/run/secrets/hookbridge/", "/etc/hookbridge/"] {
        for rest in text.split(mounted).skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            let content = match name.ends_with(".pem") {
                true => include_str!("../../src/config/fixtures/certificate.pem"),
                false => SECRET,
            };
            std::fs::write(folder.join(name), content).unwrap();
        }
        text = text.replace(mounted, &format!("{}/", folder.display()));
    }
    text
}
