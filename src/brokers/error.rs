//! Errors at the start of a client, a subscription or a replay, and of a request to a broker, in words for the operator.

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SubscribeError(pub(crate) String);

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
