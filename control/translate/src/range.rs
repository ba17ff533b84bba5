//! Runs of addresses.

use crate::settings::SettingsError;
use ipnet::IpNet;
use model::ids::Family;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The range from `first` to `last`, where both are of one family and in this order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (Family::of(first) == Family::of(last) && first <= last).then_some(Self { first, last })
    }
    /// The addresses of a prefix that a client can reach everywhere: of an IPv4 prefix shorter
    /// than /31 without the network's and the broadcast address, of an IPv6 prefix shorter than
    /// /127 without the anycast address of its routers (RFC 4291, 2.6.1).
    pub fn of_prefix(prefix: IpNet) -> Self {
        let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
        let spare = prefix.max_prefix_len() - prefix.prefix_len();
        let family = Family::of(prefix.addr());
        let (first, last) = match (family, spare) {
            (_, 0 | 1) => (first, last),
            (Family::V4, _) => (first + 1, last - 1),
            (Family::V6, _) => (first + 1, last),
        };
        Self { first: address(family, first), last: address(family, last) }
    }
    /// The first address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }
    /// The last address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }
    /// Their family.
    pub const fn family(&self) -> Family {
        Family::of(self.first)
    }
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.first <= address && address <= self.last
    }
    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }
    /// How many there are. The whole of IPv6 counts as one less than it is.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
    /// The address at `position`, from 0.
    pub fn get(&self, position: u128) -> Option<IpAddr> {
        let at = number(self.first).checked_add(position)?;
        (at <= number(self.last)).then(|| address(self.family(), at))
    }
    /// The position of `address`, from 0.
    pub fn position(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.first))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for AddressRange {
    type Err = SettingsError;
    /// A prefix, `FIRST-LAST`, or one address.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let bad = || SettingsError::BadRange(text.to_owned());
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Ok(Self::of_prefix(prefix));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let parse = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| bad());
        Self::new(parse(first)?, parse(last)?).ok_or_else(bad)
    }
}

/// An address as a number, as its bytes stand on the wire.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "an IPv4 number has 32 bits")]
fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((number as u32).into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}
