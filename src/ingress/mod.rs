//! An event's path, one file per step, in this order. [`handle`] and [`finish`] show all of it on one page.

// 1: the connection with its timers, and the request
pub(crate) mod accept;
mod client;
mod self_wake;
mod socket;
mod tls;
mod unverified_connections;

mod gzip;
pub(crate) mod receive;
mod received;

// 2: pure, like the next ones
pub(crate) mod verify;

// 3 to 6: `decide` calls the others
pub(crate) mod decide;
mod decision;

pub(crate) mod parse;

pub(crate) mod validate;

pub(crate) mod route;

pub(crate) mod dead_letter;
pub(crate) mod encode;

// a sampled request's spans
mod trace;

// 7: the broker's answer, and work that outlives its sender
mod batch;
mod detached;
pub(crate) mod publish;

// 8
pub(crate) mod answer;

// 2 to 6 for commands, without a signature
mod rehearse;

#[cfg(feature = "kafka")]
#[cfg(test)]
mod declared;
#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod tests;
#[cfg(all(feature = "kafka", feature = "nats"))]
#[cfg(test)]
mod vectors;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::bridge::Bridge;
use crate::bridge::live::Live;
use crate::bridge::observe::{Arrival, Report};
use crate::config::Source;
use crate::event::{EventId, Refusal, RequestId, Status};
use crate::flow::Permit;
use crate::trace::Trace;

pub use decide::decide;
pub use decision::{Addressed, Decided, Decision, Delivery, Verdict};
pub use gzip::decompress;
pub use received::Received;
pub use rehearse::Rehearsal;
pub use verify::{Verified, verify};

use answer::{Accepted, answer, answer_batch, answer_handshake};
use detached::{Detached, answer_panic};
use receive::Arrived;
use received::Head;
use socket::Activity;

