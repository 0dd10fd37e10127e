//! Inspects topics: their number of replicas, and how many of these must have an event before it is acknowledged.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;

use super::metadata::MOST_NAMED;
use super::{Settings, describe};
use crate::brokers::durability::{Assessment, EXISTS, Finding, Needs, NotInspected};
use crate::brokers::kind::Kind;

/// Inspects each topic once.
///
/// # Errors
/// The cluster could not be asked.
pub(in crate::brokers) async fn check_destinations(
    settings: &Settings,
    topics: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, NotInspected> {
    let (settings, topics) = (settings.clone(), topics.to_owned());
    let runtime = tokio::runtime::Handle::current();
    let deadline = Instant::now() + timeout;
    // Creating, querying and dropping a client block.
    let inspecting = tokio::task::spawn_blocking(move || {
        let mut admin = None;
        let states = if settings.uninspectable().is_some() {
            let client = settings
                .asking_client()
                .map_err(|error| NotInspected::unanswered(error.0))?;
            states(client.client(), &topics, MOST_NAMED, deadline)?
        } else {
            let created: AdminClient<DefaultClientContext> = settings
                .consumer_config(false)
                .create()
                .map_err(|error| NotInspected::refused(describe(&error)))?;
            states(admin.insert(created).inner(), &topics, MOST_NAMED, deadline)?
        };
        let mut findings = Vec::new();
        let mut existing = Vec::new();
        for (topic, state) in states {
            let is_usable = matches!(state, TopicState::Led { .. });
            findings.push(Finding::usable(topic, EXISTS, is_usable, || {
                state.trouble()
            }));
            match state {
                TopicState::Led { replicas, .. } => {
                    findings.push(Finding::new(topic, "replicas", replicas >= 2, || {
                        format!("it has {replicas} replica: acknowledged events are lost with that broker's disk; use 3")
                    }));
                    existing.push(topic);
                }
                // Nothing else can be determined.
                TopicState::Missing
                | TopicState::Unseen
                | TopicState::Forbidden
                | TopicState::Leaderless => {
                    findings.push(Finding::inspected(topic));
                }
            }
        }
        let specifiers: Vec<_> = existing
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        if let Some(admin) = admin.filter(|_| !specifiers.is_empty()) {
            let options = AdminOptions::new().request_timeout(Some(left(deadline)));
            let described = runtime.block_on(admin.describe_configs(&specifiers, &options));
            let resources = described.map_err(|error| unanswered(&error))?;
            for (index, topic) in existing.into_iter().enumerate() {
                match resources.get(index) {
                    // rdkafka does not pass on a single topic's error, but returns the topic without settings.
                    Some(Ok(resource)) if !resource.entries.is_empty() => {
                        findings.push(Finding::inspected(topic));
                        findings.extend(configuration(topic, resource, needs));
                    }
                    Some(Err(code)) if *code != Code::TopicAuthorizationFailed => {
                        findings.push(Finding::not_inspected(topic, &code.to_string()));
                    }
                    None | Some(_) => findings.push(Finding::not_inspected(
                        topic,
                        "the user may not read the topic's configuration; grant it DescribeConfigs on the topic",
                    )),
                }
            }
        } else if let Some(why) = settings.uninspectable() {
            let unknown = |topic: &&String| Finding::not_inspected(topic, why);
            findings.extend(existing.iter().map(unknown));
        }
        Ok(findings)
    });
    inspecting
        .await
        .unwrap_or_else(|error| Err(NotInspected::unanswered(error.to_string())))
}

/// A topic's state according to its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicState {
    /// Each partition has a leader and at least this number of replicas.
    Led {
        partitions: usize,
        replicas: usize,
    },
    Missing,
    /// Not among the topics that the user may see, and not asked for by name.
    Unseen,
    Forbidden,
    Leaderless,
}

impl TopicState {
    fn of(topic: &MetadataTopic) -> Self {
        match topic.error().map(Code::from) {
            None | Some(Code::NoError) => {}
            Some(Code::TopicAuthorizationFailed) => return Self::Forbidden,
            Some(Code::LeaderNotAvailable) => return Self::Leaderless,
            Some(_) => return Self::Missing,
        }
        let partitions = topic.partitions();
        if partitions.iter().any(|partition| partition.leader() < 0) {
            return Self::Leaderless;
        }
        let replicas = partitions
            .iter()
            .map(|partition| partition.replicas().len())
            .min();
        replicas.map_or(Self::Missing, |replicas| Self::Led {
            partitions: partitions.len(),
            replicas,
        })
    }

