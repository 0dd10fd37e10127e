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
    live.process().metrics().note_reload(is_done);
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
    let changes = config
        .digests
        .changes_since(&live.current().config().digests);
    match live.replace(config).await {
        Ok(change) => {
            let (started, ended) = (change.started.join(","), change.ended.join(","));
            tracing::info!(
                sources,
                brokers,
                clients_started = started,
                clients_ended = ended,
                added = listed(&changes.added),
                removed = listed(&changes.removed),
                changed = listed(&changes.changed),
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

/// The names, as far as a line has room for them.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let shown: Vec<_> = names.iter().take(MOST).map(String::as_str).collect();
    let shown = shown.join(", ");
    match names.len().checked_sub(MOST) {
        Some(left @ 1..) => format!("{shown} and {left} more"),
        _ => shown,
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

#[cfg(feature = "nats")]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tokio::signal::unix::{SignalKind, signal};
    use tokio::time::{sleep_until, timeout};

    use super::*;
    use crate::config::ConfigFile;

    /// A test's own file.
    struct File(PathBuf);

    impl File {
        fn new(test: &str, text: &str) -> Self {
            let name = format!("hookbridge-reload-{}-{test}.toml", std::process::id());
            let file = Self(std::env::temp_dir().join(name));
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    /// In front of a broker that nobody has started.
    fn text(http: &str) -> String {
        format!(
            "[http]\n{http}\n[brokers.main]\nkind = \"nats\"\nservers = [\"nats://127.0.0.1:1\"]\n\
             [sources.synq]\nsecrets = [\"s3cr3t-of-16-bytes\"]\n[[routes]]\ntopic = \"x\"\n"
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_has_stopped_changing_and_not_before() {
        let file = File::new("pieces", "");
        let mut files = Files::default();
        files.note(&file.0);
        let mut changed = std::pin::pin!(change(&files));
        // Between two polls.
        let unchanged = timeout(INTERVAL * 10 + INTERVAL / 2, &mut changed).await;
        assert!(unchanged.is_err(), "nothing has changed: {unchanged:?}");
        // Written piece by piece, one between each two polls.
        for pieces in 1..=3 {
            file.write(&"x".repeat(pieces));
            let early = timeout(INTERVAL, &mut changed).await;
            assert!(early.is_err(), "after {pieces} pieces: {early:?}");
        }
        let why = timeout(INTERVAL * 2, changed).await.expect("a change");
        assert_eq!(why, format!("changed: {}", file.0.display()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mistake_changes_nothing_until_it_is_corrected() {
        let file = File::new("mistake", &text("idle_timeout = \"10s\""));
        let origin = Origin {
            files: vec![ConfigFile::Path(file.0.clone())],
            environment: Vec::new(),
        };
        let (config, files) = origin.load_with_files();
        let live = Live::start(config.unwrap()).await.unwrap();
        let inputs = Inputs {
            origin,
            files,
            hangups: signal(SignalKind::hangup()).unwrap(),
        };
        let stop = CancellationToken::new();
        let reloading = keep_reloading(Arc::clone(&live), inputs, stop.clone());
        let reloading = tokio::spawn(reloading);
        let before = live.current();
        let is_good = || {
            let text = before.process().metrics().encode().unwrap();
            let text = String::from_utf8(text).unwrap();
            text.contains("hookbridge_config_last_reload_successful 1")
        };
        let wrong_type = text("idle_timeout = \"soon\"");
        let mistakes: [&dyn Fn(); 3] = [
            &|| file.write(&wrong_type),
            &|| file.write("[http\n"),
            &|| fs::remove_file(&file.0).unwrap(),
        ];
        assert!(is_good());
        sleep_until(Instant::now() + INTERVAL / 2).await;
        for (number, mistake) in mistakes.into_iter().enumerate() {
            mistake();
            sleep_until(Instant::now() + INTERVAL * 3).await;
            assert!(!is_good(), "mistake {number}");
            assert!(Arc::ptr_eq(&before, &live.current()));
        }
        file.write(&text("idle_timeout = \"11s\""));
        sleep_until(Instant::now() + INTERVAL * 3).await;
        assert!(is_good());
        let idle_timeout = live.current().config().http.idle_timeout;
        assert_eq!(idle_timeout, Duration::from_secs(11));
        stop.cancel();
        let ended = timeout(INTERVAL, reloading).await;
        ended.expect("it stops on request").unwrap();
    }
}
