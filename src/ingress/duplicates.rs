//! Step 7, before the broker: a delivery that is known to be stored is not published again.
//!
//! It only ever makes duplicates fewer, and never an event less: an entry says "stored" only after a broker's receipt, it
//! is looked up only for verified requests, its key contains the body's hash, and whatever else happens removes it.

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::brokers::Receipt;
use crate::providers::EventId;

/// Deliveries that are remembered of one source; the oldest are forgotten first. About 150 bytes each.
const MAX_ENTRIES: usize = 200_000;

/// A source's memory of what was stored.
#[derive(Debug)]
pub(crate) struct Window {
    max_entries: usize,
    entries: Mutex<Entries>,
}

/// SHA-256 of id and body; each source has a window of its own.
type Key = [u8; 32];

#[derive(Debug, Default)]
struct Entries {
    lifetime: Duration,
    by_key: HashMap<Key, Entry>,
    /// In the order in which they were stored.
    stored: VecDeque<(Instant, Key)>,
}

#[derive(Debug)]
enum Entry {
    /// Its first delivery is being published; whoever comes meanwhile is told how that ends.
    InFlight(Option<watch::Sender<Option<End>>>),
    Stored(Receipt),
}

/// How a first delivery ended.
type End = Result<Receipt, Refusal>;

/// What a delivery finds.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is the first: it must be published, and its end told.
    First(Place),
    /// It is known to be stored.
    Stored(Receipt),
}

/// A first delivery's place. Dropping it without an end forgets the delivery, so that the next one is published.
#[derive(Debug)]
pub(super) struct Place {
    window: Arc<Window>,
    key: Key,
    is_open: bool,
}

impl Window {
    pub(crate) fn new(lifetime: Duration) -> Arc<Self> {
        Self::with_capacity(lifetime, MAX_ENTRIES)
    }

    fn with_capacity(lifetime: Duration, max_entries: usize) -> Arc<Self> {
        let entries = Entries {
            lifetime,
            ..Entries::default()
        };
        Arc::new(Self {
            max_entries,
            entries: Mutex::new(entries),
        })
    }

    /// From now on what was stored is remembered for so long, also what was stored before.
    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        self.lock().lifetime = lifetime;
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing in here panics while it holds the lock.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the delivery or begins it.
    fn look(
        self: &Arc<Self>,
        key: Key,
        now: Instant,
    ) -> Result<Entered, watch::Receiver<Option<End>>> {
        let mut entries = self.lock();
        entries.forget(now, self.max_entries);
        match entries.by_key.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry::InFlight(None));
                Ok(Entered::First(Place {
                    window: Arc::clone(self),
                    key,
                    is_open: true,
                }))
            }
            hash_map::Entry::Occupied(occupied) => match occupied.into_mut() {
                Entry::Stored(receipt) => Ok(Entered::Stored(*receipt)),
                Entry::InFlight(twins) => {
                    let twins = twins.get_or_insert_with(|| watch::channel(None).0);
                    Err(twins.subscribe())
                }
            },
        }
    }
}

impl Entries {
    /// Forgets what is too old or too much. What is in flight is bounded by the permits, and stays.
    fn forget(&mut self, now: Instant, max_entries: usize) {
        while let Some((at, key)) = self.stored.front().copied() {
            if now.saturating_duration_since(at) < self.lifetime && self.by_key.len() < max_entries
            {
                return;
            }
            self.stored.pop_front();
            self.by_key.remove(&key);
        }
    }
}

/// Finds out whether a delivery is the first. One that finds its twin under way waits for the twin's end, no longer than
/// to its own deadline.
///
/// # Errors
/// The twin's refusal.
pub(super) async fn enter(
    window: &Arc<Window>,
    event_id: &EventId,
    body: &[u8],
    deadline: Instant,
) -> Result<Entered, Refusal> {
    let key = key(event_id, body);
    match window.look(key, Instant::now()) {
        Ok(entered) => Ok(entered),
        Err(mut end) => {
            let waited = tokio::time::timeout_at(deadline, end.wait_for(Option::is_some)).await;
            match waited {
                Ok(Ok(end)) => match &*end {
                    Some(Ok(receipt)) => Ok(Entered::Stored(*receipt)),
                    Some(Err(refusal)) => Err(refusal.clone()),
                    None => Err(Refusal::PublishTimeout),
                },
                // The twin ended without a word, or too late for us.
                Ok(Err(_)) | Err(_) => Err(Refusal::PublishTimeout),
            }
        }
    }
}

