//! OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), which the `prometheus` crate does not write.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::{Exemplar, Exemplars};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The families as text. `exemplars` finds those of a family's series by the value of its only label.
pub(super) fn encode<'e>(
    families: &[MetricFamily],
    exemplars: impl Fn(&str, &str) -> Option<&'e Exemplars>,
) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    for family in families {
        let kind = family.get_field_type();
        let name = match kind {
            MetricType::COUNTER => family
                .name()
                .strip_suffix("_total")
                .unwrap_or(family.name()),
            _ => family.name(),
        };
        let type_name = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            // The bridge has none of these.
            MetricType::SUMMARY | MetricType::UNTYPED => continue,
        };
        text.push(&["# HELP ", name, " "]);
        text.escaped(family.help());
        text.push(&["\n# TYPE ", name, " ", type_name, "\n"]);
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match kind {
                MetricType::COUNTER => {
                    let value = metric.get_counter().get_value();
                    text.sample(&[name, "_total"], labels, None, value);
                }
                MetricType::GAUGE => {
                    text.sample(&[name], labels, None, metric.get_gauge().get_value());
                }
                _ => {
                    let histogram = metric.get_histogram();
                    let count = histogram.get_sample_count();
                    let found = labels.first();
                    let found = found.and_then(|label| exemplars(family.name(), label.value()));
                    let buckets = histogram.get_bucket().iter();
                    let buckets = buckets
                        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                        .filter(|(bound, _)| bound.is_finite())
                        .chain([(f64::INFINITY, count)]);
                    for (index, (bound, cumulative)) in buckets.enumerate() {
                        text.name_and_labels(&[name, "_bucket"], labels, Some(bound));
                        text.push(&[" ", &cumulative.to_string()]);
                        text.exemplar(found.and_then(|found| found.of_bucket(index)));
                        text.push(&["\n"]);
                    }
                    text.name_and_labels(&[name, "_count"], labels, None);
                    text.push(&[" ", &count.to_string(), "\n"]);
                    text.sample(&[name, "_sum"], labels, None, histogram.get_sample_sum());
                }
            }
        }
    }
    text.push(&["# EOF\n"]);
    text.0
}

struct Text(String);

impl Text {
    fn push(&mut self, parts: &[&str]) {
        self.0.extend(parts.iter().copied());
    }

    fn sample(&mut self, name: &[&str], labels: &[LabelPair], bound: Option<f64>, value: f64) {
        self.name_and_labels(name, labels, bound);
        self.push(&[" ", &number(value), "\n"]);
    }

    fn name_and_labels(&mut self, name: &[&str], labels: &[LabelPair], bound: Option<f64>) {
        self.push(name);
        let mut separator = "{";
        for label in labels {
            self.push(&[separator, label.name(), "=\""]);
            self.escaped(label.value());
            self.push(&["\""]);
            separator = ",";
        }
        if let Some(bound) = bound {
            self.push(&[separator, "le=\"", &number(bound), "\""]);
            separator = ",";
        }
        if separator == "," {
            self.push(&["}"]);
        }
    }

    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }

    fn exemplar(&mut self, exemplar: Option<Exemplar>) {
        if let Some(Exemplar {
            trace_id,
            value,
            at,
        }) = exemplar
        {
            // Writing to a string does not fail.
            let _written = write!(self.0, " # {{trace_id=\"{trace_id}\"}} {value} {at:.3}");
        }
    }
}

/// Infinity has a sign, and a whole number a fraction: then a bucket's bound is the same text for every exposer.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceId;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
    use std::time::Duration;

    #[test]
    fn each_type_is_written_as_the_specification_says() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "It \"counts\" \\"), &["x"]).unwrap();
        counter
            .get_metric_with_label_values(&["q\"\\\n"])
            .unwrap()
            .inc_by(3);
        let gauge = IntGauge::new("b", "A gauge").unwrap();
        gauge.set(-2);
        let buckets = super::super::BUCKETS.to_vec();
        let histogram = HistogramVec::new(
            HistogramOpts::new("c_seconds", "Some").buckets(buckets),
            &["source"],
        )
        .unwrap();
        let series = histogram.get_metric_with_label_values(&["s"]).unwrap();
        for seconds in [0.0004, 1.0, 40.0] {
            series.observe(seconds);
        }
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let exemplars = Exemplars::default();
        let (first, last) = (TraceId::random(), TraceId::random());
        exemplars.note(Duration::from_secs(1), TraceId::random());
        exemplars.note(Duration::from_secs(1), first);
        exemplars.note(Duration::from_secs(40), last);
        let text = encode(&registry.gather(), |family, source| {
            (family == "c_seconds" && source == "s").then_some(&exemplars)
        });
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "# HELP a It \\\"counts\\\" \\\\",
            "# TYPE a counter",
            "a_total{x=\"q\\\"\\\\\\n\"} 3.0",
            "# TYPE b gauge",
            "b -2.0",
            "# TYPE c_seconds histogram",
            "c_seconds_bucket{source=\"s\",le=\"0.0005\"} 1",
            "c_seconds_count{source=\"s\"} 3",
            "c_seconds_sum{source=\"s\"} 41.0004",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        for (le, count, trace_id, value) in [("1.0", 2, first, "1"), ("+Inf", 3, last, "40")] {
            let start = format!(
                "c_seconds_bucket{{source=\"s\",le=\"{le}\"}} {count} # {{trace_id=\"{trace_id}\"}} {value} "
            );
            assert!(text.contains(&start), "{start}\n{text}");
        }
        assert_eq!(text.matches(" # {").count(), 2);
        assert_eq!(lines.last(), Some(&"# EOF"));
    }
}
