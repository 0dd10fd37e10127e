//! The values of a body, with their positions in it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::str::Chars;

use super::pointer::{Pointer, escape_token};

/// The kind of a value, or a member's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    Number,
    String,
    Array,
    Object,
    /// A member's name; its value is the next entry.
    Name,
}

/// The content of an [`Entry`]. Escapes are variants of their own, so that a lookup of a name tests one discriminant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Null,
    False,
    True,
    Number,
    String,
    EscapedString,
    Array {
        children: u32,
    },
    Object {
        children: u32,
        /// The [`bit`]s of its names; all bits if a name is escaped, which could be any name.
        name_bits: u32,
        /// Whether it has duplicate names.
        repeats: bool,
    },
    Name {
        /// The name's [`tag`].
        tag: u32,
    },
    EscapedName,
}

impl Content {
    #[inline]
    const fn kind(self) -> NodeKind {
        match self {
            Self::Null => NodeKind::Null,
            Self::False => NodeKind::False,
            Self::True => NodeKind::True,
            Self::Number => NodeKind::Number,
            Self::String | Self::EscapedString => NodeKind::String,
            Self::Array { .. } => NodeKind::Array,
            Self::Object { .. } => NodeKind::Object,
            Self::Name { .. } | Self::EscapedName => NodeKind::Name,
        }
    }

    #[inline]
    const fn is_escaped(self) -> bool {
        matches!(self, Self::EscapedString | Self::EscapedName)
    }
}

/// One value or name. Offsets fit into 32 bits because longer bodies are refused.
#[derive(Debug)]
pub(super) struct Entry {
    content: Content,
    start: u32,
    end: u32,
    /// The index of the first entry that is not part of this value.
    next: u32,
}

/// One of 32 bits, derived from a name's tag: most names that an object lacks are ruled out by their bit.
pub(super) const fn bit(tag: u32) -> u32 {
    1 << (tag.wrapping_mul(0x9e37_79b1) >> 27)
}

/// A cheap hash of a name: equal names have equal tags, and most different names differ in theirs.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder of 256 fits a byte"
)]
pub(super) const fn tag(name: &[u8]) -> u32 {
    let (_, second_half) = name.split_at(name.len() / 2);
    match (name.first(), second_half.first(), name.last()) {
        (Some(first), Some(middle), Some(last)) => {
            u32::from_le_bytes([*first, *middle, *last, (name.len() % 256) as u8])
        }
        _ => 0,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "scan() refuses bodies whose offsets would not fit"
)]
impl Entry {
    pub(super) fn new(content: Content, start: usize, end: usize, next: usize) -> Self {
        Self {
            content,
            start: start as u32,
            end: end as u32,
            next: next as u32,
        }
    }

    /// Completes a container's entry.
    pub(super) fn close(&mut self, content: Content, end: usize, next: usize) {
        self.content = content;
        self.end = end as u32;
        self.next = next as u32;
    }

    /// A name's or string's bytes as sent, and whether they contain escapes.
    pub(super) fn raw_text<'b>(&self, body: &'b [u8]) -> (&'b [u8], bool) {
        (self.raw(body), self.content.is_escaped())
    }

    /// Whether it is a name without escapes that has this tag and these bytes.
    pub(super) fn is_plain_name(&self, tag: u32, name: &[u8], body: &[u8]) -> bool {
        matches!(self.content, Content::Name { tag: own } if own == tag) && self.raw(body) == name
    }

    #[inline]
    fn raw_in<'b>(&self, text: &'b str) -> &'b str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    fn raw<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        body.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// The index of the first entry after the value.
    pub(super) fn next(&self) -> usize {
        self.next as usize
    }
}

/// A parsed JSON body. It borrows the text: the request that owns the bytes outlives it, and nothing is copied or counted.
#[derive(Debug)]
pub struct Document<'b> {
    text: &'b str,
    entries: Vec<Entry>,
    /// A duplicate name that was looked up: parsers could disagree about its value.
    ambiguous: Cell<Option<u32>>,
}

