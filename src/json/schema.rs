//! JSON Schema 2020-12 over a [`Document`](super::document::Document): the `jsonschema` crate validates the body's values in
//! place.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;

use jsonschema::error::ValidationErrorKind;
use jsonschema::json::{Array, Json, JsonNumber, NodeIdentity, Object};
use jsonschema::{Draft, JsonType, PatternOptions, ValidationError, Validator};
use serde_json::{Number, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::analysis::{Graph, check_text, unsupported_in, with_exact_constants};
use super::document::{Elements, Key, Members, Node, NodeKind};
use super::equality::{are_distinct, equals};
use super::error::SchemaError;
use super::number::Exact;
use super::pointer::escape_token;
use super::run::{Exhausted, Run, steps_for};
use super::shorten;

/// Maximum number of faults reported.
const MAX_VIOLATIONS: usize = 10;

/// Limit of steps to list an event's faults. The validator builds the whole list, with the faults of all alternatives, before
/// any of it can be read: it could be far larger than the event.
const LISTING_STEPS: u64 = 100_000;

#[derive(Debug)]
pub struct Schema {
    validator: Validator<Body>,
    /// Every member name that the schema mentions.
    names: HashSet<String>,
    warnings: Vec<String>,
}

/// One fault of an event, without the sender's data.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// JSON Pointer to the faulty value, or to where a missing member should be.
    pub pointer: String,
    /// The violated rule.
    pub reason: String,
}

impl Schema {
    /// Parses and compiles a JSON Schema.
    ///
    /// # Errors
    /// The fault of the text or the schema.
    pub fn read(text: &str) -> Result<Self, SchemaError> {
        check_text(text)?;
        let schema =
            serde_json::from_str(text).map_err(|error| SchemaError::new(error.to_string()))?;
        Self::compile(&schema)
    }

    /// Compiles a JSON Schema (draft 2020-12 unless `$schema` names another one).
    ///
    /// References to other documents are refused: the bridge fetches nothing. Regular expressions run in linear time.
    ///
    /// # Errors
    /// The fault of the schema.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let graph = Graph::of(schema);
        graph.check_size()?;
        let mut options = jsonschema::options_for::<Body>()
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .with_format("date-time", is_date_time);
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft202012);
        }
        let validator = options
            .build(&with_exact_constants(schema))
            .map_err(|error| SchemaError::new(fault_of_schema(&error)))?;
        let mut names = HashSet::new();
        collect_names(schema, &mut names);
        Ok(Self {
            validator,
            names,
            warnings: graph.warnings(),
        })
    }

    /// Warnings about a usable schema.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Validates a document.
    ///
    /// The work is bounded by a number of steps that is linear in the document's size, so a document that exceeds it exceeds it
    /// on every retry.
    ///
    /// # Errors
    /// The faults, at least one and at most ten.
    pub fn validate(&self, root: Node<'_>) -> Result<(), Vec<Violation>> {
        let steps = steps_for(root);
        let run = Run::new(&self.names, steps);
        match run.bounded(|| self.validator.is_valid(Instance::Value(root, &run))) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.faults(root, steps)),
            Err(exhausted) => Err(vec![Violation {
                pointer: String::new(),
                reason: match exhausted {
                    Exhausted::Steps => format!(
                        "is too complex for the schema: validation takes more than {steps} steps"
                    ),
                    Exhausted::Stack => {
                        "is too complex for the schema: validation recurs too deeply".to_owned()
                    }
                },
            }]),
        }
    }

    /// The faults of an invalid document, as far as bounded work can find them.
    fn faults(&self, root: Node<'_>, steps: u64) -> Vec<Violation> {
        let run = Run::new(&self.names, LISTING_STEPS.min(steps));
        let listed = run.bounded(|| {
            let errors = self.validator.iter_errors(Instance::Value(root, &run));
            let violations = errors.take(MAX_VIOLATIONS).map(|error| violation(&error));
            violations.collect::<Vec<_>>()
        });
        if let Ok(violations) = listed
            && !violations.is_empty()
        {
            return violations;
        }
        let run = Run::for_first_fault(&self.names, steps);
        let described = run.bounded(|| {
            let validated = self.validator.validate(Instance::Value(root, &run));
            validated.err().map(|error| violation(&error))
        });
        vec![described.ok().flatten().unwrap_or_else(|| {
            let index = run.first_fault().unwrap_or(root.index());
            Violation {
                pointer: shorten(root.pointer_to(index)),
                reason:
                    "does not match the schema, whose alternatives are too many to list the faults"
                        .to_owned(),
            }
        })]
    }
}

