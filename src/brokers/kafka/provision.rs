//! `provision`: creates the topics that do not exist.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::durability::{TopicState, left, states};
use super::{Settings, describe};
use crate::brokers::durability::Needs;
use crate::brokers::error::{ProvisionError, RequestError};
use crate::brokers::kind::Kind;
use crate::brokers::provision::{Created, Creation, Item, Needed, Plan, Provision, State};

/// Kafka's own default of `max.message.bytes`. A topic that needs more gets a limit of its own.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;

const MIB: usize = 1024 * 1024;

/// Replicas of a new topic, where the cluster has as many brokers.
const REPLICAS: usize = 3;

/// Of [`REPLICAS`], the number that must have an event before it is acknowledged.
const IN_SYNC: usize = 2;

/// Pause before the cluster is asked again whether it shows a new topic.
const PAUSE: Duration = Duration::from_millis(200);

/// Left after the creation to see the topics in the cluster's metadata.
const VISIBILITY_RESERVE: Duration = Duration::from_secs(10);

/// The settings of a new topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// The cluster's default if none.
    partitions: Option<usize>,
    replicas: usize,
    /// The cluster's default if none.
    min_insync: Option<usize>,
    /// The cluster's default if none.
    max_message_bytes: Option<usize>,
}

impl Wanted {
    fn new(wishes: &Provision, needs: Needs, brokers: usize) -> Self {
        let replicas = wishes
            .replication_factor
            .unwrap_or_else(|| brokers.clamp(1, REPLICAS));
        let least = needs
            .max_body_bytes
            .saturating_add(Kind::Kafka.overhead_bytes());
        Self {
            partitions: wishes.partitions,
            replicas,
            min_insync: wishes
                .min_insync_replicas
                .or((replicas >= REPLICAS).then_some(IN_SYNC)),
            max_message_bytes: (least > DEFAULT_MAX_MESSAGE_BYTES)
                .then(|| least.next_multiple_of(MIB)),
        }
    }

    /// Kafka creates such a topic, and then takes no event for it.
    fn check(&self) -> Result<(), ProvisionError> {
        let (least, replicas) = (self.min_insync.unwrap_or_default(), self.replicas);
        if least > replicas {
            return Err(ProvisionError::TooFewReplicas { least, replicas });
        }
        Ok(())
    }

    fn describe(&self) -> Vec<String> {
        let mut settings = vec![
            self.partitions.map_or_else(
                || "partitions: the cluster's default".to_owned(),
                |partitions| format!("partitions: {partitions}"),
            ),
            format!("replication factor: {}", self.replicas),
        ];
        settings.extend(
            self.configs()
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        settings
    }

    fn configs(&self) -> Vec<(&'static str, String)> {
        let configs = [
            ("min.insync.replicas", self.min_insync),
            ("max.message.bytes", self.max_message_bytes),
        ];
        configs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.to_string())))
            .collect()
    }

    fn differences(
        &self,
        partitions: usize,
        replicas: usize,
        configuration: Option<&ConfigResource>,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, has: usize, wanted: usize| {
            differences.push(format!("{what} is {has}, wanted {wanted}"));
        };
        if let Some(wanted) = self.partitions
            && partitions != wanted
        {
            compare("the number of partitions", partitions, wanted);
        }
        if replicas != self.replicas {
            compare("the replication factor", replicas, self.replicas);
        }
        let Some(configuration) = configuration else {
            if !self.configs().is_empty() {
                differences.push(
                    "its configuration can't be read; grant DescribeConfigs on the topic to compare it"
                        .to_owned(),
                );
            }
            return differences;
        };
        let value = |name: &str| {
            let entry = configuration.get(name)?;
            entry.value.as_deref()?.parse::<usize>().ok()
        };
        if let Some(wanted) = self.min_insync
            && value("min.insync.replicas").is_some_and(|has| has != wanted)
        {
            let has = value("min.insync.replicas").unwrap_or_default();
            compare("min.insync.replicas", has, wanted);
        }
        // A larger limit takes everything, too.
        if let Some(wanted) = self.max_message_bytes
            && value("max.message.bytes").is_some_and(|has| has < wanted)
        {
            let has = value("max.message.bytes").unwrap_or_default();
            compare("max.message.bytes", has, wanted);
        }
        differences
    }
}

/// A plan, and the client that carries it out.
pub struct Provisioning {
    admin: AdminClient<DefaultClientContext>,
    wanted: Wanted,
    pub(in crate::brokers) plan: Plan,
}

