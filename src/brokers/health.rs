//! A broker's health, and the load that a client must carry.

use std::time::Duration;

/// The load that a client must carry, derived from the whole configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest of any source.
    pub publish_timeout: Duration,
    /// The largest of any source.
    pub max_body_bytes: usize,
    pub max_in_flight: usize,
    pub max_in_flight_bytes: usize,
}

/// Whether a broker can be published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can. `missing` lists the destinations of routes that cannot, with the reasons.
    Up {
        /// In words for the operator.
        missing: Vec<String>,
    },
    /// It is reachable, and refuses messages: to some destinations, or to all that are published to.
    Refusing {
        /// The destinations and the reason, for the operator.
        why: String,
        /// Whether it accepts messages to others.
        takes_others: bool,
    },
    /// It cannot. The reason, for the operator.
    Down(String),
    /// It has not been reached yet.
    Starting,
}
