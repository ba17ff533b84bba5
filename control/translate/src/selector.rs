//! Label selectors, as `kubectl -l` reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What labels must be like. An empty one fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// `None`: the key's presence alone counts.
    values: Option<Vec<String>>,
    /// Turned round: the key absent, or its value none of those. As in Kubernetes a key that
    /// isn't there has none of the values.
    not: bool,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A requirement that none of the forms fits.
    #[error(
        "\"{0}\" is no requirement: expected key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)"
    )]
    Form(String),
    /// A key that no label has.
    #[error("\"{0}\" is no label key: expected NAME or DOMAIN/NAME")]
    Key(String),
    /// A value that no label has.
    #[error("\"{0}\" is no label value: expected at most 63 of a-z A-Z 0-9 - _ .")]
    Value(String),
}

impl Selector {
    /// Whether labels are as they must be.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|one| {
            let found = labels.get(&one.key).is_some_and(|value| match &one.values {
                None => true,
                Some(values) => values.contains(value),
            });
            found != one.not
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let parts = split(text);
        let parts = parts.iter().map(|part| part.trim());
        let requirements = if text.trim().is_empty() {
            Vec::new()
        } else {
            parts.map(requirement).collect::<Result<_, _>>()?
        };
        Ok(Self { text: text.trim().to_owned(), requirements })
    }
}

/// The parts between the commas that stand in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    if let Some(of) = text.strip_suffix(')') {
        let form = || SelectorError::Form(text.to_owned());
        let (left, list) = of.split_once('(').ok_or_else(form)?;
        let mut words = left.split_whitespace();
        let (key, word) = (words.next().ok_or_else(form)?, words.next().ok_or_else(form)?);
        let not = match word {
            "in" => false,
            "notin" => true,
            _ => return Err(form()),
        };
        if words.next().is_some() {
            return Err(form());
        }
        let values = list.split(',').map(|one| value(one.trim())).collect::<Result<_, _>>()?;
        return Ok(Requirement { key: label_key(key)?, values: Some(values), not });
    }
    let two = |(left, right): (&str, &str), not| {
        let values = Some(vec![value(right.trim())?]);
        Ok(Requirement { key: label_key(left.trim())?, values, not })
    };
    if let Some(both) = text.split_once("!=") {
        return two(both, true);
    }
    if let Some(both) = text.split_once("==").or_else(|| text.split_once('=')) {
        return two(both, false);
    }
    let (not, key) = text.strip_prefix('!').map_or((false, text), |key| (true, key.trim()));
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(SelectorError::Form(text.to_owned()));
    }
    Ok(Requirement { key: label_key(key)?, values: None, not })
}

fn label_key(text: &str) -> Result<String, SelectorError> {
    let bad = || SelectorError::Key(text.to_owned());
    let (domain, name) = text.split_once('/').unwrap_or(("", text));
    let domain_good = domain.len() <= 253
        && domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    let slash_good = !text.contains('/') || !domain.is_empty();
    if name.is_empty() || !slash_good || !domain_good || !is_word(name) {
        return Err(bad());
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, SelectorError> {
    if is_word(text) { Ok(text.to_owned()) } else { Err(SelectorError::Value(text.to_owned())) }
}

/// What a label's value may be: nothing, or a word that begins and ends with a letter or digit.
fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let outer = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(inner)
        && outer(text.chars().next())
        && outer(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn selectors_choose_as_kubectl_does() {
        let cases = [
            ("", "", true),
            ("", "a=1", true),
            ("a", "a=", true),
            ("a", "b=1", false),
            ("!a", "b=1", true),
            ("!a", "a=1", false),
            ("a=1", "a=1", true),
            ("a==1", "a=1 b=2", true),
            ("a = 1 , b = 2", "a=1 b=2", true),
            ("a=1,b=2", "a=1 b=3", false),
            ("a!=1", "a=2", true),
            ("a!=1", "a=1", false),
            ("a!=1", "b=1", true),
            ("a in (1, 2)", "a=2", true),
            ("a in (1,2)", "a=3", false),
            ("a in (1,2)", "", false),
            ("a notin (1,2)", "a=3", true),
            ("a notin (1,2)", "", true),
            ("a notin (1,2)", "a=1", false),
            ("env in (prod,test),!old,team!=red", "env=prod team=blue", true),
            ("env in (prod,test),!old,team!=red", "env=prod old=yes", false),
            ("kubernetes.io/metadata.name=web", "kubernetes.io/metadata.name=web", true),
            ("a=", "a=", true),
        ];
        for (text, given, fits) in cases {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&labels(given)), fits, "{text:?} of {given:?}");
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let form = ["a,", ",", "a b", "a within (1)", "a in 1)", "(a)", "a in b (1)", "!"];
        for text in form {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Form(_))), "{text}");
        }
        for text in ["/a=1", "-a", "a/b/c=1", "=1", "a$"] {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Key(_))), "{text}");
        }
        for text in ["a=-", "a in (b c)", "a=b=c"] {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Value(_))), "{text}");
        }
    }
}
