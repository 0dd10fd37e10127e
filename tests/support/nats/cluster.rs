//! A cluster of three nats-servers, with streams of three replicas.

use async_nats::jetstream;

use super::{Access, Nats};
use crate::support::kafka::unique;
use crate::support::{process, runtime, wait};

/// Three servers, of which some may be stopped.
pub(crate) struct Cluster {
    /// The cluster as a whole, for reading. Its URL names all three.
    pub(crate) all: Nats,
    nodes: Vec<Nats>,
}

impl Cluster {
    /// Starts a cluster.
    pub(crate) fn start() -> Option<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Nats::private_not_started()?);
        }
        let ports = [process::port(), process::port(), process::port()];
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\""));
        for (number, (node, port)) in nodes.iter().zip(ports).enumerate() {
            node.daemon().edit(|text| {
                format!(
                    "{text}\nserver_name: \"{number}\"\ncluster {{ name: \"tests\", listen: \"127.0.0.1:{port}\", routes: [{}] }}\n",
                    routes.join(", ")
                )
            });
        }
        // JetStream does not answer before two of them run.
        std::thread::scope(|scope| {
            for node in &nodes {
                scope.spawn(|| node.start());
            }
        });
        let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
        let all = Nats {
            url: urls.join(","),
            access: Access::Anyone,
            has_tls: false,
            is_tls_first: false,
            own: None,
        };
        Some(Self { all, nodes })
    }

    /// Creates a stream in files with three replicas for `PREFIX.>`, with a unique prefix, which is returned.
    pub(crate) fn stream(&self, name: &str) -> String {
        let prefix = unique(name);
        let settings = jetstream::stream::Config {
            name: prefix.clone(),
            subjects: vec![format!("{prefix}.>")],
            num_replicas: 3,
            ..Default::default()
        };
        // Refused until the cluster's leader has seen all three.
        wait::until("a stream with three replicas", wait::PATIENCE, || {
            runtime().block_on(async {
                let context = self.all.jetstream().await;
                context.create_stream(settings.clone()).await.is_ok()
            })
        });
        self.wait_whole(&prefix);
        prefix
    }

    /// The one that leads a stream, and the others.
    pub(crate) fn leader_and_followers(&self, stream: &str) -> (&Nats, Vec<&Nats>) {
        let leader = wait::until_some("the stream has a leader", wait::PATIENCE, || {
            self.info(stream)?.leader?.parse::<usize>().ok()
        });
        let followers = self.nodes.iter().enumerate();
        let followers = followers.filter(|(number, _)| *number != leader);
        (
            self.nodes.get(leader).expect("one of three"),
            followers.map(|(_, node)| node).collect(),
        )
    }

    /// Each of them.
    pub(crate) fn nodes(&self) -> &[Nats] {
        &self.nodes
    }

    /// Waits until each replica of a stream has all that there is.
    pub(crate) fn wait_whole(&self, stream: &str) {
        wait::until("all replicas are current", wait::PATIENCE, || {
            self.info(stream).is_some_and(|cluster| {
                let is_current = |peer: &jetstream::stream::PeerInfo| peer.current && !peer.offline;
                cluster.leader.is_some()
                    && cluster.replicas.len() == 2
                    && cluster.replicas.iter().all(is_current)
            })
        });
    }

    fn info(&self, stream: &str) -> Option<jetstream::stream::ClusterInfo> {
        runtime().block_on(async {
            let context = self.all.jetstream().await;
            let stream = context.get_stream(stream).await.ok()?;
            stream.cached_info().cluster.clone()
        })
    }
}
