//! The service: listeners, signals, and the order of a shutdown.

mod admin;
mod page;
pub mod reload;
mod system;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::live::Live;
use crate::config::Config;
use crate::service::reload::keep_reloading;
use crate::trace::Tracer;
use crate::{ingress, task, trace};
use system::{notify_systemd, notify_systemd_ready, raise_open_file_limit};

/// Maximum number of connections waiting to be accepted.
const BACKLOG: u32 = 1024;

/// Further SIGINTs within this time count as the same one.
const KEYSTROKE: Duration = Duration::from_secs(1);
/// Poll interval of the sources' silences, for the log.
const SILENCE_INTERVAL: Duration = Duration::from_secs(1);

/// The part of `shutdown_timeout` that is reserved for the last answers.
const ANSWER_RESERVE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Service {
    live: Arc<Live>,
    address: SocketAddr,
    admin_address: SocketAddr,
    /// Ends the public listener and asks its connections to end.
    stop: CancellationToken,
    /// Ends the admin listener, which answers until the end.
    stop_admin: CancellationToken,
    /// Ends reloads and inspections, which a shutdown no longer needs.
    stop_reloading: CancellationToken,
    connections: TaskTracker,
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered and every message confirmed.
    Clean,
    /// Something was left at the deadline.
    Late,
}

impl Service {
    /// Starts the brokers' clients and both listeners, without waiting for the brokers.
    ///
    /// # Errors
    /// An address that cannot be listened on, or settings that a client rejects.
    pub async fn start(config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Self::start_traced(config, None).await
    }

