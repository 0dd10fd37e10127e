//! The template of a route's key on the first line, a body after it: compares the key with that of an independent implementation.
#![no_main]

use hookbridge::config::{Config, Template};
use hookbridge::ingress::{Decided, Verdict, decide};
use hookbridge_fuzz::{first_line, load, signed, verified};
use http::header::{CONTENT_TYPE, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn config(template: &str) -> Option<Config> {
    // JSON strings are TOML strings, except for this character.
    let key = serde_json::to_string(template)
        .ok()
        .filter(|text| !text.contains('\x7f'))?;
    load("", &format!("[[routes]]\ntopic = \"synq\"\nkey = {key}\n")).ok()
}

/// A part of a template: text, or the name between braces.
enum Part<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn read(template: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut open = None;
    for (at, character) in template.char_indices() {
        match (character, open) {
            ('{', None) => {
                parts.push(Part::Text(&template[from..at]));
                open = Some(at + 1);
            }
            ('}', Some(start)) => {
                parts.push(Part::Name(&template[start..at]));
                (open, from) = (None, at + 1);
            }
            ('}', None) => return None,
            _ => {}
        }
    }
    parts.push(Part::Text(&template[from..]));
    let is_known = |part: &Part<'_>| match part {
        Part::Text(_) | Part::Name("type" | "source") => true,
        Part::Name(pointer) => {
            let rest = pointer.replace("~0", "").replace("~1", "");
            pointer.starts_with('/') && !rest.contains('~')
        }
    };
    (open.is_none() && !template.is_empty() && parts.iter().all(is_known)).then_some(parts)
}

/// `None` if there is no key; an inner `None` if serde_json has lost the spelling of a number.
fn expected(parts: &[Part<'_>], event_type: &str, body: &Value) -> Option<Option<String>> {
    let mut key = Some(String::new());
    for part in parts {
        let text = match part {
            Part::Text(text) => Some((*text).to_owned()),
            Part::Name("type") => Some(event_type.to_owned()),
            Part::Name("source") => Some("synq".to_owned()),
            Part::Name(pointer) => match body.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                Value::Bool(value) => Some(value.to_string()),
                Value::Number(number) => number.as_u64().map(|number| number.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            },
        };
        key = key.zip(text).map(|(key, text)| key + &text);
    }
    Some(key)
}

fuzz_target!(|input: &[u8]| {
    let (template, body) = first_line(input);
    let Ok(template) = std::str::from_utf8(template) else {
        return;
    };
    let parts = read(template);
    assert_eq!(
        Template::parse(template).is_ok(),
        parts.is_some(),
        "{template:?}"
    );
    // The configuration replaces `${NAME}` before the template is parsed.
    let Some(parts) = parts.filter(|_| !template.contains('$')) else {
        return;
    };
    let Some(config) = config(template) else {
        return;
    };
    let mut headers = signed(&config.sources[0].authentication, body);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let verified = verified(&config, headers, body).expect("it is signed");
    let Decided::Event(decision) = decide(&verified) else {
        panic!("SYNQ has neither batches nor handshakes");
    };
    if let Verdict::Publish { delivery, .. } = &decision.verdict {
        // Numbers too large for serde_json are passed on unchanged.
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        let event_type = decision.event_type.as_deref().unwrap_or_default();
        let expected = expected(&parts, event_type, &value);
        let expected = expected.expect("a key was made of what is not there");
        if let Some(expected) = expected {
            assert_eq!(delivery.to.message.key, expected, "{template:?}");
        }
    }
});