/// Describes a schema's fault and its location.
fn fault_of_schema(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    let fault = match (error.kind(), error.instance().as_str()) {
        (ValidationErrorKind::Format { format }, Some(pattern)) if format == "regex" => {
            match unsupported_in(pattern) {
                Some(feature) => format!(
                    "the pattern {pattern:?} is not supported: patterns take linear time, so there are no {feature}; \
                     use several patterns in `allOf`, or one in `not`"
                ),
                None => format!("{pattern:?} is not a regular expression that is supported"),
            }
        }
        (ValidationErrorKind::Referencing(_), _) => format!(
            "{error}; the bridge fetches no schema and reads no other file: put what is referred to into this one, under `$defs`"
        ),
        _ => error.to_string(),
    };
    if place.is_empty() {
        fault
    } else {
        format!("at {place}: {fault}")
    }
}

fn collect_names(schema: &Value, names: &mut HashSet<String>) {
    match schema {
        Value::Array(schemas) => schemas
            .iter()
            .for_each(|schema| collect_names(schema, names)),
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                match (keyword.as_str(), value) {
                    (
                        "properties" | "dependentSchemas" | "dependentRequired",
                        Value::Object(members),
                    ) => {
                        names.extend(members.keys().cloned());
                    }
                    ("required", Value::Array(required)) => {
                        names.extend(required.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                collect_names(value, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether it is an RFC 3339 time (section 5.6) within the limits of protobuf's JSON mapping of `Timestamp`: with an offset,
/// and up to nine fractional digits.
#[must_use]
pub fn is_date_time(text: &str) -> bool {
    // The fraction is at the same place in every RFC 3339 time.
    const FRACTION: usize = "2026-11-20T06:15:04.".len();
    let fraction = text.as_bytes().get(FRACTION..).unwrap_or_default();
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit());
    digits.count() <= 9 && OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

fn violation(error: &ValidationError<'_>) -> Violation {
    use jsonschema::error::ValidationErrorKind as Fault;
    let mut pointer = error.instance_path().as_str().to_owned();
    let reason = match error.kind() {
        Fault::Required { property } => {
            pointer.push('/');
            pointer.push_str(&escape_token(property.as_str().unwrap_or_default()));
            "is missing".to_owned()
        }
        Fault::FalseSchema => "must not be there".to_owned(),
        Fault::AdditionalItems { limit } => format!("has more than {limit} items"),
        Fault::AdditionalProperties { .. } | Fault::UnevaluatedProperties { .. } => {
            "has members that must not be there".to_owned()
        }
        _ => error.masked_with("the value").to_string(),
    };
    Violation {
        pointer: shorten(pointer),
        reason: shorten(reason),
    }
}

/// Our representation of JSON for `jsonschema`.
#[derive(Debug)]
struct Body;

/// A body's value, or a member name that a schema validates.
#[derive(Debug, Clone, Copy)]
enum Instance<'d> {
    Value(Node<'d>, &'d Run<'d>),
    Name(&'d Name<'d>),
}

/// A member's name as a value, with its run if known.
#[derive(Debug)]
struct Name<'d> {
    text: &'d str,
    run: Option<&'d Run<'d>>,
}

/// A container of a body, with its run.
#[derive(Debug, Clone, Copy)]
struct Container<'d> {
    node: Node<'d>,
    /// Kept here, since a schema looks for dozens of names, most of which an event lacks.
    name_bits: u32,
    run: &'d Run<'d>,
}

impl Json for Body {
    type Node<'a> = Instance<'a>;
    type PreparedKey = Key;
    const ACYCLIC: bool = true;
    type StringBuffer = ();

    fn prepare_key(key: &str) -> Key {
        Key::new(key)
    }

    fn with_string_node<T>(
        (): &mut (),
        string: &str,
        validate: impl FnOnce(Instance<'_>) -> T,
    ) -> T {
        validate(Instance::Name(&Name {
            text: string,
            run: None,
        }))
    }
}

impl<'a> Instance<'a> {
    /// The value, if it is of this kind. Counts as a step, like every call of the validator.
    #[inline]
    fn value_of(self, kind: NodeKind) -> Option<Node<'a>> {
        self.container(kind).map(|container| container.node)
    }

    #[inline]
    fn container(self, kind: NodeKind) -> Option<Container<'a>> {
        self.step();
        match self {
            Self::Value(node, run) if node.kind() == kind => Some(Container {
                node,
                name_bits: node.name_bits(),
                run,
            }),
            Self::Value(..) | Self::Name(_) => None,
        }
    }

    #[inline]
    fn step(self) {
        match self {
            Self::Value(_, run) => run.step(),
            Self::Name(name) => name.step(),
        }
    }
}

impl Name<'_> {
    fn step(&self) {
        if let Some(run) = self.run {
            run.step_over(self.text.len());
        }
    }
}

impl<'a> jsonschema::json::Node<'a, Body> for Instance<'a> {
    type Object = Container<'a>;
    type Array = Container<'a>;
    type Number = Decimal<'a>;

    fn as_object(&self) -> Option<Container<'a>> {
        self.container(NodeKind::Object)
    }

    fn as_array(&self) -> Option<Container<'a>> {
        self.container(NodeKind::Array)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Value(node, run) => {
                let text = node.as_str();
                run.step_over(text.as_ref().map_or(0, |text| text.len()));
                text
            }
            Self::Name(name) => {
                name.step();
                Some(Cow::Borrowed(name.text))
            }
        }
    }

    fn as_number(&self) -> Option<Decimal<'a>> {
        match self {
            Self::Value(node, run) if node.kind() == NodeKind::Number => {
                run.step_over(node.raw().len());
                Some(Decimal(node.raw()))
            }
            _ => {
                self.step();
                None
            }
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.json_type() {
            JsonType::Boolean => Some(self.value_of(NodeKind::True).is_some()),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.value_of(NodeKind::Null).is_some()
    }

    fn is_number(&self) -> bool {
        self.value_of(NodeKind::Number).is_some()
    }

    fn json_type(&self) -> JsonType {
        self.step();
        match self {
            Self::Name(_) => JsonType::String,
            Self::Value(node, _) => match node.kind() {
                NodeKind::Null => JsonType::Null,
                NodeKind::False | NodeKind::True => JsonType::Boolean,
                NodeKind::Number => JsonType::Number,
                NodeKind::String | NodeKind::Name => JsonType::String,
                NodeKind::Array => JsonType::Array,
                NodeKind::Object => JsonType::Object,
            },
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match self {
            Self::Value(node, run) => equals(*node, expected, run),
            Self::Name(name) => {
                name.step();
                expected.as_str() == Some(name.text)
            }
        }
    }

    /// Called for faults only, whose messages omit the sender's data.
    fn to_value(&self) -> Cow<'a, Value> {
        match self {
            Self::Value(node, run) => run.note_fault(node.index()),
            Self::Name(name) => name.step(),
        }
        Cow::Owned(Value::Null)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(match self {
            Self::Value(node, run) => {
                run.step_down();
                NodeIdentity::tagged(0, node.index())
            }
            // Names have no children, so only one is validated at a time.
            Self::Name(name) => {
                if let Some(run) = name.run {
                    run.step_down();
                }
                NodeIdentity::tagged(1, 0)
            }
        })
    }
}

