//! A connection with its acknowledgement inbox, and the supervisor that replaces it when it breaks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::connection::State;
use async_nats::{
    Client, ClientError, Event, Message, ReconnectToServer, Server, ServerInfo, Statistics,
    Subscriber,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::breaker::Breaker;
use super::failure::{describe, describe_at, diagnose, is_open};
use super::outbox::Outbox;
use super::outcome::{LastStream, of_answer};
use super::pace::Pace;
use super::refusals::{Refusals, Summary, Violation};
use super::settings::{Acknowledgement, Settings};
use crate::brokers::backoff::Backoff;
use crate::brokers::durability::Attention;
use crate::brokers::health::Health;
use crate::brokers::meter::Meter;
use crate::brokers::outcome::{Outcome, Reason, Restart};
use crate::brokers::waiters::{Ticket, Waiters};
use crate::task;
use crate::telemetry::{LogThrottle, shorten};

/// A client whose server has not answered for this long while connected is replaced.
const STUCK: Duration = Duration::from_secs(60);

/// Pause between connection attempts of an abandoned client.
const ABANDONED: Duration = Duration::from_secs(600);

/// Time limit for draining a replaced connection.
const RETIRED_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A request whose answer proves that the acknowledgement inbox works. It changes nothing, and a server without JetStream
/// answers it too, with "no responders".
const QUESTION: &str = "$JS.API.INFO";

/// Marks the proof's reply subject instead of a ticket; not a hexadecimal digit.
const PROOF: char = 'y';

/// Pause between unanswered requests for a proof.
const QUESTION_PAUSE: Duration = Duration::from_secs(2);

/// Pause before a reconnect that checks whether a refused inbox is allowed now.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Minimum time between diagnoses of a silent server.
const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(30);

/// The prefix of complaints about a refused acknowledgement inbox.
const NO_PERMISSION: &str = "authorization failed: the user has no permission to";

/// The prefix of complaints about an established connection.
const CONNECTED: &str = "connected";

/// A client with its acknowledgement inbox.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) inbox: String,
    pub(super) outbox: Outbox,
    /// Number of configured servers.
    configured: usize,
    /// Holds the client, which ends only with this task.
    _answers: AbortOnDropHandle<()>,
    _prover: AbortOnDropHandle<()>,
    /// Ends the client's own thread, if it has one.
    _home: Option<DropGuard>,
}

impl Connection {
    /// Starts a client, which connects in the background, and the tasks that read its answers.
    pub(super) async fn open(
        settings: &Settings,
        shared: &Arc<Shared>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        match settings.acknowledgement {
            Acknowledgement::JetStream => {
                Self::open_here(settings.clone(), Arc::clone(shared)).await
            }
            // The echo of a message shows that the server has processed it; a preceding violation shows that it refused it.
            // The client passes the two to different tasks, which keep their order only on one thread (see
            // `dispatch_answers`).
            Acknowledgement::Core => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let opening = runtime.spawn(Self::open_here(settings.clone(), Arc::clone(shared)));
                let stop = CancellationToken::new();
                let stopped = stop.clone().cancelled_owned();
                std::thread::Builder::new()
                    .name("nats-core".to_owned())
                    .spawn(move || runtime.block_on(stopped))?;
                let home = stop.drop_guard();
                let mut connection = opening.await??;
                connection._home = Some(home);
                Ok(connection)
            }
        }
    }

    async fn open_here(
        settings: Settings,
        shared: Arc<Shared>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let number = shared.current.fetch_add(1, Ordering::AcqRel) + 1;
        let proof = Arc::new(Proof {
            number,
            ..Proof::default()
        });
        let options = settings
            .connect_options()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::ZERO)
            .reconnect_to_server_callback(attempts(&settings, &shared, number))
            .event_callback({
                let (shared, proof) = (Arc::clone(&shared), Arc::clone(&proof));
                move |event| {
                    // Events of a replaced connection say nothing about the broker.
                    if shared.current.load(Ordering::Acquire) == number {
                        shared.note(&event, &proof);
                    }
                    std::future::ready(())
                }
            });
        let addresses = settings.addresses();
        let configured = addresses.len();
        let client = options.connect(addresses).await?;
        let inbox = format!("{}.", client.new_inbox());
        proof.begin(&client, &inbox);
        let answers = client.subscribe(format!("{inbox}*")).await?;
        let outbox = Outbox::new(
            client.clone(),
            Arc::clone(&proof),
            settings.acknowledgement,
            Arc::clone(&shared),
        );
        let handing_out = dispatch_answers(
            answers,
            inbox.len(),
            settings.acknowledgement,
            Arc::clone(&proof),
            Arc::clone(&shared),
        );
        let answers = task::spawn_essential("NATS acknowledgements", handing_out);
        let proving = prove(client.clone(), inbox.clone(), proof, shared);
        let prover = task::spawn_essential("NATS refusals", proving);
        Ok(Self {
            client,
            inbox,
            outbox,
            configured,
            _answers: AbortOnDropHandle::new(answers),
            _prover: AbortOnDropHandle::new(prover),
            _home: None,
        })
    }

    /// Whether there is another server to reconnect to: configured, or announced by the last one.
    pub(super) fn knows_other_servers(&self) -> bool {
        self.configured > 1 || self.client.server_info().connect_urls.len() > 1
    }
}

