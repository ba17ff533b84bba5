//! What the operator allows: pools, ranges and the addresses that are never a Service's.

use crate::forwarding::ForwardingSettings;
use ipnet::IpNet;
use model::desired::Refusal;
use model::ids::Family;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The class that is ours unless configured otherwise.
pub const DEFAULT_CLASS: &str = "headgate.dev/gateway";

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

/// Addresses for LoadBalancer Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name that Services ask for by the annotation `headgate.dev/pool`.
    pub name: Arc<str>,
    /// Its addresses, of both families; given out in this order.
    pub ranges: Vec<AddressRange>,
    /// Serves Services that name no pool. A pool that is the only one does so anyway.
    pub default: bool,
    /// What becomes of new connections while a Service of this pool has no backend.
    pub refusal: Refusal,
}

impl Pool {
    /// Whether `address` is one of its own.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
    /// How many addresses of `family` it has.
    pub fn count(&self, family: Family) -> u128 {
        let of_family = self.ranges.iter().filter(|range| range.family() == family);
        of_family.fold(0, |sum, range| sum.saturating_add(range.count()))
    }
    /// The address at `position` among those of `family`.
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

/// Where NodePorts are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortSettings {
    /// Own addresses on which they are answered; none means that no NodePort is served.
    pub addresses: Vec<IpAddr>,
    /// Lowest nodePort.
    pub first: u16,
    /// Highest nodePort.
    pub last: u16,
    /// Allocate nodePorts that a Service wants and doesn't give. An API server does that itself:
    /// for a directory of manifests alone.
    pub allocate: bool,
}

impl Default for NodePortSettings {
    fn default() -> Self {
        Self { addresses: Vec::new(), first: 30_000, last: 32_767, allocate: true }
    }
}

/// What [`Settings::new`] makes valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Pools of LoadBalancer addresses.
    pub pools: Vec<Pool>,
    /// Where NodePorts are served.
    pub node_port: NodePortSettings,
    /// Where `spec.externalIPs` are served; nowhere if empty.
    pub external_ip_ranges: Vec<IpNet>,
    /// The gateway's own: addresses of its interfaces and NAT addresses.
    pub own_addresses: Vec<IpAddr>,
    /// Addresses of routers on its links.
    pub next_hops: Vec<IpAddr>,
    /// Where endpoints may be; every unicast address if empty.
    pub backend_ranges: Vec<IpNet>,
    /// `spec.loadBalancerClass` that is ours.
    pub load_balancer_class: String,
    /// LoadBalancer Services without a class are ours as well.
    pub default_class: bool,
    /// How Services are forwarded that don't say it themselves.
    pub forwarding: ForwardingSettings,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            pools: Vec::new(),
            node_port: NodePortSettings::default(),
            external_ip_ranges: Vec::new(),
            own_addresses: Vec::new(),
            next_hops: Vec::new(),
            backend_ranges: Vec::new(),
            load_balancer_class: DEFAULT_CLASS.to_owned(),
            default_class: true,
            forwarding: ForwardingSettings::default(),
        }
    }
}

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not a range of addresses.
    #[error("\"{0}\" is no range of addresses: expected a prefix, FIRST-LAST or an address")]
    BadRange(String),
    /// A pool without a name.
    #[error("a pool has no name")]
    Nameless,
    /// A pool without addresses.
    #[error("pool \"{0}\" has no addresses")]
    EmptyPool(Arc<str>),
    /// Two pools of one name.
    #[error("there are two pools named \"{0}\"")]
    SameName(Arc<str>),
    /// Two defaults.
    #[error("pools \"{0}\" and \"{1}\" are both the default: one at most can be")]
    TwoDefaults(Arc<str>, Arc<str>),
    /// One address, two pools.
    #[error("pools \"{0}\" and \"{1}\" overlap: {2} and {3} have addresses in common")]
    Overlap(Arc<str>, Arc<str>, AddressRange, AddressRange),
    /// An address that must never be given to a Service.
    #[error("pool \"{0}\" contains {1}, {2}: take it out of {3}")]
    Contains(Arc<str>, IpAddr, &'static str, AddressRange),
    /// No client can reach these.
    #[error("pool \"{0}\" contains {1} addresses ({2}): those can't be a Service's")]
    NotUnicast(Arc<str>, &'static str, AddressRange),
    /// A range of nodePorts that is none.
    #[error("nodePorts from {0} to {1}: expected 1 to 65535, the lower one first")]
    NodePorts(u16, u16),
    /// An address on which nothing can be served.
    #[error("NodePorts can't be served on {0}, {1} address")]
    NodePortAddress(IpAddr, &'static str),
    /// A class that matches nothing.
    #[error("the class of LoadBalancer Services is empty: expected DOMAIN/NAME")]
    NoClass,
}

/// Valid settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    wishes: Wishes,
    default_pool: Option<usize>,
    /// By pool: why it is refused.
    refused: Vec<Option<String>>,
}

impl Settings {
    /// Makes the settings valid.
    ///
    /// # Errors
    /// Pools that are empty or overlap; two defaults; an impossible range. A pool that contains an
    /// address of the gateway or of a next hop is refused alone: [`Self::refused_pool`].
    pub fn new(wishes: Wishes) -> Result<Self, SettingsError> {
        let ports = &wishes.node_port;
        if ports.first == 0 || ports.first > ports.last {
            return Err(SettingsError::NodePorts(ports.first, ports.last));
        }
        for &address in &ports.addresses {
            if let Some(what) = not_global_unicast(address) {
                return Err(SettingsError::NodePortAddress(address, what));
            }
        }
        if wishes.load_balancer_class.is_empty() {
            return Err(SettingsError::NoClass);
        }
        let mut refused = Vec::with_capacity(wishes.pools.len());
        for (position, pool) in wishes.pools.iter().enumerate() {
            refused.push(match check_pool(pool, &wishes) {
                Err(error @ SettingsError::Contains(..)) => Some(error.to_string()),
                other => other.map(|()| None)?,
            });
            for earlier in wishes.pools.iter().take(position) {
                check_pair(earlier, pool)?;
            }
        }
        let default_pool = match wishes.pools.iter().position(|pool| pool.default) {
            None if wishes.pools.len() == 1 => Some(0),
            found => found,
        };
        Ok(Self { wishes, default_pool, refused })
    }
    /// Why no address of this pool is given out, where it contains an address of the gateway or of
    /// a next hop. The other pools serve on; its Services say so.
    pub fn refused_pool(&self, pool: usize) -> Option<&str> {
        self.refused.get(pool)?.as_deref()
    }
    /// The pools.
    pub fn pools(&self) -> &[Pool] {
        &self.wishes.pools
    }
    /// The pool that serves Services which name none.
    pub const fn default_pool(&self) -> Option<usize> {
        self.default_pool
    }
    /// The pool with this name.
    pub fn pool_named(&self, name: &str) -> Option<usize> {
        self.wishes.pools.iter().position(|pool| &*pool.name == name)
    }
    /// The pool with this address.
    pub fn pool_of(&self, address: IpAddr) -> Option<usize> {
        self.wishes.pools.iter().position(|pool| pool.contains(address))
    }
    /// Where NodePorts are served.
    pub const fn node_port(&self) -> &NodePortSettings {
        &self.wishes.node_port
    }
    /// Everything else that was wished.
    pub const fn wishes(&self) -> &Wishes {
        &self.wishes
    }
    /// Whether `address` may be an externalIP.
    pub fn allows_external_ip(&self, address: IpAddr) -> bool {
        self.wishes.external_ip_ranges.iter().any(|range| range.contains(&address))
    }
    /// Whether an endpoint may have `address`, as far as ranges tell.
    pub fn allows_backend(&self, address: IpAddr) -> bool {
        let ranges = &self.wishes.backend_ranges;
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
    }
    /// What `address` is to the gateway, where it is the gateway's or a next hop's.
    pub fn reserved(&self, address: IpAddr) -> Option<&'static str> {
        reserved(&self.wishes).find(|(own, _)| *own == address).map(|(_, what)| what)
    }
}

