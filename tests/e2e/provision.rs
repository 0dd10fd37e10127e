//! `provision` creates the topics and streams that are missing, and changes nothing that exists.

use std::time::Duration;

use async_nats::jetstream;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use crate::support::bridge::{
    Files, Finished, check_connect, kafka_broker, nats_broker, route_with, synq_source, write,
};
use crate::support::events::TYPES;
use crate::support::kafka::acl::{Operation, Resource};
use crate::support::kafka::tokens::{CLIENT, Provider};
use crate::support::kafka::{Kafka, USER, unique};
use crate::support::nats::{Access, Nats};
use crate::support::{process, runtime, tls};

fn provision(files: &Files, arguments: &[&str], code: i32) -> Finished {
    files
        .command(&[&["provision"], arguments].concat())
        .expect_code(code)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items.map(|item| item["name"].as_str().unwrap()).collect()
}

/// Partitions and replicas of a topic as the cluster shows it.
fn shape(kafka: &Kafka, topic: &str) -> (usize, usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.address)
        .create()
        .unwrap();
    let metadata = consumer
        .fetch_metadata(None, Duration::from_secs(20))
        .unwrap();
    let mut topics = metadata.topics().iter();
    let found = topics.find(|found| found.name() == topic);
    found.map_or((0, 0), |found| {
        let partitions = found.partitions();
        (partitions.len(), partitions[0].replicas().len())
    })
}

fn setting(kafka: &Kafka, topic: &str, name: &str) -> String {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.address)
        .create()
        .unwrap();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let topics = [ResourceSpecifier::Topic(topic)];
    let described = runtime().block_on(admin.describe_configs(&topics, &options));
    let described = described.unwrap().remove(0).unwrap();
    described.get(name).unwrap().value.clone().unwrap()
}

fn stream(nats: &Nats, name: &str) -> Option<jetstream::stream::Config> {
    runtime().block_on(async {
        let context = jetstream::new(nats.connect().await);
        let stream = context.get_stream(name).await.ok()?;
        Some(stream.cached_info().config.clone())
    })
}

#[test]
fn topics_are_created_once_as_the_configuration_says_and_a_dry_run_creates_none() {
    // A request for a missing topic would create it there.
    let kafka = or_skip!(Kafka::private_that_creates());
    let wishes =
        "provision = { partitions = 3, replication_factor = 1, min_insync_replicas = 1 }\n";
    let dead = "on_invalid = { dead_letter = { broker = \"main\", topic = \"invalid\" } }";
    let rest = kafka_broker("main", &kafka.address)
        + wishes
        + &synq_source(dead)
        + &route_with(
            "synq.{type}",
            "types = [\"issue_*\"]\ncopy_to = [{ topic = \"all\" }]",
        )
        + &route_with(
            "synq.{/workspace}",
            "topics = [\"synq.one\", \"synq.two\"]\ntypes = [\"ping\"]",
        )
        + &route_with("rest.{type}", "");
    let files = write("", &rest);
    let expected = |prefix: &'static str, taken: fn(&str) -> bool| {
        let types = TYPES.into_iter().filter(move |name| taken(name));
        types.map(move |name| format!("{prefix}.{name}"))
    };
    let mut topics: Vec<String> = expected("synq", |name| name.starts_with("issue_"))
        .chain(expected("rest", |name| name.starts_with("incident_")))
        .chain(["all", "invalid", "synq.one", "synq.two"].map(str::to_owned))
        .collect();
    topics.sort();

    let planned = provision(&files, &["--dry-run", "--format", "json"], 0).json();
    let plan = &planned["brokers"][0];
    assert_eq!(names(&plan["items"]), topics, "{plan:#}");
    assert!(
        plan["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["action"] == "create"),
        "{plan:#}"
    );
    // The cluster was asked whether it would.
    assert!(
        plan["created"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["result"] == "possible"),
        "{plan:#}"
    );
    for topic in &topics {
        assert_eq!(shape(&kafka, topic), (0, 0), "{topic} exists");
    }

    let done = provision(&files, &[], 0).expect_stdout(&[
        "broker main (Kafka at ",
        "create topic synq.issue_created",
        "partitions: 3",
        "replication factor: 1",
        "min.insync.replicas=1",
        "created synq.issue_created",
        "cannot be known in advance: rest.{type}",
        "main: 11 created, 0 left as they were",
    ]);
    assert_eq!(topics.len(), 11, "{done:?}");
    for topic in &topics {
        assert_eq!(shape(&kafka, topic), (3, 1), "{topic}");
    }
    assert_eq!(setting(&kafka, "all", "max.message.bytes"), "2097152");
    assert_eq!(setting(&kafka, "all", "min.insync.replicas"), "1");
    check_connect(&rest).expect_code(0);

    let again = provision(&files, &[], 0);
    let again = again.expect_stdout(&["main: 0 created, 11 left as they were"]);
    assert!(!again.stdout.contains("differs"), "{again:?}");
    // Flags replace the configuration's wishes; what exists stays as it is.
    let differs = provision(&files, &["--partitions", "5"], 0);
    differs.expect_stdout(&[
        "keep   topic all, although it differs:",
        "the number of partitions is 3, wanted 5",
        "main: 0 created",
    ]);
    assert_eq!(shape(&kafka, "all"), (3, 1));
}

