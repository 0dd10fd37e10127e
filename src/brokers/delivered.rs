//! Messages as a subscriber sees them.

#[derive(Debug, Clone)]
pub struct Delivered {
    pub topic: String,
    /// Partition and offset; none on NATS.
    pub position: Option<(i32, i64)>,
    /// None on NATS.
    pub key: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Vec<u8>)>,
    pub value: Vec<u8>,
}

/// The position where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest message that the broker keeps.
    Earliest,
    /// The first message published after the subscription starts.
    Latest,
}
