//! The ports of fragmented packets, kept at the worker that collects their fragments.

use crate::parse::{Addresses, Parsed};

/// Packets whose ports are kept. Two ways a set; the older of a full set is overwritten.
const PLACES: usize = 1024;
const WAYS: usize = 2;
/// Milliseconds for which the ports of a fragmented packet are kept (RFC 791 suggests 15 s).
const LIFE_MS: u64 = 15_000;

#[derive(Clone, Copy, Debug)]
struct Place {
    addresses: Addresses,
    protocol: u8,
    id: u32,
    ports: (u16, u16),
    since_ms: u64,
}

/// A bounded table from (source, destination, protocol, identification) to ports.
#[derive(Debug)]
pub struct FragmentPorts {
    places: Box<[Option<Place>]>,
}

impl Default for FragmentPorts {
    fn default() -> Self {
        Self { places: vec![None; PLACES].into_boxed_slice() }
    }
}

/// Not keyed: an attacker who fills a set loses fragments alone, which never are promised.
pub(super) fn hash(addresses: &Addresses, protocol: u8, id: u32) -> u64 {
    let (a, b) = match *addresses {
        Addresses::V4 { source, destination } => (u64::from(source), u64::from(destination)),
        Addresses::V6 { source, destination } => {
            ((source >> 64 ^ source) as u64, (destination >> 64 ^ destination) as u64)
        }
    };
    let mixed = crate::select::mum(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xc2b2_ae3d_27d4_eb4f);
    crate::select::mum(mixed, u64::from(id) << 8 | u64::from(protocol))
}

impl FragmentPorts {
    fn set(&mut self, parsed: &Parsed, id: u32) -> &mut [Option<Place>] {
        let set = hash(&parsed.addresses, parsed.protocol, id) as usize % (PLACES / WAYS);
        &mut self.places[set * WAYS..(set + 1) * WAYS]
    }
    /// Keeps the ports of a first fragment.
    pub fn learn(&mut self, parsed: &Parsed, id: u32, now_ms: u64) {
        let place = Place {
            addresses: parsed.addresses,
            protocol: parsed.protocol,
            id,
            ports: (parsed.source_port, parsed.destination_port),
            since_ms: now_ms,
        };
        let set = self.set(parsed, id);
        let same = set.iter().position(|old| old.is_some_and(|old| is(&old, parsed, id)));
        let way = same.unwrap_or_else(|| {
            let age = |way: &usize| set[*way].map_or(0, |old| old.since_ms + 1);
            (0..WAYS).min_by_key(age).unwrap_or(0)
        });
        set[way] = Some(place);
    }
    /// The ports of a later fragment.
    pub fn find(&mut self, parsed: &Parsed, id: u32, now_ms: u64) -> Option<(u16, u16)> {
        self.set(parsed, id)
            .iter()
            .flatten()
            .find(|place| is(place, parsed, id) && now_ms.saturating_sub(place.since_ms) < LIFE_MS)
            .map(|place| place.ports)
    }
}

fn is(place: &Place, parsed: &Parsed, id: u32) -> bool {
    place.id == id && place.protocol == parsed.protocol && place.addresses == parsed.addresses
}
