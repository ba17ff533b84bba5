//! Why: a flow's way through the gateway, and a Service's way to being served.

use super::gateway::Running;
use admin::GatewayError;
use model::answers::{FlowAnswer, FlowExplanation, ServiceExplanation, ServiceStatus, Step};
use model::desired::{Backend, BackendState, DesiredState, ObjectName, Origin, ServicePort};
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// How long a backend may take to answer a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Adds to the packet path's answer what the control side knows.
pub fn flow(desired: &DesiredState, flow: FiveTuple, answer: FlowAnswer) -> FlowExplanation {
    let port = answer.service.as_ref().and_then(|key| desired.service_ports.get(key));
    let frontend = answer.connection.as_ref().map_or(flow.destination, |c| c.frontend);
    let origin = port.and_then(|port| {
        let found = port.frontends.iter().find(|f| f.address == frontend)?;
        Some(match &found.origin {
            Origin::LoadBalancer { pool } => format!("LoadBalancer, pool {pool}"),
            other => other.name().to_owned(),
        })
    });
    let backend_name = answer.selected.and_then(|address| {
        let backend = port?.backends.iter().find(|backend| backend.address == address)?;
        (!backend.name.is_empty()).then(|| backend.name.to_string())
    });
    let remedy = answer.drop.map(|reason| reason.remedy().to_owned()).or_else(|| {
        let words = match answer.chosen_by.as_str() {
            "frontend_address" => {
                "no Service has this port on that address: the client is refused at once; headgate \
                 show services lists the ports"
            }
            "nat_address" => "a NAT address takes replies of connections alone",
            "own_address" => "the address is the host's own: its kernel answers",
            _ => return None,
        };
        Some(words.to_owned())
    });
    FlowExplanation { flow, answer, origin, backend_name, remedy }
}

/// The steps, up to the first "no".
struct Walk(Vec<Step>);

impl Walk {
    /// Adds a step; true where the walk goes on.
    fn step(&mut self, question: &str, good: bool, finding: String, remedy: &str) -> bool {
        self.0.push(Step {
            question: question.to_owned(),
            good,
            finding,
            remedy: (!good).then(|| remedy.to_owned()),
        });
        good
    }
}

/// Walks from the Service to its backends.
pub fn service(running: &Running, name: &ObjectName) -> Result<ServiceExplanation, GatewayError> {
    let (status, ports) = {
        let books = running.books();
        let status = books.statuses.get(name).cloned().ok_or_else(|| {
            GatewayError::NotFound(format!(
                "no Service {name} is known; headgate show services -A lists those that are"
            ))
        })?;
        let ports = books.desired.service_ports.values();
        let ports = ports.filter(|port| port.key.service == *name).cloned();
        (status, ports.collect::<Vec<_>>())
    };
    let mut walk = Walk(Vec::new());
    walk_service(running, &status, &ports, &mut walk);
    Ok(ServiceExplanation { service: name.clone(), steps: walk.0 })
}

fn walk_service(
    running: &Running,
    status: &ServiceStatus,
    ports: &[Arc<ServicePort>],
    walk: &mut Walk,
) -> bool {
    let why_not: Vec<String> =
        status.ports.iter().filter_map(|port| port.not_forwarded.clone()).collect();
    let problems =
        || status.problems.iter().chain(&why_not).cloned().collect::<Vec<_>>().join("; ");
    let known: u32 = status.ports.iter().map(|port| port.known).sum();
    let active: u32 = status.ports.iter().map(|port| port.active).sum();
    let name = &status.name;
    let (namespace, object) = (&name.namespace, &name.name);
    let addresses: Vec<String> =
        status.addresses.iter().map(|address| address.to_string()).collect();
    let frontends: usize = ports.iter().map(|port| port.frontends.len()).sum();
    walk.step(
        "is it served here",
        !ports.is_empty(),
        match ports.len() {
            0 => problems(),
            n => format!("{} of type {}, {n} ports", name, status.service_type),
        },
        &format!("kubectl -n {namespace} describe service {object}; headgate show events"),
    ) && walk.step(
        "has it an address",
        frontends > 0,
        match frontends {
            0 => problems(),
            n => format!("{n} frontends on {}", addresses.join(", ")),
        },
        "headgate show events says what was refused, and why",
    ) && walk.step(
        "has it endpoints",
        known > 0,
        format!("{known} in its EndpointSlices"),
        &format!(
            "kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={object}; \
                 does the selector match any pod?"
        ),
    ) && walk.step(
        "is one ready",
        active > 0,
        format!("{active} of {known} take new connections"),
        &format!("kubectl -n {namespace} get pods -o wide; look at their readiness probes"),
    ) && walk_ways(running, ports, walk)
}

fn walk_ways(running: &Running, ports: &[Arc<ServicePort>], walk: &mut Walk) -> bool {
    let adjacencies = running.engine.adjacencies();
    let active: Vec<(Protocol, &Backend)> = ports
        .iter()
        .flat_map(|port| port.backends.iter().map(|backend| (port.key.protocol, backend)))
        .filter(|(_, backend)| backend.state == BackendState::Active)
        .collect();
    let hop = |backend: &Backend| adjacencies.hop(backend.address.ip(), backend.via);
    let lost = active.iter().find(|(_, backend)| hop(backend).is_none());
    walk.step(
        "is there a way to each backend",
        lost.is_none(),
        match lost {
            Some((_, backend)) => format!("no route to {}", backend.address.ip()),
            None => format!("{} backends", active.len()),
        },
        DropReason::NoRoute.remedy(),
    ) && {
        let silent = active
            .iter()
            .find(|(_, b)| hop(b).is_some_and(|hop| hop.adjacency.is_none()))
            .and_then(|(_, backend)| hop(backend));
        walk.step(
            "are their next hops resolved",
            silent.is_none(),
            match silent {
                Some(hop) => format!("{} does not answer ARP or neighbour discovery", hop.address),
                None => "all of them".to_owned(),
            },
            DropReason::NeighbourUnresolved.remedy(),
        )
    } && probe(&active, walk)
}

/// Connects to one TCP backend from the host, by way of the mirror.
fn probe(active: &[(Protocol, &Backend)], walk: &mut Walk) -> bool {
    let Some((_, backend)) = active.iter().find(|(protocol, _)| *protocol == Protocol::Tcp) else {
        return true;
    };
    let connected = TcpStream::connect_timeout(&backend.address, PROBE_MAX);
    let finding = match &connected {
        Ok(_) => format!("{} accepts connections", backend.address),
        Err(error) => format!("{}: {error}", backend.address),
    };
    walk.step(
        "does a backend answer",
        connected.is_ok(),
        finding,
        "does the process listen on that port, and does a network policy let the gateway in?",
    )
}
