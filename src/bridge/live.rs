//! The current configuration, and its replacement by another one: without refusing an event, or not at all.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::bridge::Bridge;
use crate::bridge::inspection::InspectionAttempt;
use crate::bridge::process::Process;
use crate::brokers::{Broker, Health, Restart, StartError};
use crate::config::{BrokerId, Config, NamedBroker};
use crate::trace::Tracer;

/// Time limit for a new client to reach its broker before the change is abandoned.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Limit of the inspection before a configuration takes events. Anything not found by then is unknown.
const DURABILITY_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a client that is no longer needed to finish its last messages.
const RETIRED_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration in use.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Bridge>,
    process: Arc<Process>,
    /// Wakes the task that inspects the destinations.
    changed: Notify,
    /// Drains clients that are no longer needed.
    retiring: TaskTracker,
}

/// The brokers whose clients a reload started and ended, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub started: Vec<String>,
    pub ended: Vec<String>,
}

impl Live {
    /// Starts the clients of all brokers. They connect in the background.
    ///
    /// # Errors
    /// Settings that a client rejects, or destinations that are not as durable as they must be.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        Self::start_traced(config, None).await
    }

    /// The same, with traces where there is a tracer.
    ///
    /// # Errors
    /// As [`Live::start`].
    pub async fn start_traced(
        config: Config,
        tracer: Option<Tracer>,
    ) -> Result<Arc<Self>, StartError> {
        let bridge = Bridge::start_traced(config, tracer).await?;
        let required = brokers_where(&bridge, |broker| broker.require_durable);
        let attempts = bridge
            .inspect_all(&required, DURABILITY_CHECK_TIMEOUT)
            .await;
        // An unknown destination is not durable either, but a restart would not change that: the service starts, not ready.
        refuse(bridge.undurable(&attempts, false))?;
        bridge.note_attempts(attempts);
        bridge.process().metrics().note_reload(true);
        Ok(Arc::new(Self {
            process: Arc::clone(bridge.process()),
            current: ArcSwap::from_pointee(bridge),
            changed: Notify::new(),
            retiring: TaskTracker::new(),
        }))
    }

    /// The bridge for a request that arrives now.
    #[must_use]
    pub fn current(&self) -> Arc<Bridge> {
        self.current.load_full()
    }

    /// The state that every configuration shares.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Replaces the current configuration once the new one's brokers are reached. Must not run concurrently with itself.
    ///
    /// # Errors
    /// The current configuration stays in use: a client rejects its settings, a new broker is unreachable, or destinations
    /// are not as durable as they must be.
    pub async fn replace(&self, config: Config) -> Result<Change, StartError> {
        let old = self.current();
        let new = old.successor(config).await?;
        let attempts = match ready_to_follow(&new, &old).await {
            Ok(attempts) => attempts,
            Err(error) => {
                new.discarded(&old);
                self.retire_unused(clients_missing_from(&new, &old));
                return Err(error);
            }
        };
        let (started, ended) = (
            clients_missing_from(&new, &old),
            clients_missing_from(&old, &new),
        );
        new.activated(&old);
        new.note_attempts(attempts);
        let new = Arc::new(new);
        self.current.store(Arc::clone(&new));
        self.changed.notify_one();
        for (metrics, (named, _)) in new.broker_metrics().zip(new.clients()) {
            if names(&started).contains(&named.name) && names(&ended).contains(&named.name) {
                metrics.count_restart(Restart::Reload);
            }
        }
        let change = Change {
            started: names(&started),
            ended: names(&ended),
        };
        self.retire(old, ended);
        Ok(change)
    }

    /// Drains clients once no request uses them.
    fn retire(&self, old: Arc<Bridge>, clients: Vec<(String, Arc<Broker>)>) {
        if clients.is_empty() {
            return;
        }
        let (unused, longest) = (old.unused(), old.config().longest_request());
        let given_up = old.process().given_up().clone();
        drop(old);
        self.retiring.spawn(async move {
            tokio::select! {
                () = unused.cancelled() => {}
                () = tokio::time::sleep_until(Instant::now() + longest) => {}
                () = given_up.cancelled() => clients.iter().for_each(|(_, broker)| broker.give_up()),
            }
            drain_retired(clients).await;
        });
    }

    /// Drains clients that no request has ever used.
    fn retire_unused(&self, clients: Vec<(String, Arc<Broker>)>) {
        if !clients.is_empty() {
            self.retiring.spawn(drain_retired(clients));
        }
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves every request that still waits for a broker as unknown: the deadline has passed.
    pub fn give_up(&self) {
        let current = self.current();
        current.give_up();
        current.process().given_up().cancel();
    }

    /// Waits for the requests whose senders have hung up, then flushes and ends the brokers' clients. Returns the number of
    /// messages without an acknowledgement.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let current = self.current();
        let tasks = current.process().tasks();
        tasks.close();
        if tokio::time::timeout_at(deadline, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = tasks.len(),
                "some requests whose senders hung up did not finish in time"
            );
        }
        self.retiring.close();
        let retiring = tokio::time::timeout_at(deadline, self.retiring.wait());
        let (unconfirmed, _late) = tokio::join!(current.drain(deadline), retiring);
        unconfirmed
    }
}

