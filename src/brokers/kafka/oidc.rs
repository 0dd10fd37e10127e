//! `sasl.mechanism = "OAUTHBEARER"`: the options of OpenID Connect, and one request for an access token.
//!
//! The options have librdkafka's names, but the bridge acts on them: librdkafka fetches tokens only when built with libcurl.
//! Its `configure` build does not find the libcurl that rdkafka's `curl-static` compiles (fede1024/rust-rdkafka#804), its
//! CMake build has the bootstrap bug named in Cargo.toml, and the system's libcurl would load a second OpenSSL into the
//! process. hyper and rustls are dependencies anyway.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::http_post::{self, Answer, Terms};
use crate::printable::printable;

const METHOD: &str = "sasl.oauthbearer.method";
const CLIENT_ID: [&str; 2] = [
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.id",
];
const CLIENT_SECRET: [&str; 2] = [
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
];
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const CA_FILE: &str = "https.ca.location";
const CA_PEM: &str = "https.ca.pem";

const URL: &str = "write for example \"https://idp.example.com/oauth2/token\"";

/// The two names of one option.
pub(super) const MECHANISM: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];

/// A broker's `options`: names and values.
pub(super) type Options = [(String, Zeroizing<String>)];

/// Appended to errors about unsupported options.
const SUPPORTED: &str = "OAUTHBEARER works with sasl.oauthbearer.method = \"oidc\", client.id, client.secret, token.endpoint.url and scope";

/// Limit of a token request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Tokens with many groups take a few kilobytes; brokers refuse much larger requests.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Maximum length of a refusal in messages.
const MAX_DETAIL_CHARS: usize = 300;

/// Longer lifetimes are cut to this.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A client of an identity provider.
pub(super) struct Oidc {
    endpoint: Uri,
    client_id: String,
    client_secret: Zeroizing<String>,
    scope: Option<String>,
    authorities: Authorities,
}

/// The certificate authorities trusted for the token endpoint.
enum Authorities {
    System,
    /// A file or folder, read for each request.
    At(PathBuf),
    Pem(Zeroizing<String>),
}

pub(super) struct Token {
    pub(super) value: Zeroizing<String>,
    pub(super) lifetime: Duration,
}

/// Whether the bridge handles this option, so that librdkafka must not get it.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("sasl.oauthbearer.") || name.starts_with("https.ca.")
}

/// The problem with one of [our](is_ours) options, without its value, which may be a secret.
pub(super) fn problem(name: &str, value: &str) -> Option<String> {
    let value = value.trim();
    let is = |expected: &str| value.eq_ignore_ascii_case(expected);
    match name {
        METHOD if !is("oidc") => Some(format!("{name} supports only \"oidc\"")),
        GRANT if !is("client_credentials") => Some(format!(
            "{name}: grants other than client_credentials are not in this build; {SUPPORTED}"
        )),
        ENDPOINT => endpoint(value).err().map(|what| format!("{name} {what}; {URL}")),
        CA_FILE if !is("probe") => {
            (authorities_at(Path::new(value)).is_empty()).then(|| {
                format!("{name} has no certificate that can be read; name a PEM file, or a folder of them")
            })
        }
        CA_PEM => authorities_in(value).is_empty().then(|| {
            format!("{name} has no certificate; write PEM text that starts with \"-----BEGIN CERTIFICATE-----\"")
        }),
        METHOD | GRANT | SCOPE | CA_FILE => None,
        _ if CLIENT_ID.contains(&name) || CLIENT_SECRET.contains(&name) => value
            .is_empty()
            .then(|| format!("{name} is empty")),
        "sasl.oauthbearer.extensions" => Some(format!(
            "{name}: SASL extensions are not in this build; Confluent Cloud, which demands them, also takes an API key (PLAIN over sasl_ssl)"
        )),
        _ => Some(format!("{name} is not in this build; {SUPPORTED}")),
    }
}

