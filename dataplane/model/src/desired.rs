//! The desired state: what the control side wants forwarded.
//!
//! Plain data: it is compiled into the snapshot that workers read, and it is what is stored on
//! disk. Nothing here knows of slots, tables or workers.

use crate::ids::{Family, Protocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The name of an object of Kubernetes: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// Namespace; empty for objects that have none, as Nodes.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What names a service port: TCP and UDP on one port number are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePortKey {
    /// The cluster's name; empty for the default one.
    #[serde(default, skip_serializing_if = "str_is_empty")]
    pub cluster: Arc<str>,
    /// The Service.
    pub service: ObjectName,
    /// The port's name in the Service, empty where it has none.
    pub port_name: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// Whose clients it serves.
    #[serde(default, skip_serializing_if = "Scope::is_external")]
    pub scope: Scope,
}

/// Whose clients a service port serves. A Service that has ClusterIP frontends has its ports
/// twice, since the two obey different policies and may have different backends.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// LoadBalancer addresses, externalIPs and NodePorts: `externalTrafficPolicy`.
    #[default]
    External,
    /// ClusterIPs: `internalTrafficPolicy`.
    Internal,
}

impl Scope {
    /// True for [`Scope::External`].
    pub fn is_external(&self) -> bool {
        *self == Self::External
    }
}

fn str_is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

impl fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.cluster.is_empty() {
            write!(f, "{}:", self.cluster)?;
        }
        write!(f, "{}", self.service)?;
        if !self.port_name.is_empty() {
            write!(f, ":{}", self.port_name)?;
        }
        write!(f, "/{}", self.protocol)?;
        if self.scope == Scope::Internal { f.write_str(" (ClusterIP)") } else { Ok(()) }
    }
}

/// Where a frontend comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A LoadBalancer address, from the pool of this name.
    LoadBalancer {
        /// The pool's name in the configuration.
        pool: Arc<str>,
    },
    /// One of the Service's `spec.externalIPs`.
    ExternalIp,
    /// A `nodePort` on one of the gateway's own addresses.
    NodePort,
    /// The Service's cluster address (opt-in).
    ClusterIp,
}

impl Origin {
    /// The word of Kubernetes for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LoadBalancer { .. } => "LoadBalancer",
            Self::ExternalIp => "externalIP",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// An address and port that clients send to. The protocol is that of the service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Address and port, as in the packet's destination.
    pub address: SocketAddr,
    /// Where it comes from.
    pub origin: Origin,
}

impl Frontend {
    /// True where the service port's source ranges guard it: LoadBalancer addresses, and the
    /// NodePorts of such a Service, which would otherwise be a way round them. externalIPs and
    /// ClusterIPs are open, as with kube-proxy.
    pub const fn is_guarded(&self) -> bool {
        matches!(self.origin, Origin::LoadBalancer { .. } | Origin::NodePort)
    }
}

/// How packets reach the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Source and destination rewritten.
    #[default]
    Nat,
    /// Destination rewritten; the nodes route replies through the gateway. Not forwarded yet.
    Transparent,
    /// Nothing rewritten; the reply skips the gateway. Not forwarded yet.
    Dsr,
}

/// What backends are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Pod endpoints.
    #[default]
    Endpoint,
    /// Node addresses and nodePorts.
    Node,
}

/// What becomes of a new connection to a service port that has no backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// TCP gets a RST, UDP an ICMP port unreachable.
    #[default]
    Reject,
    /// Silence.
    Drop,
}

/// `sessionAffinity: ClientIP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Affinity {
    /// Seconds after a client's last new connection at which it is forgotten.
    pub timeout_s: u32,
}

/// Where a backend stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes new connections.
    Active,
    /// Keeps its connections and takes no new ones: it serves while it terminates and others are
    /// ready.
    Draining,
    /// It doesn't serve: TCP connections are kept, since they may yet end in order; UDP flows
    /// towards it end, so that their clients find another backend.
    Unserving,
}

