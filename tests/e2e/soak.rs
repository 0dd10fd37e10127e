//! Random faults under load, from a printed seed, with a check of the guarantees at the end. `tests/soak/run` lets it
//! run for any length of time; without it, it takes half a minute with the same faults each time.

use std::time::{Duration, Instant};

use crate::support::bridge::{
    Bridge, Files, kafka_broker, nats_broker, route, synq_source, write_text,
};
use crate::support::consumer::Stored;
use crate::support::events;
use crate::support::kafka::Kafka;
use crate::support::load::Load;
use crate::support::nats::Nats;
use crate::support::process;
use crate::support::proxy::{Mode, Proxy};
use crate::support::usage::{MIB, Usage};
use crate::support::wait::{self, PATIENCE};

const SENDERS: usize = 8;

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(4);

/// The additional time allowed for an answer: 1 s on an idle machine.
const GRACE: Duration = Duration::from_secs(3);

/// The faults.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillBroker,
    StopBroker,
    KillBridge,
    EndBridge,
    StopBridge,
    Resets,
    Proxy(Mode),
}

/// The methods of a broker that faults need.
struct Broker<'a> {
    proxy: Proxy,
    rest: String,
    kill: &'a dyn Fn(),
    start: &'a dyn Fn(),
    freeze: &'a dyn Fn(),
    thaw: &'a dyn Fn(),
    read: &'a dyn Fn() -> Vec<Stored>,
}

#[test]
fn soak_in_front_of_kafka_loses_no_acknowledged_event() {
    let (kafka, proxy) = or_skip!(Kafka::private_behind_proxy());
    let topic = kafka.topic_with("soak", 3, &[]);
    let broker = Broker {
        rest: kafka_broker("main", &proxy.address) + &synq_source("") + &route(&topic),
        proxy,
        kill: &|| kafka.kill(),
        start: &|| kafka.start(),
        freeze: &|| kafka.freeze(),
        thaw: &|| kafka.thaw(),
        read: &|| kafka.read(&topic),
    };
    soak("Kafka", &broker);
}

#[test]
fn soak_in_front_of_nats_loses_no_acknowledged_event() {
    let (nats, proxy) = or_skip!(Nats::private_behind_proxy());
    let stream = nats.stream("soak");
    let broker = Broker {
        rest: nats_broker("main", &format!("nats://{}", proxy.address))
            + &synq_source("")
            + &route(&format!("{stream}.{{type}}")),
        proxy,
        kill: &|| nats.kill(),
        start: &|| nats.start(),
        freeze: &|| nats.freeze(),
        thaw: &|| nats.thaw(),
        read: &|| nats.read(&stream),
    };
    soak("NATS", &broker);
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number")),
    )
}

/// SplitMix64: the same faults from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn fault(&mut self) -> Fault {
        match self.below(15) {
            0 => Fault::KillBroker,
            1 => Fault::StopBroker,
            2 => Fault::KillBridge,
            3 => Fault::EndBridge,
            4 => Fault::StopBridge,
            5 => Fault::Resets,
            6 => Fault::Proxy(Mode::Refuse),
            7 => Fault::Proxy(Mode::Blackhole),
            8 => Fault::Proxy(Mode::Freeze),
            9 => Fault::Proxy(Mode::HoldReplies),
            10 | 11 => Fault::Proxy(Mode::DropReplies),
            12 => Fault::Proxy(Mode::Delay(Duration::from_millis(50 + self.below(450)))),
            13 => Fault::Proxy(Mode::Throttle((8 * 1024) << self.below(4))),
            _ => Fault::Proxy(Mode::Split(
                usize::try_from(1 + self.below(20)).expect("few"),
            )),
        }
    }
}

/// A bridge, and the resources it used shortly after its start.
struct Running {
    bridge: Bridge,
    files: Files,
    at_first: Option<Usage>,
    /// The number of times that senders may have lost their connections.
    ended: usize,
    /// The times when it was stopped and continued.
    stops: Vec<(Instant, Instant)>,
}

impl Running {
    fn start_again(&mut self) {
        self.bridge = Bridge::run_files(&self.files, &[]);
        self.at_first = None;
        self.ended += 1;
    }
}

