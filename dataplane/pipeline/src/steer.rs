//! Whose packet is it? Pure in the packet and the published table, and needs no worker's
//! connections.

mod fragments;
mod toeplitz;

use crate::bits::AddressBits;
use crate::parse::quoted::{Quoted, quoted};
use crate::parse::{Addresses, Fragment, Kind, Parsed, TCP, UDP};
use crate::secret::one_way;
use hashbrown::HashMap;
use model::ids::{Family, InterfaceId, WorkerId};
use model::limits::{NAT_BLOCK_PORTS, NAT_PORT_FIRST};
use std::net::IpAddr;

pub use fragments::{FragmentOf, FragmentPorts};
pub use toeplitz::{KEY as TOEPLITZ_KEY, Toeplitz, ToeplitzKey, good_key};

/// Entries of the redirection table, as most NICs have them.
const RETA_LEN: usize = 128;

/// A configured source address towards backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatAddress {
    /// The interface on whose link workers answer for it.
    pub interface: InterfaceId,
    /// The address.
    pub address: IpAddr,
}

/// A run of 256 ports of one NAT address, leased to one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The address.
    pub address: IpAddr,
    /// The first of its ports.
    pub first_port: u16,
}

/// Which worker owns what. Immutable.
#[derive(Debug)]
pub struct SteerTable {
    workers: u8,
    reta: [WorkerId; RETA_LEN],
    toeplitz: Toeplitz,
    /// Keys the choice of the worker that collects a packet's fragments.
    fragments: u64,
    nat: HashMap<IpAddr, NatLease>,
    /// Of `nat`: asked first, as most packets come from clients.
    nat_bits: AddressBits,
    blocks: HashMap<(WorkerId, InterfaceId, Family), Vec<Block>>,
}

#[derive(Clone, Debug)]
struct NatLease {
    interface: InterfaceId,
    owners: [WorkerId; 256],
}

