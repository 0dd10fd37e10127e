//! Real Kafka in KRaft mode: one node as broker and controller, on loopback ports with its own data directory.
//!
//! Starting it takes two to three seconds of CPU, so tests share one; tests that kill or freeze theirs start their own.

// With users that have only the rights granted to them.
pub(crate) mod acl;

// A cluster of three, one leader per partition.
pub(crate) mod cluster;

// With access tokens, and the provider that grants them.
pub(crate) mod tokens;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::consumer::Stored;
use super::daemon::Daemon;
use super::disk::SmallDisk;
use super::process;
use super::proxy::Proxy;
use super::{runtime, tls, wait};

/// The user of the SASL listener, and its password (PLAIN and SCRAM-SHA-256).
pub(crate) const USER: (&str, &str) = ("bridge", "correct horse");

const CLUSTER_ID: &str = "aG9va2JyaWRnZS10ZXN0cw";

/// A broker that is running, or can be started.
pub(crate) struct Kafka {
    /// `host:port` of the plain listener: a value for `bootstrap_servers`.
    pub(crate) address: String,
    /// The replicas of a new topic.
    replicas: i32,
    own: Option<Own>,
}

/// A broker started by the tests.
struct Own {
    libs: PathBuf,
    daemon: Daemon,
    controller: u16,
    sasl: u16,
    tls: u16,
    fronts: Vec<Front>,
}

/// A listener that is advertised with another port, for a proxy.
struct Front {
    real: u16,
    advertised: u16,
}

/// The number of tests that can put a proxy in front of the shared broker.
const FRONTS: usize = 24;

/// A killed broker can rejoin when its session has expired: 9 s by default.
const QUICK_RETURN: &str = "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=300\n";

