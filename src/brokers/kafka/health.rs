//! Whether the cluster can be published to, judging by acknowledgements and, without any, by metadata; never by
//! librdkafka's error callback or statistics, which are unreliable (librdkafka#2543, #5546).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::watch;

use super::metadata::{Cluster, Fault, Surveyed, survey};
use super::tokens::missing_token;
use crate::brokers::durability::Attention;
use crate::brokers::health::Health;
use crate::brokers::outcome::Reason;
use crate::telemetry::LogThrottle;

/// The prefix of complaints about credentials.
const AUTHENTICATION_FAILED: &str = "authentication failed: ";

/// Time for which an acknowledgement proves that the cluster is up.
const FRESH: Duration = Duration::from_secs(10);
/// How often the producer is checked, and a cluster that is down is queried.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// How often an idle cluster that is up is queried.
const INTERVAL_UP: Duration = Duration::from_secs(5);
/// Surveys may take up to 1/20 of the time: the metadata of a large cluster is costly for its brokers.
const SURVEY_SHARE: u32 = 20;
/// Time for which a refused topic counts as not writable. Kafka does not notify of granted rights, so the next event after this
/// tries again.
const DENIED: Duration = Duration::from_secs(30);
/// Maximum number of topics remembered as refused, and of those remembered as failing.
const MOST_REMEMBERED: usize = 64;
/// Maximum number of topics listed in a message.
const MOST_NAMED: usize = 8;

/// Observations of one cluster.
#[derive(Debug)]
pub(super) struct Watch {
    name: String,
    advice: Advice,
    clock: Clock,
    /// The last acknowledgement, the first attempt since then, and the last statistics.
    last_success: Timestamp,
    first_attempt: Timestamp,
    last_statistics: Timestamp,
    last_probe: Timestamp,
    /// Duration of the last probe, in milliseconds.
    probe_took: AtomicU64,
    must_check: AtomicBool,
    /// The cluster must be queried regardless of acknowledgements.
    must_ask: AtomicBool,
    /// The last query and everything since went unanswered.
    is_silent: AtomicBool,
    /// The cluster refuses every write.
    is_denied: AtomicBool,
    /// Whether [`State::denied`] has entries, readable without the lock.
    has_denied: AtomicBool,
    complaints: LogThrottle,
    state: Mutex<State>,
    woken: Condvar,
    pub(super) attention: watch::Sender<Attention>,
}

/// The values for advice on creating topics.
#[derive(Debug, Default)]
pub(super) struct Advice {
    pub(super) servers: String,
    /// `allow.auto.create.topics` is set.
    pub(super) creates: bool,
}

/// The time since a start.
#[derive(Debug)]
enum Clock {
    Running(Instant),
    #[cfg(test)]
    Paused(Arc<AtomicU64>),
}

impl Clock {
    /// Never 0, which a [`Timestamp`] uses for "none".
    fn millis(&self) -> u64 {
        let millis = match self {
            Self::Running(start) => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            #[cfg(test)]
            Self::Paused(millis) => millis.load(Ordering::Relaxed),
        };
        millis.max(1)
    }
}

/// An optional time that threads share; initially none.
#[derive(Debug, Default)]
struct Timestamp(AtomicU64);

