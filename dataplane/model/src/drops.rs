//! Every reason for which a packet can be dropped. A drop without a name is a bug.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident $label:literal $meaning:literal => $remedy:literal;)*) => {
        /// Why a packet was dropped. Each has a label (metrics, JSON), a meaning and a remedy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] #[serde(rename = $label)] $variant,)*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are: the length of an array with one counter each.
            pub const COUNT: usize = Self::ALL.len();
            /// The word used in metrics, tables and JSON.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
            /// What happened, in one line.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
            /// What a person can do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
            /// The reason with this label.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.label() == label)
            }
        }
    };
}

reasons! {
    EthernetTruncated "ethernet_truncated" "The frame is shorter than an Ethernet header."
        => "Look at the sender or the cable; no valid stack sends these.";
    VlanUnknown "vlan_unknown" "The frame carries a VLAN that no interface of this port has."
        => "Add an [[interface]] with this vlan, or prune the VLAN at the switch.";
    EthertypeUnsupported "ethertype_unsupported" "Neither IPv4, IPv6 nor ARP."
        => "Usually harmless (LLDP, STP); turn the protocol off at the switch port to silence it.";
    NotOurMac "not_our_mac" "The destination MAC is another station's."
        => "A switch floods unknown unicast, or a sender has a stale ARP entry.";
    ArpMalformed "arp_malformed" "An ARP packet that is truncated or not Ethernet/IPv4."
        => "Look at the sender.";
    ArpNotOurs "arp_not_ours" "An ARP request for an address that isn't ours."
        => "Normal on a shared link: others ask for each other.";
    AddressClaimed "address_claimed" "Another station says by ARP or ND that one of our addresses is its own."
        => "headgate status names the address and the MAC: find that host, or list another gateway in [announce] gateways.";
    IpTruncated "ip_truncated" "The packet ends within its IP header."
        => "Look at the sender.";
    IpVersion "ip_version" "The version in the IP header contradicts the Ethertype."
        => "Look at the sender.";
    Ipv4HeaderLength "ipv4_header_length" "The IPv4 header length is below 20 or beyond the packet."
        => "Look at the sender.";
    Ipv4TotalLength "ipv4_total_length" "The IPv4 total length is below its header or beyond the frame."
        => "Look at the sender, or at an MTU that cuts frames on the way.";
    Ipv4Checksum "ipv4_checksum" "The IPv4 header checksum is wrong."
        => "Bits flip on the way, or the sender leaves checksums to hardware that isn't there: \
            ethtool -K PEER tx off on virtual links.";
    Ipv6PayloadLength "ipv6_payload_length" "The IPv6 payload length is beyond the frame."
        => "Look at the sender, or at an MTU that cuts frames on the way.";
    Ipv6Extension "ipv6_extension" "An IPv6 extension chain that is cut, too long or unknown."
        => "Up to 8 hop-by-hop, routing, destination and fragment headers are understood.";
    L4Truncated "l4_truncated" "The packet ends within its TCP, UDP or ICMP header."
        => "Look at the sender.";
    TcpHeaderLength "tcp_header_length" "The TCP data offset is below 20 or beyond the packet."
        => "Look at the sender.";
    TcpFlags "tcp_flags" "TCP flags that no stack sends: none, SYN with FIN, SYN with RST."
        => "A port scanner.";
    UdpLength "udp_length" "The UDP length is below 8 or beyond the packet."
        => "Look at the sender.";
    L4Checksum "l4_checksum" "The TCP, UDP or ICMP checksum is wrong, as the device or we found."
        => "Bits flip on the way, or the sender leaves checksums to hardware that isn't there: \
            ethtool -K PEER tx off on virtual links.";
    PortZero "port_zero" "A TCP or UDP port of 0."
        => "A port scanner, or a broken sender.";
    SourceMartian "source_martian" "A source address that no host may use: loopback, multicast, broadcast, unspecified."
        => "Look at the sender; the source is forged or misconfigured.";
    SourceOwn "source_own" "The source address is one of our own."
        => "A forged source, a loop, or an address of the gateway given to another host.";
    Land "land" "Source and destination are the same address."
        => "A forged packet.";
    FragmentMalformed "fragment_malformed" "A fragment whose length or offset can't be."
        => "Look at the sender.";
    FragmentUnknown "fragment_unknown" "A fragment whose first one, with the ports, was not seen."
        => "Fragments overtook each other or the first was lost: lower the sender's MTU.";
    SynFragment "syn_fragment" "A SYN in pieces, which can't be verified and which no stack sends."
        => "A forger.";
    TtlExpired "ttl_expired" "TTL or hop limit used up, and no ICMP answer is due."
        => "A routing loop, or traceroute.";
    NotOurs "not_ours" "The destination is none of our addresses; the gateway doesn't route."
        => "The sender's route points here by mistake.";
    ProtocolUnsupported "protocol_unsupported" "A transport protocol that isn't forwarded."
        => "TCP and UDP are forwarded.";
    IcmpUnsupported "icmp_unsupported" "An ICMP type that means nothing at a frontend or NAT address."
        => "Echo requests and errors about connections are understood.";
    IcmpUnmatched "icmp_unmatched" "An ICMP error that quotes no connection that we know."
        => "Usually late errors of ended connections; many may be a forger.";
    NdMalformed "nd_malformed" "A neighbour discovery message that RFC 4861 says to discard."
        => "Look at the sender; a hop limit other than 255 comes from off the link.";
    NdNotOurs "nd_not_ours" "A neighbour solicitation for an address that isn't ours."
        => "Normal on a shared link: others ask for each other.";
    ReplyFromFront "reply_from_front" "A backend's packet that came by an interface that isn't for backends."
        => "A forger; or give that interface the role back or both.";
    TcpNoConnection "tcp_no_connection" "A RST without a connection; it is never answered."
        => "Late packets of ended connections.";
    SourceNotAllowed "source_not_allowed" "A client outside the source ranges of the Service, without a connection."
        => "Add the client's prefix to spec.loadBalancerSourceRanges if it may use the Service.";
    NoBackend "no_backend" "A frontend without an active backend, whose policy is to drop."
        => "headgate explain service NAMESPACE/NAME says why it has none.";
    AnswerLimited "answer_limited" "An answer was due (RST, ICMP, echo, ARP) beyond the budget of its interface and purpose."
        => "headgate show budgets says which; raise the rate in [answers] if the senders are legitimate.";
    NatPortsExhausted "nat_ports_exhausted" "No NAT port is free towards this backend."
        => "Add addresses to [[nat]], or add backends.";
    NatUnconfigured "nat_unconfigured" "The interface towards the backend has no NAT address of its family."
        => "Add an address of this family to a [[nat]] of that interface.";
    HalfOpenFull "half_open_full" "Too many connections are half open: a flood, or clients that vanish."
        => "A SYN or UDP flood; for many legitimate clients raise [connections] ipv4 or ipv6.";
    NewConnectionsLimited "new_connections_limited" "More new connections a second than the worker takes."
        => "A flood; raise [connections] new_per_second if the clients are legitimate.";
    SynInDoubt "syn_in_doubt" "A SYN on a connection whose backend takes none: its client is asked first."
        => "Passing: a client that begins anew is served with its next SYN.";
    PathMtuFloor "path_mtu_floor" "A packet-too-big message below the floor towards backends, not passed on."
        => "One client's narrow path, or a forger; [connections] path_mtu_min is the floor.";
    TableFull "table_full" "The connection table is full."
        => "Raise [connections] ipv4 or ipv6, or shorten the timeouts.";
    NoRoute "no_route" "No route to the next hop."
        => "Add a route in the gateway's namespace (ip route), or an address on that link.";
    NeighbourUnresolved "neighbour_unresolved" "The next hop's MAC isn't known yet; it was asked for."
        => "Passing at first contact. Lasting: headgate show neighbours, then look at that host.";
    MtuExceeded "mtu_exceeded" "Too long for the way out, and no ICMP answer is due."
        => "Use the same MTU on front and back, or let ICMP reach the sender.";
    HandoverLoop "handover_loop" "Handed from worker to worker more often than any packet needs."
        => "Report this: a steering table is inconsistent.";
    HandoverFull "handover_full" "The ring to the owning worker is full."
        => "That worker is overloaded: headgate show workers.";
    TransmitFull "transmit_full" "The port took no more packets."
        => "The link is slower than what is sent to it, or the device stalls.";
    TransmitOversize "transmit_oversize" "The frame is longer than the port can send."
        => "Lower the MTU of the interface.";
    BufferShared "buffer_shared" "The driver still holds the packet's buffer, and none was free for a copy."
        => "Raise eal.mbufs; where it lasts, the driver hands out buffers that it keeps.";
    HostFull "host_full" "The ring towards the host is full."
        => "The host's stack is overloaded by traffic for the gateway itself.";
    IcmpLimited "icmp_limited" "An ICMP error about a connection, beyond the budget of its interface."
        => "A flood of forged errors: headgate show budgets says on which interface.";
    HostLimited "host_limited" "Traffic for the host beyond the budget of its interface and purpose."
        => "A flood towards the gateway's own addresses: headgate show budgets. Raise [host] if it is legitimate.";
    HostOversize "host_oversize" "A packet for the host that doesn't fit the mirror."
        => "Use the same MTU on the link as on the interface.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_found() {
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(DropReason::from_label(reason.label()), Some(*reason));
            assert!(!reason.meaning().is_empty() && !reason.remedy().is_empty());
        }
    }
}
