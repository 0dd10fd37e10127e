//! `[[routes]]`

use std::collections::BTreeSet;

use super::brokers::{Brokers, one_of};
use super::model::{Action, BrokerId, Config, Destination, Forwarding, Route, Source, TypeGlob};
use super::reach;
use super::tables::ACTIONS;
use super::template::{Part, Template};
use crate::brokers;
use crate::table::Section;

/// Other programs' words for ignoring.
const DROP: [&str; 5] = ["drop", "discard", "skip", "none", "ack"];

/// `declared` are the names of all sources, with mistakes or without.
pub(super) fn read_routes(
    root: &mut Section<'_>,
    brokers: &Brokers,
    sources: &mut [Source],
    declared: &[String],
) {
    let is_there =
        root.has("routes") && !root.is_empty_list("routes") || root.is_misspelt("routes");
    let sections = root.sections("routes");
    if sections.is_empty() && !is_there {
        root.problem("no route is configured; write `[[routes]]` with `topic = \"hooks.{type}\"`");
    }
    for (index, section) in sections.into_iter().enumerate() {
        read_route(index + 1, section, brokers, sources, declared);
    }
    for source in &mut *sources {
        if let Err(error) = source.routes.index(&source.mapping.types) {
            root.problem(format!(
                "the `types` of all routes for events of {} are too large together: {error}",
                source.name
            ));
        }
    }
    reach::warn_of_unreached(root, sources);
}

fn read_route(
    number: usize,
    mut section: Section<'_>,
    brokers: &Brokers,
    sources: &mut [Source],
    declared: &[String],
) {
    let wanted = section.text("source");
    let is_declared = |wanted: &String| declared.is_empty() || declared.contains(wanted);
    if let Some(wanted) = wanted.as_ref().filter(|wanted| !is_declared(wanted)) {
        let suggestion = one_of(wanted, declared.iter().map(String::as_str));
        let shown = section.quote("source", wanted);
        section.problem_at(
            "source",
            format!("the source {shown} is not defined{suggestion}"),
        );
    }
    let types = section.texts("types").unwrap_or_default();
    if types.is_empty() {
        section.problem_at("types", "an empty list matches nothing; write `types = [\"*\"]`, or leave the line out, to match all");
    }
    let matchers = compile_globs(&section, &types);
    let action = section.peek("action").map(str::to_lowercase);
    if action.is_some_and(|word| DROP.contains(&word.as_str())) {
        let given = section.text("action").unwrap_or_default();
        section.problem_at(
            "action",
            format!("\"{given}\" is not one of publish, ignore; write `action = \"ignore\"`"),
        );
        section.finish_quietly();
        return;
    }
    let ignores = section.word("action", &ACTIONS).unwrap_or(false);
    let forwarding = read_forwarding(&mut section, brokers, ignores);
    section.finish();
    for source in sources
        .iter_mut()
        .filter(|source| wanted.as_ref().is_none_or(|wanted| source.name == *wanted))
    {
        let action = match (&forwarding, ignores) {
            (_, true) => Action::Ignore,
            (Some(forwarding), false) => Action::Publish(Box::new(forwarding.clone())),
            (None, false) => continue,
        };
        source
            .routes
            .push(number, types.clone(), matchers.clone(), action);
    }
}

fn compile_globs(section: &Section<'_>, types: &[String]) -> Vec<TypeGlob> {
    let globs = types
        .iter()
        .enumerate()
        .filter_map(|(index, glob)| match TypeGlob::new(glob) {
            Ok(glob) => Some(glob),
            Err(error) => {
                section.problem_at(
                    &format!("types[{index}]"),
                    format!(
                        "{} is not a valid glob: {}",
                        section.quote(&format!("types[{index}]"), glob),
                        error.kind()
                    ),
                );
                None
            }
        });
    globs.collect()
}

