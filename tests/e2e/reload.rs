//! A configuration replaces another one under load: no refused event and no closed connection, or no change.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::version::TLS13;

use crate::support::bridge::{
    self, Bridge, kafka_broker, nats_broker, route, route_with, synq_source, whole,
};
use crate::support::checker::Checker;
use crate::support::consumer::{Stored, only};
use crate::support::events::{self, Event};
use crate::support::fixture::nats;
use crate::support::kafka::Kafka;
use crate::support::load::Load;
use crate::support::nats::{Access, Nats};
use crate::support::process;
use crate::support::sender::{Connection, Request};
use crate::support::tls::{self, CERTIFICATES, Certificates, Tls};
use crate::support::usage::Usage;
use crate::support::wait::{self, PATIENCE};

const HTTP: &str = "publish_timeout = \"5s\"";

fn event(number: usize) -> Event {
    events::issue("created", &format!("i{number}"))
}

/// Everything is answered 200, and this many messages are stored.
#[track_caller]
fn expect_all_published(checker: &Checker, stored: &[Stored]) {
    let books = checker.check(stored);
    assert_eq!(
        checker.answered(200),
        checker.answers(),
        "{}",
        checker.summary()
    );
    assert_eq!(books.acknowledged, checker.events());
    assert_eq!(books.duplicates, 0);
    assert_eq!(checker.unanswered(), 0, "{}", checker.summary());
    println!("sent, acknowledged and found: {}", checker.events());
}

/// Waits until the load has continued for a while.
fn go_on(load: &Load, bridge: &Bridge) {
    let before = load.checker.answers();
    wait::until("the load goes on", PATIENCE, || {
        load.checker.answers() >= before + 100
    });
    assert_eq!(bridge.admin("/healthz").status, 200);
}

#[test]
fn routes_change_under_load_on_open_connections_and_each_event_takes_the_old_one_or_the_new_one() {
    let Some(kafka) = Kafka::shared() else { return };
    let (old, new) = (kafka.topic("old"), kafka.topic("new"));
    let head = kafka_broker("main", &kafka.address) + &synq_source("");
    let mut bridge = Bridge::run(&(head.clone() + &route(&old)));
    bridge.wait_ready();
    let mut connection = Connection::open(bridge.public).unwrap();
    let first = events::ping();
    let answer = connection.send(&Request::event(&first)).unwrap();
    answer.expect_published(&first);

    let load = Load::start(bridge.public, 4, event);
    go_on(&load, &bridge);
    assert!(bridge.reload(&(head.clone() + &route(&new))));
    // From here on everything goes to the new destination.
    let after = events::ping();
    let answer = connection.send(&Request::event(&after)).unwrap();
    answer.expect_published(&after);
    go_on(&load, &bridge);
    for topic in [&old, &new, &old, &new] {
        assert!(bridge.reload(&(head.clone() + &route(topic))));
    }
    let checker = load.stop();

    let (in_old, in_new) = (kafka.read(&old), kafka.read(&new));
    assert!(in_old.iter().any(|message| message.value == first.body));
    assert!(in_new.iter().any(|message| message.value == after.body));
    assert!(in_old.len() > 100 && in_new.len() > 100);
    let mine = |message: &Stored| message.value != first.body && message.value != after.body;
    let loaded: Vec<_> = in_old.into_iter().chain(in_new).filter(mine).collect();
    expect_all_published(&checker, &loaded);
    let metrics = bridge.metrics();
    assert_eq!(
        metrics.find("hookbridge_config_last_reload_successful", &[]),
        Some(1.0)
    );
    // The client was kept.
    assert_eq!(
        metrics.find("hookbridge_broker_client_restarts_total", &[]),
        Some(0.0)
    );
}

