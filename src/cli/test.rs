//! `hookbridge test`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use http::StatusCode;

use super::cases::{self, Case, Expected};
use super::explain::{AlsoTo, Explanation};
use super::problems::{self, Severity};
use super::{CommandResult, Completion, ConfigFiles, Error, counted, style};
use crate::config::{Config, MAX_FILE};
use crate::ingress::{Decided, Decision, Rehearsal, Verdict};
use crate::printable::printable;
use crate::table::private;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    files: ConfigFiles,
    /// Output format: text for people, or the Test Anything Protocol
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Files with test cases
    #[arg(required = true, value_name = "FILE")]
    cases: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Tap,
}

pub(super) fn run(options: &Options) -> CommandResult {
    let config = options.files.load_without_signing_secrets()?;
    let mut cases = Vec::new();
    let mut problems = Vec::new();
    for file in &options.cases {
        match cases::read(&config, file, &read(file)?) {
            Ok(read) => cases.extend(read),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        for problem in &problems {
            eprintln!("{}", problems::show(Severity::Error, problem));
        }
        let count = counted(problems.len(), "problem");
        return Err(format!("the cases have {count}").into());
    }
    let mut results = Vec::new();
    for case in cases {
        results.push(judge(&config, case)?);
    }
    let text = match options.format {
        Format::Human => to_text(&results),
        Format::Tap => to_tap(&results),
    };
    style::print(text)?;
    let is_well = results.iter().all(CaseResult::is_ok);
    Ok(if is_well {
        Completion::Success
    } else {
        Completion::Failure
    })
}

fn read(file: &Path) -> Result<String, Error> {
    let read = private::read(file, MAX_FILE);
    let read = read.map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    Ok(read.text.to_string())
}

/// A case that was run.
struct CaseResult {
    name: String,
    place: String,
    differences: Vec<Difference>,
    /// The reasons for refusing an event or making it a dead letter.
    reasons: Vec<String>,
}

impl CaseResult {
    fn is_ok(&self) -> bool {
        self.differences.is_empty()
    }
}

struct Difference {
    field: String,
    expected: String,
    found: String,
}

fn judge(config: &Config, case: Case) -> Result<CaseResult, Error> {
    let success = case.source.success_status;
    let query = case.query.as_deref();
    let rehearsal = Rehearsal::new(
        &case.source,
        case.method,
        query,
        case.headers,
        case.body.into(),
    );
    let rehearsal = rehearsal.map_err(|what| format!("{}: {what}", case.place))?;
    let (decided, _) = rehearsal.decide();
    let found = match &decided {
        Decided::Event(decision) => vec![Found::event(config, decision, success)],
        Decided::Batch(decisions) => {
            let events = decisions.iter();
            events
                .map(|decision| Found::event(config, decision, success))
                .collect()
        }
        Decided::Handshake(reply) => vec![Found {
            outcome: "handshake",
            status: reply.status,
            body: Some(String::from_utf8_lossy(&reply.body).into_owned()),
            explanation: Explanation::default(),
        }],
    };
    let is_several = found.len() > 1 || case.expected.len() > 1;
    let mut differences = Vec::new();
    if found.len() != case.expected.len() {
        differences.push(Difference {
            field: "events".to_owned(),
            expected: case.expected.len().to_string(),
            found: found.len().to_string(),
        });
    }
    for (index, (expected, found)) in case.expected.iter().zip(&found).enumerate() {
        let event = is_several.then(|| format!("event {}: ", index + 1));
        let prefix = event.unwrap_or_default();
        differences.extend(found.differences(expected).into_iter().map(|difference| {
            let field = format!("{prefix}{}", difference.field);
            Difference {
                field,
                ..difference
            }
        }));
    }
    let reasons = found.iter().filter_map(Found::reason).collect();
    Ok(CaseResult {
        name: case.name,
        place: case.place,
        differences,
        reasons,
    })
}

/// The actual outcome of an event.
struct Found<'a> {
    outcome: &'static str,
    status: StatusCode,
    body: Option<String>,
    explanation: Explanation<'a>,
}

impl<'a> Found<'a> {
    fn event(config: &'a Config, decision: &'a Decision, success: StatusCode) -> Self {
        let (outcome, status) = match &decision.verdict {
            Verdict::Publish { .. } => ("published", success),
            Verdict::DeadLetter { .. } => ("dead_lettered", success),
            Verdict::Ignore => ("ignored", success),
            Verdict::Refuse(refusal) => ("refused", refusal.status()),
        };
        Self {
            outcome,
            status,
            body: None,
            explanation: Explanation::new(config, decision),
        }
    }

    fn reason(&self) -> Option<String> {
        let (code, detail) = (self.explanation.code?, self.explanation.detail.as_deref());
        let mut reason = format!("{}: {code}", self.outcome);
        if let Some(detail) = detail {
            reason.push_str(": ");
            reason.push_str(detail);
        }
        // The only one is the detail.
        let violations = self.explanation.errors.iter();
        let violations = violations.filter(|_| self.explanation.errors.len() > 1);
        for violation in violations {
            reason.push_str(&format!("; {} {}", violation.pointer, violation.reason));
        }
        Some(reason)
    }

