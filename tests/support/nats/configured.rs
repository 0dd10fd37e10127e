//! A nats-server with users, accounts or a JetStream of the test's own making.

use super::{Access, Nats, runtime};
use crate::support::process;

/// The user that the test's own clients log in as: each configuration must have it.
pub(crate) const ADMIN: (&str, &str) = ("admin", "admin-password");

impl Nats {
    /// One of the test's own, running, with these settings. Where `jetstream` is false, it has none.
    pub(crate) fn private_configured(settings: &str, jetstream: bool) -> Option<Self> {
        let (user, password) = ADMIN;
        let access = Access::Password { user, password };
        let nats = Self::absent(access, false).or_else(|| process::missing("nats-server"))?;
        nats.daemon().edit(|text| {
            let kept = text.lines().filter(|line| {
                let is_replaced = line.starts_with("authorization");
                !is_replaced && (jetstream || !line.starts_with("jetstream"))
            });
            let text: String = kept.map(|line| format!("{line}\n")).collect();
            text + settings + "\n"
        });
        nats.start();
        Some(nats)
    }

    /// From now on the stream stores without acknowledging, or acknowledges again.
    pub(crate) fn silence(&self, stream: &str, is_silent: bool) {
        runtime().block_on(async {
            let context = self.jetstream().await;
            let mut handle = context.get_stream(stream).await.expect("the stream");
            let mut settings = handle.info().await.expect("the stream").config.clone();
            settings.no_ack = is_silent;
            context.update_stream(settings).await.expect("the stream");
        });
    }

    /// Whether the stream stores without acknowledging.
    pub(crate) fn is_silent(&self, stream: &str) -> bool {
        runtime().block_on(async {
            let context = self.jetstream().await;
            let handle = context.get_stream(stream).await.expect("the stream");
            handle.cached_info().config.no_ack
        })
    }
}
