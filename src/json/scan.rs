//! Parses bytes into a [`Document`]: the strict grammar of RFC 8259, in one pass, without recursion.
//!
//! A scanner of our own: for the event that the benchmark sends it takes 1.5 µs, jiter 0.10 takes 4.0 µs to build its tree and
//! 1.5 µs merely to skip the value, without seeing repeated names, and serde_json 12 µs (one run, beside `cargo bench --bench parts`).

use std::borrow::Cow;
use std::collections::HashSet;

use super::document::{Content, Document, Entry, bit, tag, unescape};
use super::marks::Marks;

/// Maximum nesting of arrays and objects. Deeper bodies are refused, whether or not anything reads them.
pub const MAX_DEPTH: usize = 64;

/// Maximum size of a body: offsets have 32 bits.
const MAX_BYTES: usize = u32::MAX as usize;

/// In objects with more members than this, or with an escaped name, duplicates are found with a set instead of by comparing,
/// so that each name is unescaped only once, however long it is.
const MANY_MEMBERS: u32 = 32;

/// The [`bit`]s of an object with an escaped name, which could be any name.
const ANY_NAME: u32 = u32::MAX;

/// A container before its children are read.
const EMPTY_ARRAY: Content = Content::Array { children: 0 };
const EMPTY_OBJECT: Content = Content::Object {
    children: 0,
    name_bits: 0,
    repeats: false,
};

/// Typical size of a value or name in bytes. A body with smaller ones only costs another allocation.
const BYTES_AN_ENTRY: usize = 12;

/// Values and names that every body may have; their index takes 60 MB.
const FREE_VALUES: usize = 2_500_000;

/// Beyond that, a body may have one value or name per this number of bytes: its index takes three times its size.
const BYTES_PER_VALUE: usize = 8;

/// Maximum number of values and member names in a body. A body of up to 5 MB cannot exceed it.
#[must_use]
pub fn max_values(body_bytes: usize) -> usize {
    FREE_VALUES.max(body_bytes / BYTES_PER_VALUE)
}

/// The reason why a body is not an acceptable JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not UTF-8, or with a byte order mark (RFC 8259 section 8.1).
    Encoding {
        /// In bytes from the start.
        offset: usize,
    },
    /// Not JSON.
    Syntax {
        /// In bytes from the start.
        offset: usize,
        /// Completes "expected …".
        expected: &'static str,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    Depth {
        /// In bytes from the start.
        offset: usize,
    },
    /// More values and names than [`max_values`] allows.
    Values {
        /// In bytes from the start.
        offset: usize,
        /// The maximum for a body of this size.
        limit: usize,
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
            Self::Values { offset, limit } => write!(
                f,
                "the body has more than {limit} values and member names (at byte {offset})"
            ),
        }
    }
}

impl<'b> Document<'b> {
    /// # Errors
    /// The first [`Fault`] in the body.
    pub fn parse(body: &'b [u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body).map_err(|error| Fault::Encoding {
            offset: error.valid_up_to(),
        })?;
        if text.starts_with('\u{feff}') || body.len() > MAX_BYTES {
            return Err(Fault::Encoding { offset: 0 });
        }
        let mut scanner = Scanner {
            bytes: body,
            at: 0,
            marks: Marks::new(body),
            entries: Vec::with_capacity(body.len() / BYTES_AN_ENTRY + 4),
            inside: Container {
                kind: Inside::Nothing,
                entry: 0,
                found: Found::default(),
            },
            around: Vec::with_capacity(8),
            fault: Fault::Encoding { offset: 0 },
        };
        match scanner.document() {
            Ok(()) => Ok(Document::new(text, scanner.entries)),
            Err(Failed) => Err(scanner.fault),
        }
    }
}

struct Scanner<'b> {
    bytes: &'b [u8],
    at: usize,
    marks: Marks<'b>,
    entries: Vec<Entry>,
    /// The current container, if any.
    inside: Container,
    /// The containers around it.
    around: Vec<Container>,
    /// Valid once a step has [`Failed`].
    fault: Fault,
}

/// A failure, described by [`Scanner::fault`]. Carries nothing, since results are checked constantly.
struct Failed;

/// A container that is being read.
struct Container {
    kind: Inside,
    /// The index of its entry.
    entry: usize,
    found: Found,
}

/// The children of a container so far.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    children: u32,
    /// The [`bit`]s of an object's names; [`ANY_NAME`] if one is escaped.
    name_bits: u32,
    /// Whether a duplicate name was found.
    repeats: bool,
}