    fn differences(&self, expected: &Expected) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut compare = |field: &str, expected: Option<String>, found: Option<String>| {
            let Some(expected) = expected else { return };
            if found.as_ref() != Some(&expected) {
                differences.push(Difference {
                    field: field.to_owned(),
                    expected,
                    found: found.unwrap_or_else(|| "(none)".to_owned()),
                });
            }
        };
        let text = |text: Option<&str>| text.map(str::to_owned);
        let event = &self.explanation;
        compare("outcome", text(expected.outcome), text(Some(self.outcome)));
        let status = expected.status.map(|status| status.to_string());
        compare("status", status, Some(self.status.as_str().to_owned()));
        let is_failure_expected = expected.code.is_some()
            || expected.pointer.is_some()
            || matches!(expected.outcome, Some("refused" | "dead_lettered"))
            || expected.status.is_some_and(|status| status >= 300);
        match event.code {
            Some(code) if !is_failure_expected => {
                compare("code", text(Some("(none)")), text(Some(code)));
            }
            code => compare("code", expected.code.clone(), text(code)),
        }
        let pointers = || event.errors.iter().map(|error| error.pointer.as_str());
        let is_there = |wanted: &String| pointers().any(|pointer| pointer == wanted);
        if !expected.pointer.as_ref().is_none_or(is_there) {
            let found: Vec<&str> = pointers().collect();
            let found = (!found.is_empty()).then(|| found.join(", "));
            compare("pointer", expected.pointer.clone(), found);
        }
        let route = |route: Option<usize>| route.map(|route| route.to_string());
        compare("id", expected.id.clone(), text(event.event_id));
        compare("type", expected.event_type.clone(), text(event.event_type));
        compare("route", route(expected.route), route(event.route));
        compare("broker", expected.broker.clone(), text(event.broker));
        compare("topic", expected.topic.clone(), text(event.topic));
        compare("key", expected.key.clone(), text(event.key));
        let fallback = event.fallback.as_ref().map(|fallback| fallback.broker);
        compare("fallback", expected.fallback.clone(), text(fallback));
        let copies: Vec<_> = event.copies.iter().map(copy).collect();
        let wanted = expected.copies.as_ref().map(|copies| copies.join(", "));
        compare("copies", wanted, Some(copies.join(", ")));
        for (name, value) in &expected.headers {
            let found = event.headers.get(name).and_then(|value| value.as_str());
            compare(&format!("headers.{name}"), Some(value.clone()), text(found));
        }
        compare("body", expected.body.clone(), self.body.clone());
        differences
    }
}

/// In the form that `check` shows.
fn copy(copy: &AlsoTo<'_>) -> String {
    format!("{}:{}", copy.broker, copy.topic)
}

fn to_text(results: &[CaseResult]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _written = text.write_fmt(format_args!("{line}\n"));
    };
    let is_coloured = style::is_coloured(&std::io::stdout());
    for result in results {
        let (name, place) = (printable(&result.name), &result.place);
        if result.is_ok() {
            line(format_args!("ok    {name}"));
            continue;
        }
        let failed = style::paint(style::RED, "FAIL", is_coloured);
        line(format_args!("{failed}  {name} ({place})"));
        for difference in &result.differences {
            line(format_args!("      {}", printable(&difference.field)));
            line(format_args!("      - {}", printable(&difference.expected)));
            line(format_args!("      + {}", printable(&difference.found)));
        }
        for reason in &result.reasons {
            line(format_args!("      {}", printable(reason)));
        }
    }
    let failed = results.iter().filter(|result| !result.is_ok()).count();
    let cases = counted(results.len(), "case");
    match failed {
        0 => line(format_args!("{cases}, all as expected")),
        failed => line(format_args!(
            "{cases}, {failed} failed (- expected, + found)"
        )),
    }
    text
}

/// The Test Anything Protocol, version 14.
fn to_tap(results: &[CaseResult]) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", results.len());
    for (number, result) in (1..).zip(results) {
        let verdict = if result.is_ok() { "ok" } else { "not ok" };
        let name = printable(&result.name).replace('\\', "\\\\");
        let name = name.replace('#', "\\#");
        text.push_str(&format!("{verdict} {number} - {name}\n"));
        if result.is_ok() {
            continue;
        }
        // JSON's strings are YAML's.
        let quoted = |text: &str| serde_json::Value::from(printable(text)).to_string();
        text.push_str("  ---\n");
        text.push_str(&format!("  at: {}\n", quoted(&result.place)));
        text.push_str("  differences:\n");
        for Difference {
            field,
            expected,
            found,
        } in &result.differences
        {
            text.push_str(&format!(
                "    - field: {}\n      expected: {}\n      found: {}\n",
                quoted(field),
                quoted(expected),
                quoted(found)
            ));
        }
        if !result.reasons.is_empty() {
            text.push_str("  reasons:\n");
        }
        for reason in &result.reasons {
            text.push_str(&format!("    - {}\n", quoted(reason)));
        }
        text.push_str("  ...\n");
    }
    text
}
