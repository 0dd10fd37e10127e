//! The configuration as the bridge uses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobMatcher, GlobSet, GlobSetBuilder};
use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use super::template::{Part, Template};
use super::tls::Tls;
use super::transport::{FixedBody, RateLimit};
use crate::brokers::{Kind, Limits, Needs, Settings};
use crate::event::DedupBy;
use crate::json::Schema;
use crate::providers::Authentication;
use crate::providers::handshake::Handshake;
use crate::providers::mapping::Mapping;
use crate::providers::text::Parsing;
use crate::table::{Files, Problem};

/// A configuration without a fault.
#[derive(Debug)]
pub struct Config {
    /// `[http]`
    pub http: Http,
    /// `[admin]`
    pub admin: Admin,
    /// `[brokers.NAME]`, sorted by name.
    pub brokers: Vec<NamedBroker>,
    /// `[sources.NAME]`, sorted by name.
    pub sources: Vec<Arc<Source>>,
    /// Settings that are legal but questionable.
    pub warnings: Vec<Problem>,
}

/// `[http]`: the public listener.
#[derive(Debug, Clone)]
pub struct Http {
    /// Its address.
    pub listen: SocketAddr,
    /// From a head's first byte to its last.
    pub header_timeout: Duration,
    /// Between requests on one connection.
    pub idle_timeout: Duration,
    /// For a body.
    pub body_timeout: Duration,
    /// Events being published.
    pub max_in_flight: usize,
    /// Bytes of their bodies.
    pub max_in_flight_bytes: usize,
    /// Open connections.
    pub max_connections: usize,
    /// After which a connection is closed with its next answer, ±10 %.
    pub max_connection_age: Duration,
    /// How long `/readyz` says no before the listener closes.
    pub drain_delay: Duration,
    /// How long a shutdown may take.
    pub shutdown_timeout: Duration,
    /// The proxies that may say whose request they pass on.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether HTTP/2 is spoken too.
    pub http2: bool,
    /// TLS, where the listener speaks it.
    pub tls: Option<Tls>,
}

/// `[admin]`: the admin listener.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
    /// Which brokers must be reachable.
    pub ready_when: ReadyWhen,
}

/// Which of the brokers that routes need must be reachable for the service to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    /// One of them.
    Any,
    /// All of them.
    All,
}

/// A broker of the configuration. Only this folder makes one, so looking it up can't fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub(super) usize);

