//! Kafka with a listener that requires access tokens, and an identity provider that grants them over HTTPS.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Kafka, QUICK_RETURN};
use crate::support::{process, tls};

/// The client's id and secret.
pub(crate) const CLIENT: (&str, &str) = ("bridge", "hunter2-of-the-client");

impl Kafka {
    /// A shared broker, and `host:port` of its token listener. It accepts unexpired tokens, signed or not, and closes
    /// connections whose token has expired.
    pub(crate) fn with_tokens() -> Option<&'static (Self, String)> {
        static TOKENS: OnceLock<Option<(Kafka, String)>> = OnceLock::new();
        let start = || {
            let settings = format!(
                "{QUICK_RETURN}listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER\n\
                 listener.name.oauth.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;\n\
                 listener.name.oauth.oauthbearer.connections.max.reauth.ms=3600000\n"
            );
            let kafka = Self::absent(&settings, 0)?;
            let address = format!("127.0.0.1:{}", process::port());
            kafka.daemon().edit(|text| {
                let listeners = format!("listeners=OAUTH://{address},PLAIN:");
                text.replace("listeners=PLAIN:", &listeners)
                    .replace("protocol.map=", "protocol.map=OAUTH:SASL_PLAINTEXT,")
            });
            kafka.start();
            Some((kafka, address))
        };
        let started = TOKENS.get_or_init(start);
        started.as_ref().or_else(|| process::missing("Kafka"))
    }
}

/// An identity provider with one client.
pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The lifetime of tokens, and the lifetime that the provider reports.
    valid_for: Duration,
    said: Duration,
    is_broken: bool,
    granted: usize,
    tokens: Vec<String>,
}

impl Provider {
    /// A provider whose tokens are valid for this long.
    pub(crate) fn start(valid_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            valid_for,
            said: valid_for,
            is_broken: false,
            granted: 0,
            tokens: Vec::new(),
        }));
        let certificates = &tls::CERTIFICATES;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that ring knows")
            .with_no_client_auth()
            .with_single_cert(
                tls::certificates_in(&certificates.certificate),
                PrivateKeyDer::from_pem_file(&certificates.key).expect("a key"),
            )
            .expect("a certificate and its key");
        let config = Arc::new(config);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Clients that do not trust the certificate hang up.
                drop(answer(stream, &config, &shared));
            }
        });
        Self { address, state }
    }

    /// The token endpoint.
    pub(crate) fn url(&self) -> String {
        format!("https://{}/token", self.address)
    }

    /// Makes it answer 503, or stop doing so.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.state().is_broken = is_broken;
    }

    /// Makes it grant expired tokens and report otherwise.
    pub(crate) fn grant_expired_tokens(&self) {
        self.state().valid_for = Duration::ZERO;
    }

    /// The number of tokens granted.
    pub(crate) fn granted(&self) -> usize {
        self.state().granted
    }

    /// All tokens granted.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state().tokens.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit)?;
    let connection = ServerConnection::new(Arc::clone(config)).expect("a server's settings");
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"scope=kafka+write") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            read => request.extend(&chunk[..read]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let basic = BASE64.encode(format!("{}:{}", CLIENT.0, CLIENT.1).as_bytes());
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = if state.is_broken {
        ("503 Service Unavailable", "{}".to_owned())
    } else if !request.starts_with("POST /token HTTP/1.1\r\n")
        || !request.contains("grant_type=client_credentials&")
    {
        (
            "400 Bad Request",
            "{\"error\":\"invalid_request\"}".to_owned(),
        )
    } else if !request.contains(&format!("Basic {basic}\r\n")) {
        (
            "401 Unauthorized",
            // Echoes the credentials.
            serde_json::json!({ "error": "invalid_client", "error_description": request })
                .to_string(),
        )
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let exp = (now.unwrap_or_default() + state.valid_for).as_secs();
        let claims = format!(
            "{{\"sub\":\"bridge\",\"exp\":{exp},\"jti\":\"{}\"}}",
            state.granted
        );
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let token = format!("{}.{}.", encode("{\"alg\":\"none\"}"), encode(&claims));
        state.granted += 1;
        state.tokens.push(token.clone());
        let said = state.said.as_secs();
        let body = format!(
            "{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{said}}}"
        );
        ("200 OK", body)
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
