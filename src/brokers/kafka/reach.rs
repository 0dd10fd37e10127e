//! `check --connect`: reaches the cluster step by step as `run` would, and reports the step that failed.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode as Code;

use super::metadata::{Cluster as _, Fault, Surveyed, survey};
use super::tokens::missing_token;
use super::trial::{Trial, WriteAccess};
use super::{Settings, describe};
use crate::brokers::durability::{Assessment, Finding};
use crate::brokers::error::RequestError;
use crate::brokers::health::Limits;

/// Limit for connecting to any broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(7);
/// After this time, complaints about all servers are taken as the cause.
const SETTLING_TIME: Duration = Duration::from_millis(1500);
/// Limit of one metadata request while not connected.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Limit for determining the right to write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit of all steps together.
const TIMEOUT: Duration = Duration::from_millis(9500);

/// Reaches the cluster, and determines whether the user may write to it.
///
/// # Errors
/// The step that failed.
pub(in crate::brokers) async fn reach(
    settings: &Settings,
    topics: &[String],
    limits: Limits,
) -> Result<Vec<Finding>, RequestError> {
    let (settings, topics) = (settings.clone(), topics.to_owned());
    let reaching = tokio::task::spawn_blocking(move || blocking(&settings, &topics, limits));
    match tokio::time::timeout(TIMEOUT, reaching).await {
        Ok(reached) => reached.unwrap_or_else(|error| Err(error.to_string().into())),
        Err(_) => Err(format!("the cluster did not answer within {TIMEOUT:?}").into()),
    }
}

fn blocking(
    settings: &Settings,
    topics: &[String],
    limits: Limits,
) -> Result<Vec<Finding>, RequestError> {
    let trial = Trial::start(settings, limits).map_err(|error| describe(&error))?;
    connect(&trial, topics)?;
    let faults = match survey(trial.client(), topics)? {
        Surveyed::Whole(faults) | Surveyed::Part(faults) => faults,
    };
    let mut findings: Vec<Finding> = faults
        .into_iter()
        .filter(|(_, fault)| *fault == Fault::Hidden)
        .map(|(topic, _)| {
            finding(
                &topic,
                Assessment::Unusable(
                    "the user may not see the topic: it needs Write (or Describe) on it".to_owned(),
                ),
            )
        })
        .collect();
    let is_hidden = |topic: &&String| findings.iter().any(|found| found.destination == **topic);
    let seen: Vec<&String> = topics.iter().filter(|topic| !is_hidden(topic)).collect();
    let assessment = match trial.write_access(WRITE_TIMEOUT) {
        WriteAccess::Denied(why) => Assessment::Unusable(why),
        WriteAccess::Allowed if settings.has_identity() => Assessment::Unknown(
            "the user may write to some topic; whether to this one can't be asked without writing to it, so the first event will tell".to_owned(),
        ),
        WriteAccess::Allowed => return Ok(findings),
        WriteAccess::Unknown => {
            if let Some(why) = cause(&trial.complaints()) {
                return Err(format!(
                    "the bootstrap server answers, but the brokers that it names do not: {why}"
                )
                .into());
            }
            Assessment::Unknown(
                "whether the user may write there could not be found out".to_owned(),
            )
        }
    };
    findings.extend(
        seen.into_iter()
            .map(|topic| finding(topic, assessment.clone())),
    );
    Ok(findings)
}

fn finding(topic: &str, assessment: Assessment) -> Finding {
    Finding {
        destination: topic.to_owned(),
        check: "write",
        assessment,
    }
}

/// Waits until a broker answers.
fn connect(trial: &Trial, topics: &[String]) -> Result<(), RequestError> {
    let began = Instant::now();
    loop {
        let answer = match topics.first() {
            Some(topic) => trial.client().topic(topic, ASK_TIMEOUT).map(drop),
            None => trial.client().all(ASK_TIMEOUT).map(drop),
        };
        let Err(silence) = answer else { return Ok(()) };
        trial.listen();
        let complaints = trial.complaints();
        let are_all_down = complaints
            .iter()
            .any(|(code, _)| *code == Code::AllBrokersDown);
        let mut reasons = complaints.iter().map(|(_, reason)| reason);
        let lacks_token = reasons.any(|reason| missing_token(reason).is_some());
        let is_certain = lacks_token || are_all_down && began.elapsed() >= SETTLING_TIME;
        if is_certain || began.elapsed() >= CONNECT_TIMEOUT {
            return Err(cause(&complaints).map_or(silence, RequestError));
        }
    }
}

