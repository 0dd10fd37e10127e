//! JSON Schema 2020-12 over a [`Document`](super::document::Document): the `jsonschema` crate judges the body's values where
//! they stand.

use std::borrow::Cow;
use std::collections::HashSet;

use jsonschema::json::{Array, Json, JsonNumber, NodeIdentity, Object};
use jsonschema::{Draft, JsonType, PatternOptions, ValidationError, Validator};
use serde_json::{Number, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::document::{Elements, Kind, Members, Node};
use super::pointer::escape_token;

/// How many faults are told.
const MAX_VIOLATIONS: usize = 10;

/// Bodies with more values than this are judged up to the first fault only: the list of all faults, which has no bound
/// of its own, could be far larger than the body.
const MAX_VALUES_FOR_A_LIST: usize = 20_000;

/// The longest pointer that is told, in characters.
const MAX_POINTER: usize = 128;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator<Body>,
    /// Every member name that the schema speaks of.
    names: HashSet<String>,
}

/// Why a schema can't be used.
#[derive(Debug)]
pub struct SchemaError(String);

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchemaError {}

/// One fault of an event: where it is and which rule it breaks, without the sender's data.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// JSON Pointer to the value at fault; of a missing member, to where it should be.
    pub pointer: String,
    /// The rule that it breaks.
    pub reason: String,
}

impl Schema {
    /// Compiles a JSON Schema document (draft 2020-12 where `$schema` names no other).
    ///
    /// References to other documents are refused: the bridge fetches nothing. Regular expressions run in linear time.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let mut options = jsonschema::options_for::<Body>()
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .with_format("date-time", is_date_time);
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft202012);
        }
        let validator = options.build(schema).map_err(|error| {
            let place = error.instance_path().as_str();
            SchemaError(if place.is_empty() {
                error.to_string()
            } else {
                format!("at {place}: {error}")
            })
        })?;
        let mut names = HashSet::new();
        collect_names(schema, &mut names);
        Ok(Self { validator, names })
    }

    /// Judges a document.
    ///
    /// # Errors
    /// Its faults, at least one and at most ten.
    pub fn validate(&self, root: Node<'_>) -> Result<(), Vec<Violation>> {
        let instance = Instance::Value(root, &self.names);
        if self.validator.is_valid(instance) {
            return Ok(());
        }
        if root.document_len() > MAX_VALUES_FOR_A_LIST {
            return self
                .validator
                .validate(instance)
                .map_err(|error| vec![violation(&error)]);
        }
        Err(self
            .validator
            .iter_errors(instance)
            .take(MAX_VIOLATIONS)
            .map(|error| violation(&error))
            .collect())
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

/// Whether it is an RFC 3339 time (section 5.6) as protobuf's JSON mapping of `Timestamp` has it: with an offset and up
/// to nine fractional digits.
#[must_use]
pub fn is_date_time(text: &str) -> bool {
    let fraction = text.split_once('.').map_or(0, |(_, rest)| {
        rest.bytes().take_while(u8::is_ascii_digit).count()
    });
    fraction <= 9 && OffsetDateTime::parse(text, &Rfc3339).is_ok()
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

fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_POINTER) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The representation of bodies, for `jsonschema`.
#[derive(Debug)]
struct Body;

/// A body's value, or one of its names where a schema judges names.
#[derive(Debug, Clone, Copy)]
enum Instance<'d> {
    Value(Node<'d>, &'d HashSet<String>),
    Name(&'d str),
}

/// A container of a body, and the names that the schema speaks of.
#[derive(Debug, Clone, Copy)]
struct Container<'d>(Node<'d>, &'d HashSet<String>);

impl Json for Body {
    type Node<'a> = Instance<'a>;
    type PreparedKey = String;
    const ACYCLIC: bool = true;
    type StringBuffer = ();

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, judge: impl FnOnce(Instance<'_>) -> T) -> T {
        judge(Instance::Name(string))
    }
}

impl<'a> Instance<'a> {
    fn value_of(self, kind: Kind) -> Option<Node<'a>> {
        self.container(kind).map(|container| container.0)
    }

    fn container(self, kind: Kind) -> Option<Container<'a>> {
        match self {
            Self::Value(node, names) if node.kind() == kind => Some(Container(node, names)),
            Self::Value(..) | Self::Name(_) => None,
        }
    }
}

