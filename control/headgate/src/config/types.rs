//! Values of the configuration that are more than numbers and strings.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::time::Duration;

/// A key that gateways share. Not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SelectionKey(u64);

impl SelectionKey {
    /// The key.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for SelectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SelectionKey")
    }
}

impl FromStr for SelectionKey {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        key.map(Self).ok_or("expected 16 hexadecimal digits, as openssl rand -hex 8 makes them")
    }
}

/// A unicast MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The bytes in the order of the wire.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected six bytes in hex, as 02:00:00:00:00:01";
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| is_hex(part, 2)).ok_or(FORM)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| FORM)?;
        }
        if parts.next().is_some() {
            return Err(FORM);
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err("expected a unicast address: the first byte even, not all zero");
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The identifier of a VLAN, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan(NonZeroU16);

impl Vlan {
    /// The VLAN with this number.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) if number.get() < 4095 => Some(Self(number)),
            _ => None,
        }
    }
    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A DPDK device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A software device: the whole vdev string, as `net_tap0,iface=hg-front`.
    Virtual(String),
    /// A NIC: the PCI address, as `0000:03:00.0`, and devargs after a comma.
    Pci(String),
}

impl Device {
    /// What the EAL is given.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Virtual(text) | Self::Pci(text) => text,
        }
    }
    /// The name that DPDK gives the port: what stands before the first comma.
    pub fn name(&self) -> &str {
        self.as_str().split(',').next().unwrap_or_default()
    }
    /// The value of one argument, as of `iface`.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let mut arguments = self.as_str().split(',').skip(1);
        arguments.find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }
}

impl FromStr for Device {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "expected a vdev string as net_tap0,iface=hg0 or a PCI address as 0000:03:00.0";
        let name = text.split(',').next().unwrap_or_default();
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(FORM);
        }
        if let Some(rest) = name.strip_prefix("net_") {
            let good = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !good || !rest.ends_with(|c: char| c.is_ascii_digit()) {
                return Err("expected a driver and a number before the comma, as net_tap0");
            }
            return Ok(Self::Virtual(text.to_owned()));
        }
        if is_pci(name) { Ok(Self::Pci(text.to_owned())) } else { Err(FORM) }
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `0000:03:00.0`, or without the domain.
fn is_pci(name: &str) -> bool {
    let name = match name.split_once(':') {
        Some((domain, rest)) if rest.contains(':') && is_hex(domain, 4) => rest,
        _ => name,
    };
    let Some((bus, rest)) = name.split_once(':') else { return false };
    let Some((device, function)) = rest.split_once('.') else { return false };
    is_hex(bus, 2) && is_hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

/// Who is on the other side of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Clients: frontends are answered and announced here.
    Front,
    /// Backends.
    Back,
    /// Both.
    Both,
}

impl Role {
    /// Frontends are answered here.
    pub const fn is_front(self) -> bool {
        matches!(self, Self::Front | Self::Both)
    }
    /// Backends are here.
    pub const fn is_back(self) -> bool {
        matches!(self, Self::Back | Self::Both)
    }
}

/// What a worker does when no packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idle {
    /// Sleeps a little, and longer by and by.
    Backoff,
    /// Asks again at once.
    Spin,
}

/// How often something may happen, for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Times a second in the long run.
    pub per_second: NonZeroU32,
    /// Times at once.
    pub burst: NonZeroU32,
}

/// Addresses from first to last, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The first address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }
    /// The last address; never below the first, and of its family.
    pub const fn last(&self) -> IpAddr {
        self.last
    }
    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last && self.first.is_ipv4() == address.is_ipv4()
    }
    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl FromStr for AddressRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first.trim())?, address(last.trim())?);
            if first.is_ipv4() != last.is_ipv4() {
                return Err("its ends are of two families".to_owned());
            }
            if first > last {
                return Err("its last address is below its first".to_owned());
            }
            return Ok(Self { first, last });
        }
        let net = prefix(text)?;
        Ok(Self { first: net.network(), last: net.broadcast() })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no IPv4 or IPv6 address"))
}

/// A prefix without host bits; a bare address is a prefix of one.
pub(crate) fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    if !text.contains('/') {
        return Ok(address(text)?.into());
    }
    let net = network(text)?;
    if net.addr() != net.network() {
        return Err(format!("it has host bits: write {}, or one address alone", net.trunc()));
    }
    Ok(net)
}

