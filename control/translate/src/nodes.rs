//! Nodes: the way to their pods, and addresses that are theirs alone.

use k8s_openapi::api::core::v1::Node;
use model::ids::Family;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What the index keeps of one Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAddresses {
    /// First InternalIP of each family.
    pub(crate) internal: [Option<IpAddr>; 2],
    /// All of its addresses.
    pub(crate) all: BTreeSet<IpAddr>,
}

impl NodeAddresses {
    pub(crate) fn read(node: &Node) -> Self {
        let mut read = Self::default();
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        for given in status.into_iter().flatten() {
            let Ok(address) = given.address.parse::<IpAddr>() else { continue };
            read.all.insert(address);
            let internal = &mut read.internal[Family::of(address).index()];
            if given.type_ == "InternalIP" && internal.is_none() {
                *internal = Some(address);
            }
        }
        read
    }
}

/// What a change of a Node changes.
#[derive(Debug, Default)]
pub(crate) struct NodeChange {
    /// Addresses that are a Node's now, were one's, or are another's.
    pub(crate) addresses: Vec<IpAddr>,
    /// The way to its pods differs.
    pub(crate) way: bool,
}

/// All Nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: HashMap<Arc<str>, NodeAddresses>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
}

impl Nodes {
    /// Puts a Node in the place of what was known of it; `None` removes it.
    pub(crate) fn replace(&mut self, name: &Arc<str>, new: Option<NodeAddresses>) -> NodeChange {
        let old = self.nodes.remove(name).unwrap_or_default();
        let now = new.clone().unwrap_or_default();
        let mut change = NodeChange { way: old.internal != now.internal, ..Default::default() };
        for &address in old.all.symmetric_difference(&now.all) {
            let owner = self.owner(address).cloned();
            let names = self.by_address.entry(address).or_default();
            if now.all.contains(&address) {
                names.insert(name.clone());
            } else {
                names.remove(name);
            }
            if names.is_empty() {
                self.by_address.remove(&address);
            }
            if self.owner(address) != owner.as_ref() {
                change.addresses.push(address);
            }
        }
        if let Some(new) = new {
            self.nodes.insert(name.clone(), new);
        }
        change
    }

    /// The next hop towards pods of a Node.
    pub(crate) fn via(&self, name: &str, family: Family) -> Option<IpAddr> {
        self.nodes.get(name).and_then(|node| node.internal[family.index()])
    }

    /// The Node that has this address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.by_address.get(&address).and_then(BTreeSet::first)
    }
}
