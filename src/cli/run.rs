//! `hookbridge run`

use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigFiles, Done, Outcome, runtime};
use crate::config::ConfigFile;
use crate::reload;
use crate::service::{Ended, Service, termination};

pub(super) fn run(files: &ConfigFiles) -> Outcome {
    let origin = files.origin()?;
    for file in &origin.files {
        if let ConfigFile::Text { name, .. } = file {
            tracing::warn!(
                file = name,
                "the configuration comes from a pipe: a change of it needs a restart"
            );
        }
    }
    let (config, files) = origin.load_with_files();
    let config = config?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let mut terminated = std::pin::pin!(termination()?);
        let hangups = signal(SignalKind::hangup())?;
        let service = Service::start(config).await?;
        service.reload_from(reload::Source {
            origin,
            files,
            hangups,
        });
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
