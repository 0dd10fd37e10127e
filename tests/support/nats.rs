//! A real nats-server with JetStream, on a loopback port and a data directory of its own.
//!
//! Most tests share one; those that kill or freeze theirs, or want logins or TLS, start their own.

// A cluster of three, one leader per stream.
pub(crate) mod cluster;

// With users, accounts or JetStream settings of the test.
pub(crate) mod configured;

// A fake server, for behaviour that a real one shows too rarely.
pub(crate) mod fake;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use futures_util::StreamExt as _;

use super::consumer::Stored;
use super::daemon::Daemon;
use super::disk::SmallDisk;
use super::kafka::unique;
use super::process;
use super::proxy::Proxy;
use super::{runtime, tls, wait};

/// The logins of a server for one test.
pub(crate) enum Access {
    Anyone,
    Password {
        user: &'static str,
        password: &'static str,
    },
    Token(&'static str),
    /// The user `admin`, who may do everything, and `bridge` with these permissions; each name is also the password.
    Limited(String),
    /// A user's credentials file, and its account for the server's configuration.
    Credentials {
        file: PathBuf,
        server: String,
    },
}

/// A server that is running, or can be started.
pub(crate) struct Nats {
    /// `nats://host:port`: a value for `servers`. For a cluster, all of them with commas.
    pub(crate) url: String,
    access: Access,
    has_tls: bool,
    is_tls_first: bool,
    own: Option<Own>,
}

struct Own {
    program: PathBuf,
    daemon: Daemon,
}

impl Nats {
    /// The shared server: HOOKBRIDGE_TEST_NATS's, or our own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Nats>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("HOOKBRIDGE_TEST_NATS") {
            Ok(url) if !url.is_empty() => Some(Self {
                url,
                access: Access::Anyone,
                has_tls: false,
                is_tls_first: false,
                own: None,
            }),
            _ => {
                let nats = Self::absent(Access::Anyone, false)?;
                nats.start();
                Some(nats)
            }
        });
        shared.as_ref().or_else(|| process::missing("nats-server"))
    }

    /// A running server for one test.
    pub(crate) fn private() -> Option<Self> {
        Self::private_for(Access::Anyone)
    }

    /// A running server for one test with more JetStream settings.
    pub(crate) fn private_with(jetstream: &str) -> Option<Self> {
        let nats = Self::private_not_started()?;
        nats.add_to_jetstream(jetstream);
        nats.start();
        Some(nats)
    }

    fn add_to_jetstream(&self, settings: &str) {
        self.daemon()
            .edit(|text| text.replace("store_dir:", &format!("{settings}, store_dir:")));
    }

    /// A running server for one test, with its data on a disk of `mib` MiB; `None` if that is impossible here.
    pub(crate) fn private_on_small_disk(mib: u32) -> Option<Self> {
        let mut nats = Self::private_not_started()?;
        let own = nats.own.as_mut().expect("a nats-server of the test's own");
        own.daemon.mount_small_disk(mib)?;
        // It would reserve a part of the disk, and refuse before the disk does.
        nats.add_to_jetstream("max_file_store: 1GB");
        nats.start();
        Some(nats)
    }

    /// A running server for one test that requires a login.
    pub(crate) fn private_for(access: Access) -> Option<Self> {
        let nats = Self::absent(access, false).or_else(|| process::missing("nats-server"))?;
        nats.start();
        Some(nats)
    }

    /// A running server for one test that requires TLS.
    pub(crate) fn private_with_tls() -> Option<Self> {
        let nats =
            Self::absent(Access::Anyone, true).or_else(|| process::missing("nats-server"))?;
        nats.start();
        Some(nats)
    }

    /// [`Nats::private_with_tls`] whose clients begin with the handshake.
    pub(crate) fn private_with_tls_first() -> Option<Self> {
        let mut nats =
            Self::absent(Access::Anyone, true).or_else(|| process::missing("nats-server"))?;
        nats.is_tls_first = true;
        nats.daemon()
            .edit(|text| text.replace("tls {", "tls { handshake_first: true,"));
        nats.start();
        Some(nats)
    }

    /// Changes the permissions of `bridge` while the server runs.
    pub(crate) fn permit(&self, permissions: &str) {
        let Access::Limited(before) = &self.access else {
            unreachable!("a server with users")
        };
        let start = users(before);
        let start = start.split("permissions").next().expect("users");
        self.daemon().edit(|text| {
            let (kept, _) = text.split_once(start).expect("users");
            format!("{kept}{}", users(permissions))
        });
        self.daemon().signal("HUP");
    }

    /// A server for one test that has an address but is not running yet.
    pub(crate) fn private_not_started() -> Option<Self> {
        Self::absent(Access::Anyone, false).or_else(|| process::missing("nats-server"))
    }

    fn absent(access: Access, has_tls: bool) -> Option<Self> {
        let program = process::cached(&format!(
            "nats-server-{}/nats-server",
            process::version("NATS_SERVER_VERSION")
        ))?;
        let daemon = Daemon::new("nats", "nats.conf");
        let port = process::port();
        let login = match &access {
            Access::Anyone => String::new(),
            Access::Password { user, password } => {
                format!("authorization {{ user: \"{user}\", password: \"{password}\" }}\n")
            }
            Access::Limited(permissions) => users(permissions),
            Access::Token(token) => format!("authorization {{ token: \"{token}\" }}\n"),
            Access::Credentials { server, .. } => server.clone(),
        };
        let tls = if has_tls {
            let tls::Certificates {
                certificate, key, ..
            } = &*tls::CERTIFICATES;
            format!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
                certificate.display(),
                key.display()
            )
        } else {
            String::new()
        };
        let file = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\njetstream {{ store_dir: \"{}\" }}\n{login}{tls}",
            daemon.data().display()
        );
        daemon.write(&file);
        let own = Some(Own { program, daemon });
        Some(Self {
            url: format!("nats://127.0.0.1:{port}"),
            access,
            has_tls,
            is_tls_first: false,
            own,
        })
    }

    /// A shared server with a proxy for this test in front of it. The methods here bypass the proxy.
    pub(crate) fn behind_proxy() -> Option<(&'static Self, Proxy)> {
        static OURS: OnceLock<Option<Nats>> = OnceLock::new();
        let mut nats = Self::shared()?;
        if nats.own.is_none() {
            nats = OURS.get_or_init(Self::private).as_ref()?;
        }
        runtime().block_on(async {
            // Addresses that a client learns from the server would lead it past the proxy.
            let learned = nats.connect().await.server_info().connect_urls;
            assert!(learned.is_empty(), "the server tells of {learned:?}");
        });
        Some((nats, nats.proxy()))
    }

    /// A running server for one test with a proxy in front of it.
    pub(crate) fn private_behind_proxy() -> Option<(Self, Proxy)> {
        let nats = Self::private()?;
        let proxy = nats.proxy();
        Some((nats, proxy))
    }

    fn proxy(&self) -> Proxy {
        Proxy::start(process::port(), self.port())
    }

    /// The port of [`Nats::url`].
    pub(crate) fn port(&self) -> u16 {
        let port = self.url.rsplit(':').next();
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Starts or restarts it on the same port and data. JetStream answers when this returns.
    pub(crate) fn start(&self) {
        let daemon = self.daemon();
        let mut command = daemon.command(&self.own().program);
        command.arg("-c").arg(&daemon.file);
        let has_jetstream = daemon.text().contains("store_dir");
        daemon.start(command, || {
            runtime().block_on(async {
                let Ok(client) = self.options().connect(&self.servers()[..]).await else {
                    return false;
                };
                !has_jetstream || jetstream::new(client).query_account().await.is_ok()
            })
        });
    }

    /// Changes the port for its next start, while it is stopped.
    pub(crate) fn move_to(&mut self, port: u16) {
        let (old, new) = (format!(":{}", self.port()), format!(":{port}"));
        self.daemon().edit(|text| text.replace(&old, &new));
        self.url = self.url.replace(&old, &new);
    }

    daemon_methods!();

    /// Creates a stream in files for `PREFIX.>`, with a unique prefix, which is returned.
    pub(crate) fn stream(&self, name: &str) -> String {
        self.stream_with(name, |_| {})
    }

    /// [`Nats::stream`] with other settings.
    pub(crate) fn stream_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut jetstream::stream::Config),
    ) -> String {
        let prefix = unique(name);
        let mut settings = jetstream::stream::Config {
            name: prefix.clone(),
            subjects: vec![format!("{prefix}.>")],
            storage: jetstream::stream::StorageType::File,
            ..Default::default()
        };
        change(&mut settings);
        runtime().block_on(async {
            self.jetstream()
                .await
                .create_stream(settings)
                .await
                .expect("a stream");
        });
        prefix
    }

    /// All messages in the stream, in order.
    pub(crate) fn read(&self, stream: &str) -> Vec<Stored> {
        // A cluster that has just lost a server may refuse for a moment.
        wait::until_some("the stream is read", wait::PATIENCE, || {
            let read = runtime().block_on(self.try_read(stream));
            read.map_err(|error| println!("reading {stream}: {error}"))
                .ok()
        })
    }

    async fn try_read(&self, stream: &str) -> Result<Vec<Stored>, async_nats::Error> {
        let context = self.jetstream().await;
        let stream = context.get_stream(stream).await?;
        let wanted = stream.get_info().await?.state.messages;
        let settings = pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(30),
            ..Default::default()
        };
        let consumer: PullConsumer = stream.create_consumer(settings).await?;
        let mut messages = Vec::new();
        while (messages.len() as u64) < wanted {
            let mut batch = consumer.fetch().max_messages(500).messages().await?;
            while let Some(message) = batch.next().await {
                messages.push(stored(&message?.message));
            }
        }
        Ok(messages)
    }

    /// Subscribes without a stream, from now on.
    pub(crate) fn subscribe(&self, subject: &str) -> Subscription {
        runtime().block_on(async {
            let client = self
                .options()
                .connect(&self.servers()[..])
                .await
                .expect("nats-server answers");
            let subscriber = client
                .subscribe(subject.to_owned())
                .await
                .expect("a subscription");
            client.flush().await.expect("nats-server answers");
            Subscription {
                subscriber,
                _client: client,
            }
        })
    }

    /// Whether it accepts a message of 1 MiB with its headers: a server's default is 1 MiB for both.
    pub(crate) fn takes_large_messages(&self) -> bool {
        runtime().block_on(async { self.connect().await.server_info().max_payload > 1_100_000 })
    }

    /// A NATS client for the test.
    pub(crate) async fn connect(&self) -> async_nats::Client {
        self.options()
            .connect(&self.servers()[..])
            .await
            .expect("nats-server answers")
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.connect().await)
    }

    fn options(&self) -> async_nats::ConnectOptions {
        let mut options = async_nats::ConnectOptions::new().name("hookbridge tests");
        if self.has_tls {
            options = options
                .require_tls(true)
                .add_root_certificates(tls::CERTIFICATES.authority.clone());
        }
        if self.is_tls_first {
            options = options.tls_first();
        }
        match &self.access {
            Access::Anyone => options,
            Access::Password { user, password } => {
                options.user_and_password((*user).to_owned(), (*password).to_owned())
            }
            Access::Limited(_) => options.user_and_password("admin".into(), "admin".into()),
            Access::Token(token) => options.token((*token).to_owned()),
            Access::Credentials { file, .. } => {
                let text = std::fs::read_to_string(file).expect("a credentials file");
                options.credentials(&text).expect("valid credentials")
            }
        }
    }

    fn servers(&self) -> Vec<&str> {
        self.url.split(',').collect()
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("a nats-server of the test's own")
    }

    fn daemon(&self) -> &Daemon {
        &self.own().daemon
    }
}

