//! Reading typed values out of a tree. Every refusal names the place, the key, what was found and
//! what is allowed, and reading goes on.

use super::keys;
use super::problem::{Log, Place, did_you_mean};
use super::tree::{Node, Table, Value};
use super::types::duration;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A table that is being read.
pub(crate) struct Section<'a> {
    name: &'static str,
    table: Option<&'a Table>,
    place: Place,
}

/// Reads the table `name`, where there is one, and refuses keys that it doesn't have.
pub(crate) fn section<'a>(root: &'a Table, name: &'static str, log: &mut Log) -> Section<'a> {
    let Some(node) = root.get(name) else {
        return Section { name, table: None, place: Place::Nowhere };
    };
    let Value::Table(table) = &node.value else {
        let what = format!("expected a table, [{name}], found {}", node.value.described());
        log.problem(node.place.clone(), name, what);
        return Section { name, table: None, place: node.place.clone() };
    };
    known_keys(name, table, log);
    Section { name, table: Some(table), place: node.place.clone() }
}

/// Reads all the tables `[[name]]`.
pub(crate) fn sections<'a>(root: &'a Table, name: &'static str, log: &mut Log) -> Vec<Section<'a>> {
    let Some(node) = root.get(name) else { return Vec::new() };
    let wrong = |found: &Node, log: &mut Log| {
        let what = format!("expected tables, [[{name}]], found {}", found.value.described());
        log.problem(found.place.clone(), name, what);
    };
    let Value::List(list) = &node.value else {
        wrong(node, log);
        return Vec::new();
    };
    let mut sections = Vec::new();
    for item in list {
        match &item.value {
            Value::Table(table) => {
                known_keys(name, table, log);
                sections.push(Section { name, table: Some(table), place: item.place.clone() });
            }
            _ => wrong(item, log),
        }
    }
    sections
}

fn known_keys(name: &str, table: &Table, log: &mut Log) {
    for (key, node) in table {
        let known = || keys::of_table(name).map(|key| key.name);
        if known().all(|known| known != key) {
            let what = unknown("key", key, known(), &format!("[{name}] has"));
            log.problem(node.place.clone(), &format!("{name}.{key}"), what);
        }
    }
}

/// The message about a key or table that there isn't.
pub(crate) fn unknown<'a>(
    kind: &str,
    found: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    whose: &str,
) -> String {
    let near = did_you_mean(found, known.clone());
    let near = near.map_or_else(String::new, |near| format!("did you mean \"{near}\"? "));
    let all: Vec<&str> = known.collect();
    format!("unknown {kind}; {near}{whose} {}", all.join(", "))
}

impl Section<'_> {
    /// Where the key was set; else where the table was.
    pub(crate) fn place(&self, key: &str) -> Place {
        self.node(key).map_or_else(|| self.place.clone(), |node| node.place.clone())
    }

    /// The key with its table, for messages.
    pub(crate) fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn node(&self, key: &str) -> Option<&Node> {
        self.table?.get(key)
    }

    /// The value of a key that may be missing; `None` also where it is wrong.
    pub(crate) fn optional<T>(
        &self,
        key: &str,
        log: &mut Log,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let refused = |what| log.problem(node.place.clone(), &self.full(key), what);
        read(node).map_err(refused).ok()
    }

    /// The value of a key, `default` where it is missing, `None` where it is wrong.
    pub(crate) fn or<T>(
        &self,
        key: &str,
        default: T,
        log: &mut Log,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        if self.has(key) { self.optional(key, log, read) } else { Some(default) }
    }

    /// Whether the key was set.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T>(
        &self,
        key: &str,
        log: &mut Log,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<T> {
        if self.node(key).is_none() {
            let allowed = keys::of_table(self.name).find(|known| known.name == key);
            let allowed = allowed.map_or("a value", |known| known.allowed);
            let what = format!("is missing; expected {allowed}");
            log.problem(self.place.clone(), &self.full(key), what);
        }
        self.optional(key, log, read)
    }

    /// The values of a list, each read alone; empty where the key is missing. From the
    /// environment a list comes with commas.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        log: &mut Log,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let split;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Text(text) if node.place.is_text() => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let item = |part: &str| Node {
                    place: node.place.clone(),
                    value: Value::Text(part.to_owned()),
                };
                split = parts.map(item).collect::<Vec<_>>();
                &split
            }
            other => {
                let what = format!("expected a list, found {}", other.described());
                log.problem(node.place.clone(), &self.full(key), what);
                return Vec::new();
            }
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match read(item) {
                Ok(value) => values.push(value),
                Err(what) => log.problem(item.place.clone(), &self.full(key), what),
            }
        }
        values
    }

    /// A list that must be there and hold something.
    pub(crate) fn full_list<T>(
        &self,
        key: &str,
        log: &mut Log,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Vec<T> {
        let before = log.problems.len();
        let values = self.list(key, log, read);
        if values.is_empty() && log.problems.len() == before {
            let allowed = keys::of_table(self.name).find(|known| known.name == key);
            let allowed = allowed.map_or("a list", |known| known.allowed);
            let what = match self.node(key) {
                None => format!("is missing; expected a {allowed}"),
                Some(_) => format!("is empty; expected a {allowed}"),
            };
            log.problem(self.place(key), &self.full(key), what);
        }
        values
    }
}

