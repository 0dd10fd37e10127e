//! Why a client, a subscription or a replay cannot be started, in words for the operator.

/// Why a topic can't be replayed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub(crate) String);

/// Why a client can't be started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubscribeError(pub(crate) String);
