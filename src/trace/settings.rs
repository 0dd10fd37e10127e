//! The `OTEL_*` variables (OpenTelemetry specification, "Environment Variable Specification" and "OTLP Exporter
//! Configuration"). Anything that the bridge would not do as they say is an error when it starts.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::rustls::RootCertStore;

use super::context::{Parent, TraceId};
use super::otlp::KeyValue;
use crate::http_post;

const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
const PATH: &str = "/v1/traces";
/// The usual port of OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

/// The sampling of traces, and the export of their spans.
#[derive(Debug)]
pub struct Settings {
    pub(super) sampler: Sampler,
    pub(super) endpoint: Uri,
    /// Secret.
    pub(super) headers: HeaderMap,
    pub(super) is_compressed: bool,
    pub(super) authorities: Option<RootCertStore>,
    pub(super) resource: Vec<KeyValue>,
    /// Of one attempt.
    pub(super) timeout: Duration,
    /// Of a batch, with all attempts.
    pub(super) batch_timeout: Duration,
    /// The longest time that a span waits for others.
    pub(super) delay: Duration,
    pub(super) max_queued: usize,
    pub(super) max_batch: usize,
}

/// The variables that cannot be followed, and why.
#[derive(Debug)]
pub struct SettingsError(Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

impl SettingsError {
    /// One sentence for each variable.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Decides which traces are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// Whether the sender's decision counts.
    follows_parent: bool,
    /// A trace is sampled when the low bits of its id are below this; `None` for all of them.
    bound: Option<u64>,
}

impl Sampler {
    pub(super) fn samples(self, trace_id: TraceId, parent: Option<Parent>) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.is_sampled,
            _ => self
                .bound
                // As OpenTelemetry's own libraries decide, so that all of a trace is sampled by all of them, or by none.
                .is_none_or(|bound| trace_id.low() >> 1 < bound),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the ratio is between 0 and 1"
    )]
    fn bound_of(ratio: f64) -> Option<u64> {
        const ALL: f64 = (1_u64 << 63) as f64;
        (ratio < 1.0).then_some((ratio * ALL) as u64)
    }
}

impl Settings {
    /// Reads the process's environment. None if tracing is off.
    ///
    /// # Errors
    /// Variables that cannot be followed.
    pub fn from_environment() -> Result<Option<Self>, SettingsError> {
        let mut problems = Vec::new();
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("OTEL_")) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => variables.push((name.to_owned(), value)),
                Err(_) => problems.push(format!("{name} is not UTF-8")),
            }
        }
        let settings = Reader {
            variables,
            problems,
        };
        settings.read()
    }
}

struct Reader {
    variables: Vec<(String, String)>,
    problems: Vec<String>,
}