/// Called before each connection attempt: reports why the last ones failed, and chooses the next server and the pause.
fn attempts(
    settings: &Settings,
    shared: &Arc<Shared>,
    number: u64,
) -> impl Fn(Vec<Server>, ServerInfo) -> std::future::Ready<Option<ReconnectToServer>>
+ Send
+ Sync
+ 'static {
    let shared = Arc::clone(shared);
    let is_tls_first = settings.is_tls_first();
    let pace = Mutex::new((Pace::default(), None::<Instant>, 0));
    move |pool, _| {
        if shared.current.load(Ordering::Acquire) != number {
            // A client that was never connected cannot be stopped.
            let first = pool.into_iter().next();
            return std::future::ready(first.map(|server| ReconnectToServer {
                addr: server.addr,
                delay: Some(ABANDONED),
            }));
        }
        let failures: Vec<_> = pool
            .iter()
            .filter_map(|server| {
                let error = server.last_error.as_deref()?;
                Some((describe(error, &server.addr), is_open(error), &server.addr))
            })
            .collect();
        let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        let (pace, diagnosed, failed_before) = &mut *pace;
        // Otherwise `last_error` is from an earlier attempt.
        let failed: usize = pool.iter().map(|server| server.failed_attempts).sum();
        let is_new = std::mem::replace(failed_before, failed) != failed;
        let next = pace.next(&pool);
        *shared.trying.lock().unwrap_or_else(PoisonError::into_inner) = next
            .as_ref()
            .map(|(server, _)| (server.host().to_owned(), server.port()));
        match failures.iter().find(|(_, is_open, _)| *is_open) {
            _ if !is_new => {}
            Some((_, _, server)) => {
                if diagnosed.is_none_or(|last| last.elapsed() >= DIAGNOSIS_INTERVAL) {
                    *diagnosed = Some(Instant::now());
                    let (server, shared) = ((*server).clone(), Arc::clone(&shared));
                    tokio::spawn(async move {
                        shared.complain(&diagnose(&server, is_tls_first).await);
                    });
                }
            }
            None if failures.is_empty() => {}
            None => {
                let failures: Vec<_> = failures.iter().map(|(why, ..)| why.as_str()).collect();
                shared.complain(&failures.join("; "));
            }
        }
        std::future::ready(next.map(|(addr, delay)| ReconnectToServer {
            addr,
            delay: Some(delay),
        }))
    }
}

