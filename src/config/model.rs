//! The validated configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobMatcher, GlobSet, GlobSetBuilder};
use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use super::changes::Digests;
use super::template::{Part, Template};
use super::tls::Tls;
use super::transport::{FixedBody, RateLimit};
use crate::brokers::{Kind, Limits, Needs, Provision, Settings};
use crate::event::DedupBy;
use crate::json::Schema;
use crate::providers::Authentication;
use crate::providers::handshake::Handshake;
use crate::providers::mapping::Mapping;
use crate::providers::text::Parsing;
use crate::secret::Secret;
use crate::table::{Files, Problem};

/// A valid configuration.
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
    /// Legal but questionable settings.
    pub warnings: Vec<Problem>,
    /// Digests of the configuration's keys, to tell what a reload changes.
    pub digests: Digests,
}

/// `[http]`: the public listener.
#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Idle time between requests on one connection.
    pub idle_timeout: Duration,
    /// Time to receive a body.
    pub body_timeout: Duration,
    /// Maximum events in flight.
    pub max_in_flight: usize,
    /// Maximum bytes of their bodies.
    pub max_in_flight_bytes: usize,
    /// Maximum open connections.
    pub max_connections: usize,
    /// Age at which a connection is closed with its next answer, ±10 %.
    pub max_connection_age: Duration,
    /// Time for which `/readyz` fails before the listener closes.
    pub drain_delay: Duration,
    /// Maximum duration of a shutdown.
    pub shutdown_timeout: Duration,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each request has a line in the log.
    pub access_log: bool,
    /// Whether HTTP/2 is enabled.
    pub http2: bool,
    /// TLS settings, if enabled.
    pub tls: Option<Tls>,
}

/// `[admin]`: the admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    pub ready_when: ReadyWhen,
    /// Opens the live page to whoever knows it.
    pub token: Option<Secret>,
    /// Whether the live page shows bodies and headers, with secrets masked.
    pub show_bodies: bool,
}

/// How many of the brokers that routes need must be reachable for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    Any,
    All,
}

/// Identifies a broker of the configuration. Only this folder creates one, so a lookup cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub(super) usize);

