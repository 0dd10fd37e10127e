//! Connections that have not delivered a verified event yet. At the connection limit, the oldest of them makes room for a
//! new one, so that silent connections never lock others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{AbortHandle, AbortRegistration};

/// All such connections by age.
#[derive(Debug, Default)]
pub(super) struct UnverifiedConnections(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<u64, AbortHandle>,
}

impl UnverifiedConnections {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a new connection, which ends when the returned registration is aborted.
    pub(super) fn enter(self: &Arc<Self>) -> (UnverifiedConnection, AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        let mut waiting = self.waiting();
        let id = waiting.next;
        waiting.next = id.wrapping_add(1);
        waiting.connections.insert(id, handle);
        let connection = UnverifiedConnection {
            all: Arc::clone(self),
            id,
        };
        (connection, registration)
    }

    /// Ends the oldest; false if there is none.
    pub(super) fn end_oldest(&self) -> bool {
        let oldest = self.waiting().connections.pop_first();
        oldest.inspect(|(_, handle)| handle.abort()).is_some()
    }
}

/// A registered connection, until it is verified or dropped.
#[derive(Debug)]
pub(super) struct UnverifiedConnection {
    all: Arc<UnverifiedConnections>,
    id: u64,
}

impl UnverifiedConnection {
    /// The connection has delivered a verified event and is no longer ended for others.
    pub(super) fn mark_verified(&self) {
        self.leave();
    }

    fn leave(&self) {
        self.all.waiting().connections.remove(&self.id);
    }
}

impl Drop for UnverifiedConnection {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{Abortable, pending};

    #[tokio::test]
    async fn the_oldest_makes_room_and_a_verified_one_never_does() {
        let all = Arc::<UnverifiedConnections>::default();
        let [verified, first, second] = [(); 3].map(|()| all.enter());
        verified.0.mark_verified();
        assert!(all.end_oldest());
        let ended = Abortable::new(pending::<()>(), first.1).await;
        assert!(ended.is_err(), "the oldest unverified one");
        drop(second);
        assert!(!all.end_oldest(), "an ended connection frees nothing");
        assert!(!verified.1.handle().is_aborted());
    }
}
