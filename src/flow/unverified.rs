//! Bodies that are still arriving and not verified. They may use the part of `max_in_flight_bytes` that verified events do
//! not, and make room when verified events need it: the slowest are ended.
//!
//! Most events arrive in one piece with their head and are not counted here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A younger body has no meaningful rate: it is ended only if no older one is left, the oldest first.
const YOUNG: Duration = Duration::from_secs(1);

/// When a limit is reached, this fraction of it is freed together, since finding the slowest bodies visits all of them.
const FREED: usize = 8;

/// A number of bodies and of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    bodies: usize,
    bytes: usize,
}

impl Usage {
    const NONE: Self = Self {
        bodies: 0,
        bytes: 0,
    };

    fn exceeds(self, limit: Self) -> bool {
        self.bodies > limit.bodies || self.bytes > limit.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.bodies += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: usize) {
        self.bodies = self.bodies.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A limit minus the fraction to free.
    fn lowered(self) -> Self {
        Self {
            bodies: self.bodies - self.bodies / FREED,
            bytes: self.bytes - self.bytes / FREED,
        }
    }
}

/// The budget. A reload changes its limits and keeps its accounts.
#[derive(Debug, Clone)]
pub(crate) struct UnverifiedBodies {
    accounts: Arc<Mutex<Accounts>>,
    /// The total of the accounts, readable without the lock.
    held: Arc<AtomicUsize>,
    /// The bytes of verified events.
    verified: Arc<AtomicUsize>,
    limit: Usage,
}

#[derive(Debug)]
struct Accounts {
    bodies: HashMap<u64, Body>,
    next: u64,
    total: Usage,
    peers: HashMap<IpAddr, Usage>,
    sources: HashMap<usize, Usage>,
}

#[derive(Debug)]
struct Body {
    peer: IpAddr,
    source: usize,
    since: Instant,
    bytes: usize,
    ended: Arc<Notify>,
}

/// The bodies that are candidates for ending.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Peer(IpAddr),
    Source(usize),
    All,
}

impl Scope {
    fn has(self, body: &Body) -> bool {
        match self {
            Self::Peer(peer) => body.peer == peer,
            Self::Source(source) => body.source == source,
            Self::All => true,
        }
    }
}

impl UnverifiedBodies {
    /// `verified` counts the bytes of verified events, which share `max_bytes`.
    pub(crate) fn new(max_bodies: usize, max_bytes: usize, verified: Arc<AtomicUsize>) -> Self {
        Self {
            accounts: Arc::new(Mutex::new(Accounts {
                bodies: HashMap::new(),
                next: 0,
                total: Usage::NONE,
                peers: HashMap::new(),
                sources: HashMap::new(),
            })),
            held: Arc::default(),
            verified,
            limit: Usage {
                bodies: max_bodies,
                bytes: max_bytes,
            },
        }
    }

    pub(crate) fn with_limits(&self, max_bodies: usize, max_bytes: usize) -> Self {
        Self {
            limit: Usage {
                bodies: max_bodies,
                bytes: max_bytes,
            },
            ..self.clone()
        }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the accounts, and ends the slowest bodies if a limit is exceeded. A single body of the largest size always
    /// fits.
    fn change<T>(
        &self,
        largest: usize,
        growing: Option<u64>,
        change: impl FnOnce(&mut Accounts) -> T,
    ) -> T {
        let mut accounts = self.accounts();
        let changed = change(&mut accounts);
        let left = self
            .limit
            .bytes
            .saturating_sub(self.verified.load(Ordering::Acquire));
        let limit = Usage {
            bodies: self.limit.bodies,
            bytes: left.max(largest),
        };
        accounts.keep_within(limit, growing);
        self.held.store(accounts.total.bytes, Ordering::Release);
        changed
    }

    /// Makes room for what verified events have taken. Cheap while nothing is arriving.
    pub(crate) fn evict_for_verified(&self) {
        let held = self.held.load(Ordering::Acquire);
        if held > 0 && held.saturating_add(self.verified.load(Ordering::Acquire)) > self.limit.bytes
        {
            self.change(0, None, |_| ());
        }
    }

    /// Adds a body that may grow to `largest` bytes. It never fails: other bodies, or this one, are ended for it.
    pub(crate) fn enter(&self, source: usize, peer: IpAddr, largest: usize) -> Arriving {
        let ended = Arc::new(Notify::new());
        let body = Body {
            peer: network(peer),
            source,
            since: Instant::now(),
            bytes: 0,
            ended: Arc::clone(&ended),
        };
        // The youngest body: others are ended first.
        let id = self.change(largest, None, |accounts| {
            let id = accounts.next;
            accounts.next = id.wrapping_add(1);
            accounts.add(id, body);
            id
        });
        Arriving {
            unverified: self.clone(),
            id,
            largest,
            ended,
        }
    }
}

/// One sender may use every IPv6 address of its /64 network.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => (address.to_bits() >> 64 << 64).to_be_bytes().into(),
    }
}

