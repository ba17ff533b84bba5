//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::{Fragment, Parsed};
use model::drops::DropReason;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flag FIN.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag PSH.
pub const TCP_PSH: u8 = 0x08;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;
/// TCP flag URG.
pub const TCP_URG: u8 = 0x20;

const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;

/// Length of the TCP header at the start of `tcp`, in bytes: its data offset.
pub fn tcp_header_len(tcp: &[u8]) -> Option<usize> {
    tcp.get(12).map(|byte| usize::from(byte >> 4) * 4)
}

#[inline]
pub(super) fn parse(bytes: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    if matches!(parsed.fragment, Fragment::Later(_)) {
        return Ok(());
    }
    let rest = bytes.get(usize::from(parsed.l4)..).unwrap_or(&[]);
    let l4_len = parsed.l4_len();
    match parsed.protocol {
        TCP => {
            let header: &[u8; TCP_LEN] = whole(rest, l4_len)?;
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < TCP_LEN || header_len > l4_len {
                return Err(DropReason::TcpHeaderLength);
            }
            parsed.tcp_flags = header[13];
            let flags = header[13] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);
            let impossible = flags == 0
                || flags & (TCP_SYN | TCP_FIN) == TCP_SYN | TCP_FIN
                || flags & (TCP_SYN | TCP_RST) == TCP_SYN | TCP_RST;
            if impossible {
                return Err(DropReason::TcpFlags);
            }
            ports(header, parsed)
        }
        UDP => {
            let header: &[u8; UDP_LEN] = whole(rest, l4_len)?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if len < UDP_LEN || (parsed.fragment == Fragment::No && len > l4_len) {
                return Err(DropReason::UdpLength);
            }
            ports(header, parsed)
        }
        ICMP | ICMPV6 => {
            whole::<ICMP_LEN>(rest, l4_len)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[inline]
fn whole<const LEN: usize>(rest: &[u8], l4_len: usize) -> Result<&[u8; LEN], DropReason> {
    rest.first_chunk().filter(|_| l4_len >= LEN).ok_or(DropReason::L4Truncated)
}

#[inline]
fn ports(header: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    parsed.source_port = u16::from_be_bytes([header[0], header[1]]);
    parsed.destination_port = u16::from_be_bytes([header[2], header[3]]);
    if parsed.source_port == 0 || parsed.destination_port == 0 {
        return Err(DropReason::PortZero);
    }
    Ok(())
}
