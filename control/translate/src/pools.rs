//! Pools of LoadBalancer addresses: what they have, and which Services they are for.

use crate::range::{AddressRange, number};
use crate::selector::Selector;
use model::desired::Refusal;
use model::ids::Family;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Where the clients of a pool's addresses are. It matters to Services that ask for one or the
/// other, as those do that are written for AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Clients within the organisation's own network.
    Internal,
    /// Clients everywhere.
    InternetFacing,
}

impl Scheme {
    /// As configuration and annotations spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::InternetFacing => "internet-facing",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Addresses for LoadBalancer Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name that Services ask for by the annotation `headgate.dev/pool`.
    pub name: Arc<str>,
    /// Its addresses, of both families; given out in this order.
    pub ranges: Vec<AddressRange>,
    /// Of several pools that a Service may have, the one with the lower number comes first; of
    /// equal ones the earlier.
    pub priority: u16,
    /// Serves Services that ask for no pool and no address.
    pub auto_assign: bool,
    /// Keeps IPv4 addresses that end in .0 and .255 back, which some old equipment takes for those
    /// of a network or a broadcast.
    pub avoid_buggy_addresses: bool,
    /// Namespaces that it is for; with neither these nor a selector, for all.
    pub namespaces: Vec<Arc<str>>,
    /// Namespaces that it is for besides, by their labels.
    pub namespace_selector: Option<Selector>,
    /// Services that it is for, by their labels.
    pub service_selector: Option<Selector>,
    /// Where its clients are, where that was said.
    pub scheme: Option<Scheme>,
    /// What becomes of new connections while a Service of this pool has no backend.
    pub refusal: Refusal,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            name: "".into(),
            ranges: Vec::new(),
            priority: 100,
            auto_assign: true,
            avoid_buggy_addresses: false,
            namespaces: Vec::new(),
            namespace_selector: None,
            service_selector: None,
            scheme: None,
            refusal: Refusal::Reject,
        }
    }
}

impl Pool {
    /// Whether `address` is one of its own.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
    /// Whether it keeps `address` back.
    pub fn avoids(&self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address else { return false };
        self.avoid_buggy_addresses && matches!(v4.octets()[3], 0 | 255)
    }
    /// How many addresses of `family` it gives out.
    pub fn count(&self, family: Family) -> u128 {
        let of_family = self.ranges.iter().filter(|range| range.family() == family);
        of_family.fold(0, |sum, range| sum.saturating_add(range.count() - self.kept_back(range)))
    }
    /// How many addresses of a range it keeps back.
    fn kept_back(&self, range: &AddressRange) -> u128 {
        if !self.avoid_buggy_addresses || range.family() == Family::V6 {
            return 0;
        }
        // Below n there are ceil(n / 256) numbers that end in 0 and floor(n / 256) in 255.
        let below = |n: u128| n.div_ceil(256) + n / 256;
        below(number(range.last()) + 1) - below(number(range.first()))
    }
    /// The address at `position` among those of `family`, kept back or not.
    pub(crate) fn get(&self, family: Family, mut position: u128) -> Option<IpAddr> {
        for range in self.ranges.iter().filter(|range| range.family() == family) {
            if position < range.count() {
                return range.get(position);
            }
            position -= range.count();
        }
        None
    }
    /// The position of `address` among those of its family.
    pub(crate) fn position(&self, address: IpAddr) -> Option<u128> {
        let mut before = 0u128;
        let family = Family::of(address);
        for range in self.ranges.iter().filter(|range| range.family() == family) {
            if let Some(position) = range.position(address) {
                return Some(before.saturating_add(position));
            }
            before = before.saturating_add(range.count());
        }
        None
    }
}
