//! Limits of the verified events in flight, by number and bytes. Unverified bodies take no permits and make room for
//! verified ones ([`UnverifiedBodies`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::flow::unverified::UnverifiedBodies;

/// All permits of a configuration.
#[derive(Debug)]
pub struct Permits {
    events: Budget,
    bytes: Budget,
    /// By source.
    sources: Vec<Budget>,
    unverified: UnverifiedBodies,
}

/// A counter with a limit.
#[derive(Debug)]
struct Budget {
    /// Shared with the budget that replaces this one on a reload.
    taken: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self {
            taken: Arc::default(),
            limit,
        }
    }

    /// The same amount taken, with another limit.
    fn with_limit(&self, limit: usize) -> Self {
        Self {
            taken: Arc::clone(&self.taken),
            limit,
        }
    }

    fn take(&self, amount: usize) -> bool {
        let take = |taken: usize| {
            taken
                .checked_add(amount)
                .filter(|taken| *taken <= self.limit)
        };
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn has_room_for(&self, amount: usize) -> bool {
        let wanted = self.taken().checked_add(amount);
        wanted.is_some_and(|wanted| wanted <= self.limit)
    }

    fn give_back(&self, amount: usize) {
        self.taken.fetch_sub(amount, Ordering::AcqRel);
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Permits {
    /// Limits the events and bytes in total, and the events of each source.
    #[must_use]
    pub fn new(
        max_events: usize,
        max_bytes: usize,
        max_by_source: impl IntoIterator<Item = usize>,
    ) -> Arc<Self> {
        let sources = max_by_source.into_iter().map(Budget::new).collect();
        let bytes = Budget::new(max_bytes);
        let unverified = UnverifiedBodies::new(max_events, max_bytes, Arc::clone(&bytes.taken));
        Arc::new(Self {
            events: Budget::new(max_events),
            bytes,
            sources,
            unverified,
        })
    }

    /// Other limits for the permits that are taken: in total, and of each source, with its index here if it had one.
    #[must_use]
    pub fn with_limits(
        &self,
        max_events: usize,
        max_bytes: usize,
        sources: impl IntoIterator<Item = (Option<usize>, usize)>,
    ) -> Arc<Self> {
        let of_source = |(index, limit): (Option<usize>, usize)| {
            let earlier = index.and_then(|index| self.sources.get(index));
            earlier.map_or_else(|| Budget::new(limit), |earlier| earlier.with_limit(limit))
        };
        Arc::new(Self {
            events: self.events.with_limit(max_events),
            bytes: self.bytes.with_limit(max_bytes),
            sources: sources.into_iter().map(of_source).collect(),
            unverified: self.unverified.with_limits(max_events, max_bytes),
        })
    }

    /// A permit for one event, if every limit allows it.
    #[must_use]
    pub fn take(&self, source: usize, bytes: usize) -> Option<Permit<'_>> {
        let of_source = self.sources.get(source)?;
        if !of_source.take(1) {
            return None;
        }
        if !self.events.take(1) {
            of_source.give_back(1);
            return None;
        }
        if !self.bytes.take(bytes) {
            of_source.give_back(1);
            self.events.give_back(1);
            return None;
        }
        self.unverified.evict_for_verified();
        Some(Permit {
            permits: self,
            source,
            bytes,
        })
    }

    /// Whether [`Permits::take`] would succeed now. If not, the body need not be read.
    pub(crate) fn has_room_for(&self, source: usize, bytes: usize) -> bool {
        let of_source = self.sources.get(source);
        of_source.is_some_and(|of_source| of_source.has_room_for(1))
            && self.events.has_room_for(1)
            && self.bytes.has_room_for(bytes)
    }

    pub(crate) fn unverified(&self) -> &UnverifiedBodies {
        &self.unverified
    }

    #[must_use]
    pub fn events_taken(&self) -> usize {
        self.events.taken()
    }

    #[must_use]
    pub fn bytes_taken(&self) -> usize {
        self.bytes.taken()
    }
}

/// Returned to [`Permits`] when dropped.
#[derive(Debug)]
pub struct Permit<'p> {
    permits: &'p Permits,
    source: usize,
    bytes: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.permits.bytes.give_back(self.bytes);
        self.permits.events.give_back(1);
        if let Some(source) = self.permits.sources.get(self.source) {
            source.give_back(1);
        }
    }
}

