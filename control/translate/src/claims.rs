//! Who has which frontend: of all Services that claim one, the first in rank.

use crate::spec::Rank;
use model::desired::{ObjectName, Origin};
use model::ids::Protocol;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Socket {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Socket {
    pub(crate) const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.protocol)
    }
}

/// One Service's wish to have a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) socket: Socket,
    /// Position of the port in the Service.
    pub(crate) port: usize,
    pub(crate) origin: Origin,
    /// Allocated to the Service: goes before what others merely write into theirs.
    pub(crate) held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    /// False for what is held, so that it comes first.
    written: bool,
    rank: Rank,
}

/// Addresses that no endpoint may have, with the number of reasons.
#[derive(Clone, Copy, Debug, Default)]
struct Guard {
    frontends: usize,
    cluster_ips: usize,
}

/// What a change of claims changes for others.
#[derive(Debug, Default)]
pub(crate) struct ClaimChange {
    /// Services whose frontends, or whose rival, changed.
    pub(crate) services: BTreeSet<ObjectName>,
    /// Addresses that became, or ceased to be, a frontend's or a Service's own.
    pub(crate) guarded: BTreeSet<IpAddr>,
}

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    sockets: HashMap<Socket, Vec<Claimant>>,
    guards: HashMap<IpAddr, Guard>,
}

impl Claims {
    /// Puts a Service's claims in the place of those it had.
    pub(crate) fn replace(
        &mut self,
        (old_rank, old): (&Rank, &[Claim]),
        (new_rank, new): (&Rank, &[Claim]),
        change: &mut ClaimChange,
    ) {
        let was: BTreeSet<_> = old.iter().map(|claim| (claim.socket, claim.held)).collect();
        let is: BTreeSet<_> = new.iter().map(|claim| (claim.socket, claim.held)).collect();
        let same_rank = old_rank == new_rank;
        for &(socket, held) in &was {
            if !(same_rank && is.contains(&(socket, held))) {
                self.remove(socket, &Claimant { written: !held, rank: old_rank.clone() }, change);
            }
        }
        for &(socket, held) in &is {
            if !(same_rank && was.contains(&(socket, held))) {
                self.insert(socket, Claimant { written: !held, rank: new_rank.clone() }, change);
            }
        }
    }

    fn insert(&mut self, socket: Socket, claimant: Claimant, change: &mut ClaimChange) {
        let claimants = self.sockets.entry(socket).or_default();
        if let Err(position) = claimants.binary_search(&claimant) {
            claimants.insert(position, claimant);
            self.guard(socket.address, |guard| &mut guard.frontends, true, change);
            if position == 0 {
                self.contested(socket, change);
            }
        }
    }

    fn remove(&mut self, socket: Socket, claimant: &Claimant, change: &mut ClaimChange) {
        let Some(claimants) = self.sockets.get_mut(&socket) else { return };
        let Ok(position) = claimants.binary_search(claimant) else { return };
        claimants.remove(position);
        if claimants.is_empty() {
            self.sockets.remove(&socket);
        }
        self.guard(socket.address, |guard| &mut guard.frontends, false, change);
        if position == 0 {
            self.contested(socket, change);
        }
    }

    /// Another has the frontend now: whoever claims it is to be looked at again.
    fn contested(&self, socket: Socket, change: &mut ClaimChange) {
        let claimants = self.sockets.get(&socket).into_iter().flatten();
        change.services.extend(claimants.map(|claimant| claimant.rank.name.clone()));
    }

    fn guard(
        &mut self,
        address: IpAddr,
        count: impl Fn(&mut Guard) -> &mut usize,
        more: bool,
        change: &mut ClaimChange,
    ) {
        let guard = self.guards.entry(address).or_default();
        let count = count(guard);
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == usize::from(more) {
            change.guarded.insert(address);
        }
        if guard.frontends == 0 && guard.cluster_ips == 0 {
            self.guards.remove(&address);
        }
    }

    /// A Service has, or no longer has, this cluster address.
    pub(crate) fn cluster_ip(&mut self, address: IpAddr, more: bool, change: &mut ClaimChange) {
        self.guard(address, |guard| &mut guard.cluster_ips, more, change);
    }

    /// Who has the frontend.
    pub(crate) fn owner(&self, socket: &Socket) -> Option<&ObjectName> {
        self.sockets.get(socket)?.first().map(|claimant| &claimant.rank.name)
    }

    /// Why no endpoint may have `address`.
    pub(crate) fn guarded(&self, address: IpAddr) -> Option<&'static str> {
        let guard = self.guards.get(&address)?;
        Some(if guard.frontends > 0 { "a frontend's address" } else { "a Service's clusterIP" })
    }
}
