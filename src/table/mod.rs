//! Reads a TOML table key by key, and locates problems in the files.

mod describe;
mod files;
pub mod key;
pub(crate) mod private;
mod problem;
mod section;
mod spans;
mod syntax;

pub use files::Files;
pub(crate) use private::read_stream;
pub use problem::{Excerpt, Place, Problem, Problems};
pub(crate) use section::{Reading, did_you_mean, nearest as nearest_word};
pub use section::{Secrets, Section, WordOrSection};
pub(crate) use spans::Spans;
