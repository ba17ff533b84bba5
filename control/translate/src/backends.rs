//! The choice of backends among the endpoints of a service port: `target: endpoint`.

use crate::forwarding::{ForwardingSettings, ProbeWish, Wants};
use crate::nodes::Nodes;
use crate::probes::{Asked, Cadence, Check, Health, ProbeKey};
use crate::slices::{Endpoint, Found};
use model::desired::{Backend, BackendState, Scope};
use model::ids::{Family, Protocol};
use model::limits::BACKENDS_PER_SERVICE_MAX;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a service port's backends come to.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// In order of address; both families.
    pub(crate) backends: Vec<Backend>,
    /// How many a limit cut off.
    pub(crate) cut: usize,
    /// By family: there are endpoints, yet none that the policy lets be used from here.
    pub(crate) out_of_reach: [bool; 2],
    /// What decides about them.
    pub(crate) probes: Vec<(ProbeKey, Cadence)>,
    /// Every probe fails, and all are used nevertheless.
    pub(crate) failing: bool,
    /// Backends on nodes that the API server has lost sight of, used for want of others.
    pub(crate) on_unknown_nodes: usize,
}

/// What the choice looks at.
pub(crate) struct Chooser<'a> {
    /// Of the Service.
    pub(crate) namespace: &'a Arc<str>,
    pub(crate) nodes: &'a Nodes,
    pub(crate) asked: &'a Asked,
    pub(crate) settings: &'a ForwardingSettings,
    pub(crate) wants: &'a Wants,
    pub(crate) protocol: Protocol,
}

/// What probes tell of a candidate, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It answers as it should, or isn't asked.
    Good,
    /// It hasn't been heard yet: nothing for it while another is known to be good.
    Waiting,
    /// It fails, or is no candidate.
    Bad,
}

impl Standing {
    pub(crate) const fn of(health: Health) -> Self {
        match health {
            Health::Healthy { .. } => Self::Good,
            Health::Unknown => Self::Waiting,
            Health::Unhealthy { .. } => Self::Bad,
        }
    }
}

/// Leaves active those that stand best. False, and nothing changes, where all are bad.
pub(crate) fn keep_best<'a>(
    standings: &[Standing],
    active: impl Iterator<Item = &'a mut bool>,
) -> bool {
    let best = standings.iter().min().copied().unwrap_or(Standing::Bad);
    if best == Standing::Bad {
        return false;
    }
    standings.iter().zip(active).for_each(|(standing, active)| *active &= *standing == best);
    true
}

/// Which hints count.
enum Prefer<'a> {
    All,
    Node(&'a str),
    Zone(&'a str),
}

impl Prefer<'_> {
    fn takes(&self, endpoint: &Endpoint) -> bool {
        let hints = endpoint.hints.as_ref();
        match self {
            Self::All => true,
            Self::Node(node) => {
                hints.is_some_and(|hints| hints.nodes.iter().any(|one| **one == **node))
            }
            Self::Zone(zone) => {
                hints.is_some_and(|hints| hints.zones.iter().any(|one| **one == **zone))
            }
        }
    }
}