/// A string.
pub(crate) fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) => Ok(text),
        other => Err(format!("expected a string, found {}", other.described())),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, String> {
    match &node.value {
        Value::Boolean(value) => Ok(*value),
        Value::Text(text) if node.place.is_text() && text == "true" => Ok(true),
        Value::Text(text) if node.place.is_text() && text == "false" => Ok(false),
        other => Err(format!("expected true or false, found {}", other.described())),
    }
}

/// A number of a range, as whatever type holds that range.
pub(crate) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let allowed = format!("allowed are {} to {}", range.start(), range.end());
        let number = match &node.value {
            Value::Integer(Some(number)) => Some(i128::from(*number)),
            Value::Text(text) if node.place.is_text() => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(format!("expected a number, found {}; {allowed}", node.value.described()));
        };
        let within = u64::try_from(number).ok().filter(|number| range.contains(number));
        let value = within.and_then(|number| T::try_from(number).ok());
        value.ok_or_else(|| format!("{number} is out of range; {allowed}"))
    }
}

/// A string that is read further.
pub(crate) fn parsed<T, E: Display>(
    read: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let text = text(node)?;
        read(text).map_err(|error| format!("\"{text}\": {error}"))
    }
}

/// A string of a type that reads itself.
pub(crate) fn from_str<T: FromStr<Err: Display>>(node: &Node) -> Result<T, String> {
    parsed(str::parse::<T>)(node)
}

/// One of a few words.
pub(crate) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let text = text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let near = did_you_mean(text, words.iter().map(|(word, _)| *word));
        let near = near.map_or_else(String::new, |near| format!("did you mean \"{near}\"? "));
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(format!("\"{text}\" is unknown; {near}allowed are {}", all.join(", ")))
    }
}

/// A name of at most `length` plain characters, as interfaces and pools have.
pub(crate) fn name(length: usize) -> impl Fn(&Node) -> Result<String, String> {
    move |node| {
        let text = text(node)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = (1..=length).contains(&text.len()) && text.chars().all(plain);
        if good && text != "." && text != ".." {
            return Ok(text.to_owned());
        }
        Err(format!("\"{text}\": expected 1 to {length} of a-z A-Z 0-9 - _ ."))
    }
}

/// An absolute path.
pub(crate) fn path(node: &Node) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(node)?);
    if path.is_absolute() && !path.as_os_str().is_empty() {
        return Ok(path);
    }
    Err(format!("\"{}\": expected an absolute path", path.display()))
}

/// The folder of a table, or the usual one.
pub(super) fn directory(
    root: &Table,
    table: &'static str,
    default: &str,
    log: &mut Log,
) -> Option<PathBuf> {
    section(root, table, log).or("dir", PathBuf::from(default), log, path)
}

/// A duration within a range: a string with units, or whole seconds.
pub(super) fn within(least: &str, most: &str) -> impl Fn(&Node) -> Result<Duration, String> {
    move |node| {
        let found = match &node.value {
            Value::Integer(Some(seconds)) => seconds.to_string(),
            _ => text(node)?.to_owned(),
        };
        let value = duration(&found).map_err(|error| format!("\"{found}\": {error}"))?;
        if (duration(least)?..=duration(most)?).contains(&value) {
            return Ok(value);
        }
        Err(format!("\"{found}\" is out of range; allowed are {least} to {most}"))
    }
}
