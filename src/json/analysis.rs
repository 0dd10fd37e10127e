//! Checks a schema's text in advance: recursion that can make validation expensive, constants that cannot be compared exactly,
//! and unsupported patterns.

use std::collections::{BTreeSet, HashMap};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::document::{Document, Node, NodeKind};
use super::error::SchemaError;
use super::number::Exact;
use super::pointer::escape_token;

/// Maximum number of subschemas that one value may be validated against, following references. References to references can
/// make this exponential in the schema's size, whatever the event.
const MAX_APPLIED: u64 = 100_000;

/// Keywords with one subschema.
const WITH_ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords with a list of subschemas.
const WITH_LIST: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];

/// Keywords with named subschemas that apply.
const WITH_MAP: [&str; 4] = [
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords with named subschemas that apply only through references.
const WITH_DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

const REFERENCES: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$ref"];

/// Keywords whose values are data.
const WITH_DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// Keywords that apply subschemas to the same value.
const AGAIN: [&str; 7] = ["allOf", "anyOf", "else", "if", "not", "oneOf", "then"];

const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// The subschemas of a schema, with edges to those that each one applies.
pub(super) struct Graph<'s> {
    root: &'s Value,
    pointers: Vec<String>,
    schemas: Vec<&'s Value>,
    edges: Vec<Vec<Edge>>,
    known: HashMap<String, usize>,
    anchors: HashMap<&'s str, String>,
}

#[derive(Clone, Copy)]
struct Edge {
    to: usize,
    keyword: &'static str,
}

impl<'s> Graph<'s> {
    pub(super) fn of(root: &'s Value) -> Self {
        let mut graph = Self {
            root,
            pointers: Vec::new(),
            schemas: Vec::new(),
            edges: Vec::new(),
            known: HashMap::new(),
            anchors: HashMap::new(),
        };
        graph.collect_anchors(root, "");
        graph.add(String::new(), root);
        let mut next = 0;
        while let (Some(schema), Some(pointer)) =
            (graph.schemas.get(next), graph.pointers.get(next))
        {
            let edges = match schema {
                Value::Object(keywords) => graph.edges_of(keywords, &pointer.clone()),
                _ => Vec::new(),
            };
            graph.edges.push(edges);
            next += 1;
        }
        graph
    }

    fn add(&mut self, pointer: String, schema: &'s Value) -> usize {
        if let Some(known) = self.known.get(&pointer) {
            return *known;
        }
        let index = self.schemas.len();
        self.known.insert(pointer.clone(), index);
        self.pointers.push(pointer);
        self.schemas.push(schema);
        index
    }

    fn edges_of(&mut self, keywords: &'s Map<String, Value>, pointer: &str) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (name, value) in keywords {
            let at = format!("{pointer}/{}", escape_token(name));
            let named =
                |list: &[&'static str]| list.iter().copied().find(|keyword| keyword == name);
            if let (Some(keyword), Value::String(reference)) = (named(&REFERENCES), value) {
                if let Some((target, schema)) = self.resolve(reference) {
                    let to = self.add(target, schema);
                    edges.push(Edge { to, keyword });
                }
            } else if let (Some(keyword), Value::Array(schemas)) = (named(&WITH_LIST), value) {
                for (index, schema) in schemas.iter().enumerate() {
                    let to = self.add(format!("{at}/{index}"), schema);
                    edges.push(Edge { to, keyword });
                }
            } else if let (Some(keyword), Value::Object(schemas)) = (named(&WITH_MAP), value) {
                for (member, schema) in schemas {
                    let to = self.add(format!("{at}/{}", escape_token(member)), schema);
                    edges.push(Edge { to, keyword });
                }
            } else if let Some(keyword) = named(&WITH_ONE) {
                let to = self.add(at, value);
                edges.push(Edge { to, keyword });
            }
        }
        edges
    }

    /// The target of a reference within this document.
    fn resolve(&self, reference: &str) -> Option<(String, &'s Value)> {
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let id = self
            .root
            .get("$id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !document.is_empty() && document != id.trim_end_matches('#') {
            return None;
        }
        let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
        let pointer = if fragment.is_empty() || fragment.starts_with('/') {
            fragment.into_owned()
        } else {
            self.anchors.get(fragment.as_ref())?.clone()
        };
        let schema = self.root.pointer(&pointer)?;
        Some((pointer, schema))
    }