impl Oidc {
    /// Reads options that are individually valid; none if they select another mechanism.
    ///
    /// # Errors
    /// The option to point at, and the missing or contradicting one.
    pub(super) fn read(options: &Options) -> Result<Option<Self>, (&str, String)> {
        let find = |names: &[&str]| {
            let mut all = options.iter();
            all.find(|(name, _)| names.contains(&name.as_str()))
        };
        let value = |names: &[&str]| find(names).map(|(_, value)| value.trim());
        let Some((name, _)) = find(&MECHANISM)
            .filter(|(_, mechanism)| mechanism.trim().eq_ignore_ascii_case("OAUTHBEARER"))
        else {
            return Ok(None);
        };
        let needed: [(&[&str], &str); 4] = [
            (&[METHOD], "sasl.oauthbearer.method = \"oidc\""),
            (&[ENDPOINT], "sasl.oauthbearer.token.endpoint.url"),
            (&CLIENT_ID, "sasl.oauthbearer.client.id"),
            (
                &CLIENT_SECRET,
                "sasl.oauthbearer.client.secret, for example { env = \"KAFKA_CLIENT_SECRET\" }",
            ),
        ];
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(names, _)| find(names).is_none())
            .map(|(_, what)| *what)
            .collect();
        if !missing.is_empty() {
            let what = format!("OAUTHBEARER lacks {}", missing.join("; and "));
            return Err((name, what));
        }
        let authorities = match (value(&[CA_FILE]), value(&[CA_PEM])) {
            (Some(_), Some(_)) => {
                return Err((
                    CA_PEM,
                    format!("{CA_PEM} and {CA_FILE} exclude each other; leave one out"),
                ));
            }
            (Some(path), None) if !path.eq_ignore_ascii_case("probe") => {
                Authorities::At(PathBuf::from(path))
            }
            (None, Some(pem)) => Authorities::Pem(Zeroizing::new(pem.to_owned())),
            _ => Authorities::System,
        };
        let endpoint = endpoint(value(&[ENDPOINT]).unwrap_or_default())
            .map_err(|what| (ENDPOINT, format!("{ENDPOINT} {what}; {URL}")))?;
        let secret = find(&CLIENT_SECRET).map(|(_, secret)| secret.clone());
        Ok(Some(Self {
            endpoint,
            client_id: value(&CLIENT_ID).unwrap_or_default().to_owned(),
            client_secret: secret.unwrap_or_default(),
            scope: value(&[SCOPE])
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned),
            authorities,
        }))
    }

    /// The principal, which librdkafka only displays.
    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether secrets would cross the network unencrypted.
    pub(super) fn is_exposed(&self) -> bool {
        let host = self.endpoint.host().unwrap_or_default();
        let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        self.endpoint.scheme_str() == Some("http") && !is_local
    }

    /// Host and port of the token endpoint.
    pub(super) fn host(&self) -> &str {
        let authority = self.endpoint.authority();
        authority
            .map(|authority| authority.as_str())
            .unwrap_or_default()
    }

    /// Fetches a token. Blocks, for [`TIMEOUT`] at most.
    ///
    /// # Errors
    /// No usable answer.
    pub(super) fn fetch(&self) -> Result<Token, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| FetchError(format!("no runtime for the request: {error}")))?;
        let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, self.ask()).await });
        // A pending name lookup must not block the thread.
        runtime.shutdown_background();
        let host = self.host();
        match answer {
            Err(_) => Err(FetchError(format!(
                "the token endpoint {host} did not answer within {TIMEOUT:?}"
            ))),
            Ok(Err(why)) => Err(FetchError(format!(
                "no answer from the token endpoint: {}",
                self.shown(&why.to_string())
            ))),
            Ok(Ok(answer)) => self.read_answer(&answer),
        }
    }

    async fn ask(&self) -> Result<Answer, http_post::Error> {
        let basic = Zeroizing::new(format!("Basic {}", self.basic().as_str()));
        let mut authorization = HeaderValue::from_str(&basic)?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let authorities = match &self.authorities {
            Authorities::System => None,
            Authorities::At(path) => Some(authorities_at(path)),
            Authorities::Pem(pem) => Some(authorities_in(pem)),
        };
        let terms = Terms {
            authorities,
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        http_post::post(&self.endpoint, headers, Bytes::from(form.finish()), terms).await
    }

    /// Id and secret for HTTP Basic, as librdkafka and the Java client send them by default: without the percent-encoding
    /// that RFC 6749 section 2.3.1 requires.
    fn basic(&self) -> Zeroizing<String> {
        let both = format!("{}:{}", self.client_id, self.client_secret.as_str());
        Zeroizing::new(BASE64.encode(Zeroizing::new(both).as_bytes()))
    }

    fn read_answer(&self, answer: &Answer) -> Result<Token, FetchError> {
        let (host, status) = (self.host(), answer.status);
        match status {
            StatusCode::OK => read_token(&answer.body).map_err(|what| {
                FetchError(format!("the answer of the token endpoint {host} {what}"))
            }),
            _ if status.is_redirection() => Err(FetchError(format!(
                "the token endpoint {host} redirects ({}); redirects are not followed",
                status.as_u16()
            ))),
            _ if status.is_client_error() => {
                let refusal: TokenError = serde_json::from_slice(&answer.body).unwrap_or_default();
                let error = refusal.error.unwrap_or_default();
                let detail = refusal.error_description.unwrap_or_default();
                let said = self.shown(format!("{error} {detail}").trim());
                let said = if said.is_empty() {
                    String::new()
                } else {
                    format!(": {said}")
                };
                Err(FetchError(format!(
                    "the token endpoint {host} refuses the client ({}{said})",
                    status.as_u16()
                )))
            }
            _ => Err(FetchError(format!(
                "the token endpoint {host} answers {}",
                status.as_u16()
            ))),
        }
    }

    /// Foreign text for messages: short, on one line, and without the client's secret, which an endpoint may echo.
    fn shown(&self, text: &str) -> String {
        let secret = self.client_secret.trim();
        let text = if secret.is_empty() {
            text.to_owned()
        } else {
            text.replace(secret, "***")
                .replace(self.basic().as_str(), "***")
        };
        let shortened: String = text.chars().take(MAX_DETAIL_CHARS).collect();
        printable(&shortened).into_owned()
    }
}