fn reserved(wishes: &Wishes) -> impl Iterator<Item = (IpAddr, &'static str)> + '_ {
    let own = wishes.own_addresses.iter().chain(&wishes.node_port.addresses);
    let own = own.map(|&address| (address, "an address of the gateway itself"));
    own.chain(wishes.next_hops.iter().map(|&address| (address, "the address of a next hop")))
}

fn check_pool(pool: &Pool, wishes: &Wishes) -> Result<(), SettingsError> {
    if pool.name.is_empty() {
        return Err(SettingsError::Nameless);
    }
    if pool.ranges.is_empty() {
        return Err(SettingsError::EmptyPool(pool.name.clone()));
    }
    for &range in &pool.ranges {
        for (address, what) in reserved(wishes) {
            if range.contains(address) {
                return Err(SettingsError::Contains(pool.name.clone(), address, what, range));
            }
        }
        if let Some(what) = special(&range) {
            return Err(SettingsError::NotUnicast(pool.name.clone(), what, range));
        }
    }
    for (position, range) in pool.ranges.iter().enumerate() {
        if let Some(other) = pool.ranges.iter().take(position).find(|other| range.overlaps(other)) {
            let name = || pool.name.clone();
            return Err(SettingsError::Overlap(name(), name(), *other, *range));
        }
    }
    Ok(())
}

fn check_pair(one: &Pool, other: &Pool) -> Result<(), SettingsError> {
    let names = || (one.name.clone(), other.name.clone());
    if one.name == other.name {
        return Err(SettingsError::SameName(names().0));
    }
    if one.default && other.default {
        return Err(SettingsError::TwoDefaults(names().0, names().1));
    }
    for here in &one.ranges {
        if let Some(there) = other.ranges.iter().find(|there| there.overlaps(here)) {
            return Err(SettingsError::Overlap(names().0, names().1, *here, *there));
        }
    }
    Ok(())
}

/// Prefixes that no client reaches across a link, or at all.
const SPECIAL: [(&str, &str); 8] = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/3", "multicast or reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

fn special(range: &AddressRange) -> Option<&'static str> {
    SPECIAL.iter().find_map(|(prefix, what)| {
        let prefix = prefix.parse::<IpNet>().ok()?;
        let all = AddressRange { first: prefix.network(), last: prefix.broadcast() };
        range.overlaps(&all).then_some(*what)
    })
}

/// What is wrong with `address` as a place that packets are sent to from elsewhere: `a loopback`,
/// and so on.
pub fn not_global_unicast(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some("an unspecified"),
            [127, ..] => Some("a loopback"),
            [169, 254, ..] => Some("a link-local"),
            [224..=239, ..] => Some("a multicast"),
            [240..=255, ..] => Some("a reserved or broadcast"),
            _ => None,
        },
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("an unspecified"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("a loopback"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("a multicast"),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