impl Accounts {
    fn add(&mut self, id: u64, body: Body) {
        self.total.add(body.bytes);
        let peer = self.peers.entry(body.peer).or_insert(Usage::NONE);
        peer.add(body.bytes);
        let source = self.sources.entry(body.source).or_insert(Usage::NONE);
        source.add(body.bytes);
        self.bodies.insert(id, body);
    }

    fn remove(&mut self, id: u64) -> Option<Body> {
        let body = self.bodies.remove(&id)?;
        self.total.subtract(body.bytes);
        subtract(&mut self.peers, body.peer, body.bytes);
        subtract(&mut self.sources, body.source, body.bytes);
        Some(body)
    }

    fn set_bytes(&mut self, id: u64, bytes: usize) {
        if let Some(body) = self.remove(id) {
            self.add(id, Body { bytes, ..body });
        }
    }

    /// Ends the slowest bodies until the limit holds. The growing one is ended only if nothing else suffices.
    fn keep_within(&mut self, limit: Usage, growing: Option<u64>) {
        if !self.total.exceeds(limit) {
            return;
        }
        self.end_slowest(self.heaviest(limit), limit, growing);
        // Ending the heaviest scope's bodies may not have been enough.
        self.end_slowest(Scope::All, limit, growing);
    }

    /// The bodies to end: those of a peer with more than half of the total, else of a source with more than three quarters
    /// if there are others, else any.
    fn heaviest(&self, limit: Usage) -> Scope {
        let counts_bytes = self.total.bytes > limit.bytes;
        let part = |usage: &Usage| {
            if counts_bytes {
                usage.bytes
            } else {
                usage.bodies
            }
        };
        let total = part(&self.total);
        let peer = self.peers.iter().find(|(_, usage)| part(usage) > total / 2);
        if let Some((peer, _)) = peer {
            return Scope::Peer(*peer);
        }
        let is_heavy = |usage: &Usage| part(usage) > total - total / 4;
        let source = self.sources.iter().find(|(_, usage)| is_heavy(usage));
        match source {
            Some((source, _)) if self.sources.len() > 1 => Scope::Source(*source),
            _ => Scope::All,
        }
    }

    fn end_slowest(&mut self, scope: Scope, limit: Usage, growing: Option<u64>) {
        if !self.total.exceeds(limit) {
            return;
        }
        let now = Instant::now();
        let of_scope = self.bodies.iter().filter(|(_, body)| scope.has(body));
        let mut slowest: Vec<_> = of_scope
            .map(|(id, body)| {
                let age = now.duration_since(body.since);
                let micros = age.as_micros().max(1);
                let is_young = age < YOUNG;
                let rank = if is_young {
                    u128::MAX - micros
                } else {
                    body.bytes as u128 * 1_000_000 / micros
                };
                (is_young, rank, *id)
            })
            .collect();
        slowest.sort_unstable();
        let enough = limit.lowered();
        for (_, _, id) in slowest {
            if !self.total.exceeds(enough) {
                return;
            }
            if growing == Some(id) && !self.total.exceeds(limit) {
                continue;
            }
            if let Some(body) = self.remove(id) {
                body.ended.notify_one();
            }
        }
    }
}

fn subtract<K: Eq + std::hash::Hash>(usages: &mut HashMap<K, Usage>, key: K, bytes: usize) {
    if let std::collections::hash_map::Entry::Occupied(mut usage) = usages.entry(key) {
        usage.get_mut().subtract(bytes);
        if *usage.get() == Usage::NONE {
            usage.remove();
        }
    }
}

/// A body that is arriving. Dropping it returns its part of the budget.
#[derive(Debug)]
pub(crate) struct Arriving {
    unverified: UnverifiedBodies,
    id: u64,
    largest: usize,
    ended: Arc<Notify>,
}

impl Arriving {
    /// Sets the number of bytes that the body holds now.
    pub(crate) fn holds(&self, bytes: usize) {
        let grow = |accounts: &mut Accounts| accounts.set_bytes(self.id, bytes);
        self.unverified.change(self.largest, Some(self.id), grow);
    }