#[test]
fn f43_a_broker_changes_under_load_and_the_old_client_is_flushed_first() {
    let (Some(kafka), Some(nats), Some(other)) = (Kafka::shared(), Nats::shared(), Nats::private())
    else {
        return;
    };
    let topic = kafka.topic("f43");
    let (stream, moved) = (nats.stream("f43"), other.stream("f43"));
    let configuration = |broker: String, topic: &str| broker + &synq_source("") + &route(topic);
    let to_nats = configuration(
        nats_broker("main", &nats.url),
        &format!("{stream}.{{type}}"),
    );
    let mut bridge = Bridge::run_with(HTTP, &to_nats);
    bridge.wait_ready();
    let load = Load::start(bridge.public, 8, event);
    go_on(&load, &bridge);
    // To another server, to Kafka, to a client with other options, and back.
    let steps = [
        configuration(
            nats_broker("main", &other.url),
            &format!("{moved}.{{type}}"),
        ),
        configuration(kafka_broker("main", &kafka.address), &topic),
        configuration(
            kafka_broker("main", &kafka.address) + "options = { \"linger.ms\" = \"20\" }\n",
            &topic,
        ),
        to_nats,
    ];
    for (number, step) in (1_u32..).zip(steps) {
        assert!(bridge.reload_with(HTTP, &step));
        go_on(&load, &bridge);
        let restarts = bridge.metrics().find(
            "hookbridge_broker_client_restarts_total",
            &[("broker", "main"), ("reason", "reload")],
        );
        assert_eq!(restarts, Some(f64::from(number)));
    }
    wait::until("every former client has ended", PATIENCE, || {
        let log = bridge.log();
        let ended = log
            .iter()
            .filter(|line| line.contains("the former client has ended"));
        ended
            .filter(|line| line.contains("\"unconfirmed\":0"))
            .count()
            == 4
    });
    let checker = load.stop();
    let stored: Vec<_> = [nats.read(&stream), other.read(&moved), kafka.read(&topic)].concat();
    expect_all_published(&checker, &stored);
    assert!(
        !bridge
            .log()
            .iter()
            .any(|line| line.contains("broker is down")),
        "a client that is no longer needed is not an outage"
    );
}

#[test]
fn f42_a_broken_configuration_changes_nothing_and_says_where_it_is_broken() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("f42");
    let good = |keys: &str| {
        nats_broker("main", &nats.url) + &synq_source(keys) + &route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&good(""));
    bridge.wait_ready();
    let load = Load::start(bridge.public, 4, event);
    go_on(&load, &bridge);
    let successful = |bridge: &Bridge| {
        bridge
            .metrics()
            .find("hookbridge_config_last_reload_successful", &[])
    };
    for (broken, expected) in [
        ("[[routes]\n", "bridge/hookbridge.toml:"),
        ("secrets = [", "hookbridge.toml:"),
        (&good("max_bodi = \"1MiB\""), "max_bodi"),
        (&good("schema = \"absent.json\""), "absent.json"),
        (
            &good("").replace(events::SECRET, "${F42_IS_NOT_SET}"),
            "F42_IS_NOT_SET",
        ),
        (&good("").replace(events::SECRET, " "), "empty"),
    ] {
        let seen = bridge.log().len();
        assert!(!bridge.reload(broken));
        assert_eq!(successful(&bridge), Some(0.0));
        let expected = expected.trim_start_matches("bridge/");
        let is_error = |line: &&String| line.contains("\"ERROR\"");
        wait::until(&format!("the log has {expected}"), PATIENCE, || {
            let log = bridge.log();
            let mut errors = log[seen..].iter().filter(is_error);
            errors.any(|line| line.contains(expected))
        });
        let log = bridge.log();
        let errors: Vec<_> = log[seen..].iter().filter(is_error).collect();
        assert!(
            errors.iter().any(|line| line.contains("hookbridge.toml:")),
            "a line and a column: {errors:#?}"
        );
        assert!(!log.iter().any(|line| line.contains(events::SECRET)));
        go_on(&load, &bridge);
    }
    assert!(bridge.reload(&good("max_body = \"2MiB\"")));
    assert_eq!(successful(&bridge), Some(1.0));
    go_on(&load, &bridge);
    expect_all_published(&load.stop(), &nats.read(&stream));
}

#[test]
fn f21_the_right_password_is_taken_by_a_reload() {
    let access = Access::Password {
        user: "bridge",
        password: "of the f21 test",
    };
    let nats = or_skip!(Nats::private_for(access));
    let stream = nats.stream("f21");
    let broker = |password: &str| {
        nats_broker("main", &nats.url) + &format!("user = \"bridge\"\npassword = \"{password}\"\n")
    };
    let rest = |password: &str| {
        broker(password) + &synq_source("") + &route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&rest("another one"));
    wait::until("/readyz names the cause", PATIENCE, || {
        let answer = bridge.admin("/readyz");
        answer.status == 503
            && String::from_utf8_lossy(&answer.body).contains("authentication failed")
    });
    let refused = events::ping();
    bridge
        .deliver(&refused)
        .expect_problem(503, "broker_unavailable");
    assert!(bridge.reload(&rest("of the f21 test")));
    bridge.wait_ready();
    let event = bridge.publish_ping();
    assert_eq!(only(nats.read(&stream)).value, event.body);
    let log = bridge.log().join("\n");
    assert!(!log.contains("another one") && !log.contains("of the f21 test"));
}

