//! Connections that have not brought a verified event yet. At the connection limit, the oldest of them makes room for a
//! new one, so that silent connections never lock others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{AbortHandle, AbortRegistration};

/// All such connections by age.
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

    /// Registers a new connection. The returned registration ends it when aborted.
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

/// A registered connection, until it is known or dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    id: u64,
}

impl Stranger {
    /// The connection has brought a verified event and keeps its place from now on.
    pub(super) fn mark_known(&self) {
        self.all.waiting().connections.remove(&self.id);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.mark_known();
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
        known.0.mark_known();
        assert!(all.end_oldest());
        let ended = Abortable::new(pending::<()>(), first.1).await;
        assert!(ended.is_err(), "the first of those that are not known");
        drop(second);
        assert!(!all.end_oldest(), "one that has ended has no place to give");
        assert!(!known.1.handle().is_aborted());
    }
}
