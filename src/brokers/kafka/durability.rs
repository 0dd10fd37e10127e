//! What an acknowledgement of a topic survives: its replicas, and how many of them must have an event.

use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;

use super::{Settings, describe};
use crate::brokers::durability::{EXISTS, Finding, Needs, NotInspected, Verdict};
use crate::brokers::kind::Kind;

/// Inspects each topic once.
///
/// # Errors
/// Why the cluster can't be asked.
pub(in crate::brokers) async fn look(
    settings: &Settings,
    topics: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, NotInspected> {
    let (settings, topics) = (settings.clone(), topics.to_owned());
    let runtime = tokio::runtime::Handle::current();
    let deadline = Instant::now() + timeout;
    // Creating, asking and dropping a client block.
    let looking = tokio::task::spawn_blocking(move || {
        let mut admin = None;
        let states = if settings.uninspectable().is_some() {
            let client = settings.asking_client().map_err(NotInspected::unanswered)?;
            states(client.client(), &topics, deadline)?
        } else {
            let created: AdminClient<DefaultClientContext> = settings
                .consumer_config(false)
                .create()
                .map_err(|error| NotInspected::refused(describe(&error)))?;
            states(admin.insert(created).inner(), &topics, deadline)?
        };
        let mut findings = Vec::new();
        let mut existing = Vec::new();
        for (topic, state) in states {
            let is_usable = matches!(state, State::Led { .. });
            findings.push(Finding::usable(topic, EXISTS, is_usable, || {
                state.trouble()
            }));
            match state {
                State::Led { replicas } => {
                    findings.push(Finding::new(topic, "replicas", replicas >= 2, || {
                        format!("it has {replicas} replica: what is acknowledged is lost with that broker's disk; use 3")
                    }));
                    existing.push(topic);
                }
                // There is nothing more to know of it.
                State::Missing | State::Forbidden | State::Leaderless => {
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
                    // The client hands on no error of a single topic's, but a topic without settings.
                    Some(Ok(resource)) if !resource.entries.is_empty() => {
                        findings.push(Finding::inspected(topic));
                        findings.extend(configuration(topic, resource, needs));
                    }
                    Some(Err(code)) if *code != Code::TopicAuthorizationFailed => {
                        findings.push(Finding::not_inspected(topic, &code.to_string()));
                    }
                    None | Some(_) => findings.push(Finding::not_inspected(
                        topic,
                        "the cluster does not tell the topic's configuration to the user; grant it DescribeConfigs on the topic",
                    )),
                }
            }
        } else if let Some(why) = settings.uninspectable() {
            let unknown = |topic: &&String| Finding::not_inspected(topic, why);
            findings.extend(existing.iter().map(unknown));
        }
        Ok(findings)
    });
    looking
        .await
        .unwrap_or_else(|error| Err(NotInspected::unanswered(error.to_string())))
}

/// What metadata say of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Each partition has a leader, and at least so many replicas.
    Led {
        replicas: usize,
    },
    Missing,
    Forbidden,
    Leaderless,
}

impl State {
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
        replicas.map_or(Self::Missing, |replicas| Self::Led { replicas })
    }

    fn trouble(self) -> String {
        let text = match self {
            Self::Led { .. } => "",
            Self::Missing => "the topic does not exist; create it (kafka-topics.sh --create)",
            Self::Forbidden => {
                "the user may not use the topic; grant it Write and Describe on the topic"
            }
            Self::Leaderless => "a partition of the topic has no leader",
        };
        text.to_owned()
    }
}

/// Asks for all topics of the cluster in one request, and once more for each that is not among them: those that the user
/// may not describe are left out of the first answer.
fn states<'t, C: ClientContext>(
    client: &Client<C>,
    topics: &'t [String],
    deadline: Instant,
) -> Result<Vec<(&'t String, State)>, NotInspected> {
    let fetch = |topic: Option<&str>| {
        let fetched = client.fetch_metadata(topic, left(deadline));
        fetched.map_err(|error| unanswered(&error))
    };
    let all = fetch(None)?;
    let known: std::collections::HashMap<&str, State> = all
        .topics()
        .iter()
        .map(|topic| (topic.name(), State::of(topic)))
        .collect();
    let mut states = Vec::with_capacity(topics.len());
    for topic in topics {
        let state = match known.get(topic.as_str()) {
            Some(state) => *state,
            None => {
                let one = fetch(Some(topic))?;
                let mut found = one.topics().iter();
                found
                    .find(|found| found.name() == topic)
                    .map_or(State::Missing, State::of)
            }
        };
        states.push((topic, state));
    }
    Ok(states)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn unanswered(error: &KafkaError) -> NotInspected {
    NotInspected::unanswered(describe(error))
}

fn configuration(topic: &str, resource: &ConfigResource, needs: Needs) -> Vec<Finding> {
    let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
    let judge = |check: &'static str, name: &str, judge: &dyn Fn(&str) -> Option<String>| {
        let verdict = match value(name) {
            None => Verdict::Unknown(format!("the cluster does not tell {name}")),
            Some(value) => judge(&value).map_or(Verdict::Good, Verdict::Bad),
        };
        Finding {
            destination: topic.to_owned(),
            check,
            verdict,
        }
    };
    let least_bytes = needs
        .max_body_bytes
        .saturating_add(Kind::Kafka.overhead_bytes());
    vec![
        judge("min_insync_replicas", "min.insync.replicas", &|value| {
            let is_enough = value.parse::<u32>().is_ok_and(|replicas| replicas >= 2);
            (!is_enough).then(|| format!("min.insync.replicas is {value}: one replica's word is enough for an acknowledgement; use 2"))
        }),
        judge(
            "unclean_leader_election",
            "unclean.leader.election.enable",
            &|value| {
                (value != "false").then(|| {
                "unclean.leader.election.enable is true: a replica that lacks acknowledged events may become the leader"
                    .to_owned()
            })
            },
        ),
        judge("cleanup_policy", "cleanup.policy", &|value| {
            (value == "compact").then(|| {
                "cleanup.policy is compact: of the events with one key only the last is kept"
                    .to_owned()
            })
        }),
        judge("max_message_bytes", "max.message.bytes", &|value| {
            let is_enough = value
                .parse::<usize>()
                .is_ok_and(|bytes| bytes >= least_bytes);
            (!is_enough).then(|| format!("max.message.bytes is {value}: an event of max_body with the longest headers needs {least_bytes}, and a larger one is refused"))
        }),
    ]
}
