//! One connection and its acknowledgement inbox; and who replaces it when it breaks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::{Client, Event, Subscriber};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::breaker::Breaker;
use super::outbox::Outbox;
use super::outcome::of_answer;
use super::settings::{Acknowledgement, Settings, reconnect_delay};
use crate::brokers::Health;
use crate::brokers::durability::Attention;
use crate::brokers::outcome::{Outcome, Reason, Receipt, Restart};
use crate::brokers::waiters::{Ticket, Waiters};
use crate::metrics::BrokerMetrics;

/// A server that is connected but has answered nothing for so long gets a new client.
const STUCK: Duration = Duration::from_secs(60);

/// Between replacements: at first, and at most.
const LEAST_BACKOFF: Duration = Duration::from_secs(1);
const MOST_BACKOFF: Duration = Duration::from_secs(30);

/// Between the attempts to connect of a client that nobody wants any more.
const ABANDONED: Duration = Duration::from_secs(600);

/// What a replaced connection has for its farewell.
const FAREWELL: Duration = Duration::from_secs(10);

/// A client, and the subject that its answers come to, but for the ticket.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) inbox: String,
    pub(super) outbox: Outbox,
    /// How many servers the configuration names.
    configured: usize,
    /// Who reads the answers holds the client: it ends only when they do.
    _answers: AbortOnDropHandle<()>,
}

impl Connection {
    /// Starts a client, which connects in the background, and reads its answers.
    pub(super) async fn open(
        settings: &Settings,
        shared: &Arc<Shared>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let number = shared.current.fetch_add(1, Ordering::AcqRel) + 1;
        let (events, attempts) = (Arc::clone(shared), Arc::clone(shared));
        let has_begun = AtomicBool::new(false);
        let options = settings
            .connect_options()
            .retry_on_initial_connect()
            .reconnect_delay_callback(move |attempt| {
                if !has_begun.swap(true, Ordering::Relaxed) {
                    Duration::ZERO
                } else if attempts.current.load(Ordering::Acquire) == number {
                    reconnect_delay(attempt)
                } else {
                    // A client that has never been connected can't be told to stop trying.
                    ABANDONED
                }
            })
            .event_callback(move |event| {
                // A replaced connection's end is not the broker's.
                if events.current.load(Ordering::Acquire) == number {
                    events.note(&event);
                }
                std::future::ready(())
            });
        let addresses = settings.addresses();
        let configured = addresses.len();
        let client = options.connect(addresses).await?;
        let inbox = format!("{}.", client.new_inbox());
        let answers = client.subscribe(format!("{inbox}*")).await?;
        let outbox = Outbox::new(client.clone(), settings.acknowledgement, Arc::clone(shared));
        let answers = tokio::spawn(hand_out(
            answers,
            inbox.len(),
            settings.acknowledgement,
            Arc::clone(shared),
        ));
        Ok(Self {
            client,
            inbox,
            outbox,
            configured,
            _answers: AbortOnDropHandle::new(answers),
        })
    }

    /// Whether there is another server to turn to when this one ends: from the configuration, or as the last one told.
    pub(super) fn knows_other_servers(&self) -> bool {
        self.configured > 1 || self.client.server_info().connect_urls.len() > 1
    }
}

/// What a broker's connections, one after the other, have in common.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    pub(super) waiters: Arc<Waiters>,
    pub(super) breaker: Breaker,
    health: Mutex<Health>,
    /// When the last connection ended.
    lost: Mutex<Option<Instant>>,
    started: Instant,
    /// When the newest of the messages that are known to be stored was sent, in milliseconds since the start.
    newest_stored: AtomicU64,
    metrics: Arc<BrokerMetrics>,
    /// The number of the connection that counts.
    current: AtomicU64,
    broken: Mutex<Option<Restart>>,
    asked: Notify,
    /// Tells when subjects should be inspected.
    pub(super) attention: watch::Sender<Attention>,
}

