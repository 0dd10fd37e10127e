//! The broker behind the servers, in its own process, so that its CPU time does not count as theirs.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::child::{Child, Listen};
use crate::options::Kind;
use crate::support;

/// Timeout for a broker's answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bound of a stream.
const MAX_STREAM_BYTES: i64 = 1 << 30;

/// A broker that runs.
pub(crate) struct Broker {
    kind: Kind,
    address: String,
    partitions: i32,
    /// The prefix of its topics or subjects.
    prefix: String,
    runtime: Runtime,
    _process: Option<Own>,
}

/// A broker that ends with us.
enum Own {
    Mock { _child: Child },
    Kafka { _kafka: support::kafka::Kafka },
    Nats { _nats: support::nats::Nats },
}

impl Broker {
    /// Starts one, or uses the one at this address. `names` are the servers that will publish to it.
    pub(crate) fn start(
        kind: Kind,
        address: Option<&str>,
        partitions: i32,
        names: &[&str],
    ) -> Outcome<Self> {
        let run = std::process::id();
        let (address, process) = match (kind, address) {
            (Kind::Mock, _) => {
                let (address, child) = mock(partitions, names)?;
                (address, Some(Own::Mock { _child: child }))
            }
            (_, Some(address)) => (address.to_owned(), None),
            (Kind::Kafka, None) => {
                let kafka = support::kafka::Kafka::private().ok_or(
                    "Kafka not found: run tests/run --install-only, or pass --kafka HOST:PORT",
                )?;
                (kafka.address.clone(), Some(Own::Kafka { _kafka: kafka }))
            }
            (Kind::Nats, None) => {
                let nats = support::nats::Nats::private().ok_or(
                    "nats-server not found: run tests/run --install-only, or pass --nats URL",
                )?;
                (nats.url.clone(), Some(Own::Nats { _nats: nats }))
            }
        };
        let prefix = if kind == Kind::Mock {
            MOCK_PREFIX.to_owned()
        } else {
            format!("bench-{run}")
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            kind,
            address,
            partitions,
            prefix,
            runtime,
            _process: process,
        })
    }

    /// Its title, for people.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Mock => format!("librdkafka's mock cluster, {} partitions", self.partitions),
            Kind::Kafka => format!("Kafka at {}, {} partitions", self.address, self.partitions),
            Kind::Nats => format!("JetStream of {}, a stream in files", self.address),
        }
    }

    /// Creates a round's topics. Kafka keeps all messages, so each round has its own, which are deleted with it.
    pub(crate) fn begin_round(&mut self, round: usize, names: &[&str]) -> Outcome<()> {
        match self.kind {
            Kind::Mock => Ok(()),
            Kind::Kafka => {
                self.prefix = format!("bench-{}-{round}", std::process::id());
                let names: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
                let topics = names.iter().map(|name| {
                    let topic = NewTopic::new(name, self.partitions, TopicReplication::Fixed(-1));
                    topic
                        .set("segment.bytes", "67108864")
                        .set("max.message.bytes", "2097152")
                        .set("file.delete.delay.ms", "1000")
                });
                let topics: Vec<_> = topics.collect();
                let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
                for created in self
                    .runtime
                    .block_on(self.admin()?.create_topics(&topics, &options))?
                {
                    created.map_err(|(topic, error)| format!("topic {topic}: {error}"))?;
                }
                Ok(())
            }
            Kind::Nats => self.runtime.block_on(async {
                let context = jetstream::new(async_nats::connect(&self.address).await?);
                // One for each: a stream with an event from one build of the bridge would not store it from another.
                for name in names {
                    let settings = jetstream::stream::Config {
                        name: self.stream(name),
                        subjects: vec![format!("{}.{name}.>", self.prefix)],
                        storage: jetstream::stream::StorageType::File,
                        max_bytes: MAX_STREAM_BYTES,
                        ..Default::default()
                    };
                    context.get_or_create_stream(settings).await?;
                }
                Ok(())
            }),
        }
    }

    /// Drops what was sent in a round.
    pub(crate) fn end_round(&self, names: &[&str]) -> Outcome<()> {
        match self.kind {
            Kind::Mock => Ok(()),
            Kind::Kafka => {
                let names: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
                self.runtime
                    .block_on(self.admin()?.delete_topics(&names, &options))?;
                Ok(())
            }
            Kind::Nats => self.runtime.block_on(async {
                let context = jetstream::new(async_nats::connect(&self.address).await?);
                for name in names {
                    context.delete_stream(self.stream(name)).await?;
                }
                Ok(())
            }),
        }
    }

    fn stream(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The topic or subject that this server publishes to.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}.issue_created", self.prefix)
    }

    /// The same as a template of the bridge's.
    pub(crate) fn template(&self, name: &str) -> String {
        format!("{}.{name}.{{type}}", self.prefix)
    }

    /// The broker's table in the bridge's configuration.
    pub(crate) fn table(&self) -> String {
        match self.kind {
            Kind::Mock | Kind::Kafka => {
                format!(
                    "[brokers.main]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\n",
                    self.address
                )
            }
            Kind::Nats => format!(
                "[brokers.main]\nkind = \"nats\"\nservers = [\"{}\"]\n",
                self.address
            ),
        }
    }

    /// The arguments that name it to a server of ours.
    pub(crate) fn arguments(&self, name: &str) -> Vec<String> {
        let option = match self.kind {
            Kind::Mock | Kind::Kafka => "--kafka",
            Kind::Nats => "--nats",
        };
        vec![
            option.to_owned(),
            self.address.clone(),
            "--topic".to_owned(),
            self.topic(name),
        ]
    }

    /// The number of messages that it has ever received from this server.
    pub(crate) fn stored(&self, name: &str) -> Outcome<u64> {
        match self.kind {
            Kind::Mock | Kind::Kafka => {
                let consumer: BaseConsumer =
                    self.client().set("group.id", "hookbridge-bench").create()?;
                let mut stored = 0;
                for partition in 0..self.partitions {
                    let (_, end) =
                        consumer.fetch_watermarks(&self.topic(name), partition, PATIENCE)?;
                    stored += u64::try_from(end)?;
                }
                Ok(stored)
            }
            Kind::Nats => self.runtime.block_on(async {
                let context = jetstream::new(async_nats::connect(&self.address).await?);
                let stream = context.get_stream(self.stream(name)).await?;
                Ok(stream.get_info().await?.state.last_sequence)
            }),
        }
    }

    /// The time until a bare client knows this server's topic or stream.
    pub(crate) fn handshake(&self, name: &str) -> Outcome<Duration> {
        let began = Instant::now();
        match self.kind {
            Kind::Mock | Kind::Kafka => {
                let producer: BaseProducer = self.client().create()?;
                producer
                    .client()
                    .fetch_metadata(Some(&self.topic(name)), PATIENCE)?;
            }
            Kind::Nats => self.runtime.block_on(async {
                let context = jetstream::new(async_nats::connect(&self.address).await?);
                context.get_stream(self.stream(name)).await?;
                Outcome::Ok(())
            })?,
        }
        Ok(began.elapsed())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.address)
            .set("log_level", "0");
        client
    }

    fn admin(&self) -> Outcome<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }
}

const MOCK_PREFIX: &str = "bench";

fn mock(partitions: i32, names: &[&str]) -> Outcome<(String, Child)> {
    let partitions = partitions.to_string();
    let topics: Vec<String> = names
        .iter()
        .map(|name| format!("{MOCK_PREFIX}.{name}.issue_created"))
        .collect();
    let arguments = ["mock", "--partitions", &partitions]
        .into_iter()
        .chain(topics.iter().map(String::as_str));
    let child = Child::start(&std::env::current_exe()?, arguments, Listen::Stdout)?;
    let address = child.wait_for(PATIENCE, |line| {
        line.strip_prefix("listening ").map(str::to_owned)
    })?;
    Ok((address, child))
}

/// Ensures that a folder exists and is empty.
pub(crate) fn empty_folder(path: &Path) -> Outcome<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    Ok(std::fs::create_dir_all(path)?)
}
