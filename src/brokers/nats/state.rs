//! The state that the successive connections of a broker share: its health, and the proof that an acknowledgement inbox
//! works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{Client, ClientError, Event, Statistics};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::breaker::Breaker;
use super::failure::describe_at;
use super::refusals::{Refusals, Summary, Violation};
use crate::brokers::durability::Attention;
use crate::brokers::health::Health;
use crate::brokers::meter::Meter;
use crate::brokers::outcome::{Outcome, Reason, Restart};
use crate::brokers::waiters::Waiters;
use crate::telemetry::{LogThrottle, shorten};

/// A client whose server has not answered for this long while connected is replaced.
const STUCK: Duration = Duration::from_secs(60);

/// A request whose answer proves that the acknowledgement inbox works. It changes nothing, and a server without JetStream
/// answers it too, with "no responders".
pub(super) const QUESTION: &str = "$JS.API.INFO";

/// The prefix of complaints about a refused acknowledgement inbox.
const NO_PERMISSION: &str = "authorization failed: the user has no permission to";

/// The prefix of complaints about an established connection.
pub(super) const CONNECTED: &str = "connected";

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
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    pub(super) fn begin(&self, client: &Client, inbox: &str) {
        let _first = self.statistics.set(client.statistics());
        let _first = self.inbox.set(inbox.to_owned());
        self.changed.notify_one();
    }

    pub(super) fn holds(&self) -> bool {
        let connection = self.connections();
        connection != 0 && self.proven.load(Ordering::Acquire) == connection
    }

    /// The number of the current connection; 0 before the first.
    pub(super) fn connections(&self) -> u64 {
        let statistics = self.statistics.get();
        statistics.map_or(0, |statistics| statistics.connects.load(Ordering::Acquire))
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Acquire)
    }

    pub(super) fn note_asked(&self, connection: u64) {
        self.asked.store(connection, Ordering::Release);
    }

    /// Waits for a new connection, or for a change of the proof.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
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
    pub(super) metrics: Arc<Meter>,
    /// The number of the current client.
    current: AtomicU64,
    broken: Mutex<Option<Restart>>,
    asked: Notify,
    complaints: LogThrottle,
    slow: LogThrottle,
    ends: LogThrottle,
    denials: LogThrottle,
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
            ends: LogThrottle::default(),
            denials: LogThrottle::default(),
            attention: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes another client the current one. Returns its number.
    pub(super) fn begin_client(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether this is the current client: a replaced one says nothing about the broker.
    pub(super) fn is_current(&self, number: u64) -> bool {
        self.current.load(Ordering::Acquire) == number
    }

    /// Remembers host and port of the server that the client connects to next.
    pub(super) fn note_trying(&self, server: Option<(String, u16)>) {
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) = server;
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

    /// Waits until a replacement is asked for.
    pub(super) async fn replacement_asked_for(&self) -> Restart {
        loop {
            self.asked.notified().await;
            let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reason) = broken.take() {
                return reason;
            }
        }
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

    pub(super) fn note(&self, event: &Event, proof: &Proof) {
        match event {
            Event::Connected => {
                proof.is_refused.store(false, Ordering::Release);
                proof.changed.notify_one();
            }
            Event::Disconnected | Event::Closed => {
                let is_retry = proof.is_refused();
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
                // A server that accepts and then closes would be a line for each attempt.
                if let Some(suppressed) = (!is_retry).then(|| self.ends.allow()).flatten() {
                    tracing::warn!(
                        broker = self.name,
                        waiting,
                        suppressed,
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
                let is_new = self.refusals.note_violation(&subject, &self.waiters);
                // Subjects may follow from payloads, and each would be new.
                if let Some(suppressed) = is_new.then(|| self.denials.allow()).flatten() {
                    tracing::warn!(
                        broker = self.name,
                        subject = shorten(&subject),
                        suppressed,
                        "authorization failed: the user has no permission to publish to the subject; allow it in the server's `permissions`"
                    );
                }
            }
            Violation::Subscription(_) => self.complain(&violation.to_string()),
        }
    }

    pub(super) fn note_proof(&self, proof: &Proof, connection: u64) {
        if !self.is_current(proof.number) || connection != proof.connections() || proof.is_refused()
        {
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
    pub(super) fn complain(&self, what: &str) {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_nats::ServerError;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::brokers::waiters::Waiter;

    const INBOX: &str = "_INBOX.abc.def.";

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new("main", 9, Arc::new(Meter::unregistered())))
    }

    /// A client that is connected, whose inbox has not answered yet.
    fn connected(shared: &Shared) -> Proof {
        let proof = Proof::new(shared.begin_client());
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

    fn waiter(shared: &Shared, is_handed_over: bool) -> Waiter<'_> {
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

    /// Counts the warnings that it sees.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            if *event.metadata().level() == tracing::Level::WARN {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn warnings(work: impl FnOnce()) -> usize {
        let warnings = Warnings::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        tracing::subscriber::with_default(subscriber, work);
        warnings.0.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_server_that_repeats_itself_does_not_cause_a_line_each_time() {
        let shared = shared();
        let proof = connected(&shared);
        shared.note_proof(&proof, 1);
        let ended = warnings(|| {
            for connection in 2..52 {
                shared.note(&Event::Disconnected, &proof);
                connect_again(&shared, &proof);
                shared.note_proof(&proof, connection);
            }
        });
        let refused = warnings(|| {
            for subject in 0..50 {
                shared.note(&violation(&format!("Publish to \"a.{subject}\"")), &proof);
            }
        });
        // One a second, however busy the machine is.
        for lines in [ended, refused] {
            assert!((1..10).contains(&lines), "{ended} and {refused} lines");
        }
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
        proof.note_asked(1);
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
}
