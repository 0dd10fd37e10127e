//! The connection of a command or an inspection: its errors name the failed step, and a refusal ends the wait for the answer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Event, ServerAddr};
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::{describe, diagnose, is_open};
use super::refusals::Violation;
use super::settings::Settings;
use crate::brokers::error::RequestError;

/// For all addresses of one server. With the diagnosis, it stays below the 10 s that a command waits.
const CONNECTING: Duration = Duration::from_secs(5);

/// For the request that shows whether the inbox may be used.
const SETTLING: Duration = Duration::from_secs(3);

/// Between reconnects of a session.
const RECONNECT_PAUSE: Duration = Duration::from_millis(800);

/// Maximum number of refusals kept. Most kinds end the session at the first one.
const MAX_REFUSALS: usize = 64;

/// Allowed for any user by default; its answer or its refusal arrives after all earlier refusals.
const QUESTION: &str = "$JS.API.INFO";

/// A connection that records refusals.
pub(super) struct Session {
    pub(super) client: Client,
    /// All refusals, of which the first `seen` are processed.
    refused: watch::Receiver<Vec<Violation>>,
    seen: usize,
}

impl Session {
    /// Connects to the first server that accepts, and waits until the connection is usable.
    ///
    /// # Errors
    /// The failed step of each server, or a refused subscription to the inbox.
    pub(super) async fn open(settings: &Settings) -> Result<Self, RequestError> {
        let mut session = Self::connect(settings).await?;
        session.settle().await?;
        Ok(session)
    }

    /// Connects to the first server that accepts.
    ///
    /// # Errors
    /// The failed step of each server.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, RequestError> {
        let attempts = settings
            .addresses()
            .into_iter()
            .map(|address| Box::pin(Self::open_at(settings, address)));
        let mut attempts: Vec<_> = attempts.collect();
        let mut failures = Vec::new();
        while !attempts.is_empty() {
            let (opened, _, others) = futures_util::future::select_all(attempts).await;
            match opened {
                Ok(session) => return Ok(session),
                Err(error) => failures.push(error.to_string()),
            }
            attempts = others;
        }
        failures.sort();
        Err(failures.join("; ").into())
    }

    async fn open_at(settings: &Settings, address: ServerAddr) -> Result<Self, RequestError> {
        let (refuse, refused) = watch::channel(Vec::new());
        let refuse = Arc::new(refuse);
        let has_begun = AtomicBool::new(false);
        // Avoids a tight loop with a server that accepts and then closes.
        let options = settings
            .connect_options()
            .reconnect_delay_callback(move |_| match has_begun.swap(true, Ordering::Relaxed) {
                true => RECONNECT_PAUSE,
                false => Duration::ZERO,
            });
        let options = options.event_callback(move |event| {
            if let Event::ServerError(error) = event {
                let words = error.to_string();
                let words = words.strip_prefix("nats: ").unwrap_or(&words);
                if let Some(violation) = Violation::parse(words) {
                    refuse.send_if_modified(|all| {
                        let is_room = all.len() < MAX_REFUSALS;
                        all.extend(Some(violation).filter(|_| is_room));
                        is_room
                    });
                }
            }
            std::future::ready(())
        });
        let connecting = options.connect(vec![address.clone()]);
        match tokio::time::timeout(CONNECTING, connecting).await {
            Ok(Ok(client)) => Ok(Self {
                client,
                refused,
                seen: 0,
            }),
            Ok(Err(error)) if !is_open(&error.to_string()) => {
                Err(describe(&error.to_string(), &address).into())
            }
            Ok(Err(_)) | Err(_) => Err(diagnose(&address, settings.is_tls_first()).await.into()),
        }
    }

    /// Waits until the server has processed everything sent so far.
    ///
    /// # Errors
    /// A refused subscription.
    pub(super) async fn settle(&mut self) -> Result<(), RequestError> {
        let client = self.client.clone();
        let question = client.request(QUESTION, bytes::Bytes::new());
        let settling = Instant::now() + SETTLING;
        let refused = async {
            loop {
                match self.next_refusal().await {
                    Violation::Publish(subject) if subject == QUESTION => return Ok(()),
                    violation @ Violation::Subscription(_) => {
                        return Err(violation.to_string().into());
                    }
                    Violation::Publish(_) => {}
                }
            }
        };
        tokio::select! {
            biased;
            settled = refused => settled,
            _any_answer = question => Ok(()),
            () = tokio::time::sleep_until(settling) => Ok(()),
        }
    }

    /// Waits for an answer, or until the server refuses something.
    ///
    /// # Errors
    /// The missing permission, or the request's own error.
    pub(super) async fn ask<T, E: std::fmt::Display>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, RequestError> {
        tokio::select! {
            biased;
            refused = self.next_refusal() => Err(refused.to_string().into()),
            answer = question => answer.map_err(|error| error.to_string().into()),
        }
    }

    /// Resolves when the server refuses a request to this subject, or the inbox for its answer. May be awaited concurrently.
    pub(super) async fn refusal_of(&self, subject: &str) -> Violation {
        let mut refused = self.refused.clone();
        let is_wanted = |violation: &&Violation| match violation {
            Violation::Publish(refused) => refused == subject,
            Violation::Subscription(_) => true,
        };
        loop {
            let found = refused.borrow_and_update().iter().find(is_wanted).cloned();
            if let Some(found) = found {
                return found;
            }
            if refused.changed().await.is_err() {
                // The client has ended, so no answer will arrive.
                return std::future::pending().await;
            }
        }
    }

    /// The next refusal, past or future. Cancel safe.
    pub(super) async fn next_refusal(&mut self) -> Violation {
        loop {
            let next = self.refused.borrow_and_update().get(self.seen).cloned();
            if let Some(next) = next {
                self.seen += 1;
                return next;
            }
            if self.refused.changed().await.is_err() {
                // The client has ended, so no answer will arrive.
                return std::future::pending().await;
            }
        }
    }
}
