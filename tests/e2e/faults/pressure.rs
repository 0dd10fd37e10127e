//! Overload: slow connections, endlessly lost replies, large bodies in little memory, bursts and crowds. Rows F12, F34,
//! F41, F48, F49, and the memory limit in docs/scaling.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::issue;
use super::trial::{Behind, Trial};
use crate::support::bridge::Bridge;
use crate::support::checker::Checker;
use crate::support::crowd::{self, Delivered, deliver_one, join};
use crate::support::events::{self, Event};
use crate::support::fixture::Broker;
use crate::support::fixture::nats;
use crate::support::kafka::Kafka;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::Mode;
use crate::support::sender::{Connection, Request};
use crate::support::usage::{MIB, raise_open_files};
use crate::support::wait::{self, PATIENCE};

on_each_broker!(
    f12_a_slow_connection_carries_what_it_can_and_the_rest_is_refused,
    f34_replies_that_are_lost_without_end_leave_nothing_in_memory,
    f48_of_ten_times_too_much_the_surplus_is_refused_soon_and_the_rest_answered,
    memory_stays_under_its_figure_with_10000_connections_and_a_frozen_broker,
);

// ---- F12

fn f12_a_slow_connection_carries_what_it_can_and_the_rest_is_refused<B: Broker>() {
    let behind = or_skip!(Behind::<B>::new("f12"));
    let row = format!("F12 {}", B::NAME);
    const PLACES: usize = 60;
    let mut trial = Trial::new(8, &format!("max_in_flight = {PLACES}"), &behind.tables());
    trial.bridge.wait_ready();
    let checker = Arc::<Checker>::default();
    let address = trial.bridge.public;
    let large = || events::ping_of_size(16 * 1024);
    let burst = |count: usize, event: fn() -> Event| -> Vec<Delivered> {
        let sending: Vec<_> = (0..count)
            .map(|_| {
                let checker = Arc::clone(&checker);
                crowd::spawn(async move { deliver_one(address, checker, event()).await })
            })
            .collect();
        let delivered = sending.into_iter().map(|sending| join(sending));
        delivered.map(|one| one.expect("a connection")).collect()
    };

    // Everything within the connection's capacity is answered 200: 50 small events are some 50 KB, less than a second's
    // worth.
    for mode in [Mode::Throttle(64 * 1024), Mode::Split(1), Mode::Split(7)] {
        behind.proxy.set(mode);
        for (result, took) in burst(50, || issue(0)) {
            let answer = result.unwrap();
            assert_eq!(answer.status, 200, "{mode:?}, after {took:?}: {answer:?}");
        }
    }

    // The surplus is refused and never waits indefinitely: four times the number of permits, repeatedly.
    behind.proxy.set(Mode::Throttle(16 * 1024));
    for round in 1..=2 {
        let (mut overloaded, mut others) = (Vec::new(), 0);
        for (result, took) in burst(4 * PLACES, large) {
            let answer = result.unwrap();
            if answer.outcome() == "overloaded" {
                overloaded.push(took);
            } else {
                others += 1;
            }
            // Other tests' crowds may delay this one's clock.
            assert!(
                took < Duration::from_secs(8) + PATIENCE / 6,
                "after {took:?}: {answer:?}"
            );
        }
        overloaded.sort_unstable();
        println!(
            "{row}, round {round}: {} overloaded immediately, {others} not",
            overloaded.len()
        );
        // In the first round nothing counts against the broker yet: events without a permit are refused as such, and
        // the others wait for a limited time. Later, those that waited without success have opened NATS' breaker, and
        // events are certainly not stored because "nothing is answered" on the connection.
        if round == 1 {
            assert!(others < 2 * PLACES, "{}", checker.history());
            let median = overloaded[overloaded.len() / 2];
            assert!(median < Duration::from_secs(5), "{median:?}");
        }
        let queued = [("broker", "main")];
        let metrics = trial.bridge.metrics();
        let queued = metrics.sum("hookbridge_broker_queue_messages", &queued);
        assert!(queued <= PLACES as f64, "{queued} messages wait");
    }
    // By the bridge's own clock nobody has waited much longer than publish_timeout.
    let metrics = trial.bridge.metrics();
    let took = "hookbridge_publish_duration_seconds";
    assert_eq!(
        metrics.sum(&format!("{took}_bucket"), &[("le", "10")]),
        metrics.sum(&format!("{took}_count"), &[])
    );
    let known: usize = [
        "published",
        "publish_timeout",
        "overloaded",
        "broker_unavailable",
    ]
    .iter()
    .map(|outcome| checker.outcomes(outcome))
    .sum();
    assert_eq!(known, checker.answers(), "{}", checker.summary());
    assert!(checker.outcomes("overloaded") > 0, "{}", checker.summary());
    behind.proxy.set(Mode::Pass);
    // Some of a burst's events may time out while a request with others is on its slow way.
    if !B::DEDUPLICATES {
        checker.allow_repeats();
    }
    trial.checker = checker;
    trial.recover();
    let books = trial.finish(&row, &behind.read());
    assert!(books.acknowledged >= 150, "{books:?}");
}

