//! Refusals of real Kafka: rights, missing topics, many topics, and the frequency of connection attempts.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::bridge::{
    self, Bridge, check_connect, hookbridge, kafka_broker, route, route_with, synq_source,
};
use crate::support::consumer::only;
use crate::support::events;
use crate::support::fixture::Broker;
use crate::support::kafka::acl::{Operation, Resource};
use crate::support::kafka::{Kafka, USER, unique};
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::{Mode, Proxy};
use crate::support::tls;
use crate::support::wait::{self, PATIENCE};

/// A broker table for a user with a password.
fn login(address: &str, password: &str) -> String {
    let user = USER.0;
    kafka_broker("main", address)
        + &format!(
            "options = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \
             \"sasl.username\" = \"{user}\", \"sasl.password\" = \"{password}\" }}\n"
        )
}

// ---- Rights

#[test]
fn a_user_that_may_describe_but_not_write_is_reported_and_the_producer_is_kept() {
    let kafka = or_skip!(Kafka::private_with_users(&[]));
    let sasl = kafka.sasl_address().unwrap();
    let topic = kafka.topic("rights");
    kafka.grant(USER.0, Resource::Topic, &topic, Operation::Describe);
    let rest = login(&sasl, USER.1) + &synq_source("") + &route(&topic);
    let checked = check_connect(&rest).expect_code(1);
    assert!(checked.stderr.contains("needs Write"), "{checked:?}");
    let bridge = Bridge::run_with("publish_timeout = \"4s\"", &rest);
    let body = bridge.wait_unready(&["needs Write"]);
    assert!(!body.contains("does not exist"), "{body}");
    let event = events::ping();
    let answer = bridge.deliver(&event);
    answer.expect_problem(503, "broker_unavailable");
    let is_authorization = |bridge: &Bridge| {
        bridge.metric(
            "hookbridge_publish_errors_total",
            &[("broker", "main"), ("reason", "authorization")],
        )
    };
    assert!(is_authorization(&bridge) >= 1.0);
    assert_eq!(
        bridge.metric("hookbridge_publish_errors_total", &[("reason", "fatal")]),
        0.0
    );
    assert_eq!(
        bridge.metric("hookbridge_broker_client_restarts_total", &[]),
        0.0
    );
    // Once the right is granted, events are stored without intervention.
    kafka.grant(USER.0, Resource::Topic, &topic, Operation::Write);
    bridge.wait_ready();
    let event = bridge.publish_ping();
    assert_eq!(only(kafka.read(&topic)).value, event.body);
    check_connect(&rest).expect_code(0);
}

