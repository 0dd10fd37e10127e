//! Feeds the live page: bounded, and nothing at all while nobody watches.
//!
//! While nobody does, an event costs two or three relaxed loads. While someone does, its figures are counted, and it is shown unless
//! too many came within the second. A watcher that reads too slowly loses events and learns how many; nobody waits for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use crate::event::Violation;

/// The most watchers at a time.
pub(crate) const MAX_WATCHERS: usize = 8;

/// Updates that wait for one watcher.
const MAX_PENDING: usize = 256;

/// Events that are shown between two [`Feed::tick`]s, which is a second.
const MAX_EVENTS_A_TICK: u32 = 100;

/// The largest body that is kept for the page, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// Sources and routes with figures. A reload within a second could bring more than a configuration has.
const MAX_SERIES: usize = 4096;

/// The updates of all watchers, and the figures since the last tick.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    watching: AtomicUsize,
    /// Notified when someone begins to watch.
    arrived: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watchers: Vec<Watcher>,
    /// Numbers the watchers.
    last: u64,
    tally: Tally,
    shown: u32,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    updates: mpsc::Sender<Update>,
    lost: Arc<AtomicU64>,
}

/// One piece of news for a watcher.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    Event(Arc<Entry>),
    /// The name and the JSON of something else.
    Other(&'static str, Arc<str>),
}

/// An event, or a request without one, with all that may be shown of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: SystemTime,
    pub(crate) request_id: String,
    pub(crate) client: Option<IpAddr>,
    pub(crate) source: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) event_type: Option<String>,
    /// A status or a problem code.
    pub(crate) outcome: &'static str,
    pub(crate) class: Class,
    /// The outcome of the whole request, where it differs.
    pub(crate) answer: Option<&'static str>,
    pub(crate) detail: Option<String>,
    pub(crate) faults: Vec<Violation>,
    pub(crate) duration: Duration,
    /// `[[routes]]`, from 1.
    pub(crate) route: Option<usize>,
    pub(crate) messages: Vec<Sent>,
    /// None unless the operator allows it.
    pub(crate) content: Option<Content>,
}

/// One message to one broker.
#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    pub(crate) broker: String,
    pub(crate) topic: String,
    /// `stored`, `not_stored` or `unknown`.
    pub(crate) result: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) partition: Option<i32>,
    pub(crate) offset: Option<i64>,
    pub(crate) stream: Option<String>,
    pub(crate) sequence: Option<u64>,
}

/// The content of an authentic event, not masked yet.
#[derive(Debug)]
pub(crate) struct Content {
    /// None if it is larger than [`MAX_BODY`].
    pub(crate) body: Option<Bytes>,
    pub(crate) length: usize,
    pub(crate) headers: Vec<(String, String)>,
}

impl Content {
    /// A copy: a piece of a buffer would keep all of it.
    pub(crate) fn new(body: &[u8], headers: Vec<(String, String)>) -> Self {
        let is_small = body.len() <= MAX_BODY;
        Self {
            body: is_small.then(|| Bytes::copy_from_slice(body)),
            length: body.len(),
            headers,
        }
    }
}

/// The meaning of an outcome to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// Answered 2xx.
    Accepted,
    /// Answered 4xx.
    Refused,
    /// Answered 503.
    Failed,
}

/// The figures of a second.
#[derive(Debug, Default)]
struct Tally {
    sources: HashMap<String, Figures>,
    routes: HashMap<usize, Figures>,
    not_shown: u64,
}

#[derive(Debug, Default)]
struct Figures {
    accepted: u64,
    refused: u64,
    failed: u64,
    latency: Latency,
}

impl Figures {
    fn count(&mut self, class: Class, duration: Option<Duration>) {
        match class {
            Class::Accepted => self.accepted += 1,
            Class::Refused => self.refused += 1,
            Class::Failed => self.failed += 1,
        }
        if let Some(duration) = duration {
            self.latency.note(duration);
        }
    }
}

/// A histogram with four buckets for each doubling, from 1 µs to more than a minute.
#[derive(Debug)]
struct Latency([u32; BUCKETS]);

const BUCKETS: usize = 108;

impl Default for Latency {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Latency {
    fn note(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let quarters = micros.clamp(1, (1 << 27) - 1) * 4;
        let octave = quarters.ilog2() - 2;
        let bucket = u64::from(octave) * 4 + ((quarters >> octave) & 3);
        let bucket = usize::try_from(bucket).unwrap_or(BUCKETS);
        if let Some(count) = self.0.get_mut(bucket) {
            *count += 1;
        }
    }