/// Whether a client's acknowledgement inbox is known to work on its current connection. The server does not confirm a
/// subscription; it reports a refused one before it answers anything sent later.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// The client's number in [`Shared::current`].
    number: u64,
    inbox: OnceLock<String>,
    /// Counts the client's connections.
    statistics: OnceLock<Arc<Statistics>>,
    /// The connections on which the proof was last requested, and last received.
    asked: AtomicU64,
    proven: AtomicU64,
    is_refused: AtomicBool,
    changed: Notify,
}

impl Proof {
    fn begin(&self, client: &Client, inbox: &str) {
        let _first = self.statistics.set(client.statistics());
        let _first = self.inbox.set(inbox.to_owned());
        self.changed.notify_one();
    }

    pub(super) fn holds(&self) -> bool {
        let connection = self.connections();
        connection != 0 && self.proven.load(Ordering::Acquire) == connection
    }

    /// The number of the current connection; 0 before the first.
    fn connections(&self) -> u64 {
        let statistics = self.statistics.get();
        statistics.map_or(0, |statistics| statistics.connects.load(Ordering::Acquire))
    }

    fn is_of_inbox(&self, subject: &str) -> bool {
        self.inbox
            .get()
            .is_some_and(|inbox| subject.starts_with(inbox.as_str()))
    }

    /// The inbox's subjects as a permission would name them.
    fn prefix(&self) -> String {
        let inbox = self.inbox.get().map(String::as_str).unwrap_or_default();
        let prefix = inbox.trim_end_matches('.').rsplit_once('.');
        format!("{}.>", prefix.map_or(inbox, |(prefix, _)| prefix))
    }
}

/// Requests the proof on each connection until there is one. If the inbox is refused, reconnects from time to time.
async fn prove(client: Client, inbox: String, proof: Arc<Proof>, shared: Arc<Shared>) {
    loop {
        let connection = proof.connections();
        let is_connected = client.connection_state() == State::Connected && connection != 0;
        let is_asked = is_connected && !proof.holds();
        if is_asked && proof.is_refused.load(Ordering::Acquire) {
            tokio::time::sleep_until(Instant::now() + REFUSED_PAUSE).await;
            // If this fails, the client has ended and is replaced.
            let _ended = client.force_reconnect().await;
        } else if is_asked {
            proof.asked.store(connection, Ordering::Release);
            let reply = format!("{inbox}{PROOF}{connection:x}");
            let _ended = client
                .publish_with_reply(QUESTION, reply, Bytes::new())
                .await;
        }
        // A new connection notifies, but the client's event queue may have been full.
        let until = Instant::now() + QUESTION_PAUSE;
        let changed = tokio::time::timeout_at(until, proof.changed.notified());
        if changed.await.is_err() && is_asked && proof.connections() == connection && !proof.holds()
        {
            shared.complain(&format!("{CONNECTED}, but the server does not answer"));
        }
    }
}

/// State shared by the successive connections of a broker.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    pub(super) waiters: Arc<Waiters>,
    pub(super) breaker: Breaker,
    health: Mutex<Health>,
    lost: Mutex<Option<Instant>>,
    started: Instant,
    /// When the newest of the stored messages was sent, in milliseconds since `started`.
    newest_stored: AtomicU64,
    /// Subjects to which the server does not let the user publish.
    pub(super) refusals: Refusals,
    /// Host and port of the server that the client is connecting to.
    trying: Mutex<Option<(String, u16)>>,
    metrics: Arc<Meter>,
    /// The number of the current client.
    current: AtomicU64,
    broken: Mutex<Option<Restart>>,
    asked: Notify,
    complaints: LogThrottle,
    slow: LogThrottle,
    pub(super) attention: watch::Sender<Attention>,
}