impl Kafka {
    /// The shared broker: HOOKBRIDGE_TEST_KAFKA's, or our own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("HOOKBRIDGE_TEST_KAFKA") {
            Ok(address) if !address.is_empty() => Some(Self::at(&address)),
            _ => {
                let kafka = Self::absent("", FRONTS)?;
                kafka.start();
                Some(kafka)
            }
        });
        shared.as_ref().or_else(|| process::missing("Kafka"))
    }

    /// A shared broker with a proxy for this test in front of it. Clients that connect through the proxy learn no other
    /// address; the methods here bypass it.
    pub(crate) fn behind_proxy() -> Option<(&'static Self, Proxy)> {
        static OURS: OnceLock<Option<Kafka>> = OnceLock::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut kafka = Self::shared()?;
        if kafka.own.is_none() {
            let start = || {
                let kafka = Self::absent("", FRONTS)?;
                kafka.start();
                Some(kafka)
            };
            kafka = OURS
                .get_or_init(start)
                .as_ref()
                .or_else(|| process::missing("Kafka"))?;
        }
        let front = kafka.own().fronts.get(NEXT.fetch_add(1, Ordering::Relaxed));
        let front = front.expect("FRONTS is too small for the tests there are");
        Some((kafka, Proxy::start(front.advertised, front.real)))
    }

    /// A broker that runs elsewhere.
    pub(crate) fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            replicas: 1,
            own: None,
        }
    }

    /// A running broker for one test.
    pub(crate) fn private() -> Option<Self> {
        let kafka = Self::private_not_started()?;
        kafka.start();
        Some(kafka)
    }

    /// A shared broker with authorization: [`USER`] on the SASL listener has only the rights granted to it, anyone on
    /// the plain listener has all.
    pub(crate) fn with_rights() -> Option<&'static Self> {
        static RIGHTS: OnceLock<Option<Kafka>> = OnceLock::new();
        let start = || {
            let kafka = Self::absent(
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n",
                0,
            )?;
            kafka.start();
            Some(kafka)
        };
        let kafka = RIGHTS.get_or_init(start);
        kafka.as_ref().or_else(|| process::missing("Kafka"))
    }

    /// A running broker for one test that creates topics on demand, as Kafka does by default.
    pub(crate) fn private_that_creates() -> Option<Self> {
        let kafka = Self::private_not_started()?;
        kafka.daemon().edit(|text| {
            text.replace(
                "auto.create.topics.enable=false",
                "auto.create.topics.enable=true",
            )
        });
        kafka.start();
        Some(kafka)
    }

    /// A broker for one test that has an address but is not running yet.
    pub(crate) fn private_not_started() -> Option<Self> {
        Self::absent(QUICK_RETURN, 0).or_else(|| process::missing("Kafka"))
    }

    /// A running broker for one test, with its data on a disk of `mib` MiB; `None` if that is impossible here.
    pub(crate) fn private_on_small_disk(mib: u32) -> Option<Self> {
        let mut kafka = Self::private_not_started()?;
        let own = kafka.own.as_mut().expect("a Kafka broker for this test");
        own.daemon.mount_small_disk(mib)?;
        kafka.start();
        Some(kafka)
    }

    /// A running broker for one test with a proxy in front of it.
    pub(crate) fn private_behind_proxy() -> Option<(Self, Proxy)> {
        let kafka = Self::absent(QUICK_RETURN, 1).or_else(|| process::missing("Kafka"))?;
        kafka.start();
        let front = kafka.own().fronts.first().expect("one front");
        let proxy = Proxy::start(front.advertised, front.real);
        Some((kafka, proxy))
    }

    /// A running broker for one test that advertises this name. Returns the advertised port and the real one, for a
    /// proxy.
    pub(crate) fn private_known_as(name: &str) -> Option<(Self, u16, u16)> {
        let kafka = Self::absent(QUICK_RETURN, 1).or_else(|| process::missing("Kafka"))?;
        let own = kafka.own();
        let front = own.fronts.first().expect("one front");
        let (advertised, real) = (front.advertised, front.real);
        own.daemon.edit(|text| {
            text.replace(
                &format!("FRONT0://127.0.0.1:{advertised}"),
                &format!("FRONT0://{name}:{advertised}"),
            )
        });
        kafka.start();
        Some((kafka, advertised, real))
    }

    fn absent(settings: &str, fronts: usize) -> Option<Self> {
        let libs = process::cached(&format!(
            "kafka-{}/complete",
            process::version("KAFKA_VERSION")
        ))?
        .with_file_name("libs");
        let daemon = Daemon::new("kafka", "server.properties");
        let (plain, controller, sasl, tls) = (
            process::port(),
            process::port(),
            process::port(),
            process::port(),
        );
        let new_front = || Front {
            real: process::port(),
            advertised: process::port(),
        };
        let fronts: Vec<Front> = (0..fronts).map(|_| new_front()).collect();
        let (mut listened, mut advertised) = (String::new(), String::new());
        let (mut protocols, mut threads) = (String::new(), String::new());
        for (number, front) in fronts.iter().enumerate() {
            write!(listened, ",FRONT{number}://127.0.0.1:{}", front.real).expect("a string");
            write!(
                advertised,
                ",FRONT{number}://127.0.0.1:{}",
                front.advertised
            )
            .expect("a string");
            write!(protocols, ",FRONT{number}:PLAINTEXT").expect("a string");
            writeln!(threads, "listener.name.front{number}.num.network.threads=1")
                .expect("a string");
        }
        let (user, password) = USER;
        let keystore = tls::CERTIFICATES.keystore.display();
        let properties = format!(
            "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}{listened}
advertised.listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}{advertised}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
{threads}{settings}",
            data = daemon.data().display()
        );
        daemon.write(&properties);
        Some(Self {
            address: format!("127.0.0.1:{plain}"),
            replicas: 1,
            own: Some(Own {
                libs,
                daemon,
                controller,
                sasl,
                tls,
                fronts,
            }),
        })
    }

    /// Starts or restarts it on the same ports and data. It answers requests when this returns.
    pub(crate) fn start(&self) {
        let own = self.own();
        if !own.is_formatted() {
            let (user, password) = USER;
            let scram = format!("SCRAM-SHA-256=[name={user},password={password}]");
            let format = own
                .java("kafka.tools.StorageTool")
                .args(["format", "-t", CLUSTER_ID, "--add-scram", &scram, "-c"])
                .arg(&own.daemon.file)
                .output()
                .expect("java runs");
            assert!(
                format.status.success(),
                "Kafka's storage can't be formatted: {format:?}"
            );
        }
        let mut command = own.java("kafka.Kafka");
        command.arg(&own.daemon.file);
        let client = self.consumer("start");
        own.daemon.start(command, || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(1));
            metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
    }

    /// Changes the port for its next start, while it is stopped.
    pub(crate) fn move_to(&mut self, port: u16) {
        let new = format!("127.0.0.1:{port}");
        self.daemon().edit(|text| text.replace(&self.address, &new));
        self.address = new;
    }

    daemon_methods!();

    /// Whether its process has exited by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.daemon().has_ended()
    }

    /// `host:port` of the SASL listener; `None` for an external broker.
    pub(crate) fn sasl_address(&self) -> Option<String> {
        Some(format!("127.0.0.1:{}", self.own.as_ref()?.sasl))
    }

    /// `host:port` of the TLS listener; `None` for an external broker.
    pub(crate) fn tls_address(&self) -> Option<String> {
        Some(format!("127.0.0.1:{}", self.own.as_ref()?.tls))
    }

    /// A new topic with a unique name and one partition.
    pub(crate) fn topic(&self, name: &str) -> String {
        self.topic_with(name, 1, &[])
    }

    /// A new topic with a unique name.
    pub(crate) fn topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> String {
        let name = unique(name);
        self.create_topic(&name, partitions, settings);
        name
    }

    /// A new topic with exactly this name.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.replicas));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        self.administer(RDKafkaErrorCode::TopicAlreadyExists, |admin, options| {
            runtime().block_on(admin.create_topics([&topic], options))
        });
        // The broker learns of a created topic a moment after the controller.
        let client = self.consumer("create");
        wait::until(
            "the topic's partitions have leaders",
            wait::PATIENCE,
            || leading_partitions(&client, name, Duration::from_secs(5)).is_ok(),
        );
    }

    /// Creates topics with exactly these names and one partition each.
    pub(crate) fn create_topics(&self, names: &[String]) {
        let new = |name| NewTopic::new(name, 1, TopicReplication::Fixed(self.replicas));
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| new(name)).collect();
        self.administer(RDKafkaErrorCode::TopicAlreadyExists, |admin, options| {
            runtime().block_on(admin.create_topics(&topics, options))
        });
        let client = self.consumer("create");
        wait::until("the topics have leaders", wait::PATIENCE, || {
            let last = names.last().expect("a topic");
            leading_partitions(&client, last, Duration::from_secs(5)).is_ok()
        });
    }

    /// Deletes a topic; it is gone from the metadata when this returns.
    pub(crate) fn delete_topic(&self, name: &str) {
        self.administer(
            RDKafkaErrorCode::UnknownTopicOrPartition,
            |admin, options| runtime().block_on(admin.delete_topics(&[name], options)),
        );
        let client = self.consumer("delete");
        wait::until("the topic is gone", wait::PATIENCE, || {
            let metadata = client.fetch_metadata(Some(name), Duration::from_secs(5));
            metadata.is_ok_and(|metadata| {
                let mut topics = metadata.topics().iter();
                topics.all(|topic| topic.error().is_some() || topic.partitions().is_empty())
            })
        });
    }

    /// Requests a change of a topic until it is answered: a broker that has just started may name no controller, and a
    /// client does not ask again for minutes. `done` is the error of a change that an earlier attempt made.
    fn administer(
        &self,
        done: RDKafkaErrorCode,
        ask: impl Fn(&AdminClient<DefaultClientContext>, &AdminOptions) -> KafkaResult<Vec<TopicResult>>,
    ) {
        let limit = Some(Duration::from_secs(10));
        let options = AdminOptions::new()
            .request_timeout(limit)
            .operation_timeout(limit);
        let mut is_first = true;
        wait::until("Kafka changes a topic", wait::PATIENCE, || {
            let admin = self.client().create().expect("an admin client");
            match ask(&admin, &options) {
                Ok(results) => {
                    for (topic, error) in results.into_iter().filter_map(Result::err) {
                        assert!(!is_first && error == done, "topic {topic}: {error}");
                    }
                    true
                }
                Err(error) => {
                    eprintln!("a topic is not changed: {error}");
                    is_first = false;
                    false
                }
            }
        });
    }

    /// Writes a message like anyone with access to the topic.
    pub(crate) fn put(&self, topic: &str, key: &[u8], headers: &[(&str, &[u8])], body: &str) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                let value = Some(*value);
                headers.insert(Header { key, value })
            });
        let record = BaseRecord::to(topic)
            .key(key)
            .payload(body)
            .headers(headers);
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("room for a message");
        producer.flush(wait::PATIENCE).expect("Kafka answers");
    }

    /// All messages in the topic, partition by partition, in order. A broker that has just restarted may deny leading a
    /// partition, and a client may keep believing it, so each attempt uses a new client.
    pub(crate) fn read(&self, topic: &str) -> Vec<Stored> {
        wait::until_some(&format!("{topic} is read"), wait::PATIENCE, || {
            let read = self.try_read(topic);
            read.inspect_err(|trouble| eprintln!("{topic}: {trouble}"))
                .ok()
        })
    }

    /// Reads everything, or returns the error; an answer that takes longer than this counts as none.
    fn try_read(&self, topic: &str) -> Result<Vec<Stored>, String> {
        const ANSWER: Duration = Duration::from_secs(5);
        let consumer = self.consumer("read");
        let mut left = std::collections::BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for partition in leading_partitions(&consumer, topic, ANSWER)? {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, ANSWER)
                .map_err(|error| format!("offsets of partition {partition}: {error}"))?;
            if low < high {
                left.insert(partition, high);
                let added = assignment.add_partition_offset(topic, partition, Offset::Offset(low));
                added.expect("a partition");
            }
        }
        consumer.assign(&assignment).expect("an assignment");
        let mut messages = Vec::new();
        let mut trouble = None;
        let mut last = Instant::now();
        while !left.is_empty() {
            match consumer.poll(Duration::from_secs(1)) {
                None => {}
                Some(Err(error)) => trouble = Some(error),
                Some(Ok(message)) => {
                    let is_last = |high: &i64| message.offset() + 1 >= *high;
                    if left.get(&message.partition()).is_some_and(is_last) {
                        left.remove(&message.partition());
                    }
                    messages.push(stored(&message));
                    last = Instant::now();
                }
            }
            if last.elapsed() > ANSWER {
                let read = messages.len();
                return Err(format!("read {read}, still to read: {left:?}; {trouble:?}"));
            }
        }
        messages.sort_by_key(|message: &Stored| message.partition); // stable: offsets stay in order
        Ok(messages)
    }

    fn consumer(&self, purpose: &str) -> BaseConsumer {
        self.client()
            .set("group.id", format!("hookbridge-tests-{purpose}"))
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "16777216")
            .create()
            .expect("a consumer")
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.address)
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "200")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("log_level", "0");
        client
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("a Kafka broker for this test")
    }

    fn daemon(&self) -> &Daemon {
        &self.own().daemon
    }
}

