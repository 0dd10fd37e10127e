//! Requests that wait for a broker's acknowledgement: a bounded table of slots instead of a channel per message.
//!
//! A ticket travels with the message and returns with the acknowledgement. Its generation tells a late acknowledgement,
//! whose slot may have been reused, from the awaited one. One task resolves the waiters whose deadline has passed: a timer
//! per event would almost never fire.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::outcome::Outcome;
use crate::task;

/// Poll interval of the deadlines: the most by which a waiter may overrun its own.
const RESOLUTION: Duration = Duration::from_millis(50);

/// Identifies one waiting message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Ticket {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    pub(super) fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are taken apart again"
    )]
    fn parts(self) -> (usize, u32) {
        (self.0 as u32 as usize, (self.0 >> 32) as u32)
    }
}

/// The waiting requests of one client.
#[derive(Debug)]
pub(super) struct Waiters {
    slots: Mutex<Slots>,
    capacity: usize,
    /// Notified when the table is no longer empty, or is dropped.
    occupied: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Slab<Slot>,
    /// Of the last ticket.
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    deadline: Instant,
    is_handed_over: bool,
    /// Groups messages; the caller of [`Waiters::hand_over_as`] chooses it.
    mark: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    /// None if the deadline has passed.
    Resolved(Option<Outcome>),
}

impl State {
    /// Whether an outcome is still accepted: also just after the deadline, which the waiter may extend.
    fn is_open(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Resolved(None))
    }
}