/// An address with the length of its prefix.
pub(crate) fn network(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse().map_err(|_| "expected ADDRESS/LENGTH, as 198.18.0.1/24 or 2001:db8::1/64".into())
}

/// An address that a host may have.
pub(crate) fn host_address(text: &str) -> Result<IpAddr, String> {
    let address = address(text)?;
    unicast(address).map(|()| address)
}

/// Whether a host may have `address`.
pub(crate) fn unicast(address: IpAddr) -> Result<(), String> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] >= 240);
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err("expected a unicast address".to_owned());
    }
    Ok(())
}

/// Node ports from first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// The first port.
    pub const fn first(self) -> u16 {
        self.first.get()
    }
    /// The last port, never below the first.
    pub const fn last(self) -> u16 {
        self.last.get()
    }
    /// Whether `port` is in it.
    pub const fn contains(self, port: u16) -> bool {
        self.first.get() <= port && port <= self.last.get()
    }
}

impl FromStr for PortRange {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected FIRST-LAST between 1 and 65535, as 30000-32767";
        let (first, last) = text.split_once('-').ok_or(FORM)?;
        let first: NonZeroU16 = first.trim().parse().map_err(|_| FORM)?;
        let last: NonZeroU16 = last.trim().parse().map_err(|_| FORM)?;
        if first > last {
            Err("its last port is below its first")
        } else {
            Ok(Self { first, last })
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Reads `90s`, `1h30m`, `500ms`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "expected a duration as 500ms, 30s, 2h or 1h30m";
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u32>() {
        return Ok(Duration::from_secs(u64::from(seconds)));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
        let (number, unit) = rest.split_at(digits);
        let number: u32 = number.parse().map_err(|_| FORM)?;
        let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(letters);
        let one_ms: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(FORM.to_owned()),
        };
        let part = Duration::from_millis(u64::from(number) * one_ms);
        total = total.checked_add(part).ok_or(FORM)?;
        rest = after;
    }
    if text.trim().is_empty() { Err(FORM.to_owned()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [("90s", 90_000), ("1h30m", 5_400_000), ("500ms", 500), ("7", 7_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for bad in ["", "s", "1", "1x", "1h-3m", "99999999999s", "1.5h", "-1s"] {
            assert_eq!(duration(bad).is_ok(), bad == "1", "{bad}");
        }
    }

    #[test]
    fn ranges_are_read() {
        let range: AddressRange = "203.0.113.0/24".parse().unwrap();
        assert_eq!(range.to_string(), "203.0.113.0-203.0.113.255");
        assert!(range.contains("203.0.113.255".parse().unwrap()));
        assert!(!range.contains("::cb00:7101".parse().unwrap()));
        let one: AddressRange = "2001:db8::7".parse().unwrap();
        assert_eq!((one.to_string().as_str(), one.first()), ("2001:db8::7", one.last()));
        let cut: AddressRange = "203.0.113.250 - 203.0.114.3".parse().unwrap();
        assert!(cut.overlaps(&range) && range.overlaps(&cut) && !cut.overlaps(&one));
        for bad in ["", "1.2.3.4-", "1.2.3.9-1.2.3.4", "1.2.3.4-::1", "1.2.3.4/24", "1.2.3.0/33"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_read() {
        let tap: Device = "net_tap0,iface=hg-front,mac=fixed".parse().unwrap();
        assert_eq!((tap.name(), tap.argument("iface")), ("net_tap0", Some("hg-front")));
        for pci in ["0000:03:00.0", "03:00.1", "0000:03:00.0,rx_vec_en=1"] {
            assert_eq!(pci.parse::<Device>(), Ok(Device::Pci(pci.to_owned())));
        }
        for bad in ["", "eth0", "net_tap", "net_tap 0", "0000:03:00.8", "03:00", "net_t/p0"] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[test]
    fn macs_are_read() {
        let mac: MacAddr = "02:00:00:00:00:0a".parse().unwrap();
        assert_eq!((mac.to_string().as_str(), mac.bytes()[5]), ("02:00:00:00:00:0a", 10));
        for bad in ["", "02:00:00:00:00", "03:00:00:00:00:01", "00:00:00:00:00:00", "2:0:0:0:0:1"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
