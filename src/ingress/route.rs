//! Step 5: the first route that takes the event's type.

use crate::config::{Action, Forwarding, RouteId, Source};
use crate::event::{Identity, Refusal};

/// The action of a route on an event.
#[derive(Debug)]
pub(super) enum Routed<'s> {
    To {
        route: RouteId,
        forwarding: &'s Forwarding,
    },
    Ignore,
}

pub(super) fn route<'s>(source: &'s Source, event: &Identity) -> Result<Routed<'s>, Refusal> {
    match source.routes.first_for(&event.event_type) {
        None => Err(Refusal::NoRoute {
            event_type: event.event_type.clone(),
        }),
        Some(route) => Ok(match &route.action {
            Action::Publish(forwarding) => Routed::To {
                route: route.id,
                forwarding,
            },
            Action::Ignore => Routed::Ignore,
        }),
    }
}