// ---- F34

/// 50 events per second, none of them acknowledged, for `HOOKBRIDGE_LEAK_SECONDS`.
fn f34_replies_that_are_lost_without_end_leave_nothing_in_memory<B: Broker>() {
    let behind = or_skip!(Behind::<B>::new("f34"));
    let row = format!("F34 {}", B::NAME);
    let seconds = std::env::var("HOOKBRIDGE_LEAK_SECONDS").ok();
    let seconds: u64 = seconds.map_or(10, |text| text.parse().expect("seconds"));
    let mut trial = Trial::ready(2, &behind.tables());
    let checker = Arc::<Checker>::default();
    let address = trial.bridge.public;
    let send_for = |length: Duration| {
        let started = Instant::now();
        let mut sending = Vec::new();
        for number in 0.. {
            let next = Duration::from_millis(20) * number;
            if next > length {
                break;
            }
            std::thread::sleep(next.saturating_sub(started.elapsed()));
            let checker = Arc::clone(&checker);
            sending.push(crowd::spawn(deliver_one(address, checker, issue(0))));
        }
        sending.into_iter().for_each(|sending| drop(join(sending)));
    };
    send_for(Duration::from_secs(2)); // one-time allocations are not a leak
    assert!(checker.answered(200) > 50, "{}", checker.summary());
    let before = trial.bridge.usage();
    behind.proxy.set(Mode::DropReplies);
    send_for(Duration::from_secs(seconds));
    assert!(
        checker.outcomes("publish_timeout") > 0,
        "{}",
        checker.summary()
    );
    let after = trial.bridge.usage();
    println!("{row}: {before:?} before, {after:?} after {seconds} s");
    let growth = after.resident.saturating_sub(before.resident);
    assert!(growth < 20 * MIB, "{before:?} before, {after:?} after");
    assert!(after.threads <= before.threads + 4, "{before:?}, {after:?}");
    wait::until("nobody waits any more", PATIENCE, || {
        let metrics = trial.bridge.metrics();
        metrics.sum("hookbridge_in_flight", &[]) == 0.0
            && metrics.sum("hookbridge_broker_queue_messages", &[]) == 0.0
    });
    behind.proxy.set(Mode::Pass);
    trial.checker = checker;
    trial.recover();
    trial.finish(&row, &behind.read());
}

// ---- F41

#[test]
fn f41_large_bodies_in_little_memory_are_overloaded_and_the_process_lives() {
    const BODY: usize = 256 * 1024;
    const PLACES: usize = 64;
    const SENT: usize = 240;
    const ROOM: u64 = 112 * MIB;
    let behind = or_skip!(Behind::<Kafka>::new("f41"));
    // On a busy machine the first byte of a connection may be late, and its body slow.
    let budget = format!(
        "header_timeout = \"10m\"\nbody_timeout = \"10m\"\nmax_in_flight_bytes = \"{}KiB\"",
        PLACES * BODY / 1024
    );
    let mut trial = Trial::new(20, &budget, &behind.tables());
    trial.bridge.wait_ready();
    assert_eq!(trial.deliver_new().status, 200);
    // Room for twice the limit, since librdkafka holds a copy, and for buffers, but not for every body sent.
    let limit = trial.bridge.usage().virtual_size + ROOM;
    assert!(ROOM < 2 * (SENT * BODY) as u64);
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &trial.bridge.id().to_string()])
        .arg(format!("--as={limit}"))
        .status()
        .expect("prlimit runs");
    assert!(limited.success());
    let checker = Arc::<Checker>::default();
    let connections = crowd::open(trial.bridge.public, SENT);
    let events = crowd::prepare(SENT, || events::ping_of_size(BODY));
    behind.proxy.set(Mode::HoldReplies);
    let sending = crowd::deliver(connections, events, &checker);
    wait::until("the surplus is refused", PATIENCE, || {
        checker.outcomes("overloaded") >= SENT - PLACES
    });
    println!("F41: {:?}", trial.bridge.usage());
    behind.proxy.set(Mode::Pass);
    for delivery in sending {
        let (_, (result, took)) = join(delivery);
        let answer = result.unwrap();
        if answer.status == 200 {
            continue;
        }
        answer.expect_problem(503, "overloaded");
        assert!(took < PATIENCE, "{took:?}");
    }
    assert_eq!(
        checker.answered(200) + checker.outcomes("overloaded"),
        SENT,
        "{}",
        checker.summary()
    );
    trial.checker = checker;
    let stored = behind.read();
    let of_before = stored.len() - trial.checker.answered(200);
    assert_eq!(of_before, 1, "the first event");
    trial.checker.check(&stored[1..]);
    trial.at_rest();
    println!(
        "F41 Kafka: sent {}, acknowledged {}, found {}, duplicates 0",
        SENT,
        trial.checker.answered(200),
        stored.len() - 1
    );
}

