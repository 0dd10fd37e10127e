//! Headers in CloudEvents' NATS binding.

use std::borrow::Cow;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::brokers::kind::Kind;
use crate::brokers::message::Message;

/// NATS binding 1.0.2 section 3.1.3.2: encodes space, double quote, percent and everything but printable ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The message's headers and its `Nats-Msg-Id`. A name that is illegal on NATS is left out; the configuration allows none.
pub(super) fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in message.headers_on(Kind::Nats) {
        // W3C Trace Context is not CloudEvents': its readers decode nothing. Its values are ASCII without line ends.
        let is_literal = is_plain(value) || matches!(&*name, "traceparent" | "tracestate");
        let encoded = match std::str::from_utf8(value) {
            Ok(value) if is_literal => Cow::Borrowed(value),
            _ => Cow::from(percent_encode(value, ENCODED)),
        };
        // Parsed explicitly: the map's own conversions panic.
        let Ok(value) = encoded.parse::<HeaderValue>() else {
            continue;
        };
        match name {
            // One of our own names, which tests have checked; each occurs once.
            Cow::Borrowed(name) => headers.insert(HeaderName::from_static(name), value),
            Cow::Owned(name) => {
                if let Ok(name) = name.parse::<HeaderName>() {
                    headers.append(name, value);
                }
            }
        }
    }
    headers
}

/// Whether nothing in it has to be encoded, as in most values. Without an early return the compiler checks many bytes at once.
fn is_plain(value: &[u8]) -> bool {
    value.iter().fold(true, |is_plain, byte| {
        is_plain & (b'!'..=b'~').contains(byte) & !matches!(byte, b'"' | b'%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::message::{Attribute, Headers};
    use proptest::prelude::*;

    fn message(value: &str) -> Message {
        let mut headers = Headers::default();
        headers.push(Attribute::ID, value);
        Message {
            destination: "a".to_owned(),
            key: String::new(),
            headers,
            body: bytes::Bytes::new(),
            deduplication_id: Some("synq/1".to_owned()),
        }
    }

    #[test]
    fn values_are_percent_encoded_as_the_binding_says() {
        let headers = headers(&message("Grüße, \"x\" 100%\r\nNats-Rollup: all"));
        let value = headers.get("ce-id").unwrap().as_str();
        assert_eq!(
            value,
            "Gr%C3%BC%C3%9Fe,%20%22x%22%20100%25%0D%0ANats-Rollup:%20all"
        );
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "synq/1");
    }

    #[test]
    fn a_trace_context_arrives_as_it_is_and_still_adds_no_line() {
        let sent = |value: &str| {
            let mut message = message("1");
            message.headers.push(Attribute::TRACESTATE, value);
            let headers = headers(&message);
            headers
                .get("tracestate")
                .map(|value| value.as_str().to_owned())
        };
        let state = "a=x y%2C\"z\",b=1";
        assert_eq!(sent(state).as_deref(), Some(state));
        assert_eq!(sent("a=1\r\nNats-Rollup: all"), None);
    }

    proptest! {
        #[test]
        fn any_value_can_be_read_back_and_adds_no_line(value in prop_oneof![any::<String>(), "[!-~]{0,80}"]) {
            let headers = headers(&message(&value));
            prop_assert_eq!(headers.len(), 2);
            let encoded = headers.get("ce-id").unwrap().as_str();
            prop_assert!(encoded.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            prop_assert_eq!(encoded, percent_encode(value.as_bytes(), ENCODED).to_string());
            let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
            prop_assert_eq!(decoded.as_ref(), value.as_str());
        }
    }
}
