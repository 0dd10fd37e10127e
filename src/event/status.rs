//! The outcome of an accepted request.

/// What an accepted event's answer calls it; also the metric's `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The broker has it.
    Published,
    /// The broker had it already.
    Duplicate,
    /// The operator does not want it.
    Ignored,
    /// The broker has it as a dead letter.
    DeadLettered,
    /// It is no event: the provider asked whether the address is right.
    Handshake,
}

impl Status {
    /// Each of them, for metrics.
    pub const ALL: [Self; 5] = [
        Self::Published,
        Self::Duplicate,
        Self::Ignored,
        Self::DeadLettered,
        Self::Handshake,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::DeadLettered => "dead_lettered",
            Self::Handshake => "handshake",
        }
    }
}
