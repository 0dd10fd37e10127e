//! Provisioning: the settings in `[brokers.NAME.provision]`, the needs of the configuration, and the resulting plan.
//!
//! A plan only creates. Existing topics and streams are compared and left unchanged.

use std::time::Duration;

use serde::Serialize;

use super::kind::Kind;
use crate::table::Section;
#[cfg(feature = "nats")]
use crate::table::key::TEXT;
use crate::table::key::{Key, Table, Type};

/// Kafka's own limit is far above what a cluster can serve.
const MAX_PARTITIONS: usize = 100_000;
const MAX_REPLICAS: usize = 1000;
/// JetStream's limit.
const MAX_STREAM_REPLICAS: usize = 5;
const MIN_WINDOW: Duration = Duration::from_millis(100);
const MAX_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);
const MAX_STREAM_NAME: usize = 255;

const REPLICAS: Type = Type::Count {
    least: 1,
    most: MAX_REPLICAS,
};

#[cfg(feature = "kafka")]
pub(super) static OF_KAFKA: Table = Table::new(&[&[
    Key::new(
        "partitions",
        Type::Count {
            least: 1,
            most: MAX_PARTITIONS,
        },
    )
    .depends("the cluster's")
    .about("of each topic")
    .example("12")
    .instead_of(&["num_partitions", "partition"]),
    Key::new("replication_factor", REPLICAS)
        .depends("`3`, or the number of brokers if there are fewer")
        .example("3")
        .instead_of(&["replicas", "replication"])
        .about("of each topic"),
    Key::new("min_insync_replicas", REPLICAS)
        .depends("`2` where a topic has 3 replicas")
        .about("of each topic; at most `replication_factor`"),
]]);

#[cfg(feature = "nats")]
pub(super) static OF_NATS: Table = Table::new(&[&[
    Key::new("stream", Type::Text(&TEXT)).about("the stream's name"),
    Key::new(
        "replicas",
        Type::Count {
            least: 1,
            most: MAX_STREAM_REPLICAS,
        },
    )
    .depends("`3` in a cluster, `1` on a single server"),
    Key::new(
        "max_bytes",
        Type::Size {
            least: "1B",
            most: None,
        },
    )
    .depends("no limit"),
    Key::new(
        "duplicate_window",
        Type::Duration {
            least: "100ms",
            most: "30d",
        },
    )
    .depends("1 h")
    .about("time within which the stream recognizes a repeated message"),
]]);

/// `[brokers.NAME.provision]`. `None` means that the value follows from the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provision {
    /// Kafka: of each topic. The cluster's default otherwise.
    pub partitions: Option<usize>,
    /// Kafka: of each topic. 3 otherwise, or the number of brokers if there are fewer.
    pub replication_factor: Option<usize>,
    /// Kafka: of each topic. 2 otherwise, where a topic has 3 replicas.
    pub min_insync_replicas: Option<usize>,
    /// NATS: the stream's name.
    pub stream: Option<String>,
    /// NATS: of the stream. 3 otherwise in a cluster, 1 on a single server.
    pub replicas: Option<usize>,
    /// NATS: of the stream. No limit otherwise.
    pub max_bytes: Option<usize>,
    /// NATS: of the stream. 1 h otherwise.
    pub duplicate_window: Option<Duration>,
}

impl Provision {
    /// Reads the table, and reports problems to the section.
    pub fn read(section: &mut Section<'_>, kind: Kind) -> Self {
        let Some(mut table) = section.section("provision") else {
            return Self::default();
        };
        let read = match kind {
            Kind::Kafka => Self {
                partitions: table.optional_count("partitions"),
                replication_factor: table.optional_count("replication_factor"),
                min_insync_replicas: table.optional_count("min_insync_replicas"),
                ..Self::default()
            },
            Kind::Nats => Self {
                stream: table.text("stream"),
                replicas: table.optional_count("replicas"),
                max_bytes: table.optional_size("max_bytes"),
                duplicate_window: table.optional_duration("duplicate_window"),
                ..Self::default()
            },
        };
        if let Err(problem) = read.check() {
            table.problem_at(problem.key, problem.what);
        }
        table.finish();
        read
    }

