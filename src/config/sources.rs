//! `[sources.NAME]`

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, Uri};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::brokers::{Brokers, check_name};
use super::model::{FailurePolicy, Routes, Source, TypeGlob, TypedSchema};
use super::origin::read_file;
use super::reach::nearest;
use super::tables::{self, DEDUP_BY};
use super::transport::{read_allow_from, read_client_names, read_rate_limit, read_success_body};
use crate::brokers::MAX_CE_SOURCE_BYTES;
use crate::event::DedupBy;
use crate::json::Schema;
use crate::providers::authentication::read_authentication;
use crate::providers::cloudevents::Mode;
use crate::providers::handshake::Handshake;
use crate::providers::mapping::{BodyKind, Mapping};
use crate::providers::preset::{About, PRESETS, Preset, PresetFile, UnknownWord};
use crate::providers::reading::{read_handshakes, read_mapping};
use crate::providers::text::{Parsing, Text};
use crate::providers::{self, Authentication};
use crate::secret::Secret;
use crate::table::{Section, WordOrSection, nearest_word};

/// Headers that are never forwarded: they could be mistaken for the bridge's own, have a meaning for the broker, or are
/// secrets. The headers of the provider's signature are not forwarded either, since readers of the topic could replay
/// the request.
const NEVER_FORWARDED: [&str; 11] = [
    "event_id",
    "event_id_origin",
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "cookie",
    "set-cookie",
    "traceparent",
    "tracestate",
    "content-encoding",
    "content-type",
];
const NEVER_FORWARDED_PREFIXES: [&str; 4] = ["nats-", "ce-", "ce_", "hookbridge_"];

const HOUR: Duration = Duration::from_secs(3600);

/// Facts about `[http]` that sources need: defaults, and settings that their own keys depend on.
pub(super) struct Defaults {
    pub(super) max_body: usize,
    pub(super) publish_timeout: Duration,
    pub(super) max_in_flight: usize,
    pub(super) trusted_proxies: Vec<IpNet>,
    /// Whether senders must show a certificate.
    pub(super) has_client_ca: bool,
}

/// The presets' schemas, shared by their sources.
type Presets = HashMap<&'static str, Arc<Schema>>;

/// Digests of all secrets, each with the source that has it.
type SeenSecrets = HashMap<[u8; 32], String>;

/// The sources, and the names of all that are declared, with mistakes or without.
pub(super) fn read_sources(
    root: &mut Section<'_>,
    brokers: &Brokers,
    defaults: &Defaults,
) -> (Vec<Source>, Vec<String>) {
    let is_there = root.has("sources");
    let Some(mut table) = root.section("sources") else {
        let bare = root.unknown_keys();
        let is_bare = bare.iter().any(|(name, _)| providers::find(name).is_some());
        if !is_there && !is_bare && !root.is_misspelt("sources") {
            root.problem("no source is configured; write `[sources.synq]` with `secrets = [{ env = \"SYNQ_SIGNING_SECRET\" }]`");
        }
        return (Vec::new(), Vec::new());
    };
    if table.refuse_nameless(&tables::SOURCE, "synq") {
        return (Vec::new(), Vec::new());
    }
    let names = table.names();
    let declared = names.clone();
    if names.is_empty() {
        table.problem("no source is configured; write `[sources.synq]` with `secrets = [{ env = \"SYNQ_SIGNING_SECRET\" }]`");
    }
    let sections = names
        .into_iter()
        .filter_map(|name| table.named_section(&name).map(|section| (name, section)));
    let mut presets = Presets::new();
    let mut secrets = SeenSecrets::new();
    let sources: Vec<_> = sections
        .filter_map(|(name, section)| {
            read_source(name, section, brokers, defaults, &mut presets, &mut secrets)
        })
        .collect();
    let sources = (0..)
        .zip(sources)
        .map(|(index, source)| Source { index, ..source })
        .collect();
    (sources, declared)
}

