//! Missing permissions of a NATS user are reported immediately and by name, and so is the failing step of a connection.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::bridge::{
    Bridge, check_connect, nats_broker, route, route_with, synq_source, write,
};
use crate::support::consumer::{only, values};
use crate::support::events::{self, Event};
use crate::support::kafka::unique;
use crate::support::nats::{Access, Nats};
use crate::support::tls;
use crate::support::wait::{self, PATIENCE};

/// Longer than any test waits for an immediate answer.
const LONG: &str = "publish_timeout = \"50s\"";

fn limited(permissions: &str) -> Option<Nats> {
    Nats::private_for(Access::Limited(permissions.to_owned()))
}

fn as_bridge(nats: &Nats, name: &str) -> String {
    nats_broker(name, &nats.url) + "user = \"bridge\"\npassword = \"bridge\"\n"
}

fn stream(nats: &Nats, prefix: &str) {
    nats.stream_with("nats", |settings| {
        prefix.clone_into(&mut settings.name);
        settings.subjects = vec![format!("{prefix}.>")];
    });
}

fn wait_for_readyz(bridge: &Bridge, status: u16, words: &str) -> String {
    let what = format!("/readyz is {status} and says {words:?}");
    let mut last = String::new();
    wait::until_some(&what, PATIENCE, || {
        let (now, body) = bridge.readyz();
        if body != last {
            println!("{now} {body}");
            last.clone_from(&body);
        }
        (now == status && body.contains(words)).then_some(body)
    })
}

#[test]
fn a_subject_that_the_user_may_not_publish_takes_the_fallback_immediately_and_affects_no_other() {
    let name = unique("denied");
    let rights = |more: &str| {
        format!("publish: [\"{name}.good\", \"$JS.API.>\"{more}], subscribe: \"_INBOX.>\"")
    };
    let nats = or_skip!(limited(&rights("")));
    let Some(spare) = Nats::private() else { return };
    stream(&nats, &name);
    stream(&spare, &name);
    let rest = as_bridge(&nats, "main")
        + &nats_broker("spare", &spare.url)
        + &synq_source("")
        + &route_with(
            &format!("{name}.bad"),
            "types = [\"issue_*\"]\nbroker = \"main\"\nfallback = \"spare\"",
        )
        + &route_with(&format!("{name}.good"), "broker = \"main\"");
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    let started = Instant::now();
    let mut denied: Vec<Event> = Vec::new();
    wait::until("the refusal shows", PATIENCE, || {
        let (event, good) = (events::issue("created", "i1"), events::ping());
        bridge.deliver(&event).expect_published(&event);
        bridge.deliver(&good).expect_published(&good);
        denied.push(event);
        bridge
            .readyz()
            .1
            .contains(&format!("publish to {name}.bad"))
    });
    assert!(
        started.elapsed() < Duration::from_secs(45),
        "not immediately"
    );
    assert_eq!(bridge.readyz().0, 200, "others are taken");
    bridge.wait_for_line(&["no permission to publish"]);
    let bodies = |events: &[Event]| -> Vec<Vec<u8>> {
        events.iter().map(|event| event.body.clone()).collect()
    };
    assert_eq!(values(spare.read(&name)), bodies(&denied));
    assert_eq!(nats.read(&name).len(), denied.len(), "the pings alone");
    let labels = [("broker", "main"), ("reason", "authorization")];
    let counted = bridge.metric("hookbridge_publish_errors_total", &labels);
    assert!((counted - denied.len() as f64).abs() < 0.5, "{counted}");

    nats.permit(&rights(&format!(", \"{name}.bad\"")));
    let before = denied.len();
    let last = wait::until_some("it is taken again", PATIENCE, || {
        let event = events::issue("created", "i1");
        bridge.deliver(&event).expect_published(&event);
        denied.push(event.clone());
        let stored = values(nats.read(&name));
        stored.contains(&event.body).then_some(event)
    });
    assert!(denied.len() > before && last.id == denied.last().unwrap().id);
    let (status, body) = bridge.readyz();
    assert!(status == 200 && !body.contains("permission"), "{body}");
}

