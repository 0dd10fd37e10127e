//! A signer with its own certificate, and tests of SNS's verification and certificate store.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::store::{Fetched, Pinned};
use super::*;
use crate::providers::outbound::GetError;

const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:orders";
const FILE: &str = "SimpleNotificationService-example.pem";

/// Signs as SNS does, with a key made for the test.
pub(crate) struct Tester(PathBuf);

impl Tester {
    pub(crate) fn new(name: &str) -> Self {
        let folder = format!("hookbridge-sns-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(folder.join("certificates")).unwrap();
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/O=Hookbridge tests/CN=sns.amazonaws.com",
                "-keyout",
                "key.pem",
                "-out",
            ])
            .arg(format!("certificates/{FILE}"))
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Self(folder)
    }

    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(self.0.join("key.pem")).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.0.join("certificates")
    }

    fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.folder().join(FILE)).unwrap()
    }

    /// The keys of a source that trusts it.
    pub(crate) fn keys(&self) -> Value {
        json!({ "topic_arns": [TOPIC], "certificates": self.folder() })
    }

    fn sign(&self, verifier: &Sns, message: &Value) -> Vec<u8> {
        let body = message.to_string();
        let unsigned = Unsigned {
            method: &Method::POST,
            url: &Uri::from_static("https://hooks.example.com/x"),
            headers: &HeaderMap::new(),
            body: body.as_bytes(),
            at: SystemTime::now(),
        };
        let key = Secret::new(self.key()).unwrap();
        verifier.sign(&key, unsigned).unwrap().body
    }
}

