//! The figures as bars, in an SVG without any script.

use std::fmt::Write as _;

use crate::report::{OnBroker, Spread};
use crate::running::Figure;

const WIDTH: f64 = 720.0;
const BAR: f64 = 16.0;
const LABELS: f64 = 150.0;
const BARS: f64 = 420.0;

/// One broker's figures: a group of bars for each number of connections, a whisker from the least to the most.
pub(crate) fn svg(on: &OnBroker) -> Result<String, std::fmt::Error> {
    let mut connections: Vec<usize> = on.runs.iter().map(|run| run.connections).collect();
    connections.sort_unstable();
    connections.dedup();
    let mut body = String::new();
    let mut y = 30.0;
    writeln!(
        body,
        "<text x=\"10\" y=\"20\" font-weight=\"bold\">{}</text>",
        escape(&on.broker)
    )?;
    let charts: [(&str, usize, Figure); 2] = [
        ("events per second", 0, |run| run.per_second),
        ("CPU per event, µs", 1, |run| run.cpu_us),
    ];
    for (title, digits, figure) in charts {
        y += 24.0;
        writeln!(
            body,
            "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{title}</text>"
        )?;
        y += 10.0;
        for connections in &connections {
            let bars: Vec<(&str, Spread)> = on
                .servers
                .iter()
                .filter_map(|server| {
                    on.figures(server.name, *connections, figure)
                        .map(|spread| (server.name, spread))
                })
                .collect();
            // One connection is slow in events a second: each group has a scale of its own.
            let most = bars
                .iter()
                .map(|(_, spread)| spread.max)
                .fold(f64::MIN_POSITIVE, f64::max);
            for (index, (name, spread)) in bars.iter().enumerate() {
                let label = if index == 0 {
                    format!("{connections} connections")
                } else {
                    String::new()
                };
                bar(&mut body, y, (&label, name), *spread, BARS / most, digits)?;
                y += BAR + 3.0;
            }
            y += 8.0;
        }
    }
    for server in &on.servers {
        y += 18.0;
        writeln!(
            body,
            "<text x=\"10\" y=\"{y}\">{}: {}</text>",
            server.name,
            escape(&server.title)
        )?;
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        height = y + 16.0
    ))
}

fn bar(
    body: &mut String,
    y: f64,
    (label, name): (&str, &str),
    spread: Spread,
    scale: f64,
    digits: usize,
) -> std::fmt::Result {
    let fill = match name {
        "answer" => "#b8c4ce",
        "publish" => "#8fb3d1",
        "sketch" => "#e0a458",
        "bridge" => "#2f6690",
        _ => "#81b29a",
    };
    let (middle, baseline) = (y + BAR / 2.0, y + BAR - 4.0);
    let at = |value: f64| value.mul_add(scale, LABELS);
    writeln!(
        body,
        "<text x=\"10\" y=\"{baseline}\">{label}</text><text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{name}</text>",
        LABELS - 6.0
    )?;
    writeln!(
        body,
        "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>",
        spread.median * scale
    )?;
    writeln!(
        body,
        "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>",
        at(spread.min),
        at(spread.max)
    )?;
    writeln!(
        body,
        "<text x=\"{:.1}\" y=\"{baseline}\">{:.digits$}</text>",
        at(spread.max) + 6.0,
        spread.median
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
