//! Every vector of the provider reference, posted to a listening bridge whose clock is set to the vector's time, in
//! front of an embedded Kafka cluster. The reference is not part of the repository.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept;
use crate::bridge::live::Live;
use crate::brokers::{MockCluster, StartAt, Subscription};
use crate::config::{Config, Source};
use crate::providers::SnsTester;
use crate::providers::preset::PRESETS;
use crate::providers::sign::{Unsigned, example_secret, sign};
use crate::secret::Secret;

const NOT_A_TIME: &str = "a signed time that is not a time is too far away, as for every scheme";

/// Vectors whose verdict deliberately differs from the reference, and the reason. Each provider's page names them too.
const DEVIATIONS: [(&str, &str, &str); 7] = [
    (
        "azure-event-grid",
        "handshake-event-in-notification",
        "the body says what a verified request is",
    ),
    (
        "linear",
        "upper-case-hex",
        "hexadecimal digits of either case are the same signature",
    ),
    (
        "microsoft-graph",
        "handshake-with-notification",
        "the parameter alone makes a request a handshake",
    ),
    (
        "paddle",
        "classic",
        "the media type is refused before the signature is looked for",
    ),
    ("slack", "timestamp-not-a-number", NOT_A_TIME),
    ("standard-webhooks", "timestamp-not-a-number", NOT_A_TIME),
    ("svix", "timestamp-not-a-number", NOT_A_TIME),
];

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HOOKBRIDGE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"),
        PathBuf::from,
    );
    folder.is_dir().then(|| folder.join("providers"))
}

fn text<'v>(vector: &'v Value, key: &str) -> Option<&'v str> {
    vector.get(key).and_then(Value::as_str)
}

/// A configuration with these sources, whose broker is the embedded Kafka cluster.
fn config(bootstrap_servers: &str, sources: Map<String, Value>) -> Result<Config, String> {
    let values = json!({
        "brokers": { "main": { "kind": "kafka", "bootstrap_servers": bootstrap_servers } },
        "sources": sources,
        "routes": [{ "topic": EVENTS }],
    });
    let values = values.as_object().cloned().unwrap();
    Config::from_values(values).map_err(|problems| problems.to_string())
}

fn source(provider: &str, mut keys: Map<String, Value>) -> Result<Arc<Source>, String> {
    keys.insert("provider".to_owned(), provider.into());
    let sources = Map::from_iter([("x".to_owned(), Value::Object(keys))]);
    Ok(Arc::clone(&config("localhost:9092", sources)?.sources[0]))
}

// ---- The listening bridge

const EVENTS: &str = "events";
const DEAD_LETTERS: &str = "dead";

/// The header that names the source, since a CloudEvent's own `ce_source` does not. It is forwarded.
const MARK: &str = "x-vector";

/// A bridge at a loopback address, and the Kafka cluster behind it.
struct Listening {
    live: Arc<Live>,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    _cluster: MockCluster,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A consumed message by header name; `key` is its key.
type Message = BTreeMap<String, String>;

impl Listening {
    async fn start(sources: Map<String, Value>) -> Self {
        let topics = [EVENTS.to_owned(), DEAD_LETTERS.to_owned()];
        let cluster = MockCluster::start(&topics).unwrap();
        let config = config(&cluster.bootstrap_servers(), sources).unwrap();
        let live = Live::start(config).await.unwrap();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = accept::serve(
            listener,
            Arc::clone(&live),
            stop.clone(),
            TaskTracker::new(),
        );
        tokio::spawn(serving);
        Self {
            live,
            address,
            stop,
            _cluster: cluster,
        }
    }

    /// Sets the bridge's clock.
    fn set_clock(&self, at: SystemTime) {
        self.live.process().clock().set(at);
    }

