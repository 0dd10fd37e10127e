//! Concurrent senders, each with a persistent connection, until stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checker::Checker;
use super::events::Event;
use super::sender::{Connection, Request};

/// The pace of each sender: about 50 events a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Senders at work.
pub(crate) struct Load {
    pub(crate) checker: Arc<Checker>,
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts this many senders, which deliver new events to `/hooks/synq`.
    pub(crate) fn start(address: SocketAddr, senders: usize, event: fn(usize) -> Event) -> Self {
        Self::paced(address, Arc::default(), senders, PAUSE, event)
    }

    /// [`Load::start`] at another pace, noted in the books of the test.
    pub(crate) fn paced(
        address: SocketAddr,
        checker: Arc<Checker>,
        senders: usize,
        pause: Duration,
        event: fn(usize) -> Event,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let senders = (0..senders)
            .map(|number| {
                let (checker, stop) = (Arc::clone(&checker), Arc::clone(&stop));
                std::thread::spawn(move || {
                    let mut connection = None;
                    while !stop.load(Ordering::Relaxed) {
                        let event = event(number);
                        if connection.is_none() {
                            connection = Connection::open(address).ok();
                        }
                        match &mut connection {
                            None => checker.note_not_sent(&event),
                            Some(open) => {
                                let sent = Instant::now();
                                let result = open.send(&Request::event(&event));
                                checker.note(&event, sent.elapsed(), &result);
                                if result.is_err() || result.is_ok_and(|answer| answer.says_close())
                                {
                                    connection = None;
                                }
                            }
                        }
                        std::thread::sleep(pause);
                    }
                })
            })
            .collect();
        Self {
            checker,
            stop,
            senders,
        }
    }

    /// Lets every sender finish its request; what they noted.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Arc<Checker> {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            sender.join().expect("a sender does not panic");
        }
        Arc::clone(&self.checker)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!(
                "--- what the senders were answered: {}",
                self.checker.history()
            );
        }
    }
}
