//! The cluster's metadata about topics.
//!
//! librdkafka can request one topic, or all topics of the cluster; rdkafka has no request for a list. A few topics are
//! requested individually, which is cheap for any cluster. With many topics or slow answers, one request for all replaces
//! them: it costs a large cluster some megabytes, so [`Watch`](super::health::Watch) makes it rarely.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr as Response;

use crate::brokers::error::RequestError;

/// Maximum number of topics requested individually.
const MOST_ONE_BY_ONE: usize = 16;
/// Answers count as slow if some topics are still to be requested after this time.
const SLOW: Duration = Duration::from_secs(1);
/// Limit of a request for one topic.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit of a request for all topics.
const ALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of topics requested individually because the answer for all lacks them: it omits topics that the user may
/// not see, and only a request by name creates a topic.
pub(super) const MOST_NAMED: usize = 8;

/// The reason why a topic cannot be published to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It does not exist, as far as the user can see.
    Absent,
    /// A partition has no leader.
    Leaderless,
    /// The user may not see it.
    Hidden,
    /// Kafka's own description.
    Other(String),
}

/// The result of a survey.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Surveyed {
    /// Every topic is usable except these.
    Whole(BTreeMap<String, Fault>),
    /// The cluster answered, but not in time for all topics. These are known to be unusable.
    Part(BTreeMap<String, Fault>),
}

/// The target of a survey. An error means that nothing answered.
pub(super) trait Cluster {
    /// The fault of one topic; none if it is usable.
    fn topic(&self, name: &str, timeout: Duration) -> Result<Option<Fault>, RequestError>;

    /// The fault, if any, of each topic that the user may see.
    fn all(&self, timeout: Duration) -> Result<HashMap<String, Option<Fault>>, RequestError>;

    /// A method so that tests can control the time.
    fn elapsed(&self, began: Instant) -> Duration {
        began.elapsed()
    }
}