#[test]
fn a_bridge_whose_only_subject_is_refused_is_not_ready_until_it_is_taken() {
    let name = unique("denied");
    let nats = or_skip!(limited("publish: \"$JS.API.>\", subscribe: \"_INBOX.>\""));
    stream(&nats, &name);
    let rest = as_bridge(&nats, "main") + &synq_source("") + &route(&format!("{name}.x"));
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    let event = events::ping();
    wait::until("it is not ready", PATIENCE, || {
        let started = Instant::now();
        bridge
            .deliver(&event)
            .expect_problem(503, "broker_unavailable");
        assert!(
            started.elapsed() < Duration::from_secs(40),
            "not immediately"
        );
        bridge.readyz().0 == 503
    });
    wait_for_readyz(&bridge, 503, "no permission to publish");
    assert_eq!(
        bridge
            .metrics()
            .find("hookbridge_broker_up", &[("broker", "main")]),
        Some(0.0)
    );
    nats.permit(&format!("publish: \"{name}.>\", subscribe: \"_INBOX.>\""));
    wait::until("it is taken", PATIENCE, || {
        bridge.deliver(&event).status == 200
    });
    assert_eq!(bridge.readyz().0, 200);
    assert_eq!(only(nats.read(&name)).value, event.body);
}

#[test]
fn refused_and_accepted_events_that_are_in_flight_together_are_distinguished() {
    let name = unique("denied");
    let rights = format!("publish: \"{name}.good\", subscribe: \"_INBOX.>\"");
    let Some(nats) = limited(&rights) else { return };
    stream(&nats, &name);
    let rest = as_bridge(&nats, "main")
        + &synq_source("")
        + &route_with(&format!("{name}.bad"), "types = [\"issue_*\"]")
        + &route(&format!("{name}.good"));
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    let good: Vec<Event> = (0..40).map(|_| events::ping()).collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for event in &good {
            scope.spawn(|| bridge.deliver(event).expect_published(event));
            scope.spawn(|| {
                let refused = bridge.deliver(&events::issue("created", "i1"));
                refused.expect_problem(503, "broker_unavailable");
            });
        }
    });
    assert!(
        started.elapsed() < Duration::from_secs(45),
        "not immediately"
    );
    assert_eq!(nats.read(&name).len(), good.len());
}

#[test]
fn an_echo_after_a_refused_message_does_not_count_as_an_acknowledgement() {
    let name = unique("core");
    let rights = format!("publish: [\"{name}.good\", \"_INBOX.>\"], subscribe: \"_INBOX.>\"");
    let Some(nats) = limited(&rights) else { return };
    let rest = as_bridge(&nats, "main")
        + "ack = \"core\"\n"
        + &synq_source("")
        + &route_with(&format!("{name}.bad"), "types = [\"issue_*\"]")
        + &route(&format!("{name}.good"));
    let bridge = Bridge::run_with(LONG, &rest);
    bridge.wait_ready();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                bridge.publish_ping();
            });
            scope.spawn(|| {
                let refused = bridge.deliver(&events::issue("created", "i1"));
                assert_eq!(refused.status, 503, "{refused:?}");
            });
        }
    });
}

#[test]
fn while_the_acknowledgement_inbox_is_refused_nothing_is_published() {
    let name = unique("inbox");
    let subscribe =
        |prefix: &str| format!("publish: [\"{name}.>\", \"$JS.API.>\"], subscribe: \"{prefix}.>\"");
    let nats = or_skip!(limited(&subscribe("_INBOX_bridge")));
    stream(&nats, &name);
    let rest = |keys: &str| {
        as_bridge(&nats, "main") + keys + &synq_source("") + &route(&format!("{name}.x"))
    };
    let bridge = Bridge::run_with(LONG, &rest(""));
    let event = events::ping();
    let said = wait_for_readyz(&bridge, 503, "_INBOX.>");
    assert!(said.contains("inbox_prefix"), "{said}");
    bridge.wait_for_line(&["no permission to subscribe to its acknowledgement inbox"]);
    bridge
        .deliver(&event)
        .expect_problem(503, "broker_unavailable");
    assert_eq!(nats.read(&name), []);

    let check = |keys: &str| check_connect(&rest(keys));
    let checked = check("").expect_code(1);
    assert!(
        checked
            .stderr
            .contains("no permission to subscribe to \"_INBOX.")
            && checked.stderr.contains("inbox_prefix"),
        "{checked:?}"
    );
    let own = "inbox_prefix = \"_INBOX_bridge\"\n";
    check(own).expect_code(0);
    let good = Bridge::run_with(LONG, &rest(own));
    good.wait_ready();
    good.deliver(&event).expect_published(&event);

    nats.permit(&subscribe("_INBOX"));
    let other = events::ping();
    wait::until("the permission is noticed", PATIENCE, || {
        bridge.deliver(&other).status == 200
    });
    wait_for_readyz(&good, 503, "_INBOX_bridge.>");
}

