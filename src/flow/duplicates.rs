//! Step 7, before the broker: a delivery that is known to be stored is not published again.
//!
//! It only ever makes duplicates fewer, and never an event less: an entry says "stored" only after a broker's receipt, it
//! is looked up only for verified requests, its key contains the body's hash unless the source says `dedup_by = "id"`, and whatever else happens removes it.

use std::collections::VecDeque;
use std::collections::hash_map::{self, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highway::{HighwayHash as _, HighwayHasher};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::brokers::Receipt;
use crate::event::{DedupBy, EventId, Refusal};

/// A source's memory is in so many parts, found by the key's bits: none of them is ever so large that letting it grow
/// makes a request wait.
const PARTS: usize = 64;

/// Deliveries that each part remembers, 200,000 in all; the oldest are forgotten first. About 75 bytes each.
const MAX_ENTRIES_A_PART: usize = 200_000 / PARTS;

/// A source's memory of what was stored.
#[derive(Debug)]
pub(crate) struct Window {
    max_entries_a_part: usize,
    parts: [Mutex<Entries>; PARTS],
}

/// A HighwayHash of a delivery's id, or of its id and body, in 128 bits: what the window knows it by, and the end of its
/// `Nats-Msg-Id`. Each source has a window and ids of its own.
///
/// The key is fixed, since all replicas must come to the same id, and so is public. That is enough. By chance two of a
/// billion deliveries of one id are equal once in 10^20 times. To look for two on purpose is of use only to someone whose
/// bodies verify, and who can have them sent under one id: the holder of the secret, who harms nobody's events but its own.
/// A key made from the signing secret would let those who read the stream try guesses of the secret, and would change with
/// it. SHA-256 needs no such argument, and six times the time: a microsecond of an event's thirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    first: u64,
    second: u64,
}

/// The start of pi's fraction; any would do. Another one makes other ids than the other replicas'.
const KEY: highway::Key = highway::Key([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

/// What an event is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'e> {
    pub(crate) id: &'e EventId,
    /// The source of a CloudEvent: only together with it the id is unique.
    pub(crate) ce_source: Option<&'e str>,
}

impl Fingerprint {
    /// None where each delivery is an event of its own.
    pub(crate) fn of(by: DedupBy, names: Names<'_>, body: &[u8]) -> Option<Self> {
        let mut hash = HighwayHasher::new(KEY);
        hash.append(names.id.as_str().as_bytes());
        if let Some(source) = names.ce_source {
            // Neither has control characters: none of them can run into what follows.
            hash.append(&[1]);
            hash.append(source.as_bytes());
        }
        match by {
            DedupBy::Never => return None,
            DedupBy::Id => {}
            DedupBy::IdAndBody => {
                // An id has no control characters: it can't run into the body.
                hash.append(&[0]);
                hash.append(body);
            }
        }
        let [first, second] = hash.finalize128();
        Some(Self { first, second })
    }

    pub(crate) fn to_hex(self) -> String {
        let bytes = (u128::from(self.first) << 64 | u128::from(self.second)).to_be_bytes();
        data_encoding::HEXLOWER.encode(&bytes)
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.first);
    }
}

/// A key's bits are as random as any hash of them, and only the holder of the secret could choose them.
#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

type ByKey<T> = HashMap<Fingerprint, T, BuildHasherDefault<IdentityHasher>>;

/// A few that are in flight, and many that are stored: most deliveries find theirs among neither, and need not wait for more
/// than a few bytes of the large map to come from memory.
#[derive(Debug)]
struct Entries {
    lifetime: Duration,
    /// Whoever comes while a first delivery is being published is told how that ends.
    in_flight: ByKey<Option<watch::Sender<Option<Settled>>>>,
    stored: ByKey<Receipt>,
    /// The order in which they were.
    order: VecDeque<(Instant, Fingerprint)>,
}

/// The outcome of a first delivery.
type Settled = Result<Receipt, Refusal>;

/// A delivery's claim to be published.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is the first: it must be published, and its outcome settled.
    Acquired(ClaimGuard),
    /// It is known to be stored.
    Stored(Receipt),
}

/// A first delivery's claim. Dropping it unsettled forgets the delivery, so that the next one is published.
#[derive(Debug)]
pub(crate) struct ClaimGuard {
    window: Arc<Window>,
    key: Fingerprint,
    is_open: bool,
}

impl Window {
    pub(crate) fn new(lifetime: Duration) -> Arc<Self> {
        Self::with_capacity(lifetime, MAX_ENTRIES_A_PART)
    }

