//! Inspects the streams of subjects: whether they exist, and what their acknowledgements survive.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::{Context, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::session::Session;
use super::settings::{Acknowledgement, Settings};
use crate::brokers::durability::{EXISTS, Finding, Needs, NotInspected};
use crate::brokers::kind::Kind;

/// Providers retry for about half an hour (SYNQ).
pub(super) const RETRY_HORIZON: Duration = Duration::from_secs(35 * 60);

/// The check that a stream acknowledges.
pub(super) const NO_ACK: &str = "no_ack";

/// Maximum number of requests in flight. Ten thousand subjects are asked about in time through a line of 50 ms.
const CONCURRENT: usize = 256;

/// JetStream's errors if the account may not use it.
const DISABLED: [ErrorCode; 2] = [
    ErrorCode::JETSTREAM_NOT_ENABLED,
    ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
];

/// Inspects each subject's stream once.
///
/// # Errors
/// The servers could not be asked.
pub(in crate::brokers) async fn check_destinations(
    settings: &Settings,
    subjects: &[String],
    needs: Needs,
    timeout: Duration,
) -> Result<Vec<Finding>, NotInspected> {
    let inspecting = async {
        let inspector = Inspector::connect(settings, timeout).await?;
        let findings = match settings.acknowledgement {
            Acknowledgement::Core => {
                Ok(subjects.iter().flat_map(|subject| core(subject)).collect())
            }
            Acknowledgement::JetStream => inspector.streams(subjects, needs).await,
        };
        // The result does not matter: the connection only asked.
        let _drained = inspector.session.client.drain().await;
        findings
    };
    tokio::time::timeout(timeout, inspecting)
        .await
        .unwrap_or_else(|_| {
            let limit = humantime::format_duration(timeout);
            Err(NotInspected::unanswered(format!(
                "no answer within {limit}"
            )))
        })
}

/// Without JetStream there is nothing to inspect.
fn core(subject: &str) -> [Finding; 2] {
    [
        Finding::inspected(subject),
        Finding::new(subject, "ack", false, || {
            "ack = \"core\": an acknowledged event has reached the server, which stores nothing"
                .to_owned()
        }),
    ]
}

/// A connection that also reports what the server does not permit.
pub(super) struct Inspector {
    context: Context,
    pub(super) session: Session,
}

/// An answer of `STREAM.NAMES`.
#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

/// An answer of `STREAM.INFO`, without the parts that are not needed.
#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) config: Config,
}

/// The reason why a request has no usable answer.
pub(super) enum Unanswered {
    /// JetStream is not available.
    Disabled(String),
    /// JetStream refuses the request.
    Refused(ErrorCode, String),
    /// Another error, or no answer.
    Failed(NotInspected),
}

impl Inspector {
    pub(super) async fn connect(
        settings: &Settings,
        timeout: Duration,
    ) -> Result<Self, NotInspected> {
        let connected = Session::connect(settings).await;
        let mut session = connected.map_err(|error| NotInspected::unanswered(error.0))?;
        let settled = session.settle().await;
        settled.map_err(|error| NotInspected::refused(error.0))?;
        let mut context = jetstream::new(session.client.clone());
        context.set_timeout(timeout);
        Ok(Self { context, session })
    }

    async fn streams(
        &self,
        subjects: &[String],
        needs: Needs,
    ) -> Result<Vec<Finding>, NotInspected> {
        let asked = subjects.iter().cloned().map(|subject| {
            let asking = async move {
                let found = self.stream_of(&subject).await;
                (subject, found)
            };
            asking.boxed()
        });
        let mut asking = stream::iter(asked.collect::<Vec<_>>()).buffered(CONCURRENT);
        let mut owners: Vec<(String, Option<String>)> = Vec::with_capacity(subjects.len());
        while let Some((subject, found)) = asking.next().await {
            match found {
                Ok(stream) => owners.push((subject, stream)),
                Err(Unanswered::Disabled(why)) => {
                    let missing = |subject: &String| {
                        let exists = Finding::usable(subject, EXISTS, false, || why.clone());
                        [Finding::inspected(subject), exists]
                    };
                    return Ok(subjects.iter().flat_map(missing).collect());
                }
                Err(Unanswered::Refused(_, why)) => return Err(NotInspected::unanswered(why)),
                Err(Unanswered::Failed(why)) => return Err(why),
            }
        }
        let names: BTreeSet<String> = owners.iter().filter_map(|(_, name)| name.clone()).collect();
        let asked = names.into_iter().map(|name| {
            let asking = async move {
                let config = self.config_of(&name).await;
                (name, config)
            };
            asking.boxed()
        });
        let configs: HashMap<String, Result<Config, NotInspected>> =
            stream::iter(asked.collect::<Vec<_>>())
                .buffer_unordered(CONCURRENT)
                .collect()
                .await;
        let max_payload = self.session.client.server_info().max_payload;
        let of = |(subject, name): &(String, Option<String>)| {
            let exists = Finding::usable(subject, EXISTS, name.is_some(), || {
                "no stream takes the subject; create one with `hookbridge provision` or `nats stream add`".to_owned()
            });
            let mut findings = vec![exists];
            match name.as_ref().and_then(|name| configs.get(name)) {
                None => findings.push(Finding::inspected(subject)),
                Some(Ok(config)) => {
                    findings.push(Finding::inspected(subject));
                    findings.extend(assess(subject, config, max_payload, needs));
                }
                Some(Err(why)) => findings.push(Finding::not_inspected(subject, &why.to_string())),
            }
            findings
        };
        Ok(owners.iter().flat_map(of).collect())
    }

