//! The service continues without standard error, and no log contains a secret.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bridge::{
    self, Bridge, Metrics, PROGRAM, hookbridge_reading, kafka_broker, nats_broker, route_with,
    synq_source,
};
use crate::support::events::{self, SECRET};
use crate::support::fixture::nats;
use crate::support::kafka::{Kafka, USER};
use crate::support::nats::{Access, Nats};
use crate::support::process::{self, Log, Process};
use crate::support::sender::{self, Answer, Connection, Request};
use crate::support::wait::{self, PATIENCE};

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// A bridge whose log nobody reads.
struct Unheard {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    /// The stream for everything but pings.
    others: String,
}

/// A configuration at fixed ports: pings go to one stream, all else to another.
fn config(nats: &Nats, (public, admin): (u16, u16), path: &str, others: &str) -> String {
    let pings = nats.stream("logging");
    format!(
        "[http]\nlisten = \"127.0.0.1:{public}\"\npublish_timeout = \"10s\"\nshutdown_timeout = \"{}s\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n{}{}{}{}",
        SHUTDOWN_TIMEOUT.as_secs(),
        nats_broker("main", &nats.url),
        synq_source(&format!("path = \"{path}\"")),
        route_with(&format!("{pings}.x"), "types = [\"ping\"]"),
        route_with(&format!("{others}.x"), ""),
    )
}

impl Unheard {
    fn run(nats: &Nats, stderr: impl Into<Stdio>) -> Self {
        Self::start(nats, |file| {
            let mut command = process::command(PROGRAM);
            command.args(["run", "--config"]).arg(file);
            command.stdout(Stdio::null()).stderr(stderr);
            command
        })
    }

    fn start(nats: &Nats, command: impl FnOnce(&Path) -> Command) -> Self {
        let ports = (process::port(), process::port());
        let others = nats.stream("logging");
        let files = bridge::write_text(&config(nats, ports, "/hooks/synq", &others));
        let bridge = Self {
            process: Process::spawn(command(&files.file)),
            public: ([127, 0, 0, 1], ports.0).into(),
            admin: ([127, 0, 0, 1], ports.1).into(),
            file: files.file,
            others,
        };
        bridge.wait_ready();
        bridge
    }

    fn wait_ready(&self) {
        wait::until("/readyz answers 200", PATIENCE, || {
            let asked = Connection::open(self.admin)
                .and_then(|mut open| open.send(&Request::new("GET", "/readyz")));
            asked.is_ok_and(|answer| answer.status == 200)
        });
    }

    fn send(&self, request: &Request) -> Answer {
        sender::send(self.public, request)
    }

    fn dropped_lines(&self) -> f64 {
        let answer = sender::send(self.admin, &Request::new("GET", "/metrics"));
        let metrics = Metrics(String::from_utf8(answer.body).unwrap());
        metrics
            .find("hookbridge_log_lines_dropped_total", &[])
            .expect("a metric")
    }

    /// Events are stored, and refused requests are answered as usual.
    fn serves(&self) {
        let event = events::ping();
        self.send(&Request::event(&event)).expect_published(&event);
        for _ in 0..3 {
            self.send(&Request::post("/hooks/synq", "{}").signed("wrong"))
                .expect_problem(401, "invalid_signature");
            self.send(&Request::post("/nowhere", "{}"))
                .expect_problem(404, "unknown_path");
        }
        let health = sender::send(self.admin, &Request::new("GET", "/healthz"));
        assert_eq!(health.status, 200);
    }

    /// Events in flight are answered, and the process exits successfully and in time.
    fn ends_well(mut self, nats: &Nats) {
        nats.silence(&self.others, true);
        let mut waiting = Connection::open(self.public).unwrap();
        waiting
            .write(&Request::event(&events::issue("created", "i1")).bytes())
            .unwrap();
        wait::until("the event is in flight", PATIENCE, || {
            let answer = sender::send(self.admin, &Request::new("GET", "/metrics"));
            String::from_utf8_lossy(&answer.body).contains("\nhookbridge_in_flight 1\n")
        });
        let signalled = Instant::now();
        self.process.signal("TERM");
        let answer = waiting.read_answer().expect("an answer before the end");
        answer.expect_problem(503, "publish_timeout");
        assert_eq!(self.process.wait(PATIENCE).code(), Some(0));
        assert!(signalled.elapsed() < SHUTDOWN_TIMEOUT);
    }
}

