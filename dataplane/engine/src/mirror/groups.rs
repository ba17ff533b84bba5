//! Solicited-node groups (RFC 4291 section 2.7.1): who asks for an IPv6 address asks its group, and
//! a switch that snoops MLD gives the question to the ports alone that have joined it.
//!
//! Sockets join on the twin; the kernel then reports by MLD, and answers queriers, with frames that
//! leave by the port. An address in the kernel isn't needed. The kernel bounds what the groups of
//! one socket take (`net.core.optmem_max`: 365 groups in 20 KiB, 2,340 in 128 KiB), so that it
//! takes several sockets.

use super::announce::Place;
use model::ids::InterfaceId;
use model::limits::GROUPS_MAX;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use pipeline::adjacency::Adjacencies;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Joins and leaves in one round, so that the thread comes round in time.
const ROUND_MAX: usize = 256;
/// After a refusal of the kernel nothing is tried for so long.
const REST: Duration = Duration::from_secs(10);

/// A group on the link of an interface.
pub(crate) type Group = (InterfaceId, Ipv6Addr);

/// The solicited-node group of an address: `ff02::1:ff00:0/104` and its last 24 bits.
pub(crate) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0x00ff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

/// The groups of those addresses that are on the link of their interface; nobody solicits the
/// others, which are reached by a route. Many addresses may have one group. Those beyond the limit
/// are left out, and counted.
pub(crate) fn wanted<'a>(
    places: impl Iterator<Item = &'a Place>,
    adjacencies: &Adjacencies,
) -> (BTreeSet<Group>, usize) {
    let (mut groups, mut left_out) = (BTreeSet::new(), 0);
    for (id, address) in places {
        let IpAddr::V6(ip) = address else { continue };
        let route = adjacencies.route(*address);
        if !route.is_some_and(|route| route.via.is_none() && route.interface == *id) {
            continue;
        }
        let group = (*id, solicited_node(*ip));
        if groups.len() < GROUPS_MAX || groups.contains(&group) {
            groups.insert(group);
        } else {
            left_out += 1;
        }
    }
    (groups, left_out)
}

/// The groups that are joined, and the sockets that have.
#[derive(Default)]
pub(crate) struct Groups {
    /// Numbers of the twins in the kernel, by interface.
    twins: Vec<u32>,
    sockets: Vec<UdpSocket>,
    /// The place of the socket.
    joined: BTreeMap<Group, usize>,
    not_before: Option<Instant>,
}

impl Groups {
    /// Joins by these twins.
    pub fn new(twins: Vec<u32>) -> Self {
        Self { twins, ..Self::default() }
    }
    /// Comes closer to being in exactly these groups. True when it is, and when the kernel refuses
    /// to go on for the moment.
    pub fn follow(&mut self, wanted: &BTreeSet<Group>, now: Instant) -> Result<bool, io::Error> {
        if self.not_before.is_some_and(|at| now < at) {
            return Ok(true);
        }
        let gone = self.joined.keys().filter(|group| !wanted.contains(group));
        let gone: Vec<Group> = gone.copied().take(ROUND_MAX).collect();
        for group in &gone {
            self.leave(*group);
        }
        let new = wanted.iter().filter(|group| !self.joined.contains_key(group));
        let new: Vec<Group> = new.copied().take(ROUND_MAX - gone.len()).collect();
        for group in &new {
            if let Err(error) = self.join(*group) {
                self.not_before = Some(now + REST);
                return Err(error);
            }
        }
        Ok(gone.len() + new.len() < ROUND_MAX)
    }
    fn leave(&mut self, group: Group) {
        let Some(place) = self.joined.remove(&group) else { return };
        let twin = self.twins.get(group.0.index()).copied().unwrap_or_default();
        if let Some(socket) = self.sockets.get(place) {
            // Gone already is as good.
            let _ = socket.leave_multicast_v6(&group.1, twin);
        }
    }
    fn join(&mut self, group: Group) -> Result<(), io::Error> {
        let Some(twin) = self.twins.get(group.0.index()).copied() else { return Ok(()) };
        // The newest socket has room, or the one after it; places that others left fill up last.
        for place in (0..self.sockets.len()).rev() {
            match self.sockets[place].join_multicast_v6(&group.1, twin) {
                Ok(()) => {
                    self.joined.insert(group, place);
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let new = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
        let new = UdpSocket::from(new);
        new.join_multicast_v6(&group.1, twin)?;
        self.joined.insert(group, self.sockets.len());
        self.sockets.push(new);
        Ok(())
    }
    /// How many are joined.
    pub fn len(&self) -> usize {
        self.joined.len()
    }
}

/// True where the socket takes no more groups.
fn is_full(error: &io::Error) -> bool {
    [Errno::ENOMEM, Errno::ENOBUFS].map(|errno| Some(errno as i32)).contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::adjacency::{AdjacencyInput, Route};

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn groups_are_those_of_rfc_4291() {
        let group = solicited_node(v6("4037::01:800:200e:8c6c"));
        assert_eq!(group, v6("ff02::1:ff0e:8c6c"));
    }

    #[test]
    fn only_addresses_on_their_link_have_a_group_and_equal_ones_share_it() {
        let on_link = |id| Route { interface: InterfaceId(id), via: None };
        let far = Route { interface: InterfaceId(0), via: Some("2001:db8:f::9".parse().unwrap()) };
        let adjacencies = Adjacencies::new(AdjacencyInput {
            routes: vec![
                ("2001:db8:f::/64".parse().unwrap(), on_link(0)),
                ("2001:db8:b::/64".parse().unwrap(), on_link(1)),
                ("::/0".parse().unwrap(), far),
            ],
            ..AdjacencyInput::default()
        });
        let place = |id, text: &str| (InterfaceId(id), text.parse().unwrap());
        let places = [
            place(0, "2001:db8:f::10"),
            place(0, "2001:db8:f:0:1::10"),
            place(0, "2001:db8:a::11"),
            place(0, "2001:db8:b::12"),
            place(1, "2001:db8:b::10"),
            place(0, "198.18.0.10"),
        ];
        let (groups, left_out) = wanted(places.iter(), &adjacencies);
        let expected = [0, 1].map(|id| (InterfaceId(id), v6("ff02::1:ff00:10")));
        assert_eq!((groups, left_out), (BTreeSet::from(expected), 0));
        let many: Vec<Place> = (0..GROUPS_MAX as u128 + 3)
            .map(|n| {
                let base = v6("2001:db8:f::").to_bits();
                (InterfaceId(0), IpAddr::V6(Ipv6Addr::from_bits(base + n)))
            })
            .collect();
        let (groups, left_out) = wanted(many.iter(), &adjacencies);
        assert_eq!((groups.len(), left_out), (GROUPS_MAX, 3));
    }
}
