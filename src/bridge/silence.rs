//! `expect_every`: which sources have been silent for longer than their operator expects.

use std::time::Duration;

use super::Bridge;
use crate::config::Source;
use crate::flow::silence::Silence;

impl Bridge {
    /// An authentic event of the source has arrived, whatever becomes of it.
    pub(crate) fn observe_authentic(&self, source: &Source) {
        let Some(silence) = self.silences.get(source.index).and_then(Option::as_ref) else {
            return;
        };
        if let Some(length) = silence.end(self.process.clock().now()) {
            log_end(source, length);
        }
    }

    /// Logs the silences that have begun, and those that a longer `expect_every` has ended.
    pub(crate) fn log_silences(&self) {
        for (source, expect_every, silence) in self.expectant() {
            let length = silence.length(self.process.clock().now());
            let is_silent = length > expect_every;
            if !silence.log_is_behind(is_silent) {
                continue;
            }
            if is_silent {
                let (source, expect_every) = (&source.name, seconds(expect_every));
                tracing::warn!(source, %expect_every, "source silent: no authentic event for longer than expect_every");
            } else {
                log_end(source, length);
            }
        }
    }

    /// For `/readyz`.
    pub(super) fn silences_in_words(&self) -> impl Iterator<Item = String> {
        self.expectant().filter_map(|(source, expect_every, silence)| {
            let length = silence.length(self.process.clock().now());
            (length > expect_every).then(|| {
                let (name, length) = (&source.name, seconds(length));
                let expect_every = seconds(expect_every);
                format!(
                    "source {name}: no authentic event for {length} (expect_every is {expect_every})"
                )
            })
        })
    }

    /// Sets `hookbridge_source_silent` and `hookbridge_source_expect_every_seconds`.
    pub(super) fn show_silences(&self) {
        for (source, expect_every, silence) in self.expectant() {
            let metrics = self.handles.sources.get(source.index);
            if let Some(metrics) = metrics.and_then(|metrics| metrics.silence.as_ref()) {
                let is_silent = silence.length(self.process.clock().now()) > expect_every;
                metrics.is_silent.set(i64::from(is_silent));
                metrics.expect_every.set(expect_every.as_secs_f64());
            }
        }
    }

    /// The sources with an `expect_every`.
    fn expectant(&self) -> impl Iterator<Item = (&Source, Duration, &Silence)> {
        let sources = self.config.sources.iter().zip(&self.silences);
        sources.filter_map(|(source, silence)| {
            Some((source.as_ref(), source.expect_every?, silence.as_deref()?))
        })
    }
}

fn log_end(source: &Source, silent_for: Duration) {
    let (source, silent_for) = (&source.name, seconds(silent_for));
    tracing::info!(source, %silent_for, "source no longer silent");
}

fn seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::brokers::Settings;
    use crate::config::Config;

    fn config(sources: &[(&str, &str)]) -> Config {
        let source = |(name, keys): &(&str, &str)| {
            format!(
                "[sources.{name}]\nprovider = \"synq\"\nsecrets = [\"{name}-of-sixteen-bytes\"]\n{keys}\n"
            )
        };
        let sources: String = sources.iter().map(source).collect();
        let broker = format!("[brokers.main]\n{}", Settings::OUT_OF_REACH);
        let route = "[[routes]]\ntopic = \"x\"\n";
        Config::from_text(&(broker + &sources + route))
    }

    fn at(minutes: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + minutes * 60)
    }

    /// The silent sources in `/readyz` and `/metrics` at this minute.
    fn silences(bridge: &Bridge, minute: u64) -> (Vec<String>, Vec<String>) {
        bridge.process().clock().set(at(minute));
        let words = bridge.readiness().missing.into_iter();
        let words = words.filter(|words| words.starts_with("source "));
        let metrics = String::from_utf8(bridge.scrape().unwrap()).unwrap();
        let lines = metrics.lines().filter_map(|line| {
            let line = line.strip_prefix("hookbridge_source_")?;
            (line.starts_with("silent") || line.starts_with("expect_every")).then_some(line)
        });
        (words.collect(), lines.map(str::to_owned).collect())
    }

    fn expect(bridge: &Bridge, minute: u64, words: &[&str], metrics: &[&str]) {
        let (found, lines) = silences(bridge, minute);
        assert_eq!(found, words, "at minute {minute}");
        assert_eq!(lines, metrics, "at minute {minute}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_start_or_the_last_authentic_event_and_a_reload_keeps_it() {
        let hourly = ("hourly", "expect_every = \"1h\"");
        let first = config(&[hourly, ("whenever", "")]);
        let process = std::sync::Arc::new(crate::bridge::process::Process::new(None).unwrap());
        process.clock().set(at(0));
        let bridge = Bridge::assemble(first, process, None).await.unwrap();
        let loud = "silent{source=\"hourly\"} 0";
        let silent = "silent{source=\"hourly\"} 1";
        let hour = "expect_every_seconds{source=\"hourly\"} 3600";
        expect(&bridge, 60, &[], &[hour, loud]);
        let words = "source hourly: no authentic event for 1h 1m (expect_every is 1h)";
        expect(&bridge, 61, &[words], &[hour, silent]);
        bridge.observe_authentic(&bridge.config().sources[0]);
        bridge.observe_authentic(&bridge.config().sources[1]);
        expect(&bridge, 121, &[], &[hour, loud]);

        // The event of minute 61 is remembered, and a source that had none until now counts from here.
        let changed = [
            ("hourly", "expect_every = \"2h\""),
            ("whenever", "expect_every = \"1m\""),
        ];
        let next = bridge.successor(config(&changed)).await.unwrap();
        next.activated(&bridge);
        let (found, lines) = silences(&next, 182);
        let hourly_words = "source hourly: no authentic event for 2h 1m (expect_every is 2h)";
        let other = "source whenever: no authentic event for 1h 1m (expect_every is 1m)";
        assert_eq!(found, [hourly_words, other]);
        assert!(lines.contains(&"expect_every_seconds{source=\"hourly\"} 7200".to_owned()));
        assert!(lines.contains(&"silent{source=\"whenever\"} 1".to_owned()));

        // Nothing of it is left when the key goes.
        let last = next.successor(config(&[("hourly", ""), ("whenever", "")]));
        let last = last.await.unwrap();
        last.activated(&next);
        expect(&last, 999, &[], &[]);
    }
}
