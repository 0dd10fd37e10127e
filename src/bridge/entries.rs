//! A request's report as the live page shows it. Nothing here runs while nobody watches.

use std::sync::Arc;
use std::time::SystemTime;

use super::Bridge;
use super::feed::{Class, Content, Entry, Sent, Update};
use super::observe::{Attempt, Observed, Report};
use crate::brokers::{Kind, Message, NotStored, Outcome, Position, Unknown};
use crate::event::{Refusal, Status};
use crate::telemetry::shorten;
use strum::VariantArray as _;

impl Bridge {
    /// Counts a request, and shows its events.
    #[cold]
    pub(super) fn show(&self, report: &Report<'_>) {
        let feed = self.process().feed();
        let source = report.source.map_or("", |source| source.name.as_str());
        feed.count_request(source, class(report.result), report.duration);
        for event in report.events {
            for attempt in &event.attempts {
                if let Some(route) = attempt.route {
                    let class = match attempt.outcome {
                        Outcome::Stored(_) => Class::Accepted,
                        Outcome::NotStored(_) | Outcome::Unknown(_) => Class::Failed,
                    };
                    feed.count_message(route.ordinal, class, attempt.duration);
                }
            }
        }
        if report.events.is_empty() && feed.has_room() {
            feed.publish(&Update::Event(Arc::new(self.entry(report, None))));
        }
        for event in report.events {
            if feed.has_room() {
                feed.publish(&Update::Event(Arc::new(self.entry(report, Some(event)))));
            }
        }
    }

    fn entry(&self, report: &Report<'_>, event: Option<&Observed<'_>>) -> Entry {
        let answer = report.result.map_or_else(Refusal::code, Status::as_str);
        let outcome = event.map_or(answer, |event| event.outcome);
        // A batch is answered as a whole: its refusal is not each event's.
        let refusal = report
            .result
            .err()
            .filter(|refusal| refusal.code() == outcome);
        let letter = event.and_then(|event| event.dead_lettered.first());
        let reason = refusal.or(letter.map(AsRef::as_ref));
        let event_id = event.map_or(report.event_id, |event| event.event_id);
        let attempts = event.map_or(&[][..], |event| &event.attempts);
        let main = event.and_then(Observed::main_attempt);
        let is_accepted = Status::VARIANTS
            .iter()
            .any(|status| status.as_str() == outcome);
        let class = match report.result {
            _ if is_accepted => Class::Accepted,
            // A permanent refusal of one event refuses the whole batch before anything is published.
            _ if outcome != answer => Class::Failed,
            result => class(result),
        };
        Entry {
            at: SystemTime::now(),
            request_id: report.arrival.request_id.to_string(),
            client: report.arrival.client,
            source: report.source.map(|source| source.name.clone()),
            event_id: event_id.map(|event_id| shorten(event_id.as_str())),
            event_type: event.and_then(Observed::shown_type),
            outcome,
            class,
            answer: (answer != outcome).then_some(answer),
            detail: reason.map(|reason| shorten(&reason.detail())),
            faults: match reason {
                Some(Refusal::InvalidEvent(faults)) => faults.clone(),
                _ => Vec::new(),
            },
            duration: report.arrival.started.elapsed(),
            route: main.and_then(|main| main.route).map(|route| route.ordinal),
            messages: attempts.iter().map(|attempt| self.sent(attempt)).collect(),
            content: self.content(report, main),
        }
    }

    fn sent(&self, attempt: &Attempt<'_>) -> Sent {
        let (result, reason) = match &attempt.outcome {
            Outcome::Stored(_) => ("stored", None),
            Outcome::NotStored(NotStored { reason, .. }) => ("not_stored", Some(reason.label())),
            Outcome::Unknown(Unknown { reason, .. }) => ("unknown", Some(reason.label())),
        };
        let mut sent = Sent {
            broker: self.config().broker(attempt.broker).name.clone(),
            topic: shorten(&attempt.message.destination),
            result,
            reason,
            partition: None,
            offset: None,
            stream: None,
            sequence: None,
        };
        match attempt.position() {
            Some(Position::Kafka { partition, offset }) => {
                (sent.partition, sent.offset) = (Some(*partition), Some(*offset));
            }
            Some(Position::JetStream { stream, sequence }) => {
                (sent.stream, sent.sequence) = (Some(shorten(stream)), Some(*sequence));
            }
            None => {}
        }
        sent
    }

    /// The content, where the operator allows that it is shown.
    fn content(&self, report: &Report<'_>, main: Option<&Attempt<'_>>) -> Option<Content> {
        if !self.config().admin.show_bodies {
            return None;
        }
        match main {
            Some(main) => {
                let kind = self.config().broker(main.broker).settings.kind();
                let headers = headers(&main.message, kind);
                Some(Content::new(&main.message.body, headers))
            }
            None => report.body.map(|body| Content::new(body, Vec::new())),
        }
    }
}

fn headers(message: &Message, kind: Kind) -> Vec<(String, String)> {
    let headers = message.headers_on(kind);
    let headers = headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(value);
        (name.into_owned(), shorten(&value))
    });
    headers.collect()
}

fn class(result: Result<Status, &Refusal>) -> Class {
    match result {
        Ok(_) => Class::Accepted,
        Err(refusal) if refusal.status().is_server_error() => Class::Failed,
        Err(_) => Class::Refused,
    }
}
