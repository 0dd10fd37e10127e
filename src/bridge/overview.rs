//! The state of a configuration, as the live page shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::Bridge;
use crate::brokers::{Assessment, Finding, Health, Kind};
use crate::config::{Action, BrokerId, Forwarding, Route};

/// The most destinations, and the most routes, that the page lists.
const MAX_LISTED: usize = 500;

#[derive(Debug, Serialize)]
pub(crate) struct Overview<'b> {
    version: &'static str,
    commit: &'static str,
    ready: bool,
    draining: bool,
    missing: Vec<String>,
    public_listen: String,
    public_scheme: &'static str,
    brokers: Vec<BrokerRow<'b>>,
    destinations: Vec<DestinationRow<'b>>,
    sources: Vec<SourceRow<'b>>,
    routes: Vec<RouteRow<'b>>,
}

#[derive(Debug, Serialize)]
struct BrokerRow<'b> {
    name: &'b str,
    kind: &'static str,
    address: String,
    health: &'static str,
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct DestinationRow<'b> {
    broker: &'b str,
    destination: String,
    /// `yes`, `no`, `unusable` or `unknown`.
    durable: &'static str,
    why: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SourceRow<'b> {
    name: &'b str,
    provider: &'b str,
    path: &'b str,
}

#[derive(Debug, Serialize)]
struct RouteRow<'b> {
    number: usize,
    sources: Vec<&'b str>,
    types: &'b [String],
    destinations: Vec<Goal<'b>>,
}

#[derive(Debug, Serialize)]
struct Goal<'b> {
    /// `to`, `fallback` or `copy`.
    role: &'static str,
    broker: &'b str,
    topic: String,
}

/// The values that change all the time.
#[derive(Debug, Serialize)]
pub(crate) struct Gauges<'b> {
    in_flight: usize,
    brokers: Vec<Queue<'b>>,
}

#[derive(Debug, Serialize)]
struct Queue<'b> {
    name: &'b str,
    queue: usize,
}

impl Bridge {
    pub(crate) fn gauges(&self) -> Gauges<'_> {
        let brokers = self.clients().map(|(named, client)| Queue {
            name: &named.name,
            queue: client.broker.queue_len(),
        });
        Gauges {
            in_flight: self.permits().events_taken(),
            brokers: brokers.collect(),
        }
    }

    /// `public`: the address of the public listener.
    pub(crate) fn overview(&self, public: SocketAddr) -> Overview<'_> {
        let readiness = self.readiness();
        let config = self.config();
        let mut routes: BTreeMap<usize, RouteRow<'_>> = BTreeMap::new();
        for source in &config.sources {
            for route in &source.routes {
                let row = routes.entry(route.id.ordinal);
                row.or_insert_with(|| route_row(route))
                    .sources
                    .push(&source.name);
            }
        }
        let sources = config.sources.iter().map(|source| SourceRow {
            name: &source.name,
            provider: source.provider,
            path: &source.path,
        });
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            commit: crate::COMMIT,
            ready: readiness.is_ready,
            draining: self.process().is_draining(),
            missing: readiness.missing,
            public_listen: public.to_string(),
            public_scheme: if config.http.tls.is_some() {
                "https"
            } else {
                "http"
            },
            brokers: config.broker_ids().map(|id| self.broker_row(id)).collect(),
            destinations: self.destination_rows(),
            sources: sources.collect(),
            routes: routes.into_values().take(MAX_LISTED).collect(),
        }
    }

    fn broker_row(&self, id: BrokerId) -> BrokerRow<'_> {
        let named = self.config().broker(id);
        let (health, why) = match self.broker(id).health() {
            Health::Up { .. } if self.is_pending(id) => (
                "starting",
                Some("its destinations have not been inspected yet".to_owned()),
            ),
            Health::Up { missing } => ("up", (!missing.is_empty()).then(|| missing.join("; "))),
            Health::Refusing { why, .. } => ("refusing", Some(why)),
            Health::Down(why) => ("down", Some(why)),
            Health::Starting => ("starting", Some("not reached yet".to_owned())),
        };
        BrokerRow {
            name: &named.name,
            kind: match named.settings.kind() {
                Kind::Kafka => "Kafka",
                Kind::Nats => "NATS",
            },
            address: named.settings.address(),
            health,
            why,
        }
    }

    fn destination_rows(&self) -> Vec<DestinationRow<'_>> {
        let mut rows: Vec<DestinationRow<'_>> = Vec::new();
        for id in self.needed_brokers() {
            let broker = self.config().broker(*id).name.as_str();
            let mut by_name: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
            for name in self.config().known_destinations(*id) {
                by_name.insert(name, Vec::new());
            }
            for finding in self.findings(*id) {
                let name = finding.destination.clone();
                by_name.entry(name).or_default().push(finding);
            }
            let of_others = rows.len();
            let left = MAX_LISTED.saturating_sub(of_others);
            for (name, findings) in by_name.into_iter().take(left) {
                let row = destination_row(broker, name, &findings);
                let mut same_broker = rows.iter_mut().skip(of_others);
                // A stream takes many subjects.
                match same_broker
                    .find(|other| (other.durable, &other.why) == (row.durable, &row.why))
                {
                    Some(other) => {
                        other.destination.push_str(", ");
                        other.destination.push_str(&row.destination);
                    }
                    None => rows.push(row),
                }
            }
        }
        rows
    }
}

