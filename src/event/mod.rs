//! The vocabulary of an event's path.

mod identity;
mod refusal;
mod request_id;
mod status;

pub use identity::{
    CloudEvent, DedupBy, EventId, IdOrigin, Identity, Unidentified, is_attribute_name,
};
pub use refusal::{Code, Refusal, Violation};
pub use request_id::RequestId;
pub use status::Status;
