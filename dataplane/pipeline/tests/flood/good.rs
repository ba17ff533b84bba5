//! Clients and backends as they should be: handshakes with right numbers, SYNs sent again as TCP
//! does, data that is answered.

use super::{BACKENDS, FIRST_PORT, SERVICES, Test};
use crate::common::net::Parcel;
use crate::common::packets::{ACK, FIN, RST, SYN};
use crate::common::wire::{Segment, TCP};
use crate::common::{BACK_PORT, FRONT_PORT, at, backend_ip, frontend_ip};
use pipeline::frame::Verdict;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

pub const GOOD_LANE: usize = 0;
pub const FLOOD_LANE: usize = 1;
/// Tags: a good connection's packets carry its number and no mark.
pub const FLOOD: u64 = 1 << 40;
/// Forged in the name of a good connection, whose number is beside it.
pub const FORGED: u64 = 1 << 41;
/// The gateway's own.
pub const GENERATED: u64 = 1 << 42;
/// Milliseconds from a SYN to the same again (RFC 6298: 1 s, then twice as long each time).
const AGAIN_MS: [u64; 4] = [0, 1000, 3000, 7000];
/// Connections that are opened at a time.
const AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// Begins at a time, and has sent so many SYNs.
    Begins(u64, usize),
    Open,
}

pub struct Flow {
    pub client: SocketAddr,
    pub frontend: SocketAddr,
    pub phase: Phase,
    pub nat: Option<SocketAddr>,
    pub backend: Option<SocketAddr>,
    /// The first number of client and backend.
    pub first: (u32, u32),
    tries: usize,
}

impl Flow {
    /// Those from `good` on have addresses of their own.
    pub fn new(n: usize, good: usize) -> Self {
        let (v6, host) = (n % 2 == 1, (n / 2 / 2000) as u32);
        let host = if n < good { host } else { host + (1 << 20) };
        let ip = if v6 {
            Ipv6Addr::from_bits(0x2001_0db8_aaaa << 80 | u128::from(host + 1)).into()
        } else {
            Ipv4Addr::from_bits(0x0a00_0001 + host).into()
        };
        Self {
            client: at(ip, 2000 + (n / 2 % 2000) as u16),
            frontend: at(frontend_ip(v6), FIRST_PORT + n as u16 % SERVICES),
            phase: Phase::Idle,
            nat: None,
            backend: None,
            first: ((n as u32).wrapping_mul(0x9e37_79b1), (n as u32).wrapping_mul(0x85eb_ca6b)),
            tries: 0,
        }
    }
    /// The client's segment in the middle of the connection.
    pub fn client_sends(&self, flags: u8) -> Segment {
        let (mine, other) = (self.first.0.wrapping_add(1), self.first.1.wrapping_add(1));
        Segment::tcp(self.client, self.frontend, flags).numbers(mine, other)
    }
    /// The backend's.
    pub fn backend_sends(&self, flags: u8) -> Segment {
        let (mine, other) = (self.first.1.wrapping_add(1), self.first.0.wrapping_add(1));
        Segment::tcp(self.backend.unwrap(), self.nat.unwrap(), flags).numbers(mine, other)
    }
}

impl Test {
    /// The good connections open, and there is nothing else.
    pub fn open_good(&mut self) {
        let at_a_time = (self.net.pipelines[0].capacity()[0] / 8).min(AT_ONCE * self.good / 1000);
        for start in (0..self.good).step_by(at_a_time) {
            self.net.tick(GENERATED);
            let end = (start + at_a_time).min(self.good);
            (start..end).for_each(|n| self.send_syn(n));
            self.settle();
        }
        assert_eq!(self.opened(0..self.good), self.good);
    }
    /// These begin one after the other over so many milliseconds.
    pub fn schedule(&mut self, flows: Range<usize>, ms: u64) {
        let (len, now) = (flows.len() as u64, self.net.now.ms);
        for (n, flow) in self.flows[flows].iter_mut().enumerate() {
            flow.phase = Phase::Begins(now + 1 + n as u64 * ms / len, 0);
        }
    }
    /// How many of these are open.
    pub fn opened(&self, flows: Range<usize>) -> usize {
        self.flows[flows].iter().filter(|flow| flow.phase == Phase::Open).count()
    }
    /// SYNs that these have sent.
    pub fn tries(&self, flows: Range<usize>) -> usize {
        self.flows[flows].iter().map(|flow| flow.tries).sum()
    }
    /// SYNs that are due, for the first time or again.
    pub fn begin_due(&mut self) {
        for n in self.good..self.flows.len() {
            if let Phase::Begins(since, tries) = self.flows[n].phase
                && AGAIN_MS.get(tries).is_some_and(|after| self.net.now.ms >= since + after)
            {
                self.flows[n].phase = Phase::Begins(since, tries + 1);
                self.send_syn(n);
            }
        }
    }
    fn send_syn(&mut self, n: usize) {
        let flow = &mut self.flows[n];
        flow.tries += 1;
        let syn = Segment::tcp(flow.client, flow.frontend, SYN).numbers(flow.first.0, 0);
        self.net.push(GOOD_LANE, n as u64, FRONT_PORT, &syn);
    }
    /// A thousandth of the open connections sends data, each another time.
    pub fn sample(&mut self) {
        for _ in 0..self.good.div_ceil(1000) {
            self.send_data(self.next_sample);
            self.next_sample = (self.next_sample + 1) % self.flows.len();
        }
    }
    /// Each open connection sends data once.
    pub fn exchange_all(&mut self) {
        for n in 0..self.flows.len() {
            self.send_data(n);
            if n % 256 == 0 {
                self.settle();
            }
        }
        self.settle();
    }
    fn send_data(&mut self, n: usize) {
        let flow = &self.flows[n];
        if flow.phase == Phase::Open {
            let data = flow.client_sends(ACK).data(n as u64);
            self.net.push(GOOD_LANE, n as u64, FRONT_PORT, &data);
            self.data.0 += 2;
        }
    }

