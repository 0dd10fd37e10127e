//! Work that continues after its sender has hung up, and whose panics are answered.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::answer::answer;
use crate::bridge::Bridge;
use crate::bridge::observe::{Arrival, Report};
use crate::event::Refusal;

pub(super) type Work = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Work whose panic is answered. A panic is our defect and leaves the outcome unknown, so the sender should try again.
pub(super) struct Caught {
    pub(super) bridge: Arc<Bridge>,
    /// The source's index.
    pub(super) source: usize,
    pub(super) arrival: Arrival,
    pub(super) work: Work,
}

impl Future for Caught {
    type Output = Response<Full<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = &mut self.work;
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|_panic| {
            let refusal = Refusal::PublishTimeout;
            let source = self.bridge.config().sources.get(self.source);
            let source = source.map(Arc::as_ref);
            self.bridge.observe(&Report {
                source,
                ..Report::refused(self.arrival, &refusal)
            });
            Poll::Ready(answer(&Err(refusal), source, None, self.arrival.request_id))
        })
    }
}

/// Work that runs to its end even if nobody waits for it: hyper drops a handler when its sender hangs up
/// (hyperium/hyper#2728), and the rest then runs as a separate task.
pub(super) struct Detached(pub(super) Option<Caught>);

impl Future for Detached {
    type Output = Response<Full<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.0.as_mut() else {
            return Poll::Pending;
        };
        let polled = Pin::new(work).poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let process = Arc::clone(work.bridge.process());
            process.metrics().client_disconnects.inc();
            process.tasks().spawn_on(work, &runtime);
        }
    }
}
