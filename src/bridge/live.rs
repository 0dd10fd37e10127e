//! The configuration that runs, and how another one takes its place: without a refused event, or not at all.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::bridge::Bridge;
use crate::bridge::inspection::Attempt;
use crate::brokers::{Broker, Health, Restart, StartError};
use crate::config::{BrokerId, Config, NamedBroker};

/// How long a new client has to reach its broker before the change is given up.
const ARRIVAL: Duration = Duration::from_secs(10);

/// How long brokers have to tell of their destinations before a configuration takes events. What they have not told by then
/// is unknown.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What a client that is not needed any more has for its last messages.
const FAREWELL: Duration = Duration::from_secs(30);

/// The configuration that runs.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Bridge>,
    /// Wakes who looks at the destinations.
    changed: Notify,
    /// Clients that are flushed before they end.
    farewells: TaskTracker,
}

/// What a change did with the brokers' clients, by the brokers' names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Those that were started.
    pub started: Vec<String>,
    /// Those that are ended.
    pub ended: Vec<String>,
}

impl Live {
    /// Starts the clients of all brokers. They connect in the background.
    ///
    /// # Errors
    /// What a client does not take of its settings, or destinations that are not as durable as they must be.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let bridge = Bridge::start(config).await?;
        let required = brokers_where(&bridge, |broker| broker.require_durable);
        let attempts = bridge.inspect_all(&required, FIRST_LOOK).await;
        // What is unknown is not durable, but a restart would not make it known: it keeps the service from being ready.
        refuse(bridge.undurable(&attempts, false))?;
        bridge.note_attempts(attempts);
        bridge.process().metrics().note_reload(true);
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(bridge),
            changed: Notify::new(),
            farewells: TaskTracker::new(),
        }))
    }

    /// What a request that comes now gets.
    #[must_use]
    pub fn current(&self) -> Arc<Bridge> {
        self.current.load_full()
    }

    /// Lets another configuration take the place of the one that runs, once its brokers are reached. Not for two at once.
    ///
    /// # Errors
    /// Why the one that runs stays: what a client does not take of its settings, a new broker that is out of reach, or
    /// destinations that are not as durable as they must be.
    pub async fn replace(&self, config: Config) -> Result<Change, StartError> {
        let old = self.current();
        let new = old.successor(config).await?;
        let attempts = match ready_to_follow(&new, &old).await {
            Ok(attempts) => attempts,
            Err(error) => {
                new.give_way(&old);
                self.see_off(clients_of_only(&new, &old));
                return Err(error);
            }
        };
        let (started, ended) = (clients_of_only(&new, &old), clients_of_only(&old, &new));
        new.take_over(&old);
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

    /// Ends clients when no request needs them any more.
    fn retire(&self, old: Arc<Bridge>, clients: Vec<(String, Arc<Broker>)>) {
        if clients.is_empty() {
            return;
        }
        let (unused, longest) = (old.unused(), old.config().longest_request());
        let given_up = old.process().given_up().clone();
        drop(old);
        self.farewells.spawn(async move {
            tokio::select! {
                () = unused.cancelled() => {}
                () = tokio::time::sleep_until(Instant::now() + longest) => {}
                () = given_up.cancelled() => clients.iter().for_each(|(_, broker)| broker.give_up()),
            }
            farewell(clients).await;
        });
    }

    /// Ends clients that no request has ever had.
    fn see_off(&self, clients: Vec<(String, Arc<Broker>)>) {
        if !clients.is_empty() {
            self.farewells.spawn(farewell(clients));
        }
    }

    /// Resolves when the configuration has changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells every request that still waits for a broker that nothing is known: the time is up.
    pub fn give_up(&self) {
        let current = self.current();
        current.give_up();
        current.process().given_up().cancel();
    }

    /// Waits for the requests whose senders have hung up, flushes the brokers and ends their clients. Returns how many
    /// messages were left without an answer.
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
                "some requests whose senders hung up are not finished"
            );
        }
        self.farewells.close();
        let farewells = tokio::time::timeout_at(deadline, self.farewells.wait());
        let (unconfirmed, _late) = tokio::join!(current.drain(deadline), farewells);
        unconfirmed
    }
}

/// The clients that one configuration has and the other has not, with their brokers' names.
fn clients_of_only(of: &Bridge, other: &Bridge) -> Vec<(String, Arc<Broker>)> {
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

/// Waits until the new clients have reached their brokers, and inspects the destinations. One whose broker is out of reach
/// already may stay so.
async fn ready_to_follow(new: &Bridge, old: &Bridge) -> Result<Vec<Attempt>, StartError> {
    let deadline = Instant::now() + ARRIVAL;
    for (name, broker) in clients_of_only(new, old) {
        // Before the first check, so that no arrival is missed.
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
    let attempts = new.inspect_all(&inspected, FIRST_LOOK).await;
    refuse(new.undurable(&attempts, true))?;
    Ok(attempts)
}

fn brokers_where(bridge: &Bridge, is_wanted: impl Fn(&NamedBroker) -> bool) -> Vec<BrokerId> {
    let needed = bridge.needed_brokers().iter().copied();
    needed
        .filter(|id| is_wanted(bridge.config().broker(*id)))
        .collect()
}

/// Where a broker must be durable, nothing is published to it that is known not to be.
fn refuse(undurable: Vec<String>) -> Result<(), StartError> {
    if undurable.is_empty() {
        return Ok(());
    }
    Err(StartError(format!(
        "require_durable: {}",
        undurable.join("; ")
    )))
}

async fn farewell(clients: Vec<(String, Arc<Broker>)>) {
    let deadline = Instant::now() + FAREWELL;
    for (name, broker) in clients {
        let unconfirmed = broker.drain(deadline).await;
        tracing::info!(broker = name, unconfirmed, "the former client has ended");
    }
}

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
        let text = live.current().process().metrics().encode().unwrap();
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
        live.farewells.close();
        live.farewells.wait().await;
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
    async fn a_client_whose_settings_are_the_same_is_kept_and_the_change_is_told() {
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
        assert!(live.farewells.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_ends_when_its_last_request_has_let_go_of_it() {
        let live = start().await;
        let request = live.current();
        replace_client(&live).await;
        live.farewells.close();
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(live.farewells.len(), 1, "a request still has it");
        drop(request);
        let ended = tokio::time::timeout(Duration::from_secs(1), live.farewells.wait());
        ended.await.expect("it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_keeps_a_client_no_longer_than_a_request_may_take() {
        let live = start().await;
        let request = live.current();
        replace_client(&live).await;
        live.farewells.close();
        let most = request.config().longest_request() + FAREWELL;
        let ended = tokio::time::timeout(most, live.farewells.wait());
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
        assert!(live.farewells.is_empty());
        assert!(Instant::now() < deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_must_be_durable_and_is_out_of_reach_stops_neither_start_nor_change() {
        let strict = |port| config(&[("main", port)], "require_durable = true");
        let started = Instant::now();
        let live = Live::start(strict(1)).await.unwrap();
        let took = started.elapsed();
        assert!(took <= FIRST_LOOK + Duration::from_secs(1), "{took:?}");
        live.replace(strict(2)).await.unwrap();
    }
}