#[test]
fn a_new_broker_that_is_out_of_reach_leaves_everything_as_it_was() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("reach");
    let head = nats_broker("main", &nats.url);
    let tail = synq_source("") + &route_with(&format!("{stream}.{{type}}"), "broker = \"main\"");
    let mut bridge = Bridge::run(&(head.clone() + &tail));
    bridge.wait_ready();
    let load = Load::start(bridge.public, 4, event);
    let nobody = format!("127.0.0.1:{}", process::port());
    for absent in [
        head.clone() + &kafka_broker("second", &nobody),
        head + &nats_broker("second", &format!("nats://{nobody}")),
        // The one in use, moved to an unused address.
        nats_broker("main", &format!("nats://{nobody}")),
    ] {
        let seen = bridge.log().len();
        assert!(!bridge.reload(&(absent + &tail)));
        assert!(
            bridge.log()[seen..]
                .iter()
                .any(|line| line.contains("was not reached within")),
        );
        assert_eq!(bridge.admin("/readyz").status, 200);
        assert!(!bridge.metrics().0.contains("broker=\"second\""));
    }
    go_on(&load, &bridge);
    expect_all_published(&load.stop(), &nats.read(&stream));
}

#[test]
fn sources_secrets_and_limits_come_and_go_and_their_series_with_them() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("come");
    let with = |sources: &str| {
        nats_broker("main", &nats.url) + sources + &route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&with(&synq_source("")));
    bridge.wait_ready();
    let signed = |secret: &str| {
        let event = events::ping();
        Request::post("/hooks/synq", event.body).signed(secret)
    };
    bridge
        .send(&signed(events::SECRET))
        .expect_success("published");
    bridge
        .send(&signed("whs_second"))
        .expect_problem(401, "invalid_signature");

    // A second secret, a smaller body, and another source.
    let more = format!(
        "[sources.synq]\nsecrets = [\"{}\", \"whs_second\"]\nmax_body = \"4KiB\"\n\
         [sources.late]\nprovider = \"synq\"\nsecrets = [\"whs_late\"]\n",
        events::SECRET
    );
    assert!(bridge.reload(&with(&more)));
    bridge
        .send(&signed(events::SECRET))
        .expect_success("published");
    bridge
        .send(&signed("whs_second"))
        .expect_success("published");
    let large = events::ping_of_size(5000);
    bridge.deliver(&large).expect_problem(413, "body_too_large");
    let late = Request::post("/hooks/late", events::ping().body).signed("whs_late");
    bridge.send(&late).expect_success("published");
    let of_late = |bridge: &Bridge| {
        bridge
            .metrics()
            .find("hookbridge_requests_total", &[("source", "late")])
    };
    let published = |bridge: &Bridge| {
        bridge.metrics().find(
            "hookbridge_requests_total",
            &[("source", "synq"), ("outcome", "published")],
        )
    };
    assert_eq!(of_late(&bridge), Some(1.0));
    assert_eq!(published(&bridge), Some(3.0), "counting goes on");

    // The first secret and the other source are gone.
    let last = "[sources.synq]\nsecrets = [\"whs_second\"]\n";
    assert!(bridge.reload(&with(last)));
    bridge
        .send(&signed(events::SECRET))
        .expect_problem(401, "invalid_signature");
    bridge
        .send(&signed("whs_second"))
        .expect_success("published");
    bridge.send(&late).expect_problem(404, "unknown_path");
    bridge
        .send(&Request::event(&large))
        .expect_problem(401, "invalid_signature");
    assert_eq!(of_late(&bridge), None);
    assert_eq!(published(&bridge), Some(4.0));
    let index = |index: &str| {
        bridge.metrics().find(
            "hookbridge_secret_last_used_timestamp_seconds",
            &[("source", "synq"), ("index", index)],
        )
    };
    assert!(index("0").is_some() && index("1").is_none());
}

