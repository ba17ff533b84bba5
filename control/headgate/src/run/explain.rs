//! Why: a flow's way through the gateway, and a Service's way to being served.

use super::gateway::Running;
use super::walk::{self, Known, Way};
use admin::GatewayError;
use model::answers::{FlowAnswer, FlowExplanation, ServiceExplanation};
use model::desired::{DesiredState, ObjectName, Origin};
use model::ids::FiveTuple;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a backend may take to answer a probe.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Adds to the packet path's answer what the control side knows.
pub fn flow(
    desired: &DesiredState,
    node_ports: &[IpAddr],
    flow: FiveTuple,
    answer: FlowAnswer,
) -> FlowExplanation {
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
    let elsewhere = || {
        let ours = matches!(answer.chosen_by.as_str(), "not_ours" | "own_address" | "nat_address");
        if ours { node_port_elsewhere(desired, node_ports, flow.destination) } else { None }
    };
    let remedy = elsewhere().or_else(|| answer.drop.map(|reason| reason.remedy().to_owned()));
    let remedy = remedy.or_else(|| {
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

/// Who asks a nodePort of an address that isn't one of those where NodePorts are answered.
fn node_port_elsewhere(
    desired: &DesiredState,
    node_ports: &[IpAddr],
    asked: SocketAddr,
) -> Option<String> {
    let mut ports = desired.service_ports.values();
    let owner = ports.find(|port| {
        let mut frontends = port.frontends.iter();
        frontends.any(|one| one.origin == Origin::NodePort && one.address.port() == asked.port())
    })?;
    let list: Vec<String> = node_ports.iter().map(IpAddr::to_string).collect();
    Some(format!(
        "nodePort {} of {} is answered on {} alone ([node_port] addresses)",
        asked.port(),
        owner.key.service,
        list.join(", ")
    ))
}

/// Walks from the Service to its backends.
pub fn service(running: &Running, name: &ObjectName) -> Result<ServiceExplanation, GatewayError> {
    let (status, ports) = {
        let books = running.books();
        let status = books.statuses.get(name).cloned().ok_or_else(|| {
            let ObjectName { namespace, name: service } = name;
            let served = books.desired.service_ports.keys().filter(|key| key.service == *name);
            let served = served.count();
            if served > 0 {
                let source = &books.source_name;
                return GatewayError::Unavailable(format!(
                    "{served} ports of Service {name} are forwarded as they were stored; {source} \
                     has not been read yet, which headgate status tells more of"
                ));
            }
            GatewayError::NotFound(format!(
                "no Service {name} is known; kubectl -n {namespace} get service {service} shows \
                 whether there is one, headgate show services -A those that are known"
            ))
        })?;
        let ports = books.desired.service_ports.values();
        let ports = ports.filter(|port| port.key.service == *name).cloned();
        (status, ports.collect::<Vec<_>>())
    };
    let adjacencies = running.engine.adjacencies();
    let way = |address, via| match adjacencies.hop(address, via) {
        None => Way::None,
        Some(hop) if hop.adjacency.is_none() => Way::Silent(hop.address),
        Some(_) => Way::Resolved,
    };
    Ok(walk::walk(&Known {
        status: &status,
        ports: &ports,
        class: &running.facts.class,
        node_ports: &running.facts.node_ports,
        fronts: &running.facts.fronts,
        way: &way,
        connect: &|asked: &[(SocketAddr, Option<IpAddr>)]| connect(running, asked),
    }))
}

/// Connects to all of these at once from the host, by way of the mirror and their next hops.
fn connect(running: &Running, asked: &[(SocketAddr, Option<IpAddr>)]) -> Vec<io::Result<()>> {
    let ways = asked.iter().filter_map(|(address, via)| Some((address.ip(), (*via)?)));
    let _ways: Vec<_> = ways.map(|(address, via)| running.engine.host_way(address, via)).collect();
    running.engine.wait_for_host_ways(PROBE_MAX);
    std::thread::scope(|scope| {
        let ask = |address: SocketAddr| {
            scope.spawn(move || TcpStream::connect_timeout(&address, PROBE_MAX).map(|_| ()))
        };
        let asked: Vec<_> = asked.iter().map(|(address, _)| ask(*address)).collect();
        let failed = || io::Error::other("the question failed");
        asked.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(failed()))).collect()
    })
}
