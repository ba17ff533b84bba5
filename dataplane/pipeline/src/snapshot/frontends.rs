//! The frontends: from (address, protocol, port) to the slot of a service port.

use super::flat::{Flat, Name};
use model::ids::Protocol;
use model::limits::{FRONTENDS_MAX, SERVICE_PORTS_MAX};
use std::net::IpAddr;

/// Set in the number of a frontend that source ranges guard; the rest is the slot.
const GUARDED: u32 = 1 << 23;

const _: () = assert!(SERVICE_PORTS_MAX <= GUARDED as usize && FRONTENDS_MAX < 1 << 24);

/// Whose a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Slot of the service port.
    pub slot: u32,
    /// True where the service port's source ranges guard it.
    pub guarded: bool,
}

impl Holder {
    const fn number(self) -> u32 {
        if self.guarded { self.slot | GUARDED } else { self.slot }
    }
    const fn of(number: u32) -> Self {
        Self { slot: number & !GUARDED, guarded: number & GUARDED != 0 }
    }
}

/// The frontends of each family, and how many each address has.
#[derive(Clone, Debug)]
pub struct Frontends {
    v4: Flat<u32>,
    v6: Flat<u128>,
    addresses_v4: Flat<u32>,
    addresses_v6: Flat<u128>,
}

impl Default for Frontends {
    fn default() -> Self {
        Self {
            v4: Flat::new(random()),
            v6: Flat::new(random()),
            addresses_v4: Flat::new(random()),
            addresses_v6: Flat::new(random()),
        }
    }
}

/// A number that nobody outside can guess, by way of the standard library's hasher keys.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("frontends")
}

impl Frontends {
    #[inline]
    pub fn find(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<Holder> {
        let number = match address {
            IpAddr::V4(ip) => self.v4.get(&Name::of(ip.to_bits(), protocol, port)),
            IpAddr::V6(ip) => self.v6.get(&Name::of(ip.to_bits(), protocol, port)),
        };
        number.map(Holder::of)
    }
    /// Asks for what [`Self::find`] reads before it is needed.
    #[inline]
    pub fn prefetch(&self, address: IpAddr, protocol: Protocol, port: u16) {
        match address {
            IpAddr::V4(ip) => self.v4.prefetch(&Name::of(ip.to_bits(), protocol, port)),
            IpAddr::V6(ip) => self.v6.prefetch(&Name::of(ip.to_bits(), protocol, port)),
        }
    }
    /// Whether a frontend has the address. The marks are asked first: nearly all packets come from
    /// addresses that aren't ours, and cost one line.
    #[inline]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(ip) => {
                let name = Name::address(ip.to_bits());
                self.addresses_v4.may_have(&name) && self.addresses_v4.get(&name).is_some()
            }
            IpAddr::V6(ip) => {
                let name = Name::address(ip.to_bits());
                self.addresses_v6.may_have(&name) && self.addresses_v6.get(&name).is_some()
            }
        }
    }
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.addresses_v4.iter().map(|(name, _)| IpAddr::from(name.address.to_be_bytes()));
        let v6 = self.addresses_v6.iter().map(|(name, _)| IpAddr::from(name.address.to_be_bytes()));
        v4.chain(v6).collect()
    }
    /// Adds a frontend; false, and nothing changed, where another slot has it. One that is added
    /// twice is guarded where either is.
    pub fn insert(&mut self, key: (IpAddr, Protocol, u16), holder: Holder) -> bool {
        let (address, protocol, port) = key;
        let had = self.find(address, protocol, port);
        if had.is_some_and(|had| had.slot != holder.slot) {
            return false;
        }
        let number = holder.number() | had.map_or(0, Holder::number);
        match address {
            IpAddr::V4(ip) => self.v4.set(Name::of(ip.to_bits(), protocol, port), number),
            IpAddr::V6(ip) => self.v6.set(Name::of(ip.to_bits(), protocol, port), number),
        }
        if had.is_none() {
            self.count(address, |count| count + 1);
        }
        true
    }
    /// Takes a frontend away, where this slot has it.
    pub fn remove(&mut self, address: IpAddr, protocol: Protocol, port: u16, slot: u32) {
        if self.find(address, protocol, port).is_none_or(|holder| holder.slot != slot) {
            return;
        }
        match address {
            IpAddr::V4(ip) => self.v4.remove(&Name::of(ip.to_bits(), protocol, port)),
            IpAddr::V6(ip) => self.v6.remove(&Name::of(ip.to_bits(), protocol, port)),
        }
        self.count(address, |count| count.saturating_sub(1));
    }
    /// Changes how many frontends an address has.
    fn count(&mut self, address: IpAddr, change: impl FnOnce(u32) -> u32) {
        fn count<A: crate::connections::Address + std::hash::Hash>(
            table: &mut Flat<A>,
            address: A,
            change: impl FnOnce(u32) -> u32,
        ) {
            let name = Name::address(address);
            match change(table.get(&name).unwrap_or(0)) {
                0 => table.remove(&name),
                count => table.set(name, count),
            }
        }
        match address {
            IpAddr::V4(ip) => count(&mut self.addresses_v4, ip.to_bits(), change),
            IpAddr::V6(ip) => count(&mut self.addresses_v6, ip.to_bits(), change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    proptest! {
        /// As a map from the three fields, and the addresses in it.
        #[test]
        fn behave_as_a_map(
            steps in proptest::collection::vec(
                (any::<bool>(), 0u8..30, any::<bool>(), 0u8..3, 0u16..3, 0u32..3, any::<bool>()),
                1..400),
        ) {
            let mut frontends = Frontends::default();
            let mut model: HashMap<(IpAddr, Protocol, u16), Holder> = HashMap::new();
            let address = |n: u8, v6: bool| -> IpAddr {
                if v6 { Ipv6Addr::from_bits(u128::from(n) << 64).into() } else { Ipv4Addr::new(10, n, 0, 0).into() }
            };
            for (adds, n, v6, protocol, port, slot, guarded) in steps {
                let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][usize::from(protocol)];
                let key = (address(n, v6), protocol, port);
                if adds {
                    let had = model.get(&key).copied();
                    let may = had.is_none_or(|had| had.slot == slot);
                    prop_assert_eq!(frontends.insert(key, Holder { slot, guarded }), may);
                    if may {
                        let guarded = guarded || had.is_some_and(|had| had.guarded);
                        model.insert(key, Holder { slot, guarded });
                    }
                } else {
                    frontends.remove(key.0, protocol, port, slot);
                    if model.get(&key).is_some_and(|had| had.slot == slot) {
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(frontends.find(key.0, protocol, port), model.get(&key).copied());
                let has = model.keys().any(|(held, _, _)| *held == key.0);
                prop_assert_eq!(frontends.has_address(key.0), has);
            }
            let mut addresses = frontends.addresses();
            let mut wanted: Vec<IpAddr> = model.keys().map(|(address, _, _)| *address).collect();
            addresses.sort_unstable();
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(addresses, wanted);
        }
    }
}
