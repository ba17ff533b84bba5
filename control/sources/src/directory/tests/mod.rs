//! Whole reads of real directories.

mod hostile;
mod keeping;
mod pods;
mod reading;
mod sequences;
mod services;
mod watching;

use super::*;
use crate::{Change, Changes};
use model::answers::{Event, Severity};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use translate::{Object, ObjectKey};

pub(super) const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ports:
  - {name: http, port: 80}
  - {name: https, port: 443}
";

pub(super) fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

pub(super) fn open(directory: &TempDir) -> DirectorySource {
    DirectorySource::open(directory.path(), Options::default()).unwrap()
}

/// The changes and the diagnostics in short.
pub(super) fn short(changes: &Changes) -> (Vec<String>, Vec<String>) {
    let objects = changes.changes.iter().map(|change| match change {
        Change::Apply(object) => format!("+ {} {}", object.key(), object.place()),
        Change::Delete(key) => format!("- {key}"),
    });
    let events = changes.diagnostics.iter().map(|event| {
        let Event { reason, kind, object, place, message, .. } = event;
        format!("{reason} {kind} {object} {place}: {message}")
    });
    (objects.collect(), events.collect())
}
