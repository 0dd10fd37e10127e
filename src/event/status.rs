//! The outcome of an accepted request.

use strum::{IntoStaticStr, VariantArray};

/// What an accepted event's answer calls it; also the metric's `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
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
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}
