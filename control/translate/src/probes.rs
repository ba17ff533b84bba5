//! Active probes: what is to be asked, and what came of it. Asking is the caller's.

use model::desired::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is asked of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// A TCP connection that opens.
    Tcp,
    /// `GET` of this path over HTTP/1.1, answered by 200 to 399.
    Http {
        /// The path, with its leading slash.
        path: Arc<str>,
    },
}

/// What names a probe. Services of one namespace that ask the same of the same address share it;
/// what another namespace wants asked is its own, so that nobody decides about others' backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKey {
    /// Whose it is: a namespace, or empty for what is asked of nodes as a whole.
    pub namespace: Arc<str>,
    /// Where it connects to.
    pub address: SocketAddr,
    /// The next hop towards it, where it is on no link of ours and no route need lead there: the
    /// node of a pod.
    pub via: Option<IpAddr>,
    /// What it asks.
    pub check: Check,
}

/// How often it is asked, and how many answers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cadence {
    /// From one question to the next.
    pub interval_ms: u32,
    /// How long an answer may take.
    pub timeout_ms: u32,
    /// Good answers in a row that make it healthy again.
    pub healthy_after: u16,
    /// Bad answers in a row that make it unhealthy.
    pub unhealthy_after: u16,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { interval_ms: 5_000, timeout_ms: 1_000, healthy_after: 2, unhealthy_after: 3 }
    }
}

impl Cadence {
    /// For two users of one probe: as often as either wants, and as quick to decide.
    fn and(self, other: Self) -> Self {
        Self {
            interval_ms: self.interval_ms.min(other.interval_ms),
            timeout_ms: self.timeout_ms.min(other.timeout_ms),
            healthy_after: self.healthy_after.min(other.healthy_after),
            unhealthy_after: self.unhealthy_after.min(other.unhealthy_after),
        }
    }
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Too few answers yet.
    #[default]
    Unknown,
    /// It answers as it should.
    Healthy {
        /// What the header `X-Load-Balancing-Endpoint-Weight` said, where it was there.
        weight: Option<u32>,
    },
    /// It doesn't.
    Unhealthy {
        /// True where the port is closed (a refused connection), false for everything else.
        closed: bool,
    },
}

/// Probes that begin, or go on at another pace, and those that end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeChange {
    /// To be asked from now on. One that is asked already takes up the new cadence.
    pub started: Vec<(ProbeKey, Cadence)>,
    /// Not to be asked any longer.
    pub stopped: Vec<ProbeKey>,
}

/// Where kube-proxy says whether a node can take traffic.
const HEALTHZ_PORT: u16 = 10_256;

/// Who wants a probe: a Service, or all that have nodes as backends.
type User = Option<ObjectName>;

#[derive(Debug, Default)]
struct Asking {
    users: BTreeMap<User, Cadence>,
    health: Health,
    /// As the caller was last told.
    told: Option<Cadence>,
}

/// The probes that are wanted, and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    probes: BTreeMap<ProbeKey, Asking>,
    /// Probes whose users changed since the last build.
    touched: BTreeSet<ProbeKey>,
    nodes: BTreeMap<Arc<str>, ProbeKey>,
    /// See [`Self::healthz_is_closed`].
    healthz_is_closed: bool,
}

impl Asked {
    /// What is known of a probe; `Unknown` where nobody asks.
    pub(crate) fn health(&self, key: &ProbeKey) -> Health {
        self.probes.get(key).map(|one| one.health).unwrap_or_default()
    }

    /// What is known of a node by its own probe.
    pub(crate) fn node_health(&self, node: &str) -> Health {
        self.nodes.get(node).map(|key| self.health(key)).unwrap_or_default()
    }

    /// No node has kube-proxy's health port, as under a CNI that replaces kube-proxy.
    pub(crate) const fn healthz_is_closed(&self) -> bool {
        self.healthz_is_closed
    }

