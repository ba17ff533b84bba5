//! Where the gateway differs from kube-proxy on purpose: the one list of it, with the reasons.

use crate::kube_proxy::Said;
use crate::probe::Answer;
use crate::world::OWN;
use model::drops::DropReason;
use model::ids::Protocol;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Label: another program plays kube-proxy for this Service.
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Where a frontend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A LoadBalancer address.
    LoadBalancer,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// A nodePort on an address of the gateway, which is kube-proxy's node here.
    NodePort,
    /// A cluster address.
    ClusterIp,
}

/// The Service that has a frontend now.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The Service.
    pub service: Arc<Value>,
    /// How it has it.
    pub origin: Origin,
    /// Which of its ports.
    pub port: usize,
}

impl Owner {
    /// The nodePort, where nodes are the backends.
    pub fn to_nodes(&self) -> Option<u16> {
        let wanted = self.service["metadata"]["annotations"]["headgate.dev/target"] == "node";
        let number = self.service["spec"]["ports"][self.port]["nodePort"].as_u64();
        let other_proxy = self.service["metadata"]["labels"][PROXY_NAME].is_string();
        let wanted = wanted && !other_proxy && self.origin != Origin::ClusterIp;
        let number = number.filter(|_| wanted);
        number.and_then(|number| u16::try_from(number).ok())
    }
}

/// What a node does with what the gateway sends to its nodePort.
#[derive(Debug)]
pub struct SecondHop<'a> {
    /// The Node, where there is one.
    pub object: Option<&'a Value>,
    /// Its InternalIP.
    pub address: IpAddr,
    /// What its kube-proxy does.
    pub answer: Answer,
}

impl SecondHop<'_> {
    /// Whether the node may be a backend at all (item 24).
    fn may(&self) -> bool {
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        self.object.is_some_and(|node| {
            let excluded = node["metadata"]["labels"][label].as_str();
            node["spec"]["taints"].is_null() && excluded.is_none_or(|text| text == "false")
        })
    }
}

/// A question and all that bears on it.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Protocol of the packets.
    pub protocol: Protocol,
    /// Where they go.
    pub destination: SocketAddr,
    /// Whose frontend that is, if anybody's.
    pub owner: Option<Owner>,
    /// All slices.
    pub slices: Vec<&'a Value>,
    /// The gateway serves some port of the address.
    pub taken: bool,
    /// The Service that has the address as its ClusterIP.
    pub cluster_of: Option<&'a Value>,
    /// What kube-proxy does with packets from outside.
    pub outside: &'a Said,
    /// What kube-proxy does with packets of its own node.
    pub inside: &'a Said,
    /// The same of a kube-proxy in no zone, where the gateway stands in one.
    pub nowhere: Option<&'a Said>,
    /// What the nodes do with what the gateway sends them, where they are the backends.
    pub nodes: Option<Vec<SecondHop<'a>>>,
    /// A client.
    pub client: IpAddr,
}

/// What the gateway is to do in the place of what kube-proxy does.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// This.
    Exactly(Answer),
    /// Some of these backends, and no other.
    Some(Answer),
    /// What kube-proxy does is undefined: chance decides there.
    Anything,
}

impl Wanted {
    /// The answer that is likely.
    pub const fn first(&self) -> &Answer {
        match self {
            Self::Exactly(answer) | Self::Some(answer) => answer,
            Self::Anything => &Answer::NotOurs,
        }
    }

    /// Whether the gateway did what is wanted.
    ///
    /// # Errors
    /// What it did in its place.
    pub fn judge(&self, got: Result<Answer, String>) -> Result<(), String> {
        let got = got?;
        let right = match (self, &got) {
            (Self::Anything, _) => true,
            // Which reason a drop has is for other tests.
            (Self::Exactly(Answer::Drop(_)), Answer::Drop(_)) => true,
            (Self::Exactly(answer), got) => answer == got,
            (Self::Some(Answer::Backends(all)), Answer::Backends(some)) => {
                !some.is_empty() && some.is_subset(all)
            }
            (Self::Some(_), _) => false,
        };
        right.then_some(()).ok_or_else(|| format!("{got}, and not {self:?}"))
    }
}

