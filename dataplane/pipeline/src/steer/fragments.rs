//! The ports of fragmented packets, kept at the worker that collects their fragments.

use crate::hash::keyed;
use crate::parse::{Addresses, Parsed};

/// Packets whose ports are kept. Two places a set; the older of a full set is overwritten.
const PLACES: usize = 1024;
const SET: usize = 2;
/// Milliseconds for which the ports of a fragmented packet are kept (RFC 791 suggests 15 s).
const LIFE_MS: u64 = 15_000;

#[derive(Clone, Copy, Debug)]
struct Place {
    addresses: Addresses,
    protocol: u8,
    id: u32,
    found: FragmentOf,
    since_ms: u64,
}

/// What a packet's fragments have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentOf {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// The identification that they leave with: two clients may use the same one, and behind the
    /// gateway both have one address.
    pub id: u32,
}

/// A bounded table from (source, destination, protocol, identification) to ports.
#[derive(Debug)]
pub struct FragmentPorts {
    places: Box<[Option<Place>]>,
    secret: u64,
}

/// Keyed, so that nobody can choose fragments that meet at one worker, or in one set.
pub(super) fn hash(secret: u64, addresses: &Addresses, protocol: u8, id: u32) -> u64 {
    let (a, b) = match *addresses {
        Addresses::V4 { source, destination } => (u64::from(source), u64::from(destination)),
        Addresses::V6 { source, destination } => {
            let folded = |ip: u128| keyed(secret, (ip >> 64) as u64, ip as u64, 0);
            (folded(source), folded(destination))
        }
    };
    keyed(secret, a, b, u64::from(id) << 8 | u64::from(protocol))
}

impl FragmentPorts {
    /// An empty table.
    pub fn new(secret: u64) -> Self {
        Self { places: vec![None; PLACES].into_boxed_slice(), secret }
    }
    fn set(&mut self, parsed: &Parsed, id: u32) -> &mut [Option<Place>] {
        let set =
            hash(self.secret, &parsed.addresses, parsed.protocol, id) as usize % (PLACES / SET);
        &mut self.places[set * SET..(set + 1) * SET]
    }
    /// Keeps the ports of a first fragment. `new_id` is what its packet leaves with, unless it came
    /// before.
    pub fn learn(&mut self, parsed: &Parsed, id: u32, new_id: u32, now_ms: u64) -> FragmentOf {
        let set = self.set(parsed, id);
        let same = set
            .iter()
            .position(|old| old.is_some_and(|old| is(&old, parsed, id) && is_young(&old, now_ms)));
        let new_id = same.and_then(|at| set[at]).map_or(new_id, |old| old.found.id);
        let ports = (parsed.source_port, parsed.destination_port);
        let place = Place {
            addresses: parsed.addresses,
            protocol: parsed.protocol,
            id,
            found: FragmentOf { ports, id: new_id },
            since_ms: now_ms,
        };
        let at = same.unwrap_or_else(|| {
            let age = |at: &usize| set[*at].map_or(0, |old| old.since_ms + 1);
            (0..SET).min_by_key(age).unwrap_or(0)
        });
        set[at] = Some(place);
        place.found
    }
    /// What a later fragment has in common with its first.
    pub fn find(&mut self, parsed: &Parsed, id: u32, now_ms: u64) -> Option<FragmentOf> {
        self.set(parsed, id)
            .iter()
            .flatten()
            .find(|place| is(place, parsed, id) && is_young(place, now_ms))
            .map(|place| place.found)
    }
}

const fn is_young(place: &Place, now_ms: u64) -> bool {
    now_ms.saturating_sub(place.since_ms) < LIFE_MS
}

fn is(place: &Place, parsed: &Parsed, id: u32) -> bool {
    place.id == id && place.protocol == parsed.protocol && place.addresses == parsed.addresses
}
