//! A bridge in front of a fault, and the invariants under any fault: no acknowledged event is lost, nothing refused is
//! stored, every answer comes in time, events are accepted again after the fault, nothing stays in flight, and metrics
//! agree with the answers.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::{RECOVERY, issue};
use crate::support::bridge::Bridge;
use crate::support::checker::{Books, Checker};
use crate::support::consumer::Stored;
use crate::support::events::Event;
use crate::support::fixture::{Broker, Setup};
use crate::support::hosts::Hosts;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::Answer;
use crate::support::wait::{self, PATIENCE};

/// Additional time for an answer beyond `publish_timeout`: 1 s on an idle machine.
pub(super) const GRACE: Duration = Duration::from_secs(3);

pub(super) struct Trial {
    pub(super) bridge: Bridge,
    pub(super) checker: Arc<Checker>,
    publish_timeout: Duration,
}

impl Trial {
    /// A bridge that is ready.
    pub(super) fn ready(publish_timeout: u64, rest: &str) -> Self {
        let trial = Self::new(publish_timeout, "", rest);
        trial.bridge.wait_ready();
        trial
    }

    /// A bridge that is ready and resolves names with these hosts.
    pub(super) fn ready_seeing(hosts: &Hosts, publish_timeout: u64, rest: &str) -> Self {
        let http = format!("publish_timeout = \"{publish_timeout}s\"\n");
        let trial = Self::of(Bridge::run_seeing(hosts, &http, rest), publish_timeout);
        trial.bridge.wait_ready();
        trial
    }

    /// A bridge that listens; more keys for `[http]`.
    pub(super) fn new(publish_timeout: u64, http: &str, rest: &str) -> Self {
        let http = format!("publish_timeout = \"{publish_timeout}s\"\n{http}");
        Self::of(Bridge::run_with(&http, rest), publish_timeout)
    }

    fn of(bridge: Bridge, publish_timeout: u64) -> Self {
        Self {
            bridge,
            checker: Arc::default(),
            publish_timeout: Duration::from_secs(publish_timeout),
        }
    }

    /// Delivers an event and expects an answer in time.
    #[track_caller]
    pub(super) fn deliver(&self, event: &Event) -> Answer {
        let sent = Instant::now();
        let answer = self.bridge.deliver(event);
        let took = sent.elapsed();
        self.checker.note(event, took, &Ok(answer.clone()));
        assert!(
            took < self.publish_timeout + GRACE,
            "answered after {took:?}: {answer:?}"
        );
        answer
    }

    /// Delivers a new event.
    #[track_caller]
    pub(super) fn deliver_new(&self) -> Answer {
        self.deliver(&issue(0))
    }

