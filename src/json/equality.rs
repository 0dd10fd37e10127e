//! Equality of JSON values for `const`, `enum` and `uniqueItems`: exact numbers, members in any order.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use serde_json::Value;

use super::document::{Node, NodeKind};
use super::number::Exact;
use super::run::Run;

/// Whether a body's value equals a schema's value.
pub(super) fn equals(node: Node<'_>, expected: &Value, run: &Run<'_>) -> bool {
    visit(node, run);
    match (node.kind(), expected) {
        (NodeKind::Null, Value::Null)
        | (NodeKind::True, Value::Bool(true))
        | (NodeKind::False, Value::Bool(false)) => true,
        (NodeKind::Number, Value::Number(number)) => {
            Exact::of(node.raw()) == Exact::of(&number.to_string())
        }
        (NodeKind::String, Value::String(text)) => node.as_str().as_deref() == Some(text),
        (NodeKind::Array, Value::Array(values)) => {
            node.len() == values.len()
                && node
                    .elements()
                    .zip(values)
                    .all(|(element, value)| equals(element, value, run))
        }
        (NodeKind::Object, Value::Object(members)) => {
            node.len() == members.len()
                && members.iter().all(|(name, value)| {
                    run.step_over(node.len());
                    node.get(name).is_some_and(|node| equals(node, value, run))
                })
        }
        _ => false,
    }
}

/// Whether no two elements of an array are equal.
#[expect(
    clippy::mutable_key_type,
    reason = "the cells count steps and note repeated names; no hash depends on them"
)]
pub(super) fn are_distinct(array: Node<'_>, run: &Run<'_>) -> bool {
    let mut seen = HashSet::with_capacity(array.len());
    array
        .elements()
        .all(|node| seen.insert(Element { node, run }))
}

/// Counts a visit. All members are compared, so any duplicate name is ambiguous.
fn visit(node: Node<'_>, run: &Run<'_>) {
    run.step_over(node.size());
    node.note_repeated_name(|_| true);
}

/// A value to compare with others of the same body.
struct Element<'d, 'r> {
    node: Node<'d>,
    run: &'r Run<'r>,
}

impl<'d> Element<'d, '_> {
    fn at(&self, node: Node<'d>) -> Self {
        Self { node, ..*self }
    }

    /// The members, sorted by name.
    fn sorted_members(&self) -> Vec<(Cow<'d, str>, Self)> {
        let mut members: Vec<_> = self
            .node
            .members()
            .map(|(name, value)| (name, self.at(value)))
            .collect();
        members.sort_by(|(left, _), (right, _)| left.cmp(right));
        members
    }
}

impl PartialEq for Element<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        visit(self.node, self.run);
        let kind = self.node.kind();
        kind == other.node.kind()
            && self.node.len() == other.node.len()
            && match kind {
                NodeKind::Null | NodeKind::False | NodeKind::True => true,
                NodeKind::Number => Exact::of(self.node.raw()) == Exact::of(other.node.raw()),
                NodeKind::String | NodeKind::Name => self.node.as_str() == other.node.as_str(),
                NodeKind::Array => self
                    .node
                    .elements()
                    .zip(other.node.elements())
                    .all(|(left, right)| self.at(left) == self.at(right)),
                NodeKind::Object => self.sorted_members() == other.sorted_members(),
            }
    }
}

impl Eq for Element<'_, '_> {}

impl Hash for Element<'_, '_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        visit(self.node, self.run);
        let kind = self.node.kind();
        std::mem::discriminant(&kind).hash(hasher);
        match kind {
            NodeKind::Null | NodeKind::False | NodeKind::True => {}
            NodeKind::Number => Exact::of(self.node.raw()).hash(hasher),
            NodeKind::String | NodeKind::Name => self.node.as_str().hash(hasher),
            NodeKind::Array => {
                self.node.len().hash(hasher);
                let mut elements = self.node.elements();
                elements
                    .by_ref()
                    .for_each(|element| self.at(element).hash(hasher));
            }
            NodeKind::Object => {
                self.node.len().hash(hasher);
                self.sorted_members().hash(hasher);
            }
        }
    }
}
