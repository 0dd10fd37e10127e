//! What a source asks of its requests besides their signature, and how it answers them.

use std::time::Instant;

use crate::support::bridge::{self, Bridge};
use crate::support::events;
use crate::support::nats::Nats;
use crate::support::sender::{Answer, Request};

#[test]
fn verified_requests_beyond_the_rate_limit_are_refused_and_a_reload_does_not_forget_them() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("limit");
    let limit = "rate_limit = { per_second = 1, burst = 50 }";
    let config = |keys: &str| {
        bridge::nats_broker("main", &nats.url)
            + &bridge::synq_source(keys)
            + &bridge::route(&format!("{stream}.{{type}}"))
    };
    let mut bridge = Bridge::run(&config(limit));
    bridge.wait_ready();
    // Whoever can't sign uses up nothing.
    for _ in 0..60 {
        let unsigned = Request::event(&events::ping()).without("x-coalesce-signature");
        bridge
            .send(&unsigned)
            .expect_problem(401, "missing_signature");
    }
    let began = Instant::now();
    let deliver = |bridge: &Bridge, count: usize| {
        let answers = (0..count).map(|_| bridge.deliver(&events::ping()));
        let (published, limited): (Vec<Answer>, Vec<Answer>) =
            answers.partition(|answer| answer.status == 200);
        for answer in &limited {
            answer.expect_problem(429, "rate_limited");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(!answer.says_close(), "{answer:?}");
        }
        (published.len(), limited.len())
    };
    let (first, mut limited) = deliver(&bridge, 80);
    assert!(first >= 50, "{first}");
    let mut published = first;
    assert!(bridge.reload(&config(&format!("{limit}\nsuccess_status = 201\n"))));
    assert!(bridge.reload(&config(limit)));
    for _ in 0..2 {
        let (more, others) = deliver(&bridge, 20);
        (published, limited) = (published + more, limited + others);
        let most = 51 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(published <= most, "{published} of at most {most}");
    }
    let counted = bridge.metrics().sum(
        "hookbridge_requests_total",
        &[("source", "synq"), ("outcome", "rate_limited")],
    );
    assert_eq!(counted, f64::from(u32::try_from(limited).unwrap()));
    assert_eq!(nats.read(&stream).len(), published);
    assert!(bridge.reload(&config("")));
    assert_eq!(deliver(&bridge, 60), (60, 0));
}