impl Chooser<'_> {
    /// The endpoints themselves, for one scope. For each family: ready ones are active; if there
    /// are none, those that serve while they terminate; if there are none either, those on nodes
    /// out of sight that answer. Of the others those that serve drain.
    pub(crate) fn endpoints(&self, found: &[(SocketAddr, Found<'_>)], scope: Scope) -> Chosen {
        let mut chosen = Chosen::default();
        for family in [Family::V4, Family::V6] {
            // In order, so that a family is a run.
            let of = |at: &(SocketAddr, Found<'_>)| Family::of(at.0.ip());
            let begins = found.partition_point(|one| of(one).index() < family.index());
            let ends = found.partition_point(|one| of(one).index() <= family.index());
            let of_family = found.get(begins..ends).unwrap_or_default();
            let mut active = self.usable(of_family, scope);
            if scope == Scope::Internal && self.wants.internal_local {
                // The gateway is no node: nothing is local to it.
                chosen.out_of_reach[family.index()] = active.contains(&true);
                active.fill(false);
            } else if active.contains(&true) {
                self.probed(of_family, &mut active, &mut chosen);
            } else {
                self.last_resort(of_family, &mut active, &mut chosen);
            }
            let one = |((address, found), active): (&(SocketAddr, Found<'_>), &bool)| {
                let endpoint = found.endpoint;
                Backend {
                    address: *address,
                    node: endpoint.node.clone(),
                    via: self.nodes.via(&endpoint.node, family),
                    name: endpoint.name.clone(),
                    weight: 1,
                    state: state(*active, endpoint.ready || endpoint.serving),
                }
            };
            chosen.take(of_family.iter().zip(&active).map(one).collect());
        }
        chosen
    }

    /// Those that new connections may go to, as far as conditions and hints tell.
    fn usable(&self, all: &[(SocketAddr, Found<'_>)], scope: Scope) -> Vec<bool> {
        let by_hints = scope == Scope::Internal || !self.wants.external_local;
        let prefer = if by_hints { self.prefer(all) } else { Prefer::All };
        let ready =
            |(_, found): &(_, Found<'_>)| found.endpoint.ready && prefer.takes(found.endpoint);
        let usable: Vec<_> = all.iter().map(ready).collect();
        if usable.contains(&true) {
            return usable;
        }
        all.iter().map(|(_, found)| found.endpoint.is_leaving()).collect()
    }

    /// Hints count where every ready endpoint has some and one of them is ours.
    fn prefer(&self, all: &[(SocketAddr, Found<'_>)]) -> Prefer<'_> {
        let Some(zone) = self.settings.zone.as_deref() else { return Prefer::All };
        let ready = || all.iter().map(|(_, found)| found.endpoint).filter(|one| one.ready);
        let all_have = |has: fn(&crate::slices::Hints) -> bool| {
            ready().all(|one| one.hints.as_ref().is_some_and(|hints| has(hints)))
        };
        let node = self.settings.node_name.as_deref().map(Prefer::Node);
        if let Some(node) = node
            && all_have(|hints| !hints.nodes.is_empty())
            && ready().any(|one| node.takes(one))
        {
            return node;
        }
        let zone = Prefer::Zone(zone);
        if all_have(|hints| !hints.zones.is_empty()) && ready().any(|one| zone.takes(one)) {
            return zone;
        }
        Prefer::All
    }

    /// Leaves those that probes are content with. Where that is none of those that hints name,
    /// others may be.
    fn probed(&self, all: &[(SocketAddr, Found<'_>)], active: &mut [bool], chosen: &mut Chosen) {
        let Some(wish) = &self.wants.probe else { return };
        if self.content(wish, all, active, chosen) {
            return;
        }
        let mut wider: Vec<_> = all.iter().map(|(_, found)| found.endpoint.ready).collect();
        if *active != *wider && self.content(wish, all, &mut wider, chosen) {
            active.copy_from_slice(&wider);
        } else {
            chosen.failing = true;
        }
    }

    /// Leaves the best of the active ones; false where all fail, which then are as they were.
    fn content(
        &self,
        wish: &ProbeWish,
        all: &[(SocketAddr, Found<'_>)],
        active: &mut [bool],
        chosen: &mut Chosen,
    ) -> bool {
        let mut standings = Vec::with_capacity(all.len());
        for ((address, found), active) in all.iter().zip(&*active) {
            let port = wish.port.or(self.tcp(address.port()));
            standings.push(match port.filter(|_| *active) {
                None if *active => Standing::Good,
                None => Standing::Bad,
                Some(port) => {
                    let address = SocketAddr::new(address.ip(), port);
                    let key = self.probe(address, found, &wish.check);
                    let standing = Standing::of(self.asked.health(&key));
                    chosen.probes.push((key, self.wants.cadence));
                    standing
                }
            });
        }
        keep_best(&standings, active.iter_mut())
    }

    /// A cut between nodes and API server turns all their pods unready while they serve: those
    /// that answer are used, where no other is left.
    fn last_resort(
        &self,
        all: &[(SocketAddr, Found<'_>)],
        active: &mut [bool],
        chosen: &mut Chosen,
    ) {
        if self.settings.ignore_unknown_nodes {
            return;
        }
        let wish = self.wants.probe.as_ref();
        let check = wish.map_or(Check::Tcp, |wish| wish.check.clone());
        for ((address, found), active) in all.iter().zip(active) {
            if found.endpoint.terminating
                || !self.nodes.is_unknown(&found.endpoint.node, &found.slice.name)
            {
                continue;
            }
            let asked = wish.and_then(|wish| wish.port).or(self.tcp(address.port()));
            let Some(port) = asked.or(found.slice.tcp_port()) else { continue };
            let address = SocketAddr::new(address.ip(), port);
            let key = self.probe(address, found, &check);
            *active = matches!(self.asked.health(&key), Health::Healthy { .. });
            chosen.on_unknown_nodes += usize::from(*active);
            chosen.probes.push((key, self.wants.cadence));
        }
    }

    /// The probe of an endpoint, the way that its traffic goes.
    fn probe(&self, address: SocketAddr, found: &Found<'_>, check: &Check) -> ProbeKey {
        let via = self.nodes.via(&found.endpoint.node, Family::of(address.ip()));
        ProbeKey { namespace: self.namespace.clone(), address, via, check: check.clone() }
    }

    /// The port, where a TCP connection to it means something.
    pub(crate) fn tcp(&self, port: u16) -> Option<u16> {
        (self.protocol == Protocol::Tcp).then_some(port)
    }
}

impl Chosen {
    /// Takes the backends of one family in.
    pub(crate) fn take(&mut self, mut backends: Vec<Backend>) {
        let before = backends.len();
        cut(&mut backends);
        self.cut += before - backends.len();
        self.backends.append(&mut backends);
    }
}

/// The state of a backend.
pub(crate) const fn state(active: bool, serves: bool) -> BackendState {
    match (active, serves) {
        (true, _) => BackendState::Active,
        (false, true) => BackendState::Draining,
        (false, false) => BackendState::Unserving,
    }
}

/// Leaves as many of a family as the packet path takes: the active ones first.
fn cut(backends: &mut Vec<Backend>) {
    if backends.len() <= BACKENDS_PER_SERVICE_MAX {
        return;
    }
    let active = backends.iter().filter(|one| one.state == BackendState::Active);
    let mut actives_left = active.count().min(BACKENDS_PER_SERVICE_MAX);
    let mut others_left = BACKENDS_PER_SERVICE_MAX - actives_left;
    backends.retain(|backend| {
        let left = match backend.state {
            BackendState::Active => &mut actives_left,
            BackendState::Draining | BackendState::Unserving => &mut others_left,
        };
        let keep = *left > 0;
        *left = left.saturating_sub(1);
        keep
    });
}
