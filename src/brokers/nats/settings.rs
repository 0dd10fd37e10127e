//! `[brokers.NAME]` with `kind = "nats"`, and the client options that follow from it.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{AuthError, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use super::{credentials, tls_files};
use crate::brokers::provision;
use crate::secret::Secret;
use crate::table::Section;
use crate::table::key::{FILE, Key, Syntax, TEXT, Table, Type, words};

/// Interval of the client's pings; three unanswered ones end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of commands queued for the connection. Small: commands left in the queue when the connection ends are sent
/// after the next connect, when nobody waits for them.
const CLIENT_CAPACITY: usize = 256;

const ACKNOWLEDGEMENTS: [(&str, Acknowledgement); 2] = [
    ("jetstream", Acknowledgement::JetStream),
    ("core", Acknowledgement::Core),
];

pub(in crate::brokers) static TABLE: Table = Table::new(&[&[
    Key::new("servers", Type::List(&Type::Text(&SERVER)))
        .depends("required")
        .example("[\"nats://localhost:4222\"]")
        .instead_of(&["url", "urls", "host", "hosts", "address", "bootstrap_servers", "brokers"])
        .about("servers of one cluster; `tls://…` demands TLS"),
    Key::new("ack", Type::Words(&words(&ACKNOWLEDGEMENTS)))
        .default("jetstream")
        .about("`\"core\"` uses no stream: a 2xx then means that the server has the message, not that it is stored; `check` warns"),
    Key::new("credentials", Type::Text(&FILE))
        .about("a `.creds` file")
        .example("\"/run/secrets/bridge.creds\"")
        .instead_of(&["creds", "creds_file", "credentials_file", "jwt", "nkey", "seed"]),
    Key::new("user", Type::Text(&TEXT))
        .about("only with `password`")
        .instead_of(&["username", "login"]),
    Key::new("password", Type::Secret)
        .about("only with `user`")
        .instead_of(&["pass", "passwd"]),
    Key::new("token", Type::Secret),
    Key::new("inbox_prefix", Type::Text(&INBOX_PREFIX))
        .depends("`\"_INBOX\"`")
        .about("for users that may only subscribe below a prefix of their own; up to 128 characters"),
    Key::new("tls", Type::Table(&TLS)).depends("the server decides"),
    Key::new("provision", Type::Table(&provision::OF_NATS))
        .about("the stream that `hookbridge provision` creates, see [Provisioning](#provisioning)"),
]])
.notes(&[
    (
        &["stream"],
        "a stream takes the subjects of routes; write `provision = { stream = \"…\" }` to create it",
    ),
    (
        &["jetstream"],
        "JetStream is the default; remove it, or write `ack = \"core\"` to do without",
    ),
    (
        &["options", "sasl", "security_protocol"],
        "options are for Kafka; NATS has `credentials`, `user`, `token` and `tls`",
    ),
]);

static SERVER: Syntax = Syntax {
    noun: "URL",
    pattern: Some("."),
};

static INBOX_PREFIX: Syntax = Syntax {
    noun: "text",
    pattern: Some("^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$"),
};

pub(in crate::brokers) static TLS: Table = Table::new(&[&[
    Key::new("required", Type::Flag)
        .default("true")
        .about("applies where `tls` is set; without the table the server decides"),
    Key::new("first", Type::Flag)
        .default("false")
        .about("start with the TLS handshake, for servers with `handshake_first`"),
    Key::new("ca", Type::Text(&FILE))
        .depends("the system's")
        .about("trusted authorities"),
    Key::new("cert", Type::Text(&FILE)).about("client certificate; only with `key`"),
    Key::new("key", Type::Text(&FILE)).about("its private key; only with `cert`"),
]]);

/// How to reach NATS servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    servers: Vec<Server>,
    pub(super) acknowledgement: Acknowledgement,
    credentials: Option<PathBuf>,
    user: Option<(String, Secret)>,
    token: Option<Secret>,
    tls: Option<TlsOptions>,
    inbox_prefix: Option<String>,
}

/// The acknowledgement that a publish waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// A stream's acknowledgement with a sequence number.
    JetStream,
    /// An echo that the server sends after the message: it has the message, but stores nothing.
    Core,
}

/// A server's URL, from which a login is moved to [`Settings::user`] or [`Settings::token`], because the client logs URLs.
#[derive(Clone, PartialEq)]
struct Server(ServerAddr);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_credentials())
    }
}

