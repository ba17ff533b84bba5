//! Which file's version of a thing counts, and what that changes.

use super::content::{Content, twice};
use super::manifest::{Note, POD, Unit};
use super::select;
use super::unit::UnitId;
use crate::Change;
use k8s_openapi::api::core::v1::Pod;
use model::desired::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use translate::{Kind, Object, ObjectKey};

/// Kind whose objects are made here, and can have the name of one that is given.
const MADE: &str = "Endpoints";
const SLICE: &str = "EndpointSlice";
const SERVICE: &str = "Service";
/// What the name of a made slice has between that of its `Endpoints` and its number.
const MIRRORED: &str = "-mirrored-";

/// All files' things. Of the same thing in two files that of the first by name counts.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// For each thing: the files that have it.
    by_unit: BTreeMap<UnitId, BTreeMap<Arc<str>, Arc<Unit>>>,
    /// What was given out.
    published: BTreeMap<ObjectKey, Arc<Object>>,
    /// The keys of what was given out for each thing.
    keys: BTreeMap<UnitId, Vec<ObjectKey>>,
    /// Things that several files have.
    shared: BTreeSet<UnitId>,
    /// Things to look at again.
    dirty: BTreeSet<UnitId>,
    /// The Pods in force.
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Slices that were made of Services and Pods.
    selected: BTreeSet<ObjectKey>,
}

impl Claims {
    /// A file's content changed from `before` to `now`.
    pub(super) fn change(&mut self, file: &Arc<str>, before: &Content, now: &Content) {
        for id in before.units.keys().filter(|id| !now.units.contains_key(*id)) {
            self.touch(id);
            if let Some(files) = self.by_unit.get_mut(id) {
                files.remove(file);
            }
        }
        for (id, unit) in &now.units {
            if before.units.get(id) == Some(unit) {
                continue;
            }
            self.touch(id);
            self.by_unit.entry(id.clone()).or_default().insert(Arc::clone(file), Arc::clone(unit));
        }
    }

    fn touch(&mut self, id: &UnitId) {
        self.dirty.insert(id.clone());
        // A slice that is given takes its name from one that is made.
        if *id.kind == *SLICE
            && let Some((owner, _)) = id.name.name.rsplit_once(MIRRORED)
        {
            self.dirty.insert(UnitId::new(MADE, Some(&id.name.namespace), owner));
        }
    }

    /// What changed since the last call: what went, then what came.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut gone = BTreeSet::new();
        let mut came = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        for id in std::mem::take(&mut self.dirty) {
            if *id.kind == *POD {
                self.take_pod(&id);
            }
            if matches!(&*id.kind, POD | SERVICE | SLICE) {
                namespaces.insert(Arc::clone(&id.name.namespace));
            }
            let objects = self.wanted(&id);
            for key in self.keys.remove(&id).unwrap_or_default() {
                gone.insert(key);
            }
            match self.by_unit.get(&id).map_or(0, BTreeMap::len) {
                0 => {
                    self.by_unit.remove(&id);
                    self.shared.remove(&id);
                }
                1 => {
                    self.shared.remove(&id);
                }
                _ => {
                    self.shared.insert(id.clone());
                }
            }
            if !objects.is_empty() {
                self.keys.insert(id, objects.iter().map(|(key, _)| key.clone()).collect());
            }
            came.extend(objects);
        }
        let mut changes = Vec::new();
        for key in gone {
            if !came.contains_key(&key) && self.published.remove(&key).is_some() {
                changes.push(Change::Delete(key));
            }
        }
        for (key, object) in came {
            if self.published.get(&key) != Some(&object) {
                changes.push(Change::Apply((*object).clone()));
                self.published.insert(key, object);
            }
        }
        for namespace in namespaces {
            self.select(&namespace, &mut changes);
        }
        changes.sort_by_key(|change| matches!(change, Change::Apply(_)));
        changes
    }

    fn take_pod(&mut self, id: &UnitId) {
        let unit = self.by_unit.get(id).and_then(|files| files.values().next());
        match unit.and_then(|unit| unit.pod.clone()) {
            Some(pod) => self.pods.insert(id.name.clone(), pod),
            None => self.pods.remove(&id.name),
        };
    }

    /// Makes the slices of all Services of a namespace anew. A slice that is given has its name
    /// for itself.
    fn select(&mut self, namespace: &Arc<str>, changes: &mut Vec<Change>) {
        let from = ObjectName { namespace: Arc::clone(namespace), name: "".into() };
        let pods = self.pods.range(from.clone()..);
        let pods = pods.take_while(|(name, _)| name.namespace == *namespace);
        let pods = pods.map(|(_, pod)| &**pod);
        let first = ObjectKey { kind: Kind::Service, name: from };
        let services = self.published.range(first..);
        let services = services
            .take_while(|(key, _)| key.kind == Kind::Service && key.name.namespace == *namespace);
        let mut wanted = BTreeMap::new();
        for (_, object) in services {
            let Object::Service(service, place) = &**object else { continue };
            for slice in select::slices(service, pods.clone()) {
                let object = Object::EndpointSlice(Box::new(slice), place.clone());
                wanted.insert(object.key(), object);
            }
        }
        wanted.retain(|key, _| !self.is_given(key));
        let here = self.selected.iter().filter(|key| key.name.namespace == *namespace);
        let gone: Vec<_> = here.filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            self.selected.remove(&key);
            // One that is given now has been told in its place.
            if !self.is_given(&key) && self.published.remove(&key).is_some() {
                changes.push(Change::Delete(key));
            }
        }
        for (key, object) in wanted {
            if self.published.get(&key).is_none_or(|known| **known != object) {
                changes.push(Change::Apply(object.clone()));
                self.published.insert(key.clone(), Arc::new(object));
            }
            self.selected.insert(key);
        }
    }

    /// The objects of a thing as they should be.
    fn wanted(&self, id: &UnitId) -> Vec<(ObjectKey, Arc<Object>)> {
        let unit = self.by_unit.get(id).and_then(|files| files.values().next());
        let objects = unit.iter().flat_map(|unit| unit.objects.iter());
        let keyed = objects.map(|object| (object.key(), Arc::clone(object)));
        keyed.filter(|(key, _)| *id.kind != *MADE || !self.is_given(key)).collect()
    }

    fn is_given(&self, key: &ObjectKey) -> bool {
        let id = UnitId { kind: SLICE.into(), name: key.name.clone() };
        self.by_unit.get(&id).is_some_and(|files| !files.is_empty())
    }

    /// What is to be said of the things of a file that another file has too.
    pub(super) fn notes(&self, file: &str) -> Vec<Note> {
        let mut notes = Vec::new();
        for id in &self.shared {
            let Some(files) = self.by_unit.get(id) else { continue };
            let Some((first, winner)) = files.first_key_value() else { continue };
            if **first != *file
                && let Some(unit) = files.get(file)
            {
                notes.push(twice(unit, winner));
            }
        }
        notes
    }

    /// Everything that was given out.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.published.values()
    }
}