    /// Delivers new events at the same time.
    pub(super) fn burst<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        count: usize,
    ) -> Vec<ScopedJoinHandle<'scope, Answer>> {
        (0..count)
            .map(|_| scope.spawn(|| self.deliver_new()))
            .collect()
    }

    /// Delivers new events until one is answered 200.
    #[track_caller]
    pub(super) fn recover(&self) {
        self.recover_within(RECOVERY);
    }

    /// [`Trial::recover`] with another time limit.
    #[track_caller]
    pub(super) fn recover_within(&self, limit: Duration) {
        self.checker.begin("recovery");
        let started = Instant::now();
        wait::until("an event is answered 200", limit, || {
            self.deliver_new().status == 200
        });
        println!("200 again after {:?}", started.elapsed());
    }

    /// Delivers an event repeatedly until it is answered 200; returns that answer.
    #[track_caller]
    pub(super) fn retry(&self, event: &Event) -> Answer {
        wait::until_some("the retry is answered 200", RECOVERY, || {
            Some(self.deliver(event)).filter(|answer| answer.status == 200)
        })
    }

    /// Starts senders whose events this trial records.
    pub(super) fn load(&self, senders: usize, pause: Duration) -> Load {
        let checker = Arc::clone(&self.checker);
        Load::paced(self.bridge.public, checker, senders, pause, issue)
    }

    /// Waits until this many more events are answered 200.
    #[track_caller]
    pub(super) fn wait_for_more(&self, events: usize) {
        let so_far = self.checker.answered(200);
        wait::until("more events are answered 200", PATIENCE, || {
            self.checker.answered(200) >= so_far + events
        });
    }

    /// The client did not have to be replaced.
    #[track_caller]
    pub(super) fn expect_no_client_restart(&self) {
        let name = "hookbridge_broker_client_restarts_total";
        assert_eq!(self.bridge.metric(name, &[]), 0.0, "{name}");
    }

    /// Waits until the metric has at least this value.
    pub(super) fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        wait::until(&format!("{name}{labels:?} >= {least}"), PATIENCE, || {
            self.bridge.metric(name, labels) >= least
        });
    }

    /// Checks everything against what the broker holds.
    #[track_caller]
    pub(super) fn finish(&self, row: &str, stored: &[Stored]) -> Books {
        self.at_rest();
        let books = finish(row, &self.checker, stored);
        let metrics = self.bridge.metrics();
        if self.checker.unanswered() == 0 {
            let requests = metrics.sum("hookbridge_requests_total", &[]);
            assert_eq!(
                requests,
                self.checker.answers() as f64,
                "hookbridge_requests_total"
            );
        }
        // An event with an unknown outcome may be stored but not counted; nothing unacknowledged is counted.
        let events = metrics.sum("hookbridge_events_total", &[]);
        let least = self.checker.outcomes("published");
        let most = least + self.checker.outcomes("duplicate") + self.checker.unanswered();
        assert!(
            (least as f64..=most as f64).contains(&events),
            "hookbridge_events_total: {events} are not between {least} and {most}"
        );
        books
    }

    /// Waits until nothing is held for finished requests.
    pub(super) fn at_rest(&self) {
        wait::until("nothing is left in flight", PATIENCE, || {
            let metrics = self.bridge.metrics();
            ["hookbridge_in_flight", "hookbridge_in_flight_bytes"]
                .iter()
                .all(|name| metrics.sum(name, &[]) == 0.0)
        });
        assert_eq!(self.bridge.metric("hookbridge_panics_total", &[]), 0.0);
    }
}

/// A broker behind a proxy, with a topic for one test.
pub(super) struct Behind<B: 'static> {
    pub(super) broker: &'static B,
    pub(super) proxy: Proxy,
    pub(super) topic: String,
}

impl<B: Broker> Behind<B> {
    pub(super) fn new(name: &str) -> Option<Self> {
        let (broker, proxy) = B::behind_proxy()?;
        let topic = broker.new_topic(name);
        Some(Self {
            broker,
            proxy,
            topic,
        })
    }

    /// The configuration of a bridge that goes through the proxy.
    pub(super) fn tables(&self) -> String {
        self.tables_of(&Setup::new())
    }

    /// [`Behind::tables`] of another setup.
    pub(super) fn tables_of(&self, setup: &Setup<B>) -> String {
        setup.tables(&B::at(&self.proxy.address), &self.topic)
    }

    pub(super) fn read(&self) -> Vec<Stored> {
        self.broker.read(&self.topic)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what was answered: {}\n---", self.checker.history());
        }
    }
}

/// Checks the answers of several bridges against what the broker holds.
#[track_caller]
pub(super) fn finish(row: &str, checker: &Checker, stored: &[Stored]) -> Books {
    let books = checker.check(stored);
    println!(
        "{row}: sent {}, acknowledged {}, found {}, duplicates {}; answers {}",
        checker.events(),
        books.acknowledged,
        stored.len(),
        books.duplicates,
        checker.summary().replace(['\n', '{', '}'], " ")
    );
    books
}

/// The number of copies of this event.
pub(super) fn copies(stored: &[Stored], event: &Event) -> usize {
    stored
        .iter()
        .filter(|message| message.event_id() == event.id)
        .count()
}