fn read_source(
    name: String,
    mut section: Section<'_>,
    brokers: &Brokers,
    defaults: &Defaults,
    presets: &mut Presets,
    seen: &mut SeenSecrets,
) -> Option<Source> {
    check_name(&section, &name);
    let Some(provider) = read_provider(&mut section, &name) else {
        section.finish_quietly();
        return None;
    };
    let given: HashSet<String> = section.names().into_iter().collect();
    let mut file = provider.preset().map(Preset::read).unwrap_or_default();
    let about = std::mem::take(&mut file.about);
    let keeps_timestamp = about.keeps_timestamp;
    let usual_dedup_by = file.key("dedup_by").cloned();
    if provider.preset().is_some() {
        apply_preset(&mut section, file);
    }
    let usual_tolerance = match given.contains("tolerance") {
        true if keeps_timestamp => provider.preset().and_then(tolerance_of),
        _ => None,
    };
    let has_secrets = section.has("secrets");
    let secrets = section.secrets("secrets");
    warn_of_shared(&section, &name, &secrets, seen);
    let secret_count = secrets.len();
    let digests = secrets.iter().map(digest);
    let secret_digests: Vec<_> = digests.collect();
    let masked = secrets.clone();
    let authentication = read_authentication(&mut section, secrets);
    let needs_secret = authentication
        .as_ref()
        .is_none_or(Authentication::needs_secret);
    if !has_secrets && needs_secret && !section.is_misspelt("secrets") {
        section.problem(format!(
            "lacks `secrets`; write for example `secrets = [{{ env = \"{}_SIGNING_SECRET\" }}]`",
            name.to_uppercase()
        ));
    }
    if let Some(authentication) = &authentication {
        warn_of_weakness(&section, authentication, &given, provider);
    }
    let mapping = read_mapping(&mut section);
    let mut handshakes = read_handshakes(&mut section);
    let media_types = read_media_types(&mut section);
    let public_url = read_public_url(&mut section, &name);
    if public_url.is_none()
        && authentication
            .as_ref()
            .is_some_and(Authentication::signs_url)
    {
        section.problem(format!(
            "lacks `public_url`, which its requests are signed with; write for example `public_url = \"https://hooks.example.com/hooks/{name}\"`"
        ));
    }
    let path = read_path(&mut section, &name);
    let max_body = section
        .optional_size("max_body")
        .unwrap_or(defaults.max_body);
    let publish_timeout = section
        .optional_duration("publish_timeout")
        .unwrap_or(defaults.publish_timeout);
    let max_in_flight = section
        .optional_count("max_in_flight")
        .unwrap_or(defaults.max_in_flight)
        .min(defaults.max_in_flight);
    let accept_gzip = section.flag("accept_gzip");
    let allow_from = read_allow_from(&mut section, &defaults.trusted_proxies);
    let client_names = read_client_names(&mut section, defaults.has_client_ca);
    let rate_limit = read_rate_limit(&mut section);
    if let Some(limit) = rate_limit {
        let per_minute = u64::from(limit.per_second.get()) * 60;
        for handshake in &mut handshakes {
            handshake.allow_rate(per_minute);
        }
    }
    let success_status = read_success_status(&mut section);
    let success_body = read_success_body(&mut section, success_status);
    let ce_source = section
        .text("ce_source")
        .unwrap_or_else(|| format!("/hookbridge/{name}"));
    if ce_source.is_empty()
        || ce_source.len() > MAX_CE_SOURCE_BYTES
        || !ce_source.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
    {
        section.problem_at(
            "ce_source",
            "it is a URI reference: up to 1024 bytes of printable ASCII without spaces",
        );
    }
    let forward_headers = read_forward_headers(&mut section, authentication.as_ref());
    warn_of_limits(&section, &about, publish_timeout, max_body, success_status);
    if about.needs_fallback && rate_limit.is_some() {
        section.warn_at(
            "rate_limit",
            format!("{} does not resend what is refused beyond the limit, so events are lost; leave `rate_limit` out", about.title),
        );
    }
    let on_invalid = read_failure_policy(&mut section, "on_invalid", brokers);
    let on_unrouted = read_failure_policy(&mut section, "on_unrouted", brokers);
    let schema_file = section.path("schema");
    let mut dedup_window = section.optional_duration("dedup_window").unwrap_or(HOUR);
    if !given.contains("dedup_window") {
        // A request repeated while its signature is valid must not be published again.
        let valid = authentication
            .as_ref()
            .and_then(Authentication::longest_tolerance);
        dedup_window = dedup_window.max(valid.unwrap_or_default());
    }
    let dedup_by = section
        .word("dedup_by", &DEDUP_BY)
        .unwrap_or(DedupBy::IdAndBody);
    if dedup_by == DedupBy::Never && given.contains("dedup_by") && given.contains("dedup_window") {
        section.warn_at(
            "dedup_window",
            "it has no effect with dedup_by = \"never\"; drop one of the two",
        );
    }
    let expect_every = section.optional_duration("expect_every");
    let schema = read_schema(&section, provider, schema_file.as_deref(), presets);
    let schemas = read_schemas(&mut section, mapping.as_ref());
    let is_raw = |mapping: &Mapping| mapping.body == BodyKind::Raw;
    if mapping.as_ref().is_some_and(is_raw) {
        for key in ["schema", "schemas"] {
            if given.contains(key) {
                section.problem_at(key, "this source's bodies are arbitrary bytes (`body = \"raw\"`), to which no schema applies; remove it");
            }
        }
    }
    let (Some(authentication), Some(mapping)) = (authentication, mapping) else {
        section.finish();
        return None;
    };
    refuse_unread(&section, &authentication, &mapping, &handshakes);
    if let (Some(tolerance), Some(usual)) = (authentication.tolerance(), usual_tolerance)
        && tolerance < usual
    {
        let usual = humantime::format_duration(usual);
        section.warn_at(
            "tolerance",
            format!(
                "{} signs its retries with the original time: less than {usual} refuses late ones",
                provider.name()
            ),
        );
    }
    let is_usual = usual_dedup_by.is_some_and(|usual| usual == "id");
    if dedup_by == DedupBy::Id && !is_usual && !authentication.signs_headers_of(&mapping.id) {
        section.warn_at(
            "dedup_by",
            "the event's id is in a header that is not signed: anyone who replays an id with another signed body keeps a genuine event from being stored; use \"id+body\"",
        );
    }
    let is_binary = |media_type: &String| Mode::of(media_type) == Some(Mode::Binary);
    if mapping.body == BodyKind::CloudEvent
        && media_types.iter().any(is_binary)
        && !authentication.signs_attributes()
    {
        section.warn_at(
            "verify",
            "in binary mode the attributes are headers that it does not sign: anyone who replays a request can change them; sign ce-id, ce-source and ce-type, or write `media_types = [\"application/cloudevents+json\"]`",
        );
    }
    if authentication.is_in_events() && mapping.body != BodyKind::Json {
        section.problem_at(
            "auth",
            "\"event:…\" looks for the secret in JSON, and the events of this source are not read as JSON; remove it, or `event.body`",
        );
    }
    section.finish();
    Some(Source {
        name,
        index: 0,
        path,
        provider: provider.name(),
        body_needs: authentication.needs(),
        nonce_lifetime: authentication.nonce_lifetime(),
        authentication,
        mapping,
        methods: methods(&handshakes),
        has_open_handshake: handshakes.iter().any(Handshake::is_open),
        handshakes,
        media_types,
        public_url,
        secret_count,
        secret_digests,
        masked,
        schema,
        schemas,
        on_invalid,
        on_unrouted,
        routes: Routes::default(),
        max_body,
        publish_timeout,
        max_in_flight,
        accept_gzip,
        allow_from,
        client_names,
        rate_limit,
        success_status,
        success_body,
        ce_source,
        forward_headers,
        dedup_window: Some(dedup_window).filter(|window| !window.is_zero()),
        dedup_by,
        expect_every,
    })
}

