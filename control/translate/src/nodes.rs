//! Nodes: the way to their pods, addresses that are theirs alone, and which may be backends.

use k8s_openapi::api::core::v1::Node;
use model::desired::ObjectName;
use model::ids::Family;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Label that keeps load balancers off a Node.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint of a Node that the autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Seconds after which a Node that is in sight again has been told of with all its pods. A kubelet
/// says so with a later heartbeat, of which there is one in five minutes at least.
const TOLD_AFTER_S: i64 = 60;

/// What the index keeps of one Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// First InternalIP of each family. kube-proxy serves nodePorts there alone.
    pub(crate) internal: [Option<IpAddr>; 2],
    /// All of its addresses.
    pub(crate) all: BTreeSet<IpAddr>,
    /// It may not be a backend.
    pub(crate) excluded: bool,
    /// Its condition Ready is Unknown: the API server has lost sight of it.
    pub(crate) unknown: bool,
    /// Its condition Ready is True.
    ready: bool,
    /// And has been for long enough: its kubelet has told of all its pods.
    settled: bool,
}

impl NodeFacts {
    pub(crate) fn read(node: &Node) -> Self {
        let mut read = Self { excluded: excluded(node), ..Self::default() };
        let Some(status) = node.status.as_ref() else { return read };
        for given in status.addresses.iter().flatten() {
            let Ok(address) = given.address.parse::<IpAddr>() else { continue };
            read.all.insert(address);
            let internal = &mut read.internal[Family::of(address).index()];
            if given.type_ == "InternalIP" && internal.is_none() {
                *internal = Some(address);
            }
        }
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        read.unknown = ready.is_some_and(|condition| condition.status == "Unknown");
        read.ready = ready.is_some_and(|condition| condition.status == "True");
        let times = ready.and_then(|condition| {
            Some((
                condition.last_heartbeat_time.as_ref()?,
                condition.last_transition_time.as_ref()?,
            ))
        });
        read.settled = times.is_some_and(|(heard, since)| {
            heard.0.as_second().saturating_sub(since.0.as_second()) >= TOLD_AFTER_S
        });
        read
    }

    /// The address at which its health is asked.
    pub(crate) fn asked_at(&self) -> Option<IpAddr> {
        let [v4, v6] = self.internal;
        v4.or(v6).filter(|_| !self.excluded)
    }
}

/// Whether a Node may not be a backend. One that isn't ready may be: its pods may well serve.
fn excluded(node: &Node) -> bool {
    let metadata = &node.metadata;
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(EXCLUDE));
    let tainted = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| taint.key == TO_BE_DELETED));
    // What Go's strconv.ParseBool reads as false.
    let is_false = |text: &String| matches!(&**text, "0" | "f" | "F" | "false" | "FALSE" | "False");
    metadata.deletion_timestamp.is_some() || tainted || label.is_some_and(|text| !is_false(text))
}

/// What a change of a Node changes.
#[derive(Debug, Default)]
pub(crate) struct NodeChange {
    /// Addresses that are a Node's now, were one's, or are another's.
    pub(crate) addresses: Vec<IpAddr>,
    /// The way to its pods differs, or whether they may be used.
    pub(crate) way: bool,
    /// As a backend it differs.
    pub(crate) backend: bool,
    /// It is in sight again.
    pub(crate) returned: bool,
}

/// All Nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// The next hops towards their pods, which are asked for with each endpoint.
    hops: HashMap<Arc<str>, [Option<IpAddr>; 2]>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Of Nodes that are in sight again, the slices that were told before that.
    untold: HashMap<Arc<str>, BTreeSet<ObjectName>>,
}

impl Nodes {
    /// Puts a Node in the place of what was known of it; `None` removes it.
    pub(crate) fn replace(&mut self, name: &Arc<str>, new: Option<NodeFacts>) -> NodeChange {
        let before = self.nodes.remove(name);
        let ended = !new.as_ref().is_some_and(|new| new.ready && !new.settled)
            && self.untold.remove(name).is_some();
        let old = before.clone().unwrap_or_default();
        let now = new.clone().unwrap_or_default();
        let way = old.internal != now.internal;
        let mut change = NodeChange {
            way: way || ended || old.unknown != now.unknown,
            returned: old.unknown && now.ready,
            backend: way || old.excluded != now.excluded || before.is_some() != new.is_some(),
            addresses: Vec::new(),
        };
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
        self.hops.remove(name);
        if let Some(new) = new {
            self.hops.insert(name.clone(), new.internal);
            self.nodes.insert(name.clone(), new);
        }
        change
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &NodeFacts)> {
        self.nodes.iter()
    }

    /// The next hop towards pods of a Node.
    pub(crate) fn via(&self, name: &str, family: Family) -> Option<IpAddr> {
        self.hops.get(name).and_then(|hops| hops[family.index()])
    }

    /// Whether what a slice says of a Node's pods says nothing of them: the API server has lost sight
    /// of the Node, or has it again, and the slice is of the time before. A kubelet tells of the
    /// node first and of its pods after that.
    pub(crate) fn is_unknown(&self, name: &str, slice: &ObjectName) -> bool {
        self.nodes.get(name).is_some_and(|node| node.unknown)
            || self.untold.get(name).is_some_and(|slices| slices.contains(slice))
    }

    /// A Node is in sight again; these slices name pods of it.
    pub(crate) fn returned(&mut self, name: &Arc<str>, slices: BTreeSet<ObjectName>) {
        self.untold.insert(name.clone(), slices);
    }

    /// A slice was told anew.
    pub(crate) fn told(&mut self, name: &str, slice: &ObjectName) {
        let Some(slices) = self.untold.get_mut(name) else { return };
        slices.remove(slice);
        if slices.is_empty() {
            self.untold.remove(name);
        }
    }

    /// The Node that has this address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.by_address.get(&address).and_then(BTreeSet::first)
    }
}
