//! The admin listener answers when it matters: while its connections are exhausted, and when descriptors run out.

use std::net::SocketAddr;

use crate::support::bridge::{self, Bridge, PROGRAM, nats_broker, route, synq_source};
use crate::support::events;
use crate::support::fixture::nats;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::sender::{self, Connection, Request};
use crate::support::usage::raise_open_files;
use crate::support::wait::{self, PATIENCE};

#[test]
fn silent_connections_do_not_keep_probes_out_and_are_closed() {
    let bridge = or_skip!(nats().run());
    raise_open_files();
    let mut silent: Vec<_> = (0..200)
        .map(|_| Connection::open(bridge.admin).expect("accepted, or waiting to be"))
        .collect();
    for connection in silent.iter_mut().step_by(3) {
        // Some have begun.
        drop(connection.write(b"GET /metrics HTTP/1.1\r\n"));
    }
    for _ in 0..10 {
        assert_eq!(bridge.admin("/healthz").status, 200);
        assert_eq!(bridge.admin("/readyz").status, 200);
    }
    for connection in &mut silent {
        assert!(connection.read_to_close(PATIENCE).is_some());
    }
}

#[test]
fn a_name_that_someone_else_could_own_is_not_answered_at_a_loopback_address() {
    let bridge = or_skip!(nats().run());
    let ask = |host: &str| {
        let request = Request::new("GET", "/metrics")
            .without("host")
            .header("Host", host);
        sender::send(bridge.admin, &request)
    };
    let port = bridge.admin.port();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "127.0.0.1.evil.example",
    ] {
        let answer = ask(host);
        assert_eq!(answer.status, 421, "{host}");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            body.contains("http://localhost:PORT") && !body.contains("hookbridge_"),
            "{body}"
        );
    }
    for host in [
        "localhost",
        &format!("127.0.0.1:{port}"),
        "[::1]",
        "10.1.2.3:9090",
    ] {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    // HAProxy's and others' plain probes.
    let mut old = Connection::open(bridge.admin).unwrap();
    old.write(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.read_answer().unwrap().status, 200);
}

#[test]
fn any_name_is_answered_at_other_addresses() {
    let Some(nats) = Nats::shared() else { return };
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&nats.stream("admin"));
    let text = bridge::whole("", &rest);
    let text = text.replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        "[admin]\nlisten = \"0.0.0.0:0\"",
    );
    let bridge = Bridge::run_files(&bridge::write_text(&text), &[]);
    let request = Request::new("GET", "/healthz")
        .without("host")
        .header("Host", "bridge.monitoring.svc:9090");
    let address = SocketAddr::from(([127, 0, 0, 1], bridge.admin.port()));
    assert_eq!(sender::send(address, &request).status, 200);
}

#[test]
fn a_probe_that_ends_its_side_after_its_request_is_answered() {
    let bridge = or_skip!(nats().run());
    for path in ["/healthz", "/readyz", "/metrics"] {
        let mut probe = Connection::open(bridge.admin).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        probe.write(request.as_bytes()).unwrap();
        probe.finish_writing();
        assert_eq!(probe.read_answer().unwrap().status, 200, "{path}");
    }
}

/// Clock ticks that a process has used.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<u64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    fields.iter().sum()
}

#[test]
fn senders_connections_leave_descriptors_for_probes_scrapes_and_brokers() {
    let Some(nats) = Nats::private() else { return };
    let stream = nats.stream("admin");
    let rest = nats_broker("main", &nats.url) + &synq_source("") + &route(&format!("{stream}.x"));
    let files = bridge::write("", &rest);
    let mut limited = process::command("prlimit");
    limited.args(["--nofile=64:64", "--", PROGRAM]);
    let bridge = Bridge::run_command(limited, &files, &[]);
    bridge.wait_ready();
    raise_open_files();
    let crowd: Vec<_> = (0..300)
        .map(|_| Connection::open(bridge.public).expect("accepted, or waiting to be"))
        .collect();
    wait::until("connections are refused", PATIENCE, || {
        bridge.metric("hookbridge_connections_rejected_total", &[]) >= 100.0
    });
    for _ in 0..20 {
        assert_eq!(bridge.admin("/healthz").status, 200);
        let metrics = bridge.metrics();
        let open = metrics.find("process_open_fds", &[]);
        assert!(open.is_some_and(|open| open < 60.0), "{open:?}");
    }
    // The bridge can reach a broker that comes back.
    nats.kill();
    wait::until("/readyz says no", PATIENCE, || {
        bridge.admin("/readyz").status == 503
    });
    nats.start();
    bridge.wait_ready();
    let event = events::ping();
    // Each connection closed for lack of descriptors makes room for the next.
    wait::until("a genuine event is taken", PATIENCE, || {
        let sent = Connection::open(bridge.public)
            .and_then(|mut connection| connection.send(&Request::event(&event)));
        sent.is_ok_and(|answer| answer.status == 200)
    });
    let before = ticks(bridge.id());
    wait::play_silence(std::time::Duration::from_secs(1));
    let used = ticks(bridge.id()) - before;
    assert!(used < 50, "{used} of 100 ticks: something spins");
    bridge.wait_for_line(&["few file descriptors are left"]);
    drop(crowd);
    bridge.wait_metric("hookbridge_connections", &[], 0.0);
    bridge.deliver(&events::ping()).expect_success("published");
}

#[test]
fn metrics_and_health_are_on_the_admin_listener_alone() {
    let bridge = or_skip!(nats().run());
    assert_eq!(bridge.admin("/healthz").status, 200);
    let metrics = bridge.admin("/metrics");
    assert_eq!(metrics.status, 200);
    let content_type = metrics.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain"), "{metrics:?}");
    assert_eq!(bridge.admin("/nothing").status, 404);
    assert_eq!(bridge.admin("/hooks/synq").status, 404);
    let post = sender::send(bridge.admin, &Request::post("/metrics", ""));
    assert_eq!(post.status, 405);
    // Only the public listener accepts events.
    let event = sender::send(bridge.admin, &Request::event(&events::ping()));
    assert!(matches!(event.status, 404 | 405), "{event:?}");
    for path in ["/metrics", "/healthz", "/readyz"] {
        let answer = bridge.send(&Request::new("GET", path));
        answer.expect_problem(404, "unknown_path");
    }
}