#[test]
fn what_the_cluster_refuses_fails_and_is_explained() {
    let kafka = or_skip!(Kafka::shared());
    let topic = unique("provision");
    let rest = kafka_broker("main", &kafka.address) + &synq_source("") + &route_with(&topic, "");
    let files = write("", &rest);
    let wrong = "too few brokers for a replication factor of 9";
    for arguments in [&["--dry-run"][..], &[]] {
        let all = [arguments, &["--replication-factor", "9"]].concat();
        provision(&files, &all, 1).expect_stderr(&[&topic, wrong]);
    }
    // Kafka would create it, and then take no event.
    let never = "min_insync_replicas = 2 needs as many replicas";
    provision(&files, &["--min-insync-replicas", "2"], 1).expect_stderr(&[never]);
    assert_eq!(shape(kafka, &topic), (0, 0));
    // Wrong usage.
    for arguments in [
        &["--stream", "X"][..],
        &["--partitions", "0"],
        &["--duplicate-window", "soon"],
    ] {
        provision(&files, arguments, 2);
    }
    let advice = "create it with `hookbridge provision`";
    check_connect(&rest).expect_code(1).expect_stderr(&[advice]);
    provision(&files, &[], 0);
    check_connect(&rest).expect_code(0);
}

#[test]
fn a_missing_right_to_create_topics_is_named_and_so_is_a_login_that_cannot_be_used() {
    let kafka = or_skip!(Kafka::with_rights());
    let topic = unique("provision");
    let address = kafka.sasl_address().unwrap();
    let login = format!(
        "options = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = \"{}\", \"sasl.password\" = \"{}\" }}\n",
        USER.0, USER.1
    );
    let rest = kafka_broker("main", &address) + &login + &synq_source("") + &route_with(&topic, "");
    let files = write("", &rest);
    let done = provision(&files, &[], 1);
    done.expect_stdout(&["grant the user Describe on the topic, and Create"]);
    kafka.grant(USER.0, Resource::Topic, &topic, Operation::Describe);
    for arguments in [&["--dry-run"][..], &[]] {
        let done = provision(&files, arguments, 1);
        done.expect_stderr(&["grant it Create on the topic"]);
    }
    assert_eq!(shape(kafka, &topic), (0, 0));

    let Some((_kafka, address)) = Kafka::with_tokens() else {
        return;
    };
    let provider = Provider::start(Duration::from_secs(3600));
    let login = format!(
        "options = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"OAUTHBEARER\", \
         \"sasl.oauthbearer.method\" = \"oidc\", \"sasl.oauthbearer.client.id\" = \"{}\", \
         \"sasl.oauthbearer.client.secret\" = \"{}\", \"sasl.oauthbearer.scope\" = \"kafka write\", \
         \"sasl.oauthbearer.token.endpoint.url\" = \"{}\", \"https.ca.location\" = \"{}\" }}\n",
        CLIENT.0,
        CLIENT.1,
        provider.url(),
        tls::CERTIFICATES.authority.display()
    );
    let rest = kafka_broker("main", address) + &login + &synq_source("") + &route_with(&topic, "");
    let done = provision(&write("", &rest), &[], 1);
    done.expect_stderr(&["OAUTHBEARER", "Kafka's own tools", &topic]);
}

#[test]
fn one_stream_is_created_with_the_subjects_that_no_stream_takes() {
    let nats = or_skip!(Nats::private());
    let dead = "on_invalid = { dead_letter = { broker = \"main\", topic = \"invalid\" } }";
    let wishes = "provision = { stream = \"HOOKS\", max_bytes = \"1GiB\" }\n";
    let rest = nats_broker("main", &nats.url)
        + wishes
        + &synq_source(dead)
        + &route_with("synq.issues.{type}", "types = [\"issue_*\"]")
        + &route_with("synq.{type}", "");
    let files = write("", &rest);
    provision(&files, &["--dry-run"], 0).expect_stdout(&["create stream HOOKS", "synq.>"]);
    assert!(stream(&nats, "HOOKS").is_none());
    let advice = "create one with `hookbridge provision`";
    check_connect(&rest).expect_code(1).expect_stderr(&[advice]);

    let done = provision(&files, &[], 0);
    done.expect_stdout(&["created HOOKS", "main: 1 created, 0 left as they were"]);
    let created = stream(&nats, "HOOKS").unwrap();
    assert_eq!(created.subjects, ["invalid", "synq.>"]);
    assert_eq!(created.num_replicas, 1);
    assert_eq!(created.storage, jetstream::stream::StorageType::File);
    assert_eq!(created.max_bytes, 1 << 30);
    assert_eq!(created.duplicate_window, Duration::from_secs(3600));
    // A full stream must refuse events: it would drop acknowledged ones.
    assert_eq!(created.discard, jetstream::stream::DiscardPolicy::New);
    check_connect(&rest).expect_code(0);

    let again = provision(&files, &["--max-bytes", "2GiB"], 0);
    again.expect_stdout(&[
        "keep   stream HOOKS, although it differs:",
        "max_bytes is 1.0 GiB, wanted 2.0 GiB",
        "main: 0 created, 1 left as they were",
    ]);
    assert_eq!(stream(&nats, "HOOKS").unwrap(), created);

    // The stream lacks a subject, and is not changed.
    let more = rest.clone() + &route_with("x", "").replace("\"x\"", "\"more.{source}\"");
    let more = more.replace(
        "\"synq.{type}\"",
        "\"synq.{type}\"\ntypes = [\"incident_*\"]",
    );
    let done = provision(&write("", &more), &[], 1);
    done.expect_stdout(&[
        "can't  stream HOOKS",
        "does not take more.synq",
        "nats stream edit HOOKS --subjects 'invalid,synq.>,more.synq'",
    ]);
    assert_eq!(stream(&nats, "HOOKS").unwrap(), created);
    let other = provision(&write("", &more), &["--stream", "MORE"], 0);
    other.expect_stdout(&["keep   stream HOOKS", "created MORE"]);
    assert_eq!(stream(&nats, "MORE").unwrap().subjects, ["more.synq"]);
}

