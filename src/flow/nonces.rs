//! Nonces of signatures that do not cover the body: one may come again with the same body, since providers repeat deliveries,
//! but not with another.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

/// Nonces that are remembered, at about 100 bytes each. The oldest are forgotten first.
const MAX_NONCES: usize = 200_000;

/// Half of a SHA-256. Without the secret nobody can choose a nonce, and a body with a given digest cannot be found.
type Half = [u8; 16];

/// The nonces that a source has seen.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    bodies: HashMap<Half, Half>,
    /// In order of arrival.
    order: VecDeque<(Instant, Half)>,
}

impl Nonces {
    /// Whether the nonce came with another body within `lifetime`. Remembers a new one.
    pub(crate) fn is_reused(&self, nonce: &[u8], body: &[u8], lifetime: Duration) -> bool {
        let (nonce, body) = (digest(nonce), digest(body));
        // Nothing panics while holding the lock.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, _)) = seen.order.front()
            && at.elapsed() > lifetime
        {
            seen.forget_oldest();
        }
        if let Some(first) = seen.bodies.get(&nonce) {
            return *first != body;
        }
        if seen.order.len() >= MAX_NONCES {
            seen.forget_oldest();
        }
        seen.bodies.insert(nonce, body);
        seen.order.push_back((Instant::now(), nonce));
        false
    }
}

impl Seen {
    fn forget_oldest(&mut self) {
        if let Some((_, nonce)) = self.order.pop_front() {
            self.bodies.remove(&nonce);
        }
    }
}

fn digest(bytes: &[u8]) -> Half {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let (half, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *half
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_nonce_may_come_again_with_the_same_body_and_with_another_once_it_is_forgotten() {
        let nonces = Nonces::default();
        let is_reused =
            |nonce: &str, body: &str| nonces.is_reused(nonce.as_bytes(), body.as_bytes(), HOUR);
        assert!(!is_reused("a", "body") && !is_reused("a", "body"));
        assert!(is_reused("a", "other") && !is_reused("b", "other"));
        tokio::time::advance(HOUR).await;
        assert!(is_reused("a", "other"), "as long as its time may be old");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!is_reused("a", "other") && is_reused("a", "body"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_remembered() {
        let nonces = Nonces::default();
        for number in 0..=MAX_NONCES {
            assert!(!nonces.is_reused(&number.to_be_bytes(), b"", HOUR));
        }
        let seen = nonces.0.lock().unwrap();
        assert_eq!(
            (seen.bodies.len(), seen.order.len()),
            (MAX_NONCES, MAX_NONCES)
        );
        drop(seen);
        assert!(nonces.is_reused(&1_usize.to_be_bytes(), b"other", HOUR));
        assert!(!nonces.is_reused(&0_usize.to_be_bytes(), b"other", HOUR));
    }
}
