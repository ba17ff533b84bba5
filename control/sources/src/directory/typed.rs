//! From a tree to a typed object, with the path and line of what doesn't fit.

use super::tree::{Node, Value};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Why a tree isn't an object of the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// Line of the value that doesn't fit, as the tree counts.
    pub(super) line: u32,
    /// Its path, as `spec.ports[0].port`.
    pub(super) path: String,
    message: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string().chars().take(300).collect();
        Self { line: 0, path: String::new(), message }
    }
}

impl Mismatch {
    fn within(mut self, step: &str, line: u32) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

/// Reads the tree as a `T`.
pub(super) fn typed<T: DeserializeOwned>(node: &Node) -> Result<T, Mismatch> {
    T::deserialize(node).map_err(|mut error| {
        if error.line == 0 {
            error.line = node.line;
        }
        error
    })
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(nodes) => visitor.visit_seq(Elements { nodes: nodes.iter(), place: 0 }),
            Value::Map(members) => {
                visitor.visit_map(Members { members: members.iter(), value: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Elements<'de> {
    nodes: std::slice::Iter<'de, Node>,
    place: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mismatch> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let place = self.place;
        self.place += 1;
        let read = seed.deserialize(node);
        read.map(Some).map_err(|error| error.within(&format!("[{place}]"), node.line))
    }
}

struct Members<'de> {
    members: std::slice::Iter<'de, (Box<str>, Node)>,
    value: Option<&'de (Box<str>, Node)>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        self.value = self.members.next();
        let Some((key, node)) = self.value else { return Ok(None) };
        let name: &'de str = key;
        let read = seed.deserialize(name.into_deserializer());
        read.map(Some).map_err(|error: Mismatch| error.within(key, node.line))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mismatch> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(node).map_err(|error| error.within(key, node.line))
    }
}
