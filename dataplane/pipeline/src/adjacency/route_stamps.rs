//! Which connections a change of routes concerns: those whose addresses lie where a route has come,
//! gone or changed. The addresses of a family are dealt to a thousand places by their leading bits, and
//! each place knows the latest change in it; so a router's flapping prefix, somewhere among a full
//! table, makes a thousandth of all connections look for their next hops anew, and not all of them.

use super::links::Compiled;
use crate::snapshot::NEVER;
use ipnet::IpNet;
use model::ids::Family;
use std::net::IpAddr;
use std::sync::Arc;

const PLACES: usize = 1024;
/// More changes at once than this concern everybody.
const CHANGES_MAX: usize = 4 * PLACES;
/// Leading bits that deal an address of a family to its place.
const LEADING: [u8; 2] = [16, 32];

/// The latest changes. Changes are numbered; no change has the number [`NEVER`]. A place in which 2^31
/// changes (months at the most that are published) have changed nothing counts as changed, to be sure.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteStamps {
    latest: u32,
    /// The latest change that concerns everybody.
    of_all: u32,
    /// The latest in each place of each family.
    places: [Arc<Places>; 2],
}

#[derive(Clone, Debug)]
struct Places([u32; PLACES]);

impl Default for Places {
    fn default() -> Self {
        Self([0; PLACES])
    }
}

impl RouteStamps {
    #[inline]
    pub const fn latest(&self) -> u32 {
        self.latest
    }
    /// False where a change since the one of this number may concern one of these addresses.
    pub fn holds(&self, stamp: u32, addresses: [IpAddr; 3]) -> bool {
        let before = |change: u32| stamp.wrapping_sub(change) < 1 << 31;
        let in_place = |address: IpAddr| {
            let family = Family::of(address).index();
            before(self.places[family].0[place(leading(address))])
        };
        stamp != NEVER && before(self.of_all) && addresses.into_iter().all(in_place)
    }
    /// Notes what differs between two tables of routes.
    pub fn change(&mut self, old: &Compiled, new: &Compiled) {
        self.latest = self.latest.wrapping_add(1);
        if self.latest == NEVER {
            self.latest = 0;
        }
        let same_links = old.links.interfaces == new.links.interfaces
            && old.links.addresses == new.links.addresses;
        if !same_links || !self.change_routes(old, new) {
            self.of_all = self.latest;
        }
    }
    /// False where the change concerns everybody: there is much of it, or what is on a link has
    /// changed, by which next hops themselves are reached.
    fn change_routes(&mut self, old: &Compiled, new: &Compiled) -> bool {
        let (before, after) = (&old.links.routes, &new.links.routes);
        let same = |(one, other): &(&_, &_)| one == other;
        let head = before.iter().zip(after).take_while(same).count();
        let (before, after) = (&before[head..], &after[head..]);
        let tail = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
        let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);
        let mut changed = 0;
        for (net, _) in before.iter().chain(after) {
            if old.route_to(*net) == new.route_to(*net) {
                continue;
            }
            changed += 1;
            if changed > CHANGES_MAX || old.is_on_link(*net) || new.is_on_link(*net) {
                return false;
            }
            self.mark(*net);
        }
        true
    }
    fn mark(&mut self, net: IpNet) {
        let family = Family::of(net.addr());
        let places = &mut Arc::make_mut(&mut self.places[family.index()]).0;
        let wide = LEADING[family.index()].saturating_sub(net.prefix_len());
        let first = leading(net.network());
        match 1_u32.checked_shl(wide.into()).filter(|many| (*many as usize) < PLACES) {
            Some(many) => (0..many).for_each(|n| places[place(first + n)] = self.latest),
            None => places.fill(self.latest),
        }
    }
}

/// The leading bits of an address, as a number.
const fn leading(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => ip.to_bits() >> 16,
        IpAddr::V6(ip) => (ip.to_bits() >> 96) as u32,
    }
}

/// Neighbours of one another lie in places of their own.
const fn place(leading: u32) -> usize {
    (leading ^ leading >> 10 ^ leading >> 20) as usize % PLACES
}
