//! `hookbridge run`

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::{CommandResult, Completion, ConfigFiles, Error, SUCCESS_FLUSH, runtime};
use crate::config::{ConfigFile, Origin};
use crate::service::{Ended, Service, Terminations, reload};
use crate::table::Files;
use crate::{task, telemetry, trace};

/// Time allowed for the last log lines.
const MAX_FLUSH: Duration = Duration::from_secs(5);

pub(super) fn run(files: &ConfigFiles) -> CommandResult {
    let runtime = runtime()?;
    let done = runtime.block_on(serve(files.clone()));
    // Blocking tasks must not delay the exit.
    runtime.shutdown_background();
    done
}

async fn serve(files: ConfigFiles) -> CommandResult {
    // Installed before anything that takes time: until then each of these signals ends the process.
    let mut terminations = Terminations::listen()?;
    let hangups = signal(SignalKind::hangup())?;
    let (service, origin, files) = tokio::select! {
        started = start(files) => started?,
        signal = terminations.next() => {
            tracing::info!(signal, "shutdown requested during startup");
            return Ok(Completion::Success);
        }
    };
    service.reload_from(reload::Inputs {
        origin,
        files,
        hangups,
    });
    let failed = tokio::select! {
        signal = terminations.next() => {
            tracing::info!(signal, "shutdown requested");
            None
        }
        failed = task::failed() => Some(failed),
    };
    let deadline = Instant::now() + service.shutdown_timeout();
    let ended = tokio::select! {
        ended = service.shut_down() => ended,
        signal = terminations.next() => {
            return Err(format!("a second {signal} ended the service immediately").into());
        }
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // The remaining cleanup happens in `main`.
    telemetry::flush(left.saturating_sub(SUCCESS_FLUSH).min(MAX_FLUSH));
    match failed {
        Some(task) => Err(format!("{task}, which the service needs, panicked").into()),
        None if ended == Ended::Clean => Ok(Completion::Success),
        None => Ok(Completion::Failure),
    }
}

async fn start(
    files: ConfigFiles,
) -> Result<(Service, Origin, Files), Box<dyn std::error::Error + Send + Sync>> {
    let reading = move || {
        let origin = files.origin()?;
        let (config, files) = origin.load_with_files();
        Ok::<_, Error>((config?, origin, files, trace::Settings::from_environment()?))
    };
    let (config, origin, files, traces) = tokio::task::spawn_blocking(reading).await??;
    for file in &origin.files {
        if let ConfigFile::Text { name, .. } = file {
            tracing::warn!(
                file = name,
                "the configuration comes from a pipe; changes need a restart"
            );
        }
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok((Service::start_traced(config, traces).await?, origin, files))
}