/// The reason why no new token was obtained, for the operator, without any secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct FetchError(String);

/// RFC 6749 section 5.2.
#[derive(Deserialize, Default)]
struct TokenError {
    error: Option<String>,
    error_description: Option<String>,
}

/// RFC 6749 section 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Value>,
}

fn read_token(body: &[u8]) -> Result<Token, &'static str> {
    let Granted {
        access_token,
        expires_in,
    } = serde_json::from_slice(body).map_err(|_| "is not a JSON object with an access_token")?;
    if access_token.is_empty() || !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has an access_token that is not one word of ASCII");
    }
    // Some providers send the number as a string.
    let seconds = match &expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => remaining(&access_token),
    };
    let lifetime = seconds
        .ok_or("has no expiry, neither expires_in nor the token's exp")
        .and_then(|seconds| {
            let lifetime = Duration::try_from_secs_f64(seconds);
            lifetime
                .ok()
                .filter(|lifetime| !lifetime.is_zero())
                .ok_or("has a token that is already expired")
        })?;
    Ok(Token {
        value: Zeroizing::new(access_token),
        lifetime: lifetime.min(MAX_LIFETIME),
    })
}

/// The remaining lifetime of a JWT in seconds, by its `exp`.
fn remaining(token: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = BASE64URL_NOPAD
        .decode(token.split('.').nth(1)?.as_bytes())
        .ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(claims.exp - now.as_secs_f64())
}

fn endpoint(url: &str) -> Result<Uri, &'static str> {
    let url: Uri = url.parse().map_err(|_| "is not a valid URL")?;
    if !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err("does not begin with https:// or http://");
    }
    let authority = url.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user in it, which belongs in client.id and client.secret");
    }
    if authority.host().is_empty() {
        return Err("has no host");
    }
    Ok(url)
}

fn authorities_at(path: &Path) -> RootCertStore {
    let (file, folder) = if path.is_dir() {
        (None, Some(path))
    } else {
        (Some(path), None)
    };
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_certs_from_paths(file, folder);
    let (_, _) = store.add_parsable_certificates(found.certs);
    store
}

