//! Spares a connection's task a poll for nothing.
//!
//! hyper wakes the sending half of a body whenever a piece of it is taken (`body/chan.rs` of hyper 1.12). For a body that
//! came with its head, that is the task which is being polled, and nothing is left to send: it would be polled once more for
//! each event. Only wakes during [`unless_pending`] on the same thread are held back, and only until it returns.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

thread_local! {
    static HOLDING: Cell<Holding> = const { Cell::new(Holding::No) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holding {
    No,
    Yes,
    /// With a wake held back.
    Woken,
}

/// Wakes a connection's task.
struct ConnectionWaker(Waker);

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match HOLDING.get() {
            Holding::No => self.0.wake_by_ref(),
            Holding::Yes | Holding::Woken => HOLDING.set(Holding::Woken),
        }
    }
}

/// The waker of a connection's task, for the parts of the connection that [`unless_pending`] may hold back.
#[derive(Debug, Default)]
pub(super) struct SelfWake(Option<(Waker, Waker)>);

impl SelfWake {
    pub(super) fn waker(&mut self, task: &Waker) -> &Waker {
        let known = self.0.take().filter(|(known, _)| known.will_wake(task));
        let (_, waker) = self.0.insert(known.unwrap_or_else(|| {
            let waker = Arc::new(ConnectionWaker(task.clone()));
            (task.clone(), Waker::from(waker))
        }));
        waker
    }
}

/// Polls once. The connection's task is woken for that only if the result is pending.
pub(super) fn unless_pending<T>(
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let hold = Hold(HOLDING.replace(Holding::Yes));
    let polled = poll(context);
    let was_woken = HOLDING.get() == Holding::Woken;
    drop(hold);
    if was_woken && polled.is_pending() {
        context.waker().wake_by_ref();
    }
    polled
}

/// Ends the holding back with its own end, by a panic as well: the thread goes on with other connections.
struct Hold(Holding);

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDING.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wakes(during: impl FnOnce(&mut Context<'_>)) -> usize {
        let task = Arc::<Task>::default();
        let mut self_wake = SelfWake::default();
        let waker = self_wake.waker(&Waker::from(Arc::clone(&task))).clone();
        during(&mut Context::from_waker(&waker));
        task.0.load(Ordering::Relaxed)
    }

    fn wake_and<T>(result: Poll<T>) -> impl FnOnce(&mut Context<'_>) -> Poll<T> {
        |context| {
            context.waker().wake_by_ref();
            result
        }
    }

    #[test]
    fn a_wake_is_dropped_with_a_result_and_kept_without_one() {
        let ready = |context: &mut Context<'_>| {
            assert!(unless_pending(context, wake_and(Poll::Ready(()))).is_ready());
        };
        assert_eq!(wakes(ready), 0);
        let pending = |context: &mut Context<'_>| {
            assert!(unless_pending(context, wake_and(Poll::<()>::Pending)).is_pending());
        };
        assert_eq!(wakes(pending), 1);
        let silent = |context: &mut Context<'_>| {
            assert!(unless_pending(context, |_| Poll::<()>::Pending).is_pending());
        };
        assert_eq!(wakes(silent), 0);
    }

    #[test]
    fn wakes_before_and_after_and_of_other_threads_are_not_held_back() {
        let around = |context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            assert!(unless_pending(context, |_| Poll::Ready(())).is_ready());
            context.waker().wake_by_ref();
        };
        assert_eq!(wakes(around), 2);
        let elsewhere = |context: &mut Context<'_>| {
            let waker = context.waker().clone();
            let polled = unless_pending(context, |_| {
                std::thread::scope(|scope| {
                    scope.spawn(|| waker.wake());
                });
                Poll::Ready(())
            });
            assert!(polled.is_ready());
        };
        assert_eq!(wakes(elsewhere), 1);
    }

    #[test]
    fn a_panic_does_not_hold_back_what_comes_after_it() {
        let after = |context: &mut Context<'_>| {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                unless_pending(context, |_| -> Poll<()> { panic!("a defect") })
            }));
            assert!(panicked.is_err());
            context.waker().wake_by_ref();
        };
        assert_eq!(wakes(after), 1);
    }

    #[test]
    fn another_task_gets_another_waker() {
        let (first, second) = (Arc::<Task>::default(), Arc::<Task>::default());
        let mut self_wake = SelfWake::default();
        for task in [&first, &second, &second] {
            let waker = Waker::from(Arc::clone(task));
            self_wake.waker(&waker).wake_by_ref();
        }
        let count = |task: &Task| task.0.load(Ordering::Relaxed);
        assert_eq!((count(&first), count(&second)), (1, 2));
    }
}
