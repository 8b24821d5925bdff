//! An encoder of `profile.proto`, the format of `go tool pprof`, Pyroscope and Parca: protocol buffers in a gzip file.
//!
//! Strings, functions, locations and mappings are told once and named by number. It must not know where a profile
//! comes from.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashMap;
use std::hash::Hash;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the values of a sample count, and in which unit: `("cpu", "nanoseconds")`.
pub type ValueType = (&'static str, &'static str);

/// Where code that was loaded from a file lies in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub limit: u64,
    /// Of `start`, in the file.
    pub offset: u64,
    pub file: String,
    /// As hex digits; names the exact build.
    pub build_id: String,
}

/// A function's name and the place that is meant in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub function: String,
    pub file: String,
    pub line: i64,
}

/// Says what a sample fell into; a key occurs once per sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    Text(&'static str, String),
    Number(&'static str, i64, &'static str),
}

/// Names a location in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocationId(u64);

/// Names a mapping in locations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MappingId(u64);

/// A profile that is being put together.
pub struct Profile {
    body: Message,
    strings: Strings,
    functions: Table<(i64, i64)>,
    locations: Table<(u64, u64, Vec<(u64, i64)>)>,
    mappings: u64,
    kinds: usize,
}

impl Profile {
    /// A profile whose samples have one value per kind; `default` is the kind that tools show first.
    pub fn new(kinds: &[ValueType], default: &str) -> Self {
        let mut profile = Self {
            body: Message::default(),
            strings: Strings::new(),
            functions: Table::default(),
            locations: Table::default(),
            mappings: 0,
            kinds: kinds.len(),
        };
        for kind in kinds {
            let kind = profile.value_type(*kind);
            profile.body.message(1, &kind);
        }
        let default = profile.strings.number(default);
        profile.body.int(14, default);
        profile
    }

    fn value_type(&mut self, (kind, unit): ValueType) -> Message {
        let mut message = Message::default();
        message.int(1, self.strings.number(kind));
        message.int(2, self.strings.number(unit));
        message
    }

    /// When the profile was begun, and over how long it was taken.
    pub fn taken(&mut self, began: SystemTime, duration: Duration) {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        self.body.int(9, began.duration_since(UNIX_EPOCH).map_or(0, nanos));
        self.body.int(10, nanos(duration));
    }

    /// One sample was to be taken per this much of `kind`.
    pub fn period(&mut self, kind: ValueType, period: i64) {
        let kind = self.value_type(kind);
        self.body.message(11, &kind);
        self.body.int(12, period);
    }

    /// A remark for people; `go tool pprof -comments` shows it.
    pub fn comment(&mut self, text: &str) {
        let text = self.strings.number(text);
        self.body.int(13, text);
    }

    /// `named`: the locations in it bring their functions along.
    pub fn mapping(&mut self, mapping: &Mapping, named: bool) -> MappingId {
        self.mappings += 1;
        let mut message = Message::default();
        message.uint(1, self.mappings);
        message.uint(2, mapping.start);
        message.uint(3, mapping.limit);
        message.uint(4, mapping.offset);
        message.int(5, self.strings.number(&mapping.file));
        message.int(6, self.strings.number(&mapping.build_id));
        for field in 7..=10 {
            message.uint(field, u64::from(named));
        }
        self.body.message(3, &message);
        MappingId(self.mappings)
    }

    /// An address, and what stands there: the innermost inlined function first; nothing when it has no name.
    pub fn address(&mut self, mapping: Option<MappingId>, address: u64, lines: &[Line]) -> LocationId {
        let lines = lines.iter().map(|line| (self.function(line), line.line)).collect();
        self.location(mapping.map_or(0, |mapping| mapping.0), address, lines)
    }

    /// A function without an address: a span, or a note.
    pub fn named(&mut self, function: &str, file: &str, line: i64) -> LocationId {
        let place = Line { function: function.to_owned(), file: file.to_owned(), line };
        let id = self.function(&place);
        self.location(0, 0, vec![(id, line)])
    }

    fn function(&mut self, line: &Line) -> u64 {
        let key = (self.strings.number(&line.function), self.strings.number(&line.file));
        let (id, new) = self.functions.number(key);
        if new {
            let mut message = Message::default();
            message.uint(1, id);
            message.int(2, key.0);
            message.int(3, key.0);
            message.int(4, key.1);
            self.body.message(5, &message);
        }
        id
    }