impl Reader {
    fn read(mut self) -> Result<Option<Settings>, SettingsError> {
        if !self.is_on() {
            return match self.problems.is_empty() {
                true => Ok(None),
                false => Err(SettingsError(self.problems)),
            };
        }
        self.check_unsupported();
        let endpoint = self.endpoint();
        let max_queued = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=1_000_000);
        let settings = Settings {
            sampler: self.sampler(),
            headers: self.headers(),
            is_compressed: self.is_compressed(),
            authorities: self.authorities(endpoint.scheme_str() == Some("https")),
            resource: self.resource(),
            timeout: self.timeout(),
            batch_timeout: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            max_batch: self.number(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                max_queued.min(512),
                1..=max_queued,
            ),
            max_queued,
            endpoint,
        };
        match self.problems.is_empty() {
            true => Ok(Some(settings)),
            false => Err(SettingsError(self.problems)),
        }
    }

    /// An empty variable is as good as none, says the specification.
    fn get(&self, name: &str) -> Option<String> {
        let mut variables = self.variables.iter();
        let (_, value) = variables.find(|(known, _)| known == name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The variable for traces, or else the one for all signals: `OTEL_EXPORTER_OTLP_` before its name.
    fn exporter(&self, name: &str) -> Option<(String, String)> {
        ["TRACES_", ""].into_iter().find_map(|signal| {
            let name = format!("OTEL_EXPORTER_OTLP_{signal}{name}");
            self.get(&name).map(|value| (name, value))
        })
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn is_on(&mut self) -> bool {
        if self
            .get("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return false;
        }
        match self.get("OTEL_TRACES_EXPORTER").as_deref() {
            None => self.exporter("ENDPOINT").is_some(),
            Some("otlp") => true,
            Some("none") => false,
            Some(other) => {
                let problem = format!(
                    "OTEL_TRACES_EXPORTER is {other:?}, but the bridge exports by OTLP only: write \"otlp\" or \"none\""
                );
                self.problem(problem);
                false
            }
        }
    }

    fn check_unsupported(&mut self) {
        if let Some((name, protocol)) = self.exporter("PROTOCOL")
            && protocol != "http/protobuf"
        {
            self.problem(format!(
                "{name} is {protocol:?}, but the bridge speaks \"http/protobuf\" only: write that, with the receiver's port for \
HTTP (4318 by default)"
            ));
        }
        for name in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
            if let Some((name, _)) = self.exporter(name) {
                self.problem(format!("{name}: the bridge has no client certificate for the export of traces: remove it, and let \
the receiver check a header ({})", "OTEL_EXPORTER_OTLP_HEADERS"));
            }
        }
        if let Some(propagators) = self.get("OTEL_PROPAGATORS") {
            let mut names = propagators.split(',').map(str::trim);
            if !names.any(|name| name == "tracecontext") {
                self.problem(format!(
                    "OTEL_PROPAGATORS is {propagators:?}, but the bridge knows W3C Trace Context only: add \"tracecontext\""
                ));
            }
        }
    }

    fn endpoint(&mut self) -> Uri {
        let of_traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let (name, url) = match (self.get(of_traces), self.get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => (of_traces, url),
            (None, base) => {
                let base = base.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
                (
                    "OTEL_EXPORTER_OTLP_ENDPOINT",
                    base.trim_end_matches('/').to_owned() + PATH,
                )
            }
        };
        // It may hold credentials: no problem repeats it.
        let wrong = match url.parse::<Uri>() {
            Ok(uri)
                if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() =>
            {
                "must be a URL that begins with http:// or https://, such as http://HOST:4318"
            }
            Ok(uri)
                if uri
                    .authority()
                    .is_some_and(|authority| authority.as_str().contains('@')) =>
            {
                "must not hold a user name or password: write them into OTEL_EXPORTER_OTLP_HEADERS"
            }
            Ok(uri) if uri.port_u16() == Some(GRPC_PORT) => {
                "has the port 4317, which is for gRPC: write the receiver's port for HTTP, by default 4318"
            }
            Ok(uri) => return uri,
            Err(_) => "is not a valid URL: write http://HOST:4318",
        };
        self.problem(format!("{name} {wrong}"));
        Uri::from_static(DEFAULT_ENDPOINT)
    }

    /// `key=value,key=value`, with percent-encoded values.
    fn pairs(&mut self, name: &str, text: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (index, pair) in text.split(',').map(str::trim).enumerate() {
            if pair.is_empty() {
                continue;
            }
            let decoded = pair.split_once('=').and_then(|(key, value)| {
                let decode = |text: &str| {
                    let decoded = percent_decode_str(text.trim()).decode_utf8();
                    decoded.ok().map(|text| text.into_owned())
                };
                Some((decode(key)?, decode(value)?))
            });
            match decoded.filter(|(key, _)| !key.is_empty()) {
                Some(pair) => pairs.push(pair),
                // The entry may be a secret, so it is not shown.
                None => self.problem(format!(
                    "{name}: entry {} is not a key and a value: write key=value,key=value, with commas in values as %2C",
                    index + 1
                )),
            }
        }
        pairs
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some((name, text)) = self.exporter("HEADERS") else {
            return headers;
        };
        for (index, (key, value)) in self.pairs(&name, &text).into_iter().enumerate() {
            match (key.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                (Ok(key), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.append(key, value);
                }
                _ => self.problem(format!(
                    "{name}: entry {} is not a valid HTTP header",
                    index + 1
                )),
            }
        }
        headers
    }

    fn is_compressed(&mut self) -> bool {
        let Some((name, value)) = self.exporter("COMPRESSION") else {
            return false;
        };
        if !matches!(value.as_str(), "gzip" | "none") {
            self.problem(format!("{name} is {value:?}: write \"gzip\" or \"none\""));
        }
        value == "gzip"
    }

    fn authorities(&mut self, is_tls: bool) -> Option<RootCertStore> {
        if !is_tls {
            return None;
        }
        let Some((name, path)) = self.exporter("CERTIFICATE") else {
            return Some(http_post::system_authorities());
        };
        let mut authorities = RootCertStore::empty();
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => {
                authorities.add_parsable_certificates(certificates.filter_map(Result::ok));
                if authorities.is_empty() {
                    self.problem(format!("{name}: {path} holds no certificate in PEM"));
                }
            }
            Err(error) => self.problem(format!("{name}: {path} cannot be read: {error}")),
        }
        Some(authorities)
    }

    fn resource(&mut self) -> Vec<KeyValue> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = match self.get(name) {
            Some(text) => self.pairs(name, &text),
            None => Vec::new(),
        };
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), service));
        }
        let instance = uuid::Uuid::new_v4().to_string();
        for (key, value) in [
            ("service.name", "hookbridge"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", &instance),
            ("telemetry.sdk.name", "hookbridge"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ] {
            if !attributes.iter().any(|(known, _)| known == key) {
                attributes.push((key.to_owned(), value.to_owned()));
            }
        }
        let attributes = attributes.into_iter();
        attributes
            .map(|(key, value)| KeyValue::text(key, value))
            .collect()
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.get("OTEL_TRACES_SAMPLER");
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let (follows_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let bound = match root {
            "always_on" => None,
            "always_off" => Some(0),
            "traceidratio" => Sampler::bound_of(self.ratio()),
            _ => {
                let problem = format!(
                    "OTEL_TRACES_SAMPLER is {name:?}: write \"always_on\", \"always_off\" or \"traceidratio\", or one of them \
behind \"parentbased_\""
                );
                self.problem(problem);
                None
            }
        };
        Sampler {
            follows_parent,
            bound,
        }
    }

    fn ratio(&mut self) -> f64 {
        let Some(text) = self.get("OTEL_TRACES_SAMPLER_ARG") else {
            return 1.0;
        };
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.problem(format!("OTEL_TRACES_SAMPLER_ARG is {text:?}: write a number between 0 and 1, such as 0.01"));
                1.0
            }
        }
    }

    fn timeout(&mut self) -> Duration {
        let found = self.exporter("TIMEOUT");
        let name = found.map_or_else(|| "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), |(name, _)| name);
        self.milliseconds(&name, 10_000)
    }

    fn milliseconds(&mut self, name: &str, default: u32) -> Duration {
        const DAY: usize = 24 * 60 * 60 * 1000;
        let default = usize::try_from(default).unwrap_or(DAY);
        let milliseconds = self.number(name, default, 1..=DAY);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }

    fn number(
        &mut self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> usize {
        let Some(text) = self.get(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.problem(format!(
                    "{name} is {text:?}: write a whole number from {least} to {most}"
                ));
                default
            }
        }
    }
}

