//! Errors of clients and of requests to a broker, written for the operator. They have no sources: a client's own error may
//! contain a secret (librdkafka's has the value that it rejects), and whatever prints an error with its causes would show it.

use std::time::Duration;

use super::durability::NotInspected;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubscribeError(pub(crate) String);

/// The reason why the client library rejects settings.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct RejectedSettings<'s> {
    /// The option to point at, if the reason names one.
    pub option: Option<&'s str>,
    pub why: String,
}

/// The reason why a plan could not be made or carried out.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("it can't be reached: {0}")]
    Unreachable(RequestError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    NotInspected(#[from] NotInspected),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error(
        "rdkafka's admin client can't log in with OAUTHBEARER, so topics can't be created with this login; create them with Kafka's own tools, if they do not exist: {topics}"
    )]
    NoAdminLogin { topics: String },
    #[error(
        "min_insync_replicas = {least} needs as many replicas, and a topic would have {replicas}, since the cluster has no more brokers; write a smaller `min_insync_replicas`"
    )]
    TooFewReplicas { least: usize, replicas: usize },
}

/// The reason why a broker could not be reached, or refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(pub(crate) String);

impl From<String> for RequestError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<RequestError> for ReplayError {
    fn from(error: RequestError) -> Self {
        Self(error.0)
    }
}

impl From<RequestError> for SubscribeError {
    fn from(error: RequestError) -> Self {
        Self(error.0)
    }
}
