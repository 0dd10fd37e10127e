//! Every preset as its page documents it: the configuration is the page's, requests are signed here as the provider's
//! own library signs them, and real Kafka has each event with its id, type, subject and key.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::support::bridge::{
    self, Bridge, hookbridge, hookbridge_reading, kafka_broker, nats_broker, start,
};
use crate::support::consumer::only;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::pages::{documented, with_broker, without_brokers};
use crate::support::process;
use crate::support::secrets::{BYTES, TEXT, discord, sendgrid, signing_value_of, variables};
use crate::support::sender::Request;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PUBLIC: &str = "https://hooks.example.com";

// ---- Independent implementations of signing

fn mac<M: Mac + KeyInit>(key: &[u8], content: &str) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(content.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(content: &str) -> String {
    HEXLOWER.encode(&mac::<Hmac<Sha256>>(TEXT.as_bytes(), content))
}

fn base64(content: &str) -> String {
    BASE64.encode(&mac::<Hmac<Sha256>>(TEXT.as_bytes(), content))
}

/// The headers for id, time and signature of Standard Webhooks under these names, with a base64 secret.
fn standard(
    names: [&'static str; 3],
    id: &str,
    seconds: u64,
    body: &str,
) -> Vec<(&'static str, String)> {
    let content = format!("{id}.{seconds}.{body}");
    let signature = BASE64.encode(&mac::<Hmac<Sha256>>(BYTES, &content));
    let values = [
        id.to_owned(),
        seconds.to_string(),
        format!("v1,{signature}"),
    ];
    names.into_iter().zip(values).collect()
}

const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
const SVIX: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap();
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

/// The header fields with which a provider signs a body at a time.
type Sign = fn(body: &str, seconds: u64) -> Vec<(&'static str, String)>;

// ---- The table

/// The expected origin of an event's id.
enum Id {
    Given(&'static str),
    DigestOfBody,
    Random,
}

/// A request of one provider, and the resulting message.
struct Case {
    name: &'static str,
    /// `MILLISECONDS` in it is the time.
    body: &'static str,
    media_type: &'static str,
    /// Unsigned ones.
    headers: &'static [(&'static str, &'static str)],
    sign: Sign,
    /// The signed parts other than the header fields that [`Case::sign`] makes.
    covers: &'static [Covered],
    topic: &'static str,
    id: Id,
    event_type: &'static str,
    subject: Option<&'static str>,
    key: &'static str,
}

#[derive(PartialEq)]
enum Covered {
    Body,
    Url,
    /// The time, so that a request from long ago is refused.
    Time,
}
use Covered::{Body, Time, Url};

const JSON: &str = "application/json";

/// Presets that `signed_bodies.rs`, `cloud_events.rs` and `aws_sns.rs` test instead, likewise as their pages document them,
/// since their requests differ in more than header fields.
const ELSEWHERE: [&str; 7] = [
    "aws-sns",
    "azure-event-grid",
    "cloudevents",
    "mailgun",
    "microsoft-graph",
    "monday",
    "twilio",
];

const CASES: &[Case] = &[
    Case {
        name: "alertmanager",
        body: r#"{"status":"firing","alerts":[],"groupLabels":{"alertname":"Lag"},"groupKey":"{}:{alertname=\"Lag\"}"}"#,
        media_type: JSON,
        headers: &[],
        sign: |_, _| vec![("Authorization", format!("Bearer {TEXT}"))],
        covers: &[],
        topic: "alerts.firing",
        id: Id::Random,
        event_type: "firing",
        subject: Some("Lag"),
        key: "{}:{alertname=\"Lag\"}",
    },
    Case {
        name: "auth0",
        body: r#"[{"log_id":"900","data":{"type":"s","date":"2026-08-01T07:59:57.193Z","user_id":"auth0|5f"}}]"#,
        media_type: JSON,
        headers: &[],
        sign: |_, _| vec![("Authorization", TEXT.to_owned())],
        covers: &[],
        topic: "auth0.s",
        id: Id::Given("900"),
        event_type: "s",
        subject: Some("auth0|5f"),
        key: "auth0|5f",
    },
    Case {
        name: "bitbucket",
        body: r#"{"push":{"changes":[]},"repository":{"full_name":"acme/bridge"}}"#,
        media_type: JSON,
        headers: &[("X-Event-Key", "repo:push"), ("X-Request-UUID", "bb-1")],
        sign: |body, _| vec![("X-Hub-Signature", format!("sha256={}", hex(body)))],
        covers: &[Body],
        topic: "bitbucket.repository",
        id: Id::Given("bb-1"),
        event_type: "repo:push",
        subject: Some("acme/bridge"),
        key: "acme/bridge",
    },
    Case {
        name: "calendly",
        body: r#"{"event":"invitee.created","created_at":"2026-08-01T07:59:58.000000Z","payload":{"uri":"https://c/i","scheduled_event":{"uri":"https://c/e"}}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("{seconds}.{body}"));
            vec![(
                "Calendly-Webhook-Signature",
                format!("t={seconds},v1={signature}"),
            )]
        },
        covers: &[Body, Time],
        topic: "calendly.invitee.created",
        id: Id::Given("invitee.created:https://c/i"),
        event_type: "invitee.created",
        subject: Some("https://c/i"),
        key: "https://c/e",
    },
    Case {
        name: "dbt-cloud",
        body: r#"{"eventId":"wev_1","eventType":"job.run.completed","timestamp":"2026-08-01T07:59:58.742843678Z","data":{"runId":"218"}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, _| vec![("Authorization", hex(body))],
        covers: &[Body],
        topic: "dbt.job.run.completed",
        id: Id::Given("wev_1"),
        event_type: "job.run.completed",
        subject: Some("218"),
        key: "218",
    },
    Case {
        name: "discord",
        body: r#"{"version":1,"application_id":"1","type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"2026-11-20T06:15:04","data":{"id":"e-1"}}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let signature = discord().sign(format!("{seconds}{body}").as_bytes());
            vec![
                ("X-Signature-Timestamp", seconds.to_string()),
                ("X-Signature-Ed25519", HEXLOWER.encode(signature.as_ref())),
            ]
        },
        covers: &[Body, Time],
        topic: "discord.ENTITLEMENT_CREATE",
        id: Id::DigestOfBody,
        event_type: "ENTITLEMENT_CREATE",
        subject: Some("e-1"),
        key: "e-1",
    },
    Case {
        name: "docusign",
        body: r#"{"event":"envelope-completed","generatedDateTime":"2026-08-01T07:59:58.4130000Z","data":{"envelopeId":"env-1"}}"#,
        media_type: "application/json; charset=utf-8",
        headers: &[("X-Authorization-Digest", "HMACSHA256")],
        sign: |body, _| vec![("X-DocuSign-Signature-1", base64(body))],
        covers: &[Body],
        topic: "docusign.envelopes",
        id: Id::Given("envelope-completed:env-1:2026-08-01T07:59:58.4130000Z"),
        event_type: "envelope-completed",
        subject: Some("env-1"),
        key: "env-1",
    },
    Case {
        name: "dropbox",
        body: r#"{"list_folder":{"accounts":["dbid:1"]},"delta":{"users":[1]}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, _| vec![("X-Dropbox-Signature", hex(body))],
        covers: &[Body],
        topic: "dropbox.changes",
        id: Id::Random,
        event_type: "list_folder",
        subject: None,
        key: "dbid:1",
    },
    Case {
        name: "github",
        body: r#"{"action":"opened","issue":{"number":7},"repository":{"full_name":"acme/bridge"}}"#,
        media_type: JSON,
        headers: &[("X-GitHub-Event", "issues"), ("X-GitHub-Delivery", "gh-1")],
        sign: |body, _| vec![("X-Hub-Signature-256", format!("sha256={}", hex(body)))],
        covers: &[Body],
        topic: "github.issues.opened",
        id: Id::Given("gh-1"),
        event_type: "issues.opened",
        subject: Some("acme/bridge"),
        key: "acme/bridge",
    },
    Case {
        name: "gitlab",
        body: r#"{"object_kind":"issue","project":{"id":15,"path_with_namespace":"acme/bridge"},"object_attributes":{"action":"open"}}"#,
        media_type: JSON,
        headers: &[
            ("X-Gitlab-Event", "Issue Hook"),
            // Not signed: whoever replays a request can change it.
            ("Idempotency-Key", "another"),
        ],
        sign: |body, seconds| standard(STANDARD, "gl-1", seconds, body),
        covers: &[Body, Time],
        topic: "gitlab.issue.open",
        id: Id::Given("gl-1"),
        event_type: "issue.open",
        subject: Some("acme/bridge"),
        key: "15",
    },
    Case {
        name: "grafana",
        body: r#"{"status":"firing","alerts":[],"groupLabels":{"alertname":"Lag"},"groupKey":"{}:{alertname=\"Lag\"}"}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            vec![
                ("X-Grafana-Alerting-Timestamp", seconds.to_string()),
                (
                    "X-Grafana-Alerting-Signature",
                    hex(&format!("{seconds}:{body}")),
                ),
            ]
        },
        covers: &[Body, Time],
        topic: "alerts.firing",
        id: Id::Random,
        event_type: "firing",
        subject: Some("Lag"),
        key: "{}:{alertname=\"Lag\"}",
    },
    Case {
        name: "hubspot",
        body: r#"[{"portalId":33,"subscriptionId":11,"objectId":7,"eventId":1,"occurredAt":1795132798000,"subscriptionType":"contact.creation","attemptNumber":0}]"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let time = format!("{seconds}123");
            let content = format!("POST{PUBLIC}/hooks/hubspot{body}{time}");
            vec![
                ("X-HubSpot-Request-Timestamp", time),
                ("X-HubSpot-Signature-v3", base64(&content)),
            ]
        },
        covers: &[Body, Url, Time],
        topic: "hubspot.contact.creation",
        id: Id::Given("33-11-7-1-1795132798000"),
        event_type: "contact.creation",
        subject: Some("7"),
        key: "7",
    },
    Case {
        name: "intercom",
        body: r#"{"type":"notification_event","id":"notif_1","topic":"ping","app_id":"a8","created_at":1795132798,"data":{"item":{"id":"120"}}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, _| {
            let signature = HEXLOWER.encode(&mac::<Hmac<Sha1>>(TEXT.as_bytes(), body));
            vec![("X-Hub-Signature", format!("sha1={signature}"))]
        },
        covers: &[Body],
        topic: "intercom.ping",
        id: Id::Given("notif_1"),
        event_type: "ping",
        subject: Some("120"),
        key: "120",
    },
    Case {
        name: "jira",
        body: r#"{"timestamp":1795132798000,"webhookEvent":"jira:issue_created","issue":{"id":"10002","key":"HB-7"}}"#,
        media_type: JSON,
        headers: &[("X-Atlassian-Webhook-Identifier", "ji-1")],
        sign: |body, _| vec![("X-Hub-Signature", format!("sha256={}", hex(body)))],
        covers: &[Body],
        topic: "jira.issues",
        id: Id::Given("ji-1"),
        event_type: "jira:issue_created",
        subject: Some("HB-7"),
        key: "10002",
    },
    Case {
        name: "linear",
        body: r#"{"action":"create","type":"Issue","createdAt":"2026-08-01T07:59:58.120Z","data":{"id":"li-7"},"webhookTimestamp":MILLISECONDS}"#,
        media_type: "application/json; charset=utf-8",
        headers: &[("Linear-Delivery", "li-1"), ("Linear-Event", "Issue")],
        sign: |body, _| vec![("Linear-Signature", hex(body))],
        covers: &[Body, Time],
        topic: "linear.Issue.create",
        id: Id::Given("li-1"),
        event_type: "Issue.create",
        subject: Some("li-7"),
        key: "li-7",
    },
    Case {
        name: "okta",
        body: r#"{"eventType":"com.okta.event_hook","eventId":"x","data":{"events":[{"uuid":"ok-1","published":"2026-08-01T07:59:58Z","eventType":"user.session.start","actor":{"id":"00u1","alternateId":"ann@example.com"},"target":null}]}}"#,
        media_type: JSON,
        headers: &[],
        sign: |_, _| vec![("Authorization", TEXT.to_owned())],
        covers: &[],
        topic: "okta.users",
        id: Id::Given("ok-1"),
        event_type: "user.session.start",
        subject: Some("ann@example.com"),
        key: "00u1",
    },
    Case {
        name: "paddle",
        body: r#"{"event_id":"evt_p","event_type":"transaction.completed","occurred_at":"2026-08-01T07:59:58.621022Z","data":{"id":"txn_1","subscription_id":"sub_1"}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("{seconds}:{body}"));
            vec![("Paddle-Signature", format!("ts={seconds};h1={signature}"))]
        },
        covers: &[Body, Time],
        topic: "paddle.transaction.completed",
        id: Id::Given("evt_p"),
        event_type: "transaction.completed",
        subject: Some("txn_1"),
        key: "sub_1",
    },
    Case {
        name: "pagerduty",
        body: r#"{"event":{"id":"pd-1","event_type":"incident.triggered","occurred_at":"2026-08-01T07:59:58.120Z","data":{"id":"Q1"}}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, _| vec![("X-PagerDuty-Signature", format!("v1={}", hex(body)))],
        covers: &[Body],
        topic: "pagerduty.incident.triggered",
        id: Id::Given("pd-1"),
        event_type: "incident.triggered",
        subject: Some("Q1"),
        key: "Q1",
    },
    Case {
        name: "postmark",
        body: r#"{"RecordType":"Bounce","ID":4323372036854775807,"MessageID":"m-1","Email":"bob@example.com"}"#,
        media_type: JSON,
        headers: &[],
        sign: |_, _| {
            let credentials = BASE64.encode(format!("user:{TEXT}").as_bytes());
            vec![("Authorization", format!("Basic {credentials}"))]
        },
        covers: &[],
        topic: "postmark.Bounce",
        id: Id::Given("4323372036854775807"),
        event_type: "Bounce",
        subject: Some("bob@example.com"),
        key: "m-1",
    },
    Case {
        name: "sendgrid",
        body: "[{\"email\":\"ann@example.com\",\"event\":\"delivered\",\"timestamp\":1795132798,\"sg_event_id\":\"sg-1\",\"sg_message_id\":\"m.1\"}]\r\n",
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let content = format!("{seconds}{body}");
            let signature = sendgrid().sign(&SystemRandom::new(), content.as_bytes());
            let signature = BASE64.encode(signature.unwrap().as_ref());
            vec![
                (
                    "X-Twilio-Email-Event-Webhook-Timestamp",
                    seconds.to_string(),
                ),
                ("X-Twilio-Email-Event-Webhook-Signature", signature),
            ]
        },
        covers: &[Body],
        topic: "sendgrid.delivered",
        id: Id::Given("sg-1"),
        event_type: "delivered",
        subject: Some("ann@example.com"),
        key: "m.1",
    },
    Case {
        name: "sentry",
        body: r#"{"action":"created","installation":{"uuid":"7a"},"data":{"issue":{"id":"117"}}}"#,
        media_type: JSON,
        headers: &[("Sentry-Hook-Resource", "issue"), ("Request-ID", "se-1")],
        sign: |body, _| vec![("Sentry-Hook-Signature", hex(body))],
        covers: &[Body],
        topic: "sentry.issue.created",
        id: Id::Given("se-1"),
        event_type: "issue.created",
        subject: Some("117"),
        key: "117",
    },
    Case {
        name: "shopify",
        body: r#"{"id":820982911946154508,"admin_graphql_api_id":"gid:\/\/shopify\/Order\/8"}"#,
        media_type: JSON,
        headers: &[
            ("X-Shopify-Topic", "orders/create"),
            ("X-Shopify-Webhook-Id", "sh-1"),
        ],
        sign: |body, _| vec![("X-Shopify-Hmac-Sha256", base64(body))],
        covers: &[Body],
        topic: "shopify.orders",
        id: Id::Given("sh-1"),
        event_type: "orders/create",
        subject: Some("820982911946154508"),
        key: "820982911946154508",
    },
    Case {
        name: "slack",
        body: "command=%2Fdeploy&text=bridge&team_id=T1&trigger_id=tr-1",
        media_type: "application/x-www-form-urlencoded",
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("v0:{seconds}:{body}"));
            vec![
                ("X-Slack-Request-Timestamp", seconds.to_string()),
                ("X-Slack-Signature", format!("v0={signature}")),
            ]
        },
        covers: &[Body, Time],
        topic: "slack.slash_command",
        id: Id::Given("tr-1"),
        event_type: "slash_command",
        subject: None,
        key: "T1",
    },
    Case {
        name: "square",
        body: r#"{"type":"payment.created","event_id":"sq-1","created_at":"2026-08-01T07:59:58.372Z","data":{"id":"pay-1"}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, _| {
            let signature = base64(&format!("{PUBLIC}/hooks/square{body}"));
            vec![("x-square-hmacsha256-signature", signature)]
        },
        covers: &[Body, Url],
        topic: "square.payment.created",
        id: Id::Given("sq-1"),
        event_type: "payment.created",
        subject: Some("pay-1"),
        key: "pay-1",
    },
    Case {
        name: "standard-webhooks",
        body: r#"{"type":"invoice.paid","timestamp":"2026-08-01T07:59:58.120000Z","data":{"id":"inv_7311"}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| standard(STANDARD, "msg_1", seconds, body),
        covers: &[Body, Time],
        topic: "acme.invoice.paid",
        id: Id::Given("msg_1"),
        event_type: "invoice.paid",
        subject: Some("inv_7311"),
        key: "inv_7311",
    },
    Case {
        name: "stripe",
        body: r#"{"id":"evt_1","created":1795132798,"type":"invoice.paid","data":{"object":{"id":"in_1"}}}"#,
        media_type: "application/json; charset=utf-8",
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("{seconds}.{body}"));
            vec![(
                "Stripe-Signature",
                format!("t={seconds},v0=00,v1={signature}"),
            )]
        },
        covers: &[Body, Time],
        topic: "stripe.invoice.paid",
        id: Id::Given("evt_1"),
        event_type: "invoice.paid",
        subject: Some("in_1"),
        key: "in_1",
    },
    Case {
        name: "svix",
        body: r#"{"type":"user.created","data":{"id":"user_29"}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| standard(SVIX, "msg_2", seconds, body),
        covers: &[Body, Time],
        topic: "svix.user.created",
        id: Id::Given("msg_2"),
        event_type: "user.created",
        subject: Some("user_29"),
        key: "user_29",
    },
    Case {
        name: "synq",
        body: r#"{"workspace":"acme","event_id":"sy-1","event_time":"2026-08-01T07:59:58Z","issue_created":{"issue":{"issue_id":"i-1"}}}"#,
        media_type: JSON,
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("{seconds}.{body}"));
            vec![
                ("X-Coalesce-Timestamp", seconds.to_string()),
                ("X-Coalesce-Signature", format!("v1={signature}")),
            ]
        },
        covers: &[Body, Time],
        topic: "synq.issue_created",
        id: Id::Given("sy-1"),
        event_type: "issue_created",
        subject: Some("i-1"),
        key: "i-1",
    },
    Case {
        name: "typeform",
        body: "{\"event_id\":\"ty-1\",\"event_type\":\"form_response\",\"form_response\":{\"form_id\":\"lT4Z3j\",\"token\":\"a3a1\",\"submitted_at\":\"2026-08-01T07:59:58Z\"}}\n",
        media_type: JSON,
        headers: &[],
        sign: |body, _| vec![("Typeform-Signature", format!("sha256={}", base64(body)))],
        covers: &[Body],
        topic: "typeform.form_response",
        id: Id::Given("ty-1"),
        event_type: "form_response",
        subject: Some("lT4Z3j"),
        key: "a3a1",
    },
    Case {
        name: "zendesk",
        body: r#"{"type":"zen:event-type:ticket.created","id":"ze-1","time":"2026-08-01T07:59:58Z","subject":"zen:ticket:7311"}"#,
        media_type: "application/json; charset=utf-8",
        headers: &[],
        sign: |body, seconds| {
            let time = rfc3339(seconds);
            let signature = base64(&format!("{time}{body}"));
            vec![
                ("X-Zendesk-Webhook-Signature-Timestamp", time),
                ("X-Zendesk-Webhook-Signature", signature),
            ]
        },
        covers: &[Body, Time],
        topic: "zendesk.tickets",
        id: Id::Given("ze-1"),
        event_type: "zen:event-type:ticket.created",
        subject: Some("zen:ticket:7311"),
        key: "zen:ticket:7311",
    },
    Case {
        name: "zoom",
        body: r#"{"event":"meeting.started","payload":{"account_id":"AA","object":{"id":"1234567890"}},"event_ts":1795132798679}"#,
        media_type: "application/json; charset=utf-8",
        headers: &[],
        sign: |body, seconds| {
            let signature = hex(&format!("v0:{seconds}:{body}"));
            vec![
                ("x-zm-request-timestamp", seconds.to_string()),
                ("x-zm-signature", format!("v0={signature}")),
            ]
        },
        covers: &[Body, Time],
        topic: "zoom.meeting.started",
        id: Id::DigestOfBody,
        event_type: "meeting.started",
        subject: Some("1234567890"),
        key: "1234567890",
    },
];