/// One broker's share of what may be in flight, so that a stalled broker cannot starve the others.
#[derive(Debug)]
pub struct Share {
    events: Budget,
    bytes: Budget,
}

impl Share {
    #[must_use]
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self {
            events: Budget::new(max_events),
            bytes: Budget::new(max_bytes),
        }
    }

    /// Takes the room of one message, if there is enough left.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Taken<'_>> {
        if !self.events.take(1) {
            return None;
        }
        if !self.bytes.take(bytes) {
            self.events.give_back(1);
            return None;
        }
        Some(Taken { share: self, bytes })
    }
}

/// Returned to the [`Share`] when dropped.
#[derive(Debug)]
pub struct Taken<'s> {
    share: &'s Share,
    bytes: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.share.bytes.give_back(self.bytes);
        self.share.events.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_limit_refuses_by_itself_and_leaves_nothing_taken() {
        let permits = Permits::new(3, 100, [2, 3]);
        let one = permits.take(0, 60).unwrap();
        assert!(permits.take(1, 41).is_none(), "bytes");
        let two = permits.take(0, 10).unwrap();
        assert!(permits.take(0, 1).is_none(), "the source's places");
        let three = permits.take(1, 30).unwrap();
        assert!(permits.take(1, 0).is_none(), "all places");
        assert_eq!((permits.events_taken(), permits.bytes_taken()), (3, 100));
        drop((one, two, three));
        assert_eq!((permits.events_taken(), permits.bytes_taken()), (0, 0));
    }

    #[test]
    fn a_share_is_bounded_and_given_back() {
        let share = Share::new(2, 10);
        let first = share.take(6).unwrap();
        assert!(share.take(5).is_none());
        let second = share.take(4).unwrap();
        assert!(share.take(0).is_none());
        drop((first, second));
        assert!(share.take(10).is_some());
    }

    #[test]
    fn other_limits_count_what_was_taken_before_and_what_is_given_back_later() {
        let before = Permits::new(3, 100, [2, 3]);
        let held = [before.take(0, 40).unwrap(), before.take(1, 0).unwrap()];
        // The second source is the first now, a third one is new, and the first is gone.
        let after = before.with_limits(3, 50, [(Some(1), 2), (None, 1)]);
        assert_eq!((after.events_taken(), after.bytes_taken()), (2, 40));
        assert!(after.take(1, 11).is_none());
        let third = after.take(0, 10).unwrap();
        assert!(after.take(1, 0).is_none());
        drop(held);
        assert_eq!((after.events_taken(), after.bytes_taken()), (1, 10));
        let fourth = after.take(0, 40).unwrap();
        assert!(after.take(0, 0).is_none());
        drop((third, fourth));
        assert_eq!((before.events_taken(), before.bytes_taken()), (0, 0));
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in proptest::collection::vec((0_usize..3, 0_usize..50, any::<bool>()), 0..60)) {
            let permits = Permits::new(5, 120, [3, 4]);
            let mut held: Vec<(Permit, usize)> = Vec::new();
            for (source, bytes, gives_back) in steps {
                if gives_back && !held.is_empty() {
                    held.remove(bytes % held.len());
                } else {
                    let has_room = permits.has_room_for(source, bytes);
                    let permit = permits.take(source, bytes);
                    prop_assert_eq!(has_room, permit.is_some());
                    held.extend(permit.map(|permit| (permit, bytes)));
                }
                prop_assert_eq!(permits.events_taken(), held.len());
                prop_assert_eq!(permits.bytes_taken(), held.iter().map(|(_, bytes)| bytes).sum::<usize>());
                prop_assert!(permits.events_taken() <= 5 && permits.bytes_taken() <= 120);
            }
        }
    }
}
