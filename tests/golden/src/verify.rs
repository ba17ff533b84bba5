//! Checks every checksum of a frame by recomputing it in full, with etherparse.

use crate::packet::pseudo;
use etherparse::checksum::Sum16BitWords;
use etherparse::{LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket};
use std::net::IpAddr;

/// What is wrong with the frame, if anything: it has to parse as a whole, and all its checksums
/// have to be right; of fragments the IP header's alone.
pub fn checksums(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|e| format!("{e}"))?;
    let (source, destination, payload) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            ipv4_header(ip.header().slice())?;
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        _ => return Ok(()),
    };
    if payload.fragmented {
        return Ok(());
    }
    l4(payload.ip_number.0, (source, destination), payload.payload)?;
    quoted(payload.ip_number.0, payload.payload)
}

/// The header of an IPv4 packet.
fn ipv4_header(header: &[u8]) -> Result<(), String> {
    match Sum16BitWords::new().add_slice(header).ones_complement() {
        0 => Ok(()),
        left => Err(format!("IPv4 header checksum is off by {left:#06x}")),
    }
}

/// The transport header and its payload, whole.
fn l4(protocol: u8, (source, destination): (IpAddr, IpAddr), bytes: &[u8]) -> Result<(), String> {
    let sum = match protocol {
        6 | 58 => pseudo(source, destination, protocol, bytes.len()),
        17 if bytes.get(6..8) == Some(&[0, 0]) => {
            return if source.is_ipv4() {
                Ok(())
            } else {
                Err("UDP over IPv6 without a checksum".to_owned())
            };
        }
        17 => pseudo(source, destination, protocol, bytes.len()),
        1 => Sum16BitWords::new(),
        _ => return Ok(()),
    };
    match sum.add_slice(bytes).ones_complement() {
        0 => Ok(()),
        left => Err(format!("checksum of protocol {protocol} is off by {left:#06x}")),
    }
}

/// The packet that an ICMP error quotes: its IPv4 header, and its transport where it is whole.
fn quoted(protocol: u8, icmp: &[u8]) -> Result<(), String> {
    let error = match protocol {
        1 => matches!(icmp.first(), Some(3 | 4 | 11 | 12)),
        58 => matches!(icmp.first(), Some(1..=4)),
        _ => false,
    };
    if !error {
        return Ok(());
    }
    let inner = icmp.get(8..).unwrap_or(&[]);
    let Ok(packet) = LaxSlicedPacket::from_ip(inner) else { return Ok(()) };
    let (source, destination, payload) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            ipv4_header(ip.header().slice()).map_err(|e| format!("quoted: {e}"))?;
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        _ => return Ok(()),
    };
    if payload.fragmented || payload.incomplete {
        return Ok(());
    }
    l4(payload.ip_number.0, (source, destination), payload.payload)
        .map_err(|e| format!("quoted: {e}"))
}
