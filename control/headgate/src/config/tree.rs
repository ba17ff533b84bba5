//! Files as trees that remember where each key was set, and how trees are merged.
//!
//! A tree, and no derived `Deserialize`: that stops at the first error, knows one file alone and
//! can't say which key was set twice. Unknown keys are refused all the same.

use super::problem::{Log, Place};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and the place of its key, or its own in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a key can be set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    /// `None` beyond 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// A fraction or a date, which no key takes.
    Other(&'static str),
}

/// Keys and what they are set to.
pub(crate) type Table = BTreeMap<String, Node>;

impl Value {
    /// For messages: `the number 12`.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Text(text) => format!("the string \"{text}\""),
            Self::Integer(Some(number)) => format!("the number {number}"),
            Self::Integer(None) => "a number beyond 64 bits".to_owned(),
            Self::Boolean(value) => format!("{value}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

/// Finds the line of a byte.
struct Lines<'a> {
    path: &'a Arc<Path>,
    ends: Vec<usize>,
}

impl Lines<'_> {
    fn place(&self, byte: usize) -> Place {
        let line = 1 + self.ends.partition_point(|end| *end < byte);
        Place::File { path: Arc::clone(self.path), line }
    }
}

/// Reads the text of one file. What can't be read is noted, and the rest is read on.
pub(crate) fn parse(path: &Arc<Path>, text: &str, log: &mut Log) -> Table {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
    let lines = Lines { path, ends: ends.collect() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        log.problem(place, "", error.message().trim_end());
    }
    table_of(table.into_inner(), &lines)
}

fn table_of(table: DeTable<'_>, lines: &Lines<'_>) -> Table {
    let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
        let place = lines.place(key.span().start);
        let value = value_of(value.into_inner(), lines);
        (key.into_inner().into_owned(), Node { place, value })
    };
    table.into_iter().map(entry).collect()
}

fn value_of(value: DeValue<'_>, lines: &Lines<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(table) => Value::Table(table_of(table, lines)),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|item| Node {
                    place: lines.place(item.span().start),
                    value: value_of(item.into_inner(), lines),
                })
                .collect(),
        ),
    }
}

/// Merges `from` into `into`: arrays of tables concatenate, tables merge key by key, and a key
/// that is set twice is a problem that names both places.
pub(crate) fn merge(into: &mut Table, from: Table, under: &str, log: &mut Log) {
    for (key, node) in from {
        let full = if under.is_empty() { key.clone() } else { format!("{under}.{key}") };
        let Some(there) = into.get_mut(&key) else {
            into.insert(key, node);
            continue;
        };
        match (&mut there.value, node.value) {
            (Value::Table(there), Value::Table(table)) => merge(there, table, &full, log),
            (Value::List(there), Value::List(list))
                if there.iter().chain(&list).all(|item| matches!(item.value, Value::Table(_))) =>
            {
                there.extend(list);
            }
            _ => {
                let what = format!("is set here and at {}; remove one of the two", there.place);
                log.problem(node.place, &full, what);
            }
        }
    }
}

/// Sets a key from a stronger source, whatever the files say.
pub(crate) fn set(root: &mut Table, table: &str, key: &str, node: Node) {
    let place = node.place.clone();
    let entry = root
        .entry(table.to_owned())
        .or_insert_with(|| Node { place, value: Value::Table(Table::new()) });
    if let Value::Table(table) = &mut entry.value {
        table.insert(key.to_owned(), node);
    }
}