    /// In milliseconds: the upper end of the bucket that this share, in per cent, ends in.
    fn percentile(&self, percent: u64) -> Option<f64> {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in (0_u32..).zip(self.0) {
            below += u64::from(count);
            if below >= wanted {
                let end = (5 + u64::from(bucket % 4)) << (bucket / 4);
                #[expect(clippy::cast_precision_loss, reason = "below 2^32")]
                return Some(end as f64 / 4000.0);
            }
        }
        None
    }
}

/// The figures of a second, as JSON has them.
#[derive(Debug, Serialize)]
pub(crate) struct Rates {
    sources: HashMap<String, Rate>,
    routes: HashMap<usize, Rate>,
    /// Events that were too many to be shown.
    not_shown: u64,
}

#[derive(Debug, Serialize)]
struct Rate {
    accepted: u64,
    refused: u64,
    failed: u64,
    /// In milliseconds.
    p50: Option<f64>,
    p99: Option<f64>,
}

impl From<Figures> for Rate {
    fn from(figures: Figures) -> Self {
        Self {
            accepted: figures.accepted,
            refused: figures.refused,
            failed: figures.failed,
            p50: figures.latency.percentile(50),
            p99: figures.latency.percentile(99),
        }
    }
}

impl Feed {
    pub(crate) fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Relaxed) > 0
    }

    /// Waits until someone watches.
    pub(crate) async fn until_watched(&self) {
        while !self.is_watched() {
            self.arrived.notified().await;
        }
    }

    /// Another watcher; none if there are too many.
    pub(crate) fn watch(self: &Arc<Self>) -> Option<Watch> {
        let mut state = self.lock();
        if state.watchers.len() >= MAX_WATCHERS {
            return None;
        }
        if state.watchers.is_empty() {
            state.tally = Tally::default();
            state.shown = 0;
        }
        let (sender, updates) = mpsc::channel(MAX_PENDING);
        let lost = Arc::new(AtomicU64::new(0));
        state.last += 1;
        let number = state.last;
        state.watchers.push(Watcher {
            number,
            updates: sender,
            lost: Arc::clone(&lost),
        });
        self.watching.store(state.watchers.len(), Ordering::Relaxed);
        self.arrived.notify_one();
        Some(Watch {
            feed: Arc::clone(self),
            number,
            updates,
            lost,
        })
    }

    /// Ends every watch: those who may not watch any more do not come back.
    pub(crate) fn end_all(&self) {
        let mut state = self.lock();
        state.watchers.clear();
        self.watching.store(0, Ordering::Relaxed);
    }

    /// Counts a request; `source` is empty if no source has its path.
    pub(crate) fn count_request(&self, source: &str, class: Class, duration: Option<Duration>) {
        let mut state = self.lock();
        let sources = &mut state.tally.sources;
        if let Some(figures) = sources.get_mut(source) {
            figures.count(class, duration);
        } else if sources.len() < MAX_SERIES {
            let figures = sources.entry(source.to_owned()).or_default();
            figures.count(class, duration);
        }
    }

    /// Counts a message of a route.
    pub(crate) fn count_message(&self, route: usize, class: Class, duration: Option<Duration>) {
        let mut state = self.lock();
        let routes = &mut state.tally.routes;
        if routes.contains_key(&route) || routes.len() < MAX_SERIES {
            routes.entry(route).or_default().count(class, duration);
        }
    }

    /// Whether another event may be shown before the next tick. One that may not is counted.
    pub(crate) fn has_room(&self) -> bool {
        let mut state = self.lock();
        let has_room = state.shown < MAX_EVENTS_A_TICK;
        if has_room {
            state.shown += 1;
        } else {
            state.tally.not_shown += 1;
        }
        has_room
    }

    /// Gives every watcher an update that has room for it.
    pub(crate) fn publish(&self, update: &Update) {
        let mut state = self.lock();
        state
            .watchers
            .retain(|watcher| match watcher.updates.try_send(update.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    if matches!(update, Update::Event(_)) {
                        watcher.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
        self.watching.store(state.watchers.len(), Ordering::Relaxed);
    }

    /// Takes the figures since the last tick, and lets further events be shown.
    pub(crate) fn tick(&self) -> Rates {
        let mut state = self.lock();
        state.shown = 0;
        let tally = std::mem::take(&mut state.tally);
        drop(state);
        Rates {
            sources: into_rates(tally.sources),
            routes: into_rates(tally.routes),
            not_shown: tally.not_shown,
        }
    }

    fn leave(&self, number: u64) {
        let mut state = self.lock();
        state.watchers.retain(|watcher| watcher.number != number);
        self.watching.store(state.watchers.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn into_rates<K: Eq + std::hash::Hash>(figures: HashMap<K, Figures>) -> HashMap<K, Rate> {
    let figures = figures.into_iter();
    figures
        .map(|(key, figures)| (key, figures.into()))
        .collect()
}

/// One watcher's side. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Watch {
    feed: Arc<Feed>,
    number: u64,
    updates: mpsc::Receiver<Update>,
    lost: Arc<AtomicU64>,
}

impl Watch {
    /// The next update; none once the watch has ended.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Update>> {
        self.updates.poll_recv(context)
    }

    /// The events that found no room since this was asked last.
    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.feed.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Update {
        Update::Event(Arc::new(Entry {
            at: SystemTime::UNIX_EPOCH,
            request_id: String::new(),
            client: None,
            source: None,
            event_id: None,
            event_type: None,
            outcome: "published",
            class: Class::Accepted,
            answer: None,
            detail: None,
            faults: Vec::new(),
            duration: Duration::ZERO,
            route: None,
            messages: Vec::new(),
            content: None,
        }))
    }

    fn pending(watch: &mut Watch) -> usize {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut count = 0;
        while let Poll::Ready(Some(_)) = watch.poll_next(&mut context) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_watcher_that_reads_too_slowly_loses_events_learns_how_many_and_holds_up_nobody() {
        let feed = Arc::new(Feed::default());
        let (mut slow, mut quick) = (feed.watch().unwrap(), feed.watch().unwrap());
        let mut read = 0;
        for _ in 0..MAX_PENDING + 5 {
            feed.publish(&entry());
            read += pending(&mut quick);
        }
        assert_eq!((read, quick.take_lost()), (MAX_PENDING + 5, 0));
        assert_eq!((pending(&mut slow), slow.take_lost()), (MAX_PENDING, 5));
        assert_eq!(slow.take_lost(), 0);
        feed.publish(&entry());
        assert_eq!(pending(&mut slow), 1);
    }

    #[test]
    fn there_are_only_so_many_watchers_and_who_leaves_makes_room() {
        let feed = Arc::new(Feed::default());
        assert!(!feed.is_watched());
        let mut watches: Vec<_> = (0..MAX_WATCHERS).map(|_| feed.watch().unwrap()).collect();
        assert!(feed.watch().is_none());
        watches.pop();
        watches.push(feed.watch().expect("room"));
        drop(watches);
        assert!(!feed.is_watched());
        let mut ended = feed.watch().unwrap();
        feed.end_all();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(ended.poll_next(&mut context), Poll::Ready(None)));
        assert!(!feed.is_watched());
    }

    #[test]
    fn events_beyond_the_limit_of_a_second_are_counted_instead_of_shown() {
        let feed = Arc::new(Feed::default());
        let shown = (0..MAX_EVENTS_A_TICK + 7).filter(|_| feed.has_room());
        assert_eq!(shown.count(), MAX_EVENTS_A_TICK as usize);
        assert_eq!(feed.tick().not_shown, 7);
        assert!(feed.has_room());
        assert_eq!(feed.tick().not_shown, 0);
    }

    #[test]
    fn percentiles_are_the_upper_ends_of_their_buckets() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(50), None);
        for millis in 1..=100 {
            latency.note(Duration::from_millis(millis));
        }
        let close_to = |percent, millis: f64| {
            let found = latency.percentile(percent).unwrap();
            assert!(
                found >= millis && found <= millis * 1.26,
                "{percent}: {found}"
            );
        };
        close_to(50, 50.0);
        close_to(99, 99.0);
        for extreme in [Duration::ZERO, Duration::MAX] {
            let mut latency = Latency::default();
            latency.note(extreme);
            assert!(latency.percentile(99).is_some(), "{extreme:?}");
        }
    }

    #[test]
    fn figures_are_those_of_one_second() {
        let feed = Feed::default();
        feed.count_request("a", Class::Accepted, Some(Duration::from_millis(3)));
        feed.count_request("a", Class::Refused, None);
        feed.count_message(2, Class::Failed, None);
        let rates = serde_json::to_value(feed.tick()).unwrap();
        let a = &rates["sources"]["a"];
        assert_eq!(
            (&a["accepted"], &a["refused"], &a["failed"]),
            (&1.into(), &1.into(), &0.into())
        );
        assert!(a["p99"].as_f64().unwrap() >= 3.0);
        assert_eq!(rates["routes"]["2"]["failed"], 1);
        let empty = serde_json::to_value(feed.tick()).unwrap();
        assert_eq!(empty["sources"], serde_json::json!({}));
    }
}