impl Server {
    fn without_login(self) -> Option<Self> {
        let mut url = self.0.into_inner();
        // Fails only without a host, and then there is no login.
        let _removed = (url.set_username(""), url.set_password(None));
        ServerAddr::from_url(url).ok().map(Self)
    }

    fn without_credentials(&self) -> String {
        format!("{}://{}:{}", self.0.scheme(), self.0.host(), self.0.port())
    }
}

#[derive(Debug, Clone, PartialEq)]
struct TlsOptions {
    required: bool,
    /// The TLS handshake precedes the server's greeting (`handshake_first`).
    first: bool,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    pub(in crate::brokers) fn read(section: &mut Section<'_>) -> Option<Self> {
        let servers = section.texts("servers");
        if servers.as_ref().is_none_or(Vec::is_empty) && !section.is_misspelt("servers") {
            section.problem("a NATS broker needs `servers`; write for example `servers = [\"nats://localhost:4222\"]`");
        }
        let servers = servers.unwrap_or_default();
        let servers = servers.iter().enumerate().filter_map(|(index, text)| {
            let parsed = text.parse::<ServerAddr>().ok();
            let parsed = parsed.filter(|server| {
                matches!(server.scheme(), "nats" | "tls")
                    && is_host(server.host())
                    && server.port() > 0
            });
            if parsed.is_none() {
                let what = "is not the address of a NATS server; write for example \"nats://localhost:4222\" or \"tls://nats.example.com\"";
                section.problem_at(&format!("servers[{index}]"), what);
            }
            parsed.map(Server)
        });
        let servers: Vec<Server> = servers.collect();
        let acknowledgement = section
            .word("ack", &ACKNOWLEDGEMENTS)
            .unwrap_or(Acknowledgement::JetStream);
        if acknowledgement == Acknowledgement::Core {
            section.warn_at("ack", "with ack = \"core\" a 2xx means that the server has the message, not that it is stored");
        }
        let credentials = section.path("credentials");
        if let Some(file) = credentials.as_ref().filter(|file| !file.is_file()) {
            section.problem_at(
                "credentials",
                format!(
                    "the credentials file {} can't be found; write the path of the .creds file that nsc made",
                    file.display()
                ),
            );
        }
        if let Some(Err(why)) = credentials
            .as_ref()
            .filter(|file| file.is_file())
            .map(|file| credentials::check(file))
        {
            section.problem_at(
                "credentials",
                format!("{why}; write the path of the .creds file that nsc made"),
            );
        }
        let user = match (section.text("user"), section.secret("password")) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (user, _) => {
                let missing = if user.is_some() { "password" } else { "user" };
                if !section.is_misspelt(missing) {
                    section.problem(format!(
                        "`user` and `password` are required together; add `{missing}`"
                    ));
                }
                None
            }
        };
        let token = section.secret("token");
        if [credentials.is_some(), user.is_some(), token.is_some()]
            .iter()
            .filter(|given| **given)
            .count()
            > 1
        {
            section
                .problem("`credentials`, `user` and `token` exclude each other; keep one of them");
        }
        let tls = section.section("tls").map(TlsOptions::read);
        let inbox_prefix = section.text("inbox_prefix");
        if let Some(prefix) = &inbox_prefix
            && !is_inbox_prefix(prefix)
        {
            section.problem_at(
                "inbox_prefix",
                format!(
                    "\"{}\" is not a valid prefix: tokens of A-Z, a-z, 0-9, `_` and `-` with dots between them, up to 128 characters, and not one that servers reserve (_R_, _GR_); write for example \"_INBOX_bridge\"",
                    prefix.escape_debug()
                ),
            );
        }
        let (user, token) = match (&credentials, user, token) {
            // The client does not read a login from the URL.
            (None, None, None) => login(&servers),
            (_, user, token) => (user, token),
        };
        let servers = servers.into_iter().filter_map(Server::without_login);
        Some(Self {
            servers: servers.collect(),
            acknowledgement,
            credentials,
            user,
            token,
            tls,
            inbox_prefix,
        })
    }

    pub(in crate::brokers) fn servers_without_credentials(&self) -> String {
        self.servers
            .iter()
            .map(Server::without_credentials)
            .collect::<Vec<_>>()
            .join(",")
    }

    pub(in crate::brokers) fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| {
            let identity = tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
            tls.ca.iter().chain(identity)
        });
        self.credentials.iter().chain(tls).cloned().collect()
    }

    pub(in crate::brokers) fn inbox_prefix(&self) -> Option<&str> {
        self.inbox_prefix.as_deref()
    }

    pub(super) fn is_tls_first(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.first)
    }

    /// The credentials file and the private key, with the configuration keys that name them.
    pub(in crate::brokers) fn private_files(&self) -> Vec<(String, PathBuf)> {
        let credentials = self.credentials.iter().map(|file| ("credentials", file));
        let identity = self.tls.iter().filter_map(|tls| tls.identity.as_ref());
        let keys = identity.map(|(_, key)| ("tls.key", key));
        credentials
            .chain(keys)
            .map(|(key, file)| (key.to_owned(), file.clone()))
            .collect()
    }

    pub(super) fn addresses(&self) -> Vec<ServerAddr> {
        self.servers.iter().map(|server| server.0.clone()).collect()
    }

    pub(super) fn connect_options(&self) -> ConnectOptions {
        let options = match &self.credentials {
            None => ConnectOptions::new(),
            Some(file) => {
                let file = file.clone();
                // Called for each connection, so that rotated credentials are read.
                ConnectOptions::with_auth_callback(move |nonce| {
                    let auth = credentials::authenticate(&file, &nonce).map_err(AuthError::new);
                    std::future::ready(auth)
                })
            }
        };
        let mut options = options
            .name(concat!("hookbridge/", env!("CARGO_PKG_VERSION")))
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECTION_TIMEOUT)
            .client_capacity(CLIENT_CAPACITY)
            .max_reconnects(None);
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.expose().to_owned());
        }
        if let Some(token) = &self.token {
            options = options.token(token.expose().to_owned());
        }
        if let Some(tls) = &self.tls {
            options = options.require_tls(tls.required);
            if tls.first {
                options = options.tls_first();
            }
            if let Some(ca) = &tls.ca {
                options = options.add_root_certificates(ca.clone());
            }
            if let Some((cert, key)) = &tls.identity {
                options = options.add_client_certificate(cert.clone(), key.clone());
            }
        }
        options
    }
}