impl<'b> Document<'b> {
    pub(super) fn new(text: &'b str, entries: Vec<Entry>) -> Self {
        Self {
            text,
            entries,
            ambiguous: Cell::new(None),
        }
    }

    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node {
            document: self,
            at: 0,
        }
    }

    /// A duplicate member name that has been looked up, for example by routing or the schema.
    #[must_use]
    pub fn ambiguous_name(&self) -> Option<Cow<'_, str>> {
        self.ambiguous.get().map(|at| self.text_of(at))
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.entries.get(at as usize)
    }

    /// Whether the value at `at` is, or contains, the one with this index.
    fn contains(&self, at: u32, index: u32) -> bool {
        at <= index && self.entry(at).is_some_and(|entry| index < entry.next)
    }

    fn raw(&self, at: u32) -> &str {
        self.entry(at).map_or("", |entry| entry.raw_in(self.text))
    }

    // Always, since it is called for every string of an event and does next to nothing unless there are escapes.
    #[inline(always)]
    fn text_of(&self, at: u32) -> Cow<'_, str> {
        self.entry(at)
            .map_or(Cow::Borrowed(""), |entry| self.text_in(entry))
    }

    /// The entries of a member: its name, and the first of its value.
    #[inline]
    fn member(&self, at: u32) -> Option<&[Entry; 2]> {
        self.entries.get(at as usize..)?.first_chunk()
    }

    // Always, as with `text_of`, of which this is the greater part.
    #[inline(always)]
    fn text_in(&self, entry: &Entry) -> Cow<'_, str> {
        let raw = entry.raw_in(self.text);
        match entry.content.is_escaped() {
            true => Cow::Owned(unescape(raw)),
            false => Cow::Borrowed(raw),
        }
    }
}

/// A name for repeated lookups.
#[derive(Debug)]
pub(super) struct Key {
    name: String,
    tag: u32,
    bit: u32,
}

impl Key {
    pub(super) fn new(name: &str) -> Self {
        let tag = tag(name.as_bytes());
        Self {
            name: name.to_owned(),
            tag,
            bit: bit(tag),
        }
    }

    /// Whether an object with these [`Node::name_bits`] may have the name; most that lack it do not.
    #[inline]
    pub(super) const fn may_be_among(&self, name_bits: u32) -> bool {
        name_bits & self.bit != 0
    }
}

/// One value of a [`Document`].
#[derive(Debug, Clone, Copy)]
pub struct Node<'d> {
    document: &'d Document<'d>,
    at: u32,
}