impl Shared {
    pub(super) fn new(name: &str, max_in_flight: usize, metrics: Arc<BrokerMetrics>) -> Self {
        Self {
            name: name.to_owned(),
            waiters: Waiters::new(max_in_flight),
            breaker: Breaker::default(),
            health: Mutex::new(Health::Starting),
            lost: Mutex::new(None),
            started: Instant::now(),
            newest_stored: AtomicU64::new(0),
            metrics,
            current: AtomicU64::new(0),
            broken: Mutex::new(None),
            asked: Notify::new(),
            attention: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn health(&self) -> Health {
        self.lock_health().clone()
    }

    /// How long there has been no connection: not at all where nobody has noticed yet, and for ever where there never
    /// was one.
    pub(super) fn lost_for(&self) -> Duration {
        if matches!(self.health(), Health::Up { .. }) {
            return Duration::ZERO;
        }
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.map_or(Duration::MAX, |lost| lost.elapsed())
    }

    /// A message that was sent then has been acknowledged.
    pub(super) fn note_stored(&self, sent: Instant) {
        self.newest_stored
            .fetch_max(self.millis(sent), Ordering::Relaxed);
    }

    /// Whether a message that was sent later than that has been acknowledged.
    pub(super) fn has_stored_one_sent_after(&self, then: Instant) -> bool {
        self.newest_stored.load(Ordering::Relaxed) > self.millis(then)
    }

    fn millis(&self, then: Instant) -> u64 {
        let since = then.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// An acknowledgement did not come.
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

    /// Ends the waiting of all, who are in doubt only where the client had been given the message. Returns how many they
    /// were.
    pub(super) fn end_all(&self, reason: Reason, detail: &'static str) -> usize {
        let outcome = |is_handed_over| match is_handed_over {
            true => Outcome::unknown(reason, detail),
            false => Outcome::not_stored(reason, detail),
        };
        self.waiters.resolve_all(outcome)
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!(broker = self.name, "broker is up");
                // First, so that nobody finds it up and inspected.
                self.attention
                    .send_modify(|attention| attention.arrivals += 1);
                self.change_to(Health::Up {
                    missing: Vec::new(),
                });
            }
            Event::Disconnected | Event::Closed => {
                *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.change_to(Health::Down("not connected".to_owned()));
                // The next one is not to blame for this one's silence.
                self.breaker.note_answer();
                let waiting = self.end_all(Reason::Disconnected, "the connection ended");
                tracing::warn!(
                    broker = self.name,
                    waiting,
                    "broker is down: the connection ended"
                );
            }
            Event::LameDuckMode => tracing::warn!(
                broker = self.name,
                "the server is about to end; another one will be used"
            ),
            Event::Draining => {}
            Event::SlowConsumer(_) => tracing::warn!(
                broker = self.name,
                "acknowledgements come faster than they are read"
            ),
            Event::ServerError(error) => self.complain(&error.to_string()),
            Event::ClientError(error) => self.complain(&error.to_string()),
        }
    }

    /// Keeps what went wrong for `/readyz`, and logs it once.
    fn complain(&self, what: &str) {
        let is_authentication = what.to_ascii_lowercase().contains("authorization");
        let what = if is_authentication {
            format!("authentication failed: {what}")
        } else {
            what.to_owned()
        };
        let mut health = self.lock_health();
        if !matches!(*health, Health::Up { .. }) {
            let why = format!("not connected ({what})");
            if *health == Health::Down(why.clone()) {
                return;
            }
            *health = Health::Down(why);
        }
        drop(health);
        tracing::warn!(broker = self.name, "{what}");
    }

    fn change_to(&self, health: Health) {
        *self.lock_health() = health;
    }

    /// What becomes of the last connection is no news any more.
    pub(super) fn stop(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the answers and hands each to the one who waits for it. Ends with the client.
async fn hand_out(
    mut answers: Subscriber,
    prefix: usize,
    acknowledgement: Acknowledgement,
    shared: Arc<Shared>,
) {
    while let Some(answer) = answers.next().await {
        let number = answer
            .subject
            .get(prefix..)
            .and_then(|number| u64::from_str_radix(number, 16).ok());
        let Some(number) = number else { continue };
        shared.breaker.note_answer();
        let outcome = match acknowledgement {
            Acknowledgement::JetStream => of_answer(&answer),
            Acknowledgement::Core => Outcome::Stored(Receipt::confirmed(false)),
        };
        let is_stored = matches!(outcome, Outcome::Stored(_));
        if !shared.waiters.resolve(Ticket::from_number(number), outcome) && is_stored {
            shared.metrics.late_acks.inc();
        }
    }
}

/// Waits until the connection is said to be broken, opens a new one, and sees the old one off.
pub(super) async fn supervise(
    settings: Settings,
    connection: Arc<ArcSwap<Connection>>,
    shared: Arc<Shared>,
) {
    let mut backoff = LEAST_BACKOFF;
    let mut last: Option<Instant> = None;
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
        backoff = match last {
            Some(last) if last.elapsed() < MOST_BACKOFF => (backoff * 2).min(MOST_BACKOFF),
            _ => LEAST_BACKOFF,
        };
        if let Some(last) = last {
            tokio::time::sleep_until(last + backoff).await;
        }
        last = Some(Instant::now());
        tracing::error!(
            broker = shared.name,
            reason = reason.label(),
            "the connection is replaced"
        );
        match Connection::open(&settings, &shared).await {
            Ok(new) => {
                shared.metrics.count_restart(reason);
                shared.breaker.note_answer();
                shared.end_all(Reason::Disconnected, "the connection was replaced");
                let old = connection.swap(Arc::new(new));
                tokio::spawn(
                    async move { tokio::time::timeout(FAREWELL, old.client.drain()).await },
                );
            }
            Err(error) => {
                tracing::error!(broker = shared.name, %error, "no new connection could be opened");
                shared.ask_for_replacement(reason);
            }
        }
    }
}
