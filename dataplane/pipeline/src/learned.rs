//! MACs of clients on a link of ours, as their own packets told them: so the answer to a first SYN
//! need not wait until the kernel has resolved its sender.

use crate::adjacency::Mac;
use crate::hash::keyed;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// Clients that are remembered. A client that another has displaced is resolved by the kernel.
const PLACES: usize = 4096;

/// What a client's packet told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client {
    interface: InterfaceId,
    address: IpAddr,
    mac: Mac,
    /// The MAC that was published then. It is older than what was told; another one is newer.
    instead_of: Option<Mac>,
}

/// A bounded table from (interface, address) to MAC.
#[derive(Debug)]
pub struct Learned {
    places: Box<[Option<Client>]>,
    secret: u64,
}

impl Learned {
    /// An empty table, whose places nobody outside can tell.
    pub fn new(secret: u64) -> Self {
        Self { places: vec![None; PLACES].into_boxed_slice(), secret }
    }
    /// Remembers a client's MAC, while `published` is known otherwise. True where that is news.
    pub fn learn(
        &mut self,
        interface: InterfaceId,
        address: IpAddr,
        mac: Mac,
        published: Option<Mac>,
    ) -> bool {
        let told = Client { interface, address, mac, instead_of: published };
        let place = &mut self.places[place(self.secret, interface, address)];
        let news = *place != Some(told);
        *place = Some(told);
        news
    }
    /// What a client's packet told holds no more: what is published is right.
    pub fn forget(&mut self, interface: InterfaceId, address: IpAddr) {
        let place = &mut self.places[place(self.secret, interface, address)];
        *place = place.filter(|told| told.interface != interface || told.address != address);
    }
    /// The MAC of a client, where none is published that is newer.
    #[inline]
    pub fn find(
        &self,
        interface: InterfaceId,
        address: IpAddr,
        published: Option<Mac>,
    ) -> Option<Mac> {
        self.places[place(self.secret, interface, address)]
            .filter(|told| told.interface == interface && told.address == address)
            .filter(|told| published.is_none() || told.instead_of == published)
            .map(|told| told.mac)
    }
}

/// Next hops that the mirror was told of lately. Two that share a place are told of more often.
#[derive(Debug)]
pub struct Told {
    places: Box<[Option<(InterfaceId, IpAddr, u64)>]>,
    secret: u64,
}

/// Less than a sweep takes, so that each sweep tells once.
const TELL_AGAIN_MS: u64 = 10_000;

impl Told {
    /// An empty table, as [`Learned`].
    pub fn new(secret: u64) -> Self {
        Self { places: vec![None; PLACES].into_boxed_slice(), secret }
    }
    /// True where the mirror is to be told (again), which it then is.
    pub fn is_due(&mut self, interface: InterfaceId, address: IpAddr, now_ms: u64) -> bool {
        let place = &mut self.places[place(self.secret, interface, address)];
        let due = place.is_none_or(|(id, whose, at)| {
            (id, whose) != (interface, address) || now_ms.saturating_sub(at) >= TELL_AGAIN_MS
        });
        if due {
            *place = Some((interface, address, now_ms));
        }
        due
    }
}

fn place(secret: u64, interface: InterfaceId, address: IpAddr) -> usize {
    let (a, b) = match address {
        IpAddr::V4(ip) => (u64::from(ip.to_bits()), 4),
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    };
    keyed(secret, a, b, interface.0.into()) as usize % PLACES
}