fn read_forwarding(
    section: &mut Section<'_>,
    brokers: &Brokers,
    ignores: bool,
) -> Option<Forwarding> {
    if ignores {
        for key in ["broker", "topic", "topics", "key", "fallback", "copy_to"] {
            if section.has(key) {
                let what =
                    format!("`{key}` has no effect on a route that ignores its events; remove it");
                section.problem_at(key, what);
            }
        }
        section.finish_quietly();
        return None;
    }
    let to = read_destination(section, brokers);
    let fallback = section
        .text("fallback")
        .and_then(|name| brokers.named(section, "fallback", &name));
    let copies = section.sections("copy_to");
    let copies = copies.into_iter().filter_map(|mut copy| {
        let read = read_destination(&mut copy, brokers);
        copy.finish();
        read
    });
    let copies: Vec<_> = copies.collect();
    let to = to?;
    warn_of_repeated_copies(section, &to, &copies);
    let fallback = fallback.and_then(|broker| read_fallback(section, brokers, &to, broker));
    Some(Forwarding {
        to,
        fallback,
        copies,
    })
}

fn warn_of_repeated_copies(section: &Section<'_>, to: &Destination, copies: &[Destination]) {
    let place = |of: &Destination| (of.broker, of.topic.as_str().to_owned());
    let mut known = vec![place(to)];
    for (index, copy) in copies.iter().enumerate() {
        if known.contains(&place(copy)) {
            section.warn_at(
                &format!("copy_to[{index}]"),
                "has the same topic as the route or an earlier copy, so that each event is there twice; remove it",
            );
        }
        known.push(place(copy));
    }
}

/// The same topic on another broker.
fn read_fallback(
    section: &Section<'_>,
    brokers: &Brokers,
    to: &Destination,
    broker: BrokerId,
) -> Option<Destination> {
    if broker == to.broker {
        section.problem_at(
            "fallback",
            "a broker can't be its own fallback; name another one",
        );
        return None;
    }
    let kind = brokers.kind(broker)?;
    if kind != to.kind {
        check_topic(section, kind, &to.topic, to.topics.as_deref());
    }
    Some(Destination {
        broker,
        broker_name: brokers.name(broker)?,
        kind,
        ..to.clone()
    })
}

fn read_destination(section: &mut Section<'_>, brokers: &Brokers) -> Option<Destination> {
    for key in ["broker", "topic"] {
        if section.is_list(key) {
            section.problem_at(
                key,
                format!("is a list, and a route has one `{key}`; write one, and the others into `copy_to = [{{ {key} = \"…\" }}]`"),
            );
            section.finish_quietly();
            return None;
        }
    }
    let broker = brokers.named_or_only(section);
    let topic = if section.has("topics") && !section.has("topic") {
        section.problem_at(
            "topics",
            "only limits what `topic` may become; write `topic = \"…\"` for where events go",
        );
        section.text("topic")
    } else {
        section.required_text("topic")
    };
    let topic = topic.and_then(|text| parse_template(section, "topic", &text));
    let topics = section.texts("topics");
    let key = section
        .text("key")
        .and_then(|text| parse_template(section, "key", &text));
    warn_of_constant_key(section, key.as_ref());
    let (broker, topic) = broker.zip(topic)?;
    let kind = brokers.kind(broker)?;
    check_topic(section, kind, &topic, topics.as_deref());
    Some(Destination {
        broker,
        broker_name: brokers.name(broker)?,
        kind,
        topic,
        topics,
        key,
    })
}

/// Nearly always a path whose braces were forgotten.
fn warn_of_constant_key(section: &Section<'_>, key: Option<&Template>) {
    let Some([Part::Literal(text)]) = key.map(Template::parts) else {
        return;
    };
    if section.is_filled_in("key") {
        return;
    }
    let pointer = match text.strip_prefix("$.") {
        Some(path) => format!("/{}", path.replace('.', "/")),
        None if text.starts_with('/') => text.clone(),
        None => format!("/{text}"),
    };
    section.warn_at(
        "key",
        format!("is the same for every event, so that all of them are in one partition; for a value of the body write `key = \"{{{}}}\"`", pointer.escape_debug()),
    );
}

fn parse_template(section: &Section<'_>, key: &str, text: &str) -> Option<Template> {
    Template::parse(text)
        .map_err(|what| {
            let shown = section.quote(key, text);
            let what = match section.is_filled_in(key) {
                // The placeholder may be the variable's content.
                true => format!("{shown} is not a valid template"),
                false => format!("{shown}: {what}"),
            };
            section.problem_at(key, what);
        })
        .ok()
}

