//! What stands in a Service's status, what should, and when to say so.

use crate::built::Built;
use crate::index::Index;
use crate::problem::{normal, reason};
use crate::settings::Authority;
use crate::spec::{PortSpec, Spec};
use crate::writes::{Ingress, IngressPort, IpMode, Programmed, StatusWrite};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use model::answers::ServiceStatus;
use model::desired::{Forwarding, ObjectName, Origin, Scope, ServicePortKey};
use model::ids::Family;
use std::net::IpAddr;

/// The condition that we write.
const CONDITION: &str = "headgate.dev/Programmed";
/// The finalizer, where one is wanted.
const FINALIZER: &str = "headgate.dev/cleanup";
/// What isn't quite as it was asked for, in the message of a condition that is True.
const LIMITED_MAX: usize = 3;
/// Writes of one Service that are on their way at most; older ones are not waited for.
const PENDING_MAX: usize = 8;

/// One entry of `status.loadBalancer.ingress` as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// `None` for a host name, or what is no address.
    address: Option<IpAddr>,
    mode: String,
    ports: Vec<(i32, String, Option<String>)>,
}

/// What stands in a Service's status and concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    ingress: Vec<Entry>,
    programmed: Option<(bool, String, String)>,
    finalizer: bool,
}

impl Standing {
    pub(crate) fn read(service: &Service) -> Self {
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.into_iter().flat_map(|one| one.ingress.iter().flatten());
        let conditions = status.into_iter().flat_map(|one| one.conditions.iter().flatten());
        let condition = conditions.into_iter().find(|one| one.type_ == CONDITION);
        let mut finalizers = service.metadata.finalizers.iter().flatten();
        Self {
            ingress: ingress.map(entry).collect(),
            programmed: condition
                .map(|one| (one.status == "True", one.reason.clone(), one.message.clone())),
            finalizer: finalizers.any(|one| one == FINALIZER),
        }
    }

    /// The addresses in it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ingress.iter().filter_map(|one| one.address)
    }

    /// Whether it says that all is forwarded.
    fn is_programmed(&self) -> bool {
        self.programmed.as_ref().is_some_and(|(status, ..)| *status)
    }

    /// Whether something of ours is there that withdraws.
    fn has_traces(&self) -> bool {
        self.programmed.is_some() || self.finalizer
    }

    /// Whether what is wanted stands there. What isn't ours to say may be as it is.
    fn has(&self, wanted: &StatusWrite) -> bool {
        if wanted.programmed.is_none() && wanted.ingress.is_empty() {
            return !self.has_traces();
        }
        let programmed = match (&self.programmed, &wanted.programmed) {
            (Some((status, reason, message)), Some(wanted)) => {
                (*status, reason.as_str(), message)
                    == (wanted.status, wanted.reason, &wanted.message)
            }
            (is, wanted) => is.is_none() == wanted.is_none(),
        };
        let ingress = self.ingress.len() == wanted.ingress.len()
            && self.ingress.iter().zip(&wanted.ingress).all(|(is, wanted)| is.is(wanted));
        programmed && ingress && self.finalizer == wanted.finalizer
    }
}

impl Entry {
    fn is(&self, wanted: &Ingress) -> bool {
        let ports = self
            .ports
            .iter()
            .map(|(port, protocol, error)| (*port, protocol.as_str(), error.as_deref()));
        let wanted_ports = wanted.ports.iter();
        let wanted_ports =
            wanted_ports.map(|one| (i32::from(one.port), one.protocol.name(), one.error));
        self.address == Some(wanted.address)
            && self.mode == wanted.mode.name()
            && ports.eq(wanted_ports)
    }
}

fn entry(given: &LoadBalancerIngress) -> Entry {
    let ports = given.ports.iter().flatten();
    Entry {
        address: given.ip.as_deref().and_then(|text| text.parse().ok()),
        mode: given.ip_mode.clone().unwrap_or_default(),
        ports: ports.map(|one| (one.port, one.protocol.clone(), one.error.clone())).collect(),
    }
}

/// What is kept of one Service for the sake of its status.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Known since the last build.
    pub(crate) fresh: bool,
    /// Applied since its status was last followed.
    pub(crate) unread: bool,
    /// Its status differs from what it was.
    pub(crate) moved: bool,
    /// Told to be written and not seen to stand there yet, oldest first.
    pending: Vec<StatusWrite>,
    /// What was forgotten of that may never have been written.
    pub(crate) unwritten: bool,
}

impl Telling {
    pub(crate) fn new() -> Self {
        Self { fresh: true, unread: true, ..Self::default() }
    }

    /// What was told so far is on its way no longer.
    pub(crate) fn forget(&mut self) {
        self.unwritten |= !std::mem::take(&mut self.pending).is_empty();
    }

