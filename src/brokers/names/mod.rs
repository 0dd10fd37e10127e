//! Legal names of topics and subjects. Pure, so that both are known whichever client is compiled.

pub(super) mod kafka;
pub(super) mod nats;