impl Drop for Tester {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn url() -> String {
    format!("https://sns.eu-central-1.amazonaws.com/{FILE}")
}

fn notification() -> Value {
    json!({
        "Type": "Notification", "MessageId": "m-1", "TopicArn": TOPIC, "Message": "{\"a\":1}", "SigningCertURL": url(),
    })
}

fn confirmation() -> Value {
    let subscribe = format!(
        "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=23aF"
    );
    json!({
        "Type": "SubscriptionConfirmation", "MessageId": "m-2", "TopicArn": TOPIC, "Message": "You have chosen …",
        "Token": "23aF", "SubscribeURL": subscribe, "SigningCertURL": url(),
    })
}

fn verifier(pinned: Pinned, fetched: Option<Arc<Fetched>>) -> Sns {
    Sns {
        topics: vec![TOPIC.to_owned()],
        versions: vec![Version::One, Version::Two],
        pinned,
        fetched,
        confirms_subscriptions: false,
        tolerance: None,
        unknown_certificates: LogThrottle::default(),
    }
}

fn pinning(tester: &Tester) -> Sns {
    let certificate = Certificate::parse(&tester.certificate()).unwrap();
    verifier([(FILE.to_owned(), Arc::new(certificate))].into(), None)
}

/// Calls `check` with a request that has this body.
fn with<T>(body: &[u8], at: SystemTime, check: impl FnOnce(&Request<'_>) -> T) -> T {
    check(&Request {
        method: &Method::POST,
        target: &Uri::from_static("/x"),
        headers: &HeaderMap::new(),
        body,
        public_url: None,
        at,
    })
}

fn verdict(verifier: &Sns, body: &[u8], at: SystemTime) -> Result<Option<usize>, Unverified> {
    with(body, at, |request| verifier.verify(&Scope::raw(request)))
}

fn changed(body: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut message: Value = serde_json::from_slice(body).unwrap();
    change(&mut message);
    message.to_string().into_bytes()
}

#[test]
fn a_message_is_verified_by_the_certificate_that_it_names_and_by_no_other() {
    let tester = Tester::new("verified");
    let verifier = pinning(&tester);
    let body = tester.sign(&verifier, &notification());
    let now = SystemTime::now();
    assert_eq!(verdict(&verifier, &body, now), Ok(None));
    let at = |seconds: i64| {
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - by } else { now + by }
    };
    let day = 24 * 3600;
    assert_eq!(
        verdict(&verifier, &body, at(3 * day)),
        Err(Unverified::InvalidSignature)
    );
    // Time will make it valid, so a 4xx would not hold.
    assert_eq!(
        verdict(&verifier, &body, at(-day)),
        Err(Unverified::KeyUnavailable)
    );
    let other = changed(&body, |message| {
        message["SigningCertURL"] = url().replace("example", "other").into()
    });
    assert_eq!(
        verdict(&verifier, &other, now),
        Err(Unverified::KeyUnavailable)
    );
    let only_second = Sns {
        versions: vec![Version::One],
        ..pinning(&tester)
    };
    assert_eq!(
        verdict(&only_second, &body, now),
        Err(Unverified::InvalidSignature)
    );
    let strict = Sns {
        tolerance: Some(Duration::from_secs(7200)),
        ..pinning(&tester)
    };
    assert_eq!(verdict(&strict, &body, now), Ok(None));
    assert_eq!(
        verdict(&strict, &body, at(7300)),
        Err(Unverified::StaleTimestamp)
    );
    // One reader could use the first Subject, another the second.
    let twice = String::from_utf8(body.clone())
        .unwrap()
        .replacen('{', "{\"Message\":\"x\",", 1);
    assert_eq!(
        verdict(&verifier, twice.as_bytes(), now),
        Err(Unverified::InvalidSignature)
    );
    // This Subject is not signed.
    for subject in [json!(1), json!(true), json!(["x"]), json!({})] {
        let body = changed(&body, |message| message["Subject"] = subject);
        assert_eq!(
            verdict(&verifier, &body, now),
            Err(Unverified::InvalidSignature)
        );
    }
    let body = changed(&body, |message| message["Subject"] = Value::Null);
    assert_eq!(verdict(&verifier, &body, now), Ok(None));
    let foreign = Sns {
        topics: vec!["arn:aws:sns:eu-central-1:1:x".to_owned()],
        ..pinning(&tester)
    };
    assert_eq!(verdict(&foreign, &body, now), Err(Unverified::Unauthorized));
    for unsigned in [&b"plain text"[..], b"[]", b"\"Signature\"", b"{}", b"\xff"] {
        assert_eq!(
            verdict(&verifier, unsigned, now),
            Err(Unverified::MissingSignature)
        );
    }
}

#[test]
fn a_change_of_any_signed_member_is_detected() {
    let tester = Tester::new("members");
    let verifier = pinning(&tester);
    let mut message = notification();
    message["Subject"] = "Order paid".into();
    for (message, members) in [
        (message, &SIGNED_IN_NOTIFICATION[..]),
        (confirmation(), &SIGNED_IN_CONFIRMATION[..]),
    ] {
        let body = tester.sign(&verifier, &message);
        let now = SystemTime::now();
        assert_eq!(verdict(&verifier, &body, now), Ok(None));
        for name in members {
            let other = changed(&body, |message| {
                let value = message[*name].as_str().unwrap();
                message[*name] = format!("{value}x").into();
            });
            let without = changed(&body, |message| {
                drop(message.as_object_mut().unwrap().remove(*name))
            });
            let number = changed(&body, |message| message[*name] = 1.into());
            for body in [other, without, number] {
                let verdict = verdict(&verifier, &body, now);
                let expected = [Unverified::InvalidSignature, Unverified::Unauthorized];
                assert!(
                    verdict.is_err_and(|reason| expected.contains(&reason)),
                    "{name}: {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn a_subscription_is_confirmed_only_where_the_operator_says_so() {
    let tester = Tester::new("follow-ups");
    let follow_up = |verifier: &Sns, message: &Value| {
        let body = message.to_string();
        let document = Document::parse(body.as_bytes()).unwrap();
        with(body.as_bytes(), SystemTime::now(), |request| {
            verifier.follow_up(&Scope {
                node: Some(document.root()),
                ..Scope::raw(request)
            })
        })
    };
    let cautious = pinning(&tester);
    let confirming = Sns {
        confirms_subscriptions: true,
        ..pinning(&tester)
    };
    let told = follow_up(&cautious, &confirmation()).unwrap().unwrap();
    let url = confirmation()["SubscribeURL"].as_str().unwrap().to_owned();
    assert!(told.get.is_none() && told.report.contains(&url), "{told:?}");
    let check = follow_up(&confirming, &confirmation()).unwrap().unwrap();
    assert_eq!(check.get, Some(url));
    let mut evil = confirmation();
    evil["SubscribeURL"] = "https://evil.example/?Action=ConfirmSubscription&Token=2".into();
    let refused = follow_up(&confirming, &evil).unwrap_err();
    assert_eq!(refused.code(), "invalid_event");
    let told = follow_up(&cautious, &evil).unwrap().unwrap();
    assert!(
        told.get.is_none() && !told.report.contains("evil"),
        "{told:?}"
    );
    // A GET of an unsubscription's URL would subscribe again.
    let mut gone = confirmation();
    gone["Type"] = "UnsubscribeConfirmation".into();
    assert!(
        follow_up(&confirming, &gone)
            .unwrap()
            .unwrap()
            .get
            .is_none()
    );
    assert_eq!(follow_up(&confirming, &notification()), Ok(None));
}

/// A store whose fetches end when notified, and their count.
fn store(certificate: Result<Vec<u8>, GetError>) -> (Arc<Fetched>, Arc<Notify>, Arc<AtomicUsize>) {
    let (go, count) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, counted) = (Arc::clone(&go), Arc::clone(&count));
    let fetched = Fetched::new(move |_url| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (wait, certificate) = (Arc::clone(&wait), certificate.clone());
        Box::pin(async move {
            wait.notified().await;
            certificate.map(Bytes::from)
        })
    });
    (fetched, go, count)
}

fn prepare(verifier: &Sns, body: &[u8]) -> Option<Preparation> {
    with(body, SystemTime::now(), |request| verifier.prepare(request))
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_fetched_once_however_many_messages_name_it() {
    let tester = Tester::new("fetched");
    let (fetched, go, count) = store(Ok(tester.certificate()));
    let verifier = verifier(Pinned::new(), Some(fetched));
    let body = tester.sign(&verifier, &notification());
    let now = SystemTime::now();
    // Nobody waits: an unknown key is not a wrong signature.
    assert_eq!(
        verdict(&verifier, &body, now),
        Err(Unverified::KeyUnavailable)
    );
    let waiting: Vec<_> = (0..40).filter_map(|_| prepare(&verifier, &body)).collect();
    assert_eq!((waiting.len(), count.load(Ordering::Relaxed)), (16, 1));
    assert_eq!(
        verdict(&verifier, &body, now),
        Err(Unverified::KeyUnavailable)
    );
    go.notify_one();
    futures_util::future::join_all(waiting).await;
    assert_eq!(verdict(&verifier, &body, now), Ok(None));
    assert!(prepare(&verifier, &body).is_none());
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_or_never_ends_leaves_the_verdict_open_and_is_retried() {
    let tester = Tester::new("failing");
    let of_another = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    for answer in [Err(GetError::new("no route to host")), Ok(of_another)] {
        let (fetched, go, count) = store(answer);
        let verifier = verifier(Pinned::new(), Some(fetched));
        let body = tester.sign(&verifier, &notification());
        let slow = prepare(&verifier, &body).unwrap();
        // The wait ends before the fetch does.
        slow.await;
        let waiting = prepare(&verifier, &body).unwrap();
        go.notify_one();
        waiting.await;
        assert_eq!(
            verdict(&verifier, &body, SystemTime::now()),
            Err(Unverified::KeyUnavailable)
        );
        assert!(prepare(&verifier, &body).is_none(), "immediately again");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(prepare(&verifier, &body).is_some());
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_can_make_the_bridge_fetch_more_than_a_few_certificates() {
    let (fetched, _go, count) = store(Err(GetError::new("never")));
    let verifier = verifier(Pinned::new(), Some(fetched));
    let named = |url: &str, topic: &str| {
        let message = json!({ "SigningCertURL": url, "TopicArn": topic });
        drop(prepare(&verifier, message.to_string().as_bytes()));
    };
    named(&url(), "arn:aws:sns:eu-central-1:999988887777:attacker");
    named("https://evil.example/a.pem", TOPIC);
    named(
        "https://sns.eu-central-1.amazonaws.com@evil.example/a.pem",
        TOPIC,
    );
    assert_eq!(count.load(Ordering::Relaxed), 0);
    for number in 0..1000 {
        named(&url().replace("example", &format!("{number}")), TOPIC);
    }
    assert_eq!(count.load(Ordering::Relaxed), 6);
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        named(
            &url().replace("example", &uuid::Uuid::new_v4().to_string()),
            TOPIC,
        );
    }
    assert_eq!(count.load(Ordering::Relaxed), 12);
    // The store stays small however long it goes on.
    for _ in 0..200 {
        tokio::time::advance(Duration::from_secs(10)).await;
        named(
            &url().replace("example", &uuid::Uuid::new_v4().to_string()),
            TOPIC,
        );
    }
    assert!(count.load(Ordering::Relaxed) <= 64);
}