#[test]
fn a_topic_that_the_user_may_not_write_to_is_reported_from_the_first_refused_event_on() {
    let kafka = or_skip!(Kafka::with_rights());
    let sasl = kafka.sasl_address().unwrap();
    let (allowed, refused) = (kafka.topic("rights"), kafka.topic("rights"));
    kafka.grant(USER.0, Resource::Topic, &allowed, Operation::Write);
    kafka.grant(USER.0, Resource::Topic, &refused, Operation::Describe);
    let rest = login(&sasl, USER.1)
        + &synq_source("")
        + &route_with(&refused, "types = [\"issue_*\"]")
        + &route_with(&allowed, "types = [\"ping\"]");
    let bridge = Bridge::run_with("publish_timeout = \"4s\"", &rest);
    bridge.wait_ready();
    let answer = bridge.deliver_within(&events::issue("created", "i1"), Duration::from_secs(3));
    answer.expect_problem(503, "broker_unavailable");
    wait::until("/readyz names the topic and the right", PATIENCE, || {
        let (status, body) = bridge.readyz();
        status == 200 && body.contains(&refused) && body.contains("needs Write")
    });
    bridge.publish_ping();
    kafka.grant(USER.0, Resource::Topic, &refused, Operation::Write);
    let event = events::issue("created", "i1");
    wait::until("the topic is written to", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
    wait::until("/readyz has nothing more to say of it", PATIENCE, || {
        !bridge.readyz().1.contains(&refused)
    });
}

#[test]
fn a_topic_that_the_user_may_not_see_is_not_said_to_be_missing() {
    let kafka = or_skip!(Kafka::with_rights());
    let sasl = kafka.sasl_address().unwrap();
    let topic = kafka.topic("rights");
    let rest = login(&sasl, USER.1) + &synq_source("") + &route(&topic);
    let checked = check_connect(&rest).expect_code(1);
    assert!(
        checked.stderr.contains("may not see the topic")
            && !checked.stderr.contains("does not exist"),
        "{checked:?}"
    );
    let bridge = Bridge::run_with("publish_timeout = \"4s\"", &rest);
    let body = bridge.wait_unready(&["the user may not"]);
    assert!(!body.contains("does not exist"), "{body}");
    bridge
        .deliver(&events::ping())
        .expect_problem(503, "broker_unavailable");
    assert!(
        bridge.metric(
            "hookbridge_publish_errors_total",
            &[("reason", "authorization")]
        ) >= 1.0
    );
}

#[test]
fn replay_and_tail_name_the_right_that_is_missing() {
    let kafka = or_skip!(Kafka::with_rights());
    let sasl = kafka.sasl_address().unwrap();
    let topic = kafka.topic("rights");
    let rest = login(&sasl, USER.1) + &synq_source("") + &route(&topic);
    let files = bridge::write("", &rest);
    let config = files.path();
    let replay = || {
        hookbridge([
            "replay",
            "--config",
            config,
            "--broker",
            "main",
            "--from",
            &topic,
            "--dry-run",
        ])
    };
    let tail = || {
        hookbridge([
            "tail", "--config", config, "--broker", "main", "--topic", &topic,
        ])
    };
    for done in [replay().expect_code(1), tail().expect_code(1)] {
        assert!(
            done.stderr.contains(&topic) && done.stderr.contains("needs Read"),
            "{done:?}"
        );
    }
    kafka.grant(USER.0, Resource::Topic, &topic, Operation::Read);
    let done = replay().expect_code(1);
    let group = format!("hookbridge-replay-{topic}");
    assert!(
        done.stderr.contains(&group) && done.stderr.contains("needs Read on the group"),
        "{done:?}"
    );
    kafka.grant(USER.0, Resource::Group, &group, Operation::Read);
    replay().expect_code(0);
}

// ---- Missing topics

#[test]
fn missing_topics_are_named_with_the_command_and_the_option_that_cure_it() {
    let kafka = or_skip!(Kafka::private_that_creates());
    let topic = unique("missing");
    let source = synq_source("");
    let rest = kafka_broker("main", &kafka.address) + &source + &route(&topic);
    let mut bridge = Bridge::run_with("publish_timeout = \"4s\"", &rest);
    let body = bridge.wait_unready(&["does not exist"]);
    let command = format!(
        "kafka-topics --bootstrap-server {} --create --topic {topic}",
        kafka.address
    );
    let option = "allow.auto.create.topics";
    for text in [
        topic.as_str(),
        "a running bridge creates no topics",
        &command,
        option,
    ] {
        assert!(body.contains(text), "{text}: {body}");
    }
    bridge.wait_for_line(&[&command, option]);
    let answer = bridge.deliver(&events::ping());
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    answer.expect_problem(503, "broker_unavailable");
    assert!(told.contains("the bridge creates none"), "{told}");
    let with = kafka_broker("main", &kafka.address)
        + "options = { \"allow.auto.create.topics\" = \"true\" }\n"
        + &source
        + &route(&topic);
    // Its client comes up once the topic exists, which its own request creates.
    wait::until("the option is taken", PATIENCE, || {
        bridge.reload_with("publish_timeout = \"4s\"", &with)
    });
    bridge.wait_ready();
    let event = events::ping();
    wait::until("the event is stored", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
}

// ---- Many topics

#[test]
fn seven_hundred_topics_behind_a_slow_line_are_ready() {
    let (kafka, proxy) = or_skip!(Kafka::behind_proxy());
    let name = unique("many");
    let topics: Vec<String> = (0..700).map(|number| format!("{name}-{number}")).collect();
    kafka.create_topics(&topics);
    let listed: Vec<String> = topics.iter().map(|topic| format!("\"{topic}\"")).collect();
    let rest = kafka_broker("main", &proxy.address)
        + &synq_source("")
        + &route_with(
            &format!("{name}-{{/ping/topic}}"),
            &format!("topics = [{}]", listed.join(", ")),
        );
    proxy.set(Mode::Delay(Duration::from_millis(5)));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    assert!(!bridge.readyz().1.contains(&name), "{:?}", bridge.readyz());
    assert_eq!(
        bridge
            .metrics()
            .find("hookbridge_broker_up", &[("broker", "main")]),
        Some(1.0)
    );
}

fn very_many_that_are_missing_behind_a_slow_line_are_said_to_be_missing<B: Broker>(words: &str) {
    let (_, proxy) = or_skip!(B::behind_proxy());
    let name = unique("absent");
    let topics: Vec<String> = (0..10_000)
        .map(|number| format!("\"{name}-{number}\""))
        .collect();
    let rest = B::table("main", &B::at(&proxy.address))
        + &synq_source("")
        + &route_with(
            &format!("{name}-{{/ping/topic}}"),
            &format!("topics = [{}]", topics.join(", ")),
        );
    proxy.set(Mode::Delay(Duration::from_millis(10)));
    let checked = check_connect(&rest).expect_code(1);
    assert!(checked.stderr.contains(words), "{:.2000}", checked.stderr);
}

#[test]
fn very_many_missing_topics_behind_a_slow_line_are_said_to_be_missing() {
    very_many_that_are_missing_behind_a_slow_line_are_said_to_be_missing::<Kafka>(
        " and 9972 more: the topic does not exist",
    );
}

#[test]
fn very_many_subjects_without_a_stream_behind_a_slow_line_are_said_to_have_none() {
    very_many_that_are_missing_behind_a_slow_line_are_said_to_be_missing::<Nats>(
        " and 9980 more: no stream takes",
    );
}

// ---- Reconnects, and where a connection ends

/// A port, its treatment of each connection, and how many there were.
struct Port {
    address: String,
    accepted: Arc<AtomicUsize>,
}

impl Port {
    fn start(answer: fn(TcpStream)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, accepted }
    }
}

fn answer_as_http(mut stream: TcpStream) {
    let mut request = [0; 1024];
    if stream.read(&mut request).is_ok() {
        drop(stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ));
    }
}