    /// Whether `wanted` is to be told now.
    fn tells(&mut self, wanted: &StatusWrite, standing: &Standing) -> bool {
        if std::mem::take(&mut self.moved) {
            match self.pending.iter().position(|one| standing.has(one)) {
                // An echo of ours: later ones are still on their way.
                Some(at) => drop(self.pending.drain(..=at)),
                // Somebody else wrote.
                None => self.pending.clear(),
            }
        }
        let right = match self.pending.last() {
            Some(last) => last == wanted,
            None => standing.has(wanted),
        };
        self.unwritten &= !(right && self.pending.is_empty());
        if !right {
            if self.pending.len() == PENDING_MAX {
                self.pending.remove(0);
            }
            self.pending.push(wanted.clone());
        }
        !right
    }
}

impl Index {
    /// What is to be written stands there already, from before a start or from another gateway, so
    /// that whoever wrote it has told the story as well.
    pub(crate) fn stood_before(&self, name: &ObjectName) -> bool {
        if !self.may_be_told || self.settings.authority() == Authority::Local {
            return false;
        }
        let Some(entry) = self.services.get(name) else { return false };
        let Some((status, _)) = &entry.status else { return false };
        let wanted = self.wanted(&entry.spec, status);
        wanted.programmed.is_some() && entry.spec.standing.has(&wanted)
    }

    /// Says what is to be written of the Service, where that isn't said or there yet.
    pub(crate) fn tell_write(&mut self, name: &ObjectName, built: &mut Built) {
        if self.settings.authority() == Authority::Local || !self.writer {
            return;
        }
        let Some(entry) = self.services.get(name) else { return };
        let Some((status, _)) = &entry.status else { return };
        let wanted = self.wanted(&entry.spec, status);
        let Some(entry) = self.services.get_mut(name) else { return };
        let was = match entry.telling.pending.last() {
            Some(last) => last.programmed.as_ref().is_some_and(|one| one.status),
            None => entry.spec.standing.is_programmed(),
        };
        if !entry.telling.tells(&wanted, &entry.spec.standing) {
            return;
        }
        if let Some(programmed) = wanted.programmed.as_ref().filter(|one| one.status && !was) {
            let message = programmed.message.clone();
            self.events.push(normal(reason::PROGRAMMED, &entry.spec, message));
        }
        built.writes.push(wanted);
    }

    fn wanted(&self, spec: &Spec, status: &ServiceStatus) -> StatusWrite {
        let mut ingress = Vec::new();
        for &family in spec.families.iter().filter(|_| spec.balanced) {
            let held = self.ledger.addresses_of(spec.name()).iter();
            let held = held.map(|one| one.address).filter(|&one| Family::of(one) == family);
            ingress.extend(held.map(|address| self.ingress(spec, address)));
        }
        StatusWrite {
            service: spec.name().clone(),
            uid: spec.uid().clone(),
            programmed: self.programmed(spec, status, &ingress),
            ingress,
            finalizer: spec.balanced && self.settings.wishes().finalizer,
            take_over: spec.take_over,
        }
    }

    fn ingress(&self, spec: &Spec, address: IpAddr) -> Ingress {
        let port = |port: &PortSpec| IngressPort {
            port: port.port,
            protocol: port.protocol,
            error: self.error(spec, address, port),
        };
        let mut ports: Vec<_> = spec.ports.iter().map(port).collect();
        if ports.iter().all(|port| port.error.is_none()) {
            ports.clear();
        }
        let keys = self.services.get(spec.name()).into_iter().flat_map(|entry| &entry.keys);
        let mut ports_now = keys.filter_map(|key| self.published.service_ports.get(key));
        let mode = match ports_now.next().map(|port| port.forwarding).unwrap_or_default() {
            Forwarding::Nat | Forwarding::Transparent => IpMode::Proxy,
            Forwarding::Dsr => IpMode::Vip,
        };
        Ingress { address, mode, ports }
    }