/// Refuses a signature, a signed time or a handshake in a part of the body that this source's requests do not have.
fn refuse_unread(
    section: &Section<'_>,
    authentication: &Authentication,
    mapping: &Mapping,
    handshakes: &[Handshake],
) {
    let of_handshakes = handshakes.iter().map(Handshake::needs);
    let of_handshakes = of_handshakes.fold(Parsing::default(), Parsing::or);
    for (what, needs) in [
        ("has a signature or a signed time", authentication.reads()),
        ("has a handshake that is known by a value", of_handshakes),
    ] {
        if needs.form && !mapping.takes_forms() {
            section.problem(format!(
                "{what} in a form, and its events are not read as forms; write `event.body = \"form\"`"
            ));
        }
        if needs.json && !mapping.takes_json() {
            section.problem(format!(
                "{what} in JSON, and its events are not read as JSON; remove `event.body`"
            ));
        }
    }
    let needs_head = |handshake: &Handshake| handshake.verified && handshake.method != Method::POST;
    if handshakes.iter().any(needs_head) && !authentication.verifies_heads() {
        section.problem(
            "has a verified handshake whose method has no body, and the signature or its time is in the body; write `method = \"POST\"` or `verified = false`",
        );
    }
}

/// Warns of weak authentication that a user has declared. A preset's own is as strong as its provider allows, except for a
/// scheme that is weaker than the default.
fn warn_of_weakness(
    section: &Section<'_>,
    authentication: &Authentication,
    given: &HashSet<String>,
    provider: Provider,
) {
    let preset = provider.preset();
    let signs_nothing = preset.is_some_and(|preset| preset.read().key("auth").is_some());
    let key = match (given.contains("verify"), given.contains("auth")) {
        (true, _) => "verify",
        (false, true) if !signs_nothing => "auth",
        (false, false) if given.contains("scheme") => "scheme",
        _ => return,
    };
    let mut weaknesses = authentication.weaknesses();
    if key == "scheme"
        && let Some(usual) = preset.and_then(|preset| preset.authentication(None).ok())
    {
        let usual = usual.weaknesses();
        weaknesses.retain(|weakness| !usual.contains(weakness));
    }
    for weakness in weaknesses {
        match (key, weakness.split_once("; ")) {
            // The rest is advice for those who declare the scheme themselves.
            ("scheme", Some((weakness, _))) => section.warn_at(
                key,
                format!("{weakness}; the preset's default is stronger: remove `scheme` if your provider supports it"),
            ),
            _ => section.warn_at(key, weakness),
        }
    }
}