#[test]
fn subjects_of_other_streams_are_reported_and_left_to_them() {
    let nats = or_skip!(Nats::private());
    let create = |name: &str, subject: &str| {
        nats.stream_with("x", |settings| {
            name.clone_into(&mut settings.name);
            settings.subjects = vec![subject.to_owned()];
        });
    };
    create("PINGS", "synq.ping");
    let rest = nats_broker("main", &nats.url)
        + &synq_source("")
        + &route_with("synq.{type}", "types = [\"ping\", \"issue_c*\"]");
    let files = write("", &rest);
    let done = provision(&files, &[], 0);
    done.expect_stdout(&[
        "keep   stream PINGS, although it differs:",
        "synq.> overlaps with subjects of existing streams: PINGS (synq.ping)",
        "created HOOKBRIDGE",
    ]);
    let created = stream(&nats, "HOOKBRIDGE").unwrap();
    assert_eq!(
        created.subjects,
        ["synq.issue_closed", "synq.issue_created"]
    );
    check_connect(&rest).expect_code(0);
    let again = provision(&files, &[], 0);
    again.expect_stdout(&["main: 0 created, 2 left as they were"]);
}

#[test]
fn a_cluster_gives_a_new_topic_three_replicas_of_which_two_must_be_in_sync() {
    let cluster = or_skip!(crate::support::kafka::cluster::Cluster::start());
    let topic = unique("provision");
    let rest =
        kafka_broker("main", &cluster.all.address) + &synq_source("") + &route_with(&topic, "");
    provision(&write("", &rest), &[], 0);
    assert_eq!(shape(&cluster.all, &topic).1, 3);
    assert_eq!(setting(&cluster.all, &topic, "min.insync.replicas"), "2");
    check_connect(&rest.replace("[sources", "require_durable = true\n[sources")).expect_code(0);
}

#[test]
fn a_cluster_gives_a_new_stream_three_replicas() {
    let cluster = or_skip!(crate::support::nats::cluster::Cluster::start());
    let name = unique("provision");
    let servers = cluster.all.url.replace(',', "\", \"");
    let rest =
        nats_broker("main", &servers) + &synq_source("") + &route_with(&format!("{name}.x"), "");
    provision(&write("", &rest), &["--stream", &name], 0);
    assert_eq!(stream(&cluster.all, &name).unwrap().num_replicas, 3);
}

#[test]
fn brokers_that_cannot_be_used_are_named_and_the_others_are_provisioned() {
    let nats = or_skip!(Nats::shared());
    let limited = or_skip!(Nats::private_for(Access::Limited(
        "publish: \"x.>\", subscribe: \"_INBOX.>\"".to_owned()
    )));
    let name = unique("provision");
    let nobody = format!("127.0.0.1:{}", process::port());
    let rest = kafka_broker("away", &nobody)
        + &nats_broker("main", &nats.url)
        + &nats_broker("limited", &limited.url)
        + "user = \"bridge\"\npassword = \"bridge\"\n"
        + &nats_broker("plain", &nats.url)
        + "ack = \"core\"\n"
        + &synq_source("")
        + &route_with(
            &format!("{name}.x"),
            "broker = \"away\"\nfallback = \"main\"\ncopy_to = [{ broker = \"limited\", topic = \"x.y\" }, { broker = \"plain\", topic = \"z\" }]",
        );
    let files = write("", &rest);
    let done = provision(&files, &["--stream", &name], 1);
    let done = done.expect_stderr(&[
        "broker away: it can't be reached: ",
        "broker limited: ",
        "$JS.API.STREAM.NAMES",
    ]);
    done.expect_stdout(&[&format!("created {name}"), "ack = \"core\""]);
    assert!(stream(nats, &name).is_some());
    provision(&files, &["--broker", "main"], 0);
    let wrong = provision(&files, &["--broker", "mian"], 1);
    wrong.expect_stderr(&["the broker mian is not defined", "main"]);
}