#[test]
fn a_log_without_a_reader_affects_nothing_but_the_log() {
    let Some(nats) = Nats::private() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let bridge = Unheard::run(&nats, writer);
    drop(reader);
    bridge.serves();
    wait::until("the lost lines are counted", PATIENCE, || {
        bridge.dropped_lines() >= 2.0
    });
    nats.kill();
    wait::until("/readyz says no", PATIENCE, || {
        sender::send(bridge.admin, &Request::new("GET", "/readyz")).status == 503
    });
    nats.start();
    bridge.wait_ready();
    let ports = (bridge.public.port(), bridge.admin.port());
    std::fs::write(
        &bridge.file,
        config(&nats, ports, "/hooks/other", &bridge.others),
    )
    .unwrap();
    wait::until("the configuration is read again", PATIENCE, || {
        bridge.send(&Request::post("/hooks/other", "{}")).status == 401
    });
    std::fs::write(
        &bridge.file,
        config(&nats, ports, "/hooks/synq", &bridge.others),
    )
    .unwrap();
    wait::until("and again", PATIENCE, || {
        bridge.send(&Request::post("/hooks/synq", "{}")).status == 401
    });
    bridge.serves();
    bridge.ends_well(&nats);
}

#[test]
fn a_full_disk_under_the_log_costs_the_log_alone() {
    let Some(nats) = Nats::shared() else { return };
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let bridge = Unheard::run(nats, full);
    bridge.serves();
    assert!(bridge.dropped_lines() >= 2.0);
    bridge.ends_well(nats);
}

#[test]
fn a_log_that_is_closed_from_the_start_does_not_keep_the_service_from_starting() {
    let Some(nats) = Nats::shared() else { return };
    let bridge = Unheard::start(nats, |file| {
        let mut command = process::command("sh");
        command
            .args(["-c", "exec \"$0\" run --config \"$1\" 2>&-", PROGRAM])
            .arg(file);
        command
    });
    bridge.serves();
    bridge.ends_well(nats);
}

#[test]
fn a_full_pipe_delays_neither_events_nor_the_shutdown() {
    let Some(nats) = Nats::shared() else { return };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let capacity = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'.'; capacity]).unwrap();
    let bridge = Unheard::run(nats, writer);
    bridge.serves();
    bridge.ends_well(nats);
    drop(reader);
}

#[test]
fn the_last_lines_are_written_before_the_process_ends() {
    let mut bridge = or_skip!(nats().run());
    bridge.signal("TERM");
    assert_eq!(bridge.wait(PATIENCE).code(), Some(0));
    bridge.wait_for_log("ended: every request was answered");
    let broken = bridge::write_text("nonsense");
    let file = broken.path();
    let failed = bridge::hookbridge(["run", "--config", file]).expect_code(1);
    assert!(failed.stderr.contains("key with no value"), "{failed:?}");
}

/// A bridge that starts slowly: its configuration is nearly as large as allowed.
struct Starting {
    process: Process,
    log: Log,
    /// The times at which it had become the program, and at which it handled this signal.
    caught_after: Duration,
    caught: Instant,
}

impl Starting {
    fn catching(signal: u32) -> Self {
        let nobody = process::port();
        let rest = nats_broker("main", &format!("nats://127.0.0.1:{nobody}"))
            + &synq_source("")
            + &route_with("x.y", "");
        let padding = format!("# {}\n", "x".repeat(1000)).repeat(15_000);
        let files = bridge::write_text(&(padding + &bridge::whole("", &rest)));
        let mut command = process::command(PROGRAM);
        command
            .args(["run", "--log-format", "json", "--config"])
            .arg(&files.file)
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let log = process.stderr();
        let of = format!("/proc/{}", process.id());
        wait::until("the program runs", PATIENCE, || {
            std::fs::read_link(format!("{of}/exe")).is_ok_and(|exe| exe.ends_with("hookbridge"))
        });
        let began = Instant::now();
        wait::until("it catches the signal", PATIENCE, || {
            let status = std::fs::read_to_string(format!("{of}/status")).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            caught & (1 << (signal - 1)) != 0
        });
        Self {
            process,
            log,
            caught_after: began.elapsed(),
            caught: Instant::now(),
        }
    }
}

