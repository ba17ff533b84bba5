//! A document as a tree whose every node knows its line.
//!
//! The types of scalars are inferred as `kubectl` does, so that a number where a string belongs
//! is refused here as the API server refuses it.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Nodes of one document, at about 100 bytes each: a `List` of 10,000 Services has 600,000, and one
/// of 100,000 endpoints 1,500,000.
const NODES_MAX: usize = 2_000_000;
/// Levels of one document; objects of Kubernetes have about 20.
const DEPTH_MAX: usize = 64;
/// Events that aliases may repeat in one document; what a "billion laughs" would live on.
pub(super) const ALIAS_EVENTS_MAX: usize = 20_000;

/// A value and the line on which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1, counted from the start of the text that was parsed; 0 where unknown.
    pub(super) line: u32,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Box<str>, Node)>),
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// From 1, counted from the start of the text; 0 where unknown.
    pub(super) line: u32,
    pub(super) message: String,
}

/// Parses a text, which is one document unless a line `...` ends one within it. Null ones are left
/// out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Unreadable> {
    let mut aliases = serde_saphyr::alias_limits! {};
    aliases.max_total_replayed_events = ALIAS_EVENTS_MAX;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 2,
            max_depth: DEPTH_MAX,
            max_aliases: ALIAS_EVENTS_MAX,
        },
        alias_limits: aliases,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    // The reader of a single document would take what follows it in silence.
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|error| {
        let line = error.location().map_or(0, |at| u32::try_from(at.line()).unwrap_or(0));
        Unreadable { line, message: plain(&error.without_snippet().to_string()) }
    })
}

/// A message of the parser in one line of bounded length, without its lines and columns, which
/// count from the start of the document, and without its advice to programmers.
fn plain(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.rsplit_once(" at line ").map_or(line, |(what, _)| what);
    let line = line.split(", set DuplicateKeyPolicy").next().unwrap_or(line);
    line.chars().take(300).collect()
}

impl Node {
    /// The member of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(members) = &self.value else { return None };
        members.iter().find(|(name, _)| **name == *key).map(|(_, node)| node)
    }

    /// The member of a map, where that is a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(nodes) => Some(nodes),
            _ => None,
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Null, or a list or map without elements.
    pub(super) const fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::List(nodes) => nodes.is_empty(),
            Value::Map(members) => members.is_empty(),
            _ => false,
        }
    }

    /// How many nodes there are, this one included.
    pub(super) fn count(&self) -> usize {
        match &self.value {
            Value::List(nodes) => nodes.iter().map(Self::count).sum::<usize>() + 1,
            Value::Map(members) => members.iter().map(|(_, node)| node.count()).sum::<usize>() + 1,
            _ => 1,
        }
    }

    /// The line of what `path` leads to, or of the last step that is there. Steps are separated
    /// by dots; a number is a place in a list.
    pub(super) fn line_of(&self, path: &str) -> u32 {
        let mut at = self;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            let next = match (&at.value, step.parse::<usize>()) {
                (Value::List(nodes), Ok(place)) => nodes.get(place),
                _ => at.get(step),
            };
            match next {
                Some(node) => at = node,
                None => break,
            }
        }
        at.line
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(from)?;
        let line = u32::try_from(spanned.referenced.line()).unwrap_or(0);
        Ok(Self { line, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Signed))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Err(E::custom(format_args!("the number {value} is too large")))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Err(E::custom(format_args!("the number {value} is too large")))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value.into_boxed_str()))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary data has no place in a manifest"))
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            members.push((key.into_boxed_str(), map.next_value()?));
        }
        Ok(Value::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_the_types_that_kubectl_gives_them() {
        let text = "a: 0777\nb: 0o17\nc: 0x10\nd: on\ne: 1_000\nf: y\ng: 2026-01-01\nh: ~\ni:\nj: No\nk: '1'\nl: 1.5\nm: 10.0.0.1\nn: 99999999999999999999\n";
        let text_of = |text: &str| Value::Text(text.into());
        let expected = [
            Value::Signed(0o777),
            Value::Signed(15),
            Value::Signed(16),
            Value::Bool(true),
            Value::Signed(1_000),
            Value::Bool(true),
            text_of("2026-01-01"),
            Value::Null,
            Value::Null,
            Value::Bool(false),
            text_of("1"),
            Value::Float(1.5),
            text_of("10.0.0.1"),
            Value::Float(1e20),
        ];
        let nodes = parse(text).unwrap();
        let Value::Map(members) = &nodes[0].value else { panic!() };
        for (line, ((key, node), expected)) in (1..).zip(members.iter().zip(expected)) {
            assert_eq!((&node.value, node.line), (&expected, line), "{key}");
        }
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        let cases: &[(&str, Result<usize, u32>)] = &[
            ("{\"a\": 1}\n{\"b\": 2}", Err(2)),
            ("{a: 1}\nb: 2", Err(2)),
            ("{a: 1} x", Err(1)),
            ("[1]\n- 2", Err(2)),
            ("[1][2]", Err(1)),
            ("--- {a: 1}\nb: 2", Err(2)),
            ("{a: 1}\n# c\n...\n", Ok(1)),
            ("a: 1\n...\n---\nb: 2", Ok(2)),
            ("a: 1\na: 2", Err(2)),
        ];
        for (text, expected) in cases {
            let found = parse(text).map(|nodes| nodes.len()).map_err(|error| error.line);
            assert_eq!(&found, expected, "{text:?}");
        }
    }

    #[test]
    fn messages_are_plain() {
        let cases = [("a: [", "unclosed bracket '['"), ("a: 1\na: 2", "duplicate mapping key: a")];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().message, expected);
        }
    }
}