// ---- F48, F49

fn f48_of_ten_times_too_much_the_surplus_is_refused_soon_and_the_rest_answered<B: Broker>() {
    let behind = or_skip!(Behind::<B>::new("f48"));
    let row = format!("F48 {}", B::NAME);
    const PLACES: usize = 40;
    // On a busy machine the first byte of a connection may be late.
    let http = format!("max_in_flight = {PLACES}\nheader_timeout = \"10m\"\naccess_log = true");
    let mut trial = Trial::new(10, &http, &behind.tables());
    trial.bridge.wait_ready();
    behind.proxy.set(Mode::Delay(Duration::from_millis(100)));
    let checker = Arc::<Checker>::default();
    let address = trial.bridge.public;
    let started = Instant::now();
    let senders: Vec<_> = (0..10 * PLACES)
        .map(|number| {
            let checker = Arc::clone(&checker);
            crowd::spawn(async move {
                let mut delivered = Vec::new();
                // For a time, and until enough was seen.
                while started.elapsed() < Duration::from_secs(5)
                    || checker.answered(200) < 10 * PLACES
                {
                    assert!(started.elapsed() < PATIENCE, "{}", checker.summary());
                    let event = issue(number);
                    let one = deliver_one(address, Arc::clone(&checker), event).await;
                    delivered.push(one.expect("a connection"));
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
                delivered
            })
        })
        .collect();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (result, took) in senders.into_iter().flat_map(join) {
        let answer = result.unwrap();
        if answer.status == 200 {
            accepted.push(took);
        } else {
            answer.expect_problem(503, "overloaded"); // with Retry-After
            refused.push(took);
        }
    }
    accepted.sort_unstable();
    refused.sort_unstable();
    let percent = |of: &[Duration], part: usize| of[of.len() * part / 100];
    println!(
        "{row}: {} accepted, p50 {:?}, p99 {:?}; {} refused, p50 {:?}, p99 {:?}",
        accepted.len(),
        percent(&accepted, 50),
        percent(&accepted, 99),
        refused.len(),
        percent(&refused, 50),
        percent(&refused, 99)
    );
    assert!(refused.len() > 10 * PLACES);
    // Refusals do not wait for the broker.
    assert!(percent(&refused, 50) < percent(&accepted, 50));
    // By the bridge's own clock: the senders of this test use most of the machine, and other tests the rest.
    let (accepted, refused) = durations_logged(&trial.bridge, accepted.len() + refused.len());
    println!(
        "{row}: by the bridge's clock {:?}, {:?}; {:?}, {:?}",
        percent(&accepted, 50),
        percent(&accepted, 99),
        percent(&refused, 50),
        percent(&refused, 99)
    );
    assert!(percent(&refused, 50) < Duration::from_millis(50));
    assert!(percent(&accepted, 99) < Duration::from_secs(7));

    behind.proxy.set(Mode::Pass);
    trial.checker = checker;
    for _ in 0..20 {
        assert_eq!(trial.deliver_new().status, 200, "it is over");
    }
    trial.finish(&row, &behind.read());
}

/// The durations in the access log of `total` requests, sorted: of those that were published, and of the others.
fn durations_logged(bridge: &Bridge, total: usize) -> (Vec<Duration>, Vec<Duration>) {
    let lines = wait::until_some("every request is logged", PATIENCE, || {
        let mut lines = bridge.log();
        lines.retain(|line| line.contains("hookbridge::access"));
        let dropped = bridge
            .metrics()
            .sum("hookbridge_log_lines_dropped_total", &[]);
        (lines.len() as f64 + dropped >= total as f64).then_some(lines)
    });
    assert!(lines.len() > total / 2, "{} of {total} lines", lines.len());
    let (mut published, mut others) = (Vec::new(), Vec::new());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let took = Duration::from_secs_f64(line["duration_ms"].as_f64().unwrap() / 1000.0);
        if line["outcome"] == "published" {
            published.push(took);
        } else {
            others.push(took);
        }
    }
    published.sort_unstable();
    others.sort_unstable();
    (published, others)
}