/// The user and password, or the token, from a URL.
fn login(servers: &[Server]) -> (Option<(String, Secret)>, Option<Secret>) {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = servers
        .iter()
        .find_map(|server| Some((server.0.username()?, server.0.password())));
    match login {
        Some((user, Some(password))) => (
            Secret::new(decode(password)).map(|password| (decode(user), password)),
            None,
        ),
        Some((token, None)) => (None, Secret::new(decode(token))),
        None => (None, None),
    }
}

impl TlsOptions {
    fn read(mut section: Section<'_>) -> Self {
        let required = section.flag("required");
        let first = section.flag("first");
        if first && !required {
            section.problem_at(
                "first",
                "with `first = true` TLS is always required; drop `required = false`",
            );
        }
        let ca = section.path("ca");
        let identity = match (section.path("cert"), section.path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                section.problem("`cert` and `key` are required together; add the other one");
                None
            }
        };
        if let Some(Err(why)) = ca.as_deref().map(tls_files::check_authorities) {
            section.problem_at("ca", why);
        }
        if let Some((cert, key)) = &identity
            && let Err((name, why)) = tls_files::check_identity(cert, key)
        {
            section.problem_at(name, why);
        }
        section.finish();
        Self {
            required,
            first,
            ca,
            identity,
        }
    }
}

/// Whether this is a name or an address, and not a list of them for example.
fn is_host(host: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !host.is_empty() && host.chars().all(is_part)
}

fn is_inbox_prefix(prefix: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_reserved = ["_R_", "_GR_"].contains(&prefix.split('.').next().unwrap_or_default());
    !is_reserved
        && prefix.len() <= 128
        && prefix
            .split('.')
            .all(|token| !token.is_empty() && token.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_prefix_has_no_wildcards_and_no_empty_tokens() {
        for good in ["_INBOX_bridge", "_INBOX.bridge", "bridge-1.inbox", "_R_x"] {
            assert!(is_inbox_prefix(good), "{good}");
        }
        for bad in [
            "", "a.", ".a", "a..b", "a.>", "*", "a b", "$JS", "é", "_R_", "_GR_.a",
        ] {
            assert!(!is_inbox_prefix(bad), "{bad}");
        }
    }
}