impl Waiters {
    /// Must be called within a Tokio runtime, since it spawns the task that checks deadlines.
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let waiters = Arc::new(Self {
            slots: Mutex::default(),
            capacity: capacity.min(u32::MAX as usize),
            occupied: Arc::default(),
        });
        let occupied = Arc::clone(&waiters.occupied);
        let watched = Arc::downgrade(&waiters);
        task::spawn_restarting("time limits", move || {
            resolve_overdue(Weak::clone(&watched), Arc::clone(&occupied))
        });
        waiters
    }

    /// Adds a waiter with a deadline; none if the table is full.
    pub(super) fn register(&self, deadline: Instant) -> Option<Waiter<'_>> {
        let mut slots = self.lock();
        let others = slots.all.len();
        if others >= self.capacity {
            return None;
        }
        slots.generation = slots.generation.wrapping_add(1);
        let generation = slots.generation;
        let index = slots.all.insert(Slot {
            generation,
            deadline,
            is_handed_over: false,
            mark: 0,
            state: State::Waiting(None),
        });
        let ticket = Ticket::new(u32::try_from(index).ok()?, generation);
        if others == 0 {
            self.occupied.notify_one();
        }
        Some(Waiter {
            waiters: self,
            ticket,
            others,
            is_done: false,
        })
    }

    /// Resolves the waiter with this ticket. Returns whether it was still waiting.
    pub(super) fn resolve(&self, ticket: Ticket, outcome: Outcome) -> bool {
        self.end(ticket, |_| Some(outcome))
    }

    #[cfg(test)]
    fn hand_over(&self, ticket: Ticket) -> bool {
        self.hand_over_as(ticket, 0)
    }

    /// Called just before a message goes to the client: whether its waiter still waits. If so, the message can no longer be
    /// taken back; if not, it must not be sent, since its outcome is settled. The mark is for [`Self::handed_over_as`].
    pub(super) fn hand_over_as(&self, ticket: Ticket, mark: u64) -> bool {
        let (index, generation) = ticket.parts();
        let mut slots = self.lock();
        let slot = slots.all.get_mut(index);
        let awaited = slot.filter(|slot| slot.generation == generation && slot.state.is_open());
        let handed_over = awaited.map(|slot| {
            slot.is_handed_over = true;
            slot.mark = mark;
        });
        handed_over.is_some()
    }

    /// The mark of this message; none if nobody waits for it any more.
    pub(super) fn mark_of(&self, ticket: Ticket) -> Option<u64> {
        let (index, generation) = ticket.parts();
        let slots = self.lock();
        let slot = slots.all.get(index);
        slot.filter(|slot| slot.generation == generation && slot.state.is_open())
            .map(|slot| slot.mark)
    }

    /// The tickets of the waiting messages that were handed over with this mark.
    pub(super) fn handed_over_as(&self, mark: u64) -> Vec<Ticket> {
        self.waiting(|slot| slot.is_handed_over && slot.mark == mark)
    }

    fn end(&self, ticket: Ticket, outcome: impl FnOnce(bool) -> Option<Outcome>) -> bool {
        let (index, generation) = ticket.parts();
        let waker = {
            let mut slots = self.lock();
            match slots.all.get_mut(index) {
                Some(slot) if slot.generation == generation && slot.state.is_open() => {
                    match std::mem::replace(
                        &mut slot.state,
                        State::Resolved(outcome(slot.is_handed_over)),
                    ) {
                        State::Waiting(waker) => waker,
                        State::Resolved(_) => None,
                    }
                }
                _ => return false,
            }
        };
        // After unlocking: the woken task takes the lock immediately.
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Resolves all waiters. `outcome` receives whether the message was handed over; one that was not will never be.
    /// Returns the number of waiters.
    pub(super) fn resolve_all(&self, outcome: impl Fn(bool) -> Outcome) -> usize {
        let waiting = self.waiting(|_| true).into_iter();
        waiting
            .filter(|ticket| self.end(*ticket, |is_handed_over| Some(outcome(is_handed_over))))
            .count()
    }

    /// Resolves the waiters whose deadline has passed.
    fn end_overdue(&self, now: Instant) {
        for ticket in self.waiting(|slot| slot.deadline <= now) {
            self.end(ticket, |_| None);
        }
    }

    fn waiting(&self, which: impl Fn(&Slot) -> bool) -> Vec<Ticket> {
        let slots = self.lock();
        let waiting = slots.all.iter();
        let waiting = waiting.filter(|(_, slot)| slot.state.is_open() && which(slot));
        waiting
            .filter_map(|(index, slot)| {
                Some(Ticket::new(u32::try_from(index).ok()?, slot.generation))
            })
            .collect()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics while holding the lock; if something did, the table would still be consistent.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves overdue waiters until the table is dropped.
async fn resolve_overdue(waiters: Weak<Waiters>, occupied: Arc<Notify>) {
    while let Some(count) = waiters.upgrade().map(|waiters| waiters.len()) {
        if count == 0 {
            occupied.notified().await;
        } else {
            tokio::time::sleep_until(Instant::now() + RESOLUTION).await;
            if let Some(waiters) = waiters.upgrade() {
                waiters.end_overdue(Instant::now());
            }
        }
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.occupied.notify_one();
    }
}

/// Resolves with a message's outcome, or none at its deadline. Dropping it frees the slot; a later acknowledgement counts as
/// late.
#[derive(Debug)]
#[must_use]
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    ticket: Ticket,
    others: usize,
    /// Its slot is gone, and may be another waiter's by now.
    is_done: bool,
}

impl Waiter<'_> {
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The number of other waiters at registration.
    pub(super) fn others(&self) -> usize {
        self.others
    }

    /// After the deadline: whether the message was not handed over, and now never will be.
    pub(super) fn take_back(&mut self) -> bool {
        let (index, _) = self.ticket.parts();
        match self.waiters.lock().all.get_mut(index) {
            Some(slot) if !slot.is_handed_over && !self.is_done => {
                // Invalidates the ticket.
                slot.generation = slot.generation.wrapping_add(1);
                true
            }
            _ => false,
        }
    }

    /// After the deadline: waits on until another one.
    pub(super) fn extend_deadline(&mut self, deadline: Instant) {
        let (index, _) = self.ticket.parts();
        if let Some(slot) = self.waiters.lock().all.get_mut(index)
            && !self.is_done
        {
            slot.deadline = deadline;
        }
    }
}

