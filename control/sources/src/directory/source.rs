//! The directory as a whole: what is known of its files, and what a read changes.

use super::claims::Claims;
use super::content::Content;
use super::manifest::{Note, nobody};
use super::scan::{self, Listed, ReadError, Stamp};
use super::watch::{GATHER_MAX, Watch};
use super::{Options, SourceError};
use crate::Changes;
use model::answers::{Event, Severity};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use translate::{Object, Place};

/// The directory can't be read now, or not wholly.
const UNREADABLE: &str = "DirectoryUnreadable";
/// The directory can be read again.
const READABLE: &str = "DirectoryRead";
/// A file with objects is not believed to be empty before it has been so for this long: between
/// truncating and writing there are microseconds, and this is a lot of them.
const EMPTY_SETTLES: Duration = Duration::from_millis(100);
/// In a directory that is there again no file is believed to be gone sooner.
const RETURN_SETTLES: Duration = Duration::from_millis(500);

/// Two changes of a file closer than this may have the same times: filesystems take them from a
/// clock that steps every 1 to 10 ms.
const TIMES_COARSE: Duration = Duration::from_millis(30);

/// One file as it was read last.
#[derive(Debug)]
struct Known {
    listed: Listed,
    content: Content,
}

/// A watched directory.
#[derive(Debug)]
pub struct DirectorySource {
    path: PathBuf,
    options: Options,
    watch: Watch,
    files: BTreeMap<Arc<str>, Known>,
    claims: Claims,
    /// Notes that have been told and still hold.
    told: HashSet<String>,
    started: bool,
    /// The directory itself can't be read.
    lost: bool,
    /// When it could be read again.
    returned: Option<Instant>,
    /// When a file with objects was first seen empty.
    emptied: BTreeMap<Arc<str>, Instant>,
}

