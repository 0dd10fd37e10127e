//! Background tasks that do not end silently. `telemetry` counts and logs the panic itself; here the task is restarted, or
//! the service ends.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pause before a panicked task is restarted.
const PAUSE: Duration = Duration::from_secs(1);

/// The first essential task that panicked.
static FAILED: LazyLock<watch::Sender<Option<&'static str>>> =
    LazyLock::new(|| watch::Sender::new(None));

/// Spawns a task that is restarted when it panics, until it returns.
pub(crate) fn spawn_restarting<F>(
    name: &'static str,
    mut work: impl FnMut() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move { while survive(name, work()).await.is_none() {} })
}

/// Spawns a task that cannot be restarted and that the service needs: when it panics, the service ends with a non-zero exit
/// status.
pub(crate) fn spawn_essential(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task that the service needs has panicked");
            FAILED.send_if_modified(|failed| failed.replace(name).is_none());
        }
    })
}

/// Resolves with the name of an essential task once one has panicked.
pub(crate) async fn failed() -> &'static str {
    let mut failed = FAILED.subscribe();
    // The sender is never dropped.
    match failed.wait_for(Option::is_some).await.map(|name| *name) {
        Ok(Some(name)) => name,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Runs one round of a task. If it panics, pauses and returns none, and the task continues with the next round.
pub(crate) async fn survive<T>(name: &'static str, round: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(round).catch_unwind().await {
        Ok(result) => Some(result),
        Err(_panic) => {
            tracing::error!(
                task = name,
                "a background task has panicked; it starts again"
            );
            tokio::time::sleep_until(Instant::now() + PAUSE).await;
            None
        }
    }
}

/// Reruns a thread's work whenever it panics, until it returns.
pub(crate) fn run_restarting(name: &str, mut work: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        tracing::error!(
            task = name,
            "a background thread has panicked; it starts again"
        );
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_starts_again_until_it_returns() {
        let mut starts = 0;
        let (started, mut seen) = tokio::sync::mpsc::channel(4);
        spawn_restarting("test", move || {
            starts += 1;
            let (number, started) = (starts, started.clone());
            async move {
                started.send(number).await.unwrap();
                assert!(number == 3, "not yet");
            }
        })
        .await
        .unwrap();
        let mut numbers = Vec::new();
        while let Some(number) = seen.recv().await {
            numbers.push(number);
        }
        assert_eq!(numbers, [1, 2, 3]);
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_is_reported_only_if_it_panicked() {
        spawn_essential("well", async {}).await.unwrap();
        assert!(failed().now_or_never().is_none());
        spawn_essential("badly", async { panic!("a defect") })
            .await
            .unwrap();
        assert_eq!(failed().await, "badly");
    }

    #[test]
    fn a_thread_that_panics_goes_on() {
        let mut runs = 0;
        run_restarting("test", || {
            runs += 1;
            assert!(runs == 2, "not yet");
        });
        assert_eq!(runs, 2);
    }
}