impl Shared {
    pub(super) fn new(name: &str, max_in_flight: usize, metrics: Arc<Meter>) -> Self {
        Self {
            name: name.to_owned(),
            waiters: Waiters::new(max_in_flight),
            breaker: Breaker::default(),
            health: Mutex::new(Health::Starting),
            lost: Mutex::new(None),
            started: Instant::now(),
            newest_stored: AtomicU64::new(0),
            refusals: Refusals::default(),
            trying: Mutex::new(None),
            metrics,
            current: AtomicU64::new(0),
            broken: Mutex::new(None),
            asked: Notify::new(),
            complaints: LogThrottle::default(),
            slow: LogThrottle::default(),
            attention: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn health(&self) -> Health {
        let health = self.lock_health().clone();
        match (&health, self.refusals.summary()) {
            (Health::Up { .. }, Some(Summary { why, since })) => Health::Refusing {
                why,
                takes_others: self.has_stored_one_sent_after(since),
            },
            _ => health,
        }
    }

    /// Time without a connection: zero if its loss has not been noticed yet, and the maximum if there never was one.
    pub(super) fn lost_for(&self) -> Duration {
        if matches!(*self.lock_health(), Health::Up { .. }) {
            return Duration::ZERO;
        }
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.map_or(Duration::MAX, |lost| lost.elapsed())
    }

    /// A message to this subject, sent at this time, was acknowledged.
    pub(super) fn note_stored(&self, sent: Instant, subject: &str) {
        if self.refusals.note_stored(subject) {
            tracing::info!(
                broker = self.name,
                subject = shorten(subject),
                "the server accepts messages to the subject again"
            );
        }
        self.newest_stored
            .fetch_max(self.millis(sent), Ordering::Relaxed);
    }

    /// Whether a message that was sent after this time has been acknowledged.
    pub(super) fn has_stored_one_sent_after(&self, then: Instant) -> bool {
        self.newest_stored.load(Ordering::Relaxed) > self.millis(then)
    }

    fn millis(&self, then: Instant) -> u64 {
        let since = then.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn note_silence(&self) {
        self.breaker.note_silence();
        if self.breaker.open_for() > STUCK {
            self.ask_for_replacement(Restart::Stuck);
        }
    }

    pub(super) fn ask_for_replacement(&self, reason: Restart) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.asked.notify_one();
    }

    /// The outcome of a message that is not sent because its acknowledgement could not arrive.
    pub(super) fn without_inbox(&self) -> Outcome {
        match self.health() {
            Health::Down(why) if why.starts_with(NO_PERMISSION) => {
                Outcome::not_stored(Reason::Authorization, why)
            }
            _ => Outcome::not_stored(
                Reason::Disconnected,
                "connected only now; the acknowledgement inbox is not confirmed yet",
            ),
        }
    }

    /// Resolves all waiters: as unknown if the client had the message, else as not stored. Returns the number of waiters.
    pub(super) fn end_all(&self, reason: Reason, detail: &'static str) -> usize {
        let outcome = |is_handed_over| match is_handed_over {
            true => Outcome::unknown(reason, detail),
            false => Outcome::not_stored(reason, detail),
        };
        self.waiters.resolve_all(outcome)
    }

    fn note(&self, event: &Event, proof: &Proof) {
        match event {
            Event::Connected => {
                proof.is_refused.store(false, Ordering::Release);
                proof.changed.notify_one();
            }
            Event::Disconnected | Event::Closed => {
                let is_retry = proof.is_refused.load(Ordering::Acquire);
                if !is_retry {
                    *self.lost.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Instant::now());
                    self.change_to(Health::Down("not connected".to_owned()));
                }
                // The silence of this connection says nothing about the next one.
                self.breaker.note_answer();
                let waiting = self.end_all(Reason::Disconnected, "the connection ended");
                if waiting > 0 {
                    self.refusals.note_doubt();
                }
                if !is_retry {
                    tracing::warn!(
                        broker = self.name,
                        waiting,
                        "broker is down: the connection ended"
                    );
                }
            }
            Event::LameDuckMode => tracing::warn!(
                broker = self.name,
                "the server is shutting down; another one will be used"
            ),
            Event::Draining => {}
            Event::SlowConsumer(_) => {
                if let Some(suppressed) = self.slow.allow() {
                    tracing::warn!(
                        broker = self.name,
                        suppressed,
                        "acknowledgements arrive faster than they are read"
                    );
                }
            }
            Event::ServerError(error) => {
                let words = error.to_string();
                let words = words.strip_prefix("nats: ").unwrap_or(&words);
                match Violation::parse(words) {
                    Some(violation) => self.note_violation(violation, proof),
                    None => self.complain(words),
                }
            }
            // The server pool has the details of failed attempts, except of failed name resolution.
            Event::ClientError(ClientError::Other(kind)) => {
                let server = self.trying.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some((host, port)), true) = (&*server, kind.starts_with("DNS")) {
                    self.complain(&describe_at(kind, host, *port));
                }
            }
            Event::ClientError(error) => self.complain(&error.to_string()),
        }
    }

