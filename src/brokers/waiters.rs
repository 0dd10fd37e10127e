//! Requests that wait for a broker's acknowledgement: a bounded table of slots instead of a channel for each message.
//!
//! A ticket goes out with the message and comes back with the acknowledgement. Its generation tells a late
//! acknowledgement, whose slot may belong to another message by now, from the awaited one. One task ends those whose
//! deadline has passed, instead of a timer for each.

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

/// How long after its deadline someone may still wait.
const RESOLUTION: Duration = Duration::from_millis(50);

/// A number that stands for one waiting message.
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

/// All who wait for one client.
#[derive(Debug)]
pub(super) struct Waiters {
    slots: Mutex<Slots>,
    capacity: usize,
    /// Someone waits where nobody did, or the table is gone.
    occupied: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Slab<Slot>,
    /// Of the next ticket.
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    deadline: Instant,
    is_handed_over: bool,
    /// What the message has in common with others, as whoever handed it over says.
    mark: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    /// None where the time is up.
    Resolved(Option<Outcome>),
}

impl State {
    /// Whether a word would still be heard: also just after the time is up, since whoever waits may go on.
    fn is_open(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Resolved(None))
    }
}

impl Waiters {
    /// A table for this many. Needs a Tokio runtime, for the task that watches the time.
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let waiters = Arc::new(Self {
            slots: Mutex::default(),
            capacity: capacity.min(u32::MAX as usize),
            occupied: Arc::default(),
        });
        let occupied = Arc::clone(&waiters.occupied);
        let watched = Arc::downgrade(&waiters);
        task::spawn_restarting("time limits", move || {
            watch_the_time(Weak::clone(&watched), Arc::clone(&occupied))
        });
        waiters
    }

    /// A place for one more, until a deadline; none when as many wait as may.
    pub(super) fn register(self: &Arc<Self>, deadline: Instant) -> Option<Waiter> {
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
            waiters: Arc::clone(self),
            ticket,
            others,
        })
    }

    /// Hands an outcome to the one who waits for it. Says whether someone still did.
    pub(super) fn resolve(&self, ticket: Ticket, outcome: Outcome) -> bool {
        self.end(ticket, |_| Some(outcome))
    }

    #[cfg(test)]
    fn hand_over(&self, ticket: Ticket) -> bool {
        self.hand_over_as(ticket, 0)
    }

    /// Just before a message goes to the client: whether anyone still waits for it. If so, it can't be taken back any more;
    /// if not, it must not be sent, since its end is known. The mark is for [`Self::handed_over_as`].
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

    /// The mark of a message that is still waited for.
    pub(super) fn mark_of(&self, ticket: Ticket) -> Option<u64> {
        let (index, generation) = ticket.parts();
        let slots = self.lock();
        let slot = slots.all.get(index);
        slot.filter(|slot| slot.generation == generation && slot.state.is_open())
            .map(|slot| slot.mark)
    }

    /// Those who wait for a message that was handed over with this mark.
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
        // Outside of the lock: the one who is woken takes it at once.
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Resolves everyone who waits now, and says of each whether its message was handed over. What was not is not going
    /// to be. Returns how many they were.
    pub(super) fn resolve_all(&self, outcome: impl Fn(bool) -> Outcome) -> usize {
        let waiting = self.waiting(|_| true).into_iter();
        waiting
            .filter(|ticket| self.end(*ticket, |is_handed_over| Some(outcome(is_handed_over))))
            .count()
    }

    /// Tells everyone whose time is up.
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

    /// How many may wait.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing in here panics while it holds the lock; if it ever did, the table would still be whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the table.
async fn watch_the_time(waiters: Weak<Waiters>, occupied: Arc<Notify>) {
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

/// Waits for one message's outcome, or none until its deadline. Dropping it gives its place up; an acknowledgement that comes later is a late one.
#[derive(Debug)]
#[must_use]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    ticket: Ticket,
    others: usize,
}

impl Waiter {
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// How many waited when it began to.
    pub(super) fn others(&self) -> usize {
        self.others
    }

    /// After it has waited in vain: whether the message has not been handed over, and is not going to be.
    pub(super) fn take_back(&mut self) -> bool {
        let (index, _) = self.ticket.parts();
        match self.waiters.lock().all.get_mut(index) {
            Some(slot) if !slot.is_handed_over => {
                // The ticket stands for nothing any more.
                slot.generation = slot.generation.wrapping_add(1);
                true
            }
            _ => false,
        }
    }

    /// After it has waited in vain: goes on to another deadline.
    pub(super) fn go_on_until(&mut self, deadline: Instant) {
        let (index, _) = self.ticket.parts();
        if let Some(slot) = self.waiters.lock().all.get_mut(index) {
            slot.deadline = deadline;
        }
    }
}

impl Future for Waiter {
    type Output = Option<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let (index, _) = self.ticket.parts();
        let mut slots = self.waiters.lock();
        let Some(slot) = slots.all.get_mut(index) else {
            return Poll::Pending;
        };
        match std::mem::replace(&mut slot.state, State::Waiting(None)) {
            State::Resolved(outcome) => Poll::Ready(outcome),
            State::Waiting(Some(waker)) if waker.will_wake(context.waker()) => {
                slot.state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Waiting(_) => {
                slot.state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let (index, _) = self.ticket.parts();
        let slot = self.waiters.lock().all.try_remove(index);
        // Outside of the lock: a waker's drop is somebody else's code.
        drop(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Reason, Receipt};
    use super::*;

    fn stored() -> Outcome {
        Outcome::Stored(Receipt::confirmed(false))
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn what_is_taken_back_is_not_handed_over_and_the_other_way_round() {
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
    async fn an_outcome_reaches_the_one_who_waits_before_or_after() {
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
        let waiting = tokio::spawn(late);
        tokio::task::yield_now().await;
        assert!(waiters.resolve(ticket, stored()));
        assert!(matches!(waiting.await.unwrap(), Some(Outcome::Stored(_))));
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_to_the_deadline() {
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
    async fn who_has_waited_in_vain_may_go_on_and_misses_nothing_meanwhile() {
        let waiters = Waiters::new(2);
        let soon = || Instant::now() + Duration::from_secs(1);
        let mut waiter = waiters.register(soon()).unwrap();
        assert!((&mut waiter).await.is_none());
        waiter.go_on_until(soon());
        assert!((&mut waiter).await.is_none());
        waiter.go_on_until(soon());
        waiters.end_overdue(soon() + RESOLUTION);
        assert!(waiters.resolve(waiter.ticket(), stored()));
        assert!(matches!(waiter.await, Some(Outcome::Stored(_))));
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test]
    async fn a_late_word_reaches_nobody_even_when_the_slot_is_used_again() {
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
    async fn all_can_be_resolved_at_once() {
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
    async fn all_are_told_apart_by_whether_they_were_handed_over() {
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
