//! The options of `tests/bench/run`. The end-to-end tests compile this file too, and read with it what scripts and pages
//! write.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The options, each with its meaning as `--help` prints it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
    pub(crate) connections: Vec<usize>,
    /// Number of repetitions
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Broker: mock, kafka, nats or all
    #[arg(long, default_value = "mock", value_parser = kinds)]
    pub(crate) broker: Kinds,
    /// `host:port` of Kafka; without it one is started, from the files that tests/run has installed
    #[arg(long)]
    pub(crate) kafka: Option<String>,
    /// URL of a nats-server with JetStream; without it one is started
    #[arg(long)]
    pub(crate) nats: Option<String>,
    /// Partitions of each Kafka topic
    #[arg(long, default_value_t = 3)]
    pub(crate) partitions: i32,
    /// Instead: how the bridge's cost changes along one axis at a time, and its behaviour when idle or overloaded
    #[arg(long, value_delimiter = ',')]
    pub(crate) sweep: Vec<Axis>,
    /// Three rounds of a second each
    #[arg(long)]
    pub(crate) quick: bool,
    /// Servers by name
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "answer,publish,sketch,bridge",
        requires_if("other", "other")
    )]
    pub(crate) servers: Vec<Name>,
    /// Another build of the bridge, as the server `other`; with `--servers other` it is alone
    #[arg(long)]
    pub(crate) other: Option<PathBuf>,
    /// Lines for the bridge's `[sources.synq]`
    #[arg(long, default_value = "dedup_window = \"1h\"")]
    pub(crate) source_keys: String,
    /// Folder for tables, JSON and plots
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    pub(crate) results: PathBuf,
}

/// The servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Name {
    /// HTTP alone
    Answer,
    /// With the client's publish and its acknowledgement
    Publish,
    /// With what a bridge must do at least
    Sketch,
    /// The bridge
    Bridge,
    /// The build that `--other` names
    Other,
}

/// The available brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// librdkafka's mock cluster: shows the servers' own cost
    Mock,
    /// Kafka
    Kafka,
    /// A nats-server with JetStream
    Nats,
}

/// The axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Axis {
    /// All of them
    All,
    /// Connections, up to 10,000
    Connections,
    /// Routes, of which the last one takes the event
    Routes,
    /// Sources, of which the last one receives the event
    Sources,
    /// Bytes of the body, from a ping to 1 MiB
    Bodies,
    /// Worker threads
    Workers,
    /// 10,000 connections without anything to do
    Idle,
    /// From start to ready
    Start,
    /// Twice its capacity
    Overload,
}

/// The brokers of `--broker`.
#[derive(Debug, Clone)]
pub(crate) struct Kinds(pub(crate) Vec<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    Ok(Kinds(match text {
        "mock" => vec![Kind::Mock],
        "kafka" => vec![Kind::Kafka],
        "nats" => vec![Kind::Nats],
        "all" => vec![Kind::Mock, Kind::Kafka, Kind::Nats],
        _ => return Err("mock, kafka, nats or all".to_owned()),
    }))
}