/// The end of the configuration for [`Access::Limited`].
fn users(permissions: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: admin, password: admin }}, {{ user: bridge, password: bridge, permissions: {{ {permissions} }} }}] }}\n"
    )
}

/// A core NATS subscription, without JetStream.
pub(crate) struct Subscription {
    subscriber: async_nats::Subscriber,
    _client: async_nats::Client,
}

impl Subscription {
    /// The next message; panics if none arrives in time.
    pub(crate) fn next(&mut self) -> Stored {
        let next = async { tokio::time::timeout(wait::PATIENCE, self.subscriber.next()).await };
        let message = runtime()
            .block_on(next)
            .expect("a message in time")
            .expect("an open subscription");
        stored(&message)
    }
}

fn stored(message: &async_nats::Message) -> Stored {
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    Stored {
        topic: message.subject.to_string(),
        key: None,
        headers: headers
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.to_string(), value.to_string()))
            })
            .collect(),
        value: message.payload.to_vec(),
        partition: 0,
    }
}

/// A user's credentials and the server's configuration for them: an operator, the system account, and an account with
/// JetStream and this user.
pub(crate) fn credentials() -> Access {
    let operator = nkeys::KeyPair::new_operator();
    let (system, account) = (nkeys::KeyPair::new_account(), nkeys::KeyPair::new_account());
    let user = nkeys::KeyPair::new_user();
    let unlimited = r#""subs":-1,"data":-1,"payload":-1"#;
    let operator_token = token(
        &operator,
        &operator.public_key(),
        r#""type":"operator","version":2"#,
    );
    let of_account = |account: &nkeys::KeyPair, jetstream: &str| {
        let others = r#""imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1"#;
        let nats =
            format!(r#""type":"account","version":2,"limits":{{{unlimited},{others}{jetstream}}}"#);
        token(&operator, &account.public_key(), &nats)
    };
    let system_token = of_account(&system, "");
    let account_token = of_account(
        &account,
        r#","mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1"#,
    );
    let user_token = token(
        &account,
        &user.public_key(),
        &format!(r#""type":"user","version":2,{unlimited}"#),
    );
    let file = process::directory("credentials").join("bridge.creds");
    let seed = user.seed().expect("a new user has a seed");
    std::fs::write(
        &file,
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ),
    )
    .expect("a file");
    let (system, account) = (system.public_key(), account.public_key());
    let server = format!(
        "operator: {operator_token}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {system}: {system_token}, {account}: {account_token} }}\n"
    );
    Access::Credentials { file, server }
}

/// A JWT as nats-server reads them.
fn token(issuer: &nkeys::KeyPair, subject: &str, nats: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let header = base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let claims = format!(
        r#"{{"jti":"{subject}{now}","iat":{now},"iss":"{}","name":"tests","sub":"{subject}","nats":{{{nats}}}}}"#,
        issuer.public_key()
    );
    let signed = format!("{header}.{}", base64url(claims.as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).expect("an issuer can sign");
    format!("{signed}.{}", base64url(&signature))
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let block = chunk
            .iter()
            .fold(0_u32, |block, byte| block << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            let sextet = block >> (18 - 6 * index) & 63;
            text.push(char::from(ALPHABET[sextet as usize]));
        }
    }
    text
}