/// Durable is only what was inspected and found so.
fn destination_row<'b>(
    broker: &'b str,
    destination: String,
    findings: &[Finding],
) -> DestinationRow<'b> {
    let has = |wanted: fn(&Assessment) -> bool| {
        findings.iter().any(|finding| wanted(&finding.assessment))
    };
    let durable = if has(|assessment| matches!(assessment, Assessment::Unusable(_))) {
        "unusable"
    } else if has(|assessment| matches!(assessment, Assessment::Bad(_))) {
        "no"
    } else if findings.is_empty() || has(|assessment| matches!(assessment, Assessment::Unknown(_)))
    {
        "unknown"
    } else {
        "yes"
    };
    let why = findings
        .iter()
        .filter_map(|finding| finding.assessment.why());
    let mut why: Vec<_> = why.map(str::to_owned).collect();
    if findings.is_empty() {
        why.push("not inspected yet".to_owned());
    }
    DestinationRow {
        broker,
        destination,
        durable,
        why,
    }
}

fn route_row(route: &Route) -> RouteRow<'_> {
    RouteRow {
        number: route.id.ordinal,
        sources: Vec::new(),
        types: &route.types,
        destinations: match &route.action {
            Action::Ignore => Vec::new(),
            Action::Publish(forwarding) => goals(forwarding),
        },
    }
}

fn goals(forwarding: &Forwarding) -> Vec<Goal<'_>> {
    let to = std::iter::once(("to", &forwarding.to));
    let fallback = forwarding.fallback.iter().map(|to| ("fallback", to));
    let copies = forwarding.copies.iter().map(|to| ("copy", to));
    let all = to.chain(fallback).chain(copies);
    let all = all.map(|(role, destination)| Goal {
        role,
        broker: &destination.broker_name,
        topic: destination.topic.to_string(),
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_durable_only_if_it_was_found_so() {
        let text = || "why".to_owned();
        let durable = |assessments: &[Assessment]| {
            let findings = assessments.iter().map(|assessment| Finding {
                destination: "a".to_owned(),
                check: "x",
                assessment: assessment.clone(),
            });
            destination_row("main", "a".to_owned(), &findings.collect::<Vec<_>>()).durable
        };
        assert_eq!(durable(&[]), "unknown");
        assert_eq!(
            durable(&[Assessment::Good, Assessment::Unknown(text())]),
            "unknown"
        );
        assert_eq!(
            durable(&[Assessment::Unknown(text()), Assessment::Bad(text())]),
            "no"
        );
        assert_eq!(
            durable(&[Assessment::Bad(text()), Assessment::Unusable(text())]),
            "unusable"
        );
        assert_eq!(
            durable(&[Assessment::Good, Assessment::Advice(text())]),
            "yes"
        );
    }
}
