//! The topics and subjects that a configuration publishes to, for provisioning.

use super::model::{Action, BrokerId, Config, Destination, FailurePolicy, Forwarding, GLOB_META};
use super::model::{Route, Source, known_topics};
use super::template::Part;
use crate::brokers::{Needed, Open};

impl Config {
    /// Everything on a broker that an event can be published to: routes, fallbacks, copies and dead letters.
    #[must_use]
    pub fn needed(&self, broker: BrokerId) -> Vec<Needed> {
        let mut needed = Vec::new();
        for source in &self.sources {
            for route in &source.routes {
                let Action::Publish(forwarding) = &route.action else {
                    continue;
                };
                let destinations = Forwarding::destinations(forwarding);
                for destination in destinations.filter(|to| to.broker == broker) {
                    needed.push(of_route(source, route, destination));
                }
            }
            let policies = [
                ("on_invalid", &source.on_invalid),
                ("on_unrouted", &source.on_unrouted),
            ];
            for (key, policy) in policies {
                if let FailurePolicy::DeadLetter { broker: of, topic } = policy
                    && *of == broker
                {
                    needed.push(Needed {
                        origin: format!("sources.{}.{key}", source.name),
                        known: vec![topic.clone()],
                        illegal: Vec::new(),
                        open: None,
                    });
                }
            }
        }
        needed
    }
}

fn of_route(source: &Source, route: &Route, destination: &Destination) -> Needed {
    let names = known_topics(source, route, destination);
    let is_legal = |name: &String| destination.kind.check_destination(name).is_ok();
    let (known, illegal) = names.into_iter().flatten().partition(is_legal);
    Needed {
        origin: format!("route {}", route.id.ordinal),
        known,
        illegal,
        open: open(source, route, destination),
    }
}

/// Whether the destination can become topics that are not known in advance.
fn open(source: &Source, route: &Route, destination: &Destination) -> Option<Open> {
    if destination.topics.is_some() {
        return None;
    }
    let template = &destination.topic;
    let reads_payload = template.reads_payload();
    let reads_type = template.parts().contains(&Part::Type);
    let takes_any = || route.types.iter().any(|glob| glob.contains(GLOB_META));
    if !(reads_payload || reads_type && takes_any()) {
        return None;
    }
    let mut leading = String::new();
    for part in template.parts() {
        match part {
            Part::Literal(text) => leading.push_str(text),
            Part::Source => leading.push_str(&source.name),
            Part::Type | Part::Pointer(_) => break,
        }
    }
    Some(Open {
        template: template.as_str().to_owned(),
        leading,
        reads_payload,
    })
}