/// The cause behind the complaints: the furthest step is the one to fix.
fn cause(complaints: &[(Code, String)]) -> Option<String> {
    let mut steps: Vec<(Step, &str)> = complaints
        .iter()
        .filter_map(|(code, reason)| Some((step(*code, reason)?, reason.as_str())))
        .collect();
    steps.sort_by_key(|(step, _)| *step);
    let (step, reason) = steps.last()?;
    let reason = missing_token(reason).unwrap_or(reason);
    Some(format!("{}: {reason}", step.name()))
}

/// The steps to a cluster, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Name,
    Tcp,
    /// Connected to something that does not speak Kafka, or expects another protocol.
    Protocol,
    Http,
    TlsExpected,
    Tls,
    PlainExpected,
    Authentication,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name resolution failed",
            Self::Tcp => "no TCP connection",
            Self::Protocol => "connected, but Kafka does not answer there",
            Self::Http => "an HTTP server answers there, not Kafka",
            Self::TlsExpected => {
                "the port may want TLS (security.protocol = \"ssl\" or \"sasl_ssl\")"
            }
            Self::Tls => "TLS failed",
            Self::PlainExpected => {
                "TLS failed: the port does not speak it (security.protocol = \"plaintext\" or \"sasl_plaintext\")"
            }
            Self::Authentication => "authentication failed",
        }
    }
}

/// The step at which a connection with this error failed; none if the error does not tell.
fn step(code: Code, reason: &str) -> Option<Step> {
    let says = |what: &str| reason.contains(what);
    let step = match code {
        Code::AllBrokersDown | Code::Fatal => return None,
        Code::Resolve => Step::Name,
        _ if says("Failed to resolve") => Step::Name,
        Code::Authentication | Code::SaslAuthenticationFailed => Step::Authentication,
        Code::SSL if says("PLAINTEXT") || says("wrong version number") => Step::PlainExpected,
        Code::SSL => Step::Tls,
        // "HTTP" read as a length.
        _ if says("1213486160") => Step::Http,
        // The start of a TLS alert (0x150303..) read as a length.
        _ if says("connecting to a SSL listener") || says("response size 35251") => {
            Step::TlsExpected
        }
        // Kafka closes a connection to a TLS port whose first bytes are not TLS.
        _ if says("APIVERSION_QUERY") && says("connection closed by peer") => Step::TlsExpected,
        _ if says("PLAINTEXT broker listener") => Step::PlainExpected,
        _ if says("in state CONNECT") || says("Connect to ") => Step::Tcp,
        _ if says("SSL_HANDSHAKE") => Step::Tls,
        _ if says("AUTH") || says("SASL") => Step::Authentication,
        _ => Step::Protocol,
    };
    Some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_got_furthest_is_the_cause() {
        let complaints = [
            (
                Code::BrokerTransportFailure,
                "a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
            ),
            (
                Code::Authentication,
                "b:1/bootstrap: SASL authentication error: Authentication failed",
            ),
            (
                Code::Resolve,
                "c:1/bootstrap: Failed to resolve 'c:1': Name or service not known",
            ),
            (Code::AllBrokersDown, "3/3 brokers are down"),
        ];
        let complaints = complaints.map(|(code, reason)| (code, reason.to_owned()));
        let why = cause(&complaints).unwrap();
        assert!(why.starts_with("authentication failed: b:1"), "{why}");
        assert_eq!(cause(&complaints[3..]), None);
    }

    #[test]
    fn librdkafkas_words_tell_the_steps_apart() {
        for (code, reason, expected) in [
            (Code::Resolve, "Failed to resolve 'x:9092'", Step::Name),
            (
                Code::BrokerTransportFailure,
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                Step::Tcp,
            ),
            (
                Code::BrokerTransportFailure,
                "Connection setup timed out in state CONNECT",
                Step::Tcp,
            ),
            (
                Code::BrokerTransportFailure,
                "Connection setup timed out in state APIVERSION_QUERY",
                Step::Protocol,
            ),
            (
                Code::BrokerTransportFailure,
                "Connection setup timed out in state SSL_HANDSHAKE",
                Step::Tls,
            ),
            (
                Code::BrokerTransportFailure,
                "Disconnected: connection closing during ApiVersion request (connecting to a SSL listener?)",
                Step::TlsExpected,
            ),
            (
                Code::SSL,
                "SSL handshake failed: error:0A00010B:SSL routines::wrong version number: (connecting to a PLAINTEXT broker listener?)",
                Step::PlainExpected,
            ),
            (
                Code::SSL,
                "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed",
                Step::Tls,
            ),
            (
                Code::BadMessage,
                "Receive failed: Invalid response size 1213486160",
                Step::Http,
            ),
            (
                Code::Authentication,
                "SASL authentication error",
                Step::Authentication,
            ),
        ] {
            assert_eq!(step(code, reason), Some(expected), "{reason}");
        }
    }
}
