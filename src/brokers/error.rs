//! Errors at the start of a client, a subscription or a replay, in words for the operator.

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubscribeError(pub(crate) String);
