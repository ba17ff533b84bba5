//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a key was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: Arc<Path>,
        /// Line, from 1.
        line: usize,
    },
    /// In the environment.
    Environment(String),
    /// On the command line.
    Flag(String),
    /// Nowhere: a key that is missing.
    Nowhere,
}

impl Place {
    /// True for what a person typed as bare text: numbers and lists come as text there.
    pub(crate) const fn is_text(&self) -> bool {
        matches!(self, Self::Environment(_) | Self::Flag(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key, as `eal.memory_mib`; empty where no key is meant.
    pub key: String,
    /// What is wrong, what is allowed, and what may have been meant.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Everything that is wrong with a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Collects problems and warnings while reading goes on.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Log {
    pub(crate) fn problem(&mut self, place: Place, key: &str, what: impl Into<String>) {
        self.problems.push(Problem { place, key: key.to_owned(), what: what.into() });
    }
    pub(crate) fn warning(&mut self, place: Place, key: &str, what: impl Into<String>) {
        self.warnings.push(Problem { place, key: key.to_owned(), what: what.into() });
    }
}

/// `; did you mean "x"?` where one of `known` is near.
pub(crate) fn did_you_mean<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = known.into_iter().map(|name| (strsim::damerau_levenshtein(found, name), name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    // Two slips in a short word make another word.
    (distance <= 1 + found.chars().count() / 4).then_some(name)
}
