//! A bounded buffer in front of standard error, emptied by a thread of its own. Whatever happens to standard error (closed,
//! disk full, a pipe without a reader), logging neither blocks nor fails; lines are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::task;

/// Maximum bytes that wait to be written; the same amount again may be in the middle of a write.
const CAPACITY: usize = 1024 * 1024;

/// A buffer that has grown beyond this is freed after use.
const KEPT_BYTES: usize = 64 * 1024;

/// Between attempts while standard error is full and non-blocking, which another process that shares it may have set.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

pub(super) static QUEUE: Queue = Queue::new();

pub(super) struct Queue {
    lines: Mutex<Lines>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

struct Lines {
    pending: Vec<u8>,
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        Self {
            lines: Mutex::new(Lines {
                pending: Vec::new(),
                is_writing: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds whole lines, or drops them if the buffer is full.
    pub(super) fn push(&self, text: &[u8]) {
        let mut lines = self.lock();
        if lines.pending.len() + text.len() > CAPACITY {
            self.count_dropped(text);
            return;
        }
        let was_empty = lines.pending.is_empty();
        lines.pending.extend_from_slice(text);
        drop(lines);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until every line is written or dropped, or until the limit.
    pub(super) fn flush(&self, limit: Duration) {
        let is_busy = |lines: &mut Lines| lines.is_writing || !lines.pending.is_empty();
        let waited = self.emptied.wait_timeout_while(self.lock(), limit, is_busy);
        drop(waited);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes lines as they come. Never returns.
    fn write_to(&self, output: &mut impl Write) {
        let mut batch = Vec::new();
        let mut reported = self.dropped();
        let mut is_torn = false;
        loop {
            self.next_batch(&mut batch);
            if is_torn {
                is_torn = write_all(output, b"\n") == 0;
            }
            let written = if is_torn {
                0
            } else {
                write_all(output, &batch)
            };
            let (done, rest) = batch.split_at_checked(written).unwrap_or_default();
            is_torn = match done.last() {
                Some(last) => *last != b'\n',
                None => is_torn,
            };
            self.count_dropped(rest);
            let dropped = self.dropped();
            if rest.is_empty() && dropped > reported {
                tracing::warn!(lines = dropped - reported, "log lines were dropped");
                reported = dropped;
            }
            if batch.capacity() > KEPT_BYTES {
                batch = Vec::new();
            }
        }
    }

    fn next_batch(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut lines = self.lock();
        lines.is_writing = false;
        while lines.pending.is_empty() {
            self.emptied.notify_all();
            lines = self
                .filled
                .wait(lines)
                .unwrap_or_else(PoisonError::into_inner);
        }
        lines.is_writing = true;
        std::mem::swap(&mut lines.pending, batch);
    }

    fn count_dropped(&self, lines: &[u8]) {
        let ends = lines.iter().filter(|byte| **byte == b'\n').count();
        self.dropped
            .fetch_add(u64::try_from(ends).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For tracing's formatter, which writes each event in one piece.
impl Write for &Queue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as much as the output accepts; returns the number of bytes.
fn write_all(output: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => break,
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(RETRY_PAUSE);
            }
            Err(_) => break,
        }
    }
    written
}

/// Standard error without the standard library's lock: a blocked write must not block other users of the lock.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(std::io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that empties [`QUEUE`].
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start() -> io::Result<()> {
    let thread = std::thread::Builder::new().name("log".to_owned());
    thread.spawn(|| task::run_restarting("log", || QUEUE.write_to(&mut Stderr)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    /// Follows the test's script: accepts `Ok(n)` bytes of a write, or fails.
    struct Script {
        steps: mpsc::Receiver<io::Result<usize>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = self.steps.recv().unwrap_or(Ok(usize::MAX));
            let length = step?.min(bytes.len());
            self.taken.lock().unwrap().extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Taken = Arc<Mutex<Vec<u8>>>;

    fn scripted() -> (&'static Queue, mpsc::Sender<io::Result<usize>>, Taken) {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new()));
        let (allow, steps) = mpsc::channel();
        let taken = Taken::default();
        let mut output = Script {
            steps,
            taken: Arc::clone(&taken),
        };
        std::thread::spawn(move || queue.write_to(&mut output));
        (queue, allow, taken)
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn lines_are_written_in_order_and_a_flush_waits_for_them() {
        let (queue, allow, taken) = scripted();
        drop(allow);
        for number in 0..1000 {
            queue.push(format!("{number}\n").as_bytes());
        }
        queue.flush(PATIENCE);
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(taken.lock().unwrap().as_slice(), expected.as_bytes());
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_failed_write_costs_its_lines_and_a_torn_line_is_ended() {
        let (queue, allow, taken) = scripted();
        for step in [
            Ok(6),
            Err(io::ErrorKind::Interrupted.into()),
            Err(io::ErrorKind::StorageFull.into()),
        ] {
            allow.send(step).unwrap();
        }
        queue.push(b"first\nsecond\nthird\n");
        queue.flush(PATIENCE);
        assert_eq!(queue.dropped(), 2, "the first line was written");
        for step in [Ok(3), Err(io::ErrorKind::BrokenPipe.into())] {
            allow.send(step).unwrap();
        }
        queue.push(b"fourth\n");
        queue.flush(PATIENCE);
        assert_eq!(queue.dropped(), 3);
        drop(allow);
        queue.push(b"fifth\n");
        queue.flush(PATIENCE);
        assert_eq!(taken.lock().unwrap().as_slice(), b"first\nfou\nfifth\n");
    }

    #[test]
    fn logging_does_not_wait_for_a_blocked_output_and_memory_is_bounded() {
        let (queue, allow, taken) = scripted();
        let line = vec![b'x'; 1023];
        let line = [line.as_slice(), b"\n"].concat();
        for _ in 0..10_000 {
            queue.push(&line);
        }
        assert!(queue.lock().pending.len() <= CAPACITY);
        let dropped = queue.dropped();
        assert!((7_000..10_000).contains(&dropped), "{dropped}");
        queue.flush(Duration::from_millis(1));
        drop(allow);
        queue.flush(PATIENCE);
        let written = u64::try_from(taken.lock().unwrap().len() / 1024).unwrap();
        assert_eq!(written + dropped, 10_000);
    }
}
