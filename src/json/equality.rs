//! Equality of JSON values, for `const`, `enum` and `uniqueItems`: numbers by their exact value, members in any order.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use serde_json::Value;

use super::document::{Kind, Node};
use super::number::Exact;
use super::run::Run;

/// Whether a body's value is a schema's value.
pub(super) fn equals(node: Node<'_>, expected: &Value, run: &Run<'_>) -> bool {
    visit(node, run);
    match (node.kind(), expected) {
        (Kind::Null, Value::Null)
        | (Kind::True, Value::Bool(true))
        | (Kind::False, Value::Bool(false)) => true,
        (Kind::Number, Value::Number(number)) => {
            Exact::of(node.raw()) == Exact::of(&number.to_string())
        }
        (Kind::String, Value::String(text)) => node.as_str().as_deref() == Some(text),
        (Kind::Array, Value::Array(values)) => {
            node.len() == values.len()
                && node
                    .elements()
                    .zip(values)
                    .all(|(element, value)| equals(element, value, run))
        }
        (Kind::Object, Value::Object(members)) => {
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

/// Counts a visit. All members of the value are compared, so a repeated one is ambiguous.
fn visit(node: Node<'_>, run: &Run<'_>) {
    run.step_over(node.size());
    node.note_repeated_name(|_| true);
}

/// A value that is compared with others of the same body.
struct Element<'d, 'r> {
    node: Node<'d>,
    run: &'r Run<'r>,
}

impl<'d> Element<'d, '_> {
    fn at(&self, node: Node<'d>) -> Self {
        Self { node, ..*self }
    }

    /// The members in an order that does not depend on the sender.
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
                Kind::Null | Kind::False | Kind::True => true,
                Kind::Number => Exact::of(self.node.raw()) == Exact::of(other.node.raw()),
                Kind::String | Kind::Name => self.node.as_str() == other.node.as_str(),
                Kind::Array => self
                    .node
                    .elements()
                    .zip(other.node.elements())
                    .all(|(left, right)| self.at(left) == self.at(right)),
                Kind::Object => self.sorted_members() == other.sorted_members(),
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
            Kind::Null | Kind::False | Kind::True => {}
            Kind::Number => Exact::of(self.node.raw()).hash(hasher),
            Kind::String | Kind::Name => self.node.as_str().hash(hasher),
            Kind::Array => {
                self.node.len().hash(hasher);
                let mut elements = self.node.elements();
                elements
                    .by_ref()
                    .for_each(|element| self.at(element).hash(hasher));
            }
            Kind::Object => {
                self.node.len().hash(hasher);
                self.sorted_members().hash(hasher);
            }
        }
    }
}
