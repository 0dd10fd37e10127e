//! A cluster of three Kafka nodes: each is broker and controller, topics have three replicas and need two of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::Kafka;
use crate::support::{process, wait};

/// Failures are noticed within seconds: the defaults are 9 s and 30 s.
const QUICK: &str = "\
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=300
replica.lag.time.max.ms=3000
replica.socket.timeout.ms=3000
min.insync.replicas=2
num.io.threads=2
num.network.threads=1
";

/// Three nodes, of which some may be stopped.
pub(crate) struct Cluster {
    /// The cluster as a whole, for topics and reading. Its address names all three.
    pub(crate) all: Kafka,
    nodes: Vec<Kafka>,
    /// Dropped last.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts a cluster. Only one runs at a time, since it needs a lot of memory, and of CPU to start.
    pub(crate) fn start() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Kafka::absent(QUICK, 0).or_else(|| process::missing("Kafka"))?);
        }
        let voter = |(number, node): (usize, &Kafka)| {
            format!("{}@127.0.0.1:{}", number + 1, node.own().controller)
        };
        let voters: Vec<String> = nodes.iter().enumerate().map(voter).collect();
        for (number, node) in nodes.iter().enumerate() {
            // The last setting with a name counts.
            let voters = voters.join(",");
            node.daemon().edit(|text| {
                format!(
                    "{text}node.id={}\ncontroller.quorum.voters={voters}\n",
                    number + 1
                )
            });
        }
        // None of them answers before two of them run.
        std::thread::scope(|scope| {
            for node in &nodes {
                scope.spawn(|| node.start());
            }
        });
        let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
        let mut all = Kafka::at(&addresses.join(","));
        all.replicas = 3;
        wait::until("the brokers know each other", wait::PATIENCE, || {
            let metadata = all.consumer("cluster");
            let metadata = metadata.fetch_metadata(None, Duration::from_secs(5));
            metadata.is_ok_and(|metadata| metadata.brokers().len() == 3)
        });
        Some(Self {
            all,
            nodes,
            _turn: turn,
        })
    }

    /// The leader of a topic's first partition, and the others.
    pub(crate) fn leader_and_followers(&self, topic: &str) -> (&Kafka, Vec<&Kafka>) {
        let leader = wait::until_some("the topic has a leader", wait::PATIENCE, || {
            let metadata = self.all.consumer("leader");
            let metadata = metadata.fetch_metadata(Some(topic), Duration::from_secs(5));
            let partition = metadata
                .ok()?
                .topics()
                .first()?
                .partitions()
                .first()?
                .leader();
            usize::try_from(partition).ok()?.checked_sub(1)
        });
        let followers = self.nodes.iter().enumerate();
        let followers = followers.filter(|(number, _)| *number != leader);
        (
            self.nodes.get(leader).expect("one of three"),
            followers.map(|(_, node)| node).collect(),
        )
    }

    /// The nodes in the order of their ids.
    pub(crate) fn nodes(&self) -> &[Kafka] {
        &self.nodes
    }

    /// Waits until each partition of a topic has this many in-sync replicas.
    pub(crate) fn wait_in_sync(&self, topic: &str, replicas: usize) {
        let what = format!("{topic} has {replicas} replicas in sync");
        wait::until(&what, wait::PATIENCE, || {
            let metadata = self.all.consumer("in-sync");
            let metadata = metadata.fetch_metadata(Some(topic), Duration::from_secs(5));
            metadata.is_ok_and(|metadata| {
                let mut partitions = metadata
                    .topics()
                    .iter()
                    .flat_map(|topic| topic.partitions());
                partitions
                    .all(|partition| partition.leader() > 0 && partition.isr().len() == replicas)
            })
        });
    }
}