/// One way in which the two differ.
#[derive(Debug)]
pub struct Difference {
    /// What it is.
    pub name: &'static str,
    /// Why it is on purpose.
    pub reason: &'static str,
    /// Where it applies: what is wanted then. The first that applies counts.
    pub wanted: fn(&Asked<'_>) -> Option<Wanted>,
}

/// Differences in what the two are told, made before anybody is asked.
pub const TOLD: &[(&str, &str)] = &[
    (
        "addresses as VIP",
        "the gateway's status says ipMode Proxy, and kube-proxy programs no such address: it is \
         told VIP, to have an answer to compare with",
    ),
    (
        "proxy name",
        "kube-proxy leaves a Service labelled service-proxy-name alone; the gateway serves its \
         LoadBalancer addresses, since the class decides: kube-proxy isn't told of the label",
    ),
    (
        "refused endpoints",
        "an endpoint that is an address of the gateway or a ClusterIP would be a loop: the gateway \
         refuses it, kube-proxy would send there and isn't told of it",
    ),
    (
        "nil names",
        "kube-proxy skips a slice's port without a name, which no API server lets through: it \
         fills in the empty name, as the gateway does; kube-proxy is told that name",
    ),
];

/// The list.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "SCTP",
        reason: "SCTP is not forwarded yet: each Service that asks for it says so in an Event",
        wanted: |asked| {
            let nothing_else = asked.cluster_of.is_some_and(|service| {
                let ports = service["spec"]["ports"].as_array();
                ports.is_some_and(|all| all.iter().all(|port| port["protocol"] == "SCTP"))
            });
            if asked.owner.is_none() && nothing_else {
                return Some(Wanted::Exactly(Answer::NotOurs));
            }
            (asked.protocol == Protocol::Sctp).then_some(Wanted::Anything)
        },
    },
    Difference {
        name: "slices disagree",
        reason: "two slices say different things of one endpoint: kube-proxy's answer depends on \
                 the order of a map, ours on the endpoint alone",
        wanted: |asked| disagree(asked).then_some(Wanted::Anything),
    },
    Difference {
        name: "NodePorts and ClusterIPs of another proxy",
        reason: "a Service labelled service-proxy-name leaves them to that proxy",
        wanted: |asked| {
            let labelled = |service: &Value| service["metadata"]["labels"][PROXY_NAME].is_string();
            let node_port = is(asked, Origin::NodePort)
                && asked.owner.as_ref().is_some_and(|owner| labelled(&owner.service));
            let hidden = node_port || asked.cluster_of.is_some_and(labelled);
            hidden.then_some(Wanted::Exactly(Answer::NotOurs))
        },
    },
    Difference {
        name: "nodePorts of LoadBalancer Services",
        reason: "the gateway serves them only with the annotation headgate.dev/node-ports",
        wanted: |asked| {
            let owner = asked.owner.as_ref()?;
            let asks = &owner.service["metadata"]["annotations"]["headgate.dev/node-ports"];
            let hidden = owner.origin == Origin::NodePort
                && owner.service["spec"]["type"] == "LoadBalancer"
                && asks != "true";
            hidden.then_some(Wanted::Exactly(Answer::NotOurs))
        },
    },
    Difference {
        name: "externalIPs that nobody allowed",
        reason: "externalIPs are a way to take others' addresses: served in configured ranges alone",
        wanted: |asked| {
            let outside = is(asked, Origin::ExternalIp)
                && asked.destination.ip().to_string().starts_with("192.0.2.");
            outside.then_some(Wanted::Exactly(Answer::NotOurs))
        },
    },
    Difference {
        name: "ports that nobody has",
        reason: "an address of the gateway's refuses its unused ports, so that clients needn't \
                 wait; kube-proxy knows of the used ports alone and leaves the rest to the host",
        wanted: |asked| {
            let free = asked.owner.is_none() && asked.taken;
            free.then_some(Wanted::Exactly(Answer::Reject))
        },
    },
    Difference {
        name: "source ranges guard nodePorts",
        reason: "kube-proxy guards LoadBalancer addresses alone; a nodePort on the gateway would \
                 be a way round every range",
        wanted: |asked| {
            let spec = &asked.owner.as_ref()?.service["spec"];
            if asked.outside.answer == Answer::NotOurs {
                return None;
            }
            let blocked = is(asked, Origin::NodePort)
                && spec["type"] == "LoadBalancer"
                && !in_ranges(spec, asked.client);
            blocked.then_some(Wanted::Exactly(Answer::Drop(DropReason::NoBackend)))
        },
    },
    Difference {
        name: "target node",
        reason: "the gateway sends to nodes, and their kube-proxies choose the endpoint: to those \
                 that would have a backend, and that may be one (item 24)",
        wanted: to_nodes,
    },
    Difference {
        name: "hints under Local",
        reason: "hints choose under the policy Cluster alone: the gateway has no endpoint nearby",
        wanted: |asked| {
            let nowhere = asked.nowhere?;
            is_local(asked).then(|| Wanted::Exactly(nowhere.answer.clone()))
        },
    },
    Difference {
        name: "the gateway is no node: Local with target endpoint",
        reason: "no endpoint is local to a gateway, and all are one hop away: Local chooses among \
                 the endpoints of Cluster, as kube-proxy does for its node's own packets",
        wanted: |asked| is_local(asked).then(|| Wanted::Exactly(asked.inside.answer.clone())),
    },
];