impl BrokerId {
    /// Its position in the configuration's list.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// `[brokers.NAME]`
#[derive(Debug)]
pub struct NamedBroker {
    pub name: String,
    pub settings: Settings,
    /// Whether to refuse destinations whose acknowledgement would not mean "stored".
    pub require_durable: bool,
    /// Settings with which `provision` creates topics or a stream.
    pub provision: Provision,
    /// Contents of the files that its client reads, at loading time.
    pub files: Files,
}

/// `[sources.NAME]` and its routes.
pub struct Source {
    pub name: String,
    /// Its position among the sources.
    pub index: usize,
    /// The path to which its provider posts.
    pub path: String,
    /// Its preset, or `generic`.
    pub provider: &'static str,
    /// How its requests are verified.
    pub authentication: Authentication,
    /// Time for which the nonces of its signatures are remembered; `None` where they have none.
    pub nonce_lifetime: Option<Duration>,
    /// The parts of a body that verification needs parsed.
    pub body_needs: Parsing,
    /// How to read the identity of its events.
    pub mapping: Mapping,
    /// Requests that are answered and never published.
    pub handshakes: Vec<Handshake>,
    /// Whether a handshake can only be recognized by a body that its provider does not sign.
    pub has_open_handshake: bool,
    /// The value of `Allow`.
    pub methods: String,
    /// Accepted media types in lower case; `*/*` means any.
    pub media_types: Vec<String>,
    /// The URL that its provider calls, without the query, for schemes that sign it.
    pub public_url: Option<String>,
    /// The number of its secrets.
    pub secret_count: usize,
    pub(super) secret_digests: Vec<[u8; 32]>,
    /// The same secrets, to mask what equals one. Verification has its own.
    pub masked: Vec<Secret>,
    /// The schema for all its events.
    pub schema: Option<Arc<Schema>>,
    /// Additional schemas by event type.
    pub schemas: Vec<TypedSchema>,
    /// The policy for authentic events that are invalid.
    pub on_invalid: FailurePolicy,
    /// The policy for events that match no route.
    pub on_unrouted: FailurePolicy,
    pub routes: Routes,
    /// Maximum body size after decompression.
    pub max_body: usize,
    /// Whether gzip bodies are accepted.
    pub accept_gzip: bool,
    /// Maximum time that a request waits for the broker.
    pub publish_timeout: Duration,
    /// Maximum number of its events in flight.
    pub max_in_flight: usize,
    /// The networks that may send requests; empty means any.
    pub allow_from: Vec<IpNet>,
    /// The names of which the client certificate must have one, in lower case; empty if none is required.
    pub client_names: Vec<String>,
    /// The limit on verified requests, if any.
    pub rate_limit: Option<RateLimit>,
    /// The status code of a success.
    pub success_status: StatusCode,
    /// A fixed success body instead of the event's status.
    pub success_body: Option<FixedBody>,
    /// The CloudEvents `source` of its events.
    pub ce_source: String,
    /// Request headers that are copied to the message.
    pub forward_headers: Vec<HeaderName>,
    /// Time for which a stored delivery is remembered, so that it is not published again.
    pub dedup_window: Option<Duration>,
    /// The longest normal time between two authentic events.
    pub expect_every: Option<Duration>,
    /// The criterion by which two deliveries are the same.
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

/// One entry of `schemas`.
#[derive(Debug)]
pub struct TypedSchema {
    pub(super) types: TypeGlob,
    pub schema: Arc<Schema>,
}

impl TypedSchema {
    /// Whether it applies to events of this type.
    #[must_use]
    pub fn is_for(&self, event_type: &str) -> bool {
        self.types.is_match(event_type)
    }
}

/// The policy for an event that cannot be published as intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Refuse it.
    Reject,
    /// Answer 200 and drop it.
    Ignore,
    /// Publish it elsewhere, with the reason.
    DeadLetter {
        broker: BrokerId,
        /// The topic or subject.
        topic: String,
    },
}

/// The routes of a source, in order; the first match wins.
#[derive(Debug, Default)]
pub struct Routes {
    all: Vec<Route>,
    /// Every glob of every route, so that the time to find a route does not grow with their number.
    globs: GlobSet,
    /// The route index of each glob.
    owners: Vec<usize>,
    /// The route index, if any, of each type that the provider lists: comparing a few names costs less than the globs.
    listed: BTreeMap<String, Option<usize>>,
}

impl Routes {
    /// The first route that matches this type.
    #[must_use]
    pub fn first_for(&self, event_type: &str) -> Option<&Route> {
        let listed = self.listed.get(event_type).copied();
        self.all
            .get(listed.unwrap_or_else(|| self.first_matching(event_type))?)
    }

    fn first_matching(&self, event_type: &str) -> Option<usize> {
        let matching = self.globs.matches(event_type).into_iter();
        let routes = matching.filter_map(|glob| self.owners.get(glob));
        routes.min().copied()
    }

    /// All routes in order.
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

    /// Compiles the globs, and matches the types that the provider lists. Must be called before [`Self::first_for`].
    pub(super) fn index(&mut self, listed: &[String]) -> Result<(), globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for (index, route) in self.all.iter().enumerate() {
            for matcher in &route.matchers {
                globs.add(matcher.glob.clone());
                self.owners.push(index);
            }
        }
        self.globs = globs.build()?;
        let listed = listed.iter();
        self.listed = listed
            .map(|event_type| (event_type.clone(), self.first_matching(event_type)))
            .collect();
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
    /// The number among all routes, from 1 as in messages.
    pub ordinal: usize,
    /// The index among the routes of its source, from 0.
    pub index: usize,
}

/// `[[routes]]`
#[derive(Debug)]
pub struct Route {
    pub id: RouteId,
    /// Globs on the event type, as written.
    pub types: Vec<String>,
    /// Compiled `types`.
    pub(super) matchers: Vec<TypeGlob>,
    pub action: Action,
}

impl Route {
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        self.matchers
            .iter()
            .any(|matcher| matcher.is_match(event_type))
    }
}

/// A compiled glob. Most need no regular expression, which takes a hundred times as long to compile.
#[derive(Debug, Clone)]
pub(super) struct TypeGlob {
    pub(super) glob: Glob,
    test: TypeTest,
}

