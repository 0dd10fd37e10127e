//! The system's side of the service: the open-file limit, and systemd.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

/// Descriptors for other things than senders' connections: brokers, admin listener, files.
const OTHER_DESCRIPTORS: u64 = 500;

/// Raises the open-file limit as far as the system allows, and warns if that is not enough.
pub(super) fn raise_open_file_limit(max_connections: usize) {
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
            "the open-file limit is too low for max_connections; raise it (LimitNOFILE), or lower max_connections"
        );
    }
}

pub(super) fn notify_systemd_ready() {
    notify_systemd(&[NotifyState::Ready]);
}

pub(super) fn notify_systemd_reloading() {
    // systemd 253 and later require the time.
    let now = NotifyState::monotonic_usec_now();
    match now {
        Ok(now) => notify_systemd(&[NotifyState::Reloading, now]),
        Err(_) => notify_systemd(&[NotifyState::Reloading]),
    }
}

/// Does nothing where systemd did not start the process.
pub(super) fn notify_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