impl Timestamp {
    fn set(&self, clock: &Clock) {
        let now = clock.millis();
        // Every publish reads what lies beside it; a write would take that from the other CPUs' caches.
        if self.0.load(Ordering::Relaxed) != now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    fn set_if_none(&self, clock: &Clock) {
        if self.0.load(Ordering::Relaxed) == 0 {
            // A concurrent caller sets about the same time.
            let _first =
                self.0
                    .compare_exchange(0, clock.millis(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn elapsed(&self, clock: &Clock) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(clock.millis().saturating_sub(at))),
        }
    }
}

/// The cluster as a whole, by the last survey and the acknowledgements since.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Connectivity {
    Starting,
    Reached,
    /// With the reason.
    Lost(String),
}

#[derive(Debug)]
struct State {
    /// Known in advance.
    topics: Arc<[String]>,
    connectivity: Connectivity,
    /// Found by the last survey.
    faults: BTreeMap<String, Fault>,
    /// Topics for which the broker refused an event, with the time of the last refusal.
    denied: BTreeMap<String, u64>,
    /// The reason why the cluster refuses every write.
    denial: Option<String>,
    /// Topics with a failed event, with the time of the last failure.
    failing: BTreeMap<String, u64>,
    health: Health,
    /// librdkafka's last complaint, shown when the cluster is down.
    complaint: Option<String>,
    is_stopped: bool,
}

impl Watch {
    pub(super) fn new(name: &str, topics: Vec<String>, advice: Advice) -> Self {
        Self::with_clock(name, topics, advice, Clock::Running(Instant::now()))
    }

    /// One whose time passes only with [`Watch::pass`].
    #[cfg(test)]
    pub(super) fn paused(name: &str, topics: Vec<String>, advice: Advice) -> Self {
        Self::with_clock(
            name,
            topics,
            advice,
            Clock::Paused(Arc::new(AtomicU64::new(1))),
        )
    }

    #[cfg(test)]
    pub(super) fn pass(&self, duration: Duration) {
        let Clock::Paused(time) = &self.clock else {
            panic!("time passes by itself")
        };
        let millis = u64::try_from(duration.as_millis()).unwrap();
        time.fetch_add(millis, Ordering::Relaxed);
    }