fn soak(name: &str, broker: &Broker<'_>) {
    let seconds = setting("HOOKBRIDGE_SOAK_SECONDS").unwrap_or(25);
    let seed = setting("HOOKBRIDGE_SOAK_SEED").unwrap_or(26); // bridge and broker killed and stopped, replies lost, and more
    let length = Duration::from_secs(seconds);
    let pause = (length / 15).min(Duration::from_secs(15));
    let longest = (length / 8).min(Duration::from_secs(12));
    println!("soak {name}: {seconds} s, seed {seed}");
    let mut random = Random(seed);

    let files = write_text(&format!(
        "[http]\nlisten = \"127.0.0.1:{}\"\npublish_timeout = \"{}s\"\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\n{}",
        process::port(),
        PUBLISH_TIMEOUT.as_secs(),
        process::port(),
        broker.rest
    ));
    let bridge = Bridge::run_files(&files, &[]);
    bridge.wait_ready();
    let mut running = Running {
        bridge,
        files,
        at_first: None,
        ended: 0,
        stops: Vec::new(),
    };
    let started = Instant::now();
    let load = Load::start(running.bridge.public, SENDERS, |sender| {
        events::issue("updated", &format!("issue-{sender}"))
    });
    loop {
        load.checker.begin("no fault");
        let so_far = load.checker.answered(200);
        let since = Instant::now();
        wait::until("events are answered 200 again", PATIENCE, || {
            load.checker.answered(200) >= so_far + 50
        });
        println!(
            "soak {name}: {:.1} s: 200 again after {:?}",
            started.elapsed().as_secs_f64(),
            since.elapsed()
        );
        wait::play_silence(pause);
        running
            .at_first
            .get_or_insert_with(|| running.bridge.usage());
        if started.elapsed() >= length {
            break;
        }
        let fault = random.fault();
        let most = u64::try_from(longest.as_millis()).expect("below 2^64");
        let lasts = Duration::from_millis(500 + random.below(most));
        println!(
            "soak {name}: {:.1} s: {fault:?} for {lasts:?}",
            started.elapsed().as_secs_f64()
        );
        load.checker.begin(format!("{fault:?}"));
        inflict(fault, lasts, broker, &mut running);
    }
    let checker = load.stop();
    let bridge = &running.bridge;
    wait::until("nothing is left in flight", PATIENCE, || {
        let metrics = bridge.metrics();
        metrics.sum("hookbridge_in_flight", &[]) == 0.0
            && metrics.sum("hookbridge_connections", &[]) == 0.0
    });
    let (at_first, now) = (running.at_first.expect("it was asked"), bridge.usage());
    let stored = (broker.read)();
    let books = checker.check(&stored);
    println!(
        "soak {name}: seed {seed}, {:?}: sent {}, acknowledged {}, found {}, duplicates {}\n{}\nfirst {at_first:?}\nlast  {now:?}",
        started.elapsed(),
        checker.events(),
        books.acknowledged,
        stored.len(),
        books.duplicates,
        checker.summary()
    );
    // A sender that was being answered when the bridge was killed gets no answer, and possibly none on a connection
    // that the kernel accepted for the listener that was about to close; all others do.
    assert!(
        checker.unanswered() <= 2 * SENDERS * running.ended,
        "{} endings: {}",
        running.ended,
        checker.history()
    );
    // I4. While the bridge is stopped, it cannot answer.
    for (began, ended, how) in checker.slower_than(PUBLISH_TIMEOUT + GRACE) {
        let stopped = running.stops.iter().map(|(from, to)| {
            let (from, to) = (began.max(*from), ended.min(*to));
            to.saturating_duration_since(from)
        });
        let took = (ended - began).saturating_sub(stopped.sum());
        assert!(
            took < PUBLISH_TIMEOUT + GRACE,
            "{how} after {took:?}, {:?} after the start",
            began - started
        );
    }
    assert!(
        now.resident < at_first.resident + 48 * MIB,
        "{at_first:?}, {now:?}"
    );
    assert!(now.threads <= at_first.threads + 8, "{at_first:?}, {now:?}");
    assert!(
        now.descriptors <= at_first.descriptors + 16,
        "{at_first:?}, {now:?}"
    );
    assert_eq!(bridge.metric("hookbridge_panics_total", &[]), 0.0);
}

fn inflict(fault: Fault, lasts: Duration, broker: &Broker<'_>, running: &mut Running) {
    match fault {
        Fault::KillBroker => {
            (broker.kill)();
            wait::play_silence(lasts);
            (broker.start)();
        }
        Fault::StopBroker => {
            (broker.freeze)();
            wait::play_silence(lasts);
            (broker.thaw)();
        }
        Fault::KillBridge => {
            running.bridge.signal("KILL");
            running.bridge.wait(PATIENCE);
            running.start_again();
        }
        Fault::EndBridge => {
            running.bridge.signal("TERM");
            let status = running.bridge.wait(PATIENCE);
            assert_eq!(status.code(), Some(0), "{:#?}", running.bridge.log());
            running.start_again();
        }
        Fault::StopBridge => {
            let stopped = Instant::now();
            running.bridge.signal("STOP");
            wait::play_silence(lasts);
            running.bridge.signal("CONT");
            running.stops.push((stopped, Instant::now()));
        }
        Fault::Resets => {
            let until = Instant::now() + lasts;
            while Instant::now() < until {
                broker.proxy.set(Mode::Reset);
                broker.proxy.set(Mode::Pass);
                wait::play_silence(Duration::from_millis(300));
            }
        }
        Fault::Proxy(mode) => {
            broker.proxy.set(mode);
            wait::play_silence(lasts);
            broker.proxy.set(Mode::Pass);
        }
    }
}
