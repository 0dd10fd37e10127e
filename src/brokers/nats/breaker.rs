//! Stops publishing into a server that never answers, but for one try a second that finds out when it does again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many acknowledgements in a row that did not come.
const LIMIT: u32 = 20;

/// Between tries while nothing is answered.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unanswered: u32,
    open_since: Option<Instant>,
    next_try: Option<Instant>,
}

impl Breaker {
    /// Whether a publish may be tried now.
    pub(super) fn allows(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        match state.next_try {
            None => true,
            Some(next) if next <= now => {
                state.next_try = Some(now + PAUSE);
                true
            }
            Some(_) => false,
        }
    }

    pub(super) fn note_answer(&self) {
        let mut state = self.state();
        if state.unanswered != 0 {
            *state = State::default();
        }
    }

    pub(super) fn note_silence(&self) {
        let mut state = self.state();
        state.unanswered = state.unanswered.saturating_add(1);
        if state.unanswered >= LIMIT && state.open_since.is_none() {
            let now = Instant::now();
            state.open_since = Some(now);
            state.next_try = Some(now + PAUSE);
        }
    }

    /// How long it has let through no more than a try a second.
    pub(super) fn open_for(&self) -> Duration {
        self.state()
            .open_since
            .map(|since| since.elapsed())
            .unwrap_or_default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_many_silences_tries_once_a_second_and_closes_with_an_answer() {
        let breaker = Breaker::default();
        for _ in 1..LIMIT {
            breaker.note_silence();
            assert!(breaker.allows());
        }
        breaker.note_silence();
        assert!(!breaker.allows());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.allows() && !breaker.allows());
        assert_eq!(breaker.open_for(), PAUSE);
        breaker.note_answer();
        assert!(breaker.allows() && breaker.allows());
        assert_eq!(breaker.open_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_between_starts_the_count_anew() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            (1..LIMIT).for_each(|_| breaker.note_silence());
            breaker.note_answer();
        }
        assert!(breaker.allows() && breaker.allows());
    }
}