    /// These settings, overridden by `flags`.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub fn with(&self, flags: &Self) -> Result<Self, Contradiction> {
        let flags = flags.clone();
        let both = Self {
            partitions: flags.partitions.or(self.partitions),
            replication_factor: flags.replication_factor.or(self.replication_factor),
            min_insync_replicas: flags.min_insync_replicas.or(self.min_insync_replicas),
            stream: flags.stream.or_else(|| self.stream.clone()),
            replicas: flags.replicas.or(self.replicas),
            max_bytes: flags.max_bytes.or(self.max_bytes),
            duplicate_window: flags.duplicate_window.or(self.duplicate_window),
        };
        both.check().map(|()| both)
    }

    fn check(&self) -> Result<(), Contradiction> {
        if let (Some(least), Some(replicas)) = (self.min_insync_replicas, self.replication_factor)
            && least > replicas
        {
            return Err(Contradiction {
                key: "min_insync_replicas",
                what: format!(
                    "{least} replicas can never be in sync where a topic has {replicas}; write at most the replication_factor"
                ),
            });
        }
        if self.max_bytes == Some(0) {
            return Err(Contradiction {
                key: "max_bytes",
                what: "a stream of 0 bytes takes nothing; leave it out for no limit".to_owned(),
            });
        }
        if let Some(window) = self.duplicate_window
            && !(MIN_WINDOW..=MAX_WINDOW).contains(&window)
        {
            return Err(Contradiction {
                key: "duplicate_window",
                what: format!(
                    "it is out of bounds; write a duration from {} to {}",
                    humantime::format_duration(MIN_WINDOW),
                    humantime::format_duration(MAX_WINDOW)
                ),
            });
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if let Some(stream) = &self.stream
            && (stream.is_empty()
                || stream.len() > MAX_STREAM_NAME
                || !stream.bytes().all(is_plain))
        {
            return Err(Contradiction {
                key: "stream",
                what: format!(
                    "\"{}\" is not a valid stream name: up to {MAX_STREAM_NAME} of A-Z, a-z, 0-9, `-` and `_`; write for example \"HOOKS\"",
                    stream.escape_debug()
                ),
            });
        }
        Ok(())
    }
}

/// A setting that cannot be satisfied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Contradiction {
    pub key: &'static str,
    pub what: String,
}

/// The topics or subjects that one destination of the configuration can become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The place in the configuration, such as `route 1`.
    pub origin: String,
    /// Legal names that are known in advance.
    pub known: Vec<String>,
    /// Names that the template makes of known types, and that the broker does not allow.
    pub illegal: Vec<String>,
    /// Set if it can become others, too.
    pub open: Option<Open>,
}

/// A template whose topics or subjects are not all known in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// As written.
    pub template: String,
    /// Up to the first part that is not known in advance.
    pub leading: String,
    pub reads_payload: bool,
}

impl Needed {
    /// A message about names that the broker does not allow.
    pub(super) fn illegal_note(&self, kind: Kind) -> Option<String> {
        (!self.illegal.is_empty()).then(|| {
            format!(
                "{}: not a legal {}, so events of these types are refused: {}",
                self.origin,
                kind.destination_noun(),
                self.illegal.join(", ")
            )
        })
    }
}

/// The effect of provisioning on one broker.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    pub items: Vec<Item>,
    /// Names that cannot be known in advance and the like, each with what to do.
    pub notes: Vec<String>,
}

impl Plan {
    #[must_use]
    pub fn creates(&self) -> usize {
        let creates = |item: &&Item| matches!(item.state, State::Create { .. });
        self.items.iter().filter(creates).count()
    }
}

/// A topic or stream of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `topic` or `stream`.
    pub kind: &'static str,
    pub name: String,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum State {
    /// It does not exist. The settings are those that it is created with.
    Create { settings: Vec<String> },
    /// It exists. The differences are from the wanted settings; none is changed.
    Exists { differences: Vec<String> },
    /// It is needed, and provisioning cannot create it. The text says what to do.
    Blocked { why: String },
}

/// The result of creating something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Created {
    pub name: String,
    #[serde(flatten)]
    pub result: Creation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Creation {
    /// It exists and can be used.
    Done,
    /// Someone else created it in the meantime.
    Existed,
    /// The broker has accepted the creation, but does not show it yet.
    Pending,
    /// The broker would accept it. Only where nothing was to be created.
    Possible,
    /// It does not exist. The text says why, and what to do.
    Failed { why: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_the_wishes_of_the_configuration_and_are_checked_with_them() {
        let of_file = Provision {
            partitions: Some(12),
            replication_factor: Some(3),
            min_insync_replicas: Some(2),
            ..Provision::default()
        };
        let flags = Provision {
            partitions: Some(1),
            ..Provision::default()
        };
        let both = of_file.with(&flags).unwrap();
        assert_eq!(
            (both.partitions, both.replication_factor),
            (Some(1), Some(3))
        );
        let flags = Provision {
            replication_factor: Some(1),
            ..Provision::default()
        };
        let wrong = of_file.with(&flags).unwrap_err();
        assert_eq!(wrong.key, "min_insync_replicas", "{wrong}");
        let wrong = [
            Provision {
                max_bytes: Some(0),
                ..Provision::default()
            },
            Provision {
                duplicate_window: Some(Duration::ZERO),
                ..Provision::default()
            },
        ];
        assert!(wrong.iter().all(|flags| of_file.with(flags).is_err()));
        for name in ["", "a.b", "a b", "a>", "*"] {
            let flags = Provision {
                stream: Some(name.to_owned()),
                ..Provision::default()
            };
            assert_eq!(of_file.with(&flags).unwrap_err().key, "stream", "{name}");
        }
    }
}
