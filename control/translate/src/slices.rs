//! EndpointSlices, each read once, and the endpoints that those of a Service come to.

use crate::object::{Kind, Place, namespaced};
use crate::problem::{Problem, reason};
use k8s_openapi::api::discovery::v1::{Endpoint as GivenEndpoint, EndpointPort, EndpointSlice};
use model::desired::ObjectName;
use model::ids::{Family, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Label that joins a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Odd endpoints of one slice that are named one by one; the rest is counted.
const ODD_NAMED_MAX: usize = 8;

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    name: Arc<str>,
    protocol: Protocol,
    port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) node: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// Who should use it; most have none.
    pub(crate) hints: Option<Box<Hints>>,
}

impl Endpoint {
    /// It serves its last clients: used where none is ready (KEP-1669).
    pub(crate) const fn is_leaving(&self) -> bool {
        !self.ready && self.serving && self.terminating
    }
}

/// Zones and nodes whose clients an endpoint is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) zones: Vec<Arc<str>>,
    pub(crate) nodes: Vec<Arc<str>>,
}

/// A slice as the index keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) name: ObjectName,
    pub(crate) place: Place,
    /// The Service that it belongs to.
    pub(crate) service: Option<ObjectName>,
    ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// What was left out and why.
    pub(crate) problems: Vec<Problem>,
}

impl Slice {
    /// Reads a slice; odd parts are left out, with a problem each.
    pub(crate) fn read(given: &EndpointSlice, place: Place) -> Self {
        let name = namespaced(&given.metadata);
        let label = given.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let service = label.filter(|text| !text.is_empty());
        let mut odd = Odd::default();
        let family = match given.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            "FQDN" => {
                odd.add("addressType FQDN is not forwarded to: use IPv4 or IPv6".to_owned());
                None
            }
            other => {
                odd.add(format!("addressType \"{other}\" is none of IPv4, IPv6, FQDN"));
                None
            }
        };
        let mut ports = Vec::new();
        let mut endpoints = Vec::new();
        if let Some(family) = family {
            for port in given.ports.iter().flatten() {
                odd.sort_out(&mut ports, read_port(port));
            }
            for endpoint in given.endpoints.iter().flatten() {
                odd.sort_out(&mut endpoints, read_endpoint(endpoint, family));
            }
        }
        let problems = odd.problems(&name, &place);
        let service = service.map(|service| ObjectName::new(&name.namespace, service));
        Self { service, ports, endpoints, problems, name, place }
    }

    /// Some TCP port of its endpoints, to be probed for one of another protocol.
    pub(crate) fn tcp_port(&self) -> Option<u16> {
        self.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.port)
    }

    /// The numbers of the ports of this name and protocol.
    fn numbers<'a>(&'a self, name: &'a str, protocol: Protocol) -> impl Iterator<Item = u16> + 'a {
        let of_name = move |port: &&SlicePort| *port.name == *name && port.protocol == protocol;
        self.ports.iter().filter(of_name).map(|port| port.port)
    }
}

fn read_port(given: &EndpointPort) -> Result<SlicePort, String> {
    let name: Arc<str> = given.name.as_deref().unwrap_or_default().into();
    let port = match given.port {
        None => return Err(format!("port \"{name}\" has no number and is skipped")),
        Some(number) => u16::try_from(number).ok().filter(|&number| number > 0),
    };
    let protocol = match given.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => return Err(format!("protocol \"{other}\" of port \"{name}\" is unknown")),
    };
    let port = port.ok_or_else(|| {
        format!("port \"{name}\" is {}: expected 1 to 65535", given.port.unwrap_or_default())
    })?;
    Ok(SlicePort { name, protocol, port })
}

fn read_endpoint(given: &GivenEndpoint, family: Family) -> Result<Endpoint, String> {
    let Some(text) = given.addresses.first() else {
        return Err("an endpoint has no address".to_owned());
    };
    let address =
        text.parse::<IpAddr>().map_err(|_| format!("endpoint \"{text}\" is not an IP address"))?;
    if Family::of(address) != family {
        return Err(format!("endpoint {address} is not of the slice's addressType {family}"));
    }
    let conditions = given.conditions.as_ref();
    let condition = |value: Option<Option<bool>>, default| value.flatten().unwrap_or(default);
    let name = given.target_ref.as_ref().and_then(|target| target.name.as_deref());
    Ok(Endpoint {
        address,
        node: given.node_name.as_deref().unwrap_or_default().into(),
        name: name.unwrap_or_default().into(),
        ready: condition(conditions.map(|all| all.ready), true),
        serving: condition(conditions.map(|all| all.serving), true),
        terminating: condition(conditions.map(|all| all.terminating), false),
        hints: read_hints(given),
    })
}

fn read_hints(given: &GivenEndpoint) -> Option<Box<Hints>> {
    let hints = given.hints.as_ref()?;
    let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into()).collect();
    let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str().into()).collect();
    let hints = Hints { zones, nodes };
    (hints != Hints::default()).then(|| Box::new(hints))
}

/// Collects what is left out of one slice; names some, counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Odd {
    named: Vec<String>,
    more: usize,
}

impl Odd {
    pub(crate) fn add(&mut self, what: String) {
        if self.named.len() < ODD_NAMED_MAX {
            self.named.push(what);
        } else {
            self.more += 1;
        }
    }
    fn sort_out<T>(&mut self, good: &mut Vec<T>, read: Result<T, String>) {
        match read {
            Ok(one) => good.push(one),
            Err(what) => self.add(what),
        }
    }
    pub(crate) fn problems(self, slice: &ObjectName, place: &Place) -> Vec<Problem> {
        let rest =
            (self.more > 0).then(|| format!("{} more endpoints or ports are refused", self.more));
        let about = |what: String| {
            let problem = Problem::new(reason::ENDPOINT_REFUSED, what);
            problem.about(Kind::EndpointSlice.name(), slice, place)
        };
        self.named.into_iter().chain(rest).map(about).collect()
    }
}

/// A slice with those of its endpoints that may be backends at all.
pub(crate) struct Usable<'a> {
    pub(crate) slice: &'a Slice,
    pub(crate) endpoints: Vec<&'a Endpoint>,
}

/// An endpoint under a port's number, with the slice that it counts from.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) slice: &'a Slice,
}

/// The endpoints of one service port, each address and port once, in their order: those of IPv4
/// come first.
pub(crate) fn join<'a>(
    usable: &[Usable<'a>],
    port_name: &str,
    protocol: Protocol,
) -> Vec<(SocketAddr, Found<'a>)> {
    let mut found = Vec::new();
    for Usable { slice, endpoints } in usable {
        for number in slice.numbers(port_name, protocol) {
            let at = |endpoint: &Endpoint| SocketAddr::new(endpoint.address, number);
            found.extend(endpoints.iter().map(|&one| (at(one), Found { endpoint: one, slice })));
        }
    }
    // Sorted at once: a map would search for the place of each of thousands.
    found.sort_by(|(one, this), (other, that)| {
        one.cmp(other).then_with(|| standing(this.endpoint).cmp(&standing(that.endpoint)))
    });
    found.dedup_by_key(|(address, _)| *address);
    found
}

/// The lower one counts where two slices name one address and port.
fn standing(endpoint: &Endpoint) -> (bool, bool, bool, &str, &str) {
    let Endpoint { terminating, ready, serving, node, name, .. } = endpoint;
    (*terminating, !*ready, !*serving, name, node)
}