impl Case {
    /// The name of the source on the page.
    fn source(&self) -> &'static str {
        match self.name {
            "standard-webhooks" => "acme",
            name => name,
        }
    }

    fn request(&self, seconds: u64) -> Request {
        let body = self.body.replace("MILLISECONDS", &format!("{seconds}123"));
        let signature = (self.sign)(&body, seconds);
        let mut request = Request::post(&format!("/hooks/{}", self.source()), body)
            .without("content-type")
            .header("Content-Type", self.media_type);
        let signature = signature
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        for (name, value) in self.headers.iter().copied().chain(signature) {
            request = request.header(name, value);
        }
        request
    }

    /// The request with each required part changed or omitted, and the code of the refusal if there is only one
    /// possible.
    fn tampered(&self, seconds: u64) -> Vec<(String, Option<&'static str>, Request)> {
        let genuine = self.request(seconds);
        let mut all = Vec::new();
        for (name, value) in (self.sign)(self.body, seconds) {
            all.push((format!("another {name}"), None, with_other(&genuine, name)));
            all.push((format!("no {name}"), None, genuine.clone().without(name)));
            // The time, wherever it is.
            let (now, later) = (seconds.to_string(), (seconds + 1).to_string());
            if value.contains(&now) {
                let mut changed = genuine.clone();
                for (_, value) in &mut changed.headers {
                    *value = value.replace(&now, &later);
                }
                all.push((
                    format!("another time in {name}"),
                    Some("invalid_signature"),
                    changed,
                ));
            }
        }
        for part in self.covers {
            let (code, request) = match part {
                Body => ("invalid_signature", without_body_byte(&genuine)),
                Url => {
                    let target = format!("{}?x=1", genuine.target);
                    ("invalid_signature", genuine.clone().to(&target))
                }
                Time => ("stale_timestamp", self.request(seconds - 30 * 24 * 3600)),
            };
            all.push((code.to_owned(), Some(code), request));
        }
        all
    }

    fn id(&self, body: &[u8]) -> Option<String> {
        match self.id {
            Id::Given(id) => Some(id.to_owned()),
            Id::DigestOfBody => Some(HEXLOWER.encode(&Sha256::digest(body))),
            Id::Random => None,
        }
    }
}

