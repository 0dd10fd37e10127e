//! A circuit breaker: stops publishing to a server that does not answer, except for one attempt a second that detects its
//! recovery.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Consecutive missing acknowledgements that open the breaker.
const LIMIT: u32 = 20;

/// Between attempts while the breaker is open.
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
    /// Whether a publish may be attempted now.
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

    /// Time since the breaker opened.
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
    async fn an_answer_in_between_restarts_the_count() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            (1..LIMIT).for_each(|_| breaker.note_silence());
            breaker.note_answer();
        }
        assert!(breaker.allows() && breaker.allows());
    }
}