impl<'a> jsonschema::json::Node<'a, Body> for Instance<'a> {
    type Object = Container<'a>;
    type Array = Container<'a>;
    type Number = Decimal<'a>;

    fn as_object(&self) -> Option<Container<'a>> {
        self.container(Kind::Object)
    }

    fn as_array(&self) -> Option<Container<'a>> {
        self.container(Kind::Array)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Value(node, _) => node.as_str(),
            Self::Name(name) => Some(Cow::Borrowed(name)),
        }
    }

    fn as_number(&self) -> Option<Decimal<'a>> {
        self.value_of(Kind::Number).map(|node| Decimal(node.raw()))
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.json_type() {
            JsonType::Boolean => Some(self.value_of(Kind::True).is_some()),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.value_of(Kind::Null).is_some()
    }

    fn json_type(&self) -> JsonType {
        match self {
            Self::Name(_) => JsonType::String,
            Self::Value(node, _) => match node.kind() {
                Kind::Null => JsonType::Null,
                Kind::False | Kind::True => JsonType::Boolean,
                Kind::Number => JsonType::Number,
                Kind::String | Kind::Name => JsonType::String,
                Kind::Array => JsonType::Array,
                Kind::Object => JsonType::Object,
            },
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Self::Name(name) => Value::from(*name),
            Self::Value(node, _) => to_value(*node),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        match self {
            Self::Value(node, _) => Some(NodeIdentity::tagged(0, node.index())),
            Self::Name(_) => None,
        }
    }
}

/// For `const`, `enum` and `uniqueItems`; the depth is bounded by the scanner.
fn to_value(node: Node<'_>) -> Value {
    match node.kind() {
        Kind::Null => Value::Null,
        Kind::False => Value::Bool(false),
        Kind::True => Value::Bool(true),
        Kind::Number => Value::Number(Decimal(node.raw()).to_number().into_owned()),
        Kind::String | Kind::Name => Value::from(node.as_str().unwrap_or_default()),
        Kind::Array => node.elements().map(to_value).collect(),
        Kind::Object => Value::Object(
            node.members()
                .map(|(name, value)| (name.into_owned(), to_value(value)))
                .collect(),
        ),
    }
}

impl<'a> Object<'a, Body> for Container<'a> {
    type Node = Instance<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = Children<'a, Members<'a>>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Instance<'a>> {
        self.0.get(key).map(|value| Instance::Value(value, self.1))
    }

    fn members(&self) -> Self::MembersIter {
        if self.0.repeats_names() {
            // Looking a name up is what makes it ambiguous.
            for (name, _) in self
                .0
                .members()
                .filter(|(name, _)| self.1.contains(name.as_ref()))
            {
                let _looked_up = self.0.get(&name);
            }
        }
        Children(self.0.members(), self.1)
    }
}

impl<'a> Array<'a, Body> for Container<'a> {
    type Node = Instance<'a>;
    type ElementsIter = Children<'a, Elements<'a>>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> Self::ElementsIter {
        Children(self.0.elements(), self.1)
    }
}

/// The children of a container.
#[derive(Debug)]
struct Children<'d, I>(I, &'d HashSet<String>);

impl<'d> Iterator for Children<'d, Members<'d>> {
    type Item = (Cow<'d, str>, Instance<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .next()
            .map(|(name, value)| (name, Instance::Value(value, self.1)))
    }
}

impl<'d> Iterator for Children<'d, Elements<'d>> {
    type Item = Instance<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|value| Instance::Value(value, self.1))
    }
}

/// A number as it was written.
#[derive(Debug, Clone, Copy)]
struct Decimal<'a>(&'a str);

impl Decimal<'_> {
    /// Infinite where a double can't hold it.
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
        let double = self.as_double();
        let is_zero = self
            .0
            .split(['e', 'E'])
            .next()
            .is_some_and(|digits| !digits.contains(|digit: char| ('1'..='9').contains(&digit)));
        double.is_infinite() || (double.fract() == 0.0 && (double != 0.0 || is_zero))
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
        for bad in ["1.5", "1e-400", "15e-2"] {
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

    #[test]
    fn a_name_that_the_schema_reads_is_known_to_be_ambiguous() {
        let schema = Schema::compile(&json!({"properties": {"id": {"type": "integer"}}})).unwrap();
        let document = Document::parse(br#"{"x": 1, "x": 2, "id": 1, "id": 2}"#).unwrap();
        assert!(schema.validate(document.root()).is_ok());
        assert_eq!(document.ambiguous_name().as_deref(), Some("id"));
    }
}