impl<C: ClientContext> Cluster for Client<C> {
    fn topic(&self, name: &str, timeout: Duration) -> Result<Option<Fault>, RequestError> {
        let metadata = self
            .fetch_metadata(Some(name), timeout)
            .map_err(|error| silence(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        Ok(found.map_or(Some(Fault::Absent), fault))
    }

    fn all(&self, timeout: Duration) -> Result<HashMap<String, Option<Fault>>, RequestError> {
        let metadata = self
            .fetch_metadata(None, timeout)
            .map_err(|error| silence(&error))?;
        let topics = metadata.topics().iter();
        Ok(topics
            .map(|topic| (topic.name().to_owned(), fault(topic)))
            .collect())
    }
}

/// Finds the faults of the topics.
///
/// # Errors
/// The cluster does not answer. In words for the operator.
pub(super) fn survey(cluster: &impl Cluster, topics: &[String]) -> Result<Surveyed, RequestError> {
    let began = Instant::now();
    let mut faults = BTreeMap::new();
    // The first answer, a small one, distinguishes a slow cluster from a silent one.
    let by_name = if topics.len() > MOST_ONE_BY_ONE {
        1
    } else {
        topics.len()
    };
    let mut asked = 0;
    for topic in topics.iter().take(by_name) {
        if cluster.elapsed(began) >= SLOW {
            break;
        }
        if let Some(fault) = cluster.topic(topic, TOPIC_TIMEOUT)? {
            faults.insert(topic.clone(), fault);
        }
        asked += 1;
    }
    let rest = topics.get(asked..).unwrap_or_default();
    if rest.is_empty() && asked > 0 {
        return Ok(Surveyed::Whole(faults));
    }
    let all = match cluster.all(ALL_TIMEOUT) {
        Ok(all) => all,
        Err(why) if asked == 0 => return Err(why),
        // The answer may be too large for the connection to carry in time.
        Err(_) => return Ok(Surveyed::Part(faults)),
    };
    let mut unseen = Vec::new();
    for topic in rest {
        match all.get(topic) {
            None => unseen.push(topic),
            Some(None) => {}
            Some(Some(fault)) => {
                faults.insert(topic.clone(), fault.clone());
            }
        }
    }
    for (asked, topic) in unseen.into_iter().enumerate() {
        let fault = if asked < MOST_NAMED {
            // An error here is not silence: the cluster has just answered.
            cluster
                .topic(topic, TOPIC_TIMEOUT)
                .unwrap_or(Some(Fault::Absent))
        } else {
            Some(Fault::Absent)
        };
        if let Some(fault) = fault {
            faults.insert(topic.clone(), fault);
        }
    }
    Ok(Surveyed::Whole(faults))
}

fn fault(topic: &MetadataTopic) -> Option<Fault> {
    let error = topic
        .error()
        .unwrap_or(Response::RD_KAFKA_RESP_ERR_NO_ERROR);
    match error {
        Response::RD_KAFKA_RESP_ERR_NO_ERROR => {
            let mut partitions = topic.partitions().iter();
            if topic.partitions().is_empty() {
                Some(Fault::Absent)
            } else {
                (!partitions.all(|partition| partition.leader() >= 0)).then_some(Fault::Leaderless)
            }
        }
        Response::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE => Some(Fault::Leaderless),
        Response::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Response::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => Some(Fault::Absent),
        Response::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Some(Fault::Hidden),
        other => Some(Fault::Other(RDKafkaErrorCode::from(other).to_string())),
    }
}

fn silence(error: &KafkaError) -> RequestError {
    let code = error.rdkafka_error_code();
    let code = code.map_or_else(|| error.to_string(), |code| code.to_string());
    RequestError(format!("no answer: {code}"))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A cluster with this number of topics, each of whose answers takes some time.
    struct Fake {
        topics: HashMap<String, Option<Fault>>,
        hidden: Vec<String>,
        takes: Duration,
        all_takes: Duration,
        now: Cell<Duration>,
        asked: RefCell<Vec<String>>,
    }

    impl Fake {
        fn with(topics: usize, takes: Duration) -> Self {
            Self {
                topics: names(topics).into_iter().map(|name| (name, None)).collect(),
                hidden: Vec::new(),
                takes,
                all_takes: takes,
                now: Cell::default(),
                asked: RefCell::default(),
            }
        }

        fn wait(&self, takes: Duration, timeout: Duration) -> Result<(), RequestError> {
            self.now.set(self.now.get() + takes.min(timeout));
            (takes <= timeout)
                .then_some(())
                .ok_or(RequestError("no answer".to_owned()))
        }
    }

    impl Cluster for Fake {
        fn topic(&self, name: &str, timeout: Duration) -> Result<Option<Fault>, RequestError> {
            self.asked.borrow_mut().push(name.to_owned());
            self.wait(self.takes, timeout)?;
            if self.hidden.iter().any(|hidden| hidden == name) {
                return Ok(Some(Fault::Hidden));
            }
            Ok(self
                .topics
                .get(name)
                .cloned()
                .unwrap_or(Some(Fault::Absent)))
        }

        fn all(&self, timeout: Duration) -> Result<HashMap<String, Option<Fault>>, RequestError> {
            self.asked.borrow_mut().push("*".to_owned());
            self.wait(self.all_takes, timeout)?;
            Ok(self.topics.clone())
        }

        fn elapsed(&self, _began: Instant) -> Duration {
            self.now.get()
        }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("topic-{number}")).collect()
    }

    fn nothing_wrong() -> Result<Surveyed, RequestError> {
        Ok(Surveyed::Whole(BTreeMap::new()))
    }

    #[test]
    fn ten_thousand_topics_take_two_requests() {
        let cluster = Fake::with(10_000, Duration::from_millis(5));
        assert_eq!(survey(&cluster, &names(10_000)), nothing_wrong());
        assert_eq!(*cluster.asked.borrow(), ["topic-0", "*"]);
    }

    #[test]
    fn a_few_topics_are_asked_for_by_name_and_cost_the_same_however_large_the_cluster() {
        let cluster = Fake::with(10_000, Duration::from_millis(5));
        assert_eq!(survey(&cluster, &names(MOST_ONE_BY_ONE)), nothing_wrong());
        assert_eq!(*cluster.asked.borrow(), names(MOST_ONE_BY_ONE));
    }

    #[test]
    fn slow_answers_are_answers() {
        let cluster = Fake::with(20, Duration::from_millis(2900));
        assert_eq!(survey(&cluster, &names(10)), nothing_wrong());
        assert_eq!(*cluster.asked.borrow(), ["topic-0", "*"]);
        // The request for all topics exceeds its limit; one topic does not.
        for topics in [10, 20] {
            let mut cluster = Fake::with(20, Duration::from_millis(2900));
            cluster.all_takes = ALL_TIMEOUT * 2;
            let part = Ok(Surveyed::Part(BTreeMap::new()));
            assert_eq!(survey(&cluster, &names(topics)), part);
        }
    }

    #[test]
    fn a_cluster_that_answers_nothing_is_silent() {
        for topics in [0, 1, 10, 1000] {
            let cluster = Fake::with(1000, Duration::from_secs(60));
            assert!(survey(&cluster, &names(topics)).is_err(), "{topics}");
            assert!(cluster.now.get() <= ALL_TIMEOUT + TOPIC_TIMEOUT);
        }
    }

    #[test]
    fn topics_missing_from_the_list_are_queried_by_name_up_to_a_limit() {
        let mut cluster = Fake::with(50, Duration::from_millis(1));
        cluster.topics.remove("topic-3");
        cluster.topics.remove("topic-4");
        cluster
            .topics
            .insert("topic-5".to_owned(), Some(Fault::Leaderless));
        cluster.hidden.push("topic-3".to_owned());
        let expected = [
            ("topic-3", Fault::Hidden),
            ("topic-4", Fault::Absent),
            ("topic-5", Fault::Leaderless),
        ];
        let expected = expected.map(|(topic, fault)| (topic.to_owned(), fault));
        assert_eq!(
            survey(&cluster, &names(50)),
            Ok(Surveyed::Whole(expected.into()))
        );
        let cluster = Fake::with(0, Duration::from_millis(1));
        let Ok(Surveyed::Whole(faults)) = survey(&cluster, &names(5000)) else {
            panic!("it answers")
        };
        assert_eq!(faults.len(), 5000);
        assert_eq!(cluster.asked.borrow().len(), 2 + MOST_NAMED);
    }
}
