//! The program: arguments in, exit code out. Everything else is the library's.

use std::process::ExitCode;

/// For librdkafka's memory too (`unprefixed_malloc` in `Cargo.toml`): messages are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hookbridge::cli::main()
}