/// Warns of values that a provider does not work with.
fn warn_of_limits(
    section: &Section<'_>,
    about: &About,
    publish_timeout: Duration,
    max_body: usize,
    success_status: StatusCode,
) {
    let title = &about.title;
    if let Some(timeout) = about.timeout()
        && publish_timeout >= timeout
    {
        let timeout = humantime::format_duration(timeout);
        section.warn_at(
            "publish_timeout",
            format!("{title} waits {timeout} for an answer, and treats events that are stored later as lost; write less than that"),
        );
    }
    if let (Some(largest), Some(shown)) = (about.largest_body(), &about.largest_body)
        && max_body < largest
    {
        section.warn_at(
            "max_body",
            format!("{title} sends bodies of up to {shown}, and larger ones than `max_body` are refused with 413"),
        );
    }
    let status = success_status.as_u16();
    if !about.success.is_empty() && !about.success.contains(&status) {
        let known: Vec<_> = about.success.iter().map(ToString::to_string).collect();
        section.warn_at(
            "success_status",
            format!(
                "{title} treats {status} as a failure and sends the event again; write {}",
                known.join(" or ")
            ),
        );
    }
}

/// Adds a preset's values below the user's keys.
fn apply_preset(section: &mut Section<'_>, file: PresetFile) {
    let scheme = match file.schemes.is_empty() {
        true => None,
        false => section.text("scheme"),
    };
    let parameters: Vec<String> = file.parameters.keys().cloned().collect();
    section.set_own_keys(parameters.clone());
    let user = section.take_values(parameters);
    let kept = user.clone();
    match file.under(scheme.as_deref(), user) {
        Ok(values) => section.put_back(values),
        Err(UnknownWord { key, known }) => {
            section.problem_at(&key, format!("is not one of {}", known.join(", ")));
            section.put_back(kept);
        }
    }
}