fn without_body_byte(request: &Request) -> Request {
    let mut changed = request.clone();
    let last = changed.body.iter().rposition(u8::is_ascii_alphanumeric);
    changed.body[last.unwrap()] ^= 1;
    changed
}

/// Another value of a header, with a different last letter or digit.
fn with_other(request: &Request, name: &str) -> Request {
    let mut changed = request.clone();
    let found = changed
        .headers
        .iter_mut()
        .find(|(header, _)| header == name);
    let (_, value) = found.expect("the header");
    let at = value.rfind(|letter: char| letter.is_ascii_alphanumeric());
    let at = at.unwrap();
    let other = if &value[at..=at] == "0" { "1" } else { "0" };
    value.replace_range(at..=at, other);
    changed
}

// ---- Pages

/// The names of all presets.
fn presets() -> Vec<String> {
    let files = std::fs::read_dir(format!("{ROOT}/src/providers/presets")).unwrap();
    let mut names: Vec<String> = files
        .filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[test]
fn each_preset_stores_signed_events_and_nothing_that_was_tampered_with() {
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::shared()) else {
        return;
    };
    let mut covered: Vec<_> = CASES.iter().map(|case| case.name).collect();
    covered.extend(ELSEWHERE);
    covered.sort_unstable();
    assert_eq!(covered, presets(), "a preset has no case here");
    let prefix = nats.stream("presets");
    let mut topics: Vec<_> = CASES
        .iter()
        .map(|case| format!("{prefix}.{}", case.topic))
        .collect();
    topics.sort();
    topics.dedup();
    kafka.create_topics(&topics);
    let pages = CASES
        .iter()
        .map(|case| without_brokers(&documented(case.name)));
    let pages = pages.collect::<String>();
    let pages = pages.replace("topic = \"", &format!("topic = \"{prefix}."));
    let brokers = kafka_broker("main", &kafka.address) + &nats_broker("spare", &nats.url);
    let pages = with_broker(&pages);
    let environment = variables(&pages);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let bridge = Bridge::run_files(&bridge::write("", &(brokers + &pages)), &environment);
    bridge.wait_ready();
    for case in CASES {
        let name = case.name;
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        for (what, code, request) in case.tampered(seconds) {
            let answer = bridge.send(&request);
            assert_eq!(answer.status, 401, "{name}: {what}: {answer:?}");
            if let Some(code) = code {
                assert_eq!(answer.outcome(), code, "{name}: {what}: {answer:?}");
            }
        }
        let stored = [("source", case.source())];
        let counted = bridge.metrics().sum("hookbridge_events_total", &stored);
        assert!(
            counted.abs() < f64::EPSILON,
            "{name}: {counted} were stored"
        );
        let answer = bridge.send(&case.request(seconds));
        assert!((200..300).contains(&answer.status), "{name}: {answer:?}");
        let counted = bridge.metrics().sum("hookbridge_events_total", &stored);
        assert!(
            (counted - 1.0).abs() < f64::EPSILON,
            "{name}: {counted} were stored"
        );
    }
    for case in CASES {
        let name = case.name;
        let source = format!("/hookbridge/{}", case.source());
        let messages = kafka.read(&format!("{prefix}.{}", case.topic));
        let of_case = messages
            .into_iter()
            .filter(|message| message.header("ce_source") == Some(&source));
        let message = only(of_case.collect());
        let is_generated = !matches!(case.id, Id::Given(_));
        let origin = message.header("event_id_origin") == Some("generated");
        assert_eq!(origin, is_generated, "{name}: {message:?}");
        if let Some(id) = case.id(&message.value) {
            assert_eq!(message.event_id(), id, "{name}");
        }
        assert_eq!(message.header("ce_type"), Some(case.event_type), "{name}");
        assert_eq!(message.header("ce_subject"), case.subject, "{name}");
        assert_eq!(message.key.as_deref(), Some(case.key), "{name}");
        let sent = case.body.split("MILLISECONDS").next().unwrap();
        let sent = sent
            .trim_start_matches('[')
            .trim_end()
            .trim_end_matches(']');
        let value = String::from_utf8(message.value).unwrap();
        assert!(
            value.contains(sent) || case.name == "okta",
            "{name}: {value}"
        );
    }
}

