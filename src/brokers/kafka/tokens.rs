//! Access tokens shared by all clients of one cluster, and renewed before they expire.
//!
//! librdkafka asks for a token on the thread that polls a client, which also dispatches delivery reports. So the request runs
//! on a thread of its own, and only a client that cannot have connected yet waits for it.

use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;

use super::oidc::{self, FetchError, Oidc, Token};

/// A token is renewed after this part of its lifetime. librdkafka asks again after 80 %.
const FRESH_SHARE: f64 = 0.75;
/// The lifetime reported for a token that is being renewed, so that librdkafka soon asks for the new one.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// Limit of a client's wait for its first token.
const FIRST_WAIT: Duration = Duration::from_secs(oidc::TIMEOUT.as_secs() + 1);
/// Bounds of the pause after a failed request. librdkafka then asks every 10 s.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(10);
/// If no client has asked for this long, none is left.
const ABANDONED: Duration = Duration::from_secs(30);

/// librdkafka's prefix of the reason.
const WRAPPER: &str = "Failed to acquire SASL OAUTHBEARER token: ";
const REASON: &str = "no access token: ";

/// The reason from a complaint of librdkafka about a missing token; none if the complaint is about something else.
pub(super) fn missing_token(complaint: &str) -> Option<&str> {
    let reason = complaint.strip_prefix(WRAPPER).unwrap_or(complaint);
    reason.starts_with(REASON).then_some(reason)
}

/// The tokens of one client of an identity provider.
pub(super) struct Tokens {
    oidc: Oidc,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The error of the last request.
    trouble: Option<FetchError>,
    is_fetching: bool,
    last_asked: Option<Instant>,
}

impl State {
    fn has_valid_token(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| !current.left().is_zero())
    }
}

struct Current {
    token: Token,
    since: Instant,
}

impl Current {
    fn left(&self) -> Duration {
        self.token.lifetime.saturating_sub(self.since.elapsed())
    }

    fn is_fresh(&self) -> bool {
        self.since.elapsed() < self.token.lifetime.mul_f64(FRESH_SHARE)
    }
}

/// The reason why no token is valid.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoToken {
    #[error("{REASON}{0}")]
    Fetch(FetchError),
    #[error("{REASON}the token endpoint has not answered yet")]
    Pending,
    #[error("{REASON}no thread could be started: {0}")]
    Thread(std::io::Error),
}

impl Tokens {
    pub(super) fn new(oidc: Oidc) -> Arc<Self> {
        Arc::new(Self {
            oidc,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// A valid token. Waits only if there is neither a valid token nor an error, for [`FIRST_WAIT`] at most.
    ///
    /// # Errors
    /// No valid token.
    pub(super) fn token(self: &Arc<Self>) -> Result<OAuthToken, NoToken> {
        let mut state = self.state();
        state.last_asked = Some(Instant::now());
        if let Some(current) = &state.current
            && current.is_fresh()
        {
            return Ok(self.to_librdkafka(current, current.left()));
        }
        if !state.is_fetching {
            self.start_fetching().map_err(NoToken::Thread)?;
            state.is_fetching = true;
        }
        let has_nothing = |state: &mut State| {
            state.is_fetching && !state.has_valid_token() && state.trouble.is_none()
        };
        let waited = self
            .changed
            .wait_timeout_while(state, FIRST_WAIT, has_nothing);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.current {
            Some(current) if current.is_fresh() => Ok(self.to_librdkafka(current, current.left())),
            Some(current) if !current.left().is_zero() => {
                Ok(self.to_librdkafka(current, current.left().min(COME_AGAIN)))
            }
            _ => Err(state
                .trouble
                .clone()
                .map_or(NoToken::Pending, NoToken::Fetch)),
        }
    }

    /// The error of the last request, if there is no valid token.
    fn trouble(&self) -> Option<String> {
        let state = self.state();
        let trouble = state.trouble.as_ref();
        let trouble = trouble.filter(|_| !state.has_valid_token());
        trouble.map(|error| NoToken::Fetch(error.clone()).to_string())
    }

    fn to_librdkafka(&self, current: &Current, lifetime: Duration) -> OAuthToken {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let until = now.unwrap_or_default() + lifetime;
        OAuthToken {
            token: current.token.value.to_string(),
            principal_name: self.oidc.client_id().to_owned(),
            lifetime_ms: i64::try_from(until.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn start_fetching(self: &Arc<Self>) -> std::io::Result<()> {
        let tokens = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kafka-token".to_owned());
        thread.spawn(move || {
            // However this ends, the next caller may start another request.
            let _ended = Fetching(&tokens);
            tokens.fetch_until_it_succeeds();
        })?;
        Ok(())
    }

    fn fetch_until_it_succeeds(&self) {
        let host = self.oidc.host();
        let mut pause = LEAST_PAUSE;
        loop {
            let fetched = self.oidc.fetch();
            let mut state = self.state();
            match fetched {
                Ok(token) => {
                    if state.trouble.take().is_some() {
                        tracing::info!(endpoint = host, "the token endpoint grants tokens again");
                    }
                    state.current = Some(Current {
                        token,
                        since: Instant::now(),
                    });
                    return;
                }
                Err(error) => {
                    if state.trouble.as_ref() != Some(&error) {
                        let left = state.current.as_ref().map(Current::left);
                        let valid_for_s = left.unwrap_or_default().as_secs();
                        tracing::warn!(
                            endpoint = host,
                            why = %error,
                            valid_for_s,
                            "no new access token for Kafka"
                        );
                    }
                    state.trouble = Some(error);
                }
            }
            let last_asked = state.last_asked;
            drop(state);
            self.changed.notify_all();
            if last_asked.is_none_or(|asked| asked.elapsed() > ABANDONED) {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the fetching thread as ended when dropped.
struct Fetching<'t>(&'t Tokens);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.state().is_fetching = false;
        self.0.changed.notify_all();
    }
}

/// The context of clients that do not publish, and the source of tokens for all contexts.
#[derive(Clone)]
pub(super) struct Login(Option<Arc<Tokens>>);

impl Login {
    pub(super) fn new(tokens: Option<Arc<Tokens>>) -> Self {
        Self(tokens)
    }

    pub(super) fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self.0.as_ref().ok_or("no token is configured")?;
        Ok(tokens.token()?)
    }

    /// The error of the last request, if a token is needed and there is no valid one.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.as_ref()?.trouble()
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl ClientContext for Login {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }
}

impl ConsumerContext for Login {}