/// The tolerance that a preset sets.
fn tolerance_of(preset: &Preset) -> Option<Duration> {
    let file = preset.read();
    let text = file.key("verify")?.get("tolerance")?.as_str()?;
    humantime::parse_duration(text).ok()
}

/// The value of `Allow`.
fn methods(handshakes: &[Handshake]) -> String {
    let mut methods = vec![Method::POST];
    for handshake in handshakes {
        if !methods.contains(&handshake.method) {
            methods.push(handshake.method.clone());
        }
    }
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

fn read_media_types(section: &mut Section<'_>) -> Vec<String> {
    let texts = section.texts("media_types");
    let types = texts.unwrap_or_else(|| vec!["application/json".to_owned()]);
    if types.is_empty() {
        section.problem_at("media_types", "an empty list accepts nothing; list what the provider sends, or leave `media_types` out");
    }
    for (index, media_type) in types.iter().enumerate() {
        let is_token = |part: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte);
            !part.is_empty() && part.bytes().all(is_plain)
        };
        let parts = media_type.split_once('/');
        if media_type.contains('*') && media_type != "*/*" {
            section.problem_at(
                &format!("media_types[{index}]"),
                "has a wildcard, which matches nothing; write each media type, or \"*/*\" for any",
            );
            continue;
        }
        if !parts.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype)) {
            section.problem_at(
                &format!("media_types[{index}]"),
                "is not a media type; write for example \"application/json\", without parameters",
            );
        }
    }
    types.iter().map(|text| text.to_ascii_lowercase()).collect()
}

fn read_public_url(section: &mut Section<'_>, name: &str) -> Option<String> {
    let url = section.text("public_url")?;
    let parsed = url.parse::<Uri>().ok();
    let is_url = parsed.is_some_and(|parsed| {
        matches!(parsed.scheme_str(), Some("https" | "http")) && parsed.authority().is_some()
    });
    if !is_url || url.contains(['?', '#']) {
        let shown = section.quote("public_url", &url);
        section.problem_at(
            "public_url",
            format!("{shown} is not a URL without a query; write for example \"https://hooks.example.com/hooks/{name}\""),
        );
    }
    Some(url)
}

fn digest(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose()).into()
}

/// With a shared secret, requests signed by one provider pass as the other's, and a leak affects both.
fn warn_of_shared(section: &Section<'_>, name: &str, secrets: &[Secret], seen: &mut SeenSecrets) {
    for secret in secrets {
        match seen.insert(digest(secret), name.to_owned()) {
            Some(other) if other == name => {
                section.warn_at("secrets", "lists the same secret twice; leave one of them");
            }
            Some(other) => section.warn_at(
                "secrets",
                format!("has a secret that the source {other} has too; give each source its own"),
            ),
            None => {}
        }
    }
}

/// The definition of a source.
#[derive(Debug, Clone, Copy)]
enum Provider {
    /// A preset.
    Preset(&'static Preset),
    /// The user's own declaration.
    Generic,
}

pub(super) const GENERIC: &str = "generic";

impl Provider {
    fn name(self) -> &'static str {
        self.preset().map_or(GENERIC, |preset| preset.name)
    }

    fn preset(self) -> Option<&'static Preset> {
        match self {
            Self::Preset(preset) => Some(preset),
            Self::Generic => None,
        }
    }
}

