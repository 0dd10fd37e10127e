//! The words that every step of an event's path uses.

mod identity;
mod refusal;
mod request_id;
mod status;

pub use identity::{
    CloudEvent, DedupBy, EventId, Identity, Origin, Unidentified, is_attribute_name,
};
pub use refusal::{Code, Refusal, Violation};
pub use request_id::RequestId;
pub use status::Status;
