//! From the slices of a Service to what the backends of its ports are chosen among.

use crate::backends::{Chooser, Chosen};
use crate::index::Index;
use crate::problem::{Problem, reason};
use crate::settings::not_global_unicast;
use crate::slices::{Odd, Usable, join};
use crate::spec::{PortSpec, Spec};
use model::desired::{Scope, Target};
use std::net::IpAddr;

impl Index {
    /// The Service's slices with those endpoints that may be backends, and how many may not.
    pub(crate) fn usable(
        &self,
        spec: &Spec,
        served: bool,
        problems: &mut Vec<Problem>,
    ) -> (Vec<Usable<'_>>, usize) {
        let (mut usable, mut refused) = (Vec::new(), 0);
        if spec.withheld.is_some() {
            return (usable, 0);
        }
        // Nobody reaches the endpoints themselves where nodes are the backends.
        let nodes_alone = spec.target(Scope::External) == Target::Node && !spec.wants_cluster_ips;
        for name in self.slices_of.get(spec.name()).into_iter().flatten() {
            let Some(slice) = self.slices.get(name) else { continue };
            let mut odd = Odd::default();
            let mut endpoints = Vec::with_capacity(slice.endpoints.len());
            for endpoint in &slice.endpoints {
                let why = if nodes_alone { None } else { self.refused(endpoint.address) };
                if let Some(why) = why {
                    refused += 1;
                    odd.add(format!("endpoint {} is refused: {why}", endpoint.address));
                } else {
                    endpoints.push(endpoint);
                }
            }
            let told = slice.problems.iter().cloned();
            let told = told.chain(odd.problems(&slice.name, &slice.place));
            problems.extend(told.map(|one| if served { one } else { one.quiet() }));
            usable.push(Usable { slice, endpoints });
        }
        (usable, refused)
    }

    /// Why no endpoint may have `address`.
    fn refused(&self, address: IpAddr) -> Option<String> {
        let guarded = || self.claims.guarded(address).map(|what| format!("it is {what}"));
        self.never_a_backend(address).or_else(guarded)
    }

    /// Why nothing may be sent to `address`, whatever Services there are.
    fn never_a_backend(&self, address: IpAddr) -> Option<String> {
        if let Some(what) = not_global_unicast(address) {
            return Some(format!("it is {what} address"));
        }
        if let Some(what) = self.settings.reserved(address) {
            return Some(format!("it is {what}"));
        }
        (!self.settings.allows_backend(address))
            .then(|| "the configuration allows no backend there ([backend] ranges)".to_owned())
    }

    /// The backends of one port for one scope.
    pub(crate) fn choose(
        &self,
        spec: &Spec,
        port: &PortSpec,
        scope: Scope,
        usable: &[Usable<'_>],
        refused: &mut Vec<Problem>,
    ) -> Chosen {
        let found = join(usable, &port.name, port.protocol);
        let chooser = Chooser {
            namespace: &spec.name().namespace,
            nodes: &self.nodes,
            asked: &self.asked,
            settings: &self.settings.wishes().forwarding,
            wants: &spec.wants,
            protocol: port.protocol,
        };
        match port.node_port {
            Some(node_port) if spec.target(scope) == Target::Node => {
                chooser.nodes(&found, node_port, |node, address| {
                    let why = self.never_a_backend(address);
                    let told = why
                        .as_ref()
                        .map(|why| format!("Node {node} is no backend at {address}: {why}"));
                    let told = told.map(|what| Problem::new(reason::ENDPOINT_REFUSED, what));
                    refused.extend(told);
                    why.is_some()
                })
            }
            _ => chooser.endpoints(&found, scope),
        }
    }
}

/// What an operator is to know of the choice of backends.
pub(crate) fn tell_choice(port: &PortSpec, chosen: &Chosen, problems: &mut Vec<Problem>) {
    let (number, protocol) = (port.port, port.protocol);
    if chosen.cut > 0 {
        let what = format!("{} backends of port {number} are beyond the limit", chosen.cut);
        problems.push(Problem::new(reason::LIMIT_EXCEEDED, what));
    }
    if chosen.failing {
        let what = format!(
            "every backend of port {number}/{protocol} fails its probe: all are used; is the probe \
             right, and may the gateway reach them?"
        );
        problems.push(Problem::new(reason::ALL_PROBES_FAIL, what));
    }
    if chosen.on_unknown_nodes > 0 {
        let what = format!(
            "port {number}/{protocol} has no ready endpoint; some answer on nodes that the API \
             server has lost sight of, and are used"
        );
        problems.push(Problem::new(reason::UNKNOWN_NODES_USED, what));
    }
}
