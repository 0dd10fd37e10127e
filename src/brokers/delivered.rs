//! Messages as a subscriber sees them.

/// A message as a subscriber sees it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The topic or subject.
    pub topic: String,
    /// The partition and offset (Kafka).
    pub position: Option<(i32, i64)>,
    /// The key (Kafka).
    pub key: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The value.
    pub value: Vec<u8>,
}

/// Where a subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first message that is kept.
    Start,
    /// With the next one.
    Now,
}
