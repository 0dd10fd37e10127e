//! An embedded Kafka for the demo and for tests: librdkafka's mock cluster, in memory, real protocol on loopback ports.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rdkafka::producer::DefaultProducerContext;

use crate::brokers::error::StartError;

const KNOCK_INTERVAL: Duration = Duration::from_millis(2);
const KNOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// A Kafka cluster in this process, until it is dropped.
pub struct MockCluster(rdkafka::mocking::MockCluster<'static, DefaultProducerContext>);

impl MockCluster {
    /// Starts a cluster of one broker with these topics, each with three partitions.
    ///
    /// # Errors
    /// librdkafka's error.
    pub fn start(topics: &[String]) -> Result<Self, StartError> {
        let start = || {
            let cluster = rdkafka::mocking::MockCluster::new(1)?;
            let create = || {
                let mut topics = topics.iter();
                topics.try_for_each(|topic| cluster.create_topic(topic, 3, 1))
            };
            match cluster.bootstrap_servers().parse() {
                Ok(address) => while_knocking_at(address, create)?,
                Err(_) => create()?,
            }
            Ok(Self(cluster))
        };
        start().map_err(|error: rdkafka::error::KafkaError| {
            StartError(format!("the embedded Kafka could not be started: {error}"))
        })
    }

    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// Calls `make` while connections wake the cluster's thread: it can miss a call that arrives while it answers the one before,
/// and would sleep for up to a second.
fn while_knocking_at<T>(address: SocketAddr, make: impl FnOnce() -> T) -> T {
    let (made, is_made) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let knock = move || {
            while is_made.recv_timeout(KNOCK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                drop(TcpStream::connect_timeout(&address, KNOCK_TIMEOUT));
            }
        };
        // Without a thread it only takes longer.
        let _knocking = std::thread::Builder::new().spawn_scoped(scope, knock);
        let result = make();
        drop(made);
        result
    })
}