impl<'a> Object<'a, Body> for Container<'a> {
    type Node = Instance<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = Children<'a, Members<'a>>;

    fn len(&self) -> usize {
        self.node.len()
    }

    #[inline]
    fn get(&self, key: &Key) -> Option<Instance<'a>> {
        if !key.may_be_among(self.name_bits) {
            self.run.step();
            return None;
        }
        self.run.step_over(self.node.len());
        self.node
            .get_key(key)
            .map(|value| Instance::Value(value, self.run))
    }

    fn members(&self) -> Self::MembersIter {
        // A duplicate name that the schema reads is ambiguous, even if it is not looked up individually.
        self.node
            .note_repeated_name(|name| self.run.names.contains(name));
        Children(self.node.members(), self.run)
    }

    fn try_for_each_name_node<B>(
        &self,
        (): &mut (),
        mut validate: impl FnMut(Instance<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (text, _) in self.members() {
            validate(Instance::Name(&Name {
                text: text.as_ref(),
                run: Some(self.run),
            }))?;
        }
        ControlFlow::Continue(())
    }
}

impl<'a> Array<'a, Body> for Container<'a> {
    type Node = Instance<'a>;
    type ElementsIter = Children<'a, Elements<'a>>;

    fn len(&self) -> usize {
        self.node.len()
    }

    fn elements(&self) -> Self::ElementsIter {
        Children(self.node.elements(), self.run)
    }

    fn is_unique(&self) -> bool {
        are_distinct(self.node, self.run)
    }
}

