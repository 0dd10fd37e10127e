//! Whether a broker can be published to, and how much a client must carry.

use std::time::Duration;

/// What a client must be able to carry, worked out from the whole configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest that any request waits for an acknowledgement.
    pub publish_timeout: Duration,
    /// The largest body.
    pub max_body_bytes: usize,
    /// How many messages may be under way.
    pub max_in_flight: usize,
    /// How many bytes of bodies may be under way.
    pub max_in_flight_bytes: usize,
}

/// Whether a broker can be published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can. `missing` says which destinations of routes can't be published to, and why.
    Up {
        /// In words for the operator.
        missing: Vec<String>,
    },
    /// It is reached, and refuses messages: to some destinations, or to all that are published to.
    Refusing {
        /// Which, and why, in words for the operator.
        why: String,
        /// Whether it takes others.
        takes_others: bool,
    },
    /// It can't, and why, in words for the operator.
    Down(String),
    /// It has not been reached yet.
    Starting,
}
