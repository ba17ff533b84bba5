//! One Service's status: what is wanted, what stands there, and the patch between them.
//!
//! Server-side apply, never forced: the server keeps what each manager owns, drops what we no
//! longer apply, and refuses what another owns. The UID in the patch keeps it from a Service that
//! was made anew under the name.

use super::super::connect::Connection;
use super::super::pace::Jitter;
use super::super::statuses::{CONDITION, FIELD_MANAGER, FINALIZER, Seen, Written, WrittenPort};
use super::super::trouble::{Sort, Trouble};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use model::answers::{Event, Severity};
use model::desired::ObjectName;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use translate::writes::{Ingress, IngressPort, StatusWrite};

/// The first wait after a failed write, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// How soon a conflict is looked at again when the Service changes, at first and at last: two
/// controllers that both write after each other's writes must not go round in a circle.
const BLOCKED_FIRST: Duration = Duration::from_secs(1);
const BLOCKED_LONGEST: Duration = Duration::from_secs(300);

/// Another controller owns what is to be written.
pub(super) const STATUS_CONFLICT: &str = "StatusConflict";
/// The API server doesn't take it.
pub(super) const STATUS_REFUSED: &str = "StatusRefused";

/// Where a Service's status stands.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// To be written, from then on.
    Due(Instant),
    /// On its way; `again` where another one is wanted meanwhile.
    Sent { again: bool },
    /// It stands there.
    Written,
    /// Not before the Service is of another version than this, and not before then.
    Blocked { version: u64, until: Instant },
}

#[derive(Debug)]
struct One {
    write: StatusWrite,
    state: State,
    /// Failures or conflicts in a row.
    failures: u32,
    blocked: bool,
}

/// What is to become of a Service after a request.
pub(super) enum Settled {
    Written,
    Gone,
    Blocked(u64),
    Failed(Option<Duration>),
}

/// What is wanted of all Services.
#[derive(Debug)]
pub(super) struct Wanted {
    services: BTreeMap<ObjectName, One>,
    due: BTreeSet<(Instant, ObjectName)>,
    jitter: Jitter,
}

impl Wanted {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self { services: BTreeMap::new(), due: BTreeSet::new(), jitter }
    }

    /// A new wish for a Service, which replaces an earlier one.
    pub(super) fn want(&mut self, write: StatusWrite) {
        let (name, now) = (write.service.clone(), super::now());
        let insists = insists(&write);
        let again = match self.services.get_mut(&name) {
            None => {
                let one = One { write, state: State::Written, failures: 0, blocked: false };
                self.services.insert(name.clone(), one);
                true
            }
            Some(one) => {
                let insists = insists || one.write.uid != write.uid;
                if insists {
                    (one.failures, one.blocked) = (0, false);
                }
                one.write = write;
                match &mut one.state {
                    State::Sent { again } => {
                        *again = true;
                        false
                    }
                    // What asks for no more than before is refused again.
                    State::Blocked { .. } => insists,
                    _ => true,
                }
            }
        };
        if again {
            self.state(&name, State::Due(now));
        }
    }

    /// How many wait to be written.
    pub(super) fn waiting(&self) -> usize {
        let on_their_way = |one: &&One| matches!(one.state, State::Sent { .. });
        self.due.len() + self.services.values().filter(on_their_way).count()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next that is due; it counts as sent.
    pub(super) fn next(&mut self, now: Instant) -> Option<StatusWrite> {
        let (_, name) = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.state(&name, State::Sent { again: false });
        self.services.get(&name).map(|one| one.write.clone())
    }

    /// Whether it is known that somebody else owns the status.
    pub(super) fn blocked(&self, name: &ObjectName) -> Option<()> {
        self.services.get(name).filter(|one| one.blocked).map(|_| ())
    }

    /// What came of a request.
    pub(super) fn settle(&mut self, name: &ObjectName, settled: Settled, now: Instant) {
        let Some(one) = self.services.get_mut(name) else { return };
        let again = one.state == State::Sent { again: true };
        let state = match settled {
            Settled::Gone if !again => {
                self.services.remove(name);
                return;
            }
            Settled::Written => {
                (one.failures, one.blocked) = (0, false);
                State::Written
            }
            Settled::Gone => State::Written,
            Settled::Blocked(version) => {
                let wait = doubled(BLOCKED_FIRST, BLOCKED_LONGEST, one.failures);
                one.failures += 1;
                one.blocked = true;
                State::Blocked { version, until: now + self.jitter.stretch(wait) }
            }
            Settled::Failed(after) => {
                let wait = doubled(RETRY_FIRST, RETRY_LONGEST, one.failures);
                one.failures += 1;
                State::Due(now + self.jitter.stretch(wait).max(after.unwrap_or_default()))
            }
        };
        let fresh = match state {
            State::Due(_) => false,
            // What was refused was the wish before this one, for a Service of the type before.
            State::Blocked { .. } => again && insists(&one.write),
            _ => again,
        };
        self.state(name, if fresh { State::Due(now) } else { state });
    }

    /// Something changed at these Services: what was written may no longer stand there.
    pub(super) fn changed(
        &mut self,
        names: &BTreeSet<ObjectName>,
        version: impl Fn(&ObjectName) -> Option<u64>,
    ) {
        let now = super::now();
        for name in names {
            let Some(one) = self.services.get(name) else { continue };
            match (version(name), &one.state) {
                (None, State::Sent { .. }) => {}
                (None, _) => {
                    self.undue(name);
                    self.services.remove(name);
                }
                (Some(_), State::Written) => self.state(name, State::Due(now)),
                (Some(is), State::Blocked { version, until }) if is > *version => {
                    let at = (*until).max(now);
                    self.state(name, State::Due(at));
                }
                _ => {}
            }
        }
    }

    fn undue(&mut self, name: &ObjectName) {
        if let Some(One { state: State::Due(at), .. }) = self.services.get(name) {
            self.due.remove(&(*at, name.clone()));
        }
    }

    fn state(&mut self, name: &ObjectName, state: State) {
        self.undue(name);
        if let State::Due(at) = state {
            self.due.insert((at, name.clone()));
        }
        if let Some(one) = self.services.get_mut(name) {
            one.state = state;
        }
    }
}

