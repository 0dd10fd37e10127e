//! Spares a connection's task a poll for nothing.
//!
//! hyper wakes the sending half of a body whenever a piece of it is taken (`body/chan.rs` of hyper 1.12). For a body that
//! came whole with its head, that is the task which is being polled, and the half is gone by then: the task would be polled once
//! more for each event. Only wakes on the same thread during [`poll_reading`] are affected.

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

/// The waker of a connection's task, whose wakes [`poll_reading`] may drop.
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

/// Polls the reading of a body. A wake of the connection's task during it is dropped if the body's end was read, and otherwise
/// follows.
pub(super) fn poll_reading<T, E>(
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<Result<T, E>>,
) -> Poll<Result<T, E>> {
    let mut hold = Hold {
        outer: HOLDING.replace(Holding::Yes),
        waker: context.waker(),
        is_spare: false,
    };
    let polled = poll(context);
    hold.is_spare = matches!(polled, Poll::Ready(Ok(_)));
    polled
}

struct Hold<'w> {
    outer: Holding,
    waker: &'w Waker,
    is_spare: bool,
}

impl Drop for Hold<'_> {
    /// After a panic as well, since the thread goes on with other connections.
    fn drop(&mut self) {
        let was_woken = HOLDING.replace(self.outer) == Holding::Woken;
        if was_woken && !self.is_spare {
            self.waker.wake_by_ref();
        }
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

    fn wake_and(result: Poll<Result<(), ()>>) -> usize {
        wakes(|context| {
            let polled = poll_reading(context, |context| {
                context.waker().wake_by_ref();
                result
            });
            assert_eq!(polled, result);
        })
    }

    #[test]
    fn a_wake_is_dropped_only_with_the_bodys_end() {
        assert_eq!(wake_and(Poll::Ready(Ok(()))), 0);
        assert_eq!(wake_and(Poll::Pending), 1);
        // The sender may have more to send, and must learn that nobody reads it.
        assert_eq!(wake_and(Poll::Ready(Err(()))), 1);
        let silent = |context: &mut Context<'_>| {
            assert!(poll_reading(context, |_| Poll::<Result<(), ()>>::Pending).is_pending());
        };
        assert_eq!(wakes(silent), 0);
    }

    fn end(_: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    #[test]
    fn wakes_before_and_after_and_of_other_threads_are_not_dropped() {
        let around = |context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            assert!(poll_reading(context, end).is_ready());
            context.waker().wake_by_ref();
        };
        assert_eq!(wakes(around), 2);
        let elsewhere = |context: &mut Context<'_>| {
            let waker = context.waker().clone();
            let polled = poll_reading(context, |context| {
                std::thread::scope(|scope| {
                    scope.spawn(|| waker.wake());
                });
                end(context)
            });
            assert!(polled.is_ready());
        };
        assert_eq!(wakes(elsewhere), 1);
    }

    #[test]
    fn no_wake_is_dropped_by_a_panic_or_after_it() {
        let panicking = |context: &mut Context<'_>| {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                poll_reading(context, |context| -> Poll<Result<(), ()>> {
                    context.waker().wake_by_ref();
                    panic!("a defect")
                })
            }));
            assert!(panicked.is_err());
            context.waker().wake_by_ref();
        };
        assert_eq!(wakes(panicking), 2);
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