// ---- Commands

/// The configuration that `hookbridge providers NAME` prints.
fn starting_configuration(name: &str) -> String {
    let done = hookbridge(["providers", name]).expect_code(0);
    let at = done.stdout.find("[brokers.main]").expect("a configuration");
    assert!(
        done.stdout.contains(&format!("docs/providers/{name}.md")),
        "{done:?}"
    );
    done.stdout[at..].to_owned()
}

/// The samples in the file of a preset: type, header fields and body.
fn samples(name: &str) -> Vec<Value> {
    let text =
        std::fs::read_to_string(format!("{ROOT}/src/providers/presets/{name}.toml")).unwrap();
    let file: Value = toml::from_str(&text).unwrap();
    let samples = file.get("samples").and_then(Value::as_array);
    samples.cloned().unwrap_or_default()
}

#[test]
fn the_configuration_printed_by_providers_is_valid_and_accepts_what_send_signs() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("send");
    let names = presets();
    let mut sources = String::new();
    for name in &names {
        let text = starting_configuration(name);
        let variables = variables(&text);
        let environment = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<_> = environment.collect();
        let check = ["check", "--deny-warnings", "--config", "-"];
        let done = hookbridge_reading(check, text.as_bytes(), &environment);
        assert_eq!(done.code, Some(0), "{name}: {done:?}");
        sources.push_str(&without_brokers(&text));
    }
    for name in &names {
        sources = sources.replace(
            &format!("topic = \"{name}.events\""),
            &format!("topic = \"{stream}.{name}\""),
        );
    }
    let sources = with_broker(&sources);
    // Some sign the address, which is known once the bridge listens.
    let brokers = nats_broker("main", &nats.url) + &nats_broker("spare", &nats.url);
    let rest = |address: &str| brokers.clone() + &sources.replace(PUBLIC, address);
    let environment = variables(&sources);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut bridge = Bridge::run_files(&bridge::write("", &rest(PUBLIC)), &environment);
    bridge.wait_ready();
    let address = format!("http://{}", bridge.public);
    assert!(bridge.reload(&rest(&address)));
    let mut sent = 0;
    for name in &names {
        let secret = variables(&starting_configuration(name));
        // Amazon SNS has a certificate instead, and `aws_sns.rs` signs with its key.
        let Some((secret, _)) = secret.first() else {
            assert_eq!(name, "aws-sns");
            continue;
        };
        let secret = signing_value_of(secret);
        let mut types: Vec<String> = samples(name)
            .iter()
            .map(|sample| sample["type"].as_str().unwrap().to_owned())
            .collect();
        if name == "synq" {
            types.push("issue_created".to_owned());
        }
        assert!(!types.is_empty(), "{name} has no sample");
        for event_type in types {
            let url = format!("{address}/hooks/{name}");
            let arguments = [
                "send",
                "--provider",
                name,
                "--url",
                &url,
                "--sample",
                &event_type,
            ];
            let environment = [("HOOKBRIDGE_SEND_SECRET", secret.as_str())];
            let done = hookbridge_reading(arguments, b"", &environment);
            assert_eq!(done.code, Some(0), "{name} {event_type}: {done:?}");
            // A sample may hold several events; a fixed answer names none.
            sent += done.stdout.matches("\"event_id\"").count().max(1);
        }
    }
    assert_eq!(nats.read(&stream).len(), sent);
}

