//! Bytes in, a [`Document`] out: the strict grammar of RFC 8259, one pass, no recursion.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memchr2;

use super::document::{Document, Entry, Found, Kind, bit, tag, unescape};

/// How deeply arrays and objects may be nested. Deeper bodies are refused, whether or not anything reads them.
pub const MAX_DEPTH: usize = 64;

/// The largest body that can be read; offsets are 32 bits wide.
const MAX_BYTES: usize = u32::MAX as usize;

/// In objects with more members than this, repeated names are looked for with a set instead of by comparing.
const MANY_MEMBERS: u32 = 32;

/// How many bytes a value or name of a usual body takes: fewer only cost another allocation.
const BYTES_AN_ENTRY: usize = 12;

/// Why a body is no JSON document that a source takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not UTF-8, or a byte order mark in front (RFC 8259 section 8.1).
    Encoding {
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// Not JSON.
    Syntax {
        /// Where, in bytes from the start.
        offset: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    Depth {
        /// Where, in bytes from the start.
        offset: usize,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Encoding { offset } => write!(
                f,
                "the body is not UTF-8 without a byte order mark (at byte {offset})"
            ),
            Self::Syntax { offset, expected } => write!(
                f,
                "the body is not JSON: expected {expected} at byte {offset}"
            ),
            Self::Depth { offset } => write!(
                f,
                "the body is nested deeper than {MAX_DEPTH} levels (at byte {offset})"
            ),
        }
    }
}

/// Reads a whole body.
///
/// # Errors
/// The first [`Fault`] in the body.
pub(super) fn scan(body: &[u8]) -> Result<Document<'_>, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| Fault::Encoding {
        offset: error.valid_up_to(),
    })?;
    if text.starts_with('\u{feff}') || body.len() > MAX_BYTES {
        return Err(Fault::Encoding { offset: 0 });
    }
    let mut scanner = Scanner {
        bytes: body,
        at: 0,
        has_controls: first_control(body) < body.len(),
        entries: Vec::with_capacity(body.len() / BYTES_AN_ENTRY + 4),
        open: Vec::with_capacity(8),
        fault: Fault::Encoding { offset: 0 },
    };
    match scanner.document() {
        Ok(()) => Ok(Document::new(text, scanner.entries)),
        Err(Failed) => Err(scanner.fault),
    }
}

struct Scanner<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Whether there is a control character anywhere: where there is none, no string needs to be searched for one.
    has_controls: bool,
    entries: Vec<Entry>,
    /// The containers that are not closed yet.
    open: Vec<Container>,
    /// What is wrong, when something is.
    fault: Fault,
}

/// Something is wrong, and the scanner knows what. Results are looked at all the time, and so carry nothing.
struct Failed;

/// A container that is being read.
struct Container {
    /// Its index among the entries.
    entry: usize,
    is_object: bool,
    found: Found,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Failed> {
        loop {
            self.value()?;
            // A value has ended: close what it ends, until another one must follow.
            loop {
                self.white_space();
                let Some(is_object) = self.count_child() else {
                    return if self.at == self.bytes.len() {
                        Ok(())
                    } else {
                        Err(self.expected("nothing after the document"))
                    };
                };
                match (self.peek(), is_object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.white_space();
                        self.name()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => self.close(),
                    (_, true) => return Err(self.expected("`,` or `}`")),
                    (_, false) => return Err(self.expected("`,` or `]`")),
                }
            }
        }
    }

    /// Reads one value, or the opening of containers down to the first value that is none (or an empty one).
    fn value(&mut self) -> Result<(), Failed> {
        loop {
            self.white_space();
            match self.peek() {
                Some(b'{') => {
                    self.open(Kind::Object)?;
                    if self.peek() == Some(b'}') {
                        self.close();
                        return Ok(());
                    }
                    self.name()?;
                }
                Some(b'[') => {
                    self.open(Kind::Array)?;
                    if self.peek() == Some(b']') {
                        self.close();
                        return Ok(());
                    }
                }
                Some(b'"') => return self.string(Kind::String),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.literal(b"true", Kind::True),
                Some(b'f') => return self.literal(b"false", Kind::False),
                Some(b'n') => return self.literal(b"null", Kind::Null),
                _ => return Err(self.expected("a value")),
            }
        }
    }

    fn open(&mut self, kind: Kind) -> Result<(), Failed> {
        if self.open.len() == MAX_DEPTH {
            self.fault = Fault::Depth { offset: self.at };
            return Err(Failed);
        }
        let is_object = kind == Kind::Object;
        self.open.push(Container {
            entry: self.entries.len(),
            is_object,
            found: Found::default(),
        });
        self.push(kind, self.at, self.at, false);
        self.at += 1;
        self.white_space();
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        let (end, next) = (self.at, self.entries.len());
        if let Some(mut container) = self.open.pop() {
            let many = container.is_object && container.found.children > MANY_MEMBERS;
            container.found.repeats |= many && self.repeats_among_many(container.entry);
            if let Some(entry) = self.entries.get_mut(container.entry) {
                entry.close(end, next, container.found);
            }
        }
    }

