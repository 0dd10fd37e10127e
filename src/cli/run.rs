//! `hookbridge run`

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ConfigFiles, Done, Outcome, runtime};
use crate::service::{Ended, Service, termination};

pub(super) fn run(files: &ConfigFiles) -> Outcome {
    let config = files.load()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    make_room(config.http.max_connections);
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let mut terminated = std::pin::pin!(termination()?);
        let service = Service::start(config).await?;
        let signal = terminated.as_mut().await;
        tracing::info!(signal, "asked to end");
        let again = termination()?;
        tokio::select! {
            ended = service.shut_down() => Ok(if ended == Ended::Clean { Done::Well } else { Done::Badly }),
            signal = again => Err(format!("a second {signal} ended the service at once").into()),
        }
    });
    // What still blocks must not hold the process.
    runtime.shutdown_background();
    done
}

/// Descriptors beside the senders' connections: brokers, admin, files.
const OTHER_DESCRIPTORS: u64 = 500;

/// Raises the limit of open files as far as the system lets us, and says so when that is not far enough.
fn make_room(max_connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = u64::try_from(max_connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_DESCRIPTORS);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if is_enough(current) {
        return;
    }
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    if raised.is_err() || !is_enough(maximum) {
        let limit = maximum.or(current).unwrap_or(u64::MAX);
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is too low for max_connections; raise it (LimitNOFILE), or lower max_connections"
        );
    }
}