    fn collect_anchors(&mut self, value: &'s Value, pointer: &str) {
        match value {
            Value::Object(members) => {
                for anchor in ["$anchor", "$dynamicAnchor"] {
                    if let Some(name) = members.get(anchor).and_then(Value::as_str) {
                        self.anchors.insert(name, pointer.to_owned());
                    }
                }
                for (name, value) in members {
                    self.collect_anchors(value, &format!("{pointer}/{}", escape_token(name)));
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.collect_anchors(value, &format!("{pointer}/{index}"));
                }
            }
            _ => {}
        }
    }

    /// Refuses schemas that apply too many subschemas to one value.
    pub(super) fn check_size(&self) -> Result<(), SchemaError> {
        let in_place = |edge: &&Edge| {
            AGAIN.contains(&edge.keyword)
                || REFERENCES.contains(&edge.keyword)
                || ["dependencies", "dependentSchemas"].contains(&edge.keyword)
        };
        let targets: Vec<Vec<usize>> = self
            .edges
            .iter()
            .map(|edges| edges.iter().filter(in_place).map(|edge| edge.to).collect())
            .collect();
        let mut applied: Vec<u64> = vec![1; targets.len()];
        for node in finishing_order(&targets) {
            // An unfinished target is part of a cycle, which the validator does not enter twice for one value.
            let below = targets.get(node).into_iter().flatten();
            let sum = below
                .filter_map(|to| applied.get(*to))
                .fold(1_u64, |sum, count| sum.saturating_add(*count));
            if sum > MAX_APPLIED {
                let pointer = self.pointers.get(node).map_or("", String::as_str);
                return Err(SchemaError::new(format!(
                    "at {}: with its references followed, it applies more than {MAX_APPLIED} subschemas to one value",
                    shown(pointer)
                )));
            }
            if let Some(count) = applied.get_mut(node) {
                *count = sum;
            }
        }
        Ok(())
    }

    /// Warnings about recursion that can make the validation of a nested event exceed its bound.
    pub(super) fn warnings(&self) -> Vec<String> {
        let targets: Vec<Vec<usize>> = self
            .edges
            .iter()
            .map(|edges| edges.iter().map(|edge| edge.to).collect())
            .collect();
        let components = components(&targets);
        // Per cycle: the keywords that make it expensive, and one subschema to name.
        let mut found: HashMap<usize, (BTreeSet<&str>, &str)> = HashMap::new();
        for ((edges, component), schema) in self.edges.iter().zip(&components).zip(&self.schemas) {
            let is_inside = |edge: &&Edge| components.get(edge.to) == Some(component);
            for edge in edges.iter().filter(is_inside) {
                let (keywords, place) = found.entry(*component).or_default();
                keywords.extend(AGAIN.iter().filter(|keyword| **keyword == edge.keyword));
                keywords.extend(
                    UNEVALUATED
                        .iter()
                        .filter(|keyword| schema.get(**keyword).is_some()),
                );
                if REFERENCES.contains(&edge.keyword) {
                    let target = self.pointers.get(edge.to).map_or("", String::as_str);
                    if place.is_empty() || target < *place {
                        *place = target;
                    }
                }
            }
        }
        let mut warnings: Vec<_> = found
            .into_values()
            .filter(|(keywords, _)| !keywords.is_empty())
            .map(|(keywords, place)| {
                let keywords: Vec<_> = keywords.iter().map(|keyword| format!("`{keyword}`")).collect();
                format!(
                    "the schema is recursive through {} (at {}): the cost of validation can grow exponentially with an \
                     event's nesting, and an event that exceeds the limit of steps is refused as invalid_event",
                    keywords.join(", "),
                    shown(place)
                )
            })
            .collect();
        warnings.sort();
        warnings
    }
}

/// A pointer into the schema, in the form of a reference.
fn shown(pointer: &str) -> String {
    format!("#{pointer}")
}

/// All nodes in depth-first finishing order: each after its targets, except in cycles.
fn finishing_order(targets: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(targets.len());
    let mut seen = vec![false; targets.len()];
    for start in 0..targets.len() {
        let mut path = vec![(start, 0)];
        if std::mem::replace(seen.get_mut(start).unwrap_or(&mut true), true) {
            continue;
        }
        while let Some((node, next)) = path.last_mut() {
            let target = targets.get(*node).and_then(|targets| targets.get(*next));
            *next += 1;
            match target.copied() {
                None => {
                    order.push(*node);
                    path.pop();
                }
                Some(to) => {
                    if !std::mem::replace(seen.get_mut(to).unwrap_or(&mut true), true) {
                        path.push((to, 0));
                    }
                }
            }
        }
    }
    order
}