    /// Why a port isn't served on one of the Service's addresses.
    fn error(&self, spec: &Spec, address: IpAddr, port: &PortSpec) -> Option<&'static str> {
        let key = ServicePortKey {
            cluster: "".into(),
            service: spec.name().clone(),
            port_name: port.name.clone(),
            protocol: port.protocol,
            scope: Scope::External,
        };
        let at = std::net::SocketAddr::new(address, port.port);
        let published = self.published.service_ports.get(&key);
        if published.is_some_and(|one| one.frontends.iter().any(|front| front.address == at)) {
            return None;
        }
        let claims = self.services.get(spec.name()).map(|entry| &entry.claims);
        let mut claims = claims.into_iter().flatten();
        let claim =
            claims.find(|one| one.socket.address() == at && one.socket.protocol == port.protocol);
        let lost = claim.and_then(|one| self.claims.owner(&one.socket));
        Some(if lost.is_some_and(|owner| owner != spec.name()) {
            "headgate.dev/PortConflict"
        } else if self.over_limit.contains(spec.name()) {
            "headgate.dev/LimitExceeded"
        } else {
            "headgate.dev/NotForwarded"
        })
    }

    /// The condition, for Services that clients outside the cluster are to reach through us.
    fn programmed(
        &self,
        spec: &Spec,
        status: &ServiceStatus,
        ingress: &[Ingress],
    ) -> Option<Programmed> {
        let entry = self.services.get(spec.name())?;
        let outside = entry.claims.iter().any(|claim| claim.origin != Origin::ClusterIp);
        if !spec.balanced && !outside {
            return None;
        }
        let no = |reason, message: String| Some(Programmed { status: false, reason, message });
        if spec.balanced && ingress.is_empty() {
            let problem = entry.address_problems.first().map(|problem| problem.message.clone());
            let problem = problem.or_else(|| spec.problems.first().map(|one| one.message.clone()));
            let what = problem.unwrap_or_else(|| "it has no address yet".to_owned());
            return no(reason::ADDRESS_PENDING, what);
        }
        let errors = ingress.iter().flat_map(|one| &one.ports).filter_map(|port| port.error);
        let reason = errors.into_iter().find_map(|error| error.split('/').nth(1));
        let rows = status.ports.iter().filter(|row| row.key.scope == Scope::External);
        let unserved: Vec<_> = rows
            .clone()
            .filter_map(|row| Some((row.port, row.key.protocol, row.not_forwarded.as_ref()?)))
            .collect();
        if let Some((port, protocol, why)) = unserved.first() {
            let more = match unserved.len() - 1 {
                0 => String::new(),
                more => format!("; {more} more ports are not either"),
            };
            let what = format!("port {port}/{protocol} is not forwarded: {why}{more}");
            return no(reason.unwrap_or(reason::NOT_FORWARDED), what);
        }
        if let Some(reason) = reason {
            let problem = status.problems.first().cloned();
            let what = problem.unwrap_or_else(|| "not every port is forwarded".to_owned());
            return no(reason, what);
        }
        if self.lost.contains(spec.name()) {
            let what = "a limit of the packet path keeps a part from being forwarded; headgate show \
                        events says which";
            return no(reason::LIMIT_EXCEEDED, what.to_owned());
        }
        let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
        let mut message = match addresses.as_slice() {
            [] => "forwarded on the gateway's NodePorts".to_owned(),
            addresses => format!("forwarded on {}", addresses.join(", ")),
        };
        let idle = rows.filter(|row| row.active == 0);
        let idle: Vec<_> = idle.map(|row| format!("{}/{}", row.port, row.key.protocol)).collect();
        if !idle.is_empty() {
            message += &format!("; no backend serves port {}", idle.join(", "));
        }
        // What is forwarded though not quite as it was asked for.
        let limits = [reason::SOURCE_NOT_KEPT, reason::ADDRESS_REFUSED];
        let reasons = status.facts.reasons.iter().zip(&status.problems);
        let limited = reasons.filter(|(reason, _)| limits.contains(&&***reason)).take(LIMITED_MAX);
        limited.for_each(|(_, problem)| message += &format!("; {problem}"));
        Some(Programmed { status: true, reason: reason::PROGRAMMED, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(reason: &'static str) -> StatusWrite {
        StatusWrite {
            service: ObjectName::new("default", "a"),
            uid: "1".into(),
            ingress: Vec::new(),
            programmed: Some(Programmed { status: true, reason, message: String::new() }),
            finalizer: false,
            take_over: false,
        }
    }

    fn standing(reason: &str) -> Standing {
        let programmed = Some((true, reason.to_owned(), String::new()));
        Standing { programmed, ..Standing::default() }
    }

    #[test]
    fn an_echo_of_an_earlier_write_is_no_reason_to_write_again() {
        let mut telling = Telling::default();
        let none = Standing::default();
        assert!(telling.tells(&write("a"), &none));
        assert!(!telling.tells(&write("a"), &none), "it is on its way");
        assert!(telling.tells(&write("b"), &none));
        telling.moved = true;
        assert!(!telling.tells(&write("b"), &standing("a")), "our own first word");
        telling.moved = true;
        assert!(!telling.tells(&write("b"), &standing("b")));
        assert!(telling.pending.is_empty());
        telling.moved = true;
        assert!(telling.tells(&write("b"), &standing("x")), "somebody else's");
        assert!(!telling.tells(&write("b"), &standing("x")), "once for each change of theirs");
        assert!(telling.tells(&write("a"), &standing("x")));
    }

    #[test]
    fn what_was_right_is_said_again_after_something_else_is_on_its_way() {
        let mut telling = Telling::default();
        assert!(!telling.tells(&write("a"), &standing("a")));
        assert!(telling.tells(&write("b"), &standing("a")));
        assert!(telling.tells(&write("a"), &standing("a")));
    }
}