    /// All that is asked.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ProbeKey> {
        self.probes.keys()
    }

    /// Takes in what a Service wants asked, in the place of what it wanted.
    pub(crate) fn want(
        &mut self,
        service: &ObjectName,
        before: &BTreeMap<ProbeKey, Cadence>,
        now: &BTreeMap<ProbeKey, Cadence>,
    ) {
        for key in before.keys().filter(|key| !now.contains_key(key)) {
            self.stop(key, &Some(service.clone()));
        }
        for (key, cadence) in now {
            if before.get(key) != Some(cadence) {
                self.start(key, Some(service.clone()), *cadence);
            }
        }
    }

    /// Takes in at which address each node is asked. True where that changes what is known of
    /// them.
    pub(crate) fn want_nodes(
        &mut self,
        addresses: impl Iterator<Item = (Arc<str>, IpAddr)>,
        cadence: Cadence,
    ) -> bool {
        let check = Check::Http { path: "/healthz".into() };
        let now: BTreeMap<_, _> = addresses
            .map(|(node, address)| {
                let address = SocketAddr::new(address, HEALTHZ_PORT);
                let check = check.clone();
                (node, ProbeKey { namespace: "".into(), address, via: None, check })
            })
            .collect();
        if now == self.nodes {
            return false;
        }
        let before = std::mem::replace(&mut self.nodes, now);
        let wanted: BTreeSet<_> = self.nodes.values().cloned().collect();
        for key in before.values().filter(|key| !wanted.contains(key)) {
            self.stop(key, &None);
        }
        for key in &wanted {
            self.start(key, None, cadence);
        }
        self.look_at_healthz();
        true
    }

    fn start(&mut self, key: &ProbeKey, user: User, cadence: Cadence) {
        self.probes.entry(key.clone()).or_default().users.insert(user, cadence);
        self.touched.insert(key.clone());
    }

    fn stop(&mut self, key: &ProbeKey, user: &User) {
        if let Some(one) = self.probes.get_mut(key) {
            one.users.remove(user);
            self.touched.insert(key.clone());
        }
    }

    /// Notes what came of a probe: the users that this concerns, where it is news.
    pub(crate) fn note(&mut self, key: &ProbeKey, health: Health) -> Vec<User> {
        let Some(one) = self.probes.get_mut(key) else { return Vec::new() };
        if std::mem::replace(&mut one.health, health) == health {
            return Vec::new();
        }
        let users: Vec<_> = one.users.keys().cloned().collect();
        if users.first() == Some(&None) {
            self.look_at_healthz();
        }
        users
    }

    /// The port is closed where some node says so, none answers well, and all have been asked. It
    /// is open again with the first good answer: a node that joins, and one that dies, say nothing
    /// of what the others have.
    fn look_at_healthz(&mut self) {
        let is =
            |wanted: fn(Health) -> bool| self.nodes.values().any(|key| wanted(self.health(key)));
        let healthy = is(|health| matches!(health, Health::Healthy { .. }));
        let closed = is(|health| matches!(health, Health::Unhealthy { closed: true }));
        let unknown = is(|health| health == Health::Unknown);
        let found = closed && !unknown;
        let stays = self.healthz_is_closed && !self.nodes.is_empty();
        self.healthz_is_closed = !healthy && (found || stays);
    }

    /// Probes that begin and end since the last call.
    pub(crate) fn take_change(&mut self) -> ProbeChange {
        let mut change = ProbeChange::default();
        for key in std::mem::take(&mut self.touched) {
            let Some(one) = self.probes.get_mut(&key) else { continue };
            let Some(cadence) = one.users.values().copied().reduce(Cadence::and) else {
                let told = one.told.is_some();
                self.probes.remove(&key);
                if told {
                    change.stopped.push(key);
                }
                continue;
            };
            if one.told.replace(cadence) != Some(cadence) {
                change.started.push((key, cadence));
            }
        }
        change
    }
}
