//! One file's things, with what is kept of its previous version.

use super::Options;
use super::documents::split;
use super::manifest::{self, Found, INVALID, Note, Unit, nobody};
use super::unit::UnitId;
use model::answers::Severity;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use translate::Place;

/// Documents of one file.
pub(super) const DOCUMENTS_MAX: usize = 65_536;
/// Nodes that aliases may make in one file: those of 50 documents that do their worst.
const REPEATED_MAX: usize = 1_000_000;
/// Notes of one file that are told one by one; the rest is counted.
const NOTES_MAX: usize = 64;

/// What a file says, as far as it can be read, and what is kept where it can't.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) units: BTreeMap<UnitId, Arc<Unit>>,
    pub(super) notes: Vec<Note>,
}

impl Content {
    /// Reads a file. Things that can't be read stay as they were in `before`.
    pub(super) fn read(file: &str, bytes: &[u8], before: &Self, options: &Options) -> Self {
        let mut content = Self::default();
        let mut told = Told::default();
        let mut broken = Vec::new();
        let mut repeated = 0;
        for (count, document) in split(bytes).enumerate() {
            let limit = match (count >= DOCUMENTS_MAX, repeated > REPEATED_MAX) {
                (true, _) => Some(format!("more than {DOCUMENTS_MAX} documents")),
                (_, true) => Some("aliases repeat too much".to_owned()),
                _ => None,
            };
            if let Some(limit) = limit {
                let message = format!("{limit}: the rest of the file is not read");
                let note = Note { message, place: Place::new(file, document.line), ..invalid() };
                broken.push((None, note));
                break;
            }
            for found in manifest::read(file, document, options, &mut repeated) {
                match found {
                    Found::Note(note) => told.add(&mut content.notes, note),
                    Found::Broken(id, note) => broken.push((id, note)),
                    Found::Unit(unit) => content.enter(unit, &mut told),
                }
            }
        }
        for (id, note) in broken {
            content.keep(id.as_ref(), note, before, &mut told);
        }
        told.end(file, &mut content.notes);
        content
    }

    /// A file that can't be read at all: everything stays as it was.
    pub(super) fn unreadable(file: &str, why: &str, before: &Self) -> Self {
        let kept = match before.units.len() {
            0 => String::new(),
            count => format!("; what was read of it before stays in force ({count} objects)"),
        };
        let note =
            Note { message: format!("{why}{kept}"), place: Place::new(file, 0), ..invalid() };
        Self { units: before.units.clone(), notes: vec![note] }
    }

    fn enter(&mut self, unit: Unit, told: &mut Told) {
        match self.units.entry(unit.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(Arc::new(unit));
            }
            Entry::Occupied(first) => {
                let note = twice(&unit, first.get());
                told.add(&mut self.notes, note);
            }
        }
    }

    /// Keeps what `before` had of a thing that can't be read: of the very thing where its name is
    /// known, else of everything that is not there any more, since it may be any of those.
    fn keep(&mut self, id: Option<&UnitId>, mut note: Note, before: &Self, told: &mut Told) {
        let stays = match id {
            Some(id) => match before.units.get(id) {
                Some(unit) if !self.units.contains_key(id) => {
                    self.units.insert(id.clone(), Arc::clone(unit));
                    "; its previous version stays in force"
                }
                _ if self.units.contains_key(id) => "",
                _ => "; it is left out",
            },
            None => {
                for (id, unit) in &before.units {
                    self.units.entry(id.clone()).or_insert_with(|| Arc::clone(unit));
                }
                "; nothing that was in this file before is taken out until that is mended"
            }
        };
        note.message.push_str(stays);
        told.add(&mut self.notes, note);
    }
}

/// What is said of the second of two of one name.
pub(super) fn twice(second: &Unit, first: &Unit) -> Note {
    Note {
        about: second.id.clone(),
        place: second.place.clone(),
        message: format!(
            "{} {} is already given in {}, which counts; take one of them out",
            second.id.kind, second.id.name, first.place
        ),
        ..invalid()
    }
}

fn invalid() -> Note {
    Note {
        severity: Severity::Warning,
        reason: INVALID,
        about: nobody(),
        place: Place::default(),
        message: String::new(),
    }
}

/// Counts the notes of a file that are not told.
#[derive(Default)]
struct Told {
    warnings: usize,
    others: usize,
}

impl Told {
    fn add(&mut self, notes: &mut Vec<Note>, note: Note) {
        let count = match note.severity {
            Severity::Warning => &mut self.warnings,
            Severity::Normal => &mut self.others,
        };
        *count += 1;
        if *count <= NOTES_MAX {
            notes.push(note);
        }
    }

    fn end(self, file: &str, notes: &mut Vec<Note>) {
        let more = self.warnings.max(NOTES_MAX) + self.others.max(NOTES_MAX) - 2 * NOTES_MAX;
        if more > 0 {
            let message = format!("{more} more messages about this file");
            notes.push(Note { message, place: Place::new(file, 0), ..invalid() });
        }
    }
}
