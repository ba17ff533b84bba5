//! Nodes as backends: `target: node`. Their kube-proxy finishes what the gateway begins.

use crate::backends::{Chooser, Chosen, Standing, keep_best, state};
use crate::forwarding::NodeProbe;
use crate::probes::{Cadence, Check, Health, ProbeKey};
use crate::slices::Found;
use model::desired::Backend;
use model::ids::Family;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The highest weight of a backend.
const WEIGHT_MAX: usize = 1_000;
/// What kube-proxy's health ports answer to.
const HEALTHZ: &str = "/healthz";

/// Endpoints of one family, on one node or everywhere.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ready: usize,
    leaving: usize,
    /// That serve, whatever else.
    serving: usize,
    /// That don't terminate.
    staying: usize,
    /// What is told of them says nothing.
    unknown: bool,
}

impl Tally {
    fn add(&mut self, found: &Found<'_>) {
        let endpoint = found.endpoint;
        self.ready += usize::from(endpoint.ready);
        self.leaving += usize::from(endpoint.is_leaving());
        self.serving += usize::from(endpoint.ready || endpoint.serving);
        self.staying += usize::from(!endpoint.terminating);
    }

    /// Endpoints that clients may reach through it.
    const fn weight(&self, leaving: bool) -> usize {
        if leaving { self.leaving } else { self.ready }
    }
}

/// A node that may be a backend.
struct Candidate<'a> {
    name: &'a Arc<str>,
    address: SocketAddr,
    tally: Tally,
    weight: usize,
    active: bool,
}

/// How a node's health is known.
enum Ask {
    /// Nobody asks: it is healthy.
    Nothing,
    /// The probe of the node as a whole.
    Node,
    /// One of the Service's own.
    Own(ProbeKey, Cadence),
}