    fn note_violation(&self, violation: Violation, proof: &Proof) {
        match violation {
            // The server processed the subscription earlier, and did not refuse it.
            Violation::Publish(subject) if subject == QUESTION => {
                self.note_proof(proof, proof.asked.load(Ordering::Acquire));
            }
            Violation::Publish(subject) if proof.is_of_inbox(&subject) => {
                self.refuse_inbox(proof, "publish to", "; ack = \"core\" needs it");
            }
            Violation::Subscription(subject) if proof.is_of_inbox(&subject) => {
                let advice = ", or set `inbox_prefix` to one that the user may subscribe to";
                self.refuse_inbox(proof, "subscribe to", advice);
            }
            Violation::Publish(subject) => {
                if self.refusals.note_violation(&subject, &self.waiters) {
                    tracing::warn!(
                        broker = self.name,
                        subject = shorten(&subject),
                        "authorization failed: the user has no permission to publish to the subject; allow it in the server's `permissions`"
                    );
                }
            }
            Violation::Subscription(_) => self.complain(&violation.to_string()),
        }
    }

    fn note_proof(&self, proof: &Proof, connection: u64) {
        // A replaced client says nothing about the broker.
        if self.current.load(Ordering::Acquire) != proof.number {
            return;
        }
        if connection != proof.connections() || proof.is_refused.load(Ordering::Acquire) {
            return;
        }
        if proof.proven.swap(connection, Ordering::AcqRel) == connection {
            return;
        }
        proof.changed.notify_one();
        tracing::info!(broker = self.name, "broker is up");
        // Before the health, so that the broker never appears up with outdated findings.
        self.attention
            .send_modify(|attention| attention.arrivals += 1);
        self.change_to(Health::Up {
            missing: Vec::new(),
        });
        // Again, to wake those who wait until it is up.
        self.attention.send_modify(|_| {});
    }

    /// Stops publishing while the user may not receive the answers: events would be stored, but never acknowledged.
    fn refuse_inbox(&self, proof: &Proof, what: &str, advice: &str) {
        proof.proven.store(0, Ordering::Release);
        proof.is_refused.store(true, Ordering::Release);
        proof.changed.notify_one();
        let prefix = proof.prefix();
        let why = format!(
            "{NO_PERMISSION} {what} its acknowledgement inbox {prefix}; allow it in the server's `permissions`{advice}"
        );
        let before = std::mem::replace(&mut *self.lock_health(), Health::Down(why.clone()));
        let waiting = self.end_all(
            Reason::Authorization,
            "the acknowledgement inbox is refused",
        );
        if waiting > 0 {
            self.refusals.note_doubt();
        }
        if before != Health::Down(why.clone()) {
            tracing::error!(broker = self.name, waiting, "broker is down: {why}");
        }
    }

    /// Remembers a failure for `/readyz`, and logs it once.
    fn complain(&self, what: &str) {
        let mut health = self.lock_health();
        if !matches!(*health, Health::Up { .. }) {
            let why = if what.starts_with(CONNECTED) {
                what.to_owned()
            } else {
                format!("not connected ({what})")
            };
            if *health == Health::Down(why.clone()) {
                return;
            }
            *health = Health::Down(why);
        }
        drop(health);
        if let Some(suppressed) = self.complaints.allow() {
            tracing::warn!(broker = self.name, suppressed, "{what}");
        }
    }