    /// The name of the stream that takes the subject, if any.
    async fn stream_of(&self, subject: &str) -> Result<Option<String>, Unanswered> {
        let request = serde_json::json!({ "subject": subject });
        let Names { streams } = self.ask("STREAM.NAMES", &request).await?;
        Ok(streams.unwrap_or_default().into_iter().next())
    }

    /// The names of the streams that take any subject of the pattern.
    pub(super) async fn streams_on(&self, pattern: &str) -> Result<Vec<String>, Unanswered> {
        let request = serde_json::json!({ "subject": pattern });
        let Names { streams } = self.ask("STREAM.NAMES", &request).await?;
        Ok(streams.unwrap_or_default())
    }

    async fn config_of(&self, stream: &str) -> Result<Config, NotInspected> {
        let request = format!("STREAM.INFO.{stream}");
        match self.ask::<Info>(&request, &serde_json::Value::Null).await {
            Ok(info) => Ok(info.config),
            Err(Unanswered::Disabled(why)) => Err(NotInspected::refused(why)),
            Err(Unanswered::Refused(_, why)) => Err(NotInspected::unanswered(why)),
            Err(Unanswered::Failed(why)) => Err(why),
        }
    }

    /// Sends a request to JetStream's API. A forbidden one gets no answer: the server reports it to the connection.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &serde_json::Value,
    ) -> Result<T, Unanswered> {
        let subject = format!("$JS.API.{request}");
        let answer = tokio::select! {
            answer = self.context.request::<_, _, Response<T>>(request.to_owned(), payload) => answer,
            refused = self.session.refusal_of(&subject) => {
                let why = refused.to_string();
                return Err(Unanswered::Failed(NotInspected::refused(why)));
            }
        };
        match answer {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) if DISABLED.contains(&error.error_code()) => {
                Err(Unanswered::Disabled(
                    "JetStream is disabled for the account, so nothing can be stored; enable it in the account's configuration".to_owned(),
                ))
            }
            Ok(Response::Err { error }) => Err(Unanswered::Refused(
                error.error_code(),
                format!("{subject}: {error}"),
            )),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(Unanswered::Disabled(
                    "JetStream is disabled on the server, so nothing can be stored; add `jetstream {}` to its configuration".to_owned(),
                ))
            }
            Err(error) => Err(Unanswered::Failed(NotInspected::unanswered(format!(
                "{subject}: {error}"
            )))),
        }
    }
}

fn assess(subject: &str, config: &Config, max_payload: usize, needs: Needs) -> Vec<Finding> {
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
        Finding::usable(subject, "sealed", !config.sealed, || {
            format!("stream {name} is sealed and accepts nothing")
        }),
        Finding::new(
            subject,
            "storage",
            config.storage == StorageType::File,
            || {
                format!(
                    "stream {name} is kept in memory: acknowledged events are lost when its servers stop"
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
                    "stream {name} keeps only events that a consumer is interested in: without a consumer, acknowledged events are dropped; use limits or workqueue"
                )
            },
        ),
        Finding::usable(subject, NO_ACK, !config.no_ack, || {
            format!(
                "stream {name} never acknowledges (no_ack), so no event for it can be answered 2xx; update the stream"
            )
        }),
        Finding::new(
            subject,
            "persist_mode",
            config.persist_mode != Some(PersistenceMode::Async),
            || {
                format!(
                    "stream {name} acknowledges before it has written the event (persist_mode async)"
                )
            },
        ),
        Finding::new(subject, "max_message_size", largest >= least_bytes, || {
            format!(
                "stream {name} or its server accepts messages of up to {largest} bytes, and an event of max_body with the longest headers needs {least_bytes}: a larger one is refused"
            )
        }),
        Finding::advice(
            subject,
            "duplicate_window",
            config.duplicate_window >= RETRY_HORIZON,
            || {
                let window = humantime::format_duration(config.duplicate_window);
                format!(
                    "stream {name} recognizes duplicates for {window}, and providers may retry for longer; use 1h"
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
    use crate::brokers::durability::Assessment;

    #[test]
    fn settings_that_acknowledge_without_keeping_are_found() {
        let good = Config {
            name: "S".to_owned(),
            num_replicas: 3,
            duplicate_window: Duration::from_secs(3600),
            ..Default::default()
        };
        let of = |config: &Config| -> Vec<&'static str> {
            let findings = assess(
                "a",
                config,
                8 << 20,
                Needs {
                    max_body_bytes: 1 << 20,
                },
            );
            findings
                .iter()
                .filter(|finding| finding.assessment != Assessment::Good)
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