/// The number of connections that a bridge makes within this time, and their rate per second.
fn rate(what: &str, rest: &str, accepted: impl Fn() -> usize) -> f64 {
    const TIME: Duration = Duration::from_secs(10);
    let before = accepted();
    let bridge = Bridge::run(rest);
    let started = Instant::now();
    wait::until("the time is over", PATIENCE, || started.elapsed() >= TIME);
    let count = accepted() - before;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{what}: {count} connections, {rate:.1} a second");
    drop(bridge);
    rate
}

/// More than a few per second, from all clients of one bridge together.
const STORM: f64 = 10.0;

#[test]
fn no_failure_makes_a_storm_of_connections() {
    let (kafka, proxy) = or_skip!(Kafka::behind_proxy());
    let topic = kafka.topic("storm");
    let rest = |broker: String| broker + &synq_source("") + &route(&topic);
    let closing = Port::start(drop);
    let closed = rate(
        "accepted and closed",
        &rest(kafka_broker("main", &closing.address)),
        || closing.accepted.load(Ordering::SeqCst),
    );
    let http = Port::start(answer_as_http);
    let spoken = rate("HTTP", &rest(kafka_broker("main", &http.address)), || {
        http.accepted.load(Ordering::SeqCst)
    });
    let to_tls = |address: &str, options: &str| {
        rest(
            kafka_broker("main", address)
                + &format!("options = {{ \"security.protocol\" = \"ssl\"{options} }}\n"),
        )
    };
    // The broker's listener is plain, so no handshake succeeds.
    let plain = rate("TLS to a plain port", &to_tls(&proxy.address, ""), || {
        proxy.accepted()
    });
    for (what, rate) in [("closed", closed), ("http", spoken), ("plain", plain)] {
        assert!(rate < STORM, "{what}: {rate} a second");
    }
    let (Some(secure), Some(sasl)) = (kafka.tls_address(), kafka.sasl_address()) else {
        return;
    };
    let to = |address: &str| address.rsplit_once(':').unwrap().1.parse().unwrap();
    let front = Proxy::start(process::port(), to(&secure));
    let untrusted = rate("untrusted certificate", &to_tls(&front.address, ""), || {
        front.accepted()
    });
    let front = Proxy::start(process::port(), to(&sasl));
    let password = rate(
        "wrong password",
        &rest(login(&front.address, "wrong")),
        || front.accepted(),
    );
    for (what, rate) in [("untrusted", untrusted), ("password", password)] {
        assert!(rate < STORM, "{what}: {rate} a second");
    }
}

#[test]
fn check_connect_names_the_step_that_failed_within_ten_seconds() {
    let Some(kafka) = Kafka::shared() else { return };
    let (Some(sasl), Some(secure)) = (kafka.sasl_address(), kafka.tls_address()) else {
        return process::skip("SASL and TLS", "need a Kafka broker for one test");
    };
    let topic = kafka.topic("steps");
    let http = Port::start(answer_as_http);
    let silent = Port::start(|stream| {
        let mut stream = stream;
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    });
    let options = |address: &str, options: &str| {
        kafka_broker("main", address) + &format!("options = {{ {options} }}\n")
    };
    let nobody = format!("127.0.0.1:{}", process::port());
    let authority = tls::CERTIFICATES.authority.display();
    let ssl = "\"security.protocol\" = \"ssl\"";
    for (what, broker, expected) in [
        (
            "name",
            kafka_broker("main", "nowhere.invalid:9092"),
            "name resolution failed",
        ),
        ("tcp", kafka_broker("main", &nobody), "no TCP connection"),
        ("plain to TLS", kafka_broker("main", &secure), "want TLS"),
        (
            "TLS to plain",
            options(&kafka.address, ssl),
            "does not speak it",
        ),
        ("unknown authority", options(&secure, ssl), "TLS failed"),
        (
            "HTTP",
            kafka_broker("main", &http.address),
            "an HTTP server answers there",
        ),
        (
            "silence",
            kafka_broker("main", &silent.address),
            "Kafka does not answer there",
        ),
        ("password", login(&sasl, "wrong"), "authentication failed"),
    ] {
        let started = Instant::now();
        let done = check_connect(&(broker + &synq_source("") + &route(&topic)));
        let took = started.elapsed();
        println!("{what}: {took:?} {}", done.stderr.trim());
        let done = done.expect_code(1);
        assert!(done.stderr.contains(expected), "{what}: {done:?}");
        assert!(took < Duration::from_secs(12), "{what}: {took:?}");
    }
    let good = options(
        &secure,
        &format!("{ssl}, \"ssl.ca.location\" = \"{authority}\""),
    );
    check_connect(&(good + &synq_source("") + &route(&topic))).expect_code(0);
}