    fn with_capacity(lifetime: Duration, max_entries_a_part: usize) -> Arc<Self> {
        Arc::new(Self {
            max_entries_a_part,
            parts: std::array::from_fn(|_| {
                Mutex::new(Entries {
                    lifetime,
                    in_flight: HashMap::default(),
                    stored: HashMap::default(),
                    order: VecDeque::new(),
                })
            }),
        })
    }

    /// Changes how long deliveries are remembered, those stored already included.
    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        for part in &self.parts {
            lock(part).lifetime = lifetime;
        }
    }

    /// The part that a key is in, by other bits than those that the map looks at.
    fn part(&self, key: Fingerprint) -> MutexGuard<'_, Entries> {
        let [any, ..] = &self.parts;
        let part = usize::try_from(key.second % PARTS as u64).ok();
        lock(part.and_then(|index| self.parts.get(index)).unwrap_or(any))
    }

    /// Finds the delivery or begins it.
    fn look(
        self: &Arc<Self>,
        key: Fingerprint,
        now: Instant,
    ) -> Result<Claim, watch::Receiver<Option<Settled>>> {
        let mut entries = self.part(key);
        entries.forget(now, self.max_entries_a_part);
        if let Some(receipt) = entries.stored.get(&key) {
            return Ok(Claim::Stored(*receipt));
        }
        match entries.in_flight.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(None);
                Ok(Claim::Acquired(ClaimGuard {
                    window: Arc::clone(self),
                    key,
                    is_open: true,
                }))
            }
            hash_map::Entry::Occupied(occupied) => {
                let twins = occupied.into_mut();
                let twins = twins.get_or_insert_with(|| watch::channel(None).0);
                Err(twins.subscribe())
            }
        }
    }
}

fn lock(part: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    // Nothing in here panics while it holds the lock.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entries {
    /// Forgets what is too old or too much. What is in flight is bounded by the permits, and stays.
    fn forget(&mut self, now: Instant, max_entries: usize) {
        while let Some((at, key)) = self.order.front().copied() {
            if now.saturating_duration_since(at) < self.lifetime && self.order.len() < max_entries {
                return;
            }
            self.order.pop_front();
            self.stored.remove(&key);
        }
    }
}

/// Finds out whether a delivery is the first. One that finds its twin in flight waits for the twin's outcome, no longer than
/// to its own deadline.
///
/// # Errors
/// The twin's refusal.
pub(crate) async fn claim(
    window: &Arc<Window>,
    key: Fingerprint,
    deadline: Instant,
) -> Result<Claim, Refusal> {
    match window.look(key, Instant::now()) {
        Ok(entered) => Ok(entered),
        Err(mut end) => {
            let waited = tokio::time::timeout_at(deadline, end.wait_for(Option::is_some)).await;
            match waited {
                Ok(Ok(end)) => match &*end {
                    Some(Ok(receipt)) => Ok(Claim::Stored(*receipt)),
                    Some(Err(refusal)) => Err(refusal.clone()),
                    None => Err(Refusal::PublishTimeout),
                },
                // The twin ended without a word, or too late for us.
                Ok(Err(_)) | Err(_) => Err(Refusal::PublishTimeout),
            }
        }
    }
}

impl ClaimGuard {
    /// Says how the first delivery ended. Only what is stored is remembered.
    pub(crate) fn settle(mut self, end: &Settled) {
        self.leave(Some(end));
    }

    fn leave(&mut self, end: Option<&Settled>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut entries = self.window.part(self.key);
        let twins = entries.in_flight.remove(&self.key).flatten();
        if let Some(Ok(receipt)) = end {
            entries.order.push_back((Instant::now(), self.key));
            entries.stored.insert(self.key, *receipt);
        }
        drop(entries);
        if let (Some(twins), Some(end)) = (twins, end) {
            twins.send_replace(Some(end.clone()));
        }
    }
}

impl Drop for ClaimGuard {
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

    fn named<'e>(id: &'e EventId, ce_source: Option<&'e str>) -> Names<'e> {
        Names { id, ce_source }
    }

    fn key(event_id: &str, body: &[u8]) -> Fingerprint {
        let id = id(event_id);
        Fingerprint::of(DedupBy::IdAndBody, named(&id, None), body).unwrap()
    }

    async fn enter_now(
        window: &Arc<Window>,
        event_id: &str,
        body: &[u8],
    ) -> Result<Claim, Refusal> {
        let deadline = Instant::now() + Duration::from_secs(8);
        claim(window, key(event_id, body), deadline).await
    }

    async fn first(window: &Arc<Window>, event_id: &str) -> ClaimGuard {
        match enter_now(window, event_id, b"body").await {
            Ok(Claim::Acquired(place)) => place,
            other => panic!("{other:?}"),
        }
    }

