//! When the configuration is reloaded, and what is logged about it. [`Live`] replaces it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::system;
use crate::bridge::live::Live;
use crate::config::{Config, Origin};
use crate::table::Files;
use crate::task;

/// Poll interval of the files. A change is read only once it is the same at two polls: a file that is still being written
/// may be valid and lack half of its routes.
const INTERVAL: Duration = Duration::from_secs(2);

/// The triggers of a reload.
#[derive(Debug)]
pub struct Inputs {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// The files of the current configuration.
    pub files: Files,
    /// SIGHUP.
    pub hangups: Signal,
}

/// Reloads the configuration on SIGHUP and when one of its files has changed, until `stop` is cancelled.
pub(crate) async fn keep_reloading(live: Arc<Live>, mut inputs: Inputs, stop: CancellationToken) {
    let listening_at = addresses(live.current().config());
    let mut reload = async || loop {
        reload_once(&live, &mut inputs, listening_at).await;
    };
    // The future is large and rarely polled.
    let reloading = async { while task::survive("reload", Box::pin(reload())).await.is_none() {} };
    tokio::select! {
        () = stop.cancelled() => {}
        () = reloading => {}
    }
}

/// Waits for the next trigger, and reloads once.
async fn reload_once(live: &Live, inputs: &mut Inputs, listening_at: (SocketAddr, SocketAddr)) {
    let why = tokio::select! {
        _ = inputs.hangups.recv() => "SIGHUP".to_owned(),
        changed = change(&inputs.files) => changed,
    };
    tracing::info!(why, "reading the configuration again");
    system::notify_systemd_reloading();
    let reading = inputs.origin.clone();
    let read = tokio::task::spawn_blocking(move || reading.load_with_files()).await;
    let config = match read {
        Ok((config, read)) => {
            inputs.files = read;
            Some(config)
        }
        Err(error) => {
            tracing::error!(%error, "reading it failed");
            None
        }
    };
    let is_done = match config {
        None => false,
        Some(Ok(config)) => apply(live, config, listening_at).await,
        Some(Err(problems)) => {
            for problem in problems.0 {
                tracing::error!("{problem}");
            }
            false
        }
    };
    live.current().process().metrics().note_reload(is_done);
    if !is_done {
        tracing::error!("the configuration was not changed: the one that runs stays");
    }
    system::notify_systemd_ready();
}

async fn apply(live: &Live, config: Config, listening_at: (SocketAddr, SocketAddr)) -> bool {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let (wanted, wanted_admin) = addresses(&config);
    for (key, listening_at, wanted) in [
        ("http.listen", listening_at.0, wanted),
        ("admin.listen", listening_at.1, wanted_admin),
    ] {
        if listening_at != wanted {
            tracing::warn!(key, %listening_at, %wanted, "the address takes effect with a restart");
        }
    }
    if config.http.max_connections != live.current().config().http.max_connections {
        system::raise_open_file_limit(config.http.max_connections);
    }
    let (sources, brokers) = (config.sources.len(), config.brokers.len());
    match live.replace(config).await {
        Ok(change) => {
            let (started, ended) = (change.started.join(","), change.ended.join(","));
            tracing::info!(
                sources,
                brokers,
                clients_started = started,
                clients_ended = ended,
                "the configuration has changed"
            );
            true
        }
        Err(error) => {
            tracing::error!("{error}");
            false
        }
    }
}

fn addresses(config: &Config) -> (SocketAddr, SocketAddr) {
    (config.http.listen, config.admin.listen)
}

/// Waits until files have changed and are stable. Returns their names for the log.
async fn change(files: &Files) -> String {
    let mut last: Option<Files> = None;
    loop {
        tokio::time::sleep_until(Instant::now() + INTERVAL).await;
        let watched = files.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || watched.now()).await else {
            continue;
        };
        if now != *files && last.as_ref() == Some(&now) {
            let changed = now.changed_since(files);
            let names: Vec<_> = changed.map(|path| path.display().to_string()).collect();
            return format!("changed: {}", names.join(", "));
        }
        last = Some(now);
    }
}