/// The clients of `of` that `other` does not share, with their brokers' names.
fn clients_missing_from(of: &Bridge, other: &Bridge) -> Vec<(String, Arc<Broker>)> {
    let only = of.clients().filter(|(_, client)| {
        let mut others = other.clients();
        !others.any(|(_, shared)| Arc::ptr_eq(&client.broker, &shared.broker))
    });
    only.map(|(named, client)| (named.name.clone(), Arc::clone(&client.broker)))
        .collect()
}

fn names(clients: &[(String, Arc<Broker>)]) -> Vec<String> {
    clients.iter().map(|(name, _)| name.clone()).collect()
}

/// Waits until the new clients have reached their brokers, and inspects the destinations. A broker that was already
/// unreachable does not hold up the change.
async fn ready_to_follow(new: &Bridge, old: &Bridge) -> Result<Vec<InspectionAttempt>, StartError> {
    let deadline = Instant::now() + ARRIVAL;
    for (name, broker) in clients_missing_from(new, old) {
        // Subscribed before the first check, so that no arrival is missed.
        let mut attention = broker.attention();
        while !matches!(broker.health(), Health::Up { .. } | Health::Refusing { .. }) {
            let arrived = tokio::time::timeout_at(deadline, attention.changed()).await;
            if !matches!(arrived, Ok(Ok(()))) {
                let mut before = old.clients().filter(|(named, _)| named.name == name);
                let was_up = before
                    .next()
                    .is_none_or(|(_, client)| matches!(client.broker.health(), Health::Up { .. }));
                let why = match broker.health() {
                    Health::Down(why) => why,
                    Health::Starting | Health::Up { .. } | Health::Refusing { .. } => {
                        "no answer yet".to_owned()
                    }
                };
                if was_up {
                    return Err(StartError(format!(
                        "broker {name} was not reached within {ARRIVAL:?}: {why}"
                    )));
                }
                tracing::warn!(broker = name, why, "the broker is still out of reach");
                break;
            }
        }
    }
    let inspected = brokers_where(new, |broker| {
        broker.require_durable || broker.settings.is_inspected_first()
    });
    let attempts = new.inspect_all(&inspected, DURABILITY_CHECK_TIMEOUT).await;
    refuse(new.undurable(&attempts, true))?;
    Ok(attempts)
}

fn brokers_where(bridge: &Bridge, is_wanted: impl Fn(&NamedBroker) -> bool) -> Vec<BrokerId> {
    let needed = bridge.needed_brokers().iter().copied();
    needed
        .filter(|id| is_wanted(bridge.config().broker(*id)))
        .collect()
}

/// Refuses a configuration that would publish to a destination known not to be durable, where `require_durable` is set.
fn refuse(undurable: Vec<String>) -> Result<(), StartError> {
    if undurable.is_empty() {
        return Ok(());
    }
    Err(StartError(format!(
        "require_durable: {}",
        undurable.join("; ")
    )))
}

async fn drain_retired(clients: Vec<(String, Arc<Broker>)>) {
    let deadline = Instant::now() + RETIRED_CLIENT_TIMEOUT;
    for (name, broker) in clients {
        let unconfirmed = broker.drain(deadline).await;
        tracing::info!(broker = name, unconfirmed, "the former client has ended");
    }
}

#[cfg(feature = "nats")]
#[cfg(test)]
mod tests {
    use super::*;

