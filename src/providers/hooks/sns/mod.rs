//! Amazon SNS: the signature is in the body, over some of its members, with a certificate that the body names.
//!
//! The signed text has a line with the name and one with the value of each member, in a fixed order (AWS's developer
//! guide, "Verifying the signatures of Amazon SNS messages").

mod certificate;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod url;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::HeaderMap;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value};

use super::super::handshake::FollowUp;
use super::super::request::{Request, Scope};
use super::super::scheme::{Tolerance, Unit, Unverified};
use super::super::unsigned::{SignError, Signed, Unsigned};
use super::super::verifier::{Preparation, Verifier};
use crate::event::Refusal;
use crate::json::{Document, Node};
use crate::secret::Secret;
use crate::table::Section;
use crate::telemetry::LogThrottle;

use certificate::{Certificate, Version};
use store::{Fetched, Pinned};

const NOTIFICATION: &str = "Notification";
const SUBSCRIPTION: &str = "SubscriptionConfirmation";
const UNSUBSCRIPTION: &str = "UnsubscribeConfirmation";

/// The signed members in order.
const SIGNED_IN_NOTIFICATION: [&str; 6] = [
    "Message",
    "MessageId",
    "Subject",
    "Timestamp",
    "TopicArn",
    "Type",
];
const SIGNED_IN_CONFIRMATION: [&str; 7] = [
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// Retries may take an hour and keep the first delivery's time.
const MIN_TOLERANCE: Duration = Duration::from_secs(2 * 3600);

/// Verifies messages of the topics that a source lists.
#[derive(Debug)]
struct Sns {
    topics: Vec<String>,
    versions: Vec<Version>,
    pinned: Pinned,
    /// Fetches certificates, if allowed.
    fetched: Option<Arc<Fetched>>,
    confirms_subscriptions: bool,
    tolerance: Option<Duration>,
    unknown_certificates: LogThrottle,
}

/// Reads the keys of the preset.
pub(super) fn read(
    source: &mut Section<'_>,
    verify: &mut Section<'_>,
    secrets: Vec<Secret>,
    tolerance: Option<Duration>,
) -> Option<Box<dyn Verifier>> {
    if !secrets.is_empty() {
        source.warn_at(
            "secrets",
            "has no effect: SNS signs with Amazon's certificates; remove it",
        );
    }
    if tolerance.is_some_and(|tolerance| tolerance < MIN_TOLERANCE) {
        source.warn_at(
            "tolerance",
            "SNS repeats a message for up to an hour, with its original time: less than 2h refuses late ones",
        );
    }
    let topics = read_topics(source);
    let versions = verify.texts("versions").unwrap_or_default();
    let fetches = source.flag("fetch_certificates");
    let has_folder = source.has("certificates");
    let pinned = store::read_folder(source, "certificates");
    if !has_folder && !fetches {
        source.problem("has no certificate to verify messages with; write `certificates = \"FOLDER\"` with the PEM files that SigningCertURL names, or `fetch_certificates = true`");
    }
    Some(Box::new(Sns {
        topics,
        versions: versions
            .iter()
            .filter_map(|version| to_version(version))
            .collect(),
        pinned: pinned.unwrap_or_default(),
        fetched: fetches.then(Fetched::shared),
        confirms_subscriptions: source.flag("confirm_subscriptions"),
        tolerance,
        unknown_certificates: LogThrottle::default(),
    }))
}

fn read_topics(source: &mut Section<'_>) -> Vec<String> {
    let example = "[\"arn:aws:sns:eu-central-1:111122223333:orders\"]";
    let Some(topics) = source
        .texts("topic_arns")
        .filter(|topics| !topics.is_empty())
    else {
        source.problem(format!(
            "lacks `topic_arns`, and anyone can subscribe your URL to a topic of their own; write for example `topic_arns = {example}`"
        ));
        return Vec::new();
    };
    for (index, topic) in topics.iter().enumerate() {
        let parts: Vec<_> = topic.split(':').collect();
        let is_arn = matches!(parts.as_slice(), ["arn", partition, "sns", region, account, name]
            if [partition, region, account, name].iter().all(|part| !part.is_empty() && !part.contains(['*', '?'])));
        if !is_arn {
            let at = format!("topic_arns[{index}]");
            let shown = source.quote(&at, topic);
            source.problem_at(
                &at,
                format!("{shown} is not the ARN of one topic; write for example {example}"),
            );
        }
    }
    topics
}

fn to_version(text: &str) -> Option<Version> {
    match text {
        "1" => Some(Version::One),
        "2" => Some(Version::Two),
        _ => None,
    }
}

/// The signed text; `None` if a member is missing or the type is unknown.
fn signed_text<'m>(member: impl Fn(&'static str) -> Option<Cow<'m, str>>) -> Option<Vec<u8>> {
    let event_type = member("Type")?;
    let names: &[&'static str] = match event_type.as_ref() {
        NOTIFICATION => &SIGNED_IN_NOTIFICATION,
        SUBSCRIPTION | UNSUBSCRIPTION => &SIGNED_IN_CONFIRMATION,
        _ => return None,
    };
    let mut text = Vec::new();
    for name in names {
        let Some(value) = member(name) else {
            match *name {
                "Subject" => continue,
                _ => return None,
            }
        };
        for line in [name.as_bytes(), value.as_bytes()] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    Some(text)
}