#[test]
fn f49_a_flood_of_connections_is_closed_and_those_that_were_there_are_served() {
    // On a busy machine the first byte of a connection may be late.
    let http = "max_connections = 200\nheader_timeout = \"10m\"";
    let bridge = or_skip!(nats().http(http).run());
    let checker = Checker::default();
    let mut served: Vec<_> = (0..100)
        .map(|_| Connection::open(bridge.public).unwrap())
        .collect();
    let serve = |served: &mut Vec<Connection>| {
        for connection in served {
            let event = issue(0);
            let sent = Instant::now();
            let result = connection.send(&Request::event(&event));
            checker.note(&event, sent.elapsed(), &result);
            assert_eq!(result.unwrap().status, 200);
        }
    };
    serve(&mut served);
    let mut idle: Vec<_> = (0..500)
        .map(|_| Connection::open(bridge.public).unwrap())
        .collect();
    let counted = |name: &str| bridge.metric(name, &[]);
    wait::until("the surplus is counted", PATIENCE, || {
        counted("hookbridge_connections_rejected_total") == 400.0
    });
    wait::until("those that made room are gone", PATIENCE, || {
        counted("hookbridge_connections") == 200.0
    });
    let asked = Instant::now();
    assert_eq!(bridge.admin("/healthz").status, 200);
    println!("F49: the admin listener answers in {:?}", asked.elapsed());
    serve(&mut served);
    // The bridge has closed them silently by now.
    let moment = Duration::from_millis(50);
    let ends = idle.iter_mut().map(|open| open.read_to_close(moment));
    let closed: Vec<_> = ends.flatten().collect();
    assert_eq!(closed, vec![Vec::<u8>::new(); 400]);
    drop(idle);
    wait::until("places are free again", PATIENCE, || {
        counted("hookbridge_connections") == 100.0
    });
    served.extend((0..100).map(|_| Connection::open(bridge.public).unwrap()));
    serve(&mut served);
    assert_eq!(counted("hookbridge_connections_rejected_total"), 400.0);
    super::trial::finish("F49 NATS", &checker, &bridge.read());
}

// ---- The bound

/// The formula in docs/scaling.md, in bytes.
fn most_memory(max_connections: usize, max_in_flight_bytes: usize) -> u64 {
    64 * MIB + 2 * max_in_flight_bytes as u64 + max_connections as u64 * CONNECTION
}

/// Its part for a connection, and the bound of an idle one, in bytes.
const CONNECTION: u64 = 64 * 1024;
const IDLE_CONNECTION: u64 = 25 * 1024;

