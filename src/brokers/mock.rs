//! An embedded Kafka for the demo and for tests: librdkafka's mock cluster, in memory, real protocol on loopback ports.

use rdkafka::producer::DefaultProducerContext;

use crate::brokers::error::StartError;

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
            for topic in topics {
                cluster.create_topic(topic, 3, 1)?;
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