fn read_provider(section: &mut Section<'_>, name: &str) -> Option<Provider> {
    let given = section.text("provider");
    let wanted = given.as_deref().unwrap_or(name);
    if let Some(preset) = providers::find(wanted) {
        return Some(Provider::Preset(preset));
    }
    if wanted == GENERIC || given.is_none() && section.has("event") {
        return Some(Provider::Generic);
    }
    let shown = section.quote("provider", wanted);
    let all = || {
        let known: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        known.join(", ")
    };
    let declare = "another one is declared by `verify` and `event`, see docs/providers.md";
    match (given.is_some(), provider_meant(wanted)) {
        (true, Some(meant)) => section.problem_at(
            "provider",
            format!("unknown provider {shown}; did you mean \"{meant}\"?"),
        ),
        (true, None) => section.problem_at(
            "provider",
            format!(
                "unknown provider {shown}; write one of {}; {declare}",
                all()
            ),
        ),
        (false, _) => {
            // A key such as `type` often has it.
            let words = ["type", "kind", "preset", "vendor"].iter();
            let mut words = words.filter_map(|key| section.peek(key));
            let meant = words
                .find_map(provider_meant)
                .or_else(|| provider_meant(wanted));
            let write = match meant {
                Some(meant) => format!("write `provider = \"{meant}\"`"),
                None => format!("write `provider = \"…\"` with one of {}", all()),
            };
            section.problem(format!(
                "the source's name {shown} is not a provider's, and it has no `provider`; {write}; {declare}"
            ));
        }
    }
    None
}

/// Other names of providers.
const OTHER_PROVIDERS: [(&str, &[&str]); 12] = [
    ("aws-sns", &["sns", "amazon-sns", "aws"]),
    ("azure-event-grid", &["event-grid", "eventgrid", "azure"]),
    (
        "microsoft-graph",
        &["graph", "msgraph", "ms-graph", "office365", "m365"],
    ),
    ("dbt-cloud", &["dbt"]),
    ("jira", &["atlassian", "jira-cloud"]),
    ("standard-webhooks", &["standardwebhook", "standard"]),
    ("alertmanager", &["prometheus"]),
    ("github", &["gh", "github-app"]),
    ("gitlab", &["gl"]),
    ("zendesk", &["zd"]),
    ("cloudevents", &["ce", "knative"]),
    ("generic", &["custom", "other", "hmac", "webhook", "http"]),
];

/// The provider that was probably meant.
fn provider_meant(word: &str) -> Option<&'static str> {
    let plain = |word: &str| {
        let word = word.to_lowercase().replace(['_', ' '], "-");
        word.strip_suffix(".com").unwrap_or(&word).to_owned()
    };
    let word = plain(word);
    if let Some(preset) = providers::find(&word) {
        return Some(preset.name);
    }
    let mut others = OTHER_PROVIDERS.iter();
    if let Some((name, _)) = others.find(|(_, words)| words.contains(&word.as_str())) {
        return Some(name);
    }
    let compact = word.replace('-', "");
    let mut presets = PRESETS.iter().map(|preset| preset.name);
    if let Some(name) = presets.find(|name| name.replace('-', "") == compact) {
        return Some(name);
    }
    // `github-prod`, `my-stripe`
    let parts: Vec<_> = word.split('-').collect();
    if let Some(preset) = parts.iter().find_map(|part| providers::find(part)) {
        return Some(preset.name);
    }
    let known = PRESETS.iter().map(|preset| preset.name);
    nearest_word(&word, known)
}

fn read_path(section: &mut Section<'_>, name: &str) -> String {
    let Some(path) = section.text("path") else {
        return format!("/hooks/{name}");
    };
    if path.contains('*') || path.contains("/:") {
        section.warn_at(
            "path",
            format!("is compared byte for byte, so that `*` and `:` match themselves alone; write for example \"/hooks/{name}\""),
        );
    }
    if let Some(what) = path_fault(&path) {
        let shown = section.quote("path", &path);
        section.problem_at(
            "path",
            format!("{shown} {what}; write for example \"/hooks/{name}\""),
        );
    }
    path
}

/// The reason why a request cannot have this path, or why some proxies and clients would send another one instead.
fn path_fault(path: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    let fault = if !path.starts_with('/') {
        "does not begin with `/`"
    } else if path.contains(['?', '#']) {
        "has a query or fragment, which is not part of a path"
    } else if path.contains('%') {
        "has a percent sign: paths are compared byte for byte, and an encoded one can be written in several ways"
    } else if !path.bytes().all(is_plain) {
        "has characters that no path may have"
    } else if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        "has a segment `.` or `..`, which clients and proxies resolve before they send it"
    } else if path.contains("//") {
        "has an empty segment (`//`), which proxies merge"
    } else {
        return None;
    };
    Some(fault)
}