    /// Resolves when the body has been ended to make room.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut accounts = self.unverified.accounts();
        accounts.remove(self.id);
        self.unverified
            .held
            .store(accounts.total.bytes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_ended(body: &Arriving) -> bool {
        body.ended().now_or_never().is_some()
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_is_ended_first_and_a_young_one_last() {
        let unverified = UnverifiedBodies::new(100, 160, Arc::default());
        let slow = unverified.enter(0, peer(1), 80);
        slow.holds(10);
        let fast = unverified.enter(0, peer(2), 80);
        fast.holds(60);
        pass(Duration::from_secs(2)).await;
        let young = unverified.enter(1, peer(3), 80);
        assert!(!is_ended(&slow) && !is_ended(&fast) && !is_ended(&young));
        young.holds(80);
        let other = unverified.enter(1, peer(4), 80);
        other.holds(11);
        assert!(is_ended(&slow), "10 bytes in two seconds");
        assert!(!is_ended(&young) && !is_ended(&other));
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_with_everything_it_has_ends_nothing_of_another_peer() {
        let unverified = UnverifiedBodies::new(10, 1000, Arc::default());
        let genuine = unverified.enter(0, peer(1), 100);
        genuine.holds(1);
        pass(Duration::from_secs(5)).await;
        let flood: Vec<_> = (0..50)
            .map(|_| {
                let body = unverified.enter(1, peer(2), 100);
                body.holds(100);
                body
            })
            .collect();
        assert!(!is_ended(&genuine));
        let left = flood.iter().filter(|body| !is_ended(body)).count();
        assert!((7..=9).contains(&left), "{left}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_source_with_everything_it_has_ends_nothing_of_another_source() {
        let unverified = UnverifiedBodies::new(10, 1000, Arc::default());
        let genuine = unverified.enter(0, peer(0), 100);
        pass(Duration::from_secs(5)).await;
        let flood: Vec<_> = (1..=50)
            .map(|last| unverified.enter(1, peer(last), 100))
            .collect();
        assert!(!is_ended(&genuine));
        assert_eq!(
            unverified.accounts().total.bodies,
            1 + flood.iter().filter(|body| !is_ended(body)).count()
        );
    }

    #[test]
    fn a_body_of_the_largest_size_has_room_where_the_budget_is_smaller() {
        let unverified = UnverifiedBodies::new(2, 10, Arc::default());
        let body = unverified.enter(0, peer(1), 100);
        body.holds(100);
        assert!(!is_ended(&body));
        let second = unverified.enter(0, peer(1), 100);
        second.holds(1);
        assert!(is_ended(&body) ^ is_ended(&second));
    }

    #[test]
    fn verified_events_get_the_room_that_they_ask_for() {
        let verified = Arc::<AtomicUsize>::default();
        let unverified = UnverifiedBodies::new(10, 100, Arc::clone(&verified));
        let bodies = [1, 2].map(|last| {
            let body = unverified.enter(0, peer(last), 50);
            body.holds(50);
            body
        });
        unverified.evict_for_verified();
        assert!(!bodies.iter().any(is_ended));
        verified.store(60, Ordering::Release);
        unverified.evict_for_verified();
        assert!(bodies.iter().all(is_ended), "40 bytes are left");
        verified.store(100, Ordering::Release);
        let alone = unverified.enter(0, peer(3), 50);
        alone.holds(50);
        assert!(!is_ended(&alone), "until its room is asked for");
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_ne!(parse("192.0.2.1"), parse("192.0.2.2"));
    }

    proptest! {
        #[test]
        fn the_accounts_balance_and_stay_within_the_limit(steps in proptest::collection::vec((0_u8..4, 0_usize..3, 0_usize..40, any::<bool>()), 0..80)) {
            let unverified = UnverifiedBodies::new(6, 120, Arc::default());
            let mut held = Vec::new();
            for (last, source, bytes, leaves) in steps {
                if leaves && !held.is_empty() {
                    held.swap_remove(bytes % held.len());
                } else {
                    let body = unverified.enter(source, peer(last), 40);
                    body.holds(bytes);
                    held.push(body);
                }
                let accounts = unverified.accounts();
                prop_assert!(accounts.total.bodies <= 6 && accounts.total.bytes <= 120);
                prop_assert_eq!(accounts.total.bodies, accounts.bodies.len());
                prop_assert_eq!(accounts.total.bytes, accounts.bodies.values().map(|body| body.bytes).sum::<usize>());
                prop_assert_eq!(accounts.peers.values().map(|usage| usage.bodies).sum::<usize>(), accounts.bodies.len());
                prop_assert_eq!(accounts.sources.values().map(|usage| usage.bytes).sum::<usize>(), accounts.total.bytes);
            }
            drop(held);
            let accounts = unverified.accounts();
            prop_assert_eq!(accounts.total, Usage::NONE);
            prop_assert!(accounts.peers.is_empty() && accounts.sources.is_empty());
        }
    }
}