impl Provisioning {
    pub(in crate::brokers) async fn plan(
        settings: &Settings,
        wishes: &Provision,
        needed: &[Needed],
        needs: Needs,
        timeout: Duration,
    ) -> Result<Self, ProvisionError> {
        let known: BTreeSet<&String> = needed.iter().flat_map(|needed| &needed.known).collect();
        let topics: Vec<String> = known.into_iter().cloned().collect();
        if settings.uninspectable().is_some() {
            let topics = topics.join(", ");
            return Err(ProvisionError::NoAdminLogin { topics });
        }
        let notes = notes(needed);
        let (settings, wishes) = (settings.clone(), wishes.clone());
        let runtime = tokio::runtime::Handle::current();
        let deadline = Instant::now() + timeout;
        // Creating and querying a client block.
        let planning = tokio::task::spawn_blocking(move || {
            let admin: AdminClient<DefaultClientContext> =
                settings.consumer_config(false).create().map_err(failed)?;
            let cluster = admin
                .inner()
                .fetch_metadata(None, left(deadline))
                .map_err(failed)?;
            let wanted = Wanted::new(&wishes, needs, cluster.brokers().len());
            wanted.check()?;
            let states = states(admin.inner(), &topics, usize::MAX, deadline)?;
            let existing: Vec<_> = states
                .iter()
                .filter(|(_, state)| matches!(state, TopicState::Led { .. }))
                .map(|(topic, _)| ResourceSpecifier::Topic(topic))
                .collect();
            let configurations = if existing.is_empty() {
                Vec::new()
            } else {
                let options = AdminOptions::new().request_timeout(Some(left(deadline)));
                let described = runtime.block_on(admin.describe_configs(&existing, &options));
                described.map_err(failed)?
            };
            let mut configurations = configurations.into_iter();
            let items = states.iter().map(|(topic, state)| {
                let state = match *state {
                    TopicState::Missing | TopicState::Unseen => State::Create {
                        settings: wanted.describe(),
                    },
                    TopicState::Led {
                        partitions,
                        replicas,
                    } => {
                        // rdkafka does not pass on a single topic's error, but returns the topic without settings.
                        let described = configurations.next().and_then(Result::ok);
                        let described = described.filter(|found| !found.entries.is_empty());
                        State::Exists {
                            differences: wanted.differences(
                                partitions,
                                replicas,
                                described.as_ref(),
                            ),
                        }
                    }
                    TopicState::Leaderless => State::Exists {
                        differences: vec![state.trouble()],
                    },
                    TopicState::Forbidden => State::Blocked {
                        why: "the user may not see whether it exists; grant the user Describe on the topic, and Create if it does not".to_owned(),
                    },
                };
                Item {
                    kind: "topic",
                    name: (*topic).clone(),
                    state,
                }
            });
            let plan = Plan {
                items: items.collect(),
                notes,
            };
            Ok(Self {
                admin,
                wanted,
                plan,
            })
        });
        planning.await.unwrap_or_else(|error| Err(ended(&error)))
    }