#[test]
fn explain_says_of_each_preset_what_the_signature_covers() {
    let mut text = kafka_broker("main", "localhost:9092");
    text.push_str(&kafka_broker("spare", "localhost:9093"));
    for name in presets() {
        let start = without_brokers(&starting_configuration(&name));
        text.push_str(&with_broker(&start));
    }
    let directory = process::directory("explain");
    let config = directory.join("hookbridge.toml");
    std::fs::write(&config, &text).unwrap();
    for name in presets() {
        let Some(sample) = samples(&name).into_iter().next() else {
            continue;
        };
        let body = sample["body"].as_str().unwrap();
        let body = body.replace("{number}", "7").replace("{milliseconds}", "7");
        let mut arguments = vec!["explain".to_owned(), "--json".to_owned()];
        let headers = sample["headers"].as_object().unwrap();
        for (name, value) in headers {
            arguments.extend([
                "--header".to_owned(),
                format!("{name}: {}", value.as_str().unwrap()),
            ]);
        }
        let config = config.to_str().unwrap();
        arguments.extend(["--source", &name, "--config", config].map(str::to_owned));
        let done = hookbridge_reading(&arguments, body.as_bytes(), &[]).expect_code(0);
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        let event = told.pointer("/events/0").unwrap_or(&told);
        assert_eq!(event["type"], sample["type"], "{name}: {done:?}");
        let signature = &told["signature"];
        assert!(
            signature["by"].as_str().is_some_and(|by| !by.is_empty()),
            "{done:?}"
        );
        let covers = signature["covers"].as_str().unwrap();
        let signs_nothing = [
            "alertmanager",
            "auth0",
            "azure-event-grid",
            "cloudevents",
            "mailgun",
            "microsoft-graph",
            "monday",
            "okta",
            "postmark",
        ];
        let covers_body = covers.contains("{body}") || covers.contains("{form}");
        assert_eq!(
            covers_body,
            !signs_nothing.contains(&name.as_str()),
            "{name}: {covers}"
        );
        let unsigned = signature["unsigned_headers"].as_array().unwrap();
        let is_github = ["x-github-delivery", "x-github-event"].map(Value::from);
        assert!(
            name != "github" || *unsigned == is_github,
            "{name}: {unsigned:?}"
        );
    }
    // Parts of the request are filled in, the other placeholders stay.
    let explain = |headers: &[&str]| {
        let mut arguments = vec![
            "explain",
            "--source",
            "slack",
            "--config",
            config.to_str().unwrap(),
        ];
        for header in headers {
            arguments.extend(["--header", header]);
        }
        let body = br#"{"type":"event_callback","event":{"type":"message"},"event_id":"Ev1"}"#;
        hookbridge_reading(arguments, body, &[])
            .expect_code(0)
            .stdout
    };
    assert!(explain(&[]).contains("v0:{timestamp}:{body}"));
    let timed = explain(&["X-Slack-Request-Timestamp: 1795132800"]);
    assert!(timed.contains("v0:1795132800:{body}"), "{timed}");
    assert!(
        timed.contains("hmac-sha256 in the header x-slack-signature"),
        "{timed}"
    );
}

#[test]
fn demo_shows_every_preset_whose_key_it_can_make() {
    let refused = hookbridge(["demo", "--provider", "aws-sns", "--events", "1"]);
    let refused = refused.expect_code(1);
    refused.expect_stderr(&["RSA keys", "send --provider aws-sns"]);
    for name in presets().iter().filter(|name| *name != "aws-sns") {
        let done = start(&["demo", "--provider", name, "--events", "2"]).expect_code(0);
        assert!(
            done.iter().any(|line| line == "all 2 events were consumed"),
            "{name}: {done:?}"
        );
    }
}

#[test]
fn pages_of_providers_are_those_of_presets() {
    let folder = std::fs::read_dir(Path::new(ROOT).join("docs/providers")).unwrap();
    let names = folder.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .map(|name| name.trim_end_matches(".md").to_owned())
        .collect();
    names.sort();
    assert_eq!(names, presets());
}
