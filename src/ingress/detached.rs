//! Work that continues after its sender has hung up, and whose panics are answered.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Response;
use http_body_util::Full;

use super::answer::answer;
use crate::bridge::Bridge;
use crate::bridge::observe::{Arrival, Report};
use crate::bridge::process::Process;
use crate::config::Source;
use crate::event::Refusal;

/// Work whose panic is answered. A panic is our defect and leaves the outcome unknown, so the sender should try again.
pub(super) fn answer_panic(
    bridge: &Bridge,
    source: &Source,
    arrival: &Arrival,
    work: impl Future<Output = Response<Full<Bytes>>>,
) -> impl Future<Output = Response<Full<Bytes>>> {
    AssertUnwindSafe(work).catch_unwind().map(|result| {
        result.unwrap_or_else(|_panic| {
            let refusal = Refusal::PublishTimeout;
            bridge.observe(&Report {
                source: Some(source),
                ..Report::refused(*arrival, &refusal)
            });
            answer(&Err(refusal), Some(source), None, arrival.request_id)
        })
    })
}

type Work = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Work that runs to its end even if nobody waits for it: hyper drops a handler when its sender hangs up
/// (hyperium/hyper#2728), and the rest then runs as a separate task.
pub(super) struct Detached<'p> {
    process: &'p Process,
    /// None once it is done.
    work: Option<Work>,
}

impl<'p> Detached<'p> {
    pub(super) fn new(
        process: &'p Process,
        work: impl Future<Output = Response<Full<Bytes>>> + Send + 'static,
    ) -> Self {
        Self {
            process,
            work: Some(Box::pin(work)),
        }
    }
}

impl Future for Detached<'_> {
    type Output = Response<Full<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.process.metrics().client_disconnects.inc();
            self.process.tasks().spawn_on(work, &runtime);
        }
    }
}
