//! An event's way, one file a step, in this order. [`handle`] is all of it on a page.

// 1: the connection and its clocks, the request, and what may be in flight of it
pub(crate) mod accept;
mod client;
mod socket;
mod strangers;
mod tls;

mod permits;
mod unverified;

mod receive;

// 2 to 6: pure
mod verify;

mod parse;

mod validate;

mod route;

mod encode;

mod decide;

// 7: a delivery that is stored already; the broker's word
mod batch;
pub(crate) mod duplicates;
mod publish;

// 8: and the table of refusals
mod answer;
mod refusal;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::bridge::Bridge;
use crate::brokers::Message;
use crate::config::{BrokerId, Position, Source};
use crate::providers::EventId;
use crate::providers::handshake::Reply;

pub use answer::{RequestId, Status};
pub use decide::decide;
pub use permits::{Permit, Permits, Share};
pub use receive::Received;
pub(crate) use receive::check_head;
#[cfg(test)]
pub(crate) use receive::head_handshake;
pub use refusal::{Refusal, Violation};
pub use verify::{Verified, verify};

use answer::{Accepted, answer, answer_handshake};
use duplicates::{Entered, Fingerprint};
use publish::Use;
use receive::{Arrived, Head};
use socket::Activity;

/// What is to become of an authentic request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are the large one"
)]
pub enum Decided {
    /// It is one event, or is refused as a whole.
    Event(Decision),
    /// It is several events, none of which is refused.
    Batch(Vec<Decision>),
    /// It is no event, and is answered like this.
    Handshake(Box<Reply>),
}