#[test]
fn stored_events_are_remembered_over_a_reload() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("memory");
    let rest = |window: &str| {
        nats_broker("main", &nats.url)
            + &synq_source(window)
            + &route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&rest("dedup_window = \"1h\""));
    bridge.wait_ready();
    let event = bridge.publish_ping();
    assert!(bridge.reload(&rest("dedup_window = \"2h\"")));
    bridge.deliver(&event).expect_success("duplicate");
    let messages = |bridge: &Bridge| {
        bridge
            .metrics()
            .find("hookbridge_publish_duration_seconds_count", &[])
    };
    assert_eq!(messages(&bridge), Some(1.0), "it was not sent again");
}

#[test]
fn a_changed_file_is_reloaded_without_a_signal() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("watch");
    // Kubernetes' layout of a mounted secret: a symlink to a symlink, swapped by a rename.
    let mount = process::directory("mount");
    let swap = |to: &str, secret: &str| {
        fs::create_dir(mount.join(to)).unwrap();
        fs::write(mount.join(to).join("secret"), secret).unwrap();
        symlink(to, mount.join("..new")).unwrap();
        fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    };
    swap("..1", "whs_before");
    symlink(Path::new("..data/secret"), mount.join("secret")).unwrap();
    let file = mount.join("secret");
    let rest = nats_broker("main", &nats.url)
        + &format!(
            "[sources.synq]\nsecrets = [{{ file = \"{}\" }}]\n",
            file.display()
        )
        + &route(&format!("{stream}.{{type}}"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let signed = |secret: &str| Request::post("/hooks/synq", events::ping().body).signed(secret);
    bridge
        .send(&signed("whs_before"))
        .expect_success("published");
    swap("..2", "whs_after");
    assert!(bridge.wait_for_reload(0));
    bridge
        .send(&signed("whs_after"))
        .expect_success("published");
    bridge
        .send(&signed("whs_before"))
        .expect_problem(401, "invalid_signature");

    // The configuration itself: first broken, then fixed.
    fs::write(&bridge.file, "[http").unwrap();
    assert!(!bridge.wait_for_reload(1));
    fs::write(
        &bridge.file,
        whole(
            "",
            &(rest + "action = \"ignore\"\n").replace("topic", "# topic"),
        ),
    )
    .unwrap();
    assert!(bridge.wait_for_reload(2));
    bridge.send(&signed("whs_after")).expect_success("ignored");
    assert_eq!(
        bridge.reloads(),
        3,
        "and nothing is read that has not changed"
    );
}

#[test]
fn another_address_waits_for_a_restart_and_says_so() {
    let mut bridge = or_skip!(nats().run());
    let port = process::port();
    fs::write(
        &bridge.file,
        whole("", &bridge.tables).replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1),
    )
    .unwrap();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(0));
    let line = bridge.wait_for_log("the address takes effect with a restart");
    assert_eq!(line["key"], "http.listen");
    bridge.publish_ping();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_change_that_waits_for_a_broker_does_not_hold_up_the_end() {
    let mut bridge = or_skip!(nats().route("broker = \"main\"").run());
    let event = bridge.publish_ping();
    let nobody = format!("127.0.0.1:{}", process::port());
    let text = whole("", &(kafka_broker("second", &nobody) + &bridge.tables));
    fs::write(&bridge.file, text).unwrap();
    bridge.signal("HUP");
    bridge.wait_for_log("reading the configuration again");
    bridge.signal("TERM");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
    assert_eq!(bridge.reloads(), 0);
    assert_eq!(only(bridge.read()).value, event.body);
}

#[test]
fn many_hangups_are_no_trouble() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("hangups");
    let rest =
        nats_broker("main", &nats.url) + &synq_source("") + &route(&format!("{stream}.{{type}}"));
    let files = bridge::write("", &rest);
    let mut bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let load = Load::start(bridge.public, 4, event);
    for _ in 0..50 {
        bridge.signal("HUP");
    }
    bridge.wait_for_reload(0);
    go_on(&load, &bridge);
    expect_all_published(&load.stop(), &nats.read(&stream));
    let restarts = bridge
        .metrics()
        .find("hookbridge_broker_client_restarts_total", &[]);
    assert_eq!(restarts, Some(0.0), "nothing has changed");
}

