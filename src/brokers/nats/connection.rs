//! A connection with its acknowledgement inbox, and the supervisor that replaces it when it breaks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::connection::State;
use async_nats::{Client, Message, ReconnectToServer, Server, ServerInfo, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{describe, diagnose, is_open};
use super::outbox::Outbox;
use super::outcome::{LastStream, of_answer};
use super::pace::Pace;
use super::settings::{Acknowledgement, Settings};
use super::state::{CONNECTED, Proof, QUESTION, Shared};
use crate::brokers::backoff::Backoff;
use crate::brokers::outcome::{Outcome, Reason};
use crate::brokers::waiters::Ticket;
use crate::task;

/// Pause between connection attempts of an abandoned client.
const ABANDONED: Duration = Duration::from_secs(600);

/// Time limit for draining a replaced connection.
const RETIRED_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Marks the proof's reply subject instead of a ticket; not a hexadecimal digit.
const PROOF: char = 'y';

/// Pause between unanswered requests for a proof.
const QUESTION_PAUSE: Duration = Duration::from_secs(2);

/// Pause before a reconnect that checks whether a refused inbox is allowed now.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Minimum time between diagnoses of a silent server.
const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(30);

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
        let number = shared.begin_client();
        let proof = Arc::new(Proof::new(number));
        let options = settings
            .connect_options()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::ZERO)
            .reconnect_to_server_callback(attempts(&settings, &shared, number))
            .event_callback({
                let (shared, proof) = (Arc::clone(&shared), Arc::clone(&proof));
                move |event| {
                    if shared.is_current(number) {
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
        if !shared.is_current(number) {
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
        let server = next.as_ref().map(|(server, _)| server);
        shared.note_trying(server.map(|server| (server.host().to_owned(), server.port())));
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

/// Requests the proof on each connection until there is one. If the inbox is refused, reconnects from time to time.
async fn prove(client: Client, inbox: String, proof: Arc<Proof>, shared: Arc<Shared>) {
    loop {
        let connection = proof.connections();
        let is_connected = client.connection_state() == State::Connected && connection != 0;
        let is_asked = is_connected && !proof.holds();
        if is_asked && proof.is_refused() {
            tokio::time::sleep_until(Instant::now() + REFUSED_PAUSE).await;
            // If this fails, the client has ended and is replaced.
            let _ended = client.force_reconnect().await;
        } else if is_asked {
            proof.note_asked(connection);
            let reply = format!("{inbox}{PROOF}{connection:x}");
            let _ended = client
                .publish_with_reply(QUESTION, reply, Bytes::new())
                .await;
        }
        // A new connection notifies, but the client's event queue may have been full.
        let until = Instant::now() + QUESTION_PAUSE;
        let changed = tokio::time::timeout_at(until, proof.changed());
        if changed.await.is_err() && is_asked && proof.connections() == connection && !proof.holds()
        {
            shared.complain(&format!("{CONNECTED}, but the server does not answer"));
        }
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
        let reason = shared.replacement_asked_for().await;
        if let Some(due) = backoff.due() {
            tokio::time::sleep_until(due.into()).await;
        }
        backoff.begin(Instant::now().into_std());
        tracing::error!(
            broker = shared.name(),
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
                tracing::error!(broker = shared.name(), %error, "no new connection could be opened");
                shared.ask_for_replacement(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::TABLE;
    use super::*;
    use crate::brokers::meter::Meter;
    use crate::brokers::outcome::Restart;
    use crate::table::{Reading, Section};

    #[tokio::test(start_paused = true)]
    async fn connections_that_do_not_last_are_replaced_less_and_less_often() {
        let reading = Reading::default();
        let values = json!({ "servers": ["nats://127.0.0.1:1"] });
        let values = values.as_object().unwrap().clone();
        let mut section = Section::new(&reading, String::new(), values, &TABLE);
        let settings = Settings::read(&mut section).expect("legal settings");
        let meter = Arc::new(Meter::unregistered());
        let shared = Arc::new(Shared::new("main", 9, meter));
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