fn read_success_status(section: &mut Section<'_>) -> StatusCode {
    let status = section.optional_count("success_status");
    status
        .and_then(|status| u16::try_from(status).ok())
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK)
}

fn read_forward_headers(
    section: &mut Section<'_>,
    authentication: Option<&Authentication>,
) -> Vec<HeaderName> {
    let names = section.texts("forward_headers").unwrap_or_default();
    let mut headers = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let is_ours = NEVER_FORWARDED.contains(&lower.as_str())
            || NEVER_FORWARDED_PREFIXES
                .iter()
                .any(|prefix| lower.starts_with(prefix));
        let refused = match HeaderName::from_bytes(lower.as_bytes()) {
            Ok(_) if lower.contains('*') => format!(
                "{} is not the name of one header; there are no patterns: list the headers",
                section.quote(&format!("forward_headers[{index}]"), name)
            ),
            Err(_) => format!(
                "{} is not a valid header name",
                section.quote(&format!("forward_headers[{index}]"), name)
            ),
            Ok(_) if is_ours => format!(
                "{lower} is never forwarded: it could be mistaken for the bridge's own, or it is a secret; remove it"
            ),
            Ok(_) if authentication.is_some_and(|known| known.is_secret_header(&lower)) => format!(
                "{lower} is never forwarded: anyone who reads it could replay the request; remove it"
            ),
            Ok(header) if headers.contains(&header) => {
                format!("{lower} is listed twice; remove one")
            }
            Ok(header) => {
                headers.push(header);
                continue;
            }
        };
        section.problem_at(&format!("forward_headers[{index}]"), refused);
    }
    headers
}

fn read_failure_policy(
    section: &mut Section<'_>,
    key: &'static str,
    brokers: &Brokers,
) -> FailurePolicy {
    match section.word_or_section(key) {
        None => FailurePolicy::Reject,
        Some(WordOrSection::Word(word)) => match word.as_str() {
            "reject" => FailurePolicy::Reject,
            "ignore" => FailurePolicy::Ignore,
            other => {
                let what = format!(
                    "{} is not a policy; write \"reject\", \"ignore\" or {{ dead_letter = {{ topic = \"…\" }} }}",
                    section.quote(key, other)
                );
                section.problem_at(key, what);
                FailurePolicy::Reject
            }
        },
        Some(WordOrSection::Section(mut policy)) => {
            if !policy.has("dead_letter") {
                policy
                    .problem("is not a policy; write \"reject\", \"ignore\" or { dead_letter = { topic = \"…\" } }");
                policy.finish_quietly();
                return FailurePolicy::Reject;
            }
            let read = policy
                .section("dead_letter")
                .and_then(|section| read_dead_letter(section, brokers));
            policy.finish();
            read.unwrap_or(FailurePolicy::Reject)
        }
    }
}

fn read_dead_letter(mut section: Section<'_>, brokers: &Brokers) -> Option<FailurePolicy> {
    let broker = brokers.named_or_only(&mut section);
    let topic = section.required_text("topic");
    let dead_letter = broker.zip(topic).and_then(|(broker, topic)| {
        let checked = brokers.kind(broker)?.check_destination(&topic);
        if let Err(rule) = checked {
            let shown = section.quote("topic", &topic);
            let help = if topic.contains('{') {
                "; it is not a template: write for example \"hooks.invalid\""
            } else {
                ""
            };
            section.problem_at("topic", format!("{shown} {rule}{help}"));
        }
        Some(FailurePolicy::DeadLetter { broker, topic })
    });
    section.finish();
    dead_letter
}

