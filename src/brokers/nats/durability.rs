//! What an acknowledgement of a subject's stream survives.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};

use super::settings::{Acknowledgement, Settings};
use super::subscription::connect;
use crate::brokers::Kind;
use crate::brokers::durability::{Finding, Needs};

/// Deliveries may come again for about half an hour (SYNQ's).
const RETRY_HORIZON: Duration = Duration::from_secs(35 * 60);

/// Looks at each subject's stream once.
///
/// # Errors
/// Why the servers can't be asked.
pub(in crate::brokers) async fn look(
    settings: &Settings,
    subjects: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, String> {
    let looking = async {
        let client = connect(settings).await?;
        if settings.acknowledgement == Acknowledgement::Core {
            let stored = |subject: &String| {
                Finding::new(subject, "ack", false, || {
                    "ack = \"core\": the server has what is acknowledged, and stores nothing"
                        .to_owned()
                })
            };
            return Ok(subjects.iter().map(stored).collect());
        }
        let max_payload = client.server_info().max_payload;
        let context = jetstream::new(client.clone());
        let mut findings = Vec::new();
        for subject in subjects {
            let config = match context.stream_by_subject(subject).await {
                Ok(name) => context
                    .get_stream(name)
                    .await
                    .ok()
                    .map(|stream| stream.cached_info().config.clone()),
                Err(_) => None,
            };
            findings.push(Finding::new(subject, "exists", config.is_some(), || {
                "no stream takes the subject; create one (nats stream add)".to_owned()
            }));
            findings.extend(
                config
                    .iter()
                    .flat_map(|config| judge(subject, config, max_payload, needs)),
            );
        }
        // How it ends does not matter: it only asked.
        let _drained = client.drain().await;
        Ok(findings)
    };
    tokio::time::timeout(timeout, looking)
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

fn judge(subject: &str, config: &Config, max_payload: usize, needs: Needs) -> Vec<Finding> {
    let name = &config.name;
    let least_bytes = needs
        .max_body_bytes
        .saturating_add(Kind::Nats.overhead_bytes());
    let largest = usize::try_from(config.max_message_size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(usize::MAX)
        .min(max_payload);
    let is_limited = config.max_bytes > 0 || config.max_messages > 0;
    vec![
        Finding::new(subject, "sealed", !config.sealed, || {
            format!("stream {name} is sealed and takes nothing")
        }),
        Finding::new(
            subject,
            "storage",
            config.storage == StorageType::File,
            || {
                format!(
                    "stream {name} is kept in memory: what is acknowledged is lost when its servers end"
                )
            },
        ),
        Finding::new(subject, "replicas", config.num_replicas >= 3, || {
            let replicas = config.num_replicas;
            format!(
                "stream {name} has {replicas} replica(s): with the server's default sync_interval a power failure loses up to 2 minutes of acknowledged events; use 3 replicas, or sync_interval: always"
            )
        }),
        Finding::new(
            subject,
            "retention",
            config.retention != RetentionPolicy::Interest,
            || {
                format!(
                    "stream {name} keeps only what some consumer is interested in: without one, acknowledged events are not kept at all; use limits or workqueue"
                )
            },
        ),
        Finding::new(subject, "no_ack", !config.no_ack, || {
            format!("stream {name} never acknowledges (no_ack): every event would time out")
        }),
        Finding::new(
            subject,
            "persist_mode",
            config.persist_mode != Some(PersistenceMode::Async),
            || format!("stream {name} acknowledges before it has written (persist_mode async)"),
        ),
        Finding::new(subject, "max_message_size", largest >= least_bytes, || {
            format!(
                "stream {name} or its server takes messages of up to {largest} bytes, and an event of max_body with the longest headers needs {least_bytes}: a larger one is refused"
            )
        }),
        Finding::advice(
            subject,
            "duplicate_window",
            config.duplicate_window >= RETRY_HORIZON,
            || {
                let window = humantime::format_duration(config.duplicate_window);
                format!(
                    "stream {name} recognizes duplicates for {window}, and deliveries may come again for longer; use 1h"
                )
            },
        ),
        Finding::advice(
            subject,
            "discard",
            !(is_limited && config.discard == DiscardPolicy::Old),
            || {
                format!(
                    "stream {name} has a limit and discards its oldest messages when it is reached"
                )
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::durability::Verdict;

    #[test]
    fn settings_that_acknowledge_without_keeping_are_found() {
        let good = Config {
            name: "S".to_owned(),
            num_replicas: 3,
            duplicate_window: Duration::from_secs(3600),
            ..Default::default()
        };
        let of = |config: &Config| -> Vec<&'static str> {
            let findings = judge(
                "a",
                config,
                8 << 20,
                Needs {
                    max_body_bytes: 1 << 20,
                },
            );
            findings
                .iter()
                .filter(|finding| finding.verdict != Verdict::Good)
                .map(|finding| finding.check)
                .collect()
        };
        assert_eq!(of(&good), Vec::<&str>::new());
        assert_eq!(
            of(&Config {
                retention: RetentionPolicy::Interest,
                ..good.clone()
            }),
            ["retention"]
        );
        assert_eq!(
            of(&Config {
                no_ack: true,
                sealed: true,
                ..good.clone()
            }),
            ["sealed", "no_ack"]
        );
        assert_eq!(
            of(&Config {
                storage: StorageType::Memory,
                num_replicas: 1,
                ..good.clone()
            }),
            ["storage", "replicas"]
        );
        assert_eq!(
            of(&Config {
                persist_mode: Some(PersistenceMode::Async),
                max_message_size: 1000,
                ..good.clone()
            }),
            ["persist_mode", "max_message_size"]
        );
        assert_eq!(
            of(&Config {
                max_messages: 10,
                duplicate_window: Duration::from_secs(120),
                ..good
            }),
            ["duplicate_window", "discard"]
        );
    }
}
