//! The service: listeners, signals, and the order in which it all ends.

mod admin;
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
use crate::{ingress, task};
use system::{make_room, tell_systemd, tell_systemd_of_readiness};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What of `shutdown_timeout` is kept for the last answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A service that takes events.
#[derive(Debug)]
pub struct Service {
    live: Arc<Live>,
    address: SocketAddr,
    admin_address: SocketAddr,
    /// Ends the public listener and asks its connections to end.
    stop: CancellationToken,
    /// Ends the admin listener, which answers until the end.
    stop_admin: CancellationToken,
    /// Ends reloads and inspections, which a service that ends needs no more.
    stop_reloading: CancellationToken,
    connections: TaskTracker,
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered and every message confirmed.
    Clean,
    /// Something was left when the time was up.
    Late,
}

impl Service {
    /// Starts the brokers' clients and both listeners. Does not wait for the brokers.
    ///
    /// # Errors
    /// An address that can't be listened at, or settings that a client does not take.
    pub async fn start(config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        make_room(config.http.max_connections);
        let (listen, admin_listen) = (config.http.listen, config.admin.listen);
        let listener = bind(listen)?;
        let admin_listener = bind(admin_listen)?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let service = Self {
            live: Live::start(config).await?,
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
            admin::serve(Arc::clone(&admin_listener), Arc::clone(&live), stop.clone())
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop.clone());
        let connections = service.connections.clone();
        task::spawn_restarting("public listener", move || {
            let (listener, live) = (Arc::clone(&listener), Arc::clone(&live));
            ingress::accept::serve(listener, live, stop.clone(), connections.clone())
        });
        let (live, stop) = (Arc::clone(&service.live), service.stop_reloading.clone());
        task::spawn_restarting("destination checks", move || {
            keep_looking(Arc::clone(&live), stop.clone())
        });
        tracing::info!(listener = "admin", address = %admin_address, "listening");
        tracing::info!(listener = "public", address = %address, "listening");
        tell_systemd_of_readiness();
        Ok(service)
    }

    /// Reads the configuration again whenever it may have changed.
    pub fn reload_from(&self, source: reload::Source) {
        tokio::spawn(keep_reloading(
            Arc::clone(&self.live),
            source,
            self.stop_reloading.clone(),
        ));
    }

    /// How long [`shut_down`](Self::shut_down) may take.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.live.current().config().http.shutdown_timeout
    }

    /// Where events are posted to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin listener is.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Ends it: `/readyz` says no, the listener closes after `drain_delay`, requests that are under way are finished,
    /// the brokers are flushed. It takes no longer than `shutdown_timeout`.
    pub async fn shut_down(self) -> Ended {
        self.stop_reloading.cancel();
        let bridge = self.live.current();
        let (http, process) = (&bridge.config().http, bridge.process());
        let deadline = Instant::now() + http.shutdown_timeout;
        process.begin_draining();
        tracing::info!(in_flight = bridge.permits().events_taken(), "draining");
        tell_systemd(&[NotifyState::Stopping]);
        tokio::time::sleep_until(Instant::now() + http.drain_delay).await;
        self.stop.cancel();
        self.connections.close();
        let last_call = deadline - LAST_WORDS.min(http.shutdown_timeout / 2);
        let mut answered = tokio::time::timeout_at(last_call, self.connections.wait())
            .await
            .is_ok();
        // Connections that are left get no further request in.
        process.begin_closing();
        if !answered {
            // What is left of the time is for the answers of those who still wait for a broker.
            self.live.give_up();
            answered = tokio::time::timeout_at(deadline, self.connections.wait())
                .await
                .is_ok();
        }
        let unconfirmed = self.live.drain(deadline).await;
        self.stop_admin.cancel();
        let connections = self.connections.len();
        if answered && unconfirmed == 0 {
            tracing::info!("ended: every request was answered");
            Ended::Clean
        } else {
            tracing::warn!(
                connections,
                unconfirmed,
                "ended: the time was up before everything was finished"
            );
            Ended::Late
        }
    }
}

/// Inspects the destinations of the configuration that runs, until the service begins to end.
async fn keep_looking(live: Arc<Live>, stop: CancellationToken) {
    loop {
        let bridge = live.current();
        tokio::select! {
            () = stop.cancelled() => return,
            () = live.changed() => {}
            () = bridge.keep_inspecting() => {}
        }
    }
}

/// SIGTERM and SIGINT. From here on they end the process no more by themselves.
#[derive(Debug)]
pub struct Terminations {
    terminate: Signal,
    interrupt: Signal,
}

impl Terminations {
    /// Listens for the signals.
    ///
    /// # Errors
    /// The system's, when the signals can't be listened for.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the next one's name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Resolves with the first SIGTERM or SIGINT.
///
/// # Errors
/// The system's, when the signals can't be listened for.
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

/// An address that can't be listened at.
#[derive(Debug, thiserror::Error)]
#[error("can't listen at {address}")]
struct BindError {
    address: SocketAddr,
    #[source]
    cause: std::io::Error,
}