impl SteerTable {
    /// Spreads flows and the ports of the NAT addresses over `workers` workers, under the published
    /// key: anybody can tell to which worker a flow goes.
    pub fn new(workers: u8, nat: &[NatAddress]) -> Self {
        Self::with_key(workers, nat, &TOEPLITZ_KEY)
    }
    /// The same under a key of one's own.
    pub fn with_key(workers: u8, nat: &[NatAddress], key: &ToeplitzKey) -> Self {
        let workers = workers.max(1);
        let mut table = Self {
            workers,
            reta: std::array::from_fn(|entry| WorkerId((entry % usize::from(workers)) as u8)),
            toeplitz: Toeplitz::new(key),
            fragments: key
                .as_chunks::<8>()
                .0
                .iter()
                .fold(0, |secret, word| one_way(secret ^ u64::from_ne_bytes(*word))),
            nat: HashMap::new(),
            nat_bits: AddressBits::default(),
            blocks: HashMap::new(),
        };
        let first_block = usize::from(NAT_PORT_FIRST) / NAT_BLOCK_PORTS;
        for (number, nat) in nat.iter().enumerate() {
            // The odd blocks out go to other workers for each address.
            let owners = std::array::from_fn(|block| {
                WorkerId(((block + number) % usize::from(workers)) as u8)
            });
            for (block, owner) in owners.iter().enumerate().skip(first_block) {
                let key = (*owner, nat.interface, Family::of(nat.address));
                table.blocks.entry(key).or_default().push(Block {
                    address: nat.address,
                    first_port: (block * NAT_BLOCK_PORTS) as u16,
                });
            }
            table.nat_bits.add(nat.address);
            table.nat.insert(nat.address, NatLease { interface: nat.interface, owners });
        }
        table
    }
    /// How many workers share the traffic.
    pub const fn workers(&self) -> u8 {
        self.workers
    }
    /// The interface of a NAT address.
    #[inline]
    pub fn nat_interface(&self, address: IpAddr) -> Option<InterfaceId> {
        self.lease(address).map(|lease| lease.interface)
    }
    #[inline]
    fn lease(&self, address: IpAddr) -> Option<&NatLease> {
        self.nat_bits.may_have(address).then(|| self.nat.get(&address))?
    }
    /// The NAT addresses with their interfaces.
    pub fn nat_addresses(&self) -> impl Iterator<Item = NatAddress> + '_ {
        self.nat
            .iter()
            .map(|(address, lease)| NatAddress { interface: lease.interface, address: *address })
    }
    /// The ports that a worker may use as the source of connections that leave by an interface.
    pub fn blocks(&self, worker: WorkerId, interface: InterfaceId, family: Family) -> &[Block] {
        self.blocks.get(&(worker, interface, family)).map_or(&[], Vec::as_slice)
    }
    /// The owner of a packet with ports, or `None` where any worker may deal with it.
    /// `device_hash` is the device's Toeplitz hash over the 4-tuple.
    #[inline]
    pub fn owner(
        &self,
        parsed: &Parsed,
        bytes: &[u8],
        device_hash: Option<u32>,
    ) -> Option<WorkerId> {
        if self.workers == 1 || parsed.kind == Kind::Arp {
            return None;
        }
        if matches!(parsed.protocol, TCP | UDP) {
            let hash = device_hash.filter(|_| parsed.fragment == Fragment::No);
            let ports = (parsed.source_port, parsed.destination_port);
            return Some(self.owner_of(&parsed.addresses, ports, hash));
        }
        quoted(bytes, parsed).map(|quoted| self.owner_of_quoted(&quoted))
    }
    /// The owner of the flow that an ICMP error is about: the quoted packet's, reversed.
    fn owner_of_quoted(&self, quoted: &Quoted) -> WorkerId {
        let reversed = match quoted.addresses {
            Addresses::V4 { source, destination } => {
                Addresses::V4 { source: destination, destination: source }
            }
            Addresses::V6 { source, destination } => {
                Addresses::V6 { source: destination, destination: source }
            }
        };
        self.owner_of(&reversed, (quoted.destination_port, quoted.source_port), None)
    }
    /// The owner of a flow by its addresses and (source, destination) ports.
    #[inline]
    pub fn owner_of(
        &self,
        addresses: &Addresses,
        (source_port, destination_port): (u16, u16),
        device_hash: Option<u32>,
    ) -> WorkerId {
        if let Some(lease) = self.lease(addresses.destination()) {
            return lease.owners[usize::from(destination_port >> 8)];
        }
        let hash = device_hash
            .unwrap_or_else(|| self.toeplitz.hash(addresses, source_port, destination_port));
        self.reta[hash as usize % RETA_LEN]
    }
    /// The worker that collects the fragments of a packet.
    pub fn home(&self, addresses: &Addresses, protocol: u8, id: u32) -> WorkerId {
        let hash = fragments::hash(self.fragments, addresses, protocol, id);
        WorkerId((hash % u64::from(self.workers)) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(destination: u32) -> Addresses {
        Addresses::V4 { source: 0xc612_000a, destination }
    }

    #[test]
    fn leases_cover_every_port_once_and_evenly() {
        let nat = |last| NatAddress {
            interface: InterfaceId(1),
            address: IpAddr::from([198, 18, 1, last]),
        };
        let table = SteerTable::new(3, &[nat(200), nat(201)]);
        let counts: Vec<usize> =
            (0..3).map(|w| table.blocks(WorkerId(w), InterfaceId(1), Family::V4).len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 2 * 252);
        assert_eq!(counts, [168, 168, 168]);
        for worker in 0..3 {
            for block in table.blocks(WorkerId(worker), InterfaceId(1), Family::V4) {
                let IpAddr::V4(ip) = block.address else { panic!("family") };
                for port in [block.first_port, block.first_port + 255] {
                    let owner = table.owner_of(&addresses(ip.to_bits()), (80, port), None);
                    assert_eq!(owner, WorkerId(worker));
                }
                assert!(block.first_port >= NAT_PORT_FIRST);
            }
        }
    }

    #[test]
    fn flows_spread_over_workers() {
        let table = SteerTable::new(2, &[]);
        let first = (1024..3024)
            .filter(|port| {
                table.owner_of(&addresses(0xcb00_710a), (*port, 80), None) == WorkerId(0)
            })
            .count();
        assert!((800..1200).contains(&first), "{first} of 2000 on the first of two workers");
    }
}
