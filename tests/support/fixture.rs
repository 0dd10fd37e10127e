//! The set-up of most tests: a broker, a topic or stream for one test, and a bridge in front of them.

use std::marker::PhantomData;
use std::ops::Deref;

use super::bridge::{self, Bridge, Finished};
use super::consumer::{Stored, values};
use super::kafka::Kafka;
use super::nats::Nats;
use super::proxy::Proxy;

/// Unwraps the value, or ends a test whose broker is not installed.
macro_rules! or_skip {
    ($value:expr) => {
        match $value {
            Some(value) => value,
            None => return,
        }
    };
}

/// Instantiates tests that are generic over the broker once per broker, each in its own module.
macro_rules! on_each_broker {
    ($($test:ident),+ $(,)?) => {
        mod kafka {
            $(#[test] fn $test() { super::$test::<crate::support::kafka::Kafka>(); })+
        }
        mod nats {
            $(#[test] fn $test() { super::$test::<crate::support::nats::Nats>(); })+
        }
    };
}

/// Either kind of broker. A topic is a Kafka topic, or a NATS stream with every subject below its name.
pub(crate) trait Broker: Sized + Sync + 'static {
    const NAME: &'static str;
    /// Whether the broker itself recognizes duplicates.
    const DEDUPLICATES: bool;
    /// The prefix of CloudEvents attributes in header names.
    const CE: &'static str;
    /// The topic of a route that publishes to the test's topic.
    const ROUTE: &'static str;
    /// The suffix to the topic's name when publishing.
    const LEAF: &'static str;

    fn shared() -> Option<&'static Self>;
    fn private() -> Option<Self>;
    /// A broker for one test that has an address but is not running yet.
    fn private_not_started() -> Option<Self>;
    fn behind_proxy() -> Option<(&'static Self, Proxy)>;
    /// The entry for the broker's table.
    fn address(&self) -> String;
    /// The same with another port.
    fn address_or(&self, port: u16) -> String;
    /// The same for `host:port`.
    fn at(address: &str) -> String;
    /// Changes the port for its next start, while it is stopped.
    fn move_to(&mut self, port: u16);
    fn table(name: &str, address: &str) -> String;
    /// Creates a topic with exactly this name.
    fn create(&self, topic: &str);
    fn new_topic(&self, name: &str) -> String;
    /// A topic whose messages may be in several partitions.
    fn new_topic_in_parts(&self, name: &str) -> String;
    /// A topic that refuses messages above this many bytes.
    fn new_topic_up_to(&self, name: &str, bytes: i32) -> String;
    /// All messages in the topic, in order.
    fn read(&self, topic: &str) -> Vec<Stored>;
    /// Whether it accepts a message of 1 MiB with its headers.
    fn takes_large_messages(&self) -> bool;
    fn start(&self);
    fn kill(&self);
    fn stop(&self);
    fn freeze(&self);
    fn thaw(&self);
}

macro_rules! inherent {
    () => {
        fn shared() -> Option<&'static Self> {
            Self::shared()
        }
        fn private() -> Option<Self> {
            Self::private()
        }
        fn private_not_started() -> Option<Self> {
            Self::private_not_started()
        }
        fn behind_proxy() -> Option<(&'static Self, Proxy)> {
            Self::behind_proxy()
        }
        fn read(&self, topic: &str) -> Vec<Stored> {
            self.read(topic)
        }
        fn start(&self) {
            self.start();
        }
        fn kill(&self) {
            self.kill();
        }
        fn stop(&self) {
            self.stop();
        }
        fn move_to(&mut self, port: u16) {
            self.move_to(port);
        }
        fn freeze(&self) {
            self.freeze();
        }
        fn thaw(&self) {
            self.thaw();
        }
    };
}

impl Broker for Kafka {
    const NAME: &'static str = "Kafka";
    const DEDUPLICATES: bool = false;
    const CE: &'static str = "ce_";
    const ROUTE: &'static str = "TOPIC";
    const LEAF: &'static str = "";

    fn address(&self) -> String {
        self.address.clone()
    }
    fn address_or(&self, port: u16) -> String {
        format!("{},127.0.0.1:{port}", self.address)
    }
    fn at(address: &str) -> String {
        address.to_owned()
    }
    fn table(name: &str, address: &str) -> String {
        bridge::kafka_broker(name, address)
    }
    fn create(&self, topic: &str) {
        self.create_topic(topic, 1, &[]);
    }
    fn new_topic(&self, name: &str) -> String {
        self.topic(name)
    }
    fn new_topic_in_parts(&self, name: &str) -> String {
        self.topic_with(name, 3, &[])
    }
    fn new_topic_up_to(&self, name: &str, bytes: i32) -> String {
        self.topic_with(name, 1, &[("max.message.bytes", &bytes.to_string())])
    }
    fn takes_large_messages(&self) -> bool {
        true
    }
    inherent!();
}

impl Broker for Nats {
    const NAME: &'static str = "NATS";
    const DEDUPLICATES: bool = true;
    const CE: &'static str = "ce-";
    const ROUTE: &'static str = "TOPIC.{type}";
    const LEAF: &'static str = ".x";

    fn address(&self) -> String {
        self.url.clone()
    }
    fn address_or(&self, port: u16) -> String {
        format!("{}\", \"nats://127.0.0.1:{port}", self.url)
    }
    fn at(address: &str) -> String {
        format!("nats://{address}")
    }
    fn table(name: &str, address: &str) -> String {
        bridge::nats_broker(name, address)
    }
    fn create(&self, topic: &str) {
        self.stream_with(topic, |settings| {
            topic.clone_into(&mut settings.name);
            settings.subjects = vec![format!("{topic}.>")];
        });
    }
    fn new_topic(&self, name: &str) -> String {
        self.stream(name)
    }
    fn new_topic_in_parts(&self, name: &str) -> String {
        self.stream(name)
    }
    fn new_topic_up_to(&self, name: &str, bytes: i32) -> String {
        self.stream_with(name, |settings| settings.max_message_size = bytes)
    }
    fn takes_large_messages(&self) -> bool {
        self.takes_large_messages()
    }
    inherent!();
}

/// A bridge to be started. In every key, `TOPIC` is replaced by the name of the test's topic or stream.
pub(crate) struct Setup<B> {
    broker: PhantomData<B>,
    broker_keys: String,
    http: String,
    source: String,
    routes: String,
    others: Vec<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
}

/// In front of Kafka.
pub(crate) fn kafka() -> Setup<Kafka> {
    Setup::new()
}

/// In front of NATS, which is faster to publish to.
pub(crate) fn nats() -> Setup<Nats> {
    Setup::new()
}

impl<B: Broker> Setup<B> {
    pub(crate) fn new() -> Self {
        Self {
            broker: PhantomData,
            broker_keys: String::new(),
            http: String::new(),
            source: bridge::synq_source(""),
            routes: bridge::route(B::ROUTE),
            others: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With more keys for the broker.
    pub(crate) fn broker(mut self, keys: &str) -> Self {
        self.broker_keys = format!("{keys}\n{}", self.broker_keys);
        self
    }

    /// With more keys for `[http]`.
    pub(crate) fn http(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.http);
        self
    }

    /// With more keys for the source `synq`.
    pub(crate) fn source(self, keys: &str) -> Self {
        self.sources(&bridge::synq_source(keys))
    }

    /// With these sources instead of `synq`.
    pub(crate) fn sources(mut self, sources: &str) -> Self {
        sources.clone_into(&mut self.source);
        self
    }

    /// With more keys for the only route.
    pub(crate) fn route(self, keys: &str) -> Self {
        self.routes(&[(B::ROUTE, keys)])
    }

    /// With these routes: the topic and more keys of each.
    pub(crate) fn routes(mut self, routes: &[(&str, &str)]) -> Self {
        let tables = routes
            .iter()
            .map(|(topic, keys)| bridge::route_with(topic, keys));
        self.routes = tables.collect();
        self
    }

    /// With a variable in its environment.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// With another broker, `edge`.
    pub(crate) fn edge<E: Broker>(mut self, broker: &E) -> Self {
        self.broker_keys += &E::table("edge", &broker.address());
        self
    }

    /// With one more topic on the same broker, named with this suffix.
    pub(crate) fn and_topic(mut self, ending: &'static str) -> Self {
        self.others.push(ending);
        self
    }

    /// With dead letters for `key` in a separate topic: `TOPIC-dead`.
    pub(crate) fn dead_letters(self, key: &str) -> Self {
        let topic = format!("TOPIC-dead{}", B::LEAF);
        self.source(&format!(
            "{key} = {{ dead_letter = {{ topic = \"{topic}\" }} }}"
        ))
        .and_topic("-dead")
    }

    /// The tables of broker, sources and routes for a topic.
    pub(crate) fn tables(&self, address: &str, topic: &str) -> String {
        let broker = B::table("main", address) + &self.broker_keys;
        (broker + &self.source + &self.routes).replace("TOPIC", topic)
    }

    /// Runs in front of the shared broker with a new topic, and waits until it is ready.
    pub(crate) fn run(self) -> Option<Fixture<B>> {
        let broker = B::shared()?;
        let topic = broker.new_topic("events");
        Some(self.run_on(broker, topic))
    }

    /// Runs with an existing topic, and waits until it is ready.
    pub(crate) fn run_on(self, broker: impl Into<Held<B>>, topic: String) -> Fixture<B> {
        let broker = broker.into();
        for ending in &self.others {
            broker.create(&(topic.clone() + ending));
        }
        let tables = self.tables(&broker.address(), &topic);
        let files = bridge::write(&self.http.replace("TOPIC", &topic), &tables);
        let bridge = Bridge::run_files(&files, &self.environment);
        bridge.wait_ready();
        Fixture {
            bridge,
            broker,
            topic,
            tables,
        }
    }
}

/// A shared broker, or one for this test alone.
pub(crate) enum Held<B: 'static> {
    Shared(&'static B),
    Own(Box<B>),
}

impl<B> From<&'static B> for Held<B> {
    fn from(shared: &'static B) -> Self {
        Self::Shared(shared)
    }
}

impl<B> From<B> for Held<B> {
    fn from(own: B) -> Self {
        Self::Own(Box::new(own))
    }
}

impl<B> Deref for Held<B> {
    type Target = B;

    fn deref(&self) -> &B {
        match self {
            Self::Shared(broker) => broker,
            Self::Own(broker) => broker,
        }
    }
}

/// A running bridge with its broker and topic.
pub(crate) struct Fixture<B: Broker> {
    pub(crate) bridge: Bridge,
    pub(crate) broker: Held<B>,
    pub(crate) topic: String,
    /// The brokers, sources and routes that it was started with.
    pub(crate) tables: String,
}

impl<B: Broker> Fixture<B> {
    /// All messages of the test's topic, in order.
    pub(crate) fn read(&self) -> Vec<Stored> {
        self.broker.read(&self.topic)
    }

    /// The values of all messages of the test's topic, in order.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        values(self.read())
    }

    /// All messages of the topic of [`Setup::dead_letters`], in order.
    pub(crate) fn read_dead_letters(&self) -> Vec<Stored> {
        self.broker.read(&(self.topic.clone() + "-dead"))
    }

    /// Runs `hookbridge replay` with the same configuration.
    pub(crate) fn replay(&self, arguments: &[&str]) -> Finished {
        let config = self.bridge.file.to_str().expect("a path in UTF-8");
        let command = ["replay", "--config", config];
        bridge::hookbridge(command.iter().chain(arguments).copied())
    }
}

impl Fixture<Nats> {
    /// From now on the stream stores without acknowledging, like a slow broker.
    pub(crate) fn silence(&self) {
        self.broker.silence(&self.topic, true);
    }
}

impl<B: Broker> Deref for Fixture<B> {
    type Target = Bridge;

    fn deref(&self) -> &Bridge {
        &self.bridge
    }
}

impl<B: Broker> std::ops::DerefMut for Fixture<B> {
    fn deref_mut(&mut self) -> &mut Bridge {
        &mut self.bridge
    }
}
