//! Chooses the server to try next, and the pause before it.
//!
//! The client restarts its count of attempts after each connection, so a server that accepts and then closes would be tried
//! with the shortest pause each time. Here a server's pauses grow until a connection to it has lasted.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use async_nats::{Server, ServerAddr};
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(50);

/// Short enough to find a server that returns within a second.
const LONGEST: Duration = Duration::from_millis(800);

/// A server last tried this long ago starts with the shortest pause again.
const CALM: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// By host and port, since a URL may contain credentials.
    tried: HashMap<(String, u16), Tried>,
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    at: Instant,
    pause: Duration,
}

impl Pace {
    /// The server of the pool that may be tried first, with the pause before it. The pause cannot stay zero, whatever happens
    /// to the connections.
    pub(super) fn next(&mut self, pool: &[Server]) -> Option<(ServerAddr, Duration)> {
        self.next_at(pool, Instant::now())
    }

    fn next_at(&mut self, pool: &[Server], now: Instant) -> Option<(ServerAddr, Duration)> {
        let name = |server: &Server| (server.addr.host().to_owned(), server.addr.port());
        self.tried
            .retain(|known, _| pool.iter().any(|server| name(server) == *known));
        let tried = &self.tried;
        let may_at = |server: &Server| {
            let last = tried.get(&name(server));
            last.map_or(now, |last| (last.at + last.pause).max(now))
        };
        // A random one of several, so that replicas do not all choose the same.
        let random = RandomState::new();
        let next = pool.iter().min_by_key(|server| {
            let order = random.hash_one(name(server));
            (may_at(server), server.failed_attempts, order)
        })?;
        let at = may_at(next);
        let pause = match tried.get(&name(next)) {
            Some(last) if at.saturating_duration_since(last.at) < CALM => {
                (last.pause * 2).min(LONGEST)
            }
            _ => SHORTEST + jitter(),
        };
        self.tried.insert(name(next), Tried { at, pause });
        Some((next.addr.clone(), at.saturating_duration_since(now)))
    }
}

/// Keeps replicas from reconnecting at the same moment.
fn jitter() -> Duration {
    Duration::from_millis(u64::from(std::process::id() % 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, failed_attempts: usize) -> Server {
        Server {
            addr: address.parse().unwrap(),
            failed_attempts,
            did_connect: false,
            is_discovered: false,
            last_error: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_server_gets_a_few_attempts_a_second_whatever_becomes_of_its_connections() {
        let mut pace = Pace::default();
        let started = Instant::now();
        let mut attempts = Vec::new();
        while started.elapsed() < Duration::from_secs(60) {
            // Not a failed attempt: the server accepts, then closes.
            let (_, wait) = pace.next(&[server("nats://a:1", 0)]).unwrap();
            assert!(wait <= LONGEST);
            tokio::time::advance(wait).await;
            attempts.push(started.elapsed());
        }
        for window in attempts.windows(7) {
            assert!(window[6] - window[0] > Duration::from_secs(1), "{window:?}");
        }
        assert!(attempts.len() < 90, "{}", attempts.len());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_connection_that_has_lasted_the_first_attempt_is_immediate() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            let (_, wait) = pace.next(&[server("nats://a:1", 0)]).unwrap();
            tokio::time::advance(wait).await;
        }
        tokio::time::advance(CALM).await;
        let (_, wait) = pace.next(&[server("nats://a:1", 0)]).unwrap();
        assert_eq!(wait, Duration::ZERO);
        let (_, wait) = pace.next(&[server("nats://a:1", 0)]).unwrap();
        assert!(wait < 2 * SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn no_server_waits_behind_one_that_fails() {
        let mut pace = Pace::default();
        let pool = [server("nats://a:1", 100), server("nats://b:1", 0)];
        let mut tried = Vec::new();
        for _ in 0..6 {
            let (address, wait) = pace.next(&pool).unwrap();
            tokio::time::advance(wait).await;
            tried.push(address.host().to_owned());
        }
        assert_eq!(tried[0], "b");
        assert!(
            tried.iter().filter(|host| *host == "a").count() >= 2,
            "{tried:?}"
        );
    }
}