    fn stored() -> Settled {
        Ok(test_receipt(false))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stored_is_remembered_for_the_window_and_with_its_body_alone() {
        let window = Window::new(HOUR);
        first(&window, "a").await.settle(&stored());
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Claim::Stored(_))
        ));
        assert!(matches!(
            enter_now(&window, "a", b"other").await,
            Ok(Claim::Acquired(_))
        ));
        tokio::time::advance(HOUR).await;
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Claim::Acquired(_))
        ));
    }

    #[test]
    fn what_makes_two_deliveries_the_same_is_the_sources_choice_and_the_same_on_every_replica() {
        let of =
            |by, event_id: &str, body: &[u8]| Fingerprint::of(by, named(&id(event_id), None), body);
        assert_eq!(of(DedupBy::Id, "a", b"x"), of(DedupBy::Id, "a", b"y"));
        assert_ne!(of(DedupBy::Id, "a", b"x"), of(DedupBy::Id, "b", b"x"));
        let both = |event_id, body| of(DedupBy::IdAndBody, event_id, body);
        assert_ne!(both("a", b"x"), both("a", b"y"));
        assert_ne!(both("ab", b"c"), both("a", b"bc"));
        assert_eq!(of(DedupBy::Never, "a", b"x"), None);
        let from = |event_id, ce_source| {
            let id = id(event_id);
            Fingerprint::of(DedupBy::Id, named(&id, ce_source), b"")
        };
        assert_eq!(from("a", Some("/s")), from("a", Some("/s")));
        assert_ne!(from("a", Some("/s")), from("a", Some("/t")));
        assert_ne!(from("a", Some("/s")), from("a/s", Some("")));
        assert_ne!(from("a", Some("")), from("a", None));
        // Replicas of other versions and on other processors must agree.
        assert_eq!(
            both("e-1", b"{}").map(Fingerprint::to_hex).as_deref(),
            Some("c371733701cb8d60f17f89247e0fc804")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_not_known_to_be_stored_is_published_again() {
        let window = Window::new(HOUR);
        for refusal in [
            Refusal::PublishTimeout,
            Refusal::Overloaded,
            Refusal::BrokerUnavailable {
                retry_after: HOUR,
                cause: "",
            },
        ] {
            first(&window, "a").await.settle(&Err(refusal));
        }
        drop(first(&window, "a").await);
        first(&window, "a").await.settle(&stored());
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Claim::Stored(_))
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
            place.settle(&end);
            match (twin.await.unwrap(), code) {
                (Ok(Claim::Stored(_)), None) => {}
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
        let mut keys = Vec::new();
        for number in 0..1000 {
            let event_id = number.to_string();
            first(&window, &event_id).await.settle(&stored());
            keys.push(key(&event_id, b"body"));
        }
        let mut remembered = 0;
        for part in &window.parts {
            let entries = lock(part);
            assert_eq!(entries.order.len(), entries.stored.len());
            let in_order: Vec<_> = entries.order.iter().map(|(_, key)| *key).collect();
            remembered += in_order.len();
            let is_here = |key: &&Fingerprint| {
                key.second % PARTS as u64
                    == in_order.first().map_or(0, |key| key.second) % PARTS as u64
            };
            let mut latest: Vec<_> = keys.iter().rev().filter(is_here).take(3).copied().collect();
            latest.reverse();
            assert!(in_order.is_empty() || in_order == latest);
        }
        assert!(remembered <= 3 * PARTS);
        assert!(matches!(
            enter_now(&window, "999", b"body").await,
            Ok(Claim::Stored(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn another_lifetime_is_that_of_what_is_remembered_already() {
        let window = Window::new(HOUR);
        first(&window, "a").await.settle(&stored());
        first(&window, "b").await.settle(&stored());
        tokio::time::advance(HOUR / 2).await;
        window.set_lifetime(2 * HOUR);
        tokio::time::advance(HOUR).await;
        assert!(matches!(
            enter_now(&window, "a", b"body").await,
            Ok(Claim::Stored(_))
        ));
        window.set_lifetime(HOUR);
        assert!(matches!(
            enter_now(&window, "b", b"body").await,
            Ok(Claim::Acquired(_))
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
                        Ok(Claim::Stored(_)) => assert!(is_known),
                        Ok(Claim::Acquired(place)) => {
                            assert!(!is_known);
                            match end {
                                0 => {
                                    place.settle(&stored());
                                    stored_at.insert(event, Instant::now());
                                }
                                1 => place.settle(&Err(Refusal::PublishTimeout)),
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
