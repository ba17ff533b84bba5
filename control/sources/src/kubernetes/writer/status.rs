//! One Service's status: what stands there, what should, and the patch between them.
//!
//! Server-side apply, never forced: the server keeps what each manager owns, drops what we no
//! longer apply, and refuses what another owns. The UID in the patch keeps it from a Service that
//! was made anew under the name.

use super::super::connect::Connection;
use super::super::statuses::{CONDITION, FIELD_MANAGER, FINALIZER, Seen, Written, WrittenPort};
use super::super::trouble::{Doing, Sort, Trouble};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use translate::spec::TAKE_OVER;
use translate::writes::{Ingress, IngressPort, StatusWrite};

/// Another controller owns what is to be written, or changes what was.
pub(super) const STATUS_CONFLICT: &str = "StatusConflict";
/// The API server doesn't take it.
pub(super) const STATUS_REFUSED: &str = "StatusRefused";

/// What came of a request.
pub(super) enum Outcome {
    /// The server took it; the Service as it is now.
    Written(Box<Service>),
    /// The Service isn't there, or another one is under its name.
    Gone,
    /// Somebody else owns it.
    Conflict(Box<Event>),
    /// The server doesn't want it.
    Refused(Box<Event>),
    /// Another time.
    Failed(Trouble),
}

/// Without ingress and condition, what was written earlier is withdrawn.
fn withdraws(write: &StatusWrite) -> bool {
    write.ingress.is_empty() && write.programmed.is_none()
}

fn finalizer(write: &StatusWrite) -> bool {
    write.finalizer && !withdraws(write)
}

fn condition_stands(write: &StatusWrite, seen: &Seen) -> bool {
    match (&write.programmed, &seen.condition) {
        (None, None) => true,
        (Some(wanted), Some(is)) => {
            wanted.status == is.status && wanted.reason == is.reason && wanted.message == is.message
        }
        _ => false,
    }
}

fn ingress_stands(write: &StatusWrite, seen: &Seen) -> bool {
    seen.ingress == write.ingress.iter().map(written).collect::<Vec<_>>()
}

/// Whether what is wanted stands there. Of a withdrawal that is so where nothing of ours is there
/// any longer, whatever others have written.
fn stands(write: &StatusWrite, seen: Option<&Seen>) -> bool {
    let Some(seen) = seen.filter(|seen| seen.uid == write.uid) else { return withdraws(write) };
    let marked = condition_stands(write, seen) && seen.finalizer == finalizer(write);
    let ingress = ingress_stands(write, seen);
    if withdraws(write) {
        marked && (ingress || !seen.ours)
    } else {
        marked && ingress && seen.ours
    }
}

/// A patch on its way.
pub(super) struct Request {
    write: StatusWrite,
    body: Value,
}

impl Request {
    /// The patch; `None` where what is wanted stands there.
    pub(super) fn of(write: StatusWrite, seen: Option<&Seen>) -> Option<Self> {
        if stands(&write, seen) {
            return None;
        }
        let seen = seen.filter(|seen| seen.uid == write.uid);
        let was = seen.and_then(|seen| seen.condition.as_ref());
        let mut status = serde_json::Map::new();
        if !write.ingress.is_empty() {
            let list = write.ingress.iter().map(|one| ingress_entry(&written(one)));
            let list: Vec<_> = list.collect();
            status.insert("loadBalancer".to_owned(), json!({ "ingress": list }));
        }
        if let Some(wanted) = &write.programmed {
            let since = was.filter(|was| was.status == wanted.status).map(|was| was.since);
            let condition = json!([{
                "type": CONDITION,
                "status": if wanted.status { "True" } else { "False" },
                "reason": wanted.reason,
                "message": wanted.message,
                "lastTransitionTime": seconds(since.unwrap_or_else(Timestamp::now)),
            }]);
            status.insert("conditions".to_owned(), condition);
        }
        let mut metadata = json!({
            "name": &*write.service.name,
            "namespace": &*write.service.namespace,
        });
        if !write.uid.is_empty() {
            metadata["uid"] = json!(&*write.uid);
        }
        if finalizer(&write) {
            metadata["finalizers"] = json!([FINALIZER]);
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "status": status,
        });
        Some(Self { write, body })
    }

    /// The Service that it is for.
    pub(super) fn service(&self) -> &ObjectName {
        &self.write.service
    }

    pub(super) async fn send(&self, connection: &Connection, limit: Duration) -> Outcome {
        let ObjectName { namespace, name } = &self.write.service;
        let api: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = self.write.take_over;
        let patch = Patch::Apply(&self.body);
        let doing = Doing::new(format!("writing the status of Service {}", self.write.service));
        let request = api.patch_status(name, &params, &patch);
        let (trouble, status) = match super::answered(connection, &doing, limit, request).await {
            Ok(service) => return Outcome::Written(Box::new(service)),
            Err(failed) => failed,
        };
        match (trouble.sort, status) {
            (Sort::Missing, _) => Outcome::Gone,
            (Sort::Conflict | Sort::Invalid, Some(status)) => self.refused(&status, trouble),
            _ => Outcome::Failed(trouble),
        }
    }

    fn refused(&self, status: &Status, trouble: Trouble) -> Outcome {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        // Another UID is an immutable field that differs (422), or a Service that isn't there (409).
        let other = causes.clone().any(|one| one.field == "metadata.uid");
        if other || status.message.contains("uid mismatch") {
            return Outcome::Gone;
        }
        let conflicts: Vec<_> =
            causes.filter(|cause| cause.reason == "FieldManagerConflict").collect();
        if conflicts.is_empty() {
            if trouble.sort == Sort::Conflict {
                return Outcome::Failed(trouble);
            }
            let what = format!("the status isn't written: {}", trouble.what);
            return Outcome::Refused(Box::new(self.event(STATUS_REFUSED, what)));
        }
        let whose: BTreeSet<_> = conflicts.iter().map(|one| one.message.as_str()).collect();
        let what: BTreeSet<_> = conflicts.iter().map(|one| one.field.as_str()).collect();
        let (whose, what) = (joined(&whose), joined(&what));
        let ObjectName { namespace, name } = &self.write.service;
        let message = format!(
            "the status isn't written, another controller owns {what}: {whose}; give the Service \
             to one of them by spec.loadBalancerClass, and stop the other one or let it release \
             the status ({}); or take it over: kubectl -n {namespace} annotate service {name} \
             {TAKE_OVER}=true",
            self.owners()
        );
        Outcome::Conflict(Box::new(self.event(STATUS_CONFLICT, message)))
    }

    /// What is to be told where the server took the patch, and what stands there since is still
    /// not what is wanted. To send the same again would change nothing.
    pub(super) fn altered(&self, seen: Option<&Seen>) -> Option<Event> {
        let write = &self.write;
        if stands(write, seen) {
            return None;
        }
        let seen = seen.filter(|seen| seen.uid == write.uid);
        let mut what = Vec::new();
        if seen.is_some_and(|seen| seen.finalizer != finalizer(write)) {
            what.push(FINALIZER);
        }
        if seen.is_none_or(|seen| !condition_stands(write, seen)) {
            what.push(CONDITION);
        }
        if seen.is_none_or(|seen| !ingress_stands(write, seen)) {
            what.push(".status.loadBalancer.ingress");
        }
        let message = format!(
            "the status was written, and {} isn't as it was written: another manager owns it \
             too, or an admission webhook changes it; stop that one ({}). It is written again \
             when the Service changes",
            what.join(", "),
            self.owners()
        );
        Some(self.event(STATUS_CONFLICT, message))
    }

    /// The command that shows who owns what.
    fn owners(&self) -> String {
        let ObjectName { namespace, name } = &self.write.service;
        format!("kubectl -n {namespace} get service {name} --show-managed-fields -o yaml")
    }

    fn event(&self, reason: &str, message: String) -> Event {
        Event {
            time_s: 0,
            severity: Severity::Warning,
            reason: reason.to_owned(),
            kind: "Service".to_owned(),
            object: self.write.service.clone(),
            uid: self.write.uid.to_string(),
            place: String::new(),
            message,
        }
    }
}

