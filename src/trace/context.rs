//! W3C Trace Context (<https://www.w3.org/TR/trace-context-1/>): what is invalid is ignored, and a new trace begins.

use std::fmt;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `tracestate`, in bytes. Section 3.3.1.5.
const MAX_STATE_BYTES: usize = 512;
const MAX_STATE_MEMBERS: usize = 32;
/// A longer entry is the first to be dropped from a state that is too long.
const LONG_MEMBER_BYTES: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId([u8; 8]);

impl TraceId {
    pub(crate) fn random() -> Self {
        // All zeros would be invalid.
        Self(rand::random::<u128>().max(1).to_be_bytes())
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The bits that ratios are taken of.
    pub(super) fn low(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn parse(hex: &[u8]) -> Option<Self> {
        lower_hex(hex).map(Self).filter(|id| id.0 != [0; 16])
    }
}

impl SpanId {
    pub(crate) fn random() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }

    pub(crate) fn bytes(self) -> [u8; 8] {
        self.0
    }

    fn parse(hex: &[u8]) -> Option<Self> {
        lower_hex(hex).map(Self).filter(|id| id.0 != [0; 8])
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        data_encoding::HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        data_encoding::HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span and its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) is_sampled: bool,
}

impl Context {
    /// A new span of the same trace.
    pub(crate) fn child(self) -> Self {
        Self {
            span_id: SpanId::random(),
            ..self
        }
    }

    /// The length of [`Context::header`].
    pub(crate) const HEADER_BYTES: usize = 55;

    /// The value of `traceparent`: this span is the parent of whoever reads it.
    pub(crate) fn header(self) -> [u8; Self::HEADER_BYTES] {
        let mut header = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let hex = data_encoding::HEXLOWER;
        let (_, rest) = header.split_at_mut(3);
        let (trace_id, rest) = rest.split_at_mut(32);
        hex.encode_mut(&self.trace_id.0, trace_id);
        let (_, rest) = rest.split_at_mut(1);
        let (span_id, flags) = rest.split_at_mut(16);
        hex.encode_mut(&self.span_id.0, span_id);
        if let (Some(last), true) = (flags.last_mut(), self.is_sampled) {
            *last = b'1';
        }
        header
    }