impl Chooser<'_> {
    /// The nodes at their nodePort. Policy Cluster takes every node that may be a backend as soon
    /// as some endpoint can be reached through it; Local those that hold endpoints. `refused`
    /// says why an address can't be a backend.
    pub(crate) fn nodes(
        &self,
        found: &[(SocketAddr, Found<'_>)],
        node_port: u16,
        mut refused: impl FnMut(&str, IpAddr) -> bool,
    ) -> Chosen {
        let mut chosen = Chosen::default();
        for family in [Family::V4, Family::V6] {
            let mut total = Tally::default();
            let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
            for (_, found) in found.iter().filter(|(at, _)| Family::of(at.ip()) == family) {
                total.add(found);
                let node = &found.endpoint.node;
                let tally = tallies.entry(node).or_default();
                tally.add(found);
                tally.unknown |= self.nodes.is_unknown(node, &found.slice.name);
            }
            let known = !tallies.is_empty();
            let local = self.wants.external_local;
            let candidates = self.nodes.iter().filter_map(|(name, facts)| {
                let tally = tallies.get(&**name).copied();
                let address = facts.internal[family.index()]?;
                let may = !facts.excluded && (known && !local || tally.is_some());
                (may && !refused(name, address)).then(|| Candidate {
                    name,
                    address: SocketAddr::new(address, node_port),
                    tally: tally.unwrap_or_default(),
                    weight: 0,
                    active: false,
                })
            });
            let mut candidates: Vec<_> = candidates.collect();
            candidates.sort_by_key(|one| one.address);
            candidates.dedup_by_key(|one| one.address);
            self.weigh(&mut candidates, total);
            if candidates.iter().any(|one| one.active) {
                self.asked_about(&mut candidates, &mut chosen);
            } else {
                self.unknown_nodes(&mut candidates, &mut chosen);
            }
            let none = !candidates.iter().any(|one| one.active);
            let exist = total.ready + total.leaving > 0;
            chosen.out_of_reach[family.index()] = local && exist && none;
            let serves = |one: &Candidate<'_>| if local { one.tally } else { total }.serving > 0;
            let backend = |one: &Candidate<'_>| Backend {
                address: one.address,
                node: one.name.clone(),
                via: Some(one.address.ip()),
                name: "".into(),
                weight: u16::try_from(one.weight.clamp(1, WEIGHT_MAX)).unwrap_or(1),
                state: state(one.active, serves(one)),
            };
            chosen.take(candidates.iter().map(backend).collect());
        }
        chosen
    }

    /// Those that clients may be sent to, and their shares.
    fn weigh(&self, candidates: &mut [Candidate<'_>], total: Tally) {
        let local = self.wants.external_local;
        let leaving = if local {
            candidates.iter().all(|one| one.tally.ready == 0)
        } else {
            total.ready == 0
        };
        for one in candidates {
            one.weight = one.tally.weight(leaving);
            one.active = if local { one.weight > 0 } else { total.weight(leaving) > 0 };
        }
    }

    /// Leaves the nodes that their probes are content with, unless that is none.
    fn asked_about(&self, candidates: &mut [Candidate<'_>], chosen: &mut Chosen) {
        let mut standings = Vec::with_capacity(candidates.len());
        for one in candidates.iter_mut() {
            let health = match self.ask(one) {
                _ if !one.active => Health::Unhealthy { closed: false },
                Ask::Nothing => Health::Healthy { weight: None },
                Ask::Node => self.asked.node_health(one.name),
                Ask::Own(key, cadence) => {
                    let health = self.asked.health(&key);
                    chosen.probes.push((key, cadence));
                    health
                }
            };
            if let Health::Healthy { weight: Some(weight) } = health {
                one.weight = usize::try_from(weight).unwrap_or(WEIGHT_MAX);
            }
            standings.push(Standing::of(health));
        }
        if !keep_best(&standings, candidates.iter_mut().map(|one| &mut one.active)) {
            chosen.failing = true;
        }
    }

    fn ask(&self, node: &Candidate<'_>) -> Ask {
        let at = |port| SocketAddr::new(node.address.ip(), port);
        let node_port = self.tcp(node.address.port());
        if let Some(wish) = &self.wants.probe {
            let Some(port) = wish.port.or(node_port) else { return Ask::Nothing };
            return self.own(at(port), wish.check.clone());
        }
        let own = |port, check| self.own(at(port), check);
        let health_check = self.wants.health_check_node_port.filter(|_| self.wants.external_local);
        match (self.wants.node_probe, health_check) {
            (NodeProbe::Off, _) => Ask::Nothing,
            (NodeProbe::HealthCheckNodePort, Some(port)) => {
                own(port, Check::Http { path: HEALTHZ.into() })
            }
            _ if !self.asked.healthz_is_closed() => Ask::Node,
            _ => node_port.map_or(Ask::Nothing, |port| own(port, Check::Tcp)),
        }
    }

    /// A question of the Service's own.
    fn own(&self, address: SocketAddr, check: Check) -> Ask {
        Ask::Own(self.probe_of_node(address, check), self.wants.cadence)
    }

    fn probe_of_node(&self, address: SocketAddr, check: Check) -> ProbeKey {
        ProbeKey { namespace: self.namespace.clone(), address, via: None, check }
    }

    /// Where no endpoint is left: nodes out of sight with endpoints that may well serve.
    fn unknown_nodes(&self, candidates: &mut [Candidate<'_>], chosen: &mut Chosen) {
        if self.settings.ignore_unknown_nodes {
            return;
        }
        for one in candidates.iter_mut() {
            let Some(port) = self.tcp(one.address.port()) else { return };
            if !one.tally.unknown || one.tally.staying == 0 {
                continue;
            }
            let address = SocketAddr::new(one.address.ip(), port);
            let key = self.probe_of_node(address, Check::Tcp);
            one.active = matches!(self.asked.health(&key), Health::Healthy { .. });
            one.weight = one.tally.staying;
            chosen.on_unknown_nodes += usize::from(one.active);
            chosen.probes.push((key, self.wants.cadence));
        }
    }
}