/// What is to become of an authentic event: steps 3 to 6, without any I/O.
#[derive(Debug)]
pub struct Decision {
    /// Its id, where it has one.
    pub event_id: Option<EventId>,
    /// Its type, where it has one.
    pub event_type: Option<String>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of an event.
#[derive(Debug)]
pub enum Verdict {
    /// It is published.
    Publish {
        /// The route that took it.
        route: Position,
        /// Like this.
        delivery: Box<Delivery>,
    },
    /// It is published as a dead letter.
    DeadLetter {
        /// Like this.
        letter: Addressed,
        /// For this reason.
        refusal: Refusal,
    },
    /// It is answered 200 and dropped, as the configuration says.
    Ignore,
    /// It is refused.
    Refuse(Refusal),
}

/// Everything that is to be published of one event: stored means that `to` or `fallback` has it, and each copy's broker.
#[derive(Debug)]
pub struct Delivery {
    /// Where the event goes.
    pub to: Addressed,
    /// Where it goes instead, when that certainly did not store it.
    pub fallback: Option<Addressed>,
    /// Where it goes besides.
    pub copies: Vec<Addressed>,
    /// What the duplicates window knows it by.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// A message and its broker.
#[derive(Debug)]
pub struct Addressed {
    /// The broker.
    pub broker: BrokerId,
    /// The message.
    pub message: Message,
}

/// From a request to its answer. Until it is waited for it has looked at the head alone.
///
/// Here and in [`finish`] nothing that is done with is carried over a wait: what a future keeps is copied when it is made,
/// and takes room in the processor's caches for as long as the broker takes.
fn handle(
    bridge: Arc<Bridge>,
    request: Request<Incoming>,
    connection: &Arc<Activity>,
) -> impl Future<Output = Response<Full<Bytes>>> {
    let started = Instant::now();
    let request_id = RequestId::random();
    let admitted = catch_unwind(AssertUnwindSafe(|| {
        receive::admit(&bridge, &request, connection)
    }))
    .unwrap_or_else(|_panic| Err(panicked()));
    let (parts, body) = request.into_parts();
    let head = Head {
        method: parts.method,
        target: parts.uri,
        headers: parts.headers,
    };
    async move {
        let receiving = receive::receive(&bridge, admitted, head, body, connection);
        let received = AssertUnwindSafe(receiving).catch_unwind().await;
        match received.unwrap_or_else(|_panic| Err(panicked())) {
            // From here on the work goes on when the sender hangs up.
            Ok(Arrived::Whole(received)) => {
                let source = received.source().index;
                Detached(Some(Caught {
                    bridge: Arc::clone(&bridge),
                    source,
                    request_id,
                    work: Box::pin(finish(
                        bridge,
                        received,
                        connection.if_stranger(),
                        request_id,
                        started,
                    )),
                }))
                .await
            }
            Ok(Arrived::Handshake {
                source,
                reply,
                is_read,
            }) => {
                bridge.note_end(&source, Ok(Status::Handshake), started.elapsed());
                let mut response = answer_handshake(*reply, request_id);
                if !is_read {
                    answer::close_after(&mut response);
                }
                response
            }
            Err(refused) => {
                let source = refused.source.as_deref();
                bridge.note_refusal(source, &refused.refusal, request_id, None);
                let mut response = answer(&Err(refused.refusal), source, None, request_id);
                if refused.is_read {
                    response.headers_mut().remove(CONNECTION);
                } else if refused.is_unread {
                    answer::close_after(&mut response);
                }
                response
            }
        }
    }
}

/// Steps 2 to 8, for a request that was received whole.
fn finish(
    bridge: Arc<Bridge>,
    received: Received,
    stranger: Option<Arc<Activity>>,
    request_id: RequestId,
    started: Instant,
) -> impl Future<Output = Response<Full<Bytes>>> {
    let source = Arc::clone(received.source());
    async move {
        let preparation = source.authentication.prepare(&received.as_request());
        if let Some(preparation) = preparation {
            preparation.await;
        }
        let decided = verify_and_decide(&bridge, received, stranger.as_deref());
        drop(stranger);
        let decided = match decided {
            Ok((Decided::Event(decision), permit)) => Ok((decision, permit)),
            Ok((Decided::Batch(decisions), permit)) => {
                // Large, and rare.
                let publishing =
                    batch::finish(bridge, source, decisions, permit, request_id, started);
                return Box::pin(publishing).await;
            }
            Ok((Decided::Handshake(mut reply), permit)) => {
                let done = match reply.errand.take() {
                    None => Ok(()),
                    // Large, and rare.
                    Some(errand) => Box::pin(errand.run()).await,
                };
                drop(permit);
                match done {
                    Ok(()) => {
                        bridge.note_end(&source, Ok(Status::Handshake), started.elapsed());
                        return answer_handshake(*reply, request_id);
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        };
        let result = match &decided {
            Ok((decision, _permit)) => {
                let deadline = tokio::time::Instant::now() + source.publish_timeout;
                carry_out(&bridge, &source, decision, deadline).await
            }
            Err(refusal) => Err(refusal.clone()),
        };
        let decision = decided.as_ref().ok().map(|(decision, _)| decision);
        let event_id = decision.and_then(|decision| decision.event_id.as_ref());
        bridge.note_end(
            &source,
            result.as_ref().map(Accepted::status),
            started.elapsed(),
        );
        if let Err(refusal) = &result {
            bridge.note_refusal(Some(&source), refusal, request_id, event_id);
        }
        let mut response = answer(&result, Some(&source), event_id, request_id);
        if result.is_err() {
            // Whatever the refusal, the whole body was read.
            response.headers_mut().remove(CONNECTION);
        }
        response
    }
}

/// Steps 2 to 6. Only a verified event takes a place among those in flight, which is all that is left of the request.
fn verify_and_decide(
    bridge: &Bridge,
    received: Received,
    stranger: Option<&Activity>,
) -> Result<(Decided, Permit), Refusal> {
    let verified = verify(received)?;
    if let Some(stranger) = stranger {
        stranger.become_known();
    }
    let source = verified.source();
    bridge.note_verified(source, verified.secret_index());
    let bytes = verified.request().body().len();
    let permit = bridge.permits().take(source.index, bytes);
    let permit = permit.ok_or(Refusal::Overloaded)?;
    Ok((decide(&verified), permit))
}

/// Step 7, and the proof that step 8 needs: publishes what is to be published, and says what came of it.
async fn carry_out(
    bridge: &Bridge,
    source: &Source,
    decision: &Decision,
    deadline: tokio::time::Instant,
) -> Result<Accepted, Refusal> {
    let event_type = decision.event_type.as_deref().unwrap_or_default();
    match &decision.verdict {
        Verdict::Ignore => Ok(Accepted::Ignored),
        Verdict::Refuse(refusal) => Err(refusal.clone()),
        // Not remembered: after a fix, the same delivery must be able to take its right way.
        Verdict::DeadLetter { letter, refusal } => {
            bridge.note_dead_letter(source, refusal, decision.event_id.as_ref());
            let use_of = Use {
                source,
                route: None,
                event_type,
                event_id: decision.event_id.as_ref(),
            };
            let stored = publish::publish_one(bridge, &use_of, letter, deadline).await;
            stored.map(Accepted::DeadLettered)
        }
        Verdict::Publish { route, delivery } => {
            let place = match (bridge.window(source), delivery.fingerprint) {
                (Some(window), Some(fingerprint)) => {
                    match duplicates::enter(window, fingerprint, deadline).await? {
                        Entered::Stored(receipt) => return Ok(Accepted::Duplicate(receipt)),
                        Entered::First(place) => Some(place),
                    }
                }
                _ => None,
            };
            let use_of = Use {
                source,
                route: Some(*route),
                event_type,
                event_id: decision.event_id.as_ref(),
            };
            let ended = publish::publish(bridge, &use_of, delivery, deadline).await;
            if let Some(place) = place {
                match &ended {
                    Ok(Accepted::Published(receipt)) => place.end(&Ok(*receipt)),
                    Err(refusal) => place.end(&Err(refusal.clone())),
                    // Dead letters are not remembered.
                    Ok(_) => drop(place),
                }
            }
            ended
        }
    }
}

/// A defect of ours before anything was published. The sender should try again.
fn panicked() -> receive::Refused {
    receive::Refused {
        source: None,
        refusal: Refusal::PublishTimeout,
        is_read: false,
        is_unread: true,
    }
}

type Work = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Work whose panic, a defect of ours, is answered: it is no proof of anything, so the sender should try again.
struct Caught {
    bridge: Arc<Bridge>,
    /// The source's index.
    source: usize,
    request_id: RequestId,
    work: Work,
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
            self.bridge
                .note_refusal(source, &refusal, self.request_id, None);
            Poll::Ready(answer(&Err(refusal), source, None, self.request_id))
        })
    }
}

/// Work that is finished whether or not anyone waits for it: hyper drops a handler when its sender hangs up
/// (hyperium/hyper#2728), and then the rest runs as a task of its own.
struct Detached(Option<Caught>);

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