/// Worth another try at once where the wish before it was refused: no ingress is asked for, which
/// nobody else can own and every type of Service may have.
fn insists(write: &StatusWrite) -> bool {
    write.take_over || write.ingress.is_empty()
}

fn doubled(first: Duration, longest: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// What came of a request.
pub(super) enum Outcome {
    /// It stands there; the Service as it is now.
    Written(Box<Service>),
    /// The Service isn't there, or another one is under its name.
    Gone,
    /// Somebody else owns it, or the server doesn't want it: not again before it changes.
    Refused { event: Box<Event>, conflict: bool },
    /// Another time.
    Failed(Trouble),
}

/// A patch on its way.
pub(super) struct Request {
    write: StatusWrite,
    body: Value,
}

impl Request {
    /// The patch; `None` where what is wanted stands there.
    pub(super) fn of(write: StatusWrite, seen: Option<Seen>) -> Option<Self> {
        let seen = seen.filter(|seen| seen.uid == write.uid);
        let ingress: Vec<Written> = write.ingress.iter().map(written).collect();
        let withdraws = ingress.is_empty() && write.programmed.is_none();
        let finalizer = write.finalizer && !withdraws;
        let was = seen.as_ref().and_then(|seen| seen.condition.as_ref());
        let same = |seen: &Seen| {
            let condition = match (&write.programmed, &seen.condition) {
                (None, None) => true,
                (Some(wanted), Some(is)) => {
                    wanted.status == is.status
                        && wanted.reason == is.reason
                        && wanted.message == is.message
                }
                _ => false,
            };
            let ours = seen.ours || withdraws;
            ours && condition && seen.ingress == ingress && seen.finalizer == finalizer
        };
        let nothing_of_ours = seen.as_ref().is_none_or(|seen| !seen.ours && !seen.finalizer);
        if seen.as_ref().is_some_and(same) || (withdraws && nothing_of_ours) {
            return None;
        }
        let mut status = serde_json::Map::new();
        if !ingress.is_empty() {
            let list: Vec<_> = ingress.iter().map(ingress_entry).collect();
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
        if finalizer {
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

    pub(super) async fn send(self, connection: &Connection, limit: Duration) -> Outcome {
        let ObjectName { namespace, name } = &self.write.service;
        let api: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = self.write.take_over;
        let patch = Patch::Apply(&self.body);
        let doing = format!("writing the status of Service {}", self.write.service);
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
        let conflict = !conflicts.is_empty();
        if trouble.sort == Sort::Conflict && !conflict {
            return Outcome::Failed(trouble);
        }
        let service = &self.write.service;
        let (reason, message) = if conflict {
            let whose: BTreeSet<_> = conflicts.iter().map(|one| one.message.as_str()).collect();
            let what: BTreeSet<_> = conflicts.iter().map(|one| one.field.as_str()).collect();
            let (whose, what) = (joined(&whose), joined(&what));
            (
                STATUS_CONFLICT,
                format!(
                    "the status isn't written, another controller owns {what}: {whose}; give the \
                 Service to one of them by spec.loadBalancerClass, and stop the other one or let \
                 it release the status: kubectl -n {} get service {} --show-managed-fields -o yaml",
                    service.namespace, service.name
                ),
            )
        } else {
            (STATUS_REFUSED, format!("the status isn't written: {}", trouble.what))
        };
        let event = Event {
            time_s: 0,
            severity: Severity::Warning,
            reason: reason.to_owned(),
            kind: "Service".to_owned(),
            object: service.clone(),
            uid: self.write.uid.to_string(),
            place: String::new(),
            message,
        };
        Outcome::Refused { event: Box::new(event), conflict }
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
    use std::net::Ipv4Addr;
    use translate::writes::IpMode;

    fn wish(addresses: &[u8]) -> StatusWrite {
        let ingress = addresses.iter().map(|last| Ingress {
            address: Ipv4Addr::new(203, 0, 113, *last).into(),
            mode: IpMode::Proxy,
            ports: Vec::new(),
        });
        StatusWrite {
            service: ObjectName::new("default", "web"),
            uid: "1".into(),
            ingress: ingress.collect(),
            programmed: None,
            finalizer: false,
            take_over: false,
        }
    }

    /// A Service leaves type LoadBalancer while its address is on its way: the address is refused,
    /// and what is wanted now is none.
    #[test]
    fn a_wish_for_less_outlives_the_refusal_of_the_one_before() {
        let mut wanted = Wanted::new(Jitter::seeded(1));
        for (later, expected) in [(wish(&[]), Some(0)), (wish(&[1, 2]), None)] {
            wanted.want(wish(&[1]));
            let now = super::super::now() + Duration::from_secs(1);
            assert_eq!(wanted.next(now).map(|write| write.ingress.len()), Some(1));
            wanted.want(later);
            wanted.settle(&ObjectName::new("default", "web"), Settled::Blocked(7), now);
            assert_eq!(wanted.next(now).map(|write| write.ingress.len()), expected);
            wanted.settle(&ObjectName::new("default", "web"), Settled::Gone, now);
            wanted.settle(&ObjectName::new("default", "web"), Settled::Gone, now);
        }
    }
}
