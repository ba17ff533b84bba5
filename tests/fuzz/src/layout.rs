//! Where a frame's headers are, read without the pipeline's code, and checksums recomputed in full.

use etherparse::checksum::Sum16BitWords;

/// Whether an IP packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is whole.
    Whole,
    /// The first fragment.
    First,
    /// A later one.
    Later,
}

/// The offsets and fields of a frame that holds an IP packet. Nothing in it is verified but that
/// the offsets lie within the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what follows the IP headers.
    pub l4: usize,
    /// Where the IP packet says that it ends.
    pub end: usize,
    /// IPv4, else IPv6.
    pub v4: bool,
    /// The protocol after all extension headers.
    pub protocol: u8,
    /// Fragment or not.
    pub piece: Piece,
    /// Where a fragment's identification lies, and how long it is.
    pub identification: Option<(usize, usize)>,
}

/// A 16-bit field; 0 beyond the end.
pub fn word(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(pair) => u16::from_be_bytes([pair[0], pair[1]]),
        None => 0,
    }
}

/// Offset and ethertype of the network header, behind at most one 802.1Q tag, and the tag.
pub fn network(bytes: &[u8]) -> Option<(usize, u16, Option<u16>)> {
    match word(bytes, 12) {
        _ if bytes.len() < 14 => None,
        0x8100 if bytes.len() >= 18 => Some((18, word(bytes, 16), Some(word(bytes, 14)))),
        other => Some((14, other, None)),
    }
}

/// The layout of an IP packet; `None` where it is none or its headers are cut.
pub fn layout(bytes: &[u8]) -> Option<Layout> {
    let (l3, ethertype, _) = network(bytes)?;
    match ethertype {
        0x0800 if bytes.len() >= l3 + 20 => {
            let header = usize::from(bytes[l3] & 15) * 4;
            let flags = word(bytes, l3 + 6);
            let piece = match (flags & 0x1fff, flags & 0x2000) {
                (0, 0) => Piece::Whole,
                (0, _) => Piece::First,
                _ => Piece::Later,
            };
            let l4 = l3 + header;
            (header >= 20 && l4 <= bytes.len()).then_some(Layout {
                l3,
                l4,
                end: l3 + usize::from(word(bytes, l3 + 2)),
                v4: true,
                protocol: bytes[l3 + 9],
                piece,
                identification: (piece != Piece::Whole).then_some((l3 + 4, 2)),
            })
        }
        0x86dd if bytes.len() >= l3 + 40 => {
            let (l4, protocol, piece, header) = behind_extensions(bytes, l3)?;
            let end = l3 + 40 + usize::from(word(bytes, l3 + 4));
            let identification = (piece != Piece::Whole).then_some((header + 4, 4));
            Some(Layout { l3, l4, end, v4: false, protocol, piece, identification })
        }
        _ => None,
    }
}

/// Where the transport header is, its protocol, the piece, and where the fragment header is.
fn behind_extensions(bytes: &[u8], l3: usize) -> Option<(usize, u8, Piece, usize)> {
    let (mut at, mut protocol, mut piece) = (l3 + 40, bytes[l3 + 6], Piece::Whole);
    let mut fragment_header = 0;
    while matches!(protocol, 0 | 43 | 44 | 60) {
        let header = bytes.get(at..at + 8)?;
        let len = if protocol == 44 {
            let flags = word(header, 2);
            fragment_header = at;
            piece = match (flags & 0xfff8, flags & 1) {
                (0, 0) => piece,
                (0, _) => Piece::First,
                _ => Piece::Later,
            };
            8
        } else {
            8 + usize::from(header[1]) * 8
        };
        (at, protocol) = (at + len, header[0]);
        if piece == Piece::Later {
            break;
        }
    }
    (at <= bytes.len()).then_some((at, protocol, piece, fragment_header))
}

impl Layout {
    /// The ranges of source and destination address.
    pub const fn addresses(&self) -> [(usize, usize); 2] {
        if self.v4 {
            [(self.l3 + 12, 4), (self.l3 + 16, 4)]
        } else {
            [(self.l3 + 8, 16), (self.l3 + 24, 16)]
        }
    }
    /// Offset of TTL or hop limit.
    pub const fn ttl(&self) -> usize {
        self.l3 + if self.v4 { 8 } else { 7 }
    }
    /// True for TCP and UDP with their header in this packet.
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, 6 | 17) && self.piece != Piece::Later
    }
    /// Offset of the transport checksum.
    pub const fn l4_checksum(&self) -> Option<usize> {
        match self.protocol {
            6 => Some(self.l4 + 16),
            17 => Some(self.l4 + 6),
            1 | 58 => Some(self.l4 + 2),
            _ => None,
        }
    }
}

/// What is left of the IPv4 header's sum: 0 where its checksum is right.
pub fn ip_sum(bytes: &[u8], at: &Layout) -> u16 {
    Sum16BitWords::new().add_slice(&bytes[at.l3..at.l4]).ones_complement().to_be()
}

/// What is left of the transport's sum: 0 where its checksum is right. `None` where there is no
/// checksum that this packet alone could tell.
pub fn l4_sum(bytes: &[u8], at: &Layout) -> Option<u16> {
    let field = at.l4_checksum()?;
    let l4 = bytes.get(at.l4..at.end)?;
    if at.piece != Piece::Whole
        || field + 2 > at.end
        || (at.protocol == 17 && word(bytes, field) == 0)
    {
        return None;
    }
    let mut sum = Sum16BitWords::new();
    if !(at.v4 && at.protocol == 1) {
        for (start, len) in at.addresses() {
            sum = sum.add_slice(&bytes[start..start + len]);
        }
        sum = sum.add_4bytes((l4.len() as u32).to_be_bytes()).add_2bytes([0, at.protocol]);
    }
    Some(sum.add_slice(l4).ones_complement().to_be())
}

/// Puts the right IPv4 header checksum in.
pub fn fix_ip(bytes: &mut [u8]) {
    let Some(at) = layout(bytes).filter(|at| at.v4) else { return };
    bytes[at.l3 + 10..at.l3 + 12].fill(0);
    let sum = ip_sum(bytes, &at);
    bytes[at.l3 + 10..at.l3 + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts the right transport checksum in, where there is one.
pub fn fix_l4(bytes: &mut [u8]) {
    let Some(at) = layout(bytes) else { return };
    let Some(field) = at.l4_checksum() else { return };
    if l4_sum(bytes, &at).is_none() {
        return;
    }
    // A UDP checksum of 0 would mean none: any other value, taken off again, has the same effect.
    bytes[field..field + 2].copy_from_slice(&[0xff, 0xff]);
    let Some(sum) = l4_sum(bytes, &at) else { return };
    let sum = if sum == 0 { 0xffff } else { sum };
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the IP length fields agree with the frame.
pub fn fix_lengths(bytes: &mut [u8]) {
    let Some(at) = layout(bytes) else { return };
    let ip_len = bytes.len() - at.l3;
    let (field, len) = if at.v4 { (at.l3 + 2, ip_len) } else { (at.l3 + 4, ip_len - 40) };
    bytes[field..field + 2].copy_from_slice(&(len as u16).to_be_bytes());
    if at.protocol == 17 && at.piece == Piece::Whole && bytes.len() >= at.l4 + 8 {
        let udp = (bytes.len() - at.l4) as u16;
        bytes[at.l4 + 4..at.l4 + 6].copy_from_slice(&udp.to_be_bytes());
    }
}
