//! Waiting for a condition. Tests never wait for time to pass, except where passing time is the subject.

use std::time::{Duration, Instant};

/// Time allowed for anything without its own limit. Long, so that no test fails on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Polls until there is a result, up to `limit`.
pub(crate) fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || started.elapsed() >= limit {
            return answer;
        }
        std::thread::sleep(POLL);
    }
}

/// Polls until there is a result; panics with `what` after `limit`.
#[track_caller]
pub(crate) fn until_some<T>(what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> T {
    let Some(answer) = poll(limit, ask) else {
        panic!("not within {limit:?}: {what}");
    };
    answer
}

/// [`until_some`] for a boolean condition.
#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    until_some(what, limit, || holds().then_some(()));
}

/// Time that passes because the test plays a slow or silent peer.
pub(crate) fn play_silence(length: Duration) {
    std::thread::sleep(length);
}