    /// Brokers that nobody has started, and a route to the last of them.
    fn config(brokers: &[(&str, u16)], keys: &str) -> Config {
        let table = |(name, port): &(&str, u16)| {
            format!(
                "[brokers.{name}]\nkind = \"nats\"\nservers = [\"nats://127.0.0.1:{port}\"]\n{keys}\n"
            )
        };
        let tables: String = brokers.iter().map(table).collect();
        let (last, _) = brokers.last().expect("a broker");
        let rest = format!(
            "[sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n\
             [[routes]]\ntopic = \"x\"\nbroker = \"{last}\"\n"
        );
        Config::from_text(&(tables + &rest))
    }

    async fn start() -> Arc<Live> {
        Live::start(config(&[("main", 1)], "")).await.unwrap()
    }

    /// Another client for the same broker, which is still out of reach.
    async fn replace_client(live: &Live) -> Change {
        live.replace(config(&[("main", 2)], "")).await.unwrap()
    }

    fn client(bridge: &Bridge) -> Arc<Broker> {
        let (_, client) = bridge.clients().next().expect("a client");
        Arc::clone(&client.broker)
    }

    fn metrics(live: &Live) -> String {
        let text = live.process().metrics().encode().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_broker_that_is_out_of_reach_is_waited_for_and_then_nothing_changes() {
        let live = start().await;
        let before = live.current();
        let started = Instant::now();
        let both = config(&[("main", 1), ("second", 2)], "");
        let refused = live.replace(both).await.unwrap_err().to_string();
        assert!(
            refused.contains("broker second was not reached"),
            "{refused}"
        );
        assert!(started.elapsed() >= ARRIVAL, "{:?}", started.elapsed());
        assert!(Arc::ptr_eq(&before, &live.current()));
        assert!(!metrics(&live).contains("broker=\"second\""));
        // The client that was started for nothing ends, too.
        live.retiring.close();
        live.retiring.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_was_out_of_reach_before_may_stay_so() {
        let live = start().await;
        let change = replace_client(&live).await;
        let main = vec!["main".to_owned()];
        let expected = Change {
            started: main.clone(),
            ended: main,
        };
        assert_eq!(change, expected);
        let restarts =
            "hookbridge_broker_client_restarts_total{broker=\"main\",reason=\"reload\"} 1";
        assert!(metrics(&live).contains(restarts), "{}", metrics(&live));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_unchanged_settings_is_kept_and_the_change_is_logged() {
        let live = start().await;
        let before = client(&live.current());
        let told = tokio::spawn({
            let live = Arc::clone(&live);
            async move { live.changed().await }
        });
        let mut same = config(&[("main", 1)], "");
        same.http.idle_timeout *= 2;
        let longer = same.http.idle_timeout;
        assert_eq!(live.replace(same).await.unwrap(), Change::default());
        assert!(Arc::ptr_eq(&before, &client(&live.current())));
        assert_eq!(live.current().config().http.idle_timeout, longer);
        told.await.unwrap();
        assert!(live.retiring.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_ends_when_its_last_request_has_let_go_of_it() {
        let live = start().await;
        let request = live.current();
        replace_client(&live).await;
        live.retiring.close();
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(live.retiring.len(), 1, "a request still has it");
        drop(request);
        let ended = tokio::time::timeout(Duration::from_secs(1), live.retiring.wait());
        ended.await.expect("it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_keeps_a_client_no_longer_than_a_request_may_take() {
        let live = start().await;
        let request = live.current();
        replace_client(&live).await;
        live.retiring.close();
        let most = request.config().longest_request() + RETIRED_CLIENT_TIMEOUT;
        let ended = tokio::time::timeout(most, live.retiring.wait());
        ended.await.expect("it has ended");
        drop(request);
    }

    #[tokio::test(start_paused = true)]
    async fn when_everything_is_given_up_former_clients_end_as_well() {
        let live = start().await;
        let _request = live.current();
        replace_client(&live).await;
        live.give_up();
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(live.drain(deadline).await, 0);
        assert!(live.retiring.is_empty());
        assert!(Instant::now() < deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_must_be_durable_and_is_out_of_reach_stops_neither_start_nor_change() {
        let strict = |port| config(&[("main", port)], "require_durable = true");
        let started = Instant::now();
        let live = Live::start(strict(1)).await.unwrap();
        let took = started.elapsed();
        assert!(
            took <= DURABILITY_CHECK_TIMEOUT + Duration::from_secs(1),
            "{took:?}"
        );
        live.replace(strict(2)).await.unwrap();
    }
}
