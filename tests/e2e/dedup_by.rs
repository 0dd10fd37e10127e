//! What makes two deliveries the same: for the duplicates window and for JetStream alike.

use crate::support::bridge::{Bridge, hookbridge, nats_broker, route, synq_source, write};
use crate::support::consumer::{only, values};
use crate::support::events::{self, Event};
use crate::support::kafka::unique;
use crate::support::nats::Nats;

fn ping(id: &str, note: &str) -> Event {
    let body = serde_json::json!({ "event_id": id, "note": note, "ping": {} });
    Event {
        id: id.to_owned(),
        body: body.to_string().into_bytes(),
    }
}

#[test]
fn the_same_id_with_another_body_is_stored_too() {
    let Some(nats) = Nats::shared() else { return };
    for keys in ["", "dedup_window = \"1h\""] {
        let stream = nats.stream("dedup");
        let bridge = Bridge::to_nats(nats, &stream, "", keys);
        let id = events::new_id();
        let (first, second) = (ping(&id, "one"), ping(&id, "two"));
        bridge.deliver(&first).expect_published(&first);
        bridge.deliver(&second).expect_published(&second);
        assert_eq!(bridge.deliver(&first).expect_success("duplicate"), id);
        assert_eq!(bridge.deliver(&second).expect_success("duplicate"), id);
        assert_eq!(values(nats.read(&stream)), [first.body, second.body]);
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
    let Some(nats) = Nats::shared() else { return };
    for window in ["", "dedup_window = \"1h\"\n"] {
        let stream = nats.stream("dedup");
        let keys = format!("{window}dedup_by = \"id\"");
        let bridge = Bridge::to_nats(nats, &stream, "", &keys);
        let id = events::new_id();
        let first = ping(&id, "one");
        bridge.deliver(&first).expect_published(&first);
        let again = bridge.deliver(&ping(&id, "two"));
        assert_eq!(again.expect_success("duplicate"), id);
        let stored = only(nats.read(&stream));
        assert_eq!(stored.value, first.body);
        assert_eq!(
            stored.header("Nats-Msg-Id"),
            Some(format!("synq/{id}").as_str())
        );
    }
}

#[test]
fn with_never_each_delivery_is_an_event_of_its_own() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dedup");
    let bridge = Bridge::to_nats(nats, &stream, "", "dedup_by = \"never\"");
    let event = events::ping();
    bridge.deliver(&event).expect_published(&event);
    bridge.deliver(&event).expect_published(&event);
    let stored = nats.read(&stream);
    assert_eq!(stored.len(), 2);
    for message in stored {
        assert_eq!(message.header("Nats-Msg-Id"), None);
    }
}

#[test]
fn an_id_with_a_slash_is_not_taken_for_the_dead_letter_of_another() {
    let Some(nats) = Nats::shared() else { return };
    let stream = nats.stream("dedup");
    let letters = format!(
        "dedup_by = \"id\"\non_invalid = {{ dead_letter = {{ topic = \"{stream}.dead\" }} }}"
    );
    let bridge = Bridge::to_nats(nats, &stream, "", &letters);
    let id = events::new_id();
    let invalid = events::raw(&format!(
        "{{\"event_id\":\"{id}\",\"issue_closed\":{{\"issue\":{{\"issue_id\":\"i\",\"title\":1}}}}}}"
    ));
    bridge.deliver(&invalid).expect_success("dead_lettered");
    let slashed = ping(&format!("{id}/dead_letter"), "");
    bridge.deliver(&slashed).expect_published(&slashed);
    assert_eq!(values(nats.read(&stream)), [invalid.body, slashed.body]);
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
    let config = files.file.to_str().unwrap();
    hookbridge(["replay", "--config", config, "--from", &subject]).expect_code(0);
    let replayed = values(nats.read(&good));
    assert_eq!(replayed, bodies.map(String::into_bytes));
}
