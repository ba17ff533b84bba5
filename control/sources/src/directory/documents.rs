//! A file's documents, found before any of them is parsed: one that can't be parsed harms no
//! other.

use super::unit::UnitId;
use serde::de::IgnoredAny;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Line of the file on which `text` begins, from 1.
    pub(super) line: u32,
    pub(super) text: &'a [u8],
}

/// Splits a file at lines that begin with `---`, and JSON objects that follow each other, as
/// `kubectl` does. Documents without content are left out. The separator stays with the document
/// that it opens, since content may follow it on its line.
pub(super) fn split(bytes: &[u8]) -> impl Iterator<Item = Document<'_>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Split { rest: bytes, line: 1, left: 0 }.filter(|document| has_content(document.text))
}

struct Split<'a> {
    rest: &'a [u8],
    line: u32,
    /// Bytes until the next separator, so that it is looked for once; 0 where that isn't known.
    left: usize,
}

impl<'a> Iterator for Split<'a> {
    type Item = Document<'a>;

    fn next(&mut self) -> Option<Document<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        if self.left == 0 {
            self.left = until_separator(self.rest);
        }
        let all = self.rest.get(..self.left)?;
        let end = json_object(all).unwrap_or(self.left);
        let (text, rest) = self.rest.split_at_checked(end)?;
        let document = Document { line: self.line, text };
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        self.left = self.left.saturating_sub(end);
        Some(document)
    }
}

/// Bytes before the first separator that doesn't begin the text.
fn until_separator(text: &[u8]) -> usize {
    let mut end = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if end > 0 && is_separator(line) {
            break;
        }
        end += line.len();
    }
    end
}

/// The length of the JSON object with which the text begins, where it does.
fn json_object(text: &[u8]) -> Option<usize> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

fn is_separator(line: &[u8]) -> bool {
    let after = line.strip_prefix(b"---");
    after.is_some_and(|after| after.first().is_none_or(u8::is_ascii_whitespace))
}

/// Whether there is more than blank lines, comments, separators and directives.
fn has_content(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| {
        let line = line.trim_ascii();
        let line = if is_separator(line) { line.get(3..).unwrap_or_default() } else { line };
        let line = line.trim_ascii_start();
        let silent = matches!(line.first(), None | Some(b'#' | b'%')) || line == b"...";
        !silent
    })
}

/// The object that a document which can't be parsed is about, as far as its lines tell.
pub(super) fn guess(text: &str) -> Option<UnitId> {
    let mut guess = Guess::default();
    for line in text.lines() {
        guess.line(line);
    }
    Some(UnitId::new(&guess.kind?, guess.namespace.as_deref(), &guess.name?))
}

#[derive(Default)]
struct Guess {
    /// Indentation of the outermost members.
    top: Option<usize>,
    /// Within `metadata`, and the indentation of its members once one was seen.
    metadata: Option<Option<usize>>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Guess {
    fn line(&mut self, line: &str) {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') {
            return;
        }
        let Some((key, value)) = trimmed.split_once(':') else { return };
        let depth = line.len() - trimmed.len();
        let top = *self.top.get_or_insert(depth);
        if depth <= top {
            self.outermost(bare(key), value);
        } else if let Some(members) = &mut self.metadata
            && *members.get_or_insert(depth) == depth
        {
            self.member(bare(key), bare(value));
        }
    }

    fn outermost(&mut self, key: &str, value: &str) {
        self.metadata = (key == "metadata").then_some(None);
        if key == "kind" {
            keep(&mut self.kind, bare(value));
        }
        if key == "metadata" {
            // `metadata: {name: web, namespace: shop}`
            for part in value.split(['{', ',', '}']) {
                if let Some((key, value)) = part.split_once(':') {
                    self.member(bare(key), bare(value));
                }
            }
        }
    }

    fn member(&mut self, key: &str, value: &str) {
        match key {
            "name" => keep(&mut self.name, value),
            "namespace" => keep(&mut self.namespace, value),
            _ => {}
        }
    }
}

fn keep(slot: &mut Option<String>, value: &str) {
    if slot.is_none() && !value.is_empty() && value.len() <= 253 {
        *slot = Some(value.to_owned());
    }
}

/// A key or value without what YAML and JSON put around it.
fn bare(text: &str) -> &str {
    let text = text.split(" #").next().unwrap_or_default();
    text.trim_matches(|letter: char| letter.is_whitespace() || "\"',{}".contains(letter))
}
