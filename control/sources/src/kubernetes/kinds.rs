//! The kinds that are watched, and what of their objects nobody reads.

use super::known::{Arrived, Entry};
use super::statuses::Seen;
use super::trouble::Doing;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use translate::{Kind, Object, Place, SERVICE_NAME};

/// The copy of a whole object that `kubectl apply` keeps in an annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind that is watched.
pub(super) trait Watched:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Its kind.
    const KIND: Kind;
    /// Objects without this label are nobody's.
    const LABEL: Option<&'static str> = None;
    /// Clusters may be without this API.
    const OPTIONAL: bool = false;

    /// What a request about all of them is for: `listing`, for one.
    fn doing(verb: &str) -> Doing {
        let what = format!("{verb} {}", Self::plural(&()));
        if Self::KIND == Kind::Namespace { Doing::namespaces(what) } else { Doing::new(what) }
    }

    /// Drops what nobody reads and what is large.
    fn slim(&mut self) {}

    /// Endpoints that serve, where it has such.
    fn weight(&self) -> u32 {
        1
    }

    /// Whether it may have an address in its status.
    fn balanced(&self) -> bool {
        false
    }

    /// What stands in its status, where that is written by us.
    fn seen(&self) -> Option<Seen> {
        None
    }

    /// As the index takes it.
    fn into_object(self) -> Object;
}

impl Watched for Service {
    const KIND: Kind = Kind::Service;

    fn balanced(&self) -> bool {
        let kind = self.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        kind == Some("LoadBalancer") && self.metadata.deletion_timestamp.is_none()
    }

    fn seen(&self) -> Option<Seen> {
        Seen::of(self)
    }

    fn into_object(self) -> Object {
        Object::Service(Box::new(self), Place::default())
    }
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    const LABEL: Option<&'static str> = Some(SERVICE_NAME);

    fn weight(&self) -> u32 {
        let serves = self.endpoints.iter().flatten().filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|all| all.ready) != Some(false)
                || conditions.and_then(|all| all.serving) == Some(true)
        });
        serves.count() as u32
    }

    fn into_object(self) -> Object {
        Object::EndpointSlice(Box::new(self), Place::default())
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;

    fn slim(&mut self) {
        if let Some(status) = &mut self.status {
            status.images = None;
            status.volumes_attached = None;
            status.volumes_in_use = None;
            status.capacity = None;
            status.allocatable = None;
        }
    }

    fn into_object(self) -> Object {
        Object::Node(Box::new(self), Place::default())
    }
}

impl Watched for Namespace {
    const KIND: Kind = Kind::Namespace;

    fn into_object(self) -> Object {
        Object::Namespace(Box::new(self), Place::default())
    }
}

impl Watched for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidr;
    const OPTIONAL: bool = true;

    fn into_object(self) -> Object {
        Object::ServiceCidr(Box::new(self), Place::default())
    }
}

/// A version as a number. The API promises that versions of one kind are decimal and grow; one
/// that isn't counts as unknown.
pub(super) fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_deref()?.parse().ok()
}

/// The object as it is told, without what nobody reads. `unversioned` stands for a version that
/// can't be read.
pub(super) fn arrived<K: Watched>(mut object: K, unversioned: u64) -> Arrived {
    let seen = object.seen();
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let version = version(metadata).unwrap_or(unversioned);
    let uid: Arc<str> = metadata.uid.as_deref().unwrap_or_default().into();
    object.slim();
    let (weight, balanced) = (object.weight(), object.balanced());
    let entry = Entry { version, uid, weight, balanced };
    let object = object.into_object();
    Arrived { name: object.key().name, entry, seen, object }
}