#[derive(Debug, Clone)]
enum TypeTest {
    /// Literal text.
    Is,
    /// Literal text and a `*`.
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

/// Characters with a special meaning in globs.
pub(super) const GLOB_META: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

#[derive(Debug)]
pub enum Action {
    /// Publish the event.
    Publish(Box<Forwarding>),
    /// Answer 200 and drop the event.
    Ignore,
}

/// The destinations of a route.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// The primary destination.
    pub to: Destination,
    /// Used if `to` certainly did not store the event.
    pub fallback: Option<Destination>,
    /// Additional destinations.
    pub copies: Vec<Destination>,
}

impl Forwarding {
    /// All destinations that an event may go to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        std::iter::once(&self.to)
            .chain(&self.fallback)
            .chain(&self.copies)
    }
}

/// A topic or subject of a broker.
#[derive(Debug, Clone)]
pub struct Destination {
    pub broker: BrokerId,
    pub broker_name: String,
    /// Its kind, which determines the legal names.
    pub kind: Kind,
    pub topic: Template,
    /// The allowed topics or subjects, if limited.
    pub topics: Option<Vec<String>>,
    /// The key template; `None` means the provider's default.
    pub key: Option<Template>,
}

impl Destination {
    /// The topics that the template can become for a type, or for an unknown type (`None`). A `None` item represents
    /// topics that cannot be listed.
    pub(crate) fn possible_topics<'a>(
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
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> &NamedBroker {
        #[expect(
            clippy::indexing_slicing,
            reason = "a BrokerId is made in this folder alone, from this list"
        )]
        &self.brokers[id.0]
    }

    pub fn broker_ids(&self) -> impl Iterator<Item = BrokerId> + use<> {
        (0..self.brokers.len()).map(BrokerId)
    }

    /// The maximum duration of a request from its head to its answer.
    #[must_use]
    pub fn longest_request(&self) -> Duration {
        let waits = self.sources.iter().map(|source| source.publish_timeout);
        self.http.body_timeout + waits.max().unwrap_or_default()
    }

    /// The brokers needed by routes and dead letters.
    #[must_use]
    pub fn needed_brokers(&self) -> Vec<BrokerId> {
        self.broker_ids()
            .filter(|id| self.destinations_by_use(*id).next().is_some())
            .collect()
    }

    /// A broker's topics or subjects that are known in advance.
    #[must_use]
    pub fn known_destinations(&self, broker: BrokerId) -> Vec<String> {
        let kind = self.broker(broker).settings.kind();
        // A type that makes an illegal name has its events refused.
        let is_legal = |name: &String| kind.check_destination(name).is_ok();
        let names = self.destinations_by_use(broker).flatten();
        let mut known: Vec<String> = names.filter(is_legal).collect();
        known.sort();
        known.dedup();
        known
    }

    /// Whether events may go to topics or subjects of a broker that depend on their content.
    #[must_use]
    pub fn has_unknown_destinations(&self, broker: BrokerId) -> bool {
        self.destinations_by_use(broker).any(|name| name.is_none())
    }

    /// One item per use of a broker; the name if it is known in advance.
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
                    FailurePolicy::DeadLetter {
                        broker: other,
                        topic,
                    } if *other == broker => Some(Some(topic.clone())),
                    FailurePolicy::DeadLetter { .. }
                    | FailurePolicy::Reject
                    | FailurePolicy::Ignore => None,
                });
            routes.chain(dead_letters)
        })
    }

    /// A broker's share of the events and bytes in flight, so that a stalled broker cannot starve the others.
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

    /// The limits that a broker's client must support.
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

/// One item per type that the route takes from the source; the topic if it is known in advance. Types that an earlier route
/// takes are not among them.
pub(super) fn known_topics(
    source: &Source,
    route: &Route,
    destination: &Destination,
) -> Vec<Option<String>> {
    let listed = source.mapping.types.iter();
    let is_unlisted = |glob: &&String| source.mapping.types.iter().all(|known| known != *glob);
    let literal = route.types.iter().filter(|glob| !glob.contains(GLOB_META));
    let literal = literal.filter(is_unlisted);
    let is_taken = |event_type: &&String| {
        let first = source.routes.first_for(event_type);
        first.is_some_and(|first| first.id == route.id)
    };
    let known: Vec<_> = listed
        .chain(literal)
        .filter(is_taken)
        .flat_map(|event_type| destination.possible_topics(Some(event_type), &source.name))
        .collect();
    if known.is_empty() {
        // The provider's list does not have the types.
        destination.possible_topics(None, &source.name).collect()
    } else {
        known
    }
}
