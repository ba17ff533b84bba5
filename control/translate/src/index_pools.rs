//! What the index does about pools: who is in their way, who may have them, how full they are.

use crate::index::Index;
use crate::object::{Kind, ObjectKey, of_cluster};
use crate::occupied::Taken;
use crate::pools::Pool;
use crate::problem::reason;
use crate::spec::Spec;
use k8s_openapi::api::core::v1::Namespace;
use model::answers::{Event, PoolCount, PoolRow, Severity};
use model::desired::ObjectName;
use model::ids::Family;
use std::collections::BTreeSet;

impl Index {
    /// The pools in the order of the configuration, as `show pools` shows them.
    pub fn pools(&self) -> Vec<PoolRow> {
        let used = self.ledger.used(&self.settings);
        let pools = self.settings.pools().iter().zip(used).enumerate();
        pools.map(|(at, (pool, used))| self.row_of_pool(at, pool, used)).collect()
    }

    fn row_of_pool(&self, at: usize, pool: &Pool, used: [u64; 2]) -> PoolRow {
        let refused = self.refused_pool(at);
        let count = |family: Family| {
            let total = u64::try_from(pool.count(family)).unwrap_or(u64::MAX);
            let used = used[family.index()];
            let free = if refused.is_some() { 0 } else { total.saturating_sub(used) };
            PoolCount { total, used, free }
        };
        let text = |one: Option<&crate::selector::Selector>| one.map(ToString::to_string);
        PoolRow {
            name: pool.name.to_string(),
            ranges: pool.ranges.iter().map(ToString::to_string).collect(),
            scheme: pool.scheme.map(|scheme| scheme.name().to_owned()),
            priority: pool.priority,
            auto_assign: pool.auto_assign,
            avoid_buggy_addresses: pool.avoid_buggy_addresses,
            namespaces: pool.namespaces.iter().map(ToString::to_string).collect(),
            namespace_selector: text(pool.namespace_selector.as_ref()),
            service_selector: text(pool.service_selector.as_ref()),
            ipv4: count(Family::V4),
            ipv6: count(Family::V6),
            refused: refused.map(str::to_owned),
        }
    }

    pub(crate) fn apply_namespace(&mut self, namespace: &Namespace) {
        let name = of_cluster(Kind::Namespace, &namespace.metadata).name.name;
        if self.namespaces.apply(namespace) {
            self.relabelled.insert(name);
        }
    }

    pub(crate) fn delete_namespace(&mut self, name: &std::sync::Arc<str>) {
        if self.namespaces.delete(name) {
            self.relabelled.insert(name.clone());
        }
    }

    /// Notes what an object says is the cluster's, with an event for each pool that it bars.
    pub(crate) fn occupy(&mut self, key: &ObjectKey, uid: &str, taken: BTreeSet<Taken>) {
        for turned in self.occupied.replace(&self.settings, key, taken) {
            self.turned.insert(turned.pool);
            let Some((blamed, why)) = turned.refused else { continue };
            self.events.push(Event {
                time_s: 0,
                severity: Severity::Warning,
                reason: reason::ADDRESS_REFUSED.to_owned(),
                kind: blamed.kind.name().to_owned(),
                uid: if blamed == *key { uid.to_owned() } else { String::new() },
                object: blamed.name,
                place: String::new(),
                message: format!("nothing is given out of it: {why}"),
            });
        }
    }

    /// A Service comes, or comes to share differently: those that have an address with it, or wait
    /// for one of its, are looked at again.
    pub(crate) fn note_sharing(&mut self, name: &ObjectName, new: &Spec) {
        let old = self.services.get(name).map(|entry| &entry.spec);
        let sharing = |spec: &Spec| (spec.rank.clone(), spec.share_key.clone(), spec.balanced);
        let moved = old.is_none_or(|old| sharing(old) != sharing(new));
        let ports = new.share_key.is_some() && old.is_some_and(|old| old.ports != new.ports);
        if !moved && !ports {
            return;
        }
        for held in self.ledger.addresses_of(name) {
            self.freed.insert(held.address);
            if moved {
                self.touched.extend(self.ledger.holders(held.address).cloned());
            }
        }
    }
}