/// The strongly connected component of each node (Kosaraju's algorithm).
fn components(targets: &[Vec<usize>]) -> Vec<usize> {
    let mut sources = vec![Vec::new(); targets.len()];
    for (from, targets) in targets.iter().enumerate() {
        for to in targets {
            if let Some(sources) = sources.get_mut(*to) {
                sources.push(from);
            }
        }
    }
    let mut components = vec![usize::MAX; targets.len()];
    for root in finishing_order(targets).into_iter().rev() {
        let mut waiting = vec![root];
        while let Some(node) = waiting.pop() {
            if let Some(component) = components
                .get_mut(node)
                .filter(|known| **known == usize::MAX)
            {
                *component = root;
                waiting.extend(sources.get(node).into_iter().flatten());
            }
        }
    }
    components
}

/// Rewrites each numeric `const` as an `enum` of one value, which our own exact equality compares.
pub(super) fn with_exact_constants(schema: &Value) -> Value {
    // Earlier drafts have no `const`.
    let draft = schema.get("$schema").and_then(Value::as_str);
    if draft.is_some_and(|draft| draft.contains("draft-03") || draft.contains("draft-04")) {
        return schema.clone();
    }
    exact_constants(schema, false)
}

/// `is_named`: the members are subschemas with user-defined names, not keywords.
fn exact_constants(value: &Value, is_named: bool) -> Value {
    match value {
        Value::Array(values) => values
            .iter()
            .map(|value| exact_constants(value, false))
            .collect(),
        Value::Object(members) => {
            let copy = |(name, value): (&String, &Value)| {
                let is_data = !is_named && WITH_DATA.contains(&name.as_str());
                let holds_named = !is_named
                    && (WITH_MAP.contains(&name.as_str())
                        || WITH_DEFINITIONS.contains(&name.as_str()));
                let value = if is_data {
                    value.clone()
                } else {
                    exact_constants(value, holds_named)
                };
                (name.clone(), value)
            };
            let mut copied: Map<String, Value> = members.iter().map(copy).collect();
            if !is_named && members.get("const").is_some_and(Value::is_number) {
                let constant = copied.remove("const");
                let only = json!([constant]);
                if copied.contains_key("enum") {
                    let all = copied.entry("allOf").or_insert_with(|| json!([]));
                    // Otherwise the schema is invalid, which the validator reports.
                    if let Value::Array(all) = all {
                        all.push(json!({ "enum": only }));
                    }
                } else {
                    copied.insert("enum".to_owned(), only);
                }
            }
            Value::Object(copied)
        }
        other => other.clone(),
    }
}

/// Refuses what parsing a schema's text would lose: duplicate members, and constants that neither a 64-bit integer nor a
/// double represents exactly.
pub(super) fn check_text(text: &str) -> Result<(), SchemaError> {
    let document = Document::parse(text.as_bytes()).map_err(|fault| {
        let fault = fault.to_string();
        let rest = fault.strip_prefix("the body");
        SchemaError::new(rest.map_or(fault.clone(), |rest| format!("it{rest}")))
    })?;
    check_node(document.root(), false)?;
    match document.ambiguous_name() {
        Some(name) => Err(SchemaError::new(format!(
            "an object has the member \"{}\" twice",
            escape_token(&name)
        ))),
        None => Ok(()),
    }
}

fn check_node(node: Node<'_>, is_compared: bool) -> Result<(), SchemaError> {
    node.note_repeated_name(|_| true);
    match node.kind() {
        NodeKind::Number if is_compared => {
            let kept = serde_json::from_str::<Value>(node.raw()).map(|number| number.to_string());
            if kept.is_ok_and(|kept| Exact::of(&kept) == Exact::of(node.raw())) {
                return Ok(());
            }
            Err(SchemaError::new(format!(
                "the constant {} cannot be compared exactly: only integers of up to 64 bits and numbers that a double \
                 holds can; send it as a string instead",
                super::shorten(node.raw().to_owned())
            )))
        }
        NodeKind::Array => node
            .elements()
            .try_for_each(|element| check_node(element, is_compared)),
        NodeKind::Object => node.members().try_for_each(|(name, value)| {
            check_node(
                value,
                is_compared || ["const", "enum"].contains(&name.as_ref()),
            )
        }),
        _ => Ok(()),
    }
}