    fn change_to(&self, health: Health) {
        *self.lock_health() = health;
    }

    /// Ignores the events of the last connection from now on.
    pub(super) fn stop(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves the waiter of each answer. Ends with the client.
async fn dispatch_answers(
    mut answers: Subscriber,
    prefix: usize,
    acknowledgement: Acknowledgement,
    proof: Arc<Proof>,
    shared: Arc<Shared>,
) {
    let mut last = LastStream::default();
    while let Some(answer) = answers.next().await {
        let mut next = Some(answer);
        if acknowledgement == Acknowledgement::Core {
            // Lets this thread process everything that arrived before these echoes.
            let mut echoes = Vec::new();
            while let Some(echo) = next {
                echoes.push(echo);
                next = answers.next().now_or_never().flatten();
            }
            tokio::task::yield_now().await;
            for echo in echoes {
                take(&echo, prefix, acknowledgement, &mut last, &proof, &shared);
            }
        } else if let Some(answer) = next {
            take(&answer, prefix, acknowledgement, &mut last, &proof, &shared);
        }
    }
}

fn take(
    answer: &Message,
    prefix: usize,
    acknowledgement: Acknowledgement,
    last: &mut LastStream,
    proof: &Proof,
    shared: &Shared,
) {
    let token = answer.subject.get(prefix..).unwrap_or_default();
    if let Some(connection) = token.strip_prefix(PROOF) {
        if let Ok(connection) = u64::from_str_radix(connection, 16) {
            shared.note_proof(proof, connection);
        }
        return;
    }
    let Ok(number) = u64::from_str_radix(token, 16) else {
        return;
    };
    shared.breaker.note_answer();
    let outcome = match acknowledgement {
        Acknowledgement::JetStream => of_answer(answer, last),
        Acknowledgement::Core
            if shared
                .refusals
                .is_doubtful_echo(Ticket::from_number(number), &shared.waiters) =>
        {
            let detail = "the server refused some of the messages to this subject";
            Outcome::unknown(Reason::Authorization, detail)
        }
        Acknowledgement::Core => Outcome::stored(false, None),
    };
    let is_stored = matches!(outcome, Outcome::Stored(_));
    if !shared.waiters.resolve(Ticket::from_number(number), outcome) && is_stored {
        shared.metrics.late_acks.inc();
    }
    shared.refusals.note_answer(&shared.waiters);
}

/// Replaces the connection whenever that is requested, and drains the old one.
pub(super) async fn supervise(
    settings: Settings,
    connection: Arc<ArcSwap<Connection>>,
    shared: Arc<Shared>,
) {
    let mut backoff = Backoff::default();
    loop {
        shared.asked.notified().await;
        let Some(reason) = shared
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            continue;
        };
        if let Some(due) = backoff.due() {
            tokio::time::sleep_until(due.into()).await;
        }
        backoff.begin(Instant::now().into_std());
        tracing::error!(
            broker = shared.name,
            reason = reason.label(),
            "replacing the connection"
        );
        match Connection::open(&settings, &shared).await {
            Ok(new) => {
                shared.metrics.count_restart(reason);
                shared.breaker.note_answer();
                if shared.end_all(Reason::Disconnected, "the connection was replaced") > 0 {
                    shared.refusals.note_doubt();
                }
                let old = connection.swap(Arc::new(new));
                tokio::spawn(async move {
                    tokio::time::timeout(RETIRED_CLIENT_TIMEOUT, old.client.drain()).await
                });
            }
            Err(error) => {
                tracing::error!(broker = shared.name, %error, "no new connection could be opened");
                shared.ask_for_replacement(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ServerError;
    use serde_json::json;

    use super::super::settings::TABLE;
    use super::*;
    use crate::brokers::waiters::Waiter;
    use crate::table::{Reading, Section};

    const INBOX: &str = "_INBOX.abc.def.";

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new("main", 9, Arc::new(Meter::unregistered())))
    }

    /// A client that is connected, whose inbox has not answered yet.
    fn connected(shared: &Shared) -> Proof {
        let number = shared.current.fetch_add(1, Ordering::AcqRel) + 1;
        let proof = Proof {
            number,
            ..Proof::default()
        };
        proof.inbox.set(INBOX.to_owned()).unwrap();
        proof.statistics.set(Arc::default()).unwrap();
        connect_again(shared, &proof);
        proof
    }

    fn connect_again(shared: &Shared, proof: &Proof) {
        let statistics = proof.statistics.get().unwrap();
        statistics.connects.fetch_add(1, Ordering::AcqRel);
        shared.note(&Event::Connected, proof);
    }

    fn violation(words: &str) -> Event {
        let words = format!("Permissions Violation for {words}");
        Event::ServerError(ServerError::Other(words))
    }

    fn waiter(shared: &Shared, is_handed_over: bool) -> Waiter {
        let deadline = Instant::now() + Duration::from_secs(8);
        let waiter = shared.waiters.register(deadline).unwrap();
        if is_handed_over {
            assert!(shared.waiters.hand_over_as(waiter.ticket(), 0));
        }
        waiter
    }

    fn is_up(shared: &Shared) -> bool {
        matches!(shared.health(), Health::Up { .. })
    }

    fn down(shared: &Shared) -> String {
        match shared.health() {
            Health::Down(why) => why,
            health => panic!("{health:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_is_up_once_its_own_inbox_has_answered() {
        let shared = shared();
        let attention = shared.attention.subscribe();
        let proof = connected(&shared);
        assert!(!is_up(&shared) && !proof.holds());
        shared.note_proof(&proof, 1);
        assert!(is_up(&shared) && proof.holds());
        assert_eq!(attention.borrow().arrivals, 1, "its subjects are inspected");
        shared.note_proof(&proof, 1);
        assert_eq!(attention.borrow().arrivals, 1, "once");

        shared.note(&Event::Disconnected, &proof);
        connect_again(&shared, &proof);
        assert!(!is_up(&shared) && !proof.holds());
        shared.note_proof(&proof, 1);
        assert!(!is_up(&shared), "that was the connection before");
        shared.note_proof(&proof, 2);
        assert!(is_up(&shared) && proof.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_client_says_nothing_of_the_broker() {
        let shared = shared();
        let old = connected(&shared);
        let new = connected(&shared);
        shared.note_proof(&old, 1);
        assert!(!is_up(&shared));
        shared.note_proof(&new, 1);
        assert!(is_up(&shared));
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_connection_ends_only_messages_given_to_the_client_are_unknown() {
        let shared = shared();
        let proof = connected(&shared);
        shared.note_proof(&proof, 1);
        let (given, kept) = (waiter(&shared, true), waiter(&shared, false));
        shared.note(&Event::Disconnected, &proof);
        assert_eq!(down(&shared), "not connected");
        assert!(matches!(given.await, Some(Outcome::Unknown(_))));
        let Some(Outcome::NotStored(not_stored)) = kept.await else {
            panic!("it was certainly not sent")
        };
        assert_eq!(not_stored.reason, Reason::Disconnected);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_how_long_there_has_been_no_connection() {
        let shared = shared();
        assert_eq!(shared.lost_for(), Duration::MAX, "there never was one");
        let proof = connected(&shared);
        shared.note_proof(&proof, 1);
        assert_eq!(shared.lost_for(), Duration::ZERO);
        shared.note(&Event::Disconnected, &proof);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(shared.lost_for(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_inbox_keeps_the_broker_down_and_names_the_permission_until_it_is_granted() {
        for (refused, what) in [
            (
                format!("Subscription to \"{INBOX}*\""),
                "subscribe to its acknowledgement inbox _INBOX.abc.>",
            ),
            (
                format!("Publish to \"{INBOX}1\""),
                "publish to its acknowledgement inbox _INBOX.abc.>",
            ),
        ] {
            let shared = shared();
            let proof = connected(&shared);
            let given = waiter(&shared, true);
            shared.note(&violation(&refused), &proof);
            assert!(down(&shared).contains(what), "{}", down(&shared));
            assert!(matches!(given.await, Some(Outcome::Unknown(_))));
            shared.note_proof(&proof, 1);
            assert!(!is_up(&shared), "an answer does not outweigh it");
            let Outcome::NotStored(not_stored) = shared.without_inbox() else {
                panic!("nothing was sent")
            };
            assert_eq!(not_stored.reason, Reason::Authorization);
            // The bridge itself ends the connection, to find out whether that has changed.
            shared.note(&Event::Disconnected, &proof);
            assert!(down(&shared).contains(what));
            connect_again(&shared, &proof);
            shared.note_proof(&proof, 2);
            assert!(is_up(&shared));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_question_may_be_refused_because_a_refusal_is_an_answer() {
        let shared = shared();
        let proof = connected(&shared);
        proof.asked.store(1, Ordering::Release);
        shared.note(&violation(&format!("Publish to \"{QUESTION}\"")), &proof);
        assert!(is_up(&shared));
    }

    #[tokio::test(start_paused = true)]
    async fn a_complaint_explains_an_outage_and_causes_none() {
        let shared = shared();
        shared.complain("refused");
        assert_eq!(down(&shared), "not connected (refused)");
        shared.complain(&format!("{CONNECTED}, but silent"));
        assert_eq!(down(&shared), "connected, but silent");
        let proof = connected(&shared);
        shared.note_proof(&proof, 1);
        shared.complain("refused");
        assert!(is_up(&shared));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_for_a_minute_gets_a_new_client() {
        let shared = shared();
        let asked = || shared.broken.lock().unwrap().take();
        for _ in 0..100 {
            shared.note_silence();
        }
        tokio::time::advance(STUCK).await;
        shared.note_silence();
        assert_eq!(asked(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        shared.note_silence();
        assert_eq!(asked(), Some(Restart::Stuck));
        shared.breaker.note_answer();
        shared.note_silence();
        assert_eq!(asked(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_messages_that_are_stored_out_of_order_the_newest_counts() {
        let shared = shared();
        tokio::time::advance(Duration::from_secs(1)).await;
        let early = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let late = Instant::now();
        shared.note_stored(late, "a");
        shared.note_stored(early, "a");
        assert!(shared.has_stored_one_sent_after(early));
        assert!(!shared.has_stored_one_sent_after(late));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_do_not_last_are_replaced_less_and_less_often() {
        let reading = Reading::default();
        let values = json!({ "servers": ["nats://127.0.0.1:1"] });
        let values = values.as_object().unwrap().clone();
        let mut section = Section::new(&reading, String::new(), values, &TABLE);
        let settings = Settings::read(&mut section).expect("legal settings");
        let shared = shared();
        let first = Connection::open(&settings, &shared).await.unwrap();
        let connection = Arc::new(ArcSwap::from_pointee(first));
        let supervising = supervise(settings, Arc::clone(&connection), Arc::clone(&shared));
        let supervising = AbortOnDropHandle::new(tokio::spawn(supervising));
        let started = Instant::now();
        for expected in [0, 1, 3, 7, 15, 31, 61] {
            let before = connection.load_full();
            shared.ask_for_replacement(Restart::Stuck);
            while Arc::ptr_eq(&before, &connection.load()) {
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(100)).await;
            }
            assert_eq!(started.elapsed().as_secs(), expected);
        }
        assert_eq!(shared.metrics.restarts_for(Restart::Stuck), 7);
        assert!(!supervising.is_finished());
    }
}