impl BrokerId {
    /// Its place in the configuration's list.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// `[brokers.NAME]`
#[derive(Debug)]
pub struct NamedBroker {
    /// Its name.
    pub name: String,
    /// How to reach it.
    pub settings: Settings,
    /// Whether a destination whose acknowledgement would not mean "stored" must not be used.
    pub require_durable: bool,
    /// The files that its client reads, as they were.
    pub files: Files,
}

/// `[sources.NAME]` and the routes that take its events.
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its place among the sources.
    pub index: usize,
    /// The path that its provider posts to.
    pub path: String,
    /// Its preset; `generic` where it has none.
    pub provider: &'static str,
    /// How its requests are verified.
    pub authentication: Authentication,
    /// How long the nonces of its signatures are remembered; none where they have none.
    pub nonce_lifetime: Option<Duration>,
    /// The parts of a body that verification needs parsed.
    pub body_needs: Parsing,
    /// Where its events say who they are.
    pub mapping: Mapping,
    /// Requests that are answered and never published.
    pub handshakes: Vec<Handshake>,
    /// Whether one of them is only told from a body that its provider does not sign.
    pub has_open_handshake: bool,
    /// The methods that its path takes, as `Allow` lists them.
    pub methods: String,
    /// The media types of its requests, in lower case; `*/*` is any.
    pub media_types: Vec<String>,
    /// The URL that its provider calls, without the query, for schemes that sign it.
    pub public_url: Option<String>,
    /// How many secrets it has.
    pub secret_count: usize,
    /// The schema of its events.
    pub schema: Option<Arc<Schema>>,
    /// And those of some types, besides.
    pub schemas: Vec<TypedSchema>,
    /// The policy for authentic events that are not valid.
    pub on_invalid: Otherwise,
    /// The policy for events that no route takes.
    pub on_unrouted: Otherwise,
    /// The routes.
    pub routes: Routes,
    /// The largest body, after it was unfolded.
    pub max_body: usize,
    /// Whether bodies may come compressed by gzip.
    pub accept_gzip: bool,
    /// The longest that a request waits for the broker.
    pub publish_timeout: Duration,
    /// How many of its events may be in flight.
    pub max_in_flight: usize,
    /// The only networks that its requests may come from; any where there is none.
    pub allow_from: Vec<IpNet>,
    /// The names of which a sender's certificate must have one, in lower case; none where the source asks for no names.
    pub client_names: Vec<String>,
    /// How many of its verified requests are taken, where its operator limits them.
    pub rate_limit: Option<RateLimit>,
    /// The status of a success.
    pub success_status: StatusCode,
    /// Its body, where it is not to say what became of the event.
    pub success_body: Option<FixedBody>,
    /// The CloudEvents `source` of its events.
    pub ce_source: String,
    /// The sender's headers that go on with the message.
    pub forward_headers: Vec<HeaderName>,
    /// How long a delivery that was stored is remembered, so that it is not published again.
    pub dedup_window: Option<Duration>,
    /// The longest silence between two authentic events that the operator expects.
    pub expect_every: Option<Duration>,
    /// The identity of a delivery.
    pub dedup_by: DedupBy,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// `schemas`: what events of some types must look like.
#[derive(Debug)]
pub struct TypedSchema {
    pub(super) types: TypeGlob,
    /// The schema.
    pub schema: Arc<Schema>,
}

impl TypedSchema {
    /// Whether it is for events of this type.
    #[must_use]
    pub fn is_for(&self, event_type: &str) -> bool {
        self.types.is_match(event_type)
    }
}

/// The policy for an event that cannot be published as intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// It is refused.
    Reject,
    /// It is answered 200 and dropped.
    Ignore,
    /// It is published elsewhere, with the reason.
    DeadLetter {
        /// To this broker.
        broker: BrokerId,
        /// And this topic or subject.
        topic: String,
    },
}

/// The routes of a source, in order; the first that takes a type wins.
#[derive(Debug, Default)]
pub struct Routes {
    all: Vec<Route>,
    /// Every glob of every route, so that finding a route takes no longer where there are many.
    globs: GlobSet,
    /// Of each of them, its route's index.
    owners: Vec<usize>,
}

impl Routes {
    /// The first route that takes this type.
    #[must_use]
    pub fn first_for(&self, event_type: &str) -> Option<&Route> {
        let matching = self.globs.matches(event_type).into_iter();
        let first = matching.filter_map(|glob| self.owners.get(glob)).min()?;
        self.all.get(*first)
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.all.iter()
    }

    pub(super) fn push(
        &mut self,
        ordinal: usize,
        types: Vec<String>,
        matchers: Vec<TypeGlob>,
        action: Action,
    ) {
        self.all.push(Route {
            id: RouteId {
                ordinal,
                index: self.all.len(),
            },
            types,
            matchers,
            action,
        });
    }

    /// Makes them ready to be asked.
    pub(super) fn index(&mut self) -> Result<(), globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for (index, route) in self.all.iter().enumerate() {
            for matcher in &route.matchers {
                globs.add(matcher.glob.clone());
                self.owners.push(index);
            }
        }
        self.globs = globs.build()?;
        Ok(())
    }
}

impl<'r> IntoIterator for &'r Routes {
    type Item = &'r Route;
    type IntoIter = std::slice::Iter<'r, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Identifies a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteId {
    /// Among all routes, from 1 as in messages.
    pub ordinal: usize,
    /// Among the routes of its source, from 0.
    pub index: usize,
}