/// A bridge's threads and descriptors once they have been the same for longer than the runtime keeps an idle thread.
fn settled(bridge: &Bridge) -> Usage {
    const LONG: Duration = Duration::from_secs(12);
    let counts = |usage: Usage| (usage.threads, usage.foreign_threads, usage.descriptors);
    let (mut last, mut since) = (bridge.usage(), Instant::now());
    wait::until("threads and descriptors stay the same", PATIENCE, || {
        let now = bridge.usage();
        if counts(now) != counts(last) {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > LONG
    });
    last
}

#[test]
fn a_change_that_can_not_be_made_leaves_nothing_behind() {
    let mut bridge = or_skip!(nats().route("broker = \"main\"").run());
    let kafka = or_skip!(Kafka::shared());
    // Both clients start and reach their brokers. Then the stream of one replica is refused.
    let impossible = nats_broker("a", &bridge.broker.url)
        + "require_durable = true\n"
        + &kafka_broker("b", &kafka.address)
        + &route_with(
            &format!("{}.durable", bridge.topic),
            "types = [\"ping\"]\nbroker = \"a\"",
        )
        + &bridge.tables;
    assert!(!bridge.reload(&impossible));
    bridge.wait_for_line(&["require_durable: broker a: "]);
    let before = settled(&bridge);
    for _ in 0..10 {
        assert!(!bridge.reload(&impossible));
    }
    let after = settled(&bridge);
    assert!(
        after.foreign_threads <= before.foreign_threads,
        "{before:?} {after:?}"
    );
    assert!(
        after.descriptors <= before.descriptors,
        "{before:?} {after:?}"
    );
    // The file watch gives idle threads of the runtime work in turn, so that a few more or less stay.
    assert!(after.threads <= before.threads + 4, "{before:?} {after:?}");
    for broker in ["a", "b"] {
        let label = format!("broker=\"{broker}\"");
        assert!(!bridge.metrics().0.contains(&label), "{label}");
    }
    bridge.publish_ping();
}

#[test]
fn systemd_is_notified_of_start_reload_and_end() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("systemd");
    let rest =
        nats_broker("main", &nats.url) + &synq_source("") + &route(&format!("{stream}.{{type}}"));
    let files = bridge::write("", &rest);
    let path = files.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut bridge = Bridge::run_files(&files, &environment);
    assert_eq!(next().trim(), "READY=1");
    bridge.signal("HUP");
    let reloading = next();
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(next().trim(), "READY=1");
    bridge.signal("TERM");
    assert_eq!(next().trim(), "STOPPING=1");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_open_ones_stay() {
    let dir = process::directory("certificate");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let place = |from: [&Path; 2]| {
        for (from, to) in from.iter().zip([&certificate, &key]) {
            fs::copy(from, to).unwrap();
        }
    };
    let Certificates {
        certificate: signed,
        key: signed_key,
        lone_certificate: lone,
        lone_key,
        ..
    } = &*CERTIFICATES;
    place([signed, signed_key]);
    let http = format!(
        "tls = {{ cert = \"{}\", key = \"{}\" }}",
        certificate.display(),
        key.display()
    );
    let mut bridge = or_skip!(nats().http(&http).run());
    let trusting = tls::client(&[&TLS13], None);
    let public = bridge.public;
    let open = || tls::open(public, &trusting, "localhost");
    let deliver = |connection: &mut Connection<Tls>| {
        let event = events::ping();
        let answer = connection.send(&Request::event(&event)).unwrap();
        answer.expect_published(&event);
    };
    let mut first = open().unwrap();
    deliver(&mut first);

    // A certificate that nobody has signed, without a signal; the two files are not written together.
    place([lone, lone_key]);
    assert!(bridge.wait_for_reload(0));
    assert!(open().is_err(), "the authority did not sign the new one");
    deliver(&mut first);

    // A key that does not match the certificate changes nothing; the right one does.
    place([signed, lone_key]);
    let tables = bridge.tables.clone();
    assert!(!bridge.reload_with(&http, &tables));
    assert!(open().is_err());
    place([signed, signed_key]);
    assert!(bridge.reload_with(&http, &tables));
    deliver(&mut open().unwrap());
    deliver(&mut first);
    assert_eq!(bridge.read().len(), 4);
}
