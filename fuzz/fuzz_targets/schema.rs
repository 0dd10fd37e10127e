//! A schema on the first line, a document after it: validation ends within limits of time and memory (set by fuzz/run),
//! reports one to ten faults, and always the same ones.
#![no_main]

use hookbridge::json::{Document, Schema};
use hookbridge_fuzz::first_line;
use libfuzzer_sys::fuzz_target;

/// Schemas come from the operator, and large ones only slow the search down.
const MAX_SCHEMA: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let (schema, body) = first_line(input);
    let Some(schema) = std::str::from_utf8(schema)
        .ok()
        .filter(|schema| schema.len() <= MAX_SCHEMA)
    else {
        return;
    };
    let Ok(schema) = Schema::read(schema) else {
        return;
    };
    let Ok(document) = Document::parse(body) else {
        return;
    };
    let verdict = schema.validate(document.root());
    if let Err(violations) = &verdict {
        assert!((1..=10).contains(&violations.len()), "{violations:?}");
        for violation in violations {
            for text in [&violation.pointer, &violation.reason] {
                assert!(text.chars().count() <= 129, "{violation:?}");
            }
        }
    }
    let again = schema.validate(document.root());
    assert_eq!(verdict, again);
});