fn authorities_in(pem: &str) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    let (_, _) = store.add_parsable_certificates(certificates);
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2";

    fn options(changes: &[(&str, Option<&str>)]) -> Vec<(String, Zeroizing<String>)> {
        let mut all = vec![
            ("security.protocol", Some("sasl_ssl")),
            ("sasl.mechanism", Some("OAUTHBEARER")),
            (METHOD, Some("oidc")),
            (ENDPOINT, Some("https://idp.example:8443/realms/k/token")),
            (CLIENT_ID[0], Some("bridge")),
            (CLIENT_SECRET[0], Some(SECRET)),
        ];
        all.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        all.extend(changes);
        all.into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Zeroizing::new(value?.to_owned()))))
            .collect()
    }

    fn client() -> Oidc {
        Oidc::read(&options(&[])).ok().flatten().unwrap()
    }

    #[test]
    fn options_that_lack_a_part_are_refused_with_what_is_missing() {
        assert_eq!(client().host(), "idp.example:8443");
        assert!(
            Oidc::read(&options(&[("sasl.mechanism", Some("PLAIN"))]))
                .is_ok_and(|oidc| oidc.is_none())
        );
        for lacks in [METHOD, ENDPOINT, CLIENT_ID[0], CLIENT_SECRET[0]] {
            let options = options(&[(lacks, None)]);
            let (at, what) = Oidc::read(&options).err().unwrap();
            assert_eq!(at, "sasl.mechanism");
            assert!(what.contains(lacks), "{lacks}: {what}");
            assert!(!what.contains(SECRET), "{what}");
        }
        let both = options(&[(CA_FILE, Some("/x")), (CA_PEM, Some("x"))]);
        assert!(Oidc::read(&both).is_err_and(|(_, what)| what.contains("exclude")));
    }

    #[test]
    fn an_option_is_refused_with_what_to_write_and_without_its_value() {
        for (name, value, expected) in [
            (METHOD, SECRET, "\"oidc\""),
            (GRANT, SECRET, "client_credentials"),
            (ENDPOINT, SECRET, "https://idp.example.com"),
            (ENDPOINT, "ftp://hunter2", "https://"),
            (ENDPOINT, "https://u:hunter2@idp.example/", "client.secret"),
            (ENDPOINT, "https:///hunter2", "https://idp.example.com"),
            (CA_FILE, "/hunter2", "PEM file"),
            (CA_PEM, SECRET, "BEGIN CERTIFICATE"),
            (CLIENT_ID[1], " ", "empty"),
            (CLIENT_SECRET[0], "", "empty"),
            ("sasl.oauthbearer.extensions", SECRET, "API key"),
            (
                "sasl.oauthbearer.assertion.private.key.pem",
                SECRET,
                "not in this build",
            ),
            ("sasl.oauthbearer.config", SECRET, "not in this build"),
        ] {
            let what = problem(name, value).unwrap_or_default();
            assert!(
                what.starts_with(name) && what.contains(expected),
                "{name}: {what}"
            );
            assert!(!what.contains(SECRET), "{name}: {what}");
        }
        for (name, value) in [
            (METHOD, "OIDC"),
            (GRANT, "client_credentials"),
            (ENDPOINT, "http://127.0.0.1:1/token?x=y"),
            (SCOPE, "kafka"),
            (CA_FILE, "probe"),
        ] {
            assert_eq!(problem(name, value), None);
        }
    }

    #[test]
    fn an_answer_is_a_token_with_its_lifetime_or_a_reason_without_secrets() {
        let answer = |status: u16, body: &str| {
            client().read_answer(&Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::from(body.to_owned()),
            })
        };
        let exp = |seconds: u64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let claims = format!("{{\"exp\":{}}}", now.as_secs() + seconds);
            format!(
                "{{\"access_token\":\"h.{}.s\"}}",
                BASE64URL_NOPAD.encode(claims.as_bytes())
            )
        };
        for (body, seconds) in [
            ("{\"access_token\":\"a\",\"expires_in\":60}", 60),
            ("{\"access_token\":\"a\",\"expires_in\":\"3599\"}", 3599),
            ("{\"access_token\":\"a\",\"expires_in\":1e300}", 0),
            (&exp(600), 600),
        ] {
            match answer(200, body) {
                Ok(token) => {
                    assert!(token.lifetime <= Duration::from_secs(seconds), "{body}");
                    assert!(token.lifetime > Duration::from_secs(seconds - 5), "{body}");
                }
                Err(why) => assert_eq!(seconds, 0, "{body}: {why}"),
            }
        }
        for (status, body, expected) in [
            (200, "[]", "access_token"),
            (
                200,
                "{\"access_token\":\"hunter2 b\",\"expires_in\":60}",
                "one word",
            ),
            (200, "{\"access_token\":\"hunter2\"}", "has no expiry"),
            (
                200,
                "{\"access_token\":\"hunter2\",\"expires_in\":-1}",
                "is already expired",
            ),
            (302, "", "redirects"),
            (
                401,
                "{\"error\":\"invalid_client\"}",
                "refuses the client (401: invalid_client)",
            ),
            (
                400,
                "{\"error\":\"x\",\"error_description\":\"\\u001b[2Jno hunter2 YnJpZGdlOmh1bnRlcjI=\"}",
                "no *** ***",
            ),
            (404, "<html>hunter2", "(404)"),
            (503, "hunter2", "answers 503"),
        ] {
            let why = answer(status, body).err().unwrap().to_string();
            assert!(why.contains(expected), "{status} {body}: {why}");
            assert!(!why.contains(SECRET) && !why.contains('\u{1b}'), "{why}");
        }
    }
}
