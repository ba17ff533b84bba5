//! Whole reads of real directories.

use super::*;
use std::fs;
use tempfile::TempDir;

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

#[test]
fn the_first_read_gives_all() {
    let several = format!(
        "{WEB}---\n# nothing\n---\nkind: Deployment\napiVersion: apps/v1\nmetadata: {{name: web}}\n---\nport: [\n---\napiVersion: v1\nkind: Node\nmetadata:\n  name: one\n"
    );
    let directory = directory(&[("web.yaml", &several), (".hidden.yaml", "{"), ("notes.txt", "{")]);
    let mut source = open(&directory);
    let changes = source.load();
    assert!(changes.full);
    let (objects, events) = short(&changes);
    assert_eq!(objects, ["+ Service default/web web.yaml:1", "+ Node one web.yaml:18"]);
    assert_eq!(events.len(), 2);
    assert!(
        events[0].starts_with("KindIgnored Deployment default/web web.yaml:12: "),
        "{events:?}"
    );
    assert!(events[1].starts_with("ManifestInvalid   web.yaml:16: can't be parsed"), "{events:?}");
}
