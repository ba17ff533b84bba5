//! Whose an address is.

use crate::tables::Tables;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// What an address is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The host's own, on this interface.
    Local(InterfaceId),
    /// Some frontend has it.
    Frontend,
    /// A NAT address.
    Nat,
    /// A group on the link, which routing daemons and neighbour discovery listen to.
    LinkGroup,
    /// None of ours.
    Nobody,
}

/// Whose an address is. Each table is asked by bits before its map: of a client's address one line
/// is read that other packets don't read as well.
pub fn whose(tables: &Tables, address: IpAddr) -> Whose {
    let group = match address {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0x0f == 2,
    };
    if group {
        Whose::LinkGroup
    } else if let Some(interface) = tables.adjacencies.local(address) {
        Whose::Local(interface)
    } else if tables.snapshot.is_frontend_address(address) {
        Whose::Frontend
    } else if tables.steer.nat_interface(address).is_some() {
        Whose::Nat
    } else {
        Whose::Nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adjacency::{Adjacencies, AdjacencyInput};
    use crate::snapshot::Compiler;
    use crate::steer::{NatAddress, SteerTable};
    use model::desired::{
        Delta, Forwarding, Frontend, ObjectName, Origin, Refusal, Scope, ServicePort,
        ServicePortKey, Target,
    };
    use model::ids::Protocol;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::sync::Arc;

    fn address() -> impl Strategy<Value = IpAddr> {
        // Few, so that an address may be several things at once.
        prop_oneof![
            (0u32..40).prop_map(|n| Ipv4Addr::from_bits(0xc612_0000 + n).into()),
            (0u128..40).prop_map(|n| Ipv6Addr::from_bits((0x2001_0db8 << 96) + n).into()),
            (0u8..8).prop_map(|n| Ipv4Addr::new(224, 0, n & 1, n).into()),
            (0u16..8).prop_map(|n| Ipv6Addr::new(0xff00 + n, 0, 0, 0, 0, 0, 0, n).into()),
            Just(Ipv4Addr::BROADCAST.into()),
        ]
    }

    fn service(n: u8, frontends: &[(IpAddr, u16)]) -> ServicePort {
        let name = ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("default", &n.to_string()),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            scope: Scope::External,
        };
        let frontend = |(ip, port): &(IpAddr, u16)| Frontend {
            address: SocketAddr::new(*ip, *port),
            origin: Origin::ExternalIp,
        };
        ServicePort {
            key: name,
            uid: "".into(),
            frontends: frontends.iter().map(frontend).collect(),
            backends: Vec::new(),
            forwarding: Forwarding::Nat,
            target: Target::Endpoint,
            refusal: [Refusal::Reject; 2],
            affinity: None,
            source_ranges: Vec::new(),
            reset_after_s: None,
        }
    }

    proptest! {
        /// The bits never answer otherwise than the tables do, whatever came and went.
        #[test]
        fn the_answer_is_that_of_the_tables(
            locals in proptest::collection::vec((0u8..3, address()), 0..12),
            nat in proptest::collection::vec(address(), 0..12),
            steps in proptest::collection::vec(
                (0u8..3, proptest::collection::vec((address(), 80u16..83), 0..20)), 1..8),
            asked in proptest::collection::vec(address(), 60),
        ) {
            let mut compiler = Compiler::new(4, 4);
            let mut tables = Tables {
                generation: 1,
                snapshot: Arc::default(),
                adjacencies: Arc::new(Adjacencies::new(AdjacencyInput {
                    addresses: locals.iter().map(|(id, ip)| (InterfaceId(*id), *ip)).collect(),
                    ..AdjacencyInput::default()
                })),
                steer: Arc::new(SteerTable::new(1, &nat.iter().map(|ip| NatAddress {
                    interface: InterfaceId(0), address: *ip,
                }).collect::<Vec<_>>())),
            };
            // Those of each service now; each number of a port is its own.
            let mut has: [Vec<(IpAddr, u16)>; 3] = Default::default();
            for (n, frontends) in steps {
                let own = |(ip, port): (IpAddr, u16)| (ip, port + 100 * u16::from(n));
                let frontends: Vec<_> = frontends.into_iter().map(own).collect();
                let port = Arc::new(service(n, &frontends));
                tables.snapshot =
                    compiler.apply(&Delta { changed: vec![port], removed: vec![] }).0;
                has[usize::from(n)] = frontends;
                for ip in &asked {
                    let last_local = locals.iter().rfind(|(_, local)| local == ip);
                    let octets = match ip {
                        IpAddr::V4(ip) => ip.octets().to_vec(),
                        IpAddr::V6(ip) => ip.octets().to_vec(),
                    };
                    let group = octets[..3] == [224, 0, 0] || octets == [255; 4]
                        || octets.len() == 16 && octets[0] == 255 && octets[1] % 16 == 2;
                    let wanted = if group {
                        Whose::LinkGroup
                    } else if let Some((id, _)) = last_local {
                        Whose::Local(InterfaceId(*id))
                    } else if has.iter().flatten().any(|(frontend, _)| frontend == ip) {
                        Whose::Frontend
                    } else if nat.contains(ip) {
                        Whose::Nat
                    } else {
                        Whose::Nobody
                    };
                    prop_assert_eq!(whose(&tables, *ip), wanted, "{}", ip);
                }
            }
        }
    }
}
