//! The program: arguments in, exit status out. Everything else is in the library.

use std::process::ExitCode;

/// Also serves librdkafka (`unprefixed_malloc` in `Cargo.toml`): messages are allocated on one thread and freed on another.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hookbridge::cli::main()
}
