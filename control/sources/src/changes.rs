//! What every source tells: objects that are new, differ or are gone.

use model::answers::Event;
use std::time::Instant;
use translate::{Object, ObjectKey};

/// One object's change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new or differs.
    Apply(Object),
    /// It is gone.
    Delete(ObjectKey),
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Changes {
    /// What differs from what was told before; what is gone comes first.
    pub changes: Vec<Change>,
    /// What is wrong or worth a note since then. Said once while it lasts.
    pub diagnostics: Vec<Event>,
    /// When the change was seen, before it was read.
    pub detected: Instant,
    /// The first read: everything there is.
    pub full: bool,
}

impl Changes {
    pub(crate) const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.diagnostics.is_empty() && !self.full
    }
}
