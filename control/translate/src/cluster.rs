//! What the index takes in besides Services: slices, Nodes, ServiceCIDRs and what came of probes.

use crate::index::{Index, remove_from};
use crate::nodes::NodeFacts;
use crate::object::{Kind, ObjectKey, Place, of_cluster};
use crate::occupied::{Taken, of_node};
use crate::probes::{Health, ProbeKey};
use crate::slices::Slice;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use model::desired::ObjectName;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

impl Index {
    /// Takes in what came of a probe that [`Built::probes`] asked for.
    pub fn probed(&mut self, key: &ProbeKey, health: Health) {
        for user in self.asked.note(key, health) {
            match user {
                Some(service) => {
                    self.stale.insert(service);
                }
                None => self.stale.extend(self.node_targets.iter().cloned()),
            }
        }
    }

    /// Where the cluster's own addresses for Services come from.
    pub fn service_cidrs(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.service_cidrs.values().flatten().copied()
    }

    pub(crate) fn apply_slice(&mut self, slice: &EndpointSlice, place: Place) {
        let slice = Slice::read(slice, place);
        if self.slices.get(&slice.name) == Some(&slice) {
            return;
        }
        self.remove_slice(&slice.name);
        let name = &slice.name;
        if let Some(service) = &slice.service {
            self.slices_of.entry(service.clone()).or_default().insert(name.clone());
            self.stale.insert(service.clone());
        }
        self.note_api_servers(&slice, true);
        for endpoint in &slice.endpoints {
            self.slices_at.entry(endpoint.address).or_default().insert(name.clone());
            if !endpoint.node.is_empty() {
                self.slices_on.entry(endpoint.node.clone()).or_default().insert(name.clone());
            }
        }
        for endpoint in &slice.endpoints {
            self.nodes.told(&endpoint.node, name);
        }
        self.slices.insert(name.clone(), slice);
    }

    pub(crate) fn remove_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else { return };
        self.note_api_servers(&slice, false);
        if let Some(service) = slice.service {
            remove_from(&mut self.slices_of, &service, name);
            self.stale.insert(service);
        }
        for endpoint in &slice.endpoints {
            remove_from(&mut self.slices_at, &endpoint.address, name);
            remove_from(&mut self.slices_on, &endpoint.node, name);
        }
    }

    pub(crate) fn apply_node(&mut self, node: &Node) {
        let key = of_cluster(Kind::Node, &node.metadata);
        self.occupy(&key, node.metadata.uid.as_deref().unwrap_or_default(), of_node(node));
        self.replace_node(&key.name.name, Some(NodeFacts::read(node)));
    }

    pub(crate) fn delete_node(&mut self, key: &ObjectKey) {
        self.occupy(key, "", BTreeSet::new());
        self.replace_node(&key.name.name, None);
    }

    pub(crate) fn replace_node(&mut self, name: &Arc<str>, node: Option<NodeFacts>) {
        let change = self.nodes.replace(name, node);
        if change.returned {
            let slices = self.slices_on.get(name).cloned().unwrap_or_default();
            self.nodes.returned(name, slices);
        }
        if change.way {
            let slices = self.slices_on.get(name).into_iter().flatten();
            let services = slices.filter_map(|slice| self.slices.get(slice)?.service.clone());
            self.stale.extend(services);
        }
        if change.backend {
            self.ask_nodes = true;
            self.stale.extend(self.node_targets.iter().cloned());
        }
        for &address in &change.addresses {
            self.barred_or_free(address);
        }
    }

    /// The Services that write an address as their externalIP, or have it as a ClusterIP that is to
    /// be served.
    pub(crate) fn writers(&self, address: IpAddr) -> BTreeSet<ObjectName> {
        let both = [self.external_ips.get(&address), self.served_cluster_ips.get(&address)];
        both.into_iter().flatten().flatten().cloned().collect()
    }

    /// Whether an address may be a Service's differs.
    fn barred_or_free(&mut self, address: IpAddr) {
        self.touched.extend(self.writers(address));
        self.touched.extend(self.ledger.holders(address).cloned());
        // Who waits for this address is told whose it is now.
        self.freed.insert(address);
        self.ledger.rewind(&self.settings, address);
    }

    /// The endpoints of `default/kubernetes` are the API servers.
    fn note_api_servers(&mut self, slice: &Slice, there: bool) {
        let is_api =
            |name: &ObjectName| *name.namespace == *"default" && *name.name == *"kubernetes";
        if !slice.service.as_ref().is_some_and(is_api) {
            return;
        }
        for endpoint in &slice.endpoints {
            let count = self.api_servers.entry(endpoint.address).or_default();
            *count = if there { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.api_servers.remove(&endpoint.address);
            }
            self.barred_or_free(endpoint.address);
        }
    }

    pub(crate) fn apply_service_cidr(&mut self, object: &ServiceCIDR) {
        let key = of_cluster(Kind::ServiceCidr, &object.metadata);
        let cidrs = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        let cidrs: Vec<IpNet> = cidrs.filter_map(|text| text.parse().ok()).collect();
        let taken = cidrs.iter().copied().map(Taken::Prefix).collect();
        self.occupy(&key, object.metadata.uid.as_deref().unwrap_or_default(), taken);
        self.service_cidrs.insert(key.name, cidrs);
    }

    pub(crate) fn delete_service_cidr(&mut self, key: &ObjectKey) {
        self.occupy(key, "", BTreeSet::new());
        self.service_cidrs.remove(&key.name);
    }

    /// Nodes are asked while some Service goes by their health.
    pub(crate) fn ask_about_nodes(&mut self) {
        if !std::mem::take(&mut self.ask_nodes) {
            return;
        }
        let forwarding = &self.settings.wishes().forwarding;
        let wanted = !self.node_askers.is_empty();
        let nodes = self.nodes.iter().filter(|_| wanted);
        let at = nodes.filter_map(|(name, node)| Some((name.clone(), node.asked_at()?)));
        if self.asked.want_nodes(at, forwarding.cadence) {
            self.stale.extend(self.node_targets.iter().cloned());
        }
    }
}
