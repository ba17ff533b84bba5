//! What the index is told.

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::desired::ObjectName;
use std::fmt;
use std::sync::Arc;

/// File and line that an object came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file's name; empty where the object came from no file.
    pub file: Arc<str>,
    /// Line of the object's first line, from 1.
    pub line: u32,
}

impl Place {
    /// A place in a file.
    pub fn new(file: &str, line: u32) -> Self {
        Self { file: file.into(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() { Ok(()) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// The kinds that the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1/EndpointSlice`.
    EndpointSlice,
    /// `v1/Node`.
    Node,
    /// `v1/Namespace`: its labels choose among pools.
    Namespace,
    /// `networking.k8s.io/v1/ServiceCIDR`.
    ServiceCidr,
}

impl Kind {
    /// The word of Kubernetes for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What names an object: kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name; those of a Node, a Namespace and a ServiceCIDR have no namespace.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Box<Service>, Place),
    /// An EndpointSlice.
    EndpointSlice(Box<EndpointSlice>, Place),
    /// A Node.
    Node(Box<Node>, Place),
    /// A Namespace.
    Namespace(Box<Namespace>, Place),
    /// A ServiceCIDR.
    ServiceCidr(Box<ServiceCIDR>, Place),
}

impl Object {
    /// What names it.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(object, _) => {
                ObjectKey { kind: Kind::Service, name: namespaced(&object.metadata) }
            }
            Self::EndpointSlice(object, _) => {
                ObjectKey { kind: Kind::EndpointSlice, name: namespaced(&object.metadata) }
            }
            Self::Node(object, _) => of_cluster(Kind::Node, &object.metadata),
            Self::Namespace(object, _) => of_cluster(Kind::Namespace, &object.metadata),
            Self::ServiceCidr(object, _) => of_cluster(Kind::ServiceCidr, &object.metadata),
        }
    }
    /// Where it came from.
    pub const fn place(&self) -> &Place {
        match self {
            Self::Service(_, place)
            | Self::EndpointSlice(_, place)
            | Self::Node(_, place)
            | Self::Namespace(_, place)
            | Self::ServiceCidr(_, place) => place,
        }
    }
}

/// The key of an object that lives in no namespace.
pub(crate) fn of_cluster(kind: Kind, metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey { kind, name: ObjectName::new("", metadata.name.as_deref().unwrap_or_default()) }
}

/// The name of an object that lives in a namespace, which is `default` where not given.
pub(crate) fn namespaced(metadata: &ObjectMeta) -> ObjectName {
    let namespace = metadata.namespace.as_deref().filter(|text| !text.is_empty());
    let name = metadata.name.as_deref().unwrap_or_default();
    ObjectName::new(namespace.unwrap_or("default"), name)
}
