//! Between mbufs and frames.

use dpdk::{IpChecksum, L4Checksum, Mbuf};
use model::ids::PortId;
use pipeline::frame::{ChecksumReport, Frame, Rx, Verdict};

/// What travels in an mbuf's metadata from worker to worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// To be processed by its owner.
    Process {
        /// The port that received it.
        port: PortId,
        /// How often it was handed over, this time included.
        hops: u8,
        /// Ports of a fragment.
        fragment_ports: Option<(u16, u16)>,
        /// Identification that a fragment leaves with.
        fragment_id: u32,
    },
    /// To be sent on a port whose send queues are all others'.
    Send(PortId),
}

const PROCESS: u64 = 1;
const SEND: u64 = 2;
const WITH_PORTS: u64 = 4;

impl Handed {
    /// As metadata.
    pub fn to_meta(self) -> [u64; 2] {
        match self {
            Self::Send(port) => [SEND, u64::from(port.0)],
            Self::Process { port, hops, fragment_ports, fragment_id } => {
                let flag = if fragment_ports.is_some() { WITH_PORTS } else { 0 };
                let (source, destination) = fragment_ports.unwrap_or_default();
                let ports = u64::from(source) << 16 | u64::from(destination);
                let kind = PROCESS | flag | u64::from(fragment_id) << 32;
                [kind, u64::from(port.0) | u64::from(hops) << 8 | ports << 32]
            }
        }
    }
    /// From metadata that [`Self::to_meta`] made.
    pub const fn from_meta([kind, value]: [u64; 2]) -> Self {
        let port = PortId(value as u8);
        if kind == SEND {
            return Self::Send(port);
        }
        let ports = ((value >> 48) as u16, (value >> 32) as u16);
        Self::Process {
            port,
            hops: (value >> 8) as u8,
            fragment_ports: if kind & WITH_PORTS != 0 { Some(ports) } else { None },
            fragment_id: (kind >> 32) as u32,
        }
    }
}

/// A frame over an mbuf's first segment.
#[inline]
pub fn frame(mbuf: &mut Mbuf, handed: Option<Handed>, port: PortId) -> Frame<'_> {
    let (ip, l4) = mbuf.rx_checksum();
    let mut rx = Rx {
        port,
        vlan: mbuf.vlan_tci(),
        hash: mbuf.rss_hash(),
        ip_checksum: match ip {
            IpChecksum::Good => ChecksumReport::Good,
            IpChecksum::Bad => ChecksumReport::Bad,
            _ => ChecksumReport::Unknown,
        },
        l4_checksum: match l4 {
            L4Checksum::Good => ChecksumReport::Good,
            L4Checksum::Bad => ChecksumReport::Bad,
            _ => ChecksumReport::Unknown,
        },
        hops: 0,
        fragment_ports: None,
        fragment_id: 0,
    };
    if let Some(Handed::Process { port, hops, fragment_ports, fragment_id }) = handed {
        (rx.port, rx.hops) = (port, hops);
        (rx.fragment_ports, rx.fragment_id) = (fragment_ports, fragment_id);
    }
    let tail = mbuf.len() - mbuf.head_len();
    let (buffer, start, len) = mbuf.buffer_mut();
    Frame::new(buffer, start, start + len, tail, rx)
}

/// What the pipeline made of a frame, to be done to its mbuf.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    span: (usize, usize),
    keeps_tail: bool,
    rx: Rx,
}

impl Outcome {
    /// Of a frame that has its verdict.
    #[inline]
    pub fn of(frame: &Frame<'_>) -> Self {
        Self {
            verdict: frame.verdict,
            span: frame.span(),
            keeps_tail: frame.tail_len() > 0,
            rx: frame.rx,
        }
    }
    /// Makes the mbuf's first segment what the frame was. False where that can't be, which would
    /// be an error of ours: the packet is then not to be sent.
    #[inline]
    pub fn apply(&self, mbuf: &mut Mbuf) -> bool {
        if !self.keeps_tail && mbuf.segments() > 1 {
            mbuf.truncate_to_head();
        }
        mbuf.set_head(self.span.0, self.span.1).is_ok()
    }
    /// What its next worker has to know.
    pub const fn handed(&self) -> Handed {
        Handed::Process {
            port: self.rx.port,
            hops: self.rx.hops + 1,
            fragment_ports: self.rx.fragment_ports,
            fragment_id: self.rx.fragment_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_what_it_is_given() {
        let process = |hops, fragment_ports| Handed::Process {
            port: PortId(3),
            hops,
            fragment_ports,
            fragment_id: 0xfedc_ba98,
        };
        for handed in [
            Handed::Send(PortId(9)),
            process(0, None),
            process(2, Some((65_535, 1))),
            process(1, Some((0, 53))),
        ] {
            assert_eq!(Handed::from_meta(handed.to_meta()), handed);
        }
    }
}