#[test]
fn tail_and_replay_name_the_permission_that_they_lack() {
    let name = unique("rights");
    let none = format!("publish: \"{name}.>\", subscribe: \"_INBOX.>\"");
    let Some(nats) = limited(&none) else { return };
    stream(&nats, &name);
    let (subject, other) = (format!("{name}.x"), format!("{name}.y"));
    let rest = as_bridge(&nats, "main") + &synq_source("") + &route(&subject);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    bridge.publish_ping();
    let expect = |arguments: &[&str], lacks: &str| {
        let started = Instant::now();
        let done = write("", &rest).command(arguments).expect_code(1);
        assert!(done.stderr.contains(lacks), "{lacks}: {done:?}");
        assert!(started.elapsed() < Duration::from_secs(25), "{done:?}");
    };
    let replay = ["replay", "--from", &subject, "--to", &other];
    let tail = ["tail", "--topic", &subject, "--from-start", "--count", "1"];
    expect(&replay, "publish to \"$JS.API.STREAM.NAMES\"");
    expect(&tail, "publish to \"$JS.API.STREAM.NAMES\"");
    expect(
        &["tail", "--topic", &subject, "--count", "1"],
        &format!("subscribe to \"{subject}\""),
    );
    let mut rights = "\"$JS.API.STREAM.>\"".to_owned();
    for (more, lacks) in [
        ("", "publish to \"$JS.API.CONSUMER."),
        (
            ", \"$JS.API.CONSUMER.INFO.>\", \"$JS.API.CONSUMER.CREATE.>\", \"$JS.API.CONSUMER.DURABLE.CREATE.>\"",
            "publish to \"$JS.API.CONSUMER.MSG.NEXT.",
        ),
        (", \"$JS.API.CONSUMER.MSG.NEXT.>\"", "publish to \"$JS.ACK."),
    ] {
        rights += more;
        nats.permit(&format!(
            "publish: [\"{name}.>\", {rights}], subscribe: \"_INBOX.>\""
        ));
        wait::until("the server has read its configuration", PATIENCE, || {
            let done = write("", &rest).command(&replay);
            println!("{}", done.stderr);
            done.stderr.contains(lacks)
        });
    }
    rights += ", \"$JS.ACK.>\"";
    nats.permit(&format!(
        "publish: [\"{name}.>\", {rights}], subscribe: \"_INBOX.>\""
    ));
    wait::until("all is allowed", PATIENCE, || {
        write("", &rest)
            .command(&replay)
            .stderr
            .contains("replayed")
    });
    write("", &rest).command(&tail).expect_code(0);
}

/// Listens, treats each connection in the same way, and counts them.
fn server(
    handle: impl Fn(std::net::TcpStream) + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (count, handle) = (Arc::<AtomicUsize>::default(), Arc::new(handle));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(stream));
        }
    });
    (address, count)
}

fn http(mut stream: std::net::TcpStream) {
    let mut bytes = [0; 1024];
    if matches!(stream.read(&mut bytes), Ok(read) if read > 0) {
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    }
}