impl<'d> Node<'d> {
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        self.content().map_or(NodeKind::Null, Content::kind)
    }

    #[inline]
    fn content(&self) -> Option<Content> {
        self.document.entry(self.at).map(|entry| entry.content)
    }

    /// The index among the document's entries.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.at
    }

    /// The number of values and names in the whole document.
    #[must_use]
    pub fn document_len(&self) -> usize {
        self.document.entries.len()
    }

    /// The size of the whole document in bytes.
    #[must_use]
    pub fn document_bytes(&self) -> usize {
        self.document.text.len()
    }

    /// The bytes of a scalar, or the number of children of a container.
    pub(super) fn size(&self) -> usize {
        match self.kind() {
            NodeKind::Array | NodeKind::Object => self.len(),
            _ => self.raw().len(),
        }
    }

    /// The number of elements or members; 0 for a scalar.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.content() {
            Some(Content::Array { children } | Content::Object { children, .. }) => {
                children as usize
            }
            _ => 0,
        }
    }

    /// The [`bit`]s of an object's names; none for other values.
    #[inline]
    pub(super) fn name_bits(&self) -> u32 {
        match self.content() {
            Some(Content::Object { name_bits, .. }) => name_bits,
            _ => 0,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        self.kind() == NodeKind::Null
    }

    /// The text as it was sent, of a string without the quotes.
    #[must_use]
    pub fn raw(&self) -> &'d str {
        self.document.raw(self.at)
    }

    #[must_use]
    pub fn as_str(&self) -> Option<Cow<'d, str>> {
        (self.kind() == NodeKind::String).then(|| self.document.text_of(self.at))
    }

    /// The text of a string, number or boolean; numbers and booleans exactly as written.
    #[must_use]
    pub fn scalar_text(&self) -> Option<Cow<'d, str>> {
        match self.kind() {
            NodeKind::String => self.as_str(),
            NodeKind::Number | NodeKind::True | NodeKind::False => Some(Cow::Borrowed(self.raw())),
            NodeKind::Null | NodeKind::Array | NodeKind::Object | NodeKind::Name => None,
        }
    }

    /// The member with this name. A duplicate name is found and recorded as [ambiguous](Document::ambiguous_name).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Self> {
        self.get_tagged(name, tag(name.as_bytes()))
    }

    pub(super) fn get_key(&self, key: &Key) -> Option<Self> {
        self.get_tagged(&key.name, key.tag)
    }

    #[inline]
    fn get_tagged(&self, name: &str, tag: u32) -> Option<Self> {
        let document = self.document;
        let Content::Object {
            children,
            name_bits,
            repeats,
        } = self.content()?
        else {
            return None;
        };
        if name_bits & bit(tag) == 0 {
            return None;
        }
        let mut members = Members(self.first_children(children as usize, 1));
        let found = members.next_named(name, tag)?;
        if repeats && members.next_named(name, tag).is_some() {
            document.ambiguous.set(Some(found));
        }
        Some(Node {
            document,
            at: found + 1,
        })
    }

    /// Whether it is an object with duplicate names.
    #[must_use]
    pub fn repeats_names(&self) -> bool {
        matches!(self.content(), Some(Content::Object { repeats: true, .. }))
    }

    /// Records a duplicate name that `is_read` accepts as [ambiguous](Document::ambiguous_name).
    pub fn note_repeated_name(&self, is_read: impl Fn(&str) -> bool) {
        if !self.repeats_names() || self.document.ambiguous.get().is_some() {
            return;
        }
        let mut seen = HashSet::new();
        let mut names = self.children(NodeKind::Object, 1);
        let repeated = names.find(|name_at| {
            let name = self.document.text_of(*name_at);
            is_read(&name) && !seen.insert(name)
        });
        self.document.ambiguous.set(repeated);
    }

    /// The JSON Pointer of the document's value with this [index](Self::index).
    pub(super) fn pointer_to(&self, index: u32) -> String {
        let mut pointer = String::new();
        let mut node = *self;
        while node.at < index {
            let (position, child) = match node.kind() {
                NodeKind::Array => {
                    let mut elements = node.children(NodeKind::Array, 0).enumerate();
                    let found = elements.find(|(_, at)| node.document.contains(*at, index));
                    let Some((position, at)) = found else { break };
                    (position.to_string(), at)
                }
                NodeKind::Object => {
                    let mut names = node.children(NodeKind::Object, 1);
                    let found = names.find(|name| node.document.contains(name + 1, index));
                    let Some(name) = found else { break };
                    (escape_token(&node.document.text_of(name)), name + 1)
                }
                _ => break,
            };
            pointer.push('/');
            pointer.push_str(&position);
            node.at = child;
        }
        pointer
    }

    /// The members in the order sent; none if it is not an object.
    #[must_use]
    pub fn members(&self) -> Members<'d> {
        Members(self.children(NodeKind::Object, 1))
    }

    /// The elements; none if it is not an array.
    #[must_use]
    pub fn elements(&self) -> Elements<'d> {
        Elements(self.children(NodeKind::Array, 0))
    }

    #[must_use]
    pub fn at(&self, pointer: &Pointer) -> Option<Self> {
        pointer
            .tokens()
            .iter()
            .try_fold(*self, |node, token| match node.kind() {
                NodeKind::Object => node.get(token.name()),
                NodeKind::Array => token.index().and_then(|index| node.elements().nth(index)),
                NodeKind::Null
                | NodeKind::False
                | NodeKind::True
                | NodeKind::Number
                | NodeKind::String
                | NodeKind::Name => None,
            })
    }

    fn children(&self, container: NodeKind, value_offset: u32) -> Children<'d> {
        let left = if self.kind() == container {
            self.len()
        } else {
            0
        };
        self.first_children(left, value_offset)
    }

    fn first_children(&self, left: usize, value_offset: u32) -> Children<'d> {
        Children {
            document: self.document,
            at: self.at + 1,
            left,
            value_offset,
        }
    }
}

/// Iterates over the first entry of each child, whose value is `value_offset` entries later.
#[derive(Debug, Clone)]
struct Children<'d> {
    document: &'d Document<'d>,
    at: u32,
    left: usize,
    value_offset: u32,
}

impl Iterator for Children<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let child = self.at;
        self.at = self.document.entry(child + self.value_offset)?.next;
        Some(child)
    }
}