#[derive(Debug)]
struct Children<'d, I>(I, &'d Run<'d>);

impl<'d> Iterator for Children<'d, Members<'d>> {
    type Item = (Cow<'d, str>, Instance<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        self.1.step_over(name.len());
        Some((name, Instance::Value(value, self.1)))
    }
}

impl<'d> Iterator for Children<'d, Elements<'d>> {
    type Item = Instance<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        self.1.step();
        self.0.next().map(|value| Instance::Value(value, self.1))
    }
}

#[derive(Debug, Clone, Copy)]
struct Decimal<'a>(&'a str);

impl Decimal<'_> {
    /// Infinite if the number exceeds a double.
    fn as_double(self) -> f64 {
        self.0.parse().unwrap_or(f64::INFINITY)
    }
}

impl JsonNumber for Decimal<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        Some(self.as_double())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        let integer = self
            .as_u64()
            .map(Number::from)
            .or_else(|| self.as_i64().map(Number::from));
        let clamped = self.as_double().clamp(f64::MIN, f64::MAX);
        Cow::Owned(
            integer
                .or_else(|| Number::from_f64(clamped))
                .unwrap_or_else(|| Number::from(0)),
        )
    }

    fn is_integer(&self) -> bool {
        Exact::of(self.0).is_integer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;
    use serde_json::json;

    fn violations(schema: &Value, body: &str) -> Vec<Violation> {
        let schema = Schema::compile(schema).unwrap();
        let document = Document::parse(body.as_bytes()).unwrap();
        schema.validate(document.root()).err().unwrap_or_default()
    }

    fn pointers(schema: &Value, body: &str) -> Vec<String> {
        violations(schema, body)
            .into_iter()
            .map(|violation| violation.pointer)
            .collect()
    }

    #[test]
    fn names_pointer_and_rule_without_the_data() {
        let schema = json!({
            "type": "object", "required": ["id"],
            "properties": {"a/b": {"type": "string"}, "at": {"format": "date-time"}, "code": {"pattern": "^[a-z]+$"}},
        });
        let found = violations(
            &schema,
            r#"{"a/b": 12345, "at": "2026-02-30T00:00:00Z", "code": "S3CRET"}"#,
        );
        let told = |pointer: &str| {
            found
                .iter()
                .find(|violation| violation.pointer == pointer)
                .map(|violation| violation.reason.as_str())
        };
        assert_eq!(told("/id"), Some("is missing"));
        assert!(told("/a~1b").unwrap().contains("string"));
        assert!(told("/at").unwrap().contains("date-time"));
        assert!(told("/code").is_some());
        assert!(
            !format!("{found:?}").contains("12345") && !format!("{found:?}").contains("S3CRET")
        );
    }

    #[test]
    fn a_name_is_found_among_any_number_of_others() {
        for count in [1, 2, 7, 40] {
            let names: Vec<_> = (0..count).map(|number| format!("m{number}")).collect();
            let members: Vec<_> = names.iter().map(|name| format!("\"{name}\": 1")).collect();
            let body = format!("{{{}}}", members.join(","));
            let escaped = body.replace('m', "\\u006d");
            for (name, body) in names
                .iter()
                .flat_map(|name| [(name, &body), (name, &escaped)])
            {
                assert!(violations(&json!({"required": [name]}), body).is_empty());
                let depends = json!({"dependentSchemas": {name: false}});
                assert!(!violations(&depends, body).is_empty(), "{name} {body}");
            }
            for name in ["m", "m40", "n0"] {
                assert!(!violations(&json!({"required": [name]}), &body).is_empty());
                let depends = json!({"dependentSchemas": {name: false}});
                assert!(violations(&depends, &body).is_empty(), "{name} {body}");
            }
        }
    }

    #[test]
    fn numbers_keep_their_meaning_beyond_doubles() {
        let integer = json!({"type": "integer"});
        for good in [
            "1",
            "-0",
            "1.0",
            "150e-1",
            "1e400",
            "123456789012345678901234567890",
        ] {
            assert!(violations(&integer, good).is_empty(), "{good}");
        }
        for bad in [
            "1.5",
            "1e-400",
            "15e-2",
            "9007199254740993.5",
            "100000000000000000000000000000.5",
        ] {
            assert!(!violations(&integer, bad).is_empty(), "{bad}");
        }
        assert!(violations(&json!({"maximum": 3}), "1e400").len() == 1);
        assert!(violations(&json!({"enum": [1, "a", [true, null]]}), "[true, null]").is_empty());
    }

    #[test]
    fn date_times_have_an_offset_and_exist() {
        for good in [
            "2026-11-20T06:15:04Z",
            "2026-11-20T08:15:04.123456789+02:00",
            "2024-02-29T23:59:59-11:30",
        ] {
            assert!(is_date_time(good), "{good}");
        }
        for bad in [
            "2026-02-30T00:00:00Z",
            "2026-11-20T06:15:04",
            "2026-11-20",
            "2026-11-20T25:00:00Z",
            "2026-11-20T06:15:04.1234567890Z",
            "",
        ] {
            assert!(!is_date_time(bad), "{bad}");
        }
    }

    #[test]
    fn refuses_schemas_that_would_fetch_or_make_no_sense() {
        for schema in [
            json!({"$ref": "https://example.com/a.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"type": "strin"}),
            json!({"pattern": "("}),
        ] {
            assert!(Schema::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn the_list_of_faults_is_bounded() {
        let schema = json!({"items": {"type": "string"}});
        assert_eq!(
            pointers(&schema, &format!("[{}1]", "1,".repeat(99))).len(),
            10
        );
        assert_eq!(
            pointers(&schema, &format!("[{}1]", "1,".repeat(300_000))).len(),
            1
        );
    }

    fn steps_of(schema: &Schema, body: &str) -> u64 {
        let document = Document::parse(body.as_bytes()).unwrap();
        let run = Run::new(&schema.names, u64::MAX);
        let _verdict = schema
            .validator
            .is_valid(Instance::Value(document.root(), &run));
        u64::MAX - run.steps_left()
    }

    /// Tree nodes, of which each level can be read in three ways.
    fn recursive(keyword: &str) -> Value {
        let alternative = |name: &str| {
            json!({"type": "object", "required": ["id"],
                   "properties": {"child": {"$ref": "#/$defs/node"}, name: {"type": "string"}}})
        };
        let node = json!({keyword: [alternative("a"), alternative("b"), alternative("c")]});
        json!({"$ref": "#/$defs/node", "$defs": {"node": node}})
    }

    fn nested(depth: usize, innermost: &str) -> String {
        "{\"id\":1,\"child\":".repeat(depth) + innermost + &"}".repeat(depth)
    }

    #[test]
    fn an_invalid_event_costs_bounded_work_however_the_schema_recurs() {
        for keyword in ["anyOf", "oneOf"] {
            let found = violations(&recursive(keyword), &nested(60, "7"));
            assert_eq!(found.len(), 1, "{keyword}: {found:?}");
            assert!(found[0].reason.contains("does not match"), "{found:?}");
        }
        // A fault that is listed within the bound is reported as before.
        let found = violations(&recursive("anyOf"), "7");
        assert!(found[0].reason.contains("anyOf"), "{found:?}");
    }

    #[test]
    fn the_first_fault_is_reported_by_position_if_the_list_is_too_long() {
        let schema = json!({"properties": {"list": {"items": recursive("anyOf")["$defs"]["node"]}},
                            "$defs": recursive("anyOf")["$defs"]});
        let body = format!("{{\"list\":[{{\"id\":1}},{}]}}", nested(40, "7"));
        let found = violations(&schema, &body);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pointer, "/list/1", "{found:?}");
    }

    #[test]
    fn an_event_that_exceeds_the_steps_is_refused_and_so_is_its_retry() {
        // Each definition tries all others: one way for each order of twelve.
        const COUNT: usize = 12;
        let definitions: serde_json::Map<String, Value> = (0..COUNT)
            .map(|number| {
                let others = (0..COUNT).filter(|other| *other != number);
                let any: Vec<_> = others
                    .map(|other| {
                        json!({"allOf": [{"$ref": format!("#/$defs/d{other}")}, {"type": "integer"}]})
                    })
                    .collect();
                (format!("d{number}"), json!({"anyOf": any}))
            })
            .collect();
        let schema = json!({"items": {"$ref": "#/$defs/d0"}, "$defs": definitions});
        let schema = Schema::compile(&schema).unwrap();
        let document = Document::parse(br#"["text"]"#).unwrap();
        let first = schema.validate(document.root()).unwrap_err();
        assert!(
            first[0].reason.contains("steps") && first[0].pointer.is_empty(),
            "{first:?}"
        );
        assert_eq!(schema.validate(document.root()).unwrap_err(), first);
    }

    #[test]
    fn names_are_validated_within_the_limits_too() {
        let schema = json!({
            "propertyNames": {"$ref": "#/$defs/a"},
            "$defs": {"a": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/b"}]},
                      "b": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/a"}]}},
        });
        // An endless recursion in the schema stops where it returns to the same name.
        assert!(violations(&schema, r#"{"x": 1}"#).is_empty());
        let rules = json!({"propertyNames": {"pattern": "^a", "enum": ["ab", "ac"]}});
        assert!(violations(&rules, r#"{"ab": 1, "ac": 2}"#).is_empty());
        assert!(!violations(&rules, r#"{"ab": 1, "ad": 2}"#).is_empty());
    }

    #[test]
    fn a_long_way_through_the_schema_at_each_level_does_not_overflow_the_stack() {
        const CHAIN: usize = 400;
        let definitions: serde_json::Map<String, Value> = (0..CHAIN)
            .map(|link| {
                let next = json!({"$ref": format!("#/$defs/l{}", (link + 1) % CHAIN)});
                let is_last = link + 1 == CHAIN;
                let keyword = if is_last { "items" } else { "allOf" };
                let value = if is_last { next } else { json!([next]) };
                (format!("l{link}"), json!({ keyword: value }))
            })
            .collect();
        let schema = json!({"$ref": "#/$defs/l0", "$defs": definitions});
        let body = "[".repeat(60) + &"]".repeat(60);
        let found = violations(&schema, &body);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].reason.contains("deeply"), "{found:?}");
        assert!(violations(&schema, "[[]]").is_empty());
    }

    #[test]
    fn the_steps_of_ordinary_schemas_are_few_and_grow_with_the_event_alone() {
        let union: Vec<_> = (0..20)
            .map(|number| {
                json!({"type": "object", "required": ["kind"],
                       "properties": {"kind": {"type": "string", "pattern": format!("^k{number}$")}, "value": {"type": "integer"}}})
            })
            .collect();
        let schemas = [
            Schema::compile(
                &json!({"type": "object", "properties": {"list": {"items": {"anyOf": union}}}}),
            )
            .unwrap(),
            Schema::compile(&json!({"properties": {"list": {"uniqueItems": true}}})).unwrap(),
        ];
        let body = |items: usize| {
            let items: Vec<_> = (0..items)
                .map(|number| format!("{{\"kind\":\"k19\",\"value\":{number}}}"))
                .collect();
            format!(
                "{{\"event_id\":\"e\",\"ping\":{{}},\"list\":[{}]}}",
                items.join(",")
            )
        };
        for schema in &schemas {
            let (small, large) = (body(1_000), body(8_000));
            let (few, many) = (steps_of(schema, &small), steps_of(schema, &large));
            assert!(many < few * 10, "{few} steps become {many}");
            let document = Document::parse(large.as_bytes()).unwrap();
            assert!(many * 2 < steps_for(document.root()), "{many}");
        }
    }

    #[test]
    fn the_steps_of_a_providers_event_are_a_few_hundred() {
        let preset = crate::providers::find("synq").unwrap();
        let schema = Schema::read(preset.schema().unwrap()).unwrap();
        for sample in preset.samples() {
            let steps = steps_of(&schema, &sample.body);
            assert!(steps < 500, "{}: {steps}", sample.event_type);
        }
    }

    #[test]
    fn equality_is_exact_for_numbers_of_any_size() {
        for (schema, good, bad) in [
            (
                json!({"uniqueItems": true}),
                "[18446744073709551616, 18446744073709551617, 0.1, 0.10000000000000000001]",
                "[1, 1.0]",
            ),
            (json!({"uniqueItems": true}), "[1e2, 10]", "[100, 1e2]"),
            (
                json!({"uniqueItems": true}),
                r#"[{"a": 1, "b": 2}, {"a": 2, "b": 1}, [1, 2], [2, 1], "1", true, null]"#,
                r#"[{"a": 1, "b": [2, "\u0078"]}, {"b": [2.0, "x"], "a": 1}]"#,
            ),
            (
                json!({"const": 9_007_199_254_740_993_u64}),
                "9007199254740993.0",
                "9007199254740993.5",
            ),
            (
                json!({"const": 18_446_744_073_709_551_615_u64}),
                "18446744073709551615",
                "18446744073709551616",
            ),
            (json!({"const": 0.1}), "1e-1", "0.10000000000000000001"),
            (
                json!({"const": {"n": 1}}),
                r#"{"n": 10e-1}"#,
                r#"{"n": 1.00000000000000000001}"#,
            ),
            (
                json!({"enum": [1, 2.5, "x"]}),
                "25e-1",
                "2.5000000000000000001",
            ),
            (json!({"enum": [1, 2]}), "2.0", "2.00000000000000000001"),
            (
                json!({"enum": [[1, 2], {"a": null}]}),
                r#"{"a": null}"#,
                r#"{"a": null, "b": 1}"#,
            ),
        ] {
            assert_eq!(violations(&schema, good), [], "{schema} {good}");
            assert!(!violations(&schema, bad).is_empty(), "{schema} {bad}");
        }
    }

    #[test]
    fn a_repeated_member_that_equality_reads_is_ambiguous() {
        for (schema, body) in [
            (json!({"const": {"a": 1}}), r#"{"a": 1, "a": 1}"#),
            (json!({"enum": [{"a": 1}, 7]}), r#"{"a": 2, "a": 1}"#),
            (json!({"enum": [[{"a": 1}], 7]}), r#"[{"a": 1, "a": 2}]"#),
            (
                json!({"uniqueItems": true}),
                r#"[1, {"a": {"b": 1, "\u0062": 2}}]"#,
            ),
        ] {
            let compiled = Schema::compile(&schema).unwrap();
            let document = Document::parse(body.as_bytes()).unwrap();
            let _verdict = compiled.validate(document.root());
            assert!(document.ambiguous_name().is_some(), "{schema} {body}");
        }
        let compiled = Schema::compile(&json!({"enum": [{"a": 1}]})).unwrap();
        let document = Document::parse(br#"{"a": 1}"#).unwrap();
        assert!(compiled.validate(document.root()).is_ok());
        assert!(document.ambiguous_name().is_none());
    }

    #[test]
    fn schemas_that_parsing_would_change_are_refused() {
        for (text, expected) in [
            (r#"{"const": 18446744073709551616}"#, "18446744073709551616"),
            (
                r#"{"enum": ["x", 0.10000000000000000001]}"#,
                "0.10000000000000000001",
            ),
            (r#"{"type": "string", "type": "number"}"#, "\"type\" twice"),
            (r#"{"type": "string",}"#, "not JSON"),
        ] {
            let error = Schema::read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for fine in [
            r#"{"const": 18446744073709551615, "enum": [0.1, 1e2, -5, 1.50]}"#,
            r#"{"maximum": 123456789012345678901234567890}"#,
        ] {
            assert!(Schema::read(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn an_unsupported_pattern_is_distinguished_from_an_invalid_one() {
        let told = |schema: &Value| Schema::compile(schema).unwrap_err().to_string();
        let ahead = told(&json!({"properties": {"a": {"pattern": "^(?=.*a)b"}}}));
        assert!(
            ahead.contains("not supported")
                && ahead.contains("look-ahead")
                && ahead.contains("/properties/a/pattern"),
            "{ahead}"
        );
        let named = told(&json!({"patternProperties": {"(a)\\1": true}}));
        assert!(named.contains("back-references"), "{named}");
        let wrong = told(&json!({"pattern": "("}));
        assert!(wrong.contains("not a regular expression"), "{wrong}");
    }

    #[test]
    fn a_name_that_the_schema_reads_is_known_to_be_ambiguous() {
        let schema = Schema::compile(&json!({"properties": {"id": {"type": "integer"}}})).unwrap();
        let document = Document::parse(br#"{"x": 1, "x": 2, "id": 1, "id": 2}"#).unwrap();
        assert!(schema.validate(document.root()).is_ok());
        assert_eq!(document.ambiguous_name().as_deref(), Some("id"));
    }
}