    pub(in crate::brokers) async fn apply(
        self,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<Vec<Created>, ProvisionError> {
        let runtime = tokio::runtime::Handle::current();
        let deadline = Instant::now() + timeout;
        // Dropping the client blocks, too.
        let applying =
            tokio::task::spawn_blocking(move || self.apply_blocking(&runtime, dry_run, deadline));
        applying.await.unwrap_or_else(|error| Err(ended(&error)))
    }

    fn apply_blocking(
        &self,
        runtime: &tokio::runtime::Handle,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<Vec<Created>, ProvisionError> {
        let missing: Vec<&str> = self
            .plan
            .items
            .iter()
            .filter(|item| matches!(item.state, State::Create { .. }))
            .map(|item| item.name.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let configs = self.wanted.configs();
        // -1 is the cluster's default.
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|topic| {
                let replication = TopicReplication::Fixed(number(self.wanted.replicas));
                let partitions = self.wanted.partitions.map_or(-1, number);
                let topic = NewTopic::new(topic, partitions, replication);
                let configs = configs.iter();
                configs.fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let limit = left(deadline).saturating_sub(VISIBILITY_RESERVE);
        let options = AdminOptions::new()
            .request_timeout(Some(limit))
            .operation_timeout(Some(limit))
            .validate_only(dry_run);
        let results = runtime
            .block_on(self.admin.create_topics(&topics, &options))
            .map_err(failed)?;
        let mut created: Vec<Created> = results
            .into_iter()
            .map(|result| match result {
                Ok(name) => Created {
                    name,
                    result: match dry_run {
                        true => Creation::Possible,
                        false => Creation::Pending,
                    },
                },
                Err((name, Code::TopicAlreadyExists)) => Created {
                    name,
                    result: Creation::Existed,
                },
                Err((name, code)) => Created {
                    name,
                    result: Creation::Failed {
                        why: remedy(code, self.wanted.replicas),
                    },
                },
            })
            .collect();
        self.wait_until_shown(&mut created, deadline);
        Ok(created)
    }

    /// A broker learns of a new topic only some time after the creation.
    fn wait_until_shown(&self, created: &mut [Created], deadline: Instant) {
        loop {
            let pending: Vec<String> = created
                .iter()
                .filter(|created| created.result == Creation::Pending)
                .map(|created| created.name.clone())
                .collect();
            if pending.is_empty() || left(deadline).is_zero() {
                return;
            }
            // Without an answer they stay pending.
            let Ok(states) = states(self.admin.inner(), &pending, usize::MAX, deadline) else {
                return;
            };
            let led: BTreeSet<&String> = states
                .into_iter()
                .filter(|(_, state)| matches!(state, TopicState::Led { .. }))
                .map(|(topic, _)| topic)
                .collect();
            for created in created.iter_mut().filter(|one| led.contains(&one.name)) {
                created.result = Creation::Done;
            }
            if led.len() < pending.len() {
                std::thread::sleep(PAUSE.min(left(deadline)));
            }
        }
    }
}

fn failed(error: KafkaError) -> RequestError {
    RequestError(describe(&error))
}

/// The blocking task panicked, or the runtime is shutting down.
fn ended(error: &tokio::task::JoinError) -> ProvisionError {
    RequestError(error.to_string()).into()
}

/// The topics that cannot be known in advance, once for each template.
fn notes(needed: &[Needed]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for needed in needed {
        let open = needed.open.as_ref().map(|open| {
            let (what, advice) = match open.reads_payload {
                true => (
                    "it depends on the payload",
                    "list them with `topics = [...]`",
                ),
                false => (
                    "for event types that the provider's preset does not list",
                    "create them before such events come, or route these types to one topic",
                ),
            };
            format!(
                "{}: cannot be known in advance: {} ({what}); {advice}",
                needed.origin, open.template
            )
        });
        for note in open.into_iter().chain(needed.illegal_note(Kind::Kafka)) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// The reason why a topic was not created, and advice.
fn remedy(code: Code, replicas: usize) -> String {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "the user may not create it; grant it Create on the topic or the cluster".to_owned()
        }
        Code::InvalidReplicationFactor => format!(
            "the cluster has too few brokers for a replication factor of {replicas}; write a smaller `replication_factor`"
        ),
        Code::PolicyViolation => {
            "the cluster's policy for new topics forbids it; ask its operator which partitions, replication factor and settings are allowed".to_owned()
        }
        Code::InvalidTopic => {
            "the cluster refuses the name; a topic whose name differs by `.` and `_` alone may exist"
                .to_owned()
        }
        Code::RequestTimedOut | Code::OperationTimedOut => {
            "the cluster did not confirm it in time, and may create it yet; run the command again"
                .to_owned()
        }
        code => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        max_body_bytes: MIB,
    };

    #[test]
    fn a_new_topic_is_as_durable_as_the_cluster_allows_unless_it_is_told_otherwise() {
        let nothing = Provision::default();
        let of = |wishes: &Provision, brokers: usize| {
            let wanted = Wanted::new(wishes, NEEDS, brokers);
            (wanted.replicas, wanted.min_insync)
        };
        assert_eq!(of(&nothing, 0), (1, None));
        assert_eq!(of(&nothing, 1), (1, None));
        assert_eq!(of(&nothing, 2), (2, None));
        assert_eq!(of(&nothing, 3), (3, Some(2)));
        assert_eq!(of(&nothing, 50), (3, Some(2)));
        let told = Provision {
            replication_factor: Some(5),
            min_insync_replicas: Some(3),
            ..nothing
        };
        assert_eq!(of(&told, 1), (5, Some(3)));
    }

    #[test]
    fn a_new_topic_takes_the_largest_event_with_the_longest_headers() {
        let bytes = |max_body_bytes| {
            let needs = Needs { max_body_bytes };
            Wanted::new(&Provision::default(), needs, 1).max_message_bytes
        };
        assert_eq!(bytes(1024), None);
        assert_eq!(bytes(MIB), Some(2 * MIB));
    }

    #[test]
    fn differences_are_only_those_from_what_is_wanted() {
        let wanted = Wanted::new(&Provision::default(), Needs { max_body_bytes: 1 }, 1);
        assert_eq!(wanted.differences(7, 1, None), Vec::<String>::new());
        let wishes = Provision {
            partitions: Some(3),
            ..Provision::default()
        };
        let wanted = Wanted::new(&wishes, NEEDS, 3);
        let differences = wanted.differences(7, 1, None);
        assert_eq!(
            differences[..2],
            [
                "the number of partitions is 7, wanted 3",
                "the replication factor is 1, wanted 3"
            ]
        );
        assert!(
            differences[2].contains("DescribeConfigs"),
            "{differences:?}"
        );
    }
}