fn key(event_id: &EventId, body: &[u8]) -> Key {
    let mut hash = Sha256::new();
    hash.update(event_id.as_str());
    // An id has no control characters: it can't run into the body.
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

impl Place {
    /// Says how the first delivery ended. Only what is stored is remembered.
    pub(super) fn end(mut self, end: &End) {
        self.leave(Some(end));
    }

    fn leave(&mut self, end: Option<&End>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut entries = self.window.lock();
        let left = match end {
            Some(Ok(receipt)) => {
                entries.stored.push_back((Instant::now(), self.key));
                entries.by_key.insert(self.key, Entry::Stored(*receipt))
            }
            Some(Err(_)) | None => entries.by_key.remove(&self.key),
        };
        drop(entries);
        if let (Some(Entry::InFlight(Some(twins))), Some(end)) = (left, end) {
            twins.send_replace(Some(end.clone()));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::test_receipt;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn id(text: &str) -> EventId {
        EventId::new(text.to_owned()).unwrap()
    }

    async fn enter_now(
        window: &Arc<Window>,
        event_id: &str,
        body: &[u8],
    ) -> Result<Entered, Refusal> {
        enter(
            window,
            &id(event_id),
            body,
            Instant::now() + Duration::from_secs(8),
        )
        .await
    }

    async fn first(window: &Arc<Window>, event_id: &str) -> Place {
        match enter_now(window, event_id, b"body").await {
            Ok(Entered::First(place)) => place,
            other => panic!("{other:?}"),
        }
    }

    fn stored() -> End {
        Ok(test_receipt(false))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stored_is_remembered_for_the_window_and_with_its_body_alone() {
        let window = Window::new(HOUR);
        first(&window, "a").await.end(&stored());
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Entered::Stored(_))
        ));
        assert!(matches!(
            enter_now(&window, "a", b"other").await,
            Ok(Entered::First(_))
        ));
        tokio::time::advance(HOUR).await;
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Entered::First(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_not_known_to_be_stored_is_published_again() {
        let window = Window::new(HOUR);
        for refusal in [
            Refusal::PublishTimeout,
            Refusal::Overloaded,
            Refusal::BrokerUnavailable { retry_after: HOUR },
        ] {
            first(&window, "a").await.end(&Err(refusal));
        }
        drop(first(&window, "a").await);
        first(&window, "a").await.end(&stored());
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Entered::Stored(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_twin_waits_for_the_first_ones_end_and_says_the_same() {
        let window = Window::new(HOUR);
        for (end, code) in [
            (stored(), None),
            (Err(Refusal::Overloaded), Some("overloaded")),
            (Err(Refusal::PublishTimeout), Some("publish_timeout")),
        ] {
            let place = first(&window, "twin").await;
            let twin = {
                let window = Arc::clone(&window);
                tokio::spawn(async move { enter_now(&window, "twin", b"body").await })
            };
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(!twin.is_finished());
            place.end(&end);
            match (twin.await.unwrap(), code) {
                (Ok(Entered::Stored(_)), None) => {}
                (Err(refusal), Some(code)) => assert_eq!(refusal.code(), code),
                other => panic!("{other:?}"),
            }
            tokio::time::advance(HOUR).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_twin_never_waits_longer_than_its_own_deadline_nor_for_one_that_is_gone() {
        let window = Window::new(HOUR);
        let place = first(&window, "a").await;
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Err(Refusal::PublishTimeout)
        ));
        let twin = {
            let window = Arc::clone(&window);
            tokio::spawn(async move { enter_now(&window, "a", b"body").await })
        };
        tokio::task::yield_now().await;
        drop(place);
        assert!(matches!(twin.await.unwrap(), Err(Refusal::PublishTimeout)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_forgets_the_oldest() {
        let window = Window::with_capacity(HOUR, 3);
        for number in 0..10 {
            first(&window, &number.to_string()).await.end(&stored());
            let entries = window.lock();
            assert!(entries.by_key.len() <= 3 && entries.by_key.len() == entries.stored.len());
        }
        assert!(matches!(
            enter_now(&window, "9", b"body").await,
            Ok(Entered::Stored(_))
        ));
        assert!(matches!(
            enter_now(&window, "0", b"body").await,
            Ok(Entered::First(_))
        ));
    }

    proptest! {
        /// Against a model: a delivery is suppressed only after the same one was stored within the window.
        #[test]
        fn only_the_stored_are_suppressed(steps in proptest::collection::vec((0_u8..4, 0_u8..3, 0_u64..40), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let window = Window::new(Duration::from_secs(60));
                let mut stored_at: HashMap<u8, Instant> = HashMap::new();
                for (event, end, seconds) in steps {
                    tokio::time::advance(Duration::from_secs(seconds)).await;
                    let is_known = stored_at.get(&event).is_some_and(|at| at.elapsed() < Duration::from_secs(60));
                    match enter_now(&window, &event.to_string(), b"body").await {
                        Ok(Entered::Stored(_)) => assert!(is_known),
                        Ok(Entered::First(place)) => {
                            assert!(!is_known);
                            match end {
                                0 => {
                                    place.end(&stored());
                                    stored_at.insert(event, Instant::now());
                                }
                                1 => place.end(&Err(Refusal::PublishTimeout)),
                                _ => drop(place),
                            }
                        }
                        Err(refusal) => panic!("{refusal:?}"),
                    }
                }
            });
        }
    }
}
