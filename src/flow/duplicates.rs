//! Step 7, before the broker: a delivery that is known to be stored is not published again.
//!
//! Errors here can only cause duplicates, never a lost event: an entry is marked stored only after a broker's receipt, any
//! other outcome removes it, only verified requests are looked up, and the key includes the body's hash unless the source
//! sets `dedup_by = "id"`.
//!
//! quick_cache would do for the memory (0.17 µs to claim and store a key). But a twin that waits must get the first delivery's
//! refusal, and there it would get the guard and publish again; and entries must age out, also by another lifetime after a reload.

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

/// Number of parts that a source's entries are split into by key, so that growing one map never holds up a request.
const PARTS: usize = 64;

/// Deliveries that each part remembers, 200,000 in total, at about 75 bytes each. The oldest are forgotten first.
const MAX_ENTRIES_A_PART: usize = 200_000 / PARTS;

/// The deliveries that a source has stored.
#[derive(Debug)]
pub(crate) struct Window {
    max_entries_a_part: usize,
    parts: [Mutex<Entries>; PARTS],
}

/// A 128-bit HighwayHash of a delivery's id, or of its id and body: the key in the window, and the end of its
/// `Nats-Msg-Id`. Windows and ids are per source.
///
/// The hash's key is fixed, since all replicas must compute the same id, and therefore public. That is enough. A chance
/// collision among a billion deliveries of one id has a probability of about 10^-20. A deliberate collision needs bodies
/// that verify and share an id, so only the holder of the secret can produce one, and harms only its own events. A key
/// derived from the signing secret would let readers of the stream test guesses of the secret, and would change with it.
/// SHA-256 would need no such argument, but takes six times as long: a microsecond of an event's thirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    first: u64,
    second: u64,
}

/// The first digits of pi's fraction. Changing the key changes the ids, and replicas would no longer agree.
const KEY: highway::Key = highway::Key([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

/// The names of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'e> {
    pub(crate) id: &'e EventId,
    /// The source of a CloudEvent: only together with it the id is unique.
    pub(crate) ce_source: Option<&'e str>,
}

impl Fingerprint {
    /// None with `dedup_by = "never"`.
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
                // Ids have no control characters, so the separator is unambiguous.
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

/// The key is already a hash, and only the holder of the secret could choose its bits.
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

/// Few entries are in flight and many stored. Most deliveries are in neither map, and a miss in the large one touches only
/// a few bytes of memory.
#[derive(Debug)]
struct Entries {
    lifetime: Duration,
    /// Notifies the later deliveries that wait for the outcome of the first one.
    in_flight: ByKey<Option<watch::Sender<Option<Settled>>>>,
    stored: ByKey<Receipt>,
    /// In order of storage; times of concurrent deliveries may be slightly out of order.
    order: VecDeque<(Instant, Fingerprint)>,
    /// The time at the front of `order`, which by then is in no CPU cache.
    oldest: Option<Instant>,
}

/// The outcome of a first delivery.
type Settled = Result<Receipt, Refusal>;

/// The result of a lookup.
#[derive(Debug)]
pub(crate) enum Claim<'w> {
    /// The first delivery: it must be published, and the claim settled.
    Acquired(ClaimGuard<'w>),
    Stored(Receipt),
}

/// The claim of a first delivery. Dropping it unsettled forgets the delivery, so that the next one is published.
#[derive(Debug)]
pub(crate) struct ClaimGuard<'w> {
    window: &'w Window,
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
                    oldest: None,
                })
            }),
        })
    }

    /// Also applies to deliveries that are already stored.
    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        for part in &self.parts {
            lock(part).lifetime = lifetime;
        }
    }

    /// Selects the part by other bits than those that the map hashes.
    fn part(&self, key: Fingerprint) -> MutexGuard<'_, Entries> {
        let [any, ..] = &self.parts;
        let part = usize::try_from(key.second % PARTS as u64).ok();
        lock(part.and_then(|index| self.parts.get(index)).unwrap_or(any))
    }

    /// Finds the delivery or claims it.
    fn find_or_begin(
        &self,
        key: Fingerprint,
        now: Instant,
    ) -> Result<Claim<'_>, watch::Receiver<Option<Settled>>> {
        let mut entries = self.part(key);
        entries.forget(now, self.max_entries_a_part);
        if let Some(receipt) = entries.stored.get(&key) {
            return Ok(Claim::Stored(*receipt));
        }
        match entries.in_flight.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(None);
                Ok(Claim::Acquired(ClaimGuard {
                    window: self,
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
    // Nothing panics while holding the lock.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entries {
    /// Forgets entries that are expired or above the limit. The permits bound those in flight.
    fn forget(&mut self, now: Instant, max_entries: usize) {
        while let Some(oldest) = self.oldest {
            let is_over = now.saturating_duration_since(oldest) >= self.lifetime;
            if !is_over && self.order.len() < max_entries {
                return;
            }
            if let Some((_, key)) = self.order.pop_front() {
                self.stored.remove(&key);
            }
            self.oldest = self.order.front().map(|(at, _)| *at);
        }
    }

    fn remember(&mut self, key: Fingerprint, receipt: Receipt, now: Instant) {
        self.order.push_back((now, key));
        self.oldest.get_or_insert(now);
        self.stored.insert(key, receipt);
    }
}

/// Claims a delivery. If the same one is in flight, waits for its outcome, until the caller's deadline. `now` may be as old as
/// the request's decision: a delivery is then known for that much longer.
///
/// # Errors
/// The refusal of the delivery in flight, or [`Refusal::PublishTimeout`].
pub(crate) async fn claim(
    window: &Window,
    key: Fingerprint,
    now: Instant,
    deadline: Instant,
) -> Result<Claim<'_>, Refusal> {
    match window.find_or_begin(key, now) {
        Ok(entered) => Ok(entered),
        // Boxed because it is large and rare.
        Err(end) => Box::pin(outcome_of_twin(end, deadline)).await,
    }
}

#[cold]
async fn outcome_of_twin<'w>(
    mut end: watch::Receiver<Option<Settled>>,
    deadline: Instant,
) -> Result<Claim<'w>, Refusal> {
    let waited = tokio::time::timeout_at(deadline, end.wait_for(Option::is_some)).await;
    match waited {
        Ok(Ok(end)) => match &*end {
            Some(Ok(receipt)) => Ok(Claim::Stored(*receipt)),
            Some(Err(refusal)) => Err(refusal.clone()),
            None => Err(Refusal::PublishTimeout),
        },
        // The delivery in flight ended unsettled, or took longer than this one may wait.
        Ok(Err(_)) | Err(_) => Err(Refusal::PublishTimeout),
    }
}