impl DirectorySource {
    /// Checks that the directory can be read, and watches it.
    ///
    /// # Errors
    /// It isn't there, is no directory or can't be read.
    pub fn open(path: &Path, options: Options) -> Result<Self, SourceError> {
        let unreadable = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
            io::ErrorKind::NotADirectory => SourceError::NotDirectory(path.to_owned()),
            _ => SourceError::Unreadable { path: path.to_owned(), cause },
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_dir() {
            return Err(SourceError::NotDirectory(path.to_owned()));
        }
        fs::read_dir(path).map_err(unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            options,
            watch: Watch::start(path),
            files: BTreeMap::new(),
            claims: Claims::default(),
            told: HashSet::new(),
            started: false,
            lost: false,
            returned: None,
            emptied: BTreeMap::new(),
        })
    }

    /// Reads everything that differs from the last read, and says what that changes. The first
    /// time it gives all.
    pub fn load(&mut self) -> Changes {
        self.read(Instant::now(), true)
    }

    /// Waits until something changed, at most for `timeout`; `None` where nothing did.
    pub fn next(&mut self, timeout: Duration) -> Option<Changes> {
        let until = Instant::now().checked_add(timeout);
        loop {
            let now = Instant::now();
            let left = until.map_or(timeout, |until| until.saturating_duration_since(now));
            let unsettled = !self.emptied.is_empty() || self.returned.is_some();
            let left = if unsettled { left.min(GATHER_MAX) } else { left };
            let seen = self.watch.wait(left);
            if let Some(detected) = seen.or_else(|| unsettled.then(Instant::now)) {
                let changes = self.read(detected, false);
                if !changes.is_empty() {
                    return Some(changes);
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
        }
    }

    /// Everything that is in force, in the order of its keys.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.claims.published().map(|object| &**object)
    }

    fn read(&mut self, detected: Instant, at_once: bool) -> Changes {
        let mut notes = Vec::new();
        self.watch.renew(&self.path);
        match scan::list(&self.path) {
            Ok(listing) => {
                self.found(at_once, &mut notes);
                if listing.more {
                    let what = format!("more than {} files: the rest is not read", scan::FILES_MAX);
                    notes.push(self.note(Severity::Warning, UNREADABLE, what));
                }
                self.update(listing.files, at_once);
            }
            Err(cause) => {
                let what = format!(
                    "the directory can't be read: {cause}; the last objects stay in force until \
                     it can"
                );
                notes.push(self.note(Severity::Warning, UNREADABLE, what));
                self.lost = true;
                self.returned = None;
            }
        }
        let changes = self.claims.changes();
        for (file, known) in &self.files {
            notes.extend(known.content.notes.iter().cloned());
            notes.extend(self.claims.notes(file));
        }
        let full = !std::mem::replace(&mut self.started, true);
        Changes { changes, diagnostics: self.tell(&notes), detected, full }
    }

    /// The directory is there.
    fn found(&mut self, at_once: bool, notes: &mut Vec<Note>) {
        if std::mem::take(&mut self.lost) {
            self.returned = Some(Instant::now());
            let what = "the directory can be read again".to_owned();
            notes.push(self.note(Severity::Normal, READABLE, what));
        }
        if at_once || self.returned.is_some_and(|since| since.elapsed() >= RETURN_SETTLES) {
            self.returned = None;
        }
    }

    fn note(&self, severity: Severity, reason: &'static str, message: String) -> Note {
        let place = Place::new(&self.path.to_string_lossy(), 0);
        Note { severity, reason, about: nobody(), place, message }
    }

    /// Reads the files that differ from what is known and forgets those that are gone.
    fn update(&mut self, listed: BTreeMap<Arc<str>, Listed>, at_once: bool) {
        if self.returned.is_none() {
            let gone = self.files.keys().filter(|file| !listed.contains_key(*file));
            let gone: Vec<_> = gone.cloned().collect();
            for file in gone {
                self.emptied.remove(&file);
                if let Some(known) = self.files.remove(&file) {
                    self.claims.change(&file, &known.content, &Content::default());
                }
            }
        }
        for (file, listed) in listed {
            if self.files.get(&file).is_none_or(|known| known.listed != listed) {
                self.file(file, listed, at_once);
            } else {
                self.emptied.remove(&file);
            }
        }
    }

    /// Reads one file.
    fn file(&mut self, file: Arc<str>, listed: Listed, at_once: bool) {
        let nothing = Content::default();
        let before = self.files.get(&file).map_or(&nothing, |known| &known.content);
        let (listed, content) = match listed {
            Listed::Odd(why) => {
                let content = Content::unreadable(&file, &why, before);
                (Listed::Odd(why), content)
            }
            Listed::File(stamp) => match scan::read(&self.path, &file) {
                Ok((read, bytes)) => {
                    if bytes.is_empty() && !before.units.is_empty() && !at_once {
                        let since = *self.emptied.entry(file.clone()).or_insert_with(Instant::now);
                        if since.elapsed() < EMPTY_SETTLES {
                            return;
                        }
                    }
                    let content = Content::read(&file, &bytes, before, &self.options);
                    (settled(read, bytes.len()), content)
                }
                // Gone since it was listed: the next look takes it out.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => {
                    (Listed::File(stamp), Content::unreadable(&file, &error.to_string(), before))
                }
            },
        };
        self.emptied.remove(&file);
        self.claims.change(&file, before, &content);
        self.files.insert(file, Known { listed, content });
    }

    /// The events of notes that begin; forgets those that have ended.
    fn tell(&mut self, notes: &[Note]) -> Vec<Event> {
        let mut holds = HashSet::with_capacity(notes.len());
        let mut events = Vec::new();
        for note in notes {
            let identity = format!("{:?}", note.identity());
            if !self.told.contains(&identity) && !holds.contains(&identity) {
                events.push(note.event());
            }
            holds.insert(identity);
        }
        self.told = holds;
        events
    }
}

/// What is remembered of a file that was read. Where it was written to in the meantime, or so
/// lately that another write could leave the same times, nothing that any later look can equal.
fn settled(stamp: Stamp, bytes: usize) -> Listed {
    if stamp.size() == i128::try_from(bytes).unwrap_or(-1) && !stamp.is_fresh(TIMES_COARSE) {
        Listed::File(stamp)
    } else {
        Listed::Odd(String::new())
    }
}
