//! The plan of addresses, the same in every world: documentation and benchmark ranges alone
//! (RFC 2544, RFC 5737, RFC 3849). Nothing leaves the namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Client addresses in each family.
pub const CLIENTS: u16 = 4;
/// The gateway's own addresses in front, which NodePorts are served on too.
pub const GATEWAY_FRONT: [&str; 2] = ["198.18.0.1", "2001:db8:0:1::1"];
/// The gateway's own addresses at the back.
pub const GATEWAY_BACK: [&str; 2] = ["198.18.1.1", "2001:db8:0:2::1"];
/// The sources that backends see.
pub const NAT: [&str; 2] = ["198.18.1.200", "2001:db8:0:2::200"];
/// Where LoadBalancer addresses come from.
pub const POOL: [&str; 2] = ["203.0.113.0/28", "2001:db8::10-2001:db8::1f"];
/// Where `spec.externalIPs` are allowed.
pub const EXTERNAL: [&str; 2] = ["203.0.113.128/28", "2001:db8:0:3::/64"];
/// Prefixes that clients find on their link: the gateway answers ARP and ND for its frontends.
pub const ON_LINK: [&str; 3] = ["203.0.113.0/24", "2001:db8::/64", "2001:db8:0:3::/64"];
/// Where the addresses of the node's pods come from.
pub const POD_CIDRS: [&str; 2] = ["198.18.2.0/24", "2001:db8:0:4::/64"];
/// A port on which no Service listens.
pub const CLOSED_PORT: u16 = 9;
/// Web servers listen here.
pub const HTTP_PORT: u16 = 80;
/// Web servers listen here too, for Services with several ports.
pub const HTTP_ALT_PORT: u16 = 8443;
/// TCP and UDP echo servers listen here.
pub const ECHO_PORT: u16 = 7007;

/// Both families of the host with this number on the front link.
pub fn front(number: u16) -> [IpAddr; 2] {
    both([198, 18, 0], 1, number)
}

/// Both families of the host with this number on the back link.
pub fn back(number: u16) -> [IpAddr; 2] {
    both([198, 18, 1], 2, number)
}

/// Client `index`, from 0.
pub fn client(index: u16) -> [IpAddr; 2] {
    front(10 + index)
}

/// Backend `index`, from 0, on the back link.
pub fn backend(index: u16) -> [IpAddr; 2] {
    back(11 + index)
}

/// Backend `index`, from 0, behind the node.
pub fn pod(index: u16) -> [IpAddr; 2] {
    behind(11 + index)
}

/// The node, on the back link.
pub fn node() -> [IpAddr; 2] {
    back(51)
}

/// The node, as its pods know it.
pub fn pod_router() -> [IpAddr; 2] {
    behind(1)
}

fn behind(number: u16) -> [IpAddr; 2] {
    both([198, 18, 2], 4, number)
}

/// The IPv6 address has the digits of the IPv4 one, for people's sake: .11 and ::11.
fn both(v4: [u8; 3], v6: u16, number: u16) -> [IpAddr; 2] {
    let digits = number.to_string().chars().fold(0, |sum, digit| {
        sum * 16 + u16::try_from(digit.to_digit(10).unwrap_or(0)).unwrap_or(0)
    });
    let last = u8::try_from(number).unwrap_or(u8::MAX);
    [
        Ipv4Addr::new(v4[0], v4[1], v4[2], last).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, v6, 0, 0, 0, digits).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_have_the_same_digits() {
        let texts = |pair: [IpAddr; 2]| pair.map(|address| address.to_string());
        assert_eq!(texts(backend(0)), ["198.18.1.11", "2001:db8:0:2::11"]);
        assert_eq!(texts(backend(29)), ["198.18.1.40", "2001:db8:0:2::40"]);
        assert_eq!(texts(front(1)), GATEWAY_FRONT);
        assert_eq!(texts(back(200)), NAT);
    }
}