    /// Sends a request over a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        #[expect(clippy::disallowed_methods, reason = "the bridge's own answer")]
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// All messages published to a topic, by source. The expected number comes from the metrics.
    async fn messages(&self, topic: &str, count: usize) -> BTreeMap<String, Vec<Message>> {
        let bridge = self.live.current();
        let settings = &bridge.config().brokers[0].settings;
        let topics = [topic.to_owned()];
        let mut subscription = Subscription::start(settings, &topics, StartAt::Earliest)
            .await
            .unwrap();
        let mut messages = BTreeMap::<String, Vec<Message>>::new();
        for _ in 0..count {
            let next = tokio::time::timeout(Duration::from_secs(60), subscription.next());
            let delivered = next.await.expect("a message").unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let headers = delivered.headers.into_iter();
            let mut message: Message = headers.map(|(name, value)| (name, text(value))).collect();
            message.extend(delivered.key.map(|key| ("key".to_owned(), text(key))));
            let value = String::from_utf8_lossy(&delivered.value).into_owned();
            message.insert("value".to_owned(), value);
            let source = message[MARK].clone();
            messages.entry(source).or_default().push(message);
        }
        messages
    }

    /// The number of messages that the bridge has counted as published to a topic.
    fn published_to(&self, topic: &str) -> usize {
        let scrape = String::from_utf8(self.live.current().scrape().unwrap()).unwrap();
        let label = format!("topic=\"{topic}\"");
        let counted = scrape
            .lines()
            .filter(|line| line.starts_with("hookbridge_events_total{") && line.contains(&label));
        counted
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
            .sum()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

// ---- The vectors

/// Settings that a file has for all its vectors.
struct OfFile {
    /// Certificates are written to files in a folder.
    keys: Map<String, Value>,
    /// Settings for tokens and the key under which they go, with the public key in a file.
    tokens: Option<(String, Value)>,
}

impl OfFile {
    fn new(name: &str, file: &Value) -> Self {
        let path = |suffix: &str| {
            let process = std::process::id();
            std::env::temp_dir().join(format!("hookbridge-vectors-{process}-{name}{suffix}"))
        };
        let config = file.get("config").and_then(Value::as_object);
        let mut keys = Map::new();
        if let Some(certificates) = file.get("certificates").and_then(Value::as_object) {
            let folder = path("");
            std::fs::create_dir_all(&folder).unwrap();
            for (url, pem) in certificates {
                let file = folder.join(url.rsplit('/').next().unwrap());
                std::fs::write(file, pem.as_str().unwrap()).unwrap();
            }
            keys = config.cloned().unwrap();
            keys.insert("certificates".to_owned(), folder.to_str().into());
        }
        let mut settings = config.into_iter().flatten();
        let settings = settings.find(|(_, settings)| settings.is_object());
        let tokens = settings.map(|(kind, settings)| {
            let keys = path(".pem");
            std::fs::write(&keys, file["public_key"].as_str().unwrap()).unwrap();
            let mut settings = settings.clone();
            settings["keys"] = keys.to_str().into();
            (kind.clone(), settings)
        });
        Self { keys, tokens }
    }
}

/// A vector, and the name of its source.
struct Case {
    provider: &'static str,
    of_file: Arc<OfFile>,
    name: String,
    source: String,
    vector: Value,
}

impl Case {
    fn text(&self, key: &str) -> Option<&str> {
        text(&self.vector, key)
    }

    fn is_accepted(&self) -> bool {
        self.text("verdict") == Some("accept")
    }

    /// Whether only the signature matters: then any other fault makes the event a dead letter.
    fn is_about_signature(&self) -> bool {
        let says = |key| self.vector.get(key).is_some();
        self.is_accepted() && !(says("event") || says("events") || says("handshake"))
    }

    /// The source's keys as a user would write them.
    fn keys(&self) -> Map<String, Value> {
        let vector = &self.vector;
        let mut keys = self.of_file.keys.clone();
        let own = vector.get("config").and_then(Value::as_object);
        keys.extend(own.cloned().unwrap_or_default());
        if let Some(seconds) = vector.get("tolerance_s").and_then(Value::as_u64) {
            keys.insert("tolerance".into(), format!("{seconds}s").into());
        }
        keys.extend(
            vector
                .get("scheme")
                .map(|value| ("scheme".to_owned(), value.clone())),
        );
        let is_entra = self.text("auth") == Some("entra-jwt");
        if let Some(auth) = vector.get("auth") {
            let auth = if is_entra { "jwt".into() } else { auth.clone() };
            keys.insert("auth".into(), auth);
        }
        match &self.of_file.tokens {
            Some((kind, settings)) if kind == "validation_tokens" => {
                keys.insert(kind.clone(), settings.clone());
            }
            Some((_, settings)) if is_entra => {
                keys.insert("jwt".into(), settings.clone());
            }
            _ => {}
        }
        keys.retain(|_, value| !value.is_null());
        let url = self.text("url").unwrap();
        keys.entry("public_url")
            .or_insert_with(|| url.split('?').next().unwrap_or_default().into());
        let secrets = match vector.get("secrets") {
            Some(list) => list.clone(),
            None => self.text("secret").into_iter().collect(),
        };
        if !is_entra && secrets != json!([]) {
            keys.insert("secrets".into(), secrets);
        }
        keys.insert("provider".into(), self.provider.into());
        keys.insert("forward_headers".into(), json!([MARK]));
        // A proxy in front has rewritten the path.
        keys.insert("path".into(), format!("/{}", self.source).into());
        if self.is_about_signature() {
            keys.insert("media_types".into(), "*/*".into());
            let letter = json!({ "dead_letter": { "topic": DEAD_LETTERS } });
            keys.insert("on_invalid".into(), letter);
        }
        keys
    }

    fn at(&self) -> SystemTime {
        let now = self.vector.get("now").and_then(Value::as_f64).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(now)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let received = self.text("received_as").or(self.text("url")).unwrap();
        let received: Uri = received.parse().unwrap();
        let query = received.query().map(|query| format!("?{query}"));
        let target = format!("/{}{}", self.source, query.unwrap_or_default());
        let body = self.text("body_base64").unwrap_or_default();
        let body = BASE64.decode(body.as_bytes()).unwrap();
        let method: Method = self.text("method").unwrap_or("POST").parse().unwrap();
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap();
        *request.headers_mut() = self.headers();
        request
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let given = self.vector.get("headers").and_then(Value::as_object);
        for (name, value) in given.into_iter().flatten() {
            let values = match value {
                Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
                value => value.as_str().into_iter().collect::<Vec<_>>(),
            };
            for value in values {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers.insert(MARK, self.source.parse().unwrap());
        headers
            .entry(http::header::HOST)
            .or_insert(HeaderValue::from_static("hooks.example.com"));
        headers
    }

    /// The events that must be published.
    fn events(&self) -> Vec<&Value> {
        match self.vector.get("events").and_then(Value::as_array) {
            Some(events) => events.iter().collect(),
            None => self.vector.get("event").into_iter().collect(),
        }
    }

    /// The difference between the expected and the actual answer or messages.
    fn fault(&self, answer: &Answer, messages: &[Message]) -> Option<String> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        // A refusal is right as well, whatever its reason.
        let is_refused = answer.status.is_client_error() && messages.is_empty();
        if self.vector.get("either").is_some() && is_refused {
            return None;
        }
        if !self.is_accepted() {
            let also = self.vector.get("code_also").and_then(Value::as_array);
            let also = also.into_iter().flatten().map(Value::as_str);
            let codes = [self.text("code"), self.text("alt_code")];
            let mut wanted: Vec<_> = codes.into_iter().chain(also).collect();
            if self.vector.get("handshake").is_some() {
                // A request that no handshake accepts.
                wanted.push(Some("method_not_allowed"));
            }
            let code = text(&body, "code");
            return if !messages.is_empty() {
                Some(format!("refused, and published: {messages:?}"))
            } else if code.is_some() && wanted.contains(&code) {
                None
            } else {
                Some(format!("{} {body}, expected {wanted:?}", answer.status))
            };
        }
        if self.vector.get("handshake").is_some() {
            let is_published = !messages.is_empty();
            return self
                .handshake_fault(answer, &body)
                .or(is_published.then(|| format!("published: {messages:?}")));
        }
        if !answer.status.is_success() {
            return Some(format!("{} {body}", answer.status));
        }
        let wanted = self.events();
        if wanted.is_empty() {
            return None;
        }
        if wanted.len() != messages.len() {
            return Some(format!("{} events: {messages:?}", messages.len()));
        }
        // Messages with different keys come in any order, the answer's events in that of the request.
        let answered = body.get("events").and_then(Value::as_array);
        let ids = answered.map(|events| {
            let ids = events.iter().filter_map(|event| text(event, "event_id"));
            ids.collect::<Vec<_>>()
        });
        let message_of = |index: usize| match &ids {
            Some(ids) => messages
                .iter()
                .find(|message| message["event_id"] == ids[index]),
            // A fixed answer names no events.
            None => messages
                .iter()
                .find(|message| Some(message["event_id"].as_str()) == text(wanted[index], "id"))
                .or(messages.first()),
        };
        wanted.iter().enumerate().find_map(|(index, wanted)| {
            let Some(message) = message_of(index) else {
                return Some(format!("event {index} is not there: {messages:?}"));
            };
            event_fault(wanted, message)
        })
    }

    fn handshake_fault(&self, answer: &Answer, body: &Value) -> Option<String> {
        let Some(expected) = self.vector.get("expect") else {
            let is_success = answer.status.is_success();
            return (!is_success).then(|| format!("{} {body}", answer.status));
        };
        let header = |name: &str| {
            answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let status = expected.get("status").and_then(Value::as_u64);
        let headers = expected.get("headers").and_then(Value::as_object);
        let mut headers = headers.into_iter().flatten();
        let absent = expected.get("absent_headers").and_then(Value::as_array);
        let mut absent = absent.into_iter().flatten().filter_map(Value::as_str);
        let is_same = status.is_none_or(|status| status == u64::from(answer.status.as_u16()))
            && text(expected, "content_type")
                .is_none_or(|wanted| header("content-type") == Some(wanted))
            && text(expected, "body").is_none_or(|wanted| wanted.as_bytes() == answer.body)
            && expected.get("json").is_none_or(|json| json == body)
            && headers.all(|(name, wanted)| {
                // "* or a number"
                let either =
                    |value: &str| wanted.as_str().unwrap().starts_with(&format!("{value} or"));
                header(name) == wanted.as_str() || header(name).is_some_and(either)
            })
            && absent.all(|name| header(name).is_none())
            // A browser must not take what comes back for a page.
            && (!answer.body.contains(&b'<')
                || header("x-content-type-options") == Some("nosniff"));
        (!is_same).then(|| {
            format!(
                "{} {:?} {:?}, expected {expected}",
                answer.status, answer.headers, answer.body
            )
        })
    }
}

/// The keys of an event of a vector, and where a message has them.
const EVENT_KEYS: [(&str, &str); 9] = [
    ("id", "event_id"),
    ("source", "ce_source"),
    ("value", "value"),
    ("type", "ce_type"),
    ("subject", "ce_subject"),
    ("key", "key"),
    ("time", "ce_time"),
    ("time_ms", "ce_time"),
    ("eventId", "event_id"),
];

/// Keys of an event of a vector that explain the others.
const EVENT_NOTES: [&str; 4] = ["action", "github_event", "happening_id", "id_rule"];

/// The difference between an event of a vector and its message.
fn event_fault(wanted: &Value, message: &Message) -> Option<String> {
    let wanted = wanted.as_object().unwrap().iter();
    let mut wanted = wanted.filter(|(key, _)| !EVENT_NOTES.contains(&key.as_str()));
    wanted.find_map(|(key, expected)| {
        let Some((_, header)) = EVENT_KEYS.iter().find(|(known, _)| known == key) else {
            return Some(format!("{key} is compared with nothing"));
        };
        let actual = message.get(*header).map(String::as_str);
        let is_same = match (expected, actual) {
            (Value::Null, actual) => actual.is_none(),
            // Only a part of the id.
            (Value::String(part), Some(id)) if key == "eventId" => {
                id.split('-').any(|id| id == part)
            }
            (Value::String(expected), Some(actual)) => expected == actual,
            (Value::Number(time), Some(actual)) => is_time(time.as_f64().unwrap(), actual),
            _ => false,
        };
        (!is_same).then(|| format!("{key}: {actual:?}, expected {expected}"))
    })
}

/// Whether an RFC 3339 text is a provider's number, which is Unix seconds or milliseconds, to the microsecond.
fn is_time(number: f64, text: &str) -> bool {
    let is_milliseconds = number > 1e11;
    let microseconds = number * if is_milliseconds { 1e3 } else { 1e6 };
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.is_ok_and(|time| (time.unix_timestamp_nanos() / 1000) as f64 == microseconds.round())
}

fn cases(folder: &std::path::Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for preset in PRESETS {
        let file = std::fs::read_to_string(folder.join(format!("{}.json", preset.name))).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        let of_file = Arc::new(OfFile::new(preset.name, &file));
        for vector in file["vectors"].as_array().unwrap() {
            cases.push(Case {
                provider: preset.name,
                of_file: Arc::clone(&of_file),
                name: text(vector, "name").unwrap().to_owned(),
                source: format!("v{}", cases.len()),
                vector: vector.clone(),
            });
        }
    }
    cases
}

/// Requests in flight; sending them one by one would take too long.
const MAX_CONCURRENT: usize = 32;

/// The fault of each case that has one.
async fn faults(cases: &[Case]) -> BTreeMap<usize, String> {
    let mut faults = BTreeMap::new();
    let mut sources = Map::new();
    for (index, case) in cases.iter().enumerate() {
        match source(case.provider, case.keys()) {
            Ok(_) => drop(sources.insert(case.source.clone(), case.keys().into())),
            Err(problems) => drop(faults.insert(index, problems)),
        }
    }
    let bridge = Listening::start(sources).await;
    let mut answers = BTreeMap::new();
    let mut by_time = BTreeMap::<SystemTime, Vec<usize>>::new();
    for (index, case) in cases.iter().enumerate() {
        if !faults.contains_key(&index) {
            by_time.entry(case.at()).or_default().push(index);
        }
    }
    for (at, indices) in by_time {
        bridge.set_clock(at);
        for some in indices.chunks(MAX_CONCURRENT) {
            let sent = some
                .iter()
                .map(|index| bridge.send(cases[*index].request()));
            let received = futures_util::future::join_all(sent).await;
            answers.extend(some.iter().copied().zip(received));
        }
    }
    let published = bridge.published_to(EVENTS);
    let messages = bridge.messages(EVENTS, published).await;
    for (index, answer) in &answers {
        let case = &cases[*index];
        let messages = messages.get(&case.source).map_or(&[][..], Vec::as_slice);
        faults.extend(case.fault(answer, messages).map(|fault| (*index, fault)));
    }
    faults
}

#[test]
fn every_vector_of_every_preset_gets_the_verdict_of_the_reference() {
    let Some(folder) = folder() else {
        // Printed past the test harness's capture, so that nobody mistakes a skipped test for one that ran.
        let skipped = "skipped: the provider reference is not beside the repository";
        drop(writeln!(std::io::stderr(), "{skipped}"));
        return;
    };
    let cases = cases(&folder);
    let faults = run(faults(&cases));
    let is_deviation = |case: &Case| {
        let mut deviations = DEVIATIONS.iter();
        deviations.any(|(provider, vector, _)| (*provider, *vector) == (case.provider, &case.name))
    };
    let wrong = cases.iter().enumerate().filter_map(|(index, case)| {
        let Case { provider, name, .. } = case;
        match (faults.get(&index), is_deviation(case)) {
            (Some(fault), false) => Some(format!("{provider}: {name}: {fault}")),
            (None, true) => Some(format!("{provider}: {name} no longer deviates")),
            _ => None,
        }
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Each preset's page lists the vectors whose verdict differs, and the reason.
#[test]
fn every_deviation_is_on_its_providers_page() {
    for (provider, vector, reason) in DEVIATIONS {
        let page =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("docs/providers/{provider}.md"));
        let page = std::fs::read_to_string(page).unwrap_or_default();
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            page.contains(&format!("`{vector}`")),
            "{provider}: {vector}"
        );
        assert!(page.contains(reason), "{provider}: {reason}");
    }
}

#[test]
fn every_preset_can_be_read_and_names_its_scheme_its_media_types_and_its_types() {
    for preset in PRESETS {
        let file = preset.read();
        assert!(
            !file.about.title.is_empty() && file.about.page.starts_with("https://"),
            "{}",
            preset.name
        );
        let schemes = file
            .schemes
            .keys()
            .map(|name| Some(name.as_str()))
            .chain([None]);
        for scheme in schemes {
            let mut keys = Map::new();
            keys.insert(
                "public_url".to_owned(),
                "https://hooks.example.com/x".into(),
            );
            // Only for schemes without a public key.
            let authentication = preset.authentication(scheme).unwrap();
            if authentication.is_asymmetric() {
                continue;
            }
            keys.insert("secrets".to_owned(), "c2VjcmV0LW9mLTE2LWJ5dGVz".into());
            keys.extend(scheme.map(|scheme| ("scheme".to_owned(), scheme.into())));
            let source = source(preset.name, keys);
            let source = source.unwrap_or_else(|problems| panic!("{}: {problems}", preset.name));
            assert!(!source.media_types.is_empty() && !source.mapping.types.is_empty());
        }
    }
}

#[test]
fn a_signed_sample_is_verified_and_its_changed_body_is_not() {
    run(async {
        let sns = SnsTester::new("samples");
        // The certificate is not valid before it was made.
        let at = SystemTime::now();
        let mut secrets = BTreeMap::new();
        let mut sources = Map::new();
        for preset in PRESETS {
            let name = preset.name;
            let authentication = preset.authentication(None).unwrap();
            let (signing, mut keys) = match name {
                "aws-sns" => (sns.key(), sns.keys()),
                _ => {
                    let secret = example_secret(&authentication).unwrap();
                    (secret.signing, json!({ "secrets": [secret.configured] }))
                }
            };
            keys["public_url"] = format!("https://hooks.example.com/hooks/{name}").into();
            keys["forward_headers"] = json!([MARK]);
            sources.insert(name.to_owned(), keys);
            secrets.insert(name, (authentication, Secret::new(signing).unwrap()));
        }
        let bridge = Listening::start(sources).await;
        bridge.set_clock(at);
        let (mut sent, mut stored) = (Vec::new(), 0);
        for preset in PRESETS {
            let (authentication, secret) = &secrets[preset.name];
            assert!(!preset.samples().is_empty(), "{}", preset.name);
            for sample in preset.samples() {
                let sample = sample.fresh(at);
                let mut headers = HeaderMap::new();
                for (name, value) in &sample.headers {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    headers.insert(name, value.parse().unwrap());
                }
                let url = format!("https://hooks.example.com/hooks/{}?y=z", preset.name);
                let unsigned = Unsigned {
                    method: &Method::POST,
                    url: &url.parse().unwrap(),
                    headers: &headers,
                    body: sample.body.as_bytes(),
                    at,
                };
                let signed = sign(authentication, secret, unsigned).unwrap();
                headers.extend(signed.headers);
                headers.insert("host", "hooks.example.com".parse().unwrap());
                headers.insert(MARK, preset.name.parse().unwrap());
                let genuine = String::from_utf8(signed.body).unwrap();
                let target = signed.url.path_and_query().unwrap().as_str().to_owned();
                let request = |body: String| {
                    let mut request = Request::post(&target);
                    *request.headers_mut().unwrap() = headers.clone();
                    request.body(Full::new(Bytes::from(body))).unwrap()
                };
                if authentication.covers_body() {
                    // SNS signs values instead of bytes.
                    let tampered = match preset.name {
                        "aws-sns" => genuine.replace("paid", "open"),
                        _ => format!("{genuine} "),
                    };
                    let tampered = bridge.send(request(tampered)).await;
                    let body: Value = serde_json::from_slice(&tampered.body).unwrap();
                    assert_eq!(body["code"], "invalid_signature", "{}: {body}", preset.name);
                }
                let answer = bridge.send(request(genuine)).await;
                assert!(
                    answer.status.is_success(),
                    "{}: {:?}",
                    preset.name,
                    answer.body
                );
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let events = body.get("events").and_then(Value::as_array);
                stored += events.map_or(1, Vec::len);
                sent.push((preset.name, sample.event_type));
            }
        }
        let messages = bridge.messages(EVENTS, stored).await;
        assert_eq!(bridge.published_to(EVENTS), stored);
        for (name, event_type) in sent {
            let is_there = messages[name]
                .iter()
                .any(|message| message["ce_type"] == event_type);
            assert!(is_there, "{name}: {event_type}");
        }
    });
}
