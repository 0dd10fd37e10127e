//! The outcome of an accepted request.

use strum::{IntoStaticStr, VariantArray};

/// The `status` of an accepted request's answer, and the metric's `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Status {
    Published,
    /// Stored before.
    Duplicate,
    /// Dropped by configuration.
    Ignored,
    DeadLettered,
    /// Not an event: the provider verified the address.
    Handshake,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}