/// A string member.
fn text<'d>(message: Node<'d>, name: &str) -> Option<Cow<'d, str>> {
    message.get(name)?.as_str()
}

impl Sns {
    fn certificate(&self, url: &str) -> Option<Arc<Certificate>> {
        let pinned = self.pinned.get(url::certificate_name(url)?);
        let fetched = || self.fetched.as_ref()?.get(url);
        pinned.cloned().or_else(fetched)
    }

    fn is_of_topic(&self, message: Node<'_>) -> bool {
        text(message, "TopicArn")
            .is_some_and(|topic| self.topics.iter().any(|known| *known == topic))
    }

    fn verify_message(&self, message: Node<'_>, request: &Request<'_>) -> Result<(), Unverified> {
        let part = |name| text(message, name).filter(|text| !text.is_empty());
        let (Some(signature), Some(url), Some(version)) = (
            part("Signature"),
            part("SigningCertURL"),
            part("SignatureVersion"),
        ) else {
            return Err(Unverified::MissingSignature);
        };
        let version = to_version(&version).filter(|version| self.versions.contains(version));
        let version = version.ok_or(Unverified::InvalidSignature)?;
        let signature = BASE64
            .decode(signature.as_bytes())
            .map_err(|_| Unverified::InvalidSignature)?;
        let certificate_name = url::certificate_name(&url).ok_or(Unverified::InvalidSignature)?;
        let signed = signed_text(|name| text(message, name)).ok_or(Unverified::InvalidSignature)?;
        // A member that is not a string is not signed, and must not count as absent.
        let subject = message.get("Subject").filter(|subject| !subject.is_null());
        if subject.is_some_and(|subject| subject.as_str().is_none()) {
            return Err(Unverified::InvalidSignature);
        }
        if !self.is_of_topic(message) {
            return Err(Unverified::Unauthorized);
        }
        let Some(certificate) = self.certificate(&url) else {
            if let Some(suppressed) = self.unknown_certificates.allow() {
                tracing::warn!(
                    certificate = certificate_name,
                    suppressed,
                    "a message names a signing certificate that is not available"
                );
            }
            return Err(Unverified::KeyUnavailable);
        };
        certificate.verify(version, &signed, &signature, request.at)?;
        let Some(past) = self.tolerance else {
            return Ok(());
        };
        let time = text(message, "Timestamp").unwrap_or_default();
        let tolerance = Tolerance { past, future: past };
        tolerance.check(Unit::Rfc3339, time.as_bytes(), request.at)
    }
}

impl Verifier for Sns {
    fn verify(&self, scope: &Scope<'_>) -> Result<Option<usize>, Unverified> {
        // A body that is not JSON is a message with raw delivery, which SNS does not sign.
        let document =
            Document::parse(scope.request.body).map_err(|_| Unverified::MissingSignature)?;
        let verdict = self.verify_message(document.root(), scope.request);
        // Another reader could read a value other than the signed one.
        if document.ambiguous_name().is_some() {
            return Err(Unverified::InvalidSignature);
        }
        verdict.map(|()| None)
    }

