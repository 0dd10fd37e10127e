//! Warnings about routes that no event can reach and types that no provider sends. Both are legal, and nearly always a
//! mistake.

use std::collections::{BTreeMap, HashMap};

use super::model::{FailurePolicy, GLOB_META, Route, Source};
use crate::table::{Section, did_you_mean};

pub(super) fn warn_of_unreached(root: &Section<'_>, sources: &[Source]) {
    // For each route, by number: the earlier routes that cover it, one per source that it reads, and the number of its
    // sources that do not know any type matched by one of its globs.
    let mut routes: BTreeMap<usize, Reach<'_>> = BTreeMap::new();
    for source in sources {
        let mut earlier = Earlier::default();
        for route in source.routes.iter() {
            let reach = routes.entry(route.id.ordinal).or_default();
            reach.sources.push(source);
            reach.route = Some(route);
            reach.covered.extend(earlier.cover(source, route));
            earlier.add(route);
        }
    }
    let refuses_all = |source: &&Source| {
        source.routes.iter().next().is_none() && matches!(source.on_unrouted, FailurePolicy::Reject)
    };
    for source in sources.iter().filter(refuses_all) {
        root.warn_at(
            &format!("sources.{}", source.name),
            "no route takes its events, so each is refused with `no_route`; write a route for it, or `on_unrouted = \"ignore\"`".to_owned(),
        );
    }
    for (number, reach) in &routes {
        let key = format!("routes[{}]", number.saturating_sub(1));
        if reach.covered.len() == reach.sources.len() {
            let mut by = reach.covered.concat();
            by.sort_unstable();
            by.dedup();
            let names: Vec<_> = by.iter().take(5).map(ToString::to_string).collect();
            let (by, verb) = match by.len() {
                1 => ("route", "matches"),
                _ => ("routes", "match"),
            };
            root.warn_at(
                &key,
                format!(
                    "never sees an event, because {by} {} before it {verb} all of its types; move it up, or remove it",
                    names.join(", ")
                ),
            );
        } else if let Some(route) = reach.route {
            warn_of_unknown_types(root, &key, route, &reach.sources);
        }
    }
}

#[derive(Default)]
struct Reach<'s> {
    route: Option<&'s Route>,
    sources: Vec<&'s Source>,
    covered: Vec<Vec<usize>>,
}

/// The globs of a source's routes so far, and the number of the first route with each.
#[derive(Default)]
struct Earlier<'s> {
    globs: HashMap<&'s str, usize>,
    /// The prefixes of globs that end in `*`.
    beginnings: HashMap<&'s str, usize>,
}

impl<'s> Earlier<'s> {
    /// The earlier routes that certainly match everything that this one could match.
    fn cover(&self, source: &Source, route: &Route) -> Option<Vec<usize>> {
        route
            .types
            .iter()
            .map(|glob| self.cover_glob(source, route, glob))
            .collect()
    }

    fn cover_glob(&self, source: &Source, route: &Route, glob: &str) -> Option<usize> {
        if let Some(number) = self.globs.get(glob) {
            return Some(*number);
        }
        let literal = literal_prefix(glob);
        let beginnings = (0..=literal.len()).filter_map(|end| literal.get(..end));
        let by_beginning = beginnings
            .filter_map(|beginning| self.beginnings.get(beginning))
            .min();
        if by_beginning.is_some() || literal.len() < glob.len() {
            return by_beginning.copied();
        }
        let first = source.routes.first_for(glob)?;
        (first.id.index < route.id.index).then_some(first.id.ordinal)
    }

    fn add(&mut self, route: &'s Route) {
        let number = route.id.ordinal;
        for glob in &route.types {
            self.globs.entry(glob).or_insert(number);
            if let Some(beginning) = glob.strip_suffix('*')
                && !beginning.contains(GLOB_META)
            {
                self.beginnings.entry(beginning).or_insert(number);
            }
        }
    }
}

fn literal_prefix(glob: &str) -> &str {
    let end = glob.find(GLOB_META).unwrap_or(glob.len());
    glob.get(..end).unwrap_or_default()
}

/// Types that a provider adds later must pass too, so this is only a warning.
fn warn_of_unknown_types(root: &Section<'_>, key: &str, route: &Route, sources: &[&Source]) {
    if sources.iter().any(|source| !source.mapping.types_are_all) {
        return;
    }
    let all_known = || sources.iter().flat_map(|source| &source.mapping.types);
    for (index, (glob, matcher)) in route.types.iter().zip(&route.matchers).enumerate() {
        if all_known().any(|event_type| matcher.is_match(event_type)) {
            continue;
        }
        let known: Vec<&str> = all_known().map(String::as_str).collect();
        let mut names: Vec<_> = sources.iter().map(|source| source.provider).collect();
        names.dedup();
        let types = format!("{key}.types[{index}]");
        let other = other_syntax(glob).filter(|_| !root.is_filled_in(&types));
        let help = other.unwrap_or_else(|| nearest(glob, &known));
        let shown = root.quote(&types, glob);
        root.warn_at(
            &types,
            format!("{} is not known to send {shown}{help}", names.join(", ")),
        );
    }
}

/// Advice about a glob that is written as something else.
fn other_syntax(glob: &str) -> Option<String> {
    let is_expression =
        glob.contains(".*") || glob.contains('|') || glob.starts_with('^') || glob.ends_with('$');
    if let Some(excluded) = glob.strip_prefix('!') {
        return Some(format!(
            "; a glob excludes nothing: before this route write one with `types = [\"{}\"]` and `action = \"ignore\"`",
            excluded.escape_debug()
        ));
    }
    if glob.contains(',') && !glob.contains('{') {
        let globs: Vec<_> = glob
            .split(',')
            .map(|glob| format!("\"{}\"", glob.trim().escape_debug()))
            .collect();
        return Some(format!(
            "; each text is one glob: write [{}]",
            globs.join(", ")
        ));
    }
    let glob = glob
        .trim_start_matches('^')
        .trim_end_matches('$')
        .replace(".*", "*");
    let glob = match glob.contains('|') {
        true => glob.replace('(', "{").replace(')', "}").replace('|', ","),
        false => glob,
    };
    is_expression.then(|| {
        format!(
            "; types are globs, in which `*` matches any text and `{{a,b}}` either: write \"{}\"",
            glob.escape_debug()
        )
    })
}

/// A suggestion of the known type that was probably meant.
pub(super) fn nearest(glob: &str, known: &[&str]) -> String {
    let word = glob.to_lowercase().replace(GLOB_META, "");
    // The provider's own long form, such as `EVENT_TYPE_ISSUE_CREATED`.
    let ending = known
        .iter()
        .filter(|known| word.ends_with(*known))
        .max_by_key(|known| known.len());
    let beginning = known
        .iter()
        .find(|known| !word.is_empty() && known.starts_with(&word));
    match ending.or(beginning) {
        Some(known) => format!("; did you mean \"{known}\"?"),
        None => match did_you_mean(&word, known.iter().copied()) {
            help if !help.is_empty() => help,
            _ => {
                let known: Vec<_> = known.iter().take(12).copied().collect();
                format!("; known types are {}", known.join(", "))
            }
        },
    }
}