    /// The context that such a value carries.
    pub(crate) fn of_header(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_at_checked(2)?;
        let [version] = lower_hex(version)?;
        let (trace_id, rest) = rest.strip_prefix(b"-")?.split_at_checked(32)?;
        let (span_id, rest) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
        let (flags, rest) = rest.strip_prefix(b"-")?.split_at_checked(2)?;
        let [flags] = lower_hex(flags)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            // A later version may add fields, whatever they are.
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        is_whole.then_some(Self {
            trace_id: TraceId::parse(trace_id)?,
            span_id: SpanId::parse(span_id)?,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// The sender's span.
pub(super) type Parent = Context;

/// The parent that a request names. Two headers are as invalid as none.
pub(super) fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    Context::of_header(value.as_bytes())
}

/// The request's `tracestate`, which only means something with a valid `traceparent`. An invalid one is ignored as a whole; one
/// that is too long loses its long entries, then the last ones.
pub(crate) fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let mut members: Vec<&str> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        // Not `to_str`, which forbids what some entries have; what is not ASCII is refused below.
        let value = std::str::from_utf8(value.as_bytes()).ok()?;
        for member in value
            .split(',')
            .map(|member| member.trim_matches([' ', '\t']))
        {
            if member.is_empty() {
                continue;
            }
            let key = state_key(member)?;
            let is_repeated = members.iter().any(|other| state_key(other) == Some(key));
            if is_repeated || members.len() == MAX_STATE_MEMBERS {
                return None;
            }
            members.push(member);
        }
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    if length(&members) > MAX_STATE_BYTES + 1 {
        members.retain(|member| member.len() <= LONG_MEMBER_BYTES);
    }
    while length(&members) > MAX_STATE_BYTES + 1 {
        members.pop();
    }
    (!members.is_empty()).then(|| Box::from(members.join(",")))
}

/// The key of a list member whose key and value are both legal.
fn state_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_part = |part: &str, most: usize| {
        let is_start = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_inside = |byte: u8| is_start(byte) || b"_-*/".contains(&byte);
        part.len() <= most
            && part.bytes().next().is_some_and(is_start)
            && part.bytes().all(is_inside)
    };
    let is_key = match key.split_once('@') {
        None => is_part(key, 256),
        Some((tenant, system)) => is_part(tenant, 241) && is_part(system, 14),
    };
    let is_value = (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'=')
        && !value.ends_with(' ');
    (is_key && is_value).then_some(key)
}

/// Lower-case hexadecimal digits only.
fn lower_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = data_encoding::HEXLOWER.decode_len(hex.len()).ok()?;
    if length != N {
        return None;
    }
    data_encoding::HEXLOWER.decode_mut(hex, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (name.clone(), value)
        });
        values.collect()
    }

    fn parents(values: &[&str]) -> Option<Parent> {
        parent(&headers(&TRACEPARENT, values))
    }

    #[test]
    fn a_valid_traceparent_is_taken_and_every_other_is_ignored() {
        for (valid, is_sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!("00-{TRACE}-{SPAN}-fe"), false),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (
                format!("cc-{TRACE}-{SPAN}-01-what the future will be"),
                true,
            ),
        ] {
            let found = parents(&[&valid]).unwrap_or_else(|| panic!("{valid}"));
            assert_eq!(found.trace_id.to_string(), TRACE);
            assert_eq!(found.span_id.to_string(), SPAN);
            assert_eq!(found.is_sampled, is_sampled, "{valid}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        let zeros = "0".repeat(32);
        for invalid in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("{good}-"),
            format!("{good}-extra"),
            format!("{good}."),
            format!("cc-{TRACE}-{SPAN}-01.what"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            good.to_uppercase(),
            good.replace("-01", "-0X"),
            good.replace('b', "g"),
            good.replace('-', "_"),
            format!(" {good}"),
            format!("{good},{good}"),
            format!("00-{}-{SPAN}-01", TRACE.trim_end_matches('6')),
            format!("00-{TRACE}0-{SPAN}-01"),
        ] {
            assert_eq!(parents(&[&invalid]), None, "{invalid:?}");
        }
        assert_eq!(parents(&[]), None);
        assert_eq!(parents(&[&good, &good]), None, "which one is the parent?");
    }

    #[test]
    fn a_tracestate_is_taken_as_far_as_it_is_legal_and_within_its_bounds() {
        let long = |key: &str, bytes: usize| format!("{key}={}", "v".repeat(bytes - key.len() - 1));
        let many = |count: usize| {
            (0..count)
                .map(|n| format!("k{n}=1"))
                .collect::<Vec<_>>()
                .join(",")
        };
        for (values, expected) in [
            (vec!["a=1".to_owned()], "a=1".to_owned()),
            (
                vec!["a=1,b=2".to_owned(), "c=3".to_owned()],
                "a=1,b=2,c=3".to_owned(),
            ),
            (vec![" a=1 ,\t, b=2\t".to_owned()], "a=1,b=2".to_owned()),
            (
                vec!["fw529a3039@dt=\"x y\"%,0a/*-_=~".to_owned()],
                "fw529a3039@dt=\"x y\"%,0a/*-_=~".to_owned(),
            ),
            (vec![many(32)], many(32)),
            // The long one goes, although a shorter one is last.
            (
                vec![
                    long("a", 250),
                    long("b", 128),
                    long("d", 250),
                    "c=3".to_owned(),
                ],
                long("b", 128) + ",c=3",
            ),
            (
                vec![
                    (0..5)
                        .map(|n| long(&format!("k{n}"), 128))
                        .collect::<Vec<_>>()
                        .join(","),
                ],
                (0..3)
                    .map(|n| long(&format!("k{n}"), 128))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            (
                vec![long("a", 255), long("b", 256)],
                long("a", 255) + "," + &long("b", 256),
            ),
        ] {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let found = state(&headers(&TRACESTATE, &values));
            assert_eq!(found.as_deref(), Some(expected.as_str()), "{values:?}");
        }
        for invalid in [
            "",
            ",",
            "a",
            "=1",
            "a=",
            "A=1",
            "a b=1",
            "a=1=2",
            "a=é",
            "a@=1",
            "@a=1",
            "a@b@c=1",
            "a=1,a=2",
            "_a=1",
            &many(33),
            &long("a", 259),
            &format!("{}=1", "k".repeat(257)),
        ] {
            assert_eq!(
                state(&headers(&TRACESTATE, &[invalid])),
                None,
                "{invalid:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(is_sampled: bool) {
            let context = Context { trace_id: TraceId::random(), span_id: SpanId::random(), is_sampled };
            prop_assert_eq!(Context::of_header(&context.header()), Some(context));
            prop_assert_ne!(context.child().span_id, context.span_id);
        }

        #[test]
        fn nothing_that_a_sender_writes_breaks_the_readers(values in proptest::collection::vec("[ -~é]{0,80}|[0-9a-f-]{50,60}", 0..4)) {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            if let Some(parent) = parents(&values) {
                prop_assert_eq!(values.len(), 1);
                prop_assert!(values[0].contains(&parent.trace_id.to_string()));
            }
            if let Some(state) = state(&headers(&TRACESTATE, &values)) {
                prop_assert!(state.len() <= MAX_STATE_BYTES);
                prop_assert!(state.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            }
        }
    }
}