fn written(wanted: &Ingress) -> Written {
    let port = |one: &IngressPort| {
        (i32::from(one.port), one.protocol.name().to_owned(), one.error.map(str::to_owned))
    };
    let ports = wanted.ports.iter().map(port).collect();
    (wanted.address.to_string(), Some(wanted.mode.name().to_owned()), ports)
}

fn ingress_entry((ip, mode, ports): &Written) -> Value {
    let mut entry = json!({ "ip": ip, "ipMode": mode });
    if !ports.is_empty() {
        let port = |(port, protocol, error): &WrittenPort| match error {
            Some(error) => json!({ "port": port, "protocol": protocol, "error": error }),
            None => json!({ "port": port, "protocol": protocol }),
        };
        entry["ports"] = ports.iter().map(port).collect();
    }
    entry
}

fn joined(texts: &BTreeSet<&str>) -> String {
    texts.iter().copied().collect::<Vec<_>>().join(", ")
}

/// As the API keeps times: whole seconds.
fn seconds(time: Timestamp) -> String {
    time.round(Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(service: &Value) -> Option<Seen> {
        Seen::of(&serde_json::from_value(service.clone()).unwrap())
    }

    fn withdrawal() -> StatusWrite {
        StatusWrite {
            service: ObjectName::new("default", "web"),
            uid: "1".into(),
            ingress: Vec::new(),
            programmed: None,
            finalizer: true,
            take_over: false,
        }
    }

    /// What the API server has after a withdrawal over the ingress of another controller: we are
    /// left as the owner of a status without parts.
    #[test]
    fn a_withdrawal_looks_at_what_is_ours_alone() {
        let mut service = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "1", "managedFields": [{
                "manager": "headgate", "operation": "Apply", "subresource": "status",
                "fieldsV1": { "f:status": { ".": {} } } }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.9" }] } },
        });
        assert!(Request::of(withdrawal(), seen(&service).as_ref()).is_none());
        let ours = json!({ ".": {}, "f:loadBalancer": { "f:ingress": {} } });
        service["metadata"]["managedFields"][0]["fieldsV1"]["f:status"] = ours;
        let request = Request::of(withdrawal(), seen(&service).as_ref()).unwrap();
        let told = request.altered(seen(&service).as_ref()).unwrap();
        assert!(told.message.contains(".status.loadBalancer.ingress isn't"), "{}", told.message);
        assert!(Request::of(withdrawal(), None).is_none());
    }

    /// The finalizer that somebody else applied as well stays when we let go of it.
    #[test]
    fn a_finalizer_that_stays_is_named() {
        let service = json!({ "metadata": { "name": "web", "namespace": "default", "uid": "1",
            "finalizers": [FINALIZER] } });
        let request = Request::of(withdrawal(), seen(&service).as_ref()).unwrap();
        let told = request.altered(seen(&service).as_ref()).unwrap();
        assert!(told.message.contains("and headgate.dev/cleanup isn't"), "{}", told.message);
    }
}