#[derive(Debug, Clone)]
pub struct Members<'d>(Children<'d>);

impl<'d> Members<'d> {
    /// The next member's index, and the entry of its name.
    #[inline]
    fn next_entry(&mut self) -> Option<(u32, &'d Entry)> {
        let Children {
            document, at, left, ..
        } = &mut self.0;
        *left = left.checked_sub(1)?;
        let here = *at;
        let [name, value] = document.member(here)?;
        *at = value.next;
        Some((here, name))
    }

    /// The index of the next member with this name.
    fn next_named(&mut self, name: &str, tag: u32) -> Option<u32> {
        let text = self.0.document.text;
        while let Some((at, entry)) = self.next_entry() {
            let is_it = match entry.content {
                Content::Name { tag: own } => own == tag && entry.raw_in(text) == name,
                Content::EscapedName => is_unescaped(entry.raw_in(text), name),
                _ => false,
            };
            if is_it {
                return Some(at);
            }
        }
        None
    }
}

impl<'d> Iterator for Members<'d> {
    type Item = (Cow<'d, str>, Node<'d>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let document = self.0.document;
        let (at, name) = self.next_entry()?;
        Some((
            document.text_in(name),
            Node {
                document,
                at: at + 1,
            },
        ))
    }
}

#[derive(Debug, Clone)]
pub struct Elements<'d>(Children<'d>);

impl<'d> Iterator for Elements<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.0.document;
        self.0.next().map(|at| Node { document, at })
    }
}

/// Decodes the escapes of a string that the scanner has validated.
pub(super) fn unescape(raw: &str) -> String {
    #[cfg(test)]
    tests::UNESCAPED.with(|bytes| bytes.set(bytes.get() + raw.len()));
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let mut characters = after.chars();
        text.extend(escaped(&mut characters));
        rest = characters.as_str();
    }
    text.push_str(rest);
    text
}

/// Whether a string with escapes equals this text. Stops at the first difference.
fn is_unescaped(raw: &str, text: &str) -> bool {
    let mut characters = raw.chars();
    let unescaped = std::iter::from_fn(|| match characters.next()? {
        '\\' => escaped(&mut characters),
        other => Some(other),
    });
    unescaped.eq(text.chars())
}

/// The character of an escape, after its backslash.
fn escaped(characters: &mut Chars<'_>) -> Option<char> {
    Some(match characters.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let high = hexadecimal(characters);
            let code = if (0xd800..0xdc00).contains(&high) {
                // The scanner ensures that `\u` and a low surrogate follow.
                let low = hexadecimal(&mut characters.by_ref().skip(2));
                0x10000 + ((high - 0xd800) << 10) + (low & 0x3ff)
            } else {
                high
            };
            return char::from_u32(code);
        }
        other => other,
    })
}