    /// A packet has come to its end: whoever gets it does what it should.
    pub fn arrived(&mut self, parcel: &Parcel) {
        let number = (parcel.tag & (FLOOD - 1)) as usize;
        match (parcel.verdict, parcel.tag & !(FLOOD - 1)) {
            (Verdict::Send(BACK_PORT), 0) => self.good_at_backend(number, parcel),
            (Verdict::Send(FRONT_PORT), 0) => self.good_at_client(number, parcel),
            (Verdict::Drop(reason), 0) => {
                let open = self.flows[number].phase == Phase::Open;
                assert!(!open, "an open connection's packet is dropped: {}", reason.label());
            }
            (verdict, 0) => panic!("{verdict:?} for {:?}", parcel.segment(true)),
            (verdict, GENERATED) => self.asked(verdict == Verdict::Send(BACK_PORT), parcel),
            (Verdict::Send(BACK_PORT), FORGED) => self.forged_at_backend(number, parcel),
            (_, FORGED) => {}
            (verdict, _) => self.flood_arrived(verdict, parcel),
        }
    }

    fn good_at_backend(&mut self, n: usize, parcel: &Parcel) {
        let segment = parcel.segment(true);
        let flow = &mut self.flows[n];
        let ends = (segment.source, segment.destination);
        if segment.flags & SYN != 0 {
            let of_ours = |b| at(backend_ip(ends.1.is_ipv6(), b), ends.1.port());
            assert!((10..10 + BACKENDS).any(|b| of_ours(b) == ends.1), "{ends:?}");
            (flow.nat, flow.backend) = (Some(ends.0), Some(ends.1));
            let answer = Segment::tcp(ends.1, ends.0, SYN | ACK)
                .numbers(flow.first.1, segment.sequence.wrapping_add(1));
            self.by_nat.insert(ends, n);
            self.net.push(GOOD_LANE, n as u64, BACK_PORT, &answer);
            return;
        }
        assert_eq!((flow.nat, flow.backend), (Some(ends.0), Some(ends.1)), "flow {n} is kept");
        assert_eq!(segment.acknowledged, flow.first.1.wrapping_add(1));
        flow.phase = Phase::Open;
        if let Some(data) = segment.data {
            assert_eq!(data, n as u64);
            self.data.1 += 1;
            let answer = self.flows[n].backend_sends(ACK).data(data);
            self.net.push(GOOD_LANE, n as u64, BACK_PORT, &answer);
        }
    }

    fn good_at_client(&mut self, n: usize, parcel: &Parcel) {
        let segment = parcel.segment(true);
        let flow = &self.flows[n];
        assert_eq!((segment.source, segment.destination), (flow.frontend, flow.client));
        assert_eq!(segment.flags & (RST | FIN), 0, "flow {n}");
        if segment.flags & SYN != 0 {
            let answer = flow.client_sends(ACK);
            self.net.push(GOOD_LANE, n as u64, FRONT_PORT, &answer);
        } else if segment.data.is_some() {
            assert_eq!(segment.data, Some(n as u64));
            self.data.1 += 1;
        }
    }

    /// The gateway asks a side by a segment that doesn't fit: one that lives says where it is.
    fn asked(&mut self, backend: bool, parcel: &Parcel) {
        let segment = parcel.segment(true);
        assert_eq!((segment.protocol, segment.flags), (TCP, ACK));
        let found = if backend {
            self.by_nat.get(&(segment.source, segment.destination))
        } else {
            self.by_client.get(&segment.destination)
        };
        let n = *found.expect("nobody else is asked");
        let flow = &self.flows[n];
        let (answer, port) = if backend {
            (flow.backend_sends(ACK), BACK_PORT)
        } else {
            (flow.client_sends(ACK), FRONT_PORT)
        };
        self.net.push(GOOD_LANE, n as u64, port, &answer);
    }

    /// A forged segment with a number out of the window: a RST is ignored, anything else answered
    /// by an ACK that says which number would fit (RFC 9293 section 3.10.7.4, RFC 5961).
    fn forged_at_backend(&mut self, n: usize, parcel: &Parcel) {
        let segment = parcel.segment(false);
        let flow = &self.flows[n];
        let ends = (Some(segment.source), Some(segment.destination));
        assert_eq!(ends, (flow.nat, flow.backend), "along the connection");
        if segment.flags & RST == 0 {
            let answer = flow.backend_sends(ACK);
            self.net.push(FLOOD_LANE, FORGED | n as u64, BACK_PORT, &answer);
        }
    }
}
