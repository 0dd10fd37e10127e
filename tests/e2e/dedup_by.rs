//! When two deliveries are the same, for the duplicates window and for JetStream alike.

use crate::support::bridge::{Bridge, hookbridge, nats_broker, route, synq_source, write};
use crate::support::consumer::{only, values};
use crate::support::events::{self, Event};
use crate::support::fixture::{Broker, Setup, nats};
use crate::support::kafka::unique;
use crate::support::nats::Nats;

fn ping(id: &str, note: &str) -> Event {
    let body = serde_json::json!({ "event_id": id, "note": note, "ping": {} });
    Event {
        id: id.to_owned(),
        body: body.to_string().into_bytes(),
    }
}

on_each_broker!(a_stored_delivery_is_a_duplicate_and_the_same_id_with_another_body_is_stored_too);

fn a_stored_delivery_is_a_duplicate_and_the_same_id_with_another_body_is_stored_too<B: Broker>() {
    for keys in ["", "dedup_window = \"1h\""] {
        let bridge = or_skip!(Setup::<B>::new().source(keys).run());
        let id = events::new_id();
        let both = ["one", "two"].map(|note| ping(&id, note));
        for event in &both {
            bridge.deliver(event).expect_published(event);
        }
        for event in both.iter().chain(&both) {
            assert_eq!(bridge.deliver(event).expect_success("duplicate"), id);
        }
        assert_eq!(bridge.bodies(), both.map(|event| event.body));
    }
}

#[test]
fn replicas_agree_on_what_is_the_same() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dedup");
    let replicas = [(); 2].map(|()| Bridge::to_nats(nats, &stream, "", ""));
    let event = events::ping();
    replicas[0].deliver(&event).expect_published(&event);
    replicas[1].deliver(&event).expect_success("duplicate");
    only(nats.read(&stream));
}

#[test]
fn with_the_id_alone_another_body_is_a_duplicate() {
    for window in ["", "dedup_window = \"1h\"\n"] {
        let keys = format!("{window}dedup_by = \"id\"");
        let bridge = or_skip!(nats().source(&keys).run());
        let id = events::new_id();
        let first = ping(&id, "one");
        bridge.deliver(&first).expect_published(&first);
        let again = bridge.deliver(&ping(&id, "two"));
        assert_eq!(again.expect_success("duplicate"), id);
        let stored = only(bridge.read());
        assert_eq!(stored.value, first.body);
        assert_eq!(
            stored.header("Nats-Msg-Id"),
            Some(format!("synq/{id}").as_str())
        );
    }
}

#[test]
fn with_never_each_delivery_is_an_event_of_its_own() {
    let bridge = or_skip!(nats().source("dedup_by = \"never\"").run());
    let event = bridge.publish_ping();
    bridge.deliver(&event).expect_published(&event);
    let stored = bridge.read();
    assert_eq!(stored.len(), 2);
    for message in stored {
        assert_eq!(message.header("Nats-Msg-Id"), None);
    }
}

#[test]
fn an_id_with_a_slash_is_not_mistaken_for_another_events_dead_letter() {
    let letters = "dedup_by = \"id\"\non_invalid = { dead_letter = { topic = \"TOPIC.dead\" } }";
    let bridge = or_skip!(nats().source(letters).run());
    let id = events::new_id();
    let invalid = events::raw(&format!(
        "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":1}}}}}}"
    ));
    bridge.deliver(&invalid).expect_success("dead_lettered");
    let slashed = ping(&format!("{id}/dead_letter"), "");
    bridge.deliver(&slashed).expect_published(&slashed);
    assert_eq!(bridge.bodies(), [invalid.body, slashed.body]);
}

#[test]
fn dead_letters_of_one_id_with_other_bodies_are_all_replayed() {
    let Some(nats) = Nats::shared() else { return };
    let (dead, good) = (nats.stream("dedup-dead"), nats.stream("dedup"));
    let subject = format!("{dead}.{}", unique("x"));
    let letters =
        format!("on_invalid = {{ dead_letter = {{ broker = \"main\", topic = \"{subject}\" }} }}");
    let rest =
        nats_broker("main", &nats.url) + &synq_source(&letters) + &route(&format!("{good}.x"));
    let bridge = Bridge::run(&rest);
    bridge.wait_ready();
    let id = events::new_id();
    let bodies = [1, 2].map(|title| {
        format!("{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":{title}}}}}}}")
    });
    for body in &bodies {
        bridge
            .deliver(&events::raw(body))
            .expect_success("dead_lettered");
    }
    let files = write("", &rest);
    let config = files.path();
    hookbridge(["replay", "--config", config, "--from", &subject]).expect_code(0);
    let replayed = values(nats.read(&good));
    assert_eq!(replayed, bodies.map(String::into_bytes));
}