/// `[[routes]]`
#[derive(Debug)]
pub struct Route {
    pub id: RouteId,
    /// Globs on the event type, as written.
    pub types: Vec<String>,
    /// The same, compiled.
    pub(super) matchers: Vec<TypeGlob>,
    /// The action.
    pub action: Action,
}

impl Route {
    /// Whether it takes this type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        self.matchers
            .iter()
            .any(|matcher| matcher.is_match(event_type))
    }
}

/// A compiled glob. Most need no regular expression, which takes a hundred times as long to make.
#[derive(Debug, Clone)]
pub(super) struct TypeGlob {
    pub(super) glob: Glob,
    test: TypeTest,
}

#[derive(Debug, Clone)]
enum TypeTest {
    /// It is a text that stands for itself.
    Is,
    /// It is a text and a `*`.
    BeginsWith(String),
    Matches(GlobMatcher),
}

impl TypeGlob {
    pub(super) fn new(text: &str) -> Result<Self, globset::Error> {
        let glob = Glob::new(text)?;
        let test = match text.strip_suffix('*') {
            _ if !text.contains(GLOB_META) => TypeTest::Is,
            Some(beginning) if !beginning.contains(GLOB_META) => {
                TypeTest::BeginsWith(beginning.to_owned())
            }
            _ => TypeTest::Matches(glob.compile_matcher()),
        };
        Ok(Self { glob, test })
    }

    pub(super) fn is_match(&self, event_type: &str) -> bool {
        match &self.test {
            TypeTest::Is => self.glob.glob() == event_type,
            TypeTest::BeginsWith(beginning) => event_type.starts_with(beginning),
            TypeTest::Matches(matcher) => matcher.is_match(event_type),
        }
    }
}

/// What a glob has besides text that stands for itself.
pub(super) const GLOB_META: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// The action of a route.
#[derive(Debug)]
pub enum Action {
    /// It publishes.
    Publish(Box<Forwarding>),
    /// It answers 200 and drops the event.
    Ignore,
}

/// Where a route's events go.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// To here.
    pub to: Destination,
    /// To here, where that certainly did not store the event.
    pub fallback: Option<Destination>,
    /// And to each of these.
    pub copies: Vec<Destination>,
}

impl Forwarding {
    /// Everywhere that an event may go.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        std::iter::once(&self.to)
            .chain(&self.fallback)
            .chain(&self.copies)
    }
}

/// A topic or subject of a broker.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The broker.
    pub broker: BrokerId,
    /// Its name.
    pub broker_name: String,
    /// Its kind, which says what names may look like.
    pub kind: Kind,
    /// The topic or subject.
    pub topic: Template,
    /// The only topics or subjects that it may become.
    pub topics: Option<Vec<String>>,
    /// The key; the provider's default where there is none.
    pub key: Option<Template>,
}

impl Destination {
    /// What the topic can become for a type, or for a type that is not known in advance; `None` stands for more than can
    /// be listed.
    pub(crate) fn topics_for<'a>(
        &'a self,
        event_type: Option<&str>,
        source: &str,
    ) -> Box<dyn Iterator<Item = Option<String>> + 'a> {
        if let Some(topics) = &self.topics {
            return Box::new(topics.iter().cloned().map(Some));
        }
        let reads_type = self.topic.parts().contains(&Part::Type);
        let known = match event_type {
            None if reads_type => None,
            event_type => self
                .topic
                .without_payload(event_type.unwrap_or_default(), source),
        };
        Box::new(std::iter::once(known))
    }
}

