//! Legal names of topics and subjects. Without dependencies on the clients, so that both are known whichever one is compiled.

pub(super) mod kafka;
pub(super) mod nats;