    fn prepare(&self, request: &Request<'_>) -> Option<Preparation> {
        let fetched = self.fetched.as_ref()?;
        let document = Document::parse(request.body).ok()?;
        let message = document.root();
        let url = text(message, "SigningCertURL")?;
        // A sender that knows no topic of this source cannot make the bridge fetch anything.
        let may_be_fetched = url::certificate_name(&url).is_some() && self.is_of_topic(message);
        if !may_be_fetched || self.certificate(&url).is_some() {
            return None;
        }
        Some(Box::pin(fetched.prepare(&url)?))
    }

    fn follow_up(&self, scope: &Scope<'_>) -> Result<Option<FollowUp>, Refusal> {
        let Some(message) = scope.node else {
            return Ok(None);
        };
        let topic = text(message, "TopicArn").unwrap_or_default();
        let url = text(message, "SubscribeURL").unwrap_or_default();
        let is_confirmation = url::is_confirmation(&url);
        let report = match text(message, "Type").as_deref() {
            Some(SUBSCRIPTION) if self.confirms_subscriptions => {
                if !is_confirmation {
                    return Err(Refusal::invalid_event(
                        "/SubscribeURL",
                        "does not confirm a subscription at https://sns.REGION.amazonaws.com",
                    ));
                }
                return Ok(Some(FollowUp {
                    report: format!("the subscription to {topic} is confirmed"),
                    get: Some(url.into_owned()),
                }));
            }
            Some(SUBSCRIPTION) if is_confirmation => format!(
                "the subscription to {topic} awaits confirmation: open {url} or set `confirm_subscriptions = true` and request a confirmation again"
            ),
            Some(SUBSCRIPTION) => format!("the subscription to {topic} awaits confirmation"),
            // A GET of its URL would subscribe again.
            Some(UNSUBSCRIPTION) => format!("the subscription to {topic} has ended"),
            _ => return Ok(None),
        };
        Ok(Some(FollowUp { report, get: None }))
    }

    fn needs_secrets(&self) -> bool {
        false
    }

    fn is_asymmetric(&self) -> bool {
        true
    }

    /// `MessageAttributes` are not covered; they have no meaning unless `event` gives them one.
    fn covers_body(&self) -> bool {
        true
    }

    fn tolerance(&self) -> Option<Duration> {
        self.tolerance
    }

    fn sign(&self, secret: &Secret, unsigned: Unsigned<'_>) -> Result<Signed, SignError> {
        let mut message: Map<String, Value> =
            serde_json::from_slice(unsigned.body).map_err(|_| {
                SignError("the body is not a message of SNS; see `--sample Notification`")
            })?;
        let time = Unit::Rfc3339.write(unsigned.at)?;
        message.entry("Timestamp").or_insert(time.into());
        message.insert("SignatureVersion".to_owned(), "2".into());
        let member = |name| message.get(name).and_then(Value::as_str).map(Cow::Borrowed);
        if member("SigningCertURL").is_none() {
            return Err(SignError(
                "the body lacks `SigningCertURL`; it names the certificate that belongs to the private key",
            ));
        }
        let text = signed_text(member).ok_or(SignError(
            "the body lacks a member that SNS signs: Message, MessageId, TopicArn or Type, in confirmations SubscribeURL or Token",
        ))?;
        let signature = sign_text(secret, &text)?;
        message.insert("Signature".to_owned(), BASE64.encode(&signature).into());
        let body = serde_json::to_vec(&message);
        Ok(Signed {
            headers: HeaderMap::new(),
            url: unsigned.url.clone(),
            body: body.map_err(|_| SignError("the body cannot be written as JSON"))?,
        })
    }
}

/// Signs with an RSA key in PEM. `ring` does not sign with SHA-1, so the version is 2.
fn sign_text(secret: &Secret, text: &[u8]) -> Result<Vec<u8>, SignError> {
    let unusable =
        SignError("the private key cannot be used; give an RSA key of 2048 bits or more in PEM");
    let pair = match PrivateKeyDer::from_pem_slice(secret.expose().as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err(unusable),
    };
    let pair = pair.map_err(|_| unusable)?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text,
        &mut signature,
    )
    .map_err(|_| unusable)?;
    Ok(signature)
}
