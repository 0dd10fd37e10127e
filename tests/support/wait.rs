//! Waiting for a condition. A test never waits for a time to pass, except where passing time is what it sends.

use std::time::{Duration, Instant};

/// How long something may take that has no limit of its own. Long, so that a busy machine fails no test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Asks again and again until there is an answer; a panic that names `what` when there is none in `limit`.
pub(crate) fn until_some<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// [`until_some`] for a plain condition.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    until_some(what, limit, || holds().then_some(()));
}

/// Time that passes because a slow or silent peer is what the test plays.
pub(crate) fn play_silence(length: Duration) {
    std::thread::sleep(length);
}