/// Handles a request up to its answer. Nothing but the head has been checked before the returned future is first
/// polled.
///
/// Here and in [`finish`], nothing that is no longer needed is held across an await: a future's state is copied when
/// the future is created, and occupies CPU cache for as long as the broker takes.
///
/// Refusals and whatever else is rare are `#[cold]` in all steps, which keeps their code from between that of events: an
/// event runs through more code than the CPU's instruction cache holds.
fn handle(
    live: &Live,
    request: Request<Incoming>,
    connection: &Arc<Activity>,
    started: Instant,
) -> impl Future<Output = Response<Full<Bytes>>> {
    let bridge = live.current();
    let request_id = RequestId::random();
    let arrival = Arrival {
        request_id,
        started,
        client: bridge
            .wants_clients()
            .then(|| receive::client(&bridge, request.headers(), connection)),
    };
    let trace = trace::begin(&bridge, &request, connection, arrival.started);
    let admitted = catch_unwind(AssertUnwindSafe(|| {
        receive::admit(&bridge, &request, connection)
    }))
    .unwrap_or_else(|_panic| Err(panicked()));
    let (parts, body) = request.into_parts();
    let head = Box::new(Head {
        method: parts.method,
        target: parts.uri,
        headers: parts.headers,
    });
    async move {
        let receiving = receive::receive(&bridge, admitted, head, body, connection);
        let received = AssertUnwindSafe(receiving).catch_unwind().await;
        match received.unwrap_or_else(|_panic| Err(panicked())) {
            // From here on, the work continues if the sender hangs up.
            Ok(Arrived::Whole(received)) => {
                let unverified = connection.if_unverified();
                let work = finish(bridge, received, unverified, arrival, trace);
                Detached::new(live.process(), work).await
            }
            Ok(Arrived::Handshake {
                source,
                reply,
                is_read,
            }) => {
                bridge.observe(&Report {
                    duration: Some(arrival.started.elapsed()),
                    trace: trace.as_deref(),
                    ..Report::new(&source, arrival, Ok(Status::Handshake))
                });
                let mut response = answer_handshake(*reply, request_id);
                if !is_read {
                    answer::close_after(&mut response);
                }
                response
            }
            Err(refused) => {
                let source = refused.source.as_deref();
                bridge.observe(&Report {
                    source,
                    trace: trace.as_deref(),
                    ..Report::refused(arrival, &refused.refusal)
                });
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
    unverified: Option<Arc<Activity>>,
    arrival: Arrival,
    trace: Option<Box<Trace>>,
) -> impl Future<Output = Response<Full<Bytes>>> {
    let source = Arc::clone(received.source());
    async move {
        let work = answer_or_panic(&bridge, &source, received, unverified, &arrival, trace);
        answer_panic(&bridge, &source, &arrival, work).await
    }
}

/// The same, as long as nothing panics.
fn answer_or_panic(
    bridge: &Bridge,
    source: &Source,
    received: Received,
    unverified: Option<Arc<Activity>>,
    arrival: &Arrival,
    mut trace: Option<Box<Trace>>,
) -> impl Future<Output = Response<Full<Bytes>>> {
    let request_id = arrival.request_id;
    if let Some(trace) = &mut trace {
        trace.note_received();
    }
    async move {
        if let Some(reply) = verify::open_handshake(&received) {
            bridge.observe(&Report {
                duration: Some(arrival.started.elapsed()),
                trace: trace.as_deref(),
                ..Report::new(source, *arrival, Ok(Status::Handshake))
            });
            return answer_handshake(*reply, request_id);
        }
        let preparation = source.authentication.prepare(&received.as_request());
        if let Some(preparation) = preparation {
            preparation.await;
        }
        let examined = verify_and_decide(
            bridge,
            received,
            unverified.as_deref(),
            trace.as_deref_mut(),
        );
        drop(unverified);
        let now = tokio::time::Instant::now();
        let deadline = now + source.publish_timeout;
        let report = |result| Report {
            secret_index: examined.secret_index,
            body: examined.body.as_deref().map(|body| &**body),
            duration: Some(arrival.started.elapsed()),
            trace: trace.as_deref(),
            ..Report::new(source, *arrival, result)
        };
        match examined.decided {
            // By reference, since moving it would give the future room for a second one.
            Ok((Decided::Event(ref decision), _)) => {
                let (result, observed) =
                    publish::publish(bridge, source, decision, now, deadline).await;
                let event_id = decision.event_id.as_ref();
                bridge.observe(&Report {
                    event_id,
                    events: std::slice::from_ref(&observed),
                    ..report(result.as_ref().map(Accepted::status))
                });
                answer_received(&result, source, event_id, request_id)
            }
            Ok((Decided::Batch(decisions), permit)) => {
                // Boxed because it is large and rare.
                let publishing = batch::publish(bridge, source, &decisions, permit, now, deadline);
                let (result, observed) = Box::pin(publishing).await;
                bridge.observe(&Report {
                    events: &observed,
                    ..report(result.as_deref().map(batch::status_of_all))
                });
                let ids = decisions.iter().map(|decision| decision.event_id.as_ref());
                match result {
                    Ok(statuses) => answer_batch(ids.zip(statuses), source, request_id),
                    Err(refusal) => answer_received(&Err(refusal), source, None, request_id),
                }
            }
            Ok((Decided::Handshake(mut reply), _permit)) => {
                let done = match reply.follow_up.take() {
                    None => Ok(()),
                    // Boxed because it is large and rare.
                    Some(follow_up) => Box::pin(follow_up.run()).await,
                };
                bridge.observe(&report(done.as_ref().map(|()| Status::Handshake)));
                match done {
                    Ok(()) => answer_handshake(*reply, request_id),
                    Err(refusal) => answer_received(&Err(refusal), source, None, request_id),
                }
            }
            Err(refusal) => {
                bridge.observe(&report(Err(&refusal)));
                answer_received(&Err(refusal), source, None, request_id)
            }
        }
    }
}

/// A request after steps 2 to 6.
struct Examined<'b> {
    /// Index of the secret that verified it.
    secret_index: Option<usize>,
    /// For the live page. Boxed: hardly any future keeps one.
    body: Option<Box<Bytes>>,
    /// Only a verified event takes a permit.
    decided: Result<(Decided, Permit<'b>), Refusal>,
}

/// Steps 2 to 6.
fn verify_and_decide<'b>(
    bridge: &'b Bridge,
    received: Received,
    unverified: Option<&Activity>,
    mut trace: Option<&mut Trace>,
) -> Examined<'b> {
    let refused = |refusal| Examined {
        secret_index: None,
        body: None,
        decided: Err(refusal),
    };
    let verified = match verify(received) {
        Ok(verified) => verified,
        Err(refusal) => return refused(refusal),
    };
    if let Some(nonce) = verified.nonce()
        && bridge.is_reused(verified.source(), nonce, verified.request().body())
    {
        return refused(Refusal::ReusedNonce);
    }
    if let Some(connection) = unverified {
        connection.mark_verified();
    }
    if let Some(trace) = &mut trace {
        trace.note_verified();
    }
    bridge.observe_secrets(verified.source(), verified.other_secrets());
    let bytes = verified.request().body().len();
    let source = verified.source();
    let admitted = match bridge.limiter(source).map(|limiter| limiter.take()) {
        Some(Err(retry_after)) => Err(Refusal::RateLimited { retry_after }),
        Some(Ok(())) | None => {
            let permit = bridge.permits().take(source.index, bytes);
            permit.ok_or(Refusal::Overloaded)
        }
    };
    let decided = admitted.map(|permit| {
        let mut decided = decide(&verified);
        if let Some(trace) = trace {
            trace.note_decided();
            trace::carry(trace, &mut decided, verified.request().headers());
        }
        (decided, permit)
    });
    let wants_body = bridge.wants_bodies();
    if !matches!(decided, Ok((Decided::Handshake(_), _))) {
        bridge.observe_authentic(verified.source());
    }
    Examined {
        secret_index: verified.secret_index(),
        body: wants_body.then(|| Box::new(verified.request().body().clone())),
        decided,
    }
}

/// Step 8 for a request whose whole body was read, even if its refusal usually leaves the body unread.
fn answer_received(
    result: &Result<Accepted, Refusal>,
    source: &Source,
    event_id: Option<&EventId>,
    request_id: RequestId,
) -> Response<Full<Bytes>> {
    let mut response = answer(result, Some(source), event_id, request_id);
    if result.is_err() {
        response.headers_mut().remove(CONNECTION);
    }
    response
}

/// Our own defect, before anything was published. The sender should try again.
#[cold]
fn panicked() -> receive::Refused {
    receive::Refused {
        source: None,
        refusal: Refusal::PublishTimeout,
        is_read: false,
        is_unread: true,
    }
}
