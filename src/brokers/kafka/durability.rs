//! What an acknowledgement of a topic survives: its replicas, and how many of them must have an event.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaRespErr;

use super::{Settings, describe};
use crate::brokers::Kind;
use crate::brokers::durability::{Finding, Needs, Verdict};

/// Looks at each topic once.
///
/// # Errors
/// Why the cluster can't be asked.
pub(in crate::brokers) async fn look(
    settings: &Settings,
    topics: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, String> {
    let (settings, topics) = (settings.clone(), topics.to_owned());
    let runtime = tokio::runtime::Handle::current();
    // Creating, asking and dropping a client block.
    let looking = tokio::task::spawn_blocking(move || {
        let admin: AdminClient<DefaultClientContext> = settings
            .consumer_config(false)
            .create()
            .map_err(|error| describe(&error))?;
        let mut findings = Vec::new();
        let mut existing = Vec::new();
        for topic in &topics {
            let replicas = replicas(&admin, topic, timeout)?;
            findings.push(Finding::new(topic, "exists", replicas.is_some(), || {
                "the topic does not exist or has a partition without a leader; create it".to_owned()
            }));
            if let Some(replicas) = replicas {
                findings.push(Finding::new(topic, "replicas", replicas >= 2, || {
                    format!("it has {replicas} replica: what is acknowledged is lost with that broker's disk; use 3")
                }));
                existing.push(topic);
            }
        }
        if topics.is_empty() {
            admin
                .inner()
                .fetch_metadata(None, timeout)
                .map_err(|error| describe(&error))?;
        }
        let specifiers: Vec<_> = existing
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        if !specifiers.is_empty() {
            let options = AdminOptions::new().request_timeout(Some(timeout));
            let described = runtime.block_on(admin.describe_configs(&specifiers, &options));
            let resources = described.map_err(|error| describe(&error))?;
            for (topic, resource) in existing.iter().zip(resources) {
                findings.extend(configuration(topic, resource.ok().as_ref(), needs));
            }
        }
        Ok(findings)
    });
    looking.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// How many replicas the topic's partitions have at least; none where it can't be published to.
fn replicas(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<usize>, String> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(topic), timeout)
        .map_err(|error| describe(&error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let usable = found.filter(|found| {
        let is_known = found
            .error()
            .is_none_or(|error| error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
        is_known
            && found
                .partitions()
                .iter()
                .all(|partition| partition.leader() >= 0)
    });
    Ok(usable.and_then(|found| {
        found
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min()
    }))
}

fn configuration(topic: &str, resource: Option<&ConfigResource>, needs: Needs) -> Vec<Finding> {
    let value = |name: &str| {
        resource
            .and_then(|resource| resource.get(name))
            .and_then(|entry| entry.value.clone())
    };
    let judge = |check: &'static str, name: &str, judge: &dyn Fn(&str) -> Option<String>| {
        let verdict = match value(name) {
            None => Verdict::Unknown(format!(
                "the cluster does not tell {name} (it may need DescribeConfigs on the topic)"
            )),
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