fn read_schema(
    section: &Section<'_>,
    provider: Provider,
    file: Option<&Path>,
    presets: &mut Presets,
) -> Option<Arc<Schema>> {
    if let (None, Some(known)) = (file, presets.get(provider.name())) {
        return Some(Arc::clone(known));
    }
    let (text, place) = match file {
        Some(file) => match read_file(file) {
            Ok(text) => (text, file.display().to_string()),
            Err(error) => {
                let help = match file.starts_with("http:/") || file.starts_with("https:/") {
                    true => "; save it, and write the path of the file",
                    false => "; write the path of a file that is there",
                };
                section.problem_at(
                    "schema",
                    format!("{} can't be read: {error}{help}", file.display()),
                );
                return None;
            }
        },
        None => (
            provider.preset()?.schema()?.to_owned(),
            format!("the schema of {}", provider.name()),
        ),
    };
    let schema = compile_schema(section, "schema", &text, &place)?;
    if file.is_none() {
        presets.insert(provider.name(), Arc::clone(&schema));
    }
    Some(schema)
}

/// The schemas by type. A file used for several types is read once.
fn read_schemas(source: &mut Section<'_>, mapping: Option<&Mapping>) -> Vec<TypedSchema> {
    let Some(mut table) = source.section("schemas") else {
        return Vec::new();
    };
    let mut known: HashMap<String, Option<Arc<Schema>>> = HashMap::new();
    let mut schemas = Vec::new();
    for (glob, file) in table.take_text_map() {
        let shown = glob.escape_debug();
        let types = match TypeGlob::new(&glob) {
            Ok(types) if !glob.is_empty() => Some(types),
            Ok(_) => {
                table.problem_at(
                    &glob,
                    "matches no type; write a glob on the event type, for example \"issues.*\"",
                );
                None
            }
            Err(error) => {
                table.problem_at(
                    &glob,
                    format!("\"{shown}\" is not a valid glob: {}", error.kind()),
                );
                None
            }
        };
        if let (Some(types), Some(mapping)) = (&types, mapping) {
            check_type(&table, &glob, types, mapping);
        }
        let schema = known
            .entry(file)
            .or_insert_with_key(|file| read_typed_schema(&table, &glob, Path::new(file)));
        let schema = schema.as_ref().map(Arc::clone);
        schemas.extend(
            types
                .zip(schema)
                .map(|(types, schema)| TypedSchema { types, schema }),
        );
    }
    table.finish();
    schemas
}

fn read_typed_schema(table: &Section<'_>, glob: &str, file: &Path) -> Option<Arc<Schema>> {
    table.note_file(file);
    let place = file.display().to_string();
    match read_file(file) {
        Ok(text) => compile_schema(table, glob, &text, &place),
        Err(error) => {
            table.problem_at(glob, format!("{place} can't be read: {error}"));
            None
        }
    }
}

/// A schema that no event can reach protects nothing.
fn check_type(table: &Section<'_>, glob: &str, types: &TypeGlob, mapping: &Mapping) {
    let shown = glob.escape_debug();
    let constants: Option<Vec<&str>> = mapping.event_type.texts().map(Text::literal).collect();
    match constants.filter(|constants| mapping.hook.is_none() && !constants.is_empty()) {
        Some(constants) if !constants.iter().any(|constant| types.is_match(constant)) => {
            let constants = constants.join("\" or \"");
            table.problem_at(
                glob,
                format!(
                    "no event of this source has a type like \"{shown}\": each has \"{constants}\""
                ),
            );
        }
        Some(_) => {}
        None => {
            let mut known = mapping.types.iter();
            if mapping.types_are_all && !known.any(|known| types.is_match(known)) {
                let known: Vec<_> = mapping.types.iter().map(String::as_str).collect();
                let help = nearest(glob, &known);
                table.warn_at(
                    glob,
                    format!("the provider is not known to send \"{shown}\"{help}"),
                );
            }
        }
    }
}

fn compile_schema(
    section: &Section<'_>,
    key: &str,
    text: &str,
    place: &str,
) -> Option<Arc<Schema>> {
    let schema = Schema::read(text)
        .map_err(|error| section.problem_at(key, format!("{place} can't be used: {error}")))
        .map(Arc::new)
        .ok()?;
    for warning in schema.warnings() {
        section.warn_at(key, format!("{place}: {warning}"));
    }
    Some(schema)
}
