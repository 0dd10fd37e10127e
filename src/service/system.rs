//! What the service asks of the system: open files, and systemd.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

/// Descriptors beside the senders' connections: brokers, admin, files.
const OTHER_DESCRIPTORS: u64 = 500;

/// Raises the limit of open files as far as the system lets us, and says so when that is not far enough.
pub(super) fn make_room(max_connections: usize) {
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

pub(super) fn tell_systemd_of_readiness() {
    tell_systemd(&[NotifyState::Ready]);
}

pub(super) fn tell_systemd_of_reload() {
    // systemd since 253 wants to know when.
    let now = NotifyState::monotonic_usec_now();
    match now {
        Ok(now) => tell_systemd(&[NotifyState::Reloading, now]),
        Err(_) => tell_systemd(&[NotifyState::Reloading]),
    }
}

/// Where systemd did not start us, there is nobody to tell.
pub(super) fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