impl ClaimGuard<'_> {
    /// Reports the outcome of the first delivery. Only a stored one is remembered.
    pub(crate) fn settle(mut self, end: &Settled, now: Instant) {
        self.leave(Some((end, now)));
    }

    fn leave(&mut self, end: Option<(&Settled, Instant)>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut entries = self.window.part(self.key);
        let twins = entries.in_flight.remove(&self.key).flatten();
        if let Some((Ok(receipt), now)) = end {
            entries.remember(self.key, *receipt, now);
        }
        drop(entries);
        if let (Some(twins), Some((end, _))) = (twins, end) {
            twins.send_replace(Some(end.clone()));
        }
    }
}

impl Drop for ClaimGuard<'_> {
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

    async fn enter_now<'w>(
        window: &'w Window,
        event_id: &str,
        body: &[u8],
    ) -> Result<Claim<'w>, Refusal> {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(8);
        claim(window, key(event_id, body), now, deadline).await
    }

    async fn first<'w>(window: &'w Window, event_id: &str) -> ClaimGuard<'w> {
        match enter_now(window, event_id, b"body").await {
            Ok(Claim::Acquired(place)) => place,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a delivery that does not get the claim.
    fn said(claim: Result<Claim<'_>, Refusal>) -> Settled {
        match claim? {
            Claim::Stored(receipt) => Ok(receipt),
            Claim::Acquired(guard) => panic!("{guard:?}"),
        }
    }

    fn stored() -> Settled {
        Ok(test_receipt(false))
    }

    #[tokio::test(start_paused = true)]
    async fn stored_events_are_remembered_for_the_window_and_only_with_their_body() {
        let window = Window::new(HOUR);
        first(&window, "a").await.settle(&stored(), Instant::now());
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
    fn dedup_by_decides_which_deliveries_are_the_same_on_every_replica() {
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
            first(&window, "a")
                .await
                .settle(&Err(refusal), Instant::now());
        }
        drop(first(&window, "a").await);
        first(&window, "a").await.settle(&stored(), Instant::now());
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
                tokio::spawn(async move { said(enter_now(&window, "twin", b"body").await) })
            };
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(!twin.is_finished());
            place.settle(&end, Instant::now());
            match (twin.await.unwrap(), code) {
                (Ok(_), None) => {}
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
            tokio::spawn(async move { said(enter_now(&window, "a", b"body").await) })
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
            first(&window, &event_id)
                .await
                .settle(&stored(), Instant::now());
            tokio::time::advance(Duration::from_millis(1)).await;
            keys.push(key(&event_id, b"body"));
        }
        let mut remembered = 0;
        for part in &window.parts {
            let entries = lock(part);
            assert_eq!(entries.order.len(), entries.stored.len());
            assert_eq!(entries.oldest, entries.order.front().map(|(at, _)| *at));
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
        first(&window, "a").await.settle(&stored(), Instant::now());
        first(&window, "b").await.settle(&stored(), Instant::now());
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
                // All in one part, where the end of one entry must not be that of another.
                let ids = (0_u32..).map(|number| number.to_string());
                let ids: Vec<_> = ids.filter(|id| key(id, b"body").second.is_multiple_of(PARTS as u64)).take(4).collect();
                for (event, end, seconds) in steps {
                    tokio::time::advance(Duration::from_secs(seconds)).await;
                    let is_known = stored_at.get(&event).is_some_and(|at| at.elapsed() < Duration::from_secs(60));
                    match enter_now(&window, &ids[usize::from(event)], b"body").await {
                        Ok(Claim::Stored(_)) => assert!(is_known),
                        Ok(Claim::Acquired(place)) => {
                            assert!(!is_known);
                            match end {
                                0 => {
                                    place.settle(&stored(), Instant::now());
                                    stored_at.insert(event, Instant::now());
                                }
                                1 => place.settle(&Err(Refusal::PublishTimeout), Instant::now()),
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