/// Where a connection goes: a pod's address and port, or a node's address and nodePort.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Address and port, as in the rewritten destination.
    pub address: SocketAddr,
    /// Name of the node that holds it, empty where unknown.
    pub node: Arc<str>,
    /// Next hop towards it where the gateway shares a link with it (the node's InternalIP);
    /// where `None`, or not on a link of ours, routes decide.
    pub via: Option<IpAddr>,
    /// Name to show: the pod's, else empty.
    pub name: Arc<str>,
    /// Share of new connections in proportion to the others of the service port; 1 to 1000.
    pub weight: u16,
    /// Where it stands in its life.
    pub state: BackendState,
}

/// One port of one Service, with all that the packet path needs for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// What names it.
    pub key: ServicePortKey,
    /// The Service's UID: the identity over time; empty where the source has none.
    pub uid: Arc<str>,
    /// Where clients send to; both families.
    pub frontends: Vec<Frontend>,
    /// Where connections go, in order of address; both families. A connection keeps its family.
    pub backends: Vec<Backend>,
    /// How packets reach the backends.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// What backends are made of.
    #[serde(default)]
    pub target: Target,
    /// What becomes of new connections of a family while no backend of it is active; IPv4 first.
    #[serde(default)]
    pub refusal: [Refusal; 2],
    /// Session affinity, where asked for.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// Client prefixes that may use the guarded frontends ([`Frontend::is_guarded`]), each for its
    /// own family; a family without a prefix is open to all. Others are dropped.
    #[serde(default)]
    pub source_ranges: Vec<IpNet>,
    /// Seconds after which a TCP client of a backend that has gone gets a RST; never where `None`.
    #[serde(default)]
    pub reset_after_s: Option<u32>,
}

impl ServicePort {
    /// The backends of `family` that take new connections, in order of address.
    pub fn active(&self, family: Family) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(move |backend| {
            backend.state == BackendState::Active && Family::of(backend.address.ip()) == family
        })
    }
}

/// All that the control side wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// The service ports in the order of their keys.
    #[serde(with = "as_list")]
    pub service_ports: BTreeMap<ServicePortKey, Arc<ServicePort>>,
}

impl DesiredState {
    /// Makes the change.
    pub fn apply(&mut self, delta: &Delta) {
        for key in &delta.removed {
            self.service_ports.remove(key);
        }
        for port in &delta.changed {
            self.service_ports.insert(port.key.clone(), Arc::clone(port));
        }
    }
    /// The change that leads from nothing to this state.
    pub fn as_delta(&self) -> Delta {
        Delta { changed: self.service_ports.values().cloned().collect(), removed: Vec::new() }
    }
}

/// A change of the desired state. Its cost is that of what it names, whatever else there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Service ports that are new or differ; each replaces the one of the same key.
    pub changed: Vec<Arc<ServicePort>>,
    /// Service ports that have gone. Applied before `changed`.
    pub removed: Vec<ServicePortKey>,
}

impl Delta {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// JSON has no maps with structured keys: stored as a list, since each value holds its key.
mod as_list {
    use super::{Arc, BTreeMap, ServicePort, ServicePortKey};
    use serde::{Deserialize, Deserializer, Serializer};

    type Ports = BTreeMap<ServicePortKey, Arc<ServicePort>>;

    pub fn serialize<S: Serializer>(ports: &Ports, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ports.values())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ports, D::Error> {
        let list = Vec::<Arc<ServicePort>>::deserialize(from)?;
        Ok(list.into_iter().map(|port| (port.key.clone(), port)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_json() -> Result<(), serde_json::Error> {
        let key = ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("default", "web"),
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            scope: Scope::External,
        };
        let port = ServicePort {
            key: key.clone(),
            uid: "u".into(),
            frontends: vec![Frontend {
                address: SocketAddr::from(([203, 0, 113, 10], 80)),
                origin: Origin::LoadBalancer { pool: "demo".into() },
            }],
            backends: Vec::new(),
            forwarding: Forwarding::Nat,
            target: Target::Endpoint,
            refusal: [Refusal::Reject; 2],
            affinity: None,
            source_ranges: Vec::new(),
            reset_after_s: None,
        };
        let mut state = DesiredState::default();
        state.apply(&Delta { changed: vec![Arc::new(port)], removed: vec![] });
        let text = serde_json::to_string(&state)?;
        assert_eq!(serde_json::from_str::<DesiredState>(&text)?, state);
        state.apply(&Delta { changed: vec![], removed: vec![key] });
        assert_eq!(state, DesiredState::default());
        Ok(())
    }
}