    /// Counts the value that has just ended and says whether its container is an object; nothing outside of any.
    fn count_child(&mut self) -> Option<bool> {
        let container = self.open.last_mut()?;
        container.found.children += 1;
        Some(container.is_object)
    }

    /// Notes whether the name that was just read stands in its object already.
    fn note_name(&mut self) {
        let Some((name, earlier)) = self.entries.split_last_mut() else {
            return;
        };
        let Some(container) = self.open.last_mut() else {
            return;
        };
        let (raw, is_escaped) = name.raw_text(self.bytes);
        name.set_tag(tag(raw));
        let found = &mut container.found;
        let bit = bit(name.tag());
        let may_repeat = found.bits & bit != 0 || is_escaped;
        found.bits |= if is_escaped { u32::MAX } else { bit };
        if may_repeat && found.children < MANY_MEMBERS {
            let first = container.entry + 1;
            found.repeats |= names(earlier, first, earlier.len()).any(|other| {
                let may_be_equal = is_escaped || other.is_escaped() || other.tag() == name.tag();
                may_be_equal && text(other, self.bytes) == text(name, self.bytes)
            });
        }
    }

    fn repeats_among_many(&self, container: usize) -> bool {
        // The standard library's hashing is keyed at random: names can't be chosen to collide.
        let mut seen = HashSet::new();
        names(&self.entries, container + 1, self.entries.len())
            .any(|name| !seen.insert(text(name, self.bytes)))
    }

    /// A member's name and the colon behind it.
    fn name(&mut self) -> Result<(), Failed> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a member's name"));
        }
        self.string(Kind::Name)?;
        self.note_name();
        self.white_space();
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    /// Stands on the opening quote; the entry's span is what is between the quotes.
    fn string(&mut self, kind: Kind) -> Result<(), Failed> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            self.at += match rest.get(..plain) {
                Some(plain) if self.has_controls => first_control(plain),
                _ => plain,
            };
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("an escape instead of a control character")),
                None => return Err(self.expected("the end of a string")),
            }
        }
        self.push(kind, start, self.at, escaped);
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Failed> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.unicode_escape()? {
                0xdc00..=0xdfff => Err(self.expected("a high surrogate before a low one")),
                0xd800..=0xdbff => {
                    let pair = (self.peek(), self.bytes.get(self.at + 1).copied());
                    if pair != (Some(b'\\'), Some(b'u')) {
                        return Err(self.expected("a low surrogate after a high one"));
                    }
                    self.at += 1;
                    match self.unicode_escape()? {
                        0xdc00..=0xdfff => Ok(()),
                        _ => Err(self.expected("a low surrogate after a high one")),
                    }
                }
                _ => Ok(()),
            },
            _ => Err(self.expected("an escape that JSON knows")),
        }
    }

    /// Stands on the `u`; returns the UTF-16 code unit.
    fn unicode_escape(&mut self) -> Result<u32, Failed> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.expected("four hexadecimal digits"));
            };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), Failed> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push(Kind::Number, start, self.at, false);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Failed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            Err(self.expected("a digit"))
        } else {
            Ok(())
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<(), Failed> {
        if !self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            return Err(self.expected("a value"));
        }
        self.push(kind, self.at, self.at + word.len(), false);
        self.at += word.len();
        Ok(())
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize, escaped: bool) {
        let next = self.entries.len() + 1;
        self.entries
            .push(Entry::new(kind, start, end, next, escaped));
    }

    #[cold]
    fn expected(&mut self, expected: &'static str) -> Failed {
        self.fault = Fault::Syntax {
            offset: self.at,
            expected,
        };
        Failed
    }
}

/// Where the first control character is; the length where there is none.
fn first_control(bytes: &[u8]) -> usize {
    // Whole blocks at a time, which the compiler makes vectors of.
    let has_control = |block: &[u8]| {
        block
            .iter()
            .fold(false, |found, byte| found | (*byte < 0x20))
    };
    let blocks = bytes.chunks(64);
    let before: usize = blocks
        .take_while(|block| !has_control(block))
        .map(<[u8]>::len)
        .sum();
    let rest = bytes.get(before..).unwrap_or_default();
    before + rest.iter().take_while(|byte| **byte >= 0x20).count()
}

/// The names of the object whose first name is at `first`, up to the entry at `end`.
fn names(entries: &[Entry], first: usize, end: usize) -> impl Iterator<Item = &Entry> {
    let mut at = first;
    std::iter::from_fn(move || {
        let name = entries.get(at).filter(|_| at < end)?;
        at = entries.get(at + 1).map_or(end, Entry::next);
        Some(name)
    })
}

fn text<'b>(name: &Entry, body: &'b [u8]) -> Cow<'b, [u8]> {
    let (raw, is_escaped) = name.raw_text(body);
    match std::str::from_utf8(raw) {
        Ok(escaped) if is_escaped => Cow::Owned(unescape(escaped).into_bytes()),
        _ => Cow::Borrowed(raw),
    }
}