impl Config {
    /// The broker with this id.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> &NamedBroker {
        #[expect(
            clippy::indexing_slicing,
            reason = "a BrokerId is made by check.rs alone, from this list"
        )]
        &self.brokers[id.0]
    }

    /// The ids of all brokers.
    pub fn broker_ids(&self) -> impl Iterator<Item = BrokerId> + use<> {
        (0..self.brokers.len()).map(BrokerId)
    }

    /// The longest that a request can take from its head to its answer.
    #[must_use]
    pub fn longest_request(&self) -> Duration {
        let waits = self.sources.iter().map(|source| source.publish_timeout);
        self.http.body_timeout + waits.max().unwrap_or_default()
    }

    /// The brokers that routes and dead letters need.
    #[must_use]
    pub fn needed_brokers(&self) -> Vec<BrokerId> {
        self.broker_ids()
            .filter(|id| self.destinations_by_use(*id).next().is_some())
            .collect()
    }

    /// The topics or subjects on a broker that are known in advance.
    #[must_use]
    pub fn known_destinations(&self, broker: BrokerId) -> Vec<String> {
        let mut known: Vec<String> = self.destinations_by_use(broker).flatten().collect();
        known.sort();
        known.dedup();
        known
    }

    /// Whether events may go to topics or subjects on a broker that are not known in advance, because of what they contain.
    #[must_use]
    pub fn has_unknown_destinations(&self, broker: BrokerId) -> bool {
        self.destinations_by_use(broker).any(|name| name.is_none())
    }

    /// One item for each use of a broker; the name where it is known in advance.
    fn destinations_by_use(&self, broker: BrokerId) -> impl Iterator<Item = Option<String>> {
        self.sources.iter().flat_map(move |source| {
            let routes = source.routes.iter().flat_map(move |route| {
                let forwarding = match &route.action {
                    Action::Publish(forwarding) => Some(forwarding.as_ref()),
                    Action::Ignore => None,
                };
                let destinations = forwarding.into_iter().flat_map(Forwarding::destinations);
                let of_broker =
                    destinations.filter(move |destination| destination.broker == broker);
                of_broker.flat_map(move |destination| known_topics(source, route, destination))
            });
            let dead_letters = [&source.on_invalid, &source.on_unrouted]
                .into_iter()
                .filter_map(move |otherwise| match otherwise {
                    Otherwise::DeadLetter {
                        broker: other,
                        topic,
                    } if *other == broker => Some(Some(topic.clone())),
                    Otherwise::DeadLetter { .. } | Otherwise::Reject | Otherwise::Ignore => None,
                });
            routes.chain(dead_letters)
        })
    }

    /// The share of a broker that routes need in what may be under way: one that stands still must not take the others'.
    #[must_use]
    pub fn broker_share(&self) -> (usize, usize) {
        let brokers = self.needed_brokers().len().max(1);
        let largest_body = self
            .sources
            .iter()
            .map(|source| source.max_body)
            .max()
            .unwrap_or_default();
        let events = self.http.max_in_flight.div_ceil(brokers);
        let bytes = self
            .http
            .max_in_flight_bytes
            .div_ceil(brokers)
            .max(largest_body);
        (events, bytes)
    }

    /// The durability that a broker must provide.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let max_body_bytes = self
            .sources
            .iter()
            .map(|source| source.max_body)
            .max()
            .unwrap_or_default();
        Needs { max_body_bytes }
    }

    /// What a broker's client must be able to carry.
    #[must_use]
    pub fn broker_limits(&self) -> Limits {
        Limits {
            publish_timeout: self
                .sources
                .iter()
                .map(|source| source.publish_timeout)
                .max()
                .unwrap_or_default(),
            max_body_bytes: self
                .sources
                .iter()
                .map(|source| source.max_body)
                .max()
                .unwrap_or_default(),
            max_in_flight: self.broker_share().0,
            max_in_flight_bytes: self.broker_share().1,
        }
    }
}

/// One item for each of the types that the route takes of the source; the name where it is known in advance.
fn known_topics(source: &Source, route: &Route, destination: &Destination) -> Vec<Option<String>> {
    let types = source.mapping.types.iter();
    let types = types.filter(|event_type| route.matches(event_type));
    let known: Vec<_> = types
        .flat_map(|event_type| destination.topics_for(Some(event_type), &source.name))
        .collect();
    if known.is_empty() {
        // Its types are not on the provider's list.
        destination.topics_for(None, &source.name).collect()
    } else {
        known
    }
}
