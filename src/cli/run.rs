//! `hookbridge run`

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::{ConfigFiles, Done, ENDED_FLUSH, Error, Outcome, runtime};
use crate::config::{ConfigFile, Origin};
use crate::service::{Ended, Service, Terminations, reload};
use crate::table::Files;
use crate::{task, telemetry, trace};

/// The longest time for the last log lines.
const LONGEST_FLUSH: Duration = Duration::from_secs(5);

pub(super) fn run(files: &ConfigFiles) -> Outcome {
    let runtime = runtime()?;
    let done = runtime.block_on(serve(files.clone()));
    // What still blocks must not hold the process.
    runtime.shutdown_background();
    done
}

async fn serve(files: ConfigFiles) -> Outcome {
    // Before anything that takes time: until then each of these signals ends the process.
    let mut terminations = Terminations::listen()?;
    let hangups = signal(SignalKind::hangup())?;
    let (service, origin, files) = tokio::select! {
        started = start(files) => started?,
        signal = terminations.next() => {
            tracing::info!(signal, "asked to end before it had started");
            return Ok(Done::Well);
        }
    };
    service.reload_from(reload::Inputs {
        origin,
        files,
        hangups,
    });
    let failed = tokio::select! {
        signal = terminations.next() => {
            tracing::info!(signal, "asked to end");
            None
        }
        failed = task::failed() => Some(failed),
    };
    let deadline = Instant::now() + service.shutdown_timeout();
    let ended = tokio::select! {
        ended = service.shut_down() => ended,
        signal = terminations.next() => {
            return Err(format!("a second {signal} ended the service at once").into());
        }
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // What is left then is for `main`.
    telemetry::flush(left.saturating_sub(ENDED_FLUSH).min(LONGEST_FLUSH));
    match failed {
        Some(task) => Err(format!("{task}, which the service needs, has panicked").into()),
        None if ended == Ended::Clean => Ok(Done::Well),
        None => Ok(Done::Badly),
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
                "the configuration comes from a pipe: a change of it needs a restart"
            );
        }
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok((Service::start_traced(config, traces).await?, origin, files))
}