/// The topic's partitions, if each has a leader.
fn leading_partitions(
    client: &BaseConsumer,
    topic: &str,
    limit: Duration,
) -> Result<Vec<i32>, String> {
    let metadata = client
        .fetch_metadata(Some(topic), limit)
        .map_err(|error| format!("metadata: {error}"))?;
    let [topic] = metadata.topics() else {
        return Err("metadata of other topics".to_owned());
    };
    if let Some(error) = topic.error() {
        return Err(format!("metadata: {error:?}"));
    }
    let partitions = topic.partitions();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        return Err("not every partition has a leader".to_owned());
    }
    Ok(partitions.iter().map(|partition| partition.id()).collect())
}

impl Own {
    fn is_formatted(&self) -> bool {
        let disk = self.daemon.disk();
        let data = disk.map_or_else(|| self.daemon.data(), SmallDisk::seen_from_outside);
        data.join("meta.properties").exists()
    }

    fn java(&self, class: &str) -> Command {
        let mut java = self.daemon.command("java");
        java.args([
            "-Xms128m",
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
        ])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
        .arg("-cp")
        .arg(self.libs.join("*"))
        .arg(class)
        .current_dir(&self.daemon.dir);
        java
    }
}

/// A name that is unique across tests and earlier runs against the same broker.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let run = std::process::id();
    let start = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    format!(
        "{name}-{start:x}-{run:x}-{}",
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

fn stored(message: &rdkafka::message::BorrowedMessage<'_>) -> Stored {
    // Invalid UTF-8 is displayed as in Rust: `\xe9`.
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.escape_ascii().to_string())
    };
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    Stored {
        topic: message.topic().to_owned(),
        key: message.key().map(text),
        headers: headers
            .map(|header| {
                (
                    header.key.to_owned(),
                    text(header.value.unwrap_or_default()),
                )
            })
            .collect(),
        value: message.payload().unwrap_or_default().to_vec(),
        partition: message.partition(),
    }
}

/// The partition that Kafka's Java client chooses for a key: its `murmur2`, made positive, modulo the number of
/// partitions.
pub(crate) fn java_partition(key: &[u8], partitions: u32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    let length = u32::try_from(key.len()).expect("a short key");
    let mut hash = 0x9747_b28c_u32 ^ length;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
        hash = hash.wrapping_mul(M) ^ mix(word);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    i32::try_from((hash & 0x7fff_ffff) % partitions).expect("below the number of partitions")
}