#[derive(Debug, Clone, Copy)]
enum Inside {
    Nothing,
    Array,
    Object,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Failed> {
        loop {
            // At the start of the document, or of a container's first or next child.
            if matches!(self.inside.kind, Inside::Object) {
                self.name()?;
            }
            match self.next_byte() {
                Some(b'"') => {
                    let start = self.at + 1;
                    let content = match self.string()? {
                        true => Content::EscapedString,
                        false => Content::String,
                    };
                    self.push(content, start, self.at - 1)?;
                }
                Some(b'{') => {
                    self.open(EMPTY_OBJECT, Inside::Object)?;
                    if self.next_byte() != Some(b'}') {
                        continue;
                    }
                    self.close();
                }
                Some(b'[') => {
                    self.open(EMPTY_ARRAY, Inside::Array)?;
                    if self.next_byte() != Some(b']') {
                        continue;
                    }
                    self.close();
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true", Content::True)?,
                Some(b'f') => self.literal(b"false", Content::False)?,
                Some(b'n') => self.literal(b"null", Content::Null)?,
                _ => return Err(self.expected("a value")),
            }
            // After a value: close the containers that end here, until another value must follow.
            loop {
                self.inside.found.children += 1;
                match (self.inside.kind, self.next_byte()) {
                    (Inside::Object | Inside::Array, Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Inside::Object, Some(b'}')) | (Inside::Array, Some(b']')) => self.close(),
                    (Inside::Nothing, None) => return Ok(()),
                    (Inside::Object, _) => return Err(self.expected("`,` or `}`")),
                    (Inside::Array, _) => return Err(self.expected("`,` or `]`")),
                    (Inside::Nothing, Some(_)) => {
                        return Err(self.expected("nothing after the document"));
                    }
                }
            }
        }
    }

    fn open(&mut self, content: Content, inside: Inside) -> Result<(), Failed> {
        if self.around.len() == MAX_DEPTH {
            self.fault = Fault::Depth { offset: self.at };
            return Err(Failed);
        }
        let container = Container {
            kind: inside,
            entry: self.entries.len(),
            found: Found::default(),
        };
        self.around
            .push(std::mem::replace(&mut self.inside, container));
        self.push(content, self.at, self.at)?;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        if let Some(around) = self.around.pop() {
            let Container { kind, entry, found } = std::mem::replace(&mut self.inside, around);
            let content = match kind {
                Inside::Object => {
                    let is_unsure = found.children > MANY_MEMBERS || found.name_bits == ANY_NAME;
                    Content::Object {
                        children: found.children,
                        name_bits: found.name_bits,
                        repeats: found.repeats || is_unsure && self.repeats_among_many(entry),
                    }
                }
                Inside::Array | Inside::Nothing => Content::Array {
                    children: found.children,
                },
            };
            let (end, next) = (self.at, self.entries.len());
            if let Some(entry) = self.entries.get_mut(entry) {
                entry.close(content, end, next);
            }
        }
    }

    /// Reads a member's name and the colon.
    #[inline]
    fn name(&mut self) -> Result<(), Failed> {
        if self.next_byte() != Some(b'"') {
            return Err(self.expected("a member's name"));
        }
        let start = self.at + 1;
        let is_escaped = self.string()?;
        let end = self.at - 1;
        let content = if is_escaped {
            self.inside.found.name_bits = ANY_NAME;
            Content::EscapedName
        } else {
            let tag = tag(self.bytes.get(start..end).unwrap_or_default());
            let bit = bit(tag);
            if self.inside.found.name_bits & bit != 0 {
                self.note_repeat(start, end, tag);
            }
            self.inside.found.name_bits |= bit;
            Content::Name { tag }
        };
        self.push(content, start, end)?;
        if self.next_byte() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    /// Records whether this name is a duplicate, after its bit was already set.
    #[inline(never)]
    fn note_repeat(&mut self, start: usize, end: usize, tag: u32) {
        let found = &self.inside.found;
        if found.children < MANY_MEMBERS && found.name_bits != ANY_NAME {
            let name = self.bytes.get(start..end).unwrap_or_default();
            let mut earlier = names(&self.entries, self.inside.entry + 1, self.entries.len());
            let repeats = earlier.any(|other| other.is_plain_name(tag, name, self.bytes));
            self.inside.found.repeats |= repeats;
        }
    }

    fn repeats_among_many(&self, container: usize) -> bool {
        // The standard library's hash has a random key, so names cannot be chosen to collide.
        let mut seen = HashSet::new();
        names(&self.entries, container + 1, self.entries.len())
            .any(|name| !seen.insert(text(name, self.bytes)))
    }

    /// Moves from the opening quote past the closing one. Returns whether the string has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Failed> {
        self.at = self.marks.next(self.at + 1);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.rest_of_string()
    }

    #[inline(never)]
    fn rest_of_string(&mut self) -> Result<bool, Failed> {
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.expected("an escape instead of a control character")),
                None => return Err(self.expected("the end of a string")),
            }
            self.at = self.marks.next(self.at);
        }
        self.at += 1;
        Ok(true)
    }

    #[inline(never)]
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

    /// Starts at the `u`; returns the UTF-16 code unit.
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

    #[inline(never)]
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
        self.push(Content::Number, start, self.at)
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

    #[inline(never)]
    fn literal(&mut self, word: &'static [u8], content: Content) -> Result<(), Failed> {
        if !self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            return Err(self.expected("a value"));
        }
        self.push(content, self.at, self.at + word.len())?;
        self.at += word.len();
        Ok(())
    }

    /// The next byte that is not white space.
    #[inline]
    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        if byte > b' ' {
            return Some(byte);
        }
        self.byte_after_white_space()
    }

    #[inline(never)]
    fn byte_after_white_space(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn push(&mut self, content: Content, start: usize, end: usize) -> Result<(), Failed> {
        let next = self.entries.len() + 1;
        self.push_entry(Entry::new(content, start, end, next))
    }

    #[inline]
    fn push_entry(&mut self, entry: Entry) -> Result<(), Failed> {
        if self.entries.len() == self.entries.capacity() {
            self.grow()?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Doubles the capacity, up to the body's limit.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Result<(), Failed> {
        let (count, limit) = (self.entries.len(), max_values(self.bytes.len()));
        if count >= limit {
            self.fault = Fault::Values {
                offset: self.at,
                limit,
            };
            return Err(Failed);
        }
        self.entries.reserve_exact(count.max(4).min(limit - count));
        Ok(())
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