/// Whatever an event fills in, the template must be able to become a legal topic, and only topics the operator
/// intended.
fn check_topic(
    section: &Section<'_>,
    kind: brokers::Kind,
    topic: &Template,
    topics: Option<&[String]>,
) {
    for (index, name) in topics.unwrap_or_default().iter().enumerate() {
        if let Err(rule) = kind.check_destination(name) {
            let key = format!("topics[{index}]");
            section.problem_at(&key, format!("{} {rule}", section.quote(&key, name)));
        }
    }
    // One value that is legal by itself represents all others.
    let probe: String = topic
        .parts()
        .iter()
        .map(|part| {
            if let Part::Literal(text) = part {
                text
            } else {
                "x"
            }
        })
        .collect();
    if let Err(rule) = kind.check_destination(&probe) {
        section.problem_at(
            "topic",
            format!(
                "the {} {} {rule}{}",
                kind.destination_noun(),
                section.quote("topic", topic.as_str()),
                legal_topic(section, kind, topic.as_str())
            ),
        );
    }
    let begins_safely = matches!(topic.parts().first(), Some(Part::Literal(text)) if text.ends_with(['.', '-', '_']));
    if topic.reads_payload() && topics.is_none() && !begins_safely {
        let what = "a sender could choose any destination; begin with a literal prefix that ends in `.`, `-` or `_`, or list the `topics` it may become";
        section.problem_at("topic", what);
    }
}

/// A legal topic like this one, as advice.
fn legal_topic(section: &Section<'_>, kind: brokers::Kind, topic: &str) -> String {
    if section.is_filled_in("topic") {
        return String::new();
    }
    let mut legal = topic.to_owned();
    for word in ["type", "source"] {
        for (before, after) in [("%", "%"), ("<", ">"), ("[", "]"), ("$", ""), (":", "")] {
            legal = legal.replace(&format!("{before}{word}{after}"), &format!("{{{word}}}"));
        }
    }
    legal = legal.replace(['/', ':'], ".").replace(['>', '*'], "{type}");
    let is_kept =
        |character: char| character.is_ascii_alphanumeric() || "._-{}".contains(character);
    legal = legal
        .chars()
        .map(|character| if is_kept(character) { character } else { '-' })
        .collect();
    let probe = legal.replace("{type}", "x").replace("{source}", "x");
    match legal != topic && kind.check_destination(&probe).is_ok() {
        true => format!("; write for example \"{legal}\""),
        false => String::new(),
    }
}

impl Config {
    /// Whether any event could be published to this topic or subject, through a route, its fallback or a copy.
    #[must_use]
    pub fn routes_can_produce(&self, broker: BrokerId, topic: &str) -> bool {
        self.sources.iter().any(|source| {
            source.routes.iter().any(|route| match &route.action {
                Action::Ignore => false,
                Action::Publish(forwarding) => forwarding.destinations().any(|destination| {
                    destination.broker == broker && destination.can_become(topic, source, route)
                }),
            })
        })
    }
}

impl Destination {
    /// Whether the template can become this topic for an event of the source that the route matches.
    fn can_become(&self, topic: &str, source: &Source, route: &Route) -> bool {
        let is_listed = |topics: &Vec<String>| topics.iter().any(|listed| listed == topic);
        if self.kind.check_destination(topic).is_err()
            || !self.topics.as_ref().is_none_or(is_listed)
        {
            return false;
        }
        let is_taken = |event_type: &str| {
            let first = source.routes.first_for(event_type);
            first.is_some_and(|first| first.id == route.id)
        };
        let parts = self.topic.parts();
        // The positions in the topic that the parts so far can reach.
        let mut ends = BTreeSet::from([0]);
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let reach = |start: usize| -> Vec<usize> {
                let rest = topic.get(start..).unwrap_or_default();
                let literal = match part {
                    Part::Literal(text) => text.as_str(),
                    Part::Source => source.name.as_str(),
                    Part::Type | Part::Pointer(_) => {
                        let can_be = |value: &str| {
                            self.kind.check_value(value, is_last).is_ok()
                                && (*part != Part::Type || is_taken(value))
                        };
                        let lengths = (1..=rest.len())
                            .filter(|length| rest.get(..*length).is_some_and(can_be));
                        return lengths.map(|length| start + length).collect();
                    }
                };
                let follows = rest.starts_with(literal);
                follows
                    .then_some(start + literal.len())
                    .into_iter()
                    .collect()
            };
            ends = ends.into_iter().flat_map(reach).collect();
        }
        ends.contains(&topic.len())
    }
}