fn hexadecimal(characters: &mut impl Iterator<Item = char>) -> u32 {
    characters.take(4).fold(0, |unit, digit| {
        unit * 16 + digit.to_digit(16).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Fault, MAX_DEPTH};
    use proptest::prelude::*;

    thread_local! {
        /// Bytes of escaped strings that this thread has decoded.
        pub(super) static UNESCAPED: Cell<usize> = const { Cell::new(0) };
    }

    fn unescaped_by(work: impl FnOnce()) -> usize {
        let before = UNESCAPED.get();
        work();
        UNESCAPED.get() - before
    }

    fn is_json(body: &[u8]) -> bool {
        Document::parse(body).is_ok()
    }

    /// `FREE_VALUES` and `BYTES_PER_VALUE` bound the memory of an index by this size.
    #[test]
    fn an_entry_takes_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn a_name_is_unescaped_once_however_many_there_are_and_a_lookup_reads_no_further_than_it_must()
    {
        for count in [2, 31, 32, 33, 200] {
            let names: Vec<_> = (0..count)
                .map(|number| format!("\"{}{number}\":0", "\\u0061".repeat(500)))
                .collect();
            let body = format!("{{{}}}", names.join(","));
            let unescaped = unescaped_by(|| {
                let document = Document::parse(body.as_bytes()).unwrap();
                assert!(!document.root().repeats_names());
                assert!(document.root().get("event_id").is_none());
                assert!(document.root().get(&"a".repeat(400)).is_none());
            });
            assert!(
                unescaped <= body.len(),
                "{count}: {unescaped} of {}",
                body.len()
            );
        }
    }

    #[test]
    fn names_are_equal_in_every_spelling() {
        for (name, spellings) in [
            ("type", &["type", "\\u0074ype", "typ\\u0065"][..]),
            ("a/\"b\\", &["a/\\\"b\\\\", "\\u0061\\/\\u0022b\\u005c"]),
            ("🚀\n", &["🚀\\n", "\\ud83d\\ude80\\u000a"]),
        ] {
            for spelling in spellings {
                let body = format!("{{\"x\":0,\"{spelling}\":1}}");
                let document = Document::parse(body.as_bytes()).unwrap();
                assert_eq!(
                    document.root().get(name).map(|value| value.raw()),
                    Some("1"),
                    "{spelling}"
                );
                let longer = format!("{name}x");
                assert!(document.root().get(&longer).is_none(), "{spelling}");
                let body = format!("{{\"{}\":1,\"{spelling}\":2}}", spellings[0]);
                assert!(
                    Document::parse(body.as_bytes())
                        .unwrap()
                        .root()
                        .repeats_names(),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn a_body_has_a_bounded_number_of_values() {
        let dense = |values: usize| format!("[{}1]", "1,".repeat(values - 1));
        // The maximum that 5 MB can hold.
        assert!(is_json(dense(crate::json::max_values(0) - 1).as_bytes()));
        let refused = Document::parse(dense(crate::json::max_values(0)).as_bytes()).unwrap_err();
        assert_eq!(
            refused,
            Fault::Values {
                offset: 5_000_000,
                limit: 2_500_000
            },
            "{refused}"
        );
        let sparse = format!(
            "[{}1]",
            format!("\"{}\",", "x".repeat(13)).repeat(2_600_000)
        );
        assert!(is_json(sparse.as_bytes()), "a large body may have more");
    }

    #[test]
    fn an_index_leads_to_its_pointer() {
        let document = Document::parse(br#"{"a/b":[1,{"c":[true,null]}],"d":"x"}"#).unwrap();
        let root = document.root();
        for pointer in ["/a~1b", "/a~1b/0", "/a~1b/1/c", "/a~1b/1/c/1", "/d"] {
            let node = root.at(&Pointer::parse(pointer).unwrap()).unwrap();
            assert_eq!(root.pointer_to(node.index()), pointer);
        }
        assert_eq!(root.pointer_to(root.index()), "");
    }

    #[test]
    fn a_repeated_name_is_ambiguous_only_where_it_is_read() {
        let filler = "\"x\":1,".repeat(20_000);
        let body = format!("{{{filler}{}\"z\":1}}", "\"y\":1,".repeat(20_000));
        let document = Document::parse(body.as_bytes()).unwrap();
        document.root().note_repeated_name(|name| name == "z");
        assert!(document.ambiguous_name().is_none());
        document.root().note_repeated_name(|name| name == "y");
        assert_eq!(document.ambiguous_name().as_deref(), Some("y"));
    }

    #[test]
    fn reads_members_elements_and_escapes() {
        let body = br#" {"a" : [1, {"b":"x\u00e9\n"}, []], "n": null, "\u0061b": -0.10E+2} "#;
        let document = Document::parse(body).unwrap();
        let root = document.root();
        assert_eq!(root.len(), 3);
        let pointer = Pointer::parse("/a/1/b").unwrap();
        assert_eq!(root.at(&pointer).unwrap().as_str().unwrap(), "xé\n");
        assert_eq!(root.get("ab").unwrap().raw(), "-0.10E+2");
        assert!(root.get("n").unwrap().is_null());
        assert_eq!(root.get("a").unwrap().elements().count(), 3);
        assert!(root.get("zz").is_none());
        assert!(document.ambiguous_name().is_none());
    }

    #[test]
    fn only_a_name_that_is_looked_up_can_be_ambiguous() {
        let document = Document::parse(br#"{"x":1,"x":2,"type":"a","typ\u0065":"b"}"#).unwrap();
        assert!(document.root().get("other").is_none());
        assert!(document.ambiguous_name().is_none());
        assert!(document.root().get("type").is_some());
        assert_eq!(document.ambiguous_name().unwrap(), "type");
    }

    #[test]
    fn repeated_names_are_noticed_in_small_and_large_objects() {
        let object = |names: &[String]| {
            let members: Vec<_> = names
                .iter()
                .map(|name| format!("\"{name}\":{{\"n\":[1,{{\"n\":2}}]}}"))
                .collect();
            format!("{{{}}}", members.join(","))
        };
        for count in [1, 2, 31, 32, 33, 200] {
            let mut names: Vec<String> = (0..count).map(|number| format!("name{number}")).collect();
            let body = object(&names);
            assert!(
                !Document::parse(body.as_bytes())
                    .unwrap()
                    .root()
                    .repeats_names(),
                "{count}"
            );
            names.push("n\\u0061me0".to_owned());
            let body = object(&names);
            assert!(
                Document::parse(body.as_bytes())
                    .unwrap()
                    .root()
                    .repeats_names(),
                "{count} and an escaped one"
            );
        }
    }

    #[test]
    fn pairs_of_surrogates_are_one_character_and_lone_ones_are_refused() {
        let document = Document::parse(br#"["\ud83d\ude80 \u0000"]"#).unwrap();
        assert_eq!(
            document.root().elements().next().unwrap().as_str().unwrap(),
            "🚀 \0"
        );
        for lone in [
            r#""\ud83d""#,
            r#""\ude80""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\ud83d""#,
        ] {
            assert!(!is_json(lone.as_bytes()), "{lone}");
        }
    }

    #[test]
    fn depth_is_bounded_everywhere() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert!(is_json(&nested(MAX_DEPTH)));
        assert!(matches!(
            Document::parse(&nested(MAX_DEPTH + 1)),
            Err(Fault::Depth { .. })
        ));
        assert!(matches!(
            Document::parse(&b"[".repeat(200_000)),
            Err(Fault::Depth { .. })
        ));
    }

    #[test]
    fn encodings_other_than_utf_8_are_distinguished_from_bad_syntax() {
        for body in [
            &b"\xef\xbb\xbf{}"[..],
            b"\xff\xfe{\0}\0",
            b"{\"a\":\"\xc0\xaf\"}",
            b"\"\xed\xa0\x80\"",
        ] {
            assert!(
                matches!(Document::parse(body), Err(Fault::Encoding { .. })),
                "{body:?}"
            );
        }
        for body in [
            "",
            " ",
            "{}{}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "NaN",
            "1 // x",
            "01",
            "1.",
            "-",
            "1e",
            "\"\t\"",
            "tru",
        ] {
            assert!(
                matches!(Document::parse(body.as_bytes()), Err(Fault::Syntax { .. })),
                "{body:?}"
            );
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e300..1e300).prop_map(|number: f64| number.into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn same(node: Node<'_>, value: &serde_json::Value) -> bool {
        use serde_json::Value;
        match value {
            Value::Null => node.is_null(),
            Value::Bool(value) => node.raw() == value.to_string(),
            Value::Number(number) => node.raw().parse::<f64>().ok() == number.as_f64(),
            Value::String(text) => node.as_str().as_deref() == Some(text),
            Value::Array(values) => {
                node.len() == values.len()
                    && node
                        .elements()
                        .zip(values)
                        .all(|(node, value)| same(node, value))
            }
            Value::Object(map) => {
                node.len() == map.len()
                    && map
                        .iter()
                        .all(|(name, value)| node.get(name).is_some_and(|node| same(node, value)))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_it_wrote(value in json(), pretty in any::<bool>()) {
            let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let document = Document::parse(&body).unwrap();
            prop_assert!(same(document.root(), &value));
        }

        #[test]
        fn agrees_with_serde_json_on_what_is_json(body in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b','), Just(b':'), Just(b'\\'),
                        Just(b'u'), Just(b'0'), Just(b'1'), Just(b'-'), Just(b'.'), Just(b'e'), Just(b' '), Just(b'a'), any::<u8>()],
            0..24,
        )) {
            // serde_json refuses numbers that overflow a double; the grammar does not.
            let theirs = serde_json::from_slice::<serde_json::Value>(&body);
            let overflow = theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range"));
            prop_assert!(overflow || is_json(&body) == theirs.is_ok(), "{:?}", theirs);
        }
    }
}