#[cfg(test)]
impl Settings {
    pub(super) fn to(endpoint: &str) -> Self {
        let variable = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint);
        let variables = vec![(variable.0.to_owned(), variable.1.to_owned())];
        let problems = Vec::new();
        Reader {
            variables,
            problems,
        }
        .read()
        .unwrap()
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::context::{Context, SpanId};

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let reader = Reader {
            variables: variables.collect(),
            problems: Vec::new(),
        };
        reader.read()
    }

    fn on(variables: &[(&str, &str)]) -> Settings {
        let variables = [&[("OTEL_TRACES_EXPORTER", "otlp")], variables].concat();
        read(&variables).unwrap().unwrap()
    }

    #[test]
    fn tracing_is_on_where_an_endpoint_or_the_exporter_is_named_and_off_otherwise() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        for (variables, url) in [
            (&[][..], None),
            (
                &[
                    ("OTEL_SERVICE_NAME", "x"),
                    ("OTEL_TRACES_SAMPLER", "always_on"),
                ],
                None,
            ),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
            (&[endpoint], Some("http://collector:4318/v1/traces")),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a/base")],
                Some("https://a/base/v1/traces"),
            ),
            (
                &[
                    endpoint,
                    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://a/otlp?x=1"),
                ],
                Some("https://a/otlp?x=1"),
            ),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:4318")],
                Some("http://[::1]:4318/"),
            ),
            (
                &[("OTEL_TRACES_EXPORTER", "otlp")],
                Some("http://localhost:4318/v1/traces"),
            ),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None),
            (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], None),
        ] {
            let settings = read(variables).unwrap();
            let found = settings.map(|settings| settings.endpoint.to_string());
            assert_eq!(found.as_deref(), url, "{variables:?}");
        }
    }

    #[test]
    fn what_the_bridge_would_not_do_is_an_error_without_secrets() {
        const SECRET: &str = "s3cr3t";
        for (name, value, says) in [
            ("OTEL_TRACES_EXPORTER", "zipkin", "write \"otlp\""),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "http/json",
                "http/protobuf",
            ),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://"),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "https://me:s3cr3t@a",
                "OTEL_EXPORTER_OTLP_HEADERS",
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://collector:4317",
                "4318",
            ),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,s3cr3t", "entry 2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=s3cr3t", "entry 1"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "a=s3cr3t%0D%0Ab: c",
                "entry 1",
            ),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "remove"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "whole number"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "to 2048"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "traceidratio"),
            ("OTEL_PROPAGATORS", "b3", "tracecontext"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "entry 1"),
        ] {
            let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")];
            let on = ("OTEL_TRACES_EXPORTER", "otlp");
            let error = read(&[&[(name, value)], &variables[..], &[on]].concat()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(name) && text.contains(says),
                "{name}={value}: {text}"
            );
            assert!(!text.contains(SECRET), "{text}");
        }
        let ratio = [
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        assert!(
            read(&ratio)
                .unwrap_err()
                .to_string()
                .contains("between 0 and 1")
        );
        let settings = on(&[(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20s3cr3t, x=1%2C2",
        )]);
        assert_eq!(settings.headers["authorization"], "Bearer s3cr3t");
        assert_eq!(settings.headers["x"], "1,2");
        assert!(!format!("{settings:?}").contains(SECRET));
    }

    #[test]
    fn a_resource_is_the_service_unless_the_operator_names_another_one() {
        for (variables, name) in [
            (&[][..], "hookbridge"),
            (
                &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a%20b,x=y")],
                "a b",
            ),
            (
                &[
                    ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"),
                    ("OTEL_SERVICE_NAME", "b"),
                ],
                "b",
            ),
        ] {
            let resource = format!("{:?}", on(variables).resource);
            assert_eq!(resource.matches("\"service.name\"").count(), 1);
            assert!(resource.contains(&format!("\"{name}\"")), "{resource}");
            assert_eq!(resource.contains("\"y\""), name == "a b");
        }
    }

    #[test]
    fn a_sampler_decides_as_its_name_says() {
        let parent = |is_sampled| {
            Some(Context {
                trace_id: TraceId::random(),
                span_id: SpanId::random(),
                is_sampled,
            })
        };
        for (name, root, sampled, unsampled) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
            ("parentbased_traceidratio", true, true, false),
        ] {
            let sampler = on(&[("OTEL_TRACES_SAMPLER", name)]).sampler;
            let samples = [None, parent(true), parent(false)]
                .map(|parent| sampler.samples(TraceId::random(), parent));
            assert_eq!(samples, [root, sampled, unsampled], "{name}");
        }
        let ratio = |ratio| {
            on(&[
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", ratio),
            ])
            .sampler
        };
        let sampled = |ratio_text| {
            let sampler = ratio(ratio_text);
            (0..10_000)
                .filter(|_| sampler.samples(TraceId::random(), None))
                .count()
        };
        assert_eq!((sampled("0"), sampled("1")), (0, 10_000));
        assert!((2_200..2_800).contains(&sampled("0.25")));
    }
}