/// The unsupported feature of an ECMAScript pattern, if it has one.
pub(super) fn unsupported_in(pattern: &str) -> Option<&'static str> {
    let mut rest = pattern;
    while let Some((_, after)) = rest.split_once(['\\', '(']) {
        let is_escape =
            rest.len() > after.len() && rest.get(..rest.len() - after.len())?.ends_with('\\');
        if is_escape {
            if after.starts_with(|next: char| next == 'k' || ('1'..='9').contains(&next)) {
                return Some("back-references");
            }
            let mut characters = after.chars();
            characters.next();
            rest = characters.as_str();
        } else {
            if ["?=", "?!"].iter().any(|start| after.starts_with(start)) {
                return Some("look-ahead");
            }
            if ["?<=", "?<!"].iter().any(|start| after.starts_with(start)) {
                return Some("look-behind");
            }
            rest = after;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(schema: &Value) -> Vec<String> {
        Graph::of(schema).warnings()
    }

    #[test]
    fn recursion_through_alternatives_is_warned_of_with_its_place() {
        let of = |keyword: &str, subschema: Value| json!({"$ref": "#/$defs/node", "$defs": {"node": {keyword: subschema}}});
        let again = json!({"properties": {"child": {"$ref": "#/$defs/node"}}});
        for keyword in ["anyOf", "oneOf", "allOf"] {
            let found = warnings(&of(keyword, json!([{"type": "string"}, again])));
            assert_eq!(found.len(), 1, "{keyword}: {found:?}");
            assert!(
                found[0].contains(&format!("`{keyword}`")) && found[0].contains("#/$defs/node"),
                "{found:?}"
            );
        }
        for keyword in ["not", "if", "then", "else"] {
            assert_eq!(warnings(&of(keyword, again.clone())).len(), 1, "{keyword}");
        }
        let unevaluated =
            json!({"unevaluatedProperties": false, "properties": {"child": {"$ref": "#"}}});
        assert!(warnings(&unevaluated)[0].contains("`unevaluatedProperties`"));
        let anchored =
            json!({"$id": "urn:x", "$anchor": "top", "anyOf": [{"items": {"$ref": "urn:x#top"}}]});
        assert_eq!(warnings(&anchored).len(), 1);
    }

    #[test]
    fn recursion_of_the_plain_kind_and_alternatives_without_recursion_are_not_warned_of() {
        for schema in [
            json!({"properties": {"child": {"$ref": "#"}, "list": {"items": {"$ref": "#"}}}}),
            json!({"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                   "$defs": {"a": {"type": "string"}, "b": {"items": {"$ref": "#/$defs/b"}}}}),
            json!({"unevaluatedProperties": false, "properties": {"a": {"type": "string"}}}),
            json!(true),
        ] {
            assert_eq!(warnings(&schema), Vec::<String>::new(), "{schema}");
        }
    }

    #[test]
    fn a_schema_that_multiplies_itself_is_refused() {
        let doubled = |levels: usize| {
            let mut definitions = Map::new();
            for level in 0..levels {
                let next = json!({"$ref": format!("#/$defs/s{}", level + 1)});
                definitions.insert(format!("s{level}"), json!({"allOf": [next, next]}));
            }
            definitions.insert(format!("s{levels}"), json!(true));
            json!({"$ref": "#/$defs/s0", "$defs": definitions})
        };
        assert!(Graph::of(&doubled(10)).check_size().is_ok());
        let refused = Graph::of(&doubled(40)).check_size().unwrap_err();
        assert!(refused.to_string().contains("#/$defs/s"), "{refused}");
        let cycle = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert!(Graph::of(&cycle).check_size().is_ok());
    }

    #[test]
    fn unsupported_patterns_are_distinguished_from_invalid_ones() {
        assert_eq!(unsupported_in("^(?=.*a)b"), Some("look-ahead"));
        assert_eq!(unsupported_in("a(?!b)"), Some("look-ahead"));
        assert_eq!(unsupported_in("(?<=a)b"), Some("look-behind"));
        assert_eq!(unsupported_in(r"(a)\1"), Some("back-references"));
        assert_eq!(unsupported_in(r"(?<n>a)\k<n>"), Some("back-references"));
        for fine in [r"\(?=", r"\\1", "(?:a)", "(?<name>a)", "(", "é(", "\\"] {
            assert_eq!(unsupported_in(fine), None, "{fine}");
        }
    }

    #[test]
    fn only_numeric_constants_of_schemas_become_lists() {
        let schema = json!({
            "const": 1,
            "properties": {"const": {"const": 2, "enum": [2, 3]}, "a": {"const": "x"}},
            "enum": [{"const": 4}], "default": {"const": 5},
        });
        assert_eq!(
            with_exact_constants(&schema),
            json!({
                "enum": [{"const": 4}], "allOf": [{"enum": [1]}],
                "properties": {"const": {"enum": [2, 3], "allOf": [{"enum": [2]}]}, "a": {"const": "x"}},
                "default": {"const": 5},
            })
        );
        let old = json!({"$schema": "http://json-schema.org/draft-04/schema#", "const": 1});
        assert_eq!(with_exact_constants(&old), old);
    }
}
