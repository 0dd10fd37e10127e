//! Connections that have not brought a verified event yet: where there are as many connections as there may be, the oldest of
//! them makes room for a new one, so that silent ones never lock others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{AbortHandle, AbortRegistration};

/// All of them, by age.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<u64, AbortHandle>,
}

impl Strangers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection. The registration is what ends it.
    pub(super) fn enter(self: &Arc<Self>) -> (Stranger, AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        let mut waiting = self.waiting();
        let id = waiting.next;
        waiting.next = id.wrapping_add(1);
        waiting.connections.insert(id, handle);
        let stranger = Stranger {
            all: Arc::clone(self),
            id,
        };
        (stranger, registration)
    }

    /// Ends the oldest; false if there is none.
    pub(super) fn end_oldest(&self) -> bool {
        let oldest = self.waiting().connections.pop_first();
        oldest.inspect(|(_, handle)| handle.abort()).is_some()
    }
}

/// A connection in the list, until it is known or dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    id: u64,
}

impl Stranger {
    /// It has brought a verified event: it keeps its place from now on.
    pub(super) fn become_known(&self) {
        self.all.waiting().connections.remove(&self.id);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.become_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{Abortable, pending};

    #[tokio::test]
    async fn the_oldest_makes_room_and_a_known_one_never_does() {
        let all = Arc::<Strangers>::default();
        let [known, first, second] = [(); 3].map(|()| all.enter());
        known.0.become_known();
        assert!(all.end_oldest());
        let ended = Abortable::new(pending::<()>(), first.1).await;
        assert!(ended.is_err(), "the first of those that are not known");
        drop(second);
        assert!(!all.end_oldest(), "one that has ended has no place to give");
        assert!(!known.1.handle().is_aborted());
    }
}