#[test]
fn a_hangup_before_it_listens_does_not_end_it() {
    let mut starting = Starting::catching(1);
    starting.process.signal("HUP");
    let listens = starting.log.wait_for(PATIENCE, |lines| {
        let listens = |line: &String| line.contains("\"public\"") && line.contains("listening");
        lines.iter().any(listens).then_some(())
    });
    assert!(listens.is_some(), "{:#?}", starting.log.lines());
    // The slow part comes after.
    let rest = starting.caught.elapsed();
    assert!(
        starting.caught_after < rest,
        "caught after {:?}, listened after {rest:?} more",
        starting.caught_after
    );
    starting.process.signal("TERM");
    assert_eq!(starting.process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_termination_before_it_listens_ends_it_well() {
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let mut starting = Starting::catching(number);
        starting.process.signal(name);
        assert_eq!(starting.process.wait(PATIENCE).code(), Some(0), "SIG{name}");
        let log = starting.log.finished(PATIENCE).join("\n");
        assert!(log.contains("shutdown requested during startup"), "{log}");
    }
}

#[test]
fn an_unknown_level_is_refused_with_the_known_ones() {
    for (arguments, variable) in [
        (vec!["completions", "bash"], "verbose"),
        (vec!["check", "--log", "verbose"], ""),
        (vec!["run", "--log", "info,hookbridge"], ""),
        (vec!["run", "--log", "async_nats=trace"], ""),
    ] {
        let refused = hookbridge_reading(arguments, b"", &[("HOOKBRIDGE_LOG", variable)]);
        let refused = refused.expect_code(2);
        assert!(
            refused
                .stderr
                .contains("write off, error, warn, info, debug or trace")
                || refused.stderr.contains("write `async_nats=debug`"),
            "{refused:?}"
        );
    }
}

#[test]
fn debug_is_about_hookbridge_alone() {
    let Some(nats) = Nats::shared() else { return };
    let rest = nats_broker("main", &nats.url)
        + &synq_source("")
        + &route_with(&format!("{}.x", nats.stream("logging")), "");
    let bridge = Bridge::run_files(&bridge::write("", &rest), &[("HOOKBRIDGE_LOG", "trace")]);
    bridge.wait_ready();
    bridge.publish_ping();
    let is_foreign = |line: &Value| {
        let level = line["level"].as_str().unwrap_or_default();
        let target = line["target"].as_str().unwrap_or_default();
        !target.starts_with("hookbridge") && matches!(level, "DEBUG" | "TRACE")
    };
    for line in bridge.log() {
        let parsed: Value = serde_json::from_str(&line).expect(&line);
        assert!(!is_foreign(&parsed), "{line}");
    }
}

#[test]
fn no_log_at_any_level_holds_a_secret_of_the_configuration() {
    let access = Access::Password {
        user: "bridge",
        password: "of-the-nats-url",
    };
    let (Some(kafka), Some(nats)) = (Kafka::shared(), Nats::private_for(access)) else {
        return;
    };
    let Some(sasl) = kafka.sasl_address() else {
        return process::skip("SASL", "needs a Kafka broker for one test");
    };
    let (topic, stream) = (kafka.topic("logging"), nats.stream("logging"));
    let with_login = |login: &str| nats.url.replace("nats://", &format!("nats://{login}@"));
    let kafka_login = |password: &str| {
        format!(
            "options = {{ \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \"PLAIN\", \
             \"sasl.username\" = \"{}\", \"sasl.password\" = \"{password}\", \"debug\" = \"all\" }}\n",
            USER.0
        )
    };
    let rest = kafka_broker("kafka", &sasl)
        + &kafka_login(USER.1)
        + &kafka_broker("refused_kafka", &sasl)
        + &kafka_login("the-wrong-kafka-password")
        + &nats_broker("nats", &with_login("bridge:of-the-nats-url"))
        + &nats_broker(
            "refused_nats",
            &with_login("bridge:the-wrong%2Dnats-password"),
        )
        + &nats_broker("token", &with_login("the-nats-token-in-a-url"))
        + &nats_broker("key", &nats.url)
        + "token = \"the-nats-token-as-a-key\"\n"
        + &synq_source("")
        + &[
            "kafka",
            "nats",
            "refused_kafka",
            "refused_nats",
            "token",
            "key",
        ]
        .iter()
        .zip([
            "ping",
            "issue_created",
            "issue_updated",
            "issue_closed",
            "a",
            "b",
        ])
        .map(|(broker, kind)| {
            let topic = match *broker {
                "kafka" | "refused_kafka" => topic.clone(),
                _ => format!("{stream}.x"),
            };
            route_with(
                &topic,
                &format!("broker = \"{broker}\"\ntypes = [\"{kind}\"]"),
            )
        })
        .collect::<String>();
    let levels = "trace,async_nats=debug,librdkafka=trace,hyper=trace,h2=trace,rustls=trace";
    let files = bridge::write("publish_timeout = \"3s\"", &rest);
    let mut bridge = Bridge::run_files(&files, &[("HOOKBRIDGE_LOG", levels)]);
    for event in [events::ping(), events::issue("created", "i1")] {
        wait::until("both brokers take events", PATIENCE, || {
            bridge.deliver(&event).status == 200
        });
    }
    for event in [
        events::issue("updated", "i1"),
        events::issue("closed", "i1"),
    ] {
        assert_eq!(bridge.deliver(&event).status, 503);
    }
    bridge.send(&Request::post("/hooks/synq", "{}").signed("a wrong secret"));
    let before = bridge.reloads();
    bridge.signal("HUP");
    assert!(bridge.wait_for_reload(before));
    bridge.signal("TERM");
    bridge.wait(PATIENCE);
    bridge.wait_for_log("draining");
    let log = bridge.log().join("\n");
    assert!(log.contains("\"target\":\"librdkafka\"") && log.contains("\"target\":\"async_nats"));
    for secret in [
        SECRET,
        USER.1,
        "the-wrong-kafka-password",
        "of-the-nats-url",
        "the-wrong-nats-password",
        "the-wrong%2Dnats-password",
        "the-nats-token-in-a-url",
        "the-nats-token-as-a-key",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {line:?}");
    }
}