    fn location(&mut self, mapping: u64, address: u64, lines: Vec<(u64, i64)>) -> LocationId {
        let key = (mapping, address, lines);
        let (id, new) = self.locations.number(key.clone());
        if new {
            let mut message = Message::default();
            message.uint(1, id);
            message.uint(2, key.0);
            message.uint(3, key.1);
            for (function, number) in key.2 {
                let mut line = Message::default();
                line.uint(1, function);
                line.int(2, number);
                message.message(4, &line);
            }
            self.body.message(4, &message);
        }
        LocationId(id)
    }

    /// A stack, its leaf first, with one value per kind. Tools add up equal ones.
    pub fn sample(&mut self, stack: &[LocationId], values: &[i64], labels: &[Label]) {
        debug_assert_eq!(values.len(), self.kinds, "one value per kind");
        let mut message = Message::default();
        message.packed(1, stack.iter().map(|location| location.0));
        message.packed(2, values.iter().map(|value| value.cast_unsigned()));
        for label in labels {
            let mut inner = Message::default();
            match label {
                Label::Text(key, text) => {
                    inner.int(1, self.strings.number(key));
                    inner.int(2, self.strings.number(text));
                }
                Label::Number(key, number, unit) => {
                    inner.int(1, self.strings.number(key));
                    inner.int(3, *number);
                    inner.int(4, self.strings.number(unit));
                }
            }
            message.message(3, &inner);
        }
        self.body.message(2, &message);
    }

    /// The message, not compressed.
    fn message(self) -> Vec<u8> {
        let mut body = self.body;
        for text in &self.strings.texts {
            body.bytes(6, text.as_bytes());
        }
        body.0
    }

    /// The gzip file that tools read.
    pub fn encode(self) -> Vec<u8> {
        let message = self.message();
        let mut file = GzEncoder::new(Vec::with_capacity(message.len() / 3), Compression::fast());
        // Writing to memory cannot fail; an empty answer would be refused by the tool that asked.
        let _ = file.write_all(&message);
        file.finish().unwrap_or_default()
    }
}

/// Numbers things from 1 in the order in which they first come.
struct Table<K>(HashMap<K, u64>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Table<K> {
    /// The number, and whether it is a new one.
    fn number(&mut self, key: K) -> (u64, bool) {
        let next = self.0.len() as u64 + 1;
        let id = *self.0.entry(key).or_insert(next);
        (id, id == next)
    }
}

/// The string table; its first is empty.
struct Strings {
    numbers: HashMap<String, i64>,
    texts: Vec<String>,
}

impl Strings {
    fn new() -> Self {
        Self { numbers: HashMap::from([(String::new(), 0)]), texts: vec![String::new()] }
    }

    fn number(&mut self, text: &str) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as i64;
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }
}

/// A protocol buffers message. Fields of zero are left out, as proto3 does.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn uint(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn int(&mut self, field: u64, value: i64) {
        self.uint(field, value.cast_unsigned());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut inner = Self::default();
        values.for_each(|value| inner.varint(value));
        self.message(field, &inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes by hand, after the encoding chapter of the protocol buffers documentation.
    #[test]
    fn bytes_are_those_of_the_wire_format() {
        let mut message = Message::default();
        message.uint(1, 150);
        message.bytes(2, b"testing");
        message.packed(4, [3, 270, 86942].into_iter());
        message.int(3, -1);
        let mut expected = vec![0x08, 0x96, 0x01, 0x12, 0x07];
        expected.extend_from_slice(b"testing");
        expected.extend_from_slice(&[0x22, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05, 0x18]);
        expected.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(message.0, expected);
    }

    #[test]
    fn what_is_named_twice_is_told_once() {
        let mut profile = Profile::new(&[("calls", "count")], "calls");
        let first = profile.named("lookup", "src/a.rs", 3);
        assert_eq!(profile.named("lookup", "src/a.rs", 3), first);
        assert_ne!(profile.named("lookup", "src/a.rs", 4), first);
        profile.sample(&[first], &[1], &[Label::Text("route", "/videos".to_owned())]);
        let message = profile.message();
        let occurs = |text: &str| message.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
        assert_eq!((occurs("lookup"), occurs("src/a.rs"), occurs("/videos")), (1, 1, 1));
    }

    #[test]
    fn the_file_is_gzip() {
        assert_eq!(Profile::new(&[("calls", "count")], "calls").encode()[..3], [0x1f, 0x8b, 8]);
    }
}