#[test]
fn the_step_that_failed_is_said_by_check_and_by_the_running_bridge() {
    let access = Access::Password {
        user: "admin",
        password: "right",
    };
    let (Some(plain), Some(tls), Some(first)) = (
        Nats::private_for(access),
        Nats::private_with_tls(),
        Nats::private_with_tls_first(),
    ) else {
        return;
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("nats://{}", closed.local_addr().unwrap());
    drop(closed);
    let web = format!("nats://{}", server(http).0);
    let mute = server(std::mem::forget).0;
    let mute = format!("nats://{mute}");
    let gone = format!("nats://{}", server(drop).0);
    let ca = format!(
        "tls = {{ ca = \"{}\" }}\n",
        tls::CERTIFICATES.authority.display()
    );
    let tls_first = ca.replace("{ ca", "{ first = true, ca");
    let cases = [
        (
            "nats://host.invalid:4222",
            "",
            "name resolution failed for host.invalid",
        ),
        (nobody.as_str(), "", "TCP connection failed at 127.0.0.1"),
        (web.as_str(), "", "it is an HTTP server"),
        (mute.as_str(), "", "sends nothing"),
        (gone.as_str(), "", "NATS greeting failed"),
        (tls.url.as_str(), "", "TLS failed at 127.0.0.1"),
        (plain.url.as_str(), ca.as_str(), "answered in plain text"),
        (
            tls.url.as_str(),
            tls_first.as_str(),
            "answered in plain text",
        ),
        (first.url.as_str(), ca.as_str(), "tls = { first = true }"),
        (
            plain.url.as_str(),
            "user = \"admin\"\npassword = \"wrong\"\n",
            "authentication failed",
        ),
    ];
    std::thread::scope(|scope| {
        for (url, keys, step) in cases {
            scope.spawn(move || {
                let rest = nats_broker("main", url) + keys + &synq_source("") + &route("a.x");
                let checked = check_connect(&rest).expect_code(1);
                assert!(checked.stderr.contains(step), "{step}: {checked:?}");
                assert!(!checked.stderr.contains("no answer in time"), "{checked:?}");
                let bridge = Bridge::run(&rest);
                let quoted = serde_json::to_string(step).unwrap();
                wait_for_readyz(&bridge, 503, quoted.trim_matches('"'));
                bridge.wait_for_line(&[step]);
            });
        }
    });
}

#[test]
fn no_failure_makes_the_bridge_connect_more_than_a_few_times_a_second() {
    let greets = |mut stream: std::net::TcpStream| {
        let info = r#"INFO {"server_id":"x","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}"#;
        drop(stream.write_all(format!("{info}\r\nPONG\r\n").as_bytes()));
        // Reads the client's first bytes, so that the greeting is not reset.
        drop(stream.read(&mut [0; 1024]));
    };
    let Some((tls, password)) = Nats::private_with_tls().zip(Nats::private_for(Access::Password {
        user: "admin",
        password: "right",
    })) else {
        return;
    };
    let proxies = [&tls, &password].map(|nats| {
        crate::support::proxy::Proxy::start(crate::support::process::port(), nats.port())
    });
    let ((closing, closed), (greeting, greeted)) = (server(drop), server(greets));
    let counts: [(&str, &(dyn Fn() -> usize + Sync)); 4] = [
        (&closing, &|| closed.load(Ordering::Relaxed)),
        (&greeting, &|| greeted.load(Ordering::Relaxed)),
        (&proxies[0].address, &|| proxies[0].accepted()),
        (&proxies[1].address, &|| proxies[1].accepted()),
    ];
    std::thread::scope(|scope| {
        for (address, count) in counts {
            scope.spawn(move || {
                let url = format!("nats://{address}");
                let rest = nats_broker("main", &url) + &synq_source("") + &route("a.x");
                let started = Instant::now();
                let _bridge = Bridge::run(&rest);
                wait::until("it tries again", PATIENCE, || count() > 8);
                wait::play_silence(Duration::from_secs(4));
                let (attempts, seconds) = (count(), started.elapsed().as_secs_f64());
                println!("{address}: {attempts} in {seconds:.1} s");
                // Six at first, and one every 0.8 s; plus the inspections of destinations.
                assert!(
                    (attempts as f64) < 8.0 + 2.0 * seconds,
                    "{attempts} in {seconds} s"
                );
            });
        }
    });
}

#[test]
fn a_server_with_handshake_first_is_published_to() {
    let nats = or_skip!(Nats::private_with_tls_first());
    let stream = nats.stream("first");
    let authority = tls::CERTIFICATES.authority.display();
    let rest = nats_broker("main", &nats.url)
        + &format!("tls = {{ first = true, ca = \"{authority}\" }}\n")
        + &synq_source("")
        + &route(&format!("{stream}.x"));
    check_connect(&rest).expect_code(0);
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let event = bridge.publish_ping();
    assert_eq!(only(nats.read(&stream)).value, event.body);
}