fn memory_stays_under_its_figure_with_10000_connections_and_a_frozen_broker<B: Broker>() {
    let behind = or_skip!(Behind::<B>::new("memory"));
    const PLACES: usize = 3000;
    const BYTES: usize = 16 * 1024 * 1024;
    let _alone = crowd::alone();
    // Other tests need descriptors, too.
    let count = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    let count = count.saturating_sub(2000).min(10_000);
    if count < 2000 {
        process::skip(
            "2,000 connections",
            "need more open files than the hard limit is",
        );
        return;
    }
    let http = format!(
        "header_timeout = \"10m\"\nmax_connections = {}\nmax_in_flight = {PLACES}\nmax_in_flight_bytes = \"{}KiB\"",
        count + 100,
        BYTES / 1024
    );
    let mut trial = Trial::new(15, &http, &behind.tables());
    trial.bridge.wait_ready();
    let figure = most_memory(count + 100, BYTES);
    let checker = Arc::<Checker>::default();
    let started = Instant::now();
    let before = trial.bridge.usage();

    let connections = crowd::open(trial.bridge.public, count);
    let asking: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            crowd::spawn(async move {
                let answer = connection.send(&Request::new("GET", "/nothing")).await;
                assert_eq!(answer.unwrap().status, 404);
                connection
            })
        })
        .collect();
    let connections: Vec<_> = asking.into_iter().map(join).collect();
    let idle = trial.bridge.usage();
    let each = idle.resident.saturating_sub(before.resident) / count as u64;
    println!(
        "{count} idle connections: {idle:?}, {each} bytes each; {:?}",
        started.elapsed()
    );
    assert!(each < IDLE_CONNECTION, "{before:?}, then {idle:?}");

    let events = crowd::prepare(count, || {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        events::ping_of_size(2048 + NUMBER.fetch_add(1, Ordering::Relaxed) % 2048)
    });
    behind.proxy.set(Mode::Freeze);
    let sending = crowd::deliver(connections, events, &checker);
    wait::until("all are in flight or refused", PATIENCE, || {
        checker.answers() as f64 + trial.bridge.metric("hookbridge_in_flight", &[]) >= count as f64
    });
    println!(
        "frozen: {:?}; {:?}, {}",
        trial.bridge.usage(),
        started.elapsed(),
        checker.summary()
    );
    // On a very slow machine the broker's silence may have been noticed by now.
    assert!(checker.outcomes("overloaded") + checker.outcomes("broker_unavailable") > 0);
    behind.proxy.set(Mode::Pass);
    let connections: Vec<_> = sending.into_iter().map(|sending| join(sending).0).collect();
    let usage = trial.bridge.usage();
    println!(
        "{}: at most {} of {} MiB with {count} connections and {PLACES} events in flight; {:?}",
        B::NAME,
        usage.peak / MIB,
        figure / MIB,
        started.elapsed()
    );
    assert!(usage.peak < figure, "{usage:?}");
    drop(connections);
    assert_eq!(checker.unanswered(), 0, "{}", checker.summary());
    let requests = checker.answers() + count;
    trial.checker = checker;
    trial.recover();
    trial.at_rest();
    let counted = trial.bridge.metric("hookbridge_requests_total", &[]);
    assert!(counted >= requests as f64, "{counted}");
    super::trial::finish(
        &format!("memory {}", B::NAME),
        &trial.checker,
        &behind.read(),
    );
}

#[test]
fn memory_of_a_connection_stays_under_its_share_whatever_was_sent_on_it() {
    const COUNT: usize = 300;
    let behind = or_skip!(Behind::<Nats>::new("memory"));
    let trial = Trial::new(30, "header_timeout = \"10m\"", &behind.tables());
    trial.bridge.wait_ready();
    assert_eq!(trial.deliver_new().status, 200);
    let before = trial.bridge.usage();
    let each = |what: &str| {
        let growth = trial.bridge.usage().resident - before.resident;
        let each = growth / COUNT as u64;
        println!("{what}: {each} bytes a connection");
        assert!(each < CONNECTION, "{what}: {each} bytes a connection");
    };
    // Large bodies make buffers grow, and a wrong signature leaves the connection open. One after the other, so that the
    // bodies themselves do not count.
    let large = Request::post("/hooks/synq", vec![b'x'; 128 * 1024]).signed("whs_another");
    let connections: Vec<_> = crowd::open(trial.bridge.public, COUNT)
        .into_iter()
        .map(|mut connection| {
            let large = large.clone();
            join(crowd::spawn(async move {
                let answer = connection.send(&large).await.unwrap();
                answer.expect_problem(401, "invalid_signature");
                connection
            }))
        })
        .collect();
    each("idle after a large body");
    let events = crowd::prepare(COUNT, || events::ping_of_size(3000));
    behind.proxy.set(Mode::Freeze);
    let checker = Arc::<Checker>::default();
    let sending = crowd::deliver(connections, events, &checker);
    wait::until("all are in flight", PATIENCE, || {
        trial.bridge.metric("hookbridge_in_flight", &[]) == COUNT as f64
    });
    each("in flight");
    behind.proxy.set(Mode::Pass);
    let connections: Vec<_> = sending.into_iter().map(|sending| join(sending).0).collect();
    assert_eq!(checker.unanswered(), 0, "{}", checker.summary());
    drop(connections);
}
