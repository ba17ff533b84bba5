//! What the operator allows: pools, ranges and the addresses that are never a Service's.

use crate::allocations::fnv;
use crate::forwarding::ForwardingSettings;
use crate::pools::{Pool, Scheme};
use crate::range::AddressRange;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// The class that is ours unless configured otherwise.
pub const DEFAULT_CLASS: &str = "headgate.dev/gateway";

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

/// Where the truth about addresses lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// In our own [`crate::Allocations`]: a directory of manifests has no statuses.
    #[default]
    Local,
    /// In the Services' statuses, which an API server keeps and one of the gateways writes. Stored
    /// allocations help to know our own addresses again where their pool is gone. NodePorts are
    /// the API server's to allocate.
    ApiServer,
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
    /// MetalLB's annotations mean what ours do.
    pub metallb: bool,
    /// Services that are written for AWS are ours, and mean here what they can.
    pub aws: bool,
    /// Where the truth about addresses lives.
    pub authority: Authority,
    /// LoadBalancer Services of ours carry the finalizer `headgate.dev/cleanup`.
    pub finalizer: bool,
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
            metallb: false,
            aws: false,
            authority: Authority::Local,
            finalizer: false,
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
    /// Pools in the order in which they are tried.
    order: Vec<usize>,
    /// By pool: why it is refused.
    refused: Vec<Option<String>>,
}

impl Settings {
    /// Makes the settings valid.
    ///
    /// # Errors
    /// Pools that are empty or overlap; an impossible range. A pool that contains an
    /// address of the gateway or of a next hop is refused alone: [`Self::refused_pool`].
    pub fn new(mut wishes: Wishes) -> Result<Self, SettingsError> {
        wishes.node_port.allocate &= wishes.authority == Authority::Local;
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
        let mut order: Vec<usize> = (0..wishes.pools.len()).collect();
        order.sort_by_key(|&at| wishes.pools.get(at).map(|pool| pool.priority));
        Ok(Self { wishes, order, refused })
    }
    /// Why no address of this pool is given out, where it contains an address of the gateway or of
    /// a next hop. The other pools serve on; its Services say so.
    pub fn refused_pool(&self, pool: usize) -> Option<&str> {
        self.refused.get(pool)?.as_deref()
    }
    /// Where the truth about addresses lives.
    pub const fn authority(&self) -> Authority {
        self.wishes.authority
    }
    /// The pools.
    pub fn pools(&self) -> &[Pool] {
        &self.wishes.pools
    }
    /// Positions of the pools in the order in which they are tried.
    pub fn pools_in_order(&self) -> impl Iterator<Item = (usize, &Pool)> {
        self.order.iter().filter_map(|&at| Some((at, self.wishes.pools.get(at)?)))
    }
    /// Whether the labels of Namespaces matter, since some pool chooses by them.
    pub fn needs_namespaces(&self) -> bool {
        self.wishes.pools.iter().any(|pool| pool.namespace_selector.is_some())
    }
    /// What two gateways have alike where they give the same addresses to the same Services: the
    /// pools, and whose a Service is. 16 hex digits. The Lease carries it.
    pub fn pools_hash(&self) -> String {
        let Wishes { load_balancer_class, default_class, aws, metallb, .. } = &self.wishes;
        let mut text = format!("{load_balancer_class:?} {default_class} {aws} {metallb}\n");
        for pool in &self.wishes.pools {
            // What is refused to new connections is each gateway's own affair.
            let Pool { name, ranges, priority, auto_assign, avoid_buggy_addresses, .. } = pool;
            let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
            let selectors = [&pool.namespace_selector, &pool.service_selector]
                .map(|one| one.as_ref().map(ToString::to_string));
            let scheme = pool.scheme.map(Scheme::name);
            let one = (name, ranges, priority, auto_assign, avoid_buggy_addresses);
            text.push_str(&format!("{one:?}{:?}{selectors:?}{scheme:?}\n", pool.namespaces));
        }
        format!("{:016x}", fnv(&[&text]))
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
        let all = AddressRange::new(prefix.network(), prefix.broadcast())?;
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