    fn with_clock(name: &str, topics: Vec<String>, advice: Advice, clock: Clock) -> Self {
        let state = State {
            topics: topics.into(),
            connectivity: Connectivity::Starting,
            faults: BTreeMap::new(),
            denied: BTreeMap::new(),
            denial: None,
            failing: BTreeMap::new(),
            health: Health::Starting,
            complaint: None,
            is_stopped: false,
        };
        Self {
            name: name.to_owned(),
            advice,
            clock,
            last_success: Timestamp::default(),
            first_attempt: Timestamp::default(),
            last_statistics: Timestamp::default(),
            last_probe: Timestamp::default(),
            probe_took: AtomicU64::new(0),
            must_check: AtomicBool::new(false),
            must_ask: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            is_denied: AtomicBool::new(false),
            has_denied: AtomicBool::new(false),
            complaints: LogThrottle::default(),
            state: Mutex::new(state),
            woken: Condvar::new(),
            attention: watch::Sender::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn topics(&self) -> Arc<[String]> {
        Arc::clone(&self.state().topics)
    }

    pub(super) fn set_topics(&self, topics: Vec<String>) {
        let topics = Arc::from(topics);
        if std::mem::replace(&mut self.state().topics, Arc::clone(&topics)) != topics {
            self.must_ask.store(true, Ordering::Release);
            self.check_now();
        }
    }

    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.woken.notify_all();
    }

    /// Requests a check without waiting for the next interval.
    pub(super) fn check_now(&self) {
        self.must_check.store(true, Ordering::Release);
        self.woken.notify_all();
    }

    /// Waits for the next check. Returns whether the watch has been stopped.
    pub(super) fn wait(&self, interval: Duration) -> bool {
        let may_sleep =
            |state: &mut State| !state.is_stopped && !self.must_check.load(Ordering::Acquire);
        let waited = self
            .woken
            .wait_timeout_while(self.state(), interval, may_sleep);
        self.must_check.store(false, Ordering::Release);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    pub(super) fn note_attempt(&self) {
        self.first_attempt.set_if_none(&self.clock);
    }

    pub(super) fn note_success(&self) {
        self.last_success.set(&self.clock);
        self.first_attempt.clear();
        self.set_silent(false);
    }

    /// An event was stored in this topic, so it is no longer refused.
    pub(super) fn note_stored(&self, topic: &str) {
        if self.has_denied.load(Ordering::Relaxed) && self.state().denied.remove(topic).is_some() {
            self.check_now();
        }
    }

    /// The broker refused an event because the user may not write to this topic. It answers, so the producer works.
    pub(super) fn note_denied(&self, topic: &str) {
        self.first_attempt.clear();
        let mut state = self.state();
        let is_new = !state.denied.contains_key(topic);
        if !is_new || state.denied.len() < MOST_REMEMBERED {
            state.denied.insert(topic.to_owned(), self.clock.millis());
        }
        self.has_denied.store(true, Ordering::Relaxed);
        drop(state);
        if is_new {
            self.check_now();
        }
    }

    /// An event to this topic was not stored, for a reason that may lie with the producer.
    pub(super) fn note_failure(&self, topic: &str) {
        let now = self.clock.millis();
        let mut state = self.state();
        if state.failing.len() < MOST_REMEMBERED || state.failing.contains_key(topic) {
            state.failing.insert(topic.to_owned(), now);
        }
    }

    /// The broker refused an event for its content: the producer works.
    pub(super) fn note_answer(&self) {
        self.first_attempt.clear();
    }

    /// The topics with a failed event since the last success.
    pub(super) fn failing(&self) -> Vec<String> {
        let success = self.last_success.0.load(Ordering::Relaxed);
        let mut state = self.state();
        state.failing.retain(|_, at| *at >= success);
        state.failing.keys().cloned().collect()
    }

    /// Sets or clears the reason why the cluster refuses every write.
    pub(super) fn set_denial(&self, denial: Option<String>) {
        self.is_denied.store(denial.is_some(), Ordering::Relaxed);
        self.state().denial = denial;
        let health = self.assess();
        self.change_to(health);
    }

    pub(super) fn note_statistics(&self) {
        self.last_statistics.set(&self.clock);
    }

    /// Forgets the old producer's failures, since a new one replaces it.
    pub(super) fn reset(&self) {
        self.first_attempt.clear();
        self.last_statistics.clear();
        self.state().failing.clear();
        self.set_silent(false);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    fn set_silent(&self, is_silent: bool) {
        if self.is_silent() != is_silent {
            self.is_silent.store(is_silent, Ordering::Relaxed);
        }
    }

    /// The reason why nothing may be handed to the producer now, if there is one: the cluster would not answer or would
    /// refuse, and the message could not be taken back.
    pub(super) fn silence(&self) -> Option<(Reason, String)> {
        let (is_silent, is_denied) = (self.is_silent(), self.is_denied.load(Ordering::Relaxed));
        if !is_silent && !is_denied {
            return None;
        }
        let state = self.state();
        if let Some(why) = &state.denial {
            return Some((Reason::Authorization, why.clone()));
        }
        let Health::Down(why) = &state.health else {
            return None;
        };
        let is_authentication = state
            .complaint
            .as_ref()
            .is_some_and(|complaint| complaint.starts_with(AUTHENTICATION_FAILED));
        let reason = if is_authentication {
            Reason::Authentication
        } else {
            Reason::Disconnected
        };
        Some((reason, why.clone()))
    }

    /// Whether a message to this topic would certainly not be stored. A topic that is not known in advance may have a leader
    /// although the known ones have none.
    pub(super) fn is_down_for(&self, topic: &str) -> bool {
        let state = self.state();
        matches!(state.health, Health::Down(_))
            && (self.is_silent()
                || state.denial.is_some()
                || state.topics.iter().any(|known| known == topic))
    }

    /// Time since the first attempt without a success.
    pub(super) fn unsuccessful_for(&self) -> Duration {
        self.first_attempt.elapsed(&self.clock).unwrap_or_default()
    }

    /// Time since the last statistics; zero if there never were any.
    pub(super) fn statistics_silent_for(&self) -> Duration {
        self.last_statistics
            .elapsed(&self.clock)
            .unwrap_or_default()
    }

    /// Remembers a complaint of librdkafka, in case the cluster turns out to be down.
    pub(super) fn note_error(&self, error: &KafkaError, reason: &str) {
        let complaint = match error.rdkafka_error_code() {
            Some(Code::Authentication) => {
                let reason = missing_token(reason).unwrap_or(reason);
                format!("{AUTHENTICATION_FAILED}{reason}")
            }
            // The first adds nothing to the probe and repeats indefinitely (librdkafka#5546); fatal errors are the
            // supervisor's to handle.
            Some(Code::AllBrokersDown | Code::Fatal) => return,
            _ => reason.to_owned(),
        };
        let mut state = self.state();
        // Refused credentials remain the cause until they are accepted.
        let is_explained = state
            .complaint
            .as_ref()
            .is_some_and(|known| known.starts_with(AUTHENTICATION_FAILED));
        if !is_explained || complaint.starts_with(AUTHENTICATION_FAILED) {
            if let Some(suppressed) = self.complaints.allow() {
                tracing::warn!(broker = self.name, suppressed, "{complaint}");
            }
            state.complaint = Some(complaint);
        }
    }

    pub(super) fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// Updates the health from the observations, after a survey if one is due.
    pub(super) fn check(&self, cluster: &impl Cluster) -> Health {
        let must_ask = self.must_ask.swap(false, Ordering::AcqRel);
        if must_ask || self.is_survey_due() {
            self.ask(cluster);
        }
        self.forget_old_denials();
        let health = self.assess();
        self.change_to(health)
    }

    fn is_survey_due(&self) -> bool {
        let is_fresh = self.is_fresh();
        let mut state = self.state();
        if state.connectivity != Connectivity::Reached {
            if is_fresh {
                // Known to be up; the next check asks for missing topics.
                state.connectivity = Connectivity::Reached;
                state.faults.clear();
                self.must_ask.store(true, Ordering::Release);
            }
            return !is_fresh;
        }
        let took = Duration::from_millis(self.probe_took.load(Ordering::Relaxed));
        let interval = INTERVAL_UP.max(took.saturating_mul(SURVEY_SHARE));
        let is_recent = self
            .last_probe
            .elapsed(&self.clock)
            .is_some_and(|elapsed| elapsed < interval);
        !is_recent && (!is_fresh || !state.faults.is_empty() || !state.denied.is_empty())
    }

    fn ask(&self, cluster: &impl Cluster) {
        let began = self.clock.millis();
        self.last_probe.set(&self.clock);
        let surveyed = survey(cluster, &self.topics());
        let took = self.clock.millis().saturating_sub(began);
        self.probe_took.store(took, Ordering::Relaxed);
        if surveyed.is_ok() && self.is_silent() {
            // Failures during the silence say nothing about the producer.
            self.first_attempt.clear();
        }
        let is_fresh = self.is_fresh();
        self.set_silent(surveyed.is_err() && !is_fresh);
        let mut state = self.state();
        match surveyed {
            Ok(Surveyed::Whole(faults)) => {
                state.connectivity = Connectivity::Reached;
                state.faults = faults;
            }
            // The cluster is slow, not down. Earlier findings about the other topics remain.
            Ok(Surveyed::Part(faults)) => {
                state.connectivity = Connectivity::Reached;
                state.faults.extend(faults);
            }
            Err(_) if is_fresh => {}
            Err(error) => state.connectivity = Connectivity::Lost(error.0),
        }
    }

    fn forget_old_denials(&self) {
        if !self.has_denied.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.millis();
        let mut state = self.state();
        let is_recent = |at: u64| Duration::from_millis(now.saturating_sub(at)) < DENIED;
        state.denied.retain(|_, at| is_recent(*at));
        self.has_denied
            .store(!state.denied.is_empty(), Ordering::Relaxed);
    }

    /// The health that follows from all observations.
    fn assess(&self) -> Health {
        let state = self.state();
        if let Some(why) = &state.denial {
            return Health::Down(why.clone());
        }
        match &state.connectivity {
            Connectivity::Starting => return Health::Starting,
            Connectivity::Lost(why) => return Health::Down(why.clone()),
            Connectivity::Reached => {}
        }
        let mut missing = self.advice.for_faults(&state.faults);
        let denied: Vec<&str> = state
            .denied
            .keys()
            .map(String::as_str)
            .filter(|topic| !state.faults.contains_key(*topic))
            .collect();
        if !denied.is_empty() {
            missing.push(format!(
                "the broker refused events to {}: the user may not write there and needs Write on {}",
                listed(&denied),
                noun(denied.len())
            ));
        }
        let is_unusable =
            |topic: &String| state.faults.contains_key(topic) || state.denied.contains_key(topic);
        if !state.topics.is_empty() && state.topics.iter().all(is_unusable) {
            return Health::Down(missing.join("; "));
        }
        Health::Up { missing }
    }

    fn is_fresh(&self) -> bool {
        self.last_success
            .elapsed(&self.clock)
            .is_some_and(|elapsed| elapsed < FRESH)
    }

    fn change_to(&self, health: Health) -> Health {
        let mut state = self.state();
        let health = match (health, &state.complaint) {
            (Health::Down(why), Some(complaint)) => Health::Down(format!("{why} ({complaint})")),
            (health, _) => health,
        };
        if state.health == health {
            return health;
        }
        match &health {
            Health::Up { missing } if missing.is_empty() => {
                tracing::info!(broker = self.name, "broker is up");
            }
            Health::Up { missing } => {
                let missing = missing.join("; ");
                tracing::warn!(
                    broker = self.name,
                    missing,
                    "broker is up, but not every topic can be published to"
                );
            }
            Health::Starting | Health::Refusing { .. } => {}
            Health::Down(why) => {
                if !matches!(state.health, Health::Down(_)) || self.complaints.allow().is_some() {
                    tracing::warn!(broker = self.name, why, "broker is down");
                }
            }
        }
        if matches!(health, Health::Up { .. }) {
            state.complaint = None;
            if !matches!(state.health, Health::Up { .. }) {
                self.attention
                    .send_modify(|attention| attention.arrivals += 1);
            }
        }
        state.health = health.clone();
        health
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Advice {
    /// One sentence for each kind of fault, with the remedy.
    pub(super) fn for_faults(&self, faults: &BTreeMap<String, Fault>) -> Vec<String> {
        let with = |kind: &Fault| -> Vec<&str> {
            let of_kind = faults.iter().filter(|(_, fault)| *fault == kind);
            of_kind.map(|(topic, _)| topic.as_str()).collect()
        };
        let mut kinds: Vec<&Fault> = faults.values().collect();
        kinds.sort();
        kinds.dedup();
        kinds
            .into_iter()
            .map(|kind| {
                let topics = with(kind);
                let (names, are) = (listed(&topics), noun(topics.len()));
                match kind {
                    Fault::Absent => self.for_absent(&topics),
                    Fault::Leaderless => format!("no leader for {names}"),
                    Fault::Hidden => format!(
                        "the user may not see {names}: it needs Write (or Describe) on {are}"
                    ),
                    Fault::Other(why) => format!("{names}: {why}"),
                }
            })
            .collect()
    }

    fn for_absent(&self, topics: &[&str]) -> String {
        let (names, first) = (listed(topics), topics.first().copied().unwrap_or("TOPIC"));
        let does = if topics.len() == 1 { "does" } else { "do" };
        if self.creates {
            return format!(
                "{names} {does} not exist, and the cluster creates no topics though allow.auto.create.topics is set; create {} with `hookbridge provision` or `kafka-topics --bootstrap-server {} --create --topic {first}`",
                noun(topics.len()),
                self.first_server()
            );
        }
        format!(
            "{names} {does} not exist, and a running bridge creates no topics: create {} with `hookbridge provision` or `kafka-topics --bootstrap-server {} --create --topic {first}`, or set options = {{ \"allow.auto.create.topics\" = \"true\" }} where the cluster may create topics by itself",
            noun(topics.len()),
            self.first_server()
        )
    }

    fn first_server(&self) -> &str {
        self.servers.split(',').next().unwrap_or_default().trim()
    }
}

/// `topic a`, or `topics a, b and 3 more`.
fn listed(topics: &[&str]) -> String {
    let named = topics.get(..MOST_NAMED).unwrap_or(topics);
    let mut list = format!(
        "{} {}",
        if topics.len() == 1 { "topic" } else { "topics" },
        named.join(", ")
    );
    if let Some(more) = topics
        .len()
        .checked_sub(MOST_NAMED)
        .filter(|more| *more > 0)
    {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

fn noun(count: usize) -> &'static str {
    if count == 1 { "it" } else { "each of them" }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use super::*;
    use crate::brokers::error::RequestError;

    /// Gives the configured answers, and counts the requests.
    #[derive(Default)]
    struct Fake {
        faults: RefCell<HashMap<String, Fault>>,
        is_away: Cell<bool>,
        asked: Cell<usize>,
    }

    impl Cluster for Fake {
        fn topic(&self, name: &str, _timeout: Duration) -> Result<Option<Fault>, RequestError> {
            self.asked.set(self.asked.get() + 1);
            if self.is_away.get() {
                return Err(RequestError("no answer".to_owned()));
            }
            Ok(self.faults.borrow().get(name).cloned())
        }

        fn all(&self, _timeout: Duration) -> Result<HashMap<String, Option<Fault>>, RequestError> {
            Err(RequestError("not asked here".to_owned()))
        }
    }

    /// A watch whose time only the test advances.
    fn watch(topics: &[&str]) -> (Watch, Fake) {
        let advice = Advice {
            servers: "k-1:9092,k-2:9092".to_owned(),
            creates: false,
        };
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        (Watch::paused("main", topics, advice), Fake::default())
    }

    fn up() -> Health {
        Health::Up {
            missing: Vec::new(),
        }
    }

    #[test]
    fn an_idle_cluster_is_asked_now_and_then_and_a_busy_one_hardly() {
        let (watch, cluster) = watch(&["a"]);
        assert_eq!(watch.check(&cluster), up());
        assert_eq!(watch.check(&cluster), up());
        assert_eq!(cluster.asked.get(), 1, "it was asked a moment ago");
        watch.pass(INTERVAL_UP);
        watch.check(&cluster);
        assert_eq!(cluster.asked.get(), 2);
        for _ in 0..10 {
            watch.pass(INTERVAL_UP);
            watch.note_success();
            assert_eq!(watch.check(&cluster), up());
        }
        assert_eq!(cluster.asked.get(), 2, "acknowledgements say it all");
    }

    #[test]
    fn silence_is_down_until_something_answers() {
        let (watch, cluster) = watch(&["a"]);
        cluster.is_away.set(true);
        assert!(matches!(watch.check(&cluster), Health::Down(_)));
        assert!(watch.is_silent() && watch.is_down_for("a") && watch.is_down_for("unknown"));
        assert!(matches!(watch.silence(), Some((Reason::Disconnected, _))));
        cluster.is_away.set(false);
        watch.pass(INTERVAL);
        assert_eq!(watch.check(&cluster), up());
        assert!(watch.silence().is_none() && !watch.is_down_for("a"));
        // A recent acknowledgement outweighs an unanswered query.
        watch.note_success();
        cluster.is_away.set(true);
        watch.set_topics(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(watch.check(&cluster), up());
        watch.pass(FRESH + INTERVAL_UP);
        assert!(matches!(watch.check(&cluster), Health::Down(_)));
        watch.note_success();
        assert_eq!(watch.check(&cluster), up());
    }

    #[test]
    fn missing_topics_are_named_with_what_to_do_and_found_when_they_are_there() {
        let (watch, cluster) = watch(&["a", "b"]);
        let absent = |topic: &str| (topic.to_owned(), Fault::Absent);
        *cluster.faults.borrow_mut() = [absent("a"), absent("b")].into();
        let Health::Down(why) = watch.check(&cluster) else {
            panic!("nothing can be published to")
        };
        for text in [
            "topics a, b do not exist",
            "hookbridge provision",
            "kafka-topics --bootstrap-server k-1:9092 --create --topic a",
            "allow.auto.create.topics",
        ] {
            assert!(why.contains(text), "{text}: {why}");
        }
        cluster.faults.borrow_mut().remove("a");
        watch.pass(INTERVAL_UP);
        let Health::Up { missing } = watch.check(&cluster) else {
            panic!("one is there")
        };
        assert!(
            missing.concat().contains("topic b does not exist"),
            "{missing:?}"
        );
        // Also under load.
        cluster.faults.borrow_mut().clear();
        watch.pass(INTERVAL_UP);
        watch.note_success();
        assert_eq!(watch.check(&cluster), up());
    }

    #[test]
    fn a_refused_topic_is_reported_for_a_while_and_does_not_count_against_the_producer() {
        let (watch, cluster) = watch(&["a", "b"]);
        watch.check(&cluster);
        watch.note_attempt();
        watch.pass(Duration::from_secs(60));
        watch.note_denied("a");
        assert_eq!(watch.unsuccessful_for(), Duration::ZERO);
        let Health::Up { missing } = watch.check(&cluster) else {
            panic!("the other topic takes events")
        };
        assert!(missing.concat().contains("needs Write"), "{missing:?}");
        watch.note_denied("b");
        assert!(matches!(watch.check(&cluster), Health::Down(why) if why.contains("a, b")));
        assert!(watch.silence().is_none(), "the next event may try");
        watch.note_stored("a");
        assert!(matches!(watch.check(&cluster), Health::Up { .. }));
        watch.pass(DENIED);
        assert_eq!(watch.check(&cluster), up());
    }

    #[test]
    fn the_memory_of_refused_topics_is_bounded() {
        let (watch, cluster) = watch(&[]);
        for number in 0..10 * MOST_REMEMBERED {
            watch.note_denied(&format!("topic-{number}"));
            watch.note_failure(&format!("topic-{number}"));
        }
        assert_eq!(watch.state().denied.len(), MOST_REMEMBERED);
        assert_eq!(watch.failing().len(), MOST_REMEMBERED);
        let names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(
            listed(&names).ends_with("and 92 more"),
            "{}",
            listed(&names)
        );
        drop(cluster);
    }

    #[test]
    fn a_cluster_that_refuses_everything_is_down_for_want_of_rights() {
        let (watch, cluster) = watch(&["a"]);
        watch.check(&cluster);
        watch.set_denial(Some("needs Write".to_owned()));
        assert_eq!(watch.health(), Health::Down("needs Write".to_owned()));
        assert!(matches!(watch.silence(), Some((Reason::Authorization, _))));
        assert!(watch.is_down_for("a") && watch.is_down_for("unknown"));
        watch.set_denial(None);
        assert_eq!(watch.health(), up());
    }

    #[test]
    fn only_topics_that_failed_since_the_last_success_count_against_the_producer() {
        let (watch, _) = watch(&["a", "b"]);
        watch.note_failure("a");
        watch.pass(INTERVAL);
        watch.note_success();
        watch.pass(INTERVAL);
        watch.note_failure("b");
        assert_eq!(watch.failing(), ["b"]);
    }
}