    /// The same, with traces where there are settings for them.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start_traced(
        config: Config,
        traces: Option<trace::Settings>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        raise_open_file_limit(config.http.max_connections);
        let (listen, admin_listen) = (config.http.listen, config.admin.listen);
        let listener = bind(listen)?;
        let admin_listener = bind(admin_listen)?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let service = Self {
            live: Live::start_traced(config, traces.map(Tracer::start)).await?,
            address,
            admin_address,
            stop: CancellationToken::new(),
            stop_admin: CancellationToken::new(),
            stop_reloading: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let (listener, admin_listener) = (Arc::new(listener), Arc::new(admin_listener));
        let (live, stop) = (Arc::clone(&service.live), service.stop_admin.clone());
        task::spawn_restarting("admin listener", move || {
            admin::serve(
                Arc::clone(&admin_listener),
                Arc::clone(&live),
                address,
                stop.clone(),
            )
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop_admin.clone());
        task::spawn_restarting("live page", move || {
            page::keep_feeding(Arc::clone(&live), address, stop.clone())
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop.clone());
        let connections = service.connections.clone();
        task::spawn_restarting("public listener", move || {
            let (listener, live) = (Arc::clone(&listener), Arc::clone(&live));
            ingress::accept::serve(listener, live, stop.clone(), connections.clone())
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop_reloading.clone());
        task::spawn_restarting("destination checks", move || {
            keep_inspecting(Arc::clone(&live), stop.clone())
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop_reloading.clone());
        task::spawn_restarting("silence", move || {
            keep_watching_silences(Arc::clone(&live), stop.clone())
        });
        tracing::info!(listener = "admin", address = %admin_address, "listening");
        tracing::info!(listener = "public", address = %address, "listening");
        notify_systemd_ready();
        Ok(service)
    }

    /// Reloads the configuration on SIGHUP and when its files change.
    pub fn reload_from(&self, inputs: reload::Inputs) {
        tokio::spawn(keep_reloading(
            Arc::clone(&self.live),
            inputs,
            self.stop_reloading.clone(),
        ));
    }

    /// The limit of [`shut_down`](Self::shut_down).
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.live.current().config().http.shutdown_timeout
    }

    /// The public listener's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// `/readyz` answers 503, the listener closes after `drain_delay`, requests in flight finish, and the brokers are
    /// flushed, all within `shutdown_timeout`.
    pub async fn shut_down(self) -> Ended {
        self.stop_reloading.cancel();
        let bridge = self.live.current();
        let (http, process) = (&bridge.config().http, bridge.process());
        let deadline = Instant::now() + http.shutdown_timeout;
        process.begin_draining();
        tracing::info!(in_flight = bridge.permits().events_taken(), "draining");
        notify_systemd(&[NotifyState::Stopping]);
        tokio::time::sleep_until(Instant::now() + http.drain_delay).await;
        self.stop.cancel();
        self.connections.close();
        let last_call = deadline - ANSWER_RESERVE.min(http.shutdown_timeout / 2);
        let mut answered = tokio::time::timeout_at(last_call, self.connections.wait())
            .await
            .is_ok();
        // No further request is accepted on the remaining connections.
        process.begin_closing();
        if !answered {
            // The remaining time is for answering the requests that still wait for a broker.
            self.live.give_up();
            answered = tokio::time::timeout_at(deadline, self.connections.wait())
                .await
                .is_ok();
        }
        let unconfirmed = self.live.drain(deadline).await;
        if let Some(tracer) = process.tracer() {
            tracer.flush(deadline).await;
        }
        self.stop_admin.cancel();
        let connections = self.connections.len();
        if answered && unconfirmed == 0 {
            tracing::info!("ended: every request was answered");
            Ended::Clean
        } else {
            tracing::warn!(
                connections,
                unconfirmed,
                "ended: the deadline passed before everything was finished"
            );
            Ended::Late
        }
    }
}

/// Inspects the destinations of the current configuration until the shutdown begins.
async fn keep_inspecting(live: Arc<Live>, stop: CancellationToken) {
    loop {
        let bridge = live.current();
        tokio::select! {
            () = stop.cancelled() => return,
            () = live.changed() => {}
            () = bridge.keep_inspecting() => {}
        }
    }
}

/// Logs the silences of sources until the shutdown begins.
async fn keep_watching_silences(live: Arc<Live>, stop: CancellationToken) {
    loop {
        let next = tokio::time::sleep_until(Instant::now() + SILENCE_INTERVAL);
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
        live.current().log_silences();
    }
}

/// SIGTERM and SIGINT, which no longer end the process by themselves.
#[derive(Debug)]
pub struct Terminations {
    terminate: Signal,
    interrupt: Signal,
    /// When the last SIGINT that counted came.
    interrupted: Option<Instant>,
}

impl Terminations {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses to install a handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            interrupted: None,
        })
    }

    /// Resolves with the name of the next signal. Another SIGINT within a second is the same keystroke: terminals and
    /// wrappers such as `cargo run` deliver one twice.
    pub async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => {
                    let now = Instant::now();
                    let is_repeated = self
                        .interrupted
                        .is_some_and(|before| now.duration_since(before) < KEYSTROKE);
                    if !is_repeated {
                        self.interrupted = Some(now);
                        return "SIGINT";
                    }
                }
            }
        }
    }
}

/// Resolves with the first SIGTERM or SIGINT.
///
/// # Errors
/// The system refuses to install a handler.
pub fn termination() -> std::io::Result<impl Future<Output = &'static str>> {
    let mut signals = Terminations::listen()?;
    Ok(async move { signals.next().await })
}

fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|cause| BindError { address, cause })
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub(crate) struct BindError {
    address: SocketAddr,
    #[source]
    cause: std::io::Error,
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn further_interrupts_within_a_second_are_the_same_keystroke() {
        let mut terminations = Terminations::listen().unwrap();
        let interrupt = || kill_process(getpid(), Signal::INT).unwrap();
        interrupt();
        assert_eq!(terminations.next().await, "SIGINT");
        interrupt();
        let repeated = timeout(KEYSTROKE / 2, terminations.next()).await;
        assert!(repeated.is_err(), "{repeated:?}");
        advance(KEYSTROKE).await;
        interrupt();
        assert_eq!(terminations.next().await, "SIGINT");
    }
}