    pub(super) fn trouble(self) -> String {
        let text = match self {
            Self::Led { .. } => "",
            Self::Missing => {
                "the topic does not exist; create it with `hookbridge provision` or kafka-topics.sh"
            }
            Self::Unseen => {
                "the topic does not exist, or the user may not see it; create it with `hookbridge provision` or kafka-topics.sh, or grant Write and Describe on it"
            }
            Self::Forbidden => {
                "the user may not use the topic; grant it Write and Describe on the topic"
            }
            Self::Leaderless => "a partition of the topic has no leader",
        };
        text.to_owned()
    }
}

/// Requests all topics of the cluster together, then individually those that are missing, up to a number: the first answer omits
/// topics that the user may not describe.
pub(super) fn states<'t, C: ClientContext>(
    client: &Client<C>,
    topics: &'t [String],
    most_asked: usize,
    deadline: Instant,
) -> Result<Vec<(&'t String, TopicState)>, NotInspected> {
    let fetch = |topic: Option<&str>| {
        let fetched = client.fetch_metadata(topic, left(deadline));
        fetched.map_err(|error| unanswered(&error))
    };
    let all = fetch(None)?;
    let known: std::collections::HashMap<&str, TopicState> = all
        .topics()
        .iter()
        .map(|topic| (topic.name(), TopicState::of(topic)))
        .collect();
    let mut states = Vec::with_capacity(topics.len());
    let mut asked = 0;
    for topic in topics {
        let state = match known.get(topic.as_str()) {
            Some(state) => *state,
            // A request for each of thousands would not end in time, and then nothing would be known of any.
            None if asked == most_asked => TopicState::Unseen,
            None => {
                asked += 1;
                let one = fetch(Some(topic))?;
                let mut found = one.topics().iter();
                found
                    .find(|found| found.name() == topic)
                    .map_or(TopicState::Missing, TopicState::of)
            }
        };
        states.push((topic, state));
    }
    Ok(states)
}

pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn unanswered(error: &KafkaError) -> NotInspected {
    NotInspected::unanswered(describe(error))
}

fn configuration(topic: &str, resource: &ConfigResource, needs: Needs) -> Vec<Finding> {
    let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
    let check = |check: &'static str, name: &str, assess: &dyn Fn(&str) -> Option<String>| {
        let assessment = match value(name) {
            None => Assessment::Unknown(format!("the cluster does not report {name}")),
            Some(value) => assess(&value).map_or(Assessment::Good, Assessment::Bad),
        };
        Finding {
            destination: topic.to_owned(),
            check,
            assessment,
        }
    };
    let least_bytes = needs
        .max_body_bytes
        .saturating_add(Kind::Kafka.overhead_bytes());
    vec![
        check("min_insync_replicas", "min.insync.replicas", &|value| {
            let is_enough = value.parse::<u32>().is_ok_and(|replicas| replicas >= 2);
            (!is_enough).then(|| format!("min.insync.replicas is {value}: a single replica can acknowledge an event; use 2"))
        }),
        check(
            "unclean_leader_election",
            "unclean.leader.election.enable",
            &|value| {
                (value != "false").then(|| {
                "unclean.leader.election.enable is true: a replica that lacks acknowledged events may become the leader"
                    .to_owned()
            })
            },
        ),
        check("cleanup_policy", "cleanup.policy", &|value| {
            (value == "compact").then(|| {
                "cleanup.policy is compact: only the last event of each key is kept".to_owned()
            })
        }),
        check("max_message_bytes", "max.message.bytes", &|value| {
            let is_enough = value
                .parse::<usize>()
                .is_ok_and(|bytes| bytes >= least_bytes);
            (!is_enough).then(|| format!("max.message.bytes is {value}: an event of max_body with the longest headers needs {least_bytes}, and a larger one is refused"))
        }),
    ]
}
