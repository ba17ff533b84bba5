//! Pools that overlap what is the cluster's own: ServiceCIDRs, pod CIDRs, addresses of Nodes.
//!
//! Nothing new is given out of such a pool; what Services have of it stays theirs, but for an
//! address that is a Node's.

use crate::object::{Kind, ObjectKey};
use crate::range::AddressRange;
use crate::settings::Settings;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Something that an object says is the cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taken {
    /// A prefix.
    Prefix(IpNet),
    /// One address.
    Address(IpAddr),
}

impl Taken {
    fn range(self) -> Option<AddressRange> {
        match self {
            Self::Prefix(prefix) => AddressRange::new(prefix.network(), prefix.broadcast()),
            Self::Address(address) => AddressRange::new(address, address),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What a Node says is the cluster's.
pub(crate) fn of_node(node: &Node) -> BTreeSet<Taken> {
    let spec = node.spec.as_ref();
    let prefixes = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let prefixes = prefixes.chain(one).filter_map(|text| text.parse().ok()).map(Taken::Prefix);
    let status = node.status.as_ref();
    let all = status.into_iter().flat_map(|status| status.addresses.iter().flatten());
    let all = all.filter_map(|one| one.address.parse().ok()).map(Taken::Address);
    prefixes.chain(all).collect()
}

/// A pool that became refused, or is no longer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turned {
    pub(crate) pool: usize,
    /// The object to blame and why; `None` where nothing is in its way now.
    pub(crate) refused: Option<(ObjectKey, String)>,
}

/// For each pool what is in its way.
#[derive(Debug, Default)]
pub(crate) struct Occupied {
    /// By pool: who takes what of it.
    pools: Vec<BTreeMap<ObjectKey, String>>,
    /// What objects took that are in the way of some pool.
    objects: BTreeMap<ObjectKey, BTreeSet<Taken>>,
}

impl Occupied {
    pub(crate) fn new(pools: usize) -> Self {
        Self { pools: vec![BTreeMap::new(); pools], objects: BTreeMap::new() }
    }

    /// Puts what an object takes in the place of what it took.
    pub(crate) fn replace(
        &mut self,
        settings: &Settings,
        key: &ObjectKey,
        taken: BTreeSet<Taken>,
    ) -> Vec<Turned> {
        let mut turned = Vec::new();
        if self.objects.get(key).map_or(taken.is_empty(), |old| *old == taken) {
            return turned;
        }
        for (at, blamed) in self.pools.iter_mut().enumerate() {
            let before = blamed.first_key_value().map(|(_, why)| why.clone());
            match clash(settings, at, key, &taken) {
                Some(why) => blamed.insert(key.clone(), why),
                None => blamed.remove(key),
            };
            let now = blamed.first_key_value();
            if before.as_ref() != now.map(|(_, why)| why) {
                let refused = now.map(|(key, why)| (key.clone(), why.clone()));
                turned.push(Turned { pool: at, refused });
            }
        }
        if taken.is_empty() {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), taken);
        }
        turned
    }

    /// Why nothing is given out of a pool.
    pub(crate) fn refused(&self, pool: usize) -> Option<&str> {
        self.pools.get(pool)?.first_key_value().map(|(_, why)| why.as_str())
    }
}

/// What of a pool is the object's.
fn clash(
    settings: &Settings,
    pool: usize,
    key: &ObjectKey,
    taken: &BTreeSet<Taken>,
) -> Option<String> {
    let pool = settings.pools().get(pool)?;
    taken.iter().find_map(|&one| {
        let range = one.range()?;
        let own = pool.ranges.iter().find(|own| own.overlaps(&range))?;
        let what = match (key.kind, one) {
            (Kind::Node, Taken::Prefix(_)) => format!("the pod CIDR of {key}"),
            (Kind::Node, Taken::Address(_)) => format!("an address of {key}"),
            _ => format!("the range of {key}"),
        };
        let name = &pool.name;
        Some(format!("pool \"{name}\" has addresses of {one}, {what}: take them out of {own}"))
    })
}
