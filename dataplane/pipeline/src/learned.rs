//! MACs of clients on a link of ours, as their own packets told them: so the answer to a first SYN
//! need not wait until the kernel has resolved its sender.

use crate::adjacency::Mac;
use crate::select::mum;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// Clients that are remembered. A client that another has displaced is resolved by the kernel.
const PLACES: usize = 4096;

/// A bounded table from (interface, address) to MAC. The published adjacencies come first.
#[derive(Debug)]
pub struct Learned {
    places: Box<[Option<(InterfaceId, IpAddr, Mac)>]>,
}

impl Default for Learned {
    fn default() -> Self {
        Self { places: vec![None; PLACES].into_boxed_slice() }
    }
}

impl Learned {
    /// Remembers a client's MAC. True where that is news.
    pub fn learn(&mut self, interface: InterfaceId, address: IpAddr, mac: Mac) -> bool {
        let place = &mut self.places[place(interface, address)];
        let news = *place != Some((interface, address, mac));
        *place = Some((interface, address, mac));
        news
    }
    /// The MAC of a client.
    #[inline]
    pub fn find(&self, interface: InterfaceId, address: IpAddr) -> Option<Mac> {
        self.places[place(interface, address)]
            .filter(|(at, whose, _)| *at == interface && *whose == address)
            .map(|(_, _, mac)| mac)
    }
}

fn place(interface: InterfaceId, address: IpAddr) -> usize {
    let (a, b) = match address {
        IpAddr::V4(ip) => (u64::from(ip.to_bits()), 4),
        IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    };
    let hash = mum(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xe703_7ed1_a0b4_28db ^ u64::from(interface.0));
    hash as usize % PLACES
}