fn is_local(asked: &Asked<'_>) -> bool {
    asked.owner.as_ref().is_some_and(|owner| {
        owner.service["spec"]["externalTrafficPolicy"] == "Local"
            && owner.origin != Origin::ClusterIp
    })
}

fn to_nodes(asked: &Asked<'_>) -> Option<Wanted> {
    let port = asked.owner.as_ref()?.to_nodes()?;
    let nodes = asked.nodes.as_ref()?;
    // Nobody's, or outside of the source ranges: those aren't the nodes' to decide.
    let guarded = |said: &Said| matches!(said.answer, Answer::Drop(_));
    if asked.outside.answer == Answer::NotOurs || guarded(asked.outside) && guarded(asked.inside) {
        return None;
    }
    let mut backends = BTreeSet::new();
    let mut dropped = false;
    for node in nodes {
        match node.answer {
            Answer::Backends(_) if node.may() => {
                backends.insert(SocketAddr::new(node.address, port));
            }
            // There are endpoints, but not for who comes this way.
            Answer::Backends(_) | Answer::Drop(_) => dropped = true,
            _ => {}
        }
    }
    Some(if !backends.is_empty() && is_local(asked) {
        // A node whose endpoints all terminate is left out while another has a ready one.
        Wanted::Some(Answer::Backends(backends))
    } else if !backends.is_empty() {
        Wanted::Exactly(Answer::Backends(backends))
    } else if dropped && is_local(asked) {
        Wanted::Exactly(Answer::Drop(DropReason::NoBackend))
    } else {
        Wanted::Exactly(Answer::Reject)
    })
}

fn is(asked: &Asked<'_>, origin: Origin) -> bool {
    asked.owner.as_ref().is_some_and(|owner| owner.origin == origin)
}

/// Whether the Service's source ranges let the client in.
fn in_ranges(spec: &Value, client: IpAddr) -> bool {
    let ranges = spec["loadBalancerSourceRanges"].as_array().into_iter().flatten();
    let ranges = ranges.filter_map(|text| text.as_str()?.trim().parse::<ipnet::IpNet>().ok());
    let of_family: Vec<_> = ranges.filter(|one| one.addr().is_ipv4() == client.is_ipv4()).collect();
    of_family.is_empty() || of_family.iter().any(|one| one.contains(&client))
}

/// Two endpoints of the Service have one address and differ, neither of them terminating, or both.
fn disagree(asked: &Asked<'_>) -> bool {
    let Some(owner) = &asked.owner else { return false };
    let mut seen: Vec<(&str, bool, String)> = Vec::new();
    let of_service = asked.slices.iter().filter(|slice| {
        slice["metadata"]["labels"]["kubernetes.io/service-name"]
            == owner.service["metadata"]["name"]
    });
    for endpoint in of_service.flat_map(|slice| slice["endpoints"].as_array().unwrap()) {
        let Some(address) = endpoint["addresses"][0].as_str() else { continue };
        let given = |name: &str, default| endpoint["conditions"][name].as_bool().unwrap_or(default);
        let terminating = given("terminating", false);
        let all = (given("ready", true), given("serving", true), &endpoint["hints"]);
        let all = format!("{all:?}");
        let clash =
            |one: &(&str, bool, String)| one.0 == address && one.1 == terminating && one.2 != all;
        if seen.iter().any(clash) {
            return true;
        }
        seen.push((address, terminating, all));
    }
    false
}

/// The Service as kube-proxy is told of it.
pub fn service_as_told(service: &Value, addresses: &[IpAddr]) -> Value {
    let mut told = with_ingress(service.clone(), addresses);
    if let Some(labels) = told["metadata"]["labels"].as_object_mut() {
        labels.remove(PROXY_NAME);
    }
    told
}

/// The slice as kube-proxy is told of it.
pub fn slice_as_told(slice: &Value, services: &[&Value]) -> Value {
    let mut told = slice.clone();
    let refused = |endpoint: &Value| {
        let address = &endpoint["addresses"][0];
        OWN.iter().any(|own| address == own)
            || services.iter().any(|service| {
                let all = service["spec"]["clusterIPs"].as_array();
                all.is_some_and(|all| all.contains(address))
            })
    };
    if let Some(endpoints) = told["endpoints"].as_array_mut() {
        endpoints.retain(|endpoint| !refused(endpoint));
    }
    for port in told["ports"].as_array_mut().into_iter().flatten() {
        if port["name"].is_null() {
            port["name"] = Value::from("");
        }
    }
    told
}

/// An object for kube-proxy with `status.loadBalancer`.
pub(crate) fn with_ingress(mut service: Value, addresses: &[IpAddr]) -> Value {
    let ingress: Vec<Value> =
        addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}
