//! What stands in the Services' status, as far as writing it needs to know.

use super::locked;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;
use model::desired::ObjectName;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Who writes, as the API server keeps it in `managedFields`.
pub(super) const FIELD_MANAGER: &str = "headgate";
/// The condition that the gateway writes.
pub(super) const CONDITION: &str = "headgate.dev/Programmed";
/// The finalizer, where one is wanted.
pub(super) const FINALIZER: &str = "headgate.dev/cleanup";

/// One entry of `status.loadBalancer.ingress`: address, mode and ports.
pub(super) type Written = (String, Option<String>, Vec<WrittenPort>);
/// One of its ports: number, protocol and error.
pub(super) type WrittenPort = (i32, String, Option<String>);

/// Our condition as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenCondition {
    pub status: bool,
    pub reason: String,
    pub message: String,
    pub since: Timestamp,
}

/// What stands in one Service's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub uid: Arc<str>,
    pub ingress: Vec<Written>,
    pub condition: Option<SeenCondition>,
    /// Our finalizer is there.
    pub finalizer: bool,
    /// We own a part of the status.
    pub ours: bool,
}

impl Seen {
    /// What is there; `None` where nothing of it concerns us.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let ingress: Vec<Written> = ingress
            .into_iter()
            .flatten()
            .map(|one| {
                let address = one.ip.clone().or_else(|| one.hostname.clone());
                let ports = one.ports.iter().flatten();
                let ports =
                    ports.map(|one| (one.port, one.protocol.clone(), one.error.clone())).collect();
                (address.unwrap_or_default(), one.ip_mode.clone(), ports)
            })
            .collect();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let condition = conditions.into_iter().flatten().find(|one| one.type_ == CONDITION);
        let condition = condition.map(|one| SeenCondition {
            status: one.status == "True",
            reason: one.reason.clone(),
            message: one.message.clone(),
            since: one.last_transition_time.0,
        });
        let metadata = &service.metadata;
        let finalizers = metadata.finalizers.iter().flatten();
        let finalizer = finalizers.into_iter().any(|one| one == FINALIZER);
        let managers = metadata.managed_fields.iter().flatten();
        let ours = managers.into_iter().any(is_ours);
        let uid: Arc<str> = metadata.uid.as_deref().unwrap_or_default().into();
        let concerns = ours || finalizer || condition.is_some() || !ingress.is_empty();
        concerns.then_some(Self { uid, ingress, condition, finalizer, ours })
    }
}

/// Whether an entry says that we own a part of the status. After a withdrawal there is one left
/// that says we own a status without parts, which is nothing.
fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    let ours = entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.subresource.as_deref() == Some("status");
    let fields = entry.fields_v1.as_ref().filter(|_| ours);
    let status = fields.and_then(|fields| fields.0.get("f:status")?.as_object());
    status.is_some_and(|parts| parts.keys().any(|part| part != "."))
}

/// The statuses of all Services, and which of them have changed since they were asked for.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    seen: Mutex<HashMap<ObjectName, Seen>>,
    changed: Mutex<BTreeSet<ObjectName>>,
    pub(super) news: Notify,
}

impl Statuses {
    /// What stands there by an answer to whoever writes: no news to it.
    pub(super) fn note(&self, name: &ObjectName, seen: Option<Seen>) {
        match seen {
            Some(seen) => locked(&self.seen).insert(name.clone(), seen),
            None => locked(&self.seen).remove(name),
        };
    }

    /// What stands there now.
    pub(super) fn put(&self, name: &ObjectName, seen: Option<Seen>) {
        self.note(name, seen);
        locked(&self.changed).insert(name.clone());
        self.news.notify_one();
    }

    /// What was seen last.
    pub(super) fn get(&self, name: &ObjectName) -> Option<Seen> {
        locked(&self.seen).get(name).cloned()
    }

    /// Services that something was told of since the last call.
    pub(super) fn changed(&self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut *locked(&self.changed))
    }
}
