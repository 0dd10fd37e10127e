//! What the server does not permit. It answers no such request: it says so to the connection, and the client passes it on as
//! an event.

use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;

/// Refusals that are kept: more say nothing new.
const MAX: usize = 32;

/// The refusals of one connection.
#[derive(Debug, Clone)]
pub(super) struct Refusals(watch::Receiver<Vec<String>>);

impl Refusals {
    /// Hears what the server says to the connection that these options make.
    pub(super) fn hear(options: ConnectOptions) -> (ConnectOptions, Self) {
        let (said, heard) = watch::channel(Vec::new());
        let options = options.event_callback(move |event| {
            if let Event::ServerError(error) = event {
                said.send_modify(|all: &mut Vec<String>| {
                    if all.len() < MAX {
                        all.push(error.to_string());
                    }
                });
            }
            std::future::ready(())
        });
        (options, Self(heard))
    }

    /// Resolves with the permission that is missing for a request to this subject, or for any answer. Does not resolve
    /// where nothing is missing.
    pub(super) async fn of(&mut self, subject: &str) -> String {
        let refusal = self.first(|what| concerns(what, subject)).await;
        missing_permission(&refusal, subject)
    }

    /// Resolves with the refusal of a subscription, which would be silent otherwise. Does not resolve where none was refused.
    pub(super) async fn of_subscription(&mut self) -> String {
        let refusal = self.first(is_of_subscription).await;
        format!("the user may not subscribe; permit it ({refusal})")
    }

    async fn first(&mut self, is_wanted: impl Fn(&str) -> bool) -> String {
        let find = |all: &Vec<String>| all.iter().find(|what| is_wanted(what)).cloned();
        loop {
            let found = find(&self.0.borrow_and_update());
            if let Some(refusal) = found {
                return refusal;
            }
            if self.0.changed().await.is_err() {
                // The connection has ended, which whoever asks learns elsewhere.
                std::future::pending().await
            }
        }
    }

    /// An error with what the server did not permit before it.
    pub(super) fn explain(&self, error: &dyn std::fmt::Display) -> String {
        match self.0.borrow().last() {
            Some(refusal) => format!("{error}: the server does not permit it ({refusal})"),
            None => error.to_string(),
        }
    }
}

fn concerns(refusal: &str, subject: &str) -> bool {
    is_of_subscription(refusal)
        || (refusal.contains("Permissions Violation")
            && refusal.contains(&format!("\"{subject}\"")))
}

fn is_of_subscription(refusal: &str) -> bool {
    refusal.contains("Permissions Violation for Subscription")
}

fn missing_permission(refusal: &str, subject: &str) -> String {
    if is_of_subscription(refusal) {
        format!(
            "the user may not subscribe to its inbox, where answers and acknowledgements arrive; permit _INBOX.> ({refusal})"
        )
    } else {
        format!("the user may not publish to {subject}; permit it ({refusal})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_permission_that_is_missing() {
        let publish = "nats: Permissions Violation for Publish to \"$JS.API.STREAM.NAMES\"";
        assert!(concerns(publish, "$JS.API.STREAM.NAMES"));
        assert!(!concerns(publish, "$JS.API.STREAM.INFO.S"));
        assert!(missing_permission(publish, "$JS.API.STREAM.NAMES").contains("publish to $JS.API"));
        let inbox = "nats: Permissions Violation for Subscription to \"_INBOX.x.*\"";
        assert!(concerns(inbox, "$JS.API.STREAM.NAMES"));
        assert!(missing_permission(inbox, "$JS.API.STREAM.NAMES").contains("_INBOX.>"));
    }
}