impl Future for Waiter<'_> {
    type Output = Option<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let waiter = self.get_mut();
        let (index, _) = waiter.ticket.parts();
        let mut slots = waiter.waiters.lock();
        let slot = slots.all.get_mut(index).filter(|_| !waiter.is_done);
        let Some(Slot { state, .. }) = slot else {
            return Poll::Pending;
        };
        match state {
            State::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            // The deadline may be extended.
            State::Resolved(None) => {
                *state = State::Waiting(None);
                Poll::Ready(None)
            }
            State::Resolved(outcome) => {
                let outcome = outcome.take();
                slots.all.try_remove(index);
                waiter.is_done = true;
                Poll::Ready(outcome)
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (index, _) = self.ticket.parts();
        let slot = self.waiters.lock().all.try_remove(index);
        // Dropped after unlocking: a waker's drop runs foreign code.
        drop(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Reason;
    use super::*;

    fn stored() -> Outcome {
        Outcome::stored(false, None)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn messages_taken_back_are_not_handed_over_and_vice_versa() {
        let waiters = Waiters::new(3);
        let mut queued = waiters.register(later()).unwrap();
        assert!(queued.take_back());
        assert!(!waiters.hand_over(queued.ticket()));
        let mut sent = waiters.register(later()).unwrap();
        assert!(waiters.hand_over(sent.ticket()));
        assert!(!sent.take_back());
        assert!(waiters.resolve(sent.ticket(), stored()));
        assert!(!waiters.hand_over(sent.ticket()), "nobody waits any more");
        let given_up = waiters.register(later()).unwrap().ticket();
        assert!(!waiters.hand_over(given_up));
        drop(sent);
        let mut next = waiters.register(later()).unwrap();
        assert!(
            next.take_back(),
            "a place keeps nothing of its last message"
        );
    }

    #[tokio::test]
    async fn an_outcome_reaches_its_waiter_before_or_after_it_waits() {
        let waiters = Waiters::new(2);
        let early = waiters.register(later()).unwrap();
        assert!(waiters.resolve(early.ticket(), stored()));
        assert!(
            !waiters.resolve(early.ticket(), Outcome::unknown(Reason::Other, "")),
            "the first word counts"
        );
        assert!(matches!(early.await, Some(Outcome::Stored(_))));
        let late = waiters.register(later()).unwrap();
        let ticket = late.ticket();
        let resolving = async { waiters.resolve(ticket, stored()) };
        // In this order: it waits first.
        let (outcome, was_waiting) = futures_util::join!(late, resolving);
        assert!(was_waiting && matches!(outcome, Some(Outcome::Stored(_))));
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_the_deadline() {
        let waiters = Waiters::new(2);
        let started = Instant::now();
        let short = waiters.register(started + Duration::from_secs(1)).unwrap();
        let long = waiters.register(later()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), short).await;
        assert!(ended.is_ok_and(|outcome| outcome.is_none()));
        let waited = started.elapsed();
        assert!(
            (Duration::from_secs(1)..=Duration::from_secs(1) + 2 * RESOLUTION).contains(&waited),
            "{waited:?}"
        );
        assert!(waiters.resolve(long.ticket(), stored()));
        assert!(matches!(long.await, Some(Outcome::Stored(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_may_continue_after_a_timeout_and_misses_nothing_meanwhile() {
        let waiters = Waiters::new(2);
        let soon = || Instant::now() + Duration::from_secs(1);
        let mut waiter = waiters.register(soon()).unwrap();
        assert!((&mut waiter).await.is_none());
        waiter.extend_deadline(soon());
        assert!((&mut waiter).await.is_none());
        waiter.extend_deadline(soon());
        waiters.end_overdue(soon() + RESOLUTION);
        assert!(waiters.resolve(waiter.ticket(), stored()));
        assert!(matches!(waiter.await, Some(Outcome::Stored(_))));
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test]
    async fn a_late_acknowledgement_reaches_nobody_even_when_its_slot_is_reused() {
        let waiters = Waiters::new(1);
        let first = waiters.register(later()).unwrap();
        let ticket = first.ticket();
        assert!(waiters.register(later()).is_none(), "one place only");
        drop(first);
        let second = waiters.register(later()).unwrap();
        assert_eq!(second.ticket().parts().0, ticket.parts().0);
        assert!(!waiters.resolve(ticket, stored()));
        assert_eq!(waiters.len(), 1);
    }

    #[tokio::test]
    async fn all_can_be_resolved_together() {
        let waiters = Waiters::new(10);
        let waiting: Vec<_> = (0..3).map(|_| waiters.register(later()).unwrap()).collect();
        assert!(waiters.resolve(waiting[0].ticket(), stored()));
        assert_eq!(
            waiters.resolve_all(|_| Outcome::unknown(Reason::Disconnected, "")),
            2
        );
        let mut outcomes = Vec::new();
        for waiter in waiting {
            outcomes.push(matches!(waiter.await, Some(Outcome::Stored(_))));
        }
        assert_eq!(outcomes, [true, false, false]);
    }

    #[tokio::test]
    async fn all_are_distinguished_by_whether_they_were_handed_over() {
        let waiters = Waiters::new(2);
        let sent = waiters.register(later()).unwrap();
        let queued = waiters.register(later()).unwrap();
        assert!(waiters.hand_over(sent.ticket()));
        waiters.resolve_all(|is_handed_over| match is_handed_over {
            true => Outcome::unknown(Reason::Disconnected, ""),
            false => Outcome::not_stored(Reason::Disconnected, ""),
        });
        assert!(!waiters.hand_over(queued.ticket()), "its end is known");
        assert!(matches!(sent.await, Some(Outcome::Unknown(_))));
        assert!(matches!(queued.await, Some(Outcome::NotStored(_))));
    }

    #[test]
    fn tickets_survive_being_numbers() {
        let ticket = Ticket::new(7, u32::MAX);
        assert_eq!(Ticket::from_number(ticket.number()).parts(), (7, u32::MAX));
    }
}
